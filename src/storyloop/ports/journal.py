"""The journal: what is durable."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from storyloop.core.errors import OperatorError
from storyloop.core.events import Event
from storyloop.core.run_row import RunRow
from storyloop.core.run_state import RunState


class JournalConflict(OperatorError):  # noqa: N818 - it names what was met
    """Two processes write to one run, or one fact was told twice; nothing was stored."""

    def __init__(self, run_id: str, problem: str) -> None:
        super().__init__(
            f"Run {run_id} {problem}.",
            "Nothing was stored.",
            "If another storyloop works on this run, end it; then `storyloop resume` goes on from what is stored.",
        )
        self.run_id = run_id


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What another process asks of a run's one writer.

    `what` is open on purpose: a newer Storyloop may post what this one does not know, and is then refused by
    an event.
    """

    number: int  # the inbox's own, rising; whatever a request says that is posted
    what: str  # stop | skip | retry | answer
    story: str | None = None
    text: str = ""


class Journal(Protocol):
    """The ordered events of every run: the only truth. One writer per run, any number of readers."""

    def append(self, run_id: str, events: Sequence[Event], *, after: int, row: RunRow) -> int:
        """Store the events durably, all or none, with the run's row; the last one's number comes back.

        `after` is the number of the last event the writer knows: another writer's event in between, or a
        key that is there already, raises `JournalConflict`, and nothing is stored.
        """
        ...

    def read(self, run_id: str, *, after: int = 0) -> Iterator[tuple[int, Event]]:
        """The events behind number `after`, oldest first, never all in memory at once."""
        ...

    def rows(self, repository: str | None = None) -> list[RunRow]:
        """Every run (of one repository), newest first."""
        ...

    def offer_snapshot(self, run_id: str, seq: int, state: RunState) -> None:
        """Keep the state as of event `seq` if that is worth its bytes; cheap to ask after every append.

        A snapshot is a cache: the newest replaces the older one, and losing it costs time only.
        """
        ...

    def load_snapshot(self, run_id: str) -> tuple[int, RunState] | None:
        """The newest snapshot, if this version of the program wrote it and it is undamaged."""
        ...

    def post(self, run_id: str, request: Request) -> int:
        """Put a request into the run's inbox; its number, higher than any before, comes back."""
        ...

    def inbox(self, run_id: str, *, after: int) -> list[Request]:
        """Requests behind number `after`, oldest first."""
        ...

    def close(self) -> None: ...
