"""Small steps that folding is made of: each changes one part of a RunState and leaves the rest."""

from msgspec.structs import replace

from storyloop.core.continuation import ContinuationState
from storyloop.core.errand import Calling, Errand
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import Event
from storyloop.core.facts import Finding
from storyloop.core.policy import AgentRef, Policy
from storyloop.core.progress import (
    Building,
    Describing,
    Landing,
    Leaving,
    Preparing,
    Proving,
    StoryProgress,
    StoryState,
    Work,
)
from storyloop.core.run_state import RunState
from storyloop.core.usage import Spending

_MOST_FINDINGS = 200


def fresh_continuation(policy: Policy) -> ContinuationState:
    """A ContinuationState with this policy's five limits."""
    limits = policy.limits
    return ContinuationState(
        max_xsd_retry_count=limits.format_retries,
        max_same_agent_retry_count=limits.same_agent_retries,
        max_continue_count=limits.continuations,
        max_fix_continue_count=limits.fix_continuations,
        max_consecutive_same_effect=limits.loop_threshold,
    )


def errand_of(state: RunState, work: Work) -> tuple[Errand, ContinuationState]:
    """The errand that is this story's turn now, with the counters it runs on."""
    if isinstance(work.stage, Describing):
        return work.stage.errand, state.going.continuation
    return work.errand, work.cs


def with_errand(state: RunState, work: Work, errand: Errand, cs: ContinuationState) -> RunState:
    """The same errand, moved on, back in its place."""
    if isinstance(work.stage, Describing):
        described = replace(work, stage=replace(work.stage, errand=errand))
        return put(amended(state, continuation=cs), described)
    return put(state, replace(work, errand=errand, cs=cs))


def spent(state: RunState, ref: AgentRef, spending: Spending) -> RunState:
    """The ledger with this added, in total and for this agent."""
    ledger = state.going.ledger
    by_agent = ledger.by_agent | {str(ref): ledger.by_agent.get(str(ref), Spending()) + spending}
    return amended(state, ledger=replace(ledger, total=ledger.total + spending, by_agent=by_agent))


def found(state: RunState, *findings: Finding) -> RunState:
    """What was undone or kept aside, remembered for the report; the newest are kept."""
    if not findings:
        return state
    kept = (*state.going.findings, *findings)[-_MOST_FINDINGS:]
    return amended(state, findings=kept)


def work_of(state: RunState, story: str, event: Event) -> Work:
    """The story in hand that this event is about."""
    work = state.going.work.get(story)
    if work is None:
        raise IllegalTransition(state.machine_state, event)
    return work


def put(state: RunState, work: Work) -> RunState:
    """This work in hand."""
    return amended(state, work=state.going.work | {work.story: work})


def stand(state: RunState, story: str, standing: StoryProgress) -> RunState:
    """What is settled about this story."""
    return amended(state, stories=state.going.stories | {story: standing})


def amended(state: RunState, **changes: object) -> RunState:
    """Progress with these fields changed."""
    return replace(state, progress=replace(state.going, **changes))


def expect(holds: bool, state: RunState, event: Event) -> None:
    """Refuse a fact that cannot follow from this state."""
    if not holds:
        raise IllegalTransition(state.machine_state, event)


def allowed(state: RunState, more: int) -> RunState:
    """So many more stories may be begun (or fewer)."""
    ledger = state.going.ledger
    return amended(state, ledger=replace(ledger, iterations_allowed=ledger.iterations_allowed + more))


def block_dependents(state: RunState, culprit: str) -> RunState:
    """Every open story that needs `culprit`, directly or through blocked ones, cannot be begun."""
    progress = state.going
    stories = dict(progress.stories)
    reason = f"depends on {culprit}, which is {stories[culprit].state}"
    lost, blocked = {culprit}, 0
    for story in progress.spec.order():
        standing = stories[story.id]
        if standing.state not in (StoryState.OPEN, StoryState.BLOCKED) or lost.isdisjoint(story.depends_on):
            continue
        lost.add(story.id)
        if standing.state is StoryState.OPEN:
            stories[story.id] = replace(standing, state=StoryState.BLOCKED, reason=reason, blocked_by=culprit)
            blocked += 1
    return allowed(amended(state, stories=stories), -blocked)


_STANDING: dict[type, StoryState] = {
    Preparing: StoryState.BUILDING,
    Building: StoryState.BUILDING,
    Proving: StoryState.PROVING,
    Describing: StoryState.LANDING,
    Landing: StoryState.LANDING,
    Leaving: StoryState.BUILDING,
}


def standing_of(work: Work, settled: StoryState) -> StoryState:
    """What a story in hand shows as its state."""
    return _STANDING.get(type(work.stage), settled)


def can_be_left(work: Work) -> bool:
    """A story in hand can be skipped unless a call is under way or its proven tree is being committed."""
    calling = isinstance(work.errand.stage, Calling)
    return not calling and isinstance(work.stage, Preparing | Building | Proving)
