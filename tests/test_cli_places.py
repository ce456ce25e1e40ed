"""Places at the command line: where each run sits, what is live, stale or gone, and what is made of it again."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    user = User(tmp_path)
    user.makes_a_repository()
    user.has_an_agent()
    user.has_a_spec()
    yield user
    user.leaves()


def test_status_tells_each_runs_place_and_a_worktree_that_is_gone(user: User) -> None:
    """Stale: not ended, and nobody has it. A worktree that was deleted is made again, with what lay in it."""
    assert user.asks("run", "../spec.md", "--step", "-q").code == 3
    (row,) = user.asks("status", "--json").rows
    run, worktree = row["run_id"][:8], row["worktree"]
    (line,) = [line for line in user.asks("status").out.splitlines() if line.startswith(run)]
    assert line.split()[-3:] == ["stale", "feature/x", worktree]

    shutil.rmtree(worktree)
    assert f"stale  feature/x  {worktree} (not there)" in user.asks("status").out
    assert f"{worktree} was deleted. storyloop resume {run} makes it again" in user.asks("show").out
    assert user.asks("approve", run).code == 0
    done = user.asks("resume", run)
    assert (done.code, "its worktree is made again from branch feature/x" in done.err) == (0, True)
    assert user.git("show", "feature/x:US-001.txt") == "US-001"
    assert f"-      feature/x  {worktree}\n" in user.asks("status").out


def test_a_branch_that_is_gone_is_told_with_the_way_on(user: User) -> None:
    """The commits are still there; which one the branch stood at is for the user to say."""
    assert user.asks("run", "../spec.md", "--step", "-q").code == 3
    (row,) = user.asks("status", "--json").rows
    shutil.rmtree(row["worktree"])
    user.git("worktree", "prune")
    user.git("branch", "-D", "feature/x")
    refused = user.asks("resume")
    assert (refused.code, "The run's branch feature/x was deleted." in refused.err) == (2, True)
    user.git("branch", "feature/x", "main")
    assert user.asks("approve", row["run_id"]).code == 0
    assert user.asks("resume", "-q").code == 0
