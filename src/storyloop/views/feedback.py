"""Feedback in words: what was judged of each concern, and what became of it."""

import msgspec

from storyloop.core.artifacts import Asks
from storyloop.core.feedback import answers_owed
from storyloop.core.forge import Thread
from storyloop.core.progress import Concern, Feedback
from storyloop.core.run_state import RunState
from storyloop.core.words import StoryState
from storyloop.views.words import count, one_line

_MOST_REASON = 160  # characters of it in a line


class ConcernRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was said of a pull request."""

    number: int
    place: str
    said: str
    asks: Asks | None
    reason: str
    story: str | None
    outcome: str
    answer: str | None  # the id of our comment
    resolved: bool

    def __str__(self) -> str:
        return f"{self.number}. {self.place}: {_judged(self.asks, self.reason)}; {self.outcome}"


def concern_rows(state: RunState) -> tuple[ConcernRow, ...]:
    """All that was said, the oldest first; none where the run is on no feedback."""
    concerns = state.going.feedback.concerns if state.going.feedback is not None else ()
    return tuple(
        ConcernRow(
            number=number,
            place=concern.place,
            said=concern.text,
            asks=concern.asks,
            reason=concern.reason,
            story=concern.story or None,
            outcome=_outcome(state, concern),
            answer=concern.answer or None,
            resolved=concern.resolved,
        )
        for number, concern in enumerate(concerns, start=1)
    )


def judged_lines(state: RunState) -> list[str]:
    """What each asks for, and why: a line each."""
    return [f"{row.number}. {row.place}: {_judged(row.asks, row.reason)}" for row in concern_rows(state)]


def said_lines(feedback: Feedback) -> list[str]:
    """What was said, before anybody has judged it: two lines each."""
    lines: list[str] = []
    for number, concern in enumerate(feedback.concerns, start=1):
        lines += [f"{number:>3}. {concern.place}", f"     {one_line(concern.text)[:_MOST_REASON]}"]
    return lines


def settled_line(state: RunState) -> str:
    """How much of it is done with."""
    rows = concern_rows(state)
    passed = {name for name, s in state.going.stories.items() if s.state is StoryState.PASSED}
    settled = sum(row.asks is not None and (not row.asks.is_work or row.story in passed) for row in rows)
    return f"{settled} of {count(len(rows), 'concern')} settled"


def unsaid_line(state: RunState) -> str:
    """What is still to be said on the forge, and how; empty where all is said."""
    if answers_owed(state.going, state.effective_config()) is None:
        return ""
    return "its threads are not answered: what was done is not pushed"


def _judged(asks: Asks | None, reason: str) -> str:
    return f"{asks or 'not judged yet'}" + (f": {one_line(reason)[:_MOST_REASON]}" if reason else "")


def _outcome(state: RunState, concern: Concern) -> str:
    """What became of it, in a few words."""
    told: list[str] = []
    standing = state.going.stories.get(concern.story)
    if standing is not None and concern.asks is not None and concern.asks.is_work:
        commit = f" in {standing.commits[-1][:12]}" if standing.commits else ""
        told.append(f"{concern.story} {standing.state}{commit}")
    if isinstance(concern.about, Thread):
        said = "answered" + (" and resolved" if concern.resolved else "") if concern.answer else "not answered"
        told.append(said + (f": {concern.mute}" if concern.mute else ""))
    return ", ".join(told) or "nothing to do"
