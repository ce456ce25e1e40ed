"""A user at a terminal: a scratch home with a repository in it, and the real program as a process of its own."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import warm
from gitkit import commit_files, git, isolated, make_repository

# Ends the turn with a valid artifact; the text is XML.
ANSWER = """\
answer() {
  r=development-result
  printf "<$r><status>%s</status><summary>%s</summary><next-steps>%s</next-steps></$r>" \\
    "$1" "${2:-Done.}" "${3:-None.}" >"$STORYLOOP_ARTIFACT"
}
prompt=$(cat)
"""
WRITES_ITS_STORY = 'echo "$STORYLOOP_STORY" >"$STORYLOOP_STORY.txt"; answer completed\n'


class Done(NamedTuple):
    """How a program ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> Any:
        """Its answer as JSON."""
        return json.loads(self.out)


class User:
    """Everything of hers is below `place`: home, repository, state and temporary files."""

    def __init__(self, place: Path) -> None:
        self.place, self.home, self.repo, self.state = place, place / "home", place / "repo", place / "state"
        self.tmp = place / "tmp"
        self.tmp.mkdir(parents=True)
        self._started: list[warm.Started] = []
        self.env = isolated(self.home) | {
            "STORYLOOP_HOME": str(self.state),
            "GIT_CONFIG_GLOBAL": str(self.home / ".gitconfig"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "xdg-state"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "TMPDIR": str(self.tmp),
        }

    def makes_a_repository(self, files: Mapping[str, str] | None = None) -> None:
        """One commit, `main`, with these files."""
        make_repository(self.repo, files or {"README": "A project.\n"}, env=self.env)

    def has_an_agent(self, script: str = WRITES_ITS_STORY, *, name: str = "sh", settings: str = "") -> None:
        """An agent of shell, committed in storyloop.toml as the only one of the default chain.

        In no sandbox, which would not let it leave word in the user's home, nor know its own process id.
        """
        program = self.home / f"{name}.sh"
        program.write_text(f"{ANSWER}{script}")
        commit_files(
            self.repo,
            {
                "storyloop.toml": f'[agents.{name}]\nkind = "command"\ncommand = ["sh", "{program}"]\n'
                f'[chains]\ndefault = ["{name}"]\n[review]\nenabled = false\n[sandbox]\nmode = "off"\n{settings}'
            },
            env=self.env,
        )

    def has_a_spec(self, *stories: str, branch: str = "feature/x", title: str = "A spec") -> Path:
        """Each story is proven by a file of its name; they do not depend on each other."""
        path = self.place / "spec.md"
        parts = [f"# {title}", f"## Branch\n{branch}", "## User Stories"]
        parts += [
            f"### {story}: Make {story}\n**Acceptance Criteria:**\n- [ ] It is there\n  verify: `test -f {story}.txt`"
            for story in stories or ("US-001",)
        ]
        path.write_text("\n".join(parts) + "\n")
        return path

    def asks_killed_at(self, number: int, *words: str) -> Done:
        """The same, but it is killed with -9 at its nth deed: a process, a rename, a removal."""
        code, out, err = warm.ask(words, cwd=self.repo, env=self.env, killed_at=number)
        return Done(code, out.decode(), err.decode())

    def asks(self, *words: str | Path, cwd: Path | None = None, **env: str) -> Done:
        """`storyloop words...` to its end."""
        code, out, err = warm.ask([str(word) for word in words], cwd=cwd or self.repo, env=self.env | env)
        return Done(code, out.decode(), err.decode())

    def starts(self, *words: str | Path, **env: str) -> warm.Started:
        """`storyloop words...` in the background."""
        process = warm.Started([str(word) for word in words], cwd=self.repo, env=self.env | env)
        self._started.append(process)
        return process

    def leaves(self) -> None:
        """Ends what a test that failed half-way has left in the background."""
        for process in self._started:
            process.close()

    def git(self, *words: str) -> str:
        """Her own git, in her checkout."""
        return git(self.repo, *words, env=self.env)

    def belongings(self) -> dict[str, bytes | str]:
        """Every file, directory and link of hers with its content, git's own included."""
        found: dict[str, bytes | str] = {}
        for directory, names, files in os.walk(self.place):
            for name in [*names, *files]:
                path = Path(directory, name)
                kept = os.readlink(path) if path.is_symlink() else "directory" if path.is_dir() else _content(path)
                found[str(path.relative_to(self.place))] = kept
        return found


def command(*words: str | Path) -> list[str]:
    """The program as a user starts it."""
    return [sys.executable, "-m", "storyloop", *map(str, words)]


def ended(process: warm.Started) -> Done:
    """How a program that was started ended."""
    out, err = process.communicate(timeout=60)
    return Done(process.returncode, out, err)


def until(true: Callable[[], object], *, seconds: float = 30) -> None:
    """Wait for it; a test that waits in vain fails."""
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)


def _content(path: Path) -> bytes | str:
    return f"{path.stat().st_size} bytes" if path.stat().st_size > 1_000_000 else path.read_bytes()
