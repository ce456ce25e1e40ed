"""Supervision: whatever an agent does and whoever dies, a call ends, its end is known, and nothing is left."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from storyloop.world.accounts import FileAccounts
from storyloop.world.process import (
    MARK,
    SUPERVISOR,
    CallDirUsedError,
    CallWatchedError,
    Exit,
    Lost,
    Order,
    Supervised,
    adopt,
    is_alive,
    launch,
    spools,
    sweep,
    tail,
)

pytestmark = pytest.mark.processes
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
LAUNCHER = Path(__file__).parent / "supervised" / "launcher.py"


class Bench:
    """A state directory with calls in it; every handle is closed in the end."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.worktree = home / "worktree"
        self.worktree.mkdir()
        self.closing = contextlib.ExitStack()
        self.calls = 0

    def order(self, script: str, **settings: Any) -> Order:
        self.calls += 1
        plain: dict[str, Any] = {
            "call_dir": self.home / "calls" / str(self.calls),
            "argv": ("sh", "-c", script),
            "cwd": self.worktree,
            "env": PATH,
            "stdin": None,
        }
        return Order(**(plain | settings))

    def launch(self, script: str, **settings: Any) -> Supervised:
        return self.watch(launch(self.order(script, **settings)))

    def watch(self, call: object) -> Supervised:
        assert isinstance(call, Supervised)
        self.closing.callback(call.close)
        return call

    def run(self, script: str, **settings: Any) -> Exit:
        return exit_of(self.launch(script, **settings).wait(30))

    @contextlib.contextmanager
    def launcher(self, order: Order) -> Iterator[subprocess.Popen[bytes]]:
        """Another Storyloop, which is about to launch the order; killed in the end."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, LAUNCHER], **pipes, start_new_session=True) as launcher:
            assert launcher.stdin is not None
            assert launcher.stdout is not None
            launcher.stdout.readline()
            launcher.stdin.write(msgspec.json.encode(order, enc_hook=str) + b"\n")
            launcher.stdin.flush()
            yield launcher
            os.killpg(launcher.pid, signal.SIGKILL)  # its whole group, as a terminal would

    def orphan(self, script: str, **settings: Any) -> Path:
        """The directory of a call whose launcher was killed once the agent had said something."""
        order = self.order(script, **settings)
        with self.launcher(order):
            eventually(lambda: tail(order.call_dir / "stdout", 1))
        return order.call_dir

    def marked(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if str(self.home) in process.environ().get(MARK, ""):
                    found.append(process)
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.closing.close()
    left = bench.marked()
    for process in left:
        process.kill()
    assert left == []


def exit_of(outcome: object) -> Exit:
    assert isinstance(outcome, Exit), outcome
    return outcome


def output(call: Supervised) -> str:
    return tail(call.call_dir / "stdout", 100_000).decode()


def eventually(question: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not question():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)


def supervisor_of(call: Supervised) -> psutil.Process:
    eventually((call.call_dir / "pid").exists)
    return psutil.Process(int((call.call_dir / "pid").read_text()))


# --- how a call ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("true", ("exited", 0, None)),
        ("exit 3", ("exited", 3, None)),
        ("exit 127", ("exited", 127, None)),
        ("kill -9 $$", ("signalled", None, 9)),
        ("kill -15 $$", ("signalled", None, 15)),
    ],
)
def test_an_agents_own_end_is_recorded_as_it_was(bench: Bench, script: str, expected: tuple[object, ...]) -> None:
    """Exit codes and signals are told apart."""
    before = time.time()
    end = bench.run(script)
    assert (end.how, end.code, end.signal) == expected
    assert (end.errno, end.blamed, end.leftovers, end.survivors) == (None, None, 0, 0)
    assert before < end.started_at < end.ended_at <= time.time()


def test_an_agent_that_cannot_be_started_is_not_one_that_exited(bench: Bench) -> None:
    """ENOENT and EACCES are recorded with what was to blame; exit code 127 is something else."""
    (bench.worktree / "plain").write_text("no program")
    cases: list[tuple[dict[str, Any], tuple[int, str]]] = [
        ({"argv": ("no-such-agent",)}, (2, "command")),
        ({"argv": ("./plain",)}, (13, "command")),
        ({"cwd": bench.home / "gone"}, (2, "cwd")),
        ({"stdin": bench.home / "no-prompt"}, (2, "stdin")),
    ]
    for settings, expected in cases:
        end = bench.run("", **settings)
        assert (end.how, end.code, end.errno, end.blamed) == ("failed_to_start", None, *expected)


@pytest.mark.parametrize(
    ("how", "script", "limits"),
    [
        ("deadline", "while :; do echo busy; sleep 0.1; done", {"deadline": 0.5}),
        ("idle", "sleep 60", {"idle_timeout": 0.4}),
        ("spool_cap", "head -c 3000000 /dev/zero; sleep 60", {"spool_cap": 1_000_000}),
        ("spool_cap", "head -c 3000000 /dev/zero >&2; sleep 60", {"spool_cap": 1_000_000}),
    ],
)
def test_every_limit_ends_the_call_and_says_which_it_was(
    bench: Bench, how: str, script: str, limits: dict[str, Any]
) -> None:
    """The agent's own status is kept beside it."""
    end = bench.run(script, **limits)
    assert (end.how, end.code, end.signal) == (how, None, signal.SIGTERM)


