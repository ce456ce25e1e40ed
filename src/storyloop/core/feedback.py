"""Feedback: what people and red checks say of a pull request, from what each asks for to its answer.

A run that follows a pull request up begins without a story of its own. One errand, the triage, judges every concern: a
review thread, a review that requests changes, a check that is red in the forge's CI. What asks for work becomes a story
each, which the fix drain mends and which is proven, landed or left as any story; so one bad remark spoils no other, and
`retry`, `skip` and `--step` mean what they always mean. What asks for none has its answer in the triage's reason.

Nothing is said on the forge before what it speaks of is pushed. `--watch` then looks again until two looks in a row
have found nothing new, nothing pending and no trouble.
"""

from datetime import timedelta

from msgspec.structs import replace

from storyloop.core.artifacts import Asks, FixResult, Triage
from storyloop.core.draft import Draft
from storyloop.core.effects import AnswerThread, Effect, ParkRun, ResolveThread, SeeFeedback, Wait
from storyloop.core.events import Event, FeedbackSeen, ThreadAnswered, ThreadResolved, WaitEnded
from storyloop.core.facts import Answered, Malformed, Outcome
from storyloop.core.forge import ForgeCheck, Thread
from storyloop.core.policy import Drain, Policy
from storyloop.core.progress import Concern, Feedback, ParkedFor, Progress
from storyloop.core.purpose import LOOKING
from storyloop.core.spec import Criterion, Spec, Story
from storyloop.core.stages import Leaving, Work
from storyloop.core.steps import expect, is_opening
from storyloop.core.words import StoryState

MOST_CONCERNS = 50  # of a run
MARK = "<!-- storyloop:"  # how each of our comments ends; who looks for one of them looks for this
_MOST_COMMENTS, _MOST_TEXT = 20, 4_000  # of a thread: the newest comments, and characters of each
_FIRST_WAIT, _LONGEST_WAIT = 30.0, 300.0  # seconds between two looks
_QUIET = 2  # looks in a row


def concerns_of(said: tuple[Thread | ForgeCheck, ...], *, commit: str) -> tuple[Concern, ...]:
    """What is to be judged of all that was said, bounded; a thread in which we had the last word is not."""
    mine = [one for one in said if isinstance(one, ForgeCheck) or MARK not in one.comments[-1].text]
    return tuple(Concern(about=_bounded(one), commit=commit) for one in mine[:MOST_CONCERNS])


def _bounded(about: Thread | ForgeCheck) -> Thread | ForgeCheck:
    if isinstance(about, ForgeCheck):
        return replace(about, tail=about.tail[-_MOST_TEXT:])
    comments = tuple(replace(comment, text=comment.text[:_MOST_TEXT]) for comment in about.comments)
    return replace(about, comments=comments[-_MOST_COMMENTS:])


# --- triage -----------------------------------------------------------------------------------------------


def unjudged(feedback: Feedback) -> tuple[int, ...]:
    """The numbers of the concerns that nobody has judged."""
    return tuple(number for number, concern in enumerate(feedback.concerns, start=1) if concern.asks is None)


def is_unplanned(run: Progress | Draft) -> bool:
    """Whether its stories are still to be made: of a free-form spec, or of feedback."""
    return run.spec.is_free_form if run.feedback is None else bool(unjudged(run.feedback))


def heard_triage(run: Draft, outcome: Outcome) -> Outcome:
    """A triage is valid where each concern stands in it."""
    if run.feedback is None or not isinstance(outcome, Answered) or not isinstance(outcome.artifact, Triage):
        return outcome
    owed = range(1, len(unjudged(run.feedback)) + 1)
    given = {one.number for one in outcome.artifact.concerns}
    errors = [f"- concern {number} is not there; expected each once" for number in owed if number not in given]
    errors += [f"- there is no concern {number}; expected 1 to {len(owed)}" for number in sorted(given - set(owed))]
    return Malformed(errors="\n".join(errors[:20])) if errors else outcome


def with_work(run: Draft, triage: Triage) -> Spec:
    """The spec, with a story for each concern that asks for work."""
    assert run.feedback is not None
    numbers = unjudged(run.feedback)
    stories: list[Story] = []
    for one in sorted(triage.concerns, key=lambda one: one.number):
        number = numbers[one.number - 1]
        if one.asks.is_work:
            stories.append(_story(number, run.feedback.concerns[number - 1], one.asks, one.reason))
    return replace(run.spec, user_stories=(*run.spec.user_stories, *stories))


