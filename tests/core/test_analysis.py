"""The analysis: what no command proves is judged by reading, where somebody is bound to that."""

import pytest
from makers import CRASHED, MALFORMED, PARTIAL, Run, policy_of, ruled, run_of, spec_of, story
from msgspec.structs import replace

from storyloop.core.bounds import bounds
from storyloop.core.events import CallStarted
from storyloop.core.evidence import Judged
from storyloop.core.facts import Outcome
from storyloop.core.judge import unprovable
from storyloop.core.policy import Drain, Policy, Require
from storyloop.core.spec import Criterion
from storyloop.core.words import StoryState

MIXED = replace(story("US-001"), acceptance_criteria=(Criterion("one"), Criterion("two", "true"), Criterion("three")))


def policy(require: Require = Require.CHECKS, **limits: int) -> Policy:
    return replace(policy_of(analysis=("d",), **limits), require=require)


def judging(require: Require = Require.CHECKS, **limits: int) -> Run:
    """A run whose story is green, so that its analysis is owed."""
    run = run_of(MIXED, policy=policy(require, **limits)).attempted(tree="tree-1")
    assert run.call.drain is Drain.ANALYSIS
    return run


SHORT = {"continuations": 1, "format_retries": 0, "chain_cycles": 1, "same_agent_retries": 0}
# what is required, what the analysis comes to -> state and reason of the story, the criteria that are judged
CASES: dict[str, tuple[Require, Outcome, StoryState, str, list[int]]] = {
    "met": (Require.CHECKS, ruled("US-001", "met", "met", "met"), StoryState.PASSED, "", [1, 3]),
    "one with a command is not its to judge": (
        Require.CHECKS, ruled("US-001", "met", "unmet", "unknown"), StoryState.PASSED, "", [1]
    ),
    "nor is another story": (Require.CHECKS, ruled("US-002", "unmet", "met", "met"), StoryState.PASSED, "", []),
    "one that there is not": (Require.CHECKS, ruled("US-001", "unmet", first=4), StoryState.PASSED, "", []),
    "unmet": (
        Require.CHECKS, ruled("US-001", "unmet", "met", "met"), StoryState.BLOCKED,
        "1 attempt used up: judged unmet: criterion 1", [],
    ),
    "unknown where all must be met": (
        Require.CRITERIA, ruled("US-001", "met", "met", "unknown"), StoryState.BLOCKED,
        "1 attempt used up: neither proven nor judged met: criterion 3", [],
    ),
    "met where all must be": (Require.CRITERIA, ruled("US-001", "met", "met", "met"), StoryState.PASSED, "", [1, 3]),
    "none to be had": (
        Require.CHECKS, MALFORMED, StoryState.PASSED,
        "criteria without a command were not judged: every agent of the chain failed 1 time: "
        "the artifact was not valid", [],
    ),
    "none to be had where all must be met": (
        Require.CRITERIA, CRASHED, StoryState.BLOCKED,
        "criteria without a command were not judged: every agent of the chain failed 1 time: it crashed", [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("require", "outcome", "state", "reason", "judged"), CASES.values(), ids=CASES)
def test_what_an_analysis_says_of_open_criteria_decides(
    require: Require, outcome: Outcome, state: StoryState, reason: str, judged: list[int]
) -> None:
    """And what it says of anything else does not."""
    standing = judging(require, **SHORT).did(outcome=outcome).to_end().standing("US-001")
    assert (standing.state, standing.reason) == (state, reason)
    assert [one.criterion for one in standing.judged] == judged


def test_what_is_met_is_kept_with_its_words_its_tree_and_who_said_so() -> None:
    """The final proof, which renews the evidence of commands, leaves it as it is."""
    run = judging()
    at = run.did().events[-1].at
    told = tuple(Judged(criterion=n, tree="tree-1", at=at, by="d", words=f"src/x.py:{n}") for n in (1, 3))
    assert run.to_end().standing("US-001").judged == told


def test_the_next_attempt_is_told_what_is_missing_and_is_judged_again() -> None:
    """By one errand, whose calls go on counting."""
    run = judging().did(outcome=ruled("US-001", "unmet", first=3))
    steps = run.work().cs.previous_next_steps or ""
    assert "- criterion 3 (three): src/x.py:3" in steps
    run.attempted(tree="tree-2")
    assert (run.call.drain, run.call.key, run.call.call) == (Drain.ANALYSIS, "US-001/1/analysis/1/2", 2)


def test_a_story_that_is_green_when_its_attempts_end_is_judged_before_it_passes() -> None:
    """Also there, unmet is unmet."""
    run = run_of(MIXED, policy=policy(continuations=1)).attempted(PARTIAL)
    assert run.call.drain is Drain.ANALYSIS
    standing = run.did(outcome=ruled("US-001", "unmet")).to_end().standing("US-001")
    assert standing.state is StoryState.BLOCKED
    assert standing.reason == "1 attempt used up: the agent says partial; judged unmet: criterion 1"


def test_nobody_is_asked_where_commands_prove_everything() -> None:
    """Nor are more calls announced."""
    proven = story("US-001", verify=("true",))
    run = run_of(proven, policy=policy())
    asked = [event.drain for event in run.to_end().events if isinstance(event, CallStarted)]
    assert asked == [Drain.STORY]
    assert bounds(spec_of(proven), policy()) == bounds(spec_of(proven), policy_of())


def test_one_more_errand_is_announced_for_each_story_where_something_is_to_be_judged() -> None:
    """24 calls each: the story, and again if the final proof sends it back."""
    assert bounds(spec_of(MIXED), policy()).calls == 96


def test_criteria_without_a_command_are_fine_where_somebody_judges_them() -> None:
    """And only there."""
    assert unprovable(spec_of(MIXED), policy(Require.CRITERIA)) == ()
    assert unprovable(spec_of(MIXED), replace(policy_of(), require=Require.CRITERIA)) == ("US-001",)
