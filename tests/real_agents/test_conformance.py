"""The real agent CLIs against the scripted model, where only loopback exists: the matrix, and a run with each."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_clis import FOLDER, PINS, PROGRAMS, missing, search_path

from gitkit import git, isolated, make_repository
from storyloop.conformance.alone import way_there
from storyloop.conformance.matrix import Column

COLUMNS = [str(column) for column in Column]
OK = dict.fromkeys(COLUMNS, "ok")
# What each of them does in the pinned version; all of it must be so again.
NO_USAGE, SILENT = {"usage": "not offered"}, {"limit recognised": "not offered"}
EXPECTED = {
    "claude": OK,
    "codex": OK,
    "opencode": OK,
    "gemini": OK,
    "qwen": OK | SILENT,
    "copilot": OK | NO_USAGE,
    "pi": OK | SILENT,
    "kimi": OK | NO_USAGE,
}

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(params=PROGRAMS)
def agent(request: pytest.FixtureRequest) -> str:
    """One that is installed in its pinned version."""
    name: str = request.param
    if why := missing(name):
        pytest.skip(why)
    if not way_there():
        pytest.skip("This machine allows no network namespace, and no agent is started where a request could leave it.")
    return name


@pytest.fixture
def place() -> Iterator[Path]:
    """Not pytest's: below a directory that everybody may write, Gemini reads no settings."""
    made = Path(tempfile.mkdtemp(prefix="test-", dir=FOLDER))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def env(place: Path) -> dict[str, str]:
    """A user who has these agents and nothing else: no key, no login, no setting."""
    made = isolated(place / "home")
    return {**made, "PATH": search_path(), "STORYLOOP_HOME": str(place / "state"), "LANG": "C.UTF-8", "TERM": "dumb"}


BY_ACP = ("gemini",)  # it speaks the protocol itself


def test_the_matrix_is_as_it_was_measured(agent: str, env: dict[str, str], place: Path) -> None:
    """Column by column, in the version that is known, with no word in its stream that is not."""
    words = [sys.executable, "-m", "storyloop", "doctor", "--agents", agent, "--json"]
    asked = subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, check=False)
    assert asked.stderr == ""
    [row] = json.loads(asked.stdout)["agents"]
    seen = {column: (cell["verdict"], cell["seen"]) for column, cell in row["cells"].items()}
    assert {column: verdict for column, (verdict, _) in seen.items()} == EXPECTED[agent], seen
    assert (row["version"], row["known"], row["drifted"]) == (PINS[PROGRAMS[agent]], True, [])


@pytest.mark.parametrize("kind", [(), ("acp",)], ids=["own", "acp"])
def test_a_run_of_two_stories_is_driven_to_its_end(
    agent: str, kind: tuple[str, ...], env: dict[str, str], place: Path
) -> None:
    """A file is edited, a red check turns green in a continuation, each story is a commit, and it is reviewed."""
    if kind and agent not in BY_ACP:
        pytest.skip(f"{agent} is run by its own stream only.")
    repository = place / "repository"
    make_repository(repository, {"README": "Two words.\n"}, env=env)
    player = Path(__file__).with_name("played_run.py")
    played = subprocess.run(
        [*way_there(), sys.executable, str(player), agent, str(place), *kind],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    subjects = git(repository, "log", "--reverse", "--format=%s", "main..feature/words", env=env).splitlines()
    assert [subject.partition(":")[0] for subject in subjects] == ["US-001", "US-002"]
    assert git(repository, "show", "feature/words:one.txt", env=env) == "right"
    assert git(repository, "show", "feature/words:two.txt", env=env) == "two"
    assert git(repository, "diff", "--name-only", "main..feature/words", env=env).splitlines() == ["one.txt", "two.txt"]
    shown = subprocess.run(
        [sys.executable, "-m", "storyloop", "show", "--json"],
        cwd=repository,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(shown.stdout)
    assert told["report"]["review"] == "review: converged after 1 cycle"
    assert [(story["state"], story["attempts"], story["calls"]) for story in told["stories"]] == [
        ("passed", 2, 2),
        ("passed", 1, 1),
    ]
