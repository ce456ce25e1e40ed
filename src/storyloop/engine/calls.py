"""Calls: asking an agent, or finding the call that an earlier process began; then taking stock of the worktree."""

import re
import threading
from collections.abc import Iterator
from datetime import datetime

from msgspec.structs import replace

from storyloop.core.effects import CallAgent
from storyloop.core.errand import Calling
from storyloop.core.errors import ProgrammerError
from storyloop.core.events import CallEnded, CallStarted, Event
from storyloop.core.facts import CallReport, Finding, Pin
from storyloop.core.policy import WRITING_DRAINS, Drain
from storyloop.core.run_state import RunState
from storyloop.core.stages import Describing, Judging, Reconciling, Work, errand_of, is_calling
from storyloop.core.telling import PromptValues
from storyloop.engine.hands import Hands
from storyloop.engine.laying import lay, lay_alone
from storyloop.engine.noticing import noticed
from storyloop.engine.placing import placed
from storyloop.engine.prompting import values_of
from storyloop.engine.secrecy import secrets_in
from storyloop.engine.sharing import NO_SEAT, known_limit, share, take_seat
from storyloop.ports.agents import CallOrder, Watch
from storyloop.ports.repository import Author

_GLANCE = 0.5  # seconds between two looks at what the agent is doing, and at whether it should stop
_MOST_CHANGED = 200  # paths that a call's fact names
_MOST_MARKED = 5_000_000  # bytes of a file in which marks are looked for
_MOST_DIFF = 200_000  # characters of a change that are handed to the prompt, which cuts them again


def call_agent(effect: CallAgent, state: RunState, hands: Hands, stop: threading.Event) -> Iterator[Event]:
    """CallStarted before the process exists, CallEnded after its work is pinned."""
    work = state.going.work[effect.story]
    errand, _ = errand_of(work)
    if effect.begun:
        if not isinstance(errand.stage, Calling):
            raise ProgrammerError(f"Call {effect.key} is said to have begun, but its errand does not know it.")
        started = errand.stage.at
        watch = hands.agents.adopt(_order(effect, state, work, hands, prompt=""))
        seat = NO_SEAT  # its supervisor has it
    else:
        limit = known_limit(effect, errand, state, hands)
        if limit is not None:
            yield limit
            return
        seat = take_seat(effect, state, hands, stop)
        if seat is None:
            return
        started, watch = hands.clock.now(), None
    besides: tuple[Finding, ...] = ()
    try:
        if watch is None:
            values = _with_diff(values_of(state, work), state, work, hands)
            order = replace(
                _order(effect, state, work, hands, prompt=hands.secrets.text(hands.prompts.render(values))),
                background=hands.secrets.text(hands.prompts.background(values)),
                seat=seat.lock,
            )
            if not _others_at_work(state, work):  # what they may have done to git is not taken for the user's own
                hands.repository.guard(hands.place)
            if effect.drain not in WRITING_DRAINS:
                label, at = f"besides/{work.label}", state.going.last_at
                besides = lay_alone(_to_read(work), hands, whence=f"{effect.ref} read it", label=label, at=at)
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
        whose = f"{work.label}: " if state.effective_config().limits.parallel > 1 else ""
        report = _watched(watch, hands, stop, whose=whose)
    finally:
        seat.leave()
    share(report, effect, state, hands)
    yield _taken_stock(effect, state, work, hands, started=started, report=report, besides=besides)


def _taken_stock(
    effect: CallAgent,
    state: RunState,
    work: Work,
    hands: Hands,
    *,
    started: datetime,
    report: CallReport,
    besides: tuple[Finding, ...],
) -> CallEnded:
    """What the call came to, and what it did to the worktree, which is kept by a ref."""
    report = placed(report, _to_read(work), hands)
    label = f"calls/{work.label}-{work.iteration}-{effect.drain}-{effect.call}"
    settled = hands.repository.settle(hands.place, expected_tip=work.head, label=label)
    author = Author(message=f"{work.label}: files after call {effect.call} of {effect.ref}", at=started)
    pin = hands.repository.pin(hands.place, tree=settled.tree, label=label, author=author)
    findings = (*besides, *settled.findings)
    if effect.drain in WRITING_DRAINS:
        changed = hands.repository.changes(work.tree, settled.tree)
    else:
        changed, findings = (), (*findings, *_only_read(effect, work, settled.tree, pin, hands))
    edited = tuple(hands.repository.edits(work.tree, settled.tree)) if changed else ()
    seen = noticed(changed, edited, work, state)
    return CallEnded(
        key=f"{effect.key}/ended",
        at=hands.clock.now(),
        story=effect.story,
        drain=effect.drain,
        call=effect.call,
        ref=effect.ref,
        report=report,
        pin=pin,
        changed=tuple(change.path for change in changed[:_MOST_CHANGED]),
        findings=findings,
        secrets=secrets_in(edited, hands.secrets),
        suspicions=seen.suspicions,
        new_tests=seen.new_tests,
        clashes=tuple(_unreconciled(work, settled.tree, hands)),
    )


