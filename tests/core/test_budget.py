"""Budgets: what is set aside before a call, whom a spent one stops, and when most of one is said to be spent."""

from typing import Any

import pytest
from makers import CRASHED, LOGGED_OUT, PARTIAL, RED, Run, call_started, later, limited, policy_of, run_of, story
from msgspec.structs import replace

from storyloop.core.budget import nearly_spent, run_refuses, story_refuses
from storyloop.core.effects import CallAgent, LandStory, LeaveStory, ParkRun, StartStory
from storyloop.core.policy import AgentRef, Budget, Drain, OnExhausted, StoryBudget
from storyloop.core.usage import Spending, Usage
from storyloop.core.words import StoryState

A, B = AgentRef("a"), AgentRef("b")
MOST = Usage(input_tokens=700, output_tokens=100, cache_read_tokens=90_000)
LESS = Usage(input_tokens=50, output_tokens=50)


def run_with(budget: Budget, *agents: str, **limits: Any) -> Run:
    policy = policy_of(*agents, **{"same_agent_retries": 9, **limits})
    return run_of(story("US-001"), story("US-002"), policy=replace(policy, budget=budget))


def after_two_calls(budget: Budget) -> Run:
    """The first call of `a` was the dearest: 800 tokens, $2, 5 seconds."""
    run = run_with(budget).until(CallAgent).did(outcome=CRASHED, usage=MOST, cost_usd=2.0, seconds=5.0)
    return run.did(outcome=CRASHED, usage=LESS, cost_usd=0.5, seconds=1.0)


# what is allowed -> why a call of `a` finds no room, after 2 calls, 900 tokens, $2.50 and 6 seconds
SET_ASIDE: dict[str, tuple[Budget, str | None]] = {
    "nothing is allowed or forbidden": (Budget(), None),
    "room for the dearest call": (Budget(calls=3, tokens=1700, usd=4.5, time=11.0), None),
    "calls": (Budget(calls=2), "the run's budget of 2 calls is used up: 2 calls spent"),
    "tokens": (
        Budget(tokens=1699),
        "the run's budget of 1,699 tokens has no room left:"
        " 900 tokens spent, 800 tokens set aside for the next call of a",
    ),
    "tokens used up": (Budget(tokens=900), "the run's budget of 900 tokens is used up: 900 tokens spent"),
    "usd": (
        Budget(usd=4.49),
        "the run's budget of $4.49 has no room left: $2.50 spent, $2.00 set aside for the next call of a",
    ),
    "time": (
        Budget(time=10.0),
        "the run's budget of 0:00:10 of time has no room left:"
        " 0:00:06 of time spent, 0:00:05 of time set aside for the next call of a",
    ),
}


@pytest.mark.parametrize(("budget", "refusal"), SET_ASIDE.values(), ids=SET_ASIDE)
def test_the_dearest_call_so_far_is_set_aside_before_the_next(budget: Budget, refusal: str | None) -> None:
    """Where it does not fit, no call starts; the sentence says what is spent and what would be needed."""
    run = after_two_calls(Budget())
    run.resumed(replace(run.policy, budget=budget))
    assert run_refuses(run.state, A) == refusal


def test_an_agent_that_was_never_asked_has_nothing_set_aside() -> None:
    """What one agent costs says nothing of another's price; also of the same one with another model."""
    run = after_two_calls(Budget(usd=2.6))
    assert run_refuses(run.state, A) is not None
    assert run_refuses(run.state, B) is None
    assert run_refuses(run.state, AgentRef("a", "small")) is None


