"""Whatever a user gets wrong is told in one message with its cure, and nothing of hers is changed by it."""

import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from clikit import User, command
from gitkit import commit_files

TWO_MISTAKES = """\
# A spec
## User Stories
### US-001: One
**Depends on:** US-009
**Acceptance Criteria:**
- [ ] It is there
### US-002: Two
Free text only.
"""
OTHER_RUN = "aaaa1111-0000-4000-8000-000000000000"


class Case(NamedTuple):
    """A mistake; the words the user says; what she is told, in this order."""

    words: Sequence[str]
    told: Sequence[str]
    code: int = 2
    mistake: Callable[[User], None] = lambda _: None


def spec(text: str | bytes) -> Callable[[User], None]:
    content = text.encode() if isinstance(text, str) else text
    return lambda user: void((user.place / "spec.md").write_bytes(content))


def settings(text: str) -> Callable[[User], None]:
    return lambda user: user.has_an_agent(settings=text)


def void(_: object) -> None: ...


def spec_is_a_directory(user: User) -> None:
    (user.place / "spec.md").unlink()
    (user.place / "spec.md").mkdir()


def spec_of_fifty_megabytes(user: User) -> None:
    os.truncate(user.place / "spec.md", 50_000_000)


def agent_is_not_installed(user: User) -> None:
    config = '[agents.absent]\nkind = "command"\ncommand = ["no-such-agent"]\n[chains]\ndefault = ["absent"]\n'
    commit_files(user.repo, {"storyloop.toml": config}, env=user.env)


def check_is_not_executable(user: User) -> None:
    user.has_an_agent(settings='[checks]\ntest = "./prove.sh"\n')
    commit_files(user.repo, {"prove.sh": "exit 0\n"}, env=user.env)


def branch_elsewhere(user: User) -> None:
    user.git("worktree", "add", "--quiet", "-b", "feature/x", str(user.place / "elsewhere"))


def worktree_path_is_occupied(user: User) -> None:
    (user.place / "repo-wt-feature-x").mkdir()
    (user.place / "repo-wt-feature-x" / "precious").write_text("mine")


def database_is_newer(user: User) -> None:
    user.state.mkdir()
    with closing(sqlite3.connect(user.state / "storyloop.db")) as database:
        database.execute("PRAGMA user_version = 99")


def state_is_a_file(user: User) -> None:
    user.state.write_text("not a directory")


def template_without_a_result(user: User) -> None:
    (user.repo / "storyloop-prompts").mkdir()
    (user.repo / "storyloop-prompts" / "story.j2").write_text("Do it.")


