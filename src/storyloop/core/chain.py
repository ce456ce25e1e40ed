"""A cursor over a chain of agents: where an errand stands, who is cooling down, where it falls back to.

Only `limit`, `auth` and `missing` cool an agent down. A limit belongs to one entry of the chain (agent and
model) and ends at a moment; a missing or logged-out agent is out for every model until a human resumes the run.
"""

from datetime import datetime, timedelta
from typing import assert_never

import msgspec

from storyloop.core.facts import Failure
from storyloop.core.policy import AgentRef, Limits

_LONGEST_BACKOFF = 900.0
_LONGEST_UNSTATED_LIMIT = 3600.0


class Cooling(msgspec.Struct, frozen=True, kw_only=True):
    """Why an agent is not asked for now; `until` None means: not before a human resumes the run."""

    until: datetime | None
    times: int  # limits in a row without a good answer in between: an unstated reset is guessed longer each time
    reason: str


CoolingTable = dict[str, Cooling]


def cools(ref: AgentRef, table: CoolingTable, now: datetime) -> Cooling | None:
    """What keeps this entry from being asked at `now`, if anything does."""
    if not table:
        return None
    own, agent = table.get(str(ref)), table.get(ref.agent)
    if own is not None and (own.until is None or own.until > now):
        return own
    # An entry without a model has the agent's own name: its limit is not that of the agent's other models.
    return agent if agent is not None and agent.until is None else None


def cooled_down(table: CoolingTable, ref: AgentRef, failed: "Cooled") -> CoolingTable:
    """The table after this entry has failed with a class that cools it down."""
    match failed.failure:
        case Failure.AUTH | Failure.MISSING:
            return table | {ref.agent: Cooling(until=None, times=1, reason=failed.reason)}
        case Failure.LIMIT:
            until = limited_until(table, ref, failed)
            return table | {str(ref): Cooling(until=until, times=_times(table, ref) + 1, reason=failed.reason)}
        case Failure.TRANSIENT | Failure.CONFIG | Failure.OFFLINE:
            return table
        case _:
            assert_never(failed.failure)


def limited_until(table: CoolingTable, ref: AgentRef, failed: "Cooled") -> datetime:
    """When this entry's limit is over: as stated, or else a guess that is longer each time."""
    pause = min(_LONGEST_UNSTATED_LIMIT, failed.limits.backoff * 4 * _doubled(_times(table, ref)))
    return failed.resets_at or failed.now + timedelta(seconds=pause)


def _times(table: CoolingTable, ref: AgentRef) -> int:
    return table[str(ref)].times if str(ref) in table else 0


class Cooled(msgspec.Struct, frozen=True, kw_only=True):
    """A failure as the cooling table sees it."""

    failure: Failure
    reason: str
    resets_at: datetime | None
    now: datetime
    limits: Limits


def backoff_seconds(limits: Limits, *, cycle: int) -> float:
    """The pause before cycle `cycle` (1 is the second pass over the chain): it doubles, up to 15 minutes."""
    return min(_LONGEST_BACKOFF, limits.backoff * _doubled(cycle - 1))


def _doubled(times: int) -> int:
    return 2 ** min(times, 30)  # far beyond every cap, and still a number that a float can be multiplied with


class Found(msgspec.Struct, frozen=True):
    """This entry can be asked now."""

    position: int


class Later(msgspec.Struct, frozen=True):
    """Every entry is cooling down; this one is ready first."""

    position: int
    until: datetime
    reason: str


class Nobody(msgspec.Struct, frozen=True):
    """No entry can be asked before a human has done something; the reasons say what."""

    reason: str


def first_ready(
    chain: tuple[AgentRef, ...], table: CoolingTable, now: datetime, *, start: int = 0
) -> Found | Later | Nobody:
    """The first entry at or behind `start` that is not cooling down; Later and Nobody look at the whole chain."""
    for position in range(start, len(chain)):
        if cools(chain[position], table, now) is None:
            return Found(position)
    cooling = [(cools(ref, table, now), position) for position, ref in enumerate(chain)]
    waiting = [(c.until, p, c.reason) for c, p in cooling if c is not None and c.until is not None]
    if any(c is None for c, _ in cooling):
        return Found(next(p for c, p in cooling if c is None))
    if waiting:
        until, position, reason = min(waiting)
        return Later(position, until, reason)
    return Nobody("; ".join(sorted({c.reason for c, _ in cooling if c is not None})) or "the chain is empty")
