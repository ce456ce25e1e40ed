"""The Repository port: what the engine may rely on, kept by real git and by the repository in memory."""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from gitkit import files_of, git, isolated, make_repository, write_file
from storyloop.core.errors import OperatorError, UserError
from storyloop.core.facts import Change, ChangeKind
from storyloop.core.forge import ForgeTrouble, Pushed, Trouble
from storyloop.ports.repository import Author, Edited, Place, PushOrder, Remains, Repository
from storyloop.world.memory_repository import MemoryRepository
from storyloop.world.repository import GitRepository

BASE = {"kept.txt": b"kept\n", "src/old.py": b"1\n2\n", ".gitignore": b"*.log\nbuild\n.env\n"}
AUTHOR = Author(message="A story\n\nStoryloop-Run: r1\n", at=datetime(2025, 6, 1, 12, 0, tzinfo=UTC))


class World(Protocol):
    """What a test does to the world around the port."""

    repository: Repository
    base: str

    def write(self, place: Place, path: str, content: bytes) -> None: ...
    def delete(self, place: Place, path: str) -> None: ...
    def keeps(self, place: Place, path: str) -> bool: ...
    def files(self, place: Place) -> dict[str, bytes]: ...
    def tree(self, tree: str) -> dict[str, bytes]: ...
    def ref(self, name: str) -> str | None: ...
    def describe(self, commit: str) -> tuple[str, str | None, str]: ...
    def commit_as_agent(self, place: Place) -> str: ...
    def switch_branch(self, place: Place, branch: str) -> None: ...
    def break_git_file(self, place: Place) -> None: ...
    def write_to_checkout(self, path: str, content: bytes) -> None: ...
    def add_remote(self, *, empty: bool = False) -> None: ...
    def remote(self) -> dict[str, str]: ...
    def push_as_another(self, place: Place) -> str: ...
    def delete_from_remote(self, place: Place) -> None: ...


class RealWorld:
    def __init__(self, tmp_path: Path) -> None:
        self._env = isolated(tmp_path / "home")
        self._checkout = tmp_path / "repo"
        self.base = make_repository(self._checkout, BASE, env=self._env)
        self.repository = GitRepository(
            identity=str(self._checkout / ".git"), checkout=str(self._checkout), environ=self._env
        )

    def write(self, place: Place, path: str, content: bytes) -> None:
        write_file(Path(place.worktree, path), content)

    def delete(self, place: Place, path: str) -> None:
        Path(place.worktree, path).unlink()

    def keeps(self, place: Place, path: str) -> bool:
        return Path(place.worktree, path).exists()

    def files(self, place: Place) -> dict[str, bytes]:
        root = Path(place.worktree)
        found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
        return {str(path): (root / path).read_bytes() for path in found if path.parts[0] not in (".git", ".storyloop")}

    def tree(self, tree: str) -> dict[str, bytes]:
        return files_of(self._checkout, tree, env=self._env)

    def ref(self, name: str) -> str | None:
        return git(self._checkout, "for-each-ref", "--format=%(objectname)", name, env=self._env) or None

    def describe(self, commit: str) -> tuple[str, str | None, str]:
        text = git(self._checkout, "show", "--no-patch", "--format=%T%x00%P%x00%B%x00", commit, env=self._env)
        tree, parent, message, _ = text.split("\0")
        return tree, parent or None, message

    def commit_as_agent(self, place: Place) -> str:
        root = Path(place.worktree)
        git(root, "add", "--all", env=self._env)
        git(root, "commit", "--quiet", "--message", "by the agent", env=self._env)
        return git(root, "rev-parse", "HEAD", env=self._env)

    def switch_branch(self, place: Place, branch: str) -> None:
        git(Path(place.worktree), "switch", "--quiet", "--create", branch, env=self._env)

    def break_git_file(self, place: Place) -> None:
        Path(place.worktree, ".git").unlink()

    def write_to_checkout(self, path: str, content: bytes) -> None:
        write_file(self._checkout / path, content)

    def add_remote(self, *, empty: bool = False) -> None:
        self._bare = self._checkout.with_name("bare.git")
        git(self._checkout, "init", "--quiet", "--bare", str(self._bare), env=self._env)
        git(self._checkout, "remote", "add", "origin", "../bare.git", env=self._env)  # from the checkout
        if not empty:
            git(self._checkout, "push", "--quiet", "origin", "main", env=self._env)

    def remote(self) -> dict[str, str]:
        listed = git(self._bare, "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", env=self._env)
        return dict(line.split() for line in listed.splitlines())

    def push_as_another(self, place: Place) -> str:
        tree = git(self._bare, "rev-parse", "main^{tree}", env=self._env)
        commit = git(self._bare, "commit-tree", "-m", "theirs", tree, env=self._env)
        git(self._bare, "update-ref", f"refs/heads/{place.branch}", commit, env=self._env)
        return commit

    def delete_from_remote(self, place: Place) -> None:
        git(self._bare, "update-ref", "-d", f"refs/heads/{place.branch}", env=self._env)


