"""The forges that the contract is asked of: twins by HTTP, two by the real `gh` and `glab` too, and one in memory."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gitea_twin import GiteaTwin
from github_twin import GitHubTwin
from gitlab_twin import GitLabTwin
from twin import TOKEN, Pull, Twin, serving

from gitkit import git, isolated, make_repository
from storyloop.core.forge import Comment, PullRequestState, Thread
from storyloop.core.policy import ForgeKind, ForgePolicy
from storyloop.world.forges import forge_of
from storyloop.world.memory_forge import MemoryForge

TWINS: dict[str, tuple[type[Twin], ForgeKind, str]] = {
    "github": (GitHubTwin, ForgeKind.GITHUB, "GH_ENTERPRISE_TOKEN"),
    "gitlab": (GitLabTwin, ForgeKind.GITLAB, "GITLAB_TOKEN"),
    "gitea": (GiteaTwin, ForgeKind.GITEA, "GITEA_TOKEN"),
    "forgejo": (GiteaTwin, ForgeKind.FORGEJO, "FORGEJO_TOKEN"),
}


@dataclass
class World:
    """A forge, with its twin behind it where it has one."""

    forge: Any
    twin: Twin | None
    repository: Path

    def end(self, number: int, state: PullRequestState) -> None:
        """A person closes or merges it."""
        if self.twin is None:
            self.forge.end(number, state)
        else:
            self.twin.pull(number).state = state.value

    def talk(self, file: str, line: int | None, *texts: str) -> None:
        """Ada begins a conversation on the first pull request."""
        if self.twin is not None:
            self.twin.talk(1, file, line, *texts)
            return
        threads = self.forge.said.setdefault(1, [])
        name = f"t{len(threads) + 1}"
        comments = tuple(Comment(id=f"{name}-{n}", author="ada", text=text) for n, text in enumerate(texts, start=1))
        threads.append(Thread(id=name, file=file, line=line, comments=comments, resolvable=True))

    def others(self, count: int) -> None:
        """So many open pull requests of other branches, newer than any before."""
        for number in range(count):
            branch = f"other-{number}"
            git(self.repository, "branch", "--force", branch, "main", env=dict(os.environ))
            if self.twin is not None:
                self.twin.pulls.append(Pull(len(self.twin.pulls) + 1, branch, "", branch, "main"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare repository with the branches `main` and `feature/x`."""
    env = isolated(tmp_path / "home")
    make_repository(tmp_path / "work", {"a.txt": "a\n"}, env=env)
    git(tmp_path / "work", "branch", "feature/x", env=env)
    bare = tmp_path / "acme" / "shop.git"
    git(tmp_path, "clone", "--quiet", "--bare", "work", str(bare), env=env)
    return bare


@contextmanager
def by_http(name: str, repository: Path) -> Iterator[World]:
    """The twin of this name, spoken to by HTTP."""
    kind, token = TWINS[name][1:]
    with serving(TWINS[name][0](repository)) as twin:
        forge = forge_of(f"{twin.url}/acme/shop.git", ForgePolicy(kind=kind), {token: TOKEN})
        yield World(forge, twin, repository)


@pytest.fixture(params=list(TWINS))
def twin_world(request: pytest.FixtureRequest, repository: Path) -> Iterator[World]:
    """Each twin, spoken to by HTTP."""
    with by_http(request.param, repository) as world:
        yield world


@pytest.fixture
def github_world(repository: Path) -> Iterator[World]:
    """The twin of GitHub, spoken to by HTTP."""
    with by_http("github", repository) as world:
        yield world


@pytest.fixture
def gh_world(repository: Path, tmp_path: Path) -> Iterator[World]:
    """The twin of GitHub, spoken to by the real `gh`, which knows one host that needs no TLS."""
    if shutil.which("gh") is None:
        pytest.skip("gh is not installed")
    config = tmp_path / "gh"
    config.mkdir()
    (config / "hosts.yml").write_text(f"github.localhost:\n    user: ada\n    oauth_token: {TOKEN}\n")
    with serving(GitHubTwin(repository)) as twin:
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GH_CONFIG_DIR": str(config)}
        environ["http_proxy"] = twin.url
        forge = forge_of("https://github.localhost/acme/shop.git", ForgePolicy(), environ)
        yield World(forge, twin, repository)


@pytest.fixture
def glab_world(repository: Path, tmp_path: Path) -> Iterator[World]:
    """The twin of GitLab, spoken to by the real `glab`, which is told that this host needs no TLS."""
    if shutil.which("glab") is None:
        pytest.skip("glab is not installed")
    config = tmp_path / "glab"
    config.mkdir()
    with serving(GitLabTwin(repository)) as twin:
        host = twin.url.removeprefix("http://")
        said = f"token: {TOKEN}\n    api_protocol: http\n    api_host: {host}\n    user: ada\n"
        (config / "config.yml").write_text(f"check_update: false\nhosts:\n  gitlab.localhost:\n    {said}")
        (config / "config.yml").chmod(0o600)
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GLAB_CONFIG_DIR": str(config)}
        forge = forge_of("https://gitlab.localhost/acme/shop.git", ForgePolicy(), environ)
        yield World(forge, twin, repository)


@pytest.fixture
def memory_world(repository: Path) -> World:
    """The product's own fake."""

    def commit(branch: str) -> str:
        ref = repository / "refs" / "heads" / branch
        packed = (repository / "packed-refs").read_text().split()
        name = f"refs/heads/{branch}"
        return ref.read_text().strip() if ref.exists() else packed[packed.index(name) - 1] if name in packed else ""

    return World(MemoryForge(commit), None, repository)


@pytest.fixture(params=[*TWINS, "gh", "glab", "memory"])
def world(request: pytest.FixtureRequest, repository: Path) -> Iterator[World]:
    """Each of them."""
    if request.param in TWINS:
        with by_http(request.param, repository) as world:
            yield world
    else:
        yield request.getfixturevalue(f"{request.param}_world")
