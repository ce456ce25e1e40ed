"""Dialects: what each agent's stream comes to, and what no stream can do to them. All lines are written by hand."""

import json
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

import msgspec
import pytest

from storyloop.agents.dialects import dialect_named
from storyloop.agents.dialects.lines import MAX_ANSWER
from storyloop.agents.reading import MAX_LINE, glance, read_stream
from storyloop.agents.stream import Seen, Turn, What
from storyloop.core.usage import Usage

DIALECTS = ("claude", "qwen", "codex", "opencode", "gemini", "copilot", "pi", "kimi", "plain")


def spooled(lines: Iterable[object]) -> BytesIO:
    """A spool of these lines: values as JSON, text as it is."""
    return BytesIO("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines).encode())


def turn_of(name: str, *lines: object) -> Turn:
    return read_stream(spooled(lines), dialect_named(name))


def claude(kind: str, *blocks: object, parent: str | None = None) -> dict[str, object]:
    return {"message": {"content": list(blocks), "model": "m-1"}, "parent_tool_use_id": parent, "type": kind}


def said(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


CLAUDE_INIT = {"type": "system", "subtype": "init", "session_id": "s-1", "model": "m-1"}
CLAUDE_USED = {"inputTokens": 7, "outputTokens": 5, "cacheReadInputTokens": 3, "costUSD": 0.5, "thinkingTokens": 2}
CLAUDE_RESULT = {
    "subtype": "success",
    "is_error": False,
    "session_id": "s-1",
    "total_cost_usd": 9.0,
    "usage": {"input_tokens": 7, "output_tokens": 5, "cache_read_input_tokens": 3},
    "modelUsage": {"m-1": {**CLAUDE_USED, "inputTokens": 100}},
    "result": "Done.",
    "type": "result",
}
CLAUDE_RUN = {**CLAUDE_RESULT, "model_usage_since_last_result": {"m-1": CLAUDE_USED}}
CLAUDE_USAGE = Usage(input_tokens=7, output_tokens=5, cache_read_tokens=3, thinking_tokens=2, model="m-1")

CODEX_USED = {"input_tokens": 60, "cached_input_tokens": 20, "output_tokens": 9, "reasoning_output_tokens": 4}
PI_USED = {"input": 10, "output": 4, "cacheRead": 5, "cacheWrite": 1, "cost": {"total": 0.25}}
GEMINI_STATS = {"total_tokens": 75, "input_tokens": 60, "output_tokens": 10, "cached": 20}
OPENCODE_TOKENS = {"total": 30, "input": 10, "output": 4, "reasoning": 6, "cache": {"read": 8, "write": 2}}


def codex(**item: object) -> dict[str, object]:
    return {"type": "item.completed", "item": item}


def opencode(kind: str, **part: object) -> dict[str, object]:
    return {"type": kind, "sessionID": "s-1", "part": part}


def gemini(text: str) -> dict[str, object]:
    return {"type": "message", "role": "assistant", "content": text, "delta": True}


def copilot(kind: str, **data: object) -> dict[str, object]:
    return {"type": kind, "data": data}


def pi(**message: object) -> dict[str, object]:
    return {"type": "message_end", "message": {"role": "assistant", "model": "m-1", "usage": PI_USED, **message}}


AIDER = ["Aider v0.86.2", "Model: m-1", ""]

# A whole turn that went well, and what it comes to.
WELL: dict[str, tuple[list[object], dict[str, object]]] = {
    "claude": (
        [
            CLAUDE_INIT,
            claude("assistant", {"type": "thinking", "thinking": "hm"}),
            claude("assistant", {"type": "tool_use", "name": "Bash", "input": {"command": "ls"}}),
            claude("user", {"type": "tool_result", "content": "a.py"}),
            claude("assistant", said("Done.")),
            CLAUDE_RUN,
        ],
        {"session": "s-1", "model": "m-1", "usage": CLAUDE_USAGE, "cost_usd": 0.5, "cost_cumulative": False},
    ),
    "qwen": (
        [
            CLAUDE_INIT,
            claude("assistant", said("Done.")),
            {**CLAUDE_RESULT, "total_cost_usd": None, "modelUsage": None},
        ],
        {
            "session": "s-1",
            "usage": Usage(input_tokens=4, output_tokens=5, cache_read_tokens=3, model="m-1"),
            "usage_cumulative": True,
            "cost_usd": None,
        },
    ),
    "codex": (
        [
            {"type": "thread.started", "thread_id": "s-1"},
            codex(type="error", message="Model metadata not found."),
            {"type": "turn.started"},
            {"type": "error", "message": "Reconnecting... 1/5 (last status: 429 Too Many Requests)"},
            codex(type="reasoning", text="hm"),
            {"type": "item.started", "item": {"type": "command_execution", "command": "ls"}},
            codex(type="command_execution", command="ls", aggregated_output="a.py"),
            codex(type="agent_message", text="Done."),
            {"type": "turn.completed", "usage": CODEX_USED},
        ],
        {
            "session": "s-1",
            "usage": Usage(input_tokens=40, output_tokens=9, cache_read_tokens=20, thinking_tokens=4),
            "usage_cumulative": True,
            "cost_usd": None,
            "retries": 1,
        },
    ),
    "opencode": (
        [
            opencode("step_start"),
            opencode("tool_use", tool="bash", state={"input": {"command": "ls"}, "output": "a.py"}),
            opencode("step_finish", reason="tool-calls", tokens=OPENCODE_TOKENS, cost=0.25),
            opencode("text", text="Done."),
            opencode("step_finish", reason="stop", tokens=OPENCODE_TOKENS, cost=0.25),
        ],
        {
            "session": "s-1",
            "usage": Usage(
                input_tokens=20, output_tokens=20, cache_read_tokens=16, cache_creation_tokens=4, thinking_tokens=12
            ),
            "cost_usd": 0.5,
            "usage_cumulative": False,
        },
    ),
    "gemini": (
        [
            {"type": "init", "session_id": "s-1", "model": "m-1"},
            {"type": "message", "role": "user", "content": "Do it."},
            gemini("I look."),
            {"type": "tool_use", "tool_name": "ls", "tool_id": "ls-1", "parameters": {"path": "."}},
            {"type": "tool_result", "tool_id": "ls-1", "status": "success", "output": "a.py"},
            gemini("Do"),
            gemini("ne."),
            {"type": "result", "status": "success", "stats": GEMINI_STATS},
        ],
        {
            "session": "s-1",
            "usage": Usage(input_tokens=40, output_tokens=15, cache_read_tokens=20, model="m-1"),
            "cost_usd": None,
        },
    ),
    "copilot": (
        [
            copilot("model.call_failure", statusCode=429, errorType="rate_limit_exceeded"),
            copilot("assistant.turn_retry", reason="rate_limit"),
            copilot("assistant.message_delta", deltaContent="Do"),
            copilot("assistant.message", model="m-1", content="Done.", toolRequests=[]),
            copilot("assistant.message", content="A sub-agent's.", parentToolCallId="t-1"),
            copilot("tool.execution_start", toolName="bash", arguments={"command": "ls"}),
            copilot("tool.execution_complete", success=True, result={"content": "a.py"}),
            {"type": "result", "sessionId": "s-1", "exitCode": 0, "usage": {"premiumRequests": 0}},
        ],
        {"session": "s-1", "model": "m-1", "usage": None, "cost_usd": None, "retries": 1},
    ),
    "pi": (
        [
            {"type": "session", "id": "s-1"},
            {"type": "message_end", "message": {"role": "user", "content": [said("Do it.")]}},
            {"type": "message_update", "message": {"role": "assistant", "content": [said("Do")]}},
            pi(content=[{"type": "toolCall", "name": "bash"}], stopReason="toolUse"),
            {"type": "tool_execution_start", "toolName": "bash", "args": {"command": "ls"}},
            {"type": "tool_execution_end", "toolName": "bash", "result": {"content": [said("a.py")]}},
            {"type": "auto_retry_start", "attempt": 1, "errorMessage": "529 Overloaded"},
            pi(content=[said("Done.")], stopReason="stop"),
            {"type": "agent_end", "messages": []},
        ],
        {
            "session": "s-1",
            "usage": Usage(
                input_tokens=20, output_tokens=8, cache_read_tokens=10, cache_creation_tokens=2, model="m-1"
            ),
            "cost_usd": 0.5,
            "retries": 1,
        },
    ),
    "kimi": (
        [
            {"role": "meta", "type": "system.version", "version": "2"},
            {"role": "meta", "type": "turn.step.retrying", "error_message": "429 slow down", "status_code": 429},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "Bash", "arguments": "{"}}]},
            {"role": "tool", "content": [said("a.py")]},
            {"role": "assistant", "content": [{"type": "think", "think": "hm"}, said("Done.")]},
            {"role": "meta", "type": "session.resume_hint", "session_id": "s-1"},
        ],
        {"session": "s-1", "usage": None, "cost_usd": None, "retries": 1},
    ),
}