RUN = ("run", "../spec.md")
CASES = {
    "no commits": Case(
        RUN, ["has no commit yet", "Make one"], mistake=lambda u: void(u.git("update-ref", "-d", "HEAD"))
    ),
    "spec missing": Case(("run", "../nowhere.md"), ["There is no file ../nowhere.md.", "Markdown or JSON"]),
    "spec is a directory": Case(RUN, ["../spec.md is not a file.", "Markdown or JSON"], mistake=spec_is_a_directory),
    "spec is binary": Case(RUN, ["spec.md", "UTF-8"], mistake=spec(b"\x7fELF\x02\x00\xff\xfe\x00")),
    "spec of 50 MB": Case(RUN, ["../spec.md is larger than 5 MB.", "right file?"], mistake=spec_of_fifty_megabytes),
    "spec with mistakes": Case(
        RUN, ["US-009", "US-002 has no acceptance criteria (spec.md:7)", "Add at least one"], mistake=spec(TWO_MISTAKES)
    ),
    "spec without a word": Case(RUN, ["no title", "Give it one"], mistake=spec("## Branch\nfeature/x\n")),
    "spec mistaken, checked": Case(
        ("spec", "check", "../spec.md"), ["US-009", "Add at least one"], mistake=spec(TWO_MISTAKES)
    ),
    "unknown agent": Case(
        (*RUN, "--agent", "clod"), ["clod", "claude"], mistake=lambda user: user.has_an_agent(name="claude")
    ),
    "agent is not installed": Case(
        RUN, ["agent absent: no-such-agent was not found", "Install it"], mistake=agent_is_not_installed
    ),
    "check is not executable": Case(
        RUN, ["check test starts ./prove.sh", "not executable", "[checks]"], mistake=check_is_not_executable
    ),
    "setting misspelt": Case(
        RUN,
        ["storyloop.toml, line", "limits.continuation is not", "limits.continuations?"],
        mistake=settings("[limits]\ncontinuation = 1\n"),
    ),
    "setting of the wrong type": Case(
        RUN,
        ["storyloop.toml, line", "limits.continuations must be", 'not "many"'],
        mistake=settings('[limits]\ncontinuations = "many"\n'),
    ),
    "configuration is no TOML": Case(RUN, ["storyloop.toml", "line"], mistake=settings("[limits\n")),
    "prompt template that cannot be used": Case(
        RUN, ["where the result belongs", 'include "_answer"'], mistake=template_without_a_result
    ),
    "branch exists": Case(
        RUN,
        ["Branch feature/x exists already.", "--reuse-branch"],
        mistake=lambda u: void(u.git("branch", "feature/x")),
    ),
    "branch name is taken as a directory": Case(
        RUN, ["a branch feature.", "## Branch"], mistake=lambda u: void(u.git("branch", "feature"))
    ),
    "branch is checked out elsewhere": Case(
        RUN, ["feature/x is checked out at ", "/elsewhere", "switch that checkout"], mistake=branch_elsewhere
    ),
    "worktree path is occupied": Case(
        RUN, ["/repo-wt-feature-x", "something is there already", "Move it away"], mistake=worktree_path_is_occupied
    ),
    "database is newer": Case(
        RUN, ["storyloop.db", "newer Storyloop: it has version 99", "Upgrade"], mistake=database_is_newer
    ),
    "database is newer, status": Case(("status",), ["version 99", "Upgrade"], mistake=database_is_newer),
    "database is newer, show": Case(("show",), ["version 99", "Upgrade"], mistake=database_is_newer),
    "state directory is a file": Case(
        RUN, ["/state is not a directory", "Nothing was changed", "STORYLOOP_HOME"], code=1, mistake=state_is_a_file
    ),
    "no runs, show": Case(("show",), ["has no runs", "storyloop run SPEC"]),
    "no runs, resume": Case(("resume",), ["has no runs", "storyloop run SPEC"]),
    "no runs, stop": Case(("stop",), ["has no runs", "storyloop run SPEC"]),
    "unknown run, show": Case(("show", "zzz"), ["There is no run zzz.", "storyloop status --all"]),
    "unknown run, logs": Case(("logs", "zzz"), ["There is no run zzz.", "storyloop status --all"]),
    "unknown run, resume": Case(("resume", "zzz"), ["There is no run zzz.", "storyloop status --all"]),
    "unknown run, retry": Case(("retry", "zzz", "US-001"), ["There is no run zzz.", "storyloop status --all"]),
    "unknown run, export": Case(("spec", "export", "zzz"), ["There is no run zzz.", "storyloop status --all"]),
    "no such limit": Case((*RUN, "--max-calls", "0"), ["--max-calls", "x>=1"]),
    "no duration": Case((*RUN, "--max-time", "soon"), ["--max-time", "10m", "soon"]),
    "init over a file": Case(
        ("init",), ["storyloop.toml is there already", "--force"], mistake=lambda user: user.has_an_agent()
    ),
    "unknown verb": Case(("stauts",), ["stauts", "status"]),
    "unknown setting": Case(("config", "get", "limits.continuation"), ["limits.continuation", "limits.continuations"]),
}


@pytest.fixture
def user(tmp_path: Path) -> User:
    """She has a repository, an agent and a spec; all is well as yet."""
    user = User(tmp_path / "user")
    user.makes_a_repository()
    user.has_an_agent()
    user.has_a_spec()
    return user


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_mistake_is_told_with_its_cure_and_changes_nothing(user: User, case: Case) -> None:
    """Exit status 2 (1 where the machine failed), one message on stderr, the disk as it was."""
    case.mistake(user)
    before = user.belongings()
    done = user.asks(*case.words)
    assert_told(done.err, *case.told)
    assert (done.code, done.out) == (case.code, "")
    assert user.belongings() == before


def test_reading_outside_of_a_repository_and_running_there(user: User) -> None:
    """Nobody can run without a repository; what is asked of all repositories is answered anywhere."""
    outside = user.place / "outside"
    outside.mkdir()
    before = user.belongings()
    done = user.asks("run", "../spec.md", cwd=outside)
    assert_told(done.err, "not in a git repository", "git init")
    assert (done.code, done.out) == (2, "")
    assert user.asks("status", "--all", "--json", cwd=outside).rows == []
    assert user.belongings() == before


@pytest.mark.parametrize("words", [RUN, ("status",), ("show",), ("init",), ("config", "show")])
def test_a_directory_that_is_gone_is_told(user: User, words: Sequence[str]) -> None:
    """Somebody deleted it while the user stood in it."""
    gone = user.place / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command(*words)],
        cwd=gone,
        env=user.env | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert_told(done.stderr, "directory you are in is gone", "Go to one that exists")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_state_directory_that_may_not_be_written_is_told(user: User) -> None:
    """Before anything is made."""
    user.state.mkdir(mode=0o500)
    before = user.belongings()
    done = user.asks(*RUN)
    assert_told(done.err, "may not be written", "STORYLOOP_HOME")
    assert done.code == 1
    assert user.belongings() == before


