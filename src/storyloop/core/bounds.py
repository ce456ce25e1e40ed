"""Bounds: the most that a run can cost, computed from its policy before it starts.

It is built on one cap alone: `calls_per_errand`, which counts every start of an agent process and never starts
anew. Each story is one errand, and one more for its commit message where that drain is bound. What a human asks for
later (`retry`) adds one errand each time, and says so.
"""

import msgspec

from storyloop.core.policy import Drain, Policy
from storyloop.core.spec import Spec


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


def bounds_of(iterations: int, spec: Spec, policy: Policy) -> Bounds:
    """The same for a number of iterations that may still be begun."""
    limits, budget = policy.limits, policy.budget
    per_story = limits.calls_per_errand * (2 if policy.chain_of(Drain.COMMIT) else 1)
    calls = iterations * per_story
    if budget.calls is not None:
        calls = min(calls, budget.calls)
    agent_seconds = calls * limits.call_timeout
    if budget.time is not None:  # it is looked at before a call, and the last one has its whole deadline
        agent_seconds = min(agent_seconds, budget.time + limits.call_timeout)
    attempts = max(1, limits.continuations)
    checks = sum(policy.check_timeout(check) for check in policy.checks.values())
    proofs = [sum(c.verify is not None for c in s.acceptance_criteria) for s in spec.user_stories if not s.passes]
    most_proofs = max(proofs, default=0) * limits.check_timeout
    set_up = len(policy.worktree.setup) * limits.check_timeout
    # Every check and proof may be run twice (a red one is), on each attempt, after its run on the untouched tree.
    check_seconds = set_up + 2 * checks + iterations * (most_proofs + attempts * 2 * (checks + most_proofs))
    return Bounds(
        stories=iterations,
        calls=calls,
        agent_seconds=agent_seconds,
        wait_seconds=limits.max_wait,
        check_seconds=check_seconds,
        tokens=budget.tokens,
        usd=budget.usd,
    )
