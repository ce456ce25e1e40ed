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
from storyloop.core.effects import CallAgent, ParkRun, RunCommand, ScrubWorktree, Wait
from storyloop.core.policy import Budget, Command, Drain, NewTests, ReviewPolicy, StoryBudget, WorktreePolicy
from storyloop.core.purpose import Probing, SettingUp, Trying
from storyloop.core.spec import Story
from storyloop.core.words import StoryState

ONE = (story("US-001"),)
THREE = (story("US-001", verify=("v1", "v2")), story("US-002"), story("US-003", verify=("v1",)))
WITH_PASSED = (story("US-001", passes=True), story("US-002", "US-001"))

# stories, changes of the default policy -> calls
CALLS: dict[str, tuple[tuple[Story, ...], dict[str, Any], int]] = {
    "24 for each story, and again for those whose own command may be red in the final proof": (THREE, {}, 120),
    "with a check, every story may go back": (THREE, {"checks": {"test": Command(run="t")}}, 144),
    "also one that has passed already": (WITH_PASSED, {"checks": {"test": Command(run="t")}}, 72),
    "none goes back where nothing is continued": (THREE, {"limits": policy_of(continuations=0).limits}, 72),
    "none for a story that has passed": (WITH_PASSED, {}, 24),
    "none for no story": ((story("US-001", passes=True),), {}, 0),
    "as many as the errand may have": (THREE, {"limits": policy_of(calls_per_errand=5).limits}, 25),
    "and 8 more where messages are worded": (THREE, {"drains": {Drain.COMMIT: chain("c")}}, 160),
    "no more than the budget allows": (THREE, {"budget": Budget(calls=10)}, 10),
    "a greater budget allows no more": (THREE, {"budget": Budget(calls=1000)}, 120),
    "nor more than the stories' budgets together": (THREE, {"budget": Budget(story=StoryBudget(calls=4))}, 20),
    "8 for each review and 24 for the fix behind it": (ONE, {"review": ReviewPolicy()}, 24 + 3 * 32),
    "40 where its fixes' messages are worded": (
        ONE,
        {"review": ReviewPolicy(), "drains": {Drain.COMMIT: chain("c")}},
        32 + 3 * 40,
    ),
    "8 for all reviews of a story where each has its own": (
        THREE,
        {"review": ReviewPolicy(per_story=True)},
        120 + 5 * 8,
    ),
    "none for a review of nothing": ((story("US-001", passes=True),), {"review": ReviewPolicy()}, 0),
    "however long the chain is": (THREE, {"chain": chain("a", "b", "c", "d")}, 120),
}


@pytest.mark.parametrize(("stories", "changes", "calls"), CALLS.values(), ids=CALLS)
def test_the_calls_follow_from_the_cap_of_an_errand_alone(
    stories: tuple[Story, ...], changes: dict[str, Any], calls: int
) -> None:
    """Retries, cycles and attempts only spend them."""
    assert bounds(spec_of(*stories), replace(policy_of(checks=()), **changes)).calls == calls


def test_the_agents_time_is_that_of_the_calls() -> None:
    """Each call has its deadline."""
    policy = policy_of(calls_per_errand=5, call_timeout=60.0)
    assert bounds(spec_of(*THREE), policy).agent_seconds == 30 * 60


def test_a_budget_of_time_is_looked_at_before_a_call_and_not_in_it() -> None:
    """The last call may begin just before the time is up, and has its whole deadline."""
    policy = replace(policy_of(calls_per_errand=5, call_timeout=60.0), budget=Budget(time=100.0))
    assert bounds(spec_of(*THREE), policy).agent_seconds == 160
    ample = replace(policy, budget=Budget(time=10_000.0))
    assert bounds(spec_of(*THREE), ample).agent_seconds == 30 * 60


def test_the_time_of_our_own_commands_is_bounded_too() -> None:
    """Set-up, the baseline, each story and each round of the final proof; what is red is run twice."""
    policy = replace(
        policy_of(continuations=3, check_timeout=10.0),
        checks={"slow": Command(run="s", timeout=100.0), "fast": Command(run="f")},
        worktree=WorktreePolicy(setup=("npm ci",)),
    )
    # set-up 10, baseline 2 * 110; two proofs at most, 3 stories, each once more: 20 + 3 attempts * 2 * (110 + 20), and
    # its new tests without the work: 130;
    # the final proof, and once more behind each of 3 rounds of it: set-up 10, 2 * (110 + 3 proofs * 10)
    most = 10 + 220 + 6 * (20 + 3 * 2 * 130 + 130) + 4 * (10 + 2 * 140)
    assert bounds(spec_of(*THREE), policy).check_seconds == most == 6970
    without = replace(policy, new_tests=NewTests.OFF)
    assert bounds(spec_of(*THREE), without).check_seconds == 6970 - 6 * 130


