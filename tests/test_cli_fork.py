"""`fork` at the command line: a new run from any point of an old one, on a branch of its own, the old one as it was."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    user = User(tmp_path)
    user.makes_a_repository()
    user.has_an_agent()
    user.has_a_spec("US-001", "US-002")
    yield user
    user.leaves()


def events(user: User, run: str) -> list[tuple[int, str]]:
    lines = user.asks("show", run, "--events").out.splitlines()
    return [(int(line.split()[0]), line.split(maxsplit=3)[3]) for line in lines]


def test_a_run_is_forked_behind_a_story_with_another_policy(user: User) -> None:
    """The story that had passed then has passed; what came later is done anew, by the policy as the flags amend it."""
    assert user.asks("run", "../spec.md", "-q").code == 0
    (old,) = user.asks("status", "--json").rows
    before = user.asks("show", old["run_id"], "--json").out
    done = user.asks("fork", old["run_id"], "--at", "US-001", "--branch", "feature/y", "--max-calls", "9", "-q")
    assert done.code == 0, done
    assert user.git("rev-parse", "feature/y~1") == user.git("rev-parse", "feature/x~1")
    new = next(row for row in user.asks("status", "--json").rows if row["branch"] == "feature/y")
    assert (new["status"], new["stories_passed"], new["run_id"] != old["run_id"]) == ("completed", 2, True)
    assert Path(new["worktree"]).exists()
    told = [line for _, line in events(user, new["run_id"])]
    assert any(line.startswith(f"forked from run {old['run_id']} behind its event") for line in told)
    assert sum("US-001 passed" in line for line in told) == 1
    assert user.asks("show", new["run_id"], "--json").rows["budget"]["allowed"]["calls"] == 9
    assert user.asks("show", old["run_id"], "--json").out == before
    assert f"Storyloop-Run: {new['run_id']}" in user.git("log", "-1", "--format=%B", "feature/y")


def test_work_in_hand_is_forked_with_its_files_and_a_call_under_way_is_asked_again(user: User) -> None:
    """Before the first call, between two and in the midst of one: each fork comes to the same end in its own place."""
    user.has_an_agent('test -f half.txt && answer completed || { echo 1 >half.txt; answer partial "Half."; }\n')
    spec = user.place / "spec.md"
    spec.write_text(spec.read_text().replace("test -f US-001.txt", "test -f half.txt").split("### US-002")[0])
    assert user.asks("run", "../spec.md", "-q").code == 0
    (old,) = user.asks("status", "--json").rows
    told = events(user, old["run_id"])
    half = next(number for number, line in told if "says partial" in line)
    asked = next(number for number, line in told if "continues with" in line)
    for number in (1, half, asked):
        done = user.asks("fork", old["run_id"], "--at", str(number), "-q")
        assert done.code == 0, done
    for row in user.asks("status", "--json").rows:
        assert (row["status"], user.git("show", f"{row['branch']}:half.txt")) == ("completed", "1")
    assert user.asks("fork", old["run_id"], "--at", str(told[-1][0]), "-q").code == 2


@pytest.mark.parametrize("words", [("--at", "9999"), ("--at", "US-009"), ("--at", "2", "--branch", "main")])
def test_a_fork_that_cannot_be_is_refused_before_anything_is_written(user: User, words: tuple[str, ...]) -> None:
    """With the way on."""
    assert user.asks("run", "../spec.md", "-q").code == 0
    (old,) = user.asks("status", "--json").rows
    before = user.belongings()
    refused = user.asks("fork", old["run_id"], *words)
    assert (refused.code, refused.out) == (2, "")
    assert user.belongings().keys() == before.keys()
