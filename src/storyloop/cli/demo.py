"""`demo`: the whole pipeline on a throw-away repository, with scripted agents: no key, no network."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click

from storyloop.cli.faces import face_for
from storyloop.cli.run import driven
from storyloop.driving import open_run
from storyloop.preparing import prepare
from storyloop.views.header import header
from storyloop.wiring import make_service

_FILES = Path(__file__).parent / "demo_files"
_NAME, _EMAIL = "Demo", "demo@example.invalid"


@click.command()
@click.option("--keep", is_flag=True, help="Keep the repository and the run's files, and say where they are.")
@click.option("-v", "--verbose", is_flag=True, help="A line for each fact, with its time.")
def demo(keep: bool, verbose: bool) -> int:
    """Watch a complete run in half a minute: partial work, an invalid answer, a red check, a crashing agent."""
    with _place(keep=keep) as place:
        repository = place / "tea-timer"
        environ = _made(place, repository)
        service = make_service(environ)
        face = face_for(quiet=False, verbose=verbose, as_json=False)
        prepared = prepare(service, repository / "spec.md", repository)
        face.tell(
            header(
                prepared.spec,
                prepared.policy,
                prepared.bounds,
                branch=prepared.spec.branch_name,
                worktree=prepared.worktree,
                sandbox=prepared.sandbox,
            )
        )
        code = driven(service, [(open_run(service, prepared), face)])
        click.echo("\nThe commits on the run's branch:")
        click.echo(
            _git(repository, environ, "log", "--oneline", "--stat", f"main..{prepared.spec.branch_name}"), nl=False
        )
        if keep:
            click.echo(f"\nkept in {place}")
            click.echo(f"look closer: cd {repository} && STORYLOOP_HOME={place}/state storyloop show")
        else:
            click.echo("\nThe repository was thrown away; `storyloop demo --keep` keeps it to look around.")
        return code


@contextmanager
def _place(*, keep: bool) -> Generator[Path]:
    place = Path(tempfile.mkdtemp(prefix="storyloop-demo-"))
    try:
        yield place
    finally:
        if not keep:
            shutil.rmtree(place)


def _made(place: Path, repository: Path) -> dict[str, str]:
    """The repository with its first commit; the environment that keeps everything of the demo in one directory."""
    (place / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TERM", "TMPDIR")}
    environ = kept | {"HOME": str(place / "home"), "STORYLOOP_HOME": str(place / "state")}
    shutil.copytree(_FILES, repository)
    _git(repository, environ, "init", "--quiet", "--initial-branch=main")
    _git(repository, environ, "config", "user.name", _NAME)
    _git(repository, environ, "config", "user.email", _EMAIL)
    _git(repository, environ, "add", "--all")
    _git(repository, environ, "commit", "--quiet", "--message=A repository to try things on")
    return environ


def _git(repository: Path, environ: dict[str, str], *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=repository, env=environ, check=True, capture_output=True, text=True)
    return done.stdout
