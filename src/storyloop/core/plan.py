"""plan(state) -> what is owed now.

The answer comes from the state alone, never from the transition that led to it, so nothing is lost between "fact
stored" and "deed begun". It is a tuple because independent stories may be worked on side by side; `width` says how
many. An empty tuple means that the run has ended, is parked, or was interrupted.
"""

from datetime import datetime
from typing import assert_never

from storyloop.core.asking import deadline_of, question_line
from storyloop.core.budget import run_refuses
from storyloop.core.continuation import ContinuationState
from storyloop.core.effects import (
    CallAgent,
    CleanHandover,
    Effect,
    FinishRun,
    LandStory,
    LeaveStory,
    OpenWorktree,
    ParkRun,
    RunCommand,
    ScrubWorktree,
    SetAside,
    StartReview,
    StartStory,
    TakeUp,
    Wait,
    WriteHandover,
    WriteSpec,
)
from storyloop.core.errand import (
    Calling,
    Delivered,
    Errand,
    GivenUp,
    Mode,
    Owed,
    Stranded,
    Waiting,
    Why,
    attempt_of,
    mode_owed,
)
from storyloop.core.errors import ProgrammerError
from storyloop.core.feedback import is_unplanned, look_owed
from storyloop.core.final import is_final_proof_due
from storyloop.core.judge import owed_probes
from storyloop.core.passing import approval_line
from storyloop.core.policy import Command, Policy
from storyloop.core.progress import (
    Approving,
    Asking,
    Building,
    Closing,
    Describing,
    Doubting,
    Judging,
    Landing,
    Leaving,
    ParkedFor,
    Planned,
    Planning,
    Preparing,
    Progress,
    Proving,
    StoryState,
    TakingUp,
    Work,
    is_set_aside,
)
from storyloop.core.purpose import (
    RUN,
    Baselining,
    Checking,
    Demonstrating,
    FinalChecking,
    FinalPurpose,
    Probing,
    Purpose,
    Reproving,
    SettingUp,
    key_of,
)
from storyloop.core.review import is_review_due, is_shipped
from storyloop.core.run_state import RunState
from storyloop.core.spec import ready
from storyloop.core.steps import errand_of
from storyloop.core.words import RunStatus


def plan(state: RunState, *, width: int = 1) -> tuple[Effect, ...]:
    """Every deed that is owed now, at most `width` stories at once."""
    if state.status is not RunStatus.RUNNING:
        return ()
    progress = state.going
    final = progress.final
    if final.owed and not final.scrubbed and progress.opening.worktree_opened:
        return (_scrub(progress, final.rounds),)
    opening = _opening(state)
    if opening is not None:
        return (opening,)
    if final.owed:  # a round is seen to its end, whatever a human opens again meanwhile
        command = _command_of(progress, state.effective_config(), final.owed[0])
        return (_run(state, final.owed[0], command=command, tree=final.tree),)
    in_hand = [work for work in progress.work.values() if not is_set_aside(work)]
    # More than `width` only when a reply came meanwhile: who was set aside waits for a worktree.
    owed = tuple(effect for work in in_hand[:width] for effect in _story(state, work))
    parks = [effect for effect in owed if isinstance(effect, ParkRun)]
    if parks:  # what is under way is seen to its end first
        begun = tuple(e for e in owed if isinstance(e, CallAgent) and e.begun)
        return begun or (parks[0],)
    has_room = len(in_hand) < width and RUN not in progress.work  # a review is of what stands still
    return owed + _next_story(state, alone=not in_hand) if has_room else owed


def _opening(state: RunState) -> Effect | None:
    progress, policy = state.going, state.effective_config()
    opening = progress.opening
    if not opening.worktree_opened:
        return OpenWorktree(key=f"open/worktree/{opening.losses}" if opening.losses else "open/worktree")
    if opening.setup_done < len(policy.worktree.setup):
        number = opening.setup_done
        setup = Command(run=policy.worktree.setup[number])
        proof = progress.final.rounds if progress.final.owed else 0
        return _run(state, SettingUp(number, proof), command=setup, tree=None)
    if is_unplanned(progress):
        return None  # its plan comes first, and is work
    measured = {evidence.check for evidence in opening.baseline}
    for name, check in policy.checks.items():
        if name not in measured:
            return _run(state, Baselining(name), command=check, tree=progress.tip_tree)
    return None


