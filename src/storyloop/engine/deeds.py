"""Deeds: how each effect is performed. One generator per family; what it yields is durable before it goes on.

Doing a deed again after a crash must come to the same result: it looks at the world first, and everything it
makes in the repository is named and dated by the state, so that making it twice makes one thing.
"""

import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from typing import assert_never

from storyloop.core.effects import (
    AnswerThread,
    CallAgent,
    CleanHandover,
    Effect,
    FinishRun,
    LandStory,
    LeaveStory,
    OpenPullRequest,
    OpenWorktree,
    ParkRun,
    PushBranch,
    ResolveThread,
    RunCommand,
    ScrubWorktree,
    SeeFeedback,
    SetAside,
    StartReview,
    StartStory,
    TakeUp,
    Wait,
    WriteHandover,
    WriteSpec,
)
from storyloop.core.events import (
    Event,
    HandoverWritten,
    RunFinished,
    RunParked,
    SpecPlanned,
    WaitEnded,
    WorktreeOpened,
)
from storyloop.core.policy import Drain
from storyloop.core.progress import files_in_hand
from storyloop.core.purpose import SettingUp
from storyloop.core.reduce import reduce
from storyloop.core.run_state import RunState
from storyloop.core.spec_file import dump_spec
from storyloop.core.words import RunStatus
from storyloop.engine.answering import answer_thread, resolve_thread, see_feedback
from storyloop.engine.calls import call_agent
from storyloop.engine.delivering import open_pull_request, push_branch
from storyloop.engine.hands import Hands
from storyloop.engine.landing import (
    clean_handover,
    land_story,
    leave_story,
    scrub_worktree,
    set_aside,
    start_review,
    start_story,
    take_up,
)
from storyloop.engine.lanes import close_lanes, lane_of, lane_place
from storyloop.engine.laying import lay
from storyloop.engine.measuring import run_command
from storyloop.engine.prompting import values_of


def perform(effect: Effect, state: RunState, hands: Hands, stop: threading.Event) -> Generator[Event]:
    """The facts that come of doing this; none when it was stopped half-way."""
    whole, hands = hands, replace(hands, place=lane_place(hands.place, lane_of(effect, state.going) or 0))
    match effect:
        case OpenWorktree():
            yield from _open_worktree(effect, state, hands)
        case RunCommand(purpose=SettingUp()):
            yield from _reported(run_command(effect, state, hands, stop), state, whole)
        case CallAgent(drain=Drain.PLAN | Drain.TRIAGE):
            yield from _reported(call_agent(effect, state, hands, stop), state, whole)
        case WriteSpec(key=key, spec=spec):
            hands.papers.save_spec(hands.place, dump_spec(spec))
            yield SpecPlanned(key=key, at=hands.clock.now(), spec=spec)
        case RunCommand():
            yield from run_command(effect, state, hands, stop)
        case StartStory():
            yield from start_story(effect, state, hands)
        case CleanHandover():
            yield from clean_handover(effect, state, hands)
        case WriteHandover(key=key, story=story):
            hands.papers.write_handover(hands.place, hands.prompts.handover(values_of(state, state.going.work[story])))
            yield HandoverWritten(key=key, at=hands.clock.now(), story=story)
        case CallAgent():
            yield from call_agent(effect, state, hands, stop)
        case Wait(key=key, story=story, since=since, until=until):
            if hands.clock.wait_until(until, stop):
                # Its own length, once: not what this process saw of it, and not how long nobody came back.
                yield WaitEnded(key=key, at=hands.clock.now(), story=story, seconds=(until - since).total_seconds())
        case SetAside():
            yield from set_aside(effect, state, hands)
        case TakeUp():
            yield from take_up(effect, state, hands)
        case LandStory():
            yield from land_story(effect, state, hands)
        case LeaveStory():
            yield from leave_story(effect, state, hands)
        case StartReview():
            yield from start_review(effect, state, hands)
        case SeeFeedback():
            yield from see_feedback(effect, state, hands)
        case AnswerThread():
            yield from answer_thread(effect, state, hands)
        case ResolveThread():
            yield from resolve_thread(effect, state, hands)
        case ScrubWorktree():
            yield from scrub_worktree(effect, state, hands)
        case PushBranch():
            yield from push_branch(effect, state, hands, stop)
        case OpenPullRequest():
            yield from open_pull_request(effect, state, hands, stop)
        case ParkRun(key=key, what=what, reason=reason):
            parked = RunParked(key=key, at=hands.clock.now(), what=what, reason=reason)
            save_report(parked, state, hands)
            yield parked
        case FinishRun(key=key, shipped=shipped):
            finished = RunFinished(key=key, at=hands.clock.now(), shipped=shipped)
            save_report(finished, state, hands)
            close_lanes(state, hands)
            if state.going.is_in_checkout or (shipped and state.effective_config().worktree.cleanup):
                hands.repository.close_worktree(hands.place)
            yield finished
        case _:
            assert_never(effect)


def _reported(events: Iterable[Event], state: RunState, hands: Hands) -> Iterator[Event]:
    """The facts of a deed that may end the run: a report is there before the run has ended."""
    for event in events:
        after = reduce(state, event)
        if after.status is RunStatus.FAILED:
            save_report(event, state, hands)
            if state.going.is_in_checkout:
                close_lanes(state, hands)
                hands.repository.close_worktree(hands.place)
        state = after
        yield event


def save_report(last: Event, state: RunState, hands: Hands) -> None:
    """What is told of the run as it will stand with this fact, which is not stored yet: its last one for now."""
    text = hands.report(reduce(state, last), last)
    hands.papers.save_report(hands.place, hands.secrets.text(text))


def _open_worktree(effect: OpenWorktree, state: RunState, hands: Hands) -> Iterator[Event]:
    progress, policy = state.going, state.effective_config()
    again = progress.opening.losses > 0
    warnings = hands.repository.open_worktree(
        hands.place, base=progress.tip, reuse_branch=progress.reuse_branch or again, copy=policy.worktree.copy
    )
    if again:
        lay(files_in_hand(progress), hands)
    # What somebody did to the branch meanwhile is put aside before anything is built on it.
    tip = progress.tip if again else hands.repository.tip(hands.place)
    yield WorktreeOpened(
        key=effect.key,
        at=hands.clock.now(),
        tip=tip,
        tip_tree=hands.repository.tree_of(tip),
        warnings=warnings,
    )
