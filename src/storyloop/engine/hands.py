"""Hands: the ports that deeds are done with, and what a deed may report while it is under way."""

from collections.abc import Callable
from dataclasses import dataclass

from storyloop.core.events import Event
from storyloop.core.run_state import RunState
from storyloop.ports.agents import Accounts, Agents
from storyloop.ports.checks import Checks
from storyloop.ports.clock import Clock
from storyloop.ports.forge import Forge
from storyloop.ports.repository import Place, Repository
from storyloop.ports.texts import Papers, Prompts, Secrets, SymbolsReader


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
    forge: Callable[[], Forge]  # that the remote is at; raises `ForgeTrouble`
    report: Callable[[RunState, Event], str]  # with this last fact, which is not stored yet
    seen: Callable[[str], None] = lambda _: None