def _next_story(state: RunState, *, alone: bool) -> tuple[Effect, ...]:
    """One at a time, however many are ready: the number of an iteration is given when it has begun.

    `alone`: besides stories that wait for a human, none is in hand.
    """
    progress = state.going
    asking = [(work, work.stage) for work in progress.work.values() if isinstance(work.stage, Asking)]
    if alone and asking and (overdue := _unanswered(state, *asking[0], until=progress.last_at)):
        return (overdue,)
    passed = {name for name, story in progress.stories.items() if story.state is StoryState.PASSED}
    closed = {name for name, story in progress.stories.items() if story.state is not StoryState.OPEN}
    for story in ready(progress.spec, passed, closed=closed):
        iteration = state.iteration + 1
        return (StartStory(key=f"{story.id}/{iteration}/start", story=story.id, iteration=iteration),)
    if alone and asking:
        return (_unanswered(state, *asking[0]) or _parked_for_answer(state, asking),)
    if progress.work:
        return ()
    policy = state.effective_config()
    if is_review_due(progress, policy, state.review_iteration):
        cycle = progress.review.cycles + 1
        return (StartReview(key=f"@run/{cycle}/start", cycle=cycle),)
    if is_final_proof_due(progress, policy):
        return (_scrub(progress, progress.final.rounds + 1),)
    if (look := look_owed(progress, policy)) is not None:
        return (look,)
    return (FinishRun(key=f"finish/{progress.resumes}", shipped=is_shipped(progress)),)


def _scrub(progress: Progress, proof: int) -> Effect:
    return ScrubWorktree(key=f"final/{proof}/scrub/{progress.resumes}", round=proof)


def _story(state: RunState, work: Work) -> tuple[Effect, ...]:
    """What one story in hand is owed: never nothing."""
    progress, policy = state.going, state.effective_config()
    prefix = f"{work.label}/{work.iteration}"
    if work.cs.context_cleanup_pending:
        when = "end" if isinstance(work.stage, Closing) else "start"
        return (CleanHandover(key=f"{prefix}/clean/{when}", story=work.story),)
    match work.stage:
        case Preparing():
            purpose = owed_probes(work, progress.spec.story(work.story))[0]
            return (_run(state, purpose, command=_command_of(progress, policy, purpose), tree=work.tree),)
        case Planning() | Building():
            return _errand(state, work, work.errand, work.cs)
        case Planned(spec=spec):
            return (WriteSpec(key=f"{prefix}/write", spec=spec),)
        case Judging() | Describing():
            return _errand(state, work, *errand_of(work, progress.continuation))
        case Asking():
            return (SetAside(key=f"{_question(state, work)}/aside", story=work.story),)
        case TakingUp():
            return (TakeUp(key=f"{_question(state, work)}/take-up", story=work.story),)
        case Proving() as proving:
            purpose = proving.owed[0]
            return (_run(state, purpose, command=_command_of(progress, policy, purpose), tree=proving.tree),)
        case Doubting(landing=landing, owed=owed):
            command = _command_of(progress, policy, owed[0].of)
            return (_run(state, owed[0], command=command, tree=landing.tree),)
        case Approving(landing=landing):
            reason = approval_line(work, landing)
            return (ParkRun(key=f"park/{progress.resumes}", what=ParkedFor.HUMAN, reason=reason),)
        case Landing():
            return (LandStory(key=f"{prefix}/land", story=work.story),)
        case Leaving():
            return (LeaveStory(key=f"{prefix}/leave", story=work.story),)
        case Closing():
            raise ProgrammerError(f"story {work.story} is closed and owes nothing, but is still in hand")
        case _:
            assert_never(work.stage)


