"""Processes under supervision: launch an agent, find it again after a crash, sweep what nobody looks after.

Each call has a directory of its own, and everything that is known about the call's process lies in it; the
files and locks are described in `supervisor.py`. A handle (`Supervised`) holds the lock `owner`; giving it
up, or dying, starts the orphan clock. Whether a call is alive is never guessed from a process id: it is
alive as long as its `alive` lock is held.

The untidy part: on macOS there is no sub-reaper, no /proc and no pidfd. There we wait by asking the lock
twenty times a second, and what leaves the agent's process group is swept after the call has ended.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from storyloop.core.errors import OperatorError, ProgrammerError

if TYPE_CHECKING:
    import psutil  # slow to import, and needed by a sweep alone

MARK = "STORYLOOP_CALL_DIR"
SUPERVISOR = Path(__file__).with_name("supervisor.py")
SWEEPS = 100  # looks at the process table before a sweep lets be what SIGKILL does not end
_EXEC = 0.01  # seconds in which a process has become another program, and has its environment again
RECORD_ROOM = b" " * 1024  # taken before the start: a disk that the agent fills cannot cost us the record
HELD_BACK = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, where, and for how long; times in seconds, sizes in bytes, None for no limit."""

    call_dir: Path  # of this one call, and never used again
    argv: tuple[str, ...]
    fence: tuple[str, ...] = ()  # words of `sandbox.prefix`: they start a process that starts the command inside
    cwd: Path
    env: dict[str, str]  # the whole of it, but for the mark that we add
    stdin: Path | None
    worktree: Path | None = None  # a change in it counts as activity, as output does
    idle_timeout: float | None = None
    deadline: float | None = None
    spool_cap: int = 2 * 1024**3  # stdout and stderr together
    orphan_grace: float = 0.0  # how long the agent goes on while nobody watches
    term_grace: float = 2.0  # between SIGTERM and SIGKILL
    holds: tuple[int, ...] = ()  # locks that the supervisor keeps for as long as it lives, and does not hand on


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """The exit record: how a call ended. Of its tree nothing is left, but for the `survivors`."""

    how: Literal["exited", "signalled", "idle", "deadline", "spool_cap", "stopped", "orphaned", "failed_to_start"]
    started_at: float  # seconds since the epoch, as `ended_at`
    ended_at: float
    code: int | None = None  # the agent's own, also where we ended it; in a fence 128 and more for a signal
    signal: int | None = None
    errno: int | None = None  # why it failed to start, and what was to blame
    blamed: Literal["command", "cwd", "stdin", "call_dir"] | None = None
    leftovers: int = 0  # processes besides the agent that had to be ended; those in a fence die with it, uncounted
    survivors: int = 0  # ... and that even SIGKILL did not end: another user's, or stuck in the kernel
    cpu_seconds: float = 0.0  # of the whole tree
    max_rss: int = 0  # bytes, of its largest process


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """A process that a dead supervisor had left behind; we killed it."""

    pid: int
    name: str
    call_dir: Path


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """The supervisor died without a record. How the call ended is unknown; that nothing of it runs is not."""

    swept: tuple[Swept, ...]
    complaint: str  # what the supervisor said on its stderr, if it had the time


class CallDirUsedError(ProgrammerError):
    """A second launch in the same call directory: one call would have become two."""

    def __init__(self, call_dir: Path) -> None:
        super().__init__(f"Cannot launch a second call in {call_dir}.")
        self.call_dir = call_dir


class CallWatchedError(OperatorError):
    """Another live Storyloop watches this call."""

    def __init__(self, call_dir: Path) -> None:
        super().__init__(
            f"Cannot adopt the call in {call_dir}: another Storyloop process watches it.",
            "The agent goes on undisturbed.",
            "Stop the other process, or let it finish.",
        )
        self.call_dir = call_dir


