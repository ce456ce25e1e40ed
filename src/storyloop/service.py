"""The service: what any face may ask. It opens and resumes runs, posts requests, and reads what happened.

Faces get values and sentences from here; they decide nothing. Everything that can be wrong with what a user gave is
found before the first thing is written.
"""

import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from storyloop.archive import Archive
from storyloop.config.layers import NO_FLAGS, Flags
from storyloop.config.load import Loaded, amended, load, refuse_secrets
from storyloop.core.bounds import Bounds, bounds
from storyloop.core.branch import branch_fault
from storyloop.core.delivery import delivery_step
from storyloop.core.errors import OperatorError, UserError
from storyloop.core.events import Event, RunOpened, RunResumed, WorktreeLost
from storyloop.core.feedback import answers_owed
from storyloop.core.judge import unprovable
from storyloop.core.knowledge import ProjectKnowledge
from storyloop.core.policy import (
    AgentRef,
    AgentSpec,
    Drain,
    ForgePolicy,
    NotifyPolicy,
    Policy,
    Require,
    SandboxPolicy,
    agents_of,
)
from storyloop.core.progress import Feedback, ParkedFor
from storyloop.core.reduce import fold, reduce
from storyloop.core.run_state import RunState, session_id_of
from storyloop.core.spec import Spec
from storyloop.core.spec_file import MAX_SPEC_BYTES, dump_spec, is_json, parse_spec
from storyloop.core.wishes import is_unfinished
from storyloop.core.words import RunStatus
from storyloop.engine.hands import Hands
from storyloop.engine.lanes import reopen_lanes
from storyloop.engine.loop import Engine
from storyloop.engine.notices import Notices
from storyloop.engine.requests import fact_of, objection
from storyloop.engine.secrecy import without_secrets
from storyloop.journal.load import load_state
from storyloop.ports import (
    CheckedOut,
    Checkout,
    Clashes,
    Clock,
    Exists,
    Forge,
    Free,
    Journal,
    Notifier,
    Place,
    Repository,
    Request,
    Secrets,
)
from storyloop.views.rows import row_of

_T = TypeVar("_T")

Watcher = Callable[[Event, RunState], None]


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


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A run that could be opened: everything about it is known, nothing is written."""

    spec: Spec
    spec_path: str = ""
    spec_is_markdown: bool = False
    feedback: Feedback | None = None
    loaded: Loaded
    checkout: Checkout
    base: str  # the commit that it builds on
    base_tree: str
    worktree: str
    reuse_branch: bool
    earlier: str = ""  # what runs before it on its branch came to and left open
    stands: str | None  # the ended run whose worktree has the branch checked out: it is closed first
    bounds: Bounds
    sandbox: str  # what holds its agents and checks
    notes: tuple[str, ...]  # what a user should know before it starts

    @property
    def policy(self) -> Policy:
        return self.loaded.policy


def exit_code(state: RunState, *, signal: int | None = None) -> int:
    """What the process that drove the run ends with, by the contract's table."""
    match state.status:
        case RunStatus.COMPLETED:
            return 0
        case RunStatus.FAILED:
            return 1
        case RunStatus.PARKED:
            parked = state.going.parked
            return 3 if parked is not None and parked.what is ParkedFor.HUMAN else 4
        case RunStatus.INTERRUPTED | RunStatus.RUNNING:
            return 128 + (signal or 15)


