"""`deliver`: a run's branch is pushed and its pull request opened, later than the run itself."""

import click

from storyloop.cli.faces import PlainFace
from storyloop.cli.here import here, identity_of
from storyloop.cli.json_text import json_line
from storyloop.sending import deliver as send
from storyloop.wiring import make_service


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--draft", is_flag=True, help="Open the pull request as a draft.")
@click.option("--json", "as_json", is_flag=True, help="What came of it as one JSON object.")
def deliver(run_id: str | None, draft: bool, as_json: bool) -> int:
    """Push a run's branch and open its pull request, or bring the open one up to date.

    For a run that was not told to (`--pr`), or that could not: no network, nobody logged in, a branch that had moved.
    Remote and forge are read from the configuration as it is now. Exit 1, with one sentence, when something is missing.
    """
    service = make_service()
    row = service.find(run_id, identity_of(here()))
    state = send(service, row.run_id, draft=draft, watch=PlainFace(stamped=False).event)
    delivery = state.going.delivery
    if as_json:
        pushed = delivery.pushed.commit if delivery.pushed else None
        told = {"run_id": state.run_id, "branch": state.branch, "pushed": pushed}
        click.echo(json_line({**told, "pull_request": delivery.url or None, "missing": delivery.trouble or None}))
    elif not delivery.trouble:
        click.echo(delivery.url)
    return 1 if delivery.trouble else 0
