"""Asking: a question of an agent to a human, from its artifact to the reply that it goes on with.

A question parks its story only. The attempt goes on in the next call, so no attempt is spent; every call counts as
ever, and a story has so many questions in the whole run. The work of a story that waits is set aside: it is kept by the
pin of its last call, the worktree goes to others, and the reply brings it back, merged onto what has landed meanwhile.
Without a human the default of the question holds, as soon as the deadline is over and nothing else is under way.
"""

from datetime import datetime, timedelta

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.artifacts import DevelopmentResult, Question
from storyloop.core.draft import Draft
from storyloop.core.errand import Shortfall
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import Event, QuestionAnswered, StorySetAside, StoryTakenUp, WaitEnded
from storyloop.core.policy import Policy
from storyloop.core.progress import Progress, Reply
from storyloop.core.stages import Asking, Building, TakingUp, Work
from storyloop.core.steps import expect, work_of
from storyloop.core.train import with_lane, without_lane

_MOST_TOLD = 300  # characters of a question, where a sentence tells it


def questions_left(run: Progress | Draft, policy: Policy, story: str) -> int:
    """How many more questions of this story get a reply."""
    return max(0, policy.limits.questions - len(run.stories[story].replies))


def deadline_of(asking: Asking, policy: Policy) -> datetime | None:
    """When its default holds; None while a human is waited for."""
    seconds = policy.limits.question_deadline
    return None if seconds is None else asking.at + timedelta(seconds=seconds)


def question_line(story: str, question: Question) -> str:
    """The question in a sentence of bounded length."""
    text, default = (" ".join(part.split())[:_MOST_TOLD] for part in (question.text, question.default))
    return f"{story} asks: {text} (unless answered: {default})"


def asked(run: Draft, work: Work, result: DevelopmentResult, question: Question, now: datetime) -> Shortfall | None:
    """The story waits; or goes on with the default at once, where no human is to be waited for.

    Where no further question is answered, or no further call could heed the answer, the attempt fell short instead.
    """
    policy = run.effective_config()
    if not questions_left(run, policy, work.story) or work.errand.calls >= policy.limits.calls_per_errand:
        return Shortfall(
            status=result.status,
            summary=result.summary,
            files=work.changed,
            next_steps=result.next_steps,
            asked=f"No further question is answered. Go on with what you proposed: {question.default}",
            reason="it asked a question when no further one is answered",
            fingerprint=f"call_agent/{work.errand.drain}/{work.story}/{work.errand.ref}/question",
        )
    work = replace(work, cs=work.cs.hand_over(result.status, result.summary, work.changed, result.next_steps))
    if policy.limits.question_deadline == 0:
        _reply(run, work.story, Reply(question, question.default, by_human=False))
        run.put(_going_on(run, work, now))
    else:
        run.put(replace(work, stage=Asking(question=question, at=now)))
    return None


def set_aside(run: Draft, event: StorySetAside) -> None:
    """The worktree is free for others."""
    work, asking = _asking(run, event.story, event)
    expect(not asking.set_aside, run, event)
    run.put(without_lane(run, replace(work, stage=replace(asking, set_aside=True)), tree=work.tree))
    if event.pins:
        standing = run.stories[event.story]
        run.stand(event.story, replace(standing, pins=(*standing.pins, *event.pins)))


def answered(run: Draft, event: QuestionAnswered) -> None:
    """A human replied."""
    work, asking = _asking(run, event.story, event)
    _replied(run, work, Reply(asking.question, event.text, by_human=True))


def unanswered(run: Draft, event: WaitEnded) -> None:
    """The deadline is over: the default holds."""
    work, asking = _asking(run, event.story, event)
    expect(asking.set_aside and run.effective_config().limits.question_deadline is not None, run, event)
    run.count(waited=run.ledger.waited + event.seconds)
    _replied(run, work, Reply(asking.question, asking.question.default, by_human=False))


def taken_up(run: Draft, event: StoryTakenUp) -> Work:
    """The errand goes on, on the branch as it is now."""
    work = work_of(run, event.story, event)
    expect(event.lane != 0 or (event.head, event.tree) == (run.tip, run.tip_tree), run, event)
    expect(all(other.lane != event.lane or other is work for other in run.work.values()), run, event)
    if event.pin is None and work.pin is not None:
        clash = (
            "While it waited for the answer, other stories changed the same places as it had. The files are as the "
            f"branch has them now. What had been done is kept: look at `git show {work.pin.ref}`, and do it anew."
        )
        work = replace(work, hint="\n\n".join(part for part in (work.hint, clash) if part))
    run.find(*event.findings)
    run.capture_pre_story_state(event.head)
    work = replace(work, head=event.head, tree=event.tree, lane=event.lane, pin=event.pin, changed=event.changed)
    work = _going_on(run, with_lane(run, work, tree=event.pin.tree if event.pin else event.tree), event.at)
    run.put(work)
    return work


def _asking(run: Draft, story: str, event: Event) -> tuple[Work, Asking]:
    work = work_of(run, story, event)
    if not isinstance(work.stage, Asking):
        raise IllegalTransition(run.machine_state, event)
    return work, work.stage


def _replied(run: Draft, work: Work, reply: Reply) -> None:
    _reply(run, work.story, reply)
    run.put_in_line(replace(work, stage=TakingUp()))


def _reply(run: Draft, story: str, reply: Reply) -> None:
    standing = run.stories[story]
    run.stand(story, replace(standing, replies=(*standing.replies, reply)))


def _going_on(run: Draft, work: Work, now: datetime) -> Work:
    errand, cs = errands.go_on(work.errand, work.cs, table=run.cooling, now=now)
    return replace(work, errand=errand, cs=cs, stage=Building())
