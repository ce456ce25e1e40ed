"""When a story passes: each sentence of PRODUCT.md is a row, with the expectation written by hand.

A row is an attempt: what the agent said, whether the tree changed, and what each command showed. The checks are
`lint` and `test`; the proofs are those of the criteria. `fold` rows go through the whole machine.
"""

from typing import Any

import pytest
from makers import (
    BASE_TREE,
    COMPLETED,
    CRASHED,
    GREEN,
    LOGGED_OUT,
    MALFORMED,
    PARTIAL,
    RED,
    SAID_FAILED,
    Run,
    exited,
    policy_of,
    run_of,
    said,
    story,
    unmeasured,
)
from msgspec.structs import replace

from storyloop.core.effects import CallAgent, LandStory, LeaveStory, RunCommand, Wait
from storyloop.core.evidence import Reading, Verdict, deserves_second_run, reading_of, verdict_of
from storyloop.core.facts import Answered, Ending, Measured
from storyloop.core.policy import Command, Policy, Require
from storyloop.core.purpose import Baselining, Checking, Demonstrating, Probing
from storyloop.core.words import StoryState

# --- what one command showed ------------------------------------------------------------------------------

READINGS: dict[str, tuple[Measured, Measured | None, Reading]] = {
    "exit 0": (GREEN, None, Reading.GREEN),
    "exit 1, not run again": (RED, None, Reading.RED),
    "red twice": (RED, RED, Reading.RED),
    "red, then green on the same tree": (RED, GREEN, Reading.FLAKY),
    "red, then not measured": (RED, unmeasured(), Reading.RED),
    "red, then killed": (RED, exited(137), Reading.RED),
    "command not found": (exited(127), None, Reading.RED),
    "not executable": (exited(126), None, Reading.RED),
    "killed for memory, as a shell tells it": (exited(137), None, Reading.UNMEASURED),
    "ended by a signal": (unmeasured(Ending.SIGNALLED), None, Reading.UNMEASURED),
    "too slow": (unmeasured(Ending.TIMEOUT), None, Reading.UNMEASURED),
    "not started": (unmeasured(Ending.UNSTARTED), None, Reading.UNMEASURED),
}


@pytest.mark.parametrize(("first", "second", "reading"), READINGS.values(), ids=READINGS)
def test_what_a_command_shows(first: Measured, second: Measured | None, reading: Reading) -> None:
    """Green, flaky, red, or not measured; flaky counts as green."""
    assert reading_of(first, second) is reading
    assert reading.is_green is (reading in (Reading.GREEN, Reading.FLAKY))


@pytest.mark.parametrize(
    ("first", "again"), [(GREEN, False), (RED, True), (exited(127), False), (exited(137), False), (unmeasured(), False)]
)
def test_only_a_red_result_is_looked_at_twice(first: Measured, again: bool) -> None:
    """A missing command or an unmeasured one would only show the same."""
    assert deserves_second_run(first) is again


# --- attempts ---------------------------------------------------------------------------------------------

NOT_GREEN = "not green: check test"
MADE_GREEN = "Make these pass; we ran them on your work and they did not:\n- check test: `run test` "


def attempted(
    answer: Answered = COMPLETED,
    *,
    changed: bool = True,
    verify: tuple[str, ...] = (),
    checks: tuple[str, ...] = ("lint", "test"),
    showed: dict[str, tuple[Measured, Measured | None]] | None = None,
    inherited: tuple[str, ...] = (),
    **policy: Any,
) -> Run:
    """A run after one attempt; `showed` is by check name or criterion's command, green where it is silent."""
    run = run_of(story("US-001", verify=verify), policy=replace(policy_of(checks=checks), **policy))
    while not isinstance(run.due, CallAgent):
        red = isinstance(run.due, RunCommand) and (
            (isinstance(run.due.purpose, Baselining) and run.due.purpose.check in inherited)
            or isinstance(run.due.purpose, Probing)
        )
        run.did(**({"first": RED, "second": RED} if red else {}))
    run.did(outcome=answer, tree="tree-1" if changed else BASE_TREE)
    while isinstance(run.due, RunCommand):
        purpose = run.due.purpose
        name = purpose.check if isinstance(purpose, Checking) else run.due.command.run
        first, second = (showed or {}).get(name, (GREEN, None))
        run.did(first=first, second=second)
    return run