def _story(number: int, concern: Concern, asks: Asks, reason: str) -> Story:
    said = concern.about.comments[0].text if isinstance(concern.about, Thread) else "red in the forge's CI"
    first = " ".join(said.split())
    title = f"{concern.place}: {first if len(first) <= 60 else first[:59] + '…'}"
    criterion = Criterion("What was said there is mended" if asks is Asks.REAL else "The suggestion is followed")
    return Story(
        id=f"PR-{number}",
        title=title,
        acceptance_criteria=(criterion,),
        priority=number,
        description=concern.text,
        notes=reason,
    )


def triaged(run: Draft, triage: Triage) -> None:
    """What each concern asks for is known."""
    assert run.feedback is not None
    numbers, concerns = unjudged(run.feedback), list(run.feedback.concerns)
    for one in triage.concerns:
        number = numbers[one.number - 1]
        story = f"PR-{number}" if one.asks.is_work else ""
        concerns[number - 1] = replace(concerns[number - 1], asks=one.asks, reason=one.reason, story=story)
    run.feedback = replace(run.feedback, concerns=tuple(concerns))


# --- the work ---------------------------------------------------------------------------------------------


def concern_of(run: Progress | Draft, story: str) -> Concern | None:
    """What this story is to mend, if it was made of feedback."""
    concerns = run.feedback.concerns if run.feedback is not None else ()
    return next((concern for concern in concerns if story and concern.story == story), None)


def drain_of(run: Progress | Draft, story: str) -> Drain:
    """Whose work the story is."""
    return Drain.STORY if concern_of(run, story) is None else Drain.FIX


def declined(run: Draft, work: Work, fix: FixResult, event: Event) -> None:
    """Who was to mend it finds nothing that is wrong, and has changed nothing: it asks for no work after all."""
    assert run.feedback is not None
    concerns = (
        replace(concern, asks=Asks.NO_ACTION, reason=fix.summary) if concern.story == work.story else concern
        for concern in run.feedback.concerns
    )
    run.feedback = replace(run.feedback, concerns=tuple(concerns))
    reason = f"nothing to mend: {' '.join(fix.summary.split())[:200]}"
    run.put(replace(work, stage=Leaving(state=StoryState.SKIPPED, reason=reason, at=event.at)))


def is_no_work(run: Progress | Draft, story: str) -> bool:
    """Whether this story was found to ask for nothing."""
    concern = concern_of(run, story)
    return concern is not None and concern.asks is Asks.NO_ACTION


# --- the answers ------------------------------------------------------------------------------------------


def is_answer_owed(run: Progress | Draft, policy: Policy, concern: Concern) -> bool:
    """Whether there is something to say in its thread: it is mended, or there is nothing to mend."""
    if not isinstance(concern.about, Thread) or concern.answer or concern.mute or not policy.pull_request.answer:
        return False
    if concern.asks is None or not concern.asks.is_work:
        return concern.asks is not None
    return run.stories[concern.story].state is StoryState.PASSED


def _is_resolve_owed(run: Progress | Draft, policy: Policy, concern: Concern) -> bool:
    if not policy.pull_request.resolve or concern.resolved or concern.mute or not isinstance(concern.about, Thread):
        return False
    if not concern.about.resolvable or is_answer_owed(run, policy, concern):
        return False
    return concern.asks is not None and concern.asks.is_work and run.stories[concern.story].state is StoryState.PASSED


def answers_owed(run: Progress | Draft, policy: Policy) -> AnswerThread | ResolveThread | None:
    """What is to be said or done in the pull request next, as soon as what it speaks of is pushed."""
    key = f"deliver/{run.delivery.number + 1}"
    for number, concern in enumerate(run.feedback.concerns if run.feedback is not None else (), start=1):
        if is_answer_owed(run, policy, concern):
            return AnswerThread(key=f"{key}/answer/{number}", concern=number)
        if _is_resolve_owed(run, policy, concern):
            return ResolveThread(key=f"{key}/resolve/{number}", concern=number)
    return None


def thread_answered(run: Draft, event: ThreadAnswered) -> None:
    """It is said, or cannot be."""
    concern = _concern(run, event.concern, event)
    expect(is_answer_owed(run, run.effective_config(), concern), run, event)
    _put(run, event.concern, replace(concern, answer=event.comment, mute=event.trouble))


def thread_resolved(run: Draft, event: ThreadResolved) -> None:
    """It is done with, or cannot be marked so."""
    concern = _concern(run, event.concern, event)
    expect(_is_resolve_owed(run, run.effective_config(), concern), run, event)
    _put(run, event.concern, replace(concern, resolved=not event.trouble, mute=event.trouble))


