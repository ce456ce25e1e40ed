"""The final proof: when it is due, what it runs and where, what it comes to, who is sent back and with which words."""

import pytest
from makers import GREEN, RED, Run, exited, policy_of, run_of, story, unmeasured
from msgspec.structs import replace

from storyloop.core.effects import CallAgent, FinishRun, RunCommand, ScrubWorktree, StartStory
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import FinalProofBegun, RunFinished, WorktreeScrubbed
from storyloop.core.evidence import Reading
from storyloop.core.facts import Measured
from storyloop.core.policy import Command, Policy, Require, WorktreePolicy
from storyloop.core.spec import Story
from storyloop.core.words import MachineState, RunStatus
from storyloop.views.history import history
from storyloop.views.rows import evidence_rows, final_line

ONE, TWO = story("US-001", verify=("v1",)), story("US-002", verify=("v2", "v3"))
SET_UP = replace(policy_of(), worktree=WorktreePolicy(setup=("npm ci", "make")))


def at_final(*stories: Story, policy: Policy | None = None) -> Run:
    """Every story has passed, none by a vacuous proof; a clean worktree is owed."""
    run = run_of(*stories or (ONE, TWO), policy=policy)
    while not isinstance(run.due, ScrubWorktree):
        run.did(**({"first": RED} if "/probe/" in run.due.key else {}))
    return run


def proven(run: Run, red: str = "", shown: Measured = RED) -> Run:
    """The round is run to its end; green, but for the commands that have this in their key."""
    run.until(ScrubWorktree).did()
    while run.state.going.final.owed:
        first = shown if red and red in run.due.key else GREEN
        run.did(first=first, second=first if first is RED else None)
    return run


def standings(run: Run) -> dict[str, str]:
    return {name: f"{s.state} {s.reason}".strip() for name, s in run.state.going.stories.items()}


def verdicts(run: Run) -> dict[str, list[str]]:
    stories = run.state.going.spec.user_stories
    return {one.id: [str(row.verdict) for row in evidence_rows(run.state, one)] for one in stories}


# --- when it is due ---------------------------------------------------------------------------------------


def test_it_is_due_when_every_story_has_ended_and_one_has_passed() -> None:
    """Before, there is something to be done that could break it."""
    run = run_of(ONE, story("US-002", verify=("v2",)))
    run.until(CallAgent).did().attempted()
    assert run.state.current_story == "US-002"
    assert isinstance(run.until(ScrubWorktree).due, ScrubWorktree)
    assert standings(run) == {"US-001": "passed", "US-002": "passed"}


def test_a_run_in_which_nothing_passed_ends_without_it() -> None:
    """There is nothing to be proven."""
    run = run_of(ONE, policy=policy_of(continuations=1)).attempted(check=RED)
    assert isinstance(run.until(FinishRun).due, FinishRun)
    assert final_line(run.state) == "final proof: not run"


def test_a_run_without_any_command_ends_without_it() -> None:
    """No clean worktree is made for nothing."""
    run = run_of(story("US-001"), policy=replace(policy_of(checks=()), require=Require.NONE))
    assert run.to_end().state.going.final.rounds == 0
    assert run.state.status is RunStatus.COMPLETED


def test_stories_that_the_spec_marks_as_passed_are_proven_too() -> None:
    """Their commands run for the first time."""
    run = at_final(story("US-001", verify=("v1",), passes=True), TWO)
    assert [c.key for c in commands(run)] == [
        "final/1/check/test/0", "final/1/criterion/US-001/1/0",
        "final/1/criterion/US-002/1/0", "final/1/criterion/US-002/2/0",
    ]  # fmt: skip
    assert verdicts(run) == {"US-001": ["proven"], "US-002": ["proven", "proven"]}


def test_a_run_of_which_all_is_marked_as_passed_is_the_proof_alone() -> None:
    """Behind set-up and baseline, as any other."""
    run = run_of(story("US-001", verify=("v1",), passes=True), policy=SET_UP).to_end()
    assert [event.key for event in run.events[2:]] == [
        "setup/0/0", "setup/1/0", "baseline/test/0", "final/1/scrub/0/begun", "final/1/scrub/0",
        "final/1/setup/0/0", "final/1/setup/1/0", "final/1/check/test/0", "final/1/criterion/US-001/1/0", "finish/0",
    ]  # fmt: skip


def commands(run: Run) -> list[RunCommand]:
    """Everything that a round runs, done."""
    run.did()
    seen: list[RunCommand] = []
    while isinstance(run.due, RunCommand):
        seen.append(run.due)
        run.did()
    return seen


