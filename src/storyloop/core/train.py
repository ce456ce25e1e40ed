"""The train: stories that are worked on side by side land one at a time, in the order of the spec.

Theory of operation. With `[limits] parallel` above 1 a story is worked on in a lane, a worktree with a branch of its
own that begins at the run's tip. Proven there, its work waits for its turn: it is pinned, and the lane goes to the next
story. The turn goes by the order of the spec among the stories that can still land; who has ended, or waits for a
human, is passed over, and so is who needs one of these. Nothing of it depends on which agent is the fastest.

Who has the turn comes into lane 0, the run's own worktree, onto the tip. Where nothing has landed since its beginning,
exactly what was proven lands. Else its change is merged, proven anew on the very tree that is to be committed, and
lands: every commit of the branch was proven as it is, and of two stories that are green alone and red together the
later one goes back. It then goes on in lane 0, on the combined tree, and keeps the turn until it has ended: all that is
behind it has to wait for it anyway. Who can be begun at its very turn is begun in lane 0 at once, which is all that
ever happens where one story is worked on at a time.
"""

from collections.abc import Collection

from msgspec.structs import replace

from storyloop.core.draft import Draft
from storyloop.core.progress import Lane, Progress
from storyloop.core.stages import Approving, Asking, Closing, Landing, Leaving, Proving, Work
from storyloop.core.words import StoryState


def lane_worktree(worktree: str, lane: int) -> str:
    """Where a lane of the run that has this worktree stands."""
    return f"{worktree}-lane-{lane}" if lane else worktree


def turn_of(run: Progress | Draft) -> str | None:
    """The story that may land next: the one in the run's own worktree, else the first in order that still can."""
    holder = next((work.story for work in run.work.values() if work.lane == 0), None)
    if holder is not None:
        return holder
    passed_over: set[str] = set()
    for story in run.spec.order():
        work = run.work.get(story.id)
        if work is None and run.stories[story.id].state is not StoryState.OPEN:
            continue
        if not passed_over.isdisjoint(story.depends_on) or (work and isinstance(work.stage, Asking | Approving)):
            passed_over.add(story.id)
        elif work is None or not isinstance(work.stage, Closing):
            return story.id
    return None


def is_in_line(work: Work) -> bool:
    """Whether it waits for its turn to be committed."""
    commits = isinstance(work.stage, Leaving) and work.stage.commit_unproven
    return work.lane is None and (commits or isinstance(work.stage, Landing))


def lands(work: Work) -> bool:
    """Whether it is at its turn and asks nobody any more, as far as is known: beside it, another one may be begun."""
    is_again = isinstance(work.stage, Proving) and work.stage.again is not None
    return work.lane == 0 and (is_again or isinstance(work.stage, Landing | Leaving | Closing))


def free_lane(taken: Collection[int], *, has_turn: bool) -> int:
    """The worktree for a story that needs one."""
    return next(lane for lane in range(not has_turn, len(taken) + 2) if lane not in taken)


def with_lane(run: Draft, work: Work, *, tree: str) -> Work:
    """The work is in its lane now, which holds this tree on its head."""
    if work.lane:
        known = run.lanes.get(work.lane, Lane(head="", tree=""))
        run.lanes = {**run.lanes, work.lane: replace(known, head=work.head, tree=tree)}
    return work


def without_lane(run: Draft, work: Work, *, tree: str) -> Work:
    """Others may have its worktree, in which it has left this tree."""
    with_lane(run, work, tree=tree)
    return replace(work, lane=None)


def in_line(run: Draft, work: Work, stage: Landing | Leaving) -> None:
    """What is to be committed: at once by who has the turn; who is in a lane waits for it."""
    work = replace(work, stage=stage)
    if work.lane and work.pin is not None:
        work = without_lane(run, work, tree=work.undone or work.pin.tree)
    run.put(work)
