"""The one small machine behind every drain: it owes one artifact, and moves on facts alone.

Theory of operation. An errand stands at one entry of its chain and at one stage:

    Owed      a call is owed now; how it is asked follows from the ContinuationState (`mode_owed`)
    Calling   a call has begun; its end is a fact that will come, from us or from whoever resumes
    Waiting   nothing is owed before a stated moment (limit, back-off, offline)
    Stranded  no agent of the chain can be asked before a human has done something
    Delivered a valid artifact is there; whoever owns the errand judges it
    GivenUp   the errand is over, with the reason

Each call's end leads to exactly one of: mend the format (same session), same agent again, next agent, next
cycle of the chain after a pause, wait, give up. A judged failure of the *work* leads to a continuation or to
the end. What bounds it all: `calls` only rises, and at `Limits.calls_of` its drain the errand gives up, whatever
the reason for a call was. Attempts and cycles only rise too. No transition lowers one of these three.

What a run can go without (a review, an analysis, a commit's message) is asked of each agent of the chain until its
share of `calls_per_reading` brought nothing valid, and then of nobody again.

The retry counters themselves live in the ContinuationState of whoever owns the errand: every function here
takes and returns both, so they cannot drift apart.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

import msgspec

from storyloop.core.artifacts import Artifact, owed_artifact
from storyloop.core.chain import (
    Cooled,
    CoolingTable,
    Found,
    Later,
    Nobody,
    backoff_seconds,
    cooled_down,
    cools,
    first_ready,
)
from storyloop.core.continuation import ContinuationState
from storyloop.core.facts import Answered, Failed, Failure, Interrupted, Malformed, Outcome
from storyloop.core.policy import DISPENSABLE_DRAINS, AgentRef, Drain, Limits
from storyloop.core.words import ArtifactType, DevelopmentStatus, FixStatus, SameAgentRetryReason


class Mode(StrEnum):
    """How an agent is asked; the values are what `STORYLOOP_MODE` carries."""

    FRESH = "fresh"
    CONTINUATION = "continuation"
    FORMAT_RETRY = "format-retry"
    SAME_AGENT_RETRY = "same-agent-retry"


class Why(StrEnum):
    """What an errand waits for."""

    LIMIT = "limit"
    BACKOFF = "back-off"
    OFFLINE = "offline"


class Owed(msgspec.Struct, frozen=True, tag="owed"):
    """A call is owed now."""


class Calling(msgspec.Struct, frozen=True, kw_only=True, tag="calling"):
    """A call has begun. `before` is the ContinuationState it was begun from: an interrupted call goes back to it."""

    mode: Mode
    at: datetime
    before: ContinuationState
    session: str | None


class Waiting(msgspec.Struct, frozen=True, kw_only=True, tag="waiting"):
    """Nothing is owed before `until`."""

    since: datetime
    until: datetime
    why: Why
    reason: str


class Stranded(msgspec.Struct, frozen=True, tag="stranded"):
    """No agent can be asked before a human has acted."""

    reason: str


class Delivered(msgspec.Struct, frozen=True, tag="delivered"):
    """A valid artifact, not yet judged."""

    artifact: Artifact


class GivenUp(msgspec.Struct, frozen=True, tag="given_up"):
    """The errand is over without what it owed."""

    reason: str


Stage = Owed | Calling | Waiting | Stranded | Delivered | GivenUp


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact owed by one drain."""

    key: str  # story/iteration/drain
    drain: Drain
    chain: tuple[AgentRef, ...]
    stage: Stage = Owed()
    position: int = 0
    cycle: int = 0
    calls: int = 0
    learned: int = 0  # limits that other runs had met; as many are heeded as calls may be made
    session: str | None = None  # the current agent's session, if it told one
    rung: int = 0  # how far loop recovery has escalated; only rises
    invalid_text: str = ""  # what the last invalid artifact said, for a retry without a session
    last_failure: str = ""  # why the last call was not the end of it, for the next prompt and the report

    @property
    def ref(self) -> AgentRef:
        """The entry of the chain that the errand stands at."""
        return self.chain[self.position]


Moved = tuple[Errand, ContinuationState]

# Those that go by the number of the attempt at the work.
_OF_DEVELOPMENT = frozenset({ArtifactType.DEVELOPMENT_RESULT, ArtifactType.ANALYSIS, ArtifactType.ISSUES})
# Who judges an attempt, or reconciles it, is told nothing of the one before.
_TOLD_NOTHING = frozenset({ArtifactType.ANALYSIS, ArtifactType.ISSUES, ArtifactType.CONFLICT_RESULT})


