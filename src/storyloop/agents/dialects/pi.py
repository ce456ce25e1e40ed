"""Pi's `--mode json`: whole messages at their ends, with the usage and the cost of one model call each.

Its updates carry the message so far, twice, so that the stream grows with the square of an answer: they are skipped
without being decoded. Pi exits with 0 whatever happened; a failure is a message whose `stopReason` is `error`.
"""

from collections.abc import Iterable

import msgspec

from storyloop.agents.dialects.lines import (
    Arguments,
    Block,
    Count,
    JsonLines,
    Money,
    fields_of,
    seen,
    text_of,
    tool_use,
)
from storyloop.agents.stream import Dialect, Seen, What
from storyloop.core.usage import Usage

_SILENT = frozenset(("agent_start", "compaction_end", "message_start", "message_update", "turn_end", "turn_start"))


class _Cost(msgspec.Struct, frozen=True):
    total: Money | None = None


class _Tokens(msgspec.Struct, frozen=True, rename="camel"):
    input: Count = 0
    output: Count = 0
    cache_read: Count = 0
    cache_write: Count = 0
    cost: _Cost = _Cost()


class _Message(msgspec.Struct, frozen=True, rename="camel"):
    role: str = ""
    content: str | list[Block] = ""
    model: str | None = None
    usage: _Tokens | None = None
    stop_reason: str = ""
    error_message: str = ""


class _Outcome(msgspec.Struct, frozen=True):
    content: list[Block] = []


class _Event(msgspec.Struct, frozen=True, rename="camel"):
    type: str | None = None
    id: str | None = None
    message: msgspec.Raw = msgspec.Raw(b"{}")
    tool_name: str = ""
    args: Arguments | None = None
    result: msgspec.Raw = msgspec.Raw(b"{}")
    error_message: str = ""
    success: bool = False
    final_error: str = ""
    reason: str = ""


class _Pi(JsonLines[_Event]):
    def __init__(self) -> None:
        super().__init__(_Event)

    def read(self, event: _Event) -> Iterable[Seen]:
        match event.type:
            case silent if silent in _SILENT:
                pass
            case "message_end":
                return self._message(fields_of(event.message, _Message))
            case "tool_execution_start":
                return (tool_use(event.tool_name, event.args),)
            case "tool_execution_end":
                return (seen(What.RESULT, text_of(fields_of(event.result, _Outcome).content)),)
            case "auto_retry_start":
                self.finished = False
                return (self.tries_again(event.error_message),)
            case "auto_retry_end" if not event.success:
                return (self.failed(event.final_error),)
            case "compaction_start":
                return (seen(What.NOTE, f"compaction: {event.reason}"),)
            case "session":
                self.session = event.id
            case "agent_end":
                self.finished = True
            case "auto_retry_end" | "tool_execution_update":
                pass
            case other:
                self.met_unknown(str(other))
        return ()

    def _message(self, message: _Message) -> Iterable[Seen]:
        if message.role != "assistant":
            return ()
        self.model = message.model or self.model
        told = message.usage
        if told is not None:
            self.add(_usage(told), told.cost.total)
        if message.stop_reason in ("error", "aborted"):
            return (self.failed(message.error_message or message.stop_reason),)
        self.went_on()
        text = text_of(message.content)
        return (self.said(text),) if text else ()


def _usage(told: _Tokens) -> Usage:
    return Usage(
        input_tokens=told.input,
        output_tokens=told.output,
        cache_read_tokens=told.cache_read,
        cache_creation_tokens=told.cache_write,
    )


def dialect() -> Dialect:
    """Pi's."""
    return _Pi()
