"""The journal on disk: durable whatever dies, and every failure of the machine told with what is safe and the cure."""

import hashlib
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storyloop import __version__
from storyloop.core.errors import OperatorError, StoryloopError, UserError
from storyloop.core.events import Event, RequestRefused
from storyloop.core.run_row import RunRow
from storyloop.journal.codec import DamagedEvent, NewerEvent
from storyloop.journal.database import open_for_writing
from storyloop.journal.rows import list_rows
from storyloop.journal.sqlite import SqliteJournal
from storyloop.ports.journal import JournalConflict, Request

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ROW = RunRow(
    run_id="run-a",
    repository="/repo/.git",
    status="running",
    machine_state="running-agent",
    project="shop",
    branch="feature/shop",
    current_story="US-001",
    stories_passed=0,
    stories_total=1,
    iteration=1,
    review_iteration=0,
    started_at=AT,
    finished_at=None,
    session_id="12ab34cd",
    worktree="/repo-wt",
    total_usage={"input_tokens": 5, "model": None},
    cost_usd=None,
)


def fact(number: int, *, size: int = 700) -> Event:
    return RequestRefused(key=f"request/{number}", at=AT, number=number, reason="n" * size)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "storyloop.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(path, patience=0.2)
    yield journal
    journal.close()


def damage(path: Path, statement: str) -> None:
    """What no Storyloop does to its database."""
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()


# --- dying and competing ------------------------------------------------------------------------------

# Appends for ever, and says the number of each event once it is stored.
APPEND = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from storyloop.journal.sqlite import SqliteJournal
from test_journal_sqlite import ROW, fact
journal = SqliteJournal(Path(sys.argv[1]))
last = max((number for number, _ in journal.read("run-a")), default=0)
while True:
    last = journal.append("run-a", [fact(last + 1)], after=last, row=ROW._replace(iteration=last + 1))
    print(last, flush=True)
