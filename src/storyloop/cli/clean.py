"""`clean`: what finished and stale runs of this repository left is shown, and removed by rule."""

import json
import sys
from typing import Any

import click

from storyloop.cleaning import Leftover, looked_through, removed
from storyloop.cli.here import here, identity_of
from storyloop.config.kinds import DURATION, Unfit
from storyloop.core.errors import UserError
from storyloop.service import Service
from storyloop.wiring import make_service
from storyloop.world.text import readable


def _age(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else float(str(DURATION.read(text)))
    except Unfit as unfit:
        raise click.BadParameter(f"it {unfit}") from None


@click.command()
@click.option(
    "--older-than", callback=_age, metavar="AGE", help="Only what has ended, or stood still, so long ago: 14d."
)
@click.option("--dry-run", is_flag=True, help="Show what would go, and touch nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask about work that is not committed or not pushed.")
@click.option("--json", "as_json", is_flag=True, help="What there is and what became of it, as JSON.")
def clean(older_than: float | None, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Remove what this repository's finished or stale runs left: worktrees, spare refs, and what was printed.

    Without --older-than: the worktrees and refs of runs that have ended at once, stale worktrees and what agents and
    checks printed after 14 days. Branches and the journal stay. Work that no branch and no ref has is kept by a ref.
    """
    repository = identity_of(here())
    if repository is None:
        raise UserError("You are in no repository.", "Go to one whose runs are to be cleaned up.")
    service = make_service()
    found = looked_through(service, repository, older_than=older_than)
    told: list[dict[str, Any]] = []
    for leftover in found.leftovers:
        became = "would be removed" if dry_run else _done(service, leftover, yes=yes)
        if dry_run and leftover.asks:
            became = f"would be asked about: {leftover.asks}"
        told.append({**_plain(leftover), "became": became})
        if not as_json:
            size = f" ({leftover.bytes / 1e6:,.1f} MB)" if leftover.bytes else ""
            click.echo(readable(f"{leftover.run_id[:8]}  {leftover.what}{size}: {became} [{leftover.why}]"))
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return 0
    for run, why in found.spared.items():
        click.echo(f"{run[:8]}  is not touched: {why}", err=True)
    if not told:
        click.echo("Nothing is left that may go.", err=True)
    return 0


def _done(service: Service, leftover: Leftover, *, yes: bool) -> str:
    if leftover.asks and not yes:
        if not sys.stdin.isatty():
            return f"was left: {leftover.asks} (--yes takes it along)"
        click.echo(readable(f"{leftover.run_id[:8]}  {leftover.what}: {leftover.asks}."), err=True)
        if not click.confirm("Remove it? What no ref has is kept by a ref first.", err=True):
            return "was left: you said so"
    return removed(service, leftover)


def _plain(leftover: Leftover) -> dict[str, Any]:
    return {
        "run_id": leftover.run_id,
        "kind": leftover.kind,
        "what": leftover.what,
        "why": leftover.why,
        "bytes": leftover.bytes,
        "asks": leftover.asks,
        "refs": [ref.name for ref in leftover.refs],
    }
