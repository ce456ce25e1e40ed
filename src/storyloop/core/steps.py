"""Small questions and steps that folding is made of."""

from msgspec.structs import replace

from storyloop.core.continuation import ContinuationState
from storyloop.core.draft import Draft
from storyloop.core.errand import Errand
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import Event
from storyloop.core.policy import AgentRef, Drain, Policy
from storyloop.core.stages import Describing, Judging, Reconciling, Work
from storyloop.core.words import StoryState


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


def chain_of(run: Draft, drain: Drain, *, attempt: int = 0, work: Work | None = None) -> tuple[AgentRef, ...]:
    """The agents to ask for this attempt, in order; a reviewer is by preference none of the authors."""
    policy = run.effective_config()
    chain = policy.chain_of(drain, attempt=attempt)
    if drain is not Drain.REVIEW or drain in policy.drains:
        return chain
    authors = {standing.author for standing in run.stories.values()}
    if work is not None and isinstance(work.stage, Judging):
        authors = {work.errand.ref.agent}
    return tuple(sorted(chain, key=lambda ref: ref.agent in authors))


def with_errand(run: Draft, work: Work, errand: Errand, cs: ContinuationState) -> Work:
    """The same errand, moved on, back in its place."""
    match work.stage:
        case Describing() as describing:
            moved = replace(work, stage=replace(describing, errand=errand, cs=cs))
        case Judging(drain=Drain.REVIEW):
            moved = replace(work, reviewer=errand, cs=cs)
        case Judging():
            moved = replace(work, analysis=errand, cs=cs)
        case Reconciling():
            moved = replace(work, conflict=errand, cs=cs)
        case _:
            moved = replace(work, errand=errand, cs=cs)
    run.put(moved)
    return moved


def work_of(run: Draft, story: str, event: Event) -> Work:
    """The story in hand that this event is about."""
    work = run.work.get(story)
    if work is None:
        raise IllegalTransition(run.machine_state, event)
    return work


def expect(holds: bool, run: Draft, event: Event) -> None:
    """Refuse a fact that cannot follow from this state."""
    if not holds:
        raise IllegalTransition(run.machine_state, event)


def block_dependents(run: Draft, culprit: str) -> None:
    """Every open story that needs `culprit`, directly or through blocked ones, cannot be begun."""
    reason = f"depends on {culprit}, which is {run.stories[culprit].state}"
    lost = {culprit}
    for story in run.spec.order():
        standing = run.stories[story.id]
        if standing.state not in (StoryState.OPEN, StoryState.BLOCKED) or lost.isdisjoint(story.depends_on):
            continue
        lost.add(story.id)
        if standing.state is StoryState.OPEN:
            run.stand(story.id, replace(standing, state=StoryState.BLOCKED, reason=reason, blocked_by=culprit))
            run.allow(-1)


def block_all_dependents(run: Draft) -> None:
    """No open story needs one that has ended without passing: it is blocked, naming the first of them."""
    ended = (StoryState.BLOCKED, StoryState.SKIPPED)
    for name in [name for name, s in run.stories.items() if s.state in ended and s.blocked_by is None]:
        block_dependents(run, name)


def is_opening(run: Draft) -> bool:
    """Whether the worktree or the baseline is still owed, before anything else."""
    if not run.set_up:
        opening, policy = run.opening, run.effective_config()
        prepared = opening.worktree_opened and opening.setup_done >= len(policy.worktree.setup)
        run.set_up = prepared and len(opening.baseline) >= len(policy.checks)
    return not run.set_up


def is_initializing(run: Draft) -> bool:
    """Whether this is shown as the run's beginning: a worktree that was lost and is made again is none."""
    if run.set_up or not is_opening(run):
        return False
    is_over = bool(run.opening.losses or run.final.rounds)
    return not is_over or len(run.opening.baseline) < len(run.effective_config().checks)