def _concern(run: Draft, number: int, event: Event) -> Concern:
    known = len(run.feedback.concerns) if run.feedback is not None else 0
    expect(1 <= number <= known, run, event)
    assert run.feedback is not None
    return run.feedback.concerns[number - 1]


def _put(run: Draft, number: int, concern: Concern) -> None:
    assert run.feedback is not None
    concerns = run.feedback.concerns
    run.feedback = replace(run.feedback, concerns=(*concerns[: number - 1], concern, *concerns[number:]))


# --- watching ---------------------------------------------------------------------------------------------


def is_watching(run: Progress | Draft, policy: Policy) -> bool:
    """Whether the forge is to be looked at again before the run may end."""
    feedback = run.feedback
    if feedback is None or not feedback.watch or run.delivery.trouble or not policy.pull_request.create:
        return False
    if feedback.rounds > policy.limits.review_cycles:
        return False
    return feedback.idle < _QUIET or bool(feedback.pending or feedback.trouble)


def is_between_looks(run: Draft) -> bool:
    """Whether nothing is left to do but to look again."""
    if not is_watching(run, run.effective_config()) or run.final.owed or is_opening(run):
        return False
    is_there = run.tip == run.base or (run.delivery.pushed is not None and run.delivery.pushed.commit == run.tip)
    return is_there and all(standing.state is not StoryState.OPEN for standing in run.stories.values())


def is_left_red(run: Progress | Draft) -> bool:
    """Whether the forge was watched, and what was last seen there is not green."""
    feedback = run.feedback
    if feedback is None or not feedback.watch:
        return False
    return bool(feedback.red or feedback.pending or feedback.trouble or run.delivery.trouble)


def look_owed(run: Progress, policy: Policy) -> Effect | None:
    """The next look, or the wait before it; everything that was known is done, pushed and answered."""
    feedback = run.feedback
    if feedback is None or not is_watching(run, policy):
        return None
    if feedback.waits > feedback.looks:
        return SeeFeedback(key=f"feedback/{feedback.looks + 1}/{run.resumes}")
    seconds = min(_FIRST_WAIT * 2 ** min(feedback.idle, 8), _LONGEST_WAIT)
    if run.ledger.waited + seconds > policy.limits.max_wait:
        still = ", ".join(feedback.pending) or feedback.trouble or "the forge"
        reason = f"waiting longer for {still} would be more than max_wait allows"
        return ParkRun(key=f"park/{run.resumes}", what=ParkedFor.QUOTA, reason=reason)
    until = run.last_at + timedelta(seconds=seconds)
    return Wait(key=f"feedback/{feedback.looks + 1}/wait", story=LOOKING, since=run.last_at, until=until)


def look_waited(run: Draft, event: WaitEnded) -> None:
    """It is time to look."""
    feedback = run.feedback
    expect(feedback is not None and feedback.waits == feedback.looks, run, event)
    assert feedback is not None
    run.count(waited=run.ledger.waited + event.seconds)
    run.feedback = replace(feedback, waits=feedback.waits + 1)


def new_concerns(run: Progress | Draft, said: tuple[Thread | ForgeCheck, ...]) -> tuple[Concern, ...]:
    """Of all that is said there now, what was not known."""
    known = (
        {_mark(concern) for concern in run.feedback.concerns} if run.feedback is not None else set[tuple[str, str]]()
    )
    return tuple(concern for concern in concerns_of(said, commit=run.tip) if _mark(concern) not in known)


def feedback_seen(run: Draft, event: FeedbackSeen) -> None:
    """What is new becomes a concern, as long as there is room for it."""
    feedback = run.feedback
    expect(feedback is not None and feedback.waits == feedback.looks + 1 and not run.work, run, event)
    assert feedback is not None
    new = list(new_concerns(run, event.said))
    rounds, trouble, most = feedback.rounds + bool(new), event.trouble, run.effective_config().limits.review_cycles
    if rounds > most:
        trouble, new = f"more was said after {most} rounds: {new[0].place}", []
    run.feedback = replace(
        feedback,
        concerns=(*feedback.concerns, *new)[:MOST_CONCERNS],
        looks=feedback.looks + 1,
        rounds=rounds,
        idle=0 if new else feedback.idle + 1,
        pending=event.pending,
        red=event.red,
        trouble=trouble,
    )


def _mark(concern: Concern) -> tuple[str, str]:
    """What it is known again by: a thread by its newest comment, a check by its name and the commit."""
    about = concern.about
    return (about.id, about.comments[-1].id) if isinstance(about, Thread) else (about.name, concern.commit)
