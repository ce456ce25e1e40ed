"""`status`: the runs of this repository, or of all. Folds nothing and imports little: it is asked often."""

import json
import os
from datetime import datetime
from typing import Any

import click

from storyloop.cli.here import here, identity_of
from storyloop.core.run_row import RunRow
from storyloop.home import database_file, run_directory
from storyloop.journal.rows import list_rows
from storyloop.world.locks import holder
from storyloop.world.text import readable


@click.command()
@click.option("--all", "everywhere", is_flag=True, help="The runs of every repository.")
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON.")
def status(everywhere: bool, as_json: bool) -> int:
    """Show the runs of this repository, newest first, each with its place: session, branch and worktree.

    A run is live while a process has it, and stale when it has not ended and no process has it.
    """
    repository = None if everywhere else identity_of(here())
    rows = list_rows(database_file(os.environ), repository)
    live = {row.run_id: holder(run_directory(os.environ, row.run_id) / "lock") is not None for row in rows}
    if as_json:
        click.echo(json.dumps([_plain(row, live=live[row.run_id]) for row in rows], indent=2))
        return 0
    if not rows:
        where = "here yet" if repository is not None else "yet"
        click.echo(f"No runs {where}. `storyloop run SPEC` starts one.", err=True)
        return 0
    click.echo("\n".join(_table(rows, live)))
    return 0


def _plain(row: RunRow, *, live: bool) -> dict[str, object]:
    shown: dict[str, Any] = {name: value for name, value in row._asdict().items() if name != "repository"}
    for name in ("started_at", "finished_at"):
        moment: datetime | None = shown[name]
        shown[name] = moment and moment.isoformat().replace("+00:00", "Z")
    return {**shown, "live": live}


def _table(rows: list[RunRow], live: dict[str, bool]) -> list[str]:
    width = max(len("BRANCH"), *(len(row.branch) for row in rows))
    head = f"{'RUN':<9} {'STATUS':<12} {'STORIES':<8} {'STARTED (UTC)':<17} {'PLACE':<6}"
    lines = [f"{head} {'BRANCH':<{width}}  WORKTREE"]
    for row in rows:
        stories = f"{row.stories_passed}/{row.stories_total}"
        is_live, is_over = live[row.run_id], row.finished_at is not None
        shown = "crashed" if row.status == "running" and not is_live else row.status
        place = "live" if is_live else "-" if is_over else "stale"
        stands = "" if os.path.lexists(row.worktree) else " (removed)" if is_over else " (not there)"
        besides = f" and {row.in_hand - 1} more" if row.in_hand > 1 else ""
        doing = f"  {row.current_story} {row.machine_state}{besides}" if is_live and row.current_story else ""
        told = f"{row.run_id[:8]:<9} {shown:<12} {stories:<8} {row.started_at:%Y-%m-%d %H:%M}  {place:<6}"
        lines.append(f"{told} {row.branch:<{width}}  {row.worktree}{stands}{doing}")
        if row.waits_for:
            lines.append(readable(f"{'':<9} {row.waits_for} (see: storyloop show {row.run_id[:8]})"))
    return lines
