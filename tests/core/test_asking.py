"""Questions of agents: only their story waits, they spend no attempt, and they have an end."""

import pytest
from makers import RED, Run, asks, later, limited, policy_of, run_of, story
from msgspec.structs import replace

from storyloop.core.effects import CallAgent, LandStory, ParkRun, SetAside, StartStory, TakeUp, Wait
from storyloop.core.errand import Mode
from storyloop.core.policy import Policy
from storyloop.core.progress import ParkedFor, Reply
from storyloop.core.stages import standing_of
from storyloop.core.words import MachineState, RunStatus, StoryState

QUESTION = asks("Which store?", "files", "files", "SQLite")


def asking(*stories: str, policy: Policy | None = None) -> Run:
    """US-001 has asked, beside stories that do not need it."""
    run = run_of(story("US-001"), *map(story, stories), policy=policy or policy_of("a", "b"))
    return run.until(CallAgent).did(outcome=QUESTION, tree="tree-1", session="s1")


def test_a_question_parks_its_story_and_the_others_go_on() -> None:
    """Its work is set aside first; only when nothing else is owed the run parks, with the question in the sentence."""
    run = asking("US-002")
    assert isinstance(run.due, SetAside)
    run.did()
    assert isinstance(run.due, StartStory)
    run.until(ParkRun)
    assert (run.standing("US-002").state, standing_of(run.work(), StoryState.BUILDING)) == ("passed", "waiting")
    run.did()
    parked = run.state.going.parked
    assert parked is not None
    assert (run.state.status, parked.what) == (RunStatus.PARKED, ParkedFor.HUMAN)
    assert parked.reason == "US-001 asks: Which store? (unless answered: files)"


def test_a_question_costs_a_call_and_no_attempt() -> None:
    """The same attempt goes on, as a continuation in no session, behind a handover of what was done."""
    run = asking().did().answered("US-001", "SQLite").until(CallAgent)
    assert (run.call.key, run.call.mode, run.call.attempt) == ("US-001/1/story/0/2", Mode.CONTINUATION, 0)
    cs, errand = run.work().cs, run.work().errand
    assert (cs.previous_summary, cs.previous_next_steps, errand.session) == ("did half", "the rest", None)
    run.to_end()
    assert (run.standing("US-001").state, run.standing("US-001").attempts) == (StoryState.PASSED, 1)


def test_an_answer_is_kept_with_its_question_for_as_long_as_the_run_lasts() -> None:
    """Also when the story is tried again."""
    run = asking(policy=policy_of(continuations=1)).did().answered("US-001", "SQLite").attempted(check=RED).to_end()
    run.retried("US-001").resumed().until(CallAgent)
    (reply,) = run.standing("US-001").replies
    assert (reply.question.text, reply.text, reply.by_human) == ("Which store?", "SQLite", True)


def test_work_comes_back_onto_what_has_landed_meanwhile() -> None:
    """It is then measured against the tip, and lands on it."""
    run = asking("US-002").did().until(ParkRun).did().answered("US-001").resumed()
    assert isinstance(run.due, TakeUp)
    run.did()
    work = run.work()
    assert (work.head, work.tree) == (run.state.going.tip, run.state.going.tip_tree)
    assert work.pin is not None
    assert work.pin.tree == f"tree-1+{work.tree}"
    assert run.state.pre_story_commit == work.head
    run.until(LandStory)


def test_an_answer_waits_for_the_story_that_has_the_worktree() -> None:
    """And then comes before the next one is begun."""
    run = asking("US-002", "US-003").did().until(CallAgent)
    run.answered("US-001")
    assert run.call.story == "US-002"
    run.until(TakeUp)
    assert {name: s.state for name, s in run.state.going.stories.items()} == {
        "US-001": "building",
        "US-002": "passed",
        "US-003": "open",
    }


def test_a_story_that_is_skipped_while_it_waits_leaves_when_the_worktree_is_free() -> None:
    """Its ending must not touch the files of the one in hand."""
    run = asking("US-002").did().until(CallAgent).skipped("US-001")
    assert run.call.story == "US-002"
    assert run.to_end().standing("US-001").state is StoryState.SKIPPED
    assert run.standing("US-002").state is StoryState.PASSED


