"""Crash journeys: every journey in memory, its process ended at every instant, and resumed until it is over.

A cut is a `BaseException` out of a port's call: nothing catches it, and the process makes no call any more behind it.
Deeds take turns here and need no threads. What is left is the world alone (repository, journal, agents' calls, papers),
in which the next process resumes. Between two calls that change nothing the world stands still, so every world that a
dead process can leave is tried by cutting behind each call that changes it. As nothing else is left, that world need
not be come to anew for each cut: one uncut run leaves a twin of it behind each such call. For one journey every call
is really cut, before and behind.
"""

import random
from collections import Counter
from collections.abc import Hashable
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from journeykit import BRANCH, Act, Journey, Outcome, Play, journeys, told
from journeyworlds import READS, Cut, MemoryWorld, Point, likeness_of, twin_of

JOURNEYS = {name: journey for name, journey in journeys().items() if journey.memory}
STEP = 1.0  # seconds that pass with each look at the clock, so that what is dated twice is dated differently
SEED = 20_260_301
PAIRS = 3  # of cuts, for each journey,
STOPS = 3  # and of a cut and a stop


class Left(NamedTuple):
    """What is there when a process is cut: its number and the point, the play in its world, and what is to be done."""

    process: int
    point: Point
    play: Play
    to_do: list[Act]


class Uncut:
    """A journey that was played to its end once, and can be taken up from whatever a cut would have left."""

    def __init__(self, journey: Journey, home: Path) -> None:
        self.journey, self._homes = journey, (home / f"again-{number}" for number in count(1))
        self.left: list[Left] = []
        self._seen = set[Hashable]()
        self.world = MemoryWorld(journey, home, step=STEP, threads=False)
        play = Play(journey, self.world)
        self._begin = twin_of(play)
        for number, act in enumerate(journey.act):
            self.world.passed = partial(self._keep, play, journey.act[number:])
            survived(play, act)
        self.outcome = play.outcome()
        world_of(self._begin).prepared_run = self.world.prepared_run

    def _keep(self, play: Play, to_do: list[Act], point: Point) -> None:
        if point.after and point.name not in READS and self._is_new(play, to_do, point):
            self.left.append(Left(len(self.world.knives) - 1, point, twin_of(play), to_do))

    def _is_new(self, play: Play, to_do: list[Act], point: Point) -> bool:
        """Whether the call has changed anything; a wait has changed the time. What is known stays, held by `left`."""
        alike = (len(self.world.knives), len(to_do), likeness_of(play), point.name == "wait_until" and point.number)
        is_new = alike not in self._seen
        self._seen.add(alike)
        return is_new

    def _begun_anew(self) -> Play:
        play = twin_of(self._begin)
        world_of(play).home = next(self._homes)
        return play

    def check_left(self, left: Left, again: Point | None = None) -> list[Point]:
        """Taken up from there it comes to the same, even if the process that does so is cut; its points come back."""
        play = twin_of(left.play)
        world = world_of(play)
        world.cuts = {} if again is None else {left.process + 1: again}
        where = f"process {left.process}: {left.point}, then {again}"
        self.check(play, left.to_do, cuts=1 + len(world.cuts), where=where)
        return [point for knife in world.knives[left.process + 1 :][:1] for point in knife.points]

    def check_cut(self, process: int, point: Point) -> None:
        """Begun anew and really cut, it comes to the same."""
        play = self._begun_anew()
        world_of(play).cuts = {process: point}
        self.check(play, self.journey.act, cuts=1, where=f"process {process}: {point}")

    def check_stop(self, fact: int, left: Left | None = None) -> None:
        """Stopped behind this fact it comes to the same; an agent that is stopped in mid-turn is asked again.

        So also behind the second fact of the process that takes it up, of which the first is that it does."""
        play = self._begun_anew() if left is None else twin_of(left.play)
        play.stop_at = fact if left is None else play.watched + 2
        self.finish(play, self.journey.act if left is None else left.to_do, where=f"fact {fact}")
        assert done(world_of(play)) <= done(self.world) + self.journey.width, fact

    def check(self, play: Play, to_do: list[Act], *, cuts: int, where: str) -> None:
        """It comes to the same in the end, and nothing is done twice."""
        outcome, world = self.finish(play, to_do, where=where), world_of(play)
        assert outcome.calls - len(world.workers.launched) <= cuts * self.journey.width, where
        assert done(world) <= done(self.world), where

    def finish(self, play: Play, to_do: list[Act], *, where: str) -> Outcome:
        """Play it to its end, resuming after each cut, and compare."""
        for act in to_do:
            survived(play, act)
        world, outcome = world_of(play), play.outcome()
        facts = [told(event) for _, event in world.journal.read(world.journal.rows()[0].run_id)]
        lost_a_call = any(fact.startswith("ended") and fact.endswith("interrupted") for fact in facts)
        if not (lost_a_call and self.journey.spends_calls):
            assert comparable(outcome) == comparable(self.outcome), where
        assert max(Counter(world.workers.launched).values(), default=1) == 1, where
        assert max(Counter(effects(world)).values(), default=1) == 1, where
        return outcome


def world_of(play: Play) -> MemoryWorld:
    assert isinstance(play.world, MemoryWorld)
    return play.world


def survived(play: Play, act: Act) -> None:
    """Do it until no cut is in its way any more."""
    while True:
        try:
            play.act(act)
        except Cut:
            continue
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
    """Branch, files, standings, evidence, pins, findings and exit codes; no commit and no call twice.

    A sample is killed again, anywhere in the process that resumed; another one is stopped (Ctrl-C) behind the first
    fact of whatever was owed then."""
    dice = random.Random(f"{SEED}/{name}")
    uncut = Uncut(JOURNEYS[name], tmp_path)
    twice = dice.sample(range(len(uncut.left)), PAIRS)
    for number, left in enumerate(uncut.left):
        points = uncut.check_left(left)
        if number in twice and points:
            uncut.check_left(left, dice.choice(points))
    facts = list(enumerate((left for left in uncut.left if left.point.name == "append"), start=2))
    for fact, left in dice.sample(facts, min(STOPS, len(facts))):
        uncut.check_stop(fact, left)


@pytest.mark.parametrize("name", ["exhausted-commits"])
def test_before_a_call_or_behind_it_is_all_the_same(name: str, tmp_path: Path) -> None:
    """Every call of every port, also those that only look."""
    uncut = Uncut(JOURNEYS[name], tmp_path)
    for process, point in points_of(uncut.world):
        if point.name != "now":
            uncut.check_cut(process, point)


@pytest.mark.parametrize("name", ["attempts-used-up", "parallel-clash", "question-answered", "review-mends"])
def test_a_run_that_is_stopped_anywhere_and_resumed_comes_to_the_same(name: str, tmp_path: Path) -> None:
    """Ctrl-C behind each fact; in a call it ends the agent, which is then asked once more."""
    uncut = Uncut(JOURNEYS[name], tmp_path)
    for fact, _ in enumerate(uncut.world.journal.read("run-1"), start=1):
        uncut.check_stop(fact)
