"""Real kills: a `storyloop` process, its supervisor and its agent, ended at controlled and at random moments.

The agent's script stops at a gate: it says so by a file, and goes on when another file is there. So a test knows
what is under way when it kills.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gitkit import files_of, git, isolated, make_repository
from journeykit import BRANCH, told
from storyloop.wiring import make_service
from storyloop.world.process import MARK
from warm import Started

pytestmark = [pytest.mark.processes, pytest.mark.timeout(90)]

LAUNCHED = "echo $PPID >> ../launched; touch ../at-the-gate; "
GATE = {"run": LAUNCHED + "while [ ! -e ../open ]; do sleep 0.02; done"}
STUBBORN_GATE = {"run": "trap '' TERM; " + GATE["run"]}
HALF = {"write": "half.txt", "text": "1\n"}
DONE = {"write": "done.txt", "text": "done\n"}
KILLS = 6
COMPLETED = {"answer": "completed", "summary": "Done."}
WORK = [HALF, GATE, DONE, COMPLETED]


class Home:
    """A directory with a repository, a spec of one story, an agent `one`, and all that runs leave behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repository = path / "repository"
        (path / "tmp").mkdir()
        self.env = isolated(path / "user") | {"STORYLOOP_HOME": str(path / "state"), "TMPDIR": str(path / "tmp")}
        make_repository(self.repository, {"base.txt": "base\n"}, env=self.env)
        self.archive = make_service(self.env)
        self.started: list[Started] = []
        self.spec("test -f done.txt")
        self.config()

    def config(self, text: str = "") -> None:
        plain = f'[agents.one]\nkind = "script"\nscript = "{self.path}/one.json"\n[chains]\ndefault = ["one"]\n'
        plain += '[review]\nenabled = false\n[sandbox]\nmode = "off"\n'  # the agent tells its true process id
        (self.repository / "storyloop.toml").write_text(plain + text)

    def spec(self, *criteria: str, stories: int = 1) -> None:
        told = [
            {
                "id": f"US-{number:03}",
                "title": "The story",
                "acceptanceCriteria": [{"text": verify, "verify": verify} for verify in criteria],
                "priority": number,
            }
            for number in range(1, stories + 1)
        ]
        spec = {"project": "p", "branchName": BRANCH, "description": "", "userStories": told}
        (self.path / "spec.json").write_text(json.dumps(spec))

    def agent(self, *steps: dict[str, Any]) -> None:
        (self.path / "one.json").write_text(json.dumps({"turn": [{"steps": steps}]}))

    # --- what a user does -------------------------------------------------------------------------------

    def start(self, *words: str) -> Started:
        process = Started(words, cwd=self.repository, env=self.env, together=True)
        self.started.append(process)
        return process

    def run(self) -> Started:
        return self.start("run", str(self.path / "spec.json"))

    def run_to_the_gate(self) -> Started:
        process = self.run()
        self.wait_for("at-the-gate")
        return process

    def resume(self) -> Started:
        return self.start("resume")

    def open_the_gate(self) -> None:
        (self.path / "open").touch()

    def wait_for(self, name: str) -> None:
        until((self.path / name).exists, name)

    # --- what has come of it ----------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        (row,) = self.archive.rows(None)
        return row.run_id

    def facts(self) -> list[str]:
        return [line for _, event in self.archive.events(self.run_id) if (line := told(event))]

    def commits(self) -> list[str]:
        return git(self.repository, "log", "--format=%s", f"main..{BRANCH}", env=self.env).splitlines()

    def files(self) -> dict[str, bytes]:
        return files_of(self.repository, BRANCH, env=self.env)

    def kept(self) -> list[dict[str, bytes]]:
        refs = git(self.repository, "for-each-ref", "--format=%(refname)", "refs/storyloop", env=self.env)
        return [files_of(self.repository, ref, env=self.env) for ref in refs.splitlines()]

    def launched(self) -> list[int]:
        """The processes that the agent has been so far."""
        return [int(line) for line in (self.path / "launched").read_text().split()]

    def supervisor(self) -> int:
        (pid_file,) = (self.path / "state" / "runs").glob("*/calls/*/pid")
        return int(pid_file.read_text())

    def marked(self) -> list[psutil.Process]:
        """Every process that carries the mark of a call of this home."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                is_ours = process.environ().get(MARK, "").startswith(f"{self.path}/")
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def until(holds: Callable[[], object], what: str, *, within: float = 30.0) -> None:
    limit = time.monotonic() + within
    while not holds():
        assert time.monotonic() < limit, f"waited too long for: {what}"
        time.sleep(0.02)


def ended(process: Started, *, within: float = 60.0) -> tuple[int, str]:
    """Its exit status and what it printed."""
    output, _ = process.communicate(timeout=within)
    return process.returncode, output


def kill(process: Started, signum: int = signal.SIGKILL) -> None:
    process.send_signal(signum)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home in which, at the end, no process and no temporary file is left, and one worktree."""
    home = Home(tmp_path)
    try:
        yield home
        until(lambda: not home.marked(), "the end of every process", within=30)
        assert list((tmp_path / "tmp").iterdir()) == []
        assert sorted(path.name for path in tmp_path.glob("repository*")) == [
            "repository",
            f"repository-wt-{BRANCH.replace('/', '-')}",
        ]
    finally:
        for process in home.started:
            process.close()
        for left in home.marked():
            left.kill()


