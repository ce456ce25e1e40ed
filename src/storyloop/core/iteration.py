"""The life of one iteration over one story, as the facts about it fold: from its start to its landing or leaving."""

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.artifacts import CommitMessage, DevelopmentResult
from storyloop.core.continuation import ContinuationState
from storyloop.core.errand import Delivered, Errand, GivenUp
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import (
    CallEnded,
    CallStarted,
    CommandMeasured,
    Event,
    HandoverCleaned,
    HandoverWritten,
    StoryLanded,
    StoryLeft,
    StoryStarted,
    WaitEnded,
)
from storyloop.core.evidence import Evidence, reading_of
from storyloop.core.judge import GreenButPartial, Passed, Short, judge, owed_measurements, owed_probes
from storyloop.core.policy import Drain, OnExhausted
from storyloop.core.progress import (
    Building,
    Closing,
    Describing,
    Landing,
    Leaving,
    Preparing,
    Proving,
    Red,
    StoryState,
    Work,
)
from storyloop.core.purpose import Checking, Demonstrating, Probing
from storyloop.core.run_state import SNIPPET_CHARACTERS, RunState, phase_key
from storyloop.core.steps import (
    allowed,
    amended,
    block_dependents,
    errand_of,
    expect,
    found,
    fresh_continuation,
    put,
    spent,
    stand,
    with_errand,
    work_of,
)
from storyloop.core.usage import Spending
from storyloop.core.words import IterationStatus

_MOST_RED = 6  # commands whose output is carried to the next attempt,
_TAIL_CHARACTERS = 4_000  # and how much of each


def story_started(state: RunState, event: StoryStarted) -> RunState:
    """An iteration begins: record, errand, counters."""
    progress, policy = state.going, state.effective_config()
    standing = progress.stories.get(event.story)
    expect(standing is not None and standing.state is StoryState.OPEN, state, event)
    assert standing is not None
    needed = progress.spec.story(event.story).depends_on
    expect(all(progress.stories[name].state is StoryState.PASSED for name in needed), state, event)
    expect(event.iteration == state.iteration + 1, state, event)
    expect(progress.ledger.iterations_allowed > 0, state, event)
    state = state.start_iteration(event.story, event.at).capture_pre_story_state(event.head)
    cs = fresh_continuation(policy).begin_cleanup()
    errand, cs = errands.begin(
        f"{event.story}/{event.iteration}/{Drain.STORY}",
        Drain.STORY,
        chain=policy.chain_of(Drain.STORY),
        cs=cs,
        table=progress.cooling,
        now=event.at,
    )
    work = Work(
        story=event.story,
        iteration=event.iteration,
        head=event.head,
        tree=event.tree,
        errand=errand,
        cs=cs,
        hint=progress.hints.get(event.story, ""),
    )
    state = found(allowed(state, -1), *event.findings)
    state = stand(state, event.story, replace(standing, state=StoryState.BUILDING, reason="", evidence=()))
    return put(state, work)


def handover_cleaned(state: RunState, event: HandoverCleaned) -> RunState:
    """The handover is gone: the iteration can begin, or is over."""
    work = work_of(state, event.story, event)
    expect(work.cs.context_cleanup_pending, state, event)
    cleaned = replace(work, cs=work.cs.context_cleaned())
    match work.stage:
        case Closing():
            return amended(state, work={name: w for name, w in state.going.work.items() if name != event.story})
        case Preparing():
            return put(state, _prepared(state, cleaned))
        case _:  # it was skipped before it had begun
            return put(state, cleaned)


def handover_written(state: RunState, event: HandoverWritten) -> RunState:
    """The next attempt can read what became of the last."""
    work = work_of(state, event.story, event)
    expect(isinstance(work.stage, Building) and work.cs.context_write_pending, state, event)
    return put(state, replace(work, cs=work.cs.context_written()))