def test_a_limit_that_is_not_set_never_ends_a_call(bench: Bench) -> None:
    """None is off, for the deadline and for idleness."""
    assert bench.run("sleep 0.5", idle_timeout=None, deadline=None).how == "exited"


def test_the_callers_wait_ends_without_the_call(bench: Bench) -> None:
    """`wait` with a timeout gives the caller back its time, and can be asked again."""
    call = bench.launch("while [ ! -e open ]; do sleep 0.02; done")
    began = time.monotonic()
    assert call.wait(0.1) is None
    assert time.monotonic() - began >= 0.1
    (bench.worktree / "open").touch()
    first = call.wait()
    assert exit_of(first).how == "exited"
    assert call.wait() is first
    assert not psutil.pid_exists(call.pid)


def test_an_end_is_noticed_at_once(bench: Bench) -> None:
    """No polling stands between the agent's exit and the waiting thread, nor any grace."""

    def lag() -> float:
        end = bench.run("sleep 0.8; date +%s.%N > ended")  # by then, the timers are looked at once a second
        assert end.leftovers == 0
        return time.time() - float((bench.worktree / "ended").read_text())

    eventually(lambda: lag() < 0.2)  # on a machine that is busy with other tests it takes several tries


# --- what is left of the tree ----------------------------------------------------------------------------

STUBBORN = "trap '' TERM HUP INT; while :; do sleep 0.1; done"
LEFTOVERS = {
    "a background child that holds stdout": "sleep 60 &",
    "a daemon in a session of its own": "(setsid sleep 60 >/dev/null 2>&1 </dev/null &)",
    "one that ignores SIGTERM": f'sh -c "{STUBBORN}" &',
    "a daemon that ignores SIGTERM": f'(setsid sh -c "{STUBBORN}" &)',
    "a stopped one": "sh -c 'kill -STOP $$' &",
    "a spawner of short children": "sh -c \"trap '' TERM; while :; do sleep 0.02 & done\" &",
    "a chain in which each starts the next and goes": (
        "echo 'trap \"\" TERM; setsid sh chain &' > chain; setsid sh chain &"
    ),
}


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_nothing_of_the_tree_outlives_the_agent(bench: Bench, leftover: str) -> None:
    """Whatever it forked, and whoever adopted that: gone before the exit record is there."""
    end = bench.run(f"{LEFTOVERS[leftover]}\nsleep 0.2; exit 7", term_grace=20.0)
    assert (end.how, end.code, end.survivors) == ("exited", 7, 0)
    assert end.leftovers >= 1
    assert bench.marked() == []
    assert end.ended_at - end.started_at < 5


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_nothing_of_the_tree_outlives_a_stop(bench: Bench, leftover: str) -> None:
    """The agent, which ignores SIGTERM, and all that it started."""
    call = bench.launch(f"trap '' TERM\n{LEFTOVERS[leftover]}\necho up; sleep 60; sleep 60", term_grace=0.2)
    eventually(lambda: output(call))
    call.stop()
    end = exit_of(call.wait(30))
    assert (end.how, end.signal, end.survivors) == ("stopped", signal.SIGKILL, 0)
    assert bench.marked() == []


