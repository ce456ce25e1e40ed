"""Stories side by side: whoever ends first, one branch comes of it, as if they had been done one after the other."""

import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gitkit import git, isolated
from journeykit import BRANCH, Act, Expected, Journey, Play, StorySaid
from journeyworlds import MemoryWorld, RealWorld
from storyloop.cleaning import looked_through, removed
from storyloop.config.layers import Flags
from storyloop.core.events import CallEnded, Event
from storyloop.core.facts import CallReport
from storyloop.core.run_state import RunState
from storyloop.core.words import StoryState
from storyloop.driving import open_run
from test_journeys import assert_within_bounds, at_work_below

STORIES = 12
NAMES = [f"US-{number:03}" for number in range(1, STORIES + 1)]


def _turn(steps: list[dict[str, Any]], **asked: Any) -> dict[str, Any]:
    return {**asked, "steps": [*steps, {"answer": "completed", "summary": "Done."}]}


def twelve(parallel: int) -> Journey:
    """US-004 and US-005 change the same place; US-008 takes away what US-009 relies on; US-012 needs US-002."""
    files = {name: f"{name.lower()}.txt" for name in NAMES}
    criteria = {name: [f"test -f {path}"] for name, path in files.items()}
    criteria["US-004"].append("grep -q four list.txt")
    criteria["US-005"].append("grep -q five list.txt")
    criteria["US-008"].append("grep -q metres unit.txt")
    criteria["US-009"].append("grep -q feet unit.txt")
    steps: dict[str, list[dict[str, Any]]] = {n: [{"write": path, "text": f"{n}\n"}] for n, path in files.items()}
    steps["US-004"].append({"append": "list.txt", "text": "four\n"})
    steps["US-005"].append({"append": "list.txt", "text": "five\n"})
    steps["US-008"].append({"write": "unit.txt", "text": "metres\n"})
    turns = [_turn([{"write": "list.txt", "text": "four\nfive\n"}], drain="conflict")]
    turns[0]["steps"][-1] = {"conflict": "resolved", "summary": "Both."}
    turns.append(_turn([{"write": "unit.txt", "text": "metres, feet\n"}], story="US-009", attempt=1))
    turns += [_turn(steps[name], story=name) for name in NAMES]
    return Journey(
        promise="",
        files={"base.txt": "base\n", "unit.txt": "feet\n"},
        story=[StorySaid(id=n, criteria=criteria[n], depends_on=["US-002"] if n == "US-012" else []) for n in NAMES],
        config={"limits": {"parallel": parallel}, "checks": {"all": "test -f base.txt"}},
        agents={"one": turns},
        act=[Act(do="run")],
        expect=Expected(stories={}, calls=0, commits=[], files={}),
    )


MADE = {
    "base.txt": "base\n",
    **{f"{name.lower()}.txt": f"{name}\n" for name in NAMES},
    "list.txt": "four\nfive\n",
    "unit.txt": "metres, feet\n",
}
SUBJECTS = ["base", *(f"{name}: The story {name}" for name in NAMES)]


def played(play: Play) -> Play:
    (act,) = play.journey.act
    play.act(act)
    outcome = play.outcome()
    assert outcome.exits == [0]
    assert set(outcome.stories.values()) == {"passed"}
    assert [subject for subject, _ in outcome.history][1:] == SUBJECTS[1:]
    assert outcome.history[-1][1] == outcome.worktree == MADE
    assert_within_bounds(play)
    return play


@pytest.mark.parametrize("parallel", [1, 4])
def test_twelve_stories_with_a_clash_and_a_breach_come_to_one_branch(parallel: int, tmp_path: Path) -> None:
    """In the order of the spec, each commit green; one after the other or side by side."""
    journey = twelve(parallel)
    play = played(Play(journey, MemoryWorld(journey, tmp_path)))
    for number, (_, files) in enumerate(play.outcome().history[1:], start=1):
        assert {f"{name.lower()}.txt" for name in NAMES[:number]} <= files.keys()
        assert number < 4 or "four" in files["list.txt"]
        assert number < 5 or "five" in files["list.txt"]
        assert "feet" in files["unit.txt"] if number != 8 else files["unit.txt"] == "metres\n"


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_with_real_git_it_is_the_same_and_no_worktree_or_branch_is_left_over(tmp_path: Path) -> None:
    """All lanes are gone when the run has ended; the run's own worktree and branch stay."""
    journey = twelve(4)
    play = played(Play(journey, RealWorld(journey, tmp_path)))
    assert at_work_below(tmp_path) == []
    repository, env = tmp_path / "repository", isolated(tmp_path / "user")
    worktrees = git(repository, "worktree", "list", "--porcelain", env=env).split("\n\n")
    assert [entry.split()[1] for entry in worktrees] == [str(repository), play.known.going.worktree]
    assert git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads", env=env).split() == [
        BRANCH,
        "main",
    ]


