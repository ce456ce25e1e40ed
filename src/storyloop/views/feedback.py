"""Feedback in words: what was judged of each concern, what became of it, and what is said in its thread."""

from collections.abc import Iterator
from typing import Any

from storyloop.core.artifacts import Asks
from storyloop.core.forge import Thread
from storyloop.core.progress import Concern
from storyloop.core.run_state import RunState
from storyloop.views.pull_request import quiet
from storyloop.views.words import count, one_line

_MOST_ANSWER, _MOST_REASON = 3_000, 160  # characters in a thread, and in a line


def concern_lines(state: RunState) -> Iterator[str]:
    """Each concern in a line: where, what it asks for, why."""
    for number, concern in enumerate(state.going.feedback.concerns if state.going.feedback else (), start=1):
        asks = concern.asks or "not judged yet"
        yield f"  {number}. {concern.place}: {asks}" + (
            f": {one_line(concern.reason)[:_MOST_REASON]}" if concern.reason else ""
        )


def outcome_lines(state: RunState) -> Iterator[str]:
    """The same with what became of it."""
    concerns = state.going.feedback.concerns if state.going.feedback else ()
    for line, concern in zip(concern_lines(state), concerns, strict=True):
        yield f"{line.strip()}; {outcome(state, concern)}"


def outcome(state: RunState, concern: Concern) -> str:
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


def answer(state: RunState, concern: Concern) -> str:
    """What is said in its thread. The words of agents are quoted, and call nobody and close nothing."""
    reason = _quoted(concern.reason)
    match concern.asks:
        case Asks.REAL | Asks.SUGGESTION:
            standing = state.going.stories[concern.story]
            summaries = [r.work_summary for r in state.iterations if r.story_id == concern.story and r.work_summary]
            commit = f" in {standing.commits[-1]}" if standing.commits else ""
            return f"Done{commit}.\n\n{_quoted(summaries[-1]) if summaries else reason}"
        case Asks.QUESTION:
            return f"No change was made for this; the answer:\n\n{reason}"
        case _:
            return f"No change was made for this:\n\n{reason}"


def _quoted(text: str) -> str:
    """As a quote, without what a forge would act upon."""
    return "\n".join(f"> {line}" for line in quiet(text[:_MOST_ANSWER]).splitlines())


def summary_line(state: RunState) -> str:
    """How the pull request stands, in a line."""
    feedback = state.going.feedback
    assert feedback is not None
    answered = sum(bool(concern.answer) for concern in feedback.concerns)
    return f"{feedback.url}: {count(len(feedback.concerns), 'concern')}, {answered} answered"


def feedback_json(state: RunState) -> dict[str, Any] | None:
    """What `--json` shows of it."""
    feedback = state.going.feedback
    if feedback is None:
        return None
    return {
        "number": feedback.number,
        "url": feedback.url,
        "concerns": [
            {
                "number": number,
                "place": concern.place,
                "said": concern.text,
                "asks": concern.asks,
                "reason": concern.reason,
                "story": concern.story or None,
                "outcome": outcome(state, concern),
                "answer": concern.answer or None,
                "resolved": concern.resolved,
            }
            for number, concern in enumerate(feedback.concerns, start=1)
        ],
        "pending": feedback.pending,
        "red": feedback.red,
    }
