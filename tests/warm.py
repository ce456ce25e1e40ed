"""The program, kept warm: its modules are loaded once, and each command line is a fork of that. So is the ACP host.

What comes of it is a process of its own, with its own environment, directory, output and exit code, as one that a
shell starts. It is spared the interpreter's start and the imports only, which are most of what a short command takes.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NoReturn

_MOST = 1_000_000  # bytes of an order
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
    lines: dict[str, socket.socket] = vars(_of_thread)
    if program not in lines:
        lines[program] = _opened(program)
    line = lines[program]
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
    from storyloop import cli
    from storyloop.cli.main import main

    for module in iter_modules(cli.__path__):
        import_module(f"storyloop.cli.{module.name}")
    return main


def _acp_host() -> Callable[[], object]:
    import acp  # noqa: F401 - what takes long

    from storyloop.agents import acp_host

    return acp_host.main


_PROGRAMS = {"storyloop": _storyloop, "acp_host": _acp_host}


def _serve(line: socket.socket, main: Callable[[], object]) -> None:
    gc.freeze()  # what all children share is not looked through by each
    while True:
        data, fds, _, _ = socket.recv_fds(line, _MOST, 3)
        if not data:
            return
        if (child := os.fork()) == 0:
            line.close()
            _become(main, json.loads(data), fds)
        for fd in fds:
            os.close(fd)
        line.send(str(child).encode())
        line.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


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
