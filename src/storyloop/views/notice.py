"""Notice: what is worth disturbing somebody for, in a few words."""

import msgspec

from storyloop.core.events import CallEnded, CommandMeasured, Event, LimitLearned, RunFinished, RunParked, StoryLeft
from storyloop.core.facts import Failed, Failure
from storyloop.core.policy import Occasion
from storyloop.core.purpose import RUN
from storyloop.core.run_state import RunState
from storyloop.core.words import RunStatus, StoryState
from storyloop.views.history import line_of
from storyloop.views.report import headline, way_on


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One message."""

    occasion: Occasion
    title: str
    text: str


def notice_of(event: Event, state: RunState) -> Notice | None:
    """What is to be said of this fact; `state` is the state after it."""
    occasion = _occasion(event, state)
    if occasion is None:
        return None
    told = [line_of(event, state), headline(state), way_on(state), f"branch {state.branch}, run {state.run_id}"]
    title = f"Storyloop, {state.going.spec.title}: {occasion}"
    return Notice(occasion=occasion, title=title, text="\n".join(line for line in told if line))


def _occasion(event: Event, state: RunState) -> Occasion | None:
    match event:
        case RunParked():
            return Occasion.PARKED
        case RunFinished():
            return Occasion.FINISHED
        case CommandMeasured() if state.status is RunStatus.FAILED:
            return Occasion.FINISHED  # the set-up failed: it goes no further
        case StoryLeft(story=story) if story != RUN and state.going.stories[story].state is StoryState.BLOCKED:
            return Occasion.BLOCKED
        case LimitLearned():
            return Occasion.LIMIT
        case CallEnded() if isinstance(event.report.outcome, Failed):
            return Occasion.LIMIT if event.report.outcome.failure is Failure.LIMIT else None
        case _:
            return None
