"""A crew does deeds; the one writer hears from it, news by news, what has come of them.

A deed gives facts, one by one, and goes on behind each only when the writer has dealt with it. The program's crew does
every deed in a thread of its own.
"""

import queue
import threading
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from storyloop.core.effects import Effect
from storyloop.core.events import Event

Facts = Generator[Event]


@dataclass(eq=False)
class Deed:
    """One effect under way. Mutable: who does it and the writer share it."""

    effect: Effect
    lane: int | None
    is_late: bool = False  # it is no longer owed, and nothing has come of it yet: it ends here
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Fact:
    """What a deed has come to; it waits until `Crew.go_on`."""

    deed: Deed
    event: Event


@dataclass(frozen=True)
class End:
    """The deed is over."""

    deed: Deed
    error: BaseException | None


@dataclass(frozen=True)
class Nudge:
    """The writer is to look up: somebody wants it to, or nothing has come for a while."""


News = Fact | End | Nudge


class Crew(Protocol):
    """Serves one writer, which alone calls these; `nudge` may come from anywhere, a signal handler too."""

    def begin(self, deed: Deed, facts: Facts) -> None:
        """Do it."""
        ...

    def news(self, seconds: float) -> News:
        """The next; a nudge if none comes in this time."""
        ...

    def go_on(self, deed: Deed) -> None:
        """Its fact has been dealt with."""
        ...

    def nudge(self) -> None:
        """One that the writer is to hear of."""
        ...

    def disband(self) -> None:
        """The writer is gone: no fact can be kept any more, and whoever waits with one leaves."""
        ...


class Threads:
    """A thread for each deed."""

    def __init__(self) -> None:
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._dealt_with: dict[Deed, threading.Event] = {}  # whether its last fact has been
        self._disbanded = False

    def begin(self, deed: Deed, facts: Facts) -> None:
        self._dealt_with[deed] = threading.Event()
        threading.Thread(target=self._do, args=(deed, facts), name=deed.effect.key, daemon=True).start()

    def news(self, seconds: float) -> News:
        try:
            news = self._news.get(timeout=seconds)
        except queue.Empty:
            return Nudge()
        if isinstance(news, End):
            del self._dealt_with[news.deed]
        return news

    def go_on(self, deed: Deed) -> None:
        self._dealt_with[deed].set()

    def nudge(self) -> None:
        self._news.put(Nudge())

    def disband(self) -> None:
        self._disbanded = True
        for deed, dealt_with in self._dealt_with.items():
            deed.stop.set()
            dealt_with.set()

    def _do(self, deed: Deed, facts: Facts) -> None:
        error: BaseException | None = None
        dealt_with = self._dealt_with[deed]
        try:
            with closing(facts):
                for event in facts:
                    dealt_with.clear()  # first, so that a crew that is disbanded now is noticed
                    if self._disbanded:
                        break
                    self._news.put(Fact(deed, event))
                    dealt_with.wait()
                    if deed.is_late or self._disbanded:
                        break
        except BaseException as problem:  # noqa: BLE001 - carried to the writer, which raises it
            error = problem
        self._news.put(End(deed, error))
