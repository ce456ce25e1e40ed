"""A repository in memory: the same port without a process or a file, for thousands of journeys.

Objects and refs are dictionaries, a worktree is one of path to bytes (a path that is not UTF-8 as `os.fsdecode`
gives it). A crash is a journey's, not the world's: the object lives on, and every method may be called again.
`files` is what scripted agents and checks edit; `commit_as_agent`, `switch_branch` and `break_git_file` are what an
agent may do to git.

The untidy part: there are no modes, links or settings, and of ignore rules only plain names and globs, one on a
line of the root's `.gitignore`.
"""

import difflib
import fnmatch
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from storyloop.core.errors import OperatorError, ProgrammerError, UserError
from storyloop.core.facts import Change, ChangeKind, Finding, Pin
from storyloop.core.forge import Pushed
from storyloop.ports.repository import Author, Edited, Merged, Place, PushOrder, Remains, ScratchRef, Snapshot
from storyloop.world.files import PRIVATE
from storyloop.world.git import shown
from storyloop.world.remotes import is_due, no_remote, require_other
from storyloop.world.scratch import MOST_UNKEPT, spare_refs

_Files = dict[str, bytes]


class _Commit(msgspec.Struct, frozen=True, kw_only=True):
    tree: str
    parent: str | None
    message: str
    at: str


class _Worktree(msgspec.Struct, kw_only=True):  # not frozen: it is a piece of the world
    place: Place
    files: _Files
    tracked: set[str]
    warnings: tuple[str, ...]
    head: str  # the branch that is checked out
    git_file: bool = True
    ignored: list[str] = []
    reported: dict[str, tuple[Finding, ...]] = {}


