"""Checks: the project's own commands."""

import threading
from enum import StrEnum
from typing import Protocol

import msgspec

from storyloop.core.facts import Measured
from storyloop.core.policy import UNFENCED, Command, SandboxPolicy


def checks_dir(run_dir: str) -> str:
    """Below it each command of a run has a directory of its own."""
    return f"{run_dir}/checks"


class GitAccess(StrEnum):
    """What a command may write of git's directory, although a sandbox holds it."""

    NOTHING = "nothing"
    SUBMODULES = "submodules"  # the repositories of those that this worktree has already
    ALL = "all"


class CheckOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one command of the project."""

    check_dir: str
    worktree: str
    run_dir: str
    command: Command
    timeout: float
    sandbox: SandboxPolicy = UNFENCED
    git: GitAccess = GitAccess.NOTHING


class Checks(Protocol):
    """Runs the project's commands, never through an agent."""

    def run(self, order: CheckOrder, stop: threading.Event) -> Measured | None:
        """Run it to its end in the worktree's root; None when `stop` was set meanwhile."""
        ...

    def end_left(self, run_dir: str) -> None:
        """End what a dead process left running of this run's commands, before anybody looks at the worktree."""
        ...