def test_a_stop_lets_the_agent_end_in_its_own_way(bench: Bench) -> None:
    """SIGTERM comes first, and its handler has the whole grace."""
    call = bench.launch("trap 'sleep 0.8; echo saved; exit 5' TERM; echo up; sleep 60 & wait", term_grace=20.0)
    eventually(lambda: output(call))
    call.stop()
    end = exit_of(call.wait(30))
    assert (end.how, end.code, output(call)) == ("stopped", 5, "up\nsaved\n")


def test_what_an_agent_leaves_behind_may_save_its_work(bench: Bench) -> None:
    """A server in the background is asked to end before it is killed."""
    server = "trap 'echo saved > saved; exit' TERM; touch up; while :; do sleep 0.05; done"
    end = bench.run(f'sh -c "{server}" & while [ ! -e up ]; do sleep 0.05; done')
    assert end.leftovers >= 1
    assert (bench.worktree / "saved").read_text() == "saved\n"


def test_a_second_stop_does_not_wait_for_the_grace(bench: Bench) -> None:
    """The second Ctrl-C is at once."""
    call = bench.launch("trap '' TERM; echo up; sleep 60; sleep 60", term_grace=60.0)
    eventually(lambda: output(call))
    call.stop()
    assert call.wait(0.3) is None
    call.stop()
    assert exit_of(call.wait(30)).how == "stopped"


def test_a_stop_before_the_first_instruction_is_not_lost(bench: Bench) -> None:
    """However young the supervisor is when it is told, it ends the call and records it."""
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02):
        call = bench.launch("sleep 60")
        time.sleep(delay)
        call.stop()
        assert exit_of(call.wait(30)).how == "stopped"


def test_an_agent_that_ended_before_its_stop_was_not_stopped(bench: Bench) -> None:
    """Both lie before the supervisor at once: its exit counts, and so does its work."""
    call = bench.launch("echo up; while [ ! -e go ]; do sleep 0.05; done; echo done; exit 3")
    eventually(lambda: output(call))
    supervisor = supervisor_of(call)
    supervisor.suspend()
    (bench.worktree / "go").touch()
    eventually(lambda: [child.status() for child in supervisor.children()] == [psutil.STATUS_ZOMBIE])
    call.stop()
    supervisor.resume()
    end = exit_of(call.wait(30))
    assert (end.how, end.code) == ("exited", 3)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_signal_that_asks_for_an_end_is_a_stop(bench: Bench, signum: signal.Signals) -> None:
    """A shutdown of the machine leaves records, too."""
    call = bench.launch("echo up; sleep 60")
    eventually(lambda: output(call))
    supervisor_of(call).send_signal(signum)
    assert exit_of(call.wait(30)).how == "stopped"


# --- activity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "deed"),
    [
        ("exited", "echo still here"),
        ("exited", "echo still here >&2"),
        ("exited", "touch deep/er/file"),
        ("exited", "rmdir deep/er 2>/dev/null || mkdir deep/er"),
        ("exited", "rm $i"),
        ("exited", "touch -d 2001-01-01 deep/er/old"),
        ("idle", "touch .git/index deep/.git/index"),
        ("idle", "touch ../outside"),
        ("idle", "true"),
    ],
)
def test_idle_is_who_neither_speaks_nor_changes_the_worktree(bench: Bench, how: str, deed: str) -> None:
    """Output and any change below the worktree count, at whatever date it is stamped; git's own do not."""
    for place in (".git", "deep/er", "deep/.git"):
        (bench.worktree / place).mkdir(parents=True)
    for name in "123456":
        (bench.worktree / name).touch()
    script = f"for i in 1 2 3 4 5 6; do sleep 0.15; {deed}; done"
    assert bench.run(script, worktree=bench.worktree, idle_timeout=0.5).how == how


