"""The contract of the `Agents` port, for scripts as processes and in memory; then what only processes do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from storyloop.agents.memory import MemoryAgents
from storyloop.agents.processes import ProcessAgents
from storyloop.agents.script import parse_script
from storyloop.agents.start import SPOOL_CAP
from storyloop.core.artifacts import CommitMessage, DevelopmentResult
from storyloop.core.errand import Mode
from storyloop.core.errors import OperatorError, ProgrammerError, UserError
from storyloop.core.facts import Answered, CallReport, Failed, Failure, Interrupted, Malformed
from storyloop.core.knowledge import NotedFile, NotedKnowledge
from storyloop.core.policy import AgentKind, AgentRef, AgentSpec, Drain
from storyloop.core.usage import Usage
from storyloop.core.words import DevelopmentStatus
from storyloop.ports.agents import Agents, CallOrder, artifact_path

ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/home/u", "SECRET": "s", "PASSED": "p", "LC_ALL": "C.UTF-8"}
DONE = Answered(artifact=DevelopmentResult(status=DevelopmentStatus.COMPLETED, summary="As scripted."))
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Bench:
    """An implementation with a worktree, asked by scripts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.worktree = root / "worktree"
        self.worktree.mkdir()
        self.calls = 0

    def order(self, **settings: Any) -> CallOrder:
        self.calls += 1
        plain: dict[str, Any] = {
            "run_id": "run-1",
            "key": f"US-001/1/story/0/{self.calls}",
            "call_dir": str(self.root / "calls" / str(self.calls)),
            "worktree": str(self.worktree),
            "ref": AgentRef("mine", "small"),
            "agent": AgentSpec(kind=AgentKind.SCRIPT, script=str(self.root / "turns.toml")),
            "drain": Drain.STORY,
            "story": "US-001",
            "attempt": 0,
            "call": 1,
            "mode": Mode.FRESH,
            "session": None,
            "prompt": "Do the story.",
            "call_timeout": 20.0,
            "idle_timeout": 10.0,
            "orphan_grace": 10.0,
        }
        return CallOrder(**plain | settings)

    def agents(self, script: str) -> Agents:
        raise NotImplementedError

    def files(self) -> dict[str, bytes]:
        raise NotImplementedError

    def play(self, steps: str, **settings: Any) -> CallReport:
        """What comes of a turn with these steps."""
        return self.ask(f"[[turn]]\nsteps = [{steps}]\n", **settings)

    def ask(self, script: str, **settings: Any) -> CallReport:
        report = self.agents(script).launch(self.order(**settings)).wait(30)
        assert report is not None
        return report


class Processes(Bench):
    def agents(self, script: str) -> Agents:
        (self.root / "turns.toml").write_text(script)
        return ProcessAgents(ENVIRON)

    def files(self) -> dict[str, bytes]:
        paths = (path for path in self.worktree.rglob("*") if not path.is_dir() or path.is_symlink())
        named = {str(path.relative_to(self.worktree)): path for path in paths}
        return {
            name: os.readlink(os.fsencode(path)) if path.is_symlink() else path.read_bytes()
            for name, path in named.items()
            if not name.startswith(".storyloop/")
        }

    def shell(self, line: str, *, spool_cap: int = SPOOL_CAP, **more: Any) -> CallReport:
        """What comes of an agent that is a line of shell."""
        agents = ProcessAgents(ENVIRON, spool_cap=spool_cap)
        report = agents.launch(self.order(agent=in_shell(line, **more.pop("agent", {})), **more)).wait(30)
        assert report is not None
        return report


def in_shell(line: str, **settings: Any) -> AgentSpec:
    return AgentSpec(kind=AgentKind.COMMAND, command=("sh", "-c", line), **settings)


def is_gone(pid_file: Path) -> bool:
    """Nothing of that process runs any more; who buries it does not matter."""
    try:
        return psutil.Process(int(pid_file.read_text())).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Memory(Bench):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.worktrees: dict[str, MutableMapping[str, bytes]] = {}

    def agents(self, script: str) -> MemoryAgents:
        scripts = {"mine": parse_script(script.encode(), name="turns.toml")}
        return MemoryAgents(scripts, files_of=lambda path: self.worktrees.setdefault(path, {}), now=lambda: NOW)

    def files(self) -> dict[str, bytes]:
        return dict(self.worktrees.get(str(self.worktree), {}))


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path)