class Service(Archive):
    """One per process."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools.journal, tools.home, tools.holder)
        self._tools = tools

    # --- opening --------------------------------------------------------------------------------------

    def prepare(
        self,
        spec_file: Path,
        cwd: Path,
        *,
        flags: Flags = NO_FLAGS,
        reuse_branch: bool = False,
        improves: str = "",
        earlier: str = "",
    ) -> Prepared:
        """Look at everything a run needs. Raises UserError, with all that is wrong with one file at once.

        `improves`: the branch that it builds on, whatever the spec says; `earlier`: what agents are told of that.
        """
        spec, is_markdown = read_spec(spec_file)
        if improves:
            spec, reuse_branch = msgspec.structs.replace(spec, branch_name=improves), True
        held = self._tools.secrets.find(dump_spec(spec))
        if held:
            spec = self._clean(spec)
        checkout, loaded = self.surveyed(cwd, flags=flags)
        drains = (Drain.PLAN, Drain.STORY) if spec.is_free_form else (Drain.STORY,)
        prepared = self.prepared(spec, checkout, loaded, drains=drains, reuse_branch=reuse_branch)
        told = _noted("secrets in the spec are left out of all that is kept and asked: {}", held)
        return msgspec.structs.replace(
            prepared,
            spec_path=str(spec_file.resolve()),
            spec_is_markdown=is_markdown,
            earlier=self.clean(earlier),
            notes=(*prepared.notes, *told),
        )

    def surveyed(self, cwd: Path, *, flags: Flags) -> tuple[Checkout, Loaded]:
        """The checkout that the user stands in, and the configuration there, with the prompts that it has."""
        checkout = self._tools.survey(cwd)
        root = Path(checkout.root)
        loaded = load(root=root, environ=self._tools.environ, flags=flags)
        refuse_secrets(loaded, self._tools.secrets)
        policy = msgspec.structs.replace(loaded.policy, prompts=self._templates(root))
        return checkout, msgspec.structs.replace(loaded, policy=policy)

    def prepared(
        self, spec: Spec, checkout: Checkout, loaded: Loaded, *, drains: tuple[Drain, ...], reuse_branch: bool
    ) -> Prepared:
        """A run of this spec, if it could be opened; `drains` are those that it cannot do without."""
        missing = dict.fromkeys(note for drain in drains for note in self._require_agents(loaded.policy, drain))
        self._require_checks(loaded.policy, Path(checkout.root))
        _require_proofs(spec, loaded.policy)
        stands = self._require_branch(spec.branch_name, checkout, reuse=reuse_branch)
        worktree = checkout.worktree_path(loaded.policy.worktree.pattern, spec.branch_name)
        if Path(worktree).exists() and not (stands and _is_same(worktree, self.state(stands).going.worktree)):
            raise UserError(
                f"The run's worktree would stand at {worktree}, but something is there already.",
                "Move it away, or set another [worktree] pattern in storyloop.toml.",
            )
        return Prepared(
            spec=spec,
            loaded=loaded,
            checkout=checkout,
            base=checkout.head,
            base_tree=checkout.head_tree,
            worktree=worktree,
            reuse_branch=reuse_branch,
            stands=stands,
            bounds=bounds(spec, loaded.policy),
            sandbox=self._tools.held_by(loaded.policy.sandbox),
            notes=(
                *loaded.warnings,
                *checkout.warnings,
                *missing,
                *self._uncounted(loaded.policy),
                *_noted("prompt templates of yours are used: {}", loaded.policy.prompts),
                *_noted("the worktree of run {}, which has ended, is closed first", [stands[:8]] if stands else ()),
            ),
        )

    def forge(self, url: str, policy: ForgePolicy) -> Forge:
        """The forge that a remote is at. Raises `ForgeTrouble`."""
        return self._tools.forge(url, policy)

    def clean(self, value: _T) -> _T:
        """The value without the secrets in it."""
        return without_secrets(value, self._tools.secrets)

    def _templates(self, root: Path) -> dict[str, str]:
        return without_secrets(self._tools.templates(root), self._tools.secrets)

    def _clean(self, spec: Spec) -> Spec:
        """The spec without its secrets. Raises UserError where a command would no longer be what it was."""
        clean = without_secrets(spec, self._tools.secrets)
        for before, after in zip(spec.user_stories, clean.user_stories, strict=True):
            if [c.verify for c in before.acceptance_criteria] != [c.verify for c in after.acceptance_criteria]:
                raise UserError(
                    f"A `verify:` line of story {after.id} holds a secret, which would be stored in plain text.",
                    "Let the command read it from a file.",
                )
        return clean

    def _require_agents(self, policy: Policy, drain: Drain) -> tuple[str, ...]:
        """Notes on agents of the drain's chain that are not here, as long as one is."""
        chain = policy.chain_of(drain)
        if not chain:
            raise UserError(
                "No agent is configured.",
                "Set [chains] default in storyloop.toml (`storyloop init` writes one), or give --agent NAME.",
            )
        ladder = agents_of(policy.escalation)
        names = list(dict.fromkeys(ref.agent for ref in (*chain, *ladder)))
        absent = {name: self._tools.absent_program(policy.agents[name]) for name in names}
        missing = [
            f"agent {name}: {program} was not found or is not executable" for name, program in absent.items() if program
        ]
        if all(absent[ref.agent] for ref in chain):
            raise UserError(f"{'; '.join(missing)}.", "Install it, or correct [agents] in your configuration.")
        return tuple(missing)

    def _uncounted(self, policy: Policy) -> Iterator[str]:
        """Notes on budgets that may not hold those who are asked."""
        budget = policy.budget
        bounded = {name for name in ("tokens", "usd") if getattr(budget, name) or getattr(budget.story, name)}
        for ref in dict.fromkeys((*policy.chain_of(Drain.STORY), *agents_of(policy.escalation))):
            loose = bounded & self._tools.uncounted(ref, policy.agents[ref.agent])
            if loose:
                names = " and ".join(sorted(loose))
                yield f"agent {ref}: its {names} may stay unknown, and no budget counts them; calls and time hold it"

    def _require_checks(self, policy: Policy, root: Path) -> None:
        if policy.worktree.setup:
            return  # what a check starts may only be there after the set-up
        for name, check in policy.checks.items():
            program = self._tools.absent_word(check.run, root)
            if program is not None:
                raise UserError(
                    f"check {name} starts {program}, which was not found or is not executable.",
                    "Correct [checks] in storyloop.toml, or let [worktree] setup make it.",
                )

    def _require_branch(self, branch: str, checkout: Checkout, *, reuse: bool) -> str | None:
        """The run whose worktree is to be closed first, if there is one."""
        for row in self._tools.journal.rows(checkout.identity):
            if row.branch == branch and (pid := self.holder(row.run_id)) is not None:
                raise HeldElsewhereError(row.run_id, pid)
        rename = "Give the spec another `## Branch`"
        match checkout.branch(branch):
            case Free():
                return None
            case Clashes(other=other):
                raise UserError(f"Branch {branch} cannot be made while there is a branch {other}.", f"{rename}.")
            case CheckedOut(path=path):
                rows = self._tools.journal.rows(checkout.identity) if reuse else ()
                ours = next((row.run_id for row in rows if _is_same(row.worktree, path)), None)
                if ours is not None:
                    self._require_untouched(self.state(ours))
                    return ours
                raise UserError(
                    f"Branch {branch} is checked out at {path}.",
                    f"{rename}, or switch that checkout to another branch.",
                )
            case Exists():
                if reuse:
                    return None
        runs = [row for row in self._tools.journal.rows(checkout.identity) if row.branch == branch]
        whose = f" It belongs to run {runs[0].run_id} ({runs[0].status})." if runs else ""
        go_on = f", or go on with that run: `storyloop resume {runs[0].run_id[:8]}`" if runs else ""
        raise UserError(
            f"Branch {branch} exists already.{whose}",
            f"{rename}{go_on}, or add --reuse-branch to build on top of it.",
        )

    def _require_untouched(self, state: RunState) -> Repository:
        """The run's repository, if it has ended and its worktree holds nothing that is not on the branch."""
        run, worktree = state.run_id[:8], state.going.worktree
        if state.status not in (RunStatus.COMPLETED, RunStatus.FAILED):
            raise UserError(
                f"Branch {state.branch} is checked out at {worktree} by run {run}, which is {state.status}.",
                f"Go on with it (`storyloop resume {run}`), or give the spec another `## Branch`.",
            )
        place = self._place(state)
        repository = self._tools.hands(place, state).repository
        repository.guard(place)  # what its owner has done to git since it ended is no agent's doing
        if repository.snapshot(place) != repository.tree_of(repository.tip(place)):
            raise UserError(
                f"The worktree {worktree} of run {run} holds changes that are not committed.",
                "Commit them there, or undo them, and try again.",
            )
        return repository

    def _close_standing(self, run_id: str) -> None:
        lock = self._locked(run_id)
        try:
            state = self.state(run_id)
            self._require_untouched(state).close_worktree(self._place(state))
        finally:
            lock.release()

    def open(self, prepared: Prepared) -> "Drive":
        """Open the run: from here on it is in the journal, and this process holds it."""
        tools = self._tools
        tools.sweep()
        if prepared.stands is not None:
            self._close_standing(prepared.stands)
        run_id = tools.new_id()
        place = Place(
            run_id=run_id,
            worktree=prepared.worktree,
            branch=prepared.spec.branch_name,
            run_dir=str(self.run_dir(run_id)),
        )
        try:
            return self._opened(prepared, place)
        except BaseException as problem:
            shutil.rmtree(place.run_dir, ignore_errors=True)  # a run that is not in the journal has no files
            if isinstance(problem, OSError):
                raise OperatorError(
                    f"The directory {place.run_dir} could not be made ({problem.strerror}).",
                    "No run was opened, and nothing else was changed.",
                    "Make room there, or let STORYLOOP_HOME name another place.",
                ) from problem
            raise

    def new_place(self, branch: str, cwd: Path, *, like: RunState) -> Place:
        """Where another run like this one would sit, on a new branch. Raises UserError where that is not free."""
        checkout, run_id = self._tools.survey(cwd), self._tools.new_id()
        branch = branch or f"{like.branch}-fork-{run_id[:8]}"
        if fault := branch_fault(branch):
            raise UserError(f"`{branch}` cannot be the name of a branch: {fault}.", "Give another --branch.")
        self._require_branch(branch, checkout, reuse=False)
        worktree = checkout.worktree_path(like.effective_config().worktree.pattern, branch)
        if Path(worktree).exists():
            raise UserError(f"Something is at {worktree} already.", "Give another --branch, or move it away.")
        return Place(run_id=run_id, worktree=worktree, branch=branch, run_dir=str(self.run_dir(run_id)))

    def begin(self, place: Place, events: Sequence[Event]) -> None:
        """A run begins with all of these facts, and is nobody's yet."""
        state = fold(events)
        assert state is not None
        Path(place.run_dir).mkdir(parents=True, mode=0o700)
        Path(state.spec_json_path).write_bytes(dump_spec(state.going.spec))
        self._tools.journal.append(place.run_id, events, after=0, row=row_of(state))

    def _opened(self, prepared: Prepared, place: Place) -> "Drive":
        tools, run_id = self._tools, place.run_id
        Path(place.run_dir).mkdir(parents=True, mode=0o700)
        lock = self._locked(run_id)
        spec_json = Path(place.run_dir, "spec.json")
        spec_json.write_bytes(dump_spec(prepared.spec))
        opened = RunOpened(
            key="opened",
            at=tools.clock.now(),
            run_id=run_id,
            spec=prepared.spec,
            spec_json_path=str(spec_json),
            spec_md_path=prepared.spec_path if prepared.spec_is_markdown else None,
            policy=prepared.policy,
            repository=prepared.checkout.identity,
            checkout=prepared.checkout.root,
            branch=place.branch,
            base=prepared.base,
            base_tree=prepared.base_tree,
            base_branch=prepared.checkout.head_branch,
            reuse_branch=prepared.reuse_branch,
            worktree=place.worktree,
            session_id=session_id_of(place.worktree),
            knowledge=self._known_of(prepared),
            earlier=prepared.earlier,
            feedback=prepared.feedback,
        )
        state = reduce(None, opened)
        seq = tools.journal.append(run_id, [opened], after=0, row=row_of(state))
        return Drive(tools, lock, place, state=state, seq=seq, opened=opened)

    def _known_of(self, prepared: Prepared) -> ProjectKnowledge:
        """What the last run on a branch that is reused has learnt."""
        rows = self._tools.journal.rows(prepared.checkout.identity) if prepared.reuse_branch else []
        before = next((row for row in rows if row.branch == prepared.spec.branch_name), None)
        known = self.state(before.run_id).knowledge if before else ProjectKnowledge()
        return msgspec.structs.replace(known, baseline_commit=None)

    # --- going on -------------------------------------------------------------------------------------

    def resume(self, run_id: str, *, flags: Flags = NO_FLAGS, prompts: bool = False) -> "Drive | RunState":
        """Take the run up again; the state alone comes back when there is nothing to go on with.

        With `prompts` the templates are read from the checkout again. Raises UserError where it cannot go on as its
        policy wants.
        """
        tools = self._tools
        lock = self._locked(run_id)
        try:
            tools.sweep()
            state, seq = self._settled_inbox(*load_state(tools.journal, run_id))
            if not _can_go_on(state):
                lock.release()
                return state
            policy = state.effective_config()
            tools.held_by(policy.sandbox)
            place = self._place(state)
            hands = tools.hands(place, state)
            if state.going.opening.worktree_opened:
                hands.checks.end_left(place.run_dir)
                if not hands.repository.has_worktree(place):
                    lost = WorktreeLost(key=f"worktree/lost/{state.going.resumes}", at=tools.clock.now())
                    state, seq = self._told(state, seq, lost)
                elif state.status is not RunStatus.RUNNING:  # what has changed since is the user's own
                    hands.repository.guard(place)
                for lane in reopen_lanes(state, hands):
                    key = f"worktree/lost/{state.going.resumes}/lane/{lane}"
                    state, seq = self._told(state, seq, WorktreeLost(key=key, at=tools.clock.now(), lane=lane))
            new = amended(policy, flags) if flags != NO_FLAGS else policy
            if prompts:
                new = msgspec.structs.replace(new, prompts=self._templates(Path(state.going.checkout)))
            resumed = RunResumed(
                key=f"resumed/{state.going.resumes + 1}",
                at=tools.clock.now(),
                policy=None if new == policy else new,
            )
            state, seq = self._told(state, seq, resumed)
        except BaseException:
            lock.release()
            raise
        return Drive(tools, lock, place, state=state, seq=seq, opened=resumed)

    def deliver(self, run_id: str, *, draft: bool, watch: Watcher) -> RunState:
        """Push the run's branch and open its pull request now, as the configuration is now; what is missing is told.

        The run stays as it is, ended or not. Raises UserError where there is nothing to deliver.
        """
        tools = self._tools
        lock = self._locked(run_id)
        try:
            state, seq = load_state(tools.journal, run_id)
            _require_deliverable(state)
            place, policy = self._place(state), load(root=Path(state.going.checkout), environ=tools.environ).policy
            own, told = state.effective_config().pull_request, policy.pull_request
            told = msgspec.structs.replace(told, draft=draft or told.draft, answer=own.answer, resolve=own.resolve)
            policy = msgspec.structs.replace(policy, pull_request=told)
            hands, last = tools.hands(place, msgspec.structs.replace(state, config=policy)), list[Event]()

            def seen(event: Event, state: RunState) -> None:
                last[:] = [event]
                watch(event, state)

            engine, number = Engine(tools.journal, hands, state=state, seq=seq, watch=seen), state.going.delivery.number
            while engine.state.going.delivery.number == number:
                engine.do(delivery_step(engine.state.going, policy))
            hands.papers.save_report(place, hands.report(engine.state, last[0]))
            return engine.state
        finally:
            lock.release()

    def _settled_inbox(self, state: RunState, seq: int) -> tuple[RunState, int]:
        """Requests that came while nobody had the run, turned into facts; nothing of any story is under way."""
        tools = self._tools
        for request in tools.journal.inbox(state.run_id, after=state.going.inbox_seen):
            work = state.going.work.get(request.story or "")
            if request.what == "skip" and work is not None:
                break  # the engine deals with it: an agent may have to be found and ended first
            state, seq = self._told(state, seq, fact_of(state, request, tools.clock.now()))
        return state, seq

    def _told(self, state: RunState, seq: int, event: Event) -> tuple[RunState, int]:
        state = reduce(state, event)
        return state, self._tools.journal.append(state.run_id, [event], after=seq, row=row_of(state))

    def notices(self, tell: Callable[[str], None]) -> Notices:
        """Word to whoever is not watching, as the user's own file has it now: it is no part of a run."""
        tools = self._tools
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
        self._tools.journal.post(run_id, Request(number=0, what=what, story=story, text=self._tools.secrets.text(text)))
        return self.holder(run_id)

    @contextmanager
    def held(self, run_id: str) -> "Generator[Held]":
        """The run, while this process holds it without driving it. Raises `HeldElsewhereError`."""
        lock = self._locked(run_id)
        try:
            state, seq = load_state(self._tools.journal, run_id)
            place = self._place(state)
            yield Held(self._tools, place, self._tools.hands(place, state), state=state, seq=seq)
        finally:
            lock.release()

    def at_work(self, run_id: str) -> bool:
        """Whether an agent or a check of the run is at work, also one that has outlived its Storyloop."""
        return self._tools.at_work(self.run_dir(run_id))

    def looked_at(self, run_id: str) -> tuple[RunState, Place, Hands]:
        """The run and where it sits, to be looked at."""
        state = self.state(run_id)
        place = self._place(state)
        return state, place, self._tools.hands(place, state)

    def now(self) -> datetime:
        """This moment."""
        return self._tools.clock.now()

    def _locked(self, run_id: str) -> Lock:
        lock = self._tools.lock(self.run_dir(run_id) / "lock")
        pid = lock.acquire()
        if pid is not None:
            raise HeldElsewhereError(run_id, pid)
        return lock

    def _place(self, state: RunState) -> Place:
        return Place(
            run_id=state.run_id,
            worktree=state.going.worktree,
            branch=state.branch,
            run_dir=str(self.run_dir(state.run_id)),
        )


