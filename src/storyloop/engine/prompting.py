"""Prompting: what the state knows that an agent is to be told. Its size is bounded whatever the run's length."""

from typing import Any

from msgspec.structs import replace

from storyloop.core.artifacts import Asks, Issue
from storyloop.core.asking import questions_left
from storyloop.core.errand import attempt_of, mode_owed
from storyloop.core.feedback import concern_of, unjudged
from storyloop.core.forge import Thread
from storyloop.core.knowledge import excerpt, render
from storyloop.core.policy import Drain, Way
from storyloop.core.purpose import RUN
from storyloop.core.review import gating_issues, touched_stories
from storyloop.core.run_state import RunState
from storyloop.core.spec import Story
from storyloop.core.stages import Describing, Work, errand_of
from storyloop.core.telling import Handover, PromptValues
from storyloop.core.train import lane_worktree
from storyloop.core.words import SameAgentRetryReason, Severity, StoryState
from storyloop.ports.agents import artifact_path
from storyloop.views.report import evidence_line
from storyloop.views.rows import evidence_rows

_KNOWLEDGE_TOKENS = 2_000  # in the file that is laid beside a prompt
_MOST_PASSED = 8  # stories named as done before this one: its dependencies first, then the newest
_MOST_DIFF = 60  # changed paths told to an agent that has no session

_WHY_AGAIN = {
    SameAgentRetryReason.TIMEOUT: "the last call took too long and was ended",
    SameAgentRetryReason.INTERNAL_ERROR: "the last call broke off",
    SameAgentRetryReason.INTERRUPTED: "the last call was interrupted by us; it was not your fault",
    SameAgentRetryReason.OTHER: "the last call did not end as it should",
}


def values_of(state: RunState, work: Work) -> PromptValues:
    """What the prompt of the call that is owed now may be made of."""
    progress, policy = state.going, state.effective_config()
    errand, cs = errand_of(work)
    attempt = attempt_of(cs)
    reuse = cs.xsd_retry_session_reuse_pending or cs.same_agent_retry_pending
    reason = cs.same_agent_retry_reason
    told = f"{_WHY_AGAIN[reason]}: {errand.last_failure}" if reason is not None else ""
    key = f"{errand.key}/{attempt}/{errand.calls + 1}"
    rung = policy.rung(attempt) if errand.drain is Drain.STORY else Way.CONTINUE
    values = PromptValues(
        drain=errand.drain,
        mode=mode_owed(cs),
        project=progress.spec.title,
        artifact=artifact_path(lane_worktree(progress.worktree, work.lane or 0), key),
        checks={name: check.run for name, check in policy.checks.items()},
        attempt=attempt,
        attempts=max(1, policy.limits.continuations),
        way=rung if isinstance(rung, Way) else Way.CONTINUE,
        handover=_handover(work),
        repeated=cs.consecutive_same_effect_count if errand.rung else 0,
        hint=work.hint,
        earlier=progress.earlier if errand.drain in (Drain.PLAN, Drain.STORY) else "",
        retry_reason=told,
        session=errand.session if reuse else None,
        errors=cs.last_xsd_error or "",
        invalid_text=errand.invalid_text,
        diff_stat="\n".join(work.changed[:_MOST_DIFF]),
        require=policy.require,
    )
    match errand.drain:
        case Drain.PLAN:
            return replace(values, spec_text=progress.spec.description)
        case Drain.TRIAGE:
            return _of_triage(values, state)
        case Drain.FIX if work.story != RUN:
            return _of_feedback(values, state, work)
        case Drain.REVIEW if work.story != RUN:
            return _of_story_review(values, state, work)
        case Drain.REVIEW | Drain.FIX:
            return _of_review(values, state, work)
        case Drain.PR:
            return _of_pull_request(values, state)
        case _ if work.story == RUN:
            return values  # words for a commit of the review's fix
        case Drain.CONFLICT:
            # What was done about earlier clashes is no matter of this one's.
            return replace(_of_story(values, state, work.story), since=work.since, clashes=work.clashes, handover=None)
        case Drain.ANALYSIS:
            return _of_analysis(_of_story(values, state, work.story), state, work)
        case _:
            return replace(_of_story(values, state, work.story), since=work.since)


def _of_story(values: PromptValues, state: RunState, name: str) -> PromptValues:
    """With the story, what was done before it, and what is known of the files that it is about."""
    spec = state.going.spec
    story, passed = spec.story(name), _passed(state, spec.story(name))
    return replace(
        _knowing(values, state, _focus(story)),
        story=story,
        passed=tuple(spec.story(other) for other in passed),
        summaries={other: summary for other, summary in passed.items() if summary},
        replies=state.going.stories[name].replies,
        questions=questions_left(state.going, state.effective_config(), name),
    )


def _knowing(values: PromptValues, state: RunState, focus: frozenset[str]) -> PromptValues:
    """With what is known, the most relevant first."""
    return replace(
        values,
        knowledge=render(state.knowledge, focus=focus, budget_tokens=_KNOWLEDGE_TOKENS),
        excerpt=excerpt(state.knowledge, focus=focus),
    )


def _of_analysis(values: PromptValues, state: RunState, work: Work) -> PromptValues:
    """With what was measured of the story, and noticed in it; whoever judges sees all that it changed."""
    rows = evidence_rows(state, state.going.spec.story(work.story))
    return replace(
        values,
        base=work.head,
        evidence=tuple(evidence_line(work.story, row) for row in rows if row.verify),
        suspicions=tuple(map(str, work.suspicions)),
    )


