"""Doing: what a running run is at, as faces show it, derived from the rest of its state with every fact."""

from storyloop.core.delivery import is_delivering
from storyloop.core.draft import Draft
from storyloop.core.feedback import is_between_looks, is_unplanned
from storyloop.core.planning import planning_state
from storyloop.core.policy import Drain
from storyloop.core.stages import (
    Approving,
    Asking,
    Closing,
    Doubting,
    Landing,
    Leaving,
    Preparing,
    Proving,
    TakingUp,
    Work,
    errand_of,
    is_set_aside,
    waiting_of,
)
from storyloop.core.steps import is_initializing
from storyloop.core.words import MachineState

_WAITING = MachineState.WAITING  # Python 3.11 takes long to look up a member
_DOING: dict[type, MachineState] = {
    Preparing: MachineState.RUNNING_AGENT,
    Asking: MachineState.WAITING,
    TakingUp: MachineState.RUNNING_AGENT,
    Proving: MachineState.PROVING,
    Doubting: MachineState.PROVING,
    Approving: MachineState.WAITING,
    Landing: MachineState.LANDING,
    Leaving: MachineState.LANDING,
    Closing: MachineState.PICKING_STORY,
}
_ASKING: dict[Drain, MachineState] = {
    Drain.STORY: MachineState.RUNNING_AGENT,
    Drain.REVIEW: MachineState.REVIEWING,
    Drain.FIX: MachineState.CORRECTING,
    Drain.ANALYSIS: MachineState.PROVING,
    Drain.COMMIT: MachineState.COMMITTING,
    Drain.CONFLICT: MachineState.RUNNING_AGENT,
    Drain.PR: MachineState.CREATING_PR,
}


def machine_state(run: Draft) -> MachineState:
    """The machine state that all else comes to."""
    if is_unplanned(run):
        return planning_state(run)
    if run.final.owed:
        return MachineState.PROVING
    if is_initializing(run):
        return MachineState.INITIALIZING
    if not run.work:
        idle = MachineState.WAITING if is_between_looks(run) else MachineState.PICKING_STORY
        return MachineState.CREATING_PR if is_delivering(run) else idle
    work, *others = run.work.values()
    if others:
        work = max(work, *others, key=_shows)
    doing = _DOING.get(type(work.stage))
    return doing or (_WAITING if waiting_of(work) else _ASKING[errand_of(work)[0].drain])


def only_waits(run: Draft) -> bool:
    """Nothing is under way but waiting: that is no time of the budget's."""
    return run.machine_state is _WAITING and all(
        work.lane is None or isinstance(work.stage, Approving) or waiting_of(work) for work in run.work.values()
    )


def _shows(work: Work) -> tuple[bool, bool, int]:
    """Of several stories, the state of the most recently started one is shown, of those that are worked on."""
    return not is_set_aside(work), work.lane is not None, work.iteration
