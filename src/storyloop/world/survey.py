"""What stands where a run is to begin: looked at once, before anything is made, and said in sentences."""

import os
import re
import shutil
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from storyloop.core.errors import UserError
from storyloop.ports.repository import BranchState, CheckedOut, Clashes, Exists, Free
from storyloop.world.files import PRIVATE
from storyloop.world.git import Git, shown

_OLDEST = (2, 34)  # `git add --sparse`
_DEFAULT_BRANCHES = ("main", "master", "trunk", "develop")


class Trait(StrEnum):
    """What is special about a repository and its checkout."""

    DIRTY = "dirty"  # the checkout has uncommitted work; it stays there
    LINKED = "linked"  # the checkout is a worktree that somebody added
    SPARSE = "sparse"
    SUBMODULES = "submodules"
    LFS = "lfs"


class RepositoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The repository around a directory; all paths are absolute and real."""

    identity: str  # the common git directory
    checkout: str  # the top of the checkout that was asked from
    main_checkout: str  # of a bare repository: the repository itself
    head: str
    branch: str | None  # None: detached
    default_branch: str | None  # a guess
    traits: frozenset[Trait]
    warnings: tuple[str, ...]


def discover(cwd: str | Path, environ: Mapping[str, str]) -> RepositoryFacts:
    """The repository that `cwd` is in. Raises `UserError`, with the cure, where no run can begin."""
    git = Git(environ=environ, cwd=os.path.realpath(cwd))
    _require_git(git)
    where = git.ask("rev-parse", "--path-format=absolute", "--git-common-dir", "--git-dir", "--is-bare-repository")
    if where.code != 0:
        raise _no_repository(git, where.err)
    identity, git_dir, bare = os.fsdecode(where.out).splitlines()[:3]
    top = git.ask("rev-parse", "--show-toplevel")
    if top.code != 0:
        what = "a bare repository" if bare == "true" else "inside a .git directory"
        raise UserError(f"{git.cwd} is {what}.", "Start from a checkout of it (`git worktree add` makes one).")
    checkout = os.path.realpath(os.fsdecode(top.out).removesuffix("\n"))
    identity = os.path.realpath(identity)
    settings = _settings(git)
    _require_readable(identity, checkout, settings)
    head = git.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if head.code != 0:
        raise UserError(f"{checkout} has no commit yet.", "Make one, so that a branch can start somewhere.")
    special = set(git.run("ls-tree", "-z", "--full-tree", "--name-only", "HEAD", PRIVATE, ".gitmodules").split(b"\0"))
    if PRIVATE.encode() in special:
        raise UserError(
            f"{checkout} tracks files in {PRIVATE}/, which Storyloop needs for itself.",
            f"Take them out: `git rm -r --cached {PRIVATE}`, then commit.",
        )
    branch = git.ask("symbolic-ref", "--quiet", "--short", "HEAD")
    current = os.fsdecode(branch.out).strip() or None
    traits = {
        Trait.DIRTY: bool(git.run("status", "--porcelain", "-z", "--ignore-submodules=dirty")),
        Trait.LINKED: os.path.realpath(git_dir) != identity,
        Trait.SPARSE: settings.get("core.sparsecheckout", "").lower() in ("true", "yes", "on", "1"),
        Trait.SUBMODULES: b".gitmodules" in special,
        Trait.LFS: bool(git.run("ls-files", "-z", "--", ":(top,attr:filter=lfs)")),
    }
    found = frozenset(trait for trait, is_there in traits.items() if is_there)
    return RepositoryFacts(
        identity=identity,
        checkout=checkout,
        main_checkout=_main_checkout(git, identity) if Trait.LINKED in found else checkout,
        head=os.fsdecode(head.out).strip(),
        branch=current,
        default_branch=_default_branch(git, settings, current),
        traits=found,
        warnings=tuple(_warnings(found, settings)),
    )


def branch_state(git: Git, branch: str) -> BranchState:
    """Whether a run could make this branch."""
    parts = branch.split("/")
    ways = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    rows = git.run(
        "for-each-ref",
        "--format=%(refname:lstrip=2)%00%(objectname)%00%(worktreepath)",
        *(f"refs/heads/{way}" for way in ways),
    )
    clash: BranchState = Free()
    for row in os.fsdecode(rows).splitlines():
        name, commit, path = row.split("\0")
        if name == branch:
            return CheckedOut(path) if path else Exists(commit)
        if name in ways or name.startswith(f"{branch}/"):
            clash = Clashes(name)
    return clash


def worktree_path(pattern: str, facts: RepositoryFacts, branch: str) -> str:
    """Where a run's worktree belongs: `pattern` filled in, beside the repository's main checkout."""
    main = Path(facts.main_checkout)
    name = main.name.removesuffix(".git")
    if not name.strip(".") or (main == Path(facts.identity) and name.startswith(".")):
        name = main.parent.name  # `project/.bare`, a habit with bare repositories
    return os.path.normpath(main.parent / _filled(pattern, name, branch))


def _filled(pattern: str, repository: str, branch: str) -> str:
    flat = re.sub(r"[^\w.-]+", "-", branch).strip("-.")
    return pattern.replace("{repo}", repository).replace("{branch}", flat)


def _require_git(git: Git) -> None:
    if shutil.which("git", path=git.environ.get("PATH")) is None:
        raise UserError("git is not installed, or not on your PATH.", "Install git 2.34 or newer.")
    answer = git.line("--version")
    version = re.search(r"(\d+)\.(\d+)", answer)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST:
        raise UserError(f"{answer} is too old.", "Install git 2.34 or newer.")


def _no_repository(git: Git, words: bytes) -> UserError:
    if b"dubious ownership" in words:
        return UserError(
            f"git does not trust {git.cwd}, because another user owns it.",
            f"If you do: `git config --global --add safe.directory {git.cwd}`.",
        )
    if b"not a git repository" in words:
        cure = "Start from inside one, or make one with `git init`."
        return UserError(f"{git.cwd} is not in a git repository.", cure)
    return UserError(f"git cannot read the repository around {git.cwd}: {shown(words).strip()}.", "Try `git status`.")


def _require_readable(identity: str, checkout: str, settings: Mapping[str, str]) -> None:
    for path in (identity, checkout):
        try:
            path.encode()
        except UnicodeEncodeError:
            quoted = shown(os.fsencode(path))
            raise UserError(f"The path {quoted} is not UTF-8.", "Rename that directory.") from None
    if settings.get("extensions.refstorage", "files") != "files":
        raise UserError(
            f"{identity} keeps its refs in a format that Storyloop does not know yet.",
            "Change it: `git refs migrate --ref-format=files`.",
        )


def _settings(git: Git) -> dict[str, str]:
    entries = os.fsdecode(git.run("config", "-z", "--list")).split("\0")
    pairs = (entry.partition("\n") for entry in entries if entry)
    return {name: value if separator else "true" for name, separator, value in pairs}


def _main_checkout(git: Git, identity: str) -> str:
    # The first entry is the main one; of a bare repository it is the repository.
    first = git.line("worktree", "list", "--porcelain").splitlines()[0].removeprefix("worktree ")
    return os.path.realpath(first) if os.path.isdir(first) else identity


def _default_branch(git: Git, settings: Mapping[str, str], current: str | None) -> str | None:
    remote = git.ask("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")
    if remote.code == 0:
        return os.fsdecode(remote.out).strip().removeprefix("origin/")
    names = [name for name in (settings.get("init.defaultbranch"), *_DEFAULT_BRANCHES) if name]
    rows = git.run("for-each-ref", "--format=%(refname:lstrip=2)", *(f"refs/heads/{name}" for name in names))
    there = os.fsdecode(rows).splitlines()
    return next((name for name in names if name in there), current)


def _warnings(traits: frozenset[Trait], settings: Mapping[str, str]) -> list[str]:
    warnings: list[str] = []
    if Trait.SUBMODULES in traits:
        warnings.append(
            "This repository has submodules, and a new worktree has them empty: `git submodule update --init` in "
            "[worktree] setup fills them. What an agent edits inside a submodule is not part of our commits."
        )
    if Trait.LFS in traits and not {"filter.lfs.process", "filter.lfs.clean"} & settings.keys():
        warnings.append(
            "This repository keeps files with LFS, but git-lfs is not set up: they stay pointers, and a large file "
            "that an agent writes would be committed as it is. `git lfs install` cures it."
        )
    return warnings