PASSES: dict[str, tuple[dict[str, Any], str]] = {
    "completed, changed, all green": ({}, ""),
    "completed, checks and proofs green": ({"verify": ("v1", "v2")}, ""),
    "completed, proofs alone green": ({"verify": ("v1",), "checks": ()}, ""),
    "a flaky check": ({"showed": {"test": (RED, GREEN)}}, ""),
    "a flaky proof": ({"verify": ("v1",), "showed": {"v1": (RED, GREEN)}}, ""),
    "an inherited check that is still red, beside a green one": (
        {"inherited": ("test",), "showed": {"test": (RED, RED)}},
        "",
    ),
    "an inherited check that is still red, beside a green proof": (
        {"checks": ("test",), "verify": ("v1",), "inherited": ("test",), "showed": {"test": (RED, RED)}},
        "",
    ),
    "an inherited check that could not be measured": (
        {"inherited": ("test",), "showed": {"test": (unmeasured(), None)}},
        "",
    ),
    "an inherited check that is green now": ({"checks": ("test",), "inherited": ("test",)}, ""),
    "nothing changed, but its proofs are green": (
        {"changed": False, "verify": ("v1",)},
        "already satisfied: no change was needed",
    ),
    "no command at all, where none is required": ({"checks": (), "require": Require.NONE}, ""),
    "only an inherited check, where none is required": (
        {"checks": ("test",), "inherited": ("test",), "showed": {"test": (RED, RED)}, "require": Require.NONE},
        "",
    ),
}


@pytest.mark.parametrize(("how", "note"), PASSES.values(), ids=PASSES)
def test_a_story_passes(how: dict[str, Any], note: str) -> None:
    """Proven by commands that we ran on the tree that is committed, and worth a note where it is odd."""
    run = attempted(**how)
    assert isinstance(run.due, LandStory), run.due
    passed = run.did().standing("US-001")
    assert (passed.state, passed.reason, passed.attempts, passed.calls) == (StoryState.PASSED, note, 1, 1)


# how, what the report says, what the next attempt is told to do
FAILS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "a red check, whatever was claimed": (
        {"showed": {"test": (RED, RED)}},
        NOT_GREEN,
        MADE_GREEN + "ended with exit status 1",
    ),
    "a red check, and honest about it": (
        {"answer": PARTIAL, "showed": {"test": (RED, RED)}},
        NOT_GREEN,
        MADE_GREEN + "ended with exit status 1\nYour own next steps were:\nthe rest",
    ),
    "a red proof": (
        {"verify": ("v1", "v2"), "showed": {"v2": (RED, RED)}},
        "not green: criterion 2",
        "Make these pass; we ran them on your work and they did not:\n- criterion 2: `v2` ended with exit status 1",
    ),
    "a proof is never inherited": (
        {"verify": ("test",), "inherited": ("test",), "showed": {"test": (RED, RED)}},
        "not green: criterion 1",
        "Make these pass; we ran them on your work and they did not:\n- criterion 1: `test` ended with exit status 1",
    ),
    "a check that could not be measured": (
        {"showed": {"test": (unmeasured(), None)}},
        NOT_GREEN,
        MADE_GREEN + "it was ended after 30 minutes",
    ),
    "a check that was killed": (
        {"showed": {"test": (exited(137), None)}},
        NOT_GREEN,
        MADE_GREEN + "ended with exit status 137",
    ),
    "a check that does not exist, with the reason": (
        {"showed": {"test": (exited(127), None)}},
        NOT_GREEN,
        MADE_GREEN + "command not found",
    ),
    "everything red is named": (
        {"verify": ("v1",), "showed": {"lint": (RED, RED), "test": (RED, RED), "v1": (RED, RED)}},
        "not green: check lint, check test, criterion 1",
        "Make these pass; we ran them on your work and they did not:\n"
        "- check lint: `run lint` ended with exit status 1\n"
        "- check test: `run test` ended with exit status 1\n"
        "- criterion 1: `v1` ended with exit status 1",
    ),
    "nothing changed and nothing proves it": (
        {"changed": False},
        "nothing was changed",
        "The last attempt changed nothing. Do the work that the story asks for in the files of this directory.",
    ),
    "nothing changed, and a proof is red": (
        {"changed": False, "verify": ("v1",), "showed": {"v1": (RED, RED)}},
        "not green: criterion 1",
        "The last attempt changed nothing. Make these pass; we ran them on your work and they did not:\n"
        "- criterion 1: `v1` ended with exit status 1",
    ),
    "nothing changed, its proof is green, but a check is red": (
        {"changed": False, "verify": ("v1",), "showed": {"test": (RED, RED)}},
        NOT_GREEN,
        "The last attempt changed nothing. " + MADE_GREEN + "ended with exit status 1",
    ),
    "nothing changed, where no proof is required": (
        {"changed": False, "checks": (), "require": Require.NONE},
        "nothing was changed",
        "The last attempt changed nothing. Do the work that the story asks for in the files of this directory.",
    ),
    "no command could prove it": ({"checks": ()}, "no command could prove it", None),
    "nothing that was run was green": (
        {"checks": ("test",), "inherited": ("test",), "showed": {"test": (RED, RED)}},
        "nothing proves it; not green: check test",
        "Nothing that we ran on your work was green, so nothing proves it. Make one of these pass:\n"
        "- check test: `run test` ended with exit status 1",
    ),
    "said failed, though all is green": (
        {"answer": said("failed", summary="I could not\nfind it", next_steps="look again")},
        "the agent says it failed: I could not",
        "look again",
    ),
    "said partial, though all is green": ({"answer": PARTIAL}, "the agent says partial", "the rest"),
}