@pytest.fixture(params=[pytest.param(Processes, marks=pytest.mark.processes), Memory])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    return request.param(tmp_path)


# --- what both promise: a call ends in one report --------------------------------------------------------------


def test_a_call_with_a_valid_artifact_is_answered(bench: Bench) -> None:
    """Status, summary, files, next steps and knowledge come back as a value; its files are in the worktree."""
    report = bench.play(
        """{ write = "src/a.py", text = "x = 1\\n" },
           { answer = "partial", summary = "a < b & c", files = ["src/a.py"], next_steps = "more", """
        """knowledge = "<file path='src/a.py' purpose='x'/>" }"""
    )
    assert report.outcome == Answered(
        artifact=DevelopmentResult(
            status=DevelopmentStatus.PARTIAL,
            summary="a < b & c",
            files_changed=("src/a.py",),
            next_steps="more",
            knowledge=NotedKnowledge(files=(NotedFile(path="src/a.py", purpose="x"),)),
        )
    )
    assert bench.files() == {"src/a.py": b"x = 1\n"}
    assert (report.session, report.usage, report.cost_usd, report.leftovers) == (None, None, None, 0)


def test_each_drain_has_its_artifact(bench: Bench) -> None:
    """A commit errand is answered by a message, and a story's result is none."""
    report = bench.play('{ commit = "Add a & b", body = "why" }', drain=Drain.COMMIT)
    assert report.outcome == Answered(artifact=CommitMessage(subject="Add a & b", body="why"))
    assert isinstance(bench.play('{ answer = "completed" }', drain=Drain.COMMIT).outcome, Malformed)


def test_the_artifact_may_stand_in_the_output(bench: Bench) -> None:
    """Without a file the last element with the right root is taken, whatever is printed around it."""
    report = bench.play(
        """{ garbage = "<development-result>a draft</development-result>", to = "stdout" },
           { print = "```xml" }, { answer = "completed", to = "stdout" }, { print = "``` I am done." }"""
    )
    assert report.outcome == DONE
    assert report.snippet.endswith("``` I am done.")


def test_the_file_comes_before_the_output(bench: Bench) -> None:
    """What is printed does not replace what was written where it belongs."""
    report = bench.play('{ answer = "completed" }, { answer = "failed", next_steps = "x", to = "stdout" }')
    assert report.outcome == DONE


def test_a_blank_file_is_no_artifact(bench: Bench) -> None:
    """An agent that only touched the file may have printed its answer."""
    assert bench.play('{ garbage = " \\n" }, { answer = "completed", to = "stdout" }').outcome == DONE


def test_no_artifact_at_all_is_malformed(bench: Bench) -> None:
    """Exit status 0 alone is never believed."""
    assert bench.play('{ print = "All done!" }').outcome == Malformed(
        errors="- No result was found: there is no artifact file, and none in the output. "
        "Expected <development-result> in the artifact file."
    )


def test_an_invalid_artifact_is_malformed_with_its_text(bench: Bench) -> None:
    """The errors and what was received come back for the retry."""
    assert bench.play('{ garbage = "<development-result><status>done</status></development-result>" }').outcome == (
        Malformed(
            errors="- line 1, <status>: found 'done'; expected one of completed, partial, failed\n"
            "- line 1, <development-result>: expected also <summary>",
            text="<development-result><status>done</status></development-result>",
        )
    )


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("{ exit = 3 }", "It ended with exit status 3."),
        ('{ print = "no network\\n", to = "stderr" }, { exit = 1 }', "It ended with exit status 1.\nno network"),
        ('{ answer = "completed" }, { exit = 1 }', "It ended with exit status 1."),
        ("{ crash = true }", "It was killed by SIGKILL."),
        ('{ answer = "completed" }, { crash = true }', "It was killed by SIGKILL."),
        (
            '{ edit = "a", find = "x", replace = "y" }',
            "It ended with exit status 70.\nThe script cannot go on: a does not hold 'x'",
        ),
    ],
)
def test_a_call_that_breaks_off_is_transient(bench: Bench, steps: str, message: str) -> None:
    """Any other end than exit status 0 is a failure of the call, also when there is a valid artifact."""
    assert bench.play(steps).outcome == Failed(failure=Failure.TRANSIENT, message=message)


