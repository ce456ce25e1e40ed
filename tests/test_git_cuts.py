"""Cut anywhere: a journey is killed at every other of its deeds in turn, resumed, and comes to what the uncut one does.

The journey runs in a child of a small program (the end of this file), because being killed is really being killed: the
child sends itself SIGKILL when it is about to do its nth deed (start a process, write, rename or remove a file, make
a directory). Like the engine, it notes each step that has ended, and a resumed journey repeats the step it was cut in.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gitkit import git, isolated, make_repository, write_file
from storyloop.ports.repository import Author, Place
from storyloop.world.repository import GitRepository

AUTHOR = Author(message="A story\n", at=datetime(2025, 6, 1, tzinfo=UTC))
DEEDS = {"subprocess.Popen", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.utime", "os.chmod", "shutil.move"}


class Journey:
    """Open, an agent's call that also commits, pin, check, commit, a blocked story, reset."""

    def __init__(self, home: Path, env: dict[str, str]) -> None:
        self.env = env
        self.checkout = home / "repo"
        self.notes = home / "notes"
        self.notes.touch()
        self.base = git(self.checkout, "rev-parse", "main", env=env)
        self.place = Place(run_id="r1", worktree=str(home / "wt"), branch="feature/x", run_dir=str(home / "run"))
        self.root = Path(self.place.worktree)
        self.going = ""  # the step
        self.is_ours = True  # what is done now; an agent is not cut
        self.repository = GitRepository(identity=str(self.checkout / ".git"), checkout=str(self.checkout), environ=env)

    def run(self) -> None:
        """Every step that is not noted yet; a step's answer is noted with it."""
        repository, place = self.repository, self.place
        self.step("open", self.open)
        self.step("guard", lambda: repository.guard(place))
        self.step("agent", self.agent)
        tree = self.step("settle", lambda: self.settle("call", self.base))
        self.step("pin", lambda: repository.pin(place, tree=tree, label="call", author=AUTHOR).commit)
        self.step("check", lambda: write_file(self.root / "kept.txt", "formatted\n"))
        self.step("undo", lambda: repository.undo_changes(place, tree=tree) and "undone")
        self.step(
            "graft", lambda: repository.graft(place, base=self.base, tree=tree, wanted=lambda path: "app" in path)
        )
        commit = self.step("commit", lambda: repository.commit(place, tree=tree, parent=self.base, author=AUTHOR))
        self.step("guard again", lambda: repository.guard(place))
        self.step("blocked", lambda: write_file(self.root / "bad/bad.txt", "bad\n"))
        bad = self.step("settle again", lambda: self.settle("blocked", commit))
        self.step("pin again", lambda: repository.pin(place, tree=bad, label="blocked", author=AUTHOR).commit)
        self.step("reset", lambda: repository.reset(place, commit=commit))
        self.step("clean", lambda: repository.snapshot(place))
        self.step("set up", lambda: write_file(self.root / "tool.txt", "tool\n"))
        self.step("ignore", lambda: self.ignore(tree))
        self.step("scrub", lambda: repository.scrub(place, commit=commit, copy=(".env",)))
        self.step("scrubbed", lambda: repository.snapshot(place))

    def step(self, name: str, deed: Callable[[], object]) -> str:
        noted = dict(line.split("=", 1) for line in self.notes.read_text().splitlines())
        if name not in noted:
            self.going = name
            noted[name] = str(deed())
            new = self.notes.with_name("notes.new")
            new.write_text("".join(f"{key}={value}\n" for key, value in noted.items()))
            new.rename(self.notes)
        return noted[name]

    def open(self) -> tuple[str, ...]:
        return self.repository.open_worktree(self.place, base=self.base, reuse_branch=False, copy=(".env",))

    def ignore(self, tree: str) -> None:  # that it was cut shows in what it says: nothing is left to be ignored then
        self.repository.ignore_creations(self.place, tree=tree)

    def agent(self) -> None:
        """Works, commits on its own, makes a repository inside, and changes the config."""
        if "false-friend" in (self.checkout / ".git/config").read_text():
            return  # it had ended, only the note was cut
        self.is_ours = False
        write_file(self.root / "new.txt", "new\n")
        git(self.root, "add", "new.txt", env=self.env)
        dates = {"GIT_AUTHOR_DATE": "@1700000000 +0000", "GIT_COMMITTER_DATE": "@1700000000 +0000"}
        git(self.root, "commit", "--quiet", "--message", "mine", env={**self.env, **dates})
        write_file(self.root / "app/app.txt", "app\n")
        git(self.root / "app", "init", "--quiet", env=self.env)
        git(self.root, "config", "core.fsmonitor", "false-friend", env=self.env)
        self.is_ours = True

    def settle(self, label: str, tip: str) -> str:
        settled = self.repository.settle(self.place, expected_tip=tip, label=label)
        found = {finding.what for finding in settled.findings}
        expected = {"agent-commit", "nested-repository", "config-changed"} if label == "call" else set[str]()
        assert found == expected, (label, found)
        return settled.tree

    def outcome(self) -> dict[str, str]:
        """All that the journey leaves to people."""
        git(self.checkout, "fsck", "--strict", env=self.env)
        return {
            "refs": git(self.checkout, "for-each-ref", "--format=%(refname) %(objectname)", env=self.env),
            "status": git(self.root, "status", "--porcelain", "--branch", "--ignored", env=self.env),
            "notes": self.notes.read_text().replace("undo=undone", "undo=()"),  # told once, to whoever lives
            "config": (self.checkout / ".git/config").read_text(),
            "secret": (self.root / ".env").read_text(),
            "worktrees": str(len(git(self.checkout, "worktree", "list", env=self.env).splitlines())),
            "registered": str(os.listdir(self.checkout / ".git/worktrees")),
        }


