"""The dialect of the ACP host: its events, and the updates of the agent that stand in them.

Of usage, agents tell what they like under the same names. What `inputTokens` and `outputTokens` count, the total
says. OpenCode tells of the last model call only, which is no usage of a turn: unknown. Gemini has it in `_meta`
alone. Copilot counts from the start of its process, which is the turn, because we prompt once.

Copilot says its errors as text, and ends the turn as if all were well; but then it has used nothing, and says so.
"""

from collections.abc import Iterable

import msgspec

from storyloop.agents.dialects.lines import MAX_ANSWER, Count, JsonLines, Money, fields_of, seen
from storyloop.agents.stream import Dialect, Seen, Turn, What
from storyloop.core.usage import Usage

# fmt: off
_SILENT = frozenset((
    "available_commands_update", "config_option_update", "current_mode_update", "plan", "session_info_update",
    "usage_update", "user_message_chunk",
))
# fmt: on
_LAST_CALL_ONLY = frozenset({"OpenCode"})
_SPEAKS_ERRORS = frozenset({"Copilot"})
_AUTH_REQUIRED = -32000  # of the protocol, among the codes of JSON-RPC
_NOTHING = msgspec.Raw(b"{}")


class _Text(msgspec.Struct, frozen=True):
    text: str = ""


class _Cost(msgspec.Struct, frozen=True):
    amount: Money
    currency: str = ""


class _Update(msgspec.Struct, frozen=True, rename="camel"):
    session_update: str = ""
    content: _Text | list[msgspec.Raw] | None = None  # of a message, or of a tool
    message_id: str | None = None
    title: str | None = None
    status: str | None = None
    cost: _Cost | None = None


class _Tokens(msgspec.Struct, frozen=True, rename="camel"):
    input_tokens: Count = 0
    output_tokens: Count = 0
    total_tokens: Count = 0
    cached_read_tokens: Count | None = 0
    cached_write_tokens: Count | None = 0
    thought_tokens: Count | None = 0


class _Counted(msgspec.Struct, frozen=True):
    input_tokens: Count = 0
    output_tokens: Count = 0


class _Model(msgspec.Struct, frozen=True):
    model: str | None = None


class _Quota(msgspec.Struct, frozen=True):
    token_count: _Counted | None = None  # Gemini's; others have it with names of their own, and `usage` besides
    model_usage: tuple[_Model, ...] = ()


class _Meta(msgspec.Struct, frozen=True):
    quota: msgspec.Raw = _NOTHING


class _Answer(msgspec.Struct, frozen=True):
    reason: str = msgspec.field(name="stopReason", default="")
    usage: _Tokens | None = None
    meta: msgspec.Raw = msgspec.field(name="_meta", default=_NOTHING)


class _Named(msgspec.Struct, frozen=True):
    name: str = ""


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    status: int | None = None
    status_code: int | None = None
    code: int | None = None
    error_name: str = ""
    details: str = ""
    message: str = ""


class _Event(msgspec.Struct, frozen=True):
    event: str = ""
    update: _Update | None = None
    of: str | None = None  # another session than ours: a sub-agent's
    info: _Named | None = None
    id: str | None = None
    how: str = ""
    model: str | None = None
    text: str = ""
    tool: str = ""
    allowed: bool = True
    method: str = ""
    answer: _Answer | None = None
    word: str = ""
    message: str = ""
    code: int | None = None
    data: msgspec.Raw = _NOTHING


