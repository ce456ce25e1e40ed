"""The scripted agent as a program: plays a turn of a script on real files and processes.

    python -I -m storyloop.agents.scripted SCRIPT

It is an agent of one's own like any other (docs/own-agent.md): what it was asked stands in its environment, its
artifact and its report go where that says. It keeps no state of its own. Slow modules are imported where they are
needed, because it is started once per call.
"""

import contextlib
import os
import signal
import sys
import time
from typing import Any, NoReturn

from storyloop.agents.play import play
from storyloop.agents.script import ASKED, load_script


class RealStage:
    """Files below the current directory, commands by `sh -c`, and this very process."""

    def __init__(self) -> None:
        self._report: dict[str, Any] = {}

    def read(self, path: bytes) -> bytes:
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def write(self, path: bytes, data: bytes) -> None:
        os.makedirs(os.path.dirname(path) or b".", exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)

    def delete(self, path: bytes) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            from shutil import rmtree

            rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def rename(self, path: bytes, to: bytes) -> None:
        os.makedirs(os.path.dirname(to) or b".", exist_ok=True)
        os.rename(path, to)

    def symlink(self, path: bytes, target: bytes) -> None:
        self.delete(path)
        os.makedirs(os.path.dirname(path) or b".", exist_ok=True)
        os.symlink(target, path)

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(path, mode)

    def run(self, line: str) -> None:
        from subprocess import run

        run(["sh", "-c", line], check=False)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def print(self, data: bytes, *, to: str) -> None:
        spool = (sys.stdout if to == "stdout" else sys.stderr).buffer
        spool.write(data)
        spool.flush()

    def answer(self, data: bytes) -> None:
        _put(os.environ["STORYLOOP_ARTIFACT"], data)

    def report(self, facts: dict[str, Any], *, resets_in: float | None) -> None:
        if resets_in is not None:
            moment = time.gmtime(time.time() + resets_in)
            facts["failure"]["resets_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)
        from json import dumps

        self._report |= facts
        _put(os.environ["STORYLOOP_REPORT"], dumps(self._report).encode())

    def hang(self) -> NoReturn:
        while True:
            signal.pause()

    def crash(self) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("SIGKILL came too late")

    def leave(self, seconds: float, *, detached: bool, stubborn: bool) -> None:
        from subprocess import Popen

        line = ("trap '' TERM; " if stubborn else "") + f"exec sleep {seconds}"
        if detached:
            Popen(["sh", "-c", f"({line}) >/dev/null 2>&1 &"], start_new_session=True).wait()
        else:
            Popen(["sh", "-c", line])


def _put(path: str, data: bytes) -> None:
    """Whole or not at all: the call may be ended at any moment."""
    with open(f"{path}.new", "wb") as file:
        file.write(data)
    os.replace(f"{path}.new", path)


def main(arguments: list[str]) -> int:
    """Play the turn for what the environment says was asked; the exit status comes back."""
    (path,) = arguments
    asked = {name: os.environ[f"STORYLOOP_{name.upper()}"] for name in ASKED}
    return play(lambda: load_script(path), asked, RealStage())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
