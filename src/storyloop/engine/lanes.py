"""Lanes: in which worktree a deed is done, and the beginning and end of those beside the run's own."""

from msgspec.structs import replace

from storyloop.core.effects import Effect, ParkRun, RunCommand, StartStory, TakeUp, Wait
from storyloop.core.progress import Progress
from storyloop.core.purpose import Trying
from storyloop.core.run_state import RunState
from storyloop.core.train import lane_worktree
from storyloop.engine.hands import Hands
from storyloop.ports import Place


def lane_of(effect: Effect, progress: Progress) -> int | None:
    """The lane in which nothing else may be done meanwhile; None for a deed that touches no worktree."""
    match effect:
        case StartStory(lane=lane) | TakeUp(lane=lane):
            return lane
        case Wait() | ParkRun():
            return None
        case RunCommand(purpose=purpose):
            story = getattr(purpose.of if isinstance(purpose, Trying) else purpose, "story", "")
        case _:
            story = getattr(effect, "story", "")  # what is about no story is about the run's own
    work = progress.work.get(story)
    return (work.lane if work is not None else None) or 0


def lane_place(place: Place, lane: int) -> Place:
    """Where a lane of the run sits that has this place."""
    if not lane:
        return place
    branch = f"{place.branch}-lane-{lane}-{place.run_id[:8]}"
    return replace(place, worktree=lane_worktree(place.worktree, lane), branch=branch)


def open_lane(state: RunState, hands: Hands) -> str:
    """The lane's worktree is there; the commit that its branch stands at comes back."""
    copy = state.effective_config().worktree.copy
    hands.repository.open_worktree(hands.place, base=state.going.tip, reuse_branch=False, copy=copy)
    return hands.repository.tip(hands.place)


def close_lanes(state: RunState, hands: Hands) -> None:
    """No lane is left, nor its branch; what was made in them is on the run's branch, or kept by pins."""
    widest = state.going.widest
    for lane in range(1, widest + 1 if widest > 1 else 1):
        hands.repository.close_worktree(lane_place(hands.place, lane), with_branch=True)
