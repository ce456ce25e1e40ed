"""The index that is ours: from the worktree's files to a tree, and from a tree back to the files.

The worktree's own index belongs to the agent, who may have staged, locked, or lied in it (`assume-unchanged`
hides a change from git). Ours begins as a copy made right after the checkout, so it knows the files' times and what
a sparse checkout leaves out, and only this file writes to it. `index.tree` beside it names the tree that it holds:
removed before the index changes and written after, so it may be missing but is never stale. A clean status then
answers "which tree is this?" with one process.

Repositories inside the worktree are no part of a tree as git would have it (a link to a commit that nobody else
has). What an agent initialised or cloned gets its `.git` moved aside and is ordinary files from then on. Two
kinds stay: submodules that `.gitmodules` names, and linked worktrees of this very repository, which some agents make
for their helpers; their branches keep their commits, and their files are left out.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from storyloop.core.errors import OperatorError
from storyloop.core.facts import Change, ChangeKind
from storyloop.world.files import PRIVATE
from storyloop.world.git import GitFailed, shown
from storyloop.world.workplace import Workplace, copy_index, make_accessible, store

_NOT_OURS = f":(exclude,top){PRIVATE}".encode()
_UNREAD = re.compile(rb"could not open directory|[Pp]ermission denied|failed to remove|unable to unlink")

# What git says of a file that it will never keep, and what it says when the keeping itself fails.
_REFUSED = re.compile(rb"can only add regular files|invalid path|Permission denied")
_SPOILED = re.compile(rb"No space left|quota exceeded|insert into database|failed to write|filter '.*' failed")


class _Status(msgspec.Struct, frozen=True):
    """How the worktree differs from our index; paths as git has them, in bytes."""

    changed: dict[bytes, ChangeKind] = {}
    submodules: tuple[bytes, ...] = ()  # that stand at another commit
    untracked: tuple[bytes, ...] = ()
    nested: tuple[bytes, ...] = ()  # linked worktrees that are left out

    @property
    def is_clean(self) -> bool:
        return not (self.changed or self.submodules or self.untracked)


def begin(at: Workplace, tree: str) -> None:
    """Our index begins as a copy of the one that the checkout of `tree` made."""
    _forget(at)
    copy_index(at.admin / "index", at.own / "index")
    _hold(at, tree)


def current_tree(at: Workplace) -> str:
    """The tree of the files now."""
    status = _status(at)
    known = held_tree(at)
    if status.is_clean and known is not None:
        return known
    _forget(at)
    if not status.is_clean:
        _add(at, status)
    tree = at.git.line("write-tree")
    _hold(at, tree)
    return tree


def held_tree(at: Workplace) -> str | None:
    """The tree that our index holds, if that is certain."""
    try:
        return (at.own / "index.tree").read_text()
    except FileNotFoundError:
        return None


def unheld_paths(at: Workplace) -> tuple[str, ...]:
    """Files that are not as our index has them; nothing is changed by asking, not even repositories inside."""
    status = _ask_status(at)
    return tuple(map(shown, (*status.changed, *status.untracked, *status.nested, *status.submodules)))


def changed_count(at: Workplace) -> int:
    """How many files are not as our index has them."""
    return len(_status(at).changed)


def grafted(at: Workplace, base: str, tree: str, wanted: Callable[[str], bool]) -> str:
    """`base` with the wanted files of `tree`, made in an index of its own; ours and the files are not touched."""
    scratch = at.own / "graft"
    for left in (scratch, at.own / "graft.lock"):  # of a git that was killed
        left.unlink(missing_ok=True)
    git = msgspec.structs.replace(at.repository, index=str(scratch))
    listed = git.run("diff-tree", "-r", "-z", "--raw", "--no-renames", base, tree).split(b"\0")
    rows = zip((about.split() for about in listed[::2]), listed[1::2], strict=False)
    scions = [b"%b %b\t%b\0" % (row[1], row[3], path) for row, path in rows if row[4] != b"D" and wanted(shown(path))]
    git.run("read-tree", base)
    git.run("update-index", "-z", "--add", "--replace", "--index-info", stdin=b"".join(scions))
    made = git.line("write-tree")
    scratch.unlink()
    return made


def hold_tree(at: Workplace, tree: str) -> None:
    """Let our index hold `tree`; files are not touched, and entries that stay keep their times."""
    if held_tree(at) != tree:
        _forget(at)
        at.git.run("read-tree", "-i", "-m", tree)  # `-i`: what the files are like is not asked, nor changed
        _hold(at, tree)


def hand_over(at: Workplace) -> None:
    """Give the worktree's own index what ours holds, so that the agent's `git status` makes sense."""
    copy_index(at.own / "index", at.admin / "index")


def restore_changed(at: Workplace, tree: str) -> tuple[Change, ...]:
    """Files of `tree` that were changed or deleted are as they were; which ones comes back."""
    hold_tree(at, tree)
    status = _ask_status(at)
    changed = status.changed
    if not changed:
        return ()
    for path in status.untracked:
        if path[:-1] in changed:  # a repository where a file of the tree belongs: nothing else is opened up here
            _open_up(at, path)
    _bring_back(at, changed)
    return tuple(Change(shown(path), kind) for path, kind in sorted(changed.items()))


def put_back(at: Workplace, tree: str) -> tuple[Change, ...]:
    """Index and files as `tree` has them, but for ignored ones; what was otherwise comes back."""
    hold_tree(at, tree)
    status = _status(at)
    created = _remove_created(at, status)  # first: they may stand where a file or a directory of the tree belongs
    if status.changed:
        _bring_back(at, status.changed)
    undone = status.changed | dict.fromkeys(created, ChangeKind.CREATED)
    return tuple(Change(shown(path), kind) for path, kind in sorted(undone.items()))


def _bring_back(at: Workplace, changed: Iterable[bytes]) -> None:
    paths = b"".join(path + b"\0" for path in changed)
    _accessibly(at, "checkout-index", "-u", "-f", "-q", "-z", "--stdin", stdin=paths)


def _remove_created(at: Workplace, status: _Status) -> list[bytes]:
    """Untracked files are gone, with the directories that they alone filled."""
    created = [path for path in status.untracked if not path.endswith(b"/")]
    root = os.fsencode(at.root)
    for path in created:
        _unlink(at, os.path.join(root, path))
        above = os.path.dirname(path)
        while above and _remove_if_empty(os.path.join(root, above)):
            above = os.path.dirname(above)
    return created


def ignore_created(at: Workplace, tree: str) -> tuple[str, ...]:
    """Untracked files that `tree` has not are ignored from here on; a whole new directory is one path."""
    hold_tree(at, tree)
    created = sorted(_ask_status(at, untracked="normal").untracked)
    ignore(at, created)
    return tuple(shown(path) for path in created)


def ignore(at: Workplace, paths: Sequence[bytes]) -> None:
    """These paths are ignored from here on, in this worktree alone."""
    if paths:
        excludes = at.own / "excludes"
        before = excludes.read_bytes() if excludes.exists() else _users_excludes(at)
        store(excludes, before + b"".join(b"/" + _as_pattern(path) + b"\n" for path in paths))


def _users_excludes(at: Workplace) -> bytes:
    """The user's own global excludes: git reads one such file, and now it is ours."""
    configured = at.git.ask("config", "--path", "core.excludesFile")
    if configured.code == 0:
        path = Path(os.fsdecode(configured.out.removesuffix(b"\n")))
    else:
        environ = at.git.environ
        path = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", ""), ".config"), "git", "ignore")
    return path.read_bytes() + b"\n" if path.is_file() else b""


