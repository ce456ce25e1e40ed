"""A crew does deeds for one writer, whether in threads or, as in the journeys that are cut, in turn."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from clikit import until
from journeyworlds import InTurn, Knife
from storyloop.core.effects import CleanHandover
from storyloop.core.events import HandoverCleaned
from storyloop.engine.crew import Crew, Deed, End, Fact, Facts, Nudge, Threads

PATIENCE = 10.0  # seconds
A_WHILE = 0.05


class Works:
    """A deed of two facts that notes how far it has come."""

    def __init__(self, error: Exception | None = None) -> None:
        self.deed = Deed(CleanHandover(key="one/1/clean", story="one"), None)
        self.said: list[str] = []
        self._error = error

    def facts(self) -> Facts:
        try:
            for word in ("first", "second"):
                self.said.append(word)
                yield HandoverCleaned(key=word, at=datetime(2026, 1, 1, tzinfo=UTC), story="one")
            self.said.append("done")
            if self._error is not None:
                raise self._error
        finally:
            self.said.append("closed")


@pytest.fixture(params=[Threads, lambda: InTurn(Knife(None, lambda _: None))], ids=["threads", "in turn"])
def crew(request: pytest.FixtureRequest) -> Iterator[Crew]:
    before = threading.active_count()
    crew: Crew = request.param()
    yield crew
    crew.disband()
    until(lambda: threading.active_count() == before)


def told(crew: Crew) -> str:
    """The key of the fact that comes next."""
    news = crew.news(PATIENCE)
    assert isinstance(news, Fact)
    return news.event.key


def test_a_deed_goes_on_behind_a_fact_only_when_that_was_dealt_with(crew: Crew) -> None:
    """So what it does next rests on what is durable, with each of its facts."""
    works = Works()
    crew.begin(works.deed, works.facts())
    for said in (["first"], ["first", "second"]):
        assert told(crew) == said[-1]
        time.sleep(A_WHILE)
        assert works.said == said
        crew.go_on(works.deed)
    assert crew.news(PATIENCE) == End(works.deed, None)
    assert works.said == ["first", "second", "done", "closed"]


def test_a_deed_that_comes_too_late_ends_there(crew: Crew) -> None:
    """It does nothing more."""
    works = Works()
    crew.begin(works.deed, works.facts())
    told(crew)
    works.deed.is_late = True
    crew.go_on(works.deed)
    assert crew.news(PATIENCE) == End(works.deed, None)
    assert works.said == ["first", "closed"]


def test_what_a_deed_meets_reaches_the_writer(crew: Crew) -> None:
    """Whatever it is; the writer raises it."""
    error = RuntimeError("the disk is gone")
    works = Works(error)
    crew.begin(works.deed, works.facts())
    for _ in range(2):
        told(crew)
        crew.go_on(works.deed)
    assert crew.news(PATIENCE) == End(works.deed, error)


def test_without_a_writer_nobody_goes_on(crew: Crew) -> None:
    """Who waits with a fact leaves; who waits for something else is told to stop."""
    works = Works()
    crew.begin(works.deed, works.facts())
    told(crew)
    crew.disband()
    until(lambda: works.said[-1] == "closed")
    assert works.said == ["first", "closed"]
    assert works.deed.stop.is_set()


def test_a_nudge_is_news(crew: Crew) -> None:
    """At once, from wherever it comes."""
    crew.nudge()
    assert crew.news(PATIENCE) == Nudge()


def test_a_writer_that_nothing_reaches_looks_up_all_the_same() -> None:
    """A deed that takes long keeps it from nothing else."""
    crew, works, gate = Threads(), Works(), threading.Event()

    def slowly(facts: Callable[[], Facts]) -> Facts:
        gate.wait()
        yield from facts()

    crew.begin(works.deed, slowly(works.facts))
    assert crew.news(A_WHILE) == Nudge()
    gate.set()
    assert told(crew) == "first"
    crew.disband()
