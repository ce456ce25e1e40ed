"""reduce(state, event) -> state: the one place where facts become state.

Pure and total over legal pairs; an illegal pair of state and event raises, because it means that the journal and
this program disagree about what happened. Resuming, watching and testing are all this fold.
"""

from collections.abc import Iterable
from typing import assert_never

from storyloop.core.asking import answered, set_aside, unanswered
from storyloop.core.attempt import proof_measured, story_rejected
from storyloop.core.calling import call_ended, call_started, limit_learned, story_taken_up, wait_ended
from storyloop.core.delivery import answered_there, branch_pushed, delivery_failed, pull_request_opened
from storyloop.core.doing import machine_state, only_waits
from storyloop.core.draft import Draft
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import (
    BranchPushed,
    CallEnded,
    CallStarted,
    CommandMeasured,
    DeliveryFailed,
    Event,
    FeedbackSeen,
    FinalProofBegun,
    HandoverCleaned,
    HandoverWritten,
    LimitLearned,
    PullRequestOpened,
    QuestionAnswered,
    RequestRefused,
    ReviewStarted,
    RunCleaned,
    RunFinished,
    RunForked,
    RunInterrupted,
    RunOpened,
    RunParked,
    RunResumed,
    RunUndone,
    SpecPlanned,
    StoryApproved,
    StoryLanded,
    StoryLeft,
    StoryRejected,
    StoryReopened,
    StorySetAside,
    StorySkipped,
    StoryStarted,
    StoryTakenUp,
    ThreadAnswered,
    ThreadResolved,
    WaitEnded,
    WorktreeLost,
    WorktreeOpened,
    WorktreeScrubbed,
)
from storyloop.core.evidence import Evidence, reading_of
from storyloop.core.feedback import feedback_seen, look_waited, thread_answered, thread_resolved
from storyloop.core.final import final_proof_begun, final_proof_measured, worktree_scrubbed
from storyloop.core.forking import forked
from storyloop.core.iteration import handover_cleaned, handover_written, landed, left, probed, story_started
from storyloop.core.opening import baselined, lane_set_up, opened, set_up, worktree_lost, worktree_opened
from storyloop.core.passing import approved, tried
from storyloop.core.planning import planning_begun, planning_due, spec_planned
from storyloop.core.progress import Parked
from storyloop.core.purpose import (
    LOOKING,
    RUN,
    Baselining,
    Checking,
    Demonstrating,
    FinalChecking,
    FinalDemonstrating,
    Probing,
    Reproving,
    SettingUp,
    SettingUpLane,
    Trying,
)
from storyloop.core.review import is_shipped, review_reopened, review_started
from storyloop.core.run_state import RunState
from storyloop.core.stages import Asking
from storyloop.core.steps import expect, is_opening
from storyloop.core.undoing import undone
from storyloop.core.wishes import inbox_seen, reopened, resumed, skipped
from storyloop.core.words import MachineState, RunStatus, StoryState

_RUNNING = RunStatus.RUNNING  # Python 3.11 takes long to look up a member
# Looked up by type with every event, which is quicker than `isinstance`. What humans do, they do to runs that are not
# running as well:
_AT_ANY_TIME: frozenset[type[Event]] = frozenset(
    {
        QuestionAnswered,
        StoryApproved,
        StoryRejected,
        StorySkipped,
        StoryReopened,
        RequestRefused,
        WorktreeLost,
        RunResumed,
        RunCleaned,
        BranchPushed,
        PullRequestOpened,
        ThreadAnswered,
        ThreadResolved,
        DeliveryFailed,
        RunUndone,
        RunForked,
    }
)
# These tell of a time in which no process had the run:
_FROM_OUTSIDE: frozenset[type[Event]] = frozenset({WorktreeLost, RunResumed, RunCleaned, RunUndone, RunForked})


def fold(events: Iterable[Event], state: RunState | None = None) -> RunState | None:
    """The state after these events."""
    told = iter(events)
    if state is None:
        first = next(told, None)
        if first is None:
            return None
        state = reduce(None, first)
    draft = Draft(state)
    for event in told:
        _take(draft, event)
    return draft.state()


def reduce(state: RunState | None, event: Event) -> RunState:
    """The state after this fact. Raises IllegalTransition when the fact cannot follow from the state."""
    if state is None:
        if not isinstance(event, RunOpened):
            raise IllegalTransition("no run", event)
        return opened(event)
    draft = Draft(state)
    _take(draft, event)
    return draft.state()


