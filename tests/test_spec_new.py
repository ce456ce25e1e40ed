"""`spec new`: a user at a real terminal talks with programs of hers, and what they write is found and checked."""

import os
import pty
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clikit import User, command, until
from storyloop.agents.interactive import session_with
from storyloop.agents.profiles import PROFILES
from storyloop.contracts.prompts import TemplatePrompts
from storyloop.core.policy import AgentKind, AgentRef, AgentSpec, Command, Policy, Require
from storyloop.core.spec_file import parse_spec

HEAD = "# Greetings\\n## User Stories\\n### US-001: Say hello\\n**Acceptance Criteria:**\\n"
GOOD = f"{HEAD}- [ ] It does\\n  verify: `true`\\n"


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    user = User(tmp_path)
    user.makes_a_repository({"README": "A project.\n", "notes.md": "Old notes.\n"})
    yield user
    user.leaves()


class Terminal:
    """The program on a terminal of its own, and what has been seen there."""

    def __init__(self, user: User, *words: str) -> None:
        self._master, slave = pty.openpty()
        self.program = subprocess.Popen(
            command(*words), cwd=user.repo, env=user.env, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        self.seen = ""

    def read_until(self, text: str) -> None:
        while text not in self.seen:
            self.seen += os.read(self._master, 65_536).decode()

    def modes(self) -> Any:
        return termios.tcgetattr(self._master)

    def types(self, line: str) -> None:
        os.write(self._master, f"{line}\n".encode())

    def ended(self) -> int:
        try:
            while data := os.read(self._master, 65_536):
                self.seen += data.decode()
        except OSError:  # Linux says EIO when the last program has left
            os.close(self._master)
        return self.program.wait(60)


def talks(user: User, script: str) -> None:
    """The agent is a program of the user's; what it is started with is left to be seen."""
    user.has_an_agent(f'printf %s "$STORYLOOP_PROMPT" >"$HOME/opening"\n{script}\n')
    program = user.home / "sh.sh"
    program.write_text(program.read_text().replace("prompt=$(cat)\n", ""))


def test_a_spec_is_talked_in_the_users_terminal_checked_and_run_when_she_says_so(user: User) -> None:
    """The agent reads what she types, in her checkout; it is told where the spec belongs and in which form."""
    talks(
        user,
        f"echo What shall it do?; read wish; printf '{GOOD}' >spec.md; (echo $wish; pwd) >$HOME/wish",
    )
    terminal = Terminal(user, "spec", "new")
    terminal.read_until("What shall it do?")
    terminal.types("say hello")
    terminal.read_until("Run it now?")
    terminal.types("n")
    assert terminal.ended() == 0
    assert (user.home / "wish").read_text() == f"say hello\n{user.repo}\n"
    opening = (user.home / "opening").read_text()
    assert str(user.repo / "spec.md") in opening
    assert "### US-001: " in opening
    for told in ("spec.md is written.", "Greetings: 1 story", "Run it with: storyloop run spec.md"):
        assert told in terminal.seen
    assert user.asks("status", "--json").rows == []


def test_the_spec_that_was_talked_is_run_at_a_word(user: User) -> None:
    """And nobody is asked again."""
    talks(user, f"if [ -t 0 ]; then printf '{GOOD}' >spec.md; else echo done >done.txt; answer completed; fi")
    terminal = Terminal(user, "spec", "new")
    terminal.read_until("Run it now?")
    terminal.types("y")
    assert terminal.ended() == 0, terminal.seen
    assert [row["status"] for row in user.asks("status", "--json").rows] == ["completed"]


# what the agent does, what is asked for, the exit status, what is told
WRITTEN: dict[str, tuple[str, list[str], int, list[str]]] = {
    "elsewhere": (f"mkdir docs; printf '{GOOD}' >docs/plan.md", [], 0, ["docs/plan.md is written.", "Greetings"]),
    "into a file that was there": (f"printf '{GOOD}' >notes.md", ["notes.md"], 0, ["notes.md is written."]),
    "beside other files": (f"echo x >x.md; echo {{ >x.json; printf '{GOOD}' >z.md", [], 0, ["z.md is written."]),
    "with mistakes": (f"printf '{HEAD}' >spec.md", [], 2, ["Story US-001 has no acceptance criteria"]),
    "with mistakes elsewhere": (f"printf '{HEAD}' >a.md", [], 2, ["a.md is written.", "no acceptance criteria"]),
    "not at all": ("echo x >x.md; echo {} >x.json", [], 2, ["No spec was written."]),
    "though the agent fails": (f"printf '{GOOD}' >spec.md; exit 3", [], 0, ["exit status 3", "spec.md is written."]),
}


@pytest.mark.parametrize(("script", "words", "code", "told"), WRITTEN.values(), ids=WRITTEN)
def test_the_new_or_changed_spec_is_found_wherever_it_is(
    user: User, script: str, words: list[str], code: int, told: list[str]
) -> None:
    """And checked by the rules of `spec check`."""
    talks(user, script)
    terminal = Terminal(user, "spec", "new", *words)
    if code == 0:
        terminal.read_until("Run it now?")
        terminal.types("n")
    assert terminal.ended() == code, terminal.seen
    assert [text for text in told if text not in terminal.seen] == []


def test_a_spec_that_is_there_is_not_written_over(user: User) -> None:
    """Without a name a free one is asked for."""
    (user.repo / "spec.md").write_text("Mine.\n")
    talks(user, f"printf '{GOOD}' >spec-2.md")
    terminal = Terminal(user, "spec", "new")
    terminal.read_until("Run it now?")
    terminal.types("n")
    assert terminal.ended() == 0
    assert str(user.repo / "spec-2.md") in (user.home / "opening").read_text()


def test_ctrl_c_is_the_agents_while_it_has_the_terminal(user: User) -> None:
    """Storyloop goes on behind it."""
    talks(user, f"trap : INT; echo ready; read line; printf '{GOOD}' >spec.md")
    terminal = Terminal(user, "spec", "new")
    terminal.read_until("ready")
    terminal.program.send_signal(signal.SIGINT)
    terminal.types("go on")
    terminal.read_until("Run it now?")
    terminal.types("n")
    assert terminal.ended() == 0


def test_a_terminal_that_the_agent_left_in_disorder_is_put_in_order(user: User) -> None:
    """The user sees what she types again."""
    talks(user, f"stty raw -echo; printf '{GOOD}' >spec.md")
    terminal = Terminal(user, "spec", "new")
    before = terminal.modes()
    terminal.read_until("Run it now?")
    assert terminal.modes() == before
    terminal.types("n")
    assert terminal.ended() == 0


def test_without_a_terminal_nothing_is_started(user: User) -> None:
    """Nobody could answer."""
    talks(user, "true")
    done = user.asks("spec", "new")
    assert (done.code, (user.home / "opening").exists()) == (2, False)
    assert "this is no terminal" in done.err


def test_the_first_agent_of_the_chain_that_can_talk_is_talked_with(user: User) -> None:
    """Scripted and missing ones are passed over, and named when nobody is left."""
    talks(user, f"printf '{GOOD}' >spec.md")
    mute = '[agents.mute]\nkind = "script"\nscript = "m.json"\n[agents.gone]\nkind = "command"\ncommand = ["/gone"]\n'
    config = user.repo / "storyloop.toml"
    config.write_text(config.read_text().replace('["sh"]', '["mute", "gone", "sh"]') + mute)
    terminal = Terminal(user, "spec", "new")
    terminal.read_until("sh takes over this terminal")
    terminal.read_until("Run it now?")
    terminal.types("n")
    assert terminal.ended() == 0
    nobody = Terminal(user, "spec", "new", "--agent", "mute", "--agent", "gone")
    assert nobody.ended() == 2
    until(lambda: "mute has no interactive mode that is known; gone: /gone was not found" in nobody.seen)


SESSIONS = {
    "claude": ("claude", "--model", "m", "Hello"),
    "codex": ("codex", "-m", "m", "Hello"),
    "opencode": ("opencode", "--model", "m", "--prompt", "Hello"),
    "gemini": ("gemini", "-m", "m", "-i", "Hello"),
    "qwen": ("qwen", "-m", "m", "-i", "Hello"),
    "copilot": ("copilot", "--model", "m", "-i", "Hello"),
    "pi": ("pi", "--model", "m", "Hello"),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_built_in_agent_is_started_with_its_own_screen(name: str) -> None:
    """By the flags that the programs' own help names; the others have none that is known."""
    agent = AgentSpec(kind=AgentKind.PROFILE, profile=name)
    session = session_with(AgentRef(name, "m"), agent, opening="Hello")
    assert (session and session.argv) == SESSIONS.get(name)


POLICIES = {
    "no checks": (Policy(), "each story needs at least one criterion with a command"),
    "checks": (Policy(checks={"test": Command(run="pytest -q")}), "pytest -q"),
    "every criterion": (Policy(require=Require.CRITERIA), "each criterion needs a command"),
}


@pytest.mark.parametrize(("policy", "told"), POLICIES.values(), ids=POLICIES)
def test_the_form_that_an_agent_is_shown_is_itself_a_spec(policy: Policy, told: str, tmp_path: Path) -> None:
    """What it is told to write, `spec check` finds right; and it is told what the project wants besides."""
    opening = TemplatePrompts().interview(tmp_path / "spec.md", policy)
    example = opening.partition("```markdown\n")[2].partition("\n```")[0]
    spec = parse_spec(example.encode(), name="spec.md")
    assert [story.id for story in spec.user_stories] == ["US-001", "US-002"]
    assert all(criterion.verify for story in spec.user_stories for criterion in story.acceptance_criteria)
    assert [text for _, text in POLICIES.values() if text in opening] == [told]
    assert len(opening) < 4_000
