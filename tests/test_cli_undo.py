"""`undo` at the command line: what a run did is shown, walked back, kept by refs, and done again by `resume`."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User
from gitkit import commit_files, write_file


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    user = User(tmp_path)
    user.makes_a_repository()
    user.has_an_agent()
    user.has_a_spec("US-001", "US-002")
    yield user
    user.leaves()


def shipped(user: User) -> tuple[str, Path]:
    """A run that has completed, and its worktree."""
    assert user.asks("run", "../spec.md", "-q").code == 0
    (row,) = user.asks("status", "--json").rows
    return row["run_id"], Path(row["worktree"])


def test_a_step_is_undone_kept_by_a_ref_and_done_again_by_resume(user: User) -> None:
    """What follows is the truth: one story is open again, the run is interrupted, and goes on to its end."""
    run, worktree = shipped(user)
    tip = user.git("rev-parse", "feature/x")
    listed = user.asks("undo", run, "--list").out.splitlines()
    assert [line.split()[1] for line in listed] == ["US-002", "US-001", "branch"]
    refused = user.asks("undo", run)
    assert (refused.code, "Add --yes" in refused.err) == (2, True)

    done = user.asks("undo", run, "--yes")
    assert done.code == 0
    assert f"Open again: US-002. Leave one out with: storyloop skip {run[:8]} US-002\n" in done.out
    assert user.git("log", "--format=%s", "main..feature/x") == "US-001: Make US-001"
    assert not (worktree / "US-002.txt").exists()
    (kept,) = user.git("for-each-ref", "--format=%(objectname)", f"refs/storyloop/{run}/undone").splitlines()
    assert kept == tip
    (row,) = user.asks("status", "--json").rows
    assert (row["status"], row["stories_passed"], row["finished_at"]) == ("interrupted", 1, None)
    assert "undone: US-002 landed" in user.asks("show", "--events").out

    assert user.asks("resume", "-q").code == 0
    assert user.git("log", "--format=%s", "main..feature/x") == "US-002: Make US-002\nUS-001: Make US-001"


def test_a_run_is_walked_back_to_a_named_point_with_what_lies_in_its_worktree(user: User) -> None:
    """Also where the worktree was cleaned up meanwhile: it is made again."""
    run, worktree = shipped(user)
    write_file(worktree / "mine.txt", "my own\n")
    for point in ("US-009", "zz"):
        assert user.asks("undo", run, "--to", point, "--yes").code == 2
    assert user.asks("undo", run, "--to", user.git("rev-parse", "feature/x~1")[:9], "--yes").code == 0
    kept = user.git("for-each-ref", "--format=%(refname)", f"refs/storyloop/{run}/undone").splitlines()
    assert [user.git("show", f"{ref}:mine.txt") for ref in kept if not ref.endswith("/tip")] == ["my own"]
    user.asks("clean", "--yes", "--older-than", "1ms")
    assert user.asks("undo", run, "--to", "branch", "--yes").code == 0
    assert user.git("rev-parse", "feature/x") == user.git("rev-parse", "main")
    assert user.asks("undo", run, "--yes").code == 2
    assert user.asks("resume", "-q").code == 0


def test_commits_of_others_on_top_are_not_undone(user: User) -> None:
    """The refusal names the way on; nothing has moved."""
    run, worktree = shipped(user)
    commit_files(worktree, {"mine.txt": "my own\n"}, env=user.env)
    tip = user.git("rev-parse", "feature/x")
    refused = user.asks("undo", run, "--yes")
    assert (refused.code, user.git("rev-parse", "feature/x")) == (2, tip)
    assert "and not where the run has left it" in refused.err
    assert "git branch NAME feature/x" in refused.err


def test_work_in_hand_is_the_first_step(user: User) -> None:
    """It leaves the worktree, and its ref is shown with the story."""
    assert user.asks("run", "../spec.md", "--step", "-q").code == 3
    (row,) = user.asks("status", "--json").rows
    assert user.asks("undo", row["run_id"], "--yes").code == 0
    assert not Path(row["worktree"], "US-001.txt").exists()
    (ref,) = [ref.strip("`;") for ref in user.asks("show", "--story", "US-001").out.split() if "/calls/" in ref][:1]
    assert user.git("show", f"{ref}:US-001.txt") == "US-001"
    assert user.asks("resume", "--no-step", "-q").code == 0


@pytest.mark.slow
def test_an_undo_that_is_killed_anywhere_is_completed_by_the_next(user: User) -> None:
    """At each of its deeds in turn; the tip that it leaves is reachable all the while, and the run goes on."""
    run, worktree = shipped(user)
    tip = user.git("rev-parse", "feature/x")
    write_file(worktree / "mine.txt", "my own\n")
    for number in range(1, 400):
        cut = user.asks_killed_at(number, "undo", run, "--to", "branch", "--yes")
        assert tip in user.git("for-each-ref", "--format=%(objectname)").splitlines()
        if cut.code == 0:
            break
        assert cut.code == -signal.SIGKILL, cut.err
    assert number > 10
    assert user.git("rev-parse", "feature/x") == user.git("rev-parse", "main")
    assert "mine.txt" in user.git("log", "--name-only", "--format=", "--glob=refs/storyloop")
    assert user.asks("resume", "-q").code == 0