def test_the_final_proof_waits_for_open_questions() -> None:
    """What is not decided cannot be proven as a whole."""
    run = asking("US-002").did().until(ParkRun).did().resumed()
    assert isinstance(run.due, ParkRun)
    assert run.state.going.final.rounds == 0


def test_two_questions_are_told_in_one_sentence() -> None:
    """The first in words, the others counted."""
    run = asking("US-002").did().until(CallAgent).did(outcome=QUESTION, tree="tree-2").did()
    assert isinstance(run.due, ParkRun)
    assert run.due.reason == "US-001 asks: Which store? (unless answered: files); and 1 more"


# Deadline in seconds, and what else the policy says: what is owed when nothing but the answer is waited for.
WAITS = {
    "none: a human is waited for": (None, {}, ParkRun),
    "one that the run may wait for": (600.0, {}, Wait),
    "one that is further than all waiting together": (600.0, {"max_wait": 500.0}, ParkRun),
}


@pytest.mark.parametrize(("deadline", "limits", "owed"), WAITS.values(), ids=WAITS)
def test_a_deadline_is_waited_for_within_bounds(deadline: float | None, limits: dict[str, float], owed: type) -> None:
    """What is waited counts as all waiting does."""
    run = asking(policy=policy_of(question_deadline=deadline, **limits)).did()
    assert isinstance(run.due, owed)


def test_behind_the_deadline_the_default_holds() -> None:
    """The story goes on with it, and the waiting is counted."""
    run = asking(policy=policy_of(question_deadline=600.0)).did().did()
    (reply,) = run.standing("US-001").replies
    assert (reply.text, reply.by_human) == ("files", False)
    ledger = run.state.going.ledger
    assert (590.0 < ledger.waited <= 600.0, ledger.active < 60.0) == (True, True)
    assert isinstance(run.due, TakeUp)


def test_a_deadline_that_passed_while_nobody_had_the_run_holds_at_once() -> None:
    """Without a wait, also where no waiting is wanted."""
    policy = replace(policy_of(question_deadline=600.0), no_wait=True)
    run = asking("US-002", policy=policy).did().interrupted().resumed(after=3600)
    assert isinstance(run.due, Wait)
    assert run.due.since == run.due.until
    assert run.did().state.going.ledger.waited == 0.0


def test_a_deadline_of_nothing_takes_the_default_without_setting_anything_aside() -> None:
    """For nights that nobody watches."""
    run = asking(policy=policy_of(question_deadline=0.0)).until(CallAgent)
    assert run.call.key == "US-001/1/story/0/2"
    assert run.standing("US-001").replies == (Reply(QUESTION.artifact.question, "files", by_human=False),)


# Limits: how many calls an agent can make that does nothing but ask, and is always answered.
FOR_EVER = {
    "questions, then attempts": ({"questions": 2, "continuations": 3}, 5),
    "no question at all": ({"questions": 0, "continuations": 3}, 3),
    "calls before questions": ({"questions": 9, "calls_per_errand": 4}, 4),
}


@pytest.mark.parametrize(("limits", "calls"), FOR_EVER.values(), ids=FOR_EVER)
def test_asking_for_ever_has_an_end(limits: dict[str, int], calls: int) -> None:
    """Every call counts, and so does every question."""
    run = run_of(policy=policy_of(**limits))
    while run.state.status is RunStatus.RUNNING:
        run.did(outcome=QUESTION)
        if run.state.machine_state is MachineState.PARKED:
            run.answered("US-001").resumed()
    assert (run.standing("US-001").state, run.standing("US-001").calls) == (StoryState.BLOCKED, calls)


def test_an_agent_that_has_no_quota_when_the_answer_comes_is_passed_over() -> None:
    """The chain is looked at anew."""
    run = asking("US-002").did().until(CallAgent).did(outcome=limited(later(99_999)))
    run.until(ParkRun).did().answered("US-001").resumed()
    assert str(run.until(CallAgent).call.ref) == "b"