GOES_WELL = """\
opened
worktree
start US-001
clean US-001
probe US-001 1 red
call US-001 1 one fresh
resumed
ended US-001 1 completed
prove US-001 1 green
land US-001
clean US-001
final proof 1
finished shipped"""

ASKED_AGAIN = """\
opened
worktree
start US-001
clean US-001
probe US-001 1 red
call US-001 1 one fresh
{}
call US-001 2 one same-agent-retry
ended US-001 2 completed
prove US-001 1 green
land US-001
clean US-001
final proof 1
finished shipped"""


def shipped(home: Home, facts: str) -> None:
    """The story is committed once, by these facts."""
    assert home.facts() == facts.splitlines()
    assert home.commits() == ["US-001: The story"]
    assert home.files() == {"base.txt": b"base\n", "half.txt": b"1\n", "done.txt": b"done\n"}


# --- kill -9 -------------------------------------------------------------------------------------------------


def test_an_agent_in_mid_turn_outlives_us_and_is_adopted(home: Home) -> None:
    """Same call, same process, counted once; its work is all there."""
    home.agent(*WORK)
    kill(home.run_to_the_gate())
    (agent,) = home.launched()
    resumed = home.resume()
    until(lambda: home.facts()[-1] == "resumed", "the resume")
    assert not is_gone(agent)
    home.open_the_gate()
    assert ended(resumed)[0] == 0
    assert home.launched() == [agent]
    shipped(home, GOES_WELL)


def test_an_agent_that_ends_while_nobody_watches_is_not_asked_again(home: Home) -> None:
    """Its end and its answer are found."""
    home.agent(*WORK)
    kill(home.run_to_the_gate())
    home.open_the_gate()
    until(lambda: not home.marked(), "the agent's end")
    assert ended(home.resume())[0] == 0
    assert len(home.launched()) == 1
    shipped(home, GOES_WELL)


def test_a_call_whose_supervisor_died_with_us_is_asked_again(home: Home) -> None:
    """The agent, which nobody looked after, is ended first; its work lies in the worktree for the next call."""
    home.agent(*WORK)
    process = home.run_to_the_gate()
    (agent,) = home.launched()
    kill(process)
    os.kill(home.supervisor(), signal.SIGKILL)
    assert not is_gone(agent)
    resumed = home.resume()
    until(lambda: len(home.launched()) == 2, "the second call")
    assert is_gone(agent)
    home.open_the_gate()
    assert ended(resumed)[0] == 0
    by_whom = "resumed\nended US-001 1 interrupted", "ended US-001 1 interrupted\nresumed"  # who comes first tells it
    shipped(home, ASKED_AGAIN.format(by_whom["resumed" not in home.facts()[6:7]]))


def test_when_all_three_are_killed_the_call_is_asked_again(home: Home) -> None:
    """As a power cut does it."""
    home.agent(*WORK)
    process = home.run_to_the_gate()
    (agent,) = home.launched()
    for pid in (process.pid, home.supervisor(), agent):
        os.kill(pid, signal.SIGKILL)
    home.open_the_gate()
    assert ended(home.resume())[0] == 0
    assert len(home.launched()) == 2
    by_whom = "resumed\nended US-001 1 interrupted", "ended US-001 1 interrupted\nresumed"  # who comes first tells it
    shipped(home, ASKED_AGAIN.format(by_whom["resumed" not in home.facts()[6:7]]))


