"""OpenCode's `run --format json`: parts of messages, each in the event of its end.

Nothing is printed before the model's first answer, and there is no last event: a turn is over when a step finished
for another reason than to call tools. Tokens and cost are those of one model call each, and are summed; the output
may or may not hold the reasoning (it differs by provider), so it is what is left of the total.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from email.utils import parsedate_to_datetime

import msgspec

from storyloop.agents.dialects.lines import Arguments, Count, JsonLines, Money, seen, tool_use
from storyloop.agents.stream import Dialect, Seen, What
from storyloop.core.usage import Usage

_REJECTED = re.compile(r"The user (?:rejected permission|has specified a rule which prevents)")


class _Cache(msgspec.Struct, frozen=True):
    read: Count = 0
    write: Count = 0


class _Tokens(msgspec.Struct, frozen=True):
    total: Count | None = None
    input: Count = 0
    output: Count = 0
    reasoning: Count = 0
    cache: _Cache = _Cache()


class _State(msgspec.Struct, frozen=True):
    input: Arguments | None = None
    output: str = ""
    error: str = ""


class _Part(msgspec.Struct, frozen=True):
    text: str = ""
    tool: str = ""
    state: _State = _State()
    reason: str = ""
    tokens: _Tokens | None = None
    cost: Money | None = None


class _Data(msgspec.Struct, frozen=True):
    message: str = ""
    status: int | None = msgspec.field(default=None, name="statusCode")
    headers: dict[str, str] = msgspec.field(default={}, name="responseHeaders")


class _Error(msgspec.Struct, frozen=True):
    name: str = ""
    data: _Data = _Data()


class _Event(msgspec.Struct, frozen=True):
    type: str | None = None
    session: str | None = msgspec.field(default=None, name="sessionID")
    part: _Part = _Part()
    error: _Error | None = None


class _OpenCode(JsonLines[_Event]):
    def __init__(self) -> None:
        super().__init__(_Event)

    def read(self, event: _Event) -> Iterable[Seen]:
        self.session = event.session or self.session
        part = event.part
        match event.type:
            case "text":
                return (self.said(part.text),)
            case "reasoning":
                self.went_on()
                return (seen(What.THINKING, part.text),)
            case "tool_use":
                return self._tool(part)
            case "step_finish":
                self.went_on()
                self.finished = part.reason not in ("tool-calls", "")
                self.add(_usage(part.tokens), part.cost)
            case "error" if event.error is not None:
                told = event.error.data
                seconds, moment = _retry_after(told.headers)
                message = told.message or event.error.name
                facts = {"status": told.status, "word": event.error.name}
                return (self.failed(message, retry_after=seconds, resets_at=moment, **facts),)
            case "step_start":
                pass
            case other:
                self.met_unknown(str(other))
        return ()

    def _tool(self, part: _Part) -> Iterable[Seen]:
        self.went_on()
        if _REJECTED.match(part.state.error):
            self.was_denied(part.tool)
            return (seen(What.DENIED, part.tool),)
        return tool_use(part.tool, part.state.input), seen(What.RESULT, part.state.output or part.state.error)


def _usage(told: _Tokens | None) -> Usage | None:
    if told is None:
        return None
    cached = told.cache.read + told.cache.write
    output = told.output + told.reasoning if told.total is None else told.total - told.input - cached
    return Usage(
        input_tokens=told.input,
        output_tokens=max(output, told.output),
        cache_read_tokens=told.cache.read,
        cache_creation_tokens=told.cache.write,
        thinking_tokens=told.reasoning,
    )


def _retry_after(headers: dict[str, str]) -> tuple[float | None, datetime | None]:
    """The header's two forms: seconds, or a date."""
    stated = headers.get("retry-after", "")
    if stated.isdecimal() and len(stated) < 10:
        return float(stated), None
    try:
        moment = parsedate_to_datetime(stated)
    except ValueError:
        return None, None
    return None, moment if moment.tzinfo else None


def dialect() -> Dialect:
    """OpenCode's."""
    return _OpenCode()
