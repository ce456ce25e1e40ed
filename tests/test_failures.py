"""Failures: the class of every way in which an agent fails, from the lines, the exit and the stderr it leaves."""

import json
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from typing import Any

import pytest

from storyloop.agents.dialects import dialect_named
from storyloop.agents.failures import classify
from storyloop.agents.reading import read_stream
from storyloop.agents.stream import Trouble, Turn
from storyloop.core.facts import Failed, Failure
from storyloop.world.process import Exit

NOW = datetime(2026, 11, 21, 13, 0, tzinfo=timezone(timedelta(hours=1)))  # noon in UTC, on a Saturday
HTTP_EXITS = {145: Failure.AUTH, 173: Failure.LIMIT, 42: Failure.CONFIG}

LIMIT, AUTH, OFFLINE, CONFIG, TRANSIENT = (
    Failure.LIMIT,
    Failure.AUTH,
    Failure.OFFLINE,
    Failure.CONFIG,
    Failure.TRANSIENT,
)
IDLE = "idle"


def failure_of(agent: str, lines: list[Any], end: int | str, stderr: str = "") -> Failed | None:
    spool = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    turn = read_stream(BytesIO(spool.encode()), dialect_named(agent))
    if end == IDLE:
        ended = Exit(how="idle", started_at=0, ended_at=1, signal=15)
    elif isinstance(end, int) and end < 0:
        ended = Exit(how="signalled", started_at=0, ended_at=1, signal=-end)
    else:
        ended = Exit(how="exited", started_at=0, ended_at=1, code=int(end))
    return classify(turn, ended, stderr_tail=stderr.encode(), now=NOW, exits=HTTP_EXITS)


def claude_error(message: str, status: int | None = None, **more: object) -> dict[str, object]:
    told = {"is_error": True, "subtype": "success", "result": message, "api_error_status": status, **more}
    return {"type": "result", **told}


def claude_retry(status: int | None, word: str) -> dict[str, object]:
    return {"type": "system", "subtype": "api_retry", "attempt": 1, "error_status": status, "error": word}


def codex_failed(message: str) -> dict[str, object]:
    return {"type": "turn.failed", "error": {"message": message}}


def opencode_error(name: str, message: str, status: int | None = None, **headers: str) -> dict[str, object]:
    data = {"message": message, "statusCode": status, "responseHeaders": headers}
    return {"type": "error", "error": {"name": name, "data": data}}


def gemini_error(message: str) -> dict[str, object]:
    return {"type": "result", "status": "error", "error": {"type": "unknown", "message": message}}


def copilot_error(kind: str, message: str, status: int | None = None) -> list[dict[str, object]]:
    data = {"errorType": kind, "message": message, "statusCode": status}
    return [{"type": "session.error", "data": data}, {"type": "result", "sessionId": "s", "exitCode": 1}]


def pi_error(message: str) -> list[dict[str, object]]:
    told = {"role": "assistant", "content": [], "stopReason": "error", "errorMessage": message}
    return [{"type": "message_end", "message": told}, {"type": "agent_end"}]


QWEN_ERROR = {"type": "result", "subtype": "error_during_execution", "is_error": True}
GEMINI_INIT = {"type": "init", "session_id": "s", "model": "m"}
GEMINI_STDERR = "Attempt 1 failed with status 429. Retrying with backoff... _ApiError: {}\n    at f (g.js:1)\n}\n"
CLOSED = "The socket connection was closed unexpectedly."
OPENCODE_LOG = 'timestamp=2026-11-21T07:54:08.606Z level=ERROR run=1 message="stream error" small=false error.error'
MINI_TRACE = "    raise RateLimitError(\nlitellm.exceptions.RateLimitError: litellm.RateLimitError: Slow down."
TOO_LONG = "prompt is too long: 250000 tokens > 200000 maximum"

