"""`spec new`: the user's terminal is handed to an agent, and the spec that the two agreed on is found and checked."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from storyloop.agents.installed import absent_program
from storyloop.agents.interactive import session_with
from storyloop.cli.here import here
from storyloop.config.layers import Flags
from storyloop.config.load import load
from storyloop.contracts.prompts import TemplatePrompts, read_overrides
from storyloop.core.errors import UserError
from storyloop.core.policy import Drain, Policy
from storyloop.core.spec_file import is_json
from storyloop.preparing import read_spec
from storyloop.views.header import spec_lines
from storyloop.world.git import Git
from storyloop.world.survey import discover
from storyloop.world.terminal import hand_over
from storyloop.world.text import readable

_SPECS = ("*.md", "*.markdown", "*.json")
_Stamp = tuple[int, int, int]


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--agent", "agents", multiple=True, metavar="NAME", help="Talk with this agent.")
def new(file: Path | None, agents: tuple[str, ...]) -> int:
    """Talk a spec with an agent of yours, in this terminal, and have it written to FILE (spec.md, or a free name).

    The agent runs as if you had started it here yourself: in your checkout, with your environment, in no sandbox.
    """
    if not sys.stdin.isatty():
        cure = "Start it in one, or write the spec yourself: `storyloop spec check FILE` tells what is wrong with it."
        raise UserError("`spec new` hands your terminal to an agent, but this is no terminal.", cure)
    wanted = here() / (file or _free_name(here()))
    if is_json("", name=wanted.name):
        raise UserError(f"{wanted.name} would be JSON.", "Name a Markdown file: that is what you talk about.")
    checkout = Path(discover(here(), os.environ).checkout)
    policy = load(root=checkout, environ=os.environ, flags=Flags(agents=agents)).policy
    before = _stamps(checkout, wanted)
    opening = TemplatePrompts(read_overrides(checkout)).interview(wanted, policy)
    talk(policy, checkout, opening, "when the spec is written")
    spec = _written(before, _stamps(checkout, wanted), wanted)
    shown = shlex.quote(os.path.relpath(spec))
    click.echo(f"{shown} is written.")
    return _offered(spec, shown)


def talk(policy: Policy, checkout: Path, opening: str, until: str) -> None:
    """This terminal is the first agent's that has an interactive mode, in this checkout, until its session is left."""
    reasons: list[str] = []
    for ref in policy.chain_of(Drain.PLAN):
        agent = policy.agents[ref.agent]
        session = session_with(ref, agent, opening=opening)
        if session is None:
            reasons.append(f"{ref} has no interactive mode that is known")
        elif program := absent_program(agent, os.environ):
            reasons.append(f"{ref}: {program} was not found")
        else:
            click.echo(f"{ref} takes over this terminal; leave its session {until}.", err=True)
            status = hand_over(session.argv, cwd=checkout, env=os.environ | session.env)
            if status:
                click.echo(f"note: {ref} ended with exit status {status}", err=True)
            return
    raise UserError(
        f"There is nobody to talk with: {'; '.join(reasons) or 'no agent is configured'}.",
        "Name another one with --agent, or in [chains] or [drains] plan of your configuration.",
    )


def _free_name(directory: Path) -> str:
    names = ("spec.md", *(f"spec-{number}.md" for number in range(2, 1000)))
    return next(name for name in names if not (directory / name).exists())


def _stamps(checkout: Path, wanted: Path) -> dict[Path, _Stamp]:
    """What could be a spec: the file that was asked for, and what git does not ignore."""
    git = Git(environ=os.environ, cwd=str(checkout))
    listed = git.run("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_SPECS)
    paths = (wanted, *(checkout / os.fsdecode(name) for name in listed.split(b"\0") if name))
    stats = {path: path.stat() for path in paths if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_size, stat.st_ino) for path, stat in stats.items()}


def _written(before: Mapping[Path, _Stamp], after: Mapping[Path, _Stamp], wanted: Path) -> Path:
    """The new or changed spec: the one that was asked for, else the newest that is one or was meant to be."""
    changed = [path for path, stamp in after.items() if before.get(path) != stamp]
    if wanted in changed:
        return wanted
    for path in sorted(changed, key=lambda path: after[path], reverse=True):
        try:
            spec, _ = read_spec(path)
        except UserError:  # broken stories are told; but broken JSON may be anything
            if not is_json("", name=path.name):
                return path
        else:
            if not spec.is_free_form:
                return path
    raise UserError("No spec was written.", f"Start again, or write {os.path.relpath(wanted)} yourself.")


def _offered(spec: Path, shown: str) -> int:
    from storyloop.cli.run import run

    click.echo(readable("\n".join(spec_lines(read_spec(spec)[0]))))
    if sys.stdout.isatty() and click.confirm("Run it now?"):
        return click.get_current_context().invoke(run, specs=(spec,))
    click.echo(f"Run it with: storyloop run {shown}")
    return 0
