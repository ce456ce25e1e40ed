"""The guard: what an agent or a check did to git itself is undone before git runs again, and kept aside.

Three kinds of things are put back. Settings (config, attributes, excludes, hooks) to what they were when the
guard last looked, which is before every agent: through them a git command runs other programs. The
registration of the worktree (its `.git` file, its directory under `<common>/worktrees`, its HEAD) to what opening
made of it. And the branch, to the commit that the run believes in. Commits that would be lost by it get a ref.

The untidy part: from outside, the user's own `git config` during a call looks just like the agent's. What is
certainly harmless (the settings of branches: `git push -u` writes them) is left alone; anything else is put back,
said in a finding, and kept as a file.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from storyloop.core.errors import OperatorError
from storyloop.world.files import PRIVATE, place_private
from storyloop.world.git import shown
from storyloop.world.workplace import Workplace, copy_index, store

_SETTINGS = ("config", "config.worktree", "info/attributes", "info/exclude", "info/sparse-checkout", "info/grafts")
_STASHES = "logs/refs/stash"  # the list of the user's stashes, which every worktree shares
_OWN_SETTINGS = ("config.worktree", "info/sparse-checkout")
_UNFINISHED = frozenset(
    {
        "MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "MERGE_RR", "AUTO_MERGE", "SQUASH_MSG", "CHERRY_PICK_HEAD",
        "REVERT_HEAD", "REBASE_HEAD", "rebase-merge", "rebase-apply", "sequencer", "BISECT_LOG", "BISECT_NAMES",
        "BISECT_START", "BISECT_TERMS", "BISECT_EXPECTED_REV", "BISECT_ANCESTORS_OK", "BISECT_RUN",
    }
)  # fmt: skip
_OBJECT = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?\n?")


class _Plain(msgspec.Struct, frozen=True, tag="plain"):
    mode: int
    content: bytes


class _Link(msgspec.Struct, frozen=True, tag="link"):
    target: bytes


class _Other(msgspec.Struct, frozen=True, tag="other"):
    """A directory, FIFO or device where a file belongs."""


_Kept = _Plain | _Link | _Other
_Memory = dict[str, _Kept]  # by absolute path


def remember(at: Workplace) -> None:
    """Take git's settings, as they are now, for the ones to put back."""
    _remember(at, _look_at_settings(at))


def begin(at: Workplace) -> None:
    """The same for a new worktree; but beside others of its run, what is remembered for them holds for it as well.

    Agents may be at work in those, and what they do to the settings is not to be taken for the user's own.
    """
    beside = any(other != at.own for other in (opened.parent for opened in at.own.parent.glob("*/opened.json")))
    _remember(at, _look_at_settings(at) | ((_memory(at) or {}) if beside else {}))


def _remember(at: Workplace, settings: _Memory) -> None:
    """Of the settings that every worktree of the repository shares, and of those of this one."""
    known = _all_memory(at) or {}
    memory = {name: kept for name, kept in known.items() if not _concerns(at, name)} | settings
    if memory != known:
        store(at.own.parent / "guard.json", msgspec.json.encode(memory))


def put_back(at: Workplace) -> None:
    """Undo what was done to the settings and to the registration; a no-op that reads a dozen files, mostly."""
    if not all((at.common / name).exists() for name in ("HEAD", "objects", "refs")):
        raise OperatorError(
            f"The repository's git directory {at.common} is gone or incomplete.",
            f"The files of the worktree {at.place.worktree} were left as they are.",
            "Restore it from a backup or a clone: the journal alone cannot bring commits back.",
        )
    _put_root_back(at)
    _put_registration_back(at)
    _put_settings_back(at)
    _put_git_file_back(at)
    _put_head_back(at)


def clear_leftovers(at: Workplace) -> None:
    """Remove the locks that a killed agent's git left in the way of ours; hide our own directory again."""
    for lock in ("index.lock", "HEAD.lock", "config.worktree.lock"):
        (at.admin / lock).unlink(missing_ok=True)
    (at.common / f"{at.branch_ref}.lock").unlink(missing_ok=True)
    if not os.path.lexists(at.root / PRIVATE / ".gitignore"):
        place_private(at.root, ".gitignore", b"*\n")


def tip_of(at: Workplace) -> str | None:
    """The commit of the run's branch; None if there is no such branch, or no commit in it."""
    match _look(at.common / at.branch_ref):
        case _Plain(content=content) if _OBJECT.fullmatch(content):
            return content.decode().strip()
        case _:
            answer = at.repository.ask("rev-parse", "--verify", "--quiet", f"{at.branch_ref}^{{commit}}")
            return os.fsdecode(answer.out).strip() or None