@pytest.mark.parametrize(("how", "reason", "next_steps"), FAILS.values(), ids=FAILS)
def test_an_attempt_falls_short(how: dict[str, Any], reason: str, next_steps: str | None) -> None:
    """It costs the attempt, and the next one is told what was missing."""
    run = attempted(**how)
    work = run.work()
    assert (work.cs.continuation_attempt, work.errand.last_failure) == (1, reason)
    assert work.cs.previous_next_steps == next_steps


@pytest.mark.parametrize(
    ("answer", "red", "status"),
    [
        (COMPLETED, True, "failed"),
        (PARTIAL, True, "failed"),
        (SAID_FAILED, True, "failed"),
        (SAID_FAILED, False, "failed"),
        (PARTIAL, False, "partial"),
    ],
)
def test_a_refuted_claim_is_recorded_as_failed(answer: Answered, red: bool, status: str) -> None:
    """The next attempt is told the truth, not what was claimed."""
    run = attempted(answer, showed={"test": (RED, RED)} if red else {})
    assert run.work().cs.previous_status == status


def test_the_next_attempt_gets_the_failing_output() -> None:
    """Bounded, from the run that decided."""
    run = attempted(showed={"test": (RED, exited(1, tail="x" * 9000 + "the end"))})
    (red,) = run.work().red
    assert (red.evidence.check, len(red.tail), red.tail[-7:]) == ("test", 4000, "the end")


def test_the_output_of_six_failures_is_carried_at_most() -> None:
    """A prompt has a size."""
    names = tuple(f"c{n}" for n in range(9))
    run = attempted(checks=names, showed=dict.fromkeys(names, (RED, RED)))
    assert [red.evidence.check for red in run.work().red] == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert run.work().errand.last_failure == "not green: check c0, check c1, check c2, check c3, ..."


# --- what is owed to a tree -------------------------------------------------------------------------------


def test_checks_come_first_in_their_order_then_the_proofs() -> None:
    """All of them, also behind a red one: the next attempt is told everything at once."""
    run = run_of(story("US-001", verify=("v1", "v2")), policy=policy_of(checks=("lint", "test"))).until(CallAgent).did()
    purposes: list[object] = []
    while isinstance(run.due, RunCommand):
        purposes.append(run.due.purpose)
        run.did(first=RED, second=RED)
    assert purposes == [
        Checking(story="US-001", iteration=1, attempt=0, check="lint"),
        Checking(story="US-001", iteration=1, attempt=0, check="test"),
        Demonstrating(story="US-001", iteration=1, attempt=0, criterion=1),
        Demonstrating(story="US-001", iteration=1, attempt=0, criterion=2),
    ]


def test_a_check_has_its_own_time_or_that_of_all_checks() -> None:
    """The limit travels with the deed."""
    policy = replace(
        policy_of(check_timeout=60.0),
        checks={"slow": Command(run="make slow", timeout=600.0), "fast": Command(run="make fast")},
    )
    run = run_of(policy=policy).until(CallAgent).did()
    assert isinstance(run.due, RunCommand)
    assert (run.due.command.run, run.due.timeout) == ("make slow", 600.0)
    run.did()
    assert isinstance(run.due, RunCommand)
    assert (run.due.command.run, run.due.timeout) == ("make fast", 60.0)