def test_only_what_stands_as_passed_is_proven() -> None:
    """A blocked story's commands prove nothing."""
    run = run_of(ONE, TWO, policy=policy_of(continuations=1)).attempted(check=RED)
    assert {c.key for c in commands(run.until(ScrubWorktree))} == {
        "final/1/check/test/0", "final/1/criterion/US-002/1/0", "final/1/criterion/US-002/2/0",
    }  # fmt: skip
    assert run.state.status is RunStatus.RUNNING
    assert run.did().state.status is RunStatus.FAILED


# --- the round --------------------------------------------------------------------------------------------


def test_it_begins_with_a_clean_worktree_that_is_set_up_anew() -> None:
    """What the old one had proves nothing. It is proving all the while."""
    run = at_final(policy=SET_UP)
    (begun, scrubbed) = events_of_scrub(run)
    run.happened(begun)
    assert isinstance(run.due, ScrubWorktree)
    assert run.state.machine_state is MachineState.PROVING
    run.happened(scrubbed)
    assert [c.key for c in commands_left(run)][:3] == [
        "final/1/setup/0/0", "final/1/setup/1/0", "final/1/check/test/0"
    ]  # fmt: skip


def events_of_scrub(run: Run) -> tuple[FinalProofBegun, WorktreeScrubbed]:
    assert isinstance(run.due, ScrubWorktree)
    key = run.due.key
    return FinalProofBegun(key=f"{key}/begun", at=run.now, round=1), WorktreeScrubbed(key=key, at=run.now, round=1)


def commands_left(run: Run) -> list[RunCommand]:
    seen: list[RunCommand] = []
    while isinstance(run.due, RunCommand):
        assert run.state.machine_state is MachineState.PROVING
        seen.append(run.due)
        run.did()
    return seen


@pytest.mark.parametrize("done", range(6))
def test_a_round_that_is_broken_off_is_run_anew_from_the_clean_worktree_on(done: int) -> None:
    """Under other keys, in the same round; wherever it was broken off."""
    run = at_final(policy=SET_UP)
    run.happened(events_of_scrub(run)[0])
    for _ in range(done):
        run.did()
    run.interrupted().resumed()
    assert (run.due.key, run.state.going.final.measured) == ("final/1/scrub/1", ())
    run.did()
    assert [c.key for c in commands_left(run)] == [
        "final/1/setup/0/1", "final/1/setup/1/1", "final/1/check/test/1",
        "final/1/criterion/US-001/1/1", "final/1/criterion/US-002/1/1", "final/1/criterion/US-002/2/1",
    ]  # fmt: skip
    assert run.to_end().state.status is RunStatus.COMPLETED


def test_a_story_that_a_human_opens_again_waits_for_the_end_of_the_round() -> None:
    """The worktree is in use, and perhaps not set up yet."""
    run = run_of(ONE, TWO, policy=policy_of(continuations=1)).attempted(check=RED).until(ScrubWorktree).did()
    run.retried("US-001")
    assert len(commands_left(run)) == 3
    assert isinstance(run.due, StartStory)
    run.to_end()
    assert (run.state.going.final.rounds, standings(run)) == (2, {"US-001": "passed", "US-002": "passed"})


def test_facts_that_cannot_follow_are_refused() -> None:
    """No round without an end of the stories, none twice, no end and no command outside of it."""
    run = run_of(ONE).until(CallAgent)
    begun = FinalProofBegun(key="b", at=run.now, round=1)
    scrubbed = WorktreeScrubbed(key="s", at=run.now, round=1)
    for fact in (begun, scrubbed):
        with pytest.raises(IllegalTransition):
            run.happened(fact)
    run.until(ScrubWorktree)
    for fact in (scrubbed, replace(begun, round=2)):
        with pytest.raises(IllegalTransition):
            run.happened(fact)
    run.happened(begun)
    for fact in (begun, replace(scrubbed, round=2), RunFinished(key="f", at=run.now, shipped=True)):
        with pytest.raises(IllegalTransition):
            run.happened(fact)


# --- what it comes to -------------------------------------------------------------------------------------


def test_green_renews_all_evidence() -> None:
    """What was stale is proven on the tip."""
    run = at_final()
    assert verdicts(run) == {"US-001": ["stale"], "US-002": ["proven", "proven"]}
    proven(run)
    assert verdicts(run) == {"US-001": ["proven"], "US-002": ["proven", "proven"]}
    tip = run.state.going.tip_tree
    assert {e.tree for s in run.state.going.stories.values() for e in s.evidence} == {tip}
    assert final_line(run.state) == "final proof: 4 commands green in a clean worktree"
    assert run.to_end().state.status is RunStatus.COMPLETED


