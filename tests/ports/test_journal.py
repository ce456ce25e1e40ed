"""The Journal's contract: what is appended is there, whole, in order and once, whichever journal keeps it."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from msgspec.structs import replace

from storyloop.core.errors import ProgrammerError, UserError
from storyloop.core.events import Event, RequestRefused, RunOpened, StorySkipped, WaitEnded, WorktreeOpened
from storyloop.core.policy import Policy
from storyloop.core.reduce import reduce
from storyloop.core.run_row import RunRow
from storyloop.core.run_state import RunState
from storyloop.core.spec import Criterion, Spec, Story
from storyloop.journal.load import load_state
from storyloop.journal.memory import MemoryJournal
from storyloop.journal.sqlite import SqliteJournal
from storyloop.ports.journal import Journal, JournalConflict, Request

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
OPENED = RunOpened(
    key="opened",
    at=AT,
    run_id="run-a",
    spec=Spec(
        project="shop",
        branch_name="feature/shop",
        title="A shop",
        user_stories=(
            Story(id="US-001", title="Buy", priority=1, acceptance_criteria=(Criterion("It sells", "make test"),)),
        ),
    ),
    spec_json_path="/state/runs/run-a/spec.json",
    spec_md_path=None,
    policy=Policy(),
    repository="/repo/.git",
    checkout="/repo",
    branch="feature/shop",
    base="c0ffee",
    base_tree="7ee",
    reuse_branch=False,
    worktree="/repo-wt",
    session_id="12ab34cd",
)
ROW = RunRow(
    run_id="run-a",
    repository="/repo/.git",
    status="running",
    machine_state="initializing",
    project="shop",
    branch="feature/shop",
    current_story=None,
    stories_passed=0,
    stories_total=1,
    iteration=0,
    review_iteration=0,
    started_at=AT,
    finished_at=None,
    session_id="12ab34cd",
    worktree="/repo-wt",
    total_usage=None,
    cost_usd=None,
)


class Shelf:
    """A journal that can be left and taken up again, as after a crash of the process."""

    def __init__(self, make: Callable[[], Journal]) -> None:
        self._make = make
        self.journal = make()

    def after_a_crash(self) -> Journal:
        self.journal.close()
        self.journal = self._make()
        return self.journal


@pytest.fixture(params=["memory", "sqlite"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    memory = MemoryJournal()
    shelf = Shelf(lambda: memory if request.param == "memory" else SqliteJournal(tmp_path / "storyloop.db"))
    yield shelf
    shelf.journal.close()


@pytest.fixture
def journal(shelf: Shelf) -> Journal:
    return shelf.journal


def waited(number: int, story: str = "US-001") -> Event:
    return WaitEnded(key=f"wait/{number}", at=AT + timedelta(seconds=number), story=story, seconds=float(number))


def refused(number: int, *, size: int = 20) -> Event:
    """A fact that a run in any state can take, of any size."""
    return RequestRefused(key=f"request/{number}", at=AT, number=number, reason="n" * size)


# --- events -------------------------------------------------------------------------------------------


def test_what_was_appended_is_read_back_equal_in_order_and_numbered_from_one(journal: Journal) -> None:
    """Two appends, three events: 1, 2 and 3."""
    assert journal.append("run-a", [OPENED], after=0, row=ROW) == 1
    assert journal.append("run-a", [waited(1), waited(2)], after=1, row=ROW) == 3
    assert list(journal.read("run-a")) == [(1, OPENED), (2, waited(1)), (3, waited(2))]


@pytest.mark.parametrize(
    ("after", "numbers"), [(0, [1, 2, 3]), (1, [2, 3]), (3, []), (99, [])], ids=["all", "some", "none", "none yet"]
)
def test_reading_begins_behind_the_number_that_is_known(journal: Journal, after: int, numbers: list[int]) -> None:
    """A watcher that saw `after` events gets the rest."""
    journal.append("run-a", [waited(1), waited(2), waited(3)], after=0, row=ROW)
    assert [number for number, _ in journal.read("run-a", after=after)] == numbers


def test_a_long_run_is_read_whole_and_each_event_once(journal: Journal) -> None:
    """However the journal cuts its reading."""
    journal.append("run-a", [waited(n) for n in range(1, 601)], after=0, row=ROW)
    assert [event for _, event in journal.read("run-a")] == [waited(n) for n in range(1, 601)]


def test_a_reader_sees_what_is_appended_while_it_reads(journal: Journal) -> None:
    """A reader that has not reached the end goes on to the new one."""
    journal.append("run-a", [waited(n) for n in range(1, 401)], after=0, row=ROW)
    reader = journal.read("run-a")
    assert next(reader) == (1, waited(1))
    journal.append("run-a", [waited(401)], after=400, row=ROW)
    assert list(reader)[-1] == (401, waited(401))


def test_runs_do_not_see_each_other(journal: Journal) -> None:
    """The same key may stand in two runs, each numbered from 1."""
    journal.append("run-a", [waited(1)], after=0, row=ROW)
    journal.append("run-b", [waited(1, "US-009")], after=0, row=ROW._replace(run_id="run-b"))
    assert list(journal.read("run-b")) == [(1, waited(1, "US-009"))]
    assert list(journal.read("run-c")) == []


def test_a_crash_loses_nothing_that_was_appended(shelf: Shelf) -> None:
    """Events, row and requests are there for the next process."""
    shelf.journal.append("run-a", [OPENED, waited(1)], after=0, row=ROW)
    shelf.journal.post("run-a", Request(number=0, what="stop"))
    again = shelf.after_a_crash()
    assert list(again.read("run-a")) == [(1, OPENED), (2, waited(1))]
    assert again.rows() == [ROW]
    assert again.inbox("run-a", after=0) == [Request(number=1, what="stop")]


# --- all or nothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (0, [waited(9)]),  # knows of no event
        (1, [waited(9)]),  # knows one of two
        (7, [waited(9)]),  # knows more than there are
        (2, [waited(9), waited(1)]),  # the second one was told before
        (2, [waited(9), waited(9)]),  # tells one twice
    ],
    ids=["knows none", "knows too few", "knows too many", "told before", "told twice"],
)
def test_a_conflict_stores_nothing(journal: Journal, after: int, told: list[Event]) -> None:
    """Neither events nor row; the journal goes on as if nobody had asked."""
    journal.append("run-a", [OPENED, waited(1)], after=0, row=ROW)
    with pytest.raises(JournalConflict, match=r"Run run-a .* Nothing was stored"):
        journal.append("run-a", told, after=after, row=ROW._replace(status="parked"))
    assert list(journal.read("run-a")) == [(1, OPENED), (2, waited(1))]
    assert journal.rows() == [ROW]
    assert journal.append("run-a", [waited(9)], after=2, row=ROW) == 3


@pytest.mark.parametrize(
    ("event", "named"),
    [
        (WaitEnded(key="wait/2", at=AT, story="US-001", seconds=float("nan")), "seconds"),
        (WaitEnded(key="wait/2", at=AT, story="US-001", seconds=float("inf")), "seconds"),
        (WaitEnded(key="wait/2", at=AT, story="caf\udce9", seconds=1.0), "surrogates"),
        (StorySkipped(key="wait/2", at=AT, story="US-001", number="7"), "number"),  # type: ignore[arg-type]
        (replace(OPENED, key="wait/2", worktree=["/repo-wt"]), "worktree"),
        (WorktreeOpened(key="wait/2", at=AT, tip="c0ffee", tip_tree="7ee", warnings=["late"]), "warnings"),  # type: ignore[arg-type]
    ],
    ids=["not a number", "infinite", "lone surrogate", "wrong type", "wrong type of a path", "list for a tuple"],
)
def test_an_event_that_would_not_come_back_as_it_is_is_refused(journal: Journal, event: Event, named: str) -> None:
    """Better no event than one that makes the run unreadable; those beside it are not stored either."""
    with pytest.raises(ProgrammerError, match=f"wait/2.*{named}"):
        journal.append("run-a", [waited(1), event], after=0, row=ROW)
    assert list(journal.read("run-a")) == []


@pytest.mark.parametrize(
    "text", ["", "\x00", "tab\tline\nreturn\r", "\u2028\u2029", "é😀", "\\udc80", '"quoted"\\', "\ufeff"]
)
def test_odd_texts_come_back_exactly(journal: Journal, text: str) -> None:
    """What an agent or a test runner printed is kept as it was."""
    event = RequestRefused(key=f"key {text}", at=AT, number=1, reason=text)
    journal.append("run-a", [event], after=0, row=ROW)
    assert list(journal.read("run-a")) == [(1, event)]


def test_writers_of_different_runs_do_not_hinder_each_other(journal: Journal) -> None:
    """Four threads with a run each: every run has its own fifty events, in order."""

    def write(run_id: str) -> None:
        for n in range(50):
            journal.append(run_id, [waited(n)], after=n, row=ROW._replace(run_id=run_id))

    threads = [threading.Thread(target=write, args=(f"run-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(4):
        assert [event for _, event in journal.read(f"run-{n}")] == [waited(k) for k in range(50)]


# --- rows ---------------------------------------------------------------------------------------------


def test_a_run_has_the_row_of_its_last_append(journal: Journal) -> None:
    """With every field as it was given."""
    last = RunRow(
        run_id="run-a",
        repository="/repo/.git",
        status="completed",
        machine_state="completed",
        project="caf\u00e9",
        branch="feature/shop",
        current_story="US-001",
        stories_passed=1,
        stories_total=2,
        iteration=3,
        review_iteration=4,
        started_at=AT,
        finished_at=AT + timedelta(seconds=1, microseconds=5),
        session_id=None,
        worktree="/repo-wt",
        total_usage={"input_tokens": 5, "model": None},
        cost_usd=0.25,
    )
    journal.append("run-a", [OPENED], after=0, row=ROW)
    journal.append("run-a", [waited(1)], after=1, row=last)
    assert journal.rows() == [last]


def test_rows_stand_newest_first_whatever_their_times_are_written_like(journal: Journal) -> None:
    """Whole seconds, microseconds and another zone are one order of moments."""
    moments = {
        "half past": AT + timedelta(milliseconds=500),
        "full": AT,
        "elsewhere": (AT + timedelta(seconds=2)).astimezone(timezone(timedelta(hours=-9))),
        "last": AT + timedelta(days=1),
    }
    for name, moment in moments.items():
        journal.append(name, [waited(1)], after=0, row=ROW._replace(run_id=name, started_at=moment))
    assert [row.run_id for row in journal.rows()] == ["last", "elsewhere", "half past", "full"]
    assert [row.started_at for row in journal.rows()][1] == AT + timedelta(seconds=2)


def test_a_repository_has_its_own_rows(journal: Journal) -> None:
    """Told apart by identity, not by a name or a prefix of it."""
    for run_id, repository in {"run-a": "/repo/.git", "run-b": "/repo", "run-c": "/repo/.git"}.items():
        journal.append(run_id, [waited(1)], after=0, row=ROW._replace(run_id=run_id, repository=repository))
    assert [row.run_id for row in journal.rows("/repo/.git")] == ["run-a", "run-c"]
    assert journal.rows("/other/.git") == []
    assert len(journal.rows()) == 3


# --- inbox --------------------------------------------------------------------------------------------


def test_requests_come_back_with_rising_numbers_to_their_own_run(journal: Journal) -> None:
    """The number is the inbox's, whatever the request says; the reader says what it has seen."""
    first = journal.post("run-a", Request(number=77, what="skip", story="US-001"))
    other = journal.post("run-b", Request(number=77, what="stop"))
    second = journal.post("run-a", Request(number=77, what="retry", story="US-001", text="mind the tests"))
    assert first < other < second
    skip = Request(number=first, what="skip", story="US-001")
    retry = Request(number=second, what="retry", story="US-001", text="mind the tests")
    assert journal.inbox("run-a", after=0) == [skip, retry]
    assert journal.inbox("run-a", after=first) == [retry]
    assert journal.inbox("run-a", after=second) == []