# agent, what it met, its lines, its exit (negative: a signal), its stderr, the class
MET: list[tuple[str, str, list[Any], int | str, str, Failure]] = [
    ("claude", "429", [claude_error("rejected", 429)], 1, "", LIMIT),
    ("claude", "401", [claude_error("Invalid API key", 401)], 1, "", AUTH),
    ("claude", "401 while it still tries", [claude_retry(401, "authentication_failed")], IDLE, "", AUTH),
    ("claude", "429 while it still tries", [claude_retry(429, "rate_limit")], IDLE, "", LIMIT),
    ("claude", "529", [claude_error("API Error: 529 Overloaded", 529)], 1, "", TRANSIENT),
    ("claude", "529 while it still tries", [claude_retry(529, "overloaded")], IDLE, "", TRANSIENT),
    ("claude", "500", [claude_error("API Error: 500 internal server error", 500)], 1, "", TRANSIENT),
    ("claude", "refused", [claude_error("firewall?", api_error="connection_failed")], 1, "", OFFLINE),
    ("claude", "context", [claude_error("Prompt is too long", 400)], 1, "", TRANSIENT),
    ("claude", "a bad request", [claude_error("tools: field required", 400)], 1, "", CONFIG),
    ("claude", "no money", [claude_error("Your credit balance is too low", 400)], 1, "", LIMIT),
    ("claude", "a bad model", [claude_error("model: some-model", 404)], 1, "", CONFIG),
    ("claude", "max turns", [{"type": "result", "subtype": "error_max_turns", "is_error": True}], 1, "", TRANSIENT),
    ("claude", "an unknown flag", [], 1, "error: unknown option '--nonsense'", CONFIG),
    ("claude", "SIGINT, and exit 0 without a result", [], 0, "", TRANSIENT),
    ("claude", "SIGTERM", [{"type": "system", "subtype": "init"}], 143, "", TRANSIENT),
    ("qwen", "401", [{**QWEN_ERROR, "error": {"message": "[API Error: 401 no]"}}], 1, "", AUTH),
    ("qwen", "refused", [{**QWEN_ERROR, "error": {"message": "(cause: connect ECONNREFUSED)"}}], 1, "", OFFLINE),
    ("qwen", "a cut stream", [{**QWEN_ERROR, "error": {"message": "[API Error: terminated]"}}], 1, "", TRANSIENT),
    (
        "qwen",
        "429, told on stderr only",
        [{"type": "system", "subtype": "retry", "data": {"delayMs": 60000}}],
        IDLE,
        "Retrying in 60s (attempt 1/10): [API Error: 429 Number of requests]",
        LIMIT,
    ),
    ("codex", "429", [codex_failed("exceeded retry limit, last status: 429 Too Many Requests")], 1, "", LIMIT),
    ("codex", "401", [codex_failed("unexpected status 401 Unauthorized: no, url: http://x")], 1, "", AUTH),
    ("codex", "529", [codex_failed("unexpected status 529 <unknown status code>: Overloaded")], 1, "", TRANSIENT),
    ("codex", "context", [codex_failed("ran out of room in the model's context window.")], 1, "", TRANSIENT),
    ("codex", "a cut stream", [codex_failed("stream disconnected before completion")], 1, "", TRANSIENT),
    (
        "codex",
        "429 with a long wait, silently",
        [{"type": "error", "message": "Reconnecting... 1/5 (last status: 429 Too Many Requests)"}],
        IDLE,
        "",
        LIMIT,
    ),
    (
        "codex",
        "refused, for ever",
        [{"type": "error", "message": "Reconnecting... waiting for network (Connection failed: error)"}],
        IDLE,
        "",
        OFFLINE,
    ),
    ("codex", "an unknown flag", [], 2, "error: unexpected argument '--nonsense' found", CONFIG),
    ("codex", "no Node for its launcher", [], 127, "env: 'node': No such file or directory", Failure.MISSING),
    ("plain", "a test run that ends with 127", ["words"], 127, "", TRANSIENT),
    ("codex", "a lost session", [], 1, "Error: thread/resume failed: no rollout found", TRANSIENT),
    ("opencode", "429", [opencode_error("APIError", "no", 429)], 1, "", LIMIT),
    ("opencode", "401", [opencode_error("APIError", "no", 401)], 1, "", AUTH),
    ("opencode", "context", [opencode_error("ContextOverflowError", "no")], 1, "", TRANSIENT),
    ("opencode", "refused", [opencode_error("APIError", "Cannot connect to API")], 1, "", OFFLINE),
    ("opencode", "a reset", [opencode_error("APIError", "Connection reset by server")], 1, "", TRANSIENT),
    ("opencode", "a cut stream", [opencode_error("APIError", f"Cannot connect to API: {CLOSED}")], 1, "", TRANSIENT),
    ("opencode", "silence", [], IDLE, "", TRANSIENT),
    ("opencode", "429, in its log only", [], IDLE, f'{OPENCODE_LOG}="AI_APICallError: Rate limit reached."\n', LIMIT),
    ("opencode", "529, in its log only", [], IDLE, f'{OPENCODE_LOG}.message="The model is \\"hot\\"."\n', TRANSIENT),
    ("gemini", "429", [GEMINI_INIT, gemini_error("Please wait.")], 173, "", LIMIT),
    ("gemini", "401", [gemini_error('[API Error: {"error":{"code":401,"message":"no"}}]')], 145, "", AUTH),
    ("gemini", "context", [gemini_error(f'{{"error":{{"code":400,"message":"{TOO_LONG}"}}}}')], 144, "", TRANSIENT),
    ("gemini", "refused", [gemini_error("exception TypeError: fetch failed")], 1, "", OFFLINE),
    ("gemini", "429, silently", [GEMINI_INIT], IDLE, GEMINI_STDERR, LIMIT),
    ("gemini", "an error under exit 0", [gemini_error("ended without a finish reason")], 0, "", TRANSIENT),
    ("gemini", "a bad argument", [], 42, "Error resuming session", CONFIG),
    ("copilot", "429", copilot_error("rate_limit", "429 usage limit reached", 429), 1, "", LIMIT),
    ("copilot", "401", copilot_error("authentication", "no", 401), 1, "", AUTH),
    ("copilot", "refused", copilot_error("query", "Could not connect to local model provider"), 1, "", OFFLINE),
    ("copilot", "a cut stream", copilot_error("query", "error reading a body from connection"), 1, "", TRANSIENT),
    ("copilot", "an error under exit 0", copilot_error("rate_limit", "no", 429), 0, "", LIMIT),
    ("pi", "429 under exit 0", pi_error("429 Number of requests"), 0, "", LIMIT),
    ("pi", "401 under exit 0", pi_error("401 invalid"), 0, "", AUTH),
    ("pi", "500 under exit 0", pi_error("500 internal server error"), 0, "", TRANSIENT),
    ("pi", "refused under exit 0", pi_error("Connection error."), 0, "", OFFLINE),
    ("pi", "context under exit 0", pi_error(f"400 {TOO_LONG}"), 0, "", TRANSIENT),
    ("kimi", "429", ["Error code: 429 - {'error'"], 75, "", LIMIT),
    ("kimi", "500", ["Error code: 500 - {'error'"], 75, "", TRANSIENT),
    ("kimi", "401", [], 1, "error: failed to run prompt: provider.auth_error: 401 invalid x-api-key\nSee log", AUTH),
    (
        "kimi",
        "a cut stream, after an answer",
        [{"role": "assistant", "content": "x"}],
        1,
        "error: failed to run prompt: provider.connection_error: terminated",
        TRANSIENT,
    ),
    ("plain", "aider's 429 under exit 0", ["Aider v1", "litellm.RateLimitError: Slow down"], 0, "", LIMIT),
    ("plain", "aider's 401", ["Aider v1", "litellm.BadRequestError: invalid x-api-key"], 0, "", AUTH),
    ("plain", "aider's refused", ["Aider v1", "litellm.InternalServerError: Connection ", "error."], 0, "", OFFLINE),
    (
        "plain",
        "mini's endless 401",
        ["Building agent config"],
        IDLE,
        "Retrying <unknown> in 8 seconds as it raised BadRequestError: OpenAIException - invalid x-api-key.",
        AUTH,
    ),
    ("plain", "mini's 429, when it gives up", ["Building agent config"], 1, MINI_TRACE, LIMIT),
    ("plain", "killed", ["words"], -9, "", TRANSIENT),
]


