"""The life of one iteration over one story, as the facts about it fold: from its start to its landing or leaving."""

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.analysis import analysis_asked, judged
from storyloop.core.artifacts import Analysis, CommitMessage, DevelopmentResult, FixResult, Issues, Question
from storyloop.core.asking import asked, taken_up
from storyloop.core.chain import Cooling
from storyloop.core.continuation import ContinuationState
from storyloop.core.draft import Draft
from storyloop.core.errand import Delivered, Errand, GivenUp, Shortfall
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import (
    CallEnded,
    CallStarted,
    CommandMeasured,
    Event,
    HandoverCleaned,
    HandoverWritten,
    LimitLearned,
    StoryLanded,
    StoryLeft,
    StoryRejected,
    StoryStarted,
    StoryTakenUp,
    WaitEnded,
)
from storyloop.core.evidence import Evidence, Judged, reading_of
from storyloop.core.judge import GreenButPartial, Passed, Short, judge, owed_measurements, owed_probes
from storyloop.core.passing import afforded, passing, rejected, tried_anew
from storyloop.core.planning import heard, plan_moved
from storyloop.core.policy import WRITING_DRAINS, AgentRef, Drain, OnExhausted, Require, Tampering, Way
from storyloop.core.progress import (
    Building,
    Closing,
    Describing,
    Doubting,
    Judging,
    Landing,
    Leaving,
    Planning,
    Preparing,
    Proving,
    Red,
    StoryState,
    Work,
)
from storyloop.core.purpose import RUN, Checking, Demonstrating, Probing, Reproving
from storyloop.core.review import (
    as_development,
    disputed,
    fix_landed,
    fix_left,
    is_disputed,
    owed_after_fix,
    review_failed,
    reviewed,
)
from storyloop.core.run_state import SNIPPET_CHARACTERS, phase_key
from storyloop.core.steps import (
    block_dependents,
    chain_of,
    errand_of,
    expect,
    fresh_continuation,
    with_errand,
    work_of,
)
from storyloop.core.usage import Spending
from storyloop.core.words import DevelopmentStatus, IterationStatus

_MOST_RED = 6  # commands whose output is carried to the next attempt,
_TAIL_CHARACTERS = 4_000  # and how much of each
_MOST_REFUSED = 8


def story_started(run: Draft, event: StoryStarted) -> None:
    """An iteration begins: record, errand, counters."""
    policy = run.effective_config()
    standing = run.stories.get(event.story)
    expect(standing is not None and standing.state is StoryState.OPEN, run, event)
    assert standing is not None
    needed = run.spec.story(event.story).depends_on
    expect(all(run.stories[name].state is StoryState.PASSED for name in needed), run, event)
    expect(event.iteration == run.iteration + 1, run, event)
    expect(not run.final.owed and RUN not in run.work, run, event)
    expect(run.ledger.iterations_allowed > 0, run, event)
    run.start_iteration(event.story, event.at).capture_pre_story_state(event.head)
    cs = fresh_continuation(policy).begin_cleanup()
    errand, cs = errands.begin(
        f"{event.story}/{event.iteration}/{Drain.STORY}",
        Drain.STORY,
        chain=policy.chain_of(Drain.STORY),
        cs=cs,
        table=run.cooling,
        now=event.at,
    )
    work = Work(
        story=event.story,
        iteration=event.iteration,
        head=event.head,
        tree=event.tree,
        errand=errand,
        cs=cs,
        hint=run.hints.get(event.story, ""),
    )
    run.allow(-1)
    run.find(*event.findings)
    run.stand(event.story, replace(standing, state=StoryState.BUILDING, reason="", evidence=(), judged=()))
    run.put(work)


def handover_cleaned(run: Draft, event: HandoverCleaned) -> None:
    """The handover is gone: the iteration can begin, or is over."""
    work = work_of(run, event.story, event)
    expect(work.cs.context_cleanup_pending, run, event)
    cleaned = replace(work, cs=work.cs.context_cleaned())
    match work.stage:
        case Closing():
            run.work = {name: w for name, w in run.work.items() if name != event.story}
        case Preparing():
            run.put(_prepared(run, cleaned))
        case _:  # it was skipped before it had begun
            run.put(cleaned)


