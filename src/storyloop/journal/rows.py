"""Rows: the runs as `status` lists them, read without folding an event or importing what folds them."""

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storyloop.core.run_row import RunRow
from storyloop.journal.database import failures_told, open_for_reading

_COLUMNS = ", ".join(RunRow._fields)
_STORE = f"INSERT OR REPLACE INTO run ({_COLUMNS}, written_by) VALUES ({', '.join('?' * (len(RunRow._fields) + 1))})"
_LIST = f"SELECT {_COLUMNS} FROM run {{where}} ORDER BY started_at DESC, run_id"


def list_rows(database: Path, repository: str | None = None) -> list[RunRow]:
    """Every run (of one repository), newest first; none where no run was ever opened."""
    connection = open_for_reading(database)
    if connection is None:
        return []
    try:
        with failures_told(database):
            return select_rows(connection, repository)
    finally:
        connection.close()


def select_rows(connection: sqlite3.Connection, repository: str | None) -> list[RunRow]:
    """The same over a connection that is open already."""
    if repository is None:
        found = connection.execute(_LIST.format(where=""))
    else:
        found = connection.execute(_LIST.format(where="WHERE repository = ?"), (repository,))
    return [_read(columns) for columns in found]


def store_row(connection: sqlite3.Connection, row: RunRow, *, written_by: str) -> None:
    """Put the run's row in the place of its older one; `written_by` is this program's version."""
    stored = row._asdict() | {
        "started_at": _text(row.started_at),
        "finished_at": row.finished_at and _text(row.finished_at),
        "total_usage": None if row.total_usage is None else json.dumps(row.total_usage),
    }
    connection.execute(_STORE, (*stored.values(), written_by))


def _read(columns: tuple[Any, ...]) -> RunRow:
    *plain, started_at, finished_at, session_id, worktree, total_usage, cost_usd, waits_for, in_hand = columns
    return RunRow(
        *plain,
        started_at=datetime.fromisoformat(started_at),
        finished_at=finished_at and datetime.fromisoformat(finished_at),
        session_id=session_id,
        worktree=worktree,
        total_usage=total_usage and json.loads(total_usage),
        cost_usd=cost_usd,
        waits_for=waits_for,
        in_hand=in_hand,
    )


def _text(moment: datetime) -> str:
    """In one zone, so that texts stand in the order of their moments."""
    return moment.astimezone(UTC).isoformat()
