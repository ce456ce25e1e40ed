"""The escalation: how each attempt at a story is made, and that it adds none."""

from typing import Any

import pytest
from makers import CRASHED, LOGGED_OUT, RED, Run, chain, limited, policy_of, run_of, said, worded
from msgspec.structs import replace

from storyloop.core.bounds import bounds
from storyloop.core.effects import CallAgent, LeaveStory
from storyloop.core.facts import Outcome
from storyloop.core.policy import AgentRef, Drain, Policy, Rung, Way

X, Y = AgentRef("x"), AgentRef("y", "big")
FRESH, PLAN, CONTINUE = Way.FRESH, Way.PLAN_FIRST, Way.CONTINUE


def policy_with(*ladder: Rung, agents: tuple[str, ...] = ("a", "b"), **limits: Any) -> Policy:
    return replace(policy_of(*agents, **{"loop_threshold": 9, **limits}), escalation=ladder)


class Story(Run):
    """A run whose one story is asked for, again and again."""

    def until_call(self) -> "Story":
        while not isinstance(self.due, CallAgent | LeaveStory):
            self.did()
        return self


def failing(run: Story, outcomes: dict[int, Outcome] | None = None) -> list[str]:
    """Whom each call asks while every attempt is red; `outcomes` are those of calls that end otherwise."""
    asked: list[str] = []
    while not isinstance(run.until_call().due, LeaveStory):
        asked.append(str(run.call.ref))
        run.attempted((outcomes or {}).get(len(asked), said("completed")), check=RED)
    return asked


def run_with(policy: Policy) -> Story:
    return Story(run_of().spec, policy)


# the ladder, limits, what calls came to by their number -> whom each call asks
LADDERS: dict[str, tuple[tuple[Rung, ...], dict[str, Any], dict[int, Outcome], list[str]]] = {
    "none: a continuation stays with its agent": ((), {}, {}, ["a", "a", "a"]),
    "the first entry is of the first attempt": ((X,), {}, {}, ["x", "x", "x"]),
    "an agent that is named is asked from there on": ((CONTINUE, X, FRESH), {}, {}, ["a", "x", "x"]),
    "one after the other": ((CONTINUE, X, Y), {"continuations": 4}, {}, ["a", "x", "y:big", "y:big"]),
    "it adds no attempt": ((CONTINUE, FRESH, PLAN, X), {}, {}, ["a", "a", "a"]),
    "the last entry holds": ((CONTINUE, AgentRef("b")), {"continuations": 4}, {}, ["a", "b", "b", "b"]),
    "an agent of the chain is asked out of its turn, and back": (
        (CONTINUE, AgentRef("b"), AgentRef("a")),
        {},
        {},
        ["a", "b", "a"],
    ),
    "one that fails falls back along the chain, which stays": (
        (CONTINUE, X),
        {"same_agent_retries": 1},
        {2: CRASHED, 4: CRASHED},
        ["a", "x", "a", "x", "a"],
    ),
    "one that nobody has logged in is passed over": (
        (X,),
        {},
        {1: LOGGED_OUT},
        ["x", "a", "a", "a"],
    ),
    "one that is limited is passed over while it cools down": ((X,), {}, {1: limited()}, ["x", "a", "a", "a"]),
}


@pytest.mark.parametrize(("ladder", "limits", "outcomes", "asked"), LADDERS.values(), ids=LADDERS)
def test_whom_each_attempt_asks(
    ladder: tuple[Rung, ...], limits: dict[str, Any], outcomes: dict[int, Outcome], asked: list[str]
) -> None:
    """Chain rules hold as ever; what is behind the last attempt is never reached."""
    assert failing(run_with(policy_with(*ladder, **limits)), outcomes) == asked


def test_an_escalation_leaves_the_bounds_as_they_are() -> None:
    """It says how, never how often."""
    spec = run_of().spec
    assert bounds(spec, policy_with(CONTINUE, FRESH, X, Y)) == bounds(spec, policy_with())


def test_it_is_about_a_story_s_attempts_alone() -> None:
    """Whoever words the message is asked as ever."""
    policy = replace(policy_with(X), drains={Drain.COMMIT: chain("c")})
    run = run_with(policy).attempted()
    assert (run.call.drain, run.call.ref) == (Drain.COMMIT, AgentRef("c"))
    run.did(outcome=worded())
    assert failing(run_with(replace(policy, drains={Drain.STORY: chain("s")}))) == ["x", "x", "x"]


def test_a_fresh_attempt_is_told_what_was_measured_and_no_word_of_the_last_agent() -> None:
    """Not its summary and not its next steps, which may be what leads astray."""
    run = run_with(policy_with(CONTINUE, FRESH, CONTINUE))
    run.attempted(said("partial", summary="It was easy.", next_steps="Believe me."), check=RED)
    asked = "Make these pass; we ran them on your work and they did not:\n- check test: `run test` ended with"
    cs = run.work().cs
    assert (cs.previous_summary, cs.previous_next_steps) == ("", f"{asked} exit status 1")
    run.attempted(said("partial", summary="It was hard.", next_steps="Go on."), check=RED)
    cs = run.work().cs
    assert cs.previous_summary == "It was hard."
    assert cs.previous_next_steps == f"{asked} exit status 1\nYour own next steps were:\nGo on."


def test_an_attempt_that_changed_nothing_says_so_to_the_next() -> None:
    """Whatever it claimed, and also where an earlier attempt had changed something."""
    run = run_with(policy_with(continuations=4)).attempted(check=RED, tree="tree-1")
    idle = "The last attempt changed nothing. "
    assert not (run.work().cs.previous_next_steps or "").startswith(idle)
    run.attempted(check=RED, tree="tree-1")
    assert (run.work().cs.previous_next_steps or "").startswith(f"{idle}Make these pass;")
    run.attempted(check=RED, tree="tree-2")
    assert not (run.work().cs.previous_next_steps or "").startswith(idle)


def test_an_attempt_that_went_back_to_an_earlier_one_s_files_says_so_to_the_next() -> None:
    """To and fro is no way on, although no two results in a row are the same."""
    run = run_with(policy_with(continuations=5))
    back = "The last attempt went back to what an earlier one had left: go another way. Make these pass;"
    told: list[bool] = []
    for tree in ("tree-1", "tree-2", "tree-1", "tree-3"):
        run.attempted(check=RED, tree=tree)
        told.append((run.work().cs.previous_next_steps or "").startswith(back))
    assert told == [False, False, True, False]


def test_a_loop_that_the_escalation_leaves_by_another_agent_is_not_left_twice() -> None:
    """Loop recovery would pass over the very agent that was meant to be asked."""
    ladder = (CONTINUE, CONTINUE, CONTINUE, X)
    run = run_with(policy_with(*ladder, continuations=9, loop_threshold=2))
    asked: list[str] = []
    for _ in range(4):
        asked.append(str(run.until_call().call.ref))
        run.attempted(check=RED, tree="the same")
    assert asked == ["a", "a", "a", "x"]


def test_another_chain_given_at_resume_keeps_the_agent_of_the_attempt() -> None:
    """Where it stands in the escalation follows from the attempt's number alone."""
    run = run_with(policy_with(CONTINUE, X)).attempted(check=RED).until_call()
    run.interrupted().resumed(replace(run.policy, chain=chain("c")))
    assert str(run.until_call().call.ref) == "x"
    run.interrupted().resumed(replace(run.policy, chain=chain("c"), escalation=(CONTINUE, CONTINUE)))
    assert str(run.call.ref) == "c"