def handover_written(run: Draft, event: HandoverWritten) -> None:
    """The next attempt can read what became of the last."""
    work = work_of(run, event.story, event)
    expect(isinstance(work.stage, Building) and work.cs.context_write_pending, run, event)
    run.put(replace(work, cs=work.cs.context_written()))


def probed(run: Draft, event: CommandMeasured, probing: Probing) -> None:
    """A criterion's command was tried on the untouched tree."""
    work, criterion = work_of(run, probing.story, event), probing.criterion
    expect(not work.cs.context_cleanup_pending and event.tree == work.tree, run, event)
    owed = owed_probes(work, run.spec.story(work.story))
    if not isinstance(work.stage, Preparing) or probing not in owed:
        raise IllegalTransition(run.machine_state, event)
    green = reading_of(event.first, event.second).is_green
    if work.story in run.final.returned:  # its own earlier work may be what makes it green
        green = green and criterion in run.stories[work.story].green_before
    tried = Preparing(probed=(*work.stage.probed, criterion))
    before = (*work.green_before, criterion) if green else work.green_before
    run.put(_prepared(run, replace(work, stage=tried, green_before=before)))


def measured_anew(run: Draft, work: Work) -> Work:
    """A round of commands that was broken off: what they made for each other, and the very tree, may be gone."""
    match work.stage:
        case Preparing():
            return replace(work, stage=Preparing(), green_before=())
        case Proving() as proving:
            owed = _owed(run, work, proving.tree)
            return replace(work, stage=replace(proving, owed=owed, measured=(), red=()))
        case Doubting() as doubting:
            return tried_anew(run, work, doubting)
        case _:
            return work


def _prepared(run: Draft, work: Work) -> Work:
    """The agent's turn begins once the old handover is gone and every proof was tried."""
    owed = owed_probes(work, run.spec.story(work.story))
    return work if owed or work.cs.context_cleanup_pending else replace(work, stage=Building())


def _turn_of(run: Draft, story: str, event: Event) -> tuple[Work, Errand, ContinuationState]:
    """The story whose agent's turn it is, with the errand and the counters that the turn goes by."""
    work = work_of(run, story, event)
    expect(isinstance(work.stage, Planning | Building | Judging | Describing), run, event)
    return work, *errand_of(work, run.continuation)


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
        planning, outcome = heard(work.stage, outcome, policy)
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
    chain = chain_of(run, errand.drain, attempt=errands.attempt_of(cs))
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
        )
    _errand_moved(run, with_errand(run, work, errand, cs), event)


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
    _errand_moved(run, with_errand(run, work, errand, cs), event)


def wait_ended(run: Draft, event: WaitEnded) -> None:
    """The errand goes on."""
    work, errand, cs = _turn_of(run, event.story, event)
    expect(isinstance(errand.stage, errands.Waiting), run, event)
    run.count(waited=run.ledger.waited + event.seconds)
    errand, cs = errands.wait_ended(errand, cs, table=run.cooling, now=event.at)
    _errand_moved(run, with_errand(run, work, errand, cs), event)


def story_taken_up(run: Draft, event: StoryTakenUp) -> None:
    """The question has its reply, and the errand goes on."""
    _errand_moved(run, taken_up(run, event), event)


