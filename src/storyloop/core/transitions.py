"""Transitions: which machine state of a run may follow which, and what status a state means."""

from storyloop.core.words import MachineState, RunStatus

_S = MachineState

# The work of a run. Stories may be built in parallel, so the states of building follow each other freely;
# picking may be too short to be seen. Every one of these may also wait, be parked, or fail.
_WORK: dict[MachineState, set[MachineState]] = {
    _S.LOADING_SPEC: {_S.GENERATING_SPEC, _S.INITIALIZING},
    _S.GENERATING_SPEC: {_S.LOADING_SPEC, _S.INITIALIZING},
    _S.INITIALIZING: {_S.PICKING_STORY, _S.RUNNING_AGENT},
    _S.PICKING_STORY: {
        _S.RUNNING_AGENT,
        _S.PROVING,
        _S.LANDING,
        _S.COMMITTING,
        _S.REVIEWING,
        _S.CORRECTING,
        _S.CREATING_PR,
        _S.COMPLETED,
    },
    _S.RUNNING_AGENT: {_S.PICKING_STORY, _S.CORRECTING, _S.PROVING, _S.LANDING, _S.COMMITTING, _S.REVIEWING},
    _S.PROVING: {
        _S.PICKING_STORY,
        _S.RUNNING_AGENT,
        _S.LANDING,
        _S.COMMITTING,
        _S.REVIEWING,
        _S.CORRECTING,
        _S.CREATING_PR,
        _S.COMPLETED,
    },
    _S.LANDING: {_S.PICKING_STORY, _S.RUNNING_AGENT, _S.PROVING, _S.COMMITTING},
    _S.COMMITTING: {
        _S.PICKING_STORY,
        _S.RUNNING_AGENT,
        _S.PROVING,
        _S.LANDING,
        _S.REVIEWING,
        _S.CORRECTING,
        _S.CREATING_PR,
        _S.COMPLETED,
    },
    _S.REVIEWING: {
        _S.PICKING_STORY,
        _S.RUNNING_AGENT,
        _S.CORRECTING,
        _S.PROVING,
        _S.LANDING,
        _S.COMMITTING,
    },
    _S.CORRECTING: {_S.PICKING_STORY, _S.RUNNING_AGENT, _S.REVIEWING, _S.PROVING, _S.LANDING, _S.COMMITTING},
    _S.CREATING_PR: {_S.PICKING_STORY, _S.RUNNING_AGENT, _S.COMPLETED},
}
_PAUSES = {_S.WAITING, _S.PARKED}
LEGAL: dict[MachineState, set[MachineState]] = {
    _S.IDLE: {_S.LOADING_SPEC, _S.INITIALIZING},
    **{state: after | _PAUSES | {_S.FAILED} for state, after in _WORK.items()},
    **{pause: set(_WORK) | _PAUSES | {_S.FAILED} for pause in _PAUSES},
    # A retry: of a blocked story, of the set-up, or of the plan.
    _S.FAILED: {_S.PICKING_STORY, _S.INITIALIZING, _S.LOADING_SPEC},
    _S.COMPLETED: {_S.PICKING_STORY},  # what it did was undone
}
ENDINGS = {_S.COMPLETED: RunStatus.COMPLETED, _S.FAILED: RunStatus.FAILED}
ENDED = frozenset(ENDINGS.values())
# What entering a state means: running, or running again, unless it is an end or a pause for somebody else.
STATUS = dict.fromkeys(_S, RunStatus.RUNNING) | ENDINGS | {_S.PARKED: RunStatus.PARKED}
