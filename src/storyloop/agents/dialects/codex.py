"""Codex's `exec --json`: threads, turns and items.

An item of type `error` is a warning and no failure. An `error` event is one of many: each reconnect is told as one.
What ends a turn badly is `turn.failed`. The usage counts the whole thread, its input the cached tokens too. There is
neither a cost nor a model in it.
"""

import re
from collections.abc import Iterable

import msgspec

from storyloop.agents.dialects.lines import Count, Error, JsonLines, seen
from storyloop.agents.stream import Dialect, Seen, What
from storyloop.core.usage import Usage

_RECONNECT = re.compile(r"Reconnecting\.\.\. ?(?:\d+/\d+)? ?\(?(.*?)\)?", re.DOTALL)
_SILENT = frozenset({"turn.started", "item.updated"})


class _Item(msgspec.Struct, frozen=True):
    type: str = ""
    text: str = ""
    message: str = ""
    command: str = ""
    aggregated_output: str = ""
    query: str = ""
    tool: str = ""
    changes: list[dict[str, object]] = []


class _Tokens(msgspec.Struct, frozen=True):
    input_tokens: Count = 0
    cached_input_tokens: Count = 0
    cache_write_input_tokens: Count = 0
    output_tokens: Count = 0
    reasoning_output_tokens: Count = 0


class _Event(msgspec.Struct, frozen=True):
    type: str | None = None
    thread_id: str | None = None
    item: _Item = _Item()
    usage: _Tokens | None = None
    message: str = ""
    error: Error = Error()


class _Codex(JsonLines[_Event]):
    def __init__(self) -> None:
        super().__init__(_Event)
        self.usage_cumulative = True

    def read(self, event: _Event) -> Iterable[Seen]:
        match event.type:
            case "item.completed" | "item.started":
                return self._item(event.item, completed=event.type == "item.completed")
            case "thread.started":
                self.session = event.thread_id
            case "turn.completed":
                self.went_on()
                self.finished = True
                self.usage = _usage(event.usage)
            case "turn.failed":
                self.finished = True
                return (self.failed(event.error.message),)
            case "error":
                again = _RECONNECT.fullmatch(event.message)
                return (self.tries_again(again[1]) if again else self.failed(event.message),)
            case silent if silent in _SILENT:
                pass
            case other:
                self.met_unknown(str(other))
        return ()

    def _item(self, item: _Item, *, completed: bool) -> Iterable[Seen]:
        if item.type == "error":
            return (seen(What.NOTE, item.message),)
        self.went_on()
        match item.type, completed:
            case "agent_message", True:
                return (self.said(item.text),)
            case "reasoning", True:
                return (seen(What.THINKING, item.text),)
            case "command_execution", True:
                return (seen(What.RESULT, item.aggregated_output),)
            case (("command_execution" | "mcp_tool_call" | "web_search"), False):
                return (seen(What.TOOL, item.command or item.tool or item.query),)
            case "file_change", True:
                paths = (str(change.get("path", "")) for change in item.changes)
                return (seen(What.TOOL, f"writes {', '.join(paths)}"),)
            case (("file_change" | "mcp_tool_call" | "web_search" | "todo_list" | "agent_message" | "reasoning"), _):
                pass
            case other, _:
                self.met_unknown(f"item/{other}")
        return ()


def _usage(told: _Tokens | None) -> Usage | None:
    if told is None:
        return None
    cached = told.cached_input_tokens + told.cache_write_input_tokens
    return Usage(
        input_tokens=max(0, told.input_tokens - cached),
        output_tokens=told.output_tokens,
        cache_read_tokens=told.cached_input_tokens,
        cache_creation_tokens=told.cache_write_input_tokens,
        thinking_tokens=told.reasoning_output_tokens,
    )


def dialect() -> Dialect:
    """Codex's."""
    return _Codex()
