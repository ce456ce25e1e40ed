"""Calls: their beginnings and ends as they fold, and what the end of an errand means for whom it was asked for."""

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.analysis import judged
from storyloop.core.artifacts import (
    Analysis,
    Artifact,
    CommitMessage,
    ConflictResult,
    DevelopmentResult,
    FixResult,
    Issues,
    PrText,
    Question,
)
from storyloop.core.asking import asked, taken_up
from storyloop.core.attempt import fell_short, given_up, not_read, was_read, was_reviewed, worked
from storyloop.core.chain import Cooling
from storyloop.core.continuation import ContinuationState
from storyloop.core.delivery import worded
from storyloop.core.draft import Draft
from storyloop.core.errand import Delivered, Errand, GivenUp
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import CallEnded, CallStarted, Event, LimitLearned, StoryTakenUp, WaitEnded
from storyloop.core.feedback import declined
from storyloop.core.passing import afforded, not_reviewed
from storyloop.core.planning import heard, plan_moved
from storyloop.core.policy import WRITING_DRAINS, Drain
from storyloop.core.purpose import RUN
from storyloop.core.review import as_development, disputed, is_disputed, review_failed, reviewed
from storyloop.core.run_state import SNIPPET_CHARACTERS, phase_key
from storyloop.core.stages import (
    AGENTS_TURN,
    Building,
    Describing,
    Judging,
    Planning,
    Reconciling,
    TakingUp,
    Wording,
    Work,
    errand_of,
)
from storyloop.core.steps import chain_of, expect, with_errand, work_of
from storyloop.core.train import in_line, is_in_line
from storyloop.core.turn import not_reconciled, reconciled, turn_come
from storyloop.core.usage import Spending


def call_started(run: Draft, event: CallStarted) -> None:
    """A process start is counted."""
    work, errand, cs = _turn_of(run, event.story, event)
    expect(isinstance(errand.stage, errands.Owed) and event.call == errand.calls + 1, run, event)
    expect(errand.drain is event.drain and errand.ref == event.ref, run, event)
    expect(errands.mode_owed(cs) == event.mode and not cs.context_write_pending, run, event)
    errand, cs = errands.call_started(errand, cs, event.at)
    run.count(calls=run.ledger.calls + 1)
    with_errand(run, replace(work, calls=work.calls + 1), errand, cs)


def call_ended(run: Draft, event: CallEnded) -> None:
    """What a call came to, for its errand, the ledger and the story."""
    work, errand, cs = _turn_of(run, event.story, event)
    expect(isinstance(errand.stage, errands.Calling) and event.call == errand.calls, run, event)
    expect(errand.drain is event.drain and errand.ref == event.ref, run, event)
    report, policy = event.report, run.effective_config()
    outcome = report.outcome
    if isinstance(work.stage, Planning):
        planning, outcome = heard(run, work.stage, outcome, policy)
        work = replace(work, stage=planning)
    run.capture_usage(phase_key(event.drain, event.story), report.usage)
    spending = Spending.of_call(report.usage, report.cost_usd, seconds=report.seconds)
    run.spend(event.ref, spending)
    run.find(*event.findings)
    errand, cs, table = errands.call_ended(
        errand,
        cs,
        outcome,
        session=report.session,
        table=run.cooling,
        limits=policy.limits,
        now=event.at,
    )
    run.cooling = table
    # Another one, if the run was resumed with it during the call.
    chain = chain_of(run, errand.drain, attempt=errands.attempt_of(cs), work=work)
    errand, cs = errands.rechained(errand, cs, chain=chain, table=table, now=event.at)
    snippet = report.snippet[-SNIPPET_CHARACTERS:] or work.snippet
    work = replace(work, snippet=snippet, spending=work.spending + spending)
    if event.drain in WRITING_DRAINS:
        work = replace(
            work,
            pin=event.pin,
            changed=event.changed,
            secrets=event.secrets,
            suspicions=event.suspicions,
            new_tests=event.new_tests,
            clashes=event.clashes,
        )
    errand_moved(run, with_errand(run, work, errand, cs), event)


