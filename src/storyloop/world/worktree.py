"""The beginning and the end of a worktree.

Opening takes several steps, and we may be killed between any two. `intent.json` is written before the first one: what
is found at the worktree's path from then on is a half-made thing of ours, which is removed and made anew.
`opened.json` is written after the last one: from then on opening again is a no-op, unless somebody deleted the
worktree, which is then made again from its branch, because a worktree is a cache.
"""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import msgspec

from storyloop.core.errors import OperatorError, ProgrammerError, StoryloopError, UserError
from storyloop.ports.repository import CheckedOut, Clashes, Exists, Free, Place
from storyloop.world import guard, index
from storyloop.world.files import PRIVATE, place_private
from storyloop.world.git import IDENTITY, Git, GitFailed
from storyloop.world.survey import branch_state
from storyloop.world.workplace import Opened, Workplace, make_accessible, own_directory, store


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What `open_worktree` was asked for."""

    place: Place
    base: str
    reuse_branch: bool
    copy: Sequence[str]
    checkout: str  # where the files to copy come from


class _Intent(msgspec.Struct, frozen=True):
    makes_branch: bool


def read_opened(own: Path) -> Opened | None:
    """What opening came to; None if it has not ended."""
    try:
        return msgspec.json.decode((own / "opened.json").read_bytes(), type=Opened)
    except FileNotFoundError:
        return None


def workplace(place: Place, opened: Opened, repository: Git) -> Workplace:
    """The worktree as git is to see it, through our index; `repository` carries the lock."""
    own = own_directory(place)
    git = msgspec.structs.replace(
        repository,
        git_dir=opened.admin,
        work_tree=place.worktree,
        index=str(own / "index"),
        excludes=str(own / "excludes") if (own / "excludes").exists() else "",
    )
    return Workplace(place=place, own=own, opened=opened, repository=repository, git=git)


def open_worktree(order: Order, repository: Git) -> Opened:
    """Make branch and worktree, or complete what a crash left of them; the caller holds the lock."""
    place, own = order.place, own_directory(order.place)
    opened = read_opened(own)
    if opened is not None:
        if os.path.lexists(place.worktree):
            return opened
        _remove_half_made(place, repository)
        return _make(order, repository, author=(opened.author, opened.email))
    author = identity_of(repository)
    intent = _read_intent(own)
    if intent is None:
        _refuse_foreign(place.worktree)
        intent = _Intent(makes_branch=_branch_is_to_make(order, repository))
        store(own / "intent.json", msgspec.json.encode(intent))
    else:
        _remove_half_made(place, repository)
    ref = f"refs/heads/{place.branch}"
    try:
        if intent.makes_branch and not repository.has(ref):
            _make_branch(order, repository)
        return _make(order, repository, author=author)
    except StoryloopError:
        # Refused, not killed: leave nothing behind that would be in the way of the next try.
        _remove_half_made(place, repository)
        if intent.makes_branch and repository.has(ref):
            repository.run("update-ref", "-d", ref)
        (own / "intent.json").unlink()
        raise


def scrub(at: Workplace, tree: str, copy: Sequence[str], *, checkout: str) -> None:
    """As opening left it, but on `tree`."""
    if at.opened.is_checkout:
        raise ProgrammerError(f"{at.root} is the user's own checkout, and is not to be scrubbed.")
    index.remove_ignored(at)
    (at.own / "excludes").unlink(missing_ok=True)
    at = workplace(at.place, at.opened, at.repository)  # without these excludes
    index.check_out(at, tree)
    _bring_along(at, copy, checkout)


def is_ours(place: Place, opened: Opened) -> bool:
    """Whether what stands at the worktree's path is what opening made; also if nothing does."""
    git_file = Path(place.worktree, ".git")
    return not os.path.lexists(place.worktree) or (git_file.is_file() and git_file.read_bytes() == opened.git_file)


