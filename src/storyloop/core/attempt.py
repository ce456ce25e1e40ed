"""An attempt: what was done is proven, judged, and passes, or falls short and is followed by the next, or by the end.

It begins where an errand has delivered work (`core.calling`), of a story or of the review's fix.
"""

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.analysis import analysis_asked
from storyloop.core.artifacts import DevelopmentResult, Issues
from storyloop.core.draft import Draft
from storyloop.core.errand import GivenUp, Shortfall
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import CommandMeasured, Event, StoryRejected
from storyloop.core.evidence import Evidence, Judged
from storyloop.core.judge import GreenButPartial, Passed, Short, gating_failures, judge, owed_measurements
from storyloop.core.passing import accepted, afforded, noted, passing, rejected, tried_anew
from storyloop.core.policy import AgentRef, Drain, OnExhausted, Require, Tampering, Way
from storyloop.core.purpose import RUN, Checking, Demonstrating, Reproving
from storyloop.core.review import issues_to_mend, owed_after_fix, story_reviewed
from storyloop.core.stages import (
    Building,
    Doubting,
    Judging,
    Landing,
    Leaving,
    Preparing,
    Proving,
    Red,
    Reviewed,
    ReviewEnd,
    Work,
    errand_of,
)
from storyloop.core.steps import expect, with_errand, work_of
from storyloop.core.train import in_line
from storyloop.core.words import DevelopmentStatus, StoryState

_MOST_RED = 6  # commands whose output is carried to the next attempt,
_TAIL_CHARACTERS = 4_000  # and how much of each
_MOST_REFUSED = 8


def worked(run: Draft, work: Work, result: DevelopmentResult, event: Event) -> None:
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
        fell_short(run, work, shortfall, event)
        return
    assert work.pin is not None
    _proven_on(run, work, Proving(result=result, tree=work.pin.tree, owed=()), event)


def worked_on(run: Draft, work: Work, landing: Landing, event: Event) -> None:
    """What was proven is on the branch as that has become meanwhile: there it is proven anew."""
    assert work.pin is not None
    _proven_on(run, work, Proving(result=landing.result, tree=work.pin.tree, owed=(), again=landing), event)


def _proven_on(run: Draft, work: Work, proving: Proving, event: Event) -> None:
    proving = replace(proving, owed=_owed(run, work, proving.tree))
    work = replace(work, stage=proving)
    run.put(work)
    if not proving.owed:
        _judged(run, work, proving, event)


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


def was_read(run: Draft, work: Work, judging: Judging, found: tuple[Judged, ...] | Shortfall, event: Event) -> None:
    """Somebody has read the attempt's work."""
    landing, work = judging.landing, replace(work, cs=judging.before)
    if not isinstance(found, Shortfall):
        passing(run, work, replace(landing, judged=found), event)
    elif isinstance(work.errand.stage, GivenUp):  # it was green, and would have passed now that its attempts have ended
        reason = f"{work.errand.stage.reason}; {found.reason}"
        given_up(run, replace(work, green=None), reason, event, evidence=landing.evidence)
    else:
        fell_short(run, work, found, event, evidence=landing.evidence)


def was_reviewed(run: Draft, work: Work, judging: Judging, issues: Issues, event: Event) -> None:
    """Somebody has reviewed the attempt: it lands, or the next one mends what was found, where there may be one."""
    landing, work = judging.landing, story_reviewed(run, replace(work, cs=judging.before), issues)
    assert work.review is not None
    assert work.pin is not None
    if work.review.end is not None:
        accepted(run, work, landing, event)
    else:
        as_read = Reviewed(
            landing=landing, head=work.head, pin=work.pin, changed=work.changed, suspicions=work.suspicions
        )
        fell_short(run, replace(work, reviewed=as_read), issues_to_mend(run, work, landing), event)


def _unmended(run: Draft, work: Work, as_read: Reviewed, reason: str, event: Event) -> None:
    """It was proven, and who was to mend it did not: it lands as it was read, and what was tried is kept by a ref."""
    assert work.review is not None
    assert work.pin is not None
    review = replace(work.review, end=ReviewEnd.FIXES, reason=reason)
    if work.pin.tree != as_read.pin.tree:
        review = replace(review, pins=(*review.pins, work.pin.ref))
    work = replace(
        work,
        review=review,
        reviewed=None,
        undone=work.pin.tree,
        pin=as_read.pin,
        changed=as_read.changed,
        suspicions=as_read.suspicions,
        secrets=(),
        clashes=(),
    )
    accepted(run, work, as_read.landing, event)


def not_read(run: Draft, work: Work, judging: Judging, why: str, event: Event) -> None:
    """No analysis could be had, which says nothing of the work, but leaves criteria unproven."""
    landing, work = judging.landing, replace(work, cs=judging.before)
    reason = f"criteria without a command were not judged: {why}"
    if run.effective_config().require is Require.CRITERIA:
        given_up(run, replace(work, green=None), reason, event, evidence=landing.evidence)
    else:
        passing(run, work, noted(landing, reason), event)


