"""Programs: whether what a configuration names can be started here, told before a run begins."""

import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from storyloop.core.policy import AgentKind, AgentSpec

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


def absent_program(agent: AgentSpec, environ: Mapping[str, str]) -> str | None:
    """What this agent starts or plays, when it is not on this machine."""
    if agent.kind is AgentKind.SCRIPT:
        return agent.script if agent.script is not None and not Path(agent.script).is_file() else None
    program = agent.command[0]
    return program if shutil.which(program, path=environ.get("PATH")) is None else None


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