def close_worktree(place: Place, opened: Opened | None, repository: Git) -> None:
    """Remove directory and registration; what is not surely ours, or kept nowhere else, is moved aside instead.

    Of the user's own checkout nothing goes but our directory in it.
    """
    if opened is not None and opened.is_checkout:
        _remove(Path(place.worktree, PRIVATE))
        return
    if opened is None:
        if _read_intent(own := own_directory(place)) is not None:
            _remove_half_made(place, repository)
            (own / "intent.json").unlink()
        return
    at = workplace(place, opened, repository)
    # Killed half-way, what is left of it is known for ours by its name.
    doomed = at.root.with_name(f".{at.root.name}.storyloop-removed")
    _remove(doomed)
    if at.root.is_dir() and not is_ours(place, opened):
        at.move_aside(at.root, at.next_aside(at.root.name))
    modules = at.admin / "modules"
    if modules.is_dir():  # the repositories of submodules, with the commits that were made in them
        at.move_aside(modules, at.next_aside("modules"))
    if at.root.is_dir():
        at.root.rename(doomed)
    _remove(doomed)
    _remove(at.admin)
    # Last of all what says that there is something to be removed.
    for name in ("intent.json", "index.tree", "index", "excludes", "opened.json"):
        (at.own / name).unlink(missing_ok=True)


# --- opening ------------------------------------------------------------------------------------------


def identity_of(repository: Git) -> tuple[str, str]:
    """Whom commits are by: name and address."""
    user = {name: value for name, value in repository.environ.items() if name in IDENTITY}
    answer = repository.ask("var", "GIT_AUTHOR_IDENT", env=user)
    match = re.fullmatch(r"(.*) <(.*)> \d+ [+-]\d+", os.fsdecode(answer.out).strip())
    if answer.code != 0 or match is None:
        raise UserError(
            "git does not know who you are, and commits are made in your name.",
            'Say it: `git config --global user.name "Your Name"` and `git config --global user.email you@example.com`.',
        )
    return match[1], match[2]


def _refuse_foreign(worktree: str) -> None:
    path = Path(worktree)
    if os.path.lexists(path) and not (path.is_dir() and not path.is_symlink() and not any(path.iterdir())):
        raise UserError(
            f"The run's worktree belongs at {worktree}, but something is there already.",
            "Move it away, or set another [worktree] pattern.",
        )


def _branch_is_to_make(order: Order, repository: Git) -> bool:
    branch = order.place.branch
    state = branch_state(repository, branch)
    match state:
        case Free():
            return True
        case Exists() if order.reuse_branch:
            return False
        case Exists():
            problem = f"The branch {branch} exists already."
            raise UserError(problem, "Name another one in the spec, or give --reuse-branch.")
        case CheckedOut(path=path):
            problem = f"The branch {branch} is checked out at {path}."
            cure = "Switch to another branch there, or name another one in the spec."
            if not os.path.lexists(path):
                cure = "Nothing is there any more: `git worktree prune`, then try again."
            raise UserError(problem, cure)
        case Clashes(other=other):
            problem = f"git cannot have a branch {branch} beside the branch {other}."
            raise UserError(problem, "Name another one in the spec.")
        case _:
            assert_never(state)


def _make_branch(order: Order, repository: Git) -> None:
    commit = repository.line("rev-parse", "--verify", f"{order.base}^{{commit}}")
    # Not `worktree add -b`: with the user's branch.autoSetupMerge it would write tracking into the config.
    repository.run("update-ref", f"refs/heads/{order.place.branch}", commit, "0" * len(commit))


