"""What only real git can show: the misdeeds of agents, kinds of repositories and of files, and the user's side."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from gitkit import commit_files, files_of, git, isolated, make_repository, write_file
from storyloop.core.errors import OperatorError, UserError
from storyloop.core.facts import Change, ChangeKind
from storyloop.core.forge import ForgeTrouble, Trouble
from storyloop.ports.repository import Author, Place, PushOrder, Snapshot
from storyloop.world import remotes
from storyloop.world.git import Git, GitFailed
from storyloop.world.repository import GitRepository
from storyloop.world.survey import discover
from storyloop.world.workplace import held, own_directory

BASE = {"kept.txt": "kept\n", "src/old.py": "1\n2\n", ".gitignore": "*.log\n"}
AUTHOR = Author(message="A story\n\nStoryloop-Run: r1\n", at=datetime(2025, 6, 1, 12, 0, tzinfo=UTC))


class Bench:
    """A user's repository, and a run's worktree of it once it is opened."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp = tmp_path
        self.env = isolated(tmp_path / "home")
        self.checkout = tmp_path / "repo"
        self.base = make_repository(self.checkout, BASE, env=self.env)
        shutil.rmtree(self.checkout / ".git/hooks")
        write_file(self.checkout / ".git/hooks/pre-push", "#!/bin/sh\nexit 0\n")
        self.place = Place(
            run_id="r1", worktree=str(tmp_path / "wt"), branch="feature/x", run_dir=str(tmp_path / "run")
        )
        self.root = Path(self.place.worktree)

    def open(self, *, environ: dict[str, str] | None = None, checkout: Path | None = None) -> tuple[str, ...]:
        environ = self.env if environ is None else environ
        facts = discover(checkout or self.checkout, environ)
        self.base = facts.head
        self.repository = GitRepository(identity=facts.identity, checkout=facts.checkout, environ=environ)
        return self.repository.open_worktree(self.place, base=facts.head, reuse_branch=False, copy=())

    @property
    def common(self) -> Path:
        return Path(self.repository.identity)

    @property
    def admin(self) -> Path:
        return self.common / "worktrees" / "wt"

    def git(self, *args: str | bytes) -> str:
        """The user's git, in his checkout."""
        return git(self.checkout, *args, env=self.env)

    def agent(self, *args: str) -> str:
        """The agent's git, in the worktree."""
        return git(self.root, *args, env=self.env)

    def write(self, name: str, content: str | bytes = "new\n") -> None:
        write_file(self.root / name, content)

    def settle(self, label: str = "call") -> Snapshot:
        return self.repository.settle(self.place, expected_tip=self.base, label=label)

    def tree(self, tree: str) -> dict[str, bytes]:
        return files_of(self.common, tree, env=self.env)

    def new_files(self, tree: str) -> set[str]:
        return self.tree(tree).keys() - self.tree(self.base).keys()


@pytest.fixture
def fresh(tmp_path: Path) -> Bench:
    """A repository whose worktree is still to be opened."""
    return Bench(tmp_path)


@pytest.fixture
def bench(fresh: Bench) -> Bench:
    """A worktree, guarded, with a file of the agent's in it."""
    fresh.open()
    fresh.repository.guard(fresh.place)
    fresh.write("new.txt")
    return fresh


def story(bench: Bench) -> str:
    """A whole story, from an agent's call to the commit."""
    repository, place = bench.repository, bench.place
    repository.guard(place)
    bench.write("new.txt")
    settled = repository.settle(place, expected_tip=bench.base, label="call")
    repository.pin(place, tree=settled.tree, label="call", author=AUTHOR)
    assert repository.undo_changes(place, tree=settled.tree) == ()
    assert repository.undo_changes(place, tree=settled.tree, creations=True) == ()
    commit = repository.commit(place, tree=settled.tree, parent=bench.base, author=AUTHOR)
    assert bench.new_files(commit) == {"new.txt"}
    assert repository.snapshot(place) == repository.tree_of(commit)
    repository.reset(place, commit=bench.base)
    assert repository.snapshot(place) == repository.tree_of(bench.base)
    return commit


# --- the user's side ----------------------------------------------------------------------------------