def _of_review(values: PromptValues, state: RunState, work: Work) -> PromptValues:
    """With what passed, what is open, and how it was proven; a fix is told of the stories that it touches only."""
    progress, policy, review = state.going, state.effective_config(), state.going.review
    is_fix = values.drain is Drain.FIX
    issues = gating_issues(progress, policy) if is_fix else review.open
    touched = touched_stories(progress, work, policy, state.knowledge.story_changes) if is_fix else ()
    told = [s for s in progress.spec.user_stories if progress.stories[s.id].state is StoryState.PASSED]
    told = [s for s in told if s.id in touched] or told
    files = {known.issue.file for known in issues if known.issue.file} | set(work.changed)
    landed = (suspicion for story in told for suspicion in progress.stories[story.id].suspicions)
    return replace(
        _knowing(values, state, frozenset({*files, *touched})),
        description=progress.spec.description,
        stories=tuple(told),
        summaries={r.story_id: r.work_summary for r in state.iterations if r.work_summary},
        attempts=max(1, policy.limits.fix_continuations),
        base=review.seen or state.knowledge.baseline_commit or progress.base,
        evidence=tuple(evidence_line(story.id, row) for story in told for row in evidence_rows(state, story)),
        suspicions=tuple(map(str, review.suspicions if review.cycles > 1 else landed)),
        issues=tuple(known.issue for known in issues),
        account=review.account,
    )


def _of_story_review(values: PromptValues, state: RunState, work: Work) -> PromptValues:
    """With one story that is to land, what its last review left open, and what has changed since then."""
    assert work.review is not None
    story, review = state.going.spec.story(work.story), work.review
    return replace(
        _knowing(values, state, _focus(story) | set(work.changed)),
        description=state.going.spec.description,
        stories=(story,),
        summaries={} if review.open else {story.id: review.account},
        base=review.seen or work.head,
        evidence=tuple(evidence_line(story.id, row) for row in evidence_rows(state, story)),
        suspicions=tuple(map(str, work.suspicions)),
        issues=tuple(known.issue for known in review.open),
        account=review.account,
    )


def _of_triage(values: PromptValues, state: RunState) -> PromptValues:
    """With what was said, and the change that it was said of."""
    progress, feedback = state.going, state.going.feedback
    assert feedback is not None
    concerns = tuple(feedback.concerns[number - 1] for number in unjudged(feedback))
    return replace(values, concerns=concerns, description=progress.spec.description, base=feedback.base)


def _of_feedback(values: PromptValues, state: RunState, work: Work) -> PromptValues:
    """With what was said, as an issue at its place, why it asks for work, and what the pull request is about."""
    progress, concern = state.going, concern_of(state.going, work.story)
    assert concern is not None
    place: dict[str, Any] = {}
    if isinstance(concern.about, Thread):
        place = {"file": concern.about.file, "line": concern.about.line}
    text = f"{concern.text}\n\nWhy it is to be done: {concern.reason}"
    severity = Severity.MAJOR if concern.asks is Asks.REAL else Severity.MINOR
    focus = frozenset({work.story, *work.changed, place.get("file") or ""})
    return replace(
        _knowing(values, state, focus),
        attempts=max(1, state.effective_config().limits.fix_continuations),
        description=progress.spec.description,
        issues=(Issue(severity=severity, text=text, **place),),
    )


def _of_pull_request(values: PromptValues, state: RunState) -> PromptValues:
    """With all that passed and how it was proven, what is left open, and the repository's own form."""
    progress = state.going
    told = [s for s in progress.spec.user_stories if progress.stories[s.id].state is StoryState.PASSED]
    return replace(
        values,
        description=progress.spec.description,
        stories=tuple(told),
        summaries={r.story_id: r.work_summary for r in state.iterations if r.work_summary},
        evidence=tuple(evidence_line(story.id, row) for story in told for row in evidence_rows(state, story)),
        issues=tuple(known.issue for known in progress.review.open),
        form=progress.delivery.template,
    )


def _handover(work: Work) -> Handover | None:
    """Of the last attempt; for the words of a commit, of the work that is to be described."""
    if isinstance(work.stage, Describing):
        result = work.stage.landing.result
        return Handover(status=result.status, summary=result.summary, files=work.changed)
    cs = work.cs
    if cs.fix_status is not None:
        told = cs.fix_previous_summary or ""
        return Handover(status=cs.fix_status, summary=told, files=work.changed, red=work.red)
    if cs.previous_status is None:
        return None
    return Handover(
        status=cs.previous_status,
        summary=cs.previous_summary or "",
        next_steps=cs.previous_next_steps,
        files=cs.previous_files_changed or (),
        red=work.red,
    )


def _passed(state: RunState, story: Story) -> dict[str, str | None]:
    """The stories that this one builds on, then the newest; and what was said to be done in each."""
    progress = state.going
    recent = [record for record in reversed(state.iterations[-4 * _MOST_PASSED :]) if record.finished_at]
    said = {record.story_id: record.work_summary for record in reversed(recent)}
    wanted = dict.fromkeys([*story.depends_on, *(record.story_id for record in recent)])
    named = [name for name in wanted if progress.stories[name].state is StoryState.PASSED][:_MOST_PASSED]
    return {name: said.get(name) for name in named}


def _focus(story: Story) -> frozenset[str]:
    """The story, what it builds on, and the files its text names."""
    text = " ".join([story.title, story.description, story.notes, *(c.text for c in story.acceptance_criteria)])
    paths = {word.strip("`'\".,:;()") for word in text.split() if "." in word or "/" in word}
    return frozenset({story.id, *story.depends_on, *paths})
