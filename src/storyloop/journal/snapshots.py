"""Snapshots: states kept so that fewer events have to be folded. A cache: losing one costs time only.

When one is due. A state grows with its run, so one that was kept every so many events would make a long run
write more per event than a short one. Here each snapshot waits until the events since the last one have FACTOR
times its bytes. The stretches of events that pay for the snapshots do not overlap, so all snapshots of a
run together have at most 1/FACTOR of the bytes of its events: a tenth, however long the run is. A state is
kept compressed, which makes it about a twentieth of its run's events; then one is due each time that a
run has about doubled, and half of a run at most has to be folded. Were states larger than a tenth, none would be
due, and a run would be folded from its beginning: slower, and still right.

Whether one can be read. A state is what one version of the reducer made of the events, so each is marked with a
digest of the core's source: change a rule or a field and older snapshots are not misread but passed over.
"""

import hashlib
import zlib
from functools import cache
from pathlib import Path

import msgspec

from storyloop import __version__, core
from storyloop.core.run_state import RunState

FACTOR = 10
FLOOR = 1_000_000  # bytes of events that are folded faster than anybody notices


def snapshot_due(bytes_since: int, state_bytes: int) -> bool:
    """Whether so many bytes of events since the last snapshot are worth one of this size."""
    return bytes_since >= max(FLOOR, FACTOR * state_bytes)


@cache
def program() -> str:
    """The digest of everything that decides what a fold comes to."""
    digest = hashlib.sha256(__version__.encode())
    for source in sorted(Path(place) for place in core.__path__):
        for file in sorted(source.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def pack(state: RunState) -> bytes:
    """The state as it is kept; the compression's own checksum guards it."""
    return zlib.compress(msgspec.json.encode(state), 1)


def unpack(body: bytes) -> RunState | None:
    """The state; None when the bytes are damaged."""
    try:
        return msgspec.json.decode(zlib.decompress(body), type=RunState)
    except (zlib.error, ValueError):
        return None


class Scale:
    """What a run has written since its last snapshot, weighed against its state. Not frozen: it counts.

    A state is packed only to be weighed when the events since could outweigh it as it was the last time, so weighing
    is as rare as keeping.
    """

    def __init__(self, bytes_since: int) -> None:
        self._since = bytes_since
        self._least = FLOOR

    def add(self, event_bytes: int) -> None:
        """So many bytes of events were stored."""
        self._since += event_bytes

    def due(self, state: RunState) -> bytes | None:
        """The packed state if it is to be kept now."""
        if self._since < self._least:
            return None
        body = pack(state)
        self._least = max(FLOOR, FACTOR * len(body))
        if not snapshot_due(self._since, len(body)):
            return None
        self._since = 0
        return body