class _Slow:
    """Calls that end in an order of their own: each is looked at a few times before it does."""

    def __init__(self, workers: Any, dice: random.Random) -> None:
        self._workers, self._dice = workers, dice

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workers, name)

    def launch(self, order: Any) -> "_SlowCall":
        return _SlowCall(self._workers.launch(order), self._dice.randrange(1, 40))


class _SlowCall:
    def __init__(self, watch: Any, looks: int) -> None:
        self._watch, self._looks = watch, looks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watch, name)

    def wait(self, seconds: float) -> CallReport | None:
        self._looks -= 1
        threading.Event().wait(0.001)
        return None if self._looks > 0 else self._watch.wait(seconds)


@pytest.mark.parametrize("seed", range(6))
def test_whoever_ends_first_the_branch_is_the_same(seed: int, tmp_path: Path) -> None:
    """Commits, their order and every file."""
    journey, dice = twelve(2 + seed % 4), random.Random(seed)
    world = MemoryWorld(journey, tmp_path)
    world.workers = _Slow(world.workers, dice)  # pyright: ignore[reportAttributeAccessIssue]
    played(Play(journey, world))


def test_a_story_that_asks_gives_its_worktree_to_others_and_lands_behind_them(tmp_path: Path) -> None:
    """It is passed over; the answer brings it back onto what has landed meanwhile."""
    journey = twelve(3)
    asks = {"story": "US-002", "call": 1, "steps": [{"answer": "partial", "next_steps": "The rest."}]}
    asks["steps"][0] |= {"summary": "Half.", "question": "Which?", "default": "this"}
    journey = replace(journey, agents={"one": [asks, *journey.agents["one"]]})
    play = Play(journey, MemoryWorld(journey, tmp_path))
    play.act(Act(do="run"))
    assert play.exits == [3]
    left = {name: s.state for name, s in play.known.going.stories.items() if s.state is not StoryState.PASSED}
    assert left == {"US-002": StoryState.BUILDING, "US-012": StoryState.OPEN}
    play.act(Act(do="answer", story="US-002", text="that"))
    play.act(Act(do="resume"))
    assert play.exits == [3, 0]
    subjects = [subject for subject, _ in play.outcome().history[1:]]
    assert subjects[-2:] == ["US-002: The story US-002", "US-012: The story US-012"]
    assert play.outcome().worktree == MADE


def test_under_step_every_story_waits_for_approval_before_its_turn(tmp_path: Path) -> None:
    """Nothing has landed; what is approved lands in order, proven anew on what landed before it."""
    journey = twelve(3)
    play = Play(journey, MemoryWorld(journey, tmp_path))
    play.act(Act(do="run", flags={"step": True}))
    assert play.exits == [3]
    assert len(play.outcome().history) == 1
    for name in ("US-003", "US-001", "US-002"):
        play.act(Act(do="approve", story=name))
    play.act(Act(do="resume", flags={"step": False}))
    played_on = play.outcome()
    assert play.exits == [3, 0]
    assert [subject for subject, _ in played_on.history][1:] == SUBJECTS[1:]
    assert played_on.worktree == MADE


@pytest.mark.processes
@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["deleted", "cleaned"])
def test_lanes_that_are_gone_when_a_run_goes_on_are_made_again(how: str, tmp_path: Path) -> None:
    """With the files of the work that was in them, and set up anew; cleaning up takes them with the run's worktree."""
    journey = twelve(3)
    journey = replace(journey, story=journey.story[:6])
    journey = replace(journey, config=journey.config | {"worktree": {"setup": ["touch set-up.txt"]}})
    journey = replace(journey, files=journey.files | {".gitignore": "set-up.txt\n"})
    world = RealWorld(journey, tmp_path)
    play = Play(journey, world)
    service = world.service()
    with open_run(service, world.prepared(service, Flags())) as drive:

        def watch(event: Event, state: RunState) -> None:
            in_lanes = {work.lane for work in state.going.work.values() if work.lane and work.pin}
            if in_lanes and isinstance(event, CallEnded):
                drive.interrupt("by the test")

        play.known = drive.run(watch)
    lanes = sorted(tmp_path.glob("*-lane-*"))
    assert len(lanes) in (2, 3)  # the third may have been begun before the call ended that is waited for
    if how == "deleted":
        for lane in lanes:
            shutil.rmtree(lane)
    else:
        told = [
            removed(service, left)
            for left in looked_through(service, play.known.going.repository, older_than=0).leftovers
        ]
        assert [line.partition(";")[0] for line in told] == ["removed"]
        assert list(tmp_path.glob("*-wt-*")) == []
    play.act(Act(do="resume"))
    outcome = play.outcome()
    assert outcome.exits == [0]
    assert set(outcome.stories.values()) == {"passed"}
    made = MADE | {"unit.txt": "feet\n", ".gitignore": "set-up.txt\n"}
    assert outcome.history[-1][1] == {
        path: text for path, text in made.items() if text not in (f"{n}\n" for n in NAMES[6:])
    }
    assert list(tmp_path.glob("*-lane-*")) == []
