"""The sandbox: a fence of bubblewrap around each agent and each check. Linux only.

Inside, the whole file system is read-only but for the worktree, the agent's own home directories, a cache of ours
for packages, and what the user lists as writable. git's directories and the worktree's `.git` file are read-only, so
nobody inside commits, and hooks and config stay as they are. What the user's tools keep secret in HOME, the homes of
other agents, and our own state are not to be seen; `/tmp` and `/run` are empty and private, so that no agent of ssh,
no container daemon and no session bus is within reach. Processes have a PID namespace of their own: they see none of
ours, and they all die with the fence, whoever is killed with -9.

One rule says which of two paths counts: the deeper one. Of two that are the same, what is writable wins.

What it is not: a wall against a hostile kernel exploit or, where the network is allowed, against sockets in the
network namespace (abstract ones included).
"""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import assert_never

import msgspec

from storyloop.core.errors import UserError
from storyloop.core.policy import SandboxMode, SandboxPolicy
from storyloop.ports.checks import GitAccess

_PRIVATE = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/run"))
# What must be seen for Python, this program and the resolver to work, wherever they are installed.
_RUNTIME = (
    sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), str(Path("/etc/resolv.conf").resolve().parent),
    "/run/current-system", "/run/opengl-driver",
)  # fmt: skip

# Where tools keep what opens doors, below HOME.
_SECRETS = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config/gcloud", ".config/gh", ".config/glab-cli",
    ".config/hub", ".config/git/credentials", ".git-credentials", ".netrc", ".npmrc", ".yarnrc.yml", ".pypirc",
    ".pgpass", ".my.cnf", ".vault-token", ".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials",
    ".m2/settings.xml", ".gradle/gradle.properties", ".terraform.d", ".config/containers", ".config/rclone",
    ".config/op", ".config/sops", ".1password", ".password-store", ".local/share/keyrings", ".mozilla",
    ".config/google-chrome", ".config/chromium", ".bash_history", ".zsh_history", ".python_history",
)  # fmt: skip

# What may not travel in, even where it was passed on: each asks or unlocks something outside.
_NEVER = ("SSH_AUTH_SOCK", "SSH_ASKPASS", "GIT_ASKPASS", "GPG_AGENT_INFO", "DBUS_SESSION_BUS_ADDRESS")

# Where package managers keep what they fetched: the place below our cache.
_CACHES = {
    "XDG_CACHE_HOME": "xdg", "CARGO_HOME": "cargo", "GOCACHE": "go-build", "GOMODCACHE": "go-mod",
    "npm_config_cache": "npm", "npm_config_store_dir": "pnpm", "YARN_CACHE_FOLDER": "yarn",
    "BUN_INSTALL_CACHE_DIR": "bun", "DENO_DIR": "deno", "PIP_CACHE_DIR": "pip", "UV_CACHE_DIR": "uv",
    "POETRY_CACHE_DIR": "poetry", "GRADLE_USER_HOME": "gradle", "NUGET_PACKAGES": "nuget",
    "COMPOSER_CACHE_DIR": "composer", "BUNDLE_USER_CACHE": "bundle",
}  # fmt: skip

# What an ordinary program running as root may need, and none that reaches around a mount.
_CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_SETGID", "CAP_SETUID")


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """What processes inside may reach. Every path is absolute, exists, and is no symlink."""

    worktree: Path
    cache: Path
    git: tuple[Path, ...] = ()  # read-only whatever stands around them
    writable: tuple[Path, ...] = ()  # besides worktree and cache
    visible: tuple[Path, ...] = ()  # although they lie where all else is hidden
    hidden: tuple[Path, ...] = ()  # directories
    blank: tuple[Path, ...] = ()  # files
    network: bool = True
    as_root: bool = False
    program: str = "bwrap"


def prefix(fence: Fence) -> tuple[str, ...]:
    """The words before a command that put it inside."""
    closed = {*_PRIVATE, *fence.hidden}
    shown = {path for path in fence.visible if closed.intersection(path.parents)}
    mounts: dict[Path, tuple[str, ...]] = {
        Path("/"): ("--ro-bind", "/", "/"),
        Path("/dev"): ("--dev", "/dev"),
        Path("/proc"): ("--proc", "/proc"),
        **{path: ("--tmpfs", str(path)) for path in closed},
        **{path: ("--ro-bind", str(path), str(path)) for path in shown},
        **{path: ("--dev-bind", "/dev/null", str(path)) for path in fence.blank},
        **{path: ("--ro-bind-try", str(path), str(path)) for path in (*fence.git, fence.worktree / ".git")},
        **{path: ("--bind", str(path), str(path)) for path in (fence.worktree, fence.cache, *fence.writable)},
    }
    around_first = sorted(mounts, key=lambda path: len(path.parts))
    return (
        fence.program,
        *_namespaces(network=fence.network, as_root=fence.as_root),
        *(word for path in around_first for word in mounts[path]),
        # Only now: the places for what lies deeper had to be made. What is written there must not seem to be kept.
        *(word for path in sorted(fence.hidden) for word in ("--remount-ro", str(path))),
        *(word for name in _NEVER for word in ("--unsetenv", name)),
        *("--chdir", str(fence.worktree), "--"),
    )


def environment(fence: Fence) -> dict[str, str]:
    """What processes inside are told, so that they write where they can."""
    caches = {name: str(fence.cache / place) for name, place in _CACHES.items()}
    return {**caches, "MAVEN_ARGS": f"-Dmaven.repo.local={fence.cache / 'maven'}", "TMPDIR": "/tmp"}


