"""Cleaning: what finished and stale runs have left, as a list that can be looked at first; and its removal.

The rules. A run that a process has, or that an agent is still at work for, is not touched. Of a run that has ended, the
worktree goes, the refs that keep nothing of their own, and after a while what agents and checks have printed; of a
stale one, after a while, the worktree: `resume` makes it again. Whoever would lose sight of files that no ref keeps,
or of commits that were not pushed, is asked; and what nobody kept is kept by a ref before it goes. The journal stays.
"""

import os
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import msgspec

from storyloop.core.events import RunCleaned
from storyloop.core.run_row import RunRow
from storyloop.core.run_state import RunState
from storyloop.core.transitions import ENDED
from storyloop.core.words import RunStatus
from storyloop.engine.lanes import lane_places
from storyloop.ports.repository import Author, Place, ScratchRef
from storyloop.service import Held, HeldElsewhereError, Service
from storyloop.views.words import count

_LATER = 14 * 86_400.0  # seconds: for what somebody may still want to look at


class Kind(StrEnum):
    """What is left, in the order of its removal."""

    WORKTREE = "worktree"
    REFS = "refs"
    PRINTED = "printed"


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a run has left and that may go."""

    run_id: str
    kind: Kind
    what: str
    why: str
    bytes: int = 0
    unkept: tuple[str, ...] = ()  # files, a few, that no ref keeps
    unpushed: int = 0  # commits that no remote has; they stay on their branch
    refs: tuple[ScratchRef, ...] = ()

    @property
    def asks(self) -> str:
        """Why a human is to be asked first; empty where nobody is."""
        files = f"{len(self.unkept)} or more files in it are not committed: {', '.join(self.unkept[:3])}"
        commits = f"{count(self.unpushed, 'commit')} of its branch were not pushed"
        return "; ".join(line for line, there in ((files, self.unkept), (commits, self.unpushed)) if there)


class Clean(msgspec.Struct, frozen=True, kw_only=True):
    """What may go, and what is not touched and why."""

    leftovers: tuple[Leftover, ...]
    spared: dict[str, str]  # by run


def looked_through(service: Service, repository: str, *, older_than: float | None = None) -> Clean:
    """Everything that a repository's runs have left; nothing is changed by looking. `older_than` is in seconds."""
    found: list[Leftover] = []
    spared: dict[str, str] = {}
    sits: set[str] = set()  # worktrees of newer runs
    for row in service.rows(repository):
        if service.holder(row.run_id) is not None:
            spared[row.run_id] = "a process has it"
        elif service.at_work(row.run_id):
            spared[row.run_id] = "its agent is still at work"
        else:
            found += _left_by(service, row, older_than, sits_alone=row.worktree not in sits)
        sits.add(row.worktree)
    return Clean(leftovers=tuple(found), spared=spared)


def removed(service: Service, leftover: Leftover) -> str:
    """Remove it, if it still is what it was; how that went, in a few words. Repeated after a crash, it completes."""
    run = leftover.run_id
    try:
        with service.held(run) as held:
            rows = service.rows(held.hands.repository.identity)
            at = next(number for number, row in enumerate(rows) if row.run_id == run)
            alone = all(newer.worktree != rows[at].worktree for newer in rows[:at])
            found = {one.kind: one for one in _left_by(service, rows[at], 0.0, sits_alone=alone)}
            now = found.get(leftover.kind)
            if now is None:
                return "is gone already"
            if service.at_work(run) or not set(now.unkept) <= set(leftover.unkept):
                return "was left: it has changed meanwhile"
            kept: list[str] = []
            match leftover.kind:
                case Kind.WORKTREE:
                    kept = _closed(held)
                case Kind.REFS:
                    held.hands.repository.drop_refs(now.refs)
                case Kind.PRINTED:
                    for directory in _printed(service, run):
                        shutil.rmtree(directory)
            moment, refs = service.now(), tuple(ref.name for ref in now.refs)
            key = f"cleaned/{moment.isoformat()}"
            held.tell(RunCleaned(key=key, at=moment, what=now.what, kept=tuple(kept), refs=refs))
            return f"removed; what lay there is kept by {kept[0]}" if kept else "removed"
    except HeldElsewhereError:
        return "was left: somebody has just taken the run up"


def _left_by(service: Service, row: RunRow, older_than: float | None, *, sits_alone: bool) -> Iterator[Leftover]:
    state, place, hands = service.looked_at(row.run_id)
    is_over, broke_off = state.status in ENDED, state.status is RunStatus.RUNNING
    age = (service.now() - (state.finished_at or state.going.last_at)).total_seconds()
    why = f"the run is {row.status}" if is_over else f"the run is stale ({row.status})"
    soon = age >= (older_than or 0.0)
    later = age >= (_LATER if older_than is None else older_than)
    if (sits_alone or state.going.is_in_checkout) and (soon if is_over else later):
        places = {one: hands.repository.remains(one, broke_off=broke_off) for one in _own_places(state, place)}
        there = {one: remains for one, remains in places.items() if remains is not None}
        if there:
            first, *others = there
            lanes = f" and {count(len(others), 'lane')}" if others else ""
            yield Leftover(
                run_id=row.run_id,
                kind=Kind.WORKTREE,
                what=f"worktree {first.worktree}{lanes}",
                why=why,
                bytes=sum(_size(Path(one.worktree)) for one in there),
                unkept=tuple(path for remains in there.values() for path in remains.unkept),
                unpushed=there[place].unpushed if place in there else 0,
            )
    if not is_over:
        return
    refs = hands.repository.scratch_refs(row.run_id, base=state.going.base) if soon else ()
    if spare := tuple(ref for ref in refs if ref.is_spare):
        what = f"{count(len(spare), 'ref')} whose files others keep"
        yield Leftover(run_id=row.run_id, kind=Kind.REFS, what=what, why=why, refs=spare)
    if later and (printed := _printed(service, row.run_id)):
        size = sum(map(_size, printed))
        yield Leftover(run_id=row.run_id, kind=Kind.PRINTED, what="what agents and checks printed", why=why, bytes=size)


def _closed(held: Held) -> list[str]:
    """Its worktrees are gone; the refs that keep what lay there and nowhere else."""
    repository, broke_off = held.hands.repository, held.state.status is RunStatus.RUNNING
    kept: list[str] = []
    for place in reversed(_own_places(held.state, held.place)):
        remains = repository.remains(place, broke_off=broke_off)
        if remains is not None and remains.unkept:
            if not broke_off:
                repository.guard(place)  # what has changed since is the user's own
            tree = repository.snapshot(place)
            author = Author(message="What lay in the worktree before it was cleaned up", at=held.tools.clock.now())
            kept.append(repository.pin(place, tree=tree, label=f"cleaned/{tree[:12]}", author=author).ref)
        is_over = held.state.status in ENDED  # else `resume` makes it again
        repository.close_worktree(place, with_branch=is_over and place != held.place)
    return kept


def _own_places(state: RunState, place: Place) -> list[Place]:
    """The worktrees that were made for the run: the user's own checkout is none."""
    return [*([] if state.going.is_in_checkout else [place]), *lane_places(state, place)]


def _printed(service: Service, run_id: str) -> list[Path]:
    return [path for name in ("calls", "checks") if (path := service.run_dir(run_id) / name).is_dir()]


def _size(directory: Path) -> int:
    return sum(os.lstat(os.path.join(above, name)).st_size for above, _, names in os.walk(directory) for name in names)
