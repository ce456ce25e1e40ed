"""Crash journeys: every journey in memory, its process ended at every instant, and resumed until it is over.

A cut is a `BaseException` out of a port's call: nothing catches it, and the process makes no call any more behind it,
from whatever thread. What is left is the world alone (repository, journal, agents' calls, papers), in which the next
process resumes. Between two calls that change nothing the world stands still, so every world that a dead process can
leave is tried by cutting behind each call that changes it; for some journeys every call is cut, before and behind.
"""

import random
import threading
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from journeykit import BRANCH, Act, Journey, Outcome, Play, journeys, told
from journeyworlds import READS, Cut, MemoryWorld, Point

JOURNEYS = {name: journey for name, journey in journeys().items() if journey.memory}
STEP = 1.0  # seconds that pass with each look at the clock, so that what is dated twice is dated differently
SEED = 20_260_301
PAIRS = 6  # of cuts, for each journey

Cuts = dict[int, Point]  # by the number of the process


class Uncut:
    """A journey that was played to its end once, and can be played again with cuts."""

    def __init__(self, journey: Journey, home: Path) -> None:
        self.journey = journey
        self._homes = (home / str(number) for number in count(1))
        self._prepared = None
        self.world = self.new_world()
        self.outcome = self.play(self.world)
        self._prepared = self.world.prepared_run

    def new_world(self, cuts: Cuts | None = None) -> MemoryWorld:
        home = next(self._homes)
        home.mkdir()
        world = MemoryWorld(self.journey, home, step=STEP, prepared=self._prepared)
        world.cuts = cuts or {}
        return world

    def play(self, world: MemoryWorld, *, stop_at: int = 0) -> Outcome:
        """Play it to its end, resuming after each cut."""
        play = Play(self.journey, world)
        play.stop_at = stop_at
        for act in self.journey.act:
            survived(play, act)
        return play.outcome()

    def check(self, cuts: Cuts) -> MemoryWorld:
        """With these cuts it comes to the same in the end, and nothing is done twice."""
        world = self.new_world(cuts)
        outcome = self.play(world)
        where = ", ".join(f"process {number}: {point}" for number, point in cuts.items())
        assert outcome.calls - len(world.workers.launched) <= len(cuts) * self.journey.width, where
        assert done(world) <= done(self.world), where
        self.compare(world, outcome, where)
        return world

    def check_stop(self, fact: int) -> None:
        """Stopped behind this fact it comes to the same; an agent that is stopped in mid-turn is asked again."""
        world = self.new_world()
        outcome = self.play(world, stop_at=fact)
        assert done(world) <= done(self.world) + self.journey.width, fact
        self.compare(world, outcome, f"fact {fact}")

    def compare(self, world: MemoryWorld, outcome: Outcome, where: str) -> None:
        facts = [told(event) for _, event in world.journal.read(world.journal.rows()[0].run_id)]
        lost_a_call = any(fact.startswith("ended") and fact.endswith("interrupted") for fact in facts)
        if not (lost_a_call and self.journey.spends_calls):
            assert comparable(outcome) == comparable(self.outcome), where
        assert max(Counter(world.workers.launched).values(), default=1) == 1, where
        assert max(Counter(effects(world)).values(), default=1) == 1, where


def survived(play: Play, act: Act) -> None:
    """Do it until no cut is in its way any more; a process that was cut leaves no thread behind."""
    others = set(threading.enumerate())
    while True:
        try:
            play.act(act)
        except Cut:
            continue
        finally:
            for thread in set(threading.enumerate()) - others:
                thread.join(5)
                assert not thread.is_alive(), f"{thread.name} is left behind"
        return


def comparable(outcome: Outcome) -> Outcome:
    """All but what a cut may cost: a call that was begun and never made, checks that are run anew."""
    return replace(outcome, calls=0, findings=sorted(set(outcome.findings) - {"leftover"}))


def done(world: MemoryWorld) -> int:
    """How many calls were made, but for those that a resume makes to see whether a human has helped."""
    return len(world.workers.launched) - len(world.workers.unready)


def effects(world: MemoryWorld) -> list[str]:
    """The effects that the branch's commits name."""
    lines = [line for message, _ in world.repository.dump()[BRANCH] for line in message.splitlines()]
    return [line for line in lines if line.startswith("Storyloop-Effect:")]


def points_of(world: MemoryWorld) -> list[tuple[int, Point]]:
    """Every instant at which a process of this world could have been cut."""
    return [(number, point) for number, knife in enumerate(world.knives) for point in knife.points]


@pytest.mark.parametrize("name", JOURNEYS)
def test_a_run_that_is_killed_anywhere_comes_to_the_same(name: str, tmp_path: Path) -> None:
    """Branch, files, standings, evidence, pins, findings and exit codes; no commit and no call twice."""
    uncut = Uncut(JOURNEYS[name], tmp_path)
    for number, point in points_of(uncut.world):
        if point.after and point.name not in READS:
            uncut.check({number: point})


@pytest.mark.parametrize("name", ["false-claim", "exhausted-commits"])
def test_before_a_call_or_behind_it_is_all_the_same(name: str, tmp_path: Path) -> None:
    """Every call of every port, also those that only look."""
    uncut = Uncut(JOURNEYS[name], tmp_path)
    for number, point in points_of(uncut.world):
        if point.name != "now":
            uncut.check({number: point})


@pytest.mark.parametrize("name", JOURNEYS)
def test_a_run_that_is_killed_again_while_it_recovers_comes_to_the_same(name: str, tmp_path: Path) -> None:
    """Two cuts, the second one in the process that resumed; a sample."""
    dice = random.Random(f"{SEED}/{name}")
    uncut = Uncut(JOURNEYS[name], tmp_path)
    for number, point in dice.sample(points_of(uncut.world), PAIRS):
        once = uncut.check({number: point})
        if once.knives[number + 1 :]:
            again = dice.choice(once.knives[number + 1].points)
            uncut.check({number: point, number + 1: again})


@pytest.mark.parametrize("name", JOURNEYS)
def test_a_run_that_is_stopped_anywhere_and_resumed_comes_to_the_same(name: str, tmp_path: Path) -> None:
    """Ctrl-C behind each fact; in a call it ends the agent, which is then asked once more."""
    uncut = Uncut(JOURNEYS[name], tmp_path)
    for fact, _ in enumerate(uncut.world.journal.read("run-1"), start=1):
        uncut.check_stop(fact)
