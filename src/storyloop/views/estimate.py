"""Estimate: what a run may come to, by what earlier runs of the same agents on this machine came to. No bound."""

from collections.abc import Iterable

import msgspec

from storyloop.core.run_state import RunState
from storyloop.core.spec import Spec
from storyloop.views.words import count, duration


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over runs; None where no run knows."""

    runs: int
    calls_per_story: float
    tokens_per_call: float | None
    usd_per_call: float | None
    seconds_per_call: float


def estimate_of(earlier: Iterable[RunState]) -> Estimate | None:
    """What these runs came to; None if there is none that ever asked an agent."""
    runs = [state for state in earlier if state.iterations and state.going.ledger.total.calls]
    if not runs:
        return None
    from statistics import median  # slow to import, and needed for a dry run alone

    totals = [state.going.ledger.total for state in runs]
    tokens = [
        (total.usage.input_tokens + total.usage.output_tokens) / (total.calls - total.unmetered_calls)
        for total in totals
        if total.usage is not None
    ]
    usd = [total.cost_usd / (total.calls - total.unpriced_calls) for total in totals if total.cost_usd is not None]
    return Estimate(
        runs=len(runs),
        calls_per_story=median(state.going.ledger.calls / len(state.iterations) for state in runs),
        tokens_per_call=median(tokens) if tokens else None,
        usd_per_call=median(usd) if usd else None,
        seconds_per_call=median(total.seconds / total.calls for total in totals),
    )


def estimate_line(estimate: Estimate | None, spec: Spec) -> str:
    """The estimate for the stories that are open, in a line."""
    if spec.is_free_form:
        return "none before its stories are planned"
    if estimate is None:
        return "none: no earlier run on this machine asked these agents and no others"
    calls = round(sum(not story.passes for story in spec.user_stories) * estimate.calls_per_story)
    tokens, usd = estimate.tokens_per_call, estimate.usd_per_call
    parts = [
        count(calls, "agent call"),
        "tokens unknown" if tokens is None else count(round(calls * tokens), "token"),
        "cost unknown" if usd is None else f"${calls * usd:.2f}",
        f"{duration(calls * estimate.seconds_per_call)} of agent time",
    ]
    return f"{', '.join(parts)} (medians of {count(estimate.runs, 'earlier run')} of these agents)"
