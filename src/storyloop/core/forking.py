"""Forking: the facts of one run, up to any of them, are the beginning of another, which then goes its own way.

The other run has a branch and a worktree of its own, at the commit that the first had come to. Its worktree is to be
made as one is that was lost: on the tip, with what the work in hand had made, set up. A call that was under way there
is not found here, so it counts as interrupted, and is asked again; agents' sessions stay with the first run. What was
spent until then counts.
"""

from msgspec.structs import replace

from storyloop.core.draft import Draft
from storyloop.core.errand import Errand
from storyloop.core.events import RunForked
from storyloop.core.progress import Delivery
from storyloop.core.stages import Work
from storyloop.core.steps import expect
from storyloop.core.words import RunStatus


def forked(run: Draft, event: RunForked) -> None:
    """From here on the run is another one."""
    expect(run.status is not RunStatus.COMPLETED and not any(work.lane for work in run.work.values()), run, event)
    run.branch, run.worktree, run.session_id, run.reuse_branch = event.branch, event.worktree, event.session_id, False
    run.opening = replace(run.opening, worktree_opened=False, setup_done=0, losses=run.opening.losses + 1)
    run.set_up, run.lanes = False, {}
    run.delivery = Delivery(number=run.delivery.number)
    run.work = {name: _without_sessions(work) for name, work in run.work.items()}
    if run.status is RunStatus.RUNNING:
        run.status = RunStatus.INTERRUPTED


def _without_sessions(work: Work) -> Work:
    analysis, conflict = (errand and _without_session(errand) for errand in (work.analysis, work.conflict))
    return replace(work, errand=_without_session(work.errand), analysis=analysis, conflict=conflict)


def _without_session(errand: Errand) -> Errand:
    return replace(errand, session=None)
