"""The codec of events: JSON with a version per type of event, old versions read through upcasts.

What was stored is never rewritten. When an event's tag or a field of it changes its name or meaning, an upcast
is added to `UPCASTS`, under the type and the version that are stored, and makes the JSON object of that version
into the next one's. A type's version is therefore no number that somebody has to keep: it is one more than its
upcasts. An upcast that changes the type begins at version 1 of the new one.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

import msgspec

from storyloop import __version__
from storyloop.core.errors import OperatorError, ProgrammerError, UserError
from storyloop.core.events import Event

Upcast = Callable[[dict[str, Any]], dict[str, Any]]


def _one_cap_for_all(event: dict[str, Any]) -> dict[str, Any]:
    """Before there was `calls_per_reading`."""
    if event.get("policy"):
        limits = event["policy"]["limits"]
        limits["calls_per_reading"] = limits["calls_per_errand"]
    return event


UPCASTS: Mapping[tuple[str, int], Upcast] = {
    ("run_opened", 1): _one_cap_for_all,
    ("run_resumed", 1): _one_cap_for_all,
}

_TYPES = frozenset(event.__struct_config__.tag for event in get_args(Event))


class Stored(NamedTuple):
    """An event as the journal keeps it."""

    type: str
    v: int
    body: bytes


class NewerEvent(UserError):  # noqa: N818 - it names what was met
    """A journal holds an event that only a newer Storyloop can know."""

    def __init__(self, stored: Stored, *, written_by: str = "a newer Storyloop") -> None:
        super().__init__(
            f"The run has an event `{stored.type}` of version {stored.v}, written by {written_by}; "
            f"this is Storyloop {__version__} and does not know it.",
            "Upgrade this Storyloop to read the run.",
        )
        self.stored = stored


class DamagedEvent(OperatorError):  # noqa: N818 - it names what was met
    """An event that should be readable is not."""

    def __init__(self, stored: Stored, why: object) -> None:
        super().__init__(
            f"An event `{stored.type}` of the run cannot be read ({why}).",
            "The events before it are whole, and the run's branch and refs are in git.",
            "Restore the database from a backup, or begin the rest of the spec as a new run.",
        )
        self.stored = stored


class Codec:
    """Events to bytes and back, exactly."""

    def __init__(self, upcasts: Mapping[tuple[str, int], Upcast] = UPCASTS) -> None:
        self._upcasts = upcasts
        behind = Counter(kind for kind, _ in upcasts)
        self._versions = {kind: behind[kind] + 1 for kind in _TYPES}
        self._decode = msgspec.json.Decoder(Event).decode

    def encode(self, event: Event) -> Stored:
        """The event as it is stored; refuses one that would not come back as it is (NaN, a lone surrogate, a list)."""
        kind = str(event.__struct_config__.tag)
        try:
            body = msgspec.json.encode(event)
            back = self._decode(body)
        except (ValueError, TypeError) as error:
            raise ProgrammerError(f"The event {event.key!r} cannot be stored: {error}.") from error
        if back != event:
            names = [name for name in event.__struct_fields__ if getattr(back, name) != getattr(event, name)]
            raise ProgrammerError(f"The event {event.key!r} would not be read as it is written: {', '.join(names)}.")
        return Stored(kind, self._versions[kind], body)

    def decode(self, stored: tuple[str, int, bytes]) -> Event:
        """The event that is `Stored` so; raises `NewerEvent` or `DamagedEvent`."""
        kind, v, body = stored
        try:
            if v == self._versions.get(kind):
                return self._decode(body)
            return self._decode(self._lifted(Stored(*stored)))
        except (ValueError, LookupError, TypeError) as error:  # of the decoder, or of an upcast that missed a field
            raise DamagedEvent(Stored(*stored), error) from error

    def _lifted(self, stored: Stored) -> bytes:
        """The body as this version would have written it."""
        kind, v, body = stored
        known = msgspec.json.decode(body, type=dict[str, Any])
        while upcast := self._upcasts.get((kind, v)):
            known = upcast(known)
            v = v + 1 if known["type"] == kind else 1
            kind = known["type"]
        if v != self._versions.get(kind):
            raise NewerEvent(stored)
        return msgspec.json.encode(known)
