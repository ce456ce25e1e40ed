"""What real agent CLIs printed, as our own recorder kept it, is read as what it was."""

import functools
import lzma
import re
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import msgspec
import pytest

from storyloop.agents.dialects import dialect_named
from storyloop.agents.failures import classify
from storyloop.agents.profiles import PROFILES
from storyloop.agents.reading import read_stream
from storyloop.agents.stream import Turn
from storyloop.conformance.recorder import TAKES, Provenance
from storyloop.core.facts import Failed

PLACE = Path(__file__).with_name("recordings")
RECORDED = sorted(path.with_name(path.name.removesuffix(".meta.json")) for path in PLACE.glob("*/*.meta.json"))

OK, IN_VAIN = "ok", "transient, in vain"  # which only our clock ended
SILENCE = "It did nothing for too long and was ended."
# What each scenario comes to: a failure's class, and what of its cause is said.
USUAL: dict[str, tuple[str, str]] = {
    "write": (OK, ""),
    "resume": (OK, ""),
    "huge": (OK, ""),
    "denied": (OK, ""),
    "err401": ("auth", "Incorrect API key provided"),
    "err429": ("limit", "Too many requests; a moment, please."),
    "err429long": ("limit", "The usage limit is reached."),
    "err500": ("transient", "The model stumbled."),
    "err529": ("transient", "The model is overloaded."),
    "context": ("transient", "prompt is too long: 250000 tokens > 200000 maximum"),
    "error-event": ("transient", "The scripted model is overloaded."),
    "refused": ("offline", "Connection error."),
    "cut": ("transient", "terminated"),
    "garbage": ("transient", "Unterminated string in JSON at position 19"),
    "hang": (IN_VAIN, SILENCE),
    "stall": (IN_VAIN, SILENCE),
    "sigint": ("transient", "It ended with exit status 130."),
    "sigterm": ("transient", "It ended with exit status 143."),
}
# Who tries again for longer than a recording is made, or waits for what does not come, was ended by our clock.
SPECIAL: dict[str, dict[str, tuple[str, str]]] = {
    "claude": {
        **dict.fromkeys(("cut", "garbage", "error-event"), (OK, "")),  # it asks once more, without a stream
        "context": ("transient", "Prompt is too long"),
        "refused": ("offline", "ECONNREFUSED"),
        "sigint": ("transient", "Its turn broke off."),  # with exit status 0
    },
    "codex": {
        **dict.fromkeys(("err429", "err429long"), ("limit", "last status: 429 Too Many Requests")),
        "err500": ("transient", "experiencing high demand"),
        "error-event": ("transient", "Selected model is at capacity."),
        "context": ("transient", "Codex ran out of room in the model's context window."),
        "refused": ("offline", "waiting for network (Connection failed"),
        "cut": ("transient", "stream disconnected before completion: Transport error"),
        "garbage": ("transient", "stream disconnected before completion: UTF8 error"),
        "sigint": ("transient", "It ended with exit status 1."),
    },
    "opencode": {
        "err500": (IN_VAIN, "The model stumbled."),
        "err529": (IN_VAIN, "The model is overloaded."),
        "error-event": (IN_VAIN, "The scripted model is overloaded."),
        "refused": ("offline", "Cannot connect to API: Unable to connect."),
        "cut": (IN_VAIN, "The socket connection was closed unexpectedly."),
        "garbage": (IN_VAIN, "JSON Parse error: Unterminated string"),
        "denied": ("transient", "Its turn broke off after it was refused write."),
    },
    "gemini": {
        "error-event": ("transient", "Model stream ended without a finish reason."),  # with exit status 0
        "refused": ("offline", "fetch failed"),
        **dict.fromkeys(("sigint", "sigterm"), (IN_VAIN, SILENCE)),  # it is deaf to both
    },
    "qwen": {
        "err429": ("limit", "attempt 1"),
        **dict.fromkeys(("err429long", "err500", "err529"), (IN_VAIN, "It took too long and was ended.")),
    },
    "copilot": {
        "err401": ("auth", "(HTTP 401)"),
        "context": ("transient", "The provider rejected the prompt as too long"),
        "refused": ("offline", "Could not connect to local model provider"),
        "cut": ("transient", "error decoding response body"),
        "garbage": ("transient", "Failed to parse chat-completions stream chunk"),
    },
    "pi": {
        "err429long": (IN_VAIN, "It took too long and was ended."),
        "huge": ("transient", "It printed more than is kept and was ended."),  # the square of the answer
    },
    "kimi": {
        "err500": (IN_VAIN, "The model stumbled."),
        "err529": (IN_VAIN, "The model is overloaded."),
        "error-event": (IN_VAIN, "The scripted model is overloaded."),
        "cut": (IN_VAIN, "terminated"),
        "garbage": (IN_VAIN, "Unterminated string in JSON at position 19"),
    },
    "aider": {
        "err500": (IN_VAIN, "The model stumbled."),
        "err529": (IN_VAIN, "The model is overloaded."),
        **dict.fromkeys(("cut", "garbage", "error-event", "stall"), (OK, "")),  # it asks for no stream
        **dict.fromkeys(("hang", "huge"), (IN_VAIN, "It took too long and was ended.")),
        "sigint": ("transient", "Its turn broke off."),  # with exit status 0
    },
    "mini": {
        **dict.fromkeys(("cut", "garbage", "error-event", "stall"), (OK, "")),  # it asks for no stream
        "hang": (IN_VAIN, "It took too long and was ended."),
        "sigint": ("transient", "Aborted."),
    },
}
# What was refused to an agent that may only work in its directory; the others did it, or made nothing of it.
DENIED = {"claude": ("Write",), "opencode": ("write",), "copilot": ("create",)}
# Tokens read anew, read from a cache, and written: five answers of the model when it writes, two more in its session.
WRITTEN, RESUMED, BOTH = (5000, 1500, 250), (2000, 600, 100), (7000, 2100, 350)
USED = {
    "claude": (WRITTEN, RESUMED),
    "codex": (WRITTEN, BOTH),  # counts the whole session
    "opencode": (WRITTEN, RESUMED),
    "gemini": (WRITTEN, RESUMED),
    "qwen": (WRITTEN, BOTH),
    "copilot": (None, None),
    "pi": (WRITTEN, RESUMED),
    "kimi": (None, None),
}
# Those that have no session to take up.
PLAYED = {
    **dict.fromkeys(USED, tuple(USUAL)),
    **dict.fromkeys(("mini", "aider"), tuple(scenario for scenario in USUAL if scenario != "resume")),
}

