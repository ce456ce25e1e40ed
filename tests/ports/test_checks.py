"""The contract of the `Checks` port, for processes and for the tiny shell; then what only processes do."""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from storyloop.core.facts import Ending, Measured
from storyloop.core.policy import Command
from storyloop.ports.checks import CheckOrder, Checks
from storyloop.world import process
from storyloop.world.checks import SupervisedChecks
from storyloop.world.tiny_shell import MemoryChecks

PATH = {"PATH": os.environ["PATH"], "HOME": "/home/u", "SECRET": "s", "PASSED": "p"}


class RealFiles(MutableMapping[str, bytes]):
    """A directory as the mapping that an in-memory worktree is."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __getitem__(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def __setitem__(self, name: str, data: bytes) -> None:
        (self.root / name).write_bytes(data)

    def __delitem__(self, name: str) -> None:
        (self.root / name).unlink()

    def __iter__(self) -> Iterator[str]:
        return (str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Bench(NamedTuple):
    """An implementation, the files its commands run on, and a look at its outputs."""

    checks: Checks
    files: MutableMapping[str, bytes]
    output: Callable[[str], bytes]
    root: Path

    def order(self, line: str, *, timeout: float = 20.0, **settings: object) -> CheckOrder:
        return CheckOrder(
            check_dir=str(self.root / "run" / "checks" / "test.1"),
            worktree=str(self.root / "worktree"),
            run_dir=str(self.root / "run"),
            command=Command(run=line, **settings),  # type: ignore[arg-type]
            timeout=timeout,
        )

    def run(self, line: str, *, timeout: float = 20.0, **settings: object) -> Measured:
        measured = self.checks.run(self.order(line, timeout=timeout, **settings), threading.Event())
        assert measured is not None
        return measured


@pytest.fixture
def processes(tmp_path: Path) -> Bench:
    (tmp_path / "worktree").mkdir()
    (tmp_path / "run").mkdir()
    run_dir = tmp_path / "run"
    files = RealFiles(tmp_path / "worktree")
    return Bench(SupervisedChecks(PATH), files, lambda path: (run_dir / path).read_bytes(), tmp_path)


@pytest.fixture
def memory(tmp_path: Path) -> Bench:
    files: dict[str, bytes] = {}
    checks = MemoryChecks(lambda _: files)
    return Bench(checks, files, checks.outputs.__getitem__, tmp_path)


@pytest.fixture(params=["processes", "memory"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return request.getfixturevalue(request.param)


# --- what both promise --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("true", 0),
        ("false", 1),
        ("exit 3", 3),
        ("exit 0 && false", 0),
        ("test -f a.txt", 0),
        ("test -f b.txt", 1),
        ("test ! -f b.txt", 0),
        ("test ! -f a.txt", 1),
        ("grep -q hello a.txt", 0),
        ("grep -q 'hello world' a.txt", 0),
        ("grep -q nothing a.txt", 1),
        ("grep -q hello b.txt", 2),
        ("true && test -f a.txt && exit 4", 4),
        ("false && exit 4", 1),
        ("no-such-command-here", 127),
    ],
)
def test_the_exit_status_is_the_commands_own(bench: Bench, line: str, status: int) -> None:
    """Green and red, and what a command says with its number, come back as they are."""
    bench.files["a.txt"] = b"hello world\n"
    measured = bench.run(line)
    assert (measured.ending, measured.exit_status) == (Ending.EXITED, status)


def test_a_command_works_in_the_worktree(bench: Bench) -> None:
    """What it makes is in the files afterwards."""
    assert bench.run("touch made.txt && test -f made.txt").exit_status == 0
    assert bench.files["made.txt"] == b""
    assert bench.run("echo 'one word' > made.txt").exit_status == 0
    assert bench.files["made.txt"] == b"one word\n"


def test_a_missing_command_is_red_with_the_reason(bench: Bench) -> None:
    """Exit status 127 is not the work's fault alone: it is said."""
    measured = bench.run("no-such-command-here")
    assert measured.reason == "The command was not found (exit status 127)."
    assert "not found" in measured.tail


def test_the_output_is_kept_whole_with_its_digest(bench: Bench) -> None:
    """A file relative to the run's directory, its size and SHA-256, and its end as text."""
    measured = bench.run("no-such-command-here")
    output = bench.output(measured.output)
    assert measured.output_size == len(output) > 0
    assert measured.output_digest == hashlib.sha256(output).hexdigest()
    assert measured.tail == output.decode().rstrip("\n")


def test_a_check_that_is_stopped_measures_nothing(bench: Bench) -> None:
    """Nothing is said of it, so it is owed again."""
    stop = threading.Event()
    stop.set()
    assert bench.checks.run(bench.order("true"), stop) is None


def test_the_same_order_may_be_run_again(bench: Bench) -> None:
    """After a crash a check is simply run anew."""
    assert bench.run("true").exit_status == 0
    assert bench.run("exit 5").exit_status == 5


