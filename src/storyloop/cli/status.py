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
    """Show the runs of this repository, newest first."""
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
    lines = [f"{'RUN':<9} {'STATUS':<12} {'STORIES':<8} {'STARTED (UTC)':<17} BRANCH"]
    for row in rows:
        stories = f"{row.stories_passed}/{row.stories_total}"
        shown = "crashed" if row.status == "running" and not live[row.run_id] else row.status
        doing = f"  {row.current_story} {row.machine_state}" if live[row.run_id] and row.current_story else ""
        lines.append(
            f"{row.run_id[:8]:<9} {shown:<12} {stories:<8} {row.started_at:%Y-%m-%d %H:%M}  {row.branch}{doing}"
        )
        if row.waits_for:
            lines.append(readable(f"{'':<9} {row.waits_for} (see: storyloop show {row.run_id[:8]})"))
    return lines
