"""The `storyloop.toml` that `init` writes: what was found, each line with its reason, and how to go on by hand."""

from collections.abc import Iterator, Sequence

from storyloop.config.detect import Proposals, ProposedCheck
from storyloop.config.kinds import literal

_HEAD = """\
# How Storyloop works in this repository. Everything left out has a default;
# `storyloop config show` prints every value in force and where it comes from.
"""

_FOUND = """\
# Agents that were found here, the preferred one first; the others are fallen back to. `storyloop agents` shows more.
[chains]
default = {chain}
"""

_OWN = """\
# No agent known by name was found; `storyloop agents` tells how to install one. Any program of yours that takes its
# task on stdin works too: describe it and name it in the chain.
#
# [agents.mine]
# kind = "command"
# command = ["./my-agent", "--yes"]
#
# [chains]
# default = ["mine"]           # the preferred one first; the others are fallen back to
"""

_PROOF = """\
# What becomes of a change that bends its own proof (checks, test configuration, CI, weakened tests): "report" tells
# you, "deny" sends it back to its agent.
# [proof]
# tampering = "report"
"""

_NO_CHECKS = """\
# No tests, linters or builds were found that the project has set up. Name yours, or give each story
# of a specification a `verify` command: nothing passes here on an agent's word.
# test = "..."
"""


def render_storyloop_toml(proposals: Proposals, *, agents_found: Sequence[str]) -> str:
    """A valid file with comments. To write it, never over another, and to tell the notes is the caller's part."""
    agents = _FOUND.format(chain=literal(list(agents_found))) if agents_found else _OWN
    parts = [_HEAD, agents, "\n".join(_checks(proposals))]
    if proposals.setup or proposals.copy:
        parts.append("\n".join(_worktree(proposals)))
    return "\n".join([*parts, _PROOF])


def _checks(proposals: Proposals) -> Iterator[str]:
    yield "# Run by Storyloop itself, in this order, after each attempt; a story passes only when they are green."
    yield "[checks]"
    if not proposals.checks:
        yield _NO_CHECKS
        return
    for check in proposals.checks:
        yield f"{check.name} = {literal(_value(check))}  # {check.why}"
    yield ""


def _value(check: ProposedCheck) -> object:
    said = {"run": check.command, "timeout": check.timeout, "env": check.env}
    given = {name: part for name, part in said.items() if part}
    return check.command if len(given) == 1 else given


def _worktree(proposals: Proposals) -> Iterator[str]:
    yield "[worktree]"
    if proposals.setup:
        yield "setup = [  # run once in each new worktree"
        for setup in proposals.setup:
            yield f"    {literal(setup.command)},  # {setup.why}"
        yield "]"
    if proposals.copy:
        yield f"copy = {literal(list(proposals.copy))}  # ignored by git; agents and checks will be able to read them"
    yield ""
