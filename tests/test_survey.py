"""The survey: what is found where a run is to begin, and what is said where none can."""

import os
import shutil
from pathlib import Path

import pytest

from gitkit import commit_files, git, isolated, make_repository, write_file
from storyloop.core.errors import UserError
from storyloop.ports.repository import CheckedOut, Clashes, Exists, Free
from storyloop.world.git import Git
from storyloop.world.survey import Trait, branch_state, discover, worktree_path


@pytest.fixture
def env(tmp_path):
    return isolated(tmp_path / "home")


@pytest.fixture
def repo(tmp_path, env):
    path = tmp_path / "shop"
    make_repository(path, {"a.txt": "a\n", "src/b.txt": "b\n"}, env=env)
    return path


def test_a_plain_repository_is_known_from_any_directory_of_it(repo, env):
    """Absolute real paths, the commit and the branch; nothing special, nothing to warn of."""
    link = repo.parent / "link"
    link.symlink_to(repo / "src")
    facts = discover(link, env)
    assert (facts.identity, facts.checkout, facts.main_checkout) == (str(repo / ".git"), str(repo), str(repo))
    assert facts.head == git(repo, "rev-parse", "HEAD", env=env)
    assert (facts.branch, facts.default_branch) == ("main", "main")
    assert (facts.traits, facts.warnings) == (frozenset(), ())


def not_a_repository(repo: Path, _env: dict[str, str]) -> Path:
    (repo.parent / "plain").mkdir()
    return repo.parent / "plain"


def without_commits(repo: Path, env: dict[str, str]) -> Path:
    git(repo.parent, "init", "--quiet", "empty", env=env)
    return repo.parent / "empty"


def bare(repo: Path, env: dict[str, str]) -> Path:
    git(repo.parent, "clone", "--quiet", "--bare", str(repo), "bare.git", env=env)
    return repo.parent / "bare.git"


def git_directory(repo: Path, _env: dict[str, str]) -> Path:
    return repo / ".git"


def tracking_ours(repo: Path, env: dict[str, str]) -> Path:
    commit_files(repo, {".storyloop/x": "x"}, env=env)
    return repo / "src"


def without_git(repo: Path, env: dict[str, str]) -> Path:
    env["PATH"] = str(repo)
    return repo


def with_an_old_git(repo: Path, env: dict[str, str]) -> Path:
    write_file(repo.parent / "bin/git", "#!/bin/sh\necho git version 2.30.2\n")
    (repo.parent / "bin/git").chmod(0o755)
    env["PATH"] = f"{repo.parent / 'bin'}:{env['PATH']}"
    return repo


def with_reftable(repo: Path, _env: dict[str, str]) -> Path:
    config = repo / ".git/config"
    config.write_text(config.read_text() + "[extensions]\n\trefStorage = reftable\n")
    return repo


def of_the_future(repo: Path, env: dict[str, str]) -> Path:
    git(repo, "config", "core.repositoryFormatVersion", "99", env=env)
    return repo


def not_utf8(repo: Path, _env: dict[str, str]) -> Path:
    path = Path(os.fsdecode(os.fsencode(repo.parent) + b"/caf\xe9"))
    repo.rename(path)
    return path


