"""Undoing what a run did in the repository: looked at first, then walked back, and told in the run's journal.

Nothing becomes unreachable: the branch's tip and what lay in the worktree get refs before anything moves. The order is
refs, branch, files, journal. Killed in between, the journal still says what the branch was, so `resume` puts it back
there; and to undo once more completes it.
"""

from itertools import takewhile

from storyloop.core.errors import UserError
from storyloop.core.events import RunUndone, WorktreeLost
from storyloop.core.reduce import fold
from storyloop.core.run_state import RunState
from storyloop.core.stages import Closing, Work
from storyloop.core.undoing import Step, review_then, standings_then, step_called, steps_of
from storyloop.core.words import RunStatus
from storyloop.ports.repository import Author
from storyloop.preparing import require_as_left, require_vacant
from storyloop.service import Service


def stories_in_hand(state: RunState) -> tuple[Work, ...]:
    """What is behind the last step, not done yet."""
    return tuple(work for work in state.going.work.values() if not isinstance(work.stage, Closing))


def steps(service: Service, run_id: str) -> tuple[Step, ...]:
    """What the run has done, oldest first. The last one may have work in hand behind it."""
    return steps_of(service.events(run_id), service.state(run_id).branch)


def target(service: Service, run_id: str, name: str | None) -> tuple[Step, tuple[str, ...]]:
    """The step to walk back to (by default one step), and what is undone by it, newest first."""
    state, known = service.state(run_id), steps(service, run_id)
    in_hand = tuple(f"{work.story or 'review'} in hand" for work in stories_in_hand(state))
    back = 1 if in_hand else 2
    if name is None:
        to = known[-back] if len(known) >= back else None
    else:
        to = step_called(known, name)
        if to is None:
            cure = f"`storyloop undo {run_id[:8]} --list` names the points."
            raise UserError(f"Run {run_id} did nothing that is called {name}, or it is undone already.", cure)
    undone = (*in_hand, *(step.what for step in reversed(known) if to is not None and step.number > to.number))
    if to is None or not undone or not state.going.stories:
        raise UserError(f"Run {run_id} has done nothing behind that point.", "There is nothing to undo.")
    return to, undone


def undo(service: Service, run_id: str, to: Step, what: str) -> RunState:
    """Walk the run back to what held behind this step; the state that it then has comes back."""
    with service.held(run_id) as held:
        if service.at_work(run_id):
            raise UserError(
                f"An agent of run {run_id} is still at work.",
                f"Let it come to its end (`storyloop resume {run_id[:8]}`), or wait until it is ended.",
            )
        now, place, repository = held.state, held.place, held.hands.repository
        service.require_alone(now.going.repository, now.branch, run_id=run_id)
        then = fold(event for _, event in takewhile(lambda told: told[0] <= to.number, service.events(run_id)))
        assert then is not None
        in_checkout = now.going.is_in_checkout
        if in_checkout:
            require_vacant(service, now.going.repository, now.going.checkout, but=run_id)
        is_missing = not repository.has_worktree(place)
        if is_missing:
            copy = now.effective_config().worktree.copy
            repository.open_worktree(place, base=now.going.tip, reuse_branch=True, copy=copy)
        if now.status is not RunStatus.RUNNING:  # what has changed since is the user's own
            repository.guard(place)
            # A branch that has moved was moved by an undo that died, which is completed; or it is refused below.
            if in_checkout and repository.tip(place) == now.going.tip:
                require_as_left(now, place, repository)
        moment, label = service.now(), f"undone/{to.number}-{now.going.tip[:12]}"
        kept: list[str] = []
        if (tree := repository.snapshot(place)) not in (now.going.tip_tree, to.tip_tree):
            author = Author(message="What lay in the worktree before it was undone", at=now.going.last_at)
            kept.append(repository.pin(place, tree=tree, label=f"{label}/{tree[:12]}", author=author).ref)
        kept.append(repository.move_back(place, commit=to.tip, tip=now.going.tip, label=label))
        if in_checkout:
            repository.close_worktree(place)
        held.tell(
            RunUndone(
                key=f"undone/{moment.isoformat()}",
                at=moment,
                to=to.number,
                what=what,
                tip=to.tip,
                tip_tree=to.tip_tree,
                kept=tuple(kept),
                stories=standings_then(now, then),
                knowledge=then.knowledge,
                inherited=then.going.inherited,
                review=review_then(now, then),
            ),
            # One that was made for this was not set up.
            *([WorktreeLost(key=f"worktree/lost/undone/{moment.isoformat()}", at=moment)] if is_missing else ()),
        )
        return held.state
