"""Usage and spending: the tokens that calls used, and the money they cost where a price is known.

Unknown is None and never 0: a sum that misses the price of some calls is a lower bound and says so.
"""

from math import inf
from typing import TypeVar

import msgspec

from storyloop.core.errors import ImpossibleState, are_counts, require_counts


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
        if not are_counts(
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_creation_tokens,
            self.thinking_tokens,
        ):
            require_counts(self)

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
    unmetered_calls: int = 0  # that did not tell their tokens
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not are_counts(self.calls, self.unpriced_calls, self.unmetered_calls):
            require_counts(self)
        if self.unpriced_calls > self.calls or self.unmetered_calls > self.calls:
            self._refuse("an unpriced or unmetered call is a call")
        if (self.cost_usd is None) != (self.unpriced_calls == self.calls):
            self._refuse("there is a cost exactly when some call has a price")
        if self.cost_usd is not None and not 0 <= self.cost_usd < inf:
            self._refuse("a cost is finite and not negative")

    def _refuse(self, why: str) -> None:
        names = ("calls", "unpriced_calls", "unmetered_calls", "cost_usd")
        raise ImpossibleState(self, why, {name: getattr(self, name) for name in names})

    @classmethod
    def of_call(cls, usage: Usage | None, cost_usd: float | None, *, seconds: float = 0.0) -> "Spending":
        """The spending of one call."""
        unpriced, unmetered = int(cost_usd is None), int(usage is None)
        return cls(
            usage=usage,
            cost_usd=cost_usd,
            calls=1,
            unpriced_calls=unpriced,
            unmetered_calls=unmetered,
            seconds=seconds,
        )

    def __add__(self, other: "Spending") -> "Spending":
        if not (self.calls and other.calls):
            return self if self.calls else other
        return Spending(
            usage=add_known(self.usage, other.usage),
            cost_usd=add_known(self.cost_usd, other.cost_usd),
            calls=self.calls + other.calls,
            unpriced_calls=self.unpriced_calls + other.unpriced_calls,
            unmetered_calls=self.unmetered_calls + other.unmetered_calls,
            seconds=self.seconds + other.seconds,
        )

    def is_lower_bound(self) -> bool:
        """Whether some call has no price, so that the true cost is at least `cost_usd`."""
        return self.unpriced_calls > 0


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a budget is held against, under the names of its keys; what is unknown counts for nothing."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    time: float = 0.0

    @classmethod
    def of(cls, spending: Spending, *, calls: int, time: float) -> "Amounts":
        """These calls' spending; calls are counted as they start, and time is counted by whoever asks."""
        usage = spending.usage
        tokens = 0 if usage is None else usage.input_tokens + usage.output_tokens
        return cls(calls=calls, tokens=tokens, usd=spending.cost_usd or 0.0, time=time)

    def or_more(self, other: "Amounts") -> "Amounts":
        """The greater one of each."""
        return Amounts(
            calls=max(self.calls, other.calls),
            tokens=max(self.tokens, other.tokens),
            usd=max(self.usd, other.usd),
            time=max(self.time, other.time),
        )