def _namespaces(*, network: bool, as_root: bool) -> tuple[str, ...]:
    # A root that keeps its capabilities mounts everything anew.
    kept = ("--cap-drop", "ALL", *(word for name in _CAPABILITIES for word in ("--cap-add", name)))
    return (
        *("--unshare-pid", "--unshare-ipc", "--die-with-parent"),
        *(() if network else ("--unshare-net",)),
        *(kept if as_root else ()),
    )


@functools.cache
def why_not(*, network: bool = True) -> str | None:
    """Why no fence can be raised on this machine, in a sentence; None where one was just raised."""
    if sys.platform != "linux":
        return "Only Linux has bubblewrap."
    words = _namespaces(network=network, as_root=os.geteuid() == 0)
    try:
        tried = subprocess.run(
            ["bwrap", *words, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run", "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=False,
        )
    except FileNotFoundError:
        return "bubblewrap (bwrap) is not installed."
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap cannot be used: {error}."
    said = tried.stderr.decode(errors="replace").strip() or f"exit status {tried.returncode}"
    return None if tried.returncode == 0 else f"bubblewrap does not work here: {said.splitlines()[-1]}."


def held_by(policy: SandboxPolicy) -> str:
    """What fences agents and checks of this policy in on this machine, for a person, in one line.

    Raises `UserError` where the policy requires what the machine cannot do.
    """
    if policy.mode is SandboxMode.OFF:
        return "off: agents and checks run with your rights"
    if problem := _problem(policy):
        return f"none: agents and checks run with your rights. {problem}"
    cut = [who for who, allowed in (("agents", policy.agent_network), ("checks", policy.checks_network)) if not allowed]
    network = f"; no network for {' and '.join(cut)}" if cut else ""
    return f"bubblewrap: all but the worktree is read-only, git too, your secrets are hidden{network}"


def _problem(policy: SandboxPolicy) -> str | None:
    network = policy.agent_network and policy.checks_network
    problem = why_not() or (None if network else why_not(network=False))
    if problem is not None and policy.mode is SandboxMode.REQUIRE:
        raise UserError(
            f"The sandbox is required, but cannot be had. {problem}",
            'Install bubblewrap and allow user namespaces, or set [sandbox] mode = "auto" to run without.',
        )
    return problem


class Fencing:
    """Raises the fence around the processes of one repository. `environ` is the user's."""

    def __init__(
        self, environ: Mapping[str, str], *, state: Path, git_dir: str, agent_homes: Sequence[Path] = ()
    ) -> None:
        """`state` is our own directory; `agent_homes` are the paths of every agent we know."""
        self._home = Path(environ.get("HOME") or Path.home())
        self._path = environ.get("PATH", os.defpath)
        self._state = state
        self._git_dir = Path(git_dir)
        self._agent_homes = agent_homes

    def around(
        self,
        worktree: str,
        policy: SandboxPolicy,
        *,
        network: bool,
        homes: Sequence[Path] = (),
        needs: Sequence[str] = (),
        git: GitAccess = GitAccess.NOTHING,
    ) -> Fence | None:
        """The fence for one process; None where the policy or the machine has none.

        `homes` are the agent's own paths, made where nothing is: as directories, or as empty JSON; `needs` are paths
        that it must be able to read wherever they lie. Raises `UserError` where a fence is required, and OSError.
        """
        if policy.mode is SandboxMode.OFF or _problem(policy):
            return None
        cache = _made(self._state / "cache" / hashlib.sha256(os.fsencode(self._git_dir)).hexdigest()[:16])
        # A relative one lies in the worktree, which is writable anyway.
        listed = [path.replace("~", str(self._home), 1) for path in policy.writable if path.startswith(("/", "~"))]
        writable = _real([*(_made(home) for home in homes), *listed, *self._writable_of_git(Path(worktree), git)])
        visible = _real([self._home, self._git_dir.parent, *_RUNTIME, *self._path.split(os.pathsep), *needs])
        secret = _real([*(self._home / name for name in _SECRETS), *self._agent_homes, self._state])
        closed = [path for path in secret if path not in (*writable, *visible)]
        return Fence(
            worktree=Path(worktree).resolve(),
            cache=cache,
            git=_real([self._git_dir]),
            writable=writable,
            visible=visible,
            hidden=tuple(path for path in closed if path.is_dir()),
            blank=tuple(path for path in closed if not path.is_dir()),
            network=network,
            as_root=os.geteuid() == 0,
            program=shutil.which("bwrap") or "bwrap",  # the PATH of what is started may be another
        )

    def _writable_of_git(self, worktree: Path, git: GitAccess) -> tuple[Path, ...]:
        match git:
            case GitAccess.NOTHING:
                return ()
            case GitAccess.SUBMODULES:
                admin = (worktree / ".git").read_text().removeprefix("gitdir: ").strip()
                return (Path(admin, "modules"),)
            case GitAccess.ALL:
                return (self._git_dir,)
            case _:
                assert_never(git)


def _made(path: Path) -> Path:
    if path.suffix == ".json" and not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text("{}\n")
    elif not path.suffix and not path.exists():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path.resolve()


def _real(paths: Iterable[Path | str]) -> tuple[Path, ...]:
    """Those that exist, each once, as what they are behind every symlink."""
    return tuple(dict.fromkeys(path.resolve() for path in map(Path, paths) if path.is_absolute() and path.exists()))