def test_an_unchanged_tree_without_proofs_is_not_even_measured() -> None:
    """Nothing could make it pass."""
    run = run_of().until(CallAgent).did(tree=BASE_TREE)
    assert run.work().errand.last_failure == "nothing was changed"
    assert not isinstance(run.due, RunCommand)


# --- partial ----------------------------------------------------------------------------------------------

ENDED = "passed when its attempts ended: all is green, but the agent still said partial"


def partial_run(policy: Policy | None = None) -> Run:
    return run_of(policy=policy or policy_of())


def test_partial_and_green_passes_when_its_attempts_end() -> None:
    """And the report says so."""
    run = partial_run().attempted(PARTIAL).attempted(PARTIAL).attempted(PARTIAL)
    passed = run.until(LandStory).did().standing("US-001")
    assert (passed.state, passed.reason, passed.attempts, passed.calls) == (StoryState.PASSED, ENDED, 3, 3)


def test_partial_and_red_at_the_end_is_blocked() -> None:
    """An earlier green tree does not count: that is not what lies there."""
    run = partial_run().attempted(PARTIAL).attempted(PARTIAL).attempted(PARTIAL, check=RED)
    blocked = run.until(LeaveStory).did().standing("US-001")
    assert (blocked.state, blocked.reason) == (
        StoryState.BLOCKED,
        "3 attempts used up: not green: check test",
    )
    assert (blocked.attempts, blocked.calls) == (3, 3)


def test_partial_and_green_passes_when_its_calls_are_used_up() -> None:
    """Whatever ended the attempts, all is green."""
    run = partial_run(policy_of(calls_per_errand=2)).attempted(PARTIAL).attempted(PARTIAL)
    passed = run.until(LandStory).did().standing("US-001")
    assert (passed.reason, passed.attempts, passed.calls) == (ENDED, 2, 2)


def test_partial_and_green_passes_when_it_turns_in_a_loop() -> None:
    """The agent changes nothing more, and what there is is green."""
    run = partial_run(policy_of(continuations=9, loop_threshold=2))
    for _ in range(4):
        run.attempted(PARTIAL, tree="tree-1")
    passed = run.until(LandStory).did().standing("US-001")
    assert (passed.reason, passed.attempts) == (ENDED, 4)


@pytest.mark.parametrize("outcome", [CRASHED, MALFORMED, LOGGED_OUT])
def test_partial_and_green_passes_when_the_calls_after_it_come_to_nothing(outcome: Any) -> None:
    """As long as the files are still those that were proven."""
    run = partial_run(policy_of(calls_per_errand=3)).attempted(PARTIAL, tree="tree-1")
    run.until(CallAgent).did(outcome=outcome, tree="tree-1")
    run = run if isinstance(run.due, CallAgent | Wait) else run.did().resumed()  # a human logged in again
    run.until(CallAgent).did(outcome=outcome, tree="tree-1")
    passed = run.until(LandStory).did().standing("US-001")
    assert (passed.state, passed.reason, passed.attempts, passed.calls) == (StoryState.PASSED, ENDED, 2, 3)


def test_partial_and_green_is_blocked_when_a_later_call_changed_the_files_and_came_to_nothing() -> None:
    """What lies there now was never proven."""
    run = partial_run(policy_of(calls_per_errand=2)).attempted(PARTIAL, tree="tree-1")
    run.until(CallAgent).did(outcome=CRASHED, tree="tree-2")
    assert run.until(LeaveStory).did().standing("US-001").state is StoryState.BLOCKED


def test_a_green_tree_does_not_outlive_a_red_one() -> None:
    """Green and partial, then red, then crashes on the first tree: the last judgement counts."""
    run = partial_run(policy_of(calls_per_errand=3)).attempted(PARTIAL, tree="tree-1").attempted(PARTIAL, check=RED)
    run.until(CallAgent).did(outcome=CRASHED, tree="tree-1")
    assert run.until(LeaveStory).did().standing("US-001").state is StoryState.BLOCKED


def test_partial_that_becomes_completed_passes_without_a_note() -> None:
    """The usual way."""
    passed = partial_run().attempted(PARTIAL).attempted(COMPLETED).until(LandStory).did().standing("US-001")
    assert (passed.reason, passed.attempts) == ("", 2)


