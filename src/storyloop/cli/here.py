"""Here: which repository the user stands in, found without starting a process, because `status` asks each time."""

from pathlib import Path

from storyloop.core.errors import UserError


def here() -> Path:
    """The user's directory. Raises UserError when somebody deleted it under their feet."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UserError("The directory you are in is gone.", "Go to one that exists, and try again.") from None


def identity_of(directory: Path) -> str | None:
    """Absolute real path of the common git directory around `directory`; None outside of any repository."""
    for place in (directory.absolute(), *directory.absolute().parents):
        git = place / ".git"
        if git.is_dir():
            return str(git.resolve())
        if git.is_file():
            return _of_linked(git)
        if (place / "HEAD").is_file() and (place / "objects").is_dir():
            return str(place.resolve())
    return None


def _of_linked(git_file: Path) -> str | None:
    """A worktree or a submodule: a file that names its directory, which may name the common one."""
    first = git_file.read_text(errors="surrogateescape").strip()
    if not first.startswith("gitdir: "):
        return None
    admin = (git_file.parent / first.removeprefix("gitdir: ")).resolve()
    common = admin / "commondir"
    if not common.is_file():
        return str(admin)
    return str((admin / common.read_text(errors="surrogateescape").strip()).resolve())
