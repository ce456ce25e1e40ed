"""The user's repository, by the git command line: the `Repository` port over real git.

Every method takes the worktree's lock, puts back what was done to git meanwhile (`guard`), and only then lets git
look. Commits are made of objects and refs alone (write-tree, commit-tree, update-ref with the old value), so no hook
runs and nothing is signed; the same words, tree, parent and time give the same commit, so a deed that is done twice
after a crash finds itself.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

import msgspec

from storyloop.core.errors import OperatorError, ProgrammerError, UserError
from storyloop.core.facts import Change, ChangeKind, Pin
from storyloop.core.forge import Pushed
from storyloop.ports.repository import Author, Edited, Merged, Place, PushOrder, Remains, ScratchRef, Snapshot
from storyloop.world import entering, guard, index, remotes, scratch, worktree
from storyloop.world.git import Git, GitFailed, shown, unquoted
from storyloop.world.workplace import Opened, Workplace, held, own_directory

_EMPTY_TREE = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
_LARGE = 5_000_000  # bytes
_CLASHES, _TOO_OLD = 1, 129  # what a merge of trees exits with
_AT_ONCE = 1000  # paths on one command line


class GitRepository:
    """A repository, known by its common git directory, and the checkout that runs are started from."""

    def __init__(self, *, identity: str, checkout: str, environ: Mapping[str, str]) -> None:
        self._git = Git(environ=dict(environ), git_dir=identity)
        self._checkout = checkout
        self._opened: dict[str, Opened] = {}
        self._trees: dict[str, str] = {}
        self._guarding = threading.Lock()

    @property
    def identity(self) -> str:
        return self._git.git_dir

    def open_worktree(self, place: Place, *, base: str, reuse_branch: bool, copy: Sequence[str]) -> tuple[str, ...]:
        own = own_directory(place)
        own.mkdir(parents=True, exist_ok=True)
        order = worktree.Order(place=place, base=base, reuse_branch=reuse_branch, copy=copy, checkout=self._checkout)
        with _telling_the_operator(place), held(own) as hold, self._guarding:
            begin = entering.enter if place.worktree == self._checkout else worktree.open_worktree
            opened = begin(order, msgspec.structs.replace(self._git, hold=hold))
        self._opened[str(own)] = opened
        return opened.warnings

    def has_worktree(self, place: Place, *, tip: str = "") -> bool:
        ref = f"refs/heads/{place.branch}"
        if not self._git.has(ref):
            raise UserError(
                f"The run's branch {place.branch} was deleted.",
                f"Make it again where it was (`git branch {place.branch} COMMIT`), then `storyloop resume`. "
                f"Work that was not committed is kept by refs under refs/storyloop/{place.run_id}/.",
            )
        if place.worktree == self._checkout:
            entering.require_at(self._checkout, place.branch, self._git)
        now = self._git.line("rev-parse", ref)
        if tip and self._git.ask("merge-base", "--is-ancestor", now, tip).code != 0:
            parent, _, message = self._git.line("log", "-1", "--format=%P%n%B", now).partition("\n")
            if parent != tip or f"Storyloop-Run: {place.run_id}" not in message:  # ours, if we died before we told it
                raise _moved(place, now, tip)
        return os.path.lexists(place.worktree) and worktree.read_opened(own_directory(place)) is not None

    def tip(self, place: Place) -> str:
        with self._at(place) as at:
            return _require_tip(at)

    def tree_of(self, commit: str) -> str:
        tree = self._trees.get(commit)
        if tree is None:
            tree = self._git.line("rev-parse", "--verify", f"{commit}^{{tree}}")
            if len(commit) == len(tree):  # a commit's hash, not a name that may come to mean another
                self._trees[commit] = tree
        return tree

    def guard(self, place: Place) -> None:
        with self._at(place, trusting=True):
            pass

    def settle(self, place: Place, *, expected_tip: str, label: str) -> Snapshot:
        with self._at(place) as at:
            guard.clear_leftovers(at)
            guard.put_branch_back(at, expected_tip, label)
            tree = index.current_tree(at)
            return Snapshot(tree=tree, findings=at.reported(label))

    def snapshot(self, place: Place) -> str:
        with self._at(place) as at:
            return index.current_tree(at)

    def pin(self, place: Place, *, tree: str, label: str, author: Author) -> Pin:
        with self._at(place) as at:
            commit = _commit_tree(at, tree=tree, parent=_require_tip(at), author=author)
            number = 1
            while True:
                ref = at.pin_ref(label, "files" if number == 1 else f"files-{number}")
                made = at.repository.ask("update-ref", ref, commit, "0" * len(commit))
                if made.code == 0:
                    return Pin(tree=tree, commit=commit, ref=ref)
                kept = at.repository.line("rev-parse", "--verify", f"{ref}^{{commit}}")
                if self.tree_of(kept) == tree:
                    return Pin(tree=tree, commit=kept, ref=ref)
                number += 1

    def undo_changes(self, place: Place, *, tree: str, creations: bool = False) -> tuple[Change, ...]:
        with self._at(place) as at:
            return (index.put_back if creations else index.restore_changed)(at, tree)

    def ignore_creations(self, place: Place, *, tree: str) -> tuple[str, ...]:
        with self._at(place) as at:
            return index.ignore_created(at, tree)

    def commit(self, place: Place, *, tree: str, parent: str, author: Author) -> str:
        with self._at(place) as at:
            commit = _commit_tree(at, tree=tree, parent=parent, author=author)
            tip = guard.tip_of(at)
            if tip == parent:
                at.repository.run("update-ref", "--no-deref", at.branch_ref, commit, parent)
            elif tip != commit:
                raise OperatorError(
                    f"The branch {place.branch} was moved to {tip} while a story was being proven on {parent}.",
                    f"The proven work is kept as commit {commit}.",
                    f"Keep what is on it (`git branch NAME {place.branch}`), put it back "
                    f"(`git -C {place.worktree} reset --keep {parent[:12]}`), then `storyloop resume`.",
                )
            index.hold_tree(at, tree)
            index.hand_over(at)
            return commit

    def reset(self, place: Place, *, commit: str) -> None:
        with self._at(place) as at:
            guard.clear_leftovers(at)
            index.check_out(at, self.tree_of(commit))
            at.repository.run("update-ref", "--no-deref", at.branch_ref, commit)

    def move_back(self, place: Place, *, commit: str, tip: str, label: str) -> str:
        with self._at(place) as at:
            now, ref = _require_tip(at), at.pin_ref(label, "tip")
            if now not in (commit, tip):
                raise _moved(place, now, tip)
            if now == tip:
                moved = f"option no-deref\nupdate {at.branch_ref} {commit} {tip}\n" if commit != tip else ""
                at.repository.run("update-ref", "--stdin", stdin=f"update {ref} {tip}\n{moved}".encode())
            guard.clear_leftovers(at)
            index.check_out(at, self.tree_of(commit))
            return ref

    def scrub(self, place: Place, *, commit: str, copy: Sequence[str]) -> None:
        with self._at(place) as at:
            guard.clear_leftovers(at)
            worktree.scrub(at, self.tree_of(commit), copy, checkout=self._checkout)

    def changes(self, old_tree: str, new_tree: str, *, counted: bool = False) -> tuple[Change, ...]:
        if old_tree == new_tree:
            return ()
        kinds = _kinds(self._git, old_tree, new_tree)
        there = [path for path, kind in kinds.items() if counted and kind is not ChangeKind.DELETED]
        lines: dict[bytes, int] = {}
        for start in range(0, len(there), _AT_ONCE):
            lines |= _line_counts(self._git, new_tree, there[start : start + _AT_ONCE])
        return tuple(Change(shown(path), kind, lines.get(path)) for path, kind in sorted(kinds.items()))

    def edits(self, old_tree: str, new_tree: str) -> Iterator[Edited]:
        if old_tree == new_tree:
            return
        for part in self._patch(old_tree, new_tree, "--unified=0", "--no-renames").split(b"\ndiff --git "):
            head, _, hunks = part.partition(b"\n+++ ")
            if not hunks:
                continue
            old, (new, _, text) = head.rpartition(b"\n--- ")[2], hunks.partition(b"\n")
            named = (old if new.rstrip(b"\t") == b"/dev/null" else new).rstrip(b"\t")
            path = unquoted(named)[len(b"a/") :]
            lines = text.split(b"\n")
            added, removed = (b"\n".join(line[1:] for line in lines if line[:1] == sign) for sign in (b"+", b"-"))
            yield Edited(shown(path), added, removed)

    def contents(self, tree: str, paths: Sequence[str], *, most: int) -> Iterator[tuple[str, bytes]]:
        if not paths:
            return
        named = [path.encode() for path in paths]
        rows = self._git.run("--literal-pathspecs", "ls-tree", "-z", "--long", tree, "--", *named).split(b"\0")
        found = [(*about.split(), path) for about, _, path in (row.partition(b"\t") for row in rows if row)]
        files = [(blob, int(size), path) for mode, _, blob, size, path in found if mode.startswith(b"100")]
        files = [file for file in files if file[1] <= most]
        out = self._git.run("cat-file", "--batch", stdin=b"".join(blob + b"\n" for blob, _, _ in files))
        end = 0
        for _, size, path in files:
            start = out.index(b"\n", end) + 1  # behind the line that says which object follows
            end = start + size
            yield shown(path), out[start:end]
            end += 1

    def graft(self, place: Place, *, base: str, tree: str, wanted: Callable[[str], bool]) -> str:
        with self._at(place) as at:
            return index.grafted(at, base, tree, wanted)

    def diff(self, old_tree: str, new_tree: str, *, most: int) -> str:
        patch = self._patch(old_tree, new_tree, "--find-renames")
        return patch[: 4 * most].decode(errors="replace")[:most]

    def merged(self, commit: str, onto: str) -> Merged | None:
        argv = ("merge-tree", "--write-tree", "--no-messages", "--name-only", "-z", onto, commit)
        answer = self._git.ask(*argv)
        if answer.code == _TOO_OLD:
            return None
        if answer.code not in (0, _CLASHES):
            raise GitFailed(argv, answer.code, shown(answer.err))
        tree, *clashes = answer.out.rstrip(b"\0").split(b"\0")
        return Merged(tree.decode(), tuple(shown(path) for path in dict.fromkeys(clashes)))

    def remains(self, place: Place, *, broke_off: bool = False) -> Remains | None:
        own = own_directory(place)
        opened = worktree.read_opened(own)
        if opened is None or not worktree.is_ours(place, opened):
            return None
        if not os.path.lexists(place.worktree):
            return Remains()
        with self._at(place, putting_back=broke_off) as at:
            return Remains(unkept=scratch.unkept(at), unpushed=scratch.unpushed(self._git, place.branch))

    def scratch_refs(self, run_id: str, *, base: str) -> tuple[ScratchRef, ...]:
        return scratch.refs_of(self._git, run_id, base=base)

    def keep(self, run_id: str, names: Sequence[str]) -> None:
        commits = {self._git.line("rev-parse", f"{name}^{{commit}}") for name in names if self._git.has(name)}
        steps = "".join(f"update refs/storyloop/{run_id}/forked/{commit} {commit}\n" for commit in commits)
        self._git.run("update-ref", "--stdin", stdin=steps.encode())

    def drop_refs(self, refs: Sequence[ScratchRef]) -> None:
        steps = "".join(f"delete {ref.name} {ref.commit}\n" for ref in refs)
        self._git.run("update-ref", "--no-deref", "--stdin", stdin=steps.encode())

    def push(self, place: Place, order: PushOrder, stop: threading.Event) -> Pushed | None:
        there = self._checkout if os.path.isdir(self._checkout) else ""  # where a relative URL is relative to
        return remotes.push(msgspec.structs.replace(self._git, cwd=there), place.branch, order, stop)

    def remote_url(self, name: str) -> str:
        """Where the remote of this name is. Raises `ForgeTrouble` where there is none."""
        return remotes.url_of(self._git, name)

    def close_worktree(self, place: Place, *, with_branch: bool = False) -> None:
        own, ref = own_directory(place), f"refs/heads/{place.branch}"
        if not own.exists():
            return
        with _telling_the_operator(place), held(own) as hold:
            opened = self._opened.pop(str(own), None) or worktree.read_opened(own)
            worktree.close_worktree(place, opened, msgspec.structs.replace(self._git, hold=hold))
            if with_branch and self._git.has(ref):
                self._git.run("update-ref", "-d", ref)

    def _patch(self, old_tree: str, new_tree: str, *how: str) -> bytes:
        return self._git.run(
            *("-c", f"core.bigFileThreshold={_LARGE}"),  # larger files are told as binary ones are: not at all
            *("diff-tree", "-r", "-p", "--no-color", "--no-ext-diff", "--no-textconv", *how),
            *("--src-prefix=a/", "--dst-prefix=b/", old_tree, new_tree),
        )

    @contextlib.contextmanager
    def _at(self, place: Place, *, trusting: bool = False, putting_back: bool = True) -> Generator[Workplace]:
        """The worktree with git as opening left it; `trusting` takes the settings as they are now for good."""
        own = own_directory(place)
        opened = self._opened.get(str(own)) or worktree.read_opened(own)
        if opened is None:
            raise ProgrammerError(f"The worktree {place.worktree} was never opened.")
        self._opened[str(own)] = opened
        with _telling_the_operator(place), held(own) as hold:
            at = worktree.workplace(place, opened, msgspec.structs.replace(self._git, hold=hold))
            with self._guarding:  # the settings are those of every worktree
                if trusting:
                    guard.remember(at)
                if putting_back:
                    guard.put_back(at)
            yield at


@contextlib.contextmanager
def _telling_the_operator(place: Place) -> Generator[None]:
    """A disk that is full or gone is told in a sentence."""
    try:
        yield
    except OSError as error:
        raise OperatorError(
            f"{error.strerror or error} ({error.filename or place.run_dir}), while looking after {place.worktree}.",
            "What agents left is kept under refs/storyloop/.",
            "Cure that, then go on with `storyloop resume`.",
        ) from error


def _moved(place: Place, now: str, tip: str) -> UserError:
    back = (
        f"git -C {place.worktree} reset --keep" if os.path.lexists(place.worktree) else f"git branch -f {place.branch}"
    )
    return UserError(
        f"The branch {place.branch} is at {now[:12]}, and not where the run has left it ({tip[:12]}).",
        f"Keep what is on it (`git branch NAME {place.branch}`), put the branch back (`{back} {tip[:12]}`), then try "
        "again. What has ended can be built upon as it is: `storyloop improve`.",
    )


def _require_tip(at: Workplace) -> str:
    tip = guard.tip_of(at)
    if tip is None:
        raise OperatorError(
            f"The branch {at.place.branch} is gone.",
            "What agents left is kept under refs/storyloop/.",
            f"Make it again (`git branch {at.place.branch} COMMIT`), then `storyloop resume`.",
        )
    return tip


def _commit_tree(at: Workplace, *, tree: str, parent: str, author: Author) -> str:
    date = f"@{int(author.at.timestamp())} +0000"
    env = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", at.opened.author), ("EMAIL", at.opened.email), ("DATE", date))
    }
    message = author.message.encode(errors="replace")
    return at.repository.line("commit-tree", "--no-gpg-sign", tree, "-p", parent, "-F", "-", stdin=message, env=env)


def _kinds(git: Git, old: str, new: str) -> dict[bytes, ChangeKind]:
    listed = git.run("diff-tree", "-r", "-z", "--raw", "--no-renames", old, new).split(b"\0")
    kinds = {b"A": ChangeKind.CREATED, b"D": ChangeKind.DELETED}
    return {
        path: kinds.get(about[-1:], ChangeKind.MODIFIED) for about, path in zip(listed[::2], listed[1::2], strict=False)
    }


def _line_counts(git: Git, tree: str, paths: Sequence[bytes]) -> dict[bytes, int]:
    """Lines of these files: what would have been added, had there been nothing before. Binary ones are left out."""
    counted = git.run(
        "--literal-pathspecs", "diff-tree", "-r", "-z", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv",
        _EMPTY_TREE[len(tree)], tree, "--", *paths,
    )  # fmt: skip
    rows = (row.split(b"\t", 2) for row in counted.split(b"\0") if row)
    return {path: int(added) for added, _, path in rows if added != b"-"}