LOCKS = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("CREATE TABLE kept (x)")
other.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_database_that_another_process_keeps_to_itself_is_told(user: User) -> None:
    """After ten seconds of patience; the sentence says what is safe."""
    user.state.mkdir()
    lock = [sys.executable, "-c", LOCKS, str(user.state / "storyloop.db")]
    with subprocess.Popen(lock, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        before = user.belongings()
        done = user.asks(*RUN)
        assert user.belongings() == before
        other.communicate()
    assert_told(done.err, "storyloop.db is locked", "Nothing was changed.", "try again")
    assert (done.code, done.out) == (1, "")


def test_a_full_disk_is_told_with_what_is_safe(user: User) -> None:
    """Played by a limit on the size of files, below what the database needs."""
    done = subprocess.run(
        command(*RUN, "-q"),
        cwd=user.repo,
        env=user.env,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert_told(done.stderr, "storyloop.db", "Nothing was changed", "free space")
    assert (done.returncode, done.stdout) == (1, "")
    assert user.git("branch", "--list") == "* main"
    assert user.asks("status", "--json").rows == []
    assert list((user.state / "runs").iterdir()) == []


# --- runs that somebody has meddled with ---------------------------------------------------------------


@pytest.fixture
def parked(user: User) -> User:
    """One of two stories is done; the other waits for a budget."""
    user.has_a_spec("US-001", "US-002")
    assert user.asks(*RUN, "--max-calls", "1", "-q").code == 4
    return user


def test_a_run_whose_branch_was_deleted_is_not_resumed_into_the_blue(parked: User) -> None:
    """What is missing is named; the run stays as it is."""
    branch = parked.git("rev-parse", "feature/x")
    before = events(parked)
    parked.git("update-ref", "-d", "refs/heads/feature/x")
    done = parked.asks("resume", "--max-calls", "9")
    assert_told(done.err, "feature/x", "git")
    assert (done.code, events(parked)) == (2, before)

    parked.git("update-ref", "refs/heads/feature/x", branch)
    assert parked.asks("resume", "--max-calls", "9", "-q").code == 0


def test_the_nearest_story_and_every_meant_run_are_named(parked: User) -> None:
    """A prefix of two runs, a story with a slip of the finger, requests that cannot be granted."""
    run = parked.asks("status", "--json").rows[0]["run_id"]
    before = events(parked)
    slips = {
        ("retry", run[:8], "US-02"): ["no story US-02.", "Did you mean US-002?"],
        ("skip", run[:8], "US-02"): ["no story US-02.", "Did you mean US-002?"],
        ("show", run[:8], "--story", "US-02"): ["no story US-02.", "Did you mean US-002?"],
        ("logs", run[:8], "--story", "US-02"): ["no story US-02.", "Did you mean US-002?"],
        ("retry", run[:8], "US-001"): ["refuses", "US-001", "storyloop show"],
        ("stop", run[:8]): ["is not running.", f"storyloop resume {run[:8]}"],
    }
    for words, told in slips.items():
        done = parked.asks(*words)
        assert_told(done.err, *told)
        assert (done.code, done.out) == (2, "")
    assert events(parked) == before

    with closing(sqlite3.connect(parked.state / "storyloop.db", isolation_level=None)) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(run)") if row[1] != "run_id"]
        for twin in (OTHER_RUN, OTHER_RUN.replace("1111", "2222")):
            database.execute(f"INSERT INTO run SELECT '{twin}', {', '.join(columns)} FROM run WHERE run_id = ?", (run,))
    done = parked.asks("show", "aaaa")
    assert_told(done.err, "aaaa could be any of", OTHER_RUN, "Give more of the id.")
    assert done.code == 2
    done = parked.asks("resume")
    assert_told(done.err, "are unfinished", "aaaa1111", "Name the one you mean.")
    assert done.code == 2


def events(user: User) -> str:
    """The journal of her only run."""
    return user.asks("show", "--events", "--json").out


def assert_told(err: str, *told: str) -> None:
    """One message, in plain words, with these in it in this order."""
    assert "Traceback" not in err
    assert "an error of ours" not in err
    assert err.count("storyloop: ") + err.count("Error: ") == 1, err
    place = 0
    for words in told:
        place = err.find(words, place)
        assert place >= 0, f"{words!r} is not in its place in: {err}"
