"""`run --no-worktree`: a run in the user's own checkout, on the branch that it is at; nothing of hers is lost by it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User
from gitkit import commit_files, git, isolated, make_repository, write_file
from storyloop.core.errors import UserError
from storyloop.ports.repository import Place
from storyloop.world.checkout import GitCheckout
from storyloop.world.repository import GitRepository
from storyloop.world.sandbox import why_not

IGNORED = {".env": "KEEP=me\n", "node_modules/left/index.js": "1\n", "deep/notes.log": "mine\n"}


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """She is at feature/x in a clean checkout, with files that git ignores, an empty directory, a stash, a branch."""
    user = User(tmp_path)
    user.makes_a_repository({"README": "A project.\n", ".gitignore": ".env\nnode_modules/\n*.log\n", "deep/a": "a\n"})
    user.has_an_agent()
    user.git("branch", "others")
    write_file(user.repo / "README", "Stashed.\n")
    user.git("stash", "-q")
    user.git("switch", "-q", "-c", "feature/x")
    for name, content in IGNORED.items():
        write_file(user.repo / name, content)
    (user.repo / "uploads").mkdir()
    yield user
    user.leaves()


def hers(user: User) -> dict[str, object]:
    """What is hers, and no part of any run."""
    ignored = {name: path.read_text() for name in IGNORED if (path := user.repo / name).is_file()}
    return {
        "ignored": ignored,
        "empty": (user.repo / "uploads").is_dir(),
        "refs": user.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads/main", "refs/heads/others"),
        "stash": user.git("stash", "list"),
        "config": user.git("config", "--local", "--list"),
        "worktrees": user.git("worktree", "list").splitlines()[1:],
    }


def row(user: User) -> dict[str, str]:
    """Her newest run."""
    return user.asks("status", "--json").rows[0]


def kept(user: User, label: str) -> list[str]:
    """Refs of the run's pins whose names have this in them."""
    return [ref for ref in user.git("for-each-ref", "--format=%(refname)", "refs/storyloop").split() if label in ref]


def test_a_run_ships_in_the_users_own_checkout(user: User) -> None:
    """On her branch, in her files, with her index at the last commit; nothing of ours is left there."""
    before = hers(user)
    done = user.asks("run", user.has_a_spec("US-001", "US-002"), "--no-worktree")
    assert done.code == 0, done.err
    assert "your own checkout" in done.err
    assert user.git("log", "--format=%s", "main..feature/x") == "US-002: Make US-002\nUS-001: Make US-001"
    assert (user.repo / "US-002.txt").exists()
    assert user.git("status", "--porcelain", "--ignored=matching").split() == [
        "!!", ".env", "!!", "deep/notes.log", "!!", "node_modules/",
    ]  # fmt: skip
    assert user.git("symbolic-ref", "--short", "HEAD") == "feature/x"
    assert hers(user) == before
    assert (row(user)["session_id"], row(user)["worktree"]) == ("main", str(user.repo))
    start = user.git("rev-parse", f"refs/storyloop/{row(user)['run_id']}/start")
    assert start == user.git("rev-parse", "main")
    assert [path.name for path in user.place.iterdir() if path.name.startswith("repo-")] == []


def test_the_work_of_a_blocked_story_is_taken_out_and_kept_and_what_is_ignored_stays(user: User) -> None:
    """Also where an agent has git ignore it no longer, and where it wrote beside it; the other story goes on."""
    user.git("switch", "-q", "main")
    user.has_an_agent(
        'echo "$STORYLOOP_STORY" >"$STORYLOOP_STORY.txt"; [ $STORYLOOP_STORY = US-002 ] && answer completed && exit\n'
        'echo "*.tmp" >.gitignore; mkdir -p deep/er; echo x >deep/er/b; echo x >node_modules/more; rm deep/a\n'
        "answer failed No. Ask.\n",
        settings="[limits]\ncontinuations = 1\n",
    )
    user.git("switch", "-q", "feature/x")
    user.git("merge", "-q", "main")
    before = hers(user)
    assert user.asks("run", user.has_a_spec("US-001", "US-002"), "--no-worktree", "-q").code == 1
    assert hers(user) == before
    assert user.git("status", "--porcelain") == ""
    assert user.git("log", "--format=%s", "main..feature/x") == "US-002: Make US-002"
    assert not (user.repo / "deep/er").exists()
    (ref,) = kept(user, "/blocked/")
    listed = user.git("ls-tree", "-r", "--name-only", ref).split()
    assert listed == [".gitignore", "README", "US-001.txt", "deep/er/b", "storyloop.toml"]


