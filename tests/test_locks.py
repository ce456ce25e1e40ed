"""Run locks: one process at a time, and no lock outlives the process that held it."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storyloop.world.locks import RunLock, holder

# Holds the lock, starts a child that outlives it where asked to, and says so.
HOLD = """
import subprocess, sys
from pathlib import Path
from storyloop.world.locks import RunLock
lock = RunLock(Path(sys.argv[1]))
assert lock.acquire() is None
child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL) if "child" in sys.argv else None
print(child.pid if child else 0, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold(path: Path) -> Iterator[Hold]:
    """Start another process that holds the lock; it and its child are ended after the test."""
    pids: list[int] = []
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        pids.append(int(process.stdout.readline()))
        return process

    yield start
    for pid in filter(None, pids):
        os.kill(pid, signal.SIGKILL)
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.processes
def test_a_run_that_another_process_holds_is_refused_with_its_pid(path: Path, hold: Hold) -> None:
    """And it stays theirs, however often one asks."""
    other = hold()
    assert RunLock(path).acquire() == other.pid
    assert holder(path) == other.pid
    assert holder(path) == other.pid


@pytest.mark.processes
def test_a_killed_process_holds_nothing(path: Path, hold: Hold) -> None:
    """kill -9 leaves the file and its text, but no lock."""
    other = hold()
    other.kill()
    other.wait()
    assert path.read_text() == str(other.pid)
    assert holder(path) is None
    assert RunLock(path).acquire() is None
    assert holder(path) == os.getpid()


@pytest.mark.processes
def test_a_child_of_the_holder_does_not_hold_on(path: Path, hold: Hold) -> None:
    """An agent that outlives a killed Storyloop is no live Storyloop."""
    other = hold("child")
    other.kill()
    other.wait()
    assert RunLock(path).acquire() is None


def test_two_locks_of_one_process_exclude_each_other_too(path: Path) -> None:
    """So that a test, or a program with two services, is not fooled."""
    first, second = RunLock(path), RunLock(path)
    assert first.acquire() is None
    assert second.acquire() == os.getpid()
    first.release()
    assert second.acquire() is None


def test_what_is_released_is_free(path: Path) -> None:
    """Released twice, or never taken, it is free all the same."""
    lock = RunLock(path)
    lock.release()
    assert lock.acquire() is None
    lock.release()
    lock.release()
    assert holder(path) is None


def test_to_ask_who_holds_a_run_leaves_it_as_it_is(path: Path) -> None:
    """No file is made, nothing is taken."""
    assert holder(path) is None
    assert not path.exists()
    lock = RunLock(path)
    assert lock.acquire() is None
    assert [holder(path) for _ in range(50)] == [os.getpid()] * 50
    lock.release()
    assert [holder(path) for _ in range(50)] == [None] * 50


@pytest.mark.processes
def test_a_run_can_be_taken_while_many_ask_who_holds_it(path: Path) -> None:
    """A question lasts an instant; it never makes a free run look held."""
    path.touch()
    asking = f"""
from pathlib import Path
from storyloop.world.locks import holder
print(flush=True)
while True: holder(Path({str(path)!r}))
"""
    askers = [subprocess.Popen([sys.executable, "-c", asking], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for asker in askers:
            assert asker.stdout is not None
            asker.stdout.readline()
        for _ in range(100):
            lock = RunLock(path)
            assert lock.acquire() is None
            lock.release()
    finally:
        for asker in askers:
            asker.kill()
            asker.communicate()


def test_a_file_that_is_removed_while_it_is_being_locked_is_not_the_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody clears the directory between the opening and the locking: the file that is there then counts."""
    locked: list[int] = []

    def flock(file: int, kind: int) -> None:
        if not locked:
            path.unlink()
        locked.append(file)
        fcntl_flock(file, kind)

    fcntl_flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    assert RunLock(path).acquire() is None
    assert holder(path) == os.getpid()
    assert RunLock(path).acquire() == os.getpid()


def test_garbage_in_the_file_is_no_pid(path: Path) -> None:
    """The text is for people; whether the run is held is the kernel's word."""
    path.write_text("not a pid")
    assert holder(path) is None
    lock = RunLock(path)
    assert lock.acquire() is None
    path.write_text("not a pid")
    assert holder(path) == 0
