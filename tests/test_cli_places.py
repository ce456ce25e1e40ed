"""Places at the command line: where each run sits, what is live, stale or gone, and what is made of it again."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User
from storyloop.driving import open_run
from storyloop.preparing import Basis, prepare
from storyloop.service import HeldElsewhereError
from storyloop.wiring import make_service


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


def test_a_branch_that_others_have_worked_on_is_not_taken_back(user: User) -> None:
    """Neither from commits of yours nor from another run's, also where this one was killed; the way on is told."""
    assert user.asks("run", "../spec.md", "--step", "-q").code == 3
    (row,) = user.asks("status", "--json").rows
    user.git("-C", row["worktree"], "commit", "-q", "--allow-empty", "-m", "Mine")
    mine = user.git("rev-parse", "feature/x")
    refused = user.asks("resume")
    assert (refused.code, "and not where the run has left it" in refused.err) == (2, True)
    assert user.git("rev-parse", "feature/x") == mine

    user.git("worktree", "remove", "--force", row["worktree"])
    assert user.asks("run", "../spec.md", "--reuse-branch", "-q").code == 0
    shipped = user.git("rev-parse", "feature/x")
    assert user.asks("resume", row["run_id"]).code == 2
    user.git("branch", "kept", shipped.strip())
    user.git("-C", row["worktree"], "reset", "-q", "--keep", "main")
    assert user.asks("resume", row["run_id"], "--no-step", "-q").code == 3  # as it says, it then goes on


def test_of_two_runs_that_begin_in_one_moment_one_is_refused(user: User) -> None:
    """Both found the branch free; nothing of the second is opened, and nothing of the first is touched."""
    service = make_service(user.env)
    first, second = (prepare(service, user.place / "spec.md", user.repo) for _ in range(2))
    with open_run(service, first) as drive:
        with pytest.raises(HeldElsewhereError):
            open_run(service, second)
        assert [row.run_id for row in service.rows(None)] == [drive.state.run_id]
        assert [path.name for path in (user.state / "runs").iterdir()] == [drive.state.run_id]


def test_a_stopped_run_waits_while_another_is_at_work_on_its_branch(user: User) -> None:
    """It is refused, and names that one."""
    assert user.asks("run", "../spec.md", "--step", "-q").code == 3
    (row,) = user.asks("status", "--json").rows
    user.git("worktree", "remove", "--force", row["worktree"])
    service = make_service(user.env)
    with open_run(service, prepare(service, user.place / "spec.md", user.repo, basis=Basis.REUSED)) as drive:
        refused = user.asks("resume", row["run_id"])
        assert (refused.code, drive.state.run_id in refused.err) == (5, True)
        assert user.asks("undo", row["run_id"], "--yes").code == 5


def test_to_begin_where_a_run_was_stopped_names_that_run(user: User) -> None:
    """Its branch is checked out in its own worktree: the way on is to resume it."""
    assert user.asks("run", "../spec.md", "--step", "-q").code == 3
    (row,) = user.asks("status", "--json").rows
    refused = user.asks("run", "../spec.md")
    assert (refused.code, f"`storyloop resume {row['run_id'][:8]}`" in refused.err) == (2, True)
