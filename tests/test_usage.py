"""Sums of tokens and money tell what is known from what is not."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyloop.core.errors import ImpossibleState
from storyloop.core.usage import Spending, Usage

TOKENS = st.integers(0, 10**9)
USAGE = st.builds(
    Usage,
    input_tokens=TOKENS,
    output_tokens=TOKENS,
    cache_read_tokens=TOKENS,
    cache_creation_tokens=TOKENS,
    thinking_tokens=TOKENS,
    model=st.none() | st.sampled_from(["a", "b"]),
)
# Prices that are exact in binary, so that sums are equal in any order.
CALL = st.builds(Spending.of_call, st.none() | USAGE, st.none() | st.integers(0, 1000).map(lambda n: n / 64))


def test_usage_shows_its_six_names() -> None:
    """Money is not one of them."""
    assert msgspec.json.decode(msgspec.json.encode(Usage())) == {
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_read_tokens": 0,
        "cache_creation_tokens": 0,
        "thinking_tokens": 0,
        "model": None,
    }


@pytest.mark.parametrize("value", [Usage(), Spending()])
def test_amounts_cannot_be_written_to(value: Usage | Spending) -> None:
    """A sum is a new value."""
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], None)


@pytest.mark.parametrize(
    ("one", "other", "both"), [("a", "a", "a"), ("a", "b", None), ("a", None, None), (None, None, None)]
)
def test_every_kind_of_token_is_added_and_differing_models_are_none(
    one: str | None, other: str | None, both: str | None
) -> None:
    """An unknown model is not taken for the known one."""
    left = Usage(
        input_tokens=1,
        output_tokens=2,
        cache_read_tokens=3,
        cache_creation_tokens=4,
        thinking_tokens=5,
        model=one,
    )
    right = Usage(
        input_tokens=10,
        output_tokens=20,
        cache_read_tokens=30,
        cache_creation_tokens=40,
        thinking_tokens=50,
        model=other,
    )
    assert left + right == Usage(
        input_tokens=11,
        output_tokens=22,
        cache_read_tokens=33,
        cache_creation_tokens=44,
        thinking_tokens=55,
        model=both,
    )


def test_the_cost_of_calls_without_a_price_is_a_lower_bound_and_never_0() -> None:
    """Unknown alone is None; unknown beside known is at least what is known; free is 0 and known."""
    unknown = Spending.of_call(Usage(input_tokens=5), None)
    priced = Spending.of_call(None, 0.25)
    free = Spending.of_call(None, 0.0)
    table = [
        (unknown + unknown, None, 2, 2, True),
        (priced + unknown, 0.25, 2, 1, True),
        (priced + priced, 0.5, 2, 0, False),
        (free, 0.0, 1, 0, False),
        (Spending(), None, 0, 0, False),
    ]
    for spending, cost, calls, unpriced, at_least in table:
        assert (spending.cost_usd, spending.calls, spending.unpriced_calls) == (cost, calls, unpriced)
        assert spending.is_lower_bound() is at_least
    assert (priced + unknown).usage == Usage(input_tokens=5)


@given(CALL, CALL, CALL)
def test_the_order_of_adding_does_not_matter_and_no_call_adds_nothing(
    one: Spending, two: Spending, three: Spending
) -> None:
    """A ledger can be summed by agent, by phase, or in the journal's order."""
    assert (one + two) + three == one + (two + three)
    assert one + two == two + one
    assert one + Spending() == one


@pytest.mark.parametrize(
    ("kind", "fields", "why"),
    [
        (Usage, {"input_tokens": -1}, "input_tokens=-1: a count"),
        (Usage, {"output_tokens": -1}, "output_tokens=-1: a count"),
        (Usage, {"cache_read_tokens": -1}, "cache_read_tokens=-1: a count"),
        (Usage, {"cache_creation_tokens": -1}, "cache_creation_tokens=-1: a count"),
        (Usage, {"thinking_tokens": 1.5}, "thinking_tokens=1.5: a count"),
        (Spending, {"calls": -1}, "calls=-1: a count"),
        (Spending, {"unpriced_calls": -1}, "unpriced_calls=-1: a count"),
        (Spending, {"calls": 1, "unpriced_calls": 2, "cost_usd": 1.0}, "an unpriced or unmetered call is a call"),
        (Spending, {"calls": 1, "unmetered_calls": 2, "cost_usd": 1.0}, "an unpriced or unmetered call is a call"),
        (Spending, {"calls": 1, "unpriced_calls": 1, "cost_usd": 0.0}, "exactly when some call has a price"),
        (Spending, {"calls": 1}, "exactly when some call has a price"),
        (Spending, {"cost_usd": 1.0}, "exactly when some call has a price"),
        (Spending, {"calls": 1, "cost_usd": -0.5}, "cost_usd=-0.5: a cost is finite and not negative"),
        (Spending, {"calls": 1, "cost_usd": float("nan")}, "cost_usd=nan: a cost is finite"),
        (Spending, {"calls": 1, "cost_usd": float("inf")}, "cost_usd=inf: a cost is finite"),
    ],
)
def test_amounts_that_cannot_be_are_refused_by_name(
    kind: type[Usage] | type[Spending], fields: dict[str, Any], why: str
) -> None:
    """Negative counts, more unpriced calls than calls, a price for nothing, no price for a priced call."""
    with pytest.raises(ImpossibleState, match=why):
        kind(**fields)
