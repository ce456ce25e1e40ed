"""Real repositories for tests: made in a temporary directory, by a git that knows nobody's config but the test's."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_CONFIG = """\
[user]
\tname = Ada Example
\temail = ada@example.com
[init]
\tdefaultBranch = main
"""


def isolated(home: Path) -> dict[str, str]:
    """An environment for git in which `home` is the whole world; the user of it is Ada Example."""
    home.mkdir(parents=True, exist_ok=True)
    (home / ".gitconfig").write_text(_CONFIG)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}


def git(cwd: Path, *args: str | bytes, env: Mapping[str, str], stdin: bytes | None = None) -> str:
    """What a user's own git prints, without the last newline; a failure fails the test with git's words."""
    done = subprocess.run(["git", *args], cwd=cwd, env=env, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, f"git {args}: {os.fsdecode(done.stderr)}"
    return os.fsdecode(done.stdout).removesuffix("\n")


def make_repository(path: Path, files: Mapping[str, str | bytes], *, env: Mapping[str, str]) -> str:
    """A repository with one commit of these files; the commit comes back."""
    path.mkdir(parents=True, exist_ok=True)
    git(path, "init", "--quiet", env=env)
    return commit_files(path, files, env=env)


def commit_files(
    path: Path, files: Mapping[str, str | bytes], *, env: Mapping[str, str], message: str = "files"
) -> str:
    """Write the files and commit everything; the commit comes back."""
    for name, content in files.items():
        write_file(path / name, content)
    git(path, "add", "--all", env=env)
    git(path, "commit", "--quiet", "--allow-empty", "--message", message, env=env)
    return git(path, "rev-parse", "HEAD", env=env)


def write_file(path: Path, content: str | bytes) -> None:
    """Write it, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def files_of(path: Path, tree: str, *, env: Mapping[str, str]) -> dict[str, bytes]:
    """The files of a tree or commit; a link is its target, a submodule its commit; modes are not told."""
    entries = [
        entry.split("\t", 1)
        for entry in git(path, "ls-tree", "-r", "-z", "--full-tree", tree, env=env).split("\0")[:-1]
    ]
    blobs = _blobs(path, [about.split(" ")[2] for about, _ in entries if " blob " in about], env=env)
    return {name: blobs.get(about.split(" ")[2], about.split(" ")[2].encode()) for about, name in entries}


def _blobs(path: Path, names: list[str], *, env: Mapping[str, str]) -> dict[str, bytes]:
    """The content of each, by one process."""
    command = ["git", "cat-file", "--batch", "--buffer"]
    asked = "".join(f"{name}\n" for name in names).encode()
    left = (
        subprocess.run(command, cwd=path, env=env, input=asked, capture_output=True, check=True).stdout
        if names
        else b""
    )
    found: dict[str, bytes] = {}
    while left:
        head, _, left = left.partition(b"\n")
        name, _, size = head.decode().split(" ")
        found[name], left = left[: int(size)], left[int(size) + 1 :]
    return found
