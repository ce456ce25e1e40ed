"""What dialects have in common: the tally of a turn, and the decoding of lines that each hold one JSON event.

Only the fields that are declared are decoded; the rest of a line is skipped by msgspec without becoming an object,
which is what makes reading fast. A line whose shape is not the declared one is read a second time, slowly, and
keeps the fields that fit: agents change their events from version to version, and a number that has become a
string must not cost us the session id beside it.
"""

import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Generic, TypeVar, cast

import msgspec

from storyloop.agents.stream import MAX_SEEN, Seen, Trouble, Turn, What
from storyloop.contracts.xml import MAX_BYTES
from storyloop.core.usage import Usage

Count = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Moment = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]  # seconds since the epoch
Money = Annotated[float, msgspec.Meta(ge=0, lt=10**9)]

MAX_ANSWER = 2 * MAX_BYTES  # characters: the largest artifact, and some words after it
_MAX_MESSAGE = 2_000
_MAX_NAMES = 50  # of unknown events, or of denied tools; the stream may be long and its author careless

_Event = TypeVar("_Event", bound=msgspec.Struct)


class Arguments(msgspec.Struct, frozen=True):
    """Those arguments of a tool, under the names that they have with one agent or another, that tell what it does."""

    command: object = None
    file_path: object = None
    file: object = msgspec.field(default=None, name="filePath")
    path: object = None
    pattern: object = None
    query: object = None
    url: object = None
    description: object = None
    prompt: object = None


class Block(msgspec.Struct, frozen=True):
    """A part of a message's content."""

    type: str = ""
    text: str = ""


class Error(msgspec.Struct, frozen=True):
    """What an event says of an error."""

    type: str = ""
    message: str = ""


def text_of(content: str | list[Block] | None) -> str:
    """The words of a message, which is a string or has parts."""
    if isinstance(content, list):
        return "\n".join(block.text for block in content if block.text)
    return content or ""


def tool_use(name: str, arguments: Arguments | None = None) -> Seen:
    """An agent uses a tool: its name, and the first of its arguments that is known."""
    telling = () if arguments is None else msgspec.structs.astuple(arguments)
    first = next((argument for argument in telling if argument), "")
    return seen(What.TOOL, f"{name} {first if isinstance(first, str) else msgspec.json.encode(first).decode()}")


def seen(what: What, text: str) -> Seen:
    """What was seen; its beginning is enough, and some more for the blanks in it."""
    return Seen(what, text[: 2 * MAX_SEEN])


class Tally:
    """The turn so far. `turn` may be asked at any time."""

    by_line = True

    def __init__(self) -> None:
        self.answered = False
        self.finished = False
        self.trouble: Trouble | None = None
        self.session: str | None = None
        self.model: str | None = None
        self.usage: Usage | None = None
        self.cost: float | None = None
        self.usage_cumulative = False
        self.cost_cumulative = False
        self.answer = ""
        self.retries = 0
        self.broken = 0
        self._denied: dict[str, None] = {}
        self._unknown: dict[str, int] = {}

    def went_on(self) -> None:
        """The model has answered something: whatever had gone wrong before is over, and so is no turn."""
        self.answered = True
        self.trouble = None
        self.finished = False

    def said(self, text: str) -> Seen:
        """The agent speaks to whoever asked it."""
        self.went_on()
        self.answer = text[-MAX_ANSWER:]
        return seen(What.TEXT, text)

    def tries_again(self, message: str, **facts: Any) -> Seen:
        """It asks its model once more, and says why."""
        self.retries += 1
        self.failed(message, **facts)
        return seen(What.RETRY, message)

    def failed(self, message: str, **facts: Any) -> Seen:
        """It says what went wrong; `facts` are those of `Trouble`."""
        self.trouble = Trouble(message=message[:_MAX_MESSAGE], **facts)
        return seen(What.NOTE, message)

    def was_denied(self, tool: str) -> None:
        if len(self._denied) < _MAX_NAMES:
            self._denied[tool[:MAX_SEEN]] = None

    def met_unknown(self, kind: str) -> None:
        """An event of a kind that the dialect has no words for."""
        name = kind[:MAX_SEEN]
        if name not in self._unknown and len(self._unknown) >= _MAX_NAMES:
            name = "..."
        self._unknown[name] = self._unknown.get(name, 0) + 1

    def add(self, usage: Usage | None, cost: float | None = None) -> None:
        """One more model call's worth."""
        if usage is not None:
            self.usage = usage if self.usage is None else self.usage + usage
        if cost is not None:
            self.cost = cost + (self.cost or 0.0)

    def turn(self) -> Turn:
        """What the lines so far came to."""
        usage = self.usage
        if usage is not None and usage.model is None:
            usage = msgspec.structs.replace(usage, model=self.model)
        return Turn(
            answered=self.answered,
            finished=self.finished,
            trouble=self.trouble,
            session=self.session,
            model=self.model,
            usage=usage,
            cost_usd=self.cost,
            usage_cumulative=self.usage_cumulative,
            cost_cumulative=self.cost_cumulative,
            answer=self.answer,
            retries=self.retries,
            denied=tuple(self._denied),
            unknown=dict(self._unknown),
            broken=self.broken,
        )


