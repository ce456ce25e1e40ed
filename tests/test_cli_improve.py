"""`improve` at the command line: follow-up work on a branch, with what earlier runs on it learnt and left open."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User
from gitkit import commit_files
from test_spec_new import Terminal


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    user = User(tmp_path)
    user.makes_a_repository()
    user.has_an_agent('echo "$prompt" >"$HOME/asked"; echo 1 >"$STORYLOOP_STORY.txt"; answer completed "Laid it."\n')
    user.has_a_spec("US-001")
    yield user
    user.leaves()


def shipped(user: User) -> Path:
    """A run that has completed; its worktree."""
    assert user.asks("run", "../spec.md", "-q").code == 0
    (row,) = user.asks("status", "--json").rows
    return Path(row["worktree"])


def test_a_spec_runs_on_the_branch_and_its_agent_is_told_what_is_known_of_it(user: User) -> None:
    """Whatever branch the spec names; what was proven of another tree is said to have gone stale."""
    worktree = shipped(user)
    commit_files(worktree, {"mine.txt": "my own\n"}, env=user.env)
    user.has_a_spec("US-002", branch="feature/other", title="More")
    done = user.asks("improve", "feature/x", "../spec.md", "-q")
    assert done.code == 0, done
    subjects = user.git("log", "--format=%s", "main..feature/x").splitlines()
    assert (subjects[0], subjects[-1]) == ("US-002: Make US-002", "US-001: Make US-001")
    asked = (user.home / "asked").read_text()
    assert "- US-001 Make US-001: passed. Laid it." in asked
    assert "stale since the branch has changed: criterion 1, by `test -f US-001.txt`" in asked


def test_without_a_spec_the_terminal_is_the_agents_in_the_branchs_worktree(user: User) -> None:
    """It is told all that was learnt; without a terminal that is refused, with the way on."""
    worktree = shipped(user)
    refused = user.asks("improve")
    assert (refused.code, "storyloop improve feature/x SPEC" in refused.err) == (2, True)
    (user.home / "sh.sh").write_text('printf "%s" "$STORYLOOP_PROMPT" >"$HOME/told"; pwd >"$HOME/where"\n')
    terminal = Terminal(user, "improve")
    assert terminal.ended() == 0, terminal.seen
    assert (user.home / "where").read_text().strip() == str(worktree)
    told = (user.home / "told").read_text()
    assert "checkout of the branch `feature/x`" in told
    assert "What was learnt:" in told
    assert "US-001.txt" in told


@pytest.mark.parametrize("words", [("feature/none",), ("main",), ("feature/x", "absent.md"), ("a", "b", "c")])
def test_what_cannot_be_improved_is_said(user: User, words: tuple[str, ...]) -> None:
    """A branch that no run was on, a spec that is not there."""
    shipped(user)
    assert user.asks("improve", *words).code == 2