@pytest.mark.parametrize("name", WELL)
def test_a_turn_that_went_well_is_told_whole(name: str) -> None:
    """Session, model, usage by our way of counting, cost and the last words; and no trouble is left."""
    lines, expected = WELL[name]
    turn = turn_of(name, *lines)
    assert {field: getattr(turn, field) for field in expected} == expected
    assert (turn.finished, turn.trouble, turn.answer, turn.unknown, turn.broken) == (True, None, "Done.", {}, 0)


ONE_PROMISE: list[tuple[str, str, list[object], dict[str, object]]] = [
    (
        "claude: an API error is trouble, though its subtype is success",
        "claude",
        [{**CLAUDE_RUN, "is_error": True, "api_error_status": 529, "result": "API Error: 529"}],
        {"trouble": (529, "API Error: 529"), "finished": True},
    ),
    (
        "claude: an older version's cost is the session's, its usage the run's",
        "claude",
        [CLAUDE_RESULT],
        {"cost_usd": 9.0, "cost_cumulative": True, "usage_cumulative": False, "input": 7},
    ),
    (
        "claude: usage that reads zero gives way to the session's",
        "claude",
        [{**CLAUDE_RESULT, "usage": {"input_tokens": 0, "output_tokens": 0}}],
        {"input": 100, "usage_cumulative": True},
    ),
    ("claude: two results of one run add up", "claude", [CLAUDE_RUN, CLAUDE_RUN], {"input": 14, "cost_usd": 1.0}),
    (
        "claude: a sub-agent's words are no answer",
        "claude",
        [claude("assistant", said("Mine.")), claude("assistant", said("Its."), parent="toolu_1")],
        {"answer": "Mine.", "finished": False},
    ),
    (
        "claude: what was refused is told once",
        "claude",
        [
            {"type": "system", "subtype": "permission_denied", "tool_name": "Write", "message": "Not granted."},
            {**CLAUDE_RUN, "permission_denials": [{"tool_name": "Write"}]},
        ],
        {"denied": ("Write",), "trouble": None},
    ),
    (
        "claude: an error's text is trouble, not an answer",
        "claude",
        [{"type": "assistant", "error": "rate_limit", "message": {"model": "<synthetic>", "content": [said("API")]}}],
        {"answer": "", "trouble": (None, "API"), "answered": False},
    ),
    ("codex: a failed turn", "codex", [{"type": "turn.failed", "error": {"message": "no"}}], {"trouble": (None, "no")}),
    (
        "opencode: a refused tool leaves the turn unfinished",
        "opencode",
        [
            opencode("tool_use", tool="write", state={"error": "The user rejected permission to use this."}),
            opencode("step_finish", reason="tool-calls"),
        ],
        {"denied": ("write",), "finished": False, "usage": None},
    ),
    (
        "opencode: without a total the reasoning is output too",
        "opencode",
        [opencode("step_finish", reason="stop", tokens={"input": 1, "output": 4, "reasoning": 6})],
        {"usage": Usage(input_tokens=1, output_tokens=10, thinking_tokens=6)},
    ),
    (
        "gemini: an answer that comes anew is not doubled",
        "gemini",
        [gemini("x" * 40), gemini("y" * 40), gemini("x" * 40), gemini("y" * 40), gemini("z")],
        {"answer": "x" * 40 + "y" * 40 + "z"},
    ),
    (
        "gemini: a long part that is said twice is the answer's own",
        "gemini",
        [gemini("x" * 80), gemini("y"), gemini("x" * 80), gemini("z")],
        {"answer": "x" * 80 + "y" + "x" * 80 + "z"},
    ),
    (
        "gemini: a short repetition is the answer's own",
        "gemini",
        [gemini("<a>"), gemini("1"), gemini("<a>"), gemini("2")],
        {"answer": "<a>1<a>2"},
    ),
    (
        "gemini: a result without a reason is trouble all the same",
        "gemini",
        [{"type": "result", "status": "error"}],
        {"trouble": (None, "Its result is an error without a reason.")},
    ),
    (
        "gemini: the warning that ended it is trouble under a success",
        "gemini",
        [{"type": "error", "severity": "warning", "message": "Loop"}, {"type": "result", "status": "success"}],
        {"trouble": (None, "Loop")},
    ),
    (
        "gemini: a tool that is not offered was refused",
        "gemini",
        [
            {"type": "tool_use", "tool_name": "Bash", "tool_id": "b-1"},
            {"type": "tool_result", "tool_id": "b-1", "error": {"type": "tool_not_registered"}},
        ],
        {"denied": ("Bash",)},
    ),
    (
        "copilot: its last word on an error, with the status",
        "copilot",
        [copilot("session.error", errorType="authentication", statusCode=401, message="no"), {"type": "result"}],
        {"trouble": (401, "no"), "usage": None},
    ),
    (
        "pi: an error in a message ends the turn badly",
        "pi",
        [pi(content=[], stopReason="error", errorMessage="401 no"), {"type": "agent_end"}],
        {"trouble": (None, "401 no"), "finished": True},
    ),
    (
        "pi: an end after which it tries again was none",
        "pi",
        [{"type": "agent_end"}, {"type": "auto_retry_start", "errorMessage": "529 Overloaded"}],
        {"trouble": (None, "529 Overloaded"), "finished": False},
    ),
    (
        "kimi: what it printed before its model answered is no part of why it failed",
        "kimi",
        ["A new version is out.", {"role": "assistant", "tool_calls": [{"function": {"name": "Bash"}}]}, "Error"],
        {"trouble": (None, "Error")},
    ),
    (
        "kimi: text on its stdout is why it failed, put together again",
        "kimi",
        ["Error code: 429 - {'message': 'ra", "te limit'}"],
        {"trouble": (None, "Error code: 429 - {'message': 'rate limit'}"), "broken": 2},
    ),
    (
        "aider: tokens and cost of its model calls are summed, cached ones apart",
        "plain",
        [
            *AIDER,
            "Tokens: 2.0k sent, 500 cache hit, 40 received. Cost: $0.25 message, $0.25 session.",
            "Tokens: 1.5k sent, 10 received. Cost: $0.25 message, $0.50 session.",
        ],
        {"usage": Usage(input_tokens=3000, output_tokens=50, cache_read_tokens=500), "cost_usd": 0.5, "finished": True},
    ),
    (
        "aider: its last error is trouble",
        "plain",
        [
            *AIDER,
            "litellm.RateLimitError: Number of requests has ",
            "exceeded your limit",
            "",
            "Retrying in 2.0 seconds",
        ],
        {"trouble": (None, "Number of requests has exceeded your limit"), "retries": 1, "finished": False},
    ),
    (
        "aider: an error that something follows is no trouble",
        "plain",
        [*AIDER, "litellm.RateLimitError: so says the file", "", "Applied edit to a.py"],
        {"trouble": None},
    ),
    (
        "plain: what another program prints is never trouble",
        "plain",
        ["litellm.RateLimitError: 429", "Tokens: 1 sent, 1 received."],
        {"trouble": None, "usage": None, "finished": True},
    ),
]