def test_a_worktree_that_is_gone_keeps_nobody_alive(bench: Bench) -> None:
    """Nothing changes there any more."""
    assert bench.run("sleep 60", worktree=bench.worktree / "gone", idle_timeout=0.3).how == "idle"


def test_a_file_of_the_future_keeps_nobody_alive(bench: Bench) -> None:
    """A modification time is what somebody said; the inode's own time is not."""
    end = bench.run("touch -d 2099-01-01 new; sleep 60", worktree=bench.worktree, idle_timeout=0.4)
    assert end.how == "idle"
    assert end.ended_at - end.started_at < 5


# --- what the agent gets --------------------------------------------------------------------------------


def test_the_agent_gets_its_environment_and_nothing_else(bench: Bench) -> None:
    """Not ours, and nothing that a Python on the way has added."""
    call_dir = bench.home / "calls" / "1"
    call = bench.launch("", argv=("/bin/cat", "/proc/self/environ"), env={"GREETING": "good\nday ü"})
    exit_of(call.wait(30))
    assert set(output(call).split("\0")) == {"GREETING=good\nday ü", f"{MARK}={call_dir}", ""}
    call = bench.launch("", argv=("/bin/cat", "/proc/self/environ"), env={"LC_CTYPE": "C"})
    exit_of(call.wait(30))
    assert "LC_CTYPE=C\0" in output(call)


def test_the_agent_gets_no_file_but_its_three(bench: Bench) -> None:
    """Neither the locks nor what our own user's shell had handed to us."""
    with (bench.home / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        call = bench.launch("", argv=("ls", "/proc/self/fd"))
        exit_of(call.wait(30))
    assert output(call).split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads


def test_the_agent_starts_with_untouched_signals_in_a_session_of_its_own(bench: Bench) -> None:
    """Nothing blocked, nothing ignored (Python ignores SIGPIPE), no terminal."""
    call = bench.launch("", argv=("cat", "/proc/self/status", "/proc/self/stat"))
    exit_of(call.wait(30))
    *status, stat = output(call).splitlines()
    masks = dict(line.split(":\t") for line in status)
    real_time = -1 << 31  # two of those are the C library's own
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) & ~real_time == 0
    pid, _, _, _, group, session, terminal, *_ = stat.split()
    assert pid == group == session
    assert terminal == "0"


def test_the_prompt_is_the_agents_stdin(bench: Bench) -> None:
    """Byte for byte; without one stdin is empty, so that nobody waits at a prompt."""
    prompt = bench.home / "prompt"
    prompt.write_bytes(b"Do \xff it.\n\0" * 100_000)
    call = bench.launch("cat", stdin=prompt)
    exit_of(call.wait(30))
    assert (call.call_dir / "stdout").read_bytes() == prompt.read_bytes()
    call = bench.launch("cat; echo end", stdin=None)
    exit_of(call.wait(30))
    assert output(call) == "end\n"


def test_what_an_agent_says_is_for_its_user_only(bench: Bench) -> None:
    """Spools, record and locks are readable by nobody else."""
    call = bench.launch("echo secret; echo secret >&2")
    exit_of(call.wait(30))
    modes = {path.name: path.stat().st_mode & 0o777 for path in call.call_dir.iterdir()}
    assert set(modes) == {"alive", "owner", "pid", "stdout", "stderr", "supervisor.err", "exit"}
    assert set(modes.values()) == {0o600}
    assert call.call_dir.stat().st_mode & 0o777 == 0o700


def test_output_costs_no_memory(bench: Bench) -> None:
    """Neither we nor the supervisor read what an agent prints; its end can be read within a bound."""
    before = psutil.Process().memory_info().rss
    call = bench.launch("head -c 200000000 /dev/zero; printf end; sleep 60")
    eventually(lambda: call.spooled() == 200_000_003)
    assert tail(spools(call.call_dir)[0], 5) == b"\0\0end"
    assert supervisor_of(call).memory_info().rss < 15_000_000
    assert psutil.Process().memory_info().rss - before < 10_000_000
    call.stop()
    exit_of(call.wait(30))
    (call.call_dir / "stdout").unlink()


