"""Wiring: the composition root, the only place that knows every concrete class.

Each maker imports what it needs when it is called: who only reads pays for nothing else.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from storyloop.archive import Archive
from storyloop.home import database_file, state_directory
from storyloop.journal.sqlite import SqliteJournal
from storyloop.world.locks import RunLock, holder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storyloop.core.events import Event
    from storyloop.core.run_state import RunState
    from storyloop.engine.hands import Hands
    from storyloop.ports.repository import Place
    from storyloop.service import Service


def make_archive(environ: Mapping[str, str] | None = None) -> Archive:
    """What can be read of the runs of this machine."""
    environ = os.environ if environ is None else environ
    return Archive(SqliteJournal(database_file(environ)), state_directory(environ), holder)


def make_service(environ: Mapping[str, str] | None = None) -> "Service":
    """The service over the real world."""
    import uuid

    from storyloop.agents.installed import absent_program
    from storyloop.agents.prices import uncounted
    from storyloop.agents.processes import ProcessAgents
    from storyloop.agents.profiles import PROFILES
    from storyloop.contracts.prompts import TemplatePrompts, read_overrides
    from storyloop.engine.crew import Threads
    from storyloop.engine.hands import Hands
    from storyloop.service import Service, Tools
    from storyloop.views.account import account_of
    from storyloop.views.report import report
    from storyloop.world.accounts import FileAccounts
    from storyloop.world.checkout import GitCheckout
    from storyloop.world.checks import SupervisedChecks
    from storyloop.world.clock import RealClock
    from storyloop.world.forges import forge_of
    from storyloop.world.notifier import AppriseNotifier
    from storyloop.world.papers import WorktreePapers
    from storyloop.world.process import is_alive, sweep
    from storyloop.world.programs import absent_word
    from storyloop.world.redaction import Redactor
    from storyloop.world.repository import GitRepository
    from storyloop.world.sandbox import Fencing, held_by
    from storyloop.world.symbols import symbols_reader

    environ = dict(os.environ if environ is None else environ)
    home = state_directory(environ)
    clock, journal = RealClock(), SqliteJournal(database_file(environ))
    secrets = Redactor(environ)
    agent_homes = [path for profile in PROFILES.values() for path in profile.homes(environ)]

    def hands(place: "Place", state: "RunState") -> "Hands":
        identity, checkout = state.going.repository, state.going.checkout
        fencing = Fencing(environ, state=home, git_dir=identity, agent_homes=agent_homes)
        policy, repository = (
            state.effective_config(),
            GitRepository(identity=identity, checkout=checkout, environ=environ),
        )
        return Hands(
            clock=clock,
            repository=repository,
            agents=ProcessAgents(environ, fencing=fencing),
            checks=SupervisedChecks(environ, fencing=fencing),
            prompts=TemplatePrompts(policy.prompts),
            papers=WorktreePapers(),
            accounts=FileAccounts(home),
            secrets=secrets,
            symbols=symbols_reader,
            place=place,
            forge=lambda: forge_of(repository.remote_url(policy.pull_request.remote), policy.forge, environ),
            report=lambda state, last: report(state, account_of(_told(journal, state, last)), clock.now()),
        )

    return Service(
        Tools(
            home=home,
            environ=environ,
            clock=clock,
            journal=journal,
            survey=lambda cwd: GitCheckout(cwd, environ),
            hands=hands,
            crew=Threads,
            templates=read_overrides,
            lock=RunLock,
            holder=holder,
            absent_program=lambda agent: absent_program(agent, environ),
            uncounted=uncounted,
            absent_word=lambda line, root: absent_word(line, root, environ),
            held_by=held_by,
            notifier=lambda urls: AppriseNotifier(urls, environ),
            secrets=secrets,
            forge=lambda url, policy: forge_of(url, policy, environ),
            sweep=lambda: [str(swept) for swept in sweep(home)],
            at_work=lambda run_dir: any(map(is_alive, (*run_dir.glob("calls/*"), *run_dir.glob("checks/*/*")))),
            new_id=lambda: str(uuid.uuid4()),
        )
    )


def _told(journal: SqliteJournal, state: "RunState", last: "Event") -> "Iterator[Event]":
    """What is stored of the run, and then this."""
    yield from (event for _, event in journal.read(state.run_id))
    yield last
