"""`undo`: what a run did in the repository is shown, and walked back one step or to a named point."""

import json
import sys

import click

from storyloop.cli.here import here, identity_of
from storyloop.core.errors import UserError
from storyloop.core.words import StoryState
from storyloop.undoing import steps, stories_in_hand, target
from storyloop.undoing import undo as walked_back
from storyloop.wiring import make_service
from storyloop.world.text import readable


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--to", "point", metavar="POINT", help="Walk back to what held behind this point.")
@click.option("--list", "only_list", is_flag=True, help="Show what there is to undo, newest first.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
def undo(run_id: str | None, point: str | None, only_list: bool, yes: bool, as_json: bool) -> int:
    """Walk back what a run did in the repository: the last step, or everything behind POINT.

    \b
    storyloop undo RUN --list          # the points, newest first
    storyloop undo RUN                 # one step
    storyloop undo RUN --to US-001     # back to the landing of a story
    storyloop undo RUN --to branch     # back to where the branch began

    POINT is a number of the list, a story, a commit, `reset`, `review` or `branch`. Nothing becomes unreachable: what
    leaves the branch or the worktree is kept by refs. The stories that are undone are open again.
    """
    service = make_service()
    row = service.find(run_id, identity_of(here()))
    run = row.run_id
    if only_list or as_json:
        shown = steps(service, run)[::-1]
        if as_json:
            rows = [{"number": s.number, "names": s.names, "what": s.what, "commit": s.tip} for s in shown]
            click.echo(json.dumps(rows, indent=2))
            return 0
        for work in stories_in_hand(service.state(run)):
            click.echo(f"{'':>6}  {work.story or 'review'} in hand")
        for step in shown:
            click.echo(readable(f"{step.number:>6}  {step.what}"))
        return 0
    to, undone = target(service, run, point)
    click.echo(readable("\n".join([f"To be undone in run {run}:", *(f"  {what}" for what in undone)])), err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("Nobody can be asked here whether that is meant.", "Add --yes, or look with --list.")
        if not click.confirm("Undo it? Refs keep what leaves the branch and the worktree.", err=True):
            return 1
    state = walked_back(service, run, to, "; ".join(undone))
    is_open = [name for name, standing in state.going.stories.items() if standing.state is StoryState.OPEN]
    click.echo(
        f"Branch {state.branch} is at {state.going.tip[:12]}. Refs: git for-each-ref refs/storyloop/{run}/undone"
    )
    if is_open:
        click.echo(f"Open again: {', '.join(is_open)}. Leave one out with: storyloop skip {run[:8]} {is_open[0]}")
    click.echo(f"Go on with: storyloop resume {run[:8]}")
    return 0