class Supervised:
    """A call that we watch. `wait` and `stop` may be called from different threads."""

    def __init__(self, call_dir: Path, *, owner: int, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.call_dir = call_dir
        self._owner = owner
        self.pid = pid  # of the supervisor
        self._child = child
        self._pidfd = _pidfd(pid)
        self._outcome: Exit | Lost | None = None

    def wait(self, timeout: float | None = None) -> Exit | Lost | None:
        """How the call ended, as soon as it has; None when `timeout` seconds have passed before."""
        if self._outcome is None and self._supervisor_ends(timeout):
            if self._child is not None:
                self._child.wait()
            self._outcome = _aftermath(self.call_dir)
        return self._outcome

    def stop(self) -> None:
        """Have the tree ended; `wait` then tells. Done again, SIGKILL follows at once."""
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)
            elif is_alive(self.call_dir):
                os.kill(self.pid, signal.SIGTERM)

    def close(self) -> None:
        """Watch no longer. A call that is still alive is an orphan from now on."""
        if self._child is not None and self._child.poll() is None:
            self._child.returncode = 0  # not ours to wait for any more; Popen would warn of it
        for fd in (self._owner, self._pidfd):
            if fd is not None:
                os.close(fd)

    def spooled(self) -> int:
        """Bytes of output so far."""
        return sum(path.stat().st_size for path in spools(self.call_dir) if path.exists())

    def _supervisor_ends(self, timeout: float | None) -> bool:
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            return bool(poll.poll(None if timeout is None else timeout * 1000))
        until = None if timeout is None else time.monotonic() + timeout
        while is_alive(self.call_dir):
            if until is not None and time.monotonic() >= until:
                return False
            time.sleep(0.05)
        return True