@pytest.mark.parametrize(
    ("agent", "lines", "end", "stderr", "expected"),
    [(agent, lines, end, stderr, expected) for agent, _, lines, end, stderr, expected in MET],
    ids=[f"{row[0]}: {row[1]}" for row in MET],
)
def test_every_failure_has_its_class(
    agent: str, lines: list[Any], end: int | str, stderr: str, expected: Failure
) -> None:
    """What an agent met is known from what it leaves, and a failure that ran into our timer is told apart."""
    failed = failure_of(agent, lines, end, stderr)
    assert failed is not None
    assert failed.failure == expected
    assert failed.timed_out == (end == IDLE and expected is TRANSIENT)


# The words of a limit, and when it ends: noon in UTC is one o'clock with the user.
STATED = [
    ("Claude AI usage limit reached|1795262400", "2026-11-21T12:00:00"),
    ("5-hour limit reached \u2219 resets 3pm", "2026-11-21T14:00:00"),
    ("You've hit your limit \u00b7 resets 9:30am", "2026-11-22T08:30:00"),
    ("You've hit your limit \u00b7 resets 3pm (America/New_York)", "2026-11-21T20:00:00"),
    ("You've hit your limit \u00b7 resets 12am (UTC)", "2026-11-22T00:00:00"),
    ("Weekly limit reached, resets Nov 24 at 5pm", "2026-11-24T16:00:00"),
    ("Weekly limit reached, resets Jan 2, 5pm", "2027-01-02T16:00:00"),
    ("Usage limit. Upgrade, or try again in 3h 12m.", "2026-11-21T15:12:00"),
    ("Usage limit. Try again in 1 day 2 hours 3 minutes.", "2026-11-22T14:03:00"),
    ("Rate limit reached. Please try again in 1.5s. Visit us.", "2026-11-21T12:00:01.500000"),
    ("Rate limit reached. Please try again in 500ms.", "2026-11-21T12:00:00.500000"),
    ("Usage limit. Try again at Nov 23rd, 2026 3:05 PM.", "2026-11-23T14:05:00"),
    ('429 {"type":"usage_limit_reached","resets_in_seconds":7200}', "2026-11-21T14:00:00"),
    ('429 {"resets_at":1795269600}', "2026-11-21T14:00:00"),
    ("429 limit resets at 2026-11-21T18:00:00Z", "2026-11-21T18:00:00"),
    ('429 {"retryDelay":"34s"}', "2026-11-21T12:00:34"),
    ("429 too many requests", None),
    ("Limit reached, resets Feb 30 at 5pm", None),
    ("Limit reached, resets 3pm (Nowhere/Land)", None),
]


