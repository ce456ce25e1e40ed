"""The service: the runs on this machine, and the one process that holds one; what the upper floor builds on.

Faces get values and sentences from here; they decide nothing.
"""

import shutil
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar

from storyloop.archive import Archive
from storyloop.config.load import load
from storyloop.core.errors import OperatorError, UserError
from storyloop.core.events import Event
from storyloop.core.policy import AgentRef, AgentSpec, ForgePolicy, NotifyPolicy, SandboxPolicy
from storyloop.core.reduce import fold, reduce
from storyloop.core.run_state import RunState
from storyloop.core.spec_file import dump_spec
from storyloop.engine.crew import Crew
from storyloop.engine.hands import Hands
from storyloop.engine.notices import Notices
from storyloop.engine.requests import objection
from storyloop.engine.secrecy import without_secrets
from storyloop.journal.load import load_state
from storyloop.ports.clock import Clock
from storyloop.ports.forge import Forge
from storyloop.ports.journal import Journal, Request
from storyloop.ports.repository import Checkout, Place
from storyloop.ports.texts import Notifier, Secrets
from storyloop.views.rows import row_of

_T = TypeVar("_T")
_MOMENT = timedelta(milliseconds=5)


class Lock(Protocol):
    """A kernel lock on a run: held by the one process that writes it."""

    def acquire(self) -> int | None:
        """None when it is ours now, else the pid of the process that holds it."""
        ...

    def release(self) -> None: ...


@dataclass(frozen=True)
class Tools:
    """What the composition root gives to the service."""

    home: Path
    environ: Mapping[str, str]
    clock: Clock
    journal: Journal
    survey: Callable[[Path], Checkout]
    hands: Callable[[Place, RunState], Hands]
    crew: Callable[[], Crew]  # that does the deeds of one run
    templates: Callable[[Path], dict[str, str]]  # the prompts that the user's checkout has, checked
    lock: Callable[[Path], Lock]
    holder: Callable[[Path], int | None]
    absent_program: Callable[[AgentSpec], str | None]  # what an agent starts, when it is not on this machine
    uncounted: Callable[[AgentRef, AgentSpec], frozenset[str]]  # which budgets may not hold an agent
    absent_word: Callable[[str, Path], str | None]  # the same for a line of shell in a checkout
    held_by: Callable[[SandboxPolicy], str]  # what fences processes in; refuses what is required in vain
    notifier: Callable[[Sequence[str]], Notifier]  # for these addresses
    secrets: Secrets
    forge: Callable[[str, ForgePolicy], Forge]  # of a remote's URL; raises `ForgeTrouble`
    sweep: Callable[[], Sequence[str]]
    at_work: Callable[[Path], bool]  # whether a process of the run with this directory is left
    new_id: Callable[[], str]


class HeldElsewhereError(UserError):
    """Another live process has the run."""

    exit_code = 5

    def __init__(self, run_id: str, pid: int) -> None:
        super().__init__(
            f"Run {run_id} is held by process {pid}.",
            f"Watch it with `storyloop logs -f {run_id[:8]}`, or end it with `storyloop stop {run_id[:8]}`.",
        )
        self.run_id, self.pid = run_id, pid


class Held(AbstractContextManager["Held"]):
    """A run that this process holds: nobody else tells what becomes of it."""

    def __init__(self, tools: Tools, lock: Lock, place: Place, *, state: RunState, seq: int) -> None:
        self.tools, self.place, self.state, self.seq = tools, place, state, seq
        self._lock = lock

    @property
    def hands(self) -> Hands:
        """What deeds are done with, by the policy that the run has now."""
        return self.tools.hands(self.place, self.state)

    def tell(self, *events: Event) -> None:
        """Facts of it are durable, all or none."""
        state = self.state
        for event in events:
            state = reduce(state, event)
        self.seq = self.tools.journal.append(state.run_id, events, after=self.seq, row=row_of(state))
        self.state = state

    def release(self) -> None:
        """Others may hold it."""
        self._lock.release()

    def __exit__(self, *_: object) -> None:
        self.release()