def _errand_moved(run: Draft, work: Work, event: Event) -> None:
    """What an errand's delivery or end means for its story."""
    errand, cs = errand_of(work, run.continuation)
    if (payable := afforded(run, work, errand)) is not errand:
        errand, work = payable, with_errand(run, work, payable, cs)
    match errand.stage, work.stage:
        case _, Planning() as planning:
            plan_moved(run, work, planning, event)
        case Delivered(artifact=Analysis() as analysis), Judging() as judging if isinstance(event, CallEnded):
            _read(run, work, judging, judged(run, work, judging.landing, analysis, event), event)
        case GivenUp(reason=reason), Judging() as judging:
            _unread(run, work, judging, reason, event)
        case Delivered(artifact=CommitMessage() as message), Describing(landing=landing):
            run.put(replace(work, stage=replace(landing, message=message)))
        case GivenUp(), Describing(landing=landing):
            run.put(replace(work, stage=landing))  # the message is then ours
        case Delivered(artifact=Issues() as issues), Building():
            reviewed(run, work, issues, event.at)
        case GivenUp(reason=reason), Building() if errand.drain is Drain.REVIEW:
            review_failed(run, work, reason)
        case Delivered(artifact=FixResult() as fix), Building() if is_disputed(work, fix):
            disputed(run, work, fix)
        case Delivered(artifact=FixResult() as fix), Building():
            _worked(run, work, as_development(fix), event)
        case Delivered(artifact=DevelopmentResult(question=Question() as question) as result), Building():
            refused = asked(run, work, result, question, event.at)
            if refused is not None:
                _fell_short(run, work, refused, event)
            elif isinstance(run.work[work.story].stage, Building):  # it goes on at once
                _errand_moved(run, run.work[work.story], event)
        case Delivered(artifact=DevelopmentResult() as result), Building():
            _worked(run, work, result, event)
        case GivenUp(reason=reason), Building():
            _given_up(run, work, reason, event)
        case Delivered(), _:
            raise IllegalTransition(run.machine_state, event)
        case _:
            pass


def _refusal(run: Draft, work: Work) -> tuple[str, str] | None:
    """Why this work is neither proven nor committed: what is to be done about it, and the reason in a line."""
    if work.secrets:
        told = ", ".join(work.secrets)
        cure = f"Remove these secrets from the files; read them from the environment instead: {told}."
        return cure, f"a secret must not be committed: {told}"
    if work.suspicions and run.effective_config().tampering is Tampering.DENY:
        listed = "\n".join(f"- {suspicion}" for suspicion in work.suspicions[:_MOST_REFUSED])
        cure = f"Put these back as they were before the story; the work is to be proven by what was there:\n{listed}"
        first = work.suspicions[0]
        return cure, f"it bends its own proof: {first.kind} in {first.path}"
    return None


def _worked(run: Draft, work: Work, result: DevelopmentResult, event: Event) -> None:
    """An attempt is there to be proven, unless it must not be."""
    if refusal := _refusal(run, work):
        asked, reason = refusal
        shortfall = Shortfall(
            status=DevelopmentStatus.FAILED,
            summary=result.summary,
            files=work.changed,
            next_steps=None,
            asked=asked,
            reason=reason,
            fingerprint=f"call_agent/{work.errand.drain}/{work.label}/{work.errand.ref}/{reason}",
        )
        _fell_short(run, work, shortfall, event)
        return
    assert work.pin is not None
    tree = work.pin.tree
    proving = Proving(result=result, tree=tree, owed=_owed(run, work, tree))
    work = replace(work, stage=proving)
    run.put(work)
    if not proving.owed:
        _judged(run, work, proving, event)


def _owed(run: Draft, work: Work, tree: str) -> tuple[Checking | Demonstrating | Reproving, ...]:
    """What is to be run on the tree that an attempt left."""
    if work.story == RUN:
        return owed_after_fix(run, work, tree)
    return owed_measurements(work, tree, run.spec.story(work.story), run.effective_config())


def proof_measured(
    run: Draft, event: CommandMeasured, purpose: Checking | Demonstrating | Reproving, evidence: Evidence
) -> None:
    """One more command was run on the attempt's tree."""
    work = work_of(run, RUN if isinstance(purpose, Reproving) else purpose.story, event)
    proving = work.stage
    if not isinstance(proving, Proving) or evidence.tree != proving.tree:
        raise IllegalTransition(run.machine_state, event)
    expect(purpose in proving.owed, run, event)
    still_owed = list(proving.owed)
    still_owed.remove(purpose)
    owed = tuple(still_owed)
    red = proving.red
    if not evidence.reading.is_green and len(red) < _MOST_RED:
        tail = (event.second or event.first).tail[-_TAIL_CHARACTERS:]
        red = (*red, Red(evidence, tail))
    proving = replace(proving, owed=owed, measured=(*proving.measured, evidence), red=red)
    work = replace(work, stage=proving)
    run.put(work)
    if not owed:
        _judged(run, work, proving, event)