"""


@pytest.mark.processes
def test_a_killed_writer_loses_nothing_that_it_was_told_is_stored(path: Path) -> None:
    """Killed at any moment, twice: no gap, nothing half, and the row is that of the last event."""
    told = 0
    for stored_before_the_kill in (20, 35):
        command = [sys.executable, "-c", APPEND, str(path), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(stored_before_the_kill):
                told = int(writer.stdout.readline())
            writer.kill()
            told = int((writer.stdout.read().split("\n")[:-1] or [told])[-1])
        seen = list_rows(path)  # before anybody has opened it for writing
        journal = SqliteJournal(path)
        numbers = [number for number, event in journal.read("run-a") if event == fact(number)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) in (told, told + 1)  # the last one may be stored and not yet told
        assert seen == journal.rows() == [ROW._replace(iteration=len(numbers))]
        journal.close()


def test_of_two_writers_of_one_run_the_slower_one_is_told(path: Path) -> None:
    """Each number is given once: whoever comes second stores nothing and reads anew."""

    def write(name: str) -> None:
        journal = SqliteJournal(path)
        written = 0
        while written < 25:
            last = max((number for number, _ in journal.read("run-a")), default=0)
            event = RequestRefused(key=f"{name}/{written}", at=AT, number=1, reason="")
            try:
                journal.append("run-a", [event], after=last, row=ROW)
                written += 1
            except JournalConflict:
                continue
        journal.close()

    writers = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    journal = SqliteJournal(path)
    events = list(journal.read("run-a"))
    journal.close()
    assert [number for number, _ in events] == list(range(1, 76))
    assert [e.key for _, e in events if e.key.startswith("b")] == [f"b/{n}" for n in range(25)]


def test_many_processes_may_make_the_database_at_once(tmp_path: Path) -> None:
    """Whoever is first makes it; nobody fails."""
    failed: list[Exception] = []

    def open_it(path: Path, start: threading.Barrier) -> None:
        start.wait()
        try:
            journal = SqliteJournal(path)
            journal.post("run-a", Request(number=0, what="stop"))
            journal.close()
        except (sqlite3.Error, StoryloopError) as error:
            failed.append(error)

    for attempt in range(5):
        start = threading.Barrier(6)
        path = tmp_path / str(attempt) / "storyloop.db"
        threads = [threading.Thread(target=open_it, args=(path, start)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        journal = SqliteJournal(path)
        assert [request.number for request in journal.inbox("run-a", after=0)] == [1, 2, 3, 4, 5, 6]
        journal.close()
    assert failed == []


def test_opening_waits_for_the_process_that_is_making_the_database(path: Path) -> None:
    """As long as its patience lasts, also where SQLite itself has none."""
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperatorError, match="is locked"):
        SqliteJournal(path, patience=0.1)
    ending = threading.Timer(0.2, other.execute, ("ROLLBACK",))
    ending.start()
    SqliteJournal(path, patience=10).close()
    ending.join()
    other.close()


def test_an_append_is_on_the_disk_when_it_returns_and_keeps_no_reader_waiting(path: Path) -> None:
    """What only a power cut would show, so SQLite's own word is taken for it: synced at each commit, written ahead."""
    with closing(open_for_writing(path)) as database:
        assert database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_long_run_is_read_in_constant_memory(journal: SqliteJournal) -> None:
    """Five megabytes of events pass by; never more than a part of them is held."""
    for start in range(0, 2_500, 500):
        journal.append("run-a", [fact(n, size=2_000) for n in range(start, start + 500)], after=start, row=ROW)
    tracemalloc.start()
    count = sum(1 for _ in journal.read("run-a"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2_500
    assert peak < 1_500_000


# --- what the machine does ----------------------------------------------------------------------------


def test_a_full_disk_stores_nothing_half_and_says_what_is_safe(path: Path) -> None:
    """Then room is made, and the same append goes through."""
    journal = SqliteJournal(path)
    for seq in range(3):
        journal.append("run-a", [fact(seq)], after=seq, row=ROW)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(OperatorError) as caught:
            journal.append("run-a", [fact(n, size=50_000) for n in range(3, 9)], after=3, row=ROW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.safe == "Everything up to event 3 of run run-a is stored, and nothing half."
    assert "storyloop.db could not be read or written" in caught.value.problem
    assert "free space" in caught.value.cure
    assert [number for number, _ in journal.read("run-a")] == [1, 2, 3]
    assert journal.append("run-a", [fact(3)], after=3, row=ROW) == 4
    journal.close()


FILL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from storyloop.journal.sqlite import SqliteJournal
from test_journal_sqlite import ROW, fact
journal, last = SqliteJournal(Path(sys.argv[1], "storyloop.db")), 0
try:
    while True:
        last = journal.append("run-a", [fact(last + 1, size=9000)], after=last, row=ROW)
except Exception as error:
    print(type(error).__name__, error)
print(last, [number for number, _ in journal.read("run-a")] == list(range(1, last + 1)))
"""
MOUNT = 'mount -t tmpfs -o size=800k storyloop "$0" && exec "$@"'


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.processes
@pytest.mark.skipif(not can_mount(), reason="no user namespaces to mount a small disk in")
def test_a_disk_that_is_really_full_is_told_as_such(tmp_path: Path) -> None:
    """A file system of 800 kB: every event that was told as stored is there afterwards."""
    command = [sys.executable, "-c", FILL, str(tmp_path), str(Path(__file__).parent)]
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", MOUNT, str(tmp_path), *command], check=True, capture_output=True, text=True
    )
    problem, outcome = ended.stdout.splitlines()
    last = int(outcome.split()[0])
    assert last > 10
    assert problem.startswith("OperatorError The database ")
    assert "has no room to grow: the disk is full" in problem
    assert f"Everything up to event {last} of run run-a is stored, and nothing half. Make room" in problem
    assert outcome.endswith("True")


def test_a_database_that_stays_locked_is_told_after_a_bounded_time(journal: SqliteJournal, path: Path) -> None:
    """Reading goes on meanwhile, and writing afterwards."""
    journal.append("run-a", [fact(1)], after=0, row=ROW)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperatorError, match=r"is locked: .* up to event 1 of run run-a is stored.* Wait for it"):
        journal.append("run-a", [fact(2)], after=1, row=ROW)
    with pytest.raises(OperatorError, match=r"is locked: .* Nothing was asked of the run"):
        journal.post("run-a", Request(number=0, what="stop"))
    assert list(journal.read("run-a")) == [(1, fact(1))]
    assert list_rows(path) == [ROW]
    other.execute("ROLLBACK")
    other.close()
    assert journal.append("run-a", [fact(2)], after=1, row=ROW) == 2


def test_a_newer_storyloops_database_is_left_alone(path: Path) -> None:
    """Neither lifted down nor read by guess: the sentence names both versions and the way out."""
    open_for_writing(path).close()
    damage(path, "PRAGMA user_version = 99")
    damage(path, "PRAGMA journal_mode = DELETE")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for ask in (SqliteJournal, list_rows):
        with pytest.raises(UserError, match=r"made by a newer Storyloop: it has version 99.* STORYLOOP_HOME"):
            ask(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"this is no database, but a text that somebody keeps here " * 20, "is not a database of Storyloop"),
        (None, "is damaged"),
    ],
    ids=["another file", "overwritten pages"],
)
def test_a_damaged_database_is_told_with_where_the_work_is(path: Path, content: bytes | None, told: str) -> None:
    """Found on opening or on reading."""
    journal = SqliteJournal(path)
    journal.append("run-a", [fact(n) for n in range(50)], after=0, row=ROW)
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(content or whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(OperatorError) as caught:
        list_rows(path)
    assert told in caught.value.problem
    assert "branches and `refs/storyloop` are in git" in caught.value.cure


def test_reading_makes_nothing_and_the_first_write_makes_the_file(tmp_path: Path) -> None:
    """Whoever only looks leaves no trace, and sees what another one makes meanwhile."""
    path = tmp_path / "state" / "storyloop.db"
    reader, writer = SqliteJournal(path), SqliteJournal(path)
    assert (reader.rows(), list(reader.read("run-a")), reader.inbox("run-a", after=0)) == ([], [], [])
    assert os.listdir(tmp_path) == []
    writer.append("run-a", [fact(1)], after=0, row=ROW)
    assert reader.rows() == [ROW]
    reader.close()
    writer.close()


def test_a_state_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file stands where the directory should be."""
    (tmp_path / "state").write_text("")
    with pytest.raises(OperatorError, match=r"cannot be used \(.*\)\. Nothing was changed\. Check the rights"):
        SqliteJournal(tmp_path / "state" / "storyloop.db")


def test_a_state_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Something that is no file stands where the database should be."""
    (tmp_path / "storyloop.db").mkdir()
    with pytest.raises(OperatorError, match=r"could not be opened .* STORYLOOP_HOME"):
        SqliteJournal(tmp_path / "storyloop.db")


# --- other versions of Storyloop ----------------------------------------------------------------------


def test_an_unknown_event_names_the_storyloop_that_wrote_it(journal: SqliteJournal, path: Path) -> None:
    """The events before it are read."""
    journal.append("run-a", [fact(1), fact(2)], after=0, row=ROW)
    damage(path, "UPDATE event SET type = 'story_merged', v = 2 WHERE seq = 2")
    damage(path, "UPDATE run SET written_by = 'Storyloop 7.1.0'")
    reader = journal.read("run-a")
    assert next(reader) == (1, fact(1))
    with pytest.raises(
        NewerEvent, match=rf"`story_merged` of version 2, written by Storyloop 7\.1\.0; .*{__version__}"
    ):
        next(reader)


def test_a_damaged_event_is_told_not_skipped(journal: SqliteJournal, path: Path) -> None:
    """A run without one of its facts would be another run."""
    journal.append("run-a", [fact(1), fact(2)], after=0, row=ROW)
    damage(path, "UPDATE event SET body = x'7b22' WHERE seq = 1")
    with pytest.raises(DamagedEvent):
        list(journal.read("run-a"))


# --- status -------------------------------------------------------------------------------------------


def test_status_lists_runs_without_what_folds_them(path: Path) -> None:
    """It has 80 ms of processor time in all: msgspec, the core's machines and the codec stay out of it."""
    open_for_writing(path).close()
    listed = f"""
import sys
from pathlib import Path
from storyloop.journal.rows import list_rows
assert list_rows(Path({str(path)!r})) == []
print(*sorted(name for name in sys.modules if name.startswith(("msgspec", "storyloop"))))
"""
    ended = subprocess.run([sys.executable, "-c", listed], check=True, capture_output=True, text=True)
    assert ended.stdout.split() == [
        "storyloop",
        "storyloop.core",
        "storyloop.core.errors",
        "storyloop.core.run_row",
        "storyloop.journal",
        "storyloop.journal.database",
        "storyloop.journal.rows",
    ]


def test_status_where_no_run_was_ever_opened_makes_nothing(tmp_path: Path) -> None:
    """No database, no directory; an empty file that another process is about to fill is none either."""
    assert list_rows(tmp_path / "state" / "storyloop.db") == []
    assert os.listdir(tmp_path) == []
    (tmp_path / "storyloop.db").touch()
    assert list_rows(tmp_path / "storyloop.db") == []
    assert (tmp_path / "storyloop.db").read_bytes() == b""