def _make(order: Order, repository: Git, *, author: tuple[str, str]) -> Opened:
    place, own = order.place, own_directory(order.place)
    Path(place.worktree).parent.mkdir(parents=True, exist_ok=True)
    try:
        repository.run("worktree", "add", "--quiet", place.worktree, place.branch)
    except GitFailed as error:
        raise UserError(f"The worktree could not be made: {error.problem}", error.cure) from error
    git_file = Path(place.worktree, ".git").read_bytes()
    admin = Path(os.fsdecode(git_file.removeprefix(b"gitdir: ").strip()))
    opened = Opened(
        admin=str(admin),
        git_file=git_file,
        back_link=(admin / "gitdir").read_bytes(),
        author=author[0],
        email=author[1],
    )
    (own / "excludes").unlink(missing_ok=True)  # what the set-up of an earlier worktree had left
    at = workplace(place, opened, repository)
    index.begin(at, repository.line("rev-parse", f"refs/heads/{place.branch}^{{tree}}"))
    if at.git.run("ls-files", "-z", "--", PRIVATE):
        raise UserError(
            f"The branch {place.branch} tracks files in {PRIVATE}/, which Storyloop needs for itself.",
            f"Take them out: `git rm -r --cached {PRIVATE}`, then commit.",
        )
    place_private(place.worktree, ".gitignore", b"*\n")
    warnings = (*_uneven_checkout(at), *_bring_along(at, order.copy, order.checkout))
    guard.begin(at)
    opened = msgspec.structs.replace(opened, warnings=warnings)
    store(own / "opened.json", msgspec.json.encode(opened))
    return opened


def _uneven_checkout(at: Workplace) -> tuple[str, ...]:
    """A warning where files are changed as soon as they are checked out."""
    count = index.changed_count(at)
    if not count:
        return ()
    return (
        f"{count} files differ from the commit as soon as they are checked out (line endings or filters); "
        "the first commit will hold them so. `git add --renormalize .` and a commit of your own cures it.",
    )


def _bring_along(at: Workplace, copy: Sequence[str], checkout: str) -> tuple[str, ...]:
    """Copy ignored files of the user's checkout; a name that is none of that is a warning."""
    warnings: list[str] = []
    for name in copy:
        path = os.path.normpath(name)
        source, target = Path(checkout, path), Path(at.root, path)
        if os.path.isabs(path) or path.split(os.sep)[0] in ("..", ".", ".git", PRIVATE):
            warnings.append(f"`{name}` was not copied: [worktree] copy takes paths inside the repository.")
        elif not os.path.lexists(source):
            warnings.append(f"`{name}` was not copied: it is not in {checkout}.")
        elif not _is_ignored(at, path, source):
            warnings.append(f"`{name}` was not copied: git does not ignore it, so it would be committed.")
        elif source.is_dir() and not source.is_symlink():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return tuple(warnings)


def _is_ignored(at: Workplace, path: str, source: Path) -> bool:
    # A rule that ends with a slash holds for directories only, and there is none in the worktree yet.
    asked = f"{path}/" if source.is_dir() and not source.is_symlink() else path
    return at.git.ask("check-ignore", "--quiet", "--", asked).code == 0


# --- removing -----------------------------------------------------------------------------------------


def _read_intent(own: Path) -> _Intent | None:
    try:
        return msgspec.json.decode((own / "intent.json").read_bytes(), type=_Intent)
    except FileNotFoundError:
        return None


def _remove_half_made(place: Place, repository: Git) -> None:
    """Remove what an interrupted opening left: a directory that is empty or holds a link of git's, and the
    registrations that point at it. Anything else at that path is somebody's, and refused."""
    root = Path(place.worktree)
    link = (os.path.realpath(root.parent) + f"/{root.name}/.git").encode()
    if os.path.lexists(root):
        if not (root / ".git").is_file():
            _refuse_foreign(place.worktree)
        _remove(root)
    for admin in Path(repository.git_dir, "worktrees").glob("*"):
        back = admin / "gitdir"
        begun = admin.name.startswith(root.name) and (admin / "locked").is_file()
        if (back.read_bytes().strip() == link) if back.is_file() else begun:
            _remove(admin)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        make_accessible(path)
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise OperatorError(
                f"{path} could not be removed: {error.strerror} ({error.filename}).",
                "Branch and pins are as they were.",
                "Remove it by hand, then run `git worktree prune`.",
            ) from error
