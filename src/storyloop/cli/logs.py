"""`logs`: a run's history as lines, and as it happens with `-f`."""

import time

import click

from storyloop.cli.here import here, identity_of
from storyloop.cli.json_text import json_line
from storyloop.cli.stories import require_story
from storyloop.core.events import Event
from storyloop.core.reduce import reduce
from storyloop.core.run_state import RunState
from storyloop.core.words import RunStatus
from storyloop.views.history import lines_of
from storyloop.wiring import make_archive
from storyloop.world.text import readable

_GLANCE = 0.5


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends, is parked or is interrupted.")
@click.option("--story", metavar="ID", help="Only what is about this story.")
@click.option("--json", "as_json", is_flag=True, help="The events as JSON lines.")
def logs(run_id: str | None, follow: bool, story: str | None, as_json: bool) -> int:
    """Show what happened, a line for each fact; what agents printed is in the run's directory."""
    archive = make_archive()
    row = archive.find(run_id, identity_of(here()))
    if story is not None:
        require_story(archive.state(row.run_id), story)
    state: RunState | None = None
    seq = 0
    while True:
        for seq, event in archive.events(row.run_id, after=seq):  # noqa: B007, B020 - where to go on from
            before, state = state, reduce(state, event)
            if story is not None and _about(event) != story:
                continue
            if as_json:
                click.echo(json_line(event))
                continue
            for line in lines_of(event, before, state):
                click.echo(readable(f"{event.at:%Y-%m-%d %H:%M:%S}  {line}"))
        ended = state is None or state.status is not RunStatus.RUNNING or archive.holder(row.run_id) is None
        if not follow or ended:
            break
        time.sleep(_GLANCE)
    click.echo(f"What agents and checks printed: {archive.run_dir(row.run_id)}/calls, .../checks", err=True)
    return 0


def _about(event: Event) -> str | None:
    return getattr(event, "story", None) or getattr(getattr(event, "purpose", None), "story", None)