# --- who dies ---------------------------------------------------------------------------------------------


def test_an_agent_whose_storyloop_died_goes_on_and_is_adopted(bench: Bench) -> None:
    """The same process, not a second one; its end is read by the adopter."""
    call_dir = bench.orphan("echo $$; while [ ! -e go ]; do sleep 0.05; done; echo $$; exit 4", orphan_grace=60.0)
    call = bench.watch(adopt(call_dir))
    assert call.wait(0.1) is None
    (bench.worktree / "go").touch()
    end = exit_of(call.wait(30))
    assert (end.how, end.code) == ("exited", 4)
    first, second = output(call).split()
    assert first == second
    assert adopt(call_dir) == end


def test_an_agent_that_ended_unwatched_tells_the_one_who_comes_late(bench: Bench) -> None:
    """The exit record waits."""
    call_dir = bench.orphan("echo up; sleep 0.2; exit 4", orphan_grace=60.0)
    eventually(lambda: not is_alive(call_dir))
    assert exit_of(adopt(call_dir)).code == 4


def test_an_agent_whom_nobody_adopts_is_ended_after_the_grace(bench: Bench) -> None:
    """Not before; and that this was the reason is recorded."""
    call_dir = bench.orphan("date +%s.%N; sleep 60", orphan_grace=1.0)
    eventually(lambda: not is_alive(call_dir))
    end = exit_of(adopt(call_dir))
    assert end.how == "orphaned"
    assert end.ended_at - end.started_at > 1.0


def test_an_adoption_stops_the_orphan_clock(bench: Bench) -> None:
    """An owner who comes within the grace has all the time again."""
    call_dir = bench.orphan("echo up; sleep 60", orphan_grace=1.2)
    time.sleep(0.6)  # it runs
    call = bench.watch(adopt(call_dir))
    assert call.wait(2.0) is None
    call.stop()
    assert exit_of(call.wait(30)).how == "stopped"


def test_a_call_that_is_closed_is_an_orphan(bench: Bench) -> None:
    """Storyloop may leave with its agents running, as well as die."""
    call = launch(bench.order("echo up; sleep 60", orphan_grace=0.0))
    call.close()
    eventually(lambda: not is_alive(call.call_dir))
    assert exit_of(adopt(call.call_dir)).how == "orphaned"


def test_a_seat_is_taken_for_as_long_as_its_call_lasts(bench: Bench) -> None:
    """Also when whoever launched it has left; and the agent, whose daemons may outlive it, does not have it."""
    accounts = FileAccounts(bench.home / "accounts")
    seat = accounts.take_seat("firm", 1)
    assert seat is not None
    assert seat.lock is not None
    script = "ls -l /proc/self/fd; while [ ! -e go ]; do sleep 0.05; done"
    call = bench.launch(script, orphan_grace=60.0, holds=(seat.lock,))
    seat.leave()
    eventually(lambda: output(call))
    assert accounts.take_seat("firm", 1) is None
    (bench.worktree / "go").touch()
    assert exit_of(call.wait(30)).how == "exited"
    assert "seat-1" not in output(call)
    eventually(lambda: not is_alive(call.call_dir))
    free = accounts.take_seat("firm", 1)
    assert free is not None
    free.leave()


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 4, 8, 16, 32, 64])
def test_a_storyloop_killed_at_any_moment_of_a_launch_costs_no_agent(bench: Bench, milliseconds: int) -> None:
    """Either the agent never was, or it is adopted and ends in its own way."""
    order = bench.order("echo up; sleep 0.3; echo end", orphan_grace=60.0)
    with bench.launcher(order):
        time.sleep(milliseconds / 1000)
    call = adopt(order.call_dir)
    if isinstance(call, Supervised):
        bench.watch(call)
        assert exit_of(call.wait(30)).how == "exited"
        assert output(call) == "up\nend\n"
    else:
        assert call == Lost(swept=(), complaint="")
        assert tail(order.call_dir / "stdout", 100) == b""