@pytest.mark.parametrize(
    ("steps", "limits", "message"),
    [
        ("{ hang = true }", {"idle_timeout": 0.5}, "It did nothing for 0.5 s and was ended."),
        ("{ sleep = 9 }", {"idle_timeout": 0.5}, "It did nothing for 0.5 s and was ended."),
        ("{ hang = true }", {"call_timeout": 0.5}, "It took longer than 0.5 s and was ended."),
    ],
)
def test_a_call_that_takes_too_long_timed_out(bench: Bench, steps: str, limits: dict[str, float], message: str) -> None:
    """Silence and the deadline end a call; that can be told from a crash."""
    report = bench.play(f'{{ answer = "completed" }}, {steps}', **limits)
    assert report.outcome == Failed(failure=Failure.TRANSIENT, message=message, timed_out=True)
    assert report.seconds >= 0.5


@pytest.mark.parametrize("failure", Failure)
def test_a_reported_failure_keeps_its_class(bench: Bench, failure: Failure) -> None:
    """What the report says comes before exit status and artifact."""
    steps = f'{{ answer = "completed" }}, {{ fail = "{failure}", message = "so it is" }}, {{ exit = 1 }}'
    assert bench.play(steps).outcome == Failed(failure=failure, message="so it is")
    told = Failed(failure=failure, message=f"mine:small reports {failure}.")
    assert bench.play(f'{{ fail = "{failure}" }}').outcome == told


def test_a_limit_says_when_it_ends(bench: Bench) -> None:
    """As a moment, or as seconds from now; it comes back in UTC."""
    stated = bench.play('{ fail = "limit", resets_at = "2026-05-01T02:00:00+02:00" }').outcome
    assert isinstance(stated, Failed)
    assert stated.resets_at == datetime(2026, 5, 1, 0, 0, tzinfo=UTC)
    counted = bench.play('{ fail = "limit", resets_in = 3600 }').outcome
    assert isinstance(counted, Failed)
    assert counted.resets_at is not None
    now = NOW if isinstance(bench, Memory) else datetime.now(UTC)
    assert abs(counted.resets_at - now - timedelta(hours=1)) < timedelta(seconds=10)


def test_usage_and_session_are_reported_however_the_call_ends(bench: Bench) -> None:
    """A failed call has cost tokens too. Where the report names no model, the one that was asked for is it."""
    steps = '{ usage = { input_tokens = 10, output_tokens = 2 } }, { session = "s-1" }'
    for more in ("", ', { answer = "completed" }', ", { exit = 1 }", ", { crash = true }"):
        report = bench.play(steps + more)
        assert report.usage == Usage(input_tokens=10, output_tokens=2, model="small")
        assert report.session == "s-1"
    assert bench.play('{ usage = { output_tokens = 1, model = "big" } }').usage == Usage(output_tokens=1, model="big")
    assert bench.play('{ usage = { input_tokens = 0, model = "big" } }').usage is None  # no call takes no token


@pytest.mark.parametrize(
    "report",
    ["{ usage = { input_tokens = -1 } }", '{ usage = { input_tokens = "many" } }', '{ session = "a b\\u0000" }'],
)
def test_a_report_of_the_wrong_shape_is_ignored_with_a_note(bench: Bench, report: str) -> None:
    """It costs the agent nothing but the report."""
    ended = bench.play(f'{report}, {{ answer = "completed" }}')
    assert (ended.outcome, ended.usage, ended.session) == (DONE, None, None)
    assert "[The agent's report was ignored: " in ended.snippet


def test_what_an_agent_leaves_running_is_ended_and_counted(bench: Bench) -> None:
    """Also what hides in a session of its own, and what is deaf to SIGTERM."""
    report = bench.play(
        """{ leave = 60 }, { leave = 60, detached = true }, { leave = 60, detached = true, stubborn = true, count = 2 },
           { answer = "completed" }"""
    )
    assert (report.outcome, report.leftovers) == (DONE, 4)