class Held:
    """A run that this process holds, to do something with it that is no part of its work."""

    def __init__(self, tools: Tools, place: Place, hands: Hands, *, state: RunState, seq: int) -> None:
        self._tools, self.place, self.hands, self.state, self._seq = tools, place, hands, state, seq

    def tell(self, *events: Event) -> None:
        """Facts of it are durable, all or none."""
        for event in events:
            self.state = reduce(self.state, event)
        row = row_of(self.state)
        self._seq = self._tools.journal.append(self.state.run_id, events, after=self._seq, row=row)


class Drive(AbstractContextManager["Drive"]):
    """A run that this process holds: drive it, then leave it."""

    def __init__(self, tools: Tools, lock: Lock, place: Place, *, state: RunState, seq: int, opened: Event) -> None:
        self._tools, self._lock, self._place, self._opened = tools, lock, place, opened
        self._state, self._seq = state, seq
        self._engine: Engine | None = None
        self._early: str | None = None

    @property
    def state(self) -> RunState:
        """The run as it stands."""
        return self._engine.state if self._engine is not None else self._state

    def interrupt(self, reason: str) -> None:
        """Ask the run to stop; safe to call from a signal handler."""
        self._early = reason
        if self._engine is not None:
            self._engine.interrupt(reason)

    def run(self, watch: Watcher, *, seen: Callable[[str], None] = lambda _: None) -> RunState:
        """Until the run has ended, is parked or was interrupted."""
        tools = self._tools
        hands = tools.hands(self._place, self._state)
        watch(self._opened, self._state)
        hands = replace(hands, seen=seen)
        engine = Engine(tools.journal, hands, state=self._state, seq=self._seq, watch=watch)
        self._engine = engine
        if self._early is not None:
            engine.interrupt(self._early)
        return engine.run()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _is_same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _noted(sentence: str, names: Iterable[str]) -> tuple[str, ...]:
    listed = ", ".join(names)
    return (sentence.format(listed),) if listed else ()


