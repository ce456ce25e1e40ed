"""Agents: one start of one of them, and what all runs of a machine share of their accounts."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import msgspec

from storyloop.core.errand import Mode
from storyloop.core.facts import CallReport
from storyloop.core.policy import UNFENCED, AgentRef, AgentSpec, Drain, SandboxPolicy


def artifact_path(worktree: str, key: str) -> str:
    """Where the agent of the call with this key puts its artifact: known before the call, fresh for each."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in key)
    return f"{worktree}/.storyloop/{name[-100:]}.xml"


class CallOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One start of one agent: everything that is needed to launch it, or to find it again."""

    run_id: str
    key: str  # derived: story/iteration/drain/attempt/call
    call_dir: str  # of this one call, and never used again
    worktree: str
    ref: AgentRef
    agent: AgentSpec
    drain: Drain
    story: str | None
    iteration: int = 0  # over the story, or of the review
    attempt: int
    call: int
    mode: Mode
    session: str | None
    prompt: str  # only launching reads it, and
    background: str = ""  # what the prompt refers to, a file in the worktree's `.storyloop`
    call_timeout: float
    idle_timeout: float
    orphan_grace: float
    sandbox: SandboxPolicy = UNFENCED
    seat: int | None = None  # the lock that is held for as long as the call lasts, whoever dies


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is seen doing; for watching, never for deciding."""

    text: str


class Watch(Protocol):
    """A call that is under way."""

    def wait(self, seconds: float) -> CallReport | None:
        """Its report as soon as it has ended, else None after so many seconds."""
        ...

    def stop(self) -> None:
        """End the agent's whole tree; `wait` then reports it as interrupted."""
        ...

    def activity(self) -> Activity | None:
        """The newest thing it was seen doing since the last question, read within a fixed bound."""
        ...


class Agents(Protocol):
    """Starts agents, and finds the ones that a dead Storyloop left running."""

    def launch(self, order: CallOrder) -> Watch:
        """Start the agent; one that cannot be started is a report (`missing`), not an error."""
        ...

    def adopt(self, order: CallOrder) -> Watch:
        """Take up the call that an earlier process began; one that is lost reports as interrupted."""
        ...


class Limited(msgspec.Struct, frozen=True, kw_only=True):
    """An agent has no quota left, and for how long."""

    until: datetime
    reason: str


class Seat(msgspec.Struct, frozen=True):
    """The right to one call of an account. Any process that has inherited `lock` holds it as well."""

    leave: Callable[[], None]
    lock: int | None = None


class Accounts(Protocol):
    """What the runs of this machine share of agents' accounts: limits that were met, and seats."""

    def limit(self, account: str, model: str | None) -> Limited | None:
        """What was last met of this account and model; it may be over by now."""
        ...

    def learn(self, account: str, model: str | None, limited: Limited | None) -> None:
        """A limit was met, or (None) there is quota again."""
        ...

    def take_seat(self, account: str, seats: int) -> Seat | None:
        """One of so many seats; None while all are taken."""
        ...