@pytest.mark.parametrize(("words", "expected"), STATED, ids=[words for words, _ in STATED])
def test_a_stated_reset_is_understood(words: str, expected: str | None) -> None:
    """In every form that agents state it, and None rather than a guess."""
    failed = failure_of("claude", [claude_error(words)], 1)
    assert failed is not None
    assert failed.failure is LIMIT
    assert failed.resets_at == (expected and datetime.fromisoformat(f"{expected}+00:00"))


def test_a_reset_told_by_structure_is_taken_before_words() -> None:
    """A header, or an event about limits."""
    told = {"status": "rejected", "resetsAt": 1795269600, "rateLimitType": "five_hour"}
    lines = [{"type": "rate_limit_event", "rate_limit_info": told}, claude_error("limit reached, resets 9pm", 429)]
    claude = failure_of("claude", lines, 1)
    opencode = failure_of("opencode", [opencode_error("APIError", "no", 429, **{"retry-after": "90"})], 1)
    assert claude is not None
    assert claude.resets_at == datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
    assert opencode is not None
    assert opencode.resets_at == datetime(2026, 11, 21, 12, 1, 30, tzinfo=UTC)


def test_only_a_limit_has_a_reset() -> None:
    """What is overloaded is asked again by our own clock."""
    failed = failure_of("claude", [claude_error("Overloaded, try again in 5m", 529)], 1)
    assert failed is not None
    assert failed.resets_at is None


