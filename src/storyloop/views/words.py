"""Small wordings that every face shares: durations, money, counts."""

from datetime import datetime

from storyloop.core.usage import Spending, Usage


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if 0 < seconds < 9.95:
        return f"{max(0.1, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60} min" if rest >= 60 else f"{hours} h"


_MANY = {"criterion": "criteria"}


def count(number: int, one: str) -> str:
    """`1 story`, `3 stories`."""
    many = _MANY.get(one) or (one[:-1] + "ies" if one.endswith("y") else one + "s")
    return f"{number:,} {one if number == 1 else many}"


def tokens(usage: Usage | None) -> str:
    """Tokens in and out; `unknown` is never zero."""
    if usage is None:
        return "tokens unknown"
    return f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"


def money(spending: Spending) -> str:
    """Dollars, told to be a lower bound where some call has no price."""
    if spending.cost_usd is None:
        return "cost unknown"
    bound = "at least " if spending.is_lower_bound() else ""
    return f"{bound}${spending.cost_usd:.2f}"


def clock_time(moment: datetime) -> str:
    """A moment in UTC, to the second."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def one_line(text: str) -> str:
    """Somebody's text within a line of ours."""
    return " ".join(text.split())