def _as_pattern(path: bytes) -> bytes:
    # A pattern cannot hold a newline: there any character will do.
    return re.sub(rb"([\\*?\[ ])", rb"\\\1", path).replace(b"\n", b"?")


def check_out(at: Workplace, tree: str) -> None:
    """Index and files as in `tree`; untracked files are gone, ignored ones stay."""
    _status(at)  # before git would overwrite a repository that the agent made
    _forget(at)
    _accessibly(at, "read-tree", "--reset", "-u", tree)
    if at.opened.is_checkout:  # `clean` would take the user's empty directories along
        hold_tree(at, tree)
        _remove_created(at, _status(at))
    else:
        _accessibly(at, "clean", "-f", "-d", "-q", f"--exclude=/{PRIVATE}")
    left = _status(at)
    if left.untracked:  # a submodule of the agent's, which `.gitmodules` names no more
        _accessibly(at, "clean", "-f", "-d", "-q", f"--exclude=/{PRIVATE}")
        left = _status(at)
    for path in left.submodules:
        at.found(
            "submodule-moved",
            f"The submodule {shown(path)} stands at another commit than the tree says; Storyloop checks out no "
            "submodules: `git submodule update --init --force` in [worktree] setup does.",
        )
    if left.untracked:
        raise OperatorError(
            f"{len(left.untracked)} files in {at.place.worktree} could not be removed, such as "
            f"{shown(left.untracked[0])}.",
            "What agents left is kept under refs/storyloop/.",
            "Remove them, then go on with `storyloop resume`.",
        )
    _hold(at, tree)
    hand_over(at)


