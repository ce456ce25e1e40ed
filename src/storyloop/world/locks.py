"""Locks: a run is held by one process at a time, and the kernel lets go of it when that process dies.

`flock` belongs to an open file: it is never left behind, and no child has a part in it, because Python opens files
so that they are closed when another program is started. The file's text is for people only, and may be stale;
whether it is held is the kernel's word alone. The untidy part: whoever asks who holds a run takes a shared lock
for an instant, in which nobody can take the run; so taking it is tried for longer than an instant.
"""

import fcntl
import os
import time
from pathlib import Path

_TRIES, _PAUSE = 20, 0.01


class RunLock:
    """The right to write a run, by a file that is left where it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> int | None:
        """None when it is ours now, else the pid of the process that holds it (0: it has not said who it is)."""
        held_by = 0
        for _ in range(_TRIES):
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            if _locked(file, fcntl.LOCK_EX) and _is_still_at(file, self._path):
                os.ftruncate(file, 0)
                os.pwrite(file, b"%d" % os.getpid(), 0)
                self._file = file
                return None
            held_by = _named_in(file)
            os.close(file)
            time.sleep(_PAUSE)
        return held_by

    def release(self) -> None:
        """Let go of it; nothing happens if it is not ours."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def holder(path: Path) -> int | None:
    """The pid of the process that holds the run, asked without taking it; None when nobody does.

    It is 0 for the instant in which a holder has not yet said who it is.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if _locked(file, fcntl.LOCK_SH) else _named_in(file)
    finally:
        os.close(file)


def _locked(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_at(file: int, path: Path) -> bool:
    """Whether the file was not removed between its opening and its locking: a lock on a nameless file is none."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _named_in(file: int) -> int:
    text = os.pread(file, 20, 0)
    return int(text) if text.isdigit() else 0
