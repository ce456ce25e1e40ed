"""Files that an agent may have touched: read and placed without following it anywhere.

An agent owns its worktree, so what stands at a path of ours may be a symlink to somewhere else, a FIFO that
blocks whoever opens it, a directory, or a file without end. Everything here goes through the descriptor of
the directory and asks what a file is after opening it, never before: nothing can be swapped in between.
"""

import errno
import os
import shutil
import stat
from pathlib import Path

import msgspec

PRIVATE = ".storyloop"  # in every worktree, part of no tree
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Unreadable(msgspec.Struct, frozen=True):
    """Something stands at the path, but it is not a file to be read; `why` is a sentence."""

    why: str


def read_regular(path: str | Path, cap: int) -> bytes | Unreadable | None:
    """The bytes of an ordinary file of at most `cap` bytes; None if nothing is there.

    Neither the file nor its directory may be a symlink.
    """
    directory, name = os.path.split(path)
    try:
        place = os.open(directory or ".", _DIRECTORY)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unreadable(_refusal(directory, error))
    try:
        return _read_at(place, name, cap)
    finally:
        os.close(place)


def _read_at(place: int, name: str, cap: int) -> bytes | Unreadable | None:
    try:
        file = os.open(name, _READ, dir_fd=place)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unreadable(_refusal(name, error))
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return Unreadable(f"{name} is not an ordinary file.")
        text = bytearray()
        # One byte more than allowed: the file may grow while it is read.
        while len(text) <= cap and (chunk := os.read(file, cap + 1 - len(text))):
            text += chunk
    finally:
        os.close(file)
    return Unreadable(f"{name} is larger than {cap:,} bytes.") if len(text) > cap else bytes(text)


def _refusal(name: str, error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return f"{name} is a symlink, or its directory is not an ordinary directory."
    if error.errno == errno.ENXIO:
        return f"{name} is not an ordinary file."
    return f"{name} cannot be read: {error.strerror}."


def place_private(worktree: str | Path, name: str, data: bytes) -> Path:
    """Put a file of ours into `<worktree>/.storyloop/`, whatever stands there; its path comes back.

    The directory is made anew where it is missing or not a directory, and it ignores itself.
    """
    place = _open_private(worktree)
    try:
        _replace(place, ".gitignore", b"*\n")
        _replace(place, name, data)
    finally:
        os.close(place)
    return Path(worktree, PRIVATE, name)


def clear_private(worktree: str | Path, name: str) -> Path:
    """Make sure that nothing stands at `name` in `<worktree>/.storyloop/`; its path comes back."""
    place = _open_private(worktree)
    try:
        _replace(place, ".gitignore", b"*\n")
        _clear(place, name)
    finally:
        os.close(place)
    return Path(worktree, PRIVATE, name)


def _open_private(worktree: str | Path) -> int:
    above = os.open(worktree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            kind = os.stat(PRIVATE, dir_fd=above, follow_symlinks=False).st_mode
        except FileNotFoundError:
            os.mkdir(PRIVATE, 0o700, dir_fd=above)
        else:
            if not stat.S_ISDIR(kind):
                os.unlink(PRIVATE, dir_fd=above)
                os.mkdir(PRIVATE, 0o700, dir_fd=above)
            elif kind & 0o700 != 0o700:
                os.chmod(PRIVATE, 0o700, dir_fd=above)
        return os.open(PRIVATE, _DIRECTORY, dir_fd=above)
    finally:
        os.close(above)


def _replace(place: int, name: str, data: bytes) -> None:
    """The file is there whole or not at all, and no symlink that stood at `name` was followed."""
    new = f"{name}.new"
    _clear(place, new)
    file = os.open(new, _CREATE, 0o600, dir_fd=place)
    with open(file, "wb") as opened:
        opened.write(data)
    try:
        os.rename(new, name, src_dir_fd=place, dst_dir_fd=place)
    except IsADirectoryError:
        _clear(place, name)
        os.rename(new, name, src_dir_fd=place, dst_dir_fd=place)


def _clear(place: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=place)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # what unlinking a directory says, on Linux and on macOS
        shutil.rmtree(name, dir_fd=place)
