"""A story's own review, where stories are reviewed one by one: what ends it, and that the story lands all the same."""

from typing import Any

import pytest
from makers import (
    MALFORMED,
    RED,
    SAID_FAILED,
    Run,
    chain,
    found,
    policy_of,
    run_of,
    spec_of,
    story,
)
from msgspec.structs import replace

from storyloop.core.bounds import bounds
from storyloop.core.effects import CallAgent, FinishRun, LandStory, LeaveStory
from storyloop.core.events import CallEnded
from storyloop.core.policy import Budget, Drain, Policy, ReviewPolicy, StoryBudget
from storyloop.core.stages import Building, ReviewEnd
from storyloop.core.words import RunStatus, StoryState

ONE = (story("US-001"),)
FIRST, SECOND = "The sum is wrong for negative numbers", "Nobody closes the file that was opened"


def policy(**limits: int) -> Policy:
    return replace(policy_of("a", "b", **limits), review=ReviewPolicy(per_story=True))


# limits, what each review finds -> how the review ends, what is said of the story, attempts
CASES: dict[str, tuple[dict[str, int], list[list[str]], ReviewEnd, str, int]] = {
    "nothing is found": ({}, [[]], ReviewEnd.CONVERGED, "", 1),
    "what was found is mended": ({}, [[FIRST], []], ReviewEnd.CONVERGED, "", 2),
    "it is found again": ({}, [[FIRST], [FIRST]], ReviewEnd.NO_PROGRESS, "review: no progress, 1 issue open", 2),
    "it comes back": (
        {"continuations": 5},
        [[FIRST], [SECOND], [FIRST]],
        ReviewEnd.OSCILLATION,
        "review: oscillation, 1 issue open",
        3,
    ),
    "nobody has looked at the last change": (
        {"review_cycles": 1},
        [[FIRST, SECOND]],
        ReviewEnd.CYCLES,
        "review: review cycles used up, 2 issues open",
        2,
    ),
    "no attempt is left to mend it": (
        {"continuations": 1},
        [[FIRST]],
        ReviewEnd.FIXES,
        "review: fix attempts used up, 1 issue open",
        1,
    ),
}


def reviewed(run: Run, reviews: list[list[str]]) -> Run:
    """Each review finds so much, and each attempt behind it is green on a tree of its own."""
    for number, texts in enumerate(reviews, start=2):
        assert run.call.drain is Drain.REVIEW
        run.did(outcome=found(*texts))
        if isinstance(run.work().stage, Building):
            run.attempted(tree=f"tree-{number}")
    return run


@pytest.mark.parametrize(("limits", "reviews", "end", "reason", "attempts"), CASES.values(), ids=CASES)
def test_however_its_review_ends_a_proven_story_lands(
    limits: dict[str, int], reviews: list[list[str]], end: ReviewEnd, reason: str, attempts: int
) -> None:
    """With what is open told; and the run ships only if it converged."""
    run = reviewed(run_of(*ONE, policy=policy(**limits)).attempted(tree="tree-1"), reviews).to_end()
    standing = run.standing("US-001")
    assert standing.review is not None
    assert (standing.state, standing.review.end, standing.reason) == (StoryState.PASSED, end, reason)
    assert standing.attempts == attempts
    assert (run.state.status is RunStatus.COMPLETED) is (end is ReviewEnd.CONVERGED)


def mended_so(run: Run, **how: Any) -> Run:
    """Every attempt that is left comes to this, on a tree of its own."""
    while not isinstance(run.due, LandStory | LeaveStory):
        run.attempted(tree="tree-2", **how)
    return run


