"""The cursor over a chain: who cools down for how long, who is ready, and how long a pause is."""

from datetime import datetime

import pytest
from makers import T0, chain, later

from storyloop.core.chain import (
    Cooled,
    Cooling,
    CoolingTable,
    Found,
    Later,
    Nobody,
    backoff_seconds,
    cooled_down,
    cools,
    first_ready,
)
from storyloop.core.facts import Failure
from storyloop.core.policy import AgentRef, Limits

A, A_SMALL, A_BIG, B, C = chain("a", "a:small", "a:big", "b", "c")


def cooled(
    table: CoolingTable, ref: AgentRef, failure: Failure, *, resets_at: datetime | None = None, backoff: float = 15.0
) -> CoolingTable:
    failed = Cooled(
        failure=failure, reason=f"{ref} failed", resets_at=resets_at, now=T0, limits=Limits(backoff=backoff)
    )
    return cooled_down(table, ref, failed)


def until(seconds: float | None, reason: str = "") -> Cooling:
    return Cooling(until=None if seconds is None else later(seconds), times=1, reason=reason)


# --- who cools down ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [Failure.TRANSIENT, Failure.CONFIG, Failure.OFFLINE])
def test_only_a_limit_and_an_agent_that_cannot_be_asked_cool_down(failure: Failure) -> None:
    """What may pass by itself, or is our own fault, keeps nobody out."""
    assert cooled({}, A, failure) == {}


# failed entry, class -> which of a, a:small, a:big, b are out now, and which in a year
OUT = {
    "a limit of the agent's own model": (A, Failure.LIMIT, {A}, set[AgentRef]()),
    "a limit of one model": (A_SMALL, Failure.LIMIT, {A_SMALL}, set[AgentRef]()),
    "logged out with its own model": (A, Failure.AUTH, {A, A_SMALL, A_BIG}, {A, A_SMALL, A_BIG}),
    "logged out with one model": (A_SMALL, Failure.AUTH, {A, A_SMALL, A_BIG}, {A, A_SMALL, A_BIG}),
    "not installed": (B, Failure.MISSING, {B}, {B}),
}


@pytest.mark.parametrize(("ref", "failure", "now", "in_a_year"), OUT.values(), ids=OUT)
def test_a_limit_is_of_one_entry_and_a_login_of_the_agent(
    ref: AgentRef, failure: Failure, now: set[AgentRef], in_a_year: set[AgentRef]
) -> None:
    """A limit ends; a login or an installation needs a human."""
    table = cooled({}, ref, failure, resets_at=later(60))
    everyone = (A, A_SMALL, A_BIG, B)
    assert {entry for entry in everyone if cools(entry, table, T0)} == now
    assert {entry for entry in everyone if cools(entry, table, later(365 * 86400))} == in_a_year


def test_a_limit_ends_at_its_stated_moment() -> None:
    """A second before it is still cooling down, at the moment it is ready."""
    table = cooled({}, A, Failure.LIMIT, resets_at=later(3600))
    assert cools(A, table, later(3599)) is not None
    assert cools(A, table, later(3600)) is None


def test_an_unstated_limit_is_guessed_longer_each_time_up_to_an_hour() -> None:
    """60 s, then twice as long, for a back-off of 15 s."""
    table: CoolingTable = {}
    pauses: list[float] = []
    for _ in range(8):
        table = cooled(table, A, Failure.LIMIT)
        end = table["a"].until
        assert end is not None
        pauses.append((end - T0).total_seconds())
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_any_number_of_limits_in_a_row_can_be_counted() -> None:
    """A long run may meet thousands of short limits; the guess must not outgrow a number."""
    table: CoolingTable = {"a": Cooling(until=T0, times=5000, reason="")}
    assert cooled(table, A, Failure.LIMIT)["a"] == Cooling(until=later(3600), times=5001, reason="a failed")


# --- who is ready -----------------------------------------------------------------------------------------

READY = {
    "nobody cools down": ({}, 0, Found(0)),
    "from where it is asked": ({}, 1, Found(1)),
    "past one that cools down": ({"a": until(60)}, 0, Found(1)),
    "past one that needs a human": ({"a": until(None)}, 0, Found(1)),
    "whose cooling down is over": ({"a": until(0)}, 0, Found(0)),
    "behind the end, from the head": ({}, 3, Found(0)),
    "behind the end, past one that cools down": ({"a": until(60)}, 3, Found(1)),
    "back to one before the start": ({"b": until(60), "c": until(60)}, 1, Found(0)),
    "all cool down: the earliest": (
        {"a": until(60), "b": until(30, "b is limited"), "c": until(90)},
        0,
        Later(1, later(30), "b is limited"),
    ),
    "all cool down: where the search starts does not matter": (
        {"a": until(30, "a is limited"), "b": until(60), "c": until(90)},
        2,
        Later(0, later(30), "a is limited"),
    ),
    "one can be waited for": (
        {"a": until(None), "b": until(30, "b is limited"), "c": until(None)},
        0,
        Later(1, later(30), "b is limited"),
    ),
    "nobody without a human": (
        {"a": until(None, "a: log in"), "b": until(None, "b: install it"), "c": until(None, "a: log in")},
        0,
        Nobody("a: log in; b: install it"),
    ),
}


@pytest.mark.parametrize(("table", "start", "expected"), READY.values(), ids=READY)
def test_the_first_that_is_ready_is_found(table: CoolingTable, start: int, expected: Found | Later | Nobody) -> None:
    """Of the chain a, b, c."""
    assert first_ready((A, B, C), table, T0, start=start) == expected


def test_an_empty_chain_has_nobody() -> None:
    """It says so instead of failing."""
    assert first_ready((), {}, T0) == Nobody("the chain is empty")


# --- pauses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cycle", "seconds"), [(1, 15), (2, 30), (3, 60), (6, 480), (7, 900), (8, 900), (5000, 900)])
def test_a_pause_doubles_up_to_a_quarter_of_an_hour(cycle: int, seconds: float) -> None:
    """For a first pause of 15 s; however many cycles are allowed."""
    assert backoff_seconds(Limits(backoff=15.0), cycle=cycle) == seconds