def test_the_final_proof_takes_a_clean_worktree_beside(user: User) -> None:
    """What git ignores in the checkout proves nothing, and stays."""
    user.git("switch", "-q", "main")
    user.has_an_agent('echo hidden >US-001.txt; echo "$STORYLOOP_STORY" >seen; answer completed\n')
    commit_files(user.repo, {".gitignore": ".env\nnode_modules/\n*.log\nUS-001.txt\n"}, env=user.env)
    user.git("switch", "-q", "feature/x")
    user.git("merge", "-q", "main")
    before = hers(user)
    assert user.asks("run", user.has_a_spec(), "--no-worktree", "-q").code == 1
    (story,) = user.asks("show", "--json").rows["stories"]
    assert (story["state"], "red on the final tree" in story["reason"]) == ("blocked", True)
    assert (user.repo / "US-001.txt").read_text() == "hidden\n"
    assert hers(user) == before


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_and_nothing_of_hers_is_lost(user: User) -> None:
    """With -9, at ever later deeds, until it gets through."""
    spec, before = user.has_a_spec("US-001", "US-002"), hers(user)
    killed = 0
    words: tuple[str, ...] = ("run", str(spec), "--no-worktree", "-q")
    for number in range(20, 800, 14):
        done = user.asks_killed_at(number, *words)
        there = hers(user)
        assert {**there, "worktrees": []} == before
        if done.code == 0:
            break
        assert done.code == -signal.SIGKILL, done.err
        killed += 1
        if user.asks("status", "--json").rows:
            words = ("resume", "-q")
    assert killed > 4
    assert hers(user) == before
    assert user.git("log", "--format=%s", "main..feature/x") == "US-002: Make US-002\nUS-001: Make US-001"
    assert user.git("status", "--porcelain") == ""
    assert not (user.repo / ".storyloop").exists()


def test_a_set_up_that_fails_leaves_nothing_of_ours(user: User) -> None:
    """It ran in her checkout, because she told it to."""
    commit_files(user.repo, {"storyloop.toml": f"{(user.repo / 'storyloop.toml').read_text()}"
        "[worktree]\nsetup = ['touch set-up.log; exit 1']\n"}, env=user.env)  # fmt: skip
    assert user.asks("run", user.has_a_spec(), "--no-worktree", "-q").code == 1
    assert (user.repo / "set-up.log").exists()
    assert not (user.repo / ".storyloop").exists()


def test_a_run_is_gone_on_with_only_where_it_was_left(user: User) -> None:
    """At another branch its user is at something; so is who has committed, or has begun to change files."""
    spec, before = user.has_a_spec("US-001", "US-002"), hers(user)
    assert user.asks("run", spec, "--no-worktree", "--step", "-q").code == 3
    user.git("stash", "-u", "-q")
    (user.repo / "uploads").mkdir()  # which git took along
    user.git("switch", "-q", "others")
    write_file(user.repo / "README", "Mine.\n")
    elsewhere = user.asks("resume", "--no-step", "-q")
    assert (elsewhere.code, "is at others, and the run there is on feature/x" in elsewhere.err) == (2, True)
    refused = user.asks("undo", row(user)["run_id"], "--yes")
    assert (refused.code, "git switch feature/x" in refused.err) == (2, True)
    user.asks("clean", "--yes", "--older-than", "1ms")
    assert user.git("symbolic-ref", "--short", "HEAD") == "others"
    assert (user.repo / "README").read_text() == "Mine.\n"
    user.git("checkout", "-q", "README")
    user.git("switch", "-q", "feature/x")
    commit_files(user.repo, {"mine.txt": "mine\n"}, env=user.env)
    moved = user.asks("resume", "--no-step", "-q")
    assert (moved.code, "not where the run has left it" in moved.err) == (2, True)
    user.git("reset", "-q", "--keep", "HEAD~1")
    assert user.asks("resume", "--parallel", "2", "-q").code == 2
    assert user.asks("resume", "-q").code == 3
    user.git("stash", "drop", "-q")
    assert hers(user) == before


