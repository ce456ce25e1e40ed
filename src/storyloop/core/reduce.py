"""reduce(state, event) -> state: the one place where facts become state.

Pure and total over legal pairs; an illegal pair of state and event raises, because it means that the journal and
this program disagree about what happened. Resuming, watching and testing are all this fold.
"""

from collections.abc import Iterable
from typing import assert_never

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import (
    CallEnded,
    CallStarted,
    CommandMeasured,
    Event,
    HandoverCleaned,
    HandoverWritten,
    RequestRefused,
    RunFinished,
    RunInterrupted,
    RunOpened,
    RunParked,
    RunResumed,
    StoryLanded,
    StoryLeft,
    StoryReopened,
    StorySkipped,
    StoryStarted,
    WaitEnded,
    WorktreeOpened,
)
from storyloop.core.evidence import Evidence, reading_of
from storyloop.core.facts import Finding
from storyloop.core.iteration import (
    call_ended,
    call_started,
    handover_cleaned,
    handover_written,
    landed,
    left,
    measured_anew,
    probed,
    proof_measured,
    story_started,
    wait_ended,
)
from storyloop.core.policy import Policy
from storyloop.core.progress import (
    Building,
    Closing,
    Describing,
    Landing,
    Leaving,
    Ledger,
    Parked,
    Preparing,
    Progress,
    Proving,
    StoryProgress,
    StoryState,
    waiting_of,
)
from storyloop.core.purpose import Baselining, Checking, Demonstrating, Probing, SettingUp
from storyloop.core.run_state import RunState
from storyloop.core.steps import (
    allowed,
    amended,
    block_dependents,
    can_be_left,
    errand_of,
    expect,
    found,
    fresh_continuation,
    put,
    stand,
    with_errand,
)
from storyloop.core.words import MachineState, RunStatus


def fold(events: Iterable[Event], state: RunState | None = None) -> RunState | None:
    """The state after these events."""
    for event in events:
        state = reduce(state, event)
    return state


def reduce(state: RunState | None, event: Event) -> RunState:
    """The state after this fact. Raises IllegalTransition when the fact cannot follow from the state."""
    if state is None:
        if not isinstance(event, RunOpened):
            raise IllegalTransition("no run", event)
        return _opened(event)
    if isinstance(event, RunOpened):
        raise IllegalTransition(state.machine_state, event)
    state = _reduced(_clocked(state, event), event)
    return state.transition_to(_machine_state(state), event.at)


def _opened(event: RunOpened) -> RunState:
    opened = RunState.new(
        event.spec_json_path,
        event.branch,
        run_id=event.run_id,
        started_at=event.at,
        config=event.policy,
        session_id=event.session_id,
    )
    stories = {
        story.id: StoryProgress(state=StoryState.PASSED, reason="marked as passed in the spec")
        if story.passes
        else StoryProgress()
        for story in event.spec.user_stories
    }
    progress = Progress(
        spec=event.spec,
        repository=event.repository,
        checkout=event.checkout,
        base=event.base,
        base_tree=event.base_tree,
        worktree=event.worktree,
        reuse_branch=event.reuse_branch,
        tip=event.base,
        tip_tree=event.base_tree,
        stories=stories,
        continuation=fresh_continuation(event.policy),
        ledger=Ledger(iterations_allowed=sum(not s.passes for s in event.spec.user_stories)),
        last_at=event.at,
    )
    return replace(opened, spec_md_path=event.spec_md_path, progress=progress)


def _clocked(state: RunState, event: Event) -> RunState:
    progress = state.going
    ledger = progress.ledger
    if state.status is RunStatus.RUNNING and not isinstance(event, RunResumed):
        passed = (event.at - progress.last_at).total_seconds()
        ledger = replace(ledger, active=ledger.active + max(0.0, passed))
    return replace(state, progress=replace(progress, last_at=event.at, ledger=ledger))


# What humans do, they do to runs that are not running as well.
_AT_ANY_TIME = StorySkipped | StoryReopened | RequestRefused | RunResumed