def begin(
    key: str,
    drain: Drain,
    *,
    chain: tuple[AgentRef, ...],
    cs: ContinuationState,
    table: CoolingTable,
    now: datetime,
) -> Moved:
    """A new errand at the head of its chain, passing over agents that are cooling down."""
    errand = Errand(key=key, drain=drain, chain=chain)
    return _at_first_ready(errand, cs.with_artifact(owed_artifact(drain)), table, now)


def attempt_of(cs: ContinuationState) -> int:
    """The number of the attempt that the errand is at, or judges: fixes have a track of their own, others try once."""
    if cs.current_artifact in _OF_DEVELOPMENT:
        return cs.continuation_attempt
    return cs.fix_continuation_attempt if cs.current_artifact is ArtifactType.FIX_RESULT else 0


def mode_owed(cs: ContinuationState) -> Mode:
    """How the next call is asked: the pending flags say it; without one, the attempt's number does."""
    if cs.xsd_retry_pending:
        return Mode.FORMAT_RETRY
    if cs.same_agent_retry_pending:
        return Mode.SAME_AGENT_RETRY
    if cs.current_artifact in _TOLD_NOTHING:
        return Mode.FRESH
    # Something was handed over within the first attempt, too, if a question was answered.
    return Mode.CONTINUATION if attempt_of(cs) or cs.previous_status is not None else Mode.FRESH


def call_started(errand: Errand, cs: ContinuationState, now: datetime) -> Moved:
    """A process start counts from here on, whatever becomes of it."""
    mode = mode_owed(cs)
    calling = Calling(mode=mode, at=now, before=cs, session=errand.session if mode is not Mode.CONTINUATION else None)
    return msgspec.structs.replace(errand, stage=calling, calls=errand.calls + 1), cs.call_started()


def call_ended(
    errand: Errand,
    cs: ContinuationState,
    outcome: Outcome,
    *,
    session: str | None,
    table: CoolingTable,
    limits: Limits,
    now: datetime,
) -> tuple[Errand, ContinuationState, CoolingTable]:
    """What is owed after a call has ended so."""
    assert isinstance(errand.stage, Calling)
    before = errand.stage.before
    errand = msgspec.structs.replace(errand, session=session or errand.session)
    match outcome:
        case Answered(artifact=artifact):
            done = msgspec.structs.replace(errand, stage=Delivered(artifact), invalid_text="", last_failure="")
            return done, cs.clear_retries(), _answered_well(table, errand.ref)
        case Malformed(errors=errors, text=text):
            cs = cs.record_invalid_output(errors).clear_same_agent_retries()
            errand = msgspec.structs.replace(errand, invalid_text=text, last_failure="the artifact was not valid")
            if errand.drain in DISPENSABLE_DRAINS:
                limits = msgspec.structs.replace(limits, chain_cycles=1)
                is_spent = cs.xsd_retry_count + 1 >= limits.calls_per_reading // len(errand.chain)
            else:
                is_spent = False
            if is_spent or cs.xsd_retries_exhausted():
                errand, cs = _fall_back(errand, cs, table=table, limits=limits, now=now)
            else:
                errand, cs = msgspec.structs.replace(errand, stage=Owed()), cs.trigger_xsd_retry()
        case Interrupted(reason=reason):
            errand = msgspec.structs.replace(errand, stage=Owed(), last_failure=reason)
            cs = before if before.xsd_retry_pending else before.ask_again_after_interruption()
        case Failed() as failed:
            errand = msgspec.structs.replace(errand, last_failure=failed.message)
            errand, cs, table = _after_failure(errand, cs, failed, before=before, table=table, limits=limits, now=now)
        case _:
            assert_never(outcome)
    return _capped(errand, limits), cs, table


