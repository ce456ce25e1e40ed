"""For every test: nothing that the suite was started under reaches what it starts."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _hangups_are_heard() -> Iterator[None]:
    """Under `nohup` a hangup is ignored, by every process that is started from here as well."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
