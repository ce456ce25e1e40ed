"""`run` and `resume`: a run in the foreground, from its header to its report."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from storyloop.cli.faces import Face, face_for
from storyloop.cli.here import here, identity_of
from storyloop.config.layers import Flags
from storyloop.core.events import Event
from storyloop.core.policy import Drain, agents_of
from storyloop.core.run_state import RunState
from storyloop.service import Drive, Prepared, Service, exit_code
from storyloop.views.estimate import estimate_line, estimate_of
from storyloop.views.header import header, order_lines
from storyloop.wiring import make_service

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_limits = [
    click.option("--agent", "agents", multiple=True, metavar="NAME", help="Ask this agent; repeat it for a chain."),
    click.option("--max-calls", type=click.IntRange(min=1), help="Start at most so many agent processes."),
    click.option("--max-tokens", type=click.IntRange(min=1), help="Stop when so many tokens are used."),
    click.option("--max-usd", type=click.FloatRange(min=0, min_open=True), help="Stop when so many dollars are spent."),
    click.option("--max-time", metavar="DURATION", help="Stop after so long, such as 90m or 8h."),
    click.option("--no-wait", is_flag=True, help="Park instead of waiting for a quota's reset (exit 4)."),
    click.option("--step/--no-step", default=None, help="Park before each commit until you approve it (exit 3)."),
]
_output = [
    click.option("-q", "--quiet", is_flag=True, help="Only the report at the end."),
    click.option("-v", "--verbose", is_flag=True, help="A line for each fact, with its time."),
    click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on stdout; the report is the last."),
]


def _with(options: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@_with(_limits)
@click.option(
    "--reuse-branch", is_flag=True, help="Build on a branch that exists already; an ended run's worktree is closed."
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and what it may cost.")
@_with(_output)
def run(spec: Path, reuse_branch: bool, dry_run: bool, quiet: bool, verbose: bool, as_json: bool, **said: Any) -> int:
    """Take the stories of SPEC through an agent, prove them, and commit them on a branch of their own.

    \b
    storyloop run spec.md
    storyloop run spec.md --agent first --agent second --max-calls 40
    """
    service = make_service()
    prepared = service.prepare(spec, here(), flags=Flags(**said), reuse_branch=reuse_branch)
    face = face_for(quiet=quiet, verbose=verbose, as_json=as_json)
    for note in prepared.notes:
        face.tell(f"note: {note}")
    if dry_run:
        click.echo("\n".join([_header(prepared), _estimate(service, prepared), "", *order_lines(prepared.spec)]))
        return 0
    face.tell(_header(prepared))
    return driven(service, service.open(prepared), face)


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False)
@_with(_limits)
@click.option("--prompts", is_flag=True, help="Read the prompt templates of your checkout again.")
@_with(_output)
def resume(run_id: str | None, prompts: bool, quiet: bool, verbose: bool, as_json: bool, **said: Any) -> int:
    """Go on with a run exactly where it stopped: after Ctrl-C, a crash, a limit, or a spent budget.

    RUN is any unambiguous beginning of an id; left out, it is this repository's only unfinished run. What --max-*
    and --agent say amends the run's policy for good.
    """
    service = make_service()
    row = service.find(run_id, identity_of(here()))
    face = face_for(quiet=quiet, verbose=verbose, as_json=as_json)
    drive = service.resume(row.run_id, flags=Flags(**said), prompts=prompts)
    if isinstance(drive, RunState):
        face.end(drive, service.account(row.run_id), service.report_file(row.run_id))
        return exit_code(drive)
    return driven(service, drive, face)


def driven(service: Service, drive: Drive, face: Face) -> int:
    """Drive a run with signals at hand: the first one stops it in order, the second at once."""
    caught: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        if caught:
            os._exit(128 + (2 if number == signal.SIGINT else 15))
        caught.append(2 if number == signal.SIGINT else 15)
        drive.interrupt(f"by {signal.Signals(number).name}")
        face.tell("stopping: agents are ended and their work is saved; once more to leave at once")

    notices = service.notices(face.tell)

    def watch(event: Event, state: RunState) -> None:
        face.event(event, state)
        notices.event(event, state)

    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        with drive:
            state = drive.run(watch, seen=face.seen)
            face.end(state, service.account(state.run_id), service.report_file(state.run_id))
            return exit_code(state, signal=caught[0] if caught else None)
    finally:
        notices.close()
        face.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _estimate(service: Service, prepared: Prepared) -> str:
    policy = prepared.policy
    agents = {str(ref) for ref in (*policy.chain_of(Drain.STORY), *agents_of(policy.escalation))}
    agents |= {str(ref) for refs in policy.drains.values() for ref in refs}
    return f"{'estimate':<14}{estimate_line(estimate_of(service.earlier(agents)), prepared.spec)}"


def _header(prepared: Prepared) -> str:
    branch = prepared.spec.branch_name
    return header(
        prepared.spec,
        prepared.policy,
        prepared.bounds,
        branch=branch,
        worktree=prepared.worktree,
        sandbox=prepared.sandbox,
    )