def limit_learned(run: Draft, event: LimitLearned) -> None:
    """The agent that was to be asked has no quota left: another one is asked, or it is waited for."""
    work, errand, cs = _turn_of(run, event.story, event)
    expect(isinstance(errand.stage, errands.Owed) and errand.drain is event.drain, run, event)
    expect(errand.ref == event.ref and event.until > event.at, run, event)
    expect(errand.learned < run.effective_config().limits.calls_per_errand, run, event)
    known = run.cooling.get(str(event.ref))
    limit = Cooling(until=event.until, times=known.times if known else 0, reason=event.reason)
    run.cooling = run.cooling | {str(event.ref): limit}
    errand, cs = errands.limit_learned(errand, cs, table=run.cooling, now=event.at)
    errand_moved(run, with_errand(run, work, errand, cs), event)


def wait_ended(run: Draft, event: WaitEnded) -> None:
    """The errand goes on."""
    work, errand, cs = _turn_of(run, event.story, event)
    expect(isinstance(errand.stage, errands.Waiting), run, event)
    run.count(waited=run.ledger.waited + event.seconds)
    errand, cs = errands.wait_ended(errand, cs, table=run.cooling, now=event.at)
    errand_moved(run, with_errand(run, work, errand, cs), event)


def story_taken_up(run: Draft, event: StoryTakenUp) -> None:
    """The question has its reply, and the errand goes on; or its turn has come to land."""
    work = work_of(run, event.story, event)
    if is_in_line(work):
        turn_come(run, work, event)
    else:
        expect(isinstance(work.stage, TakingUp), run, event)
        errand_moved(run, taken_up(run, event), event)


def _turn_of(run: Draft, story: str, event: Event) -> tuple[Work, Errand, ContinuationState]:
    """The story whose agent's turn it is, with the errand and the counters that the turn goes by."""
    work = work_of(run, story, event)
    expect(type(work.stage) in AGENTS_TURN, run, event)
    return work, *errand_of(work)


def errand_moved(run: Draft, work: Work, event: Event) -> None:
    """What an errand's delivery or end means for its story."""
    errand, cs = errand_of(work)
    if (payable := afforded(run, work, errand)) is not errand:
        errand, work = payable, with_errand(run, work, payable, cs)
    if isinstance(work.stage, Planning):
        plan_moved(run, work, work.stage, event)
    elif isinstance(errand.stage, Delivered):
        _delivered(run, work, errand.stage.artifact, event)
    elif isinstance(errand.stage, GivenUp):
        _given_up(run, work, errand.stage.reason, event)


def _delivered(run: Draft, work: Work, artifact: Artifact, event: Event) -> None:
    match work.stage, artifact:
        case Building(), DevelopmentResult(question=None) as result:
            worked(run, work, result, event)
        case Building(), DevelopmentResult(question=Question() as question) as result:
            refused = asked(run, work, result, question, event.at)
            if refused is not None:
                fell_short(run, work, refused, event)
            elif isinstance(run.work[work.story].stage, Building):  # it goes on at once
                errand_moved(run, run.work[work.story], event)
        case Building(), FixResult() as fix if is_disputed(work, fix):
            disputed(run, work, fix) if work.story == RUN else declined(run, work, fix, event)
        case Building(), FixResult() as fix:
            worked(run, work, as_development(fix), event)
        case Building(), Issues() as issues:
            reviewed(run, work, issues, event.at)
        case Judging() as judging, Issues() as issues:
            was_reviewed(run, work, judging, issues, event)
        case Judging() as judging, Analysis() as analysis if isinstance(event, CallEnded):
            was_read(run, work, judging, judged(run, work, judging.landing, analysis, event), event)
        case Describing(landing=landing), CommitMessage() as message:
            in_line(run, work, replace(landing, message=message))
        case Reconciling() as reconciling, ConflictResult() as result:
            reconciled(run, work, reconciling, result, event)
        case Wording(), PrText() as text:
            worded(run, text)
        case _:
            raise IllegalTransition(run.machine_state, event)


def _given_up(run: Draft, work: Work, reason: str, event: Event) -> None:
    match work.stage:
        case Building() if work.errand.drain is Drain.REVIEW:
            review_failed(run, work, reason)
        case Building():
            given_up(run, work, reason, event)
        case Judging(drain=Drain.REVIEW, landing=landing, before=before):
            not_reviewed(run, replace(work, cs=before), landing, reason, event)
        case Judging() as judging:
            not_read(run, work, judging, reason, event)
        case Describing(landing=landing):
            in_line(run, work, landing)  # the message is then ours
        case Reconciling() as reconciling:
            not_reconciled(run, work, reconciling, reason, event)
        case Wording():
            worded(run, None)
        case _:
            pass
