"""`show`: one run in full: its stories, a single story, its events, evidence, cost, knowledge, prompts.

What only one of its options needs is imported there: it is called often, and imports are most of what it takes.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

import click

from storyloop.cli.here import here, identity_of
from storyloop.cli.json_text import json_line
from storyloop.cli.stories import require_story
from storyloop.core.errand import Owed, Waiting
from storyloop.core.errors import UserError
from storyloop.core.run_state import RunState
from storyloop.core.stages import errand_of
from storyloop.core.words import RunStatus
from storyloop.views.report import cost_lines, report_json, story_lines, summary
from storyloop.wiring import make_archive
from storyloop.world.text import readable


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--story", metavar="ID", help="One story: its criteria, commits and pinned work.")
@click.option("--events", is_flag=True, help="Every fact, oldest first.")
@click.option("--evidence", is_flag=True, help="What proves each criterion, on which tree, and whether it still holds.")
@click.option("--cost", is_flag=True, help="Calls, tokens and money, by phase and by agent.")
@click.option(
    "--knowledge",
    is_flag=True,
    help="What the stories taught about the project; with --prompt, the file of it that lies beside that prompt.",
)
@click.option("--prompt", is_flag=True, help="What an agent is asked next, or was asked last.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="As JSON: everything, or --events (lines), --evidence, --knowledge.",
)
def show(
    run_id: str | None,
    story: str | None,
    events: bool,
    evidence: bool,
    cost: bool,
    knowledge: bool,
    prompt: bool,
    as_json: bool,
) -> int:
    """Show what happened in a run, what is proven by what, and what it cost."""
    archive = make_archive()
    row = archive.find(run_id, identity_of(here()))
    if events:
        if as_json:
            for _, event in archive.events(row.run_id):
                click.echo(json_line(event))
            return 0
        from storyloop.views.history import history

        for number, event, line in history(archive.events(row.run_id)):
            click.echo(readable(f"{number:>5}  {event.at:%Y-%m-%d %H:%M:%S}  {line}"))
        return 0
    state = archive.state(row.run_id)
    if story is not None:
        require_story(state, story)
    if prompt:
        asked, beside = _prompt(state, story, archive.run_dir(row.run_id))
        click.echo(
            readable(beside or "Nothing lies beside it: nothing is known yet.\n" if knowledge else asked), nl=False
        )
        return 0
    if as_json:
        if knowledge:
            from storyloop.views.learnt import knowledge_json

            told = knowledge_json(state.knowledge)
        elif evidence:
            from storyloop.views.proof import evidence_json

            told = evidence_json(state, story)
        else:
            told = report_json(state, archive.account(row.run_id), archive.report_file(row.run_id))
        click.echo(json_line(told))
        return 0
    parts: list[list[str]] = []
    if story is not None and not evidence:
        parts.append(story_lines(state, story))
    if evidence:
        from storyloop.views.proof import evidence_lines

        parts.append([*evidence_lines(state, story), f"outputs are in {archive.run_dir(row.run_id)}"])
    if cost:
        parts.append(cost_lines(state, archive.account(row.run_id)))
    if knowledge:
        from storyloop.views.learnt import knowledge_lines

        parts.append(knowledge_lines(state.knowledge))
    if not parts:
        account, file = archive.account(row.run_id), archive.report_file(row.run_id)
        parts.append([f"run {state.run_id}", summary(state, account, datetime.now(UTC), file)])
    click.echo(readable("\n\n".join("\n".join(lines) for lines in parts)))
    if state.iteration and not (archive.run_dir(row.run_id) / "calls").exists():
        click.echo("What its agents printed is no longer kept: it was cleaned up.")
    going = state.going
    if state.finished_at is None and going.opening.worktree_opened and not Path(going.worktree).exists():
        again = f"storyloop resume {row.run_id[:8]} makes it again, with the work that is kept by refs."
        click.echo(f"Its worktree {going.worktree} was deleted. {again}")
    if state.status is RunStatus.RUNNING and archive.holder(row.run_id) is None:
        click.echo(f"No process has it any more. Go on with: storyloop resume {row.run_id[:8]}")
    return 0


def _prompt(state: RunState, story: str | None, run_dir: Path) -> tuple[str, str]:
    """The prompt that is owed, or was sent last, and the file beside it."""
    for work in state.going.work.values():
        errand, _ = errand_of(work)
        if story in (None, work.story) and isinstance(errand.stage, Owed | Waiting):
            from storyloop.contracts.prompts import TemplatePrompts
            from storyloop.engine.prompting import values_of

            prompts, values = TemplatePrompts(state.effective_config().prompts), values_of(state, work)
            return prompts.render(values), prompts.background(values)
    call = re.compile(rf"{re.escape(story) if story else '.*'}-\d+-[a-z]+-\d+")
    asked = [path for path in run_dir.glob("calls/*/prompt") if call.fullmatch(path.parent.name)]
    if not asked:
        about = f" about {story}" if story else ""
        raise UserError(f"No agent was asked{about} in run {state.run_id} yet.", "`storyloop show` tells where it is.")
    from storyloop.world.papers import BACKGROUND

    last = max(asked, key=lambda path: path.stat().st_mtime_ns)
    beside = last.with_name(BACKGROUND)
    return last.read_text(encoding="utf-8"), beside.read_text(encoding="utf-8") if beside.exists() else ""