def launch(order: Order) -> Supervised:
    """Start the order's command under a supervisor of its own.

    A command that cannot be started is an `Exit` (`failed_to_start`), not an error. Raises `CallDirUsedError`
    where a call was launched before, and OSError, with nothing started, where the machine fails us.
    """
    call_dir = order.call_dir.resolve()
    call_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        alive = os.open(call_dir / "alive", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CallDirUsedError(call_dir) from None
    try:
        fcntl.flock(alive, fcntl.LOCK_EX)
        with open(call_dir / "exit.tmp", "wb", opener=_for_us_only) as paper:
            paper.write(RECORD_ROOM)
        owner = _take_ownership(call_dir)
        try:
            child = _spawn(call_dir, order, alive)
        except BaseException:
            os.close(owner)
            raise
    finally:
        os.close(alive)  # the lock lives on in the supervisor
    return Supervised(call_dir, owner=owner, pid=child.pid, child=child)


def adopt(call_dir: Path) -> Supervised | Exit | Lost:
    """Take up a call that another process launched: the live call, or how it ended.

    Raises `CallWatchedError` while another process watches it.
    """
    call_dir = call_dir.resolve()
    if not is_alive(call_dir):
        return _aftermath(call_dir)
    owner = _take_ownership(call_dir)
    while is_alive(call_dir):
        if (call_dir / "pid").exists():
            found = Supervised(call_dir, owner=owner, pid=int((call_dir / "pid").read_text()))
            if is_alive(call_dir):
                return found  # alive even now: so the id that was looked up was its own, not a successor's
            found.close()
            break
        time.sleep(0.005)  # just born
    else:
        os.close(owner)
    return _aftermath(call_dir)


def is_alive(call_dir: Path) -> bool:
    """A supervisor has this call. Of a call that was launched, False is for ever."""
    try:
        fd = os.open(call_dir / "alive", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two who ask do not see each other
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def spools(call_dir: Path) -> tuple[Path, Path]:
    """Where the agent's stdout and stderr are."""
    return call_dir / "stdout", call_dir / "stderr"


def tail(path: Path, limit: int) -> bytes:
    """The last `limit` bytes of a file; nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
            return file.read(limit)
    except FileNotFoundError:
        return b""


def sweep(home: Path) -> list[Swept]:
    """Kill every process that carries the mark of a call below `home` which no supervisor has any more.

    Ours and our ancestors are spared: a Storyloop that an agent started carries that agent's mark.
    """
    return _sweep(home.resolve(), spared=is_alive)


def _sweep(home: Path, *, spared: Callable[[Path], bool]) -> list[Swept]:
    import psutil

    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    swept: dict[psutil.Process, Swept] = {}
    for _ in range(SWEEPS):
        found = [process for process in psutil.process_iter() if process.pid not in ours]
        # Each was there before its call is looked at: what belongs to a dead call then is an orphan.
        orphans = {process: call_dir for process, call_dir in _marked(found, home).items() if not spared(call_dir)}
        if not orphans:
            break
        for process, call_dir in orphans.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                swept.setdefault(process, Swept(pid=process.pid, name=process.name(), call_dir=call_dir))
                process.kill()  # psutil compares the start time once more before the signal
        time.sleep(0.02)  # not psutil.wait_procs: of a child of ours it would take the exit status
    return list(swept.values())


def _marked(processes: "Iterable[psutil.Process]", home: Path) -> "dict[psutil.Process, Path]":
    """Those that belong to a call below `home`, and its directory."""
    marks = {process: _mark(process) for process in processes}
    blank = [process for process, mark in marks.items() if mark == ""]
    if blank:  # some always are; but so is, for a moment, who is just becoming another program
        time.sleep(_EXEC)
        marks |= {process: _mark(process) for process in blank}
    return {process: Path(mark) for process, mark in marks.items() if mark and Path(mark).is_relative_to(home)}


def _mark(process: "psutil.Process") -> str | None:
    """What its environment says, "" where it has none; None for who is not marked."""
    import psutil

    try:
        environ = process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return environ.get(MARK) if environ else ""


def _spawn(call_dir: Path, order: Order, alive: int) -> subprocess.Popen[bytes]:
    options = {
        "locks": ",".join(str(lock) for lock in (alive, *order.holds)),
        "cwd": order.cwd.absolute(),
        "stdin": order.stdin.absolute() if order.stdin else os.devnull,
        "worktree": order.worktree.absolute() if order.worktree else "",
        "idle": order.idle_timeout or 0,
        "deadline": order.deadline or 0,
        "spool_cap": order.spool_cap,
        "orphan_grace": order.orphan_grace,
        "term_grace": order.term_grace,
        "fence": len(order.fence),
    }
    if "LC_CTYPE" in order.env:
        options["lc_ctype"] = order.env["LC_CTYPE"]
    # A stop may come before the supervisor's first instruction: born with its signals held back, it gets it.
    held_back = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        with open(call_dir / "supervisor.err", "ab", opener=_for_us_only) as complaints:
            return subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", SUPERVISOR),
                    *(f"{name}={value}" for name, value in options.items()),
                    *("--", *order.fence, *order.argv),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                cwd=call_dir,
                env={**order.env, MARK: str(call_dir)},
                pass_fds=(alive, *order.holds),
                start_new_session=True,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held_back)


def _for_us_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _take_ownership(call_dir: Path) -> int:
    owner = os.open(call_dir / "owner", os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(20):
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.005)  # the supervisor itself holds it for an instant when it looks who watches
        else:
            return owner
    os.close(owner)
    raise CallWatchedError(call_dir)


def _aftermath(call_dir: Path) -> Exit | Lost:
    """How a call ended that has no supervisor any more."""
    try:
        written = (call_dir / "exit").read_bytes()
    except FileNotFoundError:
        # The lock is not asked again: somebody's fork may hold a copy of it for an instant yet.
        swept = tuple(_sweep(call_dir, spared=lambda _: False))
        return Lost(swept=swept, complaint=tail(call_dir / "supervisor.err", 4096).decode(errors="replace"))
    if sys.platform != "linux":
        sweep(call_dir)
    return msgspec.json.decode(written, type=Exit)


def _pidfd(pid: int) -> int | None:
    """None where the system has none, or the process is gone: then its lock is asked instead."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
