"""Programs: whether what a line of shell starts is here, told before a run begins."""

import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

# What `sh` does itself, so that no file need be there. Words that begin something else (`(`, `!`) are not plain.
_SHELL = frozenset(
    [
        ".",
        ":",
        "[",
        "alias",
        "bg",
        "break",
        "case",
        "cd",
        "command",
        "continue",
        "do",
        "done",
        "echo",
        "elif",
        "else",
        "esac",
        "eval",
        "exec",
        "exit",
        "export",
        "false",
        "fg",
        "fi",
        "for",
        "getopts",
        "hash",
        "if",
        "in",
        "jobs",
        "kill",
        "local",
        "printf",
        "pwd",
        "read",
        "readonly",
        "return",
        "set",
        "shift",
        "test",
        "then",
        "times",
        "trap",
        "true",
        "type",
        "ulimit",
        "umask",
        "unalias",
        "unset",
        "until",
        "wait",
        "while",
    ]
)
_PLAIN = re.compile(r"[\w./+-]+")


def absent_word(line: str, root: Path, environ: Mapping[str, str]) -> str | None:
    """The program that this line of shell starts first, when neither the checkout nor the PATH has it.

    Only a plain first word is looked at; of anything cleverer only the shell knows what it starts.
    """
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    word = words[0] if words else ""
    if not _PLAIN.fullmatch(word) or word in _SHELL or not line.lstrip().startswith(word):
        return None
    found = shutil.which(str(root / word)) if "/" in word else shutil.which(word, path=environ.get("PATH"))
    return None if found else word
