"""What real agent CLIs printed, as our own recorder kept it, is read as what it was."""

import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from storyloop.agents.dialects import dialect_named
from storyloop.agents.failures import classify
from storyloop.agents.profiles import PROFILES
from storyloop.agents.reading import read_stream
from storyloop.agents.stream import Turn
from storyloop.conformance.recorder import SCENARIOS, Provenance
from storyloop.core.facts import Failed

PLACE = Path(__file__).with_name("recordings")
RECORDED = sorted(path.with_name(path.name.removesuffix(".meta.json")) for path in PLACE.glob("*/*.meta.json"))

# What each scenario comes to: a failure's class, "in vain" for one that only our clock ended, "ok".
USUAL = {
    "write": "ok",
    "resume": "ok",
    "err401": "auth",
    "err429": "limit",
    "err429long": "limit",
    "err500": "transient",
    "cut": "transient",
    "garbage": "transient",
    "context": "transient",
}
IN_VAIN = "transient, in vain"
SPECIAL = {
    # It asks once more, without a stream.
    "claude": {"cut": "ok", "garbage": "ok"},
    # These wait for an hour's limit, or try again for longer than a recording is made, without a word.
    "opencode": {"err429long": IN_VAIN, "err500": IN_VAIN, "cut": IN_VAIN, "garbage": IN_VAIN},
    "qwen": {"err429long": IN_VAIN, "err500": IN_VAIN},
    "pi": {"err429long": IN_VAIN},
    "kimi": {"err500": IN_VAIN, "cut": IN_VAIN, "garbage": IN_VAIN},
}
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

every_recording = pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}-{path.name}")


def read(path: Path) -> tuple[Turn, Provenance]:
    """The stream as its dialect reads it."""
    provenance = msgspec.json.decode(path.with_suffix(".meta.json").read_bytes(), type=Provenance)
    with path.with_suffix(".stdout").open("rb") as spool:
        return read_stream(spool, dialect_named(PROFILES[provenance.agent].dialect)), provenance


def failure(path: Path) -> Failed | None:
    """The failure that a call with this recording would report."""
    turn, provenance = read(path)
    return classify(
        turn,
        provenance.exit,
        stderr_tail=path.with_suffix(".stderr").read_bytes()[-8192:],
        now=datetime.fromtimestamp(provenance.exit.ended_at, UTC),
        exits=PROFILES[provenance.agent].exits,
    )


def test_eight_agents_are_recorded_in_every_scenario() -> None:
    """Neither more nor less, so that no row of the tables below is idle."""
    expected = {f"{agent}/{scenario}" for agent in USED for scenario in SCENARIOS}
    assert {f"{path.parent.name}/{path.name}" for path in RECORDED} == expected


@every_recording
def test_a_recording_comes_to_what_happened(path: Path) -> None:
    """By its structure, where it has any."""
    failed = failure(path)
    told = "ok" if failed is None else IN_VAIN if failed.timed_out else str(failed.failure)
    expected = SPECIAL.get(path.parent.name, {}).get(path.name, USUAL[path.name])
    assert told == expected, failed


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
        text = path.with_suffix(suffix).read_text()
        assert re.findall(r"(?<!/scratch)/(?:root|work|home|var/lib|Users)/[\w.-]*", text) == []
        assert set(re.findall(r"127\.0\.0\.1:\d+", text)) <= {"127.0.0.1:1"}