def test_what_she_changed_while_it_was_away_is_never_lost(user: User) -> None:
    """With work in hand a ref keeps it; without, the run is not gone on with."""
    assert user.asks("run", user.has_a_spec("US-001", "US-002"), "--no-worktree", "--step", "-q").code == 3
    write_file(user.repo / "mine.txt", "mine\n")
    user.asks("approve", row(user)["run_id"])
    assert user.asks("resume", "--step", "-q").code == 3
    assert [user.git("show", f"{ref}:mine.txt") for ref in kept(user, "besides")] == ["mine"]
    user.asks("approve", row(user)["run_id"])
    assert user.asks("resume", "--no-step", "-q").code == 0
    write_file(user.repo / "mine.txt", "mine\n")
    user.git("config", "my.own", "setting")
    refused = user.asks("undo", row(user)["run_id"], "--yes")
    assert (refused.code, "no work of the run" in refused.err) == (2, True)
    assert (user.repo / "mine.txt").read_text() == "mine\n"
    (user.repo / "mine.txt").unlink()
    assert user.asks("undo", row(user)["run_id"], "--yes").code == 0
    assert user.git("config", "my.own") == "setting"
    assert user.git("log", "--format=%s", "main..feature/x") == "US-001: Make US-001"
    assert not (user.repo / ".storyloop").exists()
    assert user.asks("resume", "-q").code == 0


def test_an_ended_run_leaves_the_checkout_to_its_user(user: User) -> None:
    """Nothing that is asked about it later touches what she is at there."""
    assert user.asks("run", user.has_a_spec(), "--no-worktree", "-q").code == 0
    run = row(user)["run_id"]
    user.git("switch", "-q", "others")
    write_file(user.repo / "README", "Mine.\n")
    write_file(user.repo / "new.txt", "mine\n")
    before = user.git("status", "--porcelain", "-b"), (user.repo / "README").read_text()
    assert user.asks("fork", run, "--at", "branch", "--branch", "feature/y", "-q").code == 0
    user.has_a_spec("US-003")
    assert user.asks("improve", "feature/x", user.place / "spec.md", "-q").code == 0
    user.asks("clean", "--yes", "--older-than", "1ms")
    assert (user.git("status", "--porcelain", "-b"), (user.repo / "README").read_text()) == before
    assert user.git("log", "--format=%s", "main..feature/x") == "US-003: Make US-003\nUS-001: Make US-001"


def test_one_run_at_a_time_has_the_checkout(user: User) -> None:
    """What broke off there is gone on with first; who has ended is in nobody's way, nor is another branch's spec."""
    spec = user.has_a_spec()
    assert user.asks("run", spec, "--no-worktree", "--step", "-q").code == 3
    parked = row(user)["run_id"]
    user.git("stash", "-u", "-q")
    assert user.asks_killed_at(60, "run", str(spec), "--no-worktree", "-q").code == -signal.SIGKILL
    user.git("stash", "-u", "-q")
    refused = user.asks("run", spec, "--no-worktree")
    assert (refused.code, "storyloop resume" in refused.err) == (2, True)
    broken_off = row(user)["run_id"]
    for words in (("resume", parked), ("undo", parked, "--yes")):
        held = user.asks(*words)
        assert (held.code, f"Run {broken_off[:8]} broke off" in held.err) == (2, True)
    assert user.asks("resume", broken_off, "-q").code == 0
    again = user.asks("run", user.has_a_spec("US-002"), "--no-worktree", "-q")
    assert again.code == 0, again.err
    opened = len(user.asks("status", "--json").rows)
    built = user.asks("run", user.has_a_spec("US-003"), "--reuse-branch")
    assert (built.code, "is checked out at" in built.err) == (2, True)
    assert len(user.asks("status", "--json").rows) == opened