def probed(state: RunState, event: CommandMeasured, probing: Probing) -> RunState:
    """A criterion's command was tried on the untouched tree."""
    work, criterion = work_of(state, probing.story, event), probing.criterion
    expect(not work.cs.context_cleanup_pending and event.tree == work.tree, state, event)
    owed = owed_probes(work, state.going.spec.story(work.story))
    if not isinstance(work.stage, Preparing) or probing not in owed:
        raise IllegalTransition(state.machine_state, event)
    green = reading_of(event.first, event.second).is_green
    tried = Preparing(probed=(*work.stage.probed, criterion))
    before = (*work.green_before, criterion) if green else work.green_before
    return put(state, _prepared(state, replace(work, stage=tried, green_before=before)))


def measured_anew(work: Work) -> Work:
    """A round of commands that was broken off: what they made for each other, and the very tree, may be gone."""
    match work.stage:
        case Preparing():
            return replace(work, stage=Preparing(), green_before=())
        case Proving() as proving:
            return replace(work, stage=replace(proving, measured=(), red=()))
        case _:
            return work


def _prepared(state: RunState, work: Work) -> Work:
    """The agent's turn begins once the old handover is gone and every proof was tried."""
    owed = owed_probes(work, state.going.spec.story(work.story))
    return work if owed or work.cs.context_cleanup_pending else replace(work, stage=Building())


def _turn_of(state: RunState, story: str, event: Event) -> tuple[Work, Errand, ContinuationState]:
    """The story whose agent's turn it is, with the errand and the counters that the turn goes by."""
    work = work_of(state, story, event)
    expect(isinstance(work.stage, Building | Describing), state, event)
    return work, *errand_of(state, work)


def call_started(state: RunState, event: CallStarted) -> RunState:
    """A process start is counted."""
    work, errand, cs = _turn_of(state, event.story, event)
    expect(isinstance(errand.stage, errands.Owed) and event.call == errand.calls + 1, state, event)
    expect(errand.drain is event.drain and errand.ref == event.ref, state, event)
    expect(errands.mode_owed(cs) == event.mode and not cs.context_write_pending, state, event)
    errand, cs = errands.call_started(errand, cs, event.at)
    state = amended(state, ledger=replace(state.going.ledger, calls=state.going.ledger.calls + 1))
    return with_errand(state, replace(work, calls=work.calls + 1), errand, cs)


def call_ended(state: RunState, event: CallEnded) -> RunState:
    """What a call came to, for its errand, the ledger and the story."""
    work, errand, cs = _turn_of(state, event.story, event)
    expect(isinstance(errand.stage, errands.Calling) and event.call == errand.calls, state, event)
    expect(errand.drain is event.drain and errand.ref == event.ref, state, event)
    report, policy = event.report, state.effective_config()
    state = state.capture_usage(phase_key(event.drain, event.story), report.usage)
    state = spent(state, event.ref, Spending.of_call(report.usage, report.cost_usd))
    state = found(state, *event.findings)
    errand, cs, table = errands.call_ended(
        errand,
        cs,
        report.outcome,
        session=report.session,
        table=state.going.cooling,
        limits=policy.limits,
        now=event.at,
    )
    chain = policy.chain_of(errand.drain)  # another one, if the run was resumed with it during the call
    errand, cs = errands.rechained(errand, cs, chain=chain, table=table, now=event.at)
    usage = report.usage if work.usage is None else work.usage + report.usage if report.usage else work.usage
    work = replace(
        work,
        pin=event.pin,
        changed=event.changed,
        snippet=report.snippet[-SNIPPET_CHARACTERS:] or work.snippet,
        usage=usage,
    )
    state = amended(state, cooling=table)
    return _errand_moved(with_errand(state, work, errand, cs), event.story, event)


def wait_ended(state: RunState, event: WaitEnded) -> RunState:
    """The errand goes on."""
    work, errand, cs = _turn_of(state, event.story, event)
    expect(isinstance(errand.stage, errands.Waiting), state, event)
    ledger = replace(state.going.ledger, waited=state.going.ledger.waited + event.seconds)
    state = amended(state, ledger=ledger)
    errand, cs = errands.wait_ended(errand, cs, table=state.going.cooling, now=event.at)
    return with_errand(state, work, errand, cs)