def test_a_turn_changes_files_in_every_way(bench: Bench) -> None:
    """Write, append, edit, delete, rename, link, run; bytes that are no text, names that are no text."""
    bench.play(
        """{ write = "a.txt", text = "one\\n" }, { append = "a.txt", text = "two\\n" },
           { edit = "a.txt", find = "two", replace = "three" },
           { write = "bin", base64 = "/wD+" }, { chmod = "bin", mode = "755" },
           { write = "d%FFir/100%25", text = "odd" },
           { write = "old/x/1", text = "1" }, { rename = "old", to = "new" },
           { write = "gone/y", text = "2" }, { delete = "gone" }, { delete = "never-there" },
           { symlink = "link", to = "a.txt" }, { run = "touch ran" }"""
    )
    assert bench.files() == {
        "a.txt": b"one\nthree\n",
        "bin": b"\xff\x00\xfe",
        os.fsdecode(b"d\xffir/100%"): b"odd",
        "new/x/1": b"1",
        "link": b"a.txt",
        "ran": b"",
    }


TURNS = """
[[turn]]
story = "US-002"
steps = [{ answer = "completed", summary = "two" }]
[[turn]]
drain = ["story", "fix"]
attempt = 1
mode = ["continuation", "same-agent-retry"]
steps = [{ answer = "completed", summary = "second attempt" }]
[[turn]]
mode = "format-retry"
steps = [{ answer = "completed", summary = "mended" }]
[[turn]]
steps = [{ answer = "completed", summary = "first" }]
[[turn]]
steps = [{ answer = "completed", summary = "then" }]
"""


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"story": "US-002", "call": 7}, "two"),
        ({"attempt": 1, "mode": Mode.CONTINUATION, "call": 2}, "second attempt"),
        ({"attempt": 1, "mode": Mode.FORMAT_RETRY, "call": 3}, "mended"),
        ({"call": 1}, "first"),
        ({"call": 2}, "then"),
        ({"call": 9}, "then"),
    ],
)
def test_a_turn_is_chosen_by_what_was_asked(bench: Bench, asked: dict[str, Any], answer: str) -> None:
    """The first whose conditions hold; of those that state the same, by the number of the call."""
    outcome = bench.ask(TURNS, **asked).outcome
    assert isinstance(outcome, Answered)
    assert isinstance(outcome.artifact, DevelopmentResult)
    assert outcome.artifact.summary == answer


def test_a_script_without_a_turn_for_it_is_a_fault_of_the_configuration(bench: Bench) -> None:
    """Not the work's and not a passing one: another agent is asked."""
    outcome = bench.ask('[[turn]]\nstory = "US-009"\nsteps = []\n').outcome
    assert isinstance(outcome, Failed)
    assert outcome.failure is Failure.CONFIG
    assert "has no turn for story US-001, drain story, iteration 0, attempt 0, call 1, mode fresh." in outcome.message


def test_the_same_call_is_never_launched_twice(bench: Bench) -> None:
    """It is adopted instead; a second launch would double the work."""
    agents, order = bench.agents('[[turn]]\nsteps = [{ answer = "completed" }]'), bench.order()
    watch = agents.launch(order)
    assert watch.wait(30) == agents.adopt(order).wait(30)
    with pytest.raises(ProgrammerError):
        agents.launch(order)


def test_adopting_a_call_that_never_began_is_an_interruption(bench: Bench) -> None:
    """It is asked again, and nothing counts as failed."""
    report = bench.agents("[[turn]]\nsteps = []").adopt(bench.order()).wait(30)
    assert report is not None
    assert report.outcome == Interrupted(reason="Nothing is left of the call that had begun.")


def test_activity_is_the_last_line_since_the_last_question(bench: Bench) -> None:
    """One line, without escape sequences, and nothing when nothing is new."""
    agents = bench.agents('[[turn]]\nsteps = [{ print = "one\\n\\u001b[1mtwo\\u001b[0m \\n\\n" }]')
    watch = agents.launch(bench.order())
    watch.wait(30)
    seen = watch.activity()
    assert seen is not None
    assert (seen.text, watch.activity()) == ("two", None)


