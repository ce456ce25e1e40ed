"""Snapshots are a cache: they save time, cost a bounded part of what a run writes, and never change what is loaded."""

import runpy
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyloop.core.events import Event, RequestRefused
from storyloop.core.reduce import reduce
from storyloop.core.run_state import RunState
from storyloop.journal.load import load_state
from storyloop.journal.snapshots import pack, program, snapshot_due, unpack
from storyloop.journal.sqlite import SqliteJournal
from storyloop.views.rows import row_of

# The benchmarks are no part of the installed program, so they are not on the path of its tests.
synthetic_events: Callable[[int], Iterator[Event]] = runpy.run_path(
    str(Path(__file__).parents[1] / "benchmarks" / "synthetic.py")
)["synthetic_events"]


@pytest.mark.parametrize(
    ("bytes_since", "state_bytes", "due"),
    [
        (0, 0, False),
        (999_999, 0, False),  # less than a megabyte is folded at once
        (1_000_000, 0, True),
        (1_000_000, 400_000, True),  # two and a half times the state
        (1_000_000, 400_001, False),
        (9_999_999, 4_000_000, False),
        (10_000_000, 4_000_000, True),
    ],
)
def test_a_snapshot_is_due_when_the_events_since_have_two_and_a_half_times_its_bytes(
    bytes_since: int, state_bytes: int, due: bool
) -> None:
    """And a megabyte at least."""
    assert snapshot_due(bytes_since, state_bytes) is due


@given(steps=st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(0, 3_000_000)), max_size=60))
def test_all_snapshots_together_have_at_most_two_fifths_of_the_bytes_of_the_events(
    steps: list[tuple[int, int]],
) -> None:
    """However the run's state grows or shrinks beside its events."""
    events = since = snapshots = 0
    for event_bytes, state_bytes in steps:
        events, since = events + event_bytes, since + event_bytes
        if snapshot_due(since, state_bytes):
            snapshots, since = snapshots + state_bytes, 0
    assert snapshots * 2.5 <= events


def test_every_state_of_a_run_comes_back_from_its_snapshot() -> None:
    """Before, in and after each stage of a story's life."""
    state: RunState | None = None
    for event in synthetic_events(2):
        state = reduce(state, event)
        assert unpack(pack(state)) == state


def test_a_snapshot_that_is_cut_or_changed_anywhere_is_none() -> None:
    """Its checksum notices what would still be valid JSON."""
    state: RunState | None = None
    for event in synthetic_events(1):
        state = reduce(state, event)
    assert state is not None
    body = pack(state)
    for place in range(0, len(body), 50):
        assert unpack(body[:place]) is None
        assert unpack(body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]) is None


# --- on disk ------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[Path, RunState, int]]:
    """A run on disk with a snapshot and an event behind it, its state and its last event's number."""
    journal = SqliteJournal(tmp_path / "storyloop.db")
    state: RunState | None = None
    seq = 0
    for event in synthetic_events(2):
        state = reduce(state, event)
        seq = journal.append("4f1c09aa", [event], after=seq, row=row_of(state))
        if seq == 40:  # in the middle of a story
            state, seq = _talked_much(journal, state, seq)
            journal.offer_snapshot("4f1c09aa", seq, state)
    assert state is not None
    yield tmp_path / "storyloop.db", state, seq
    journal.close()


def _talked_much(journal: SqliteJournal, state: RunState, seq: int) -> tuple[RunState, int]:
    """A megabyte of events that leaves the state small."""
    talk = RequestRefused(key="talk", at=datetime(2026, 1, 1, tzinfo=UTC), number=1, reason="n" * 1_000_000)
    state = reduce(state, talk)
    return state, journal.append("4f1c09aa", [talk], after=seq, row=row_of(state))


def test_a_run_is_loaded_from_its_snapshot(kept: tuple[Path, RunState, int]) -> None:
    """Event 41 is in it; the ones behind it are folded on."""
    path, state, seq = kept
    journal = SqliteJournal(path)
    snapshot = journal.load_snapshot("4f1c09aa")
    assert snapshot is not None
    assert snapshot[0] == 41
    _change(path, "DELETE FROM event WHERE seq < 41")  # so that nothing else can have been read
    assert load_state(journal, "4f1c09aa") == (state, seq)
    journal.close()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM snapshot",
        "UPDATE snapshot SET body = x''",
        "UPDATE snapshot SET body = x'00000001'",
        "UPDATE snapshot SET program = 'another version of the core'",
    ],
    ids=["lost", "emptied", "a checksum and nothing behind it", "of another program"],
)
def test_without_a_usable_snapshot_the_state_is_the_same(kept: tuple[Path, RunState, int], change: str) -> None:
    """It is folded from the first event."""
    path, state, seq = kept
    _change(path, change)
    journal = SqliteJournal(path)
    assert journal.load_snapshot("4f1c09aa") is None
    assert load_state(journal, "4f1c09aa") == (state, seq)
    journal.close()


def test_a_changed_rule_of_the_core_is_another_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A state that another reducer made is passed over, even if its fields are the same."""
    ours = program()
    for source in Path(reduce.__code__.co_filename).parent.glob("*.py"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr("storyloop.core.__path__", [str(tmp_path)])
    program.cache_clear()
    assert program() == ours
    with (tmp_path / "reduce.py").open("a") as file:
        file.write("# another rule\n")
    program.cache_clear()
    assert program() != ours
    monkeypatch.undo()
    program.cache_clear()


def _change(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()
