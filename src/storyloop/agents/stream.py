"""The stream of a call: what an agent's stdout says, in words that are the same for every agent.

A dialect (`agents/dialects/`) reads one agent's format, line by line; what it has seen comes back as `Seen`, for
watching, and what the turn came to as `Turn`, for deciding.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from storyloop.core.usage import Usage
from storyloop.world.text import readable

MAX_SEEN = 200  # characters


class What(StrEnum):
    """What kind of thing an agent was seen doing."""

    TEXT = "text"
    THINKING = "thinking"
    TOOL = "tool"  # it uses one
    RESULT = "result"  # of a tool
    RETRY = "retry"  # it asks its model again
    DENIED = "denied"  # it was not permitted to use a tool
    NOTE = "note"  # what it says of itself: a warning, a line that is no event


class Seen(msgspec.Struct, frozen=True):
    """One thing that an agent was seen doing; of most of them nobody ever asks for the text."""

    what: What
    head: str  # of what there is to see, as it is

    @property
    def text(self) -> str:
        """On one line, and no longer than anybody reads while it runs."""
        head = self.head
        if not head.isprintable():  # a line break is not
            head = " ".join(readable(head).split())
        return head[:MAX_SEEN].strip()


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent's own events say went wrong. Classifying it is `failures`' affair, not a dialect's."""

    message: str
    status: int | None = None  # of HTTP
    word: str = ""  # the agent's own: rate_limit, authentication_failed, ContextOverflowError
    retry_after: float | None = None  # seconds
    resets_at: datetime | None = None


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream came to when it ended, however it ended.

    Agents count tokens in ways of their own; here they are counted in one: `input_tokens` are those that no cache
    held, cached ones stand apart, and `output_tokens` include the `thinking_tokens`. None is unknown, never zero.
    """

    answered: bool = False  # the model has said, thought or done anything at all
    finished: bool = False  # the agent's own last event says that the turn is over
    trouble: Trouble | None = None  # what ended it badly, or the last trouble that nothing followed
    session: str | None = None
    model: str | None = None
    usage: Usage | None = None  # counted as `Usage` says, whatever the agent's own habit
    cost_usd: float | None = None
    usage_cumulative: bool = False  # the usage counts the session's earlier turns as well
    cost_cumulative: bool = False  # and so does the cost
    answer: str = ""  # the last text it said, its end where it is long: an artifact may stand in it
    retries: int = 0
    denied: tuple[str, ...] = ()  # the tools it was refused
    unknown: dict[str, int] = {}  # event types that the dialect does not know, and how many of each
    broken: int = 0  # lines that are no event at all


class Dialect(Protocol):
    """Reads one call's stdout. It must stand anything: a line it cannot read is counted, never an error."""

    by_line: bool  # where not (any more), it may be fed any number of bytes at once

    def feed(self, line: bytes) -> Iterable[Seen]:
        """What this line shows; the line may lack its newline, and be of any length."""
        ...

    def turn(self) -> Turn:
        """What the lines so far came to."""
        ...