def fell_short(
    run: Draft,
    work: Work,
    shortfall: Shortfall,
    event: Event,
    *,
    evidence: tuple[Evidence, ...] = (),
) -> None:
    """The next attempt, or the end of the story's attempts."""
    if isinstance(work.errand.stage, GivenUp):  # it was green, and would have passed now that its attempts have ended
        given_up(run, replace(work, green=None), shortfall.reason, event, evidence=evidence)
        return
    policy, attempt = run.effective_config(), work.cs.continuation_attempt + 1
    rung = policy.rung(attempt) if work.errand.drain is Drain.STORY else Way.CONTINUE
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
        work = replace(work, wanting=work.pin.tree, tried=(*work.tried, work.wanting))
    errand = afforded(run, work, errand)
    work = replace(work, errand=errand, cs=cs, stage=Building())
    if isinstance(errand.stage, GivenUp):
        given_up(run, work, errand.stage.reason, event, evidence=evidence)
    else:
        run.put(work)


def given_up(run: Draft, work: Work, reason: str, event: Event, *, evidence: tuple[Evidence, ...] = ()) -> None:
    """The attempts have ended: the story is left, unless all is green and only the agent wanted to do more, or a
    reviewer found something in what was green before."""
    if work.green is not None and work.pin is not None and work.pin.tree == work.green.tree:
        note = "passed when its attempts ended: all is green, but the agent still said partial"
        _green(run, work, work.green, note=note, event=event)
        return
    if work.reviewed is not None and work.reviewed.head == work.head:
        _unmended(run, work, work.reviewed, reason, event)
        return
    policy = run.effective_config()
    commit = policy.limits.on_exhausted is OnExhausted.COMMIT and not policy.step  # nobody has approved it
    commit = commit and work.story != RUN and _refusal(run, work) is None
    leaving = Leaving(state=StoryState.BLOCKED, reason=reason, at=event.at, evidence=evidence, commit_unproven=commit)
    if commit:
        in_line(run, work, leaving)
    else:
        run.put(replace(work, stage=leaving))


def story_rejected(run: Draft, event: StoryRejected) -> None:
    """A human wants it otherwise: the attempt fell short; or, where none was left, the attempts have ended."""
    work, landing, shortfall = rejected(run, event)
    fell_short(run, work, shortfall, event, evidence=landing.evidence)


def _refusal(run: Draft, work: Work) -> tuple[str, str] | None:
    """Why this work is neither proven nor committed: what is to be done about it, and the reason in a line."""
    if work.clashes:
        told = ", ".join(work.clashes[:_MOST_REFUSED])
        cure = f"Both sides of a clash still stand in these files: make one of both, and take the marks out: {told}"
        return cure, f"a clash is not reconciled in {told}"
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


def _owed(run: Draft, work: Work, tree: str) -> tuple[Checking | Demonstrating | Reproving, ...]:
    """What is to be run on the tree that an attempt left."""
    if work.story == RUN:
        return owed_after_fix(run, work, tree)
    return owed_measurements(work, tree, run.spec.story(work.story), run.effective_config())


def _judged(run: Draft, work: Work, proving: Proving, event: Event) -> None:
    """What the attempt came to; nothing is left to be measured."""
    if proving.again is not None and not gating_failures(proving.measured, run.inherited):
        landing = replace(proving.again, tree=proving.tree, evidence=proving.measured, at=event.at)
        if work.review is not None:
            landing = noted(landing, "reviewed before it was merged with what landed meanwhile")
        run.put(replace(work, stage=landing))
        return
    require = run.effective_config().require if work.story != RUN else Require.NONE
    judgement = judge(work, proving, inherited=run.inherited, require=require)
    work = replace(work, red=proving.red, green=proving if isinstance(judgement, GreenButPartial) else None)
    if isinstance(judgement, Passed):
        _green(run, work, proving, note=judgement.note, event=event)
        return
    assert isinstance(judgement, GreenButPartial | Short)
    if work.reviewed is not None and work.reviewed.landing.tree == proving.tree and proving.red:
        work = replace(work, reviewed=None)  # it was green once, and the very same files are not any more
    fell_short(run, work, judgement.shortfall, event, evidence=proving.measured)


def _green(run: Draft, work: Work, proving: Proving, *, note: str, event: Event) -> None:
    """All that gates is green: what no command proves is read first, where somebody is bound to judge it."""
    landing = Landing(result=proving.result, tree=proving.tree, evidence=proving.measured, at=event.at, note=note)
    judging = analysis_asked(run, work, landing, event)
    if judging is None:
        passing(run, work, landing, event)
        return
    errand, cs = errand_of(judging)
    errand = afforded(run, judging, errand)
    judging = with_errand(run, judging, errand, cs)
    if isinstance(errand.stage, GivenUp) and isinstance(judging.stage, Judging):  # nobody can be asked at all
        not_read(run, judging, judging.stage, errand.stage.reason, event)
