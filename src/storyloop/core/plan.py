"""plan(state) -> what is owed now.

The answer comes from the state alone, never from the transition that led to it, so nothing is lost between "fact
stored" and "deed begun". It is a tuple because independent stories may be worked on side by side, each in a worktree of
its own (`train`). An empty tuple means that the run has ended, is parked, or was interrupted.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import assert_never

from storyloop.core.asking import deadline_of, question_line
from storyloop.core.budget import run_refuses
from storyloop.core.delivery import owed_delivery
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
from storyloop.core.policy import AgentRef, Command, Policy
from storyloop.core.progress import ParkedFor, Progress
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
    SettingUpLane,
    key_of,
)
from storyloop.core.review import is_review_due, is_shipped
from storyloop.core.run_state import RunState
from storyloop.core.spec import ready
from storyloop.core.stages import (
    Approving,
    Asking,
    Building,
    Closing,
    Describing,
    Doubting,
    Judging,
    Landing,
    Leaving,
    Planned,
    Planning,
    Preparing,
    Proving,
    Reconciling,
    TakingUp,
    Wording,
    Work,
    errand_of,
    is_calling,
    is_set_aside,
    waiting_of,
)
from storyloop.core.train import free_lane, is_in_line, lands, turn_of
from storyloop.core.words import RunStatus, StoryState


def plan(state: RunState) -> tuple[Effect, ...]:
    """Every deed that is owed now."""
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
    width = state.effective_config().limits.parallel
    owed: list[Effect] = []
    room, taken = width, {work.lane for work in progress.work.values() if work.lane is not None}
    # Whose agent is at work comes first: who goes back from the train, or is one too many since a resume, waits.
    for work in sorted(progress.work.values(), key=lambda work: not is_calling(work)):
        takes_room = width == 1 or not lands(work)
        if work.lane is not None and (room > 0 or not takes_room):
            owed += _story(state, work, ahead=_calls(owed))
            room -= takes_room
    for seat in _seats(state, taken, room):
        owed.append(seat)
        room -= width == 1 or (isinstance(seat, TakeUp) and not is_in_line(progress.work[seat.story]))
    parks = [effect for effect in owed if isinstance(effect, ParkRun)]
    if parks:  # what others are at is seen to its end first
        return tuple(effect for effect in owed if not isinstance(effect, ParkRun)) or (parks[0],)
    if room > 0 and RUN not in progress.work:  # a review is of what stands still
        owed += _next_story(state, taken)
    return tuple(owed)


def _calls(owed: list[Effect]) -> tuple[AgentRef, ...]:
    return tuple(effect.ref for effect in owed if isinstance(effect, CallAgent) and not effect.begun)


def _seats(state: RunState, taken: set[int], room: int) -> Iterator[Effect]:
    """The stories that wait for a worktree and can have one now, which is then taken."""
    progress, is_wide = state.going, state.effective_config().limits.parallel > 1
    waiting = [work for work in progress.work.values() if work.lane is None and not is_set_aside(work)]
    turn = turn_of(progress) if waiting else None
    for work in waiting:
        if isinstance(work.stage, TakingUp) and room > 0:
            lane, room = free_lane(taken, has_turn=not is_wide or work.story == turn), room - 1
            yield TakeUp(key=f"{_question(state, work)}/take-up", story=work.story, lane=lane)
        elif 0 in taken:
            continue
        elif is_in_line(work) and work.story == turn and (room > 0 or is_wide):
            lane, key = 0, f"{work.label}/{work.iteration}/turn/{work.turns + 1}"
            yield TakeUp(key=key, story=work.story, lane=lane)
        elif isinstance(work.stage, Leaving) and not is_in_line(work):
            lane = 0
            yield from _story(state, work)
        else:
            continue
        taken.add(lane)


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


def _next_story(state: RunState, taken: set[int]) -> tuple[Effect, ...]:
    """One at a time, however many are ready: the number of an iteration is given when it has begun."""
    progress, policy = state.going, state.effective_config()
    alone = all(is_set_aside(work) for work in progress.work.values())
    asking = [(work, work.stage) for work in progress.work.values() if isinstance(work.stage, Asking)]
    if alone and asking and (overdue := _unanswered(state, *asking[0], until=progress.last_at)):
        return (overdue,)
    passed = {name for name, story in progress.stories.items() if story.state is StoryState.PASSED}
    closed = {name for name, story in progress.stories.items() if story.state is not StoryState.OPEN}
    for story in ready(progress.spec, passed, closed=closed):
        iteration, has_turn = state.iteration + 1, policy.limits.parallel == 1 or turn_of(progress) == story.id
        key, lane = f"{story.id}/{iteration}/start", free_lane(taken, has_turn=has_turn)
        return (StartStory(key=key, story=story.id, iteration=iteration, lane=lane),)
    if alone and asking:
        return (_unanswered(state, *asking[0]) or _parked_for_answer(state, asking),)
    if progress.work:
        return ()
    if is_review_due(progress, policy, state.review_iteration):
        cycle = progress.review.cycles + 1
        return (StartReview(key=f"@run/{cycle}/start", cycle=cycle),)
    if is_final_proof_due(progress, policy):
        return (_scrub(progress, progress.final.rounds + 1),)
    finish = FinishRun(key=f"finish/{progress.resumes}", shipped=is_shipped(progress))
    return (owed_delivery(progress, policy) or look_owed(progress, policy) or finish,)


def _scrub(progress: Progress, proof: int) -> Effect:
    return ScrubWorktree(key=f"final/{proof}/scrub/{progress.resumes}", round=proof)


def _story(state: RunState, work: Work, *, ahead: tuple[AgentRef, ...] = ()) -> tuple[Effect, ...]:
    """What one story with a worktree is owed: never nothing. `ahead`: who else is to be asked now."""
    progress, policy = state.going, state.effective_config()
    prefix = f"{work.label}/{work.iteration}"
    set_up = progress.lanes[work.lane].set_up if work.lane else len(policy.worktree.setup)
    if set_up < len(policy.worktree.setup) and not isinstance(work.stage, Leaving | Closing):
        purpose = SettingUpLane(work.story, work.iteration, work.lane or 0, set_up)
        return (_run(state, purpose, command=Command(run=policy.worktree.setup[set_up]), tree=None),)
    if work.cs.context_cleanup_pending:
        when = "end" if isinstance(work.stage, Closing) else "start"
        return (CleanHandover(key=f"{prefix}/clean/{when}", story=work.story),)
    match work.stage:
        case Preparing():
            purpose = owed_probes(work, progress.spec.story(work.story))[0]
            return (_run(state, purpose, command=_command_of(progress, policy, purpose), tree=work.tree),)
        case Planning() | Building() | Wording():
            return _errand(state, work, ahead)
        case Planned(spec=spec):
            return (WriteSpec(key=f"{prefix}/write", spec=spec),)
        case Judging() | Reconciling() | Describing():
            return _errand(state, work, ahead)
        case Asking():
            return (SetAside(key=f"{_question(state, work)}/aside", story=work.story),)
        case TakingUp():  # the reply came before it was set aside
            return (TakeUp(key=f"{_question(state, work)}/take-up", story=work.story, lane=work.lane or 0),)
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


def _errand(state: RunState, work: Work, ahead: tuple[AgentRef, ...]) -> tuple[Effect, ...]:
    progress, policy, (errand, cs) = state.going, state.effective_config(), errand_of(work)
    attempt = attempt_of(cs)
    match errand.stage:
        case Owed():
            if cs.context_write_pending:
                key = f"{errand.key}/{attempt}/{errand.calls}/handover"
                return (WriteHandover(key=key, story=work.story),)
            refusal = run_refuses(state, errand.ref, ahead=ahead)
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
    others = ((waiting_of(other), other.story) for other in progress.work.values() if other.lane is not None)
    before = (other for other, name in others if other and (other.since, name) < (waiting.since, work.story))
    under_way = sum((other.until - other.since).total_seconds() for other in before)
    if progress.ledger.waited + under_way + length > policy.limits.max_wait:
        reason = f"{waiting.reason}; waiting until {until} would be more than max_wait allows"
        return ParkRun(key=key, what=ParkedFor.QUOTA, reason=reason)
    number = f"{errand.calls}+{errand.learned}" if errand.learned else f"{errand.calls}"
    # A resume may ask others, and so come to the same moment anew.
    wait = f"{errand.key}/wait/{number}/{progress.resumes}/{waiting.until.isoformat()}"
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