# --- scripts that cannot be played ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("turn = 1", "The script s.toml has no turns. Begin each turn with [[turn]]."),
        ("[[turn", "The script s.toml cannot be read: "),
        ("[[turn]]\nstory = 'x'", "Turn 1 of s.toml lacks steps. Add it."),
        ("[[turn]]\nsteps = []\n[[turn]]\nstroy = 'x'\nsteps = []", "Turn 2 of s.toml has the unknown word stroy."),
        ("[[turn]]\nsteps = [{}]", "Turn 1 of s.toml, step 1 says nothing to do. Begin it with one of: write, "),
        ("[[turn]]\nsteps = ['x']", "Turn 1 of s.toml, step 1 is 'x'. Make it a table, such as { run = \"make\" }."),
        ("[[turn]]\nsteps = [{ exit = 'x' }]", "Turn 1 of s.toml, step 1: exit is 'x'. Make it a whole number."),
        ("[[turn]]\nsteps = [{ exit = 0 }, { sleep = true }]", "step 2: sleep is True. Make it a number."),
        ("[[turn]]\nsteps = [{ answer = 'done' }]", "answer is 'done'. Make it one of: completed, failed, partial."),
        ("[[turn]]\nsteps = [{ rename = 'a' }]", "Turn 1 of s.toml, step 1 lacks to. Add it."),
        ("[[turn]]\nsteps = [{ run = 'a', loud = 1 }]", "step 1 has the unknown word loud. It may have: run."),
        ("[[turn]]\nsteps = [{ write = '%G1' }]", "Turn 1 of s.toml, step 1 cannot be played: "),
        ("[[turn]]\nsteps = [{ write = 'a', base64 = '?' }]", "Turn 1 of s.toml, step 1 cannot be played: "),
        ("[[turn]]\nsteps = [{ chmod = 'a', mode = '9' }]", "Turn 1 of s.toml, step 1 cannot be played: "),
        ("[[turn]]\nsteps = [{ fail = 'limit', resets_at = '2026-01-01' }]", "resets_at has no time zone. Correct"),
    ],
)
def test_a_script_is_refused_with_file_turn_and_cure(script: str, told: str) -> None:
    """What cannot be played fails when it is read, before any agent is asked."""
    with pytest.raises(UserError) as refused:
        parse_script(script.encode(), name="s.toml")
    assert told in str(refused.value)


def test_a_script_may_be_json() -> None:
    """The same words, by the file's name."""
    script = parse_script(b'{"turn": [{"attempt": 1, "steps": [{"exit": 2}]}]}', name="s.json")
    assert script.turns == parse_script(b"[[turn]]\nattempt = '1'\nsteps = [{ exit = 2 }]", name="s.toml").turns


# --- what only processes do: the contract of an agent of one's own ------------------------------------------------

ANSWER = "<development-result><status>completed</status><summary>Done.</summary></development-result>"
WRITE = f"echo '{ANSWER}' > $STORYLOOP_ARTIFACT"
OWN = Answered(artifact=DevelopmentResult(status=DevelopmentStatus.COMPLETED, summary="Done."))


@pytest.mark.processes
def test_a_program_finds_everything_in_its_environment(processes: Processes) -> None:
    """The variables of the contract, the allow-list, `env` and `pass_env`, and nothing else of the user's shell."""
    report = processes.shell(
        f"env > seen; pwd >> seen; {WRITE}",
        agent={"env": {"MY_SETTING": "1", "STORYLOOP_RUN": "forged"}, "pass_env": ("PASSED", "ABSENT")},
        attempt=2,
        call=4,
        mode=Mode.CONTINUATION,
        session="s-9",
        key="US-001/3/story/2/4",
    )
    assert report.outcome == OWN
    *lines, where = processes.files()["seen"].decode().splitlines()
    seen = dict(line.split("=", 1) for line in lines)
    place = f"{processes.worktree}/.storyloop"
    assert where == str(processes.worktree)
    assert {name: value for name, value in seen.items() if name.startswith("STORYLOOP_")} == {
        "STORYLOOP_RUN": "run-1",
        "STORYLOOP_STORY": "US-001",
        "STORYLOOP_DRAIN": "story",
        "STORYLOOP_ITERATION": "0",
        "STORYLOOP_ATTEMPT": "2",
        "STORYLOOP_CALL": "4",
        "STORYLOOP_MODE": "continuation",
        "STORYLOOP_MODEL": "small",
        "STORYLOOP_SESSION": "s-9",
        "STORYLOOP_ARTIFACT": f"{place}/US-001-3-story-2-4.xml",
        "STORYLOOP_SCHEMA": f"{place}/development-result.xsd",
        "STORYLOOP_REPORT": f"{place}/US-001-3-story-2-4.report.json",
        "STORYLOOP_CALL_DIR": f"{processes.root}/calls/1",
    }
    ours = {name for name in seen if not name.startswith("STORYLOOP_")} - {"PWD", "OLDPWD", "SHLVL", "_"}
    assert ours == {"PATH", "HOME", "LC_ALL", "MY_SETTING", "PASSED"}


