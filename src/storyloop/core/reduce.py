"""reduce(state, event) -> state: the one place where facts become state.

Pure and total over legal pairs; an illegal pair of state and event raises, because it means that the journal and
this program disagree about what happened. Resuming, watching and testing are all this fold.
"""

from collections.abc import Iterable
from typing import Any, assert_never

from msgspec.structs import replace

from storyloop.core.asking import answered, set_aside, unanswered
from storyloop.core.attempt import proof_measured, story_rejected
from storyloop.core.calling import call_ended, call_started, limit_learned, story_taken_up, wait_ended
from storyloop.core.delivery import answered_there, branch_pushed, delivery_failed, is_delivering, pull_request_opened
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
from storyloop.core.facts import Finding
from storyloop.core.feedback import (
    feedback_seen,
    is_between_looks,
    is_unplanned,
    look_waited,
    thread_answered,
    thread_resolved,
)
from storyloop.core.final import final_proof_begun, final_proof_failed, final_proof_measured, worktree_scrubbed
from storyloop.core.forking import forked
from storyloop.core.iteration import handover_cleaned, handover_written, landed, left, probed, story_started
from storyloop.core.passing import approved, tried
from storyloop.core.planning import planning_begun, planning_due, planning_state, spec_planned
from storyloop.core.policy import Drain
from storyloop.core.progress import (
    Approving,
    Asking,
    Closing,
    Doubting,
    Landing,
    Leaving,
    Ledger,
    Parked,
    Preparing,
    Progress,
    Proving,
    StoryProgress,
    StoryState,
    TakingUp,
    Work,
    is_set_aside,
    waiting_of,
)
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
from storyloop.core.steps import errand_of, expect, is_initializing, is_opening, work_of
from storyloop.core.undoing import undone
from storyloop.core.wishes import inbox_seen, reopened, resumed, skipped
from storyloop.core.words import MachineState, RunStatus

# Python 3.11 takes long to look up a member, and these are asked for with every event.
_RUNNING, _WAITING = RunStatus.RUNNING, MachineState.WAITING
# What humans do, they do to runs that are not running as well.
_AT_ANY_TIME = (
    QuestionAnswered
    | StoryApproved
    | StoryRejected
    | StorySkipped
    | StoryReopened
    | RequestRefused
    | WorktreeLost
    | RunResumed
    | RunCleaned
    | BranchPushed
    | PullRequestOpened
    | ThreadAnswered
    | ThreadResolved
    | DeliveryFailed
    | RunUndone
    | RunForked
)
# These tell of a time in which no process had the run.
_FROM_OUTSIDE = WorktreeLost | RunResumed | RunCleaned | RunUndone | RunForked


def fold(events: Iterable[Event], state: RunState | None = None) -> RunState | None:
    """The state after these events."""
    told = iter(events)
    if state is None:
        opened = next(told, None)
        if opened is None:
            return None
        state = reduce(None, opened)
    draft = Draft(state)
    for event in told:
        _take(draft, event)
    return draft.state()


def reduce(state: RunState | None, event: Event) -> RunState:
    """The state after this fact. Raises IllegalTransition when the fact cannot follow from the state."""
    if state is None:
        if not isinstance(event, RunOpened):
            raise IllegalTransition("no run", event)
        return _opened(event)
    draft = Draft(state)
    _take(draft, event)
    return draft.state()


def _take(run: Draft, event: Event) -> None:
    """Fold one fact into the draft."""
    if run.status is not _RUNNING:
        expect(isinstance(event, _AT_ANY_TIME), run, event)
    elif event.at > run.last_at and not isinstance(event, _FROM_OUTSIDE) and not _only_waits(run):
        run.active += (event.at - run.last_at).total_seconds()
    run.last_at = event.at
    _fold(run, event)
    if run.status is _RUNNING:  # one that is not keeps its last
        if planning_due(run):
            planning_begun(run, event)
        run.transition_to(_machine_state(run), event.at)


def _opened(event: RunOpened) -> RunState:
    told: dict[str, Any] = {
        "run_id": event.run_id,
        "started_at": event.at,
        "config": event.policy,
        "session_id": event.session_id,
    }
    if event.spec_md_path is None:
        opened = RunState.new(event.spec_json_path, event.branch, **told)
    else:
        opened = replace(RunState.from_spec(event.spec_md_path, event.spec_json_path, **told), branch=event.branch)
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
        base_branch=event.base_branch,
        reuse_branch=event.reuse_branch,
        earlier=event.earlier,
        tip=event.base,
        tip_tree=event.base_tree,
        stories=stories,
        widest=event.policy.limits.parallel,
        feedback=event.feedback,
        ledger=Ledger(iterations_allowed=sum(not s.passes for s in event.spec.user_stories)),
        last_at=event.at,
    )
    opened = replace(opened, knowledge=event.knowledge, progress=progress)
    if is_unplanned(progress):
        return replace(opened, machine_state=MachineState.LOADING_SPEC)
    return opened.transition_to(MachineState.INITIALIZING, event.at)


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
            expect(not run.opening.worktree_opened, run, event)
            run.opening = replace(run.opening, worktree_opened=True)
            run.find(*(Finding("worktree", warning) for warning in event.warnings))
            run.tip, run.tip_tree = event.tip, event.tip_tree
        case WorktreeLost(lane=lane) if lane:
            run.lanes = {**run.lanes, lane: replace(run.lanes[lane], set_up=0)}
        case WorktreeLost():
            expect(run.opening.worktree_opened and run.status is not RunStatus.COMPLETED, run, event)
            losses = run.opening.losses + 1
            run.opening = replace(run.opening, worktree_opened=False, setup_done=0, losses=losses)
            run.set_up = False
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


