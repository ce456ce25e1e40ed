"""Kimi's `stream-json`, of Kimi Code and of kimi-cli: the chat's messages, one a line, and no usage.

Neither has an event for the end of a turn, so a message of the assistant that calls no tool is one. Kimi Code tells
retries and its session as messages of the role `meta`, and errors on stderr; kimi-cli prints errors on stdout, as
text broken into lines of eighty characters.
"""

from collections.abc import Iterable

import msgspec

from storyloop.agents.dialects.lines import Arguments, Block, JsonLines, fields_of, seen, text_of, tool_use
from storyloop.agents.stream import Dialect, Seen, What


class _Function(msgspec.Struct, frozen=True):
    name: str = ""
    arguments: str | None = None  # JSON in a string


class _Call(msgspec.Struct, frozen=True):
    function: _Function = _Function()


class _Event(msgspec.Struct, frozen=True):
    role: str | None = None
    content: str | list[Block] | None = None
    tool_calls: list[_Call] | None = None
    type: str = ""
    session_id: str | None = None
    error_name: str = ""
    error_message: str = ""
    status_code: int | None = None


class _Kimi(JsonLines[_Event]):
    def __init__(self) -> None:
        super().__init__(_Event)
        self._told = ""  # lines that are no events

    def read(self, event: _Event) -> Iterable[Seen]:
        match event.role:
            case "assistant":
                return self._assistant(event)
            case "tool":
                return (seen(What.RESULT, text_of(event.content)),)
            case "meta":
                return self._meta(event)
            case "user" | "system":
                pass
            case other:
                self.met_unknown(str(other))
        return ()

    def stray(self, text: str) -> Seen:
        """Its own words, and why it failed, unless it had come to an end before."""
        if self.finished:
            return seen(What.NOTE, text)
        self._told = self._told + text.strip("\r\n")
        return self.failed(self._told)

    def _assistant(self, event: _Event) -> Iterable[Seen]:
        self._told = ""
        self.went_on()
        text = text_of(event.content)
        said = [self.said(text)] if text else []
        self.finished = not event.tool_calls
        functions = [call.function for call in event.tool_calls or ()]
        return said + [tool_use(used.name, fields_of(used.arguments or "{}", Arguments)) for used in functions]

    def _meta(self, event: _Event) -> Iterable[Seen]:
        match event.type:
            case "turn.step.retrying":
                self.finished = False
                return (self.tries_again(event.error_message, word=event.error_name, status=event.status_code),)
            case "session.resume_hint":
                self.session = event.session_id
            case "system.version":
                pass
            case other:
                self.met_unknown(f"meta/{other}")
        return ()


def dialect() -> Dialect:
    """Kimi's."""
    return _Kimi()
