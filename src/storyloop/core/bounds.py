"""Bounds: the most that a run can cost, computed from its policy before it starts.

It is built on one cap alone: `Limits.calls_of`, which counts every start of an agent process in an errand and never
starts anew. Each story is one errand, one more for its commit message and one for the analysis of its open criteria,
where those drains are bound, and one for its clashes with others where stories are worked on side by side; and the same
once more if the final proof sends it back. Each cycle of the review is two: the review itself and the fix behind it,
with its message; where stories are reviewed one by one, each has one errand for that instead. What a human asks for
later (`retry`) adds one errand and one round of the final proof each time, and says so; another round of the review
adds its cycles. The words of a pull request are one more, where they are asked for. The plan of a free-form spec is one
more errand; as long as it is not there, the most that a plan may hold stands for it.
"""

import msgspec
from msgspec.structs import replace

from storyloop.core.artifacts import MOST_PLANNED_CRITERIA, MOST_PLANNED_STORIES
from storyloop.core.policy import Drain, NewTests, Policy
from storyloop.core.spec import Criterion, Spec, Story


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Upper bounds; None means that nothing but the calls bounds it.

    Tokens and money are looked at before each call, so the last one may go over them.
    """

    stories: int
    calls: int
    agent_seconds: float
    wait_seconds: float
    check_seconds: float
    tokens: int | None
    usd: float | None


def bounds(spec: Spec, policy: Policy) -> Bounds:
    """The most this spec can cost under this policy."""
    return bounds_of(sum(not story.passes for story in spec.user_stories), spec, policy)


def feedback_bounds(spec: Spec, policy: Policy, *, concerns: int, rounds: int) -> Bounds:
    """The most that following a pull request up can cost: each concern a story, each round a triage."""
    stories = (Story(id="", title="", acceptance_criteria=(Criterion(""),), priority=1),) * concerns
    attempts = max(policy.limits.continuations, policy.limits.fix_continuations)
    policy = replace(policy, limits=replace(policy.limits, continuations=attempts))
    return bounds_of(concerns, replace(spec, user_stories=(*spec.user_stories, *stories)), policy, plans=rounds)


def _most_planned(spec: Spec) -> Spec:
    criteria = (Criterion("", verify="true"),) * MOST_PLANNED_CRITERIA
    story = Story(id="", title="", acceptance_criteria=criteria, priority=1)
    return replace(spec, user_stories=(story,) * MOST_PLANNED_STORIES)


def _has_open_criteria(spec: Spec) -> bool:
    return any(not c.verify for story in spec.user_stories for c in story.acceptance_criteria)


def may_return(spec: Spec, policy: Policy) -> int:
    """How many stories the final proof may send back: each once, if a command of its own or a check could be red."""
    if policy.limits.continuations == 0:
        return 0
    return sum(bool(policy.checks) or any(c.verify for c in s.acceptance_criteria) for s in spec.user_stories)


def bounds_of(iterations: int, spec: Spec, policy: Policy, *, plans: int = 0) -> Bounds:
    """The same for a number of iterations that may still be begun, and of plans."""
    judged = bool(policy.chain_of(Drain.ANALYSIS)) and (spec.is_free_form or _has_open_criteria(spec))
    if spec.is_free_form:
        plans = max(plans, 1)
        iterations, spec = MOST_PLANNED_STORIES, _most_planned(spec)
    limits, budget = policy.limits, policy.budget
    worded = bool(policy.chain_of(Drain.COMMIT))
    wording = worded * limits.calls_of(Drain.COMMIT)
    per_story = limits.calls_of(Drain.STORY) + wording + judged * limits.calls_of(Drain.ANALYSIS)
    per_story += (limits.parallel > 1) * limits.calls_of(Drain.CONFLICT)
    cycles = limits.review_cycles * policy.review.enabled
    if policy.review.per_story and cycles:  # one errand for all cycles of a story
        per_story, cycles = per_story + limits.calls_of(Drain.REVIEW), 0
    if budget.story.calls is not None:
        per_story = min(per_story, budget.story.calls)
    returns = may_return(spec, policy)
    cycles *= iterations + returns > 0
    per_cycle = limits.calls_of(Drain.REVIEW) + limits.calls_of(Drain.FIX) + wording  # which no story's budget bounds
    described = limits.calls_of(Drain.PR) if policy.pull_request.create and policy.chain_of(Drain.PR) else 0
    calls = (iterations + returns) * per_story + cycles * per_cycle + plans * limits.calls_of(Drain.PLAN) + described
    if budget.calls is not None:
        calls = min(calls, budget.calls)
    agent_seconds = calls * limits.call_timeout
    if budget.time is not None:  # it is looked at before a call, and the last one has its whole deadline
        agent_seconds = min(agent_seconds, budget.time + limits.call_timeout)
    attempts = max(1, limits.continuations)
    checks = sum(policy.check_timeout(check) for check in policy.checks.values())
    proofs = [sum(c.verify is not None for c in s.acceptance_criteria) for s in spec.user_stories]
    most_proofs = max(proofs, default=0) * limits.check_timeout
    set_up = len(policy.worktree.setup) * limits.check_timeout
    # Every check and proof may be run twice (a red one is), on each attempt, after its run on the untouched tree.
    story = most_proofs + attempts * 2 * (checks + most_proofs)
    if limits.parallel > 1:  # and on the branch as it has become, twice if a clash is reconciled, at each of its turns
        story += 2 * (1 + limits.questions) * 2 * (checks + most_proofs)
    if policy.new_tests is not NewTests.OFF:  # and once more without the work
        story += checks + most_proofs
    final = set_up + 2 * (checks + sum(proofs) * limits.check_timeout)
    rounds = 1 + min(limits.continuations, returns)
    lanes = rounds * limits.parallel * set_up if limits.parallel > 1 else 0
    fixes = cycles * max(1, limits.fix_continuations) * 2 * (checks + sum(proofs) * limits.check_timeout)
    check_seconds = set_up + lanes + 2 * checks + (iterations + returns) * story + fixes + rounds * final
    return Bounds(
        stories=iterations,
        calls=calls,
        agent_seconds=agent_seconds,
        wait_seconds=limits.max_wait,
        check_seconds=check_seconds,
        tokens=budget.tokens,
        usd=budget.usd,
    )