def _errand(state: RunState, work: Work, errand: Errand, cs: ContinuationState) -> tuple[Effect, ...]:
    progress, policy, attempt = state.going, state.effective_config(), attempt_of(cs)
    match errand.stage:
        case Owed():
            if cs.context_write_pending:
                key = f"{errand.key}/{attempt}/{errand.calls}/handover"
                return (WriteHandover(key=key, story=work.story),)
            refusal = run_refuses(state, errand.ref)
            if refusal is not None:
                return (ParkRun(key=f"park/{progress.resumes}", what=ParkedFor.BUDGET, reason=refusal),)
            call = errand.calls + 1
            return (_call(work, errand, attempt=attempt, call=call, mode=mode_owed(cs), begun=False),)
        case Calling(mode=mode):
            return (_call(work, errand, attempt=attempt, call=errand.calls, mode=mode, begun=True),)
        case Waiting() as waiting:
            return (_wait(progress, policy, work, errand, waiting),)
        case Stranded(reason=reason):
            sentence = f"no agent can be asked: {reason}"
            return (ParkRun(key=f"park/{progress.resumes}", what=ParkedFor.HUMAN, reason=sentence),)
        case Delivered() | GivenUp():
            raise ProgrammerError(f"errand {errand.key} is over, but its story has not moved on")
        case _:
            assert_never(errand.stage)


def _wait(progress: Progress, policy: Policy, work: Work, errand: Errand, waiting: Waiting) -> Effect:
    length = (waiting.until - waiting.since).total_seconds()  # as it will be counted, and so it is compared
    key = f"park/{progress.resumes}"
    until = f"{waiting.until:%Y-%m-%d %H:%M:%S} UTC"
    if policy.no_wait and waiting.why is Why.LIMIT and waiting.until > progress.last_at:
        reason = f"{waiting.reason}; it is over at {until} (--no-wait was given)"
        return ParkRun(key=key, what=ParkedFor.QUOTA, reason=reason)
    if progress.ledger.waited + length > policy.limits.max_wait:
        reason = f"{waiting.reason}; waiting until {until} would be more than max_wait allows"
        return ParkRun(key=key, what=ParkedFor.QUOTA, reason=reason)
    wait = f"{errand.key}/wait/{errand.calls}/{waiting.until.isoformat()}"
    return Wait(key=wait, story=work.story, since=waiting.since, until=waiting.until)


def _unanswered(state: RunState, work: Work, asking: Asking, *, until: datetime | None = None) -> Effect | None:
    """The wait for the deadline of a question, behind which its default holds; `until`: only if it is over by then."""
    progress, policy = state.going, state.effective_config()
    deadline = deadline_of(asking, policy)
    if deadline is None or (until is not None and deadline > until):
        return None
    since = min(progress.last_at, deadline)
    length = (deadline - since).total_seconds()
    if length and (policy.no_wait or progress.ledger.waited + length > policy.limits.max_wait):
        return None
    return Wait(key=f"{_question(state, work)}/wait", story=work.story, since=since, until=deadline)


def _parked_for_answer(state: RunState, asking: list[tuple[Work, Asking]]) -> Effect:
    told = [question_line(work.story, stage.question) for work, stage in asking]
    more = f"; and {len(told) - 1} more" if told[1:] else ""
    return ParkRun(key=f"park/{state.going.resumes}", what=ParkedFor.HUMAN, reason=f"{told[0]}{more}")


def _question(state: RunState, work: Work) -> str:
    """The question that this story waits for, or has just had its reply to."""
    number = len(state.going.stories[work.story].replies) + isinstance(work.stage, Asking)
    return f"{work.label}/{work.iteration}/question/{number}"


def _call(work: Work, errand: Errand, *, attempt: int, call: int, mode: Mode, begun: bool) -> CallAgent:
    return CallAgent(
        key=f"{errand.key}/{attempt}/{call}",
        story=work.story,
        drain=errand.drain,
        attempt=attempt,
        call=call,
        ref=errand.ref,
        mode=mode,
        begun=begun,
    )


def _command_of(
    progress: Progress, policy: Policy, purpose: Probing | Checking | Demonstrating | Reproving | FinalPurpose
) -> Command:
    if isinstance(purpose, Checking | FinalChecking):
        return policy.checks[purpose.check]
    criterion = progress.spec.story(purpose.story).acceptance_criteria[purpose.criterion - 1]
    assert criterion.verify is not None
    return Command(run=criterion.verify)


def _run(state: RunState, purpose: Purpose, *, command: Command, tree: str | None) -> RunCommand:
    return RunCommand(
        key=f"{key_of(purpose)}/{state.going.resumes}",  # a round that was broken off is measured anew
        purpose=purpose,
        command=command,
        timeout=state.effective_config().check_timeout(command),
        tree=tree,
    )