class WorldInMemory:
    def __init__(self) -> None:
        self.repository = MemoryRepository(BASE)
        self.base = self.repository.base

    def write(self, place: Place, path: str, content: bytes) -> None:
        self.repository.files(place.worktree)[path] = content

    def delete(self, place: Place, path: str) -> None:
        del self.repository.files(place.worktree)[path]

    def keeps(self, place: Place, path: str) -> bool:
        return path in self.repository.files(place.worktree)

    def files(self, place: Place) -> dict[str, bytes]:
        return {
            path: content
            for path, content in self.repository.files(place.worktree).items()
            if not path.startswith(".storyloop/")
        }

    def tree(self, tree: str) -> dict[str, bytes]:
        return self.repository.tree_files(tree)

    def ref(self, name: str) -> str | None:
        return self.repository.refs.get(name)

    def describe(self, commit: str) -> tuple[str, str | None, str]:
        return self.repository.describe(commit)

    def commit_as_agent(self, place: Place) -> str:
        return self.repository.commit_as_agent(place.worktree, "by the agent")

    def switch_branch(self, place: Place, branch: str) -> None:
        self.repository.switch_branch(place.worktree, branch)

    def break_git_file(self, place: Place) -> None:
        self.repository.break_git_file(place.worktree)

    def write_to_checkout(self, path: str, content: bytes) -> None:
        self.repository.checkout[path] = content

    def add_remote(self, *, empty: bool = False) -> None:
        self.repository.remotes["origin"] = {} if empty else {"main": self.base}

    def remote(self) -> dict[str, str]:
        return self.repository.remotes["origin"]

    def push_as_another(self, place: Place) -> str:
        self.repository.remotes["origin"][place.branch] = "0" * 40
        return "0" * 40

    def delete_from_remote(self, place: Place) -> None:
        del self.repository.remotes["origin"][place.branch]


