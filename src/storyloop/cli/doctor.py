"""`doctor`: what this machine lacks for a run, told before one; and the agents, driven for real, at zero tokens."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from storyloop.cli.here import here, identity_of
from storyloop.cli.json_text import json_line
from storyloop.config import ConfigErrors, load
from storyloop.core.errors import StoryloopError, UserError
from storyloop.home import database_file, state_directory
from storyloop.world.text import readable

_T = TypeVar("_T")
_SCARCE, _TOO_LITTLE = 2_000_000_000, 200_000_000  # bytes of disk


class Verdict(StrEnum):
    """How a part of this machine was found."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True):
    """One line of what was found; the cure is empty where nothing is to be done."""

    about: str
    verdict: Verdict
    says: str
    cure: str = ""


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--agents", "drive", is_flag=True, help="Drive installed agents (those named) against a scripted model.")
@click.option("--record", "into", type=click.Path(path_type=Path), help="Record what they print into this directory.")
@click.option("--json", "as_json", is_flag=True, help="What was found as JSON.")
def doctor(names: tuple[str, ...], drive: bool, into: Path | None, as_json: bool) -> int:
    """Check git, the store, the disk, the sandbox, the configuration and each installed agent.

    \b
    storyloop doctor --agents           run every installed agent CLI for real, offline, at zero tokens
    storyloop doctor --agents claude
    """
    if drive or into is not None:
        return _driven(names, into, as_json=as_json)
    if names:
        raise click.UsageError("NAME goes with --agents or --record.")
    findings = [*examined(os.environ)]
    if as_json:
        click.echo(json_line(findings))
    else:
        width = max(len(finding.about) for finding in findings)
        for finding in findings:
            told = " ".join(filter(None, (finding.says, finding.cure)))
            click.echo(readable(f"{finding.verdict:<7}  {finding.about:<{width}}  {told}"))
    return int(any(finding.verdict is Verdict.PROBLEM for finding in findings))


