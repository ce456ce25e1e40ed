"""Configuration files as text: read whole or refused in a sentence, and replaced in one step.

These are the user's own files, so a symlink is followed; but nothing here waits for a FIFO, reads without end,
or leaves half a file behind.
"""

import os
import re
import stat
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from storyloop.core.errors import UserError

_LARGEST = 1_000_000


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: where it stands, what was met, what to try."""

    file: str | None  # None: it stands in no file
    line: int | None = None
    what: str
    cure: str

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        where = "" if self.file is None else f"{self.file}{line}: "
        return f"{where}{self.what} {self.cure}".rstrip()


class ConfigErrors(UserError):  # noqa: N818 - it holds all of them
    """Everything that is wrong with the configuration, all of it at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems[0].what, problems[0].cure)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def _open_without_waiting(path: str, how: int) -> int:
    return os.open(path, how | os.O_NONBLOCK)


def read_text(path: Path) -> str | None:
    """The file's text; None if there is no file. Raises `ConfigErrors` when it cannot be one of ours."""

    def refused(what: str, cure: str) -> ConfigErrors:
        return ConfigErrors([Problem(file=str(path), what=what, cure=cure)])

    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            kind = os.fstat(file.fileno()).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISCHR(kind)):  # /dev/null stands for an empty file
                raise refused("This is not a file that holds text.", "Put a TOML file there, or nothing.")
            content = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise refused("This is a directory, not a file.", "Move it away, or put a TOML file there.") from None
    except OSError as error:
        raise refused(f"This file cannot be read: {error.strerror}.", "Make it readable, or remove it.") from error
    if len(content) > _LARGEST:
        raise refused(f"This file is larger than {_LARGEST:,} bytes.", "Is it the right one?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigErrors(
            [Problem(file=str(path), line=line, what="This line is not UTF-8.", cure="Save the file as UTF-8.")]
        ) from None


def parse(text: str, path: Path) -> dict[str, object]:
    """The file's tables. Raises `ConfigErrors` with line and column where it is no TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        what = "This is not TOML that can be read: it nests too deeply."
    except ValueError as error:  # also what Python says of an integer with thousands of digits
        what = f"This is not valid TOML: {str(error).rstrip('.')}."
    place = re.search(r"\(at line (\d+),", what)
    line = int(place[1]) if place else text.count("\n") + 1 if "end of document" in what else None
    raise ConfigErrors([Problem(file=str(path), line=line, what=what, cure="Mend it there; nothing else was read.")])


_HEADER = re.compile(r"\s*\[\[?([^\[\]]+)\]\]?\s*(?:#.*)?$")
_PAIR = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[\w.-]|\s*\.\s*)+?)\s*=""")


def lines_of(text: str) -> dict[str, int]:
    """Where each dotted key stands, as far as a glance at each line can tell: for messages only."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            section = _dotted(header[1])
            found.setdefault(section, number)
        elif pair := _PAIR.match(line):
            found.setdefault(f"{section}.{_dotted(pair[1])}".removeprefix("."), number)
    return found


def _dotted(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def replace(path: Path, text: str) -> None:
    """Put the text there in one step, with the old file's permissions, through a symlink to what it names."""
    import tempfile

    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o644
        new, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with open(new, "wb") as file:
                file.write(text.encode())
                file.flush()
                os.fchmod(new, mode)
                os.fsync(new)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        what = f"This file cannot be written: {error.strerror}."
        raise ConfigErrors([Problem(file=str(path), what=what, cure="It was left as it is.")]) from error