@pytest.fixture(params=["git", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return RealWorld(tmp_path) if request.param == "git" else WorldInMemory()


@pytest.fixture
def repository(world: World) -> Repository:
    return world.repository


@pytest.fixture
def closed(tmp_path: Path) -> Place:
    return Place(run_id="r1", worktree=str(tmp_path / "wt"), branch="feature/x", run_dir=str(tmp_path / "run"))


@pytest.fixture
def place(world: World, closed: Place) -> Place:
    opened(world, closed)
    return closed


def opened(world: World, place: Place, *, reuse_branch: bool = False, copy: tuple[str, ...] = ()) -> tuple[str, ...]:
    return world.repository.open_worktree(place, base=world.base, reuse_branch=reuse_branch, copy=copy)


def settled(repository: Repository, place: Place, world: World, label: str = "call"):
    return repository.settle(place, expected_tip=world.base, label=label)


# --- opening and closing ------------------------------------------------------------------------------


def test_a_worktree_begins_with_the_files_of_its_base(world, repository, place):
    """Branch, files and tree are those of the base commit."""
    assert repository.tip(place) == world.base
    assert world.files(place) == BASE
    assert repository.snapshot(place) == repository.tree_of(world.base)


def test_opening_again_changes_nothing(world, place):
    """A repetition after a crash finds the worktree as it is, work included."""
    world.write(place, "new.txt", b"new\n")
    assert opened(world, place) == ()
    assert world.files(place) == {**BASE, "new.txt": b"new\n"}


def test_an_existing_branch_is_refused(world, repository, place, tmp_path):
    """A branch that is there already belongs to somebody, unless he says that it may be used."""
    repository.close_worktree(place)
    with pytest.raises(UserError, match="feature/x exists already"):
        opened(
            world, Place(run_id="r2", worktree=str(tmp_path / "2"), branch="feature/x", run_dir=str(tmp_path / "r2"))
        )


def test_a_reused_branch_keeps_its_tip(world, repository, place, tmp_path):
    """Reusing a branch goes on from what it has."""
    world.write(place, "new.txt", b"new\n")
    tip = repository.commit(place, tree=repository.snapshot(place), parent=world.base, author=AUTHOR)
    repository.close_worktree(place)
    again = Place(run_id="r2", worktree=str(tmp_path / "2"), branch="feature/x", run_dir=str(tmp_path / "r2"))
    opened(world, again, reuse_branch=True)
    assert repository.tip(again) == tip
    assert world.files(again) == {**BASE, "new.txt": b"new\n"}


@pytest.mark.usefixtures("place")
def test_a_branch_that_another_run_has_checked_out_is_refused(world, tmp_path):
    """Two worktrees never share a branch."""
    other = Place(run_id="r2", worktree=str(tmp_path / "2"), branch="feature/x", run_dir=str(tmp_path / "r2"))
    with pytest.raises(UserError, match="checked out"):
        opened(world, other, reuse_branch=True)


def test_ignored_files_are_brought_along_and_nothing_else(world, repository, closed):
    """What would be committed, or is not there, is left and said."""
    world.write_to_checkout(".env", b"SECRET=1\n")
    world.write_to_checkout("notes.txt", b"mine\n")
    warnings = opened(world, closed, copy=(".env", "notes.txt", "absent.env"))
    assert world.files(closed) == {**BASE, ".env": b"SECRET=1\n"}
    assert repository.snapshot(closed) == repository.tree_of(world.base)
    assert [warning.split(":")[0] for warning in sorted(warnings)] == [
        "`absent.env` was not copied", "`notes.txt` was not copied",
    ]  # fmt: skip


def test_closing_keeps_branch_and_pins(world, repository, place):
    """The worktree goes, what it came to stays; a second closing finds nothing to do."""
    world.write(place, "new.txt", b"new\n")
    pin = repository.pin(place, tree=repository.snapshot(place), label="story/1", author=AUTHOR)
    repository.close_worktree(place)
    repository.close_worktree(place)
    assert world.ref("refs/heads/feature/x") == world.base
    assert world.ref(pin.ref) == pin.commit


def test_what_no_ref_keeps_is_told_and_what_is_pinned_is_not(world, repository, place):
    """So that nobody removes the last copy of somebody's work; asking changes nothing."""
    world.write(place, "new.txt", b"new\n")
    assert repository.remains(place) == Remains(unkept=("new.txt",))
    repository.pin(place, tree=repository.snapshot(place), label="story/1", author=AUTHOR)
    assert repository.remains(place) == Remains()
    repository.close_worktree(place)
    assert repository.remains(place) is None


def test_refs_are_spare_only_if_somebody_else_keeps_all_their_files(world, repository, place):
    """Of two with the same files one stays; a landed pin goes; and only what is as it was is deleted."""
    world.write(place, "landed.txt", b"1\n")
    landed = repository.snapshot(place)
    first = repository.pin(place, tree=landed, label="calls/1", author=AUTHOR)
    repository.commit(place, tree=landed, parent=world.base, author=Author(message="m", at=AUTHOR.at))
    world.write(place, "lost.txt", b"2\n")
    lost = repository.snapshot(place)
    pins = [repository.pin(place, tree=lost, label=label, author=AUTHOR) for label in ("calls/2", "blocked/1")]
    found = {ref.name: ref for ref in repository.scratch_refs(place.run_id, base=world.base)}
    assert {name: ref.is_spare for name, ref in found.items()} == {
        first.ref: True,
        pins[0].ref: True,
        pins[1].ref: False,
    }
    repository.drop_refs([found[first.ref], found[pins[0].ref]])
    assert [world.ref(pin.ref) is None for pin in (first, *pins)] == [True, True, False]
    with pytest.raises(OperatorError):
        repository.drop_refs([found[pins[1].ref], found[first.ref]])
    assert world.ref(pins[1].ref) == pins[1].commit


def test_a_worktree_that_is_there_is_not_missed(repository, place):
    """Going on with a run whose worktree stands raises nothing."""
    assert repository.has_worktree(place)


def test_a_branch_with_commits_of_somebody_else_is_refused(world, repository, place):
    """Its own next commit, which a crash may have kept from the journal, is the run's; so is a branch put back."""
    base, tree = repository.tip(place), repository.snapshot(place)
    author = msgspec.structs.replace(AUTHOR, message=f"Landed\n\nStoryloop-Run: {place.run_id}\n")
    landed = repository.commit(place, tree=tree, parent=base, author=author)
    for tip in (base, landed):
        assert repository.has_worktree(place, tip=tip)
    world.write(place, "theirs.txt", b"theirs")
    world.commit_as_agent(place)
    with pytest.raises(UserError):
        repository.has_worktree(place, tip=landed)
    assert repository.has_worktree(place, tip=repository.tip(place))


def test_a_worktree_that_was_closed_is_missed_and_made_again_from_its_branch(world, repository, place):
    """Going on with a run whose worktree was taken away is going on with its branch."""
    tree = repository.tree_of(repository.tip(place))
    repository.close_worktree(place)
    assert not repository.has_worktree(place)
    repository.open_worktree(place, base=world.base, reuse_branch=True, copy=())
    assert repository.has_worktree(place)
    assert repository.snapshot(place) == tree


# --- trees --------------------------------------------------------------------------------------------


def test_a_tree_holds_created_changed_and_deleted_files_and_nothing_ignored(world, repository, place):
    """Untracked files count, ignored ones and our own directory do not."""
    world.write(place, "new dir/new.txt", b"new\n")
    world.write(place, "src/old.py", b"3\n")
    world.write(place, "debug.log", b"noise\n")
    world.write(place, "build/out.o", b"\0")
    world.write(place, ".storyloop/artifact.xml", b"<x/>")
    world.delete(place, "kept.txt")
    tree = repository.snapshot(place)
    assert world.tree(tree) == {
        ".gitignore": BASE[".gitignore"], "new dir/new.txt": b"new\n", "src/old.py": b"3\n"
    }  # fmt: skip


def test_the_same_files_are_the_same_tree(world, repository, place):
    """A tree tells files, not their history."""
    before = repository.snapshot(place)
    world.write(place, "src/old.py", b"3\n4\n")
    changed = repository.snapshot(place)
    world.write(place, "src/old.py", BASE["src/old.py"])
    assert changed != before
    assert repository.snapshot(place) == before


def test_a_change_of_the_same_size_right_after_is_seen(world, repository, place):
    """A file's time and size are no proof that it is the same: git's racy edits are caught."""
    trees = set()
    for number in range(20):
        world.write(place, "src/old.py", b"%d\n" % (number + 10))
        trees.add(repository.snapshot(place))
    assert len(trees) == 20


def test_changes_name_kind_and_lines(world, repository, place):
    """Lines are those of the file now; deleted and binary files have none; a rename is two changes."""
    world.write(place, "src/old.py", b"1\n2\n3\nno newline at the end")
    world.write(place, "moved.txt", BASE["kept.txt"])
    world.delete(place, "kept.txt")
    world.write(place, "image.png", b"\x89PNG\0\1")
    world.write(place, "empty", b"")
    base, now = repository.tree_of(world.base), repository.snapshot(place)
    counted = (
        Change("empty", ChangeKind.CREATED, 0),
        Change("image.png", ChangeKind.CREATED, None),
        Change("kept.txt", ChangeKind.DELETED, None),
        Change("moved.txt", ChangeKind.CREATED, 1),
        Change("src/old.py", ChangeKind.MODIFIED, 4),
    )
    assert repository.changes(base, now, counted=True) == counted
    assert repository.changes(base, now) == tuple(Change(change.path, change.kind) for change in counted)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.txt", '"caf\\351.txt"'),
        ("café ☕.txt".encode(), "café ☕.txt"),
        (b"-rf", "-rf"),
        (b"two\nlines", "two\nlines"),
        (b" spaces ", " spaces "),
        (b'"quoted"', '"\\"quoted\\""'),
        (b"\xff\xfe\t\\x", '"\\377\\376\\t\\\\x"'),
        (b":(glob)**", ":(glob)**"),
        (b"*", "*"),
    ],
)
def test_any_file_name_is_kept_and_shown(world, repository, place, name, shown):
    """Names are bytes; what is no text is shown as git quotes it."""
    path = os.fsdecode(name)
    world.write(place, path, b"content\n")
    tree = repository.snapshot(place)
    assert world.tree(tree) == {**BASE, path: b"content\n"}
    base = repository.tree_of(world.base)
    assert repository.changes(base, tree, counted=True) == (Change(shown, ChangeKind.CREATED, 1),)
    assert list(repository.edits(base, tree)) == [Edited(shown, b"content", b"")]
    assert list(repository.edits(tree, base)) == [Edited(shown, b"", b"content")]
    assert repository.undo_changes(place, tree=base, creations=True) == (Change(shown, ChangeKind.CREATED),)
    assert world.files(place) == BASE


