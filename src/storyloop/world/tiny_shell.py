"""A tiny shell over in-memory files, and checks that run it: for thousands of journeys without a process.

It knows `true`, `false`, `exit N`, `test -f P`, `test ! -f P`, `grep -q TEXT P`, `touch P` and `echo TEXT > P`, joined
by ` && `. On these lines it and a real shell come to the same result; whatever else a line says is a command not found.
"""

import hashlib
import shlex
import threading
from collections.abc import Callable, MutableMapping

from storyloop.core.evidence import COMMAND_NOT_FOUND
from storyloop.core.facts import Ending, Measured
from storyloop.ports.checks import CheckOrder
from storyloop.world.checks import REASONS, tail_of

Files = MutableMapping[str, bytes]  # path relative to the worktree's root -> content


def run_line(line: str, files: Files) -> tuple[int, bytes]:
    """Exit status and output of a line."""
    for part in line.split(" && "):
        status, output = _run(shlex.split(part), files)
        if status or part.startswith("exit "):
            return status, output
    return 0, b""


def _run(words: list[str], files: Files) -> tuple[int, bytes]:
    match words:
        case ["true"]:
            return 0, b""
        case ["false"]:
            return 1, b""
        case ["exit", status]:
            return int(status), b""
        case ["test", "-f", path]:
            return int(path not in files), b""
        case ["test", "!", "-f", path]:
            return int(path in files), b""
        case ["grep", "-q", text, path] if path in files:
            return int(text.encode() not in files[path]), b""
        case ["grep", "-q", _, path]:
            return 2, f"grep: {path}: No such file or directory\n".encode()
        case ["touch", path]:
            files.setdefault(path, b"")
            return 0, b""
        case ["echo", text, ">", path]:
            files[path] = f"{text}\n".encode()
            return 0, b""
        case _:
            return COMMAND_NOT_FOUND, f"sh: 1: {words[0]}: not found\n".encode()


class MemoryChecks:
    """The `Checks` port over in-memory worktrees; `outputs` holds what the commands printed, by path."""

    def __init__(self, files_of: Callable[[str], Files]) -> None:
        self._files_of = files_of
        self.outputs: dict[str, bytes] = {}

    def end_left(self, run_dir: str) -> None:
        """Nothing is ever left running."""

    def run(self, order: CheckOrder, stop: threading.Event) -> Measured | None:
        """Run it; None when `stop` is set."""
        if stop.is_set():
            return None
        status, output = run_line(order.command.run, self._files_of(order.worktree))
        path = f"{order.check_dir.removeprefix(order.run_dir).lstrip('/')}/1/stdout"
        self.outputs[path] = output
        return Measured(
            ending=Ending.EXITED,
            exit_status=status,
            seconds=0.0,
            output=path,
            output_digest=hashlib.sha256(output).hexdigest(),
            output_size=len(output),
            tail=tail_of(output),
            reason=REASONS.get(status, ""),
        )
