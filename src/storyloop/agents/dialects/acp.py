"""The dialect of the ACP host: its events, and the updates of the agent that stand in them.

Of usage, agents tell what they like under the same names. Whether `inputTokens` counts what came from a cache, its
total says. OpenCode tells of the last model call only, which is no usage of a turn: unknown. Gemini has it in `_meta`
alone. Copilot counts from the start of its process, which is the turn, because we prompt once. Costs are told as
of the whole session, so only a session that is new tells a turn's.

Copilot reports a refused key as text, and ends its turn as if all were well: nothing here can tell that.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import msgspec

from storyloop.agents.stream import Dialect, Seen, Trouble, Turn, What
from storyloop.core.usage import Usage

_MOST_SEEN = 200  # characters
_MOST_ANSWER = 1 << 20
_MOST_DENIED = 100

_LAST_CALL_ONLY = frozenset({"OpenCode"})
_QUIET = frozenset(
    {
        "user_message_chunk", "available_commands_update", "config_option_update", "current_mode_update",
        "session_info_update", "usage_update",
    }
)  # fmt: skip
_AUTH_REQUIRED = -32000


class _Cost(msgspec.Struct, frozen=True):
    amount: float
    currency: str


class _Update(msgspec.Struct, frozen=True, rename="camel"):
    session_update: str
    content: Any = None
    message_id: str | None = None
    title: str | None = None
    status: str | None = None
    entries: Any = None
    cost: _Cost | None = None


class _Tokens(msgspec.Struct, frozen=True, rename="camel"):
    input_tokens: int
    output_tokens: int
    total_tokens: int = 0
    cached_read_tokens: int | None = None
    cached_write_tokens: int | None = None
    thought_tokens: int | None = None


class _Answer(msgspec.Struct, frozen=True):
    stop_reason: str = msgspec.field(name="stopReason", default="end_turn")
    usage: _Tokens | None = None
    meta: Any = msgspec.field(name="_meta", default=None)


class _Line(msgspec.Struct, frozen=True):
    event: str
    update: _Update | None = None
    of: str | None = None  # another session than ours: a sub-agent's
    info: Any = None
    id: str | None = None
    how: str = ""
    model: Any = None
    text: str = ""
    tool: str = ""
    deed: str = ""
    path: str = ""
    allowed: bool = True
    method: str = ""
    answer: _Answer | None = None
    word: str = ""
    message: str = ""
    code: int | None = None
    data: Any = None


_DECODER = msgspec.json.Decoder(_Line)


class AcpDialect:
    """Reads what one host printed."""

    def __init__(self) -> None:
        self._turn = Turn()
        self._agent = ""
        self._is_new = False
        self._answer: list[str] = []  # the parts of the last message
        self._size = 0
        self._message_id: str | None = None
        self._is_cut = True  # something came between: the next text is a message of its own
        self._tool = ""
        self._denied: list[str] = []
        self._unknown: dict[str, int] = {}
        self._broken = 0

    def feed(self, line: bytes) -> Iterable[Seen]:
        """What this line shows."""
        try:
            event = _DECODER.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._broken += 1
            return (_seen(What.NOTE, line[:_MOST_SEEN].decode("utf-8", "replace")),)
        if event.update is not None:
            return self._updated(event.update, is_ours=event.of is None)
        return self._happened(event)

    def turn(self) -> Turn:
        """What the lines so far came to."""
        return msgspec.structs.replace(
            self._turn,
            answer="".join(self._answer)[-_MOST_ANSWER:],
            denied=tuple(self._denied),
            unknown=dict(self._unknown),
            broken=self._broken,
        )

    def _updated(self, update: _Update, *, is_ours: bool) -> Iterator[Seen]:
        match update.session_update:
            case "agent_message_chunk":
                text = _text(update.content)
                if is_ours:
                    self._said(text, update.message_id)
                yield _seen(What.TEXT, text)
            case "agent_thought_chunk":
                yield _seen(What.THINKING, _text(update.content))
            case "tool_call" | "tool_call_update":
                self._is_cut = True
                ended = update.status in ("completed", "failed")
                if update.title and (update.title != self._tool or update.session_update == "tool_call") and not ended:
                    yield _seen(What.TOOL, update.title)
                self._tool = update.title or self._tool
                if ended:
                    yield _seen(What.RESULT, f"{self._tool}: {update.status}")
            case "plan":
                yield _seen(What.NOTE, f"a plan of {len(update.entries or ())} steps")
            case kind if kind not in _QUIET:
                self._count(kind)
            case "usage_update" if update.cost and update.cost.currency == "USD" and self._is_new and is_ours:
                self._turn = msgspec.structs.replace(self._turn, cost_usd=update.cost.amount)
            case _:
                return

    def _said(self, text: str, message_id: str | None) -> None:
        goes_on = not self._is_cut if message_id is None else message_id == self._message_id
        if not goes_on:
            self._answer, self._size = [], 0
        self._answer.append(text)
        self._size += len(text)
        if self._size > 2 * _MOST_ANSWER:
            self._answer = ["".join(self._answer)[-_MOST_ANSWER:]]
            self._size = _MOST_ANSWER
        self._message_id, self._is_cut = message_id, False

    def _happened(self, event: _Line) -> Iterable[Seen]:
        match event.event:
            case "agent":
                self._agent = _dict(event.info).get("name", "")
            case "session":
                self._is_new = event.how == "new"
                self._turn = msgspec.structs.replace(self._turn, session=event.id, model=_str(event.model))
            case "model":
                self._turn = msgspec.structs.replace(self._turn, model=_str(event.model))
            case "permission" | "file":
                self._is_cut = True
                what = event.tool or f"{event.deed} {event.path}"
                if event.allowed:
                    return (_seen(What.TOOL, what),)
                self._denied = [*self._denied, _seen(What.DENIED, what).text][:_MOST_DENIED]
                return (_seen(What.DENIED, what),)
            case "note":
                return (_seen(What.NOTE, event.text),)
            case "broken":
                self._broken += 1
                return (_seen(What.NOTE, event.text),)
            case "unknown":
                self._count(event.method)
            case "result" if event.answer is not None:
                self._ended(event.answer)
            case "trouble":
                self._turn = msgspec.structs.replace(self._turn, trouble=_trouble(event))
                return (_seen(What.NOTE, event.message),)
            case "prompted":
                pass
            case kind:
                self._count(kind)
        return ()

    def _ended(self, answer: _Answer) -> None:
        quota = _dict(_dict(answer.meta).get("quota"))
        model = next((_str(_dict(used).get("model")) for used in quota.get("model_usage") or ()), self._turn.model)
        usage = None if self._agent in _LAST_CALL_ONLY else _usage(answer.usage, _dict(quota.get("token_count")))
        reason = answer.stop_reason
        trouble = None if reason == "end_turn" else Trouble(message=f"It ended its turn with {reason}.", word=reason)
        self._turn = msgspec.structs.replace(
            self._turn,
            finished=True,
            trouble=trouble,
            model=model,
            usage=usage and msgspec.structs.replace(usage, model=model),
        )

    def _count(self, kind: str) -> None:
        self._unknown[kind] = self._unknown.get(kind, 0) + 1


def dialect() -> Dialect:
    """A fresh reader."""
    return AcpDialect()


def _usage(told: _Tokens | None, counted: dict[str, Any]) -> Usage | None:
    if told is None:
        if not counted.get("input_tokens"):
            return None
        return Usage(input_tokens=counted["input_tokens"], output_tokens=counted.get("output_tokens", 0))
    if not told.input_tokens + told.output_tokens:
        return None  # of a turn that was cancelled: not counted, rather than none used
    read, written = told.cached_read_tokens or 0, told.cached_write_tokens or 0
    counts_cached = told.total_tokens == told.input_tokens + told.output_tokens
    return Usage(
        input_tokens=max(told.input_tokens - (read + written if counts_cached else 0), 0),
        output_tokens=told.output_tokens,
        cache_read_tokens=read,
        cache_creation_tokens=written,
        thinking_tokens=told.thought_tokens or 0,
    )


def _trouble(event: _Line) -> Trouble:
    """JSON-RPC has codes of its own; where an agent puts one of HTTP, it is taken as that."""
    data = _dict(event.data)
    if event.code == _AUTH_REQUIRED:
        return Trouble(message=event.message, status=401, word="auth_required")
    codes = (event.code, data.get("status"), data.get("statusCode"), data.get("code"))
    status = next((code for code in codes if isinstance(code, int) and 400 <= code < 600), None)
    return Trouble(message=event.message, status=status, word=_str(data.get("errorName")) or event.word)


def _seen(what: What, text: str) -> Seen:
    return Seen(what, " ".join(text[: 4 * _MOST_SEEN].split())[:_MOST_SEEN])


def _text(content: Any) -> str:
    return _str(_dict(content).get("text")) or ""


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _dict(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