@pytest.mark.parametrize(
    ("arrange", "told"),
    [
        (not_a_repository, r"plain is not in a git repository\. .*git init"),
        (without_commits, r"empty has no commit yet\. Make one"),
        (bare, r"bare\.git is a bare repository\. .*git worktree add"),
        (git_directory, r"\.git is inside a \.git directory\. Start from a checkout"),
        (tracking_ours, r"tracks files in \.storyloop/.*git rm -r --cached \.storyloop"),
        (without_git, r"git is not installed.*Install git 2\.34"),
        (with_an_old_git, r"git version 2\.30\.2 is too old\. Install git 2\.34"),
        (with_reftable, r"keeps its refs in a format.*git refs migrate"),
        (of_the_future, r"git cannot read the repository around .*Expected git repo version"),
        (not_utf8, r"caf.*is not UTF-8\. Rename"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_where_no_run_can_begin_the_cure_is_told(repo, env, arrange, told):
    """Every refusal says what was met and what to do."""
    with pytest.raises(UserError, match=told):
        discover(arrange(repo, env), env)


def dirty(repo: Path, _env: dict[str, str]) -> None:
    write_file(repo / "new.txt", "new\n")


def linked(repo: Path, env: dict[str, str]) -> None:
    git(repo, "worktree", "add", "--quiet", "--detach", str(repo.parent / "linked"), env=env)
    repo.rename(repo.parent / "main")
    git(repo.parent / "main", "worktree", "repair", env=env)
    (repo.parent / "linked").rename(repo)
    git(repo.parent / "main", "worktree", "repair", str(repo), env=env)


def sparse(repo: Path, env: dict[str, str]) -> None:
    git(repo, "sparse-checkout", "set", "src", env=env)


def submodules(repo: Path, env: dict[str, str]) -> None:
    commit_files(repo, {".gitmodules": '[submodule "lib"]\n\tpath = lib\n\turl = x\n'}, env=env)


def large_files(repo: Path, env: dict[str, str]) -> None:
    commit_files(repo, {"src/.gitattributes": "*.big filter=lfs\n", "src/a.big": "pointer\n"}, env=env)


@pytest.mark.parametrize(
    ("arrange", "trait", "warning"),
    [
        (dirty, Trait.DIRTY, None),
        (linked, Trait.LINKED, None),
        (sparse, Trait.SPARSE, None),
        (submodules, Trait.SUBMODULES, "git submodule update --init"),
        (large_files, Trait.LFS, "git lfs install"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_special_is_found_and_what_may_hurt_is_said(repo, env, arrange, trait, warning):
    """Information for the run's header; a warning only where something will not go as a user expects."""
    arrange(repo, env)
    facts = discover(repo, env)
    assert facts.traits == {trait}
    assert len(facts.warnings) == (0 if warning is None else 1)
    assert all(warning in text for text in facts.warnings if warning)


def test_large_files_that_are_set_up_are_no_warning(repo, env):
    """LFS that works needs no words."""
    git(repo, "config", "--global", "filter.lfs.clean", "cat", env=env)
    large_files(repo, env)
    assert discover(repo, env).warnings == ()


def test_a_detached_head_has_no_branch(repo, env):
    """A run may start from any commit."""
    git(repo, "checkout", "--quiet", "--detach", env=env)
    facts = discover(repo, env)
    assert (facts.branch, facts.default_branch) == (None, "main")


@pytest.mark.parametrize(
    ("commands", "guess"),
    [
        ([("branch", "-m", "trunk")], "trunk"),
        ([("branch", "-m", "odd")], "odd"),
        ([("branch", "-m", "work"), ("branch", "master")], "master"),
        ([("branch", "release"), ("config", "init.defaultBranch", "release")], "release"),
        ([("update-ref", "refs/remotes/origin/dev", "HEAD"),
          ("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/dev")], "dev"),
    ],
)  # fmt: skip
def test_the_default_branch_is_guessed_from_remote_settings_and_habit(repo, env, commands, guess):
    """What the remote calls so, else what the user's settings do, else a usual name, else the current branch."""
    for command in commands:
        git(repo, *command, env=env)
    assert discover(repo, env).default_branch == guess


def test_a_branch_is_free_or_taken_or_in_the_way(repo, env):
    """Before a run is opened, it is known whether its branch can be made, and where it is in use."""
    git(repo, "branch", "feature/x", env=env)
    git(repo, "branch", "team", env=env)
    git(repo, "worktree", "add", "--quiet", "-b", "used", str(repo.parent / "elsewhere"), env=env)
    head = git(repo, "rev-parse", "HEAD", env=env)
    expected = {
        "free": Free(),
        "feature/xy": Free(),
        "feature/x": Exists(head),
        "main": CheckedOut(str(repo)),
        "used": CheckedOut(str(repo.parent / "elsewhere")),
        "feature": Clashes("feature/x"),
        "feature/x/y": Clashes("feature/x"),
        "team/a/b": Clashes("team"),
    }
    asked = Git(environ=env, git_dir=str(repo / ".git"))
    assert {name: branch_state(asked, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("pattern", "branch", "name"),
    [
        ("{repo}-wt-{branch}", "feature/x", "shop-wt-feature-x"),
        ("{repo}-wt-{branch}", "größe/№ 1", "shop-wt-größe-1"),
        ("wt/{branch}", "-a/.b", "wt/a-.b"),
        ("/tmp/{repo}/{branch}", "x", "/tmp/shop/x"),
        ("../{repo}.{branch}", "x", "../shop.x"),
    ],
)
def test_a_worktree_stands_beside_the_main_checkout(repo, env, pattern, branch, name):
    """The pattern is relative to the directory that the main checkout is in, wherever one starts from."""
    git(repo, "worktree", "add", "--quiet", "--detach", str(repo / "deep/linked"), env=env)
    for start in (repo, repo / "src", repo / "deep/linked"):
        path = worktree_path(pattern, discover(start, env), branch)
        assert path == os.path.normpath(os.path.join(repo.parent, name))


def test_a_worktree_of_a_bare_repository_stands_beside_it(repo, env):
    """`project.git` and `project/.bare` are both habits."""
    for home, expected in (("project.git", "project-x"), ("project/.bare", "project/project-x")):
        git(repo.parent, "clone", "--quiet", "--bare", str(repo), home, env=env)
        checkout = repo.parent / home / "../a-checkout"
        git(repo.parent / home, "worktree", "add", "--quiet", "--detach", str(checkout), env=env)
        assert worktree_path("{repo}-{branch}", discover(checkout, env), "x") == str(repo.parent / expected)
        shutil.rmtree(checkout)
