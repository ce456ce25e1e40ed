"""Calls: asking an agent, or finding the call that an earlier process began; then taking stock of the worktree."""

import threading
from collections.abc import Iterator

from storyloop.core.effects import CallAgent
from storyloop.core.errand import Calling
from storyloop.core.errors import ProgrammerError
from storyloop.core.events import CallEnded, CallStarted, Event
from storyloop.core.facts import CallReport
from storyloop.core.progress import Work
from storyloop.core.run_state import RunState
from storyloop.core.steps import errand_of
from storyloop.engine.hands import Hands
from storyloop.engine.prompting import values_of
from storyloop.ports import Author, CallOrder, Watch

_GLANCE = 0.5  # seconds between two looks at what the agent is doing, and at whether it should stop
_MOST_CHANGED = 200  # paths that a call's fact names


def call_agent(effect: CallAgent, state: RunState, hands: Hands, stop: threading.Event) -> Iterator[Event]:
    """CallStarted before the process exists, CallEnded after its work is pinned."""
    work = state.going.work[effect.story]
    errand, _ = errand_of(work, state.going.continuation)
    if effect.begun:
        if not isinstance(errand.stage, Calling):
            raise ProgrammerError(f"Call {effect.key} is said to have begun, but its errand does not know it.")
        started = errand.stage.at
        watch = hands.agents.adopt(_order(effect, state, work, hands, prompt=""))
    else:
        order = _order(effect, state, work, hands, prompt=hands.prompts.render(values_of(state, work)))
        hands.repository.guard(hands.place)
        started = hands.clock.now()
        yield CallStarted(
            key=f"{effect.key}/started",
            at=started,
            story=effect.story,
            drain=effect.drain,
            call=effect.call,
            ref=effect.ref,
            mode=effect.mode,
        )
        watch = hands.agents.launch(order)
    report = _watched(watch, hands, stop)
    label = f"calls/{work.story}-{work.iteration}-{effect.drain}-{effect.call}"
    settled = hands.repository.settle(hands.place, expected_tip=state.going.tip, label=label)
    author = Author(message=f"{work.story}: files after call {effect.call} of {effect.ref}", at=started)
    pin = hands.repository.pin(hands.place, tree=settled.tree, label=label, author=author)
    changed = hands.repository.changes(work.tree, settled.tree)
    yield CallEnded(
        key=f"{effect.key}/ended",
        at=hands.clock.now(),
        story=effect.story,
        drain=effect.drain,
        call=effect.call,
        ref=effect.ref,
        report=report,
        pin=pin,
        changed=tuple(change.path for change in changed[:_MOST_CHANGED]),
        findings=settled.findings,
    )


def _watched(watch: Watch, hands: Hands, stop: threading.Event) -> CallReport:
    stopped = False
    while (report := watch.wait(_GLANCE)) is None:
        if stop.is_set() and not stopped:
            watch.stop()
            stopped = True
        activity = watch.activity()
        if activity is not None:
            hands.seen(activity.text)
    return report


def _order(effect: CallAgent, state: RunState, work: Work, hands: Hands, *, prompt: str) -> CallOrder:
    policy = state.effective_config()
    errand, cs = errand_of(work, state.going.continuation)
    reuse = cs.xsd_retry_session_reuse_pending or cs.same_agent_retry_pending
    name = f"{work.story}-{work.iteration}-{effect.drain}-{effect.call}"
    return CallOrder(
        run_id=state.run_id,
        key=effect.key,
        call_dir=f"{hands.place.run_dir}/calls/{name}",
        worktree=hands.place.worktree,
        ref=effect.ref,
        agent=policy.agents[effect.ref.agent],
        drain=effect.drain,
        story=effect.story,
        attempt=effect.attempt,
        call=effect.call,
        mode=effect.mode,
        session=errand.session if reuse else None,
        prompt=prompt,
        call_timeout=policy.limits.call_timeout,
        idle_timeout=policy.limits.idle_timeout,
        orphan_grace=policy.limits.orphan_grace,
    )
