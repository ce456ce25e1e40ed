"""Driving: a run is opened, or taken up again, and driven to where it ends, is parked or is interrupted."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec

from storyloop.config.layers import NO_FLAGS, Flags
from storyloop.config.load import amended
from storyloop.core.events import Event, RunOpened, RunResumed, WorktreeLost
from storyloop.core.knowledge import ProjectKnowledge
from storyloop.core.progress import ParkedFor
from storyloop.core.run_state import RunState, session_id_of
from storyloop.core.wishes import is_unfinished
from storyloop.core.words import RunStatus
from storyloop.engine.lanes import reopen_lanes
from storyloop.engine.loop import Engine
from storyloop.engine.requests import fact_of
from storyloop.preparing import (
    Basis,
    Prepared,
    require_as_left,
    require_one_at_a_time,
    require_untouched,
    require_vacant,
    templates_of,
)
from storyloop.service import Held, Service

Watcher = Callable[[Event, RunState], None]


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


class Drive(AbstractContextManager["Drive"]):
    """A run that this process holds: drive it, then leave it."""

    def __init__(self, held: Held, begun: Event) -> None:
        self._held, self._begun = held, begun
        self._engine: Engine | None = None
        self._early: str | None = None

    @property
    def state(self) -> RunState:
        """The run as it stands."""
        return self._engine.state if self._engine is not None else self._held.state

    def interrupt(self, reason: str) -> None:
        """Ask the run to stop; safe to call from a signal handler."""
        self._early = reason
        if self._engine is not None:
            self._engine.interrupt(reason)

    def run(self, watch: Watcher, *, seen: Callable[[str], None] = lambda _: None) -> RunState:
        """Until the run has ended, is parked or was interrupted."""
        held = self._held
        hands = replace(held.hands, seen=seen)
        watch(self._begun, held.state)
        engine = Engine(held.tools.journal, hands, held.tools.crew(), state=held.state, seq=held.seq, watch=watch)
        self._engine = engine
        if self._early is not None:
            engine.interrupt(self._early)
        return engine.run()

    def __exit__(self, *_: object) -> None:
        self._held.release()


def open_run(service: Service, prepared: Prepared) -> Drive:
    """Open the run: from here on it is in the journal, and this process holds it."""
    tools = service.tools
    tools.sweep()
    if prepared.stands is not None:
        with service.held(prepared.stands) as standing:
            require_untouched(service, prepared.stands).close_worktree(standing.place)
    place = service.place(tools.new_id(), worktree=prepared.worktree, branch=prepared.spec.branch_name)
    opened = RunOpened(
        key="opened",
        at=tools.clock.now(),
        run_id=place.run_id,
        spec=prepared.spec,
        spec_json_path=f"{place.run_dir}/spec.json",
        spec_md_path=prepared.spec_path if prepared.spec_is_markdown else None,
        policy=prepared.policy,
        repository=prepared.checkout.identity,
        checkout=prepared.checkout.root,
        branch=place.branch,
        base=prepared.base,
        base_tree=prepared.base_tree,
        base_branch=prepared.checkout.head_branch,
        reuse_branch=prepared.basis is not Basis.NEW,
        worktree=place.worktree,
        session_id=session_id_of(place.worktree, main_checkout=prepared.checkout.main_root),
        knowledge=_known_of(service, prepared),
        earlier=prepared.earlier,
        feedback=prepared.feedback,
    )
    return Drive(service.begun(place, [opened]), opened)


def resume_run(service: Service, run_id: str, *, flags: Flags = NO_FLAGS, prompts: bool = False) -> Drive | RunState:
    """Take the run up again; the state alone comes back when there is nothing to go on with.

    With `prompts` the templates are read from the checkout again. Raises UserError where it cannot go on as its
    policy wants.
    """
    with ExitStack() as unless_driven:
        held = unless_driven.enter_context(service.held(run_id))
        tools = held.tools
        tools.sweep()
        _settle_inbox(held)
        if not _can_go_on(held.state):
            return held.state
        policy, going = held.state.effective_config(), held.state.going
        tools.held_by(policy.sandbox)
        service.require_alone(going.repository, held.state.branch, run_id=run_id)
        if going.is_in_checkout:
            require_vacant(service, going.repository, going.checkout, but=run_id)
        if going.opening.worktree_opened:
            newest = next(row for row in service.rows(going.repository) if row.branch == held.state.branch)
            # Of a run that broke off, what an agent has committed may be there; what others have is not taken for that.
            broke_off = held.state.status is RunStatus.RUNNING and newest.run_id == run_id
            _find_worktrees(held, left_at="" if broke_off else going.tip)
        new = amended(policy, flags) if flags != NO_FLAGS else policy
        if prompts:
            new = msgspec.structs.replace(new, prompts=templates_of(service, Path(going.checkout)))
        if going.is_in_checkout:
            require_one_at_a_time(new)
        resumed = RunResumed(
            key=f"resumed/{held.state.going.resumes + 1}",
            at=tools.clock.now(),
            policy=None if new == policy else new,
        )
        held.tell(resumed)
        unless_driven.pop_all()
        return Drive(held, resumed)


def _find_worktrees(held: Held, *, left_at: str) -> None:
    """What was left at work is ended, and a worktree that somebody deleted is told to be lost."""
    place, hands, clock = held.place, held.hands, held.tools.clock
    key = f"worktree/lost/{held.state.going.resumes}"
    hands.checks.end_left(place.run_dir)
    if not hands.repository.has_worktree(place, tip=left_at):
        held.tell(WorktreeLost(key=key, at=clock.now()))
    elif held.state.status is not RunStatus.RUNNING:  # what has changed since is the user's own
        hands.repository.guard(place)
        if held.state.going.is_in_checkout:
            require_as_left(held.state, place, hands.repository)
    for lane in reopen_lanes(held.state, hands):
        held.tell(WorktreeLost(key=f"{key}/lane/{lane}", at=clock.now(), lane=lane))


def _settle_inbox(held: Held) -> None:
    """Requests that came while nobody had the run become facts; nothing of any story is under way."""
    for request in held.tools.journal.inbox(held.state.run_id, after=held.state.going.inbox_seen):
        if request.what == "skip" and request.story in held.state.going.work:
            break  # the engine deals with it: an agent may have to be found and ended first
        held.tell(fact_of(held.state, request, held.tools.clock.now()))


def _can_go_on(state: RunState) -> bool:
    if state.status is not RunStatus.FAILED:
        return state.status is not RunStatus.COMPLETED
    return is_unfinished(state.going, state.effective_config(), state.review_iteration)


def _known_of(service: Service, prepared: Prepared) -> ProjectKnowledge:
    """What the last run on a branch that is reused has learnt."""
    rows = service.rows(prepared.checkout.identity) if prepared.basis is not Basis.NEW else []
    before = next((row for row in rows if row.branch == prepared.spec.branch_name), None)
    known = service.state(before.run_id).knowledge if before else ProjectKnowledge()
    return msgspec.structs.replace(known, baseline_commit=None)
