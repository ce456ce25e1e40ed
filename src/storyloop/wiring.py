"""Wiring: the composition root, the only place that knows every concrete class."""

import os
import uuid
from collections.abc import Mapping

from storyloop.agents.command import CommandAgents
from storyloop.contracts.prompts import TemplatePrompts
from storyloop.engine.hands import Hands
from storyloop.home import database_file, state_directory
from storyloop.journal.sqlite import SqliteJournal
from storyloop.ports import BranchState, Place
from storyloop.service import Service, Tools
from storyloop.views.report import report
from storyloop.world import survey
from storyloop.world.checks import SupervisedChecks
from storyloop.world.clock import RealClock
from storyloop.world.git import Git
from storyloop.world.locks import RunLock, holder
from storyloop.world.papers import WorktreePapers
from storyloop.world.process import sweep
from storyloop.world.repository import GitRepository


def make_service(environ: Mapping[str, str] | None = None) -> Service:
    """The service over the real world."""
    environ = dict(os.environ if environ is None else environ)
    home = state_directory(environ)
    clock = RealClock()

    def hands(place: Place, identity: str, checkout: str) -> Hands:
        return Hands(
            clock=clock,
            repository=GitRepository(identity=identity, checkout=checkout, environ=environ),
            agents=CommandAgents(environ),
            checks=SupervisedChecks(environ),
            prompts=TemplatePrompts(),
            papers=WorktreePapers(),
            place=place,
            report=lambda state: report(state, clock.now()),
        )

    return Service(
        Tools(
            home=home,
            environ=environ,
            clock=clock,
            journal=SqliteJournal(database_file(environ)),
            survey=lambda cwd: GitCheckout(survey.discover(cwd, environ), environ),
            hands=hands,
            lock=RunLock,
            holder=holder,
            sweep=lambda: [str(swept) for swept in sweep(home)],
            new_id=lambda: str(uuid.uuid4()),
        )
    )


class GitCheckout:
    """The checkout that a user stands in, as git tells of it."""

    def __init__(self, facts: survey.RepositoryFacts, environ: Mapping[str, str]) -> None:
        self._facts, self._git = facts, Git(environ=environ, cwd=facts.checkout)

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
    def warnings(self) -> tuple[str, ...]:
        return self._facts.warnings

    def branch(self, name: str) -> BranchState:
        return survey.branch_state(self._git, name)

    def worktree_path(self, pattern: str, branch: str) -> str:
        return survey.worktree_path(pattern, self._facts, branch)