@pytest.mark.processes
def test_what_a_prompt_refers_to_lies_beside_the_worktree_s_files_for_that_call_alone(processes: Processes) -> None:
    """Whatever an agent made of the last one; and it is kept with the call."""
    line = f"cat .storyloop/background.md >>got; ln -sf /dev/null .storyloop/background.md; {WRITE}"
    for background in ("It is known.\n", "More is.\n"):
        assert processes.shell(line, background=background).outcome == OWN
    assert processes.files()["got"] == b"It is known.\nMore is.\n"
    kept = [path.read_text() for path in sorted(processes.root.glob("calls/*/background.md"))]
    assert kept == ["It is known.\n", "More is.\n"]
    assert processes.shell(f"test ! -L .storyloop/background.md && {WRITE}").outcome == OWN


@pytest.mark.processes
def test_the_prompt_comes_on_stdin_and_the_schema_lies_beside(processes: Processes) -> None:
    """Whole, whatever its letters; the schema is the one that ships; the directory ignores itself."""
    prompt = "Ünïcödé\n" * 20_000
    line = f"cat > got; cp $STORYLOOP_SCHEMA schema; cp .storyloop/.gitignore i; {WRITE}"
    report = processes.shell(line, prompt=prompt)
    assert report.outcome == OWN
    files = processes.files()
    assert files["got"].decode() == prompt
    assert b'name="development-result"' in files["schema"]
    assert files["i"] == b"*\n"


@pytest.mark.processes
def test_the_artifact_is_fresh_for_each_call(processes: Processes) -> None:
    """An answer that lies there from another time is never taken for this call's."""
    order = processes.order()
    stale = Path(artifact_path(order.worktree, order.key))
    stale.parent.mkdir()
    stale.write_text(ANSWER)
    stale.with_suffix(".report.json").write_text('{"session_id": "old"}')
    processes.calls = 0
    report = processes.shell("true")
    assert isinstance(report.outcome, Malformed)
    assert report.session is None


@pytest.mark.processes
@pytest.mark.parametrize(
    ("trap", "told"),
    [
        ("ln -s /etc/passwd $STORYLOOP_ARTIFACT", "is a symlink"),
        ("mkfifo $STORYLOOP_ARTIFACT", "is not an ordinary file"),
        ("mkdir $STORYLOOP_ARTIFACT", "is not an ordinary file"),
        ("head -c 2000000 /dev/zero > $STORYLOOP_ARTIFACT", "is larger than 1,048,576 bytes"),
        ("mv .storyloop elsewhere; ln -s elsewhere .storyloop; " + WRITE, "is not an ordinary directory"),
    ],
    ids=["symlink", "fifo", "directory", "oversize", "linked directory"],
)
def test_an_artifact_is_read_as_an_ordinary_file_only(processes: Processes, trap: str, told: str) -> None:
    """What else stands there is malformed, said in a sentence, and blocks nobody."""
    outcome = processes.shell(trap).outcome
    assert isinstance(outcome, Malformed)
    assert told in outcome.errors


@pytest.mark.processes
def test_a_deleted_directory_of_ours_is_made_anew(processes: Processes) -> None:
    """The next call finds schema, and a directory that ignores itself."""
    processes.shell("rm -rf .storyloop; ln -s /tmp .storyloop")
    assert processes.shell(f"test -f $STORYLOOP_SCHEMA && {WRITE}").outcome == OWN
    assert (processes.worktree / ".storyloop" / ".gitignore").read_text() == "*\n"


