"""The program, kept warm: its modules are loaded once, and each command line is a fork of that. So is the ACP host.

What comes of it is a process of its own, with its own environment, directory, output and exit code, as one that a
shell starts. It is spared the interpreter's start and the imports only, which are most of what a short command takes.
"""

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, NoReturn

_MOST = 1_000_000  # bytes of an order
_NUMBER = 20  # bytes of a number that is told
_TIMEOUT = 60.0
_of_thread = threading.local()


def ask(
    words: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    killed_at: int = 0,
    program: str = "storyloop",
    stdin: bytes = b"",
) -> tuple[int, bytes, bytes]:
    """`storyloop words...` to its end: exit code, stdout, stderr. It may be killed with -9 at its nth deed.

    The other program is `acp_host`."""
    line = _line(program)
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        told.write(stdin)
        told.seek(0)
        order = {"words": words, "cwd": str(cwd), "env": dict(env), "killed_at": killed_at}
        socket.send_fds(line, [json.dumps(order).encode()], [told.fileno(), out.fileno(), err.fileno()])
        pid = int(line.recv(100))
        try:
            code = int(line.recv(100))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"{program} {' '.join(words)} does not end") from None
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


class Started:
    """`storyloop words...` in the background, to be looked at and waited for as a `Popen`."""

    def __init__(self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], together: bool = False) -> None:
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
        self._err = self._out if together else tempfile.TemporaryFile()  # noqa: SIM115
        self.returncode: int | None = None
        told, tell = os.pipe()
        order = {"words": words, "cwd": str(cwd), "env": dict(env), "killed_at": 0}
        with open("/dev/null", "rb") as nothing:
            fds = [nothing.fileno(), self._out.fileno(), self._err.fileno(), tell]
            socket.send_fds(_line("storyloop"), [json.dumps(order).encode()], fds)
        os.close(tell)
        self._told = os.fdopen(told, "rb", buffering=0)
        self.pid = int(self._told.read(_NUMBER))

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.returncode = int(self._told.read(_NUMBER))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self._told], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("storyloop", timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has printed, when it has ended; once."""
        self.wait(timeout)
        said: list[str] = []
        for file in (self._out, self._err):
            file.seek(0)
            said.append(file.read().decode())
        self.close()
        return said[0], said[1]

    def close(self) -> None:
        """End it, if it has not ended, and forget what it printed."""
        self.kill()
        self.wait()
        for file in (self._out, self._err, self._told):
            file.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _line(program: str) -> socket.socket:
    lines: dict[str, socket.socket] = vars(_of_thread)
    if program not in lines:
        lines[program] = _opened(program)
    return lines[program]


def _opened(program: str) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(_TIMEOUT)
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    number = theirs.fileno()
    process = subprocess.Popen([sys.executable, __file__, program, str(number)], env=env, cwd="/", pass_fds=[number])
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- the process that is forked -------------------------------------------------------------------------------


def _storyloop() -> Callable[[], object]:
    import jinja2.sandbox  # noqa: F401 - what is imported only when it is needed
    import lxml.etree  # noqa: F401
    import psutil  # noqa: F401

    import storyloop
    from storyloop.cli.main import main

    for module in walk_packages(storyloop.__path__, "storyloop."):
        if module.name.rpartition(".")[2] not in ("__main__", "supervisor"):
            import_module(module.name)
    return main


def _acp_host() -> Callable[[], object]:
    import acp  # noqa: F401 - what takes long

    from storyloop.agents import acp_host

    return acp_host.main


_PROGRAMS = {"storyloop": _storyloop, "acp_host": _acp_host}


def _serve(line: socket.socket, main: Callable[[], object]) -> None:
    gc.freeze()  # what all children share is not looked through by each
    waiting: list[int] = []
    while True:
        data, fds, _, _ = socket.recv_fds(line, _MOST, 4)
        if not data:
            return
        order = json.loads(data)
        waiting = [pid for pid in waiting if os.waitpid(pid, os.WNOHANG)[0] == 0]
        if fds[3:]:
            waiting.append(_in_the_background(line, main, order, fds))
        else:
            child = _forked(line, main, order, fds)
            line.send(str(child).encode())
            line.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _forked(line: socket.socket, main: Callable[[], object], order: dict[str, Any], fds: list[int]) -> int:
    if (child := os.fork()) == 0:
        line.close()
        _become(main, order, fds)
    for fd in fds:
        os.close(fd)
    return child


def _in_the_background(line: socket.socket, main: Callable[[], object], order: dict[str, Any], fds: list[int]) -> int:
    """The child of a child of ours, which waits for it and tells what has become of it."""
    *given, tell = fds
    if (waiter := os.fork()) == 0:
        child = _forked(line, partial(_in_a_session, tell, main), order, given)
        line.close()
        os.write(tell, str(child).encode().ljust(_NUMBER))
        os.write(tell, str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode().ljust(_NUMBER))
        os._exit(0)
    for fd in fds:
        os.close(fd)
    return waiter


def _in_a_session(tell: int, main: Callable[[], object]) -> object:
    os.close(tell)
    os.setsid()
    return main()


def _become(main: Callable[[], object], order: dict[str, Any], fds: list[int]) -> NoReturn:
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    for to, fd in enumerate(fds):
        os.dup2(fd, to)
        os.close(fd)
    if order["killed_at"]:
        _be_killed(order["killed_at"])
    sys.argv = ["storyloop", *order["words"]]
    code: object = None
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    gc.collect()  # as an interpreter ends, but for the clearing away of every module, which takes longer than `status`
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _be_killed(number: int) -> None:
    """At the nth process, rename or removal."""
    left = number

    def deed(event: str, _: object) -> None:
        nonlocal left
        if event in ("subprocess.Popen", "os.rename", "os.remove", "os.rmdir") and (left := left - 1) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(deed)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[2])) as asked:
        _serve(asked, _PROGRAMS[sys.argv[1]]())