@pytest.mark.parametrize("milliseconds", [0, 5, 10, 12, 14, 16, 18, 20, 30, 60])
def test_a_supervisor_killed_at_any_moment_leaves_nothing_running(bench: Bench, milliseconds: int) -> None:
    """The waiting thread learns that the call is lost, after every process of it is gone."""
    call = bench.launch("(setsid sleep 60 &); sleep 60")
    time.sleep(milliseconds / 1000)
    os.kill(call.pid, signal.SIGKILL)
    assert isinstance(call.wait(30), Lost)
    assert bench.marked() == []
    assert isinstance(adopt(call.call_dir), Lost)


def test_a_lost_call_names_what_was_swept(bench: Bench) -> None:
    """Name and process id of everything that was left."""
    call = bench.launch("echo $$; exec sleep 60")
    eventually(lambda: output(call))
    os.kill(call.pid, signal.SIGKILL)
    lost = call.wait(30)
    assert isinstance(lost, Lost)
    assert [(one.pid, one.name, one.call_dir) for one in lost.swept] == [(int(output(call)), "sleep", call.call_dir)]


def test_a_record_that_cannot_be_written_is_a_lost_call_that_says_why(bench: Bench) -> None:
    """The tree is gone all the same, and what the record would have said is not swallowed."""
    call = bench.launch("sleep 60 & rm ../calls/1/exit.tmp; exit 3")
    lost = call.wait(30)
    assert isinstance(lost, Lost)
    assert "could not be written" in lost.complaint
    assert '"code": 3' in lost.complaint


def test_a_disk_without_room_for_the_record_starts_nothing(bench: Bench) -> None:
    """The launch fails with the reason, and what the disk cannot remember has not begun."""
    program = f"""
import resource
from pathlib import Path
from storyloop.world.process import Order, launch
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
call_dir = Path({str(bench.home / "full")!r})
launch(Order(call_dir=call_dir, argv=("sleep", "60"), cwd=Path("/"), env={PATH!r}, stdin=None))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "OSError: [Errno 27] File too large" in said.stderr
    assert adopt(bench.home / "full") == Lost(swept=(), complaint="")


def test_a_record_is_whole_or_not_there(bench: Bench) -> None:
    """Whoever looks at any time reads all of it or finds nothing."""
    seen = 0
    for _ in range(10):
        call = bench.launch("true")
        while is_alive(call.call_dir):
            with contextlib.suppress(FileNotFoundError):
                msgspec.json.decode((call.call_dir / "exit").read_bytes(), type=Exit)
                seen += 1
        exit_of(call.wait(30))
        assert not (call.call_dir / "exit.tmp").exists()
    assert seen > 0


# --- one call, one directory, one owner -------------------------------------------------------------------


def test_a_call_directory_serves_one_launch(bench: Bench) -> None:
    """While the call runs and for ever after: one call never becomes two."""
    order = bench.order("true")
    call = bench.watch(launch(order))
    with pytest.raises(CallDirUsedError, match="Cannot launch a second call"):
        launch(order)
    exit_of(call.wait(30))
    with pytest.raises(CallDirUsedError, match="Cannot launch a second call"):
        launch(order)


def test_two_cannot_watch_one_call(bench: Bench) -> None:
    """The second is told so, and the agent goes on undisturbed."""
    call = bench.launch("sleep 60")
    with pytest.raises(CallWatchedError, match="another Storyloop process watches it"):
        adopt(call.call_dir)
    assert call.wait(0.1) is None
    call.stop()
    exit_of(call.wait(30))


def test_a_call_that_was_never_launched_is_lost(bench: Bench) -> None:
    """Also where not even its directory came to be."""
    assert adopt(bench.home / "calls" / "never") == Lost(swept=(), complaint="")


def test_calls_launched_by_many_threads_do_not_hold_each_other(bench: Bench) -> None:
    """Each lock is free when its own call has ended, whatever is still running beside it."""
    orders = [bench.order(f"sleep 0.{number % 4}; echo {number}") for number in range(24)]

    def run(order: Order) -> bytes:
        with contextlib.closing(launch(order)) as call:
            exit_of(call.wait(20))
        eventually(lambda: not is_alive(order.call_dir))
        return tail(order.call_dir / "stdout", 9)

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(run, orders)) == [f"{number}\n".encode() for number in range(24)]


def test_one_thread_waits_and_another_stops(bench: Bench) -> None:
    """The waiting one gets the end."""
    call = bench.launch("sleep 60")
    threading.Timer(0.1, call.stop).start()
    assert exit_of(call.wait(30)).how == "stopped"


# --- sweeping ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def bystander(**env: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], env=PATH | env) as process:
        yield process
        process.kill()


def test_a_sweep_ends_what_has_no_supervisor_any_more(bench: Bench) -> None:
    """By the mark in its environment, below this state directory."""
    with bystander(**{MARK: str(bench.home / "calls" / "dead")}) as left:
        assert [(one.pid, one.name) for one in sweep(bench.home)] == [(left.pid, "sleep")]
        assert left.wait(30) == -signal.SIGKILL


def test_a_sweep_finds_who_is_just_becoming_another_program(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment in `exec` a process shows no environment."""
    asked: list[int] = []
    environ = psutil.Process.environ

    def blank_at_first(process: psutil.Process) -> dict[str, str]:
        asked.append(process.pid)
        return {} if asked.count(process.pid) == 1 else environ(process)

    with bystander(**{MARK: str(bench.home / "calls" / "dead")}) as left:
        monkeypatch.setattr(psutil.Process, "environ", blank_at_first)
        assert [one.pid for one in sweep(bench.home)] == [left.pid]


