"""Entering the user's own checkout: a run works there, on the branch that is checked out, and takes nothing away.

Nothing is made and nothing registered. So that whatever lies there later is the run's, there must be nothing but what
is committed, and nothing that git would not see. Files that git ignores are the user's: what it ignores when the run
enters stays ignored until it ends, whatever becomes of `.gitignore`, so that no tree takes them along and no way back
removes them. And a checkout is only ever touched while it is at the run's branch: elsewhere, its user is at something.
"""

import os
import shutil
from pathlib import Path

import msgspec

from storyloop.core.errors import UserError
from storyloop.world import guard, index
from storyloop.world.files import PRIVATE, place_private
from storyloop.world.git import Git, shown
from storyloop.world.survey import RepositoryFacts, Trait
from storyloop.world.workplace import Opened, own_directory, store
from storyloop.world.worktree import Order, identity_of, read_opened, workplace

_IGNORES_ITSELF = b"*\n"


def own_branch(facts: RepositoryFacts, git: Git) -> str:
    """The branch that a run would work on in this checkout. Raises UserError, with the cure, where none may."""
    root, elsewhere = facts.checkout, "or leave --no-worktree out"
    if facts.branch is None:
        raise UserError(f"No branch is checked out at {root}.", f"Make one (`git switch -c NAME`), {elsewhere}.")
    if facts.branch == facts.default_branch:
        problem = f"{root} is at {facts.branch}, the default branch, on which no run works."
        raise UserError(problem, f"Make another one (`git switch -c NAME`), {elsewhere}.")
    if Trait.SUBMODULES in facts.traits:
        problem = f"{root} has submodules, and no ref of this repository would keep what lies in them."
        raise UserError(problem, "Leave --no-worktree out.")
    _ignored_in(git, root)
    return facts.branch


def enter(order: Order, repository: Git) -> Opened:
    """The checkout becomes the run's place, and a ref keeps the commit that it stands at. Done again, it completes."""
    place, own = order.place, own_directory(order.place)
    require_at(place.worktree, place.branch, repository)
    git, start = Git(environ=repository.environ, cwd=place.worktree), f"refs/storyloop/{place.run_id}/start"
    opened, has_begun = read_opened(own), repository.has(start)
    if opened is None and has_begun:  # then it was seen to be ours, and may be half-made
        shutil.rmtree(Path(place.worktree, PRIVATE), ignore_errors=True)
    ignored = _ignored_in(git, place.worktree)
    if opened is not None:
        return opened
    author, email = identity_of(repository)
    root, admin = Path(place.worktree), _admin(git)
    back_link, git_file = admin / "gitdir", root / ".git"
    opened = Opened(
        admin=str(admin),
        git_file=git_file.read_bytes() if git_file.is_file() else b"",
        back_link=back_link.read_bytes() if back_link.is_file() else b"",
        author=author,
        email=email,
        is_checkout=True,
    )
    (own / "excludes").unlink(missing_ok=True)
    at = workplace(place, opened, repository)
    if not has_begun:
        repository.run("update-ref", start, git.line("rev-parse", "HEAD"))
    index.ignore(at, ignored)
    at = workplace(place, opened, repository)  # with these excludes
    index.begin(at, git.line("rev-parse", "HEAD^{tree}"))
    place_private(place.worktree, ".gitignore", _IGNORES_ITSELF)
    guard.begin(at)
    store(own / "opened.json", msgspec.json.encode(opened))
    return opened


def require_at(checkout: str, branch: str, repository: Git) -> None:
    """Raise UserError, with the cure, unless the checkout is at this branch, and in the middle of nothing."""
    if not os.path.isdir(checkout):
        raise UserError(f"The checkout {checkout}, in which the run works, is gone.", "Put it back, then try again.")
    git = Git(environ=repository.environ, cwd=checkout)
    at = os.fsdecode(git.ask("symbolic-ref", "--quiet", "--short", "HEAD").out).strip()
    if at != branch:
        problem = f"{checkout} is at {at or 'no branch'}, and the run there is on {branch}."
        raise UserError(problem, f"Keep what you have there (commit, or `git stash -u`), then `git switch {branch}`.")
    _require_nothing_unfinished(git, checkout)


def _require_nothing_unfinished(git: Git, root: str) -> None:
    if left := guard.unfinished(_admin(git)):
        problem = f"A merge, rebase or the like is not finished in {root} ({left[0]})."
        raise UserError(problem, "Finish it, or give it up: `git status` says how.")


def _ignored_in(git: Git, root: str) -> list[bytes]:
    """What git ignores there, which is all that lies there besides the commit; raises UserError where it is not."""
    _require_nothing_unfinished(git, root)
    how = ("--untracked-files=all", "--ignored=matching", "--no-renames", "--ignore-submodules=none")
    rows = git.run("status", "--porcelain", "-z", *how).split(b"\0")
    if changed := [row[3:] for row in rows if row and not row.startswith(b"!!")]:
        problem = f"{root} holds changes that are not committed, such as {shown(changed[0])}."
        raise UserError(problem, "Commit them, put them by (`git stash -u`), or leave --no-worktree out.")
    listed = git.run("ls-files", "-v", "-z").split(b"\0")
    if hidden := [row[2:] for row in listed if row and not row.startswith(b"H")]:
        problem = f"git is told not to look at files in {root}, such as {shown(hidden[0])}: yours could not be told."
        cure = "See `git update-index --no-skip-worktree --no-assume-unchanged`, or leave --no-worktree out."
        raise UserError(problem, cure)
    private = Path(root, PRIVATE)
    ours = private / ".gitignore"
    if os.path.lexists(private) and not (ours.is_file() and ours.read_bytes() == _IGNORES_ITSELF):
        raise UserError(f"{private} is there already, and Storyloop needs it for itself.", "Move it away.")
    return [row[3:] for row in rows if row.startswith(b"!!") and row[3:].rstrip(b"/") != PRIVATE.encode()]


def _admin(git: Git) -> Path:
    return Path(os.path.realpath(git.line("rev-parse", "--absolute-git-dir")))