@pytest.mark.parametrize(
    ("name", "lines", "expected"), [row[1:] for row in ONE_PROMISE], ids=[r[0] for r in ONE_PROMISE]
)
def test_each_agents_habit_is_known(name: str, lines: list[object], expected: dict[str, object]) -> None:
    """One promise a row; `trouble` stands for its status and message, `input` for the usage's input tokens."""
    turn = turn_of(name, *lines)
    found: dict[str, Any] = {
        **{field: getattr(turn, field) for field in turn.__struct_fields__},
        "trouble": turn.trouble and (turn.trouble.status, turn.trouble.message),
        "input": turn.usage and turn.usage.input_tokens,
    }
    assert {field: found[field] for field in expected} == expected


@pytest.mark.parametrize(
    ("header", "seconds", "moment"),
    [
        ("90", 90.0, None),
        ("Sat, 21 Nov 2026 10:00:00 GMT", None, "2026-11-21T10:00:00+00:00"),
        ("soon", None, None),
    ],
)
def test_both_forms_of_a_retry_after_header_are_read(header: str, seconds: float | None, moment: str | None) -> None:
    """OpenCode shows the headers of a failed answer."""
    data = {"message": "no", "statusCode": 429, "responseHeaders": {"retry-after": header}}
    trouble = turn_of("opencode", {"type": "error", "error": {"name": "APIError", "data": data}}).trouble
    assert trouble is not None
    assert (trouble.retry_after, trouble.resets_at and trouble.resets_at.isoformat()) == (seconds, moment)