def _judged(run: Draft, work: Work, proving: Proving, event: Event) -> None:
    """What the attempt came to; nothing is left to be measured."""
    require = run.effective_config().require if work.story != RUN else Require.NONE
    judgement = judge(work, proving, inherited=run.inherited, require=require)
    work = replace(work, red=proving.red, green=proving if isinstance(judgement, GreenButPartial) else None)
    if isinstance(judgement, Passed):
        _green(run, work, proving, note=judgement.note, event=event)
        return
    assert isinstance(judgement, GreenButPartial | Short)
    _fell_short(run, work, judgement.shortfall, event, evidence=proving.measured)


def _green(run: Draft, work: Work, proving: Proving, *, note: str, event: Event) -> None:
    """All that gates is green: what no command proves is read first, where somebody is bound to judge it."""
    landing = Landing(result=proving.result, tree=proving.tree, evidence=proving.measured, at=event.at, note=note)
    judging = analysis_asked(run, work, landing, event)
    if judging is None:
        passing(run, work, landing, event)
    else:
        run.put(judging)
        _errand_moved(run, judging, event)


def _read(run: Draft, work: Work, judging: Judging, found: tuple[Judged, ...] | Shortfall, event: Event) -> None:
    """Somebody has read the attempt's work."""
    landing, work = judging.landing, replace(work, cs=judging.before)
    if not isinstance(found, Shortfall):
        passing(run, work, replace(landing, judged=found), event)
    elif isinstance(work.errand.stage, GivenUp):  # it was green, and would have passed now that its attempts have ended
        reason = f"{work.errand.stage.reason}; {found.reason}"
        _given_up(run, replace(work, green=None), reason, event, evidence=landing.evidence)
    else:
        _fell_short(run, work, found, event, evidence=landing.evidence)


def _unread(run: Draft, work: Work, judging: Judging, why: str, event: Event) -> None:
    """No analysis could be had, which says nothing of the work, but leaves criteria unproven."""
    landing, work = judging.landing, replace(work, cs=judging.before)
    reason = f"criteria without a command were not judged: {why}"
    if run.effective_config().require is Require.CRITERIA:
        _given_up(run, replace(work, green=None), reason, event, evidence=landing.evidence)
    else:
        note = "; ".join(part for part in (landing.note, reason) if part)
        passing(run, work, replace(landing, note=note), event)


def _fell_short(
    run: Draft, work: Work, shortfall: Shortfall, event: Event, *, evidence: tuple[Evidence, ...] = ()
) -> None:
    """The next attempt, or the end of the story's attempts."""
    policy, attempt = run.effective_config(), work.cs.continuation_attempt + 1
    rung = policy.rung(attempt) if work.story != RUN else Way.CONTINUE
    if rung is Way.FRESH:
        shortfall = replace(shortfall, summary="", next_steps=None)
    errand, cs = errands.work_failed(
        work.errand,
        work.cs,
        shortfall,
        table=run.cooling,
        limits=policy.limits,
        now=event.at,
        chain=policy.chain_of(Drain.STORY, attempt=attempt) if isinstance(rung, AgentRef) else None,
    )
    if work.pin is not None:
        work = replace(work, judged=work.pin.tree)
    errand = afforded(run, work, errand)
    work = replace(work, errand=errand, cs=cs, stage=Building())
    if isinstance(errand.stage, GivenUp):
        _given_up(run, work, errand.stage.reason, event, evidence=evidence)
    else:
        run.put(work)


def _given_up(run: Draft, work: Work, reason: str, event: Event, *, evidence: tuple[Evidence, ...] = ()) -> None:
    """The attempts have ended: the story is left, unless all is green and only the agent wanted to do more."""
    if work.green is not None and work.pin is not None and work.pin.tree == work.green.tree:
        note = "passed when its attempts ended: all is green, but the agent still said partial"
        _green(run, work, work.green, note=note, event=event)
        return
    policy = run.effective_config()
    commit = policy.limits.on_exhausted is OnExhausted.COMMIT and not policy.step  # nobody has approved it
    commit = commit and work.story != RUN and _refusal(run, work) is None
    leaving = Leaving(state=StoryState.BLOCKED, reason=reason, at=event.at, evidence=evidence, commit_unproven=commit)
    run.put(replace(work, stage=leaving))