@pytest.mark.parametrize(
    "how", [{"check": RED}, {"outcome": SAID_FAILED}, {"outcome": MALFORMED}], ids=["red", "failed", "mute"]
)
def test_mending_that_comes_to_nothing_costs_no_story(how: dict[str, Any]) -> None:
    """It lands as the reviewer has read it, with what is open told; what was tried is kept by a ref."""
    run = run_of(*ONE, policy=policy()).attempted(tree="tree-1").did(outcome=found(FIRST, SECOND))
    tried = [e.pin.ref for e in mended_so(run, **how).events if isinstance(e, CallEnded)][-1]
    standing = run.did().standing("US-001")
    assert standing.review is not None
    assert (standing.state, run.state.going.tip_tree) == (StoryState.PASSED, "tree-1")
    assert standing.reason == "review: fix attempts used up, 2 issues open"
    assert standing.pins == standing.review.pins == (tried,)
    assert run.to_end().state.status is RunStatus.FAILED


def test_what_was_read_last_is_what_lands() -> None:
    """Mended once and read again, then broken: the first of the mended ones is what is known to be good."""
    run = run_of(*ONE, policy=policy()).attempted(tree="tree-1").did(outcome=found(FIRST))
    run.attempted(tree="tree-1b").did(outcome=found(SECOND))
    mended_so(run, check=RED).did()
    assert run.state.going.tip_tree == "tree-1b"


def test_what_was_read_does_not_land_once_the_very_same_files_were_red() -> None:
    """Green once and red the next time: that is no proof."""
    run = run_of(*ONE, policy=policy()).attempted(tree="tree-1").did(outcome=found(FIRST))
    run.attempted(tree="tree-1", check=RED)
    assert isinstance(mended_so(run, check=RED).due, LeaveStory)


def test_what_a_human_rejected_does_not_land_for_want_of_something_better() -> None:
    """Nor what it was made of: who rejects it has the last word."""
    run = run_of(*ONE, policy=replace(policy(), step=True)).attempted(tree="tree-1").did(outcome=found(FIRST))
    run.attempted(tree="tree-1b").did(outcome=found()).did().rejected().resumed()
    assert isinstance(mended_so(run, check=RED).due, LeaveStory)


def test_a_reviewer_who_is_mute_costs_few_calls_and_no_story() -> None:
    """Each of the chain has its share of eight calls."""
    run = run_of(*ONE, policy=policy()).attempted(tree="tree-1")
    while isinstance(run.due, CallAgent):
        run.did(outcome=MALFORMED)
    assert run.to_end().standing("US-001").reason == "review: no review could be had"
    assert run.state.going.ledger.calls == 1 + 8 <= bounds(run.spec, policy()).calls


def test_a_story_whose_budget_has_no_room_for_a_review_lands_without() -> None:
    """What was bought is not thrown away."""
    poor = replace(policy(), budget=Budget(story=StoryBudget(calls=1)))
    run = run_of(*ONE, policy=poor).attempted(tree="tree-1").to_end()
    assert run.standing("US-001").reason == "review: no review could be had"


def test_the_reviewer_is_by_preference_not_the_author_of_this_story() -> None:
    """Whoever wrote the others."""
    run = run_of(story("US-001"), story("US-002"), policy=policy()).attempted(tree="tree-1")
    assert run.call.ref == chain("b")[0]
    run.did(outcome=found()).attempted(tree="tree-2")
    assert run.call.ref == chain("b")[0]


def test_minor_issues_do_not_gate() -> None:
    """They are kept, to be told."""
    run = run_of(*ONE, policy=policy()).attempted(tree="tree-1").did(outcome=found(FIRST, severity="minor"))
    standing = run.to_end().standing("US-001")
    assert standing.review is not None
    assert [known.issue.text for known in standing.review.open] == [FIRST]
    assert standing.review.end is ReviewEnd.CONVERGED


def test_there_is_no_review_of_all_stories_besides() -> None:
    """Its bound says so."""
    run = run_of(*ONE, policy=policy()).attempted(tree="tree-1").did(outcome=found())
    assert isinstance(run.until(FinishRun).due, FinishRun)
    assert run.state.going.review.cycles == 0
    assert bounds(spec_of(*ONE), policy()).calls == 2 * (24 + 8)