def test_what_was_vacuous_stays_vacuous() -> None:
    """A clean worktree does not make it a proof of the story's work."""
    run = run_of(ONE).until(RunCommand).did().did()  # baseline, start
    run.until(RunCommand).did(first=GREEN)  # the probe
    assert verdicts(proven(run)) == {"US-001": ["vacuous"]}


@pytest.mark.parametrize("shown", [RED, exited(127), exited(137), unmeasured()])
def test_a_criterion_that_is_not_green_sends_its_story_back(shown: Measured) -> None:
    """Red or not measured: either way nothing proves it. The others stand."""
    run = proven(at_final(), "criterion/US-001", shown)
    assert standings(run) == {"US-001": "open", "US-002": "passed"}
    assert run.state.going.ledger.iterations_allowed == 1
    assert run.due.key == "US-001/3/start"
    assert history_end(run).endswith("; US-001 goes back to its author")


def history_end(run: Run) -> str:
    return list(history(enumerate(run.events)))[-1][2]


def test_a_check_that_is_red_sends_back_the_story_that_landed_last() -> None:
    """It is what the check was green before."""
    assert standings(proven(at_final(), "check")) == {"US-001": "passed", "US-002": "open"}


def test_a_story_that_changed_nothing_is_not_the_last_to_land() -> None:
    """It cannot have broken anything."""
    run = run_of(ONE, TWO).attempted().attempted(tree="tree-US-001/1/story/0/1")
    assert run.standing("US-002").commits == ()
    assert standings(proven(run, "check"))["US-001"] == "open"


def test_an_inherited_check_does_not_gate_until_it_is_first_green() -> None:
    """Red since the base: shown. Green in the final proof: it gates from then on."""
    run = run_of(ONE).until(RunCommand).did(first=RED, second=RED)
    run.until(CallAgent).did().did(first=RED, second=RED)
    assert standings(proven(run, "check")) == {"US-001": "passed"}
    assert final_line(run.state) == "final proof: 1 command green in a clean worktree; not green: check test"
    again = run_of(ONE).until(RunCommand).did(first=RED, second=RED)
    again.until(CallAgent).did().did(first=RED, second=RED)
    assert proven(again).state.going.inherited == ()


def test_a_set_up_that_fails_leaves_all_unmeasured_and_is_nobody_s_fault() -> None:
    """The run ends with that reason; resumed, the proof is begun anew."""
    run = at_final(policy=SET_UP).did().did().did(first=exited(1))
    assert run.state.status is RunStatus.FAILED
    assert run.state.going.failure == (
        "the worktree's set-up command `make` failed in the clean worktree of the final proof: exit status 1"
    )
    assert standings(run) == {"US-001": "passed", "US-002": "passed"}
    assert verdicts(run) == {"US-001": ["unmeasured"], "US-002": ["unmeasured", "unmeasured"]}
    assert {e.reading for e in run.standing("US-001").evidence} == {Reading.UNMEASURED}
    run.resumed().until(ScrubWorktree)
    assert run.due.key == "final/2/scrub/1"
    assert run.to_end().state.status is RunStatus.COMPLETED


# --- regressions ------------------------------------------------------------------------------------------


def broken_once(*, policy: Policy | None = None) -> Run:
    return proven(at_final(policy=policy), "criterion/US-001")


def test_what_was_mended_is_proven_again_with_all_the_rest() -> None:
    """In a round of its own."""
    run = broken_once().attempted()
    assert [c.key for c in commands(run.until(ScrubWorktree))] == [
        "final/2/check/test/0", "final/2/criterion/US-001/1/0",
        "final/2/criterion/US-002/1/0", "final/2/criterion/US-002/2/0",
    ]  # fmt: skip
    assert run.to_end().state.status is RunStatus.COMPLETED
    assert len(run.standing("US-001").commits) == 2


def test_mended_without_a_change_it_is_proven_again_all_the_same() -> None:
    """Green in its author's worktree, red in a clean one: that is no proof."""
    run = broken_once().attempted(tree="tree-US-002/2/story/0/1")
    assert run.until(ScrubWorktree).due.key == "final/2/scrub/0"


def test_a_story_goes_back_once_and_is_then_blocked_with_its_commits() -> None:
    """The reason says what is red."""
    run = broken_once().attempted()
    proven(run, "criterion/US-001")
    assert standings(run)["US-001"] == "blocked its proof is red on the final tree: criterion 1"
    assert len(run.standing("US-001").commits) == 2
    assert verdicts(run)["US-001"] == ["failed"]
    assert isinstance(run.due, FinishRun)
    assert run.did().state.status is RunStatus.FAILED


