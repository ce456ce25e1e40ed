"""Time: the only thing that makes a run's moments differ."""

import threading
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """This moment, in UTC."""
        ...

    def wait_until(self, moment: datetime, stop: threading.Event) -> bool:
        """Sleep until `moment`; True when it has come, False as soon as `stop` is set."""
        ...
