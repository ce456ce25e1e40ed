"""Usage and spending: the tokens that calls used, and the money they cost where a price is known.

Unknown is None and never 0: a sum that misses the price of some calls is a lower bound and says so.
"""

from math import inf
from operator import attrgetter
from typing import TypeVar

import msgspec

from storyloop.core.errors import ImpossibleState, are_counts, require_counts

_COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "thinking_tokens")
_counts_of = attrgetter(*_COUNTS)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one call, or of several: `model` is None when it is unknown or they differ."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    thinking_tokens: int = 0
    model: str | None = None

    def __post_init__(self) -> None:
        # Run for every call that is folded: one look at all counts, and the sentence only for who fails it.
        if not are_counts(_counts_of(self)):
            require_counts(self, *_COUNTS)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_creation_tokens=self.cache_creation_tokens + other.cache_creation_tokens,
            thinking_tokens=self.thinking_tokens + other.thinking_tokens,
            model=self.model if self.model == other.model else None,
        )


_Amount = TypeVar("_Amount", Usage, float)


def add_known(one: _Amount | None, other: _Amount | None) -> _Amount | None:
    """The sum of what is known; None only when neither is."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """What calls cost together. `Spending()` is no call at all, and changes no sum."""

    usage: Usage | None = None
    cost_usd: float | None = None
    calls: int = 0
    unpriced_calls: int = 0

    def __post_init__(self) -> None:
        if not are_counts((self.calls, self.unpriced_calls)):
            require_counts(self, "calls", "unpriced_calls")
        if self.unpriced_calls > self.calls:
            self._refuse("an unpriced call is a call")
        if (self.cost_usd is None) != (self.unpriced_calls == self.calls):
            self._refuse("there is a cost exactly when some call has a price")
        if self.cost_usd is not None and not 0 <= self.cost_usd < inf:
            self._refuse("a cost is finite and not negative")

    def _refuse(self, why: str) -> None:
        counted = {"calls": self.calls, "unpriced_calls": self.unpriced_calls, "cost_usd": self.cost_usd}
        raise ImpossibleState(self, why, counted)

    @classmethod
    def of_call(cls, usage: Usage | None, cost_usd: float | None) -> "Spending":
        """The spending of one call."""
        return cls(usage=usage, cost_usd=cost_usd, calls=1, unpriced_calls=int(cost_usd is None))

    def __add__(self, other: "Spending") -> "Spending":
        if not other.calls:
            return self
        return Spending(
            usage=add_known(self.usage, other.usage),
            cost_usd=add_known(self.cost_usd, other.cost_usd),
            calls=self.calls + other.calls,
            unpriced_calls=self.unpriced_calls + other.unpriced_calls,
        )

    def is_lower_bound(self) -> bool:
        """Whether some call has no price, so that the true cost is at least `cost_usd`."""
        return self.unpriced_calls > 0
