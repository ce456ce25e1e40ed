"""Stories: the one of a run that a user names."""

from storyloop.core.errors import UserError
from storyloop.core.run_state import RunState


def require_story(state: RunState, story: str) -> None:
    """Raises UserError, with the nearest one, when the run has no such story."""
    known = list(state.going.stories)
    if story not in known:
        from difflib import get_close_matches

        near = get_close_matches(story, known, n=1)
        all_of_them = ", ".join(known[:20]) or "none, before they are planned"
        raise UserError(
            f"Run {state.run_id} has no story {story}.",
            f"Did you mean {near[0]}?" if near else f"It has: {all_of_them}.",
        )
