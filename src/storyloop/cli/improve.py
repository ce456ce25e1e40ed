"""`improve`: follow-up work on a branch, with what earlier runs on it learnt: stories, or an agent's session."""

import os
import sys
from pathlib import Path
from typing import Any, assert_never

import click

from storyloop.cli.faces import face_for
from storyloop.cli.here import here, identity_of
from storyloop.cli.run import driven, header_of, no_review, with_limits, with_output
from storyloop.cli.spec_new import talk
from storyloop.config.layers import Flags
from storyloop.config.load import load
from storyloop.contracts.prompts import TemplatePrompts, read_overrides
from storyloop.core.errors import UserError
from storyloop.core.run_state import RunState
from storyloop.driving import open_run
from storyloop.ports.repository import CheckedOut, Clashes, Exists, Free
from storyloop.preparing import prepare
from storyloop.service import HeldElsewhereError, Service
from storyloop.views.earlier import earlier, learnt
from storyloop.wiring import make_service
from storyloop.world.git import Git
from storyloop.world.survey import branch_state, discover


@click.command()
@click.argument("words", metavar="[BRANCH] [SPEC]", nargs=-1)
@with_limits
@no_review
@with_output
def improve(words: tuple[str, ...], quiet: bool, verbose: bool, as_json: bool, **said: Any) -> int:
    """Go on with a branch, with what earlier runs on it learnt, decided, left open, and what has gone stale since.

    \b
    storyloop improve                        # talk with an agent, in the branch's worktree
    storyloop improve feature/x more.md      # run these stories on that branch

    With a spec its stories are run on the branch, whatever branch the spec names. Without one this terminal is
    handed to the first agent of the plan chain. BRANCH left out is that of the repository's newest run.
    """
    service = make_service()
    named, spec = _told_apart(words)
    branch, states = _runs_on(service, named)
    facts = discover(here(), os.environ)
    git = Git(environ=os.environ, cwd=facts.checkout)
    state = branch_state(git, branch)
    if isinstance(state, Free | Clashes):
        raise UserError(f"There is no branch {branch} any more.", "`git branch --all` lists those that there are.")
    told = earlier(states, tip_tree=git.line("rev-parse", f"refs/heads/{branch}^{{tree}}"))
    if spec is None:
        for flag, value in said.items():
            if value and flag != "agents":
                raise click.UsageError(f"--{flag.replace('_', '-')} is for a run: give a SPEC.")
        return _talked(branch, _checkout_of(branch, state), f"{told}\n\n{learnt(states[0])}", agents=said["agents"])
    flags = Flags(**said)
    prepared = prepare(service, spec, here(), flags=flags, improves=branch, earlier=told)
    face = face_for(quiet=quiet, verbose=verbose, as_json=as_json)
    for note in prepared.notes:
        face.tell(f"note: {note}")
    face.tell(header_of(prepared))
    return driven(service, [(open_run(service, prepared), face)])


def _told_apart(words: tuple[str, ...]) -> tuple[str | None, Path | None]:
    match words:
        case ():
            return None, None
        case (one,):
            return (None, Path(one)) if Path(one).is_file() else (one, None)
        case (branch, spec):
            return branch, Path(spec)
        case _:
            raise click.UsageError("Give a BRANCH, a SPEC, or both.")


def _runs_on(service: Service, branch: str | None) -> tuple[str, list[RunState]]:
    """The branch, and the runs on it, newest first; none of them may be live."""
    rows = service.rows(identity_of(here()))
    branch = branch or next((row.branch for row in rows), None)
    mine = [row for row in rows if row.branch == branch]
    if branch is None or not mine:
        raise UserError(
            f"No run was ever on {f'branch {branch}' if branch else 'a branch of this repository'}.",
            "`storyloop run SPEC --reuse-branch` builds on any branch; `storyloop status` lists the runs.",
        )
    for row in mine:
        if (pid := service.holder(row.run_id)) is not None:
            raise HeldElsewhereError(row.run_id, pid)
    return branch, [service.state(row.run_id) for row in mine]


def _checkout_of(branch: str, state: CheckedOut | Exists) -> Path:
    match state:
        case CheckedOut(path=path):
            return Path(path)
        case Exists():
            raise UserError(
                f"Branch {branch} is checked out nowhere.",
                f"Switch to it (`git switch {branch}`), or make a worktree of it, and try again.",
            )
        case _:
            assert_never(state)


def _talked(branch: str, checkout: Path, told: str, *, agents: tuple[str, ...]) -> int:
    if not sys.stdin.isatty():
        cure = f"Start it in one, or give a spec: `storyloop improve {branch} SPEC`."
        raise UserError("`improve` without a spec hands your terminal to an agent, but this is no terminal.", cure)
    root = Path(discover(here(), os.environ).checkout)
    policy = load(root=root, environ=os.environ, flags=Flags(agents=agents)).policy
    talk(policy, checkout, TemplatePrompts(read_overrides(root)).improving(branch, told, policy), "when you are done")
    click.echo(f"Commit what is to stay. More stories on it: storyloop improve {branch} SPEC")
    return 0