def put_branch_back(at: Workplace, expected: str, label: str) -> None:
    """The branch points at `expected` again; the commits that it pointed at have a ref."""
    branch = at.common / at.branch_ref
    kept = _look(branch)
    if isinstance(kept, _Plain) and kept.content.strip() == expected.encode():
        return
    if isinstance(kept, _Plain | _Link) and not _is_commit(at, kept):
        # `git symbolic-ref` on it would let our next commit move another branch; garbage would stop it.
        _set_aside(at, branch, "agent-commit", f"The branch {at.place.branch} was overwritten by hand")
    tip = tip_of(at)
    if tip == expected:
        return
    if tip is None:
        at.found("agent-commit", f"The branch {at.place.branch} was deleted; it is back at {expected}.")
        at.repository.run("update-ref", "--no-deref", at.branch_ref, expected, "0" * len(expected))
        return
    pinned = at.pin_ref(label, "agent-commits", tip[:12])
    at.found(
        "agent-commit",
        f"The branch {at.place.branch} was moved to {tip}; that commit is kept by {pinned}, "
        f"the branch is back at {expected}, and the files are as they were left.",
    )
    steps = f"update {pinned} {tip}\noption no-deref\nupdate {at.branch_ref} {expected} {tip}\n"
    at.repository.run("update-ref", "--stdin", stdin=steps.encode())


def _is_commit(at: Workplace, kept: _Kept) -> bool:
    match kept:
        case _Plain(content=content) if _OBJECT.fullmatch(content):
            return at.repository.has(content.decode().strip())
        case _:
            return False


# --- registration -------------------------------------------------------------------------------------


def _put_root_back(at: Workplace) -> None:
    if not os.path.lexists(at.root):
        at.found("worktree-gone", f"The worktree's directory {at.place.worktree} was deleted or moved away.")
    elif at.root.is_symlink() or not at.root.is_dir():
        _set_aside(at, at.root, "worktree-gone", f"Something else stood at {at.place.worktree}")
    else:
        return
    at.root.mkdir(parents=True)


def _put_registration_back(at: Workplace) -> None:
    if not at.opened.back_link:  # a main checkout: nothing links to it
        _put_unfinished_aside(at)
        return
    files = {at.admin / "gitdir": at.opened.back_link, at.admin / "commondir": b"../..\n"}
    damaged = [path for path, content in files.items() if at.admin.is_symlink() or not _holds(path, content)]
    if not damaged:
        _put_unfinished_aside(at)
        return
    at.found("worktree-registration", f"git's directory of this worktree, {at.admin}, was damaged and is rebuilt.")
    if at.admin.is_symlink() or (at.admin.exists() and not at.admin.is_dir()):
        at.move_aside(at.admin, at.next_aside(at.admin.name))
    at.admin.mkdir(parents=True, exist_ok=True)
    for path in damaged:
        _place(at, path, files[path])
    if not os.path.lexists(at.admin / "HEAD"):
        store(at.admin / "HEAD", _head_of(at))
    copy_index(at.own / "index", at.admin / "index")


def unfinished(admin: Path) -> list[str]:
    """What a merge, rebase or the like has left in this git directory; an empty list of conflicts says nothing."""
    names = sorted(_UNFINISHED.intersection(os.listdir(admin)))
    return [name for name in names if name != "MERGE_RR" or (admin / name).lstat().st_size]


def _put_unfinished_aside(at: Workplace) -> None:
    for name in unfinished(at.admin):
        _set_aside(at, at.admin / name, "unfinished-operation", f"A merge, rebase or the like was left, with {name}")


def _put_git_file_back(at: Workplace) -> None:
    path = at.root / ".git"
    if not at.opened.git_file or _holds(path, at.opened.git_file):
        return
    if os.path.lexists(path):
        _set_aside(at, path, "git-file", "The worktree's .git was replaced")
    else:
        at.found("git-file", "The worktree's .git was deleted, and is put back.")
    store(path, at.opened.git_file)


def _put_head_back(at: Workplace) -> None:
    head = at.admin / "HEAD"
    match _look(head):
        case _Plain(content=content) if content == _head_of(at):
            return
        case _Plain(content=content) as kept if _is_commit(at, kept):
            detached = content.decode().strip()
            if detached != tip_of(at):
                pinned = at.pin_ref("detached", detached)
                at.repository.run("update-ref", pinned, detached)
                at.found("switched-branch", f"HEAD was detached at {detached}, which {pinned} keeps.")
        case _Plain(content=content):
            detail = f"HEAD was switched to `{shown(content.strip())}`; commits made there stay there."
            at.found("switched-branch", detail)
        case _:
            at.found("switched-branch", "HEAD was removed, and is put back.")
    _place(at, head, _head_of(at))


def _head_of(at: Workplace) -> bytes:
    return f"ref: {at.branch_ref}\n".encode()


def _holds(path: Path, content: bytes) -> bool:
    kept = _look(path)
    return isinstance(kept, _Plain) and kept.content == content


def _place(at: Workplace, path: Path, content: bytes) -> None:
    if isinstance(_look(path), _Other):
        at.move_aside(path, at.next_aside(path.name))
    store(path, content)


def _set_aside(at: Workplace, path: Path, what: str, detail: str) -> None:
    kept = at.next_aside(path.name)
    at.found(what, f"{detail}; it is kept as {kept}.")
    at.move_aside(path, kept)


