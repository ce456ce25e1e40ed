"""Snapshots: states kept so that fewer events have to be folded. A cache: losing one costs time only.

When one is due. A state grows with its run, so one that was kept every so many events would make a long run
write more per event than a short one. Here each snapshot waits until the events since the last one have FACTOR
times its bytes. The stretches of events that pay for the snapshots do not overlap, so all snapshots of a
run together have at most 1/FACTOR of the bytes of its events, however long the run is.

What FACTOR is. A state has about a fifth of its events' bytes, so with 2.5 a snapshot is due each time that a run
has about doubled, and not much more than half of a run has to be folded; with 5 it would hardly ever be due. SQLite
writes whole pages: 25,500 bytes for an event of 1,100, measured, and a snapshot's bytes twice. So the snapshots add at
most 900 / 25,500, or 4 %, to what an event costs, and nothing in a run of less than FLOOR.

Why MessagePack. It is read in half of the time that JSON takes, and reading it fast is all that a snapshot is for;
nobody else reads it. What is not done: compressed, a snapshot would be five times smaller and take twice as long
to read.

Whether one can be read. A state is what one version of the reducer made of the events, so each is marked with a
digest of the core's source: change a rule or a field and older snapshots are not misread but passed over.
"""

import zlib
from functools import cache
from pathlib import Path

import msgspec

from storyloop import __version__, core
from storyloop.core.run_state import RunState

FACTOR = 2.5
FLOOR = 1_000_000  # bytes of events that are folded faster than anybody notices


def snapshot_due(bytes_since: int, state_bytes: int) -> bool:
    """Whether so many bytes of events since the last snapshot are worth one of this size."""
    return bytes_since >= max(FLOOR, FACTOR * state_bytes)


@cache
def program() -> str:
    """The digest of everything that decides what a fold comes to."""
    from hashlib import sha256  # slow to import, and most runs are too short for a snapshot

    digest = sha256(__version__.encode())
    for source in sorted(Path(place) for place in core.__path__):
        for file in sorted(source.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def pack(state: RunState) -> bytes:
    """The state as it is kept, behind a checksum."""
    body = msgspec.msgpack.encode(state)
    return zlib.adler32(body).to_bytes(4, "big") + body


def unpack(packed: bytes) -> RunState | None:
    """The state; None when the bytes are damaged."""
    body = memoryview(packed)[4:]
    if zlib.adler32(body).to_bytes(4, "big") != packed[:4]:
        return None
    try:
        return msgspec.msgpack.decode(body, type=RunState)
    except ValueError:
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
