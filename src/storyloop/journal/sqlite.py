"""The journal in SQLite: one file for every run of a user, durable before `append` returns.

Write-ahead log with `synchronous = FULL`: an event that was appended is there after a power cut, and readers never
wait for the writer. A run's row is stored in the transaction of its events, so the two never disagree.
Reading goes in batches, each a query of its own: a reader that takes its time keeps no old page alive.
A file that is there is opened at once, so that what is wrong with it is told at once; a file that is missing is made by
the first write, so that looking around, and a run that is refused, leave no trace.
"""

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Connection, IntegrityError

from storyloop import __version__
from storyloop.core.events import Event
from storyloop.core.run_row import RunRow
from storyloop.core.run_state import RunState
from storyloop.journal.codec import Codec, NewerEvent
from storyloop.journal.database import (
    PATIENCE,
    failures_told,
    open_empty,
    open_for_writing,
    require_place,
    transaction,
)
from storyloop.journal.rows import select_rows, store_row
from storyloop.journal.snapshots import Scale, program, unpack
from storyloop.ports.journal import JournalConflict, Request

_BATCH = 256


class SqliteJournal:
    """Keeps the Journal's promises on disk; may be used from several threads."""

    def __init__(self, path: Path, *, patience: float = PATIENCE) -> None:
        self._path, self._patience, self._codec = path, patience, Codec()
        self._lock = threading.Lock()
        self._scales: dict[str, Scale] = {}
        self._connection: Connection | None = None
        if not self._made():
            require_place(path)

    def append(self, run_id: str, events: Sequence[Event], *, after: int, row: RunRow) -> int:
        stored = [self._codec.encode(event) for event in events]
        entries = [
            (run_id, seq, event.key, *coded[:2], event.at.isoformat(), coded.body)
            for seq, (event, coded) in enumerate(zip(events, stored, strict=True), start=after + 1)
        ]
        with self._writing(f"Everything up to event {after} of run {run_id} is stored, and nothing half.") as database:
            last: int = database.execute("SELECT ifnull(max(seq), 0) FROM event WHERE run = ?", (run_id,)).fetchone()[0]
            if last != after:
                raise JournalConflict(run_id, f"has events up to {last}, but its writer knows them up to {after}")
            try:
                database.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", entries)
            except IntegrityError as error:
                keys = ", ".join(event.key for event in events)
                raise JournalConflict(run_id, f"was told a fact that it has already, among {keys}") from error
            store_row(database, row, written_by=f"Storyloop {__version__}")
        if run_id in self._scales:
            self._scales[run_id].add(sum(len(coded.body) for coded in stored))
        return after + len(events)

    def read(self, run_id: str, *, after: int = 0) -> Iterator[tuple[int, Event]]:
        query = "SELECT seq, type, v, body FROM event WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?"
        while True:
            with self._reading() as database:
                batch = database.execute(query, (run_id, after, _BATCH)).fetchall()
            for seq, kind, v, body in batch:
                try:
                    event = self._codec.decode((kind, v, body))
                except NewerEvent as newer:
                    raise NewerEvent(newer.stored, written_by=self._writer_of(run_id)) from newer
                yield seq, event
            if len(batch) < _BATCH:
                return
            after = batch[-1][0]

    def rows(self, repository: str | None = None) -> list[RunRow]:
        with self._reading() as database:
            return select_rows(database, repository)

    def offer_snapshot(self, run_id: str, seq: int, state: RunState) -> None:
        if run_id not in self._scales:
            self._scales[run_id] = Scale(self._bytes_since_snapshot(run_id))
        body = self._scales[run_id].due(state)
        if body is not None:
            with self._writing("Every event is stored: only a snapshot, which is a cache, is not.") as database:
                database.execute("INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?)", (run_id, seq, program(), body))

    def load_snapshot(self, run_id: str) -> tuple[int, RunState] | None:
        query = "SELECT seq, program, body FROM snapshot WHERE run = ?"
        with self._reading() as database:
            kept: tuple[int, str, bytes] | None = database.execute(query, (run_id,)).fetchone()
        if kept is None or kept[1] != program():
            return None
        state = unpack(kept[2])
        return None if state is None else (kept[0], state)

    def post(self, run_id: str, request: Request) -> int:
        insert = "INSERT INTO inbox (run, what, story, text) VALUES (?, ?, ?, ?) RETURNING number"
        with self._writing("Nothing was asked of the run.") as database:
            return database.execute(insert, (run_id, request.what, request.story, request.text)).fetchone()[0]

    def inbox(self, run_id: str, *, after: int) -> list[Request]:
        query = "SELECT number, what, story, text FROM inbox WHERE run = ? AND number > ? ORDER BY number"
        with self._reading() as database:
            found = database.execute(query, (run_id, after)).fetchall()
        return [Request(number=number, what=what, story=story, text=text) for number, what, story, text in found]

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def _writer_of(self, run_id: str) -> str:
        with self._reading() as database:
            return database.execute("SELECT written_by FROM run WHERE run_id = ?", (run_id,)).fetchone()[0]

    def _bytes_since_snapshot(self, run_id: str) -> int:
        query = """SELECT ifnull(sum(length(body)), 0) FROM event
            WHERE run = ?1 AND seq > ifnull((SELECT seq FROM snapshot WHERE run = ?1 AND program = ?2), 0)"""
        with self._reading() as database:
            return database.execute(query, (run_id, program())).fetchone()[0]

    def _made(self) -> Connection | None:
        """The connection to the file, whoever made it; None as long as there is no file."""
        with failures_told(self._path):
            if self._connection is None and self._path.exists():
                self._connection = open_for_writing(self._path, patience=self._patience)
        return self._connection

    @contextmanager
    def _reading(self) -> Generator[Connection]:
        with self._lock, failures_told(self._path):
            made = self._made()
            if made is not None:
                yield made
                return
            with closing(open_empty()) as empty:
                yield empty

    @contextmanager
    def _writing(self, safe: str) -> Generator[Connection]:
        with self._lock, failures_told(self._path, safe):
            if self._connection is None:
                self._connection = open_for_writing(self._path, patience=self._patience)
            with transaction(self._connection):
                yield self._connection
