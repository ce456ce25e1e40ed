"""Copilot CLI's `--output-format json`: `{type, data}`, and a last line `result` that has its fields at the top.

Every failed model call is told with its status (`model.call_failure`), also those that are tried again; what ends
the turn badly is a `session.error`. Tokens are not told. The session's id comes with the result alone.
"""

from collections.abc import Iterable

import msgspec

from storyloop.agents.dialects.lines import Arguments, JsonLines, fields_of, seen, tool_use
from storyloop.agents.stream import Dialect, Seen, What

# fmt: off
_SILENT = frozenset((
    "assistant.idle", "assistant.message_delta", "assistant.message_start", "assistant.reasoning_delta",
    "assistant.tool_call_delta", "assistant.turn_end", "assistant.turn_start", "model.call_final_result",
    "model.call_finished", "model.call_start", "session.background_tasks_changed", "session.info",
    "session.mcp_servers_loaded", "session.skills_loaded", "session.tools_updated", "tool.execution_partial_result",
    "tool.shell_output", "user.message",
))
# fmt: on


class _Outcome(msgspec.Struct, frozen=True):
    content: str = ""
    message: str = ""
    code: str = ""


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    model: str | None = None
    content: str = ""
    reasoning_text: str = ""
    parent_tool_call_id: str | None = None
    tool_call_id: str = ""
    tool_name: str = ""
    arguments: Arguments | None = None
    result: msgspec.Raw = msgspec.Raw(b"{}")
    error: msgspec.Raw = msgspec.Raw(b"{}")
    message: str = ""
    error_message: str = ""
    error_type: str = ""
    failure_kind: str = ""
    status_code: int | None = None
    reason: str = ""


class _Event(msgspec.Struct, frozen=True, rename="camel"):
    type: str | None = None
    data: _Data = _Data()
    session_id: str | None = None


class _Copilot(JsonLines[_Event]):
    def __init__(self) -> None:
        super().__init__(_Event)
        self._tools: dict[str, str] = {}  # those whose ends are awaited

    def read(self, event: _Event) -> Iterable[Seen]:
        told = event.data
        match event.type:
            case silent if silent in _SILENT:
                pass
            case "assistant.message":
                self.model = told.model or self.model
                self.went_on()
                if told.content and told.parent_tool_call_id is None:
                    return (self.said(told.content),)
                return (seen(What.TEXT, told.content),) if told.content else ()
            case "assistant.reasoning":
                return (seen(What.THINKING, told.content),)
            case "tool.execution_start":
                self._tools[told.tool_call_id] = told.tool_name
                return (tool_use(told.tool_name, told.arguments),)
            case "tool.execution_complete":
                result, error = fields_of(told.result, _Outcome), fields_of(told.error, _Outcome)
                name = self._tools.pop(told.tool_call_id, told.tool_call_id)
                if error.code == "denied":
                    self.was_denied(name)
                    return (seen(What.DENIED, f"{name}: {error.message}"),)
                return (seen(What.RESULT, result.content or error.message),)
            case "model.call_failure":
                self.failed(told.error_message, status=told.status_code, word=told.error_type or told.failure_kind)
            case "assistant.turn_retry":
                self.retries += 1
                return (seen(What.RETRY, told.reason),)
            case "session.error":
                return (self.failed(told.message, status=told.status_code, word=told.error_type),)
            case "agent.interrupted" | "abort":
                return (self.failed(f"It was interrupted: {told.reason}"),)
            case "result":
                self.session = event.session_id
                self.finished = True
            case other:
                self.met_unknown(str(other))
        return ()


def dialect() -> Dialect:
    """Copilot CLI's."""
    return _Copilot()