def _errand_moved(state: RunState, story: str, event: Event) -> RunState:
    """What an errand's delivery or end means for its story."""
    work = state.going.work[story]
    errand, _ = errand_of(state, work)
    match errand.stage, work.stage:
        case Delivered(artifact=CommitMessage() as message), Describing(landing=landing):
            return put(state, replace(work, stage=replace(landing, message=message)))
        case GivenUp(), Describing(landing=landing):
            return put(state, replace(work, stage=landing))  # the message is then ours
        case Delivered(artifact=DevelopmentResult() as result), Building() if work.pin is not None:
            proving = Proving(result=result, tree=work.pin.tree)
            work = replace(work, stage=proving)
            owed = owed_measurements(work, proving, state.going.spec.story(story), state.effective_config())
            return put(state, work) if owed else _judged(put(state, work), story, event)
        case GivenUp(reason=reason), Building():
            return _given_up(state, work, reason, event)
        case Delivered(), _:
            raise IllegalTransition(state.machine_state, event)
        case _:
            return state


def proof_measured(
    state: RunState, event: CommandMeasured, purpose: Checking | Demonstrating, evidence: Evidence
) -> RunState:
    """One more command was run on the attempt's tree."""
    work = work_of(state, purpose.story, event)
    proving = work.stage
    if not isinstance(proving, Proving) or evidence.tree != proving.tree:
        raise IllegalTransition(state.machine_state, event)
    owed = owed_measurements(work, proving, state.going.spec.story(work.story), state.effective_config())
    expect(purpose in owed, state, event)
    red = proving.red
    if not evidence.reading.is_green and len(red) < _MOST_RED:
        tail = (event.second or event.first).tail[-_TAIL_CHARACTERS:]
        red = (*red, Red(evidence, tail))
    work = replace(work, stage=replace(proving, measured=(*proving.measured, evidence), red=red))
    state = put(state, work)
    return state if len(owed) > 1 else _judged(state, work.story, event)


def _judged(state: RunState, story: str, event: Event) -> RunState:
    """What the attempt came to; nothing is left to be measured."""
    progress, policy = state.going, state.effective_config()
    work = progress.work[story]
    proving = work.stage
    assert isinstance(proving, Proving)
    judgement = judge(work, proving, inherited=progress.inherited, require=policy.require)
    work = replace(work, red=proving.red, green=proving if isinstance(judgement, GreenButPartial) else None)
    if isinstance(judgement, Passed):
        return _passing(state, work, proving, note=judgement.note, event=event)
    assert isinstance(judgement, GreenButPartial | Short)
    errand, cs = errands.work_failed(
        work.errand, work.cs, judgement.shortfall, table=progress.cooling, limits=policy.limits, now=event.at
    )
    work = replace(work, errand=errand, cs=cs, stage=Building())
    if not isinstance(errand.stage, GivenUp):
        return put(state, work)
    return _given_up(state, work, errand.stage.reason, event, evidence=proving.measured)


def _passing(state: RunState, work: Work, proving: Proving, *, note: str, event: Event) -> RunState:
    landing = Landing(result=proving.result, tree=proving.tree, evidence=proving.measured, at=event.at, note=note)
    chain = state.effective_config().chain_of(Drain.COMMIT)
    if not chain or proving.tree == work.tree:
        return put(state, replace(work, stage=landing))
    errand, run_cs = errands.begin(
        f"{work.story}/{work.iteration}/{Drain.COMMIT}",
        Drain.COMMIT,
        chain=chain,
        cs=state.going.continuation.reset(),
        table=state.going.cooling,
        now=event.at,
    )
    return put(amended(state, continuation=run_cs), replace(work, stage=Describing(landing=landing, errand=errand)))