def _others_at_work(state: RunState, work: Work) -> bool:
    others = (other for other in state.going.work.values() if other.story != work.story)
    return any(is_calling(other) for other in others)


def _unreconciled(work: Work, tree: str, hands: Hands) -> Iterator[str]:
    """Of the files that clashed, those in which both sides still stand between git's marks."""
    for path, content in hands.repository.contents(tree, work.clashes, most=_MOST_MARKED):
        if re.search(rb"^<<<<<<< .*^=======$.*^>>>>>>> ", content, re.MULTILINE | re.DOTALL):
            yield path


def _with_diff(values: PromptValues, state: RunState, work: Work, hands: Hands) -> PromptValues:
    """With the change that is to be read, where one is, and with what has landed since the story began."""
    if values.since:
        began = hands.repository.tree_of(values.since)
        values = replace(values, landed=hands.repository.diff(began, work.tree, most=_MOST_DIFF))
        if isinstance(work.stage, Reconciling):
            own = hands.repository.diff(began, work.stage.landing.tree, most=_MOST_DIFF)
            values = replace(values, diff=own)
    if not values.base or values.drain is Drain.FIX:
        return values
    tree = work.stage.landing.tree if isinstance(work.stage, Judging) else state.going.tip_tree
    diff = hands.repository.diff(hands.repository.tree_of(values.base), tree, most=_MOST_DIFF)
    return replace(values, diff=diff)


def _to_read(work: Work) -> str:
    """The tree that lies before somebody who is to read and report."""
    return work.stage.landing.tree if isinstance(work.stage, Judging | Describing) else work.tree


def _only_read(effect: CallAgent, work: Work, tree: str, pin: Pin, hands: Hands) -> tuple[Finding, ...]:
    """Who was asked to read and report leaves no files: they are as they were before the call."""
    before = _to_read(work)
    kept = f"{pin.ref.rpartition('/')[0]}/files"  # what a process that died here had kept first is what the agent left
    if tree == before and pin.ref == kept:
        return ()
    lay(before, hands)
    detail = f"{effect.ref} changed files though it was only asked for a {effect.drain}; they are kept by {kept}."
    return (Finding("changed-files", detail),)


def _watched(watch: Watch, hands: Hands, stop: threading.Event, *, whose: str) -> CallReport:
    stopped = False
    while (report := watch.wait(_GLANCE)) is None:
        if stop.is_set() and not stopped:
            watch.stop()
            stopped = True
        activity = watch.activity()
        if activity is not None:
            hands.seen(f"{whose}{activity.text}")
    return report


def _order(effect: CallAgent, state: RunState, work: Work, hands: Hands, *, prompt: str) -> CallOrder:
    policy = state.effective_config()
    errand, cs = errand_of(work)
    reuse = cs.xsd_retry_session_reuse_pending or cs.same_agent_retry_pending
    name = f"{work.label}-{work.iteration}-{effect.drain}-{effect.call}"
    return CallOrder(
        run_id=state.run_id,
        key=effect.key,
        call_dir=f"{hands.place.run_dir}/calls/{name}",
        worktree=hands.place.worktree,
        ref=effect.ref,
        agent=policy.agents[effect.ref.agent],
        drain=effect.drain,
        story=effect.story or None,
        iteration=work.iteration,
        attempt=effect.attempt,
        call=effect.call,
        mode=effect.mode,
        session=errand.session if reuse else None,
        prompt=prompt,
        call_timeout=policy.limits.call_timeout,
        idle_timeout=policy.limits.idle_timeout,
        orphan_grace=policy.limits.orphan_grace,
        sandbox=policy.sandbox,
    )
