"""Built-in agents: the laws of their table, how they are started, and what comes of calls of stand-ins for them."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storyloop.agents import cli
from storyloop.agents.dialects import dialect_named
from storyloop.agents.installed import absent_program
from storyloop.agents.prices import price
from storyloop.agents.processes import ProcessAgents
from storyloop.agents.profile import SPLICES, Can, Named, Prompt
from storyloop.agents.profiles import PROFILES
from storyloop.agents.start import Start
from storyloop.config import settings
from storyloop.core.artifacts import DevelopmentResult
from storyloop.core.errand import Mode
from storyloop.core.facts import Answered, CallReport, Failed, Failure, Interrupted, Malformed
from storyloop.core.policy import AgentKind, AgentRef, AgentSpec, Drain
from storyloop.core.usage import Usage
from storyloop.core.words import DevelopmentStatus
from storyloop.ports.agents import CallOrder

NAMES = sorted(PROFILES)
VERIFIED = ["claude", "codex", "opencode", "gemini", "qwen", "copilot", "pi", "kimi", "aider", "mini"]
PLACEHOLDERS = {"session", "model", "directory", "private", "prompt"}
XML = "<development-result><status>completed</status><summary>It is done.</summary></development-result>"
WRITES_ANSWER = f'echo "{XML}" > "$STORYLOOP_ARTIFACT"\n'
DONE = Answered(artifact=DevelopmentResult(status=DevelopmentStatus.COMPLETED, summary="It is done."))
ID = "01a1fb49-42c7-7ba1-91b7-0c0223589dd2"
SECRET_PROMPT = "Do the story of the purple heron."


class Desk:
    """A worktree, a home and a PATH on which stand-ins for the CLIs can be put."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.worktree, self.home, self.bin = root / "worktree", root / "home", root / "bin"
        for place in (self.worktree, self.home, self.bin):
            place.mkdir()
        self.environ = {"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(self.home), "OTHER": "o"}
        self.calls = 0

    def order(self, profile: str = "claude", **more: Any) -> CallOrder:
        self.calls += 1
        plain: dict[str, Any] = {
            "run_id": "run-1", "key": f"US-001/1/story/0/{self.calls}", "call_dir": f"{self.root}/calls/{self.calls}",
            "worktree": str(self.worktree), "ref": AgentRef("mine"), "drain": Drain.STORY, "story": "US-001",
            "agent": AgentSpec(kind=AgentKind.PROFILE, profile=profile), "attempt": 0, "call": 1, "mode": Mode.FRESH,
            "session": None, "prompt": SECRET_PROMPT, "call_timeout": 20.0, "idle_timeout": 10.0, "orphan_grace": 10.0,
        }  # fmt: skip
        return CallOrder(**plain | more)

    def stand_in(self, program: str, script: str) -> None:
        path = self.bin / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def ask(self, order: CallOrder, *, fenced: bool = False) -> CallReport:
        report = ProcessAgents(self.environ, fenced=fenced).launch(order).wait(30)
        assert report is not None
        return report


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def says(*lines: object) -> str:
    """Shell that prints these objects as lines of JSON."""
    return "cat <<'LINES'\n" + "\n".join(json.dumps(line) for line in lines) + "\nLINES"


# --- the table -------------------------------------------------------------------------------------------


def test_the_configuration_knows_the_very_agents_of_the_table() -> None:
    """By name and in their order, and which of them speak ACP."""
    assert tuple(PROFILES) == settings.PROFILES
    assert {name for name, profile in PROFILES.items() if profile.acp} == settings.SPEAK_ACP
    assert [name for name, profile in PROFILES.items() if profile.verified] == VERIFIED


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_complete_and_agrees_with_itself(name: str) -> None:
    """What it can do, it says how to; what was measured names its versions and an offline set-up."""
    profile = PROFILES[name]
    assert profile.name == name
    assert all((profile.title, profile.program, profile.install, profile.version, profile.home))
    assert dialect_named(profile.dialect).turn().finished in (True, False)
    assert (Can.RESUME in profile.can) == bool(profile.resume)
    assert (Can.ACP in profile.can) == bool(profile.acp)
    assert ("<session>" in profile.argv) == bool(profile.resume)
    assert bool(profile.begin) == (profile.named is Named.BY_US)
    assert (profile.named is Named.BY_NOBODY) <= (not profile.resume)
    assert bool(profile.versions) == profile.verified
    assert (profile.offline is not None) == profile.verified
    assert not any(path.startswith(("/", "~", "$")) for path in (*profile.home, *profile.login))
    assert not set(profile.env) & set(profile.passed())


@pytest.mark.parametrize("name", NAMES)
def test_every_placeholder_of_an_entry_is_one_that_is_filled_in(name: str) -> None:
    """No misspelt one reaches a command line."""
    profile = PROFILES[name]
    words = [
        *profile.argv, *profile.interactive, *profile.begin, *profile.resume, *profile.model, *profile.directory,
        *profile.fenced.argv, *profile.alone.argv, *profile.env.values(),
    ]  # fmt: skip
    named = {found for word in words for found in re.findall(r"\{(\w+)\}", word)}
    assert named <= PLACEHOLDERS
    assert {word for word in words if word.startswith("<")} <= set(SPLICES)
    if profile.offline is not None:
        texts = (*profile.offline.env.values(), *profile.offline.files.values(), profile.offline.model)
        assert {found for text in texts for found in re.findall(r"\{(\w+)\}", text)} <= {"base", "model"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fenced", [True, False])
@pytest.mark.parametrize("session", [None, ID])
def test_a_prompt_is_never_an_argument(desk: Desk, name: str, fenced: bool, session: str | None) -> None:
    """It stands on stdin or in a file; no splice and no placeholder is left over."""
    order = desk.order(name, session=session, ref=AgentRef("mine", "m-1"))
    start = cli.start(order, fenced=fenced, directories=("/data",))
    assert not any("purple heron" in word for word in start.argv)
    by_stdin = PROFILES[name].prompt is Prompt.STDIN
    held = start.stdin if by_stdin else start.papers["prompt.md"]
    assert held == SECRET_PROMPT.encode()
    assert (start.stdin is None) == (not by_stdin)
    told = " ".join((*start.argv, *start.env.values()))
    assert not re.search(r"<(session|model|permission|directories)>|\{(session|model|private|prompt|directory)\}", told)
    assert ("m-1" in told) == bool(PROFILES[name].model)
    assert (ID in told) == (session is not None and bool(PROFILES[name].resume))


# --- command lines ---------------------------------------------------------------------------------------

CLAUDE = ("claude", "-p", "--output-format", "stream-json", "--verbose")
FREE = ("--dangerously-skip-permissions",)
TIGHT = ("--permission-mode", "acceptEdits", "--allowedTools=Bash")
CODEX = ("--json", "--skip-git-repo-check", "-c", "analytics.enabled=false", "-c", "check_for_update_on_startup=false")
BYPASS = "--dangerously-bypass-approvals-and-sandbox"
WRITES = ("-c", 'sandbox_mode="workspace-write"')
ROOTS = ("-c", 'sandbox_workspace_write.writable_roots=["/data"]')


@pytest.mark.parametrize(
    ("name", "more", "fenced", "directories", "argv"),
    [
        ("claude", {"session": ID}, True, (), (*CLAUDE, *FREE, "--resume", ID)),
        ("claude", {"session": ID}, False, (), (*CLAUDE, *TIGHT, "--resume", ID)),
        (
            "claude",
            {"session": ID, "ref": AgentRef("mine", "small")},
            True,
            ("/data", "/more"),
            (*CLAUDE, "--model", "small", *FREE, "--add-dir=/data", "--add-dir=/more", "--resume", ID),
        ),
        ("codex", {}, True, (), ("codex", "exec", *CODEX, BYPASS, "-")),
        ("codex", {}, False, ("/data",), ("codex", "exec", *CODEX, *WRITES, *ROOTS, "-")),
        (
            "codex",
            {"session": ID, "ref": AgentRef("mine", "small")},
            False,
            (),
            ("codex", "exec", "resume", ID, *CODEX, "-m", "small", *WRITES, "-"),
        ),
    ],
)
def test_a_call_is_this_very_command_line(
    desk: Desk, name: str, more: dict[str, Any], fenced: bool, directories: tuple[str, ...], argv: tuple[str, ...]
) -> None:
    """Fresh and resumed, with a model and without, where a sandbox of ours holds and where none does."""
    assert cli.start(desk.order(name, **more), fenced=fenced, directories=directories).argv == argv


def test_a_new_session_is_named_after_its_call(desk: Desk) -> None:
    """Always the same for one call, another one for each call."""

    def named(key: str) -> str:
        return cli.start(desk.order(key=key), fenced=True, directories=()).argv[-1]

    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", named("a/1"))
    assert named("a/1") == named("a/1") != named("a/2")


def test_the_chains_model_goes_before_the_agents(desk: Desk) -> None:
    """And without either, none is named."""
    agent = AgentSpec(kind=AgentKind.PROFILE, profile="codex", model="large")

    def model(ref: AgentRef, agent: AgentSpec) -> tuple[str, ...]:
        argv = cli.start(desk.order(ref=ref, agent=agent), fenced=True, directories=()).argv
        return argv[argv.index("-m") :][:2] if "-m" in argv else ()

    assert model(AgentRef("mine", "small"), agent) == ("-m", "small")
    assert model(AgentRef("mine"), agent) == ("-m", "large")
    assert model(AgentRef("mine"), AgentSpec(kind=AgentKind.PROFILE, profile="codex")) == ()


def test_only_inside_of_a_fence_claude_is_told_that_one_holds(desk: Desk) -> None:
    """It would else skip its questions to root."""

    def told(*, fenced: bool) -> bool:
        return "IS_SANDBOX" in cli.start(desk.order("claude"), fenced=fenced, directories=()).env

    assert (told(fenced=True), told(fenced=False)) == (True, False)


def test_an_acp_agent_gets_its_order_on_the_hosts_stdin(desk: Desk) -> None:
    """A built-in one with its own program and settings, another one with the command of its entry."""

    def host(agent: AgentSpec) -> tuple[Start, dict[str, Any]]:
        start = cli.start_host(desk.order(agent=agent), fenced=False, directories=("/data",))
        return start, json.loads(start.stdin or b"")

    start, told = host(AgentSpec(kind=AgentKind.ACP, profile="gemini"))
    assert start.argv == (sys.executable, "-I", "-m", "storyloop.agents.acp_host")
    assert (told["argv"], told["prompt"], told["roots"]) == (["gemini", "--acp"], SECRET_PROMPT, ["/data"])
    assert start.env["GEMINI_CLI_TRUST_WORKSPACE"] == "true"
    assert "gemini.json" in start.papers
    start, told = host(AgentSpec(kind=AgentKind.ACP, command=("mine", "--acp")))
    assert (told["argv"], start.env, start.papers) == (["mine", "--acp"], {}, {})


# --- calls -----------------------------------------------------------------------------------------------

INIT = {"type": "system", "subtype": "init", "session_id": ID, "model": "claude-sonnet-4-5"}


def claude_said(text: str, *, cost: float, tokens: int = 100, **more: Any) -> tuple[dict[str, Any], ...]:
    """A turn of Claude Code: its beginning, what it said, and its end."""
    usage = {
        "input_tokens": tokens,
        "output_tokens": 10,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
    }
    message = {
        "id": "m",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": text}],
    }
    result = {
        "type": "result", "subtype": "success", "is_error": False, "result": text, "session_id": ID, "num_turns": 1,
        "terminal_reason": "completed", "total_cost_usd": cost, "usage": usage, "permission_denials": [],
    }  # fmt: skip
    return INIT, {"type": "assistant", "session_id": ID, "message": message}, {**result, **more}


def codex_said(text: str, *, tokens: int, thread: str = ID) -> tuple[dict[str, Any], ...]:
    """A turn of Codex; its tokens are those of the whole thread."""
    return (
        {"type": "thread.started", "thread_id": thread},
        {"type": "turn.started"},
        {"type": "item.completed", "item": {"id": "i", "type": "agent_message", "text": text}},
        {
            "type": "turn.completed",
            "usage": {"input_tokens": tokens, "cached_input_tokens": 0, "output_tokens": tokens // 10},
        },
    )


@pytest.mark.processes
def test_a_fresh_call_is_asked_on_stdin_and_answers_by_its_file(desk: Desk) -> None:
    """Its session, usage and cost are those of its stream; it gets its settings, and of the user's what is allowed."""
    desk.environ |= {"ANTHROPIC_API_KEY": "k"}
    desk.stand_in(
        "claude",
        f'cat > asked; env > environment; echo "{XML}" > "$STORYLOOP_ARTIFACT"\n'
        + says(*claude_said("Done.", cost=0.5)),
    )
    report = desk.ask(desk.order())
    assert report.outcome == DONE
    assert (report.session, report.cost_usd) == (ID, 0.5)
    assert report.usage == Usage(input_tokens=100, output_tokens=10, model="claude-sonnet-4-5")
    assert report.snippet == "Done."
    assert (desk.worktree / "asked").read_text() == SECRET_PROMPT
    environment = (desk.worktree / "environment").read_text().splitlines()
    assert {"DISABLE_TELEMETRY=1", "CLAUDE_CODE_MAX_RETRIES=2", "ANTHROPIC_API_KEY=k"} <= set(environment)
    assert "OTHER=o" not in environment


@pytest.mark.processes
def test_an_answer_without_a_file_is_taken_from_what_the_agent_said(desk: Desk) -> None:
    """From its last words, not from the lines of its stream, in which every quote is escaped."""
    desk.stand_in("claude", says(*claude_said(f"I am ready.\n```xml\n{XML}\n```", cost=0.1)))
    assert desk.ask(desk.order()).outcome == DONE


@pytest.mark.processes
@pytest.mark.parametrize(
    ("denied", "told"), [([], "none in the output. Expected"), ([{"tool_name": "Bash"}], "nobody could permit: Bash.")]
)
def test_a_turn_that_owes_its_result_says_what_it_was_refused(desk: Desk, denied: list[Any], told: str) -> None:
    """A permission that nobody could give may be why."""
    desk.stand_in("claude", says(*claude_said("I could not.", cost=0.1, permission_denials=denied)))
    outcome = desk.ask(desk.order()).outcome
    assert isinstance(outcome, Malformed)
    assert told in outcome.errors


@pytest.mark.processes
def test_a_resumed_session_is_charged_for_its_new_part_only(desk: Desk) -> None:
    """Codex tells the tokens of the whole thread each time, Claude the money of the whole session."""
    desk.stand_in("codex", says(*codex_said(XML, tokens=6000)))
    first = desk.ask(desk.order("codex"))
    desk.stand_in("codex", says(*codex_said(XML, tokens=7000, thread="another")))
    desk.ask(desk.order("codex"))
    desk.stand_in("codex", says(*codex_said(XML, tokens=8000)))
    second = desk.ask(desk.order("codex", session=first.session))
    desk.stand_in("codex", says(*codex_said(XML, tokens=9000)))
    third = desk.ask(desk.order("codex", session=second.session))
    other = desk.ask(desk.order("codex"))
    used = [
        report.usage and (report.usage.input_tokens, report.usage.output_tokens) for report in (first, second, third)
    ]
    assert used == [(6000, 600), (2000, 200), (1000, 100)]
    assert other.usage == Usage(input_tokens=9000, output_tokens=900)
    desk.stand_in("claude", says(*claude_said(XML, cost=0.5)))
    desk.ask(desk.order())
    desk.stand_in("claude", says(*claude_said(XML, cost=0.75)))
    report = desk.ask(desk.order(session=ID))
    assert report.cost_usd == 0.25
    assert report.usage == Usage(input_tokens=100, output_tokens=10, model="claude-sonnet-4-5")


@pytest.mark.processes
def test_what_a_call_used_is_the_same_when_it_is_computed_again(desk: Desk) -> None:
    """A Storyloop that died behind the call computes it once more."""
    desk.stand_in("codex", says(*codex_said(XML, tokens=6000)))
    session = desk.ask(desk.order("codex")).session
    desk.stand_in("codex", says(*codex_said(XML, tokens=8000)))
    order = desk.order("codex", session=session)
    once = desk.ask(order)
    again = ProcessAgents(desk.environ).adopt(order).wait(30)
    assert again == once
    assert once.usage == Usage(input_tokens=2000, output_tokens=200)


@pytest.mark.processes
def test_an_error_behind_exit_status_0_is_a_failure(desk: Desk) -> None:
    """Whatever artifact was written; the message says what to do."""
    error = {"is_error": True, "api_error_status": 401, "result": "Invalid API key"}
    desk.stand_in("claude", WRITES_ANSWER + says(*claude_said("no", cost=0, **error)))
    outcome = desk.ask(desk.order()).outcome
    assert isinstance(outcome, Failed)
    assert outcome.failure is Failure.AUTH
    assert outcome.message.endswith(
        "Start claude once by hand to log in, or set ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN or"
        " CLAUDE_CODE_OAUTH_TOKEN."
    )


@pytest.mark.processes
@pytest.mark.parametrize(
    ("script", "failure", "told"),
    [
        (says(INIT) + "\nkill -9 $$", Failure.TRANSIENT, "It was killed by SIGKILL."),
        (
            "printf 'Continue? [y/N] '; read answer || exit 1",
            Failure.TRANSIENT,
            "It printed what we do not know (Continue? [y/N]): ",
        ),
        (
            says({"type": "novel"}, {"type": "newer"}),
            Failure.TRANSIENT,
            'It printed what we do not know ({"type": "newer"}): ',
        ),
        ("echo 'error: unknown option --verbose' >&2; exit 1", Failure.CONFIG, "Correct the model or [agents.mine] in"),
        ("echo 'Not logged in. Please run /login' >&2; exit 1", Failure.AUTH, "Start claude once by hand to log in"),
    ],
    ids=["killed", "asks at its terminal", "changed its format", "too old for an option", "not logged in"],
)
def test_what_goes_wrong_is_said_in_a_sentence_with_the_cure(
    desk: Desk, script: str, failure: Failure, told: str
) -> None:
    """Whatever it is, it has a class by which the chain goes on."""
    desk.stand_in("claude", script)
    outcome = desk.ask(desk.order()).outcome
    assert isinstance(outcome, Failed)
    assert outcome.failure is failure
    assert told in outcome.message


@pytest.mark.processes
def test_a_program_that_is_not_here_is_a_failure_of_its_own_kind(desk: Desk) -> None:
    """It is no error of ours, and the next agent is asked."""
    desk.environ["PATH"] = str(desk.bin)
    outcome = desk.ask(desk.order("goose")).outcome
    message = "goose was not found or is not executable. Install it, or correct the entry [agents.mine]"
    assert outcome == Failed(failure=Failure.MISSING, message=f"{message} of your configuration.")


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        (
            AgentSpec(kind=AgentKind.PROFILE, profile="pi"),
            "pi (to install: npm install -g @mariozechner/pi-coding-agent)",
        ),
        (AgentSpec(kind=AgentKind.ACP, profile="claude"), "claude-agent-acp"),
        (AgentSpec(kind=AgentKind.ACP, command=("mine", "--acp")), "mine"),
        (AgentSpec(kind=AgentKind.PROFILE, profile="codex"), None),
    ],
)
def test_what_is_not_installed_is_known_before_a_run(desk: Desk, agent: AgentSpec, told: str | None) -> None:
    """With the way to get it, where we know it."""
    desk.stand_in("codex", "true")
    assert absent_program(agent, {"PATH": str(desk.bin)}) == told


@pytest.mark.processes
def test_a_stopped_call_still_tells_what_it_used(desk: Desk) -> None:
    """And its session, though it could not say goodbye."""
    desk.stand_in("codex", says(*codex_said("Half.", tokens=500)) + "\necho > said; exec sleep 60")
    watch = ProcessAgents(desk.environ).launch(desk.order("codex"))
    while not (desk.worktree / "said").exists():
        assert watch.wait(0.01) is None
    assert watch.activity() is not None
    watch.stop()
    report = watch.wait(10)
    assert report is not None
    assert report.outcome == Interrupted(reason="We stopped the agent.")
    assert (report.session, report.usage) == (ID, Usage(input_tokens=500, output_tokens=50))


@pytest.mark.processes
@pytest.mark.parametrize("name", ["claude", "kimi"])
def test_a_prompt_of_any_size_starts(desk: Desk, name: str) -> None:
    """300 kB are more than an argument may have on Linux; one agent reads stdin, the other a file."""
    find = "cat > asked" if name == "claude" else "cat > stdin; cp .storyloop/prompt.md asked"
    desk.stand_in(name, find)
    desk.ask(desk.order(name, prompt="x" * 300_000))
    assert (desk.worktree / "asked").stat().st_size == 300_000
    assert name == "claude" or (desk.worktree / "stdin").read_bytes() == b""


@pytest.mark.processes
def test_what_a_cli_keeps_for_itself_is_no_part_of_the_work(desk: Desk) -> None:
    """Its settings stand where no tree holds them; what it leaves in the root is removed."""
    desk.stand_in("gemini", 'cat "$GEMINI_CLI_SYSTEM_DEFAULTS_PATH" > settings')
    desk.ask(desk.order("gemini"))
    defaults = json.loads((desk.worktree / "settings").read_text())
    assert defaults["general"] == {"enableAutoUpdate": False, "enableAutoUpdateNotification": False, "maxAttempts": 3}
    desk.stand_in("aider", "mkdir .aider.tags.cache.v4; echo > .aider.tags.cache.v4/cache.db; echo > made")
    desk.ask(desk.order("aider"))
    assert sorted(path.name for path in desk.worktree.iterdir()) == [".storyloop", "made", "settings"]


@pytest.mark.processes
def test_a_start_does_not_load_what_only_an_end_or_a_prompt_needs() -> None:
    """The price table, the template engine and the ACP library take longer than a start may."""
    heavy = ["genai_prices", "jinja2", "pydantic", "acp", "psutil", "asyncio"]
    look = f"import sys, storyloop.agents.processes; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, check=True, text=True).stdout == "[]\n"


# --- money and homes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "usd"),
    [("gpt-5", 1.25 + 0.125 + 10.0), ("openai/gpt-5", 1.25 + 0.125 + 10.0), ("no-such-model", None), (None, None)],
)
def test_tokens_are_priced_without_a_network(
    monkeypatch: pytest.MonkeyPatch, model: str | None, usd: float | None
) -> None:
    """A million each, fresh, cached and answered; unknown is None, never 0."""
    monkeypatch.setattr(socket.socket, "connect", _no_network)
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    million = 1_000_000
    used = Usage(input_tokens=million, cache_read_tokens=million, output_tokens=million, model=model)
    assert price(used) == (None if usd is None else pytest.approx(usd))


