"""Claude Code's `stream-json`, which Qwen Code speaks with an accent (`qwen`).

A turn has gone well when a `result` says so in all of its ways: `subtype` alone is `success` after an API error too.
The result's `usage` is this run's, `total_cost_usd` and `modelUsage` are the session's; what a newer version gives
as `model_usage_since_last_result` is this run's, with its cost. After the CLI's own fallback to an answer in one
piece `usage` can read zero while `modelUsage` is right. One run may have several results (a background command
woke it again): they are added up. Words of sub-agents (`parent_tool_use_id`) are seen, and are no answer.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from storyloop.agents.dialects.lines import Arguments, Count, Error, JsonLines, Moment, Money, seen, tool_use
from storyloop.agents.stream import Dialect, Seen, What
from storyloop.core.usage import Usage

_SILENT = frozenset({"thinking_tokens", "status", "task_started", "task_notification", "hook_started", "hook_response"})
_RAW_SEEN = 1_000  # bytes of a tool's input or result that are looked at


class _Block(msgspec.Struct, frozen=True):
    type: str = ""
    text: str = ""
    thinking: str = ""
    name: str = ""
    input: Arguments | None = None
    content: msgspec.Raw = msgspec.Raw(b'""')
    is_error: bool | None = None


class _Message(msgspec.Struct, frozen=True):
    content: str | list[_Block] = ""
    model: str | None = None


class _Tokens(msgspec.Struct, frozen=True):
    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_read_input_tokens: Count | None = 0
    cache_creation_input_tokens: Count | None = 0
    output_tokens_details: dict[str, Count] | None = None


class _ModelTokens(msgspec.Struct, frozen=True, rename="camel"):
    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_read_input_tokens: Count = 0
    cache_creation_input_tokens: Count = 0
    thinking_tokens: Count = 0
    cost: Money | None = msgspec.field(default=None, name="costUSD")


class _Event(msgspec.Struct, frozen=True, tag_field="type"):
    session_id: str | None = None
    parent_tool_use_id: str | None = None


class _System(_Event, frozen=True, tag="system"):
    subtype: str = ""
    model: str | None = None
    error: str = ""
    error_status: int | None = None
    attempt: int | None = None
    tool_name: str = ""
    message: str = ""
    data: dict[str, object] = {}


class _Assistant(_Event, frozen=True, tag="assistant"):
    message: _Message = _Message()
    error: str | None = None


class _User(_Event, frozen=True, tag="user"):
    message: _Message = _Message()


class _StreamEvent(_Event, frozen=True, tag="stream_event"):
    """A piece of what comes whole in an event of its own."""


class _Denial(msgspec.Struct, frozen=True):
    tool_name: str = ""


class _Result(_Event, frozen=True, tag="result"):
    subtype: str = ""
    is_error: bool = False
    api_error_status: int | None = None
    api_error: str | None = None
    api_error_type: str | None = None
    terminal_reason: str | None = None
    result: str | None = None
    error: Error | None = None
    errors: list[object] = []
    usage: _Tokens | None = None
    total_cost_usd: Money | None = None
    of_session: dict[str, _ModelTokens] | None = msgspec.field(default=None, name="modelUsage")
    of_run: dict[str, _ModelTokens] | None = msgspec.field(default=None, name="model_usage_since_last_result")
    permission_denials: list[_Denial] = []


class _Limits(msgspec.Struct, frozen=True):
    status: str = ""
    resets_at: Moment | None = msgspec.field(default=None, name="resetsAt")


class _RateLimit(_Event, frozen=True, tag="rate_limit_event"):
    rate_limit_info: _Limits = _Limits()


class _Claude(JsonLines[_Event]):
    def __init__(self, *, accent: bool) -> None:
        super().__init__(_System, _Assistant, _User, _StreamEvent, _Result, _RateLimit)
        self._qwen = accent
        self.usage_cumulative = accent  # as measured: a resumed Qwen counts the session's earlier turns
        self._resets_at: datetime | None = None

    def read(self, event: _Event) -> Iterable[Seen]:
        self.session = event.session_id or self.session
        match event:
            case _Assistant():
                return self._assistant(event)
            case _User(message=message) if not isinstance(message.content, str):
                return [seen(What.RESULT, _words(block.content)) for block in message.content]
            case _System():
                return self._system(event)
            case _Result():
                return self._result(event)
            case _RateLimit(rate_limit_info=told) if told.status == "rejected" and told.resets_at is not None:
                self._resets_at = datetime.fromtimestamp(told.resets_at, UTC)
            case _:
                pass
        return ()

    def _assistant(self, event: _Assistant) -> Iterable[Seen]:
        message = event.message
        blocks = [_Block("text", message.content)] if isinstance(message.content, str) else message.content
        if event.error is not None or message.model == "<synthetic>":
            words = " ".join(block.text for block in blocks)
            return (self.failed(words, word=event.error or "", resets_at=self._resets_at),)
        if event.parent_tool_use_id is None:
            self.went_on()
            self.model = message.model or self.model
        return [self._block(block, is_answer=event.parent_tool_use_id is None) for block in blocks]

    def _block(self, block: _Block, *, is_answer: bool) -> Seen:
        if block.type == "tool_use":
            return tool_use(block.name, block.input)
        if block.type == "text":
            return self.said(block.text) if is_answer else seen(What.TEXT, block.text)
        return seen(What.THINKING, block.thinking)

    def _system(self, event: _System) -> Iterable[Seen]:
        match event.subtype:
            case "init":
                self.model = event.model or self.model
            case "api_retry":
                self._resets_at = None
                status = f" {event.error_status}" if event.error_status else ""
                message = f"attempt {event.attempt}: {event.error}{status}"
                return (self.tries_again(message, status=event.error_status, word=event.error),)
            case "retry":  # Qwen; why, it says on stderr only
                return (self.tries_again(f"attempt {event.data.get('attempt', '')}"),)
            case "permission_denied":
                self.was_denied(event.tool_name)
                return (seen(What.DENIED, f"{event.tool_name}: {event.message}"),)
            case silent if silent in _SILENT:
                pass
            case other:
                self.met_unknown(f"system/{other}")
        return ()

    def _result(self, event: _Result) -> Iterable[Seen]:
        self._spent(event)
        for denial in event.permission_denials:
            self.was_denied(denial.tool_name)
        if event.is_error or event.subtype != "success":
            said = event.result or (event.error and event.error.message)
            message = said or "; ".join(map(str, event.errors)) or event.terminal_reason or event.subtype
            word = event.api_error or event.api_error_type or event.subtype
            shown = self.failed(message, status=event.api_error_status, word=word, resets_at=self._resets_at)
        else:
            shown = self.said(event.result or self.answer)
        self.finished = True
        return (shown,)

    def _spent(self, event: _Result) -> None:
        told = event.usage
        if event.of_run is not None:
            self.add(_sum(event.of_run), _cost(event.of_run))
            return
        self.cost = event.total_cost_usd
        self.cost_cumulative = event.total_cost_usd is not None
        if told is None or (not told.input_tokens and not told.output_tokens and event.of_session):
            self.usage = _sum(event.of_session) if event.of_session else None
            self.usage_cumulative = True
            return
        read = told.cache_read_input_tokens or 0
        details = told.output_tokens_details or {}
        self.add(
            Usage(
                input_tokens=max(0, told.input_tokens - read) if self._qwen else told.input_tokens,
                output_tokens=told.output_tokens,
                cache_read_tokens=read,
                cache_creation_tokens=told.cache_creation_input_tokens or 0,
                thinking_tokens=details.get("thinking_tokens", 0),
            )
        )


def _sum(models: dict[str, _ModelTokens]) -> Usage:
    total: Usage | None = None
    for name, told in models.items():
        used = Usage(
            input_tokens=told.input_tokens,
            output_tokens=told.output_tokens,
            cache_read_tokens=told.cache_read_input_tokens,
            cache_creation_tokens=told.cache_creation_input_tokens,
            thinking_tokens=told.thinking_tokens,
            model=name,
        )
        total = used if total is None else total + used
    return total or Usage()


def _cost(models: dict[str, _ModelTokens]) -> float | None:
    costs = [told.cost for told in models.values() if told.cost is not None]
    return sum(costs) if len(costs) == len(models) else None


def _words(content: msgspec.Raw) -> str:
    """The beginning of a result, which may be of any size: a string, or blocks that are shown as they are."""
    return bytes(memoryview(content)[:_RAW_SEEN]).decode("utf-8", "replace").strip('"').replace("\\n", " ")


def dialect() -> Dialect:
    """Claude Code's."""
    return _Claude(accent=False)


def accented() -> Dialect:
    """Qwen Code's: its input counts the cached tokens too, its usage the whole session, and it names no cost."""
    return _Claude(accent=True)