def work_failed(
    errand: Errand,
    cs: ContinuationState,
    shortfall: "Shortfall",
    *,
    table: CoolingTable,
    limits: Limits,
    now: datetime,
    chain: tuple[AgentRef, ...] | None = None,
) -> Moved:
    """The artifact was valid but the work is not done: the next attempt, or the end of the errand.

    With a chain, the next attempt begins at its head; without one, it stays with the agent that it is at.
    """
    failed = errand.ref
    is_fix = errand.drain is Drain.FIX
    if is_fix:
        status = FixStatus.ISSUES_REMAIN if shortfall.status is DevelopmentStatus.PARTIAL else FixStatus.FAILED
        cs = cs.trigger_fix_continuation(status, shortfall.summary)
    else:
        cs = cs.trigger_continuation(shortfall.status, shortfall.summary, shortfall.files, shortfall.steps())
    cs = cs.update_loop_detection_counters(shortfall.fingerprint)
    errand = msgspec.structs.replace(errand, session=None, last_failure=shortfall.reason)
    if cs.fix_continuations_exhausted() if is_fix else cs.continuations_exhausted():
        tries = f"{attempt_of(cs)} attempt{'s' * (attempt_of(cs) != 1)}"
        return msgspec.structs.replace(errand, stage=GivenUp(f"{tries} used up: {shortfall.reason}")), cs
    if chain is not None:
        errand = msgspec.structs.replace(errand, chain=chain, position=0)
    errand, cs = _at_this_or_first_ready(errand, cs, table, now)
    if cs.is_loop_detected():
        errand = msgspec.structs.replace(errand, rung=errand.rung + 1)
        if errand.rung >= 3:
            again = f"the same result {cs.consecutive_same_effect_count} times in a row: {shortfall.reason}"
            return msgspec.structs.replace(errand, stage=GivenUp(again)), cs
        if errand.rung == 2 and errand.ref == failed:
            errand, cs = _fall_back(errand, cs, table=table, limits=limits, now=now)
    return _capped(errand, limits), cs


def asked_anew(
    errand: Errand,
    cs: ContinuationState,
    *,
    chain: tuple[AgentRef, ...],
    table: CoolingTable,
    limits: Limits,
    now: datetime,
) -> Moved:
    """The same errand, which has delivered, about another attempt: from the head of the chain, but calls go on."""
    errand = msgspec.structs.replace(errand, chain=chain, position=0, session=None)
    errand, cs = _at_first_ready(errand, cs.with_artifact(owed_artifact(errand.drain)), table, now)
    return _capped(errand, limits), cs


def go_on(errand: Errand, cs: ContinuationState, *, table: CoolingTable, now: datetime) -> Moved:
    """The artifact was not the last word: the same attempt owes another call, with a handover to read."""
    errand = msgspec.structs.replace(errand, session=None)
    return _at_this_or_first_ready(errand, cs, table, now)


class Shortfall(msgspec.Struct, frozen=True, kw_only=True):
    """What is missing after an attempt, as the next one is told."""

    status: DevelopmentStatus
    summary: str
    files: tuple[str, ...]
    next_steps: str | None  # the agent's own
    reason: str  # one line, for the report
    fingerprint: str  # effect, arguments without counters, digest of the work product
    asked: str = ""  # what we ask for, in our words

    def steps(self) -> str | None:
        """What is to be done, for the next attempt."""
        if not self.asked or not self.next_steps:
            return self.asked or self.next_steps
        return f"{self.asked}\nYour own next steps were:\n{self.next_steps}"


def limit_learned(errand: Errand, cs: ContinuationState, *, table: CoolingTable, now: datetime) -> Moved:
    """The agent whose turn it is cools down, and was not asked: no call, no attempt and no cycle is spent."""
    errand = msgspec.structs.replace(errand, learned=errand.learned + 1)
    return _at_first_ready(errand, cs, table, now, start=errand.position)


def wait_ended(errand: Errand, cs: ContinuationState, *, table: CoolingTable, now: datetime) -> Moved:
    """The moment has come: ask the agent it waited for if that is ready. A human has resumed: begin at the head."""
    match errand.stage:
        case Waiting(until=until):
            # A clock that was set back must not owe the same wait again.
            return _at_this_or_first_ready(errand, cs, table, max(now, until))
        case Stranded():
            return _at_first_ready(errand, cs, table, now)
        case _:
            return errand, cs


def rechained(
    errand: Errand, cs: ContinuationState, *, chain: tuple[AgentRef, ...], table: CoolingTable, now: datetime
) -> Moved:
    """The same errand on an amended chain, from its head; attempts, cycles and calls go on.

    A call under way belongs to the chain that it was begun on: the errand is rechained when it has ended.
    """
    if not chain or chain == errand.chain or isinstance(errand.stage, Calling | GivenUp):
        return errand, cs
    moved = msgspec.structs.replace(errand, chain=chain, position=0)
    if isinstance(errand.stage, Delivered):
        return msgspec.structs.replace(moved, session=None), cs
    moved, cs = _at_first_ready(moved, cs, table, now)
    return _own_counters(moved, cs, before=errand)