# --- after an agent -----------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_was_done_to_git(world, repository, place):
    """Ordinary work is no finding."""
    repository.guard(place)
    world.write(place, "new.txt", b"new\n")
    found = settled(repository, place, world)
    assert found.findings == ()
    assert world.tree(found.tree) == {**BASE, "new.txt": b"new\n"}


def test_commits_of_an_agent_are_kept_and_taken_back(world, repository, place):
    """Its commits have a ref, the branch is where it was, the files are as the agent left them."""
    repository.guard(place)
    world.write(place, "new.txt", b"new\n")
    commit = world.commit_as_agent(place)
    world.write(place, "after.txt", b"after\n")
    found = settled(repository, place, world)
    assert [finding.what for finding in found.findings] == ["agent-commit"]
    assert repository.tip(place) == world.base
    assert world.ref(f"refs/storyloop/r1/call/agent-commits/{commit[:12]}") == commit
    assert world.tree(found.tree) == {**BASE, "new.txt": b"new\n", "after.txt": b"after\n"}


def test_settling_again_says_the_same(world, repository, place):
    """A crash between settling and its event loses no finding."""
    repository.guard(place)
    world.write(place, "new.txt", b"new\n")
    world.commit_as_agent(place)
    assert settled(repository, place, world) == settled(repository, place, world)
    assert settled(repository, place, world, label="next").findings == ()


def test_a_switched_branch_is_put_back_with_its_commits_where_they_are(world, repository, place):
    """Commits on another branch stay on that branch."""
    repository.guard(place)
    world.switch_branch(place, "elsewhere")
    world.write(place, "new.txt", b"new\n")
    commit = world.commit_as_agent(place)
    found = settled(repository, place, world)
    assert [finding.what for finding in found.findings] == ["switched-branch"]
    assert (repository.tip(place), world.ref("refs/heads/elsewhere")) == (world.base, commit)
    assert world.tree(found.tree) == {**BASE, "new.txt": b"new\n"}


def test_a_missing_git_file_is_put_back(world, repository, place):
    """An agent that deletes `.git` loses nothing, and is told of."""
    repository.guard(place)
    world.write(place, "new.txt", b"new\n")
    world.break_git_file(place)
    found = settled(repository, place, world)
    assert [finding.what for finding in found.findings] == ["git-file"]
    assert world.tree(found.tree) == {**BASE, "new.txt": b"new\n"}
    assert settled(repository, place, world, label="next").findings == ()


