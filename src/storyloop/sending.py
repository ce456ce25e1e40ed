"""Sending: a run's branch is pushed and its pull request opened on the user's word, later than by the run itself."""

from pathlib import Path

import msgspec

from storyloop.config.load import load
from storyloop.core.delivery import delivery_step
from storyloop.core.errors import UserError
from storyloop.core.events import Event
from storyloop.core.feedback import answers_owed
from storyloop.core.policy import Policy
from storyloop.core.run_state import RunState
from storyloop.core.words import RunStatus
from storyloop.driving import Watcher
from storyloop.engine.loop import Engine
from storyloop.service import Service


def deliver(service: Service, run_id: str, *, draft: bool, watch: Watcher) -> RunState:
    """Push the run's branch and open its pull request now, as the configuration is now; what is missing is told.

    The run stays as it is, ended or not. Raises UserError where there is nothing to deliver.
    """
    with service.held(run_id) as held:
        tools, place, state = held.tools, held.place, held.state
        _require_deliverable(state)
        policy = _told_now(service, state, draft=draft)
        hands, last = tools.hands(place, msgspec.structs.replace(state, config=policy)), list[Event]()

        def seen(event: Event, state: RunState) -> None:
            last[:] = [event]
            watch(event, state)

        engine = Engine(tools.journal, hands, tools.crew(), state=state, seq=held.seq, watch=seen)
        number = state.going.delivery.number
        while engine.state.going.delivery.number == number:
            engine.do(delivery_step(engine.state.going, policy))
        hands.papers.save_report(place, hands.report(engine.state, last[0]))
        return engine.state


def _told_now(service: Service, state: RunState, *, draft: bool) -> Policy:
    """The configuration as it is now; how remarks are dealt with is the run's own."""
    policy = load(root=Path(state.going.checkout), environ=service.tools.environ).policy
    own, told = state.effective_config().pull_request, policy.pull_request
    told = msgspec.structs.replace(told, draft=draft or told.draft, answer=own.answer, resolve=own.resolve)
    return msgspec.structs.replace(policy, pull_request=told)


def _require_deliverable(state: RunState) -> None:
    run = state.run_id[:8]
    if state.status is RunStatus.RUNNING:
        cure = f"Go on with it first: `storyloop resume {run}`."
        raise UserError(f"Run {run} broke off, and what it was at is not saved yet.", cure)
    if state.going.tip == state.going.base and answers_owed(state.going, state.effective_config()) is None:
        raise UserError(f"Run {run} has committed nothing.", "There is nothing to deliver.")