def _at_this_or_first_ready(errand: Errand, cs: ContinuationState, table: CoolingTable, now: datetime) -> Moved:
    if cools(errand.ref, table, now) is None:
        return msgspec.structs.replace(errand, stage=Owed()), cs
    return _at_first_ready(errand, cs, table, now)


def _at_first_ready(
    errand: Errand, cs: ContinuationState, table: CoolingTable, now: datetime, *, start: int = 0
) -> Moved:
    match first_ready(errand.chain, table, now, start=start):
        case Found(position=position):
            moved = msgspec.structs.replace(errand, stage=Owed(), position=position)
        case Later(position=position, until=until, reason=reason):
            waiting = Waiting(since=now, until=until, why=Why.LIMIT, reason=reason)
            moved = msgspec.structs.replace(errand, stage=waiting, position=position)
        case Nobody(reason=reason):
            return msgspec.structs.replace(errand, stage=Stranded(reason)), cs
    return _own_counters(moved, cs, before=errand)


def _own_counters(errand: Errand, cs: ContinuationState, *, before: Errand) -> Moved:
    """Another agent than before begins in no session, with its retries anew."""
    if errand.ref == before.ref:
        return errand, cs
    return msgspec.structs.replace(errand, session=None), cs.clear_retries()


def _after_failure(
    errand: Errand,
    cs: ContinuationState,
    failed: Failed,
    *,
    before: ContinuationState,
    table: CoolingTable,
    limits: Limits,
    now: datetime,
) -> tuple[Errand, ContinuationState, CoolingTable]:
    cooled = Cooled(
        failure=failed.failure,
        reason=f"{errand.ref}: {failed.message}",
        resets_at=failed.resets_at,
        now=now,
        limits=limits,
    )
    table = cooled_down(table, errand.ref, cooled)
    if failed.failure is Failure.OFFLINE:
        until = now + timedelta(seconds=backoff_seconds(limits, cycle=min(errand.calls, 8)))
        waiting = Waiting(since=now, until=until, why=Why.OFFLINE, reason=failed.message)
        return msgspec.structs.replace(errand, stage=waiting), before, table
    if failed.failure is Failure.TRANSIENT:
        if isinstance(errand.stage, Calling) and errand.session == errand.stage.session:
            # The session itself may be what it failed of (lost, or too long): it is not taken up again.
            errand = msgspec.structs.replace(errand, session=None)
        reason = SameAgentRetryReason.TIMEOUT if failed.timed_out else SameAgentRetryReason.INTERNAL_ERROR
        cs = cs.trigger_same_agent_retry(reason)
        if not cs.same_agent_retries_exhausted():
            return msgspec.structs.replace(errand, stage=Owed()), cs, table
    errand, cs = _fall_back(errand, cs, table=table, limits=limits, now=now)
    return errand, cs, table


def _fall_back(errand: Errand, cs: ContinuationState, *, table: CoolingTable, limits: Limits, now: datetime) -> Moved:
    """The next agent that is not cooling down; past the end of the chain the next cycle, after a pause."""
    errand = msgspec.structs.replace(errand, session=None)
    cs = cs.clear_retries()
    match first_ready(errand.chain, table, now, start=errand.position + 1):
        case Found(position=position) if position > errand.position:
            return msgspec.structs.replace(errand, stage=Owed(), position=position), cs
        case Found(position=position):
            cycle = errand.cycle + 1
            if cycle >= limits.chain_cycles:
                why = f"every agent of the chain failed {cycle} time{'s' * (cycle != 1)}: {errand.last_failure}"
                return msgspec.structs.replace(errand, stage=GivenUp(why), cycle=cycle), cs
            until = now + timedelta(seconds=backoff_seconds(limits, cycle=cycle))
            waiting = Waiting(since=now, until=until, why=Why.BACKOFF, reason=errand.last_failure)
            return msgspec.structs.replace(errand, stage=waiting, position=position, cycle=cycle), cs
        case Later() | Nobody():
            return _at_first_ready(errand, cs, table, now)


def _capped(errand: Errand, limits: Limits) -> Errand:
    if errand.calls < limits.calls_of(errand.drain) or isinstance(errand.stage, Delivered | GivenUp):
        return errand
    spent = f"all {errand.calls} calls of the errand are used up: {errand.last_failure}".removesuffix(": ")
    return msgspec.structs.replace(errand, stage=GivenUp(spent))


def _answered_well(table: CoolingTable, ref: AgentRef) -> CoolingTable:
    name = str(ref)
    return {key: cooling for key, cooling in table.items() if key != name} if name in table else table
