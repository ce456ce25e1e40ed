"""Gemini CLI's `stream-json`: text in pieces, tools by their ids, and a result that can be an error with exit 0.

Where it asks its model again in the middle of an answer, the pieces come anew from the first, with no word about
it: pieces that repeat the whole answer so far, one after the other, count once. An `error` event that nothing follows
is what ended the turn, a warning too ("Loop detected" comes with a `success` that has no answer).
"""

from collections.abc import Iterable

import msgspec

from storyloop.agents.dialects.lines import MAX_ANSWER, Arguments, Count, Error, JsonLines, seen, tool_use
from storyloop.agents.stream import Dialect, Seen, Turn, What
from storyloop.core.usage import Usage

_ECHO = 64  # characters; fewer may be alike by chance
_REFUSALS = frozenset({"tool_not_registered", "policy_violation", "execution_denied"})


class _Stats(msgspec.Struct, frozen=True):
    total_tokens: Count = 0
    input_tokens: Count = 0
    output_tokens: Count = 0
    cached: Count = 0


class _Event(msgspec.Struct, frozen=True):
    type: str | None = None
    session_id: str | None = None
    model: str | None = None
    role: str = ""
    content: str = ""
    tool_name: str = ""
    tool_id: str = ""
    parameters: Arguments | None = None
    status: str = ""
    output: str = ""
    message: str = ""
    error: Error | None = None
    stats: _Stats | None = None


class _Gemini(JsonLines[_Event]):
    def __init__(self) -> None:
        super().__init__(_Event)
        self._pieces: list[str] = []
        self._echo = 0  # so many pieces have just been said again,
        self._echoed = 0  # which have so many characters
        self._size = 0
        self._tools: dict[str, str] = {}  # those whose results are awaited

    def turn(self) -> Turn:
        self._end_echo()
        self.answer = "".join(self._pieces)[-MAX_ANSWER:] or self.answer
        return super().turn()

    def read(self, event: _Event) -> Iterable[Seen]:
        match event.type:
            case "message" if event.role == "assistant":
                self.went_on()
                self._piece(event.content)
                return (seen(What.TEXT, event.content),)
            case "tool_use":
                self._end_answer()
                self.went_on()
                self._tools[event.tool_id] = event.tool_name
                return (tool_use(event.tool_name, event.parameters),)
            case "tool_result":
                name = self._tools.pop(event.tool_id, event.tool_id)
                if event.error is not None and event.error.type in _REFUSALS:
                    self.was_denied(name)
                    return (seen(What.DENIED, f"{name}: {event.error.message}"),)
                return (seen(What.RESULT, event.output),)
            case "error":
                return (self.failed(event.message),)
            case "result":
                self.finished = True
                self.usage = _usage(event.stats)
                if event.status != "success" and event.error is not None:
                    return (self.failed(event.error.message, word=event.error.type),)
                if event.status != "success" and self.trouble is None:
                    return (self.failed("Its result is an error without a reason."),)
            case "init":
                self.session, self.model = event.session_id, event.model
            case "message":
                pass
            case other:
                self.met_unknown(str(other))
        return ()

    def _piece(self, text: str) -> None:
        if self._echo < len(self._pieces) and self._pieces[self._echo] == text:
            self._echo += 1
            self._echoed += len(text)
            if self._echo == len(self._pieces) and self._echoed >= _ECHO:
                self._echo = self._echoed = 0  # the whole of it anew: once is enough
            return
        self._end_echo()
        self._pieces.append(text)
        self._size += len(text)
        if self._size > 2 * MAX_ANSWER:
            self._pieces = ["".join(self._pieces)[-MAX_ANSWER:]]
            self._size = MAX_ANSWER

    def _end_echo(self) -> None:
        """What was said again, but not as a whole, belongs to the answer."""
        self._pieces += self._pieces[: self._echo]
        self._size += self._echoed
        self._echo = self._echoed = 0

    def _end_answer(self) -> None:
        self._end_echo()
        self.answer = "".join(self._pieces)[-MAX_ANSWER:] or self.answer
        self._pieces, self._size = [], 0


def _usage(told: _Stats | None) -> Usage | None:
    """Of the total, what was not put in came out: `output_tokens` leaves the thoughts aside."""
    if told is None:
        return None
    return Usage(
        input_tokens=max(0, told.input_tokens - told.cached),
        output_tokens=max(told.output_tokens, told.total_tokens - told.input_tokens),
        cache_read_tokens=told.cached,
    )


def dialect() -> Dialect:
    """Gemini CLI's."""
    return _Gemini()
