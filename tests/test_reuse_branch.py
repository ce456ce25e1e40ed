"""`run --reuse-branch` while the worktree of an earlier run still has the branch checked out."""

from pathlib import Path

import pytest

from clikit import User

SECOND = "repo-wt-feature-x"


@pytest.fixture
def user(tmp_path: Path) -> User:
    """She has a shipped run on feature/x, whose worktree stands, and a spec of a second story."""
    user = User(tmp_path / "user")
    user.makes_a_repository()
    user.has_an_agent()
    user.has_a_spec()
    first = user.asks("run", "../spec.md", "-q")
    assert first.code == 0, first.err
    user.has_a_spec("US-002")
    return user


def test_the_worktree_of_an_ended_run_is_taken_over(user: User) -> None:
    """The second run goes on from the first one's commits, in a worktree of its own at the same place."""
    user.git("config", "user.signingkey", "mine")  # since the first run has ended
    done = user.asks("run", "../spec.md", "--reuse-branch")
    assert done.code == 0, done.err
    assert "which has ended, is closed first" in done.err
    subjects = user.git("log", "--format=%s", "main..feature/x").splitlines()
    assert subjects == ["US-002: Make US-002", "US-001: Make US-001"]
    assert user.git("config", "user.signingkey").strip() == "mine"
    assert (user.place / SECOND / "US-002.txt").exists()
    assert len(user.git("worktree", "list").splitlines()) == 2


def test_a_dry_run_closes_nothing(user: User) -> None:
    """It only says so."""
    done = user.asks("run", "../spec.md", "--reuse-branch", "--dry-run")
    assert (done.code, "is closed first" in done.err) == (0, True)
    assert (user.place / SECOND / "US-001.txt").exists()


def test_a_commit_of_the_users_in_the_standing_worktree_is_built_upon(user: User) -> None:
    """What is committed is on the branch."""
    (user.place / SECOND / "mine.txt").write_text("mine")
    for words in (("add", "."), ("commit", "-q", "-m", "Mine")):
        user.git("-C", str(user.place / SECOND), *words)
    assert user.asks("run", "../spec.md", "--reuse-branch", "-q").code == 0
    assert user.git("show", "feature/x:mine.txt") == "mine"


def test_uncommitted_changes_in_the_standing_worktree_are_never_lost(user: User) -> None:
    """The run is refused, and they are where they were."""
    (user.place / SECOND / "mine.txt").write_text("mine")
    done = user.asks("run", "../spec.md", "--reuse-branch")
    assert (done.code, done.out) == (2, "")
    assert "holds changes that are not committed" in done.err
    assert "Commit them there" in done.err
    assert (user.place / SECOND / "mine.txt").read_text() == "mine"


def test_a_run_that_is_not_over_keeps_its_worktree(user: User) -> None:
    """It can be gone on with."""
    parked = user.asks("run", "../spec.md", "--reuse-branch", "--step", "-q")
    assert parked.code == 3
    done = user.asks("run", "../spec.md", "--reuse-branch")
    assert (done.code, done.out) == (2, "")
    assert "which is parked" in done.err
    assert "storyloop resume" in done.err


def test_a_run_whose_worktree_was_taken_over_says_so_when_it_is_resumed(user: User) -> None:
    """It would otherwise work in another run's worktree."""
    user.has_an_agent("answer failed No. Ask.\n", settings="[limits]\ncontinuations = 1\n")
    assert user.asks("run", "../spec.md", "--reuse-branch", "-q").code == 1
    failed = user.asks("status", "--json").rows[0]["run_id"]
    assert user.asks("run", "../spec.md", "--reuse-branch", "-q").code == 1
    assert user.asks("retry", failed, "US-002").code == 0
    done = user.asks("resume", failed)
    assert (done.code, done.out) == (2, "")
    assert "repo-wt-feature-x, but something is there already" in done.err