class _Acp(JsonLines[_Event]):
    def __init__(self) -> None:
        super().__init__(_Event)
        self._agent = ""
        self._is_new = False
        self._pieces: list[str] = []  # of the last message
        self._size = 0
        self._message_id: str | None = None
        self._is_cut = False  # something came between: the next piece begins a message
        self._tool = ""

    def turn(self) -> Turn:
        self.answer = "".join(self._pieces)[-MAX_ANSWER:]
        return super().turn()

    def read(self, event: _Event) -> Iterable[Seen]:
        match event.event:
            case "update" if event.update is not None:
                return self._updated(event.update, is_ours=event.of is None)
            case "agent":
                self._agent = event.info.name if event.info else ""
            case "session":
                self.session, self.model, self._is_new = event.id, event.model, event.how == "new"
            case "model":
                self.model = event.model
            case "permission" | "file" if not event.allowed:
                self.was_denied(event.tool)
                return (seen(What.DENIED, event.tool),)
            case "permission":
                return self._uses(event.tool)
            case "note":
                return (seen(What.NOTE, event.text),)
            case "unknown":
                self.met_unknown(event.method)
            case "result" if event.answer is not None:
                self._ended(event.answer)
            case "trouble":
                return (self._troubled(event),)
            case "file" | "prompted":
                pass
            case other:
                self.met_unknown(other)
        return ()

    def _updated(self, update: _Update, *, is_ours: bool) -> Iterable[Seen]:
        match update.session_update:
            case "agent_message_chunk" | "agent_thought_chunk" as kind:
                text = update.content.text if isinstance(update.content, _Text) else ""
                if not text:
                    return ()
                self.went_on()
                if kind == "agent_message_chunk" and is_ours:
                    self._piece(text, update.message_id)
                return (seen(What.TEXT if kind == "agent_message_chunk" else What.THINKING, text),)
            case "tool_call" | "tool_call_update":
                self.went_on()
                self._is_cut = True
                if update.status not in ("completed", "failed"):
                    return self._uses(update.title or self._tool)
                title, self._tool = update.title or self._tool, ""
                return (seen(What.RESULT, f"{title}: {update.status}"),)
            case "usage_update" if update.cost is not None and update.cost.currency == "USD" and is_ours:
                self.cost, self.cost_cumulative = update.cost.amount, not self._is_new
            case kind if kind not in _SILENT:
                self.met_unknown(kind)
            case _:
                pass
        return ()

    def _uses(self, tool: str) -> Iterable[Seen]:
        """It is told of a tool again and again while its title grows and somebody permits it."""
        if tool == self._tool:
            return ()
        self._tool = tool
        return (seen(What.TOOL, tool),)

    def _piece(self, text: str, message_id: str | None) -> None:
        if message_id != self._message_id or (message_id is None and self._is_cut):
            self._pieces, self._size = [], 0
        self._message_id, self._is_cut = message_id, False
        self._pieces.append(text)
        self._size += len(text)
        if self._size > 2 * MAX_ANSWER:
            self._pieces = ["".join(self._pieces)[-MAX_ANSWER:]]
            self._size = MAX_ANSWER

    def _ended(self, answer: _Answer) -> None:
        quota = fields_of(fields_of(answer.meta, _Meta).quota, _Quota)
        self.model = next((used.model for used in quota.model_usage if used.model), self.model)
        if self._agent not in _LAST_CALL_ONLY:
            self.usage = _usage(answer.usage, quota.token_count)
        self.finished = True
        if answer.reason != "end_turn":
            self.failed(f"It ended its turn with {answer.reason}.", word=answer.reason)
        elif self._agent in _SPEAKS_ERRORS and answer.usage is None:
            _, error, message = "".join(self._pieces).rpartition("Error: ")
            if error:
                self.failed(message, word="error")

    def _troubled(self, event: _Event) -> Seen:
        """JSON-RPC has codes of its own; where an agent puts one of HTTP, it is taken as that."""
        data = fields_of(event.data, _Data)
        codes = (event.code, data.status, data.status_code, data.code)
        status = next((code for code in codes if code is not None and 400 <= code < 600), None)
        word = data.error_name or event.word
        if event.code == _AUTH_REQUIRED:
            status, word = 401, "auth_required"
        said = [part for part in (event.message, data.details or data.message) if part]
        return self.failed(": ".join(dict.fromkeys(said)), status=status, word=word)


def _usage(told: _Tokens | None, counted: _Counted | None) -> Usage | None:
    if told is None:
        if counted is None or not counted.input_tokens:
            return None
        return Usage(input_tokens=counted.input_tokens, output_tokens=counted.output_tokens)
    whole = told.input_tokens + told.output_tokens
    if not whole:
        return None  # of a turn that was cancelled: not counted, rather than none used
    read, written, thought = told.cached_read_tokens or 0, told.cached_write_tokens or 0, told.thought_tokens or 0
    counts_cached = told.total_tokens in (whole, whole + thought)
    counts_thoughts = told.total_tokens in (whole, whole + read + written)
    return Usage(
        input_tokens=max(0, told.input_tokens - (read + written if counts_cached else 0)),
        output_tokens=told.output_tokens + (0 if counts_thoughts else thought),
        cache_read_tokens=read,
        cache_creation_tokens=written,
        thinking_tokens=thought,
    )


def dialect() -> Dialect:
    """The host's."""
    return _Acp()