def remove_ignored(at: Workplace) -> None:
    """Nothing is left that our index does not hold, ignored or not, in submodules and other repositories neither."""
    for path in _linked_worktrees(at):
        kept = at.next_aside(path.name)
        at.found("nested-worktree", f"The worktree {path} was in the way of the final proof; it is kept as {kept}.")
        at.move_aside(path, kept)
    for path in _submodules(at):
        if (path / ".git").is_dir() and not (path / ".git").is_symlink():
            kept = at.next_aside(".git")
            at.found("nested-repository", f"{path} had a repository of its own; its .git is kept as {kept}.")
            at.move_aside(path / ".git", kept)
        if path.is_dir() and not path.is_symlink():
            make_accessible(path)
            shutil.rmtree(path)
            path.mkdir()
    _accessibly(at, "clean", "-f", "-f", "-d", "-x", "-q", f"--exclude=/{PRIVATE}")


def _linked_worktrees(at: Workplace) -> list[Path]:
    """Other worktrees of this repository that lie in this one."""
    listed = at.repository.run("worktree", "list", "--porcelain", "-z").split(b"\0")
    paths = [Path(os.fsdecode(line.removeprefix(b"worktree "))) for line in listed if line.startswith(b"worktree ")]
    root = Path(os.path.realpath(at.root))
    return [path for path in paths if root in path.parents and path.is_dir()]


def _submodules(at: Workplace) -> list[Path]:
    entries = at.git.run("ls-files", "-z", "--stage").split(b"\0")
    links = (entry.partition(b"\t")[2] for entry in entries if entry.startswith(b"160000 "))
    return [Path(at.root, os.fsdecode(path)) for path in links]


# --- status -------------------------------------------------------------------------------------------


def _status(at: Workplace) -> _Status:
    """The status, after repositories that an agent made inside were turned into ordinary files."""
    while True:
        status = _ask_status(at)
        strangers = [path for path in status.untracked if path.endswith(b"/")]
        if not strangers:
            return status
        submodules = _named_submodules(at)
        if all(path[:-1] in submodules for path in strangers):
            return status
        for path in strangers:
            if path[:-1] not in submodules:
                _open_up(at, path)


def _ask_status(at: Workplace, *, untracked: Literal["all", "normal"] = "all") -> _Status:
    ask = (
        "status",
        "--porcelain=v2",
        "-z",
        f"--untracked-files={untracked}",
        "--no-renames",
        "--ignore-submodules=dirty",
    )
    answer = at.git.ask(*ask, "--", ".", _NOT_OURS)
    if answer.code == 0 and _UNREAD.search(answer.err):
        make_accessible(at.root)
        answer = at.git.ask(*ask, "--", ".", _NOT_OURS)
    if answer.code != 0:
        raise GitFailed(ask, answer.code, shown(answer.err))
    changed: dict[bytes, ChangeKind] = {}
    submodules: list[bytes] = []
    created: list[bytes] = []
    nested: list[bytes] = []
    for entry in answer.out.split(b"\0"):
        match entry[:1]:
            case b"1":
                _, states, submodule, _, _, mode, *_, path = entry.split(b" ", 8)
                match states[1:], submodule[:1]:
                    case b".", _:
                        pass
                    case b"D", _:
                        changed[path] = ChangeKind.DELETED
                    case b"T", b"S" if mode == b"160000":  # a file that became a repository
                        changed[path] = ChangeKind.MODIFIED
                        created.append(path + b"/")
                    case _, b"S":
                        submodules.append(path)
                    case _:
                        changed[path] = ChangeKind.MODIFIED
            case b"?":
                (nested if _is_linked_worktree(at, entry[2:]) else created).append(entry[2:])
            case _:
                pass
    return _Status(changed, tuple(submodules), tuple(created), tuple(nested))


