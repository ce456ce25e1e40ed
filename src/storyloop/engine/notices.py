"""Notices: word to whoever is not watching. No facts and no deeds: a run neither waits for them nor depends on them.

A thread sends one after the other. One that fails is said where the run is told; what is still unsent when the
process ends has a few seconds. After a crash nothing is sent again.
"""

import queue
import threading
from collections.abc import Callable, Sequence

from storyloop.core.events import Event
from storyloop.core.policy import Occasion
from storyloop.core.run_state import RunState
from storyloop.ports.texts import Notifier
from storyloop.views.notice import Notice, notice_of

_PATIENCE = 5.0  # seconds at the end


class Notices:
    """Of one process that drives a run; without a notifier nothing is sent."""

    def __init__(self, notifier: Notifier | None, on: Sequence[Occasion], tell: Callable[[str], None]) -> None:
        self._notifier, self._on, self._tell = notifier, on, tell
        self._unsent: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
        self._sender: threading.Thread | None = None

    def event(self, event: Event, state: RunState) -> None:
        """Send word of it, if it is an occasion that somebody wants to hear of."""
        notice = notice_of(event, state) if self._notifier is not None else None
        if self._notifier is None or notice is None or notice.occasion not in self._on:
            return
        self._unsent.put(notice)
        if self._sender is None:
            self._sender = threading.Thread(target=self._send, args=(self._notifier,), name="notices", daemon=True)
            self._sender.start()

    def close(self) -> None:
        """Wait a little for what is still to be sent."""
        if self._sender is None:
            return
        self._unsent.put(None)
        self._sender.join(_PATIENCE)
        if self._sender.is_alive():
            self._tell(f"note: not every notification was sent within {_PATIENCE:g} s")

    def _send(self, notifier: Notifier) -> None:
        while (notice := self._unsent.get()) is not None:
            failed = notifier.send(notice.title, notice.text)
            if failed is not None:
                self._tell(f"note: a notification was not sent: {failed}")