@pytest.mark.parametrize("whose", ["supervisor", "agent"])
def test_a_kill_of_the_supervisor_or_the_agent_is_a_failed_call(home: Home, whose: str) -> None:
    """We live on, and ask the same agent again; nothing of the first call runs on."""
    home.agent(*WORK)
    process = home.run_to_the_gate()
    (agent,) = home.launched()
    os.kill(home.supervisor() if whose == "supervisor" else agent, signal.SIGKILL)
    home.open_the_gate()
    assert ended(process)[0] == 0
    assert is_gone(agent)
    shipped(home, ASKED_AGAIN.format("ended US-001 1 transient"))


def test_a_check_in_mid_run_ends_with_us_and_is_measured_anew(home: Home) -> None:
    """First it is ended, however deaf, and what it changed and made is set aside; then its round begins anew."""
    home.config('[checks]\nfirst = "true"\nsecond = "test ! -f done.txt || sh ../check.sh"\n')
    (home.path / "check.sh").write_text(
        f"trap '' TERM\n{LAUNCHED}\nwhile :; do echo broken > base.txt; touch made.txt; sleep 0.02; done\n"
    )
    home.agent(HALF, DONE, COMPLETED)
    process = home.run_to_the_gate()
    (home.path / "check.sh").write_text("sleep 1; grep -q base base.txt && test ! -f made.txt")
    kill(process)
    assert ended(home.resume())[0] == 0
    shipped(
        home,
        """\
opened
worktree
baseline first green
baseline second green
start US-001
clean US-001
probe US-001 1 red
call US-001 1 one fresh
ended US-001 1 completed
check US-001 first green
resumed
check US-001 first green [leftover]
check US-001 second green
prove US-001 1 green
land US-001
clean US-001
final proof 1
finished shipped""",
    )


def await_progress(home: Home, process: Started) -> None:
    known = len(home.facts())
    until(lambda: len(home.facts()) > known or process.poll() == 0, "a fact")


def test_a_run_that_is_killed_at_random_moments_comes_to_its_end(home: Home) -> None:
    """Killed and resumed until it is over: one commit, its files, and each answer paid for once."""
    dice = random.Random(9)
    home.config('[checks]\ntest = "grep -q base base.txt"\n')
    home.agent(HALF, {"sleep": 0.2}, DONE, COMPLETED)
    process = home.run()
    until(lambda: home.archive.rows(None), "the run")
    for _ in range(KILLS):
        await_progress(home, process)
        time.sleep(dice.uniform(0.0, 0.5))
        kill(process)
        process.wait()
        process = home.resume()
    assert ended(process)[0] == 0
    assert home.commits() == ["US-001: The story"]
    assert home.files() == {"base.txt": b"base\n", "half.txt": b"1\n", "done.txt": b"done\n"}
    answers = [fact for fact in home.facts() if fact.startswith("ended") and fact.endswith("completed")]
    assert len(answers) == 1


def test_a_signal_in_a_wait_ends_the_wait(home: Home) -> None:
    """It is taken up again by the resume, until the same moment."""
    home.agent({"fail": "limit", "resets_in": 3600})
    process = home.run()
    until(lambda: home.archive.rows(None) and home.facts()[-1] == "ended US-001 1 limit", "the limit")
    kill(process, signal.SIGTERM)
    assert ended(process)[0] == 143
    status, output = ended(home.start("resume", "--no-wait"))
    assert status == 4
    assert home.facts()[-3:] == ["interrupted", "resumed amended", "parked quota"]
    assert "it is over at" in output


def test_a_signal_in_a_check_ends_the_check(home: Home) -> None:
    """It is no measurement, and is measured anew; the proof decides nothing before it is whole."""
    home.config('[checks]\nfirst = "test ! -f done.txt || sh ../check.sh"\n')
    (home.path / "check.sh").write_text(GATE["run"])
    home.agent(HALF, DONE, COMPLETED)
    process = home.run_to_the_gate()
    (check,) = home.launched()
    kill(process, signal.SIGINT)
    assert ended(process)[0] == 130
    assert is_gone(check)
    assert home.facts()[-2:] == ["ended US-001 1 completed", "interrupted"]
    home.open_the_gate()
    assert ended(home.resume())[0] == 0
    assert home.facts()[-7:] == [
        "resumed",
        "check US-001 first green",
        "prove US-001 1 green",
        "land US-001",
        "clean US-001",
        "final proof 1",
        "finished shipped",
    ]


# --- one run, one process ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["resume"], ["run", "../spec.json"]])
def test_a_second_process_is_refused_and_told_who_has_the_run(home: Home, words: list[str]) -> None:
    """Exit 5, and the first one is not disturbed."""
    home.agent(*WORK)
    process = home.run_to_the_gate()
    status, output = ended(home.start(*words))
    assert status == 5
    assert f"is held by process {process.pid}." in output
    home.open_the_gate()
    assert ended(process)[0] == 0
    shipped(home, GOES_WELL.replace("resumed\n", ""))


