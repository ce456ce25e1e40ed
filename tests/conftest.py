"""For every test: nothing that the suite was started under reaches what it starts."""

import os
import signal
from collections.abc import Iterator

import pytest


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: many tests wait for a process, or for a moment to pass."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True, scope="session")
def _hangups_are_heard() -> Iterator[None]:
    """Under `nohup` a hangup is ignored, by every process that is started from here as well."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
