"""What is installed here: which programs of agents this machine has, and in which versions."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from storyloop.agents.profile import Profile
from storyloop.agents.profiles import PROFILES
from storyloop.core.policy import AgentKind, AgentSpec
from storyloop.world.environment import allowed_environment

_PATIENCE = 20.0  # seconds for a CLI to tell its version
_VERSION = re.compile(r"\d+(?:\.\d+)+(?:[-+.][\w.-]+)?")


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """One CLI as it is here; `version` is None where it does not tell."""

    path: str
    version: str | None
    is_logged_in: bool | None  # None: that cannot be told from outside


def found_here(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The built-in agents whose programs are on the PATH, in the table's order."""
    return tuple(name for name, profile in PROFILES.items() if shutil.which(profile.program, path=environ.get("PATH")))


def absent_program(agent: AgentSpec, environ: Mapping[str, str]) -> str | None:
    """What this agent starts or plays, when it is not on this machine; how to get it, where that is known."""
    if agent.kind is AgentKind.SCRIPT:
        return agent.script if agent.script is not None and not Path(agent.script).is_file() else None
    profile = PROFILES[agent.profile] if agent.profile else None
    by_acp = agent.kind is AgentKind.ACP
    program = agent.command[0] if profile is None else profile.acp[0] if by_acp else profile.program
    if shutil.which(program, path=environ.get("PATH")):
        return None
    return program if profile is None or program != profile.program else f"{program} (to install: {profile.install})"


def look(environ: Mapping[str, str]) -> dict[str, Installed | None]:
    """Every built-in agent by name, None where it is not here. Each CLI is asked its version, all at once."""
    with ThreadPoolExecutor(len(PROFILES)) as threads:
        looks = {name: threads.submit(_look, profile, environ) for name, profile in PROFILES.items()}
        return {name: asked.result() for name, asked in looks.items()}


def _look(profile: Profile, environ: Mapping[str, str]) -> Installed | None:
    path = shutil.which(profile.program, path=environ.get("PATH"))
    if path is None:
        return None
    quiet = {**profile.env, "NO_COLOR": "1"}
    env = allowed_environment(environ, extra=quiet, pass_env=profile.passed())
    return Installed(
        path=path,
        version=_version((path, *profile.version), env),
        is_logged_in=profile.is_logged_in(environ),
    )


def _version(argv: tuple[str, ...], env: Mapping[str, str]) -> str | None:
    """In a directory that is no project's, so that none of its settings are read."""
    try:
        asked = subprocess.Popen(
            argv,
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError:
        return None
    with asked:
        try:
            told, _ = asked.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(asked.pid, signal.SIGKILL)  # a launcher's child would else live on
            return None
    found = _VERSION.search(told.decode("utf-8", "replace"))
    return found[0] if found else None