class Service(Archive):
    """One per process."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools.journal, tools.home, tools.holder)
        self.tools = tools

    def held(self, run_id: str) -> Held:
        """The run, held from here on. Raises `HeldElsewhereError`."""
        lock = self._locked(run_id)
        try:
            state, seq = load_state(self.tools.journal, run_id)
            return Held(self.tools, lock, self.place_of(state), state=state, seq=seq)
        except BaseException:
            lock.release()
            raise

    def begun(self, place: Place, events: Sequence[Event]) -> Held:
        """A run that begins with all of these facts, held from here on."""
        state = fold(events)
        assert state is not None
        try:
            Path(place.run_dir).mkdir(parents=True, mode=0o700)
            lock = self._locked(place.run_id)
            Path(state.spec_json_path).write_bytes(dump_spec(state.going.spec))
            with self._opening():  # of two that begin in the same moment, one finds the other
                self.require_alone(state.going.repository, place.branch)
                seq = self.tools.journal.append(place.run_id, events, after=0, row=row_of(state))
        except BaseException as problem:
            shutil.rmtree(place.run_dir, ignore_errors=True)  # a run that is not in the journal has no files
            if isinstance(problem, OSError):
                raise OperatorError(
                    f"The directory {place.run_dir} could not be made ({problem.strerror}).",
                    "No run was opened, and nothing else was changed.",
                    "Make room there, or let STORYLOOP_HOME name another place.",
                ) from problem
            raise
        return Held(self.tools, lock, place, state=state, seq=seq)

    def looked_at(self, run_id: str) -> tuple[RunState, Place, Hands]:
        """The run and where it sits, to be looked at."""
        state = self.state(run_id)
        place = self.place_of(state)
        return state, place, self.tools.hands(place, state)

    def place_of(self, state: RunState) -> Place:
        """Where the run sits."""
        return self.place(state.run_id, worktree=state.going.worktree, branch=state.branch)

    def place(self, run_id: str, *, worktree: str, branch: str) -> Place:
        """Where a run with this id sits, in this worktree."""
        return Place(run_id=run_id, worktree=worktree, branch=branch, run_dir=str(self.run_dir(run_id)))

    def at_work(self, run_id: str) -> bool:
        """Whether an agent or a check of the run is at work, also one that has outlived its Storyloop."""
        return self.tools.at_work(self.run_dir(run_id))

    def notices(self, tell: Callable[[str], None]) -> Notices:
        """Word to whoever is not watching, as the user's own file has it now: it is no part of a run."""
        tools = self.tools
        try:
            notify = load(root=None, environ=tools.environ).notify
        except UserError as problem:
            tell(f"note: nobody is notified: {problem}")
            notify = NotifyPolicy()
        return Notices(tools.notifier(notify.urls) if notify.urls else None, notify.on, tell)

    def require_grantable(self, state: RunState, what: str, story: str) -> None:
        """Raises UserError when the run as it stands would refuse this request."""
        reason = objection(state, what, story)
        if reason is not None:
            raise UserError(f"Run {state.run_id} refuses: {reason}.", "`storyloop show` tells how each story stands.")

    def request(self, run_id: str, what: str, *, story: str | None = None, text: str = "") -> int | None:
        """Put a request into the run's inbox; the pid of the process that will deal with it, if one is live."""
        self.tools.journal.post(run_id, Request(number=0, what=what, story=story, text=self.tools.secrets.text(text)))
        return self.holder(run_id)

    def clean(self, value: _T) -> _T:
        """The value without the secrets in it."""
        return without_secrets(value, self.tools.secrets)

    def now(self) -> datetime:
        """This moment."""
        return self.tools.clock.now()

    def require_alone(self, repository: str, branch: str, *, run_id: str = "") -> None:
        """Raises `HeldElsewhereError` while a process has any run on the branch but this one."""
        for row in self.rows(repository):
            if row.branch == branch and row.run_id != run_id and (pid := self.holder(row.run_id)) is not None:
                raise HeldElsewhereError(row.run_id, pid)

    @contextmanager
    def _opening(self) -> Generator[None]:
        lock = self.tools.lock(self.tools.home / "opening.lock")
        while lock.acquire() is not None:  # it is held for milliseconds, and no longer than its holder lives
            self.tools.clock.wait_until(self.now() + _MOMENT, threading.Event())
        try:
            yield
        finally:
            lock.release()

    def _locked(self, run_id: str) -> Lock:
        lock = self.tools.lock(self.run_dir(run_id) / "lock")
        pid = lock.acquire()
        if pid is not None:
            raise HeldElsewhereError(run_id, pid)
        return lock
