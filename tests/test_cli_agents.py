"""`storyloop agents`: what is here, asked of stand-ins on a PATH of their own."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

ABSENT = {
    "installed": False, "path": None, "version": None, "version_seen": False, "logged_in": None,
}  # fmt: skip


class Machine:
    """A home and a PATH with nothing on it but a shell's commands and the stand-ins."""

    def __init__(self, root: Path) -> None:
        self.home, self.bin = root / "home", root / "bin"
        self.home.mkdir()
        self.bin.mkdir()
        self.variables: dict[str, str] = {}

    def stand_in(self, program: str, script: str) -> None:
        path = self.bin / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def agents(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": str(self.bin), "HOME": str(self.home), **self.variables}
        argv = [sys.executable, "-m", "storyloop", "agents", *arguments]
        return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=True)

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in json.loads(self.agents("--json").stdout)}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_table_tells_what_is_here_and_how_to_get_the_rest(machine: Machine) -> None:
    """Within 80 columns; a version that was never seen is told from one that was."""
    machine.stand_in("claude", "echo '2.1.329 (Claude Code)'")
    machine.stand_in("codex", "echo codex-cli 0.999.0")
    machine.stand_in("goose", "echo ' 1.2.3'")
    machine.stand_in("pi", "exit 1")
    machine.variables = {"ANTHROPIC_API_KEY": "k"}
    lines = machine.agents().stdout.splitlines()
    assert lines[:5] == [
        "AGENT         VERSION                LOGIN  SESSION  USAGE  COST  ACP",
        "claude        2.1.329                yes    yes      yes    yes   yes",
        "codex         0.999.0 (new to us)    ?      yes      yes    -     yes",
        "pi            unknown                yes    yes      yes    yes   -",
        "goose         1.2.3 (unverified)     yes    yes      -      -     yes",
    ]
    assert "opencode      not here: npm install -g opencode-ai" in lines
    assert all(len(line) <= 80 for line in lines)


def test_without_any_agent_the_table_is_how_to_get_one(machine: Machine) -> None:
    """And no heading stands above nothing."""
    lines = machine.agents().stdout.splitlines()
    assert lines[0] == "claude        not here: npm install -g @anthropic-ai/claude-code"
    assert len(lines) == 15


def test_the_rows_as_json_say_the_same(machine: Machine) -> None:
    """One for each agent of the table, also for those that are not here."""
    machine.stand_in("qwen", "echo 0.24.4")
    rows = machine.rows()
    assert rows["qwen"] == {
        "name": "qwen", "title": "Qwen Code", "verified": True, "installed": True, "path": f"{machine.bin}/qwen",
        "version": "0.24.4", "version_seen": True, "versions_seen": ["0.24.4"], "logged_in": None,
        "can": ["acp", "mcp", "resume", "schema", "usage"], "acp": ["qwen", "--acp"],
        "install": "npm install -g @qwen-code/qwen-code",
    }  # fmt: skip
    assert rows["crush"] == rows["crush"] | ABSENT
    assert rows["crush"]["verified"] is False
    assert len(rows) == 15


def test_a_program_is_asked_its_version_in_quiet_and_outside_of_any_project(machine: Machine) -> None:
    """Telemetry off, nothing on stdin, and of the user's environment what the agent would get."""
    machine.variables = {"ANTHROPIC_API_KEY": "k", "SECRET": "s"}
    script = 'read line && exit 1; echo "$PWD $DISABLE_TELEMETRY $ANTHROPIC_API_KEY [$SECRET]" > ~/asked; echo 1.0'
    machine.stand_in("claude", script)
    assert machine.rows()["claude"]["version"] == "1.0"
    assert (machine.home / "asked").read_text() == "/ 1 k []\n"


def test_programs_are_asked_all_at_once(machine: Machine) -> None:
    """Two that wait for each other both answer."""
    wait = 'echo > "$HOME/{0}"; while ! [ -e "$HOME/{1}" ]; do :; done; echo {2}'
    machine.stand_in("claude", wait.format("a", "b", "1.0"))
    machine.stand_in("codex", wait.format("b", "a", "2.0"))
    rows = machine.rows()
    assert (rows["claude"]["version"], rows["codex"]["version"]) == ("1.0", "2.0")


def test_the_table_costs_little(machine: Machine) -> None:
    """At most 0.3 s of CPU besides the programs'; none is here."""
    machine.agents()  # compiles what it imports
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    machine.agents()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
