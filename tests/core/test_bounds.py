"""The most that a run can cost, computed before it starts: by hand, and against the worst run there can be."""

from typing import Any

import pytest
from makers import (
    INTERRUPTED,
    MALFORMED,
    PARTIAL,
    RED,
    Run,
    chain,
    exited,
    later,
    limited,
    policy_of,
    run_of,
    spec_of,
    story,
)
from msgspec.structs import replace

from storyloop.core.bounds import bounds, bounds_of
from storyloop.core.effects import CallAgent, ParkRun, RunCommand, Wait
from storyloop.core.policy import Budget, Command, Drain, Policy, WorktreePolicy
from storyloop.core.spec import Story

ONE = (story("US-001"),)
THREE = (story("US-001", verify=("v1", "v2")), story("US-002"), story("US-003", verify=("v1",)))
WITH_PASSED = (story("US-001", passes=True), story("US-002", "US-001"))

# stories, changes of the default policy -> calls
CALLS: dict[str, tuple[tuple[Story, ...], dict[str, Any], int]] = {
    "24 for each story": (THREE, {}, 72),
    "none for a story that has passed": (WITH_PASSED, {}, 24),
    "none for no story": ((story("US-001", passes=True),), {}, 0),
    "as many as the errand may have": (THREE, {"limits": policy_of(calls_per_errand=5).limits}, 15),
    "twice as many where messages are worded": (THREE, {"drains": {Drain.COMMIT: chain("c")}}, 144),
    "no more than the budget allows": (THREE, {"budget": Budget(calls=10)}, 10),
    "a greater budget allows no more": (THREE, {"budget": Budget(calls=1000)}, 72),
    "however long the chain is": (THREE, {"chain": chain("a", "b", "c", "d")}, 72),
}


@pytest.mark.parametrize(("stories", "changes", "calls"), CALLS.values(), ids=CALLS)
def test_the_calls_follow_from_the_cap_of_an_errand_alone(
    stories: tuple[Story, ...], changes: dict[str, Any], calls: int
) -> None:
    """Retries, cycles and attempts only spend them."""
    assert bounds(spec_of(*stories), replace(Policy(chain=chain("a")), **changes)).calls == calls


def test_the_agents_time_is_that_of_the_calls() -> None:
    """Each call has its deadline."""
    policy = policy_of(calls_per_errand=5, call_timeout=60.0)
    assert bounds(spec_of(*THREE), policy).agent_seconds == 15 * 60


def test_a_budget_of_time_is_looked_at_before_a_call_and_not_in_it() -> None:
    """The last call may begin just before the time is up, and has its whole deadline."""
    policy = replace(policy_of(calls_per_errand=5, call_timeout=60.0), budget=Budget(time=100.0))
    assert bounds(spec_of(*THREE), policy).agent_seconds == 160
    ample = replace(policy, budget=Budget(time=10_000.0))
    assert bounds(spec_of(*THREE), ample).agent_seconds == 15 * 60


def test_the_time_of_our_own_commands_is_bounded_too() -> None:
    """Set-up once; the baseline twice if red; per story: probes once, and each attempt's commands twice if red."""
    policy = replace(
        policy_of(continuations=3, check_timeout=10.0),
        checks={"slow": Command(run="s", timeout=100.0), "fast": Command(run="f")},
        worktree=WorktreePolicy(setup=("npm ci",)),
    )
    # set-up 10, baseline 2 * 110, two proofs at most: 3 stories * (20 + 3 attempts * 2 * (110 + 20))
    assert bounds(spec_of(*THREE), policy).check_seconds == 10 + 220 + 3 * (20 + 3 * 2 * 130)


def test_no_continuation_still_means_one_attempt() -> None:
    """The first is no continuation."""
    policy = policy_of(checks=("test",), continuations=0, check_timeout=10.0)
    assert bounds(spec_of(*ONE), policy).check_seconds == 20 + 20


def test_waiting_tokens_and_money_are_what_the_user_allows() -> None:
    """None where nothing but the calls bounds it."""
    policy = replace(policy_of(max_wait=3600.0), budget=Budget(tokens=1000, usd=2.5))
    told = bounds(spec_of(*ONE), policy)
    assert (told.wait_seconds, told.tokens, told.usd) == (3600.0, 1000, 2.5)
    unlimited = bounds(spec_of(*ONE), policy_of())
    assert (unlimited.tokens, unlimited.usd) == (None, None)


def test_what_may_still_be_begun_has_a_bound_of_its_own() -> None:
    """A retry adds one errand."""
    assert bounds_of(1, spec_of(*THREE), policy_of(calls_per_errand=5)).calls == 5


# --- the worst run there can be ---------------------------------------------------------------------------


def calls_made(run: Run) -> int:
    return run.state.going.ledger.calls


@pytest.mark.parametrize("outcome", [MALFORMED, PARTIAL, INTERRUPTED])
def test_a_run_that_never_gets_anywhere_makes_exactly_the_calls_of_its_bound(outcome: Any) -> None:
    """It cannot make one more, and the bound promises no less than can happen."""
    policy = policy_of("a", "b", calls_per_errand=7, continuations=99, chain_cycles=99, loop_threshold=99, max_wait=1e9)
    run = run_of(*(story(name) for name in ("US-001", "US-002", "US-003")), policy=policy)
    for _ in range(3):  # red, so that partial does not pass
        run.until(CallAgent)
        number = run.state.iteration
        while run.owed and run.state.iteration == number:
            run.did(**({"outcome": outcome} if isinstance(run.due, CallAgent) else {"first": RED, "second": RED}))
    assert calls_made(run) == bounds(run.spec, policy).calls == 21


def test_a_run_with_bound_messages_keeps_its_bound() -> None:
    """The message's errand has a cap of its own."""
    policy = policy_of("a", commit=("c",), calls_per_errand=2, format_retries=99)
    run = run_of(*ONE, policy=policy).until(CallAgent).did(outcome=MALFORMED).attempted()
    run.did(outcome=MALFORMED).did(outcome=MALFORMED).to_end()
    assert calls_made(run) == bounds(run.spec, policy).calls == 4


def test_commands_take_no_longer_than_their_bound() -> None:
    """Every command red, twice, at its deadline."""
    policy = replace(policy_of(continuations=2, check_timeout=10.0), worktree=WorktreePolicy(setup=("x",)))
    run = run_of(story("US-001", verify=("v1",)), story("US-002", verify=("v1",)), policy=policy)
    slow = replace(exited(1), seconds=10.0)
    seconds = 0.0
    while run.owed:
        how: dict[str, Any] = {}
        if isinstance(run.due, RunCommand):
            seconds += 10.0 if run.due.key.startswith("setup") or "probe" in run.due.key else 20.0
            how = {} if run.due.key.startswith("setup") else {"first": slow, "second": slow}
        run.did(**how)
    assert seconds == bounds(run.spec, policy).check_seconds == 10 + 20 + 2 * (10 + 2 * 40)


def test_waiting_never_takes_longer_than_its_bound() -> None:
    """The wait that would go over it parks the run instead."""
    run = run_of(policy=policy_of(max_wait=1000.0)).until(CallAgent)
    resets = 0.0
    while not isinstance(run.due, ParkRun):
        resets += 300.0
        run.did(outcome=limited(later(resets)))
        if isinstance(run.due, Wait):
            run.did()
    assert run.state.going.ledger.waited <= 1000.0
    assert run.due.reason.endswith("would be more than max_wait allows")
