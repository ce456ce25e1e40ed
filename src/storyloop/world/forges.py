"""Which forge a remote belongs to, and how it is spoken to from here.

The kind and the place follow from the remote's URL, unless `[forge]` says them. A token is sent only to the host of a
remote that the user's clone has, or to one that the user's own file names. For GitHub the rule is that of `gh`:
`GH_TOKEN` and `GITHUB_TOKEN` are for github.com, `GH_ENTERPRISE_TOKEN` and `GITHUB_ENTERPRISE_TOKEN` for other hosts.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from urllib.parse import urlsplit

from storyloop.core.forge import ForgeTrouble, Trouble
from storyloop.core.policy import ForgeKind, ForgePolicy
from storyloop.ports.forge import Forge
from storyloop.world.forge_api import Address, CliTransport, HttpTransport, Transport
from storyloop.world.gitea import Gitea
from storyloop.world.github import GitHub
from storyloop.world.gitlab import GitLab

_SERVICES = {
    ForgeKind.GITHUB: "GitHub",
    ForgeKind.GITLAB: "GitLab",
    ForgeKind.GITEA: "Gitea",
    ForgeKind.FORGEJO: "Forgejo",
}
_HOSTS = (
    (ForgeKind.GITHUB, re.compile(r"github\.com|.+\.ghe\.com|github\..+")),
    (ForgeKind.GITLAB, re.compile(r"gitlab\..+")),
    (ForgeKind.FORGEJO, re.compile(r"codeberg\.org|forgejo\..+")),
    (ForgeKind.GITEA, re.compile(r"gitea\..+")),
)
_SSH_HOSTS = {"ssh.github.com": "github.com", "altssh.gitlab.com": "gitlab.com"}  # for those behind a firewall
_SCP = re.compile(r"(?:[^@/:]+@)?([^/:]+):(?!//)(.+)")  # `git@host:owner/name`
_PROGRAMS = {
    ForgeKind.GITHUB: ("gh", "auth", "token", "--hostname"),
    ForgeKind.GITLAB: ("glab", "config", "get", "token", "--host"),
}
_TOKENS = {
    ForgeKind.GITLAB: ("GITLAB_TOKEN",),
    ForgeKind.GITEA: ("GITEA_TOKEN", "FORGEJO_TOKEN"),
    ForgeKind.FORGEJO: ("FORGEJO_TOKEN", "GITEA_TOKEN"),
}


def forge_of(remote_url: str, policy: ForgePolicy, environ: Mapping[str, str]) -> Forge:
    """The forge that this remote is at. Raises `ForgeTrouble` where it is none that we know, or nobody is logged in."""
    kind, address = _address(remote_url, policy)
    transport = _by_program(kind, address, environ) or _by_token(kind, address, environ)
    match kind:
        case ForgeKind.GITHUB:
            return GitHub(address, transport)
        case ForgeKind.GITLAB:
            return GitLab(address, transport)
        case ForgeKind.GITEA | ForgeKind.FORGEJO:
            return Gitea(address, transport)


def _address(remote_url: str, policy: ForgePolicy) -> tuple[ForgeKind, Address]:
    scheme, host, path = _parts(remote_url)
    web = policy.url.rstrip("/") if policy.url else f"{scheme}://{host}"
    project = path.strip("/").removesuffix(".git").strip("/")
    prefix = urlsplit(web).path.strip("/")
    if prefix and project.startswith(f"{prefix}/"):
        project = project.removeprefix(f"{prefix}/")
    if not host or "/" not in project:
        shown = f"{scheme}://{host}{path}" if host else path
        raise ForgeTrouble(
            Trouble.NOT_FOUND,
            f"The remote's URL {shown} is not that of a repository on a forge.",
            "Let [pull_request] remote name one that is, or open the pull request by hand.",
        )
    name = urlsplit(web).hostname or ""
    kind = policy.kind or next((kind for kind, pattern in _HOSTS if pattern.fullmatch(name)), None)
    if kind is None:
        raise ForgeTrouble(
            Trouble.NOT_FOUND,
            f"Which forge runs on {name} cannot be told from its name.",
            'Say it in storyloop.toml: [forge] kind = "github", "gitlab", "gitea" or "forgejo".',
        )
    return kind, Address(service=_SERVICES[kind], web=web, project=project)


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, host with port, and path of a remote's URL as the web has it; no host for a directory."""
    if "://" in url:
        split = urlsplit(url)
        if split.scheme in ("http", "https"):
            return split.scheme, split.netloc.rpartition("@")[2], split.path
        host = "" if split.scheme == "file" else split.hostname or ""
        return "https", _SSH_HOSTS.get(host, host), split.path
    scp = _SCP.fullmatch(url)
    return ("https", scp[1], f"/{scp[2]}") if scp else ("", "", url)


def _by_program(kind: ForgeKind, address: Address, environ: Mapping[str, str]) -> Transport | None:
    """The forge's own program, where it is here and logged in at that host."""
    if kind not in _PROGRAMS or address.host != address.web.removeprefix("https://"):
        return None  # they know a host by its name alone, and TLS
    name, *question = _PROGRAMS[kind]
    program = shutil.which(name, path=environ.get("PATH", ""))
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, *question, address.host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(environ),
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # one that does not work is as good as none
    is_logged_in = answer.returncode == 0 and bool(answer.stdout.strip())
    return CliTransport(program, host=address.host, environ=environ) if is_logged_in else None


def _by_token(kind: ForgeKind, address: Address, environ: Mapping[str, str]) -> Transport:
    names = _TOKENS.get(kind) or _github_tokens(address)
    token = next((environ[name] for name in names if environ.get(name)), "")
    program = _PROGRAMS.get(kind)
    by_program = f"Log in with `{program[0]} auth login --hostname {address.host}`, or set" if program else "Set"
    login = f"{by_program} {names[0]} to a token of yours."
    if not token:
        raise ForgeTrouble(Trouble.NOT_LOGGED_IN, f"Nobody is logged in to {address}.", login)
    web = address.web
    match kind:
        case ForgeKind.GITHUB:
            ours = f"https://api.{address.host}" if _is_hosted(address) else ""
            return HttpTransport(
                rest=ours or f"{web}/api/v3",
                graphql=f"{ours or f'{web}/api'}/graphql",
                headers={"Authorization": f"Bearer {token}", "X-GitHub-Api-Version": "2022-11-28"},
                login=login,
            )
        case ForgeKind.GITLAB:
            return HttpTransport(rest=f"{web}/api/v4", headers={"Authorization": f"Bearer {token}"}, login=login)
        case ForgeKind.GITEA | ForgeKind.FORGEJO:
            return HttpTransport(rest=f"{web}/api/v1", headers={"Authorization": f"token {token}"}, login=login)


def _github_tokens(address: Address) -> tuple[str, ...]:
    hosted, enterprise = ("GH_TOKEN", "GITHUB_TOKEN"), ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
    return hosted if _is_hosted(address) else enterprise


def _is_hosted(address: Address) -> bool:
    return address.web == "https://github.com" or address.host.endswith(".ghe.com")