# --- pins and commits ---------------------------------------------------------------------------------


def test_a_pin_keeps_a_tree_through_a_reset(world, repository, place):
    """What was pinned can be found when the worktree has long gone on."""
    world.write(place, "new.txt", b"new\n")
    tree = repository.snapshot(place)
    pin = repository.pin(place, tree=tree, label="US-001/1", author=AUTHOR)
    repository.reset(place, commit=world.base)
    assert pin.ref.startswith("refs/storyloop/r1/US-001/1")
    assert world.ref(pin.ref) == pin.commit
    assert world.describe(pin.commit) == (tree, world.base, AUTHOR.message)


def test_pinning_again_is_the_same_pin(repository, place):
    """The same label and tree are one pin, also a moment later."""
    tree = repository.snapshot(place)
    first = repository.pin(place, tree=tree, label="US-001/1", author=AUTHOR)
    later = Author(message=AUTHOR.message, at=datetime(2025, 6, 2, tzinfo=UTC))
    assert repository.pin(place, tree=tree, label="US-001/1", author=AUTHOR) == first
    assert repository.pin(place, tree=tree, label="US-001/1", author=later) == first


def test_a_label_pinned_with_other_files_loses_neither(world, repository, place):
    """Files that changed between a crash and its repetition are kept beside the first ones."""
    first = repository.pin(place, tree=repository.snapshot(place), label="US-001/1", author=AUTHOR)
    world.write(place, "new.txt", b"new\n")
    second = repository.pin(place, tree=repository.snapshot(place), label="US-001/1", author=AUTHOR)
    assert second.ref != first.ref
    assert (world.ref(first.ref), world.ref(second.ref)) == (first.commit, second.commit)


def test_labels_may_be_nested(world, repository, place):
    """`a` and `a/b` are both good labels, though git cannot have refs of those names."""
    tree = repository.snapshot(place)
    pins = [repository.pin(place, tree=tree, label=label, author=AUTHOR) for label in ("a", "a/b", "a/b/c")]
    assert [world.ref(pin.ref) for pin in pins] == [pin.commit for pin in pins]


def test_a_commit_holds_exactly_the_tree_it_was_given(world, repository, place):
    """Files that changed after the proof are not committed, and not lost."""
    world.write(place, "new.txt", b"proven\n")
    proven = repository.snapshot(place)
    world.write(place, "new.txt", b"changed since\n")
    commit = repository.commit(place, tree=proven, parent=world.base, author=AUTHOR)
    assert repository.tip(place) == commit
    assert world.describe(commit) == (proven, world.base, AUTHOR.message)
    assert world.tree(repository.snapshot(place)) == {**BASE, "new.txt": b"changed since\n"}


def test_a_commit_made_twice_is_one_commit(world, repository, place):
    """The repetition after a crash finds its own commit."""
    world.write(place, "new.txt", b"new\n")
    tree = repository.snapshot(place)
    first = repository.commit(place, tree=tree, parent=world.base, author=AUTHOR)
    assert repository.commit(place, tree=tree, parent=world.base, author=AUTHOR) == first
    assert repository.tip(place) == first


def test_a_branch_that_somebody_moved_is_not_committed_to(world, repository, place):
    """Compare-and-set: a commit never covers another one."""
    world.write(place, "new.txt", b"new\n")
    tree = repository.snapshot(place)
    moved = repository.commit(place, tree=tree, parent=world.base, author=AUTHOR)
    other = Author(message="Another\n", at=AUTHOR.at)
    with pytest.raises(OperatorError, match="was moved"):
        repository.commit(place, tree=tree, parent=world.base, author=other)
    assert repository.tip(place) == moved


def test_after_a_commit_the_worktree_is_clean(world, repository, place):
    """The next story starts where the last one ended."""
    world.write(place, "new.txt", b"new\n")
    tree = repository.snapshot(place)
    commit = repository.commit(place, tree=tree, parent=world.base, author=AUTHOR)
    assert repository.settle(place, expected_tip=commit, label="next").tree == repository.tree_of(commit) == tree


# --- undoing ------------------------------------------------------------------------------------------


def test_a_reset_leaves_the_commit_and_what_is_ignored(world, repository, place):
    """Changed files come back, new ones go, ignored ones and our own stay."""
    world.write(place, "src/old.py", b"3\n")
    world.write(place, "new/dir/new.txt", b"new\n")
    world.write(place, "debug.log", b"noise\n")
    world.write(place, "build/out.o", b"\0")
    world.write(place, ".storyloop/handover.md", b"ours\n")
    world.delete(place, "kept.txt")
    repository.snapshot(place)
    repository.reset(place, commit=world.base)
    assert world.files(place) == {**BASE, "debug.log": b"noise\n", "build/out.o": b"\0"}
    assert repository.snapshot(place) == repository.tree_of(world.base)
    assert repository.tip(place) == world.base


