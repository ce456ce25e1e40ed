"""The codec: stored events are never rewritten, old ones are read through upcasts, newer ones are told as such."""

import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyloop import __version__
from storyloop.core.events import (
    Event,
    HandoverCleaned,
    HandoverWritten,
    RequestRefused,
    RunResumed,
    StoryStarted,
    WaitEnded,
)
from storyloop.core.facts import Finding
from storyloop.core.policy import Drain, Limits, Policy
from storyloop.journal.codec import UPCASTS, Codec, DamagedEvent, NewerEvent, Stored

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WAITED = WaitEnded(key="US-001/1/story/wait/x", at=AT, story="US-001", seconds=90.0)


def body_of(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def test_an_event_is_stored_as_json_with_its_type_and_version() -> None:
    """Another program, or a person, can read a journal."""
    started = StoryStarted(
        key="US-001/1/start",
        at=AT,
        story="US-001",
        iteration=1,
        head="c0ffee",
        tree="7ee",
        findings=(Finding("config-changed", "It was put back."),),
    )
    stored = Codec().encode(started)
    assert (stored.type, stored.v) == ("story_started", 1)
    assert json.loads(stored.body) == {
        "type": "story_started",
        "key": "US-001/1/start",
        "at": "2026-03-01T12:00:00Z",
        "story": "US-001",
        "iteration": 1,
        "head": "c0ffee",
        "tree": "7ee",
        "lane": 0,
        "findings": [{"what": "config-changed", "detail": "It was put back."}],
    }
    assert Codec().decode(stored) == started


# --- old versions -------------------------------------------------------------------------------------


def minutes_to_seconds(event: dict[str, Any]) -> dict[str, Any]:
    """Version 1 counted minutes."""
    return {**event, "seconds": event["minutes"] * 60}


def story_to_its_own_field(event: dict[str, Any]) -> dict[str, Any]:
    """Version 2 had the story in its key alone."""
    return {**event, "story": event["key"].partition("/")[0]}


OLDER = Codec({("wait_ended", 1): minutes_to_seconds, ("wait_ended", 2): story_to_its_own_field})
AS_OF_VERSION = {
    1: {"type": "wait_ended", "key": "US-001/1/story/wait/x", "at": "2026-03-01T12:00:00Z", "minutes": 1.5},
    2: {"type": "wait_ended", "key": "US-001/1/story/wait/x", "at": "2026-03-01T12:00:00Z", "seconds": 90},
    3: {
        "type": "wait_ended",
        "key": "US-001/1/story/wait/x",
        "at": "2026-03-01T12:00:00Z",
        "story": "US-001",
        "seconds": 90,
    },
}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_event_of_any_older_version_is_read_as_todays(version: int) -> None:
    """Each version is lifted by one upcast to the next."""
    assert OLDER.decode(Stored("wait_ended", version, body_of(AS_OF_VERSION[version]))) == WAITED


def test_an_event_is_written_in_the_version_behind_its_last_upcast() -> None:
    """So what is written today is not lifted tomorrow; types without upcasts stay at 1."""
    assert OLDER.encode(WAITED)[:2] == ("wait_ended", 3)
    assert OLDER.encode(HandoverCleaned(key="k", at=AT, story="US-001"))[:2] == ("handover_cleaned", 1)


def test_a_type_that_was_renamed_is_read_under_its_new_name() -> None:
    """And goes on from version 1 of that one, through its upcasts."""
    renamed = Codec(
        {
            ("note_written", 1): lambda event: {**event, "type": "handover_written", "story_id": event["about"]},
            ("handover_written", 1): lambda event: {**event, "story": event["story_id"]},
        }
    )
    old = body_of({"type": "note_written", "key": "k", "at": "2026-03-01T12:00:00Z", "about": "US-001"})
    read = renamed.decode(Stored("note_written", 1, old))
    assert read == HandoverWritten(key="k", at=AT, story="US-001")
    assert renamed.encode(read)[:2] == ("handover_written", 2)


def test_the_upcasts_that_ship_leave_no_version_out() -> None:
    """Every version that was ever written has its way to today's."""
    for kind in {kind for kind, _ in UPCASTS}:
        versions = sorted(v for k, v in UPCASTS if k == kind)
        assert versions == list(range(1, len(versions) + 1))


def test_a_run_that_was_opened_before_there_was_a_cap_for_readings_keeps_its_calls() -> None:
    """Its policy is frozen as it was."""
    opened = RunResumed(key="resumed/1", at=AT, policy=Policy(limits=Limits(calls_per_errand=24)))
    body = json.loads(Codec().encode(opened).body)
    del body["policy"]["limits"]["calls_per_reading"]
    read = Codec().decode(Stored("run_resumed", 1, body_of(body)))
    assert isinstance(read, RunResumed)
    assert read.policy is not None
    assert read.policy.limits.calls_of(Drain.REVIEW) == 24


# --- what cannot be read ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "version"),
    [("story_merged", 1), ("wait_ended", 4), ("wait_ended", 0)],
    ids=["unknown type", "unknown version", "no version"],
)
def test_an_event_of_a_newer_storyloop_names_itself_and_both_programs(kind: str, version: int) -> None:
    """Its body is not even looked at."""
    with pytest.raises(NewerEvent) as caught:
        OLDER.decode(Stored(kind, version, body_of({"type": kind, "new": True})))
    assert str(caught.value) == (
        f"The run has an event `{kind}` of version {version}, written by a newer Storyloop; "
        f"this is Storyloop {__version__} and does not know it. Upgrade this Storyloop to read the run."
    )


@pytest.mark.parametrize(
    ("version", "body"),
    [
        (3, b""),
        (3, b"{"),
        (3, b'"\xff"'),
        (3, b"[]"),
        (3, body_of({"type": "wait_ended"})),
        (3, body_of({**AS_OF_VERSION[3], "seconds": "ninety"})),
        (3, body_of({**AS_OF_VERSION[3], "type": "story_merged"})),
        (3, body_of({**AS_OF_VERSION[3], "at": "yesterday"})),
        (1, b"{"),
        (1, b"[]"),
        (1, body_of({**AS_OF_VERSION[1], "minutes": None})),
        (2, body_of({"type": "wait_ended"})),
        (2, body_of({"key": "US-001/1/story/wait/x"})),
    ],
)
def test_a_damaged_event_is_told_in_a_sentence_with_what_is_safe(version: int, body: bytes) -> None:
    """An operator reads it, not a traceback; in an upcast as well."""
    with pytest.raises(DamagedEvent, match=r"An event `wait_ended` of the run cannot be read .* are whole"):
        OLDER.decode(Stored("wait_ended", version, body))


# --- exactness ----------------------------------------------------------------------------------------


@given(text=st.text(), seconds=st.floats(allow_nan=False, allow_infinity=False), at=st.datetimes())
def test_any_text_number_and_moment_comes_back_exactly(text: str, seconds: float, at: datetime) -> None:
    """To the last bit and the last microsecond."""
    waited = WaitEnded(key=text, at=at.replace(tzinfo=UTC), story=text, seconds=seconds)
    refused = RequestRefused(key=text, at=at.replace(tzinfo=UTC), number=3, reason=text)
    assert Codec().decode(Codec().encode(waited)) == waited
    assert Codec().decode(Codec().encode(refused)) == refused


def test_every_type_of_event_has_a_tag_of_its_own() -> None:
    """Two types under one tag would be read as one."""
    tags = [event.__struct_config__.tag for event in get_args(Event)]
    assert len(set(tags)) == len(tags)