def story_rejected(run: Draft, event: StoryRejected) -> None:
    """A human wants it otherwise: the attempt fell short; or, where none was left, the attempts have ended."""
    work, landing, shortfall = rejected(run, event)
    if isinstance(work.errand.stage, GivenUp):
        _given_up(run, work, shortfall.reason, event, evidence=landing.evidence)
    else:
        _fell_short(run, work, shortfall, event, evidence=landing.evidence)


def landed(run: Draft, event: StoryLanded) -> None:
    """The story passed."""
    work = work_of(run, event.story, event)
    landing = work.stage
    if not isinstance(landing, Landing):
        raise IllegalTransition(run.machine_state, event)
    run.find(*event.findings)
    if work.story == RUN:
        fix_landed(run, work, landing, event)
        return
    changed = landing.tree != work.tree
    expect(changed == (event.commit is not None), run, event)
    expect(event.tip_tree == (landing.tree if changed else run.tip_tree), run, event)
    noted = landing.result.knowledge
    run.capture_story_knowledge(
        event.story, noted, event.commit, event.changes, line_counts=event.lines, symbols=event.symbols
    )
    run.set_work_summary(landing.result.summary, work.iteration)
    _closed(run, work, IterationStatus.SUCCESS, event)
    standing = run.stories[event.story]
    settled = replace(
        standing,
        state=StoryState.PASSED,
        reason=landing.note,
        commits=(*standing.commits, event.commit) if event.commit else standing.commits,
        evidence=landing.evidence,
        judged=landing.judged,
        green_before=work.green_before,
        suspicions=tuple(dict.fromkeys((*standing.suspicions, *work.suspicions))),
        attempts=standing.attempts + _attempts_made(work),
        calls=standing.calls + work.calls,
        unproven_commit=False,
        author=work.errand.ref.agent,
    )
    green = {e.check for e in landing.evidence if e.reading.is_green}
    run.inherited = tuple(check for check in run.inherited if check not in green)
    run.final = replace(run.final, tree="")  # also if the story was sent back and nothing was changed
    run.tip, run.tip_tree = event.tip, event.tip_tree
    run.stand(event.story, settled)


def left(run: Draft, event: StoryLeft) -> None:
    """The story was given up or skipped; its work is kept."""
    work = work_of(run, event.story, event)
    leaving = work.stage
    if not isinstance(leaving, Leaving):
        raise IllegalTransition(run.machine_state, event)
    if work.story == RUN:
        fix_left(run, work, leaving, event)
        return
    expect(leaving.commit_unproven or event.commit is None, run, event)
    expect(event.commit is not None or event.tip == run.tip, run, event)
    _closed(run, work, IterationStatus.FAILED, event)
    run.pre_story_commit = None
    standing = run.stories[event.story]
    settled = replace(
        standing,
        state=leaving.state,
        reason=leaving.reason,
        pins=(*standing.pins, *event.pins),
        commits=(*standing.commits, event.commit) if event.commit else standing.commits,
        evidence=leaving.evidence,
        green_before=work.green_before,
        suspicions=tuple(dict.fromkeys((*standing.suspicions, *(work.suspicions if event.commit else ())))),
        attempts=standing.attempts + _attempts_made(work),
        calls=standing.calls + work.calls,
        unproven_commit=event.commit is not None,
    )
    run.tip, run.tip_tree = event.tip, event.tip_tree
    run.stand(event.story, settled)
    block_dependents(run, event.story)


def _attempts_made(work: Work) -> int:
    """The attempts that were judged, and the one that was begun and never was."""
    cs = work.cs
    if cs.continuation_attempt == 0:
        return int(work.calls > 0)
    return cs.continuation_attempt + (not cs.continue_pending and not cs.continuations_exhausted())


def _closed(run: Draft, work: Work, status: IterationStatus, event: Event) -> None:
    """The iteration's record is closed and the story leaves building: its counters go, its handover is due to go."""
    run.set_iteration_usage(work.spending.usage, work.iteration)
    run.finish_iteration(status, work.snippet, event.at, work.iteration)
    run.put(replace(work, stage=Closing(), cs=work.cs.reset().begin_cleanup()))