def test_no_continuation_still_means_one_attempt() -> None:
    """The first is no continuation."""
    policy = policy_of(checks=("test",), continuations=0, check_timeout=10.0)
    assert bounds(spec_of(*ONE), policy).check_seconds == 20 + 20 + 10 + 20  # baseline, attempt, new tests, final proof


def test_waiting_tokens_and_money_are_what_the_user_allows() -> None:
    """None where nothing but the calls bounds it."""
    policy = replace(policy_of(max_wait=3600.0), budget=Budget(tokens=1000, usd=2.5))
    told = bounds(spec_of(*ONE), policy)
    assert (told.wait_seconds, told.tokens, told.usd) == (3600.0, 1000, 2.5)
    unlimited = bounds(spec_of(*ONE), policy_of())
    assert (unlimited.tokens, unlimited.usd) == (None, None)


def test_fixes_of_the_review_run_checks_and_proofs_too() -> None:
    """Each attempt of each cycle, and what is red twice."""
    policy = replace(policy_of(review=True, continuations=0, check_timeout=10.0, review_cycles=2, fix_continuations=3))
    without = bounds(spec_of(*THREE), replace(policy, review=ReviewPolicy(enabled=False))).check_seconds
    assert bounds(spec_of(*THREE), policy).check_seconds - without == 2 * 3 * 2 * (10 + 3 * 10)


def test_what_may_still_be_begun_has_a_bound_of_its_own() -> None:
    """A retry adds one errand to what the final proof may send back."""
    assert bounds_of(1, spec_of(*THREE), policy_of(calls_per_errand=5)).calls == 5 + 15


# --- the worst run there can be ---------------------------------------------------------------------------


def calls_made(run: Run) -> int:
    return run.state.going.ledger.calls


@pytest.mark.parametrize("outcome", [MALFORMED, PARTIAL, INTERRUPTED])
def test_a_run_that_never_gets_anywhere_makes_exactly_the_calls_of_its_bound(outcome: Any) -> None:
    """It cannot make one more, and the bound promises no less than can happen."""
    limits = {"continuations": 99, "chain_cycles": 99, "loop_threshold": 99, "max_wait": 1e9}
    policy = policy_of("a", "b", checks=(), calls_per_errand=7, **limits)
    run = run_of(*(story(name) for name in ("US-001", "US-002", "US-003")), policy=policy)
    for _ in range(3):  # without a command partial does not pass
        run.until(CallAgent)
        number = run.state.iteration
        while run.owed and run.state.iteration == number:
            run.did(**({"outcome": outcome} if isinstance(run.due, CallAgent) else {}))
    assert calls_made(run) == bounds(run.spec, policy).calls == 21


def test_a_run_with_bound_messages_keeps_its_bound() -> None:
    """The message's errand has a cap of its own; the final proof sends the story back once, for as many calls again."""
    policy = policy_of("a", commit=("c",), calls_per_errand=2, format_retries=99)
    run = run_of(*ONE, policy=policy)
    for _ in range(2):
        run.until(CallAgent).did(outcome=MALFORMED).attempted()
        run.did(outcome=MALFORMED).did(outcome=MALFORMED)
        run.until(ScrubWorktree).did().did(first=RED, second=RED)
    assert calls_made(run) == bounds(run.spec, policy).calls == 8
    assert run.to_end().standing("US-001").state is StoryState.BLOCKED


def test_commands_take_no_longer_than_their_bound() -> None:
    """Every command run twice, at its deadline; the last attempt passes, and each story is found broken in the end."""
    policy = replace(policy_of(continuations=2, check_timeout=10.0), worktree=WorktreePolicy(setup=("x",)))
    red = ("/prove/0/", "final/1/criterion/US-001", "final/2/criterion/US-002")
    run = run_of(story("US-001", verify=("sh tests/test_x.py",)), story("US-002", verify=("sh tests",)), policy=policy)
    slow, green = replace(exited(1), seconds=10.0), replace(exited(0), seconds=10.0)
    seconds = 0.0
    while run.owed:
        how: dict[str, Any] = {}
        if isinstance(run.due, RunCommand):
            once = isinstance(run.due.purpose, SettingUp | Probing | Trying)
            seconds += 10.0 if once else 20.0
            again = slow if any(part in run.due.key for part in red) else green
            how = {"first": green} if once else {"first": slow, "second": again}
        run.did(**({"new_tests": ("tests/test_x.py",)} if isinstance(run.due, CallAgent) else how))
    most = 10 + 20 + 4 * (10 + 2 * 40 + 20) + 3 * (10 + 20 + 40)
    assert seconds == bounds(run.spec, policy).check_seconds == most == 680


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
