"""Scripted agents in memory: the same scripts against in-memory worktrees, for thousands of journeys.

A turn plays to its end the moment it is launched, so waiting is a matter of counting: a sleep adds to the call's
seconds, and a sleep or a hang that a limit would cut short is cut short at once. What a process leaves behind
becomes the same report by the same rules (`outcome`). The untidy part: a symlink is a file that holds its target,
as it is to git, and modes are not kept.
"""

import contextlib
import os
import posixpath
import signal
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec

from storyloop.agents.outcome import NOTHING_LEFT, Traces
from storyloop.agents.own import report_of
from storyloop.agents.play import play
from storyloop.agents.script import ASKED, Script
from storyloop.agents.start import SPOOL_CAP, contract_of
from storyloop.core.facts import CallReport
from storyloop.ports.agents import Activity, CallOrder
from storyloop.world.process import CallDirUsedError, Exit
from storyloop.world.tiny_shell import Files, run_line


class MemoryAgents:
    """The `Agents` port over scripts by agent name.

    `calls` is the world that outlives a crash: the report of every call by its directory. Forgetting one is what a
    power cut does; who adopts it then finds nothing.
    """

    def __init__(
        self, scripts: Mapping[str, Script], *, files_of: Callable[[str], Files], now: Callable[[], datetime]
    ) -> None:
        self._scripts = scripts
        self._files_of = files_of
        self._now = now
        self.calls: dict[str, CallReport] = {}

    def launch(self, order: CallOrder) -> "MemoryCall":
        """Play the turn that is for this order."""
        if order.call_dir in self.calls:
            raise CallDirUsedError(Path(order.call_dir))
        stage = MemoryStage(order, self._files_of(order.worktree), self._now)
        contract = contract_of(order)
        asked = {name: contract[f"STORYLOOP_{name.upper()}"] for name in ASKED}
        with contextlib.suppress(_CutShort):  # the stage knows how
            stage.ended(code=play(lambda: self._scripts[order.ref.agent], asked, stage))
        self.calls[order.call_dir] = stage.reported()
        return self.adopt(order)

    def adopt(self, order: CallOrder) -> "MemoryCall":
        """The call's report, if it was ever launched and is not forgotten."""
        return MemoryCall(self.calls.get(order.call_dir, CallReport(outcome=NOTHING_LEFT)))


class MemoryCall:
    """A call that has ended already."""

    def __init__(self, report: CallReport) -> None:
        self._report = report
        self._seen = False

    def wait(self, seconds: float) -> CallReport:  # noqa: ARG002 - there is nothing to wait for
        return self._report

    def stop(self) -> None:
        """It has ended before anybody could."""

    def activity(self) -> Activity | None:
        """The last line it printed, once."""
        lines = [] if self._seen else self._report.snippet.strip().splitlines()
        self._seen = True
        return Activity(text=lines[-1]) if lines else None


class _CutShort(BaseException):
    """The turn will not come to its end; not an error that a step may catch."""


class MemoryStage:
    """An in-memory worktree, and the traces that a process would leave."""

    def __init__(self, order: CallOrder, files: Files, now: Callable[[], datetime]) -> None:
        self._order = order
        self._files = files
        self._now = now
        self._exit = Exit(how="exited", started_at=0.0, ended_at=0.0)
        self._spools = {"stdout": BytesIO(), "stderr": BytesIO()}
        self._artifact: bytes | None = None
        self._report: dict[str, Any] = {}

    def reported(self) -> CallReport:
        """What the call came to."""
        stdout, stderr = self._spools["stdout"], self._spools["stderr"]
        traces = Traces(
            artifact=self._artifact,
            report=msgspec.json.encode(self._report) if self._report else None,
            stdout=stdout,
            stdout_tail=stdout.getvalue(),
            stderr_tail=stderr.getvalue(),
        )
        return report_of(self._order, self._exit, traces)

    def ended(self, **facts: Any) -> None:
        """Note how the process ended."""
        self._exit = msgspec.structs.replace(self._exit, **facts)

    def _cut_short(self, how: Literal["idle", "deadline", "spool_cap", "signalled"], **facts: Any) -> NoReturn:
        self.ended(how=how, **facts)
        raise _CutShort

    def read(self, path: bytes) -> bytes:
        return self._files.get(_name(path), b"")

    def write(self, path: bytes, data: bytes) -> None:
        self._files[_name(path)] = data

    def delete(self, path: bytes) -> None:
        for name in self._below(path):
            del self._files[name]

    def rename(self, path: bytes, to: bytes) -> None:
        old, new = _name(path), _name(to)
        moved = self._below(path)
        if not moved:
            raise FileNotFoundError(old)
        for name in moved:
            self._files[new + name.removeprefix(old)] = self._files.pop(name)

    def symlink(self, path: bytes, target: bytes) -> None:
        self.write(path, target)

    def chmod(self, path: bytes, mode: int) -> None:  # noqa: ARG002 - modes are not kept
        if not self._below(path):
            raise FileNotFoundError(_name(path))

    def run(self, line: str) -> None:
        _, output = run_line(line, self._files)
        self.print(output, to="stdout")

    def sleep(self, seconds: float) -> None:
        idle, left = self._order.idle_timeout, self._order.call_timeout - self._exit.ended_at
        if min(idle, left) <= seconds:
            self._cut_short("idle" if idle < left else "deadline", ended_at=self._exit.ended_at + min(idle, left))
        self.ended(ended_at=self._exit.ended_at + seconds)

    def print(self, data: bytes, *, to: str) -> None:
        self._spools[to].write(data)
        if sum(spool.tell() for spool in self._spools.values()) > SPOOL_CAP:
            self._cut_short("spool_cap")

    def answer(self, data: bytes) -> None:
        self._artifact = data

    def report(self, facts: dict[str, Any], *, resets_in: float | None) -> None:
        if resets_in is not None:
            facts["failure"]["resets_at"] = (self._now() + timedelta(seconds=resets_in)).isoformat()
        self._report |= facts

    def hang(self) -> NoReturn:
        self.sleep(float("inf"))
        raise AssertionError("every call has a limit")

    def crash(self) -> NoReturn:
        self._cut_short("signalled", signal=signal.SIGKILL)

    def leave(self, seconds: float, *, detached: bool, stubborn: bool) -> None:  # noqa: ARG002 - all are ended alike
        self.ended(leftovers=self._exit.leftovers + 1)

    def _below(self, path: bytes) -> list[str]:
        """The file of that name, or the files of that directory."""
        name = _name(path)
        return [file for file in self._files if file == name or file.startswith(f"{name}/")]


def _name(path: bytes) -> str:
    name = posixpath.normpath(os.fsdecode(path))
    if name.startswith(("/", "../")):
        raise PermissionError(f"{name} is outside the in-memory worktree")
    return name