def _given_up(
    state: RunState, work: Work, reason: str, event: Event, *, evidence: tuple[Evidence, ...] = ()
) -> RunState:
    """The attempts have ended: the story is left, unless all is green and only the agent wanted to do more."""
    if work.green is not None and work.pin is not None and work.pin.tree == work.green.tree:
        note = "passed when its attempts ended: all is green, but the agent still said partial"
        return _passing(state, work, work.green, note=note, event=event)
    commit = state.effective_config().limits.on_exhausted is OnExhausted.COMMIT
    leaving = Leaving(state=StoryState.BLOCKED, reason=reason, at=event.at, evidence=evidence, commit_unproven=commit)
    return put(state, replace(work, stage=leaving))


def landed(state: RunState, event: StoryLanded) -> RunState:
    """The story passed."""
    work = work_of(state, event.story, event)
    landing = work.stage
    if not isinstance(landing, Landing):
        raise IllegalTransition(state.machine_state, event)
    changed = landing.tree != work.tree
    expect(changed == (event.commit is not None), state, event)
    expect(event.tip_tree == (landing.tree if changed else state.going.tip_tree), state, event)
    noted = landing.result.knowledge
    state = state.capture_story_knowledge(event.story, noted, event.commit, event.changes, line_counts=event.lines)
    state = state.set_work_summary(landing.result.summary, work.iteration)
    state = _closed(state, work, IterationStatus.SUCCESS, event)
    standing = state.going.stories[event.story]
    settled = replace(
        standing,
        state=StoryState.PASSED,
        reason=landing.note,
        commits=(*standing.commits, event.commit) if event.commit else standing.commits,
        evidence=landing.evidence,
        green_before=work.green_before,
        attempts=standing.attempts + _attempts_made(work),
        calls=standing.calls + work.calls,
        unproven_commit=False,
    )
    green = {e.check for e in landing.evidence if e.reading.is_green}
    inherited = tuple(check for check in state.going.inherited if check not in green)
    state = amended(state, tip=event.tip, tip_tree=event.tip_tree, inherited=inherited)
    return stand(state, event.story, settled)


def left(state: RunState, event: StoryLeft) -> RunState:
    """The story was given up or skipped; its work is kept."""
    work = work_of(state, event.story, event)
    leaving = work.stage
    if not isinstance(leaving, Leaving):
        raise IllegalTransition(state.machine_state, event)
    expect(leaving.commit_unproven or event.commit is None, state, event)
    expect(event.commit is not None or event.tip == state.going.tip, state, event)
    state = replace(_closed(state, work, IterationStatus.FAILED, event), pre_story_commit=None)
    standing = state.going.stories[event.story]
    settled = replace(
        standing,
        state=leaving.state,
        reason=leaving.reason,
        pins=(*standing.pins, *event.pins),
        commits=(*standing.commits, event.commit) if event.commit else standing.commits,
        evidence=leaving.evidence,
        green_before=work.green_before,
        attempts=standing.attempts + _attempts_made(work),
        calls=standing.calls + work.calls,
        unproven_commit=event.commit is not None,
    )
    state = amended(state, tip=event.tip, tip_tree=event.tip_tree)
    return block_dependents(stand(state, event.story, settled), event.story)


def _attempts_made(work: Work) -> int:
    """The attempts that were judged, and the one that was begun and never was."""
    cs = work.cs
    if cs.continuation_attempt == 0:
        return int(work.calls > 0)
    return cs.continuation_attempt + (not cs.continue_pending and not cs.continuations_exhausted())


def _closed(state: RunState, work: Work, status: IterationStatus, event: Event) -> RunState:
    """The iteration's record is closed and the story leaves building: its counters go, its handover is due to go."""
    state = state.set_iteration_usage(work.usage, work.iteration)
    state = state.finish_iteration(status, work.snippet, event.at, work.iteration)
    return put(state, replace(work, stage=Closing(), cs=work.cs.reset().begin_cleanup()))