def _is_linked_worktree(at: Workplace, path: bytes) -> bool:
    if not path.endswith(b"/"):
        return False
    link = Path(at.root, os.fsdecode(path), ".git")
    if not link.is_file():
        return False
    target = link.read_bytes().removeprefix(b"gitdir: ").strip()
    return Path(os.fsdecode(os.path.dirname(target))) == at.admin.parent


def _named_submodules(at: Workplace) -> frozenset[bytes]:
    """Paths that the worktree's `.gitmodules` names and that have a commit to link to."""
    answer = at.git.ask("config", "-z", "--no-includes", "--file", ".gitmodules", "--get-regexp", r"\.path$")
    paths = [entry.partition(b"\n")[2] for entry in answer.out.split(b"\0") if entry]
    return frozenset(path for path in paths if _has_commit(at, path))


def _has_commit(at: Workplace, path: bytes) -> bool:
    # `git add` refuses a repository without a commit; asked with a dry run, nothing in that repository is started.
    return at.git.ask("--literal-pathspecs", "add", "--dry-run", "--sparse", "--", path).code == 0


def _open_up(at: Workplace, path: bytes) -> None:
    inner = Path(at.root, os.fsdecode(path), ".git")
    kept = at.next_aside(".git")
    at.found(
        "nested-repository",
        f"{shown(path)} was a repository of its own; its .git is kept as {kept}, its files are ordinary files.",
    )
    at.move_aside(inner, kept)


# --- changing the index and the files ----------------------------------------------------------------


def _add(at: Workplace, status: _Status) -> None:
    left_out = [_NOT_OURS, *(b":(exclude,top,literal)" + path.rstrip(b"/") for path in status.nested)]
    add = ("add", "--all", "--sparse", "--ignore-errors", "--", ".", *left_out)
    if at.git.ask(*add).code == 0:
        return
    # A file may be unreadable, or have vanished under git's hands: once more, then go on without it.
    make_accessible(at.root)
    answer = at.git.ask(*add)
    if answer.code == 0:
        return
    left = _ask_status(at)
    if left.is_clean or _SPOILED.search(answer.err) or not _REFUSED.search(answer.err):
        raise GitFailed(("add", "--all"), answer.code, shown(answer.err))
    names = ", ".join(shown(path) for path in sorted((*left.changed, *left.untracked)))
    at.found("left-out", f"git cannot keep these files: {names} ({shown(answer.err).splitlines()[0]}).")


def _accessibly(at: Workplace, *args: str, stdin: bytes = b"") -> None:
    """Run git, which changes files; where a directory is read-only, make it ours and run it again."""
    answer = at.git.ask(*args, stdin=stdin)
    if answer.code != 0 or _UNREAD.search(answer.err):
        make_accessible(at.root)
        at.git.run(*args, stdin=stdin)


def _unlink(at: Workplace, path: bytes) -> None:
    try:
        os.unlink(path)
    except PermissionError:
        make_accessible(at.root)
        os.unlink(path)
    except FileNotFoundError:
        return


def _remove_if_empty(directory: bytes) -> bool:
    try:
        os.rmdir(directory)
    except OSError:  # not empty: somebody else's files are in it
        return False
    return True


def _forget(at: Workplace) -> None:
    (at.own / "index.tree").unlink(missing_ok=True)


def _hold(at: Workplace, tree: str) -> None:
    store(at.own / "index.tree", tree.encode())