def test_a_stop_from_another_process_is_a_signal_in_order(home: Home) -> None:
    """The agent is ended, its work is kept, and the run can be resumed."""
    home.agent(*WORK)
    process = home.run_to_the_gate()
    (agent,) = home.launched()
    assert ended(home.start("stop", home.run_id[:8]))[0] == 0
    assert ended(process)[0] == 143
    assert is_gone(agent)
    assert home.kept() == [{"base.txt": b"base\n", "half.txt": b"1\n"}]
    home.open_the_gate()
    assert ended(home.resume())[0] == 0
    shipped(home, ASKED_AGAIN.format("ended US-001 1 interrupted\ninterrupted\nresumed"))


def test_a_story_that_is_skipped_in_mid_turn_is_left_with_its_work_kept(home: Home) -> None:
    """The agent is ended first; the run has not shipped."""
    home.agent(*WORK)
    process = home.run_to_the_gate()
    (agent,) = home.launched()
    assert ended(home.start("skip", home.run_id[:8], "US-001"))[0] == 0
    assert ended(process)[0] == 1
    assert is_gone(agent)
    assert home.facts()[-5:] == [
        "ended US-001 1 interrupted",
        "skip US-001",
        "leave US-001",
        "clean US-001",
        "finished not shipped",
    ]
    assert home.commits() == []
    assert {"base.txt": b"base\n", "half.txt": b"1\n"} in home.kept()


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_one_signal_stops_in_order(home: Home, signum: int, status: int) -> None:
    """The agent is ended, its work is kept by a ref, the way on is told; and it goes on."""
    home.agent(*WORK)
    process = home.run_to_the_gate()
    (agent,) = home.launched()
    kill(process, signum)
    code, output = ended(process)
    assert code == status
    assert is_gone(agent)
    assert home.facts()[-2:] == ["ended US-001 1 interrupted", "interrupted"]
    assert home.kept() == [{"base.txt": b"base\n", "half.txt": b"1\n"}]
    assert f"Go on with: storyloop resume {home.run_id[:8]}" in output
    home.open_the_gate()
    assert ended(home.resume())[0] == 0
    shipped(home, ASKED_AGAIN.format("ended US-001 1 interrupted\ninterrupted\nresumed"))


def test_a_second_signal_leaves_at_once(home: Home) -> None:
    """Also while an agent that is deaf to SIGTERM is given its time; nothing of it is left, and the run goes on."""
    home.agent(HALF, STUBBORN_GATE, DONE, COMPLETED)
    process = home.run_to_the_gate()
    kill(process, signal.SIGINT)
    time.sleep(0.6)
    assert process.poll() is None
    kill(process, signal.SIGINT)
    assert ended(process)[0] == 130
    assert home.facts()[-1] == "call US-001 1 one fresh"  # it did not wait for the end of it
    home.open_the_gate()
    assert ended(home.resume())[0] == 0
    by_whom = "resumed\nended US-001 1 interrupted", "ended US-001 1 interrupted\nresumed"  # who comes first tells it
    shipped(home, ASKED_AGAIN.format(by_whom["resumed" not in home.facts()[6:7]]))


def test_the_agents_of_all_lanes_outlive_a_kill_and_are_adopted(home: Home) -> None:
    """Three stories side by side: the resumed run waits for the very processes, and each call was made once."""
    home.spec("true", stories=3)
    home.config("[limits]\nparallel = 3\n")
    work = {"run": "echo $STORYLOOP_STORY > $STORYLOOP_STORY.txt"}
    home.agent({"run": LAUNCHED + "while [ ! -e ../open ]; do sleep 0.02; done"}, work, COMPLETED)
    run = home.run()
    until(lambda: (home.path / "launched").exists() and len(home.launched()) == 3, "three agents at the gate")
    kill(run)
    ended(run)
    agents = home.launched()
    assert not any(is_gone(pid) for pid in agents)
    resumed = home.resume()
    until(lambda: "resumed" in home.facts(), "the resume")
    assert "US-003 running-agent and 2 more\n" in ended(home.start("status"))[1]
    home.open_the_gate()
    status, output = ended(resumed)
    assert status == 0, output
    assert home.launched() == agents
    assert home.commits() == [f"US-00{number}: The story" for number in (3, 2, 1)]
    assert {name for name in home.files() if name.startswith("US-")} == {f"US-00{n}.txt" for n in (1, 2, 3)}
