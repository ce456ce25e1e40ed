"""reduce(state, event) -> state: the one place where facts become state.

Pure and total over legal pairs; an illegal pair of state and event raises, because it means that the journal and
this program disagree about what happened. Resuming, watching and testing are all this fold.
"""

from collections.abc import Iterable
from typing import Any, assert_never

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.asking import answered, set_aside, unanswered
from storyloop.core.draft import Draft
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import (
    CallEnded,
    CallStarted,
    CommandMeasured,
    Event,
    FinalProofBegun,
    HandoverCleaned,
    HandoverWritten,
    LimitLearned,
    QuestionAnswered,
    RequestRefused,
    ReviewStarted,
    RunFinished,
    RunInterrupted,
    RunOpened,
    RunParked,
    RunResumed,
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
    WaitEnded,
    WorktreeOpened,
    WorktreeScrubbed,
)
from storyloop.core.evidence import Evidence, reading_of
from storyloop.core.facts import Finding
from storyloop.core.final import (
    final_proof_begun,
    final_proof_failed,
    final_proof_measured,
    proven_anew,
    worktree_scrubbed,
)
from storyloop.core.iteration import (
    call_ended,
    call_started,
    handover_cleaned,
    handover_written,
    landed,
    left,
    limit_learned,
    measured_anew,
    probed,
    proof_measured,
    story_rejected,
    story_started,
    story_taken_up,
    wait_ended,
)
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
    RUN,
    Baselining,
    Checking,
    Demonstrating,
    FinalChecking,
    FinalDemonstrating,
    Probing,
    Reproving,
    SettingUp,
    Trying,
)
from storyloop.core.review import is_review_due, is_shipped, review_reopened, review_started
from storyloop.core.run_state import RunState
from storyloop.core.steps import (
    block_all_dependents,
    block_dependents,
    can_be_left,
    chain_of,
    errand_of,
    expect,
    fresh_continuation,
    with_errand,
)
from storyloop.core.words import MachineState, RunStatus

# Python 3.11 takes long to look up a member, and these are asked for with every event.
_RUNNING, _WAITING = RunStatus.RUNNING, MachineState.WAITING
# What humans do, they do to runs that are not running as well.
_AT_ANY_TIME = (
    QuestionAnswered | StoryApproved | StoryRejected | StorySkipped | StoryReopened | RequestRefused | RunResumed
)


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
    elif event.at > run.last_at and not isinstance(event, RunResumed) and not _only_waits(run):
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
        reuse_branch=event.reuse_branch,
        tip=event.base,
        tip_tree=event.base_tree,
        stories=stories,
        continuation=fresh_continuation(event.policy),
        ledger=Ledger(iterations_allowed=sum(not s.passes for s in event.spec.user_stories)),
        last_at=event.at,
    )
    opened = replace(opened, knowledge=event.knowledge, progress=progress)
    return opened if event.spec.is_free_form else opened.transition_to(MachineState.INITIALIZING, event.at)


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
            expect(not _is_opening(run), run, event)
            story_started(run, event)
        case StoryLanded():
            landed(run, event)
        case StoryLeft():
            left(run, event)
        case ReviewStarted():
            expect(not _is_opening(run), run, event)
            review_started(run, event)
        case FinalProofBegun():
            expect(not _is_opening(run), run, event)
            final_proof_begun(run, event)
        case WorktreeScrubbed():
            worktree_scrubbed(run, event)
        case StorySetAside():
            set_aside(run, event)
        case QuestionAnswered():
            _inbox_seen(run, event.number)
            answered(run, event)
        case StoryTakenUp():
            story_taken_up(run, event)
        case StoryApproved():
            _inbox_seen(run, event.number)
            approved(run, event)
        case StoryRejected():
            _inbox_seen(run, event.number)
            story_rejected(run, event)
        case WaitEnded(story=story) if story in run.work and isinstance(run.work[story].stage, Asking):
            unanswered(run, event)
        case WaitEnded():
            wait_ended(run, event)
        case LimitLearned():
            limit_learned(run, event)
        case WorktreeOpened():
            expect(not run.opening.worktree_opened, run, event)
            run.opening = replace(run.opening, worktree_opened=True)
            run.find(*(Finding("worktree", warning) for warning in event.warnings))
            run.tip, run.tip_tree = event.tip, event.tip_tree
        case SpecPlanned():
            spec_planned(run, event)
        case StorySkipped():
            _inbox_seen(run, event.number)
            _skipped(run, event)
        case StoryReopened():
            _inbox_seen(run, event.number)
            review_reopened(run, event) if event.story == RUN else _reopened(run, event)
        case RequestRefused(number=number):
            _inbox_seen(run, number)
        case RunInterrupted(number=number):
            if number is not None:
                _inbox_seen(run, number)
            run.status = RunStatus.INTERRUPTED
        case RunParked(what=what, reason=reason):
            run.parked = Parked(what, reason)
            run.transition_to(MachineState.PARKED, event.at)
        case RunResumed():
            _resumed(run, event)
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
        case Baselining(check=check):
            expect(opening.worktree_opened and opening.setup_done == len(policy.worktree.setup), run, event)
            expect(check in policy.checks and check not in {e.check for e in opening.baseline}, run, event)
            evidence = _evidence(event, check=check)
            run.opening = replace(opening, baseline=(*opening.baseline, evidence))
            if not evidence.reading.is_green:
                run.inherited = (*run.inherited, check)
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