def _take(run: Draft, event: Event) -> None:
    """Fold one fact into the draft."""
    if run.status is not _RUNNING:
        expect(type(event) in _AT_ANY_TIME, run, event)
    elif event.at > run.last_at and type(event) not in _FROM_OUTSIDE and not only_waits(run):
        run.active += (event.at - run.last_at).total_seconds()
    run.last_at = event.at
    _fold(run, event)
    if run.status is _RUNNING:  # one that is not keeps its last
        if planning_due(run):
            planning_begun(run, event)
        run.transition_to(machine_state(run), event.at)


def _fold(run: Draft, event: Event) -> None:
    match event:
        case CommandMeasured():
            _measured(run, event)
        case CallStarted():
            call_started(run, event)
        case CallEnded():
            call_ended(run, event)
        case HandoverCleaned():
            handover_cleaned(run, event)
        case HandoverWritten():
            handover_written(run, event)
        case StoryStarted():
            expect(not is_opening(run), run, event)
            story_started(run, event)
        case StoryLanded():
            landed(run, event)
        case StoryLeft():
            left(run, event)
        case ReviewStarted():
            expect(not is_opening(run), run, event)
            review_started(run, event)
        case FinalProofBegun():
            expect(not is_opening(run), run, event)
            final_proof_begun(run, event)
        case WorktreeScrubbed():
            worktree_scrubbed(run, event)
        case StorySetAside():
            set_aside(run, event)
        case QuestionAnswered():
            inbox_seen(run, event.number)
            answered(run, event)
        case StoryTakenUp():
            story_taken_up(run, event)
        case StoryApproved():
            inbox_seen(run, event.number)
            approved(run, event)
        case StoryRejected():
            inbox_seen(run, event.number)
            story_rejected(run, event)
        case WaitEnded(story=story) if story in run.work and isinstance(run.work[story].stage, Asking):
            unanswered(run, event)
        case WaitEnded(story=story) if story == LOOKING:
            look_waited(run, event)
        case WaitEnded():
            wait_ended(run, event)
        case FeedbackSeen():
            feedback_seen(run, event)
        case ThreadAnswered():
            thread_answered(run, event)
            answered_there(run)
        case ThreadResolved():
            thread_resolved(run, event)
            answered_there(run)
        case LimitLearned():
            limit_learned(run, event)
        case WorktreeOpened():
            worktree_opened(run, event)
        case WorktreeLost():
            worktree_lost(run, event)
        case SpecPlanned():
            spec_planned(run, event)
        case StorySkipped():
            inbox_seen(run, event.number)
            skipped(run, event)
        case StoryReopened():
            inbox_seen(run, event.number)
            review_reopened(run, event) if event.story == RUN else reopened(run, event)
        case RequestRefused(number=number):
            inbox_seen(run, number)
        case RunInterrupted(number=number):
            if number is not None:
                inbox_seen(run, number)
            run.status = RunStatus.INTERRUPTED
        case RunParked(what=what, reason=reason):
            run.parked = Parked(what, reason)
            run.transition_to(MachineState.PARKED, event.at)
        case RunResumed():
            resumed(run, event)
        case RunUndone():
            undone(run, event)
        case RunForked():
            forked(run, event)
        case RunCleaned():
            pass  # it is told, and changes nothing of where the run stands
        case BranchPushed():
            branch_pushed(run, event)
        case PullRequestOpened():
            pull_request_opened(run, event)
        case DeliveryFailed():
            delivery_failed(run, event)
        case RunFinished(shipped=shipped):
            is_open = any(standing.state is StoryState.OPEN for standing in run.stories.values())
            expect(not (run.work or run.final.owed or is_open), run, event)
            expect(shipped == is_shipped(run), run, event)
            run.transition_to(MachineState.COMPLETED if shipped else MachineState.FAILED, event.at)
        case RunOpened():
            raise IllegalTransition(run.machine_state, event)
        case _:
            assert_never(event)


def _measured(run: Draft, event: CommandMeasured) -> None:
    if event.findings:
        run.find(*event.findings)
    match event.purpose:
        case Checking(check=check) as checking:
            proof_measured(run, event, checking, _evidence(event, check=check))
        case Demonstrating(criterion=criterion) | Reproving(criterion=criterion) as demonstrating:
            proof_measured(run, event, demonstrating, _evidence(event, criterion=criterion))
        case Probing() as probing:
            probed(run, event, probing)
        case Trying() as trying:
            tried(run, event, trying)
        case FinalChecking(check=check) as checking:
            final_proof_measured(run, event, checking, _evidence(event, check=check))
        case FinalDemonstrating(criterion=criterion) as demonstrating:
            final_proof_measured(run, event, demonstrating, _evidence(event, criterion=criterion))
        case SettingUp() as setting_up:
            set_up(run, event, setting_up)
        case SettingUpLane() as setting_up:
            lane_set_up(run, event, setting_up)
        case Baselining(check=check):
            baselined(run, event, check, _evidence(event, check=check))
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
