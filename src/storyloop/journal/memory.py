"""The journal in memory: the same promises for as long as the object lives. For tests, and for dry runs."""

import threading
from collections.abc import Iterator, Sequence

from storyloop.core.events import Event
from storyloop.core.run_row import RunRow
from storyloop.core.run_state import RunState
from storyloop.journal.codec import Codec, Stored
from storyloop.journal.snapshots import Scale, unpack
from storyloop.ports.journal import JournalConflict, Request


class MemoryJournal:
    """Keeps events as bytes too, so that what cannot be stored on disk cannot be stored here."""

    def __init__(self) -> None:
        self._codec = Codec()
        self._lock = threading.Lock()
        self._events: dict[str, list[Stored]] = {}
        self._keys: set[tuple[str, str]] = set()
        self._rows: dict[str, RunRow] = {}
        self._inbox: list[tuple[str, Request]] = []
        self._scales: dict[str, Scale] = {}
        self._snapshots: dict[str, tuple[int, bytes]] = {}

    def append(self, run_id: str, events: Sequence[Event], *, after: int, row: RunRow) -> int:
        stored = [self._codec.encode(event) for event in events]
        keys = {(run_id, event.key) for event in events}
        with self._lock:
            last = len(self._events.get(run_id, ()))
            if last != after:
                raise JournalConflict(run_id, f"has events up to {last}, but its writer knows them up to {after}")
            if len(keys) < len(events) or keys & self._keys:
                raise JournalConflict(run_id, "was told a fact that it has already")
            self._events.setdefault(run_id, []).extend(stored)
            self._keys |= keys
            self._rows[run_id] = row
            self._scales.setdefault(run_id, Scale(0)).add(sum(len(coded.body) for coded in stored))
        return after + len(events)

    def read(self, run_id: str, *, after: int = 0) -> Iterator[tuple[int, Event]]:
        stored = self._events.get(run_id, [])
        while after < len(stored):
            after += 1
            yield after, self._codec.decode(stored[after - 1])

    def rows(self, repository: str | None = None) -> list[RunRow]:
        with self._lock:
            rows = [row for row in self._rows.values() if repository in (None, row.repository)]
        return sorted(sorted(rows), key=lambda row: row.started_at, reverse=True)

    def offer_snapshot(self, run_id: str, seq: int, state: RunState) -> None:
        body = self._scales.setdefault(run_id, Scale(0)).due(state)
        if body is not None:
            self._snapshots[run_id] = (seq, body)

    def load_snapshot(self, run_id: str) -> tuple[int, RunState] | None:
        if run_id not in self._snapshots:
            return None
        seq, body = self._snapshots[run_id]
        state = unpack(body)
        return None if state is None else (seq, state)

    def post(self, run_id: str, request: Request) -> int:
        with self._lock:
            number = len(self._inbox) + 1
            asked = Request(number=number, what=request.what, story=request.story, text=request.text)
            self._inbox.append((run_id, asked))
        return number

    def inbox(self, run_id: str, *, after: int) -> list[Request]:
        with self._lock:
            return [asked for run, asked in self._inbox if run == run_id and asked.number > after]

    def close(self) -> None:
        """Nothing to let go of."""