ALARM = "Error: 429 Too Many Requests: rate limit exceeded, usage limit reached, 401 Unauthorized, ECONNREFUSED"
ABOUT_LIMITS: dict[str, list[Any]] = {
    "claude": [
        {"type": "system", "subtype": "init", "session_id": "s"},
        {"type": "assistant", "message": {"content": [{"type": "text", "text": ALARM}]}},
        {"type": "user", "message": {"content": [{"type": "tool_result", "content": ALARM, "is_error": True}]}},
    ],
    "qwen": [{"type": "assistant", "message": {"content": [{"type": "text", "text": ALARM}]}}],
    "codex": [
        {"type": "item.completed", "item": {"type": "agent_message", "text": ALARM}},
        {"type": "item.completed", "item": {"type": "command_execution", "aggregated_output": ALARM, "exit_code": 1}},
    ],
    "opencode": [
        {"type": "text", "part": {"text": ALARM}},
        {"type": "tool_use", "part": {"tool": "bash", "state": {"status": "error", "error": ALARM}}},
    ],
    "gemini": [
        {"type": "message", "role": "assistant", "content": ALARM},
        {"type": "tool_use", "tool_name": "sh", "tool_id": "1"},
        {"type": "tool_result", "tool_id": "1", "status": "error", "error": {"type": "failed", "message": ALARM}},
    ],
    "copilot": [
        {"type": "assistant.message", "data": {"content": ALARM}},
        {"type": "tool.execution_complete", "data": {"success": False, "error": {"message": ALARM}}},
    ],
    "pi": [
        {"type": "message_end", "message": {"role": "assistant", "content": [{"type": "text", "text": ALARM}]}},
        {"type": "tool_execution_end", "isError": True, "result": {"content": [{"type": "text", "text": ALARM}]}},
    ],
    "kimi": [
        {"role": "assistant", "content": ALARM, "tool_calls": [{"function": {"name": "Shell"}}]},
        {"role": "tool", "content": ALARM},
    ],
    "plain": ["Aider v1", ALARM, "litellm.RateLimitError: 429, a test prints", "", "words", ALARM],
}


@pytest.mark.parametrize("agent", ABOUT_LIMITS)
@pytest.mark.parametrize("end", [0, 1, -9, IDLE])
def test_a_project_about_rate_limits_meets_none(agent: str, end: int | str) -> None:
    """What the model and its tools write, on stdout and stderr, decides nothing, however the process ends."""
    failed = failure_of(agent, ABOUT_LIMITS[agent], end, f"{ALARM}\n{ALARM}")
    assert failed is not None
    assert (failed.failure, failed.resets_at, failed.timed_out) == (TRANSIENT, None, end == IDLE)


def test_an_old_retry_does_not_explain_a_later_silence() -> None:
    """Gemini's stderr tells of a retry; the answer that came since says it is over."""
    lines = [GEMINI_INIT, {"type": "message", "role": "assistant", "content": "Now I look."}]
    failed = failure_of("gemini", lines, IDLE, GEMINI_STDERR)
    assert failed is not None
    assert (failed.failure, failed.timed_out) == (TRANSIENT, True)


@pytest.mark.parametrize("how", ["stopped", "orphaned", "failed_to_start"])
def test_what_we_ended_ourselves_is_no_failure_of_the_agent(how: Any) -> None:
    """Whatever its stream says."""
    turn = Turn(trouble=Trouble(message="429", status=429))
    assert classify(turn, Exit(how=how, started_at=0, ended_at=1), stderr_tail=b"429", now=NOW) is None


def test_a_turn_that_is_over_with_exit_0_and_no_trouble_has_not_failed() -> None:
    """Whatever its stderr says: warnings stand there too."""
    assert failure_of("claude", [{"type": "result", "subtype": "success"}], 0, ALARM) is None


def test_the_message_says_how_it_ended_and_in_whose_words() -> None:
    """For a person who reads the report."""
    denied = {"type": "tool_use", "part": {"tool": "write", "state": {"error": "The user rejected permission to"}}}
    for failed, expected in (
        (failure_of("pi", pi_error("401 no key"), 0), "It failed, whatever its exit status says. 401 no key"),
        (failure_of("codex", [], 1, "Error: no rollout"), "It ended with exit status 1. Error: no rollout"),
        (failure_of("opencode", [denied], 0), "Its turn broke off after it was refused write."),
        (failure_of("plain", ["x"], -9), "It was killed by SIGKILL."),
    ):
        assert failed is not None
        assert failed.message == expected