def test_stories_go_back_in_as_many_rounds_as_a_story_has_attempts() -> None:
    """Behind that, one that was never sent back is blocked, too."""
    run = broken_once(policy=policy_of(continuations=1)).attempted()
    proven(run, "criterion/US-002/2")
    assert standings(run)["US-002"] == "blocked its proof is red on the final tree: criterion 2"


def test_what_needs_a_blocked_story_does_not_wait_for_it_for_ever() -> None:
    """Broken together, in a round that blocks the one and would send back the other."""
    first, second = story("US-001", verify=("v1",)), story("US-002", "US-001", verify=("v2",))
    run = proven(at_final(first, second), "criterion/US-001").attempted()
    proven(run, "criterion")
    assert standings(run) == {
        "US-001": "blocked its proof is red on the final tree: criterion 1",
        "US-002": "blocked depends on US-001, which is blocked",
    }
    assert run.state.going.ledger.iterations_allowed == 0
    assert isinstance(run.due, FinishRun)


def test_a_story_that_a_human_tries_again_is_proven_with_the_rest() -> None:
    """Also behind the last round of the final proof."""
    run = broken_once().attempted()
    proven(run, "criterion/US-001").did()
    run.retried("US-001").resumed().attempted()
    assert run.until(ScrubWorktree).due.key == "final/3/scrub/1"
    assert run.to_end().state.status is RunStatus.COMPLETED


def test_what_stands_is_not_proven_twice() -> None:
    """The regression was given up: the tip is what it was."""
    run = broken_once(policy=policy_of(continuations=1)).attempted(check=RED).to_end()
    assert run.state.going.final.rounds == 1
    assert standings(run)["US-002"] == "passed"


def test_other_checks_are_another_proof() -> None:
    """A resumed run whose policy has other checks is proven by them."""
    run = broken_once(policy=policy_of(continuations=1)).attempted(check=RED).to_end()
    run.retried("US-001").resumed(replace(policy_of(continuations=1), checks={"test": Command(run="other")}))
    run.attempted(check=RED).to_end()
    assert run.state.going.final.rounds == 2


def test_green_before_a_regression_s_work_is_not_vacuous() -> None:
    """It is green by the story's own earlier work; what was vacuous then is so now, unless it was red meanwhile."""
    three = story("US-001", verify=("v1", "v2", "v3"))
    run = run_of(three).until(RunCommand).did().did()
    run.until(RunCommand).did(first=RED).did(first=GREEN).did(first=GREEN)
    assert verdicts(proven(run.until(ScrubWorktree), "US-001/3"))["US-001"] == ["proven", "vacuous", "failed"]
    run.until(RunCommand).did(first=GREEN).did(first=GREEN).did(first=RED)
    assert "US-001: criterion 1 before the work: still green" in [line for _, _, line in history(enumerate(run.events))]
    assert verdicts(run.to_end())["US-001"] == ["proven", "vacuous", "proven"]


def test_its_author_is_told_what_is_red_and_both_diffs() -> None:
    """The output's end, its own commit, and what landed after it."""
    run = broken_once()
    hint = run.did().work("US-001").hint
    tip = run.state.going.tip
    own = run.standing("US-001").commits[0]
    assert "The story had passed, but it is broken now" in hint
    assert "- criterion 1: `v1`: exit status 1\n" in hint
    assert f"Its own commit: `git diff {own}~1..{own}`\n" in hint
    assert f"What landed after it (US-002 as {tip}): `git diff {own}..{tip}`\n" in hint
    assert hint.endswith("criterion 1 printed last:\nE   assert 1 == 2")


def test_a_story_that_was_marked_as_passed_has_the_whole_run_behind_it() -> None:
    """It has no commit of its own here."""
    run = at_final(story("US-001", verify=("v1",), passes=True), TWO)
    hint = proven(run, "criterion/US-001").did().work("US-001").hint
    tip = run.state.going.tip
    assert "Its own commit" not in hint
    assert f"What landed after it (US-002 as {tip}): `git diff commit-base..{tip}`\n" in hint


def test_the_hint_is_bounded_and_both_diffs_stand_before_what_is_cut() -> None:
    """A prompt shows the first 4,000 characters of a hint."""
    many = story("US-001", verify=tuple("x" * 500 for _ in range(30)))
    red = exited(1, tail="y" * 9_000)
    run = run_of(many).until(ScrubWorktree).did()
    while isinstance(run.due, RunCommand):
        run.did(first=red, second=red)
    hint = run.did().work("US-001").hint
    assert len(hint) < 7_000
    assert hint.index("git diff") < 4_000 - 500
    assert sum(bool(m.tail) for m in run.state.going.final.measured) == 12
