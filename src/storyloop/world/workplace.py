"""What is ours about one worktree: a directory outside of it, a lock, and a list of what agents did to git.

`<run_dir>/git/guard.json` holds git's own files as they were before an agent started, for all worktrees of the run, and
`<run_dir>/git/<digest of the worktree's path>/` holds

    opened.json     where git registered the worktree, and whom commits are by; there once opening has ended
    intent.json     opening has begun: what stands there now is ours, and may be begun again
    index           the index that we use; the worktree's own belongs to the agent
    index.tree      the tree that the index holds; there only while it does
    excludes        what git ignores in this worktree alone, besides what the user's own excludes say
    findings.json   what was undone, with the label under which it was reported, so that a repetition says the same
    aside/          what was moved out of the way, numbered; nothing is ever deleted from it
    lock            held while git works for us, also by a git that outlives us
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Generator
from pathlib import Path
from urllib.parse import quote

import msgspec

from storyloop.core.errors import OperatorError, ProgrammerError
from storyloop.core.facts import Finding
from storyloop.ports.repository import Place
from storyloop.world.git import Git

_PATIENCE = 600.0  # seconds that a git left behind by a dead Storyloop may still take
_GLANCE = 0.02


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What opening a worktree came to; never read again from files that an agent can write."""

    admin: str  # <common>/worktrees/<name>; of a main checkout the common directory itself
    git_file: bytes  # the worktree's `.git`; empty where that is a directory
    back_link: bytes  # <admin>/gitdir; empty where there is none
    author: str
    email: str
    warnings: tuple[str, ...] = ()
    is_checkout: bool = False  # the user's own, which was entered


class _Found(msgspec.Struct, frozen=True):
    finding: Finding
    label: str | None = None  # None: not reported yet


class Workplace(msgspec.Struct, frozen=True, kw_only=True):
    """One worktree with what is ours about it, while its lock is held."""

    place: Place
    own: Path
    opened: Opened
    repository: Git  # for objects and refs
    git: Git  # for the worktree, through our index

    @property
    def root(self) -> Path:
        return Path(self.place.worktree)

    @property
    def common(self) -> Path:
        return Path(self.repository.git_dir)

    @property
    def admin(self) -> Path:
        return Path(self.opened.admin)

    @property
    def branch_ref(self) -> str:
        return f"refs/heads/{self.place.branch}"

    def pin_ref(self, *parts: str) -> str:
        """`refs/storyloop/<run>/<parts>`; what a ref's name cannot carry is percent-encoded."""
        words = [word for part in (self.place.run_id, *parts) for word in part.split("/")]
        if not all(words):
            raise ProgrammerError(f"`{'/'.join(parts)}` cannot be the name of a ref.")
        safe = (quote(word, safe="").replace(".", "%2E").replace("~", "%7E") for word in words)
        return f"refs/storyloop/{'/'.join(safe)}"

    def next_aside(self, name: str) -> Path:
        """Where the next thing of this name is kept. It is said in a finding first, and moved then: a crash between
        the two finds the same place again, so nothing is moved in silence."""
        aside = self.own / "aside"
        aside.mkdir(exist_ok=True)
        return aside / f"{len(os.listdir(aside)) + 1}-{name}"

    def move_aside(self, path: Path, target: Path) -> None:
        """Move a file or directory out of the agent's reach, whole."""
        kind = os.lstat(path).st_mode
        if stat.S_ISDIR(kind):
            os.chmod(path, stat.S_IMODE(kind) | stat.S_IRWXU)  # a directory that moves has its `..` rewritten
        shutil.move(path, target)

    def found(self, what: str, detail: str) -> None:
        """Note durably what an agent or a check did, for the next `reported`."""
        entry = _Found(Finding(what, detail))
        found = self._all_found()
        if entry not in found:
            self._store_found((*found, entry))

    def reported(self, label: str) -> tuple[Finding, ...]:
        """What was found since the last report, under this label for good: asked again, it is the same."""
        found = self._all_found()
        if any(entry.label is None for entry in found):
            found = tuple(_Found(entry.finding, entry.label or label) for entry in found)
            self._store_found(found)
        return tuple(entry.finding for entry in found if entry.label == label)

    def _all_found(self) -> tuple[_Found, ...]:
        try:
            return msgspec.json.decode((self.own / "findings.json").read_bytes(), type=tuple[_Found, ...])
        except FileNotFoundError:
            return ()

    def _store_found(self, found: tuple[_Found, ...]) -> None:
        store(self.own / "findings.json", msgspec.json.encode(found))


def own_directory(place: Place) -> Path:
    """Ours about this worktree; a run may have several."""
    digest = hashlib.sha256(os.fsencode(place.worktree)).hexdigest()[:16]
    return Path(place.run_dir, "git", digest)


@contextlib.contextmanager
def held(own: Path) -> Generator[int]:
    """Nobody else works on this worktree meanwhile; the descriptor is for git to inherit."""
    with (own / "lock").open("ab") as lock:
        for _ in range(int(_PATIENCE / _GLANCE)):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_GLANCE)
        else:
            raise OperatorError(
                f"A git that an earlier Storyloop started still holds {lock.name}.",
                "Nothing was changed.",
                "End that process, then go on with `storyloop resume`.",
            )
        # Whoever held it before is gone: a lock of git's on our own index is a leftover.
        (own / "index.lock").unlink(missing_ok=True)
        try:
            yield lock.fileno()
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # also for daemons that a git of ours may have started


def store(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that it is there whole or not at all, and survives a power cut."""
    new = path.with_name(f"{path.name}.storyloop")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def copy_index(source: Path, target: Path) -> None:
    """Copy an index with its time: git tells by it which entries must be looked at again."""
    new = target.with_name(f"{target.name}.storyloop")
    shutil.copy2(source, new)
    new.replace(target)


def make_accessible(root: Path) -> None:
    """Let us read every file and change every directory below `root`, where they are ours."""
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            kind = os.lstat(path).st_mode
            wanted = stat.S_IRWXU if stat.S_ISDIR(kind) else stat.S_IRUSR if stat.S_ISREG(kind) else 0
            if kind & wanted != wanted:
                with contextlib.suppress(PermissionError):  # another user's: git will name it
                    os.chmod(path, stat.S_IMODE(kind) | wanted)