def template(home: Path, env: dict[str, str]) -> None:
    make_repository(home / "repo", {"kept.txt": "kept\n", "src/a.txt": "a\n", ".gitignore": ".env\n"}, env=env)
    write_file(home / "repo/.env", "SECRET=1\n")


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 3])
def test_a_journey_that_is_cut_at_any_deed_comes_to_the_same(tmp_path, first):
    """kill -9 at every other deed of each step in turn, then resume: the same refs, files, findings, registration."""
    program = f"import test_git_cuts; test_git_cuts.cut_everywhere({str(tmp_path)!r}, {first})"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert int(done.stdout) > 50


def test_a_git_that_goes_on_after_its_storyloop_was_killed_is_waited_for(tmp_path):
    """The checkout of a large repository may still be running when the user resumes."""
    env = isolated(tmp_path / "home")
    template(tmp_path, env)
    real = shutil.which("git")
    slow = f'#!/bin/sh\ncase "$*" in *"worktree add"*) kill -9 $PPID; sleep 0.5;; esac\nexec {real} "$@"\n'
    write_file(tmp_path / "bin/git", slow)
    (tmp_path / "bin/git").chmod(0o755)
    program = (
        "import sys; from pathlib import Path; from test_git_cuts import Journey\n"
        "Journey(Path(sys.argv[1]), {'PATH': sys.argv[2], 'HOME': sys.argv[3], 'GIT_CONFIG_NOSYSTEM': '1'}).open()"
    )
    path = f"{tmp_path / 'bin'}:{env['PATH']}"
    arguments = [sys.executable, "-c", program, str(tmp_path), path, env["HOME"]]
    assert subprocess.run(arguments, cwd=Path(__file__).parent, check=False).returncode == -signal.SIGKILL
    journey = Journey(tmp_path, env)
    journey.open()
    assert journey.repository.snapshot(journey.place) == journey.repository.tree_of(journey.base)
    assert len(git(journey.checkout, "worktree", "list", env=env).splitlines()) == 2


# --- the program that is killed -----------------------------------------------------------------------


def cut_everywhere(directory: str, first: int) -> None:
    """The journey uncut, then with each step cut at every fourth deed in turn; prints the number of cuts."""
    with tempfile.TemporaryDirectory(dir=directory) as made:
        root = Path(made)
        env = isolated(root / "home")
        template(root / "template", env)
        expected, _ = outcome_of(root, env, cut_at=0)
        total, deed, cuts = 0, first, 1
        while cuts:
            outcome, cuts = outcome_of(root, env, cut_at=deed)
            assert outcome == expected, (deed, {key for key in expected if outcome[key] != expected[key]}, outcome)
            total += cuts
            deed += 4
        print(total)


def outcome_of(root: Path, env: dict[str, str], *, cut_at: int) -> tuple[dict[str, str], int]:
    """What the journey comes to with each step cut before its nth deed, and how many steps had so many."""
    here = root / "here"
    shutil.copytree(root / "template", here)
    cuts: set[str] = set()
    while (step := step_cut(here, env, cut_at, spared=cuts)) is not None:
        cuts.add(step)
    outcome = Journey(here, env).outcome()
    shutil.rmtree(here)
    return outcome, len(cuts)


def step_cut(here: Path, env: dict[str, str], cut_at: int, *, spared: set[str]) -> str | None:
    """Go on with the journey in a child that kills itself; the step it was in, or None when it came to the end."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        journey = Journey(here, env)
        deeds = dict.fromkeys(spared, -1000)

        def kill(event: str, args: tuple[object, ...]) -> None:
            writes = event == "open" and isinstance(args[2], int) and args[2] & os.O_WRONLY
            if journey.is_ours and (event in DEEDS or writes):
                deeds[journey.going] = deeds.get(journey.going, 0) + 1
                if deeds[journey.going] == cut_at:
                    os.write(tell, journey.going.encode())
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        status = 1
        try:
            journey.run()
            status = 0
        except Exception:  # noqa: BLE001 - printed, and the parent fails
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(tell)
    with open(told, "rb") as pipe:
        step = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"deed {cut_at}, with {spared} cut before"
    return step or None
