"""Loading: a run's state as its journal folds, from the newest snapshot on where there is one."""

import gc
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from storyloop.core.errors import UserError
from storyloop.core.events import Event
from storyloop.core.reduce import fold
from storyloop.core.run_state import RunState
from storyloop.ports.journal import Journal


def load_state(journal: Journal, run_id: str) -> tuple[RunState, int]:
    """The state, and the number of the last event in it. A `UserError` when there is no such run."""
    seq = 0

    def told(after: int) -> Iterator[Event]:
        nonlocal seq
        for seq, event in journal.read(run_id, after=after):  # noqa: B007 - the last number is what is asked for
            yield event

    with _collector_put_off():
        seq, state = journal.load_snapshot(run_id) or (0, None)
        state = fold(told(seq), state)
    if state is None:
        raise UserError(f"There is no run {run_id}.", "`storyloop status --all` lists them.")
    return state, seq


@contextmanager
def _collector_put_off() -> Generator[None]:
    """States and events hold no cycles, but Python's collector would look through all of them again and again.

    It would take half of the time that a long run takes to load.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