def read_spec(path: Path) -> tuple[Spec, bool]:
    """The spec in this file, and whether it is Markdown. Raises UserError for a file that is none."""
    if not path.exists():
        raise UserError(f"There is no file {path}.", "Give the path of a spec: Markdown or JSON.")
    if not path.is_file():
        raise UserError(f"{path} is not a file.", "Give the path of a spec: Markdown or JSON.")
    if path.stat().st_size > MAX_SPEC_BYTES:
        raise UserError(
            f"{path} is larger than {MAX_SPEC_BYTES // 1_000_000} MB.", "A spec is text; is this the right file?"
        )
    text = path.read_bytes()
    spec = parse_spec(text, name=path.name)
    return spec, not is_json(text.decode("utf-8-sig"), name=path.name)


_LACKING = {
    Require.CHECKS: (
        "no command could prove them",
        "Add a check to [checks] in storyloop.toml, or a `verify:` line to a criterion",
    ),
    Require.CRITERIA: (
        "they have criteria without a command, and [proof] require is `criteria`",
        "Add a `verify:` line to each criterion, or bind `analysis` in [drains] to an agent that judges the others",
    ),
}


def _require_proofs(spec: Spec, policy: Policy) -> None:
    lacking = unprovable(spec, policy)
    if lacking:
        what, cure = _LACKING[policy.require]
        raise UserError(f"{', '.join(lacking)}: {what}.", f'{cure}; or set [proof] require = "none" to go without.')


def _require_deliverable(state: RunState) -> None:
    run = state.run_id[:8]
    if state.status is RunStatus.RUNNING:
        cure = f"Go on with it first: `storyloop resume {run}`."
        raise UserError(f"Run {run} broke off, and what it was at is not saved yet.", cure)
    if state.going.tip == state.going.base and answers_owed(state.going, state.effective_config()) is None:
        raise UserError(f"Run {run} has committed nothing.", "There is nothing to deliver.")


def _can_go_on(state: RunState) -> bool:
    if state.status is not RunStatus.FAILED:
        return state.status is not RunStatus.COMPLETED
    return is_unfinished(state.going, state.effective_config(), state.review_iteration)