def test_a_sweep_spares_everybody_else(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Live calls, other state directories (also ones of a similar name), and who has no mark."""
    call = bench.launch("echo up; sleep 60")
    eventually(lambda: output(call))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with (
        bystander() as stranger,
        bystander(**{MARK: str(elsewhere / "call")}) as neighbour,
        bystander(**{MARK: f"{bench.home}-too/call"}) as namesake,
    ):
        assert sweep(bench.home) == []
        assert [process.poll() for process in (stranger, neighbour, namesake)] == [None, None, None]
        namesake.kill()
    assert call.wait(0) is None
    call.stop()
    exit_of(call.wait(30))


def test_a_sweep_spares_itself_and_its_ancestors(bench: Bench) -> None:
    """A Storyloop that an agent started carries the mark of that agent's call."""
    program = (
        f"from pathlib import Path; from storyloop.world.process import sweep; print(sweep(Path({str(bench.home)!r})))"
    )
    said = subprocess.run(
        ["sh", "-c", '"$0" -c "$1"; echo survived', sys.executable, program],
        env=os.environ | {MARK: str(bench.home / "dead")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "[]\nsurvived\n"


# --- what supervision costs -------------------------------------------------------------------------------


def test_a_sleeping_agents_supervisor_sleeps_too(bench: Bench) -> None:
    """It wakes up a few times in a second, and holds little memory."""
    call = bench.launch("sleep 60", worktree=bench.worktree, idle_timeout=50.0, deadline=50.0)
    supervisor = supervisor_of(call)
    assert call.wait(1.0) is None
    before = supervisor.num_ctx_switches().voluntary
    assert call.wait(2.0) is None
    assert supervisor.num_ctx_switches().voluntary - before <= 10
    assert supervisor.memory_info().rss < 15_000_000
    call.stop()
    exit_of(call.wait(30))


def test_the_supervisor_keeps_its_diet() -> None:
    """It runs on the bare standard library, and imports nothing big of that."""
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", SUPERVISOR, "without the words that it needs"],
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in said.stderr.splitlines()}
    assert "fcntl" in imported
    assert imported & {"subprocess", "json", "signal", "enum", "typing", "re", "dataclasses", "logging"} == set()


def test_without_pidfds_the_locks_are_asked(bench: Bench) -> None:
    """What macOS lacks costs milliseconds, not correctness."""
    program = f"""
import os
del os.pidfd_open
from pathlib import Path
from storyloop.world.process import Order, launch
order = Order(call_dir=Path({str(bench.home / "one")!r}), argv=("sleep", "60"), cwd=Path("/"), env={PATH!r}, stdin=None)
call = launch(order)
assert call.wait(0.2) is None
call.stop()
print(call.wait(30).how)
call.close()
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "stopped\n"
