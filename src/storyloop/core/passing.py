"""From proven to its landing: a story's new tests are tried without the work, then its commit is worded.

Somebody may be asked to review it, and under `--step` a human looks at it in between. What is approved is one tree, and
exactly that is landed. A rejection spends an attempt as any other failure does, so it has an end.
"""

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.budget import story_refuses
from storyloop.core.draft import Draft
from storyloop.core.errand import Errand, GivenUp, Shortfall
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import CommandMeasured, Event, StoryApproved, StoryRejected
from storyloop.core.evidence import Reading, reading_of
from storyloop.core.facts import Suspicion, SuspicionKind
from storyloop.core.judge import owed_tries
from storyloop.core.policy import Drain
from storyloop.core.progress import Progress
from storyloop.core.purpose import RUN, Trying
from storyloop.core.review import is_reviewed_alone, story_review_asked
from storyloop.core.stages import Approving, Describing, Doubting, Landing, ReviewEnd, Work, errand_of
from storyloop.core.steps import expect, fresh_continuation, with_errand, work_of
from storyloop.core.train import in_line
from storyloop.core.words import DevelopmentStatus

_MOST_NAMED, _MOST_TOLD = 4, 80  # commands that a sentence names, and characters of each
_TELLS = {
    SuspicionKind.TESTS_PROVE_NOTHING: "do not fail without the work",
    SuspicionKind.TESTS_NOT_TRIED: "were not tried without the work",
}


def passing(run: Draft, work: Work, landing: Landing, event: Event) -> None:
    """Nothing that gates stands in the way any more."""
    if work.story == RUN:
        _proven(run, work, landing, event)
        return
    tries = _tries(run, work, landing)
    if tries:
        run.put(replace(work, stage=Doubting(landing=landing, owed=tries)))
    elif work.new_tests:
        why = "no command is known to run them that was green before"
        _proven(run, _suspected(work, SuspicionKind.TESTS_NOT_TRIED, why), landing, event)
    else:
        _proven(run, work, landing, event)


def tried(run: Draft, event: CommandMeasured, trying: Trying) -> None:
    """A command was run without the work. One that is red says enough: the others need not be run."""
    work = work_of(run, trying.of.story, event)
    doubting = work.stage
    if not isinstance(doubting, Doubting):
        raise IllegalTransition(run.machine_state, event)
    expect(doubting.owed[:1] == (trying,), run, event)
    reading = reading_of(event.first)
    if reading.is_green and doubting.owed[1:]:
        run.put(replace(work, stage=replace(doubting, owed=doubting.owed[1:])))
        return
    if reading is Reading.UNMEASURED:
        why = f"`{event.command}` could not be measured: {event.first.reason}"
        work = _suspected(work, SuspicionKind.TESTS_NOT_TRIED, why)
    elif reading.is_green:
        work = _suspected(work, SuspicionKind.TESTS_PROVE_NOTHING, f"`{event.command}` is green there, too")
    _proven(run, work, doubting.landing, event)


def tried_anew(run: Draft, work: Work, doubting: Doubting) -> Work:
    """A round that was broken off begins again."""
    return replace(work, stage=replace(doubting, owed=_tries(run, work, doubting.landing)))


def afforded(run: Draft, work: Work, errand: Errand) -> Errand:
    """The errand, given up where the story's budget has no room for the call that it owes or waits for."""
    if not isinstance(errand.stage, errands.Owed | errands.Waiting):
        return errand
    reason = story_refuses(run.ledger, run.effective_config().budget.story, work, errand.ref)
    return errand if reason is None else replace(errand, stage=GivenUp(reason))


def waiting_for_approval(run: Progress) -> list[str]:
    """The stories in hand that a human is to look at; the run's own work is `RUN`."""
    return [work.story for work in run.work.values() if isinstance(work.stage, Approving)]


def approval_line(work: Work, landing: Landing) -> str:
    """What a human is to look at, and how to go on from there, in a sentence of bounded length."""
    commands = list(dict.fromkeys(f"`{e.command[:_MOST_TOLD]}`" for e in landing.evidence if e.reading.is_green))
    more = f" and {len(commands) - _MOST_NAMED} more" if commands[_MOST_NAMED:] else ""
    by = f" by {', '.join(commands[:_MOST_NAMED])}{more}" if commands else ""
    show = f"`git show {work.pin.ref}` shows it, " if work.pin is not None and landing.tree != work.tree else ""
    what = work.story or "the fix of the review's issues"
    return f"{what} is proven{by} and waits for you: {show}`storyloop approve RUN` or `storyloop reject RUN` goes on"