def test_calls_under_way_have_theirs_set_aside_too() -> None:
    """Side by side they could pass the budget together; time is the clock's, and passes for both at once."""
    run = run_of(story("US-001"), story("US-002"), policy=policy_of(checks=()), width=2)
    while not all(isinstance(effect, CallAgent) for effect in run.owed):
        run.did(type(next(effect for effect in run.owed if not isinstance(effect, CallAgent))))
    run.did(CallAgent, outcome=CRASHED, usage=MOST, cost_usd=2.0, seconds=5.0)
    seconds = run.state.going.ledger.active
    run.resumed(replace(run.policy, budget=Budget(tokens=2399, usd=6.0, time=seconds + 7.0)))
    assert run_refuses(run.state, A) is None
    (first,) = run.owed  # together they would pass it
    assert isinstance(first, CallAgent)
    run.happened(call_started(first, run.now))
    assert run_refuses(run.state, A) == (
        "the run's budget of 2,399 tokens has no room left:"
        " 800 tokens spent, 1,600 tokens set aside for the next call of a"
    )


def test_a_run_without_room_for_another_call_parks() -> None:
    """A dear call is not begun only to find out that it was too dear."""
    run = after_two_calls(Budget(usd=4.0)).until(ParkRun).did()
    assert run.state.going.parked is not None
    assert run.state.going.parked.reason.startswith("the run's budget of $4.00 has no room left")
    assert run.resumed(replace(run.policy, budget=Budget(usd=4.5))).call.call == 3


# --- a story's own ----------------------------------------------------------------------------------------

# what each time may spend -> why the story is left, after the same two calls
OF_A_STORY: dict[str, tuple[StoryBudget, str]] = {
    "calls": (StoryBudget(calls=2), "the story's budget of 2 calls is used up: 2 calls spent"),
    "tokens": (
        StoryBudget(tokens=1600),
        "the story's budget of 1,600 tokens has no room left:"
        " 900 tokens spent, 800 tokens set aside for the next call of a",
    ),
    "usd": (
        StoryBudget(usd=4.0),
        "the story's budget of $4.00 has no room left: $2.50 spent, $2.00 set aside for the next call of a",
    ),
    "time, which is that of its agents": (
        StoryBudget(time=10.0),
        "the story's budget of 0:00:10 of time has no room left:"
        " 0:00:06 of time spent, 0:00:05 of time set aside for the next call of a",
    ),
}


@pytest.mark.parametrize(("budget", "reason"), OF_A_STORY.values(), ids=OF_A_STORY)
def test_a_story_that_has_spent_its_own_budget_is_blocked_and_the_others_go_on(
    budget: StoryBudget, reason: str
) -> None:
    """After its calls, tokens, money or time, and what was measured of its work."""
    run = after_two_calls(Budget(story=budget)).until(StartStory)
    assert (run.standing("US-001").state, run.standing("US-001").reason) == (StoryState.BLOCKED, reason)
    assert run.until(CallAgent).call.story == "US-002"


def test_a_story_s_first_call_is_always_made() -> None:
    """The next story is not blocked because a call elsewhere came to more than a story's budget; nor while it waits."""
    run = run_with(Budget(story=StoryBudget(usd=1.0))).until(CallAgent).did(outcome=CRASHED, cost_usd=3.0)
    assert isinstance(run.due, LeaveStory)
    untried = replace(run.work(), calls=0, spending=Spending())
    assert story_refuses(run.state.going.ledger, StoryBudget(usd=1.0), untried, A) is None
    assert run.until(CallAgent).did(cost_usd=0.1).to_end().standing("US-002").state is StoryState.PASSED


def test_a_story_that_is_taken_up_again_has_its_whole_budget() -> None:
    """Each retry of a human's adds one, as the bounds say."""
    run = run_with(Budget(story=StoryBudget(calls=1))).until(CallAgent).did(outcome=CRASHED).until(StartStory)
    run.retried("US-001").until(CallAgent)
    assert run.call.story == "US-001"


def test_a_story_without_budget_waits_for_nobody() -> None:
    """A quota's reset would only lead to a call that is not made."""
    run = run_with(Budget(story=StoryBudget(calls=1))).until(CallAgent).did(outcome=limited(later(9000)))
    assert isinstance(run.due, LeaveStory)