def test_a_newer_storyloops_request_reaches_the_writer_that_must_refuse_it(journal: Journal) -> None:
    """An unknown word is no reason to fail in reading the inbox."""
    number = journal.post("run-a", Request(number=0, what="dance"))
    assert journal.inbox("run-a", after=0) == [Request(number=number, what="dance")]


# --- state and snapshots ------------------------------------------------------------------------------


def written(journal: Journal, events: Iterator[Event]) -> tuple[RunState, list[int]]:
    """Append one by one as the engine does; the state, and after which events a new snapshot was there."""
    state: RunState | None = None
    kept: list[int] = []
    seq = 0
    for event in events:
        state = reduce(state, event)
        seq = journal.append("run-a", [event], after=seq, row=ROW)
        journal.offer_snapshot("run-a", seq, state)
        snapshot = journal.load_snapshot("run-a")
        if snapshot is not None and snapshot[0] == seq:
            assert snapshot[1] == state
            kept.append(seq)
    assert state is not None
    return state, kept


def talkative_run(events: int, size: int) -> Iterator[Event]:
    yield OPENED
    for number in range(1, events):
        yield refused(number, size=size)


def test_a_short_run_writes_no_snapshot(journal: Journal) -> None:
    """Its events are folded faster than anybody notices."""
    assert written(journal, talkative_run(100, 5_000))[1] == []