# --- settings -----------------------------------------------------------------------------------------


def _put_settings_back(at: Workplace) -> None:
    before, now = _memory(at), _look_at_settings(at)
    if before is None or before == now:
        return
    for name in sorted(before.keys() | now.keys()):
        was, is_now = before.get(name), now.get(name)
        if was == is_now or _is_harmless(at, was, is_now):
            continue
        path = Path(name)
        if path == at.common / _STASHES:
            _keep_dropped_stashes(at, was, is_now)
            continue
        kept = at.next_aside(path.name)
        detail = f"; the changed version is kept as {kept}" if is_now else ""
        what = "hooks-changed" if "hooks" in (path.name, path.parent.name) else "config-changed"
        at.found(what, f"{path} was changed, and is put back{detail}.")
        _keep_version(at, path, is_now, kept)
        _restore(path, was)
    remember(at)  # with what was harmless, so that it is weighed only once


def _keep_dropped_stashes(at: Workplace, was: _Kept | None, is_now: _Kept | None) -> None:
    """Somebody dropped stashes, the agent or the user: a ref keeps them, and the list is left as it is."""
    dropped = sorted(_stashes(was) - _stashes(is_now))
    if dropped:
        refs = {at.pin_ref("stash", stash[:12]): stash for stash in dropped}
        steps = "".join(f"update {ref} {stash}\n" for ref, stash in refs.items())
        at.repository.run("update-ref", "--stdin", stdin=steps.encode())
        at.found("stash-dropped", f"Stashes were dropped; `git stash apply` takes them from {', '.join(refs)}.")


def _stashes(kept: _Kept | None) -> set[str]:
    # Each line of the list: the hash before, the hash of this stash, who, when, a message.
    lines = kept.content.decode(errors="replace").splitlines() if isinstance(kept, _Plain) else []
    return {line.split()[1] for line in lines}


def _keep_version(at: Workplace, path: Path, version: _Kept | None, kept: Path) -> None:
    match version:
        case _Plain(content=content) | _Link(target=content):
            store(kept, content)
        case _Other():
            at.move_aside(path, kept)
        case None:
            pass


def _restore(path: Path, version: _Kept | None) -> None:
    match version:
        case _Plain(mode=mode, content=content):
            if path.parent.is_symlink():  # never write where an agent points
                path.parent.unlink()
            path.parent.mkdir(parents=True, exist_ok=True)
            store(path, content, mode=mode)
        case _Link(target=target):
            path.unlink(missing_ok=True)
            os.symlink(target, os.fsencode(path))
        case _Other() | None:
            path.unlink(missing_ok=True)


def _is_harmless(at: Workplace, was: _Kept | None, is_now: _Kept | None) -> bool:
    match was, is_now:
        case _Plain(content=old), _Plain(content=new):
            known, seen = _without_branches(at, old), _without_branches(at, new)
            return known is not None and known == seen
        case _:
            return False


def _without_branches(at: Workplace, config: bytes) -> list[bytes] | None:
    answer = at.repository.ask("config", "-z", "--list", "--no-includes", "--file", "-", stdin=config)
    if answer.code != 0:
        return None
    return [entry for entry in answer.out.split(b"\0") if not entry.startswith(b"branch.")]


def _look_at_settings(at: Workplace) -> _Memory:
    common = at.common
    paths = [common / _STASHES, *(common / name for name in _SETTINGS), *(at.admin / name for name in _OWN_SETTINGS)]
    seen = ((path, _look(path)) for path in (*paths, *_hooks(common / "hooks")))
    return {str(path): kept for path, kept in seen if kept is not None}


def _hooks(directory: Path) -> Iterator[Path]:
    if directory.is_symlink():
        yield directory
        return
    for above, _, files in os.walk(directory):
        for name in files:
            if name.isascii() and not name.endswith(".sample"):  # git runs no other
                yield Path(above, name)


def _memory(at: Workplace) -> _Memory | None:
    known = _all_memory(at)
    return known and {name: kept for name, kept in known.items() if _concerns(at, name)}


def _all_memory(at: Workplace) -> _Memory | None:
    try:
        return msgspec.json.decode((at.own.parent / "guard.json").read_bytes(), type=_Memory)
    except FileNotFoundError:
        return None


def _concerns(at: Workplace, name: str) -> bool:
    """Whether a setting is not another worktree's own."""
    above, worktrees = Path(name).parents, at.common / "worktrees"
    return worktrees not in above or worktrees / at.admin.name in above


def _look(path: Path) -> _Kept | None:
    """What stands there, in an ordinary directory, following nothing; None for nothing."""
    try:
        kind = os.lstat(path).st_mode
        if path.parent.is_symlink():
            return None
        if stat.S_ISLNK(kind):
            return _Link(os.readlink(os.fsencode(path)))
        if not stat.S_ISREG(kind):
            return _Other()
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return _Plain(stat.S_IMODE(kind), file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
