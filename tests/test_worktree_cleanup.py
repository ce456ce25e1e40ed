"""`[worktree] cleanup`: what a shipped run leaves of its worktree, through the real program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("cleanup", "is_left"), [("true", False), ("false", True)])
def test_a_shipped_runs_worktree_goes_only_when_asked(tmp_path: Path, cleanup: str, is_left: bool) -> None:
    """The branch with its commits stays either way."""
    repository = tmp_path / "tea"
    repository.mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "STORYLOOP_HOME": str(tmp_path / "state")}
    agent = (
        "echo hi > f; echo '<development-result><status>completed</status><summary>s</summary></development-result>'"
    )
    (repository / "storyloop.toml").write_text(
        f'[worktree]\ncleanup = {cleanup}\n[agents.one]\nkind = "command"\ncommand = ["sh", "-c", "{agent}"]\n'
        '[chains]\ndefault = ["one"]\n[review]\nenabled = false\n[checks]\nfine = "true"\n'
    )
    (repository / "spec.md").write_text(
        "# T\n## User Stories\n### A-1: One\n**Acceptance Criteria:**\n- [ ] There is a file\n"
    )
    for words in (
        ["init", "-q", "-b", "main"],
        ["config", "user.name", "T"],
        ["config", "user.email", "t@example.invalid"],
        ["add", "."],
        ["commit", "-q", "-m", "base"],
    ):
        subprocess.run(["git", *words], cwd=repository, env=env, check=True)
    run = [sys.executable, "-m", "storyloop", "run", "spec.md", "-q"]
    subprocess.run(run, cwd=repository, env=env, check=True, capture_output=True)
    assert (tmp_path / "tea-wt-storyloop-t").exists() is is_left
    told = subprocess.run(
        ["git", "worktree", "list"], cwd=repository, env=env, check=True, capture_output=True, text=True
    )
    assert ("tea-wt-storyloop-t" in told.stdout) is is_left
    kept = ["git", "cat-file", "-e", "storyloop/t:f"]
    subprocess.run(kept, cwd=repository, env=env, check=True)