@pytest.mark.processes
@pytest.mark.parametrize("trap", ["ln -s /etc/passwd", "mkfifo", "echo '{' >"])
def test_a_report_that_cannot_be_read_is_ignored_with_a_note(processes: Processes, trap: str) -> None:
    """It spoils nothing."""
    report = processes.shell(f"{trap} $STORYLOOP_REPORT; {WRITE}")
    assert report.outcome == OWN
    assert report.snippet.startswith("[The agent's report was ignored: ")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("command", "failure", "told"),
    [
        (("no-such-agent",), Failure.MISSING, "no-such-agent was not found or is not executable. Install it, or"),
        (("./plain",), Failure.MISSING, "./plain was not found or is not executable."),
        (("./no-interpreter",), Failure.MISSING, "[agents.mine]"),
    ],
)
def test_a_program_that_is_not_there_is_missing(
    processes: Processes, command: tuple[str, ...], failure: Failure, told: str
) -> None:
    """A report, not an error: the next agent is asked."""
    (processes.worktree / "plain").write_text("not executable")
    (processes.worktree / "no-interpreter").write_text("#!/no/such/interpreter\n")
    (processes.worktree / "no-interpreter").chmod(0o755)
    agent = AgentSpec(kind=AgentKind.COMMAND, command=command)
    report = ProcessAgents(ENVIRON).launch(processes.order(agent=agent)).wait(30)
    assert report is not None
    assert isinstance(report.outcome, Failed)
    assert report.outcome.failure is failure
    assert told in report.outcome.message


@pytest.mark.processes
def test_an_agent_that_floods_its_output_is_ended(processes: Processes) -> None:
    """The disk is not the agent's to fill."""
    outcome = processes.shell("yes", spool_cap=1_000_000).outcome
    assert outcome == Failed(failure=Failure.TRANSIENT, message="It printed more than is kept and was ended.")


@pytest.mark.processes
def test_a_worktree_that_is_gone_is_for_the_operator(processes: Processes) -> None:
    """No agent is to blame, and none is started."""
    processes.worktree.rmdir()
    with pytest.raises(OperatorError, match="could not be prepared"):
        processes.shell("true")


@pytest.mark.processes
def test_stopping_a_call_interrupts_it(processes: Processes) -> None:
    """Its whole tree is gone, and even a finished artifact does not make it a success."""
    agent = in_shell(f"{WRITE}; sleep 60 & echo $! > pid; wait")
    watch = ProcessAgents(ENVIRON).launch(processes.order(agent=agent))
    wait_for(processes.worktree / "pid")
    assert watch.wait(0) is None
    watch.stop()
    report = watch.wait(10)
    assert report is not None
    assert report.outcome == Interrupted(reason="We stopped the agent.")
    assert is_gone(processes.worktree / "pid")


def wait_for(path: Path) -> None:
    for _ in range(500):
        if path.exists() and path.read_text().endswith("\n"):
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


@pytest.fixture
def killed(processes: Processes) -> Iterator[Callable[[str, CallOrder], None]]:
    """Launch a call from another Storyloop, and kill -9 that as soon as the agent has begun."""

    def launch_and_kill(line: str, order: CallOrder) -> None:
        program = f"""
import sys, time, msgspec
from storyloop.agents.processes import ProcessAgents
from storyloop.ports.agents import CallOrder
ProcessAgents({ENVIRON!r}).launch(msgspec.json.decode(sys.stdin.read(), type=CallOrder))
time.sleep(60)
"""
        order = msgspec.structs.replace(order, agent=in_shell(f"echo > begun; {line}"))
        storyloop = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
        assert storyloop.stdin is not None
        storyloop.stdin.write(msgspec.json.encode(order))
        storyloop.stdin.close()
        try:
            wait_for(processes.worktree / "begun")
        finally:
            storyloop.send_signal(signal.SIGKILL)
            storyloop.wait()

    return launch_and_kill


@pytest.mark.processes
@pytest.mark.parametrize("pause", ["0", "1"], ids=["ended meanwhile", "still under way"])
def test_a_call_outlives_storyloop_and_is_adopted(
    processes: Processes, killed: Callable[[str, CallOrder], None], pause: str
) -> None:
    """Nothing is asked twice: the same call's artifact is found, whether it has ended or not."""
    order = processes.order()
    killed(f"sleep {pause}; {WRITE}", order)
    if pause == "0":
        wait_for(Path(artifact_path(order.worktree, order.key)))
        time.sleep(0.3)
    report = ProcessAgents(ENVIRON).adopt(order).wait(10)
    assert report is not None
    assert report.outcome == OWN


@pytest.mark.processes
def test_a_call_that_nobody_adopts_is_ended(processes: Processes, killed: Callable[[str, CallOrder], None]) -> None:
    """After the grace it is over, and counts as interrupted."""
    order = processes.order(orphan_grace=0.1)
    killed("echo $$ > pid; exec sleep 60", order)
    wait_for(processes.worktree / "pid")
    for _ in range(1_000):
        if is_gone(processes.worktree / "pid"):
            break
        time.sleep(0.01)
    report = ProcessAgents(ENVIRON).adopt(order).wait(10)
    assert report is not None
    assert isinstance(report.outcome, Interrupted)


