"""Forking: a new run from any point of an old one. The old one stays as it is, and need not be stopped for it."""

from itertools import takewhile
from pathlib import Path

import msgspec

from storyloop.core.errors import UserError
from storyloop.core.events import RunForked, RunOpened
from storyloop.core.reduce import fold
from storyloop.core.run_state import session_id_of
from storyloop.core.undoing import step_called, steps_of
from storyloop.core.words import RunStatus
from storyloop.preparing import new_place
from storyloop.service import Service


def fork(service: Service, run_id: str, cwd: Path, *, at: str, branch: str) -> str:
    """The id of the new run, which is to be resumed. `at` is the number of an event, or a step that was done."""
    told = list(service.events(run_id))
    number = int(at) if at.isdecimal() else None
    if number is None:
        step = step_called(steps_of(told, service.state(run_id).branch), at)
        number = step.number if step is not None else 0
    if not 1 <= number <= len(told):
        cure = (
            f"`storyloop show {run_id[:8]} --events` numbers them; `storyloop undo {run_id[:8]} --list` names points."
        )
        raise UserError(f"Run {run_id} has no event {at}.", cure)
    prefix = [event for _, event in takewhile(lambda one: one[0] <= number, told)]
    then, opened = fold(prefix), prefix[0]
    assert then is not None
    assert isinstance(opened, RunOpened)
    if then.going.feedback is not None:
        problem = f"Run {run_id} follows up {then.going.feedback.url}, which is of one branch."
        raise UserError(problem, "Follow it up once more: `storyloop pr-review`.")
    if then.status is RunStatus.COMPLETED:
        raise UserError(
            f"Behind event {number} run {run_id} is completed: nothing is left to be done.", "Fork earlier."
        )
    if any(work.lane for work in then.going.work.values()):
        raise UserError(
            f"Behind event {number} several stories of run {run_id} are under way in worktrees of their own.",
            "Fork at an event behind which none or one is, such as the landing of a story.",
        )
    place = new_place(service, branch, cwd, like=then)
    _, _, hands = service.looked_at(run_id)
    going = then.going
    pins = [work.pin.commit for work in going.work.values() if work.pin is not None]
    hands.repository.keep(place.run_id, [going.tip, *pins, *(pin for s in going.stories.values() for pin in s.pins)])
    forked = RunForked(
        key=f"forked/{place.run_id}",
        at=service.now(),
        of=run_id,
        at_event=number,
        branch=place.branch,
        worktree=place.worktree,
        session_id=session_id_of(place.worktree),
    )
    own = msgspec.structs.replace(opened, run_id=place.run_id, spec_json_path=f"{place.run_dir}/spec.json")
    service.begun(place, [own, *prefix[1:], forked]).release()
    return place.run_id
