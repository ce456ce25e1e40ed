"""`stop`, `retry`, `skip`, `answer`, `approve`, `reject`: what one process asks of another through the run's inbox."""

import time

import click

from storyloop.cli.here import here, identity_of
from storyloop.cli.stories import require_story
from storyloop.core.errors import UserError
from storyloop.core.passing import waiting_for_approval
from storyloop.core.purpose import RUN
from storyloop.engine.requests import is_review
from storyloop.wiring import make_service

_PATIENCE = 10.0  # seconds that a live run may take to stop before we stop waiting for it
_GLANCE = 0.1


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
def stop(run_id: str | None) -> int:
    """Stop a run that another process drives: its agent is ended, its work is saved."""
    service = make_service()
    row = service.find(run_id, identity_of(here()))
    pid = service.holder(row.run_id)
    if pid is None:
        resume = f"`storyloop resume {row.run_id[:8]}`"
        if service.at_work(row.run_id):
            problem = f"Nobody drives run {row.run_id}, but its agent is still at work."
            raise UserError(problem, f"{resume} takes it over; Ctrl-C then ends it. Else it ends after `orphan_grace`.")
        raise UserError(f"Run {row.run_id} is not running.", f"{resume} goes on with it.")
    service.request(row.run_id, "stop")
    until = time.monotonic() + _PATIENCE
    while service.holder(row.run_id) is not None:
        if time.monotonic() > until:
            click.echo(f"Process {pid} was asked to stop run {row.run_id} and is still at it.", err=True)
            return 1
        time.sleep(_GLANCE)
    click.echo(f"Run {row.run_id} is stopped. Go on with: storyloop resume {row.run_id[:8]}")
    return 0


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("story")
@click.option("--with", "hint", default="", metavar="TEXT", help="A hint that the agent is given.")
def retry(run_id: str, story: str, hint: str) -> int:
    """Give a blocked or skipped story another iteration, and those that it blocks.

    With `review` in the place of a story, a review that did not converge gets another round.
    """
    return _asked("retry", run_id, story, text=hint)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("story")
def skip(run_id: str, story: str) -> int:
    """Leave a story out; what depends on it is blocked."""
    return _asked("skip", run_id, story)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("story")
@click.argument("text")
def answer(run_id: str, story: str, text: str) -> int:
    """Answer the question that a story waits for: with the number of an option, its words, or words of your own.

    \b
    storyloop show RUN             # the question, its options, and what holds unanswered
    storyloop answer RUN US-001 2
    """
    if not text.strip():
        raise UserError("The answer is empty.", "Give the number of an option, or words of your own.")
    return _asked("answer", run_id, story, text=text.strip())


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("story", required=False)
def approve(run_id: str, story: str | None) -> int:
    """Let what is proven be committed, where `run --step` waits for you; without STORY, whatever waits."""
    return _asked("approve", run_id, story)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("story", required=False)
@click.option("--with", "hint", default="", metavar="TEXT", help="What is to be different.")
def reject(run_id: str, story: str | None, hint: str) -> int:
    """Send what is proven back to its agent, where `run --step` waits for you: it is a failed attempt."""
    return _asked("reject", run_id, story, text=hint)


def _asked(what: str, run_id: str, story: str | None, *, text: str = "") -> int:
    service = make_service()
    row = service.find(run_id, identity_of(here()))
    state = service.state(row.run_id)
    if story is None:
        story = next(iter(waiting_for_approval(state.going)), RUN)
    elif not is_review(state, story):
        require_story(state, story)
    service.require_grantable(state, what, story)
    named = story or "the fix"
    if service.request(row.run_id, what, story=story, text=text) is not None:
        click.echo(f"Run {row.run_id} is told to {what} {named}.")
    else:
        click.echo(f"Noted: {what} {named}. Now: storyloop resume {row.run_id[:8]}")
    return 0
