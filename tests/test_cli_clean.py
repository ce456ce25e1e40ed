"""`clean` at the command line: what goes by rule, what is asked about, and that no work is ever lost by it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User, ended, until
from gitkit import write_file


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


def refs(user: User, run: str) -> list[str]:
    return user.git("for-each-ref", "--format=%(refname)", f"refs/storyloop/{run}").splitlines()


def test_what_a_finished_run_left_is_shown_and_goes_and_the_run_can_still_be_shown(user: User) -> None:
    """Worktree and spare refs at once, what was printed only when it is old enough; the branch stays."""
    run, worktree = shipped(user)
    tip, before = user.git("rev-parse", "feature/x"), user.belongings()
    told = user.asks("clean", "--dry-run")
    assert (told.code, user.belongings()) == (0, before)
    assert f"{run[:8]}  worktree {worktree}" in told.out
    assert "would be removed [the run is completed]" in told.out
    assert {one["kind"] for one in user.asks("clean", "--dry-run", "--json").rows} == {"worktree", "refs"}
    assert user.asks("clean", "--older-than", "1d", "--json").rows == []

    assert user.asks("clean").code == 0
    assert (worktree.exists(), refs(user, run), user.git("rev-parse", "feature/x")) == (False, [], tip)
    assert len(user.git("worktree", "list").splitlines()) == 1
    assert "cleaned up: worktree" in user.asks("show", "--events").out
    assert "(removed)" in user.asks("status").out
    assert user.asks("clean").err == "Nothing is left that may go.\n"

    assert [one["kind"] for one in user.asks("clean", "--older-than", "1ms", "--json").rows] == ["printed"]
    assert "no longer kept: it was cleaned up" in user.asks("show").out
    assert not (user.state / "runs" / run / "calls").exists()


def test_work_that_is_not_committed_is_asked_about_and_kept_by_a_ref(user: User) -> None:
    """Without a terminal and without --yes it stays."""
    run, worktree = shipped(user)
    write_file(worktree / "mine.txt", "my own\n")
    left = user.asks("clean")
    assert "was left: 1 or more files in it are not committed: mine.txt (--yes takes it along)" in left.out
    assert worktree.exists()
    assert "what lay there is kept by refs/storyloop/" in user.asks("clean", "--yes").out
    (ref,) = refs(user, run)
    assert (worktree.exists(), user.git("show", f"{ref}:mine.txt")) == (False, "my own")
    user.asks("clean", "--yes")
    assert refs(user, run) == [ref]


def test_commits_that_were_not_pushed_are_asked_about(user: User) -> None:
    """Where there is somewhere to push to; the branch stays either way."""
    user.git("init", "--bare", "--quiet", str(user.place / "remote.git"))
    user.git("remote", "add", "origin", str(user.place / "remote.git"))
    user.git("push", "--quiet", "origin", "main")
    _, worktree = shipped(user)
    assert "2 commits of its branch were not pushed" in user.asks("clean").out
    assert worktree.exists()
    user.git("push", "--quiet", "origin", "feature/x")
    user.asks("clean")
    assert not worktree.exists()


def test_the_last_ref_to_blocked_work_is_never_deleted(user: User) -> None:
    """Its other pins are; and a failed run goes on after its worktree was cleaned up."""
    user.has_an_agent('echo half >half.txt; echo "$STORYLOOP_STORY" >US-001.txt; answer partial\n')
    user.has_a_spec("US-002", "US-003")
    assert user.asks("run", "../spec.md", "-q", "--max-calls", "9").code == 1
    (row,) = user.asks("status", "--json").rows
    kept = user.asks("show", "--story", "US-002").out
    user.asks("clean", "--yes", "--older-than", "1ms")
    (ref,) = [ref for ref in refs(user, row["run_id"]) if "blocked/US-002" in ref]
    assert (ref in kept, user.git("show", f"{ref}:half.txt")) == (True, "half")
    assert not Path(row["worktree"]).exists()
    user.has_an_agent()
    assert user.asks("retry", row["run_id"], "US-002").code == 0
    assert user.asks("retry", row["run_id"], "US-003").code == 0
    assert user.asks("resume", "-q").code == 0


def test_a_stale_worktree_goes_after_a_while_and_comes_back(user: User) -> None:
    """What was parked a moment ago is left alone by the rule; nothing of it is lost either way."""
    assert user.asks("run", "../spec.md", "--step", "-q").code == 3
    (row,) = user.asks("status", "--json").rows
    assert user.asks("clean", "--json").rows == []
    user.asks("clean", "--older-than", "1ms")
    assert not Path(row["worktree"]).exists()
    assert user.asks("approve", row["run_id"]).code == 0
    assert user.asks("resume", "--no-step", "-q").code == 0


@pytest.mark.processes
def test_nothing_of_a_live_run_is_touched(user: User) -> None:
    """Nor of one whose agent has outlived it."""
    user.has_an_agent('touch "$HOME/there"; sleep 60\n', settings='[limits]\norphan_grace = "30s"\n')
    run = user.starts("run", "../spec.md")
    until((user.home / "there").exists)
    assert "is not touched: a process has it" in user.asks("clean", "--yes", "--older-than", "1ms").err
    run.kill()
    ended(run)
    assert "is not touched: its agent is still at work" in user.asks("clean", "--yes", "--older-than", "1ms").err
    (row,) = user.asks("status", "--json").rows
    assert Path(row["worktree"]).exists()
    assert user.asks("skip", row["run_id"], "US-001").code == 0
    assert user.asks("skip", row["run_id"], "US-002").code == 0
    assert user.asks("resume", "-q").code == 1


@pytest.mark.slow
def test_a_clean_that_is_killed_anywhere_is_completed_by_the_next(user: User) -> None:
    """At each of its deeds in turn; what nobody else has is there all the while."""
    run, worktree = shipped(user)
    write_file(worktree / "mine.txt", "my own\n")
    for number in range(1, 400):
        cut = user.asks_killed_at(number, "clean", "--yes", "--older-than", "1ms")
        kept = [ref for ref in refs(user, run) if "/cleaned/" in ref]
        assert (worktree / "mine.txt").exists() or user.git("show", f"{kept[0]}:mine.txt") == "my own"
        if cut.code == 0:
            break
        assert cut.code == -signal.SIGKILL, cut.err
    assert number > 20
    assert user.asks("clean", "--yes", "--older-than", "1ms", "--json").rows == []
    assert os.listdir(user.repo / ".git" / "worktrees") == [] if (user.repo / ".git" / "worktrees").exists() else True
    assert sorted(path.name for path in user.place.iterdir() if "wt" in path.name) == []


def test_what_is_the_users_own_in_git_is_neither_changed_by_looking_nor_put_back(user: User) -> None:
    """Since the run has ended: settings, and the branch that she is at in its worktree."""
    _, worktree = shipped(user)
    user.git("remote", "add", "second", str(user.place))
    user.git("-C", str(worktree), "switch", "-q", "-c", "polish")
    assert user.asks("clean", "--dry-run").code == 0
    assert user.git("-C", str(worktree), "branch", "--show-current") == "polish"
    assert user.asks("undo", "--yes").code == 0
    assert user.git("remote") == "second"
    write_file(worktree / "mine.txt", "my own\n")
    user.git("remote", "add", "third", str(user.place))
    assert user.asks("clean", "--yes", "--older-than", "1ms").code == 0
    assert (worktree.exists(), user.git("remote")) == (False, "second\nthird")