def test_a_reset_moves_the_branch_back(world, repository, place):
    """Reset takes branch and files to the commit it is given."""
    world.write(place, "new.txt", b"new\n")
    repository.commit(place, tree=repository.snapshot(place), parent=world.base, author=AUTHOR)
    repository.reset(place, commit=world.base)
    assert repository.tip(place) == world.base
    assert world.files(place) == BASE


MERGES = {  # what is pinned, what lands meanwhile, and the files that come of both besides the base's, or the clash
    "another file": ({"new.txt": b"1"}, {"other.txt": b"2"}, {"new.txt": b"1", "other.txt": b"2"}),
    "the same": ({"kept.txt": b"1"}, {"kept.txt": b"1"}, {"kept.txt": b"1"}),
    "nothing pinned": ({}, {"kept.txt": b"2"}, {"kept.txt": b"2"}),
    "nothing landed": ({"kept.txt": b"1"}, {}, {"kept.txt": b"1"}),
    "a deletion": ({"kept.txt": None}, {"other.txt": b"2"}, {"kept.txt": None, "other.txt": b"2"}),
    "the same place": ({"kept.txt": b"1\n"}, {"kept.txt": b"2\n"}, "kept.txt"),
    "a change of what was deleted": ({"kept.txt": None}, {"kept.txt": b"2\n"}, "kept.txt"),
    "two new files of one name": ({"new.txt": b"1\n"}, {"new.txt": b"2\n"}, "new.txt"),
}


@pytest.mark.parametrize(("pinned", "landed", "expected"), MERGES.values(), ids=MERGES)
def test_pinned_work_is_merged_onto_what_has_landed_since(world, repository, place, pinned, landed, expected):
    """Or it clashes, and what comes names the file and holds both sides; the worktree is as it was."""

    def changed(files):
        for path, content in files.items():
            world.delete(place, path) if content is None else world.write(place, path, content)
        return repository.snapshot(place)

    base = repository.tip(place)
    pin = repository.pin(place, tree=changed(pinned), label="US-001/1", author=AUTHOR)
    repository.reset(place, commit=base)
    tip = base if not landed else repository.commit(place, tree=changed(landed), parent=base, author=AUTHOR)
    before = world.files(place)
    merged = repository.merged(pin.commit, tip)
    if isinstance(expected, str):
        assert merged.clashes == (expected,)
        marked = world.tree(merged.tree)[expected]
        assert [
            line for line in marked.splitlines() if not line.startswith((b"<<<<<<< ", b"=======", b">>>>>>> "))
        ] == [side.strip() for side in (landed[expected], pinned[expected]) if side is not None]
        assert marked.startswith(b"<<<<<<< ") is (pinned[expected] is not None)
    else:
        kept = {path: content for path, content in {**BASE, **expected}.items() if content is not None}
        assert (world.tree(merged.tree), merged.clashes) == (kept, ())
    assert world.files(place) == before


def test_edits_are_the_lines_that_came_and_went(world, repository, place):
    """Line by line, with the file they stand in; what is binary is not told."""
    before = repository.snapshot(place)
    world.write(place, "src/old.py", BASE["src/old.py"] + b"key = 1\n++ plus\n")
    world.write(place, "new dir/new.txt", b"one\n+++ b/x\ntwo")
    world.delete(place, "kept.txt")
    after = repository.snapshot(place)
    came = [
        Edited("kept.txt", b"", b"kept"),
        Edited("new dir/new.txt", b"one\n+++ b/x\ntwo", b""),
        Edited("src/old.py", b"key = 1\n++ plus", b""),
    ]
    assert list(repository.edits(before, after)) == came
    assert list(repository.edits(after, before)) == [Edited(e.path, e.removed, e.added) for e in came]
    assert list(repository.edits(after, after)) == []


def test_contents_are_those_of_the_named_files_that_are_small_enough(world, repository, place):
    """Whatever is in their names and bytes; what is not there, not named or too large is left out."""
    world.write(place, "a[1].py", b"one\n\0two")
    world.write(place, ":!new.py", b"")
    world.write(place, "new dir/\t.py", b"three\n")
    world.write(place, "large.py", b"0123456789")
    world.write(place, "a1.py", b"of no name that is asked for")
    tree = repository.snapshot(place)
    world.write(place, "a[1].py", b"later")
    paths = ("large.py", "new dir/\t.py", "a[1].py", "gone.py", ":!new.py")
    assert dict(repository.contents(tree, paths, most=9)) == {
        ":!new.py": b"", "a[1].py": b"one\n\0two", "new dir/\t.py": b"three\n",
    }  # fmt: skip
    assert dict(repository.contents(tree, ("large.py",), most=10)) == {"large.py": b"0123456789"}
    assert list(repository.contents(tree, (), most=9)) == []


