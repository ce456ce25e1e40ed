"""Checks: the project's commands, run by us under supervision, their output kept as a file.

Output and errors go into one file in the order of writing, because the shell that we start joins them before it
becomes the command's own; the file is redacted before anything is made of it. A command that cannot be measured says
why, and never counts as red: that it took too long, was killed, or met a full disk tells nothing about the work.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from storyloop.core.errors import OperatorError
from storyloop.core.evidence import COMMAND_NOT_FOUND, KILLED_IN_SHELL
from storyloop.core.facts import Ending, Measured
from storyloop.ports.checks import CheckOrder, checks_dir
from storyloop.world import process
from storyloop.world.environment import allowed_environment
from storyloop.world.process import Exit, Lost, Order, Supervised
from storyloop.world.redaction import Redactor
from storyloop.world.sandbox import Fencing, environment, prefix
from storyloop.world.text import readable, signal_name

_OUTPUT_CAP = 512 * 1024**2  # bytes; a check that prints more is ended
_FULL = 1 << 20  # bytes: with less room than this, nothing that failed is believed
_GLANCE = 0.1  # seconds between two looks at whether to stop
_TAIL_BYTES = 16_384
_TAIL_LINES = 200

# What more there is to say of an exit status.
REASONS = {
    COMMAND_NOT_FOUND: "The command was not found (exit status 127).",
    126: "The command is not executable (exit status 126).",
    KILLED_IN_SHELL: "It was killed (exit status 137), perhaps for want of memory.",
}


class SupervisedChecks:
    """The `Checks` port over real processes. `environ` is the user's, which checks get a part of.

    Without `fencing` no sandbox holds them, whatever an order says.
    """

    def __init__(self, environ: Mapping[str, str], *, fencing: Fencing | None = None) -> None:
        self._environ = environ
        self._fencing = fencing
        self._redactor = Redactor(environ)

    def run(self, order: CheckOrder, stop: threading.Event) -> Measured | None:
        """Run it to its end in the worktree's root; None when `stop` was set meanwhile."""
        command, sandbox = order.command, order.sandbox
        try:
            fence = self._fencing and self._fencing.around(
                order.worktree, sandbox, network=sandbox.checks_network, git=order.git
            )
            told = {**environment(fence), **command.env} if fence else command.env
            check_dir = _unused(Path(order.check_dir))
            supervised = process.launch(
                Order(
                    call_dir=check_dir,
                    argv=("sh", "-c", 'exec sh -c "$1" 2>&1', "sh", command.run),
                    fence=prefix(fence) if fence else (),
                    cwd=Path(order.worktree),
                    env=allowed_environment(self._environ, extra=told, pass_env=command.pass_env),
                    stdin=None,
                    deadline=order.timeout,
                    spool_cap=_OUTPUT_CAP,
                )
            )
        except OSError as error:
            raise OperatorError(
                f"The check `{command.run}` could not be prepared: {error}.",
                "It was not run, and nothing was judged.",
                "Make room or restore what is missing, then run `storyloop resume`.",
            ) from error
        try:
            ended = _ended(supervised, stop)
        finally:
            supervised.close()
        return None if stop.is_set() else _measured(order, check_dir, ended, self._redactor.knowing(command.env))

    def end_left(self, run_dir: str) -> None:
        """End what a dead process left running of this run's commands."""
        for place in Path(checks_dir(run_dir)).glob("*/*"):
            if process.is_alive(place) and isinstance(left := process.adopt(place), Supervised):
                left.stop()
                left.wait()
                left.close()


def _unused(check_dir: Path) -> Path:
    """A place below this one for the next run."""
    return next(place for number in count(1) if not (place := check_dir / str(number)).exists())


def _ended(supervised: Supervised, stop: threading.Event) -> Exit | Lost:
    while (ended := supervised.wait(_GLANCE)) is None:
        if stop.is_set():
            supervised.stop()
    return ended


def _measured(order: CheckOrder, check_dir: Path, ended: Exit | Lost, redactor: Redactor) -> Measured:
    output, complaints = process.spools(check_dir)
    output.touch()  # a shell that never started has printed nothing
    for spool in (output, complaints):
        if spool.exists():
            redactor.file(spool)
    ending, exit_status, reason = _told(order, ended)
    # Its own errors are part of its output, so this is what could not start it: bubblewrap, or our shell.
    if exit_status and (said := readable(process.tail(complaints, _TAIL_BYTES)).strip()):
        ending, exit_status, reason = Ending.UNSTARTED, None, f"It could not be started: {said.splitlines()[-1]}."
    if exit_status != 0 and (full := _full_disk(order.worktree, order.run_dir)):
        ending, exit_status, reason = Ending.UNSTARTED, None, full
    with output.open("rb") as spool:
        digest = hashlib.file_digest(spool, "sha256").hexdigest()
    return Measured(
        ending=ending,
        exit_status=exit_status,
        seconds=ended.ended_at - ended.started_at if isinstance(ended, Exit) else 0.0,
        output=os.path.relpath(output, order.run_dir),
        output_digest=digest,
        output_size=output.stat().st_size,
        tail=tail_of(process.tail(output, _TAIL_BYTES)),
        reason=reason,
    )


def _told(order: CheckOrder, ended: Exit | Lost) -> tuple[Ending, int | None, str]:
    """How it ended, its exit status if it exited, and what there is to say."""
    if isinstance(ended, Lost):
        return Ending.UNSTARTED, None, "Its supervisor was killed, so its end is not known."
    match ended.how:
        case "exited":
            return Ending.EXITED, ended.code, REASONS.get(ended.code or 0, "")
        case "signalled":
            return Ending.SIGNALLED, None, f"It was killed by {signal_name(ended.signal or 0)}."
        case "deadline" | "idle":
            return Ending.TIMEOUT, None, f"It took longer than {order.timeout:g} s and was ended."
        case "spool_cap":
            return Ending.SIGNALLED, None, f"It printed more than {_OUTPUT_CAP >> 20} MiB and was ended."
        case "stopped" | "orphaned":
            return Ending.SIGNALLED, None, "It was stopped from outside."
        case "failed_to_start":
            return Ending.UNSTARTED, None, f"It could not be started: {os.strerror(ended.errno or 0)}."


def _full_disk(*places: str) -> str:
    """A sentence if one of these places has no room left; a failure then tells nothing about the work."""
    for place in places:
        if shutil.disk_usage(place).free < _FULL:
            return f"The disk of {place} is full, so its failure tells nothing. Make room and resume."
    return ""


def tail_of(output: bytes) -> str:
    """The end of an output as text, bounded in lines too."""
    return "\n".join(readable(output).splitlines()[-_TAIL_LINES:])