def _reduced(state: RunState, event: Event) -> RunState:
    expect(state.status is RunStatus.RUNNING or isinstance(event, _AT_ANY_TIME), state, event)
    match event:
        case RunOpened():
            raise IllegalTransition(state.machine_state, event)
        case WorktreeOpened():
            expect(not state.going.opening.worktree_opened, state, event)
            opening = replace(state.going.opening, worktree_opened=True)
            state = found(state, *(Finding("worktree", warning) for warning in event.warnings))
            return amended(state, opening=opening, tip=event.tip, tip_tree=event.tip_tree)
        case CommandMeasured():
            return _measured(state, event)
        case StoryStarted():
            expect(not _is_opening(state.going, state.effective_config()), state, event)
            return story_started(state, event)
        case HandoverCleaned():
            return handover_cleaned(state, event)
        case HandoverWritten():
            return handover_written(state, event)
        case CallStarted():
            return call_started(state, event)
        case CallEnded():
            return call_ended(state, event)
        case WaitEnded():
            return wait_ended(state, event)
        case StoryLanded():
            return landed(state, event)
        case StoryLeft():
            return left(state, event)
        case StorySkipped():
            return _skipped(_inbox_seen(state, event.number), event)
        case StoryReopened():
            return _reopened(_inbox_seen(state, event.number), event)
        case RequestRefused(number=number):
            return _inbox_seen(state, number)
        case RunInterrupted(number=number):
            state = state if number is None else _inbox_seen(state, number)
            return replace(state, status=RunStatus.INTERRUPTED)
        case RunParked(what=what, reason=reason):
            return amended(state, parked=Parked(what, reason)).transition_to(MachineState.PARKED, event.at)
        case RunResumed():
            return _resumed(state, event)
        case RunFinished(shipped=shipped):
            standings = {standing.state for standing in state.going.stories.values()}
            expect(not state.going.work and StoryState.OPEN not in standings, state, event)
            expect(shipped == (standings <= {StoryState.PASSED}), state, event)
            return state.transition_to(MachineState.COMPLETED if shipped else MachineState.FAILED, event.at)
        case _:
            assert_never(event)


# --- opening ------------------------------------------------------------------------------------------


def _measured(state: RunState, event: CommandMeasured) -> RunState:
    progress, policy = state.going, state.effective_config()
    opening = progress.opening
    state = found(state, *event.findings)
    match event.purpose:
        case SettingUp(number=number):
            expect(opening.worktree_opened, state, event)
            expect(number == opening.setup_done < len(policy.worktree.setup), state, event)
            if not reading_of(event.first, event.second).is_green:
                why = event.first.reason or f"exit status {event.first.exit_status}"
                reason = f"the worktree's set-up command `{event.command}` failed: {why}"
                return amended(state, failure=reason).transition_to(MachineState.FAILED, event.at)
            return amended(state, opening=replace(opening, setup_done=number + 1))
        case Baselining(check=check):
            expect(opening.worktree_opened and opening.setup_done == len(policy.worktree.setup), state, event)
            expect(check in policy.checks and check not in {e.check for e in opening.baseline}, state, event)
            evidence = _evidence(event, check=check)
            opening = replace(opening, baseline=(*opening.baseline, evidence))
            red = not evidence.reading.is_green
            return amended(
                state, opening=opening, inherited=(*progress.inherited, check) if red else progress.inherited
            )
        case Probing() as probing:
            return probed(state, event, probing)
        case Checking(check=check) as checking:
            return proof_measured(state, event, checking, _evidence(event, check=check))
        case Demonstrating(criterion=criterion) as demonstrating:
            return proof_measured(state, event, demonstrating, _evidence(event, criterion=criterion))
        case _:
            assert_never(event.purpose)


def _evidence(event: CommandMeasured, *, check: str | None = None, criterion: int | None = None) -> Evidence:
    decisive = event.second or event.first
    return Evidence(
        command=event.command,
        reading=reading_of(event.first, event.second),
        tree=event.tree,
        at=event.at,
        exit_status=decisive.exit_status,
        output_digest=decisive.output_digest,
        output=decisive.output,
        seconds=event.first.seconds + (event.second.seconds if event.second else 0.0),
        reason=decisive.reason,
        check=check,
        criterion=criterion,
    )


# --- what humans ask ----------------------------------------------------------------------------------


def _skipped(state: RunState, event: StorySkipped) -> RunState:
    standing = state.going.stories.get(event.story)
    open_or_blocked = (StoryState.OPEN, StoryState.BLOCKED, StoryState.BUILDING)
    expect(standing is not None and standing.state in open_or_blocked, state, event)
    assert standing is not None
    reason = "skipped by a human"
    work = state.going.work.get(event.story)
    if work is not None:
        expect(can_be_left(work), state, event)
        leaving = Leaving(state=StoryState.SKIPPED, reason=reason, at=event.at)
        return put(state, replace(work, stage=leaving))
    settled = replace(standing, state=StoryState.SKIPPED, reason=reason, blocked_by=None)
    if standing.state is StoryState.OPEN:
        state = allowed(state, -1)
    return block_dependents(stand(state, event.story, settled), event.story)


