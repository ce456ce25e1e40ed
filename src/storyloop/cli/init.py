"""`init`: find what proves this project, and write a first storyloop.toml."""

import os
import subprocess
from pathlib import Path

import click

from storyloop.agents.installed import found_here
from storyloop.cli.here import here
from storyloop.config import REPOSITORY_FILE
from storyloop.config.detect import propose
from storyloop.config.starter import render_storyloop_toml
from storyloop.core.errors import UserError
from storyloop.world.survey import discover


@click.command()
@click.option("--force", is_flag=True, help="Replace a storyloop.toml that is there.")
@click.option("--print", "only_print", is_flag=True, help="Print the file instead of writing it.")
def init(force: bool, only_print: bool) -> int:
    """Find this project's checks and your agents, and write a commented storyloop.toml."""
    root = Path(discover(here(), os.environ).checkout)
    proposals = propose(root, is_ignored=lambda path: _is_ignored(root, path))
    found = found_here(os.environ)
    text = render_storyloop_toml(proposals, agents_found=found)
    for note in proposals.notes:
        click.echo(f"note: {note}", err=True)
    if only_print:
        click.echo(text, nl=False)
        return 0
    path = root / REPOSITORY_FILE
    if path.exists() and not force:
        raise UserError(f"{path} is there already.", "Edit it, or replace it with --force; --print only shows.")
    path.write_text(text)
    click.echo(f"{path} written.")
    for check in proposals.checks:
        click.echo(f"  check {check.name}: {check.command}  ({check.why})")
    if not proposals.checks:
        click.echo("  no checks were found; name yours there, or give criteria a `verify:` line")
    first = f"agents: {', '.join(found)}" if found else "no agent known by name was found; name yours there"
    click.echo(f"  {first}")
    click.echo("Next: `storyloop spec check SPEC` and `storyloop run SPEC`.")
    return 0


def _is_ignored(root: Path, path: str) -> bool:
    asked = subprocess.run(["git", "check-ignore", "--quiet", "--", path], cwd=root, check=False, capture_output=True)
    return asked.returncode == 0
