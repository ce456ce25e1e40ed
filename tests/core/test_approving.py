"""`--step`: what is proven is committed when a human has approved it; a rejection is an attempt, and has an end."""

from datetime import timedelta

import pytest
from makers import GREEN, PARTIAL, Run, found, mended, policy_of, run_of, story, worded
from msgspec.structs import replace

from storyloop.core.effects import CallAgent, LandStory, LeaveStory, ParkRun, RunCommand, StartReview
from storyloop.core.errand import Mode
from storyloop.core.events import StoryApproved
from storyloop.core.policy import Drain, OnExhausted, Policy
from storyloop.core.progress import ParkedFor
from storyloop.core.purpose import RUN
from storyloop.core.stages import Landing, standing_of
from storyloop.core.words import RunStatus, StoryState


def stepping(policy: Policy | None = None) -> Run:
    """US-001 is proven under `--step`; US-002 does not need it."""
    one = story("US-001", verify=("prove it",))
    policy = replace(policy or policy_of(), step=True)
    return run_of(one, story("US-002"), policy=policy).attempted(tree="tree-1")


def test_what_is_proven_waits_for_a_human_who_is_told_what_to_look_at() -> None:
    """The whole run waits: the next story is begun on what was approved."""
    run = stepping()
    assert isinstance(run.due, ParkRun)
    assert standing_of(run.work(), StoryState.BUILDING) is StoryState.WAITING
    run.did()
    parked = run.state.going.parked
    assert parked is not None
    assert (run.state.status, parked.what) == (RunStatus.PARKED, ParkedFor.HUMAN)
    assert parked.reason == (
        "US-001 is proven by `run test`, `prove it` and waits for you: "
        "`git show refs/pins/US-001/1/story/0/1` shows it, `storyloop approve RUN` or `storyloop reject RUN` goes on"
    )


def test_an_approved_tree_is_landed_as_it_was_proven() -> None:
    """Nothing is run again; and the next story waits as well."""
    run = stepping().did().approved().resumed()
    assert isinstance(run.due, LandStory)
    stage = run.work().stage
    assert isinstance(stage, Landing)
    assert stage.tree == "tree-1"
    run.until(ParkRun)
    assert (run.standing("US-001").state, list(run.state.going.work)) == (StoryState.PASSED, ["US-002"])


def test_a_commit_message_is_asked_for_when_its_work_is_approved() -> None:
    """No call is spent on what is rejected."""
    run = stepping(policy_of(commit=("c",))).did().approved().resumed()
    assert run.call.drain is Drain.COMMIT
    run.did(outcome=worded("Add x"))
    assert isinstance(run.due, LandStory)


def test_resuming_without_a_word_parks_again() -> None:
    """Under a key of its own."""
    run = stepping().did().resumed()
    assert isinstance(run.due, ParkRun)
    assert run.due.key == "park/1"


def test_a_rejection_is_a_failed_attempt_and_the_next_one_is_told_why() -> None:
    """The newest word first; what a human said before holds as well."""
    run = stepping().did().rejected(hint="Use SQLite.").resumed().until(CallAgent)
    assert (run.call.key, run.call.mode) == ("US-001/1/story/1/2", Mode.CONTINUATION)
    assert run.work().hint == "A human has looked at this work and rejected it: Use SQLite."
    run.attempted(tree="tree-2").did().rejected().resumed()
    assert run.work().hint.splitlines() == [
        "A human has looked at this work and rejected it.",
        "",
        "A human has looked at this work and rejected it: Use SQLite.",
    ]


@pytest.mark.parametrize("exhausted", OnExhausted)
def test_rejecting_has_an_end_and_what_was_rejected_is_never_committed(exhausted: OnExhausted) -> None:
    """Not even where partial work is, when its attempts are used up."""
    run = stepping(policy_of(continuations=2, on_exhausted=exhausted))
    run.did().rejected().resumed().attempted(tree="tree-2").did().rejected(hint="No.").resumed()
    assert isinstance(run.due, LeaveStory)
    run.did()
    standing = run.standing("US-001")
    assert (standing.state, standing.reason) == (StoryState.BLOCKED, "2 attempts used up: rejected by a human")
    assert (standing.commits, standing.attempts, [e.command for e in standing.evidence]) == (
        (),
        2,
        ["run test", "prove it"],
    )


def test_what_passed_when_its_attempts_ended_is_not_taken_for_green_once_it_is_rejected() -> None:
    """It would wait for its approval for ever."""
    run = run_of(story("US-001"), policy=replace(policy_of(continuations=1), step=True))
    run.attempted(PARTIAL, check=GREEN)
    assert isinstance(run.due, ParkRun)
    run.did().rejected().resumed()
    assert isinstance(run.due, LeaveStory)
    assert run.did().standing("US-001").reason == "rejected by a human"


def test_a_skip_takes_the_place_of_a_word() -> None:
    """The work is left as any other."""
    run = stepping().did().skipped("US-001").resumed()
    assert isinstance(run.due, LeaveStory)


def test_a_fix_waits_as_a_story_does() -> None:
    """Approved, it is committed; rejected, it is mended once more, or left."""
    policy = replace(policy_of(review=True, fix_continuations=2), step=True)
    run = run_of(story("US-001"), policy=policy).attempted().did().approved().resumed().until(StartReview).did()
    run.until(CallAgent).did(outcome=found("the first number is wrong"))
    run.until(CallAgent).did(outcome=mended(), tree="tree-fix")
    run.did(RunCommand)
    assert isinstance(run.due, ParkRun)
    assert run.due.reason.startswith("the fix of the review's issues is proven by `run test` and waits for you")
    run.did().rejected(RUN, "Not so.").resumed()
    assert (run.call.drain, run.work(RUN).hint[-9:]) == (Drain.FIX, ": Not so.")
    run.did(outcome=mended(), tree="tree-fix-2").did().did().approved(RUN).resumed()
    assert isinstance(run.due, LandStory)


def test_waiting_for_approval_is_no_time_of_the_budget_s() -> None:
    """Also where the process died before it had parked."""
    run = stepping()
    before = run.state.going.ledger.active
    an_hour_later = run.now + timedelta(hours=1)
    run.happened(StoryApproved(key="request/1", at=an_hour_later, story="US-001", number=1))
    assert run.state.going.ledger.active == before