def _reopened(state: RunState, event: StoryReopened) -> RunState:
    progress = state.going
    standing = progress.stories.get(event.story)
    ended = (StoryState.BLOCKED, StoryState.SKIPPED)
    expect(standing is not None and standing.state in ended, state, event)
    expect(event.story not in progress.work, state, event)  # it is still being left
    stories = dict(progress.stories)
    reopened = {event.story} | {name for name, s in stories.items() if s.blocked_by == event.story}
    for name in reopened:
        stories[name] = replace(stories[name], state=StoryState.OPEN, reason="", blocked_by=None)
    state = amended(state, stories=stories, hints=progress.hints | {event.story: event.hint})
    state = allowed(state, len(reopened))
    # Others may still be in the way; then it goes back to blocked, naming the first of them.
    for name, other in stories.items():
        if other.state in ended and other.blocked_by is None:
            state = block_dependents(state, name)
    return state


def _resumed(state: RunState, event: RunResumed) -> RunState:
    progress = state.going
    unfinished = any(s.state is StoryState.OPEN for s in progress.stories.values()) or bool(progress.work)
    failed_early = state.status is RunStatus.FAILED and bool(progress.failure)
    expect(state.status is not RunStatus.COMPLETED, state, event)
    expect(state.status is not RunStatus.FAILED or unfinished or failed_early, state, event)
    policy = state.effective_config() if event.policy is None else event.policy
    cooling = {name: c for name, c in progress.cooling.items() if c.until is not None}
    # A failed or parked run leaves that state here; where it then stands follows from the rest of the state.
    restart = MachineState.INITIALIZING if _is_opening(progress, policy) else MachineState.PICKING_STORY
    stands, died = state.status in (RunStatus.FAILED, RunStatus.PARKED), state.status is RunStatus.RUNNING
    left = state.transition_to(restart, event.at) if stands else state
    state = replace(left, status=RunStatus.RUNNING, config=policy)
    state = amended(state, parked=None, failure="", cooling=cooling, resumes=progress.resumes + 1)
    if len(progress.opening.baseline) < len(policy.checks):
        state = amended(state, opening=replace(progress.opening, baseline=()), inherited=())
    for work in map(measured_anew, state.going.work.values()):
        errand, cs = errand_of(state, work)
        chain = policy.chain_of(errand.drain)
        if chain and chain != errand.chain:
            errand, cs = errands.rechained(errand, cs, chain=chain, table=cooling, now=event.at)
        elif isinstance(errand.stage, errands.Stranded):
            errand, cs = errands.wait_ended(errand, cs, table=cooling, now=event.at)
        elif isinstance(errand.stage, errands.Waiting) and not died:
            # Nobody has waited since the run was parked or stopped; how long the dead had waited nobody knows.
            waiting = replace(errand.stage, since=min(event.at, errand.stage.until))
            errand = replace(errand, stage=waiting)
        state = with_errand(state, work, errand, cs)
    return state


# --- what the run is doing ------------------------------------------------------------------------------


def _machine_state(state: RunState) -> MachineState:
    """What a running run is doing, derived from the rest of the state; one that is not running keeps its last."""
    if state.status is not RunStatus.RUNNING:
        return state.machine_state
    progress = state.going
    if _is_opening(progress, state.effective_config()):
        return MachineState.INITIALIZING
    for work in progress.work.values():
        return MachineState.WAITING if waiting_of(work) else _DOING[type(work.stage)]
    return MachineState.PICKING_STORY


def _is_opening(progress: Progress, policy: Policy) -> bool:
    opening = progress.opening
    set_up = opening.worktree_opened and opening.setup_done >= len(policy.worktree.setup)
    return not set_up or len(opening.baseline) < len(policy.checks)


_DOING: dict[type, MachineState] = {
    Preparing: MachineState.RUNNING_AGENT,
    Building: MachineState.RUNNING_AGENT,
    Proving: MachineState.PROVING,
    Describing: MachineState.COMMITTING,
    Landing: MachineState.LANDING,
    Leaving: MachineState.LANDING,
    Closing: MachineState.PICKING_STORY,
}


def _inbox_seen(state: RunState, number: int) -> RunState:
    return amended(state, inbox_seen=max(state.going.inbox_seen, number))
