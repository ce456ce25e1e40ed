"""The database file: opening it, its schema, and its failures told as sentences.

The only place that opens SQLite. It imports the standard library alone, because `status` pays for it each time.
"""

import errno
import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from storyloop.core.errors import OperatorError, UserError

PATIENCE = 10.0  # seconds
_PAUSE = 0.02

# Each entry lifts a file by one version. One that was ever released is never changed.
_SCHEMA: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE event (
            run TEXT NOT NULL, seq INTEGER NOT NULL, key TEXT NOT NULL, type TEXT NOT NULL, v INTEGER NOT NULL,
            at TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (run, seq), UNIQUE (run, key)
        )""",
        """CREATE TABLE run (
            run_id TEXT PRIMARY KEY, repository TEXT NOT NULL, status TEXT NOT NULL, machine_state TEXT NOT NULL,
            project TEXT NOT NULL, branch TEXT NOT NULL, current_story TEXT, stories_passed INTEGER NOT NULL,
            stories_total INTEGER NOT NULL, iteration INTEGER NOT NULL, review_iteration INTEGER NOT NULL,
            started_at TEXT NOT NULL, finished_at TEXT, session_id TEXT, worktree TEXT NOT NULL, total_usage TEXT,
            cost_usd REAL, written_by TEXT NOT NULL
        )""",
        "CREATE TABLE snapshot (run TEXT PRIMARY KEY, seq INTEGER NOT NULL, program TEXT NOT NULL, body BLOB NOT NULL)",
        """CREATE TABLE inbox (
            number INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, what TEXT NOT NULL, story TEXT,
            text TEXT NOT NULL
        )""",
        "CREATE INDEX inbox_of_run ON inbox (run, number)",
    ),
    ("ALTER TABLE run ADD COLUMN waits_for TEXT NOT NULL DEFAULT ''",),
    ("ALTER TABLE run ADD COLUMN in_hand INTEGER NOT NULL DEFAULT 0",),
)
VERSION = len(_SCHEMA)

# What SQLite met, and the cure. A full disk is told as one or the other, by file system.
_ROOM = "Make room (or lift the quota), then go on with `storyloop resume`."
_PLACE = "Check the rights to it, or let STORYLOOP_HOME name a directory on a local disk that may be written."
_DAMAGE = "Restore it from a backup, or move it away to begin a new one: branches and `refs/storyloop` are in git."
_FAILURES = {
    sqlite3.SQLITE_FULL: ("has no room to grow: the disk is full", _ROOM),
    sqlite3.SQLITE_IOERR: ("could not be read or written", f"Look after the disk and its free space. {_PLACE}"),
    sqlite3.SQLITE_READONLY: ("may not be written", _PLACE),
    sqlite3.SQLITE_PERM: ("may not be read", _PLACE),
    sqlite3.SQLITE_CANTOPEN: ("could not be opened", _PLACE),
    sqlite3.SQLITE_PROTOCOL: ("could not be locked", _PLACE),
    sqlite3.SQLITE_BUSY: (
        "is locked: another process has been writing to it for too long",
        "Wait for it or find what holds the file, then try again.",
    ),
    sqlite3.SQLITE_CORRUPT: ("is damaged", _DAMAGE),
    sqlite3.SQLITE_NOTADB: ("is not a database of Storyloop, or is damaged", _DAMAGE),
}


@contextmanager
def failures_told(path: Path, safe: str = "Nothing was changed.") -> Generator[None]:
    """Raise what the machine did to the file as an `OperatorError`; a mistake of ours flies on as it is."""
    try:
        yield
    except OSError as error:
        problem = f"The directory of the database {path} cannot be used ({error.strerror})."
        raise OperatorError(problem, safe, _PLACE) from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # absent when Python itself complains
        if code not in _FAILURES:
            raise
        what, cure = _FAILURES[code]
        raise OperatorError(f"The database {path} {what} ({error}).", safe, cure) from error


def open_for_writing(path: Path, *, patience: float = PATIENCE) -> sqlite3.Connection:
    """A connection in autocommit mode to the file, which is made or lifted to this version where it has to be.

    `patience` is how long it waits while another process writes, each time.
    """
    with failures_told(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = _connected(path, patience)
        try:
            version_of(connection, path)
            _write_ahead(connection, patience)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA journal_size_limit = 4194304")  # a large snapshot leaves no large log behind
            _lift(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def open_empty() -> sqlite3.Connection:
    """A database in memory that holds nothing: what reading meets as long as there is no file."""
    connection = _connected(Path(":memory:"), PATIENCE)
    _lift(connection, Path(":memory:"))
    return connection


def require_place(path: Path) -> None:
    """Raise `OperatorError` if a file that is not there could not be made there, either."""
    with failures_told(path):
        nearest = next(place for place in path.absolute().parents if os.path.lexists(place))
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{nearest} is not a directory")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{nearest} may not be written")


def open_for_reading(path: Path) -> sqlite3.Connection | None:
    """A connection that changes nothing; None while there is no database.

    Not SQLite's own read-only mode: that one cannot read what a killed process left in the write-ahead log.
    """
    with failures_told(path):
        if not path.exists():
            return None
        connection = _connected(path, PATIENCE)
        try:
            connection.execute("PRAGMA query_only = ON")
            if version_of(connection, path):
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()  # another process is about to make it
        return None


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the file's schema, 0 before it has one. A `UserError` if a newer Storyloop made it."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > VERSION:
        raise UserError(
            f"The database {path} was made by a newer Storyloop: it has version {found}, this one knows {VERSION}.",
            "Upgrade this Storyloop, or give it a state directory of its own with STORYLOOP_HOME.",
        )
    return found


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """All or nothing; the right to write is had from the beginning, so that what is read first stays true."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite may have rolled back by itself, on a full disk for one
            connection.execute("ROLLBACK")
        raise


def _connected(path: Path, patience: float) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)


def _write_ahead(connection: sqlite3.Connection, patience: float) -> None:
    """Switch to the write-ahead log. SQLite does not wait for others there, so we do."""
    for tries_left in range(int(patience / _PAUSE), -1, -1):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or not tries_left:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _lift(connection: sqlite3.Connection, path: Path) -> None:
    if version_of(connection, path) == VERSION:
        return
    with transaction(connection):
        for statements in _SCHEMA[version_of(connection, path) :]:  # asked again: another process may have been first
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