@pytest.mark.parametrize("name", WELL)
def test_a_stream_that_is_cut_anywhere_is_not_finished(name: str) -> None:
    """Whatever line is the last to arrive, and in whatever byte it breaks off."""
    lines = WELL[name][0]
    whole = spooled(lines).getvalue()
    ends = {"kimi": 2}.get(name, 1)  # the session's id comes after the last message
    last = whole.rindex(b"\n", 0, -1) if ends == 1 else whole.rindex(b"\n", 0, whole.rindex(b"\n", 0, -1))
    for cut in range(0, last, 7):
        assert not read_stream(BytesIO(whole[:cut]), dialect_named(name)).finished


JUNK = (
    *(b"", b" ", b"{", b"null", b"3", b"[]", b'"text"', b"\xff\xfe", b'{"type": ', b"Warning: a line of text"),
    *(b"{}", b'{"type": 5}', b'{"type": null}', b'{"type": "brand.new", "a": 1}', b'{"role": "brand.new"}'),
    *(
        b"[" * 100_000,
        b'{"type": "assistant", "message": ' + b"[" * 100_000,
        b'{"type": "result", "usage": {"a": NaN}}',
    ),
)


@pytest.mark.parametrize("name", DIALECTS)
def test_no_line_is_an_error(name: str) -> None:
    """Junk is counted, and the event after it is read as ever."""
    dialect = dialect_named(name)
    for line in JUNK:
        list(dialect.feed(line))
    if name in WELL:
        assert dialect.turn().broken >= 8
        assert "brand.new" in dialect.turn().unknown
        for line in spooled(WELL[name][0]):
            dialect.feed(line)
        assert dialect.turn().answer == "Done."


