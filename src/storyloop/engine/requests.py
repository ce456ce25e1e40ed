"""Requests: what another process asked through the inbox, as the fact that the run's writer makes of it."""

from datetime import datetime

from storyloop.core.artifacts import Question
from storyloop.core.events import (
    Event,
    QuestionAnswered,
    RequestRefused,
    StoryApproved,
    StoryRejected,
    StoryReopened,
    StorySkipped,
)
from storyloop.core.passing import waiting_for_approval
from storyloop.core.purpose import RUN
from storyloop.core.review import is_review_open
from storyloop.core.run_state import RunState
from storyloop.core.stages import Asking, Closing, Describing, Work, can_be_left, is_calling
from storyloop.core.words import RunStatus, StoryState
from storyloop.ports.journal import Request


def can_be_stopped(work: Work) -> bool:
    """Whether an agent is at work on this story."""
    return is_calling(work) and not isinstance(work.stage, Describing)


def fact_of(state: RunState, request: Request, now: datetime) -> Event:
    """Grant the request or refuse it with a reason; nothing of its story is under way."""
    key = f"request/{request.number}"
    reason = objection(state, request.what, request.story)
    if reason is not None or request.story is None:
        return RequestRefused(key=key, at=now, number=request.number, reason=reason or "it names no story")
    if request.what == "skip":
        return StorySkipped(key=key, at=now, story=request.story, number=request.number)
    if request.what == "approve":
        return StoryApproved(key=key, at=now, story=request.story, number=request.number)
    if request.what == "reject":
        return StoryRejected(key=key, at=now, story=request.story, number=request.number, hint=request.text)
    work = state.going.work.get(request.story)
    if work is not None and isinstance(work.stage, Asking):
        text = chosen(work.stage.question, request.text)
        return QuestionAnswered(key=key, at=now, story=request.story, number=request.number, text=text)
    story = RUN if is_review(state, request.story) else request.story
    return StoryReopened(key=key, at=now, story=story, number=request.number, hint=request.text)


def is_review(state: RunState, story: str | None) -> bool:
    """Whether `retry RUN review` is meant: no story is called so."""
    return story == "review" and story not in state.going.stories


def chosen(question: Question, reply: str) -> str:
    """What a human's reply means: an option where it is the number of one, else itself."""
    number = int(reply) if reply.isdecimal() and reply not in question.options else 0
    return question.options[number - 1] if 1 <= number <= len(question.options) else reply


def objection(state: RunState, what: str, story: str | None) -> str | None:
    """Why this cannot be granted as the run stands; None when it can."""
    if what in ("approve", "reject"):
        waits = story in waiting_for_approval(state.going)
        return None if waits else f"story {story} does not wait for approval" if story else "nothing waits for approval"
    if what not in ("skip", "retry", "answer"):
        return "the run was not running" if what == "stop" else f"unknown request {what!r}"
    if state.status is RunStatus.COMPLETED:
        return "the run is completed"
    if what == "retry" and is_review(state, story):
        ended = RUN not in state.going.work and is_review_open(state.going)
        return None if ended else "only a review that ended without converging is done again"
    standing = state.going.stories.get(story or "")
    if standing is None:
        return f"the run has no story {story}"
    work = state.going.work.get(story or "")
    if what == "answer":
        asks = work is not None and isinstance(work.stage, Asking)
        return None if asks else f"story {story} asks nothing"
    if what == "retry":
        ended = standing.state in (StoryState.BLOCKED, StoryState.SKIPPED) and work is None
        return None if ended else f"story {story} is {standing.state}: only a blocked or skipped one is retried"
    if standing.state in (StoryState.PASSED, StoryState.SKIPPED):
        return f"story {story} is {standing.state} already"
    if work is not None and not (can_be_left(work) or can_be_stopped(work)):
        return f"story {story} {'is over' if isinstance(work.stage, Closing) else 'is just being committed'}"
    return None
