"""The repository: the user's checkout as it stands, and what a run does beside it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from storyloop.core.facts import Change, Finding, Pin
from storyloop.core.forge import Pushed


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run sits: absolute paths, so that nothing depends on the process's directory."""

    run_id: str
    worktree: str
    branch: str
    run_dir: str  # ours: private index, guard copies, repositories put aside


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The worktree's files as a tree object, after the agent's tampering with git was undone."""

    tree: str
    findings: tuple[Finding, ...] = ()


class Author(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit of ours says: message with trailers, and the moment it is dated with."""

    message: str
    at: datetime


class Free(msgspec.Struct, frozen=True):
    """No such branch, and nothing in its way."""


class Exists(msgspec.Struct, frozen=True):
    """The branch exists and is checked out nowhere."""

    commit: str


class CheckedOut(msgspec.Struct, frozen=True):
    """The branch exists and is checked out."""

    path: str


class Clashes(msgspec.Struct, frozen=True):
    """A branch is in the way: git cannot have `a` and `a/b`."""

    other: str


BranchState = Free | Exists | CheckedOut | Clashes


class Checkout(Protocol):
    """The user's checkout as it stands when a run is to be opened; nothing here writes."""

    @property
    def root(self) -> str:
        """Absolute path of the checkout the user stands in."""
        ...

    @property
    def identity(self) -> str:
        """Absolute real path of the common git directory."""
        ...

    @property
    def head(self) -> str:
        """The commit that is checked out."""
        ...

    @property
    def head_tree(self) -> str: ...

    @property
    def head_branch(self) -> str:
        """The branch that is checked out; empty if none is."""
        ...

    @property
    def main_root(self) -> str:
        """Absolute path of the repository's main checkout, which may be the same."""
        ...

    def own_branch(self) -> str:
        """The branch that is checked out, for a run that works on it right here. Raises UserError where none may."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of this repository before a run."""
        ...

    def remote_url(self, name: str) -> str:
        """Where this remote is; empty when there is none."""
        ...

    def commit(self, name: str) -> str:
        """The commit that is called so here; empty when there is none."""
        ...

    def tree_of(self, commit: str) -> str: ...

    def common(self, one: str, other: str) -> str:
        """The newest commit that both build on; empty when there is none, or one of them is not here."""
        ...

    def branch(self, name: str) -> BranchState:
        """Whether a run could make this branch."""
        ...

    def worktree_path(self, pattern: str, branch: str) -> str:
        """Where a run's worktree stands by this pattern: a sibling of the repository's main checkout."""
        ...


class Edited(msgspec.Struct, frozen=True):
    """The lines of a text file that came, and those that went."""

    path: str
    added: bytes
    removed: bytes


class Merged(msgspec.Struct, frozen=True):
    """What a merge came to."""

    tree: str
    clashes: tuple[str, ...] = ()  # files that hold both sides, between marks where they are text


