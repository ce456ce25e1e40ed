"""Clocks: the real one, and one that is wound by hand."""

import threading
from datetime import UTC, datetime, timedelta

# A wait is cut into pieces of this length, so that a laptop that slept or a clock that was set is noticed.
_LONGEST_SLEEP = 1.0


class RealClock:
    """The machine's clock. A wait ends when the wall clock has reached its moment, however it got there."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait_until(self, moment: datetime, stop: threading.Event) -> bool:
        while not stop.is_set():
            left = (moment - self.now()).total_seconds()
            if left <= 0:
                return True
            stop.wait(min(left, _LONGEST_SLEEP))
        return False


class HandClock:
    """A clock that goes only when it is asked, by `step` seconds each time, or waited for: then it jumps."""

    def __init__(self, start: datetime, *, step: float = 0.0) -> None:
        self._now, self._step = start, timedelta(seconds=step)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        with self._lock:
            moment = self._now
            self._now += self._step
        return moment

    def wait_until(self, moment: datetime, stop: threading.Event) -> bool:
        if stop.is_set():
            return False
        with self._lock:
            self._now = max(self._now, moment)
        return True