# --- inherited checks -------------------------------------------------------------------------------------


def inheriting(*stories: str) -> Run:
    """A run whose check `test` is red on the base commit, beside a green `lint`."""
    run = run_of(*(story(name) for name in stories), policy=policy_of(checks=("lint", "test"), continuations=1))
    run.did().did()
    return run.did(first=RED, second=RED)


def test_a_check_that_is_red_on_the_base_commit_is_inherited() -> None:
    """Shown as such."""
    assert inheriting("US-001").state.going.inherited == ("test",)


@pytest.mark.parametrize("showed", [(RED, None), (exited(127), None), (unmeasured(), None)])
def test_whatever_is_not_green_on_the_base_commit_is_inherited(showed: tuple[Measured, None]) -> None:
    """A story does not pay for what it did not break."""
    run = run_of().did().did(first=showed[0])
    assert run.state.going.inherited == ("test",)


def test_a_check_that_is_flaky_on_the_base_commit_is_not_inherited() -> None:
    """It can be green, so it gates."""
    assert run_of().did().did(first=RED, second=GREEN).state.going.inherited == ()


def measured_alike(run: Run, **lint_and_test: Measured) -> Run:
    """The next attempt completes, and its checks show this."""
    run.until(CallAgent).did()
    while isinstance(run.due, RunCommand) and isinstance(run.due.purpose, Checking):
        showed = lint_and_test[run.due.purpose.check]
        run.did(first=showed, second=RED if showed is RED else None)
    return run


def test_an_inherited_check_gates_from_its_first_green_landing_on() -> None:
    """Story 1 leaves it red and passes; story 2 mends it; story 3 may not break it again."""
    run = inheriting("US-001", "US-002", "US-003")
    measured_alike(run, lint=GREEN, test=RED).until(LandStory).did()
    assert run.state.going.inherited == ("test",)
    measured_alike(run, lint=GREEN, test=GREEN).until(LandStory).did()
    assert run.state.going.inherited == ()
    measured_alike(run, lint=GREEN, test=RED).until(LeaveStory).did()
    assert run.standing("US-003").reason == "1 attempt used up: not green: check test"


def test_an_inherited_check_that_was_green_only_on_a_failed_attempt_is_still_inherited() -> None:
    """That tree never became part of the branch."""
    run = inheriting("US-001", "US-002")
    measured_alike(run, lint=RED, test=GREEN).until(LeaveStory).did()
    assert run.state.going.inherited == ("test",)
    assert isinstance(measured_alike(run, lint=GREEN, test=RED).due, LandStory)


# --- what a criterion's evidence is worth -----------------------------------------------------------------


def test_the_verdict_of_a_criterion() -> None:
    """Unmeasured and red first, then what it was worth, then staleness."""
    run = attempted(verify=("v1",)).until(LandStory).did()
    green = run.standing("US-001").evidence[-1]
    red, dark = replace(green, reading=Reading.RED), replace(green, reading=Reading.UNMEASURED)
    flaky = replace(green, reading=Reading.FLAKY)
    assert verdict_of(None, was_green_before=False, tip_tree="tree-1") is Verdict.UNPROVEN
    assert verdict_of(green, was_green_before=False, tip_tree="tree-1") is Verdict.PROVEN
    assert verdict_of(flaky, was_green_before=False, tip_tree="tree-1") is Verdict.PROVEN
    assert verdict_of(green, was_green_before=True, tip_tree="tree-1") is Verdict.VACUOUS
    assert verdict_of(green, was_green_before=True, tip_tree="tree-2") is Verdict.VACUOUS  # it never was proven
    assert verdict_of(green, was_green_before=False, tip_tree="tree-2") is Verdict.STALE
    assert verdict_of(red, was_green_before=True, tip_tree="tree-1") is Verdict.FAILED
    assert verdict_of(dark, was_green_before=True, tip_tree="tree-1") is Verdict.UNMEASURED


def test_a_proof_that_was_green_before_the_work_is_remembered_as_such() -> None:
    """Probing tells; it blocks nothing."""
    run = run_of(story("US-001", verify=("v1", "v2"))).until(RunCommand).did()  # the baseline of `test`
    run.until(RunCommand).did(first=GREEN).did(first=RED)
    assert run.to_end().standing("US-001").green_before == (1,)