def is_gone(pid_file: Path) -> bool:
    """Nothing of that process runs any more; who buries it does not matter."""
    try:
        return psutil.Process(int(pid_file.read_text())).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# --- what only processes do -----------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("echo one; echo two >&2; echo three", "one\ntwo\nthree"),
        ("""printf '%s\\n' "$0" 'a  b' "it's" '$1' '"'; exit 0""", "sh\na  b\nit's\n$1\n\""),
        ("echo $#; pwd | sed 's|.*/||'", "0\nworktree"),
        ("cat; echo end", "end"),
        ("printf '\\033[31mred\\033[0m \\377'", "red \ufffd"),
    ],
    ids=["in order", "quoting", "no arguments, in the worktree", "no input", "colours and bytes"],
)
def test_output_and_errors_are_one_text_in_order_of_writing(processes: Bench, line: str, printed: str) -> None:
    """The line reaches the shell exactly as it is written, and what it prints is kept in order."""
    assert processes.run(line).tail == printed


@pytest.mark.processes
def test_a_check_gets_the_allowed_environment_and_what_it_is_given(processes: Bench) -> None:
    """The allow-list, `env` and `pass_env`; nothing else of the user's shell."""
    lines = processes.run("env", env={"MINE": "1"}, pass_env=("PASSED", "ABSENT")).tail.splitlines()
    names = {line.partition("=")[0] for line in lines}
    assert {"PATH", "HOME", "MINE", "PASSED"} <= names
    assert names <= {"PATH", "HOME", "MINE", "PASSED", "STORYLOOP_CALL_DIR", "PWD", "OLDPWD", "SHLVL", "_"}


@pytest.mark.processes
def test_a_check_that_takes_too_long_is_unmeasured_and_its_whole_tree_is_gone(processes: Bench) -> None:
    """The time limit ends what the command started too, also what hides in another session."""
    measured = processes.run("(setsid sleep 60 & echo $! > pid); echo begun; sleep 60", timeout=0.7)
    assert (measured.ending, measured.exit_status) == (Ending.TIMEOUT, None)
    assert measured.reason == "It took longer than 0.7 s and was ended."
    assert measured.tail == "begun"
    assert is_gone(processes.root / "worktree" / "pid")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("line", "ending", "status", "reason"),
    [
        ("kill -9 $$", Ending.SIGNALLED, None, "It was killed by SIGKILL."),
        (
            *("sh -c 'kill -9 $$'; exit $?", Ending.EXITED, 137),
            "It was killed (exit status 137), perhaps for want of memory.",
        ),
        ("touch x; ./x", Ending.EXITED, 126, "The command is not executable (exit status 126)."),
    ],
)
def test_a_check_that_was_killed_says_so(
    processes: Bench, line: str, ending: Ending, status: int | None, reason: str
) -> None:
    """A death that is not the work's fault can be told from a red result."""
    measured = processes.run(line)
    assert (measured.ending, measured.exit_status, measured.reason) == (ending, status, reason)


@pytest.mark.processes
def test_stopping_ends_a_running_check(processes: Bench) -> None:
    """Long before it would end by itself, and nothing is reported."""
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    assert processes.checks.run(processes.order("sleep 600"), stop) is None


@pytest.mark.processes
def test_a_failure_on_a_full_disk_tells_nothing(processes: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red on a full disk is unmeasured, with the reason; green is green."""
    usage = shutil.disk_usage(processes.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4096))
    red = processes.run("echo x; false")
    assert (red.ending, red.exit_status) == (Ending.UNSTARTED, None)
    assert red.reason.startswith(f"The disk of {processes.root}/worktree is full")
    assert processes.run("true").ending is Ending.EXITED


@pytest.mark.processes
def test_a_large_output_is_kept_as_a_file_and_shown_by_its_end(processes: Bench) -> None:
    """The tail is bounded in lines and bytes; digest and size are those of everything."""
    measured = processes.run("i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done")
    assert measured.output_size == sum(len(f"line {n}\n") for n in range(5000))
    lines = measured.tail.splitlines()
    assert (len(lines), lines[0], lines[-1]) == (200, "line 4800", "line 4999")
    assert len(processes.run("head -c 100000 /dev/zero | tr '\\0' x").tail) == 16_384


@pytest.mark.processes
@pytest.mark.timeout(30)
def test_what_a_dead_storyloop_left_running_is_ended_when_it_is_asked_for(processes: Bench) -> None:
    """So two runs of the checks never change the worktree at the same time; the next run has a place of its own."""
    order = processes.order("true")
    left = process.launch(
        process.Order(
            call_dir=Path(order.check_dir, "1"),
            argv=("sh", "-c", "echo $$ > left; exec sleep 600"),
            cwd=Path(order.worktree),
            env=PATH,
            stdin=None,
            orphan_grace=60.0,
        )
    )
    pid_file = Path(order.worktree, "left")
    while not (pid_file.exists() and pid_file.read_text().endswith("\n")):
        time.sleep(0.01)
    left.close()
    processes.checks.end_left(order.run_dir)
    assert is_gone(pid_file)
    assert processes.run("true").exit_status == 0