class Remains(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a worktree, and of the work in it."""

    unkept: tuple[str, ...] = ()  # paths of files, a few, that no ref keeps as they are
    unpushed: int = 0  # commits of its branch that no remote has, where there is a remote


class ScratchRef(msgspec.Struct, frozen=True, kw_only=True):
    """A ref of a run's own."""

    name: str
    commit: str
    is_spare: bool  # every file in it is also on a branch, under a tag, or under a ref that is not spare


class PushOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be on a remote, under the run's branch."""

    remote: str  # by its name
    commit: str
    own: str  # what we pushed last; empty: nothing
    base: str  # the branch that a pull request should go to, if the remote has it; else it is the default one


class Repository(Protocol):
    """The user's repository and the run's worktrees in it. The user's checkout is written to only as such a place."""

    @property
    def identity(self) -> str:
        """Absolute real path of the common git directory."""
        ...

    def open_worktree(self, place: Place, *, base: str, reuse_branch: bool, copy: Sequence[str]) -> tuple[str, ...]:
        """Create branch and worktree at `base` (a branch that is reused keeps its tip); warnings come back.

        Doing it again after a crash at any instruction completes it. `copy` names ignored files of the
        user's checkout to bring along; one that is not there is a warning. A place that is the user's own checkout is
        entered as it stands; raises UserError where it holds anything that is not committed, or is at another branch.
        """
        ...

    def has_worktree(self, place: Place, *, tip: str = "") -> bool:
        """Whether the run's worktree stands.

        Raises UserError, with the cure, when somebody deleted its branch, or has brought commits onto it that are
        neither in `tip`, where the run has left it, nor the run's own next one; or when it is the user's own checkout,
        who is at something else there.
        """
        ...

    def tip(self, place: Place) -> str:
        """The commit that the run's branch points at."""
        ...

    def tree_of(self, commit: str) -> str:
        """The tree of a commit."""
        ...

    def guard(self, place: Place) -> None:
        """Remember git's own files (the `.git` file, config, hooks) as they are before an agent starts."""
        ...

    def settle(self, place: Place, *, expected_tip: str, label: str) -> Snapshot:
        """Undo what an agent did to git (keeping it aside), then hash the worktree's files.

        Commits of the agent are pinned under `refs/storyloop/<run>/<label>/agent-commits` and the branch is put back to
        `expected_tip` with the files left as they are.
        """
        ...

    def snapshot(self, place: Place) -> str:
        """The tree of the worktree's files now (tracked and untracked, without ignored ones and `.storyloop`)."""
        ...

    def pin(self, place: Place, *, tree: str, label: str, author: Author) -> Pin:
        """A commit of that tree on the branch's tip, kept by `refs/storyloop/<run>/<label>/files`.

        Pinned again, the same tree is the same pin; another tree under the same label is kept beside it.
        """
        ...

    def undo_changes(self, place: Place, *, tree: str, creations: bool = False) -> tuple[Change, ...]:
        """Put files of `tree` that were changed or deleted back; what had changed comes back.

        With `creations`, untracked, not ignored files that are not in `tree` are deleted, and come back as created.
        """
        ...

    def ignore_creations(self, place: Place, *, tree: str) -> tuple[str, ...]:
        """Untracked, not ignored files that are not in `tree` are ignored from here on, in this worktree alone.

        For what set-up leaves behind (an unignored `.venv`): it must survive, and be part of no tree. The ignored
        paths come back, a whole new directory as one path ending in `/`.
        """
        ...

    def commit(self, place: Place, *, tree: str, parent: str, author: Author) -> str:
        """Commit exactly `tree` onto the branch, compare-and-set against `parent`; the commit comes back.

        The same arguments give the same commit: done twice, it is found the second time.
        """
        ...

    def reset(self, place: Place, *, commit: str) -> None:
        """Branch, index and files back to `commit`; untracked files go, ignored ones stay."""
        ...

    def move_back(self, place: Place, *, commit: str, tip: str, label: str) -> str:
        """Branch, index and files from `tip` back to `commit`; the ref that keeps the tip comes back.

        Doing it again completes it. Raises UserError, with the way on, when the branch is at neither of the two.
        """
        ...

    def scrub(self, place: Place, *, commit: str, copy: Sequence[str]) -> None:
        """Files and index as in `commit`, and nothing else: ignored files go as well, `.storyloop` stays.

        What was ignored by `ignore_creations` is so no longer, and the files of `copy` are brought along again.
        """
        ...

    def changes(self, old_tree: str, new_tree: str, *, counted: bool = False) -> tuple[Change, ...]:
        """What differs between two trees, by path; if wanted, with the lines of created and modified text files."""
        ...

    def edits(self, old_tree: str, new_tree: str) -> Iterator[Edited]:
        """The lines that only one of the trees has, by path; without binary and very large files."""
        ...

    def contents(self, tree: str, paths: Sequence[str], *, most: int) -> Iterator[tuple[str, bytes]]:
        """These files of a tree, by path; without links, and files of more than so many bytes."""
        ...

    def graft(self, place: Place, *, base: str, tree: str, wanted: Callable[[str], bool]) -> str:
        """A tree like `base`, with those files of `tree` whose path is wanted; what `tree` has deleted stays."""
        ...

    def diff(self, old_tree: str, new_tree: str, *, most: int) -> str:
        """The difference as a person reads it, cut behind so many characters; bytes that are no UTF-8 replaced."""
        ...

    def merged(self, commit: str, onto: str) -> Merged | None:
        """The tree of `onto` with what `commit` changed since the two parted.

        Nothing but objects is written. A git that is too old to merge without a worktree (before 2.38) gives None.
        """
        ...

    def remains(self, place: Place, *, broke_off: bool = False) -> Remains | None:
        """What is left of the run's worktree; None where nothing is. Asking changes nothing; but
        of a run that broke off, what an agent may have done to git is put back first."""
        ...

    def scratch_refs(self, run_id: str, *, base: str) -> tuple[ScratchRef, ...]:
        """The refs below `refs/storyloop/<run>/`. Each tree that only they have is said to be so of exactly one."""
        ...

    def keep(self, run_id: str, names: Sequence[str]) -> None:
        """The commits of these names that are there are reachable by `refs/storyloop/<run>/forked/`, too."""
        ...

    def drop_refs(self, refs: Sequence[ScratchRef]) -> None:
        """Delete these refs if they still are what they were: all, or none where one has moved."""
        ...

    def push(self, place: Place, order: PushOrder, stop: threading.Event) -> Pushed | None:
        """Have the remote's branch hold the commit, with an explicit lease; None when `stop` was set meanwhile.

        Raises `ForgeTrouble`: never pushed is the default branch, nor over commits that are not in the commit and that
        we did not push. Done again, it finds the commit there.
        """
        ...

    def close_worktree(self, place: Place, *, with_branch: bool = False) -> None:
        """Remove the worktree's directory and registration, or what a crash left of its opening; pins stay.

        Of the user's own checkout only `.storyloop` goes.
        """
        ...
