"""Account: what a run spent its calls, tokens, money and time on, and why an agent was asked more than once.

A view over the events: none of it is state, and nothing is decided by it.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import assert_never

import msgspec

from storyloop.core.artifacts import DevelopmentResult, Plan
from storyloop.core.errand import Mode
from storyloop.core.events import (
    CallEnded,
    CallStarted,
    CommandMeasured,
    Event,
    LimitLearned,
    StoryLanded,
    StoryLeft,
    StoryRejected,
    StoryReopened,
    WaitEnded,
)
from storyloop.core.evidence import reading_of
from storyloop.core.facts import Answered, Failed, Interrupted, Malformed
from storyloop.core.policy import AgentRef, Drain
from storyloop.core.purpose import (
    RUN,
    Baselining,
    Checking,
    Demonstrating,
    FinalChecking,
    FinalDemonstrating,
    Probing,
    Purpose,
    Reproving,
    SettingUp,
    SettingUpLane,
    Trying,
)
from storyloop.core.run_state import phase_key
from storyloop.core.usage import Spending

OPENING, FINAL = "Opening", "Final Proof"  # phases without an agent, besides those of `phase_usage`
_MOST_RETRIES = 200
_MOST_SAID = 300  # characters of a cause


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What went into one phase or one agent; the times are seconds."""

    spending: Spending = Spending()
    agent: float = 0.0
    commands: float = 0.0
    waited: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.agent + self.commands + self.waited


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """An agent was asked once more: who, how, and because of what."""

    at: datetime
    story: str
    drain: Drain
    call: int
    ref: AgentRef
    mode: Mode
    why: str  # one word: red, partial, failed, unchanged, secret, format, interrupted, human, or a class of failure
    cause: str  # a sentence without its full stop


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run's."""

    phases: dict[str, Spent] = {}  # in the order in which they began
    agents: dict[str, Spent] = {}
    retries: tuple[Retry, ...] = ()  # the newest
    reasons: dict[str, int] = {}  # how often each `why`, of all


def account_of(events: Iterable[Event]) -> Account:
    """The account of the run with these events."""
    book = _Book()
    for event in events:
        book.enter(event)
    return Account(
        phases=book.phases,
        agents=book.agents,
        retries=tuple(book.retries[-_MOST_RETRIES:]),
        reasons=dict(Counter(retry.why for retry in book.retries).most_common()),
    )


