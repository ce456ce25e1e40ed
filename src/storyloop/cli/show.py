"""`show`: one run in full: its stories, a single story, its events, its evidence, its cost."""

from datetime import UTC, datetime

import click

from storyloop.cli.here import here, identity_of
from storyloop.cli.json_text import json_line
from storyloop.cli.stories import require_story
from storyloop.core.run_state import RunState
from storyloop.core.words import RunStatus
from storyloop.views.history import history
from storyloop.views.report import cost_lines, evidence_lines, story_lines, summary
from storyloop.views.rows import show_json
from storyloop.wiring import make_archive
from storyloop.world.text import readable


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--story", metavar="ID", help="One story: its criteria, commits and pinned work.")
@click.option("--events", is_flag=True, help="Every fact, oldest first.")
@click.option("--evidence", is_flag=True, help="What proves each criterion, on which tree, and whether it still holds.")
@click.option("--cost", is_flag=True, help="Calls, tokens and money, by phase and by agent.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON (with --events: JSON lines).")
def show(run_id: str | None, story: str | None, events: bool, evidence: bool, cost: bool, as_json: bool) -> int:
    """Show what happened in a run, what is proven by what, and what it cost."""
    archive = make_archive()
    row = archive.find(run_id, identity_of(here()))
    if events:
        facts = (event for _, event in archive.events(row.run_id))
        if as_json:
            for event in facts:
                click.echo(json_line(event))
            return 0
        for event, line in history(facts):
            click.echo(readable(f"{event.at:%Y-%m-%d %H:%M:%S}  {line}"))
        return 0
    state = archive.state(row.run_id)
    if as_json:
        click.echo(json_line(show_json(state, report=archive.report_file(row.run_id))))
        return 0
    click.echo(readable(_shown(state, story, archive.report_file(row.run_id), evidence=evidence, cost=cost)))
    if state.status is RunStatus.RUNNING and archive.holder(row.run_id) is None:
        click.echo(f"No process has it any more. Go on with: storyloop resume {row.run_id[:8]}")
    return 0


def _shown(state: RunState, story: str | None, report: str | None, *, evidence: bool, cost: bool) -> str:
    if story is not None:
        require_story(state, story)
    parts: list[str] = []
    if story is not None:
        parts.append("\n".join(story_lines(state, story)))
    if evidence:
        parts.append("\n".join(evidence_lines(state, story)))
    if cost:
        parts.append("\n".join(cost_lines(state)))
    if not parts:
        parts.append(f"run {state.run_id}\n{summary(state, datetime.now(UTC), report)}")
    return "\n\n".join(parts)