def test_a_snapshot_is_kept_each_time_the_events_since_have_grown_enough(journal: Journal) -> None:
    """Half a megabyte an event and a state of next to nothing: at a megabyte, and at each one after that."""
    assert written(journal, talkative_run(9, 520_000))[1] == [3, 5, 7, 9]


def test_a_state_is_the_same_with_and_without_a_snapshot(shelf: Shelf) -> None:
    """Loaded by the next process: the snapshot, and the fold of what came after it."""
    state, kept = written(shelf.journal, talkative_run(6, 520_000))
    assert kept == [3, 5]
    assert load_state(shelf.after_a_crash(), "run-a") == (state, 6)


def test_what_was_written_before_a_crash_counts_for_the_next_snapshot(shelf: Shelf) -> None:
    """Processes that each die early do not put it off for ever."""
    journal: Journal = shelf.journal
    kept: list[int] = []
    state = reduce(None, OPENED)
    journal.append("run-a", [OPENED], after=0, row=ROW)
    for seq in range(2, 7):
        journal = shelf.after_a_crash()
        event = refused(seq, size=260_000)
        state = reduce(state, event)
        journal.append("run-a", [event], after=seq - 1, row=ROW)
        journal.offer_snapshot("run-a", seq, state)
        kept += [seq] * (journal.load_snapshot("run-a") is not None)
    assert kept == [5, 6]


def test_a_run_that_is_not_there_is_told_in_a_sentence(journal: Journal) -> None:
    """And not as an empty state."""
    with pytest.raises(UserError, match=r"There is no run run-z\. `storyloop status --all` lists them\."):
        load_state(journal, "run-z")