class _Book:
    """What has been entered so far. Not frozen; it never leaves `account_of`."""

    def __init__(self) -> None:
        self.phases: dict[str, Spent] = {}
        self.agents: dict[str, Spent] = {}
        self.retries: list[Retry] = []
        self._causes: dict[tuple[str, Drain], tuple[str, str]] = {}
        self._phase: dict[str, str] = {}  # of the last call, by story
        self._inherited: set[str] = set()
        self._landed = ""

    def enter(self, event: Event) -> None:
        match event:
            case CallStarted():
                self._called(event)
            case CallEnded(story=story, drain=drain, ref=ref, report=report):
                spent = Spent(spending=Spending.of_call(report.usage, report.cost_usd), agent=report.seconds)
                self._phase[story] = phase_key(drain, story)
                self._spend(self._phase[story], spent)
                self.agents[str(ref)] = _sum(self.agents.get(str(ref), Spent()), spent)
                self._causes[story, drain] = _cause_of(event)
            case CommandMeasured():
                self._measured(event)
            case WaitEnded(story=story, seconds=seconds):
                self._spend(self._phase.get(story, story), Spent(waited=seconds))
            case LimitLearned(story=story, drain=drain, ref=ref, reason=reason):
                self._causes[story, drain] = ("limit", f"{ref} has no quota left; its account met a limit: {reason}")
            case StoryReopened(story=story, hint=hint):
                asked = f"a human asked for another try{': ' * bool(hint)}{hint}"
                self._causes[story, Drain.STORY] = ("human", asked)
            case StoryRejected(story=story, hint=hint):
                drain = Drain.FIX if story == RUN else Drain.STORY
                self._causes[story, drain] = ("human", f"a human rejected it{': ' * bool(hint)}{hint}")
            case StoryLanded(story=story) | StoryLeft(story=story):
                self._landed = story if isinstance(event, StoryLanded) else self._landed
                self._causes.pop((story, Drain.STORY), None)
            case _:
                pass

    def _spend(self, phase: str, spent: Spent) -> None:
        self.phases[phase] = _sum(self.phases.get(phase, Spent()), spent)

    def _called(self, event: CallStarted) -> None:
        why, cause = self._causes.pop((event.story, event.drain), ("", ""))
        if why:
            self.retries.append(
                Retry(
                    at=event.at,
                    story=event.story,
                    drain=event.drain,
                    call=event.call,
                    ref=event.ref,
                    mode=event.mode,
                    why=why,
                    cause=" ".join(cause.split())[:_MOST_SAID],
                )
            )

    def _measured(self, event: CommandMeasured) -> None:
        seconds = event.first.seconds + (event.second.seconds if event.second else 0.0)
        self._spend(_phase_of(event.purpose), Spent(commands=seconds))
        is_green = reading_of(event.first, event.second).is_green
        match event.purpose:
            case Baselining(check=check):
                self._inherited |= set() if is_green else {check}
            case Checking(check=check) | FinalChecking(check=check) if is_green or check in self._inherited:
                self._inherited -= {check} if is_green else set()
            case Checking(story=story, check=check) if not is_green:
                self._red(story, f"check {check}")
            case FinalChecking(check=check):
                self._red(self._landed, f"check {check} in the final proof")
            case Demonstrating(story=story, criterion=criterion) if not is_green:
                self._red(story, f"criterion {criterion}")
            case Reproving(story=story, criterion=criterion) if not is_green:
                self._red(RUN, f"{story} criterion {criterion}")
            case FinalDemonstrating(story=story, criterion=criterion) if not is_green:
                self._red(story, f"criterion {criterion} in the final proof")
            case _:
                pass

    def _red(self, story: str, what: str) -> None:
        drain = Drain.FIX if story == RUN else Drain.STORY
        why, cause = self._causes.get((story, drain), ("", ""))
        if what in cause:
            return  # measured anew after an interruption
        told = f"{cause}, {what}" if why == "red" else f"{cause}{'; ' * bool(cause)}not green: {what}"
        self._causes[story, drain] = ("red", told)


def _sum(one: Spent, other: Spent) -> Spent:
    return Spent(
        spending=one.spending + other.spending,
        agent=one.agent + other.agent,
        commands=one.commands + other.commands,
        waited=one.waited + other.waited,
    )


def _phase_of(purpose: Purpose) -> str:
    match purpose:
        case SettingUp(round=0) | Baselining():
            return OPENING
        case SettingUp() | FinalChecking() | FinalDemonstrating():
            return FINAL
        case Reproving() | Checking(story=""):
            return phase_key(Drain.FIX, RUN)
        case (
            SettingUpLane(story=story)
            | Probing(story=story)
            | Checking(story=story)
            | Demonstrating(story=story)
            | Trying(of=Checking(story=story) | Demonstrating(story=story))
        ):
            return story
        case _:
            assert_never(purpose)


def _cause_of(ended: CallEnded) -> tuple[str, str]:
    """Why the same is asked again, if it is, as far as this call tells."""
    match ended.report.outcome:
        case Answered(artifact=DevelopmentResult(status=status)):
            if ended.secrets:
                return "secret", f"a secret stood in its work: {ended.secrets[0]}"
            if not ended.changed:
                return "unchanged", f"{ended.ref} said {status}, and nothing had changed"
            if bent := ", ".join(f"{suspicion.kind} in {suspicion.path}" for suspicion in ended.suspicions):
                return status.value, f"{ended.ref} said {status}, and its change is suspicious: {bent}"
            return status.value, f"{ended.ref} said {status}"
        case Answered(artifact=Plan()):  # one that could be taken is the last
            return "format", f"{ended.ref} gave a plan with too few commands to prove its stories"
        case Answered():
            return "", ""
        case Malformed(errors=errors):
            return "format", f"{ended.ref} gave no valid result: {errors.removeprefix('- ')}"
        case Failed(failure=failure, message=message, timed_out=timed_out):
            return "timeout" if timed_out else failure.value, f"{ended.ref} failed: {message}"
        case Interrupted(reason=reason):
            return "interrupted", f"{ended.ref} was interrupted: {reason}"
