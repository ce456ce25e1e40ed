"""Hands: the ports that deeds are done with, and what a deed may report while it is under way."""

from collections.abc import Callable
from dataclasses import dataclass

from storyloop.core.events import Event
from storyloop.core.forge import ForgeTrouble, Trouble
from storyloop.core.run_state import RunState
from storyloop.ports import (
    Accounts,
    Agents,
    Checks,
    Clock,
    Forge,
    Papers,
    Place,
    Prompts,
    Repository,
    Secrets,
    SymbolsReader,
)


def _no_forge() -> Forge:
    raise ForgeTrouble(Trouble.NOT_FOUND, "No forge is known.", "Add a remote.")


@dataclass(frozen=True)
class Hands:
    """Everything a deed may touch. `seen` shows an agent's activity to whoever watches; nothing depends on it."""

    clock: Clock
    repository: Repository
    agents: Agents
    checks: Checks
    prompts: Prompts
    papers: Papers
    accounts: Accounts
    secrets: Secrets
    symbols: Callable[[str], SymbolsReader | None]  # by path; None: nothing here can read such a file
    place: Place
    report: Callable[[RunState, Event], str]  # with this last fact, which is not stored yet
    forge: Callable[[], Forge] = _no_forge  # may raise `ForgeTrouble`
    seen: Callable[[str], None] = lambda _: None
