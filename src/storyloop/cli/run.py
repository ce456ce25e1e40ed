"""`run` and `resume`: runs in the foreground, from their headers to their reports."""

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import click

from storyloop.cli.faces import Face, face_for
from storyloop.cli.here import here, identity_of
from storyloop.config.layers import Flags
from storyloop.core.errors import StoryloopError, UserError
from storyloop.core.events import Event
from storyloop.core.policy import Drain, agents_of
from storyloop.core.run_state import RunState
from storyloop.driving import Drive, exit_code, open_run, resume_run
from storyloop.forking import fork as forked
from storyloop.preparing import Basis, Prepared, prepare
from storyloop.service import Service
from storyloop.views.estimate import estimate_line, estimate_of
from storyloop.views.header import header, order_lines
from storyloop.wiring import make_service

_GLANCE = 0.5  # seconds until a signal is heard, at most
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WORST_FIRST = (130, 143, 1, 2, 3, 4, 0)  # of several runs, the first of these that one has is the exit code

_limits = [
    click.option("--agent", "agents", multiple=True, metavar="NAME", help="Ask this agent; repeat it for a chain."),
    click.option("--max-calls", type=click.IntRange(min=1), help="Start at most so many agent processes."),
    click.option("--max-tokens", type=click.IntRange(min=1), help="Stop when so many tokens are used."),
    click.option("--max-usd", type=click.FloatRange(min=0, min_open=True), help="Stop when so many dollars are spent."),
    click.option("--max-time", metavar="DURATION", help="Stop after so long, such as 90m or 8h."),
    click.option("--parallel", type=click.IntRange(min=1), metavar="N", help="Work on so many stories at one time."),
    click.option("--no-wait", is_flag=True, help="Park instead of waiting for a quota's reset (exit 4)."),
    click.option("--step/--no-step", default=None, help="Park before each commit until you approve it (exit 3)."),
]
_delivery = [
    click.option("--pr/--no-pr", "pull_request", default=None, help="Push the branch and open a pull request for it."),
    click.option("--draft", is_flag=True, help="Open that pull request as a draft."),
]
no_review = click.option("--no-review", is_flag=True, help="Have nobody else read what passed.")
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


with_budgets, with_limits, with_output = _with(_limits), _with([*_limits, *_delivery]), _with(_output)


@click.command()
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=click.Path(path_type=Path))
@with_limits
@no_review
@click.option(
    "--reuse-branch", is_flag=True, help="Build on a branch that exists already; an ended run's worktree is closed."
)
@click.option("--no-worktree", is_flag=True, help="Work in your own checkout, on the branch that it is at.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and what it may cost.")
@with_output
def run(
    specs: tuple[Path, ...],
    reuse_branch: bool,
    no_worktree: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **said: Any,
) -> int:
    """Take the stories of SPEC through an agent, prove them, and commit them on a branch of their own.

    Several specs are as many runs, at once, each on its own branch; what --max-* says holds for each. With
    --no-worktree there is one, in your checkout, which must be clean and at a branch that is not the default one.

    \b
    storyloop run spec.md
    storyloop run spec.md --agent first --agent second --max-calls 40
    """
    if no_worktree and (reuse_branch or specs[1:]):
        raise click.UsageError("--no-worktree works on the branch that is checked out: one SPEC, no --reuse-branch.")
    service, flags = make_service(), Flags(**said)
    basis = Basis.CHECKOUT if no_worktree else Basis.REUSED if reuse_branch else Basis.NEW
    prepared = [prepare(service, spec, here(), flags=flags, basis=basis) for spec in specs]
    _require_apart(prepared)
    if specs[1:] and as_json:
        raise click.UsageError("--json tells of one run: give one SPEC.")
    labels = [one.spec.branch_name for one in prepared] if specs[1:] else [""]
    faces = [face_for(label, quiet=quiet, verbose=verbose, as_json=as_json) for label in labels]
    for one, face in zip(prepared, faces, strict=True):
        for note in one.notes:
            face.tell(f"note: {note}")
        if dry_run:
            click.echo("\n".join([header_of(one), _estimate(service, one), "", *order_lines(one.spec)]))
        else:
            face.tell(header_of(one))
    if dry_run:
        return 0
    return driven(service, [(open_run(service, one), face) for one, face in zip(prepared, faces, strict=True)])


@click.command()
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@with_limits
@click.option("--prompts", is_flag=True, help="Read the prompt templates of your checkout again.")
@with_output
def resume(run_ids: tuple[str, ...], prompts: bool, quiet: bool, verbose: bool, as_json: bool, **said: Any) -> int:
    """Go on with a run exactly where it stopped: after Ctrl-C, a crash, a limit, or a spent budget.

    RUN is any unambiguous beginning of an id; left out, it is this repository's only unfinished run. What --max-*
    and --agent say amends the run's policy for good.
    """
    service = make_service()
    found = [service.find(given, identity_of(here())) for given in run_ids or [None]]
    rows = list({row.run_id: row for row in found}.values())
    if rows[1:] and as_json:
        raise click.UsageError("--json tells of one run: give one RUN.")
    drives: list[tuple[Drive | RunState, Face]] = []
    for row in rows:
        face = face_for(row.branch if rows[1:] else "", quiet=quiet, verbose=verbose, as_json=as_json)
        drives.append((resume_run(service, row.run_id, flags=Flags(**said), prompts=prompts), face))
    return driven(service, drives)