@pytest.mark.processes
def test_a_call_whose_supervisor_was_killed_is_transient(processes: Processes) -> None:
    """While we watched: the same agent is asked again, and nothing of the first is left."""
    order = processes.order(agent=in_shell("echo $$ > pid; exec sleep 60"))
    watch = ProcessAgents(ENVIRON).launch(order)
    wait_for(processes.worktree / "pid")
    os.kill(int(Path(order.call_dir, "pid").read_text()), signal.SIGKILL)
    report = watch.wait(10)
    assert report is not None
    assert isinstance(report.outcome, Failed)
    assert "supervisor was killed" in report.outcome.message
    assert is_gone(processes.worktree / "pid")


@pytest.mark.processes
def test_a_call_that_has_ended_holds_nothing_open(processes: Processes) -> None:
    """A run of a thousand calls does not run out of files."""
    processes.shell(WRITE)
    before = len(os.listdir("/proc/self/fd"))
    processes.shell(WRITE)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.processes
def test_activity_of_a_running_call_is_read_within_a_bound(processes: Processes) -> None:
    """The last line so far, at most 120 characters, from the last 4 kB."""
    agent = in_shell("yes | head -c 3000000; printf 'reading %200s' x; echo > said; sleep 60")
    watch = ProcessAgents(ENVIRON).launch(processes.order(agent=agent))
    wait_for(processes.worktree / "said")
    seen = watch.activity()
    assert seen is not None
    assert seen.text == "reading " + " " * 112
    watch.stop()
    assert watch.wait(10) is not None


# --- the documents ------------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"


def examples(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    return [block.split("```")[0] for block in (DOCS / page).read_text().split(f"```{language}\n")[1:]]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("model", "outcome"),
    [
        (
            "cat > asked",
            Answered(
                artifact=DevelopmentResult(
                    status=DevelopmentStatus.COMPLETED,
                    summary="my-model ended without a word of its own (call 1).",
                )
            ),
        ),
        (f"cat > asked; {WRITE}", OWN),
        ("echo no quota left; exit 9", Failed(failure=Failure.LIMIT, message="my-model has no quota left")),
        ("exit 9", Failed(failure=Failure.TRANSIENT, message="It ended with exit status 1.")),
    ],
)
def test_the_documented_agent_of_ones_own_works(processes: Processes, model: str, outcome: Answered | Failed) -> None:
    """The very lines of the page, run as an agent around a tool that works, forgets, or fails."""
    (script,) = examples("own-agent.md", "sh")
    for name, text in (("my-agent", script), ("my-model", f"#!/bin/sh\n{model}\n")):
        (processes.root / name).write_text(text)
        (processes.root / name).chmod(0o755)
    agents = ProcessAgents(ENVIRON | {"PATH": f"{processes.root}:{ENVIRON['PATH']}"})
    agent = AgentSpec(kind=AgentKind.COMMAND, command=(f"{processes.root}/my-agent",))
    report = agents.launch(processes.order(agent=agent, prompt="Make it.")).wait(30)
    assert report is not None
    assert report.outcome == outcome
    if isinstance(outcome, Answered):
        assert processes.files()["asked"] == b"Make it."
        assert report.usage == Usage(input_tokens=1200, output_tokens=300, model="small")


@pytest.mark.processes
def test_the_documented_script_plays(processes: Processes) -> None:
    """The example of the page, from its first turn to its last."""
    (script,) = examples("scripted-agent.md", "toml")
    first = processes.ask(script)
    assert isinstance(first.outcome, Malformed)
    mended = processes.ask(script, mode=Mode.FORMAT_RETRY, call=2)
    assert isinstance(mended.outcome, Answered)
    last = processes.ask(script, mode=Mode.CONTINUATION, attempt=1, call=3)
    assert isinstance(last.outcome, Answered)
    assert processes.files()["greet.py"] == b"print('hello, world')\n"
    limited = processes.ask(script, story="US-002")
    assert isinstance(limited.outcome, Failed)
    assert limited.outcome.failure is Failure.LIMIT