def whole(directory: Path, *, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Every file below a directory, with its mode; `without` names paths that are not looked at."""
    files = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_file() and not name.startswith(without):
            files[name] = b"%o " % path.stat().st_mode + path.read_bytes()
    return files


def test_nothing_of_the_users_is_touched(fresh):
    """Checkout, index, stash, HEAD and its log, config and hooks are byte for byte what they were."""
    write_file(fresh.checkout / "kept.txt", "stashed\n")
    fresh.git("stash")
    write_file(fresh.checkout / "kept.txt", "staged\n")
    fresh.git("add", "kept.txt")
    write_file(fresh.checkout / "kept.txt", "dirty\n")
    write_file(fresh.checkout / "untracked.txt", "mine\n")
    write_file(fresh.checkout / ".git/hooks/pre-commit", "#!/bin/sh\nexit 1\n")
    for name in ("branch.autoSetupMerge", "core.logAllRefUpdates", "commit.gpgSign"):
        fresh.git("config", name, "always" if name.startswith(("branch", "core")) else "true")
    ours = (".git/objects/", ".git/worktrees/", ".git/refs/storyloop/", ".git/logs/refs/storyloop/",
            ".git/refs/heads/feature/", ".git/logs/refs/heads/feature/")  # fmt: skip
    before = whole(fresh.checkout, without=ours)
    fresh.open()
    story(fresh)
    fresh.repository.close_worktree(fresh.place)
    assert whole(fresh.checkout, without=ours) == before
    assert not list((fresh.checkout / ".git/worktrees").glob("*"))
    fresh.git("fsck", "--strict")


def test_hooks_of_the_user_do_not_run(fresh):
    """Neither at the checkout, nor at the commit, nor when refs move."""
    for hook in (
        "post-checkout",
        "pre-commit",
        "commit-msg",
        "post-commit",
        "reference-transaction",
        "post-index-change",
    ):
        path = fresh.checkout / ".git/hooks" / hook
        write_file(path, f"#!/bin/sh\ntouch {fresh.tmp}/ran-{hook}\nexit 1\n")
        path.chmod(0o755)
    fresh.git("config", "core.fsmonitor", str(fresh.checkout / ".git/hooks/post-commit"))
    fresh.open()
    story(fresh)
    assert list(fresh.tmp.glob("ran-*")) == []


def test_commits_are_by_the_user_and_at_the_given_time(fresh):
    """The user's identity is author and committer, whatever else the environment says."""
    fresh.open()
    commit = story(fresh)
    assert fresh.git("show", "--no-patch", "--format=%an <%ae> %aI %cn <%ce> %cI %G? %e", commit) == (
        "Ada Example <ada@example.com> 2025-06-01T12:00:00+00:00 "
        "Ada Example <ada@example.com> 2025-06-01T12:00:00+00:00 N "
    )


def test_an_identity_from_the_environment_is_the_users_too(fresh):
    """Containers often say it by GIT_AUTHOR_NAME and GIT_AUTHOR_EMAIL."""
    fresh.open(environ={**fresh.env, "GIT_AUTHOR_NAME": "Grace Example", "GIT_AUTHOR_EMAIL": "grace@example.com"})
    assert fresh.git("show", "--no-patch", "--format=%an %ae %cn", story(fresh)) == (
        "Grace Example grace@example.com Grace Example"
    )


def test_a_remote_that_never_answers_is_as_one_that_cannot_be_reached(bench, monkeypatch):
    """The run ends as it would have ended: neither does it wait for ever, nor is it interrupted."""
    monkeypatch.setattr(remotes, "_LONGEST_LOOK", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/one/repo.git"
        git(bench.checkout, "remote", "add", "origin", url, env=bench.env)
        order = PushOrder(remote="origin", commit=bench.base, own="", base="main")
        with pytest.raises(ForgeTrouble, match="did not end within") as trouble:
            bench.repository.push(bench.place, order, threading.Event())
    assert trouble.value.trouble is Trouble.OFFLINE


def test_a_repository_that_was_moved_away_is_told_with_the_way_on(tmp_path):
    """The runs in it are found again when it is back, or when a link is."""
    with pytest.raises(UserError, match=f"{tmp_path}/gone is not there any more. Move it back, or make a link"):
        Git(environ=isolated(tmp_path / "home"), git_dir=str(tmp_path / "gone")).run("status")


def test_no_window_is_opened_to_ask_for_a_password(tmp_path):
    """Neither by what the user's config names nor by what the environment does."""
    env, asks = isolated(tmp_path / "home"), tmp_path / "asks"
    asks.write_text(f"#!/bin/sh\necho x | tee -a {tmp_path}/asked\n")
    asks.chmod(0o700)
    git(tmp_path, "config", "--global", "core.askPass", str(asks), env=env)
    env |= {"GIT_ASKPASS": str(asks), "SSH_ASKPASS": str(asks)}
    answer = Git(environ=env, cwd=str(tmp_path)).ask("credential", "fill", stdin=b"protocol=https\nhost=localhost\n\n")
    assert (answer.code != 0, (tmp_path / "asked").exists()) == (True, False)


def test_nobody_is_asked_who_he_is(fresh):
    """No identity is the user's to cure, before anything is made."""
    (fresh.tmp / "home/.gitconfig").unlink()
    with pytest.raises(UserError, match=r"git does not know who you are.*user\.email"):
        fresh.open()
    assert not fresh.root.exists()
    assert fresh.git("branch", "--list", "feature/x") == ""


def test_gits_variables_of_the_user_do_not_leak_in(fresh):
    """Storyloop may be started from a hook, where git points every git at one repository and index."""
    make_repository(fresh.tmp / "other", {"other.txt": "other\n"}, env=fresh.env)
    leaked = {
        "GIT_DIR": str(fresh.tmp / "other/.git"), "GIT_WORK_TREE": str(fresh.tmp / "other"),
        "GIT_INDEX_FILE": str(fresh.tmp / "other/.git/index"), "GIT_OBJECT_DIRECTORY": "/nowhere",
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "Mallory",
        "GIT_AUTHOR_DATE": "@0 +0000", "GIT_PREFIX": "src/", "GIT_TRACE": str(fresh.tmp / "trace"),
    }  # fmt: skip
    fresh.open(environ={**fresh.env, **leaked})
    assert fresh.git("show", "--no-patch", "--format=%an %at", story(fresh)) == "Ada Example 1748779200"
    assert not (fresh.tmp / "trace").exists()


def test_settings_of_the_user_do_not_change_what_is_committed(fresh):
    """Global settings that change what git prints, signs, encodes or refuses."""
    for name, value in {
        "commit.gpgSign": "true", "gpg.program": "/bin/false", "i18n.commitEncoding": "latin1", "core.safecrlf": "true",
        "core.autocrlf": "input", "status.showUntrackedFiles": "no", "core.quotePath": "true", "color.ui": "always",
        "diff.external": "/bin/false", "core.fsmonitor": "/bin/false", "core.editor": "/bin/false",
        "core.pager": "/bin/false", "core.splitIndex": "true", "core.untrackedCache": "true", "diff.noprefix": "true",
        "feature.manyFiles": "true", "submodule.recurse": "true", "clean.requireForce": "true",
    }.items():  # fmt: skip
        fresh.git("config", "--global", name, value)
    fresh.open()
    fresh.write("mixed.txt", "one\r\ntwo\n")
    tree = fresh.repository.snapshot(fresh.place)
    assert fresh.tree(tree)["mixed.txt"] == b"one\ntwo\n"
    message = Author(message="Größe\n", at=AUTHOR.at)
    commit = fresh.repository.commit(fresh.place, tree=tree, parent=fresh.base, author=message)
    raw = subprocess.run(
        ["git", "cat-file", "commit", commit], cwd=fresh.checkout, env=fresh.env, capture_output=True, check=True
    ).stdout
    assert raw.endswith("\n\nGröße\n".encode())
    assert b"encoding" not in raw
    assert b"gpgsig" not in raw
    assert not list(fresh.admin.glob("sharedindex.*"))  # which git may throw away under an index that needs it


def test_the_agents_own_status_makes_sense_after_a_commit(bench):
    """The worktree's index follows ours, so that the next agent sees a clean worktree."""
    tree = bench.settle().tree
    bench.repository.commit(bench.place, tree=tree, parent=bench.base, author=AUTHOR)
    assert bench.agent("status", "--porcelain") == ""
    bench.write("later.txt")
    bench.repository.reset(bench.place, commit=bench.base)
    assert bench.agent("status", "--porcelain") == ""


def test_a_copied_index_keeps_its_time(bench):
    """git looks again at files that are as young as the index; a copy that is younger would hide such changes."""
    ours, theirs = own_directory(bench.place) / "index", bench.admin / "index"
    bench.repository.commit(bench.place, tree=bench.settle().tree, parent=bench.base, author=AUTHOR)
    assert ours.stat().st_mtime_ns == theirs.stat().st_mtime_ns


@pytest.mark.parametrize("setting", [None, "own-ignore"])
def test_what_the_user_ignores_everywhere_stays_ignored(fresh, setting):
    """Also when set-up made files that are ignored in this worktree alone."""
    excludes = fresh.tmp / "home" / (setting or ".config/git/ignore")
    write_file(excludes, "*.swp")
    if setting:
        fresh.git("config", "--global", "core.excludesFile", str(excludes))
    fresh.open()
    fresh.write(".venv/lib.py")
    base = fresh.repository.tree_of(fresh.base)
    assert fresh.repository.ignore_creations(fresh.place, tree=base) == (".venv/",)
    fresh.write("a.swp")
    fresh.write("!odd #name ")
    assert fresh.repository.ignore_creations(fresh.place, tree=base) == ("!odd #name ",)
    assert fresh.repository.snapshot(fresh.place) == base


# --- what an agent does to git ------------------------------------------------------------------------


def trap(bench: Bench) -> str:
    """A command that betrays that it ran."""
    return f"touch {bench.tmp}/trapped"


def init_with_fsmonitor(bench: Bench) -> None:
    (bench.root / ".git").unlink()
    bench.agent("init", "--quiet")
    bench.agent("config", "core.fsmonitor", f"{trap(bench)};")


def init_and_commit(bench: Bench) -> None:
    (bench.root / ".git").unlink()
    bench.agent("init", "--quiet")
    bench.agent("add", "--all")
    bench.agent("commit", "--quiet", "--message", "all mine")


def point_elsewhere(bench: Bench) -> None:
    make_repository(bench.tmp / "elsewhere", {"x": "x"}, env=bench.env)
    bench.agent("-C", str(bench.tmp / "elsewhere"), "config", "core.fsmonitor", trap(bench))
    bench.write(".git", f"gitdir: {bench.tmp}/elsewhere/.git\n")


def link_git_file(bench: Bench) -> None:
    (bench.root / ".git").unlink()
    (bench.root / ".git").symlink_to(bench.checkout / ".git")


def delete_registration(bench: Bench) -> None:
    shutil.rmtree(bench.admin)


def prune_registration(bench: Bench) -> None:
    (bench.root / ".git").unlink()
    bench.git("worktree", "prune", "--expire=now")


def garble_registration(bench: Bench) -> None:
    for name in ("commondir", "gitdir", "index"):
        (bench.admin / name).write_bytes(b"\0garbage")


def detach_and_commit(bench: Bench) -> None:
    bench.agent("checkout", "--quiet", "--detach")
    bench.agent("commit", "--quiet", "--allow-empty", "--message", "nowhere")


def delete_head(bench: Bench) -> None:
    (bench.admin / "HEAD").unlink()


def garble_head(bench: Bench) -> None:
    (bench.admin / "HEAD").write_bytes(b"\xff\xfe")


def point_at_nothing(bench: Bench) -> None:
    (bench.common / "refs/heads/feature/x").write_text("1" * 40 + "\n")
    (bench.admin / "HEAD").write_text("2" * 40 + "\n")


def delete_branch(bench: Bench) -> None:
    bench.agent("checkout", "--quiet", "--detach")
    bench.agent("branch", "--quiet", "--delete", "--force", "feature/x")
    bench.agent("pack-refs", "--all")


def garble_branch(bench: Bench) -> None:
    (bench.common / "refs/heads/feature/x").write_bytes(b"garbage\n")


def alias_branch(bench: Bench) -> None:
    bench.agent("symbolic-ref", "refs/heads/feature/x", "refs/heads/main")


def move_branch_back(bench: Bench) -> None:
    bench.agent("commit", "--quiet", "--allow-empty", "--message", "one")
    bench.agent("pack-refs", "--all")


def set_filter(bench: Bench) -> None:
    bench.write(".gitattributes", "* filter=evil\n")
    for key in ("clean", "smudge", "process"):
        bench.agent("config", f"filter.evil.{key}", f"{trap(bench)};cat")


def include_config(bench: Bench) -> None:
    bench.write("evil.log", f'[filter "evil"]\n\tclean = {trap(bench)};cat\n')
    bench.agent("config", "include.path", str(bench.root / "evil.log"))
    bench.write(".gitattributes", "* filter=evil\n")


def set_commands(bench: Bench) -> None:
    for key in ("core.fsmonitor", "diff.external", "core.pager", "core.editor", "gpg.program", "core.sshCommand"):
        bench.agent("config", key, trap(bench))
    bench.agent("config", "core.hooksPath", str(bench.root))


def use_worktree_config(bench: Bench) -> None:
    bench.agent("config", "extensions.worktreeConfig", "true")
    bench.agent("config", "--worktree", "filter.evil.clean", f"{trap(bench)};cat")
    bench.write(".gitattributes", "* filter=evil\n")


def add_hooks(bench: Bench) -> None:
    for hook in ("post-index-change", "reference-transaction", "post-commit"):
        path = bench.common / "hooks" / hook
        write_file(path, f"#!/bin/sh\n{trap(bench)}\n")
        path.chmod(0o755)


def link_hooks(bench: Bench) -> None:
    (bench.common / "hooks").rename(bench.tmp / "hooks")
    (bench.common / "hooks").symlink_to(bench.root)


def exclude_everything(bench: Bench) -> None:
    write_file(bench.common / "info/exclude", "*\n")


def attribute_everything(bench: Bench) -> None:
    write_file(bench.common / "info/attributes", "* -text filter=evil\n")


def leave_a_merge(bench: Bench) -> None:
    bench.agent("switch", "--quiet", "--create", "side")
    bench.agent("commit", "--quiet", "--allow-empty", "--message", "side")
    bench.agent("switch", "--quiet", "feature/x")
    bench.agent("merge", "--no-commit", "--no-ff", "side")


def replace_worktree_by_link(bench: Bench) -> None:
    bench.root.rename(bench.tmp / "moved")
    bench.root.symlink_to(bench.checkout)


NEW = {"new.txt"}
MISDEEDS: list[tuple[Callable[[Bench], None], set[str], set[str]]] = [
    (init_with_fsmonitor, {"git-file"}, NEW),
    (init_and_commit, {"git-file"}, NEW),
    (point_elsewhere, {"git-file"}, NEW),
    (link_git_file, {"git-file"}, NEW),
    (delete_registration, {"worktree-registration"}, NEW),
    (prune_registration, {"worktree-registration", "git-file"}, NEW),
    (garble_registration, {"worktree-registration"}, NEW),
    (detach_and_commit, {"switched-branch"}, NEW),
    (delete_head, {"switched-branch"}, NEW),
    (garble_head, {"switched-branch"}, NEW),
    (delete_branch, {"switched-branch", "agent-commit"}, NEW),
    (garble_branch, {"agent-commit"}, NEW),
    (alias_branch, {"agent-commit"}, NEW),
    (move_branch_back, {"agent-commit"}, NEW),
    (set_filter, {"config-changed"}, {*NEW, ".gitattributes"}),
    (include_config, {"config-changed"}, {*NEW, ".gitattributes"}),
    (set_commands, {"config-changed"}, NEW),
    (use_worktree_config, {"config-changed"}, {*NEW, ".gitattributes"}),
    (add_hooks, {"hooks-changed"}, NEW),
    (link_hooks, {"hooks-changed"}, NEW),
    (exclude_everything, {"config-changed"}, NEW),
    (attribute_everything, {"config-changed"}, NEW),
    (leave_a_merge, {"unfinished-operation"}, NEW),
    (replace_worktree_by_link, {"worktree-gone", "git-file"}, set()),
    # Last: after a check, nobody says where the branch belongs, and git does not look without its commit.
    (point_at_nothing, {"agent-commit", "switched-branch"}, NEW),
]


@pytest.mark.parametrize(("misdeed", "found", "created"), MISDEEDS, ids=[row[0].__name__ for row in MISDEEDS])
def test_what_an_agent_does_to_git_is_undone_and_told(bench, misdeed, found, created):
    """Nothing of the agent's runs, its files are in the tree, git works again, and the user's side is as it was."""
    settings = whole(bench.common, without=("objects", "worktrees", "refs", "logs", "packed-refs", "index"))
    main = bench.git("rev-parse", "main")
    misdeed(bench)
    settled = bench.settle()
    assert {finding.what for finding in settled.findings} == found
    assert bench.new_files(settled.tree) == created
    bench.repository.pin(bench.place, tree=settled.tree, label="call", author=AUTHOR)
    commit = bench.repository.commit(bench.place, tree=settled.tree, parent=bench.base, author=AUTHOR)
    assert bench.agent("symbolic-ref", "HEAD") == "refs/heads/feature/x"
    assert (bench.agent("rev-parse", "HEAD"), bench.git("rev-parse", "main")) == (commit, main)
    assert bench.agent("status", "--porcelain") == ""
    bench.repository.reset(bench.place, commit=bench.base)
    assert bench.new_files(bench.repository.snapshot(bench.place)) == set()
    assert whole(bench.common, without=("objects", "worktrees", "refs", "logs", "packed-refs", "index")) == settings
    assert not (bench.tmp / "trapped").exists()
    assert bench.settle("next").findings == ()


@pytest.mark.parametrize("misdeed", [row[0] for row in MISDEEDS[:-1]], ids=[row[0].__name__ for row in MISDEEDS[:-1]])
def test_a_check_can_do_no_more_than_an_agent(bench, misdeed):
    """What checks run was written by agents: what they do to git is undone before git looks, and told later."""
    tree = bench.settle().tree
    misdeed(bench)
    bench.repository.undo_changes(bench.place, tree=tree, creations=True)
    assert bench.repository.snapshot(bench.place) == tree
    assert not (bench.tmp / "trapped").exists()
    assert bench.settle("later").findings != ()


def test_a_file_that_was_written_again_as_it_was_can_be_left_out_of_the_next_tree(bench):
    """The same content with another time is the same tree; our index, which knows the old time, lets go of it."""
    before = bench.settle().tree
    stray = bench.root / "stray.txt"
    stray.write_bytes(b"stray\n")
    with_stray = bench.settle("stray").tree
    os.utime(stray, (time.time() + 60,) * 2)
    assert bench.settle("again").tree == with_stray != before
    undone = bench.repository.undo_changes(bench.place, tree=before, creations=True)
    assert undone == (Change("stray.txt", ChangeKind.CREATED),)
    assert bench.repository.snapshot(bench.place) == before


def test_detached_commits_have_a_ref(bench):
    """Commits that no branch holds would be lost by putting HEAD back."""
    detach_and_commit(bench)
    lost = bench.agent("rev-parse", "HEAD")
    bench.settle()
    assert bench.git("rev-parse", f"refs/storyloop/r1/detached/{lost}") == lost


def test_an_overwritten_config_is_kept_for_the_user(bench):
    """Put back, but not thrown away: the finding says where the other version is."""
    bench.agent("config", "alias.mine", "status")
    [finding] = bench.settle().findings
    kept = Path(finding.detail.rsplit(" ", 1)[1].removesuffix("."))
    assert "mine = status" in kept.read_text()
    assert "mine = status" not in (bench.common / "config").read_text()


def test_a_push_of_the_users_during_a_call_keeps_its_settings(bench):
    """`git push -u` writes what branch follows which: harmless, and the user's."""
    bench.git("config", "branch.main.remote", "origin")
    bench.git("config", "branch.main.merge", "refs/heads/main")
    assert bench.settle().findings == ()
    assert bench.git("config", "branch.main.remote") == "origin"


def test_what_the_user_sets_between_calls_stays(bench):
    """The guard looks anew before each agent."""
    bench.settle()
    bench.git("config", "alias.mine", "status")
    bench.repository.guard(bench.place)
    assert bench.settle("next").findings == ()
    assert bench.git("config", "alias.mine") == "status"


def test_another_process_guards_what_the_first_one_remembered(bench):
    """The comparison outlives a crash between the agent's start and its end."""
    set_filter(bench)
    adopter = GitRepository(identity=bench.repository.identity, checkout=str(bench.checkout), environ=bench.env)
    settled = adopter.settle(bench.place, expected_tip=bench.base, label="call")
    assert [finding.what for finding in settled.findings] == ["config-changed"]
    assert not (bench.tmp / "trapped").exists()


def test_a_worktree_that_is_opened_beside_agents_at_work_trusts_nothing_that_they_did(bench):
    """What is remembered of the settings is one memory for all worktrees of a run."""
    lane = replace(bench.place, worktree=f"{bench.place.worktree}-lane-1", branch="lane-1")
    set_filter(bench)
    bench.repository.open_worktree(lane, base=bench.base, reuse_branch=False, copy=())
    settled = bench.repository.settle(lane, expected_tip=bench.base, label="lane")
    assert [finding.what for finding in settled.findings] == ["config-changed"]
    assert not (bench.tmp / "trapped").exists()
    bench.repository.close_worktree(lane, with_branch=True)
    bench.git("config", "alias.mine", "status")
    assert [finding.what for finding in bench.settle().findings] == ["config-changed"]


def test_a_closed_lane_leaves_nothing_but_its_pins(bench):
    """Neither directory nor registration nor branch; also if only a part of it was ever made."""
    lane = replace(bench.place, worktree=f"{bench.place.worktree}-lane-1", branch="lane-1")
    before = bench.git("worktree", "list"), bench.git("branch", "--list")
    bench.repository.open_worktree(lane, base=bench.base, reuse_branch=False, copy=())
    pin = bench.repository.pin(lane, tree=bench.repository.tree_of(bench.base), label="x", author=AUTHOR)
    for _ in range(2):
        bench.repository.close_worktree(lane, with_branch=True)
        assert (bench.git("worktree", "list"), bench.git("branch", "--list")) == before
        assert not Path(lane.worktree).exists()
    assert bench.git("rev-parse", pin.ref) == pin.commit


def test_locks_of_a_killed_agent_are_no_obstacle(bench):
    """A git that was killed leaves its locks behind."""
    for lock in ("index.lock", "HEAD.lock"):
        (bench.admin / lock).touch()
    (bench.common / "refs/heads/feature/x.lock").touch()
    (own_directory(bench.place) / "index.lock").touch()
    tree = bench.settle().tree
    bench.repository.commit(bench.place, tree=tree, parent=bench.base, author=AUTHOR)
    assert bench.agent("status", "--porcelain") == ""


def test_an_index_that_lies_is_not_believed(bench):
    """`assume-unchanged` and a forced add of our own directory are the agent's index, not ours."""
    bench.agent("update-index", "--assume-unchanged", "kept.txt")
    bench.write("kept.txt", "changed\n")
    bench.write(".storyloop/artifact.xml", "<x/>")
    (bench.root / ".storyloop/.gitignore").unlink()
    bench.agent("add", "--force", ".storyloop")
    tree = bench.settle().tree
    assert bench.tree(tree)["kept.txt"] == b"changed\n"
    assert bench.new_files(tree) == {"new.txt"}
    assert (bench.root / ".storyloop/.gitignore").read_text() == "*\n"


def test_replaced_objects_deceive_nobody(bench):
    """`git replace` shows git other contents under an old name."""
    other = bench.git("rev-parse", "HEAD:src/old.py")
    bench.agent("replace", bench.git("rev-parse", "HEAD:kept.txt"), other)
    (bench.root / "kept.txt").unlink()
    bench.repository.reset(bench.place, commit=bench.base)
    assert (bench.root / "kept.txt").read_text() == "kept\n"


def test_stashes_that_somebody_dropped_have_refs(fresh):
    """The list of stashes is shared by all worktrees: an agent's `stash clear` takes the user's with it."""
    write_file(fresh.checkout / "kept.txt", "stashed\n")
    fresh.git("stash")
    stash = fresh.git("rev-parse", "stash")
    fresh.open()
    fresh.repository.guard(fresh.place)
    fresh.agent("stash", "clear")
    assert [finding.what for finding in fresh.settle().findings] == ["stash-dropped"]
    assert fresh.git("rev-parse", f"refs/storyloop/r1/stash/{stash[:12]}") == stash


def test_a_git_directory_that_is_gone_is_told_to_the_operator(bench):
    """Without the repository nothing can be kept, and nothing is made up."""
    (bench.checkout / ".git").rename(bench.tmp / "gone")
    with pytest.raises(OperatorError, match="is gone or incomplete"):
        bench.settle()
    (bench.tmp / "gone").rename(bench.checkout / ".git")
    assert bench.new_files(bench.settle().tree) == {"new.txt"}


def test_a_deleted_worktree_is_an_empty_tree_until_reset(bench):
    """An agent that removes everything has removed files, no more."""
    shutil.rmtree(bench.root)
    settled = bench.settle()
    assert {finding.what for finding in settled.findings} == {"worktree-gone", "git-file"}
    assert bench.tree(settled.tree) == {}
    bench.repository.reset(bench.place, commit=bench.base)
    assert bench.repository.snapshot(bench.place) == bench.repository.tree_of(bench.base)


def test_a_worktree_that_somebody_removed_is_made_again(bench):
    """A worktree is a cache: opening it again begins with the branch."""
    bench.git("worktree", "remove", "--force", str(bench.root))
    assert bench.repository.open_worktree(bench.place, base=bench.base, reuse_branch=False, copy=()) == ()
    story(bench)


def test_closing_deletes_nothing_that_is_not_surely_ours(bench):
    """Somebody may have put a repository of his own where the worktree was."""
    shutil.rmtree(bench.root)
    make_repository(bench.root, {"mine.txt": "mine\n"}, env=bench.env)
    bench.repository.close_worktree(bench.place)
    assert not bench.root.exists()
    assert len(list((own_directory(bench.place) / "aside").glob("*/mine.txt"))) == 1


# --- repositories inside ------------------------------------------------------------------------------


def nested(bench: Bench, name: str, *, commit: bool) -> None:
    path = bench.root / name
    path.mkdir(parents=True)
    git(path, "init", "--quiet", env=bench.env)
    if commit:
        commit_files(path, {"inner.txt": "inner\n"}, env=bench.env)
    else:
        write_file(path / "inner.txt", "inner\n")


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("name", ["app", "deep/er/app", "app [1]\n*"])
def test_a_repository_made_inside_becomes_ordinary_files(bench, name, commit):
    """Scaffolders run `git init`; the history they began is kept aside."""
    nested(bench, name, commit=commit)
    nested(bench, f"{name}/in", commit=False)
    settled = bench.settle()
    assert {finding.what for finding in settled.findings} == {"nested-repository"}
    assert bench.new_files(settled.tree) == {"new.txt", f"{name}/inner.txt", f"{name}/in/inner.txt"}
    assert len(list((own_directory(bench.place) / "aside").glob("*.git/HEAD"))) == 2
    bench.repository.reset(bench.place, commit=bench.base)
    assert not (bench.root / name).exists()


def test_a_repository_that_a_check_made_is_removed_whole(bench):
    """Its files are creations like others."""
    tree = bench.settle().tree
    nested(bench, "app", commit=True)
    assert bench.repository.undo_changes(bench.place, tree=tree) == ()
    undone = bench.repository.undo_changes(bench.place, tree=tree, creations=True)
    assert undone == (Change("app/inner.txt", ChangeKind.CREATED),)
    assert not (bench.root / "app").exists()


@pytest.mark.parametrize("undo", ["reset", "undo_changes"])
def test_a_repository_made_where_a_file_was_is_set_aside_first(bench, undo):
    """What git would overwrite is kept."""
    (bench.root / "kept.txt").unlink()
    nested(bench, "kept.txt", commit=True)
    if undo == "reset":
        bench.repository.reset(bench.place, commit=bench.base)
    else:
        bench.repository.undo_changes(bench.place, tree=bench.repository.tree_of(bench.base))
    assert (bench.root / "kept.txt").read_text() == "kept\n"
    assert len(list((own_directory(bench.place) / "aside").glob("*.git/HEAD"))) == 1


def test_worktrees_that_an_agent_made_for_its_helpers_are_left_out(bench):
    """They belong to this repository: their branches keep their commits, a second copy of every file helps nobody."""
    bench.agent("worktree", "add", "--quiet", "-b", "helper", ".agent/worktrees/helper")
    bench.write(".agent/notes.md")
    settled = bench.settle()
    assert settled.findings == ()
    assert bench.new_files(settled.tree) == {"new.txt", ".agent/notes.md"}
    bench.repository.reset(bench.place, commit=bench.base)
    assert (bench.root / ".agent/worktrees/helper/kept.txt").exists()


def with_submodule(fresh: Bench) -> None:
    make_repository(fresh.tmp / "library", {"lib.c": "1\n"}, env=fresh.env)
    fresh.git(
        "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(fresh.tmp / "library"), "vendor/lib"
    )
    commit_files(fresh.checkout, {}, env=fresh.env)


def test_an_empty_submodule_is_no_change(fresh):
    """A new worktree has its submodules uninitialised; that they are deleted is not what it means."""
    with_submodule(fresh)
    fresh.open()
    link = fresh.tree("HEAD")["vendor/lib"]
    assert fresh.tree(story(fresh))["vendor/lib"] == link


def test_a_submodule_that_moved_is_a_change(fresh):
    """A registered submodule is a link to a commit, by git's own rules; what is dirty inside is not looked at."""
    with_submodule(fresh)
    fresh.open()
    fresh.agent("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
    fresh.write("vendor/lib/dirty.c")
    assert fresh.repository.snapshot(fresh.place) == fresh.repository.tree_of(fresh.base)
    moved = commit_files(fresh.root / "vendor/lib", {"lib.c": "2\n"}, env=fresh.env)
    settled = fresh.settle()
    assert settled.findings == ()
    assert fresh.tree(settled.tree)["vendor/lib"] == moved.encode()
    fresh.repository.reset(fresh.place, commit=fresh.base)
    assert [finding.what for finding in fresh.settle("next").findings] == ["submodule-moved"]
    fresh.repository.close_worktree(fresh.place)
    assert list(Path(fresh.place.run_dir).rglob("aside/*-modules/vendor/lib/HEAD"))


def test_a_submodule_that_the_agent_added_is_a_link(bench):
    """`git submodule add` is ordinary work, undone by a reset."""
    make_repository(bench.tmp / "library", {"lib.c": "1\n"}, env=bench.env)
    library = bench.tmp / "library"
    bench.agent("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "vendor/lib")
    settled = bench.settle()
    assert bench.new_files(settled.tree) == {"new.txt", ".gitmodules", "vendor/lib"}
    bench.repository.reset(bench.place, commit=bench.base)
    assert not (bench.root / "vendor").exists()


def test_a_scrub_goes_into_submodules_and_repositories_and_deletes_nobody_s_commits(fresh):
    """Leftovers hide where `git clean` does not look by itself; other worktrees of the repository are kept aside."""
    with_submodule(fresh)
    fresh.open()
    fresh.agent("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
    fresh.write("vendor/lib/left.log")
    fresh.write("cache.log/left")  # ignored, as all of these
    make_repository(fresh.root / "clone.log", {"left": "1\n"}, env=fresh.env)
    fresh.agent("worktree", "add", "--quiet", "-b", "helper", "helper.log")
    fresh.write("helper.log/half.txt", "half\n")
    locked = fresh.root / "locked.log"
    fresh.write("locked.log/left")
    locked.chmod(0o500)
    fresh.repository.scrub(fresh.place, commit=fresh.base, copy=())
    left = {str(path.relative_to(fresh.root)) for path in fresh.root.rglob("*") if ".storyloop" not in path.parts}
    assert left == {".git", ".gitignore", ".gitmodules", "kept.txt", "src", "src/old.py", "vendor", "vendor/lib"}
    assert [finding.what for finding in fresh.settle().findings] == ["nested-worktree"]
    (kept,) = Path(fresh.place.run_dir).rglob("aside/*/half.txt")
    assert kept.read_text() == "half\n"
    fresh.agent("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
    assert (fresh.root / "vendor/lib/lib.c").exists()


def test_a_scrub_keeps_the_repository_that_lies_in_a_submodule_s_place(fresh):
    """An agent may have cloned it by hand; its commits may be nowhere else."""
    with_submodule(fresh)
    fresh.open()
    make_repository(fresh.root / "vendor/lib", {"lib.c": "mine\n"}, env=fresh.env)
    fresh.repository.scrub(fresh.place, commit=fresh.base, copy=())
    assert list((fresh.root / "vendor/lib").iterdir()) == []
    assert [finding.what for finding in fresh.settle().findings] == ["nested-repository"]
    assert list(Path(fresh.place.run_dir).rglob("aside/*-.git/HEAD"))


# --- kinds of files -----------------------------------------------------------------------------------


def modes(bench: Bench, tree: str) -> dict[str, str]:
    rows = git(bench.common, "ls-tree", "-r", "-z", tree, env=bench.env).split("\0")
    return {row.split("\t")[1]: row.split(" ")[0] for row in rows if row}


def test_links_modes_and_bytes_are_kept(bench):
    """Symlinks are links, whatever they point at; the executable bit and every byte count."""
    bench.write("bytes.bin", bytes(range(256)))
    (bench.root / "link").symlink_to("/etc/passwd")
    (bench.root / "dangling").symlink_to("nowhere")
    (bench.root / "kept.txt").chmod(0o755)
    tree = bench.settle().tree
    assert modes(bench, tree) == {
        ".gitignore": "100644", "bytes.bin": "100644", "dangling": "120000", "kept.txt": "100755",
        "link": "120000", "new.txt": "100644", "src/old.py": "100644",
    }  # fmt: skip
    assert bench.tree(tree)["bytes.bin"] == bytes(range(256))
    assert bench.tree(tree)["link"] == b"/etc/passwd"
    bench.repository.reset(bench.place, commit=bench.base)
    assert not (bench.root / "kept.txt").stat().st_mode & stat.S_IXUSR
    assert not (bench.root / "link").is_symlink()


def test_files_directories_and_links_may_trade_places(bench):
    """A directory that became a file or a link, and a file that became a directory; undone through none of them."""
    outside = bench.tmp / "outside"
    write_file(outside / "old.py", "outside\n")
    shutil.rmtree(bench.root / "src")
    (bench.root / "src").symlink_to(outside)
    (bench.root / "kept.txt").unlink()
    bench.write("kept.txt/inner.txt")
    tree = bench.settle().tree
    assert modes(bench, tree) == {
        ".gitignore": "100644", "kept.txt/inner.txt": "100644", "new.txt": "100644", "src": "120000"
    }  # fmt: skip
    base = bench.repository.tree_of(bench.base)
    bench.repository.undo_changes(bench.place, tree=base, creations=True)
    assert bench.repository.snapshot(bench.place) == base
    assert (outside / "old.py").read_text() == "outside\n"


def test_what_git_cannot_keep_is_told_and_the_rest_kept(bench):
    """A FIFO in place of a file, and a directory of a name that git refuses."""
    (bench.root / "kept.txt").unlink()
    os.mkfifo(bench.root / "kept.txt")
    bench.write("x/.GIT/config", "x\n")
    settled = bench.settle()
    assert [finding.what for finding in settled.findings] == ["left-out"]
    assert "kept.txt, x/.GIT/config" in settled.findings[0].detail
    assert bench.new_files(settled.tree) == {"new.txt"}
    bench.repository.undo_changes(bench.place, tree=bench.repository.tree_of(bench.base))
    assert (bench.root / "kept.txt").read_text() == "kept\n"


WITHOUT_POWERS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_git_world import Bench
bench = Bench(Path(sys.argv[2]))
bench.open()
bench.write("locked/file.txt")
bench.write("secret.txt")
(bench.root / "secret.txt").chmod(0)
(bench.root / "locked").chmod(0o500)
bench.write("closed/file.txt")
(bench.root / "closed").chmod(0)
(bench.root / "src").chmod(0o500)
settled = bench.settle()
assert settled.findings == (), settled
assert bench.new_files(settled.tree) == {"locked/file.txt", "secret.txt", "closed/file.txt"}
(bench.root / "locked").chmod(0o500)
(bench.root / "src/old.py").chmod(0o400)
bench.repository.reset(bench.place, commit=bench.base)
assert bench.repository.snapshot(bench.place) == bench.repository.tree_of(bench.base)
bench.write("locked/again.txt")
(bench.root / "locked").chmod(0o500)
base = bench.repository.tree_of(bench.base)
undone = bench.repository.undo_changes(bench.place, tree=base, creations=True)
assert [change.path for change in undone] == ["locked/again.txt"]
bench.write("cache.log/module/file.txt")
(bench.root / "cache.log/module").chmod(0o500)
bench.repository.close_worktree(bench.place)
assert not bench.root.exists()
"""


def test_what_is_read_only_is_kept_and_removed_like_the_rest(tmp_path):
    """Package caches are read-only, and agents forget what they locked."""
    powerless = [] if os.geteuid() else ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    if powerless and shutil.which("setpriv") is None:
        pytest.skip("root may do everything, and setpriv is not there to take that away")
    command = [*powerless, sys.executable, "-c", WITHOUT_POWERS, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- kinds of repositories ----------------------------------------------------------------------------


def detached(fresh: Bench) -> None:
    fresh.git("checkout", "--quiet", "--detach")


def packed(fresh: Bench) -> None:
    fresh.git("gc", "--quiet", "--prune=now")


def sparse_cone(fresh: Bench) -> None:
    commit_files(fresh.checkout, {"a/1": "1\n", "b/2": "2\n"}, env=fresh.env)
    fresh.git("sparse-checkout", "set", "a")


def sparse_patterns(fresh: Bench) -> None:
    commit_files(fresh.checkout, {"a/1": "1\n", "b/2": "2\n"}, env=fresh.env)
    fresh.git("sparse-checkout", "set", "--no-cone", "/*", "!/b")


def sparse_index(fresh: Bench) -> None:
    sparse_cone(fresh)
    fresh.git("sparse-checkout", "reapply", "--sparse-index")


def core_worktree(fresh: Bench) -> None:
    fresh.git("config", "core.worktree", str(fresh.checkout))


def shallow(fresh: Bench) -> None:
    commit_files(fresh.checkout, {"second": "2\n"}, env=fresh.env)
    fresh.checkout.rename(fresh.tmp / "origin")
    git(fresh.tmp, "clone", "--quiet", "--depth=1", f"file://{fresh.tmp}/origin", str(fresh.checkout), env=fresh.env)


def partial(fresh: Bench) -> None:
    fresh.checkout.rename(fresh.tmp / "origin")
    git(fresh.tmp / "origin", "config", "uploadpack.allowFilter", "true", env=fresh.env)
    clone = ("clone", "--quiet", "--filter=blob:none", f"file://{fresh.tmp}/origin", str(fresh.checkout))
    git(fresh.tmp, *clone, env=fresh.env)


def sha256(fresh: Bench) -> None:
    shutil.rmtree(fresh.checkout)
    fresh.checkout.mkdir()
    fresh.git("init", "--quiet", "--object-format=sha256")
    commit_files(fresh.checkout, BASE, env=fresh.env)


def separate_git_dir(fresh: Bench) -> None:
    fresh.git("init", "--quiet", f"--separate-git-dir={fresh.tmp}/separate.git")


def linked(fresh: Bench) -> None:
    fresh.git("worktree", "add", "--quiet", "-b", "other", str(fresh.tmp / "linked"))
    fresh.checkout = fresh.tmp / "linked"


def bare_with_worktrees(fresh: Bench) -> None:
    git(fresh.tmp, "clone", "--quiet", "--bare", str(fresh.checkout), str(fresh.tmp / "project/.bare"), env=fresh.env)
    git(fresh.tmp / "project/.bare", "worktree", "add", "--quiet", "../main", "main", env=fresh.env)
    fresh.checkout = fresh.tmp / "project/main"


def inside_submodule(fresh: Bench) -> None:
    with_submodule(fresh)
    fresh.checkout = fresh.checkout / "vendor/lib"


def branch_and_tag(fresh: Bench) -> None:
    fresh.git("tag", "feature/x")
    commit_files(fresh.checkout, {"second": "2\n"}, env=fresh.env)


def relative_paths(fresh: Bench) -> None:
    fresh.git("config", "worktree.useRelativePaths", "true")


KINDS = [
    detached, packed, sparse_cone, sparse_patterns, sparse_index, core_worktree, shallow, partial, sha256,
    separate_git_dir, linked, bare_with_worktrees, inside_submodule, branch_and_tag, relative_paths,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_a_story_works_in_any_kind_of_repository(fresh, kind):
    """From the opening to the commit, the reset and the closing, without a word in the config."""
    kind(fresh)
    config = Path(discover(fresh.checkout, fresh.env).identity, "config")
    before = config.read_bytes()
    assert fresh.open() == ()
    commit = story(fresh)
    assert git(fresh.common, "rev-parse", f"{commit}^", env=fresh.env) == fresh.base
    fresh.write("stray.txt")
    fresh.repository.scrub(fresh.place, commit=commit, copy=())
    assert fresh.repository.snapshot(fresh.place) == fresh.repository.tree_of(commit)
    fresh.repository.close_worktree(fresh.place)
    assert not fresh.root.exists()
    assert config.read_bytes() == before


@pytest.mark.parametrize("kind", [sparse_cone, sparse_patterns, sparse_index])
def test_a_sparse_checkout_stays_sparse_and_loses_nothing(fresh, kind):
    """What is not checked out is not deleted; what an agent writes there all the same is kept."""
    kind(fresh)
    fresh.open()
    assert not (fresh.root / "b").exists()
    fresh.write("b/3")
    tree = fresh.settle().tree
    assert fresh.tree(tree).keys() - set(BASE) == {"a/1", "b/2", "b/3"}
    fresh.repository.reset(fresh.place, commit=fresh.base)
    assert not (fresh.root / "b").exists()
    assert fresh.repository.snapshot(fresh.place) == fresh.repository.tree_of(fresh.base)


def large_files(fresh: Bench, *, scope: str) -> None:
    """A stand-in for LFS: in the repository a pointer, in the worktree the file."""
    fresh.git("config", scope, "filter.lfs.clean", "sed 's/^BIG:/pointer:/'")
    fresh.git("config", scope, "filter.lfs.smudge", "sed 's/^pointer:/BIG:/'")
    fresh.git("config", scope, "filter.lfs.required", "true")
    commit_files(fresh.checkout, {".gitattributes": "*.big filter=lfs\n", "a.big": "BIG:1\n"}, env=fresh.env)


@pytest.mark.parametrize("scope", ["--global", "--local"])
def test_filters_of_the_user_go_on_working(fresh, scope):
    """A large file is a pointer in every tree, and itself in every worktree."""
    large_files(fresh, scope=scope)
    assert fresh.open() == ()
    assert (fresh.root / "a.big").read_text() == "BIG:1\n"
    assert fresh.repository.snapshot(fresh.place) == fresh.repository.tree_of(fresh.base)
    fresh.repository.guard(fresh.place)
    fresh.write("a.big", "BIG:2\n")
    tree = fresh.settle().tree
    assert fresh.tree(tree)["a.big"] == b"pointer:2\n"
    fresh.repository.undo_changes(fresh.place, tree=fresh.repository.tree_of(fresh.base))
    assert (fresh.root / "a.big").read_text() == "BIG:1\n"


def test_a_filter_that_is_not_installed_is_said_and_leaves_nothing(fresh):
    """No git-lfs, no checkout: neither a branch nor a half-made worktree stays behind."""
    large_files(fresh, scope="--global")
    fresh.git("config", "--global", "filter.lfs.smudge", "git-lfs-is-not-here smudge")
    with pytest.raises(UserError, match="Install git-lfs"):
        fresh.open()
    assert not fresh.root.exists()
    assert fresh.git("branch", "--list", "feature/x") == ""
    assert fresh.git("worktree", "list", "--porcelain").count("worktree ") == 1


def test_files_that_are_changed_as_soon_as_they_are_checked_out_are_a_warning(fresh):
    """Line endings that the repository never normalised look like work of the agent's."""
    commit_files(fresh.checkout, {"dos.txt": "1\r\n"}, env=fresh.env)
    fresh.git("config", "core.autocrlf", "false")
    fresh.git("rm", "--quiet", "--cached", "dos.txt")
    fresh.git("-c", "core.autocrlf=false", "add", "dos.txt")
    write_file(fresh.checkout / ".gitattributes", "*.txt text\n")
    fresh.git("add", ".gitattributes")
    fresh.git("commit", "--quiet", "--message", "never normalised")
    [warning] = fresh.open()
    assert warning.startswith("1 files differ from the commit")


def test_a_branch_that_tracks_our_directory_is_refused(fresh):
    """`.storyloop/` cannot be theirs and ours."""
    commit_files(fresh.checkout, {".storyloop/x": "x"}, env=fresh.env)
    tracking = fresh.git("rev-parse", "HEAD")
    fresh.git("rm", "--quiet", "-r", ".storyloop")
    fresh.git("commit", "--quiet", "--message", "not tracked")
    facts = discover(fresh.checkout, fresh.env)
    repository = GitRepository(identity=facts.identity, checkout=facts.checkout, environ=fresh.env)
    with pytest.raises(UserError, match=r"tracks files in \.storyloop/"):
        repository.open_worktree(fresh.place, base=tracking, reuse_branch=False, copy=())
    assert not fresh.root.exists()


# --- opening ------------------------------------------------------------------------------------------


def test_a_branch_checked_out_in_a_vanished_worktree_can_be_cured(fresh):
    """Somebody deleted an old worktree by hand: git still believes in it."""
    old = fresh.tmp / "old"
    fresh.git("worktree", "add", "--quiet", "-b", "feature/x", str(old))
    shutil.rmtree(old)
    facts = discover(fresh.checkout, fresh.env)
    repository = GitRepository(identity=facts.identity, checkout=facts.checkout, environ=fresh.env)
    with pytest.raises(UserError, match="git worktree prune"):
        repository.open_worktree(fresh.place, base=facts.head, reuse_branch=True, copy=())
    fresh.git("worktree", "prune")
    assert repository.open_worktree(fresh.place, base=facts.head, reuse_branch=True, copy=()) == ()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_stands_where_the_worktree_belongs_is_left_alone(fresh, kind):
    """Somebody's files are never overwritten or adopted."""
    if kind == "file":
        write_file(fresh.root, "mine")
    elif kind == "directory":
        write_file(fresh.root / "mine.txt", "mine")
    else:
        fresh.root.symlink_to(fresh.checkout)
    with pytest.raises(UserError, match="something is there already"):
        fresh.open()
    assert fresh.root.exists()
    assert fresh.git("branch", "--list", "feature/x") == ""


def test_directories_are_brought_along_and_nothing_from_outside(fresh):
    """`copy` takes ignored files and directories of the checkout; `..` and absolute paths are refused."""
    commit_files(fresh.checkout, {".gitignore": "secrets/\n"}, env=fresh.env)
    write_file(fresh.checkout / "secrets/key", "key\n")
    (fresh.checkout / "secrets/link").symlink_to("key")
    facts = discover(fresh.checkout, fresh.env)
    repository = GitRepository(identity=facts.identity, checkout=facts.checkout, environ=fresh.env)
    copy = ("secrets", "../home/.gitconfig", "/etc/passwd", ".git/config")
    warnings = repository.open_worktree(fresh.place, base=facts.head, reuse_branch=False, copy=copy)
    assert (fresh.root / "secrets/key").read_text() == "key\n"
    assert os.readlink(fresh.root / "secrets/link") == "key"
    assert [warning.split("`")[1] for warning in warnings] == ["../home/.gitconfig", "/etc/passwd", ".git/config"]


def test_a_git_that_outlived_its_storyloop_is_waited_for(bench):
    """Whoever was killed may have left a git running: nobody works beside it."""
    done = threading.Event()
    with held(own_directory(bench.place)):
        waiting = threading.Thread(target=lambda: (bench.settle(), done.set()))
        waiting.start()
        assert not done.wait(0.3)
    waiting.join(10)
    assert done.is_set()


# --- costs --------------------------------------------------------------------------------------------


def test_a_story_starts_few_processes(fresh):
    """Guard, settle, pin, two checks and a commit: at most eleven gits."""
    real, count = shutil.which("git"), fresh.tmp / "count"
    write_file(fresh.tmp / "bin/git", f'#!/bin/sh\necho >> {count}\nexec {real} "$@"\n')
    (fresh.tmp / "bin/git").chmod(0o755)
    fresh.open(environ={**fresh.env, "PATH": f"{fresh.tmp / 'bin'}:{fresh.env['PATH']}"})
    count.write_text("")
    repository, place = fresh.repository, fresh.place
    repository.guard(place)
    fresh.write("new.txt")
    tree = fresh.settle().tree
    repository.pin(place, tree=tree, label="call", author=AUTHOR)
    for is_last in (False, True):
        assert repository.undo_changes(place, tree=tree, creations=is_last) == ()
    repository.commit(place, tree=tree, parent=fresh.base, author=AUTHOR)
    assert 1 <= len(count.read_text()) <= 11


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ("error: unable to write file: No space left on device", "Free some disk space"),
        ("error: external filter 'git-lfs filter-process' failed", "Install git-lfs"),
        ("fatal: a.txt: smudge filter crypt failed", "filter's program"),
        ("fatal: Unable to create '/r/.git/packed-refs.lock': File exists.", "remove that file"),
        ('error: open("x"): Permission denied', "access"),
        ("fatal: could not fetch 12ab from promisor remote", "remote can be reached"),
        ("fatal: something new", "git fsck"),
    ],
)
def test_what_git_says_is_told_with_a_cure(words, cure):
    """Whatever fails, its reader learns what git said and what to try."""
    told = str(GitFailed(("add", "--all"), 128, words))
    assert words.splitlines()[0].rstrip(".") in told
    assert cure in told


def test_worktrees_that_are_made_at_once_are_all_made(fresh: Bench) -> None:
    """git fails while it meets a registration that another git has only begun to write."""
    fresh.open()

    def made(number: int) -> tuple[str, ...]:
        place = Place(
            run_id=f"r{number}",
            worktree=str(fresh.tmp / f"wt-{number}"),
            branch=f"many/{number}",
            run_dir=str(fresh.tmp / f"run-{number}"),
        )
        return fresh.repository.open_worktree(place, base=fresh.base, reuse_branch=False, copy=())

    with ThreadPoolExecutor(24) as threads:
        assert list(threads.map(made, range(24))) == [()] * 24
    assert len(fresh.git("worktree", "list").splitlines()) == 1 + 1 + 24
