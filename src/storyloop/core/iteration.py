"""The life of one iteration over one story at its two ends: how it is begun, and how it is landed or left."""

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.draft import Draft
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import (
    CommandMeasured,
    Event,
    HandoverCleaned,
    HandoverWritten,
    StoryLanded,
    StoryLeft,
    StoryStarted,
)
from storyloop.core.evidence import reading_of
from storyloop.core.feedback import drain_of
from storyloop.core.judge import owed_probes
from storyloop.core.policy import Drain
from storyloop.core.purpose import RUN, Probing
from storyloop.core.review import fix_landed, fix_left
from storyloop.core.stages import Building, Closing, Landing, Leaving, Preparing, Work
from storyloop.core.steps import block_dependents, expect, fresh_continuation, work_of
from storyloop.core.train import with_lane, without_lane
from storyloop.core.words import IterationStatus, StoryState


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
    expect(all(work.lane != event.lane for work in run.work.values()), run, event)
    run.start_iteration(event.story, event.at).capture_pre_story_state(event.head)
    cs, drain = fresh_continuation(policy).begin_cleanup(), drain_of(run, event.story)
    errand, cs = errands.begin(
        f"{event.story}/{event.iteration}/{drain}",
        drain,
        chain=policy.chain_of(drain),
        cs=cs,
        table=run.cooling,
        now=event.at,
    )
    work = Work(
        story=event.story,
        iteration=event.iteration,
        head=event.head,
        tree=event.tree,
        lane=event.lane,
        errand=errand,
        cs=cs,
        hint=run.hints.get(event.story, ""),
    )
    with_lane(run, work, tree=event.tree)
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
            without_lane(run, work, tree=work.tree)
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
    if not isinstance(work.stage, Preparing) or probing not in owed_probes(work, run.spec.story(work.story)):
        raise IllegalTransition(run.machine_state, event)
    green = reading_of(event.first, event.second).is_green
    if work.story in run.final.returned:  # its own earlier work may be what makes it green
        green = green and criterion in run.stories[work.story].green_before
    tried = Preparing(probed=(*work.stage.probed, criterion))
    before = (*work.green_before, criterion) if green else work.green_before
    run.put(_prepared(run, replace(work, stage=tried, green_before=before)))


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
    expect(work.lane == 0, run, event)
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
        pins=(*standing.pins, *(work.review.pins if work.review is not None else ())),
        evidence=landing.evidence,
        judged=landing.judged,
        green_before=work.green_before,
        suspicions=tuple(dict.fromkeys((*standing.suspicions, *work.suspicions))),
        attempts=standing.attempts + _attempts_made(work),
        calls=standing.calls + work.calls,
        unproven_commit=False,
        author=work.errand.ref.agent,
        landed=len(run.knowledge.story_changes),
        review=work.review or standing.review,
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
    expect(event.commit is None or (leaving.commit_unproven and work.lane == 0), run, event)
    expect(event.commit is not None or bool(work.lane) or event.tip == run.tip, run, event)
    _closed(run, work, IterationStatus.FAILED, event)
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
    if event.commit is not None:  # without one, another story may have landed meanwhile
        run.tip, run.tip_tree = event.tip, event.tip_tree
    run.stand(event.story, settled)
    block_dependents(run, event.story)


def _prepared(run: Draft, work: Work) -> Work:
    """The agent's turn begins once the old handover is gone and every proof was tried."""
    if work.cs.context_cleanup_pending or owed_probes(work, run.spec.story(work.story)):
        return work
    return replace(work, stage=Building())


def _attempts_made(work: Work) -> int:
    """The attempts that were judged, and the one that was begun and never was."""
    cs = work.cs
    if work.errand.drain is Drain.FIX:
        judged, is_over = cs.fix_continuation_attempt, cs.fix_continue_pending or cs.fix_continuations_exhausted()
    else:
        judged, is_over = cs.continuation_attempt, cs.continue_pending or cs.continuations_exhausted()
    return judged + (not is_over) if judged else int(work.calls > 0)


def _closed(run: Draft, work: Work, status: IterationStatus, event: Event) -> None:
    """The iteration's record is closed and the story leaves building: its counters go, its handover is due to go."""
    run.set_iteration_usage(work.spending.usage, work.iteration)
    run.finish_iteration(status, work.snippet, event.at, work.iteration)
    run.put(replace(work, stage=Closing(), lane=work.lane or 0, cs=work.cs.reset().begin_cleanup()))
    shown = run.work.get(run.current_story or "")  # the most recently started story that has not ended
    run.pre_story_commit = shown.head if shown is not None else None