class JsonLines(Tally, Generic[_Event]):
    """A dialect of one JSON object a line, of the kinds given: tagged structs, or a single one without a tag."""

    def __init__(self, *kinds: type[_Event]) -> None:
        super().__init__()
        self._tag = kinds[0].__struct_config__.tag_field
        self._kinds: dict[object, type[_Event]] = {kind.__struct_config__.tag: kind for kind in kinds}
        self._decode = msgspec.json.Decoder[_Event](type=_any_of(kinds)).decode

    @abstractmethod
    def read(self, event: _Event) -> Iterable[Seen]:
        """Take the event into the tally, and tell what it shows."""

    def feed(self, line: bytes) -> Iterable[Seen]:
        """What this line shows."""
        try:
            event = self._decode(line)
        except (ValueError, RecursionError):  # msgspec's errors, and those of UTF-8, are ValueErrors
            return self._feed_slowly(line)
        return self.read(event)

    def stray(self, text: str) -> Seen:
        """A line that is no event: what is it?"""
        return seen(What.NOTE, text)

    def _feed_slowly(self, line: bytes) -> Iterable[Seen]:
        try:
            value = json.loads(line)  # which takes half of a surrogate pair, where a string was cut in two
            value = msgspec.json.decode(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            if not line.strip():
                return ()
            self.broken += 1
            return (self.stray(line[:_MAX_MESSAGE].decode("utf-8", "replace")),)
        fields = cast("dict[str, object]", value)  # what JSON has
        name = None if self._tag is None else str(fields.get(self._tag))
        kind = self._kinds.get(name)
        if kind is None:
            self.met_unknown(str(name))
            return ()
        return self.read(kind(**dict(_fitting(fields, kind))))


def fields_of(text: msgspec.Raw | str, kind: type[_Event]) -> _Event:
    """An object within a line: as much of it as fits."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        value = msgspec.json.decode(text)
        fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        return kind(**dict(_fitting(fields, kind)))
    except (ValueError, RecursionError):  # JSON in a string may be anything
        return kind()


def _any_of(kinds: Sequence[Any]) -> Any:
    whole = kinds[0]
    for kind in kinds[1:]:
        whole |= kind
    return whole


def _fitting(value: dict[str, object], kind: type[msgspec.Struct]) -> Iterable[tuple[str, Any]]:
    """The fields of an object that have the types that are expected of them."""
    for field in msgspec.structs.fields(kind):
        if field.encode_name in value:
            try:
                yield field.name, msgspec.convert(value[field.encode_name], field.type)
            except msgspec.ValidationError:
                continue  # its default stands for it