def test_a_graft_has_the_wanted_files_of_another_tree_and_else_its_own(world, repository, place):
    """Changed, new and oddly named ones; what the other has deleted stays, and the worktree is not touched."""
    before = repository.snapshot(place)
    world.write(place, "tests/new dir/\t.py", b"new\n")
    world.write(place, "tests/caf\udce9.py", b"odd\n")
    world.write(place, "src/old.py", b"work\n")
    world.write(place, "kept.txt", b"changed\n")
    world.delete(place, ".gitignore")
    after = repository.snapshot(place)
    files = world.files(place)
    chosen = ("tests/", '"tests/caf\\351.py"', "kept.txt", ".gitignore")
    grafted = repository.graft(place, base=before, tree=after, wanted=lambda path: path.startswith(chosen))
    odd = {"tests/new dir/\t.py": b"new\n", "tests/caf\udce9.py": b"odd\n"}
    assert world.tree(grafted) == {**BASE, **odd, "kept.txt": b"changed\n"}
    assert repository.graft(place, base=before, tree=after, wanted=lambda _: False) == before
    assert (world.files(place), repository.snapshot(place)) == (files, after)


def test_what_a_check_changed_is_undone_and_its_creations_left(world, repository, place):
    """A check's changes to files of the tree are told and undone; new files stay for the next check."""
    world.write(place, "work.py", b"work\n")
    tree = repository.snapshot(place)
    world.write(place, "work.py", b"formatted\n")
    world.delete(place, "kept.txt")
    world.write(place, "coverage.xml", b"<coverage/>")
    assert repository.undo_changes(place, tree=tree) == (
        Change("kept.txt", ChangeKind.DELETED), Change("work.py", ChangeKind.MODIFIED),
    )  # fmt: skip
    assert world.files(place) == {**BASE, "work.py": b"work\n", "coverage.xml": b"<coverage/>"}
    undone = repository.undo_changes(place, tree=tree, creations=True)
    assert undone == (Change("coverage.xml", ChangeKind.CREATED),)
    assert repository.snapshot(place) == tree


def test_undoing_works_too_when_the_changes_were_looked_at_before(world, repository, place):
    """A snapshot between check and undoing does not make the check's files part of the work."""
    world.write(place, "work.py", b"work\n")
    tree = repository.snapshot(place)
    world.write(place, "work.py", b"formatted\n")
    world.write(place, "out/coverage.xml", b"<coverage/>")
    assert repository.snapshot(place) != tree
    assert repository.undo_changes(place, tree=tree, creations=True) == (
        Change("out/coverage.xml", ChangeKind.CREATED), Change("work.py", ChangeKind.MODIFIED),
    )  # fmt: skip
    assert repository.snapshot(place) == tree


def test_a_check_that_changed_nothing_is_told_nothing(world, repository, place):
    """Ignored leftovers are no change and no creation."""
    world.write(place, "work.py", b"work\n")
    tree = repository.snapshot(place)
    world.write(place, "build/out.o", b"\0")
    assert repository.undo_changes(place, tree=tree, creations=True) == ()
    assert "build/out.o" in world.files(place)


def test_what_set_up_made_is_ignored_from_then_on(world, repository, place):
    """Unignored leftovers of set-up survive and are part of no tree; a new directory is one path."""
    tree = repository.tree_of(world.base)
    world.write(place, ".venv/lib/site.py", b"venv\n")
    world.write(place, "src/gen [1].py", b"generated\n")
    assert repository.ignore_creations(place, tree=tree) == (".venv/", "src/gen [1].py")
    assert repository.snapshot(place) == tree
    world.write(place, ".venv/lib/later.py", b"venv\n")
    world.write(place, "src/gen 1.py", b"work\n")
    work = repository.snapshot(place)
    assert world.tree(work) == {**BASE, "src/gen 1.py": b"work\n"}
    repository.reset(place, commit=world.base)
    assert world.files(place) == {
        **BASE, ".venv/lib/site.py": b"venv\n", ".venv/lib/later.py": b"venv\n", "src/gen [1].py": b"generated\n"
    }  # fmt: skip


def test_a_scrub_leaves_the_commit_and_nothing_else(world, repository, closed):
    """Ignored files go, and what set-up made; what is ours stays, files to bring along come anew. Twice is once."""
    world.write_to_checkout(".env", b"SECRET=1\n")
    opened(world, closed, copy=(".env",))
    tree = repository.tree_of(world.base)
    world.write(closed, ".venv/site.py", b"venv\n")
    repository.ignore_creations(closed, tree=tree)
    world.write(closed, "new.txt", b"new\n")
    world.delete(closed, "kept.txt")
    commit = repository.commit(closed, tree=repository.snapshot(closed), parent=world.base, author=AUTHOR)
    world.write(closed, ".env", b"SECRET=by the agent\n")
    world.write(closed, "build/out.o", b"\0")
    world.write(closed, "src/old.py", b"changed\n")
    world.write(closed, "stray.txt", b"stray\n")
    world.write(closed, ".storyloop/handover.md", b"ours\n")
    wanted = {**BASE, "new.txt": b"new\n", ".env": b"SECRET=1\n"}
    del wanted["kept.txt"]
    for _ in range(2):
        repository.scrub(closed, commit=commit, copy=(".env", "absent.env"))
        assert world.files(closed) == wanted
        assert repository.snapshot(closed) == repository.tree_of(commit)
    assert (repository.tip(closed), world.keeps(closed, ".storyloop/handover.md")) == (commit, True)
    world.write(closed, ".venv/site.py", b"venv\n")  # no longer ignored: whoever sets it up again has to say so
    assert repository.snapshot(closed) != repository.tree_of(commit)