def _no_network(*_: object) -> None:
    raise AssertionError("the network was asked")


def test_a_home_that_the_user_moved_is_found_there(tmp_path: Path) -> None:
    """With the login in it; the rest stays below HOME."""
    codex, copilot = PROFILES["codex"], PROFILES["copilot"]
    assert codex.homes({"HOME": "/h"}) == (Path("/h/.codex"),)
    assert codex.homes({"HOME": "/h", "CODEX_HOME": "/c"}) == (Path("/c"),)
    assert copilot.homes({"HOME": "/h", "COPILOT_HOME": "/c"}) == (Path("/c"), Path("/h/.cache/copilot"))
    (tmp_path / "auth.json").write_text('{"tokens": {}}')
    assert codex.is_logged_in({"HOME": "/h", "CODEX_HOME": str(tmp_path)}) is True


@pytest.mark.parametrize(
    ("login", "environ", "known"),
    [(None, {}, None), ("{}", {}, None), ('{"a": "token"}', {}, True), (None, {"OPENAI_API_KEY": "k"}, True)],
)
def test_a_login_is_told_only_where_it_is_seen(
    tmp_path: Path, login: str | None, environ: dict[str, str], known: bool | None
) -> None:
    """A key, or a file that holds something; else nobody outside of the CLI knows."""
    if login is not None:
        (tmp_path / ".codex").mkdir()
        (tmp_path / ".codex/auth.json").write_text(login)
    assert PROFILES["codex"].is_logged_in({"HOME": str(tmp_path), **environ}) is known