def driven(service: Service, drives: Sequence[tuple[Drive | RunState, Face]]) -> int:
    """Drive runs with signals at hand: the first one stops them in order, the second at once.

    Several run side by side, a thread each; one that meets trouble says so, and the others go on. A run that there is
    nothing to do for only says its end.
    """
    caught: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        if caught and number == signal.SIGHUP:
            return  # of one terminal's end both the kernel and the shell tell
        if caught:
            os._exit(128 + (2 if number == signal.SIGINT else 15))
        caught.append(2 if number == signal.SIGINT else 15)
        for drive, face in drives:
            if isinstance(drive, Drive):
                drive.interrupt(f"by {signal.Signals(number).name}")
            face.tell("stopping: agents are ended and their work is saved; once more to leave at once")

    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    wanted = (number for number in _SIGNALS if not (nohup and number == signal.SIGHUP))
    before = {number: signal.signal(number, on_signal) for number in wanted}
    try:
        if not drives[1:]:
            return _driven(service, *drives[0], caught)
        with ThreadPoolExecutor(len(drives)) as threads:
            begun = [threads.submit(_driven_beside, service, drive, face, caught) for drive, face in drives]
            while wait(begun, timeout=_GLANCE).not_done:
                pass  # whichever thread a signal reached: this one alone deals with it, and only when it is awake
        codes = {thread.result() for thread in begun}
        return next(code for code in _WORST_FIRST if code in codes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _driven_beside(service: Service, drive: Drive | RunState, face: Face, caught: list[int]) -> int:
    try:
        return _driven(service, drive, face, caught)
    except StoryloopError as error:
        name = drive.state.branch if isinstance(drive, Drive) else drive.branch
        click.echo(f"storyloop: run on {name}: {error}", err=True)
        return int(getattr(error, "exit_code", 2 if isinstance(error, UserError) else 1))


def _driven(service: Service, drive: Drive | RunState, face: Face, caught: list[int]) -> int:
    if isinstance(drive, RunState):
        face.end(drive, service.account(drive.run_id), service.report_file(drive.run_id))
        return exit_code(drive)
    notices = service.notices(face.tell)

    def watch(event: Event, state: RunState) -> None:
        face.event(event, state)
        notices.event(event, state)

    try:
        with drive:
            state = drive.run(watch, seen=face.seen)
            face.end(state, service.account(state.run_id), service.report_file(state.run_id))
            return exit_code(state, signal=caught[0] if caught else None)
    finally:
        notices.close()
        face.close()


def _require_apart(prepared: Sequence[Prepared]) -> None:
    """Raise UserError if two runs would meet in one branch or one worktree."""
    places: dict[str, str] = {}
    for one in prepared:
        for place in (f"branch {one.spec.branch_name}", f"worktree {one.worktree}"):
            if place in places:
                raise UserError(
                    f"{places[place]} and {one.spec_path} would both use the {place}.",
                    "Give each spec a `## Branch` of its own.",
                )
            places[place] = one.spec_path


def _estimate(service: Service, prepared: Prepared) -> str:
    policy = prepared.policy
    agents = {str(ref) for ref in (*policy.chain_of(Drain.STORY), *agents_of(policy.escalation))}
    agents |= {str(ref) for refs in policy.drains.values() for ref in refs}
    return f"{'estimate':<14}{estimate_line(estimate_of(service.earlier(agents)), prepared.spec)}"


def header_of(prepared: Prepared) -> str:
    branch = prepared.spec.branch_name
    return header(
        prepared.spec,
        prepared.policy,
        prepared.bounds,
        branch=branch,
        worktree=prepared.worktree,
        sandbox=prepared.sandbox,
    )


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option(
    "--at", required=True, metavar="EVENT", help="Behind which event: a number (`show --events`), or a story."
)
@click.option("--branch", default="", metavar="NAME", help="The new run's branch; else one is named after the old one.")
@with_limits
@with_output
def fork(run_id: str, at: str, branch: str, quiet: bool, verbose: bool, as_json: bool, **said: Any) -> int:
    """Begin a new run from any point of an old one, on a branch of its own, and drive it; flags amend its policy.

    \b
    storyloop fork RUN --at 42 --agent second
    storyloop fork RUN --at US-002 --branch feature/otherwise

    It has the old run's facts up to EVENT, the commit that the branch was at, and the files that the work in hand had.
    A call that was under way then is asked again. What was spent until then counts.
    """
    service = make_service()
    row = service.find(run_id, identity_of(here()))
    face = face_for(quiet=quiet, verbose=verbose, as_json=as_json)
    new = forked(service, row.run_id, here(), at=at, branch=branch)
    face.tell(f"run {new} is forked from run {row.run_id} at {at}")
    drive = resume_run(service, new, flags=Flags(**said))
    if isinstance(drive, RunState):
        face.end(drive, service.account(new), service.report_file(new))
        return exit_code(drive)
    return driven(service, [(drive, face)])