every_recording = pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}-{path.name}")


def recorded(path: Path, suffix: str) -> bytes:
    """What was printed."""
    whole = path.with_suffix(suffix)
    return whole.read_bytes() if whole.exists() else lzma.decompress(path.with_suffix(f"{suffix}.xz").read_bytes())


@functools.cache
def read(path: Path) -> tuple[Turn, Provenance]:
    """The stream as its dialect reads it."""
    provenance = msgspec.json.decode(path.with_suffix(".meta.json").read_bytes(), type=Provenance)
    spool = BytesIO(recorded(path, ".stdout"))
    return read_stream(spool, dialect_named(PROFILES[provenance.agent].dialect)), provenance


def failure(path: Path) -> Failed | None:
    """The failure that a call with this recording would report."""
    turn, provenance = read(path)
    return classify(
        turn,
        provenance.exit,
        stderr_tail=recorded(path, ".stderr")[-8192:],
        now=datetime.fromtimestamp(provenance.exit.ended_at, UTC),
        exits=PROFILES[provenance.agent].exits,
    )


def test_every_agent_is_recorded_in_every_scenario_that_it_can_be_put_into() -> None:
    """Neither more nor less, so that no row of the tables above is idle."""
    assert {*USUAL} == {*TAKES}
    expected = {f"{agent}/{scenario}" for agent, played in PLAYED.items() for scenario in played}
    assert {f"{path.parent.name}/{path.name}" for path in RECORDED} == expected


@every_recording
def test_a_recording_comes_to_what_happened(path: Path) -> None:
    """By its structure, where it has any; and a person is told why."""
    failed = failure(path)
    kind = OK if failed is None else IN_VAIN if failed.timed_out else str(failed.failure)
    expected, said = SPECIAL.get(path.parent.name, {}).get(path.name, USUAL[path.name])
    assert kind == expected, failed
    assert said in (failed.message if failed else ""), failed


@pytest.mark.parametrize("agent", [agent for agent, played in PLAYED.items() if "denied" in played])
def test_what_an_agent_was_refused_is_named(agent: str) -> None:
    """Where it says so; a turn that ends well without an artifact is then explained."""
    turn, _ = read(PLACE / agent / "denied")
    assert turn.denied == DENIED.get(agent, ())


@pytest.mark.parametrize("agent", [agent for agent in USED if agent != "pi"])
def test_of_an_answer_of_ten_megabytes_the_end_is_kept(agent: str) -> None:
    """An artifact may stand in it."""
    turn, _ = read(PLACE / agent / "huge")
    assert turn.answer[-200:].rstrip().endswith("Line 499 of an answer that has no end, and nothing else to say.")


@every_recording
def test_no_word_of_a_recorded_stream_is_unknown(path: Path) -> None:
    """In the versions that the profiles name."""
    turn, provenance = read(path)
    assert turn.unknown == {}
    assert provenance.version in PROFILES[provenance.agent].versions


@pytest.mark.parametrize("agent", USED)
def test_the_tokens_of_a_session_are_counted_as_its_agent_counts_them(agent: str) -> None:
    """And whether they are the session's or the call's is told."""
    for scenario, expected in zip(("write", "resume"), USED[agent], strict=True):
        turn, _ = read(PLACE / agent / scenario)
        used = turn.usage and (turn.usage.input_tokens, turn.usage.cache_read_tokens, turn.usage.output_tokens)
        assert used == expected
        assert turn.usage_cumulative == (BOTH in USED[agent])


@pytest.mark.parametrize("agent", USED)
def test_a_session_keeps_its_name_when_it_is_taken_up_again(agent: str) -> None:
    """The name stands in the arguments of the second call."""
    first, _ = read(PLACE / agent / "write")
    second, provenance = read(PLACE / agent / "resume")
    assert first.session is not None
    assert second.session == first.session
    assert any(first.session in word for word in provenance.argv)


def test_the_reset_of_a_limit_is_taken_from_where_it_is_stated() -> None:
    """Of these only OpenCode hands a header on."""
    limits = {path.parent.name: failed for path in RECORDED if path.name == "err429" and (failed := failure(path))}
    ends = {agent: read(PLACE / agent / "err429")[1].exit.ended_at for agent in limits}
    waits = {agent: round(f.resets_at.timestamp() - ends[agent]) for agent, f in limits.items() if f.resets_at}
    assert waits == {"opencode": 1}


@every_recording
def test_a_recording_names_no_machine(path: Path) -> None:
    """Nor its user: paths, port and host were replaced."""
    for suffix in (".stdout", ".stderr", ".meta.json"):
        text = recorded(path, suffix).decode("utf-8", "replace")
        assert re.findall(r"/(?<!/scratch/)(?<!/\$bunfs/)(?:root|work|home|var/lib|Users)/[\w.-]*", text) == []
        assert set(re.findall(r"127\.0\.0\.1:\d+", text)) <= {"127.0.0.1:1"}