# --- pushing ------------------------------------------------------------------------------------------


def order(commit: str, *, own: str = "", base: str = "main", remote: str = "origin") -> PushOrder:
    return PushOrder(remote=remote, commit=commit, own=own, base=base)


def landed(repository: Repository, place: Place, parent: str, name: str) -> str:
    """One more commit on the run's branch, with git's settings as they are now."""
    repository.guard(place)
    tree = repository.settle(place, expected_tip=parent, label=name).tree
    return repository.commit(place, tree=tree, parent=parent, author=Author(message=f"{name}\n", at=AUTHOR.at))


def test_a_branch_is_pushed_and_again_with_what_is_new(world, repository, place):
    """The remote has each commit; what is there already is left, and so is what stands on top of it; what we pushed
    and then took back ourselves is said to be there."""
    world.add_remote()
    one = landed(repository, place, world.base, "one")
    pushed = repository.push(place, order(one), threading.Event())
    assert pushed == Pushed(remote="origin", commit=one, base="main")
    assert world.remote() == {"main": world.base, place.branch: one}

    world.write(place, "two.txt", b"2\n")
    two = landed(repository, place, one, "two")
    repository.push(place, order(two, own=one), threading.Event())
    repository.push(place, order(two, own=two), threading.Event())
    assert world.remote() == {"main": world.base, place.branch: two}
    repository.push(place, order(one, own=one), threading.Event())
    with pytest.raises(ForgeTrouble, match="still has what was pushed and then undone"):
        repository.push(place, order(one, own=two), threading.Event())
    assert world.remote() == {"main": world.base, place.branch: two}


def test_what_we_pushed_ourselves_may_be_replaced(world, repository, place):
    """By a commit that does not stand on it; nobody else's may."""
    world.add_remote()
    one = landed(repository, place, world.base, "one")
    repository.push(place, order(one), threading.Event())
    repository.reset(place, commit=world.base)
    world.write(place, "other.txt", b"1\n")
    other = landed(repository, place, world.base, "other")
    with pytest.raises(ForgeTrouble, match="has commits that this run does not know") as refused:
        repository.push(place, order(other), threading.Event())
    assert refused.value.trouble is Trouble.REJECTED

    repository.push(place, order(other, own=one), threading.Event())
    assert world.remote()[place.branch] == other


def test_commits_that_nobody_here_knows_are_not_overwritten(world, repository, place):
    """Whatever we pushed before."""
    world.add_remote()
    theirs = world.push_as_another(place)
    for own in ("", world.base):
        with pytest.raises(ForgeTrouble, match="has commits that this run does not know"):
            repository.push(place, order(landed(repository, place, world.base, "one"), own=own), threading.Event())
        repository.reset(place, commit=world.base)
    assert world.remote()[place.branch] == theirs


def test_a_branch_that_was_deleted_on_the_remote_stays_so(world, repository, place):
    """It was merged, perhaps."""
    world.add_remote()
    one = landed(repository, place, world.base, "one")
    repository.push(place, order(one), threading.Event())
    world.delete_from_remote(place)
    with pytest.raises(ForgeTrouble, match="was deleted on the remote origin"):
        repository.push(place, order(one, own=one), threading.Event())
    assert place.branch not in world.remote()


@pytest.mark.parametrize(
    ("empty", "branch", "remote", "words"),
    [
        (False, "main", "origin", "main is the default branch of the remote origin, which is never pushed"),
        (True, "feature/x", "origin", "The remote origin has no default branch yet"),
        (False, "feature/x", "upstream", "The repository has no remote upstream"),
        (False, "feature/x", "--all", "The repository has no remote --all"),
    ],
)
def test_what_is_never_pushed_is_said(world, repository, place, empty, branch, remote, words):
    """And the remote is as it was."""
    world.add_remote(empty=empty)
    before = world.remote()
    at = msgspec.structs.replace(place, branch=branch)
    with pytest.raises(ForgeTrouble, match=words):
        repository.push(at, order(world.base, remote=remote), threading.Event())
    assert world.remote() == before


def test_a_pull_request_goes_to_the_branch_that_was_begun_from_if_the_remote_has_it(world, repository, place):
    """Else to the default branch."""
    world.add_remote()
    develop = msgspec.structs.replace(place, branch="develop")
    repository.push(develop, order(world.base), threading.Event())
    one = landed(repository, place, world.base, "one")
    assert repository.push(place, order(one, base="develop"), threading.Event()).base == "develop"
    assert repository.push(place, order(one, base="elsewhere"), threading.Event()).base == "main"


def test_a_push_that_is_stopped_comes_to_nothing(world, repository, place):
    """No word of it."""
    world.add_remote()
    stop = threading.Event()
    stop.set()
    assert repository.push(place, order(landed(repository, place, world.base, "one")), stop) is None
