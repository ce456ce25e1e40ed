"""New tests are tried without the work, once, when all is green; what that shows is said, and blocks nothing."""

import pytest
from makers import GREEN, PARTIAL, RED, Run, policy_of, run_of, story
from msgspec.structs import replace

from storyloop.core.effects import CallAgent, LandStory, RunCommand
from storyloop.core.facts import Ending, Measured, Suspicion, SuspicionKind
from storyloop.core.purpose import Checking, Trying
from storyloop.core.stages import Doubting
from storyloop.core.words import StoryState

NEW = ("tests/test_x.py", "tests/test_y.py")
SLOW = replace(GREEN, ending=Ending.TIMEOUT, exit_status=None, reason="it had not ended after 30 s")


def proven(
    *,
    checks: tuple[str, ...] = ("lint", "test"),
    red: str = "",
    verify: tuple[str, ...] = (),
    new: tuple[str, ...] = NEW,
) -> Run:
    """A story that is proven; the check `red` was so on the base commit."""
    run = run_of(story("US-001", verify=verify), policy=policy_of(checks=checks))
    while not isinstance(run.due, CallAgent):
        is_red = isinstance(run.due, RunCommand) and run.due.key == f"baseline/{red}/0"
        run.did(**({"first": RED, "second": RED} if is_red else {}))
    run.did(new_tests=new)
    while isinstance(run.due, RunCommand) and not isinstance(run.due.purpose, Trying):
        run.did()
    return run


def owed(run: Run) -> list[str]:
    """The keys of all that is still to be tried."""
    stage = run.work().stage
    assert isinstance(stage, Doubting)
    assert isinstance(run.due, RunCommand)
    assert run.due.tree == stage.landing.tree
    return [trying.of.check if isinstance(trying.of, Checking) else str(trying.of.criterion) for trying in stage.owed]


# checks, the one that is red on the base, commands of criteria -> what is tried
TRIED: dict[str, tuple[tuple[str, ...], str, tuple[str, ...], list[str]]] = {
    "every check": (("lint", "test"), "", (), ["lint", "test"]),
    "none that was red before the work": (("lint", "test"), "test", (), ["lint"]),
    "a criterion's command that names the tests": (("test",), "", ("pytest ./tests/test_y.py::a",), ["test", "1"]),
    "or where they lie": ((), "", ("true", "pytest tests/",), ["2"]),
    "none that does not": (("test",), "", ("pytest tests/test_old.py", "test -f x"), ["test"]),
}  # fmt: skip


@pytest.mark.parametrize(("checks", "red", "verify", "expected"), TRIED.values(), ids=TRIED)
def test_what_runs_new_tests_is_tried_without_the_work(
    checks: tuple[str, ...], red: str, verify: tuple[str, ...], expected: list[str]
) -> None:
    """Where it was green before: only then red says something about the tests."""
    assert owed(proven(checks=checks, red=red, verify=verify)) == expected


def suspicions(run: Run) -> tuple[Suspicion, ...]:
    run.until(LandStory).did()
    assert run.standing("US-001").state is StoryState.PASSED
    return run.standing("US-001").suspicions


# what each command shows without the work -> what is said
SHOWN: dict[str, tuple[tuple[Measured, ...], tuple[Suspicion, ...]]] = {
    "the first one is red: the others are not run": ((RED,), ()),
    "another one is red": ((GREEN, RED), ()),
    "all are green": (
        (GREEN, GREEN),
        (
            Suspicion(
                SuspicionKind.TESTS_PROVE_NOTHING,
                "tests/test_x.py",
                "its new tests (and those of 1 more) do not fail without the work: `run test` is green there, too",
            ),
        ),
    ),
    "one has no end": (
        (GREEN, SLOW),
        (
            Suspicion(
                SuspicionKind.TESTS_NOT_TRIED,
                "tests/test_x.py",
                "its new tests (and those of 1 more) were not tried without the work: `run test` could not be "
                "measured: it had not ended after 30 s",
            ),
        ),
    ),
}


@pytest.mark.parametrize(("shown", "expected"), SHOWN.values(), ids=SHOWN)
def test_red_is_right_without_the_work_and_anything_else_is_said(
    shown: tuple[Measured, ...], expected: tuple[Suspicion, ...]
) -> None:
    """One run of each, no second one; the story passes all the same."""
    run = proven()
    for measured in shown:
        run.did(first=measured)
    assert suspicions(run) == expected


def test_new_tests_that_nothing_runs_are_said_to_be_untried() -> None:
    """No check is known to run them."""
    why = "its new tests were not tried without the work: no command is known to run them that was green before"
    run = proven(checks=(), verify=("test -f x",), new=NEW[:1])
    assert suspicions(run) == (Suspicion(SuspicionKind.TESTS_NOT_TRIED, "tests/test_x.py", why),)


def test_without_new_tests_nothing_is_tried() -> None:
    """The story lands at once."""
    assert suspicions(proven(new=())) == ()


def test_a_round_that_was_broken_off_begins_again() -> None:
    """What was green once has to be so on the very same files."""
    run = proven().did(first=GREEN)
    assert owed(run) == ["test"]
    assert owed(run.interrupted().resumed()) == ["lint", "test"]


def test_they_are_tried_once_however_many_attempts_there_were() -> None:
    """Only the proof that passes is doubted, also where it passes when the attempts end."""
    run = run_of(policy=policy_of(continuations=2))
    for outcome in (PARTIAL, PARTIAL):
        run.until(CallAgent).did(outcome=outcome, new_tests=NEW, tree="same")
        while isinstance(run.due, RunCommand) and not isinstance(run.due.purpose, Trying):
            run.did()
    assert owed(run) == ["test"]
    run.did(first=RED)
    assert isinstance(run.due, LandStory)
