"""kill -9, of whoever and whenever: real processes, real git, and the run that goes on afterwards is the same run."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from clikit import User, ended, until

pytestmark = pytest.mark.processes

SPEC = "../spec.md"
STORIES = ("US-001", "US-002", "US-003")
# Leaves half of its work, tells who it is, and goes on only when the gate is open.
AT_THE_GATE = """\
echo half >"$STORYLOOP_STORY.half"
echo "$STORYLOOP_CALL $STORYLOOP_MODE $$" >>"$TMPDIR/turns"
while [ ! -e "$TMPDIR/gate" ]; do sleep 0.05; done
echo "$STORYLOOP_STORY" >"$STORYLOOP_STORY.txt"
answer completed
"""


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """A user with a repository; nothing of what she started is left when she goes."""
    user = User(tmp_path)
    user.makes_a_repository()
    yield user
    until(lambda: not _marked(user))


def _marked(user: User) -> list[psutil.Process]:
    """What runs with the mark of a call or a check of this user's runs."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get("STORYLOOP_CALL_DIR", "").startswith(str(user.state))
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _runs(pid: int) -> bool:
    """Whether the process is more than an entry that nobody has reaped yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _turns(user: User) -> list[list[str]]:
    """Call, mode and process id of each turn that an agent began."""
    file = user.tmp / "turns"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def _supervisor_of(user: User) -> int:
    return int(next((user.state / "runs").glob("*/calls/*/pid")).read_text().split()[0])


def _effects(user: User) -> list[str]:
    """The Storyloop-Effect trailer of every commit on the run's branch."""
    return user.git("log", "--format=%(trailers:key=Storyloop-Effect,valueonly)", "main..feature/x").split()


def _files(user: User) -> list[str]:
    return sorted(user.git("ls-tree", "--name-only", "feature/x").split())


def _start(user: User, *, orphan_grace: str = "30m") -> subprocess.Popen[str]:
    user.has_an_agent(AT_THE_GATE, settings=f'[limits]\norphan_grace = "{orphan_grace}"\n')
    user.has_a_spec("US-001")
    run = user.starts("run", SPEC)
    until(lambda: _turns(user))
    return run


def test_an_agent_in_mid_turn_is_adopted_not_asked_again(user: User) -> None:
    """The same process goes on; its call is counted once; the run keeps its id."""
    run = _start(user)
    before = user.asks("status", "--json").rows[0]
    run.kill()
    ended(run)
    agent = int(_turns(user)[0][2])
    assert _runs(agent)
    resumed = user.starts("resume", "-q")
    until(lambda: user.asks("status", "--json").rows[0]["live"])
    (user.tmp / "gate").touch()
    done = ended(resumed)
    assert done.code == 0
    assert _turns(user) == [["1", "fresh", str(agent)]]
    after = user.asks("show", "--json").rows
    assert after["run_state"]["run_id"] == before["run_id"]
    assert (after["stories"][0]["state"], after["stories"][0]["calls"]) == ("passed", 1)
    assert _files(user) == ["README", "US-001.half", "US-001.txt", "storyloop.toml"]
    assert len(_effects(user)) == 1


def test_a_killed_supervisor_costs_the_call_and_nothing_else(user: User) -> None:
    """Its agent is swept, the work is pinned, and the same agent is asked again."""
    run = _start(user)
    agent = int(_turns(user)[0][2])
    os.kill(_supervisor_of(user), signal.SIGKILL)
    until(lambda: len(_turns(user)) == 2)
    assert not _runs(agent)
    assert "US-001.half" in user.git("ls-tree", "--name-only", _pin(user, call=1))
    (user.tmp / "gate").touch()
    assert ended(run).code == 0
    assert [turn[:2] for turn in _turns(user)] == [["1", "fresh"], ["2", "same-agent-retry"]]


def test_a_killed_agent_is_asked_again(user: User) -> None:
    """A crash of the call is not a failure of the work."""
    run = _start(user)
    os.kill(int(_turns(user)[0][2]), signal.SIGKILL)
    until(lambda: len(_turns(user)) == 2)
    (user.tmp / "gate").touch()
    assert ended(run).code == 0
    story = user.asks("show", "--json").rows["stories"][0]
    assert (story["attempts"], story["calls"]) == (1, 2)


def test_when_all_of_it_is_killed_resume_sweeps_and_asks_again(user: User) -> None:
    """What the agent had left in the worktree is still there, and pinned."""
    run = _start(user)
    agent = int(_turns(user)[0][2])
    run.kill()
    os.kill(_supervisor_of(user), signal.SIGKILL)
    ended(run)
    assert _runs(agent)
    resumed = user.starts("resume", "-q")
    until(lambda: len(_turns(user)) == 2)
    assert not _runs(agent)
    assert "US-001.half" in user.git("ls-tree", "--name-only", _pin(user, call=1))
    (user.tmp / "gate").touch()
    assert ended(resumed).code == 0
    assert [turn[1] for turn in _turns(user)] == ["fresh", "same-agent-retry"]
    assert len(_effects(user)) == 1


def test_an_agent_that_nobody_comes_back_for_is_ended(user: User) -> None:
    """Past `orphan_grace` the supervisor ends it; `resume` then asks again."""
    run = _start(user, orphan_grace="1s")
    run.kill()
    ended(run)
    until(lambda: not _marked(user))
    (user.tmp / "gate").touch()
    assert user.asks("resume", "-q").code == 0
    assert [turn[1] for turn in _turns(user)] == ["fresh", "same-agent-retry"]


def test_the_second_interrupt_leaves_at_once(user: User) -> None:
    """The first would wait for the agent to end in order; this one is stubborn."""
    user.has_an_agent("trap '' TERM\n" + AT_THE_GATE)
    user.has_a_spec("US-001")
    run = user.starts("run", SPEC)
    until(lambda: _turns(user))
    run.send_signal(signal.SIGINT)
    time.sleep(0.3)
    run.send_signal(signal.SIGINT)
    assert ended(run).code == 130
    (user.tmp / "gate").touch()
    assert user.asks("resume", "-q").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_again_and_again_it_ends_where_it_would_have_ended(user: User, seed: int) -> None:
    """Three stories, a kill -9 at any moment, as often as it takes: three commits, each once, and every file."""
    user.has_an_agent('echo "$STORYLOOP_STORY" >"$STORYLOOP_STORY.txt"; sleep 0.1; answer completed\n')
    user.has_a_spec(*STORIES)
    moments = random.Random(seed)
    run = user.starts("run", SPEC, "-q")
    killed = 0
    for _ in range(12):
        time.sleep(moments.uniform(0.4, 1.6))
        if run.poll() is not None:
            break
        run.kill()
        ended(run)
        killed += 1
        run = user.starts("resume", "-q") if user.asks("status", "--json").rows else user.starts("run", SPEC, "-q")
    assert ended(run).code == 0
    assert killed
    assert user.git("log", "--format=%s", "--reverse", "main..feature/x").splitlines() == [
        f"{story}: Make {story}" for story in STORIES
    ]
    assert len(set(_effects(user))) == len(_effects(user)) == len(STORIES)
    assert _files(user) == ["README", *(f"{story}.txt" for story in STORIES), "storyloop.toml"]


def _pin(user: User, *, call: int) -> str:
    """The ref that keeps the files as this call left them."""
    refs = user.git("for-each-ref", "--format=%(refname)", "refs/storyloop").split()
    return next(ref for ref in refs if f"story-{call}/" in ref)