def examined(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Everything that was found, part by part; what one part lacks keeps no other from being looked at."""
    parts: dict[str, Callable[[Mapping[str, str]], Iterator[Finding]]] = {
        "git": _git,
        "store": _store,
        "disk": _disk,
        "configuration": _configuration,
        "sandbox": _sandbox,
        "agents": _agents,
    }
    for about, look in parts.items():
        try:
            yield from look(environ)
        except ConfigErrors as error:
            for problem in error.problems:
                yield Finding(about, Verdict.PROBLEM, str(problem))
        except StoryloopError as error:
            yield Finding(about, Verdict.PROBLEM, error.problem, error.cure)


def _git(environ: Mapping[str, str]) -> Iterator[Finding]:
    from storyloop.world.git import IDENTITY, Git
    from storyloop.world.survey import discover

    outside = identity_of(here()) is None
    try:
        facts = discover(here(), environ)
    except UserError as error:
        if not outside or shutil.which("git", path=environ.get("PATH")) is None:
            raise
        yield Finding("repository", Verdict.WARNING, error.problem, error.cure)
    else:
        yield Finding("repository", Verdict.OK, facts.checkout)
        yield from (Finding("repository", Verdict.WARNING, warning) for warning in facts.warnings)
    git = Git(environ=environ, cwd=str(here()))
    yield Finding("git", Verdict.OK, git.line("--version"))
    user = {name: value for name, value in environ.items() if name in IDENTITY}
    known = git.ask("var", "GIT_AUTHOR_IDENT", env=user)
    if known.code == 0:
        yield Finding("git", Verdict.OK, f"commits are made as {os.fsdecode(known.out).rpartition('>')[0]}>")
    else:
        yield Finding(
            "git",
            Verdict.PROBLEM,
            "git does not know who you are, and commits are made in your name.",
            'Say it: `git config --global user.name "Your Name"` and `git config --global user.email you@example.com`.',
        )


def _store(environ: Mapping[str, str]) -> Iterator[Finding]:
    from contextlib import closing

    from storyloop.journal.database import failures_told, open_for_writing, require_place, transaction

    path = database_file(environ)
    if not path.exists():
        require_place(path)
        yield Finding("store", Verdict.OK, f"{path} is made by the first run.")
        return
    with failures_told(path), closing(open_for_writing(path)) as database:
        with transaction(database):
            damage: str = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        runs: int = database.execute("SELECT count(*) FROM run").fetchone()[0]
    if damage == "ok":
        yield Finding("store", Verdict.OK, f"{path} can be written and is whole; runs: {runs}.")
    else:
        cure = "Restore it from a backup, or move it away to begin a new one: branches and pins are in git."
        yield Finding("store", Verdict.PROBLEM, f"{path} is damaged: {damage}.", cure)


def _disk(environ: Mapping[str, str]) -> Iterator[Finding]:
    for what, place in {"state": state_directory(environ), "worktrees": here().parent}.items():
        there = next(above for above in (place, *place.parents) if above.is_dir())
        free = shutil.disk_usage(there).free
        says = f"{free / 1e9:.1f} GB are free for {what} ({there})."
        if free > _SCARCE:
            yield Finding("disk", Verdict.OK, says)
        else:
            verdict = Verdict.WARNING if free > _TOO_LITTLE else Verdict.PROBLEM
            yield Finding("disk", verdict, says, "Make room: each run keeps a worktree and what its agents printed.")


def _configuration(environ: Mapping[str, str]) -> Iterator[Finding]:
    loaded = load(root=_root(environ), environ=environ)
    yield Finding("configuration", Verdict.OK, f"read; settings that somebody made: {len(loaded.values)}.")
    yield from (Finding("configuration", Verdict.WARNING, warning) for warning in loaded.warnings)


def _sandbox(environ: Mapping[str, str]) -> Iterator[Finding]:
    from storyloop.world.sandbox import held_by, why_not

    held = held_by(load(root=_root(environ), environ=environ).policy.sandbox)  # refuses what is required in vain
    missing = why_not()
    cure = "Install bubblewrap and allow user namespaces, to keep agents in their worktree." if missing else ""
    yield Finding("sandbox", Verdict.WARNING if missing else Verdict.OK, f"{held}.".replace("..", "."), cure)


def _agents(environ: Mapping[str, str]) -> Iterator[Finding]:
    from storyloop.agents.installed import look
    from storyloop.agents.profiles import PROFILES

    here = {name: installed for name, installed in look(environ).items() if installed is not None}
    for name, installed in here.items():
        profile = PROFILES[name]
        about = f"agent {name}"
        version = installed.version or "a version that it does not tell"
        if profile.versions and installed.version not in profile.versions:
            known = ", ".join(profile.versions)
            cure = f"`storyloop doctor --agents {name}` tries it, offline and at zero tokens."
            yield Finding(about, Verdict.WARNING, f"{version} was never seen by us (known: {known}).", cure)
        else:
            told = "" if profile.versions else " (nobody of us has measured it)"
            yield Finding(about, Verdict.OK, f"{version}{told}, {installed.path}")
        if installed.is_logged_in is None:
            cure = "Start it once by hand, and log in if it asks."
            yield Finding(
                about, Verdict.WARNING, "nothing that can be seen from outside says that it is logged in.", cure
            )
    if not here:
        cure = "`storyloop agents` tells how to install one; an agent of your own needs none of them."
        yield Finding("agents", Verdict.WARNING, "No agent that we know is on your PATH.", cure)


def _root(environ: Mapping[str, str]) -> Path | None:
    from storyloop.world.survey import discover

    return None if identity_of(here()) is None else Path(discover(here(), environ).checkout)


# --- agents, driven for real ----------------------------------------------------------------------------------------


def _driven(names: tuple[str, ...], into: Path | None, *, as_json: bool) -> int:
    """Where this machine allows it, the whole program starts again where only loopback exists."""
    from storyloop.conformance.alone import is_alone, raise_loopback, way_there
    from storyloop.conformance.scratch import driven

    if is_alone():
        raise_loopback()
    elif way := way_there():
        return subprocess.run([*way, sys.executable, "-m", "storyloop", *sys.argv[1:]], check=False).returncode
    else:
        told = "This machine allows no network namespace: agents get a proxy that does not exist, and no more."
        click.echo(f"note: {told}", err=True)
    installed = _versions(names)
    if into is not None:
        return _recorded(into, installed)
    from storyloop.conformance.matrix import Verdict as CellVerdict
    from storyloop.conformance.matrix import fill, table

    rows = list(_counted(driven(installed, os.environ, fill), len(installed)))
    rows.sort(key=lambda row: [*installed].index(row.agent))
    click.echo(json_line({"alone": is_alone(), "agents": rows}) if as_json else readable("\n".join(table(rows))))
    return int(any(cell.verdict is CellVerdict.FAILED for row in rows for cell in row.cells.values()))


def _recorded(into: Path, installed: Mapping[str, str]) -> int:
    from functools import partial

    from storyloop.conformance.recorder import record
    from storyloop.conformance.scratch import driven

    for kept in _counted(driven(installed, os.environ, partial(record, into=into)), len(installed)):
        click.echo("\n".join(map(str, kept)))
    return 0


def _counted(done: Iterator[_T], total: int) -> Iterator[_T]:
    """On a terminal, how far it is: each agent takes its time."""
    waiting = sys.stderr.isatty()
    for number in range(total):
        if waiting:
            click.echo(f"\r{number} of {total} agents done ...", err=True, nl=False)
        yield next(done)
    if waiting:
        click.echo("\r" + " " * 40 + "\r", err=True, nl=False)


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    """The agents that can be driven here, with their versions."""
    from storyloop.agents.installed import look
    from storyloop.agents.profiles import PROFILES

    if unknown := [name for name in names if name not in PROFILES or PROFILES[name].offline is None]:
        able = ", ".join(name for name, profile in PROFILES.items() if profile.offline is not None)
        raise UserError(f"{unknown[0]} cannot be driven offline.", f"These can: {able}.")
    found = {name: installed for name, installed in look(os.environ).items() if PROFILES[name].offline is not None}
    for name in names:
        if found[name] is None:
            raise UserError(f"{name} is not on your PATH.", f"Install it: {PROFILES[name].install}.")
    wanted = {name: found[name] for name in names or found}
    here = {name: installed.version or "unknown" for name, installed in wanted.items() if installed is not None}
    if not here:
        raise UserError("No agent that we can drive is on your PATH.", "`storyloop agents` tells how to install one.")
    return here
