"""Lanes: in which worktree a deed is done, and the beginning and end of those beside the run's own.

A run in the user's own checkout has one lane, for its final proof: that takes a clean worktree, and nobody cleans that
checkout of what git ignores.
"""

import dataclasses
from collections.abc import Iterator

from msgspec.structs import replace

from storyloop.core.effects import Effect, ParkRun, RunCommand, StartStory, TakeUp, Wait
from storyloop.core.progress import Progress
from storyloop.core.purpose import Trying, is_final
from storyloop.core.run_state import RunState
from storyloop.core.train import lane_worktree
from storyloop.engine.hands import Hands
from storyloop.engine.laying import lay
from storyloop.ports.repository import Place

PROOF = -1  # the lane


def lane_of(effect: Effect, progress: Progress) -> int | None:
    """The lane in which nothing else may be done meanwhile; None for a deed that touches no worktree."""
    match effect:
        case StartStory(lane=lane) | TakeUp(lane=lane):
            return lane
        case Wait() | ParkRun():
            return None
        case RunCommand(purpose=purpose) if progress.is_in_checkout and is_final(purpose):
            return PROOF
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
    run = place.run_id[:8]
    if lane == PROOF:
        return replace(place, worktree=f"{place.worktree}-proof-{run}", branch=f"{place.branch}-proof-{run}")
    branch = f"{place.branch}-lane-{lane}-{run}"
    return replace(place, worktree=lane_worktree(place.worktree, lane), branch=branch)


def open_lane(state: RunState, hands: Hands) -> str:
    """The lane's worktree is there; the commit that its branch stands at comes back."""
    copy = state.effective_config().worktree.copy
    hands.repository.open_worktree(hands.place, base=state.going.tip, reuse_branch=False, copy=copy)
    return hands.repository.tip(hands.place)


def reopen_lanes(state: RunState, hands: Hands) -> Iterator[int]:
    """The lanes that somebody deleted; those with work in them stand again, with its files."""
    working = {work.lane: work for work in state.going.work.values() if work.lane}
    for lane in state.going.lanes:
        place, repository = lane_place(hands.place, lane), hands.repository
        if repository.has_worktree(place):
            continue
        if (work := working.get(lane)) is not None:
            copy, tree = state.effective_config().worktree.copy, work.pin.tree if work.pin else work.tree
            repository.open_worktree(place, base=work.head, reuse_branch=True, copy=copy)
            lay(tree, dataclasses.replace(hands, place=place))
        yield lane


def lane_places(state: RunState, place: Place) -> list[Place]:
    """Where all lanes are that the run can have."""
    widest = state.going.widest
    lanes = [PROOF] if state.going.is_in_checkout else range(1, widest + 1 if widest > 1 else 1)
    return [lane_place(place, lane) for lane in lanes]


def close_lanes(state: RunState, hands: Hands) -> None:
    """No lane is left, nor its branch; what was made in them is on the run's branch, or kept by pins."""
    for place in lane_places(state, hands.place):
        hands.repository.close_worktree(place, with_branch=True)
