"""Scenarios: what the scripted model thinks, says and does, turn by turn, and how it fails.

Which turn comes next follows from the request alone. Whatever Storyloop asks an agent names the absolute path of the
artifact that it owes; the newest message that names one is the prompt, the model's turns behind it are counted, and
the turn with that number is served. So a retry gets the same turn again, a resumed session begins its next prompt at
the first turn, and agents that run at the same time do not meet. An agent that does not read its prompt from stdin is
told a file; it is made to read it, and what it read is the prompt.
"""

import re
from enum import StrEnum
from itertools import pairwise

import msgspec

from storyloop.agents.profile import PROMPT_FILE
from storyloop.core.usage import Usage

ARTIFACT = "{artifact}"  # in a scenario: the path that the prompt names
USAGE = Usage(input_tokens=1000, output_tokens=50, cache_read_tokens=300, cache_creation_tokens=70, thinking_tokens=20)

_PROMPT = re.compile(r"(/[^\s`'\"<>]*)/\.storyloop/([\w.-]+\.xml)")


class WriteFile(msgspec.Struct, frozen=True):
    """Create or replace a file of whole lines; its path is relative to the worktree, or `ARTIFACT`."""

    path: str
    content: str


class EditFile(msgspec.Struct, frozen=True):
    """Replace one piece of a line by another; both without `|` and backslashes."""

    path: str
    old: str
    new: str


class ReadFile(msgspec.Struct, frozen=True):
    """Look at a file."""

    path: str


class Shell(msgspec.Struct, frozen=True):
    """Run a command."""

    command: str


Deed = WriteFile | EditFile | ReadFile | Shell


class Refusal(msgspec.Struct, frozen=True):
    """The request is answered with this HTTP status."""

    status: int
    message: str
    headers: dict[str, str] = {}


class Break(StrEnum):
    """The answer does not come, or does not come whole."""

    HANG = "hang"  # no byte
    STALL = "stall"  # it begins, and the connection stays open
    CUT = "cut"  # it begins, and the connection is closed
    GARBAGE = "garbage"  # an event in it is not JSON, and not even text
    ERROR_EVENT = "error-event"  # an event in it says that the model is overloaded


class ModelTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the model; with a deed, the client does that and asks again."""

    thinks: str = ""
    says: str = ""
    does: Deed | None = None
    usage: Usage = USAGE
    fault: Refusal | Break | None = None


class Part(msgspec.Struct, frozen=True):
    """The turns behind a prompt whose artifact's file name this pattern is found in."""

    turns: tuple[ModelTurn, ...]
    owed: str = ""


class Who(StrEnum):
    """Who said something in a conversation."""

    USER = "user"
    MODEL = "model"
    TOOL = "tool"  # what it came to, which may name any path


class Said(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    who: Who
    text: str = ""


class Prompt(msgspec.Struct, frozen=True):
    """The newest prompt of a conversation."""

    worktree: str = ""  # empty as long as the prompt has not been read
    artifact: str = ""  # its file's name
    turns: int = 0  # of the model, behind it
    remembered: bool = False  # the model said something before it, too


_OVER = ModelTurn(says="There is nothing left to do.")
_READ = ModelTurn(does=Shell(f"cat .storyloop/{PROMPT_FILE}"))


class Scenario(msgspec.Struct, frozen=True):
    """The first part that fits a prompt is played."""

    parts: tuple[Part, ...]

    def turn(self, prompt: Prompt | None) -> ModelTurn:
        """The turn that is next; a harmless one when the script has come to its end, or never began."""
        if prompt is None:
            return _OVER
        if not prompt.worktree:
            return _READ
        return next(iter(self.rest(prompt)), _OVER)

    def rest(self, prompt: Prompt) -> tuple[ModelTurn, ...]:
        """The turn that is next and all behind it."""
        part = next((part for part in self.parts if re.search(part.owed, prompt.artifact)), None)
        return part.turns[prompt.turns :] if part is not None else ()

    def refusal(self) -> Refusal | None:
        """What every request meets, also one that is no turn of an agent."""
        first = self.parts[0].turns[0].fault if len(self.parts) == 1 else None
        return first if isinstance(first, Refusal) else None


def newest_prompt(talk: tuple[Said, ...]) -> Prompt | None:
    """Where the conversation stands."""
    for asked, said in reversed([*enumerate(talk)]):
        if said.who is Who.USER and (_PROMPT.search(said.text) or f".storyloop/{PROMPT_FILE}" in said.text):
            remembered = any(earlier.who is Who.MODEL for earlier in talk[:asked])
            for place, read in enumerate(talk[asked:], asked):
                found = _PROMPT.search(read.text) if read.who is not Who.MODEL else None
                if found is not None:
                    turns = sum(b.who is Who.MODEL is not a.who for a, b in pairwise(talk[place:]))
                    return Prompt(found[1], found[2], turns, remembered)
            return Prompt(remembered=remembered)
    return None


def plain(*turns: ModelTurn) -> Scenario:
    """A scenario of one part."""
    return Scenario((Part(turns),))