def test_what_an_agent_does_to_git_is_undone_in_the_checkout_too(user: User) -> None:
    """Its commits, another branch checked out, a dropped stash, config and hooks, a merge it left."""
    user.git("switch", "-q", "main")
    user.has_an_agent(
        'echo "$STORYLOOP_STORY" >"$STORYLOOP_STORY.txt"; git add -A; git commit -q -m mine; echo y >y; git add y\n'
        "git config core.fsmonitor ./evil; echo exit 1 >.git/hooks/pre-commit; git stash drop -q\n"
        "git checkout -q --detach; echo x >.git/MERGE_HEAD; touch .git/index.lock; answer completed\n",
    )
    user.git("switch", "-q", "feature/x")
    user.git("merge", "-q", "main")
    stash, before = user.git("rev-parse", "stash"), hers(user)
    assert user.asks("run", user.has_a_spec(), "--no-worktree", "-q").code == 0
    assert hers(user) == {**before, "stash": ""}
    assert [user.git("rev-parse", ref) for ref in kept(user, "/stash/")] == [stash]
    assert user.git("log", "--format=%s", "main..feature/x") == "US-001: Make US-001"
    assert user.git("symbolic-ref", "--short", "HEAD") == "feature/x"
    assert user.git("status", "--porcelain") == ""
    assert not [name for name in ("hooks/pre-commit", "MERGE_HEAD") if (user.repo / ".git" / name).exists()]


@pytest.mark.skipif(why_not() is not None, reason="bubblewrap does not work here")
def test_a_sandbox_fences_git_in_the_checkout_as_in_a_worktree(user: User) -> None:
    """The files are the agent's to write, git's are not."""
    user.git("switch", "-q", "main")
    user.has_an_agent(
        'echo "$STORYLOOP_STORY" >"$STORYLOOP_STORY.txt"; git add -A 2>>out; echo x >.git/evil; mv .git moved\n'
        "answer completed\n"
    )
    settings = (user.repo / "storyloop.toml").read_text().replace('"off"', '"require"')
    commit_files(user.repo, {"storyloop.toml": settings}, env=user.env)
    user.git("switch", "-q", "feature/x")
    user.git("merge", "-q", "main")
    before = hers(user)
    assert user.asks("run", user.has_a_spec(), "--no-worktree", "-q").code == 0
    assert "Read-only file system" in user.git("show", "feature/x:out")
    assert not (user.repo / ".git/evil").exists()
    assert hers(user) == before


@pytest.mark.parametrize(
    ("words", "branch", "told"),
    [
        ((), "feature/z", "`git switch -c feature/z`"),
        ((), "others", "`git switch others`"),
        (("--parallel", "2"), "feature/x", "works on one story at a time"),
        (("--reuse-branch",), "feature/x", "no --reuse-branch"),
        (("other.md",), "feature/x", "one SPEC"),
    ],
)
def test_what_does_not_go_together_is_refused(user: User, words: tuple[str, ...], branch: str, told: str) -> None:
    """Before anything is written."""
    write_file(user.place / "other.md", "")
    words = tuple(str(user.place / word) if word.endswith(".md") else word for word in words)
    before = user.git("for-each-ref")
    done = user.asks("run", user.has_a_spec(branch=branch), "--no-worktree", *words)
    assert (done.code, told in done.err) == (2, True), done.err
    assert (user.git("for-each-ref"), user.asks("status", "--json").rows) == (before, [])


def test_a_spec_without_a_branch_is_run_on_the_one_that_is_checked_out(user: User) -> None:
    """From below, too; and a worktree that she added is a checkout of hers like any other."""
    linked = user.place / "linked"
    user.git("worktree", "add", "-q", "-b", "feature/y", str(linked))
    write_file(linked / ".env", "KEEP=me\n")
    spec = user.has_a_spec()
    spec.write_text(spec.read_text().replace("## Branch\nfeature/x\n", ""))
    done = user.asks("run", spec, "--no-worktree", "-q", cwd=linked / "deep")
    assert done.code == 0, done.err
    assert user.git("log", "--format=%s", "main..feature/y") == "US-001: Make US-001"
    assert (row(user)["worktree"], row(user)["session_id"] != "main") == (str(linked), True)
    assert (linked / ".env").exists()
    assert user.git("-C", str(linked), "status", "--porcelain") == ""
    assert len(user.git("worktree", "list").splitlines()) == 2


