"""Metering: what one call used, of an agent that counts its whole session.

Each call whose usage is known leaves a paper `meter` in its directory: the session, and all that this session has
used up to then. A call that takes a session up again gets the newest of them as `metered-before` when it is launched,
so its own part is the same however often it is computed, before and after a crash.
"""

from pathlib import Path

import msgspec

from storyloop.agents.stream import Turn
from storyloop.core.usage import Usage, add_known
from storyloop.ports.agents import CallOrder

METER, BEFORE = "meter", "metered-before"
_COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "thinking_tokens")


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """What a session had used when a call ended."""

    session: str
    at: float  # seconds since the epoch
    usage: Usage | None = None
    cost_usd: float | None = None


def carry(order: CallOrder) -> None:
    """Bring what the order's session has used so far along, if some call beside this one has met it."""
    if order.session is None:
        return
    papers = Path(order.call_dir).parent.glob(f"*/{METER}")
    meters = (msgspec.json.decode(paper.read_bytes(), type=Meter) for paper in papers)
    met = [meter for meter in meters if meter.session == order.session]
    if met:
        newest = max(met, key=lambda meter: meter.at)
        Path(order.call_dir, BEFORE).write_bytes(msgspec.json.encode(newest))


def metered(order: CallOrder, turn: Turn, *, session: str | None, at: float) -> tuple[Usage | None, float | None]:
    """Usage and cost of this call alone; what its session has used up to now is kept for the next one."""
    paper = Path(order.call_dir, BEFORE)
    before = msgspec.json.decode(paper.read_bytes(), type=Meter) if paper.exists() else None
    held_usage, held_cost = (None, None) if before is None else (before.usage, before.cost_usd)
    usage, cost = turn.usage, turn.cost_usd
    if usage is not None and turn.usage_cumulative and held_usage is not None:
        usage = _less(usage, held_usage)
    if cost is not None and turn.cost_cumulative and held_cost is not None:
        cost = max(0.0, cost - held_cost)
    if session is not None and (usage is not None or cost is not None):
        total = Meter(session=session, at=at, usage=add_known(held_usage, usage), cost_usd=add_known(held_cost, cost))
        new = Path(order.call_dir, f"{METER}.new")
        new.write_bytes(msgspec.json.encode(total))
        new.replace(new.with_name(METER))
    return usage, cost


def _less(total: Usage, before: Usage) -> Usage:
    left = {name: max(0, getattr(total, name) - getattr(before, name)) for name in _COUNTS}
    return msgspec.structs.replace(total, **left)
