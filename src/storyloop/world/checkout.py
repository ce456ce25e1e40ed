"""The checkout that a user stands in, as git tells of it: the `Checkout` port."""

import os
from collections.abc import Mapping
from pathlib import Path

from storyloop.ports.repository import BranchState
from storyloop.world.entering import own_branch
from storyloop.world.git import Git
from storyloop.world.survey import branch_state, discover, worktree_path


class GitCheckout:
    """Looked at once; raises UserError where no run can begin."""

    def __init__(self, cwd: Path, environ: Mapping[str, str]) -> None:
        self._facts = discover(cwd, environ)
        self._git = Git(environ=environ, cwd=self._facts.checkout)

    @property
    def root(self) -> str:
        return self._facts.checkout

    @property
    def identity(self) -> str:
        return self._facts.identity

    @property
    def head(self) -> str:
        return self._facts.head

    @property
    def head_tree(self) -> str:
        return self._git.line("rev-parse", f"{self.head}^{{tree}}")

    @property
    def head_branch(self) -> str:
        return os.fsdecode(self._git.ask("symbolic-ref", "--quiet", "--short", "HEAD").out).strip()

    @property
    def main_root(self) -> str:
        return self._facts.main_checkout

    def own_branch(self) -> str:
        return own_branch(self._facts, self._git)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._facts.warnings

    def remote_url(self, name: str) -> str:
        return self._told("remote", "get-url", "--", name)

    def commit(self, name: str) -> str:
        return self._told("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")

    def tree_of(self, commit: str) -> str:
        return self._git.line("rev-parse", f"{commit}^{{tree}}")

    def common(self, one: str, other: str) -> str:
        return self._told("merge-base", one, other)

    def _told(self, *question: str) -> str:
        """What git says; empty where it says no."""
        answer = self._git.ask(*question)
        return os.fsdecode(answer.out).strip() if answer.code == 0 else ""

    def branch(self, name: str) -> BranchState:
        return branch_state(self._git, name)

    def worktree_path(self, pattern: str, branch: str) -> str:
        return worktree_path(pattern, self._facts, branch)
