"""Answers: what is said in a thread of a pull request. The words of agents are quoted, and are only words there."""

from storyloop.core.artifacts import Asks
from storyloop.core.progress import Concern
from storyloop.core.run_state import RunState
from storyloop.views.pull_request import quiet

_MOST = 3_000  # characters


def answer(state: RunState, concern: Concern) -> str:
    """What was done about this, and in which commit; or why nothing was."""
    reason = _quoted(concern.reason)
    match concern.asks:
        case Asks.REAL | Asks.SUGGESTION:
            standing = state.going.stories[concern.story]
            told = [r.work_summary for r in state.iterations if r.story_id == concern.story and r.work_summary]
            commit = f" in {standing.commits[-1]}" if standing.commits else ""
            return f"Done{commit}.\n\n{_quoted(told[-1]) if told else reason}"
        case Asks.QUESTION:
            return f"No change was made for this; the answer:\n\n{reason}"
        case _:
            return f"No change was made for this:\n\n{reason}"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in quiet(text[:_MOST]).splitlines())
