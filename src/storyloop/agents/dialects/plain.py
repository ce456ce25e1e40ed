"""Plain text: every line is something the agent says, and its exit status is all it tells of the end.

Aider's own lines are known beyond that, once its banner was seen: the tokens of each model call, and the errors of
its model library. It exits with 0 on every one of them. They stand in the same text as what the model says and what
files hold, so one counts only while nothing but its own paragraph and blank lines follow.
"""

import re
from collections.abc import Iterable

from storyloop.agents.dialects.lines import MAX_ANSWER, Tally, seen
from storyloop.agents.stream import Dialect, Seen, Turn, What
from storyloop.core.usage import Usage

_BANNER = b"Aider v"
_HEAD = 50  # lines within which it is looked for
_AMOUNT = r"([\d.]+)([kM]?)"
_TOKENS = re.compile(
    rf"Tokens: {_AMOUNT} sent(?:, {_AMOUNT} cache write)?(?:, {_AMOUNT} cache hit)?, {_AMOUNT} received\."
    r"(?: Cost: \$([\d.]+) message)?"
)
_OWN = (b"litellm.", b"Tokens: ", b"Retrying in ")
_INITIALS = frozenset(own[:1] for own in _OWN)
_OVERHEAD = 64  # bytes that a line takes besides its own
_ERROR = re.compile(r"litellm\.(\w+): (.*)")
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}


class _Plain(Tally):
    def __init__(self) -> None:
        super().__init__()
        self.finished = True
        self._tail = b""
        self._lines: list[bytes] = []  # those after the tail; one by one they would cost too much
        self._room = MAX_ANSWER  # bytes of memory that they may take
        self._head = _HEAD
        self._aider = False
        self._paragraph = False  # the last error's goes on

    def feed(self, line: bytes) -> Iterable[Seen]:
        """What this line shows."""
        self._lines.append(line)
        self._room -= len(line) + _OVERHEAD
        if self._room < 0:
            self._fold_lines()
        if self._aider:
            if line[:1] in _INITIALS or self.trouble is not None:
                self._of_aider(line)
        elif self._head:
            self._head -= 1
            self.answered = True
            self._aider = line.startswith(_BANNER)
            self.finished = not self._aider
            self.by_line = self._aider or self._head > 0
        return () if line.isspace() else map(_shown, (line,))

    def turn(self) -> Turn:
        self._fold_lines()
        self.answer = self._tail.decode("utf-8", "replace")
        return super().turn()

    def _fold_lines(self) -> None:
        self._tail = (self._tail + b"".join(self._lines))[-MAX_ANSWER:]
        self._lines, self._room = [], MAX_ANSWER

    def _of_aider(self, line: bytes) -> None:
        if line.startswith(_OWN):
            text = line.decode("utf-8", "replace")
            if error := _ERROR.match(text):
                self.failed(error[2], word=error[1])
                self._paragraph = True
            elif told := _TOKENS.match(text):
                self.went_on()
                self.finished = True
                self.add(_usage(told), float(told[9]) if told[9] else None)
            else:
                self.retries += 1
        elif self.trouble is not None:
            self._paragraph = self._paragraph and not line.isspace()
            if self._paragraph:
                rest = line.decode("utf-8", "replace").strip()
                self.failed(f"{self.trouble.message.strip()} {rest}", word=self.trouble.word)
            elif not line.isspace():
                self.trouble = None


def _shown(line: bytes) -> Seen:
    return seen(What.TEXT, line[:1_000].decode("utf-8", "replace"))


def _usage(told: re.Match[str]) -> Usage:
    """What it calls sent holds the cached tokens too."""
    sent, written, read, received = (
        int(float(amount) * _UNITS[unit]) if amount else 0
        for amount, unit in zip(told.groups()[:8:2], told.groups()[1:8:2], strict=True)
    )
    return Usage(
        input_tokens=max(0, sent - written - read),
        output_tokens=received,
        cache_read_tokens=read,
        cache_creation_tokens=written,
    )


def dialect() -> Dialect:
    """Any program's."""
    return _Plain()