# --- opening ------------------------------------------------------------------------------------------


def _measured(run: Draft, event: CommandMeasured) -> None:
    policy, opening = run.effective_config(), run.opening
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
        case SettingUp(number=number):
            expect(opening.worktree_opened and run.final.scrubbed is bool(run.final.owed), run, event)
            expect(number == opening.setup_done < len(policy.worktree.setup), run, event)
            if not reading_of(event.first, event.second).is_green:
                why = event.first.reason or f"exit status {event.first.exit_status}"
                where = " in the clean worktree of the final proof" if run.final.owed else ""
                run.failure = f"the worktree's set-up command `{event.command}` failed{where}: {why}"
                final_proof_failed(run, event)
                run.transition_to(MachineState.FAILED, event.at)
            else:
                run.opening = replace(opening, setup_done=number + 1)
        case SettingUpLane() as setting_up:
            _lane_set_up(run, event, setting_up)
        case Baselining(check=check):
            expect(opening.worktree_opened and opening.setup_done == len(policy.worktree.setup), run, event)
            expect(check in policy.checks and check not in {e.check for e in opening.baseline}, run, event)
            evidence = _evidence(event, check=check)
            run.opening = replace(opening, baseline=(*opening.baseline, evidence))
            if not evidence.reading.is_green:
                run.inherited = (*run.inherited, check)
        case _:
            assert_never(event.purpose)


def _lane_set_up(run: Draft, event: CommandMeasured, purpose: SettingUpLane) -> None:
    """A lane is ready for its story, or the story cannot be worked on: the set-up that fails here had not before."""
    work = work_of(run, purpose.story, event)
    expect(work.lane == purpose.lane, run, event)
    lane = run.lanes[purpose.lane]
    expect(lane.set_up == purpose.number, run, event)
    if reading_of(event.first, event.second).is_green:
        run.lanes = {**run.lanes, purpose.lane: replace(lane, set_up=lane.set_up + 1)}
        return
    why = event.first.reason or f"exit status {event.first.exit_status}"
    reason = f"the set-up command `{event.command}` failed in a worktree of its own: {why}"
    run.put(replace(work, stage=Leaving(state=StoryState.BLOCKED, reason=reason, at=event.at)))


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


# --- what the run is doing ------------------------------------------------------------------------------


def _machine_state(run: Draft) -> MachineState:
    """What a running run is doing, derived from the rest of the state."""
    if is_unplanned(run):
        return planning_state(run)
    if run.final.owed:
        return MachineState.PROVING
    if is_initializing(run):
        return MachineState.INITIALIZING
    if not run.work:
        idle = MachineState.WAITING if is_between_looks(run) else MachineState.PICKING_STORY
        return MachineState.CREATING_PR if is_delivering(run) else idle
    work = max(run.work.values(), key=_shows)
    if is_set_aside(work):
        return MachineState.WAITING
    return _DOING.get(type(work.stage)) or (MachineState.WAITING if waiting_of(work) else _asking(work))


def _shows(work: Work) -> tuple[bool, bool, int]:
    """Of several stories, the state of the most recently started one is shown, of those that are worked on."""
    return not is_set_aside(work), work.lane is not None, work.iteration


def _only_waits(run: Draft) -> bool:
    """Nothing is under way but waiting: that is no time of the budget's."""
    return run.machine_state is _WAITING and all(
        work.lane is None or isinstance(work.stage, Approving) or waiting_of(work) for work in run.work.values()
    )


_DOING: dict[type, MachineState] = {
    Preparing: MachineState.RUNNING_AGENT,
    Asking: MachineState.WAITING,
    TakingUp: MachineState.RUNNING_AGENT,
    Proving: MachineState.PROVING,
    Doubting: MachineState.PROVING,
    Approving: MachineState.WAITING,
    Landing: MachineState.LANDING,
    Leaving: MachineState.LANDING,
    Closing: MachineState.PICKING_STORY,
}


def _asking(work: Work) -> MachineState:
    return _ASKING[errand_of(work)[0].drain]


_ASKING: dict[Drain, MachineState] = {
    Drain.STORY: MachineState.RUNNING_AGENT,
    Drain.REVIEW: MachineState.REVIEWING,
    Drain.FIX: MachineState.CORRECTING,
    Drain.ANALYSIS: MachineState.PROVING,
    Drain.COMMIT: MachineState.COMMITTING,
    Drain.CONFLICT: MachineState.RUNNING_AGENT,
    Drain.PR: MachineState.CREATING_PR,
}
