"""Budgets: what a run and each of its stories may spend, whether the next call still fits, and when it is said.

Theory of operation. Before a call starts, as much is set aside for it as the dearest call of its agent has come to in
this run (nothing, before there was one); where what is spent and what is set aside would pass a budget, the call
is not made. When a call has ended, what it told is what counts; what it did not tell counts for nothing, so a budget of
tokens or money holds only those who tell them, while calls and time hold everybody.

The run's budget parks the run. A story's blocks the story; it counts anew each time that the story is taken up, and its
first call is always made: one dear call elsewhere must not keep a story from being tried at all.
"""

from collections.abc import Iterator
from datetime import timedelta

import msgspec
from msgspec.structs import replace

from storyloop.core.policy import AgentRef, Budget, StoryBudget
from storyloop.core.progress import Ledger, Progress
from storyloop.core.purpose import RUN
from storyloop.core.run_state import RunState
from storyloop.core.stages import Work, errand_of, is_calling
from storyloop.core.usage import Amounts

_NEARLY = 0.8


def run_refuses(state: RunState, ref: AgentRef, *, ahead: tuple[AgentRef, ...] = ()) -> str | None:
    """Why the run's budget has no room for a call of this agent, as a sentence; None while it has.

    `ahead`: whose calls begin before it, and are not counted yet.
    """
    progress = state.going
    aside = _dearest(progress.ledger, ref)
    for other in (*_under_way(progress), *ahead):
        more = _dearest(progress.ledger, other)
        # The run's time is the clock's: calls side by side take it together.
        aside = Amounts(tokens=aside.tokens + more.tokens, usd=aside.usd + more.usd, time=aside.time)
    budget = state.effective_config().budget
    spent = _spent_by_run(progress)
    return _refusal("the run's", budget, spent=replace(spent, calls=spent.calls + len(ahead)), aside=aside, ref=ref)


def story_refuses(ledger: Ledger, budget: StoryBudget, work: Work, ref: AgentRef) -> str | None:
    """The same for the story's own budget; what belongs to the run itself has none."""
    if not work.calls or work.story == RUN or budget == StoryBudget():
        return None
    return _refusal("the story's", budget, spent=_spent_by_story(work), aside=_dearest(ledger, ref), ref=ref)


class Nearing(msgspec.Struct, frozen=True):
    """A budget of which most is spent; two are equal as long as it is the same budget."""

    whose: str  # "the run's", or a story's
    iteration: int
    name: str
    allowed: float


def nearly_spent(state: RunState) -> dict[Nearing, str]:
    """The budgets of which four fifths or more are spent, each with the sentence that says so."""
    progress, budget = state.going, state.effective_config().budget
    if budget == Budget():
        return {}
    told = dict(_nearing("the run's", 0, budget, _spent_by_run(progress)))
    for work in (work for name, work in progress.work.items() if name != RUN):
        told |= dict(_nearing(f"{work.story}'s", work.iteration, budget.story, _spent_by_story(work)))
    return told


def _nearing(whose: str, iteration: int, budget: StoryBudget, spent: Amounts) -> Iterator[tuple[Nearing, str]]:
    for name in Amounts.__struct_fields__:
        allowed, used = getattr(budget, name), getattr(spent, name)
        if allowed is not None and used >= _NEARLY * allowed:
            sentence = f"{used / allowed:.0%} of {whose} budget of {_amount(name, allowed)} is spent"
            yield Nearing(whose, iteration, name, allowed), sentence


def _refusal(whose: str, budget: StoryBudget, *, spent: Amounts, aside: Amounts, ref: AgentRef) -> str | None:
    for name in Amounts.__struct_fields__:
        allowed, used, more = getattr(budget, name), getattr(spent, name), getattr(aside, name)
        if allowed is None or (used < allowed and used + more <= allowed):
            continue
        told = f"{_amount(name, used)} spent"
        if used >= allowed:
            return f"{whose} budget of {_amount(name, allowed)} is used up: {told}"
        room = f"{_amount(name, more)} set aside for the next call of {ref}"
        return f"{whose} budget of {_amount(name, allowed)} has no room left: {told}, {room}"
    return None


def _amount(name: str, number: float) -> str:
    match name:
        case "usd":
            return f"${number:,.2f}" if number >= 0.01 or not number else f"${number:.2g}"
        case "time":
            return f"{timedelta(seconds=round(number))} of time"  # 1:30:00
        case _:
            return f"{number:,} {name if number != 1 else name.removesuffix('s')}"


def _spent_by_run(progress: Progress) -> Amounts:
    ledger = progress.ledger
    return Amounts.of(ledger.total, calls=ledger.calls, time=ledger.active)


def _spent_by_story(work: Work) -> Amounts:
    return Amounts.of(work.spending, calls=work.calls, time=work.spending.seconds)


def _dearest(ledger: Ledger, ref: AgentRef) -> Amounts:
    return ledger.dearest.get(str(ref), Amounts())


def _under_way(progress: Progress) -> Iterator[AgentRef]:
    for work in progress.work.values():
        if is_calling(work):
            yield errand_of(work)[0].ref
