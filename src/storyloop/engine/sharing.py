"""Sharing: what all runs of this machine know of an agent's account: its limits, and its seats."""

import threading
from datetime import timedelta

from storyloop.core.chain import Cooled, limited_until
from storyloop.core.effects import CallAgent
from storyloop.core.errand import Errand
from storyloop.core.events import LimitLearned
from storyloop.core.facts import Answered, CallReport, Failed, Failure
from storyloop.core.run_state import RunState
from storyloop.engine.hands import Hands
from storyloop.ports.agents import Limited, Seat

NO_SEAT = Seat(lambda: None)
_GLANCE = 0.5  # seconds between two looks at whether a seat is free


def known_limit(effect: CallAgent, errand: Errand, state: RunState, hands: Hands) -> LimitLearned | None:
    """What another run has learned of the agent that is to be asked."""
    policy = state.effective_config()
    account = policy.agents[effect.ref.agent].shared_account()
    if account is None or errand.learned >= policy.limits.calls_per_errand:
        return None
    limited = hands.accounts.limit(account, effect.ref.model)
    now = hands.clock.now()
    if limited is None or limited.until <= now:
        return None
    return LimitLearned(
        key=f"{effect.key}/limit/{errand.learned + 1}",
        at=now,
        story=effect.story,
        drain=effect.drain,
        ref=effect.ref,
        until=limited.until,
        reason=limited.reason,
    )


def share(report: CallReport, effect: CallAgent, state: RunState, hands: Hands) -> None:
    """Let other runs know of a limit, until its stated end or the one that we guess, and that one is over."""
    policy = state.effective_config()
    account = policy.agents[effect.ref.agent].shared_account()
    if account is None:
        return
    match report.outcome:
        case Failed(failure=Failure.LIMIT as failure, resets_at=resets_at, message=message):
            reason = f"{effect.ref}: {hands.secrets.text(message)}"
            now = hands.clock.now()
            cooled = Cooled(failure=failure, reason=reason, resets_at=resets_at, now=now, limits=policy.limits)
            until = limited_until(state.going.cooling, effect.ref, cooled)
            hands.accounts.learn(account, effect.ref.model, Limited(until=until, reason=reason))
        case Answered():
            hands.accounts.learn(account, effect.ref.model, None)
        case _:
            pass


def take_seat(effect: CallAgent, state: RunState, hands: Hands, stop: threading.Event) -> Seat | None:
    """A seat, as soon as one is free; None when the run is to stop before."""
    agent = state.effective_config().agents[effect.ref.agent]
    if agent.parallel is None:
        return NO_SEAT
    while not stop.is_set():
        seat = hands.accounts.take_seat(agent.account or effect.ref.agent, agent.parallel)
        if seat is not None:
            return seat
        hands.seen(f"waits until another call has ended of {effect.ref.agent}")
        hands.clock.wait_until(hands.clock.now() + timedelta(seconds=_GLANCE), stop)
    return None