def twisted(value: object) -> Iterator[object]:
    """The value with one thing in it replaced by what does not belong there, in every place and manner."""
    yield from (None, -1, 1e300, "x", "", True, [], [7], {}, {"type": 7}, 10**30)
    if isinstance(value, dict):
        for key in value:
            for twist in twisted(value[key]):
                yield {**value, key: twist}
    if isinstance(value, list):
        for place in range(len(value)):
            for twist in twisted(value[place]):
                yield [*value[:place], twist, *value[place + 1 :]]


@pytest.mark.parametrize("name", WELL)
def test_a_field_of_the_wrong_type_is_no_error(name: str) -> None:
    """In any field that a dialect reads, however deep."""
    for line in WELL[name][0]:
        for twist in twisted(line):
            dialect = dialect_named(name)
            list(dialect.feed(json.dumps(twist).encode()))
            dialect.turn()


def test_a_field_of_the_wrong_type_costs_only_itself() -> None:
    """Usage that makes no sense is unknown; the answer and the session beside it are kept."""
    turn = turn_of("claude", {**CLAUDE_RUN, "model_usage_since_last_result": 5, "usage": "much", "modelUsage": None})
    assert (turn.finished, turn.answer, turn.session, turn.usage) == (True, "Done.", "s-1", None)


def test_half_a_surrogate_pair_does_not_cost_the_line() -> None:
    """A program that cuts a string in the middle of an emoji prints such lines."""
    turn = turn_of("codex", r'{"type": "item.completed", "item": {"type": "agent_message", "text": "ok \ud83d"}}')
    assert (turn.answer, turn.broken) == ("ok ?", 0)


def test_unknown_events_are_counted_within_bounds() -> None:
    """A thousand kinds that nobody knows make no thousand entries."""
    unknown = turn_of("codex", *({"type": f"new.{n}"} for n in range(1_000)), {"type": "new.0"}).unknown
    assert (len(unknown), sum(unknown.values()), unknown["new.0"]) == (51, 1_001, 2)


def test_a_line_of_fifty_megabytes_is_read() -> None:
    """Of the answer its end is kept, of what is seen its beginning."""
    text = "a" * 50_000_000 + "<end/>"
    line = json.dumps(claude("assistant", said(text))).encode()
    dialect = dialect_named("claude")
    assert [(seen.what, seen.text) for seen in dialect.feed(line)] == [(What.TEXT, "a" * 200)]
    answer = dialect.turn().answer
    assert (len(answer), answer[-7:]) == (MAX_ANSWER, "a<end/>")