def _skipped(run: Draft, event: StorySkipped) -> None:
    standing = run.stories.get(event.story)
    open_or_blocked = (StoryState.OPEN, StoryState.BLOCKED, StoryState.BUILDING)
    expect(standing is not None and standing.state in open_or_blocked, run, event)
    assert standing is not None
    reason = "skipped by a human"
    work = run.work.get(event.story)
    if work is not None:
        expect(can_be_left(work), run, event)
        run.put_in_line(replace(work, stage=Leaving(state=StoryState.SKIPPED, reason=reason, at=event.at)))
        return
    if standing.state is StoryState.OPEN:
        run.allow(-1)
    run.stand(event.story, replace(standing, state=StoryState.SKIPPED, reason=reason, blocked_by=None))
    block_dependents(run, event.story)


def _reopened(run: Draft, event: StoryReopened) -> None:
    standing = run.stories.get(event.story)
    ended = (StoryState.BLOCKED, StoryState.SKIPPED)
    expect(standing is not None and standing.state in ended, run, event)
    expect(event.story not in run.work, run, event)  # it is still being left
    reopened = {event.story} | {name for name, s in run.stories.items() if s.blocked_by == event.story}
    for name in reopened:
        run.stand(name, replace(run.stories[name], state=StoryState.OPEN, reason="", blocked_by=None))
    run.hints = run.hints | {event.story: event.hint}
    run.allow(len(reopened))
    run.review_iteration = 0  # what comes of it is reviewed with cycles of its own
    block_all_dependents(run)  # others may still be in the way


def _resumed(run: Draft, event: RunResumed) -> None:
    unfinished = any(s.state is StoryState.OPEN for s in run.stories.values()) or bool(run.work)
    unfinished = unfinished or is_review_due(run, run.effective_config(), run.review_iteration)
    failed_early = run.status is RunStatus.FAILED and bool(run.failure)
    expect(run.status is not RunStatus.COMPLETED, run, event)
    expect(run.status is not RunStatus.FAILED or unfinished or failed_early, run, event)
    stands, died = run.status in (RunStatus.FAILED, RunStatus.PARKED), run.status is RunStatus.RUNNING
    if event.policy is not None:
        if event.policy.checks != run.effective_config().checks:
            run.final = replace(run.final, tree="")
        run.config, run.set_up = event.policy, False
    policy = run.effective_config()
    # A failed or parked run leaves that state here; where it then stands follows from the rest of the state.
    if stands:
        run.transition_to(_taken_up(run), event.at)
    run.status = RunStatus.RUNNING
    run.parked, run.failure, run.resumes = None, "", run.resumes + 1
    run.cooling = {name: cooling for name, cooling in run.cooling.items() if cooling.until is not None}
    if len(run.opening.baseline) < len(policy.checks):
        run.opening, run.inherited, run.set_up = replace(run.opening, baseline=()), (), False
    proven_anew(run)
    for standing in run.work.values():
        work = measured_anew(run, standing)
        errand, cs = errand_of(work, run.continuation)
        chain = chain_of(run, errand.drain, attempt=errands.attempt_of(cs))
        if chain and chain != errand.chain:
            errand, cs = errands.rechained(errand, cs, chain=chain, table=run.cooling, now=event.at)
        elif isinstance(errand.stage, errands.Stranded):
            errand, cs = errands.wait_ended(errand, cs, table=run.cooling, now=event.at)
        elif isinstance(errand.stage, errands.Waiting) and not died:
            # Nobody has waited since the run was parked or stopped; how long the dead had waited nobody knows.
            waiting = replace(errand.stage, since=min(event.at, errand.stage.until))
            errand = replace(errand, stage=waiting)
        with_errand(run, work, errand, cs)


def _taken_up(run: Draft) -> MachineState:
    if run.spec.is_free_form:
        return MachineState.LOADING_SPEC
    return MachineState.INITIALIZING if _is_opening(run) else MachineState.PICKING_STORY


# --- what the run is doing ------------------------------------------------------------------------------


def _machine_state(run: Draft) -> MachineState:
    """What a running run is doing, derived from the rest of the state."""
    if run.spec.is_free_form:
        return planning_state(run)
    if run.final.owed:
        return MachineState.PROVING
    if not run.set_up and _is_opening(run):
        return MachineState.INITIALIZING
    for work in run.work.values():
        if is_set_aside(work):
            continue
        return _DOING.get(type(work.stage)) or (MachineState.WAITING if waiting_of(work) else _asking(work))
    return MachineState.WAITING if run.work else MachineState.PICKING_STORY


def _only_waits(run: Draft) -> bool:
    """Nothing is under way but waiting: that is no time of the budget's."""
    return run.machine_state is _WAITING and all(
        is_set_aside(work) or isinstance(work.stage, Approving) or waiting_of(work) for work in run.work.values()
    )


def _is_opening(run: Draft) -> bool:
    if not run.set_up:
        opening, policy = run.opening, run.effective_config()
        prepared = opening.worktree_opened and opening.setup_done >= len(policy.worktree.setup)
        run.set_up = prepared and len(opening.baseline) >= len(policy.checks)
    return not run.set_up


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
    return _ASKING[errand_of(work, work.cs)[0].drain]


_ASKING: dict[Drain, MachineState] = {
    Drain.STORY: MachineState.RUNNING_AGENT,
    Drain.REVIEW: MachineState.REVIEWING,
    Drain.FIX: MachineState.CORRECTING,
    Drain.ANALYSIS: MachineState.PROVING,
    Drain.COMMIT: MachineState.COMMITTING,
}


def _inbox_seen(run: Draft, number: int) -> None:
    run.inbox_seen = max(run.inbox_seen, number)