def test_a_story_that_is_spent_when_a_human_has_helped_makes_no_call_more() -> None:
    """Nobody could be asked; on resume somebody could, but there is nothing left to ask with."""
    run = run_with(Budget(story=StoryBudget(calls=1))).until(CallAgent).did(outcome=LOGGED_OUT)
    assert isinstance(run.due, ParkRun)
    run.did().resumed()
    assert isinstance(run.due, LeaveStory)


def test_a_spent_story_passes_where_all_is_green_and_only_its_agent_saw_more_to_do() -> None:
    """As it does when its attempts end; what else it leaves follows on_exhausted."""
    run = run_with(Budget(story=StoryBudget(calls=1))).attempted(PARTIAL)
    assert isinstance(run.due, LandStory)
    commit = run_with(Budget(story=StoryBudget(calls=1)), on_exhausted=OnExhausted.COMMIT)
    commit.attempted(check=RED).until(LeaveStory).did()
    assert commit.standing("US-001").unproven_commit


def test_a_spent_story_is_landed_with_a_message_of_ours() -> None:
    """The wording of a commit is a call as well; without one, the proven work is landed all the same."""
    policy = replace(policy_of("a", commit=("c",)), budget=Budget(story=StoryBudget(calls=1)))
    assert isinstance(run_of(policy=policy).attempted().due, LandStory)
    policy = replace(policy, budget=Budget(story=StoryBudget(calls=2)))
    run = run_of(policy=policy).attempted()
    assert run.call.drain is Drain.COMMIT
    assert isinstance(run.did(outcome=CRASHED).due, LandStory)


def test_the_run_s_own_work_has_no_story_s_budget() -> None:
    """Its plan and its review belong to no story."""
    run = after_two_calls(Budget())
    work = run.work()
    assert story_refuses(run.state.going.ledger, StoryBudget(calls=1), work, A) is not None
    assert story_refuses(run.state.going.ledger, StoryBudget(calls=1), replace(work, story=""), A) is None


# --- four fifths ------------------------------------------------------------------------------------------

# what is allowed -> what is said, after 2 calls, 900 tokens, $2.50 and 6 seconds, as many of its agents
NEARLY: dict[str, tuple[Budget, list[str]]] = {
    "nothing is bounded": (Budget(), []),
    "most is left": (Budget(calls=3, tokens=1126, usd=3.13, time=7.51), []),
    "four fifths of each": (
        Budget(calls=2, tokens=1125, usd=3.125, time=7.5),
        [
            "100% of the run's budget of 2 calls is spent",
            "80% of the run's budget of 1,125 tokens is spent",
            "80% of the run's budget of $3.12 is spent",
            "80% of the run's budget of 0:00:08 of time is spent",
        ],
    ),
    "of a story": (
        Budget(calls=9, story=StoryBudget(calls=9, time=7.0)),
        ["86% of US-001's budget of 0:00:07 of time is spent"],
    ),
}


@pytest.mark.parametrize(("budget", "told"), NEARLY.values(), ids=NEARLY)
def test_a_budget_of_which_four_fifths_are_spent_is_said(budget: Budget, told: list[str]) -> None:
    """The run's and those of the stories in hand."""
    run = after_two_calls(Budget())
    state = replace(run.state, config=replace(run.policy, budget=budget))
    assert list(nearly_spent(state).values()) == told


def test_it_is_the_same_budget_until_a_greater_one_is_given() -> None:
    """So whoever says it can tell what is new."""
    run = after_two_calls(Budget(calls=2))
    (before,) = nearly_spent(run.state)
    run.until(ParkRun).did()
    assert list(nearly_spent(run.state)) == [before]
    run.resumed(replace(run.policy, budget=Budget(calls=3)))
    assert nearly_spent(run.state) == {}
    (after,) = nearly_spent(run.did(outcome=CRASHED).state)
    assert after != before