def test_of_a_long_plain_text_the_end_is_the_answer() -> None:
    """To the byte, also where it is no longer read line by line."""
    text = b"".join(b"%d words\n" % number for number in range(400_000))
    turn = read_stream(BytesIO(text), dialect_named("plain"))
    assert (len(text) > 2 * MAX_ANSWER, turn.answer == text[-MAX_ANSWER:].decode()) == (True, True)
    assert (turn.answered, turn.finished, turn.trouble) == (True, True, None)


def test_of_a_line_longer_than_any_the_rest_is_passed_over() -> None:
    """It is broken, once; the line after it is read."""
    spool = BytesIO(b'{"x": "' + b"a" * MAX_LINE + b'"}\n' + json.dumps(CLAUDE_RUN).encode())
    turn = read_stream(spool, dialect_named("claude"))
    assert (turn.broken, turn.answer) == (1, "Done.")


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("claude", claude("assistant", said("one\n\x1b[31mtwo\x1b[0m")), (What.TEXT, "one two")),
        (
            "claude",
            claude("assistant", {"type": "tool_use", "name": "Write", "input": {"content": "x", "file_path": "/a"}}),
            (What.TOOL, "Write /a"),
        ),
        ("claude", claude("user", {"type": "tool_result", "content": "a\nb"}), (What.RESULT, "a b")),
        ("claude", {"type": "system", "subtype": "api_retry", "attempt": 2, "error": "overloaded"}, What.RETRY),
        ("codex", codex(type="error", message="old model"), (What.NOTE, "old model")),
        ("codex", {"type": "error", "message": "Reconnecting... 1/5 (no)"}, (What.RETRY, "no")),
        ("opencode", opencode("reasoning", text="hm"), (What.THINKING, "hm")),
        ("copilot", copilot("tool.execution_start", toolName="bash", arguments={"command": ["ls", "-l"]}), What.TOOL),
        ("plain", "Applied edit to a.py", (What.TEXT, "Applied edit to a.py")),
    ],
)
def test_what_is_seen_is_one_short_line(name: str, line: object, expected: tuple[What, str] | What) -> None:
    """Without line breaks and escape sequences, whatever the model wrote."""
    (shown,) = dialect_named(name).feed(spooled([line]).getvalue())
    assert (shown.what if isinstance(expected, What) else (shown.what, shown.text)) == expected


class Counted(BytesIO):
    """A spool that knows how much was read of it."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.total += len(data)
        return data


def test_a_glance_shows_the_newest_and_then_nothing_new() -> None:
    """Each question begins where the last one ended, and a line that is not yet whole waits."""
    spool = spooled([claude("assistant", said("one")), claude("assistant", said("two")), {"type": "stream_event"}])
    spool.seek(0, 2)
    spool.write(b'{"type": "assist')
    shown, since = glance(spool, dialect_named("claude"), 0)
    assert shown == Seen(What.TEXT, "two")
    assert glance(spool, dialect_named("claude"), since) == (None, since)


def test_a_glance_passes_over_blank_lines() -> None:
    """They are no words."""
    assert glance(spooled(["words", "", " "]), dialect_named("plain"), 0)[0] == Seen(What.TEXT, "words")


def test_a_glance_costs_the_same_for_a_spool_of_any_size() -> None:
    """It reads a fixed number of bytes, though twenty megabytes were added."""
    spool = Counted(spooled([codex(type="agent_message", text=f"words {n}") for n in range(250_000)]).getvalue())
    shown, since = glance(spool, dialect_named("codex"), 0)
    assert shown == Seen(What.TEXT, "words 249999")
    assert since == len(spool.getvalue())
    assert spool.total <= 65_536


def test_a_glance_survives_a_line_that_is_longer_than_its_window() -> None:
    """It sees nothing of it, and sees the next one."""
    spool = spooled([codex(type="agent_message", text="a" * 200_000)])
    shown, since = glance(spool, dialect_named("codex"), 0)
    assert shown is None
    spool.seek(0, 2)
    spool.write(spooled([codex(type="agent_message", text="next")]).getvalue())
    assert glance(spool, dialect_named("codex"), since)[0] == Seen(What.TEXT, "next")


def test_a_turn_is_a_value_that_can_be_kept() -> None:
    """It survives the journal's encoding."""
    turn = turn_of("claude", *WELL["claude"][0])
    assert msgspec.json.decode(msgspec.json.encode(turn), type=Turn) == turn