def approved(run: Draft, event: StoryApproved) -> None:
    """A human wants it as it is."""
    work, landing = _approving(run, event)
    _worded(run, work, landing, event)


def rejected(run: Draft, event: StoryRejected) -> tuple[Work, Landing, Shortfall]:
    """A human wants it otherwise: the work, no longer taken for green, and what the next attempt is told."""
    work, landing = _approving(run, event)
    said = "A human has looked at this work and rejected it" + (f": {event.hint}" if event.hint else ".")
    shortfall = Shortfall(
        status=DevelopmentStatus.FAILED,
        summary=landing.result.summary,
        files=work.changed,
        next_steps=None,
        reason="rejected by a human",
        fingerprint=f"reject/{work.label}/{landing.tree}",
    )
    hint = "\n\n".join(part for part in (said, work.hint) if part)  # the newest word first: a prompt has a bound
    return replace(work, green=None, reviewed=None, hint=hint), landing, shortfall


def _approving(run: Draft, event: StoryApproved | StoryRejected) -> tuple[Work, Landing]:
    work = work_of(run, event.story, event)
    if not isinstance(work.stage, Approving):
        raise IllegalTransition(run.machine_state, event)
    return work, work.stage.landing


def _proven(run: Draft, work: Work, landing: Landing, event: Event) -> None:
    """Its commit is owed, as soon as somebody has reviewed it, where that is wanted."""
    if not is_reviewed_alone(run, work, landing):
        accepted(run, work, landing, event)
        return
    reading = story_review_asked(run, work, landing, event)
    if reading.review is not None and reading.review.end is not None:
        accepted(run, reading, landing, event)
        return
    errand, cs = errand_of(reading)
    errand = afforded(run, reading, errand)
    with_errand(run, reading, errand, cs)
    if isinstance(errand.stage, GivenUp):  # nobody can be asked at all
        not_reviewed(run, replace(reading, cs=work.cs), landing, errand.stage.reason, event)


def not_reviewed(run: Draft, work: Work, landing: Landing, why: str, event: Event) -> None:
    """No review of the story could be had, which says nothing of the work."""
    assert work.review is not None
    accepted(run, replace(work, review=replace(work.review, end=ReviewEnd.UNAVAILABLE, reason=why)), landing, event)


def accepted(run: Draft, work: Work, landing: Landing, event: Event) -> None:
    """Its commit is owed, as soon as a human has approved it where one is asked."""
    if (review := work.review) is not None and review.end is not ReviewEnd.CONVERGED:
        issues = f", {len(review.open)} issue{'s' * (len(review.open) != 1)} open" if review.open else ""
        landing = noted(landing, f"review: {review.end}{issues}")
    if run.effective_config().step:
        run.put(replace(work, stage=Approving(landing)))
    else:
        _worded(run, work, landing, event)


def noted(landing: Landing, note: str) -> Landing:
    """With one more thing that is to be said about how it passed."""
    return replace(landing, note="; ".join(part for part in (landing.note, note) if part))


def _tries(run: Draft, work: Work, landing: Landing) -> tuple[Trying, ...]:
    story, policy = run.spec.story(work.story), run.effective_config()
    return owed_tries(work, landing.evidence, story, policy=policy, inherited=run.inherited)


def _suspected(work: Work, kind: SuspicionKind, why: str) -> Work:
    others = len(work.new_tests) - 1
    more = f" (and those of {others} more)" if others else ""
    suspicion = Suspicion(kind, work.new_tests[0], f"its new tests{more} {_TELLS[kind]}: {why}")
    return replace(work, suspicions=(*work.suspicions, suspicion))


def _worded(run: Draft, work: Work, landing: Landing, event: Event) -> None:
    """The commit's message is asked for, where somebody is bound to word it."""
    chain = run.effective_config().chain_of(Drain.COMMIT)
    if not chain or landing.tree == work.tree or work.turns:  # whose turn has come once was asked for then
        in_line(run, work, landing)
        return
    errand, cs = errands.begin(
        f"{work.label}/{work.iteration}/{Drain.COMMIT}",
        Drain.COMMIT,
        chain=chain,
        cs=fresh_continuation(run.effective_config()),
        table=run.cooling,
        now=event.at,
    )
    if afforded(run, work, errand) is errand:
        run.put(replace(work, stage=Describing(landing=landing, errand=errand, cs=cs)))
    else:
        in_line(run, work, landing)