def test_entering_that_broke_off_is_completed(tmp_path: Path) -> None:
    """Our own directory was half-made by then; the commit that is kept is the first one."""
    env, repo = isolated(tmp_path / "home"), tmp_path / "repo"
    start = make_repository(repo, {"a": "a\n"}, env=env)
    git(repo, "switch", "-q", "-c", "x", env=env)
    place = Place(run_id="run", worktree=str(repo), branch="x", run_dir=str(tmp_path / "run"))
    for _ in range(2):
        repository = GitRepository(identity=str(repo / ".git"), checkout=str(repo), environ=env)
        assert repository.open_worktree(place, base=start, reuse_branch=True, copy=()) == ()
        (repo / ".storyloop/.gitignore").rename(repo / ".storyloop/.gitignore.new")
        next((tmp_path / "run/git").glob("*/opened.json")).unlink()
    assert git(repo, "for-each-ref", "--format=%(objectname)", "refs/storyloop/run/start", env=env) == start


def test_the_settings_of_the_worktree_beside_are_its_own(tmp_path: Path) -> None:
    """What git keeps for the one alone is not taken for a change of the other's."""
    env, repo = isolated(tmp_path / "home"), tmp_path / "repo"
    start = make_repository(repo, {"a": "a\n"}, env=env)
    git(repo, "switch", "-q", "-c", "x", env=env)
    git(repo, "config", "extensions.worktreeConfig", "true", env=env)
    git(repo, "config", "--worktree", "some.thing", "here", env=env)
    own = Place(run_id="run", worktree=str(repo), branch="x", run_dir=str(tmp_path / "run"))
    beside = Place(run_id="run", worktree=str(tmp_path / "beside"), branch="y", run_dir=str(tmp_path / "run"))
    repository = GitRepository(identity=str(repo / ".git"), checkout=str(repo), environ=env)
    repository.open_worktree(own, base=start, reuse_branch=True, copy=())
    repository.open_worktree(beside, base=start, reuse_branch=False, copy=())
    git(tmp_path / "beside", "config", "--worktree", "some.thing", "there", env=env)
    repository.guard(beside)
    assert repository.settle(own, expected_tip=start, label="a").findings == ()
    repository.close_worktree(beside, with_branch=True)
    assert repository.settle(own, expected_tip=start, label="b").findings == ()


REFUSED = {
    "default branch": ("git switch -q main", "the default branch"),
    "detached": ("git checkout -q --detach", "No branch is checked out"),
    "untracked": ("touch new", "such as new"),
    "hidden by the config": ("git config status.showUntrackedFiles no; touch new", "such as new"),
    "modified": ("echo x >>a", "such as a"),
    "staged": ("echo x >>a; git add a", "such as a"),
    "a worktree in it": ("git worktree add -q in", "such as in/"),
    "not looked at": ("git update-index --assume-unchanged a; echo x >>a", "such as a"),
    "skipped": ("git update-index --skip-worktree a", "such as a"),
    "in a merge": (
        "git switch -q -c y main; echo y >b; git add b; git commit -q -m y; git merge -q --no-commit --no-ff x; "
        "git reset -q --hard; git update-ref MERGE_HEAD x",
        "is not finished",
    ),
    "in a bisect": ("git bisect start >/dev/null", "is not finished"),
    "something of that name": ("mkdir .storyloop; echo '*' >.git/info/exclude; echo x >.storyloop/mine", "Move it"),
    "submodules": ("git init -q s; git -C s commit -q --allow-empty -m s; "
                   "git -c protocol.file.allow=always submodule --quiet add ./s sub 2>/dev/null; rm -rf s; "
                   "git commit -q -a -m s", "has submodules"),
}  # fmt: skip


@pytest.mark.parametrize(("makes", "told"), REFUSED.values(), ids=REFUSED)
def test_a_checkout_with_more_in_it_than_its_commit_is_refused(tmp_path: Path, makes: str, told: str) -> None:
    """And so is one without a branch that runs may work on; looking changes nothing."""
    env, repo = isolated(tmp_path / "home"), tmp_path / "repo"
    make_repository(repo, {"a": "a\n"}, env=env)
    git(repo, "switch", "-q", "-c", "x", env=env)
    commit_files(repo, {"c": "c\n"}, env=env)
    assert GitCheckout(repo, env).own_branch() == "x"
    done = git(repo, "-c", f"alias.do=!{makes}", "do", env=env)
    before = git(repo, "status", "--porcelain", "--ignored", env=env)
    with pytest.raises(UserError) as refused:
        GitCheckout(repo, env).own_branch()
    assert told in str(refused.value), done
    assert git(repo, "status", "--porcelain", "--ignored", env=env) == before
