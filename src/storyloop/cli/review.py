"""`pr-review`: what people and red checks say of a pull request is judged, mended, proven, pushed and answered."""

from typing import Any

import click

from storyloop.cli.faces import face_for
from storyloop.cli.here import here
from storyloop.cli.json_text import json_line
from storyloop.cli.run import driven, no_review, with_budgets, with_output
from storyloop.config.layers import Flags
from storyloop.driving import open_run
from storyloop.following import Reach, Wanted, heard, prepared
from storyloop.views.feedback import said_lines
from storyloop.views.header import feedback_header
from storyloop.wiring import make_service


@click.command("pr-review")
@click.argument("pull_request", metavar="[PR]", required=False, default="")
@with_budgets
@no_review
@click.option("--push/--no-push", default=None, help="Push what was done, and answer the threads.")
@click.option("--no-answer", is_flag=True, help="Push, but say nothing.")
@click.option("--ci", "checks", is_flag=True, help="Checks that are red in the forge's CI are to be mended, too.")
@click.option("--watch", is_flag=True, help="Go on until they are green and nothing new is said (with --push).")
@click.option("--dry-run", is_flag=True, help="List what was said, and nothing else.")
@with_output
def pr_review(
    pull_request: str,
    push: bool | None,
    no_answer: bool,
    checks: bool,
    watch: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **said: Any,
) -> int:
    """Follow up what was said of a pull request.

    Each unresolved review thread and each review that requests changes is judged first: a real issue, a suggestion, a
    question, or nothing to do. What asks for work is mended on the pull request's branch, proven and committed, one by
    one. Pushed is only when told to (--push, or [pull_request] create); then each thread is answered once, with what
    was done and the commit.

    PR is a number, a URL or a branch; left out, it is that of the branch you are at, or of the newest run's.

    \b
    storyloop pr-review 12 --dry-run
    storyloop pr-review --push --ci --watch
    """
    service = make_service()
    reach = Reach.WATCH if watch else Reach.CHECKS if checks else Reach.REMARKS
    wanted = Wanted(pull_request=pull_request, reach=reach, answer=not no_answer)
    found = heard(service, wanted, here(), flags=Flags(**said, pull_request=push))
    feedback = found.feedback
    if dry_run and as_json:
        click.echo(json_line({"number": feedback.number, "url": feedback.url, "concerns": feedback.concerns}))
        return 0
    if dry_run or not (feedback.concerns or watch):
        click.echo("\n".join([feedback.url, *(said_lines(feedback) or ["Nothing is left to be followed up."])]))
        return 0
    ready = prepared(service, found)
    face = face_for("", quiet=quiet, verbose=verbose, as_json=as_json)
    for note in ready.notes:
        face.tell(f"note: {note}")
    face.tell(
        feedback_header(
            ready.spec,
            ready.policy,
            ready.bounds,
            feedback=feedback,
            worktree=ready.worktree,
            sandbox=ready.sandbox,
        )
    )
    return driven(service, [(open_run(service, ready), face)])