class MemoryRepository:
    """The `Repository` port over dictionaries. `checkout` holds the user's ignored files, for `copy`."""

    def __init__(self, files: Mapping[str, bytes], *, identity: str = "/memory/repository/.git") -> None:
        self._trees: dict[str, _Files] = {}
        self._commits: dict[str, _Commit] = {}
        self._worktrees: dict[str, _Worktree] = {}
        self.checkout: _Files = {}
        self.refs: dict[str, str] = {}
        self.remotes: dict[str, dict[str, str]] = {}  # by name: the commit of each branch; the first is the default
        self.before_push: Callable[[], None] = lambda: None  # may raise, as a remote may
        self.identity = identity
        self.base = self._make_commit(self._make_tree(dict(files)), parent=None, message="base", at="")
        self.refs["refs/heads/main"] = self.base

    # --- the world around the port --------------------------------------------------------------------

    def files(self, worktree: str) -> _Files:
        """The files of a worktree, to look at and to change."""
        return self._worktrees[worktree].files

    def commit_as_agent(self, worktree: str, message: str) -> str:
        """Commit everything onto whatever branch is checked out, as an agent does that was told not to."""
        seat = self._worktrees[worktree]
        ref = f"refs/heads/{seat.head}"
        tree = self._make_tree(self._kept_files(seat))
        self.refs[ref] = self._make_commit(tree, parent=self.refs[ref], message=message, at="")
        return self.refs[ref]

    def switch_branch(self, worktree: str, branch: str) -> None:
        """Check out a new branch, or another one, with the files as they are."""
        seat = self._worktrees[worktree]
        self.refs.setdefault(f"refs/heads/{branch}", self.refs[f"refs/heads/{seat.head}"])
        seat.head = branch

    def break_git_file(self, worktree: str) -> None:
        """Delete the worktree's `.git`."""
        self._worktrees[worktree].git_file = False

    def tree_files(self, tree: str) -> _Files:
        """The files of a tree."""
        return dict(self._trees[tree])

    def describe(self, commit: str) -> tuple[str, str | None, str]:
        """Tree, parent and message of a commit."""
        found = self._commits[commit]
        return found.tree, found.parent, found.message

    def dump(self) -> dict[str, list[tuple[str, _Files]]]:
        """Every branch with its commits, newest first: message and files. Equal dumps are equal outcomes."""
        return {
            ref.removeprefix("refs/heads/"): self._history(ref) for ref in self.refs if ref.startswith("refs/heads/")
        }

    def _history(self, ref: str) -> list[tuple[str, _Files]]:
        commits = (self._commits[name] for name in self._line(self.refs[ref]))
        return [(commit.message, self._trees[commit.tree]) for commit in commits]

    # --- the port -------------------------------------------------------------------------------------

    def open_worktree(self, place: Place, *, base: str, reuse_branch: bool, copy: Sequence[str]) -> tuple[str, ...]:
        if place.worktree in self._worktrees:
            return self._worktrees[place.worktree].warnings
        ref = f"refs/heads/{place.branch}"
        if ref in self.refs and not reuse_branch:
            raise UserError(f"The branch {place.branch} exists already.", "Name another one, or give --reuse-branch.")
        if any(seat.head == place.branch for seat in self._worktrees.values()):
            raise UserError(f"The branch {place.branch} is checked out.", "Name another branch.")
        files = self.tree_files(self.tree_of(self.refs.setdefault(ref, base)))
        seat = _Worktree(place=place, files=files, tracked=set(files), warnings=(), head=place.branch)
        seat.warnings = self._bring_along(seat, copy)
        self._worktrees[place.worktree] = seat
        return seat.warnings

    def has_worktree(self, place: Place, *, tip: str = "") -> bool:
        now = self.refs.get(f"refs/heads/{place.branch}")
        if now is None:
            raise UserError(f"The run's branch {place.branch} was deleted.", "Make it again.")
        if tip and not self._precedes(now, tip):
            at = self._commits[now]
            if at.parent != tip or f"Storyloop-Run: {place.run_id}" not in at.message:
                raise UserError(f"The branch {place.branch} is somewhere else.", "Put it back.")
        return place.worktree in self._worktrees

    def tip(self, place: Place) -> str:
        return self.refs[f"refs/heads/{place.branch}"]

    def tree_of(self, commit: str) -> str:
        return self._commits[commit].tree

    def guard(self, place: Place) -> None:
        self._seat(place)

    def settle(self, place: Place, *, expected_tip: str, label: str) -> Snapshot:
        seat, ref = self._seat(place), f"refs/heads/{place.branch}"
        found: list[Finding] = []
        if not seat.git_file:
            seat.git_file = True
            found.append(Finding("git-file", "The worktree's .git was deleted, and is put back."))
        if seat.head != place.branch:
            found.append(Finding("switched-branch", f"HEAD was switched to `{seat.head}`."))
            seat.head = place.branch
        if self.refs[ref] != expected_tip:
            pinned = f"refs/storyloop/{place.run_id}/{label}/agent-commits/{self.refs[ref][:12]}"
            self.refs[pinned], self.refs[ref] = self.refs[ref], expected_tip
            found.append(Finding("agent-commit", f"The branch {place.branch} was moved; {pinned} keeps it."))
        # As with real git, what was found is said again when the same label asks again.
        seat.reported = {**seat.reported, label: (*seat.reported.get(label, ()), *found)}
        return Snapshot(tree=self.snapshot(place), findings=seat.reported[label])

    def snapshot(self, place: Place) -> str:
        seat = self._seat(place)
        files = self._kept_files(seat)
        seat.tracked = set(files)
        return self._make_tree(files)

    def pin(self, place: Place, *, tree: str, label: str, author: Author) -> Pin:
        commit = self._commit_of(tree, parent=self.tip(place), author=author)
        number = 1
        while True:
            ref = f"refs/storyloop/{place.run_id}/{label}/" + ("files" if number == 1 else f"files-{number}")
            kept = self.refs.setdefault(ref, commit)
            if self.tree_of(kept) == tree:
                return Pin(tree=tree, commit=kept, ref=ref)
            number += 1

    def undo_changes(self, place: Place, *, tree: str, creations: bool = False) -> tuple[Change, ...]:
        files, wanted = self._seat(place).files, self._trees[tree]
        changes = tuple(
            Change(_shown(path), ChangeKind.MODIFIED if path in files else ChangeKind.DELETED)
            for path in sorted(wanted, key=os.fsencode)
            if files.get(path) != wanted[path]
        )
        self._seat(place).tracked = set(wanted)
        files.update(wanted)
        created = self._created(place, tree) if creations else ()
        for path in created:
            del files[path]
        undone = (*changes, *(Change(_shown(path), ChangeKind.CREATED) for path in created))
        return tuple(sorted(undone, key=lambda change: os.fsencode(change.path)))

    def ignore_creations(self, place: Place, *, tree: str) -> tuple[str, ...]:
        wanted = self._trees[tree]
        ignored: set[str] = set()
        for path in self._created(place, tree):
            # The highest directory that holds nothing of the tree, else the file itself.
            parts = path.split("/")
            above = ["/".join(parts[:count]) + "/" for count in range(1, len(parts))]
            new = (folder for folder in above if not any(kept.startswith(folder) for kept in wanted))
            ignored.add(next(new, path))
        seat = self._seat(place)
        seat.ignored = sorted({*seat.ignored, *ignored}, key=os.fsencode)
        return tuple(map(_shown, seat.ignored))  # those of an earlier try too: whoever asked may not have got to tell

    def commit(self, place: Place, *, tree: str, parent: str, author: Author) -> str:
        commit, ref = self._commit_of(tree, parent=parent, author=author), f"refs/heads/{place.branch}"
        if self.refs[ref] not in (parent, commit):
            raise OperatorError(
                f"The branch {place.branch} was moved.", f"The work is kept as {commit}.", "Put it back."
            )
        self.refs[ref] = commit
        self._seat(place).tracked = set(self._trees[tree])
        return commit

    def reset(self, place: Place, *, commit: str) -> None:
        tree = self.tree_of(commit)
        self.undo_changes(place, tree=tree, creations=True)
        self.refs[f"refs/heads/{place.branch}"] = commit

    def move_back(self, place: Place, *, commit: str, tip: str, label: str) -> str:
        if self.tip(place) not in (commit, tip):
            raise UserError(f"The branch {place.branch} is somewhere else.", "Put it back.")
        ref = f"refs/storyloop/{place.run_id}/{label}/tip"
        self.refs[ref] = tip
        self.reset(place, commit=commit)
        return ref

    def scrub(self, place: Place, *, commit: str, copy: Sequence[str]) -> None:
        seat, wanted = self._seat(place), self._trees[self.tree_of(commit)]
        ours = {path: data for path, data in seat.files.items() if path.startswith(f"{PRIVATE}/")}
        seat.files.clear()  # the very same object: it is what agents and checks work on
        seat.files.update(wanted | ours)
        seat.tracked, seat.ignored = set(wanted), []
        self._bring_along(seat, copy)

    def changes(self, old_tree: str, new_tree: str, *, counted: bool = False) -> tuple[Change, ...]:
        old, new = self._trees[old_tree], self._trees[new_tree]
        return tuple(
            Change(_shown(path), _kind(path in old, path in new), _lines(new.get(path)) if counted else None)
            for path in sorted(old.keys() | new.keys(), key=os.fsencode)
            if old.get(path) != new.get(path)
        )

    def edits(self, old_tree: str, new_tree: str) -> Iterator[Edited]:
        old, new = self._trees[old_tree], self._trees[new_tree]
        for path in sorted(old.keys() | new.keys(), key=os.fsencode):
            before, after = old.get(path, b"").splitlines(), new.get(path, b"").splitlines()
            added = [line for line in after if line not in before]
            removed = [line for line in before if line not in after]
            if added or removed:
                yield Edited(_shown(path), b"\n".join(added), b"\n".join(removed))

    def contents(self, tree: str, paths: Sequence[str], *, most: int) -> Iterator[tuple[str, bytes]]:
        for path, data in sorted(self._trees[tree].items(), key=lambda file: os.fsencode(file[0])):
            if {_shown(path), f"{_shown(os.path.dirname(path))}/"} & {*paths} and len(data) <= most:
                yield _shown(path), data

    def graft(self, place: Place, *, base: str, tree: str, wanted: Callable[[str], bool]) -> str:
        self._seat(place)
        scions = {path: data for path, data in self._trees[tree].items() if wanted(_shown(path))}
        return self._make_tree({**self._trees[base], **scions})

    def diff(self, old_tree: str, new_tree: str, *, most: int) -> str:
        old, new = self._trees[old_tree], self._trees[new_tree]
        lines: list[str] = []
        for path in sorted({*old, *new}, key=os.fsencode):
            before, after = (side.get(path, b"").decode(errors="replace").splitlines() for side in (old, new))
            lines += difflib.unified_diff(before, after, f"a/{_shown(path)}", f"b/{_shown(path)}", lineterm="")
        return "\n".join(lines)[:most]

    def merged(self, commit: str, onto: str) -> Merged:
        """File by file: two changes of one file clash, wherever in it they are."""
        clashes: list[str] = []
        theirs, ours = self._commits[commit].tree, self.tree_of(onto)
        base, merged = self._trees[self.tree_of(self._commits[commit].parent or commit)], self.tree_files(ours)
        for path in sorted(base.keys() | self._trees[theirs].keys()):
            before, wanted = base.get(path), self._trees[theirs].get(path)
            if wanted == before or wanted == merged.get(path):
                continue
            if (here := merged.get(path)) != before:
                clashes.append(_shown(path))
                sides, both = (here or b"", wanted or b""), here is not None and wanted is not None
                merged[path] = b"<<<<<<< ours\n%b=======\n%b>>>>>>> theirs\n" % sides if both else b"".join(sides)
            elif wanted is None:
                del merged[path]
            else:
                merged[path] = wanted
        return Merged(self._make_tree(merged), tuple(clashes))

    def remains(self, place: Place, *, broke_off: bool = False) -> Remains | None:  # noqa: ARG002 - nothing to be run
        if place.worktree not in self._worktrees:
            return None
        kept, tip = {self.tree_of(commit) for commit in self.refs.values()}, self.tree_of(self.tip(place))
        tree = self._make_tree(self._kept_files(self._seat(place)))
        unkept = () if tree in kept else tuple(change.path for change in self.changes(tip, tree)[:MOST_UNKEPT])
        return Remains(unkept=unkept)

    def scratch_refs(self, run_id: str, *, base: str) -> tuple[ScratchRef, ...]:  # noqa: ARG002 - all is looked through
        known = {commit for ref in self.refs if ref.startswith("refs/heads/") for commit in self._line(self.refs[ref])}
        mine = {ref: commit for ref, commit in self.refs.items() if ref.startswith(f"refs/storyloop/{run_id}/")}
        only = {ref: [c for c in self._line(commit) if c not in known] for ref, commit in mine.items()}
        trees = {ref: {self.tree_of(commit) for commit in commits} for ref, commits in only.items()}
        return spare_refs(mine, trees, {self.tree_of(commit) for commit in known})

    def keep(self, run_id: str, names: Sequence[str]) -> None:
        for commit in (self.refs.get(name, name) for name in names):
            if commit in self._commits:
                self.refs[f"refs/storyloop/{run_id}/forked/{commit}"] = commit

    def drop_refs(self, refs: Sequence[ScratchRef]) -> None:
        if any(self.refs.get(ref.name) != ref.commit for ref in refs):
            raise OperatorError("A ref has moved.", "Nothing was deleted.", "Try again.")
        for ref in refs:
            del self.refs[ref.name]

    def push(self, place: Place, order: PushOrder, stop: threading.Event) -> Pushed | None:
        if stop.is_set():
            return None
        self.before_push()
        there = self.remotes.get(order.remote)
        if there is None:
            raise no_remote(order.remote)
        require_other(place.branch, next(iter(there), ""), remote=order.remote)
        if is_due(place.branch, there.get(place.branch, ""), order=order, precedes=self._precedes):
            there[place.branch] = order.commit
        base = order.base if order.base in there else next(iter(there))
        return Pushed(remote=order.remote, commit=order.commit, base=base)

    def _precedes(self, one: str, other: str) -> bool:
        return other in self._commits and one in self._line(other)

    def close_worktree(self, place: Place, *, with_branch: bool = False) -> None:
        self._worktrees.pop(place.worktree, None)
        if with_branch:
            self.refs.pop(f"refs/heads/{place.branch}", None)

    def _line(self, commit: str | None) -> Iterator[str]:
        while commit is not None:
            yield commit
            commit = self._commits[commit].parent

    # --- inside ---------------------------------------------------------------------------------------

    def _seat(self, place: Place) -> _Worktree:
        if place.worktree not in self._worktrees:
            raise ProgrammerError(f"The worktree {place.worktree} was never opened.")
        return self._worktrees[place.worktree]

    def _bring_along(self, seat: _Worktree, copy: Sequence[str]) -> tuple[str, ...]:
        absent = [name for name in copy if name not in self.checkout]
        loud = [name for name in copy if name in self.checkout and not self._is_ignored(seat, name)]
        seat.files.update({name: self.checkout[name] for name in copy if name not in {*absent, *loud}})
        return (
            *(f"`{name}` was not copied: it is not in the checkout." for name in absent),
            *(f"`{name}` was not copied: git does not ignore it, so it would be committed." for name in loud),
        )

    def _created(self, place: Place, tree: str) -> list[str]:
        seat = self._seat(place)
        seat.tracked = set(self._trees[tree])
        return sorted(self._kept_files(seat).keys() - seat.tracked, key=os.fsencode)

    def _kept_files(self, seat: _Worktree) -> _Files:
        return {p: data for p, data in seat.files.items() if p in seat.tracked or not self._is_ignored(seat, p)}

    def _is_ignored(self, seat: _Worktree, path: str) -> bool:
        if path.startswith(f"{PRIVATE}/"):
            return True
        if any(path == rule or (rule.endswith("/") and path.startswith(rule)) for rule in seat.ignored):
            return True
        rules = [rule.strip("/") for rule in os.fsdecode(seat.files.get(".gitignore", b"")).split() if rule[0] != "#"]
        return any(fnmatch.fnmatch(part, rule) for part in path.split("/") for rule in rules)

    def _commit_of(self, tree: str, *, parent: str, author: Author) -> str:
        return self._make_commit(tree, parent=parent, message=author.message, at=author.at.isoformat())

    def _make_commit(self, tree: str, *, parent: str | None, message: str, at: str) -> str:
        name = _digest("commit", tree, parent, message, at)
        self._commits[name] = _Commit(tree=tree, parent=parent, message=message, at=at)
        return name

    def _make_tree(self, files: _Files) -> str:
        name = _digest("tree", *sorted(files.items()))
        self._trees.setdefault(name, dict(files))
        return name


def _digest(*parts: object) -> str:
    return hashlib.sha1(repr(parts).encode(), usedforsecurity=False).hexdigest()


def _shown(path: str) -> str:
    return shown(os.fsencode(path))


def _kind(was: bool, is_now: bool) -> ChangeKind:
    if was and is_now:
        return ChangeKind.MODIFIED
    return ChangeKind.CREATED if is_now else ChangeKind.DELETED


def _lines(content: bytes | None) -> int | None:
    if content is None or b"\0" in content:
        return None
    return content.count(b"\n") + (not content.endswith(b"\n") and content != b"")
