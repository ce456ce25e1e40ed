"""Rows: a run and its stories as the shapes that `--json` prints and every face shows."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from storyloop.core.artifacts import Issue
from storyloop.core.asking import deadline_of, question_line
from storyloop.core.bounds import Bounds, bounds_of, feedback_bounds
from storyloop.core.errand import attempt_of
from storyloop.core.evidence import Evidence, Judged, Verdict, verdict_of
from storyloop.core.facts import Suspicion
from storyloop.core.passing import approval_line
from storyloop.core.policy import Command, Policy
from storyloop.core.progress import Measurement, Progress, Reply, StoryProgress
from storyloop.core.purpose import RUN
from storyloop.core.run_row import RunRow
from storyloop.core.run_state import RunState
from storyloop.core.spec import Criterion, Story
from storyloop.core.stages import Approving, Asking, OpenIssue, Review, ReviewEnd, Work, standing_of
from storyloop.core.steps import fresh_continuation
from storyloop.core.words import Severity, StoryState
from storyloop.views.words import count


def row_of(state: RunState) -> RunRow:
    """The run as `status` lists it."""
    progress = state.going
    return RunRow(
        run_id=state.run_id,
        repository=progress.repository,
        status=state.status.value,
        machine_state=state.machine_state.value,
        project=progress.spec.project,
        branch=state.branch,
        current_story=state.current_story,
        stories_passed=sum(s.state is StoryState.PASSED for s in progress.stories.values()),
        stories_total=len(progress.stories),
        iteration=state.iteration,
        review_iteration=state.review_iteration,
        started_at=state.started_at,
        finished_at=state.finished_at,
        session_id=state.session_id,
        worktree=progress.worktree,
        total_usage=msgspec.to_builtins(state.total_usage),
        cost_usd=progress.ledger.total.cost_usd,
        waits_for="; ".join(sentence for sentence, _ in waits_for(state)),
        in_hand=sum(story != RUN for story in progress.work),
    )


def waits_for(state: RunState) -> Iterator[tuple[str, str]]:
    """What a human is asked, a sentence each; and with what command to answer."""
    for work in state.going.work.values():
        if isinstance(work.stage, Asking):
            yield question_line(work.story, work.stage.question), f"answer {state.run_id[:8]} {work.story} TEXT"
        elif isinstance(work.stage, Approving):
            yield approval_line(work, work.stage.landing), f"approve {state.run_id[:8]} {work.story}".rstrip()
    if state.going.delivery.trouble:
        yield delivery_line(state), f"deliver {state.run_id[:8]}"


def delivery_line(state: RunState) -> str:
    """What has become of the branch's pull request; empty where nobody has asked for one."""
    delivery = state.going.delivery
    if delivery.trouble:
        return f"not delivered: {delivery.trouble}"
    if delivery.url and delivery.settled:
        return f"pull request {delivery.url}"
    return ""


class QuestionRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a story's agent asks a human."""

    text: str
    options: tuple[str, ...]
    default: str  # what holds unanswered,
    until: str | None  # from then on; None: nothing goes on without an answer


class CriterionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One criterion and what is known of it."""

    number: int
    criterion: str
    verify: str | None
    verdict: Verdict
    flaky: bool
    tree: str | None
    exit_status: int | None
    output_digest: str | None
    at: str | None
    output: str | None  # the file, below the run's directory
    reason: str  # why it could not be measured, or is red without an exit status; or who judged it, and the words


class StoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One story and where it stands."""

    id: str
    title: str
    state: StoryState
    reason: str
    attempts: int
    calls: int
    commits: tuple[str, ...]
    pins: tuple[str, ...]
    suspicions: tuple[Suspicion, ...]
    evidence: tuple[CriterionRow, ...]
    continuation: dict[str, Any]
    question: QuestionRow | None
    replies: tuple[Reply, ...]


class CheckRow(msgspec.Struct, frozen=True, kw_only=True):
    """One check of the project and its newest reading."""

    name: str
    command: str
    reading: str  # green | flaky | red | unmeasured | not run
    inherited: bool
    at: str | None
    tree: str | None
    exit_status: int | None
    output: str | None
    reason: str


def story_rows(state: RunState) -> tuple[StoryRow, ...]:
    """Every story, in the order of the spec."""
    return tuple(_story_row(state, story) for story in state.going.spec.user_stories)


def check_rows(state: RunState) -> tuple[CheckRow, ...]:
    """Every check, in order, with its newest reading in the run."""
    progress = state.going
    newest: dict[str, Evidence] = {e.check: e for e in progress.opening.baseline if e.check}
    for standing in progress.stories.values():
        for evidence in standing.evidence:
            if evidence.check and (evidence.check not in newest or newest[evidence.check].at < evidence.at):
                newest[evidence.check] = evidence
    return tuple(
        _check_row(name, check, newest.get(name), inherited=name in progress.inherited)
        for name, check in state.effective_config().checks.items()
    )


def _check_row(name: str, check: Command, evidence: Evidence | None, *, inherited: bool) -> CheckRow:
    return CheckRow(
        name=name,
        command=check.run,
        reading=evidence.reading.value if evidence else "not run",
        inherited=inherited,
        at=_moment(evidence),
        tree=evidence.tree if evidence else None,
        exit_status=evidence.exit_status if evidence else None,
        output=evidence.output if evidence else None,
        reason=evidence.reason if evidence else "",
    )


def _moment(evidence: Evidence | Judged | None) -> str | None:
    return evidence.at.isoformat().replace("+00:00", "Z") if evidence else None


def final_line(state: RunState) -> str:
    """How the final proof stands, in a line: under way, what it came to and of what, or that there was none."""
    final, measured = state.going.final, state.going.final.measured
    if final.owed:
        return f"final proof: {len(measured)} of {count(len(measured) + len(final.owed), 'command')} run"
    if not final.tree:
        return "final proof: not run" + (" on the branch as it is now" if final.rounds else "")
    red = [_final_label(m) for m in measured if not m.evidence.reading.is_green]
    green = count(len(measured) - len(red), "command")
    return f"final proof: {green} green in a clean worktree" + (f"; not green: {', '.join(red)}" if red else "")


def review_line(state: RunState) -> str:
    """How the review stands, in a line: under way, how it ended and with what left open, or that there was none."""
    review, policy = state.going.review, state.effective_config()
    if not policy.review.enabled:
        return "review: turned off"
    if policy.review.per_story and not review.cycles:
        return _reviews_line(state)
    if not review.cycles:
        return "review: not run"
    cycles = count(review.cycles, "cycle")
    if review.end is None:
        return f"review: {cycles} so far, {count(len(review.open), 'issue')} open"
    left = f", {count(len(review.open), 'issue')} open" if review.open else ""
    why = f" ({review.reason})" if review.reason else ""
    unseen = "; what was committed since was not reviewed" if review.tip != state.going.tip else ""
    return f"review: {review.end} after {cycles}{left}{why}{unseen}"


def _reviews_line(state: RunState) -> str:
    ends = [review.end for review in reviews_of(state)[1:]]
    told = [f"{ends.count(end)} {end}" for end in ReviewEnd if end in ends]
    left = len(open_issues(state))
    return f"review of each story: {', '.join(told) or 'none yet'}" + (f"; {count(left, 'issue')} open" if left else "")


def reviews_of(state: RunState) -> tuple[Review, ...]:
    """The review of the run, then those of single stories."""
    of_stories = (standing.review for standing in state.going.stories.values())
    return state.going.review, *(review for review in of_stories if review is not None)


def open_issues(state: RunState) -> tuple[OpenIssue, ...]:
    """The issues that are open, the worst first, each as it was last seen."""
    issues = state.going.review.open
    if not state.going.review.cycles:  # else somebody has read all of it since
        for name, standing in state.going.stories.items():
            for known in standing.review.open if standing.review is not None else ():
                issues = (*issues, replace(known, issue=replace(known.issue, story=name)))
    return tuple(sorted(issues, key=lambda one: list(Severity).index(one.issue.severity)))


def issue_line(known: OpenIssue) -> str:
    """An issue in a line."""
    return f"{known.issue.severity} {_place(known.issue)}{known.issue.text} [{known.fingerprint}]"


def _place(issue: Issue) -> str:
    line = f":{issue.line}" if issue.line else ""
    story = f" ({issue.story})" if issue.story else ""
    return f"{issue.file}{line}{story}: " if issue.file else f"{issue.story}: " if issue.story else ""


def _final_label(measurement: Measurement) -> str:
    story = getattr(measurement.purpose, "story", "")
    return f"{story} {measurement.evidence.label}".strip()


def show_json(state: RunState, *, report: object) -> dict[str, Any]:
    """What `show RUN --json` prints."""
    progress, policy = state.going, state.effective_config()
    ledger = progress.ledger
    shown = {
        "run_state": state.reference_fields(),
        "stories": [_shown(row) for row in story_rows(state)],
        "checks": check_rows(state),
        "budget": {
            "allowed": policy.budget,
            "calls": ledger.calls,
            "cost_usd": ledger.total.cost_usd,
            "unpriced_calls": ledger.total.unpriced_calls,
            "waited_seconds": ledger.waited,
            "active_seconds": ledger.active,
            "by_agent": ledger.by_agent,
        },
        "bounds": _bounds(progress, policy),
        "report": report,
    }
    return msgspec.to_builtins(shown)


def _bounds(progress: Progress, policy: Policy) -> Bounds:
    if progress.feedback is None:
        return bounds_of(len(progress.stories), progress.spec, policy, plans=progress.plans)
    concerns = len(progress.feedback.concerns)
    return feedback_bounds(progress.spec, policy, concerns=concerns, rounds=max(1, progress.plans))


_SHOWN = ("criterion", "verify", "verdict", "flaky", "tree", "exit_status", "output_digest", "at")


def _shown(row: StoryRow) -> dict[str, Any]:
    """The row as the contract has it; other faces number criteria and name pins, files and suspicions besides."""
    shown = msgspec.structs.asdict(row)
    del shown["pins"], shown["suspicions"]
    shown["evidence"] = [{name: getattr(criterion, name) for name in _SHOWN} for criterion in row.evidence]
    return shown


def evidence_rows(state: RunState, story: Story) -> tuple[CriterionRow, ...]:
    """What is known of each criterion of a story, on the branch as it stands now."""
    standing, work = state.going.stories[story.id], state.going.work.get(story.id)
    known, before = _evidence(standing, work)
    tip = state.going.tip_tree if standing.state is StoryState.PASSED else None
    by_number = {one.criterion: one for one in known}
    return tuple(
        _criterion_row(number, criterion, by_number.get(number), was_green_before=number in before, tip_tree=tip)
        for number, criterion in enumerate(story.acceptance_criteria, start=1)
    )


def _evidence(standing: StoryProgress, work: Work | None) -> tuple[tuple[Evidence | Judged, ...], tuple[int, ...]]:
    if work is None:
        return (*standing.evidence, *standing.judged), standing.green_before
    stage = getattr(work.stage, "landing", work.stage)
    measured = getattr(stage, "measured", None) or getattr(stage, "evidence", ())
    return (*measured, *getattr(stage, "judged", ())), work.green_before


def _criterion_row(
    number: int, criterion: Criterion, known: Evidence | Judged | None, *, was_green_before: bool, tip_tree: str | None
) -> CriterionRow:
    evidence = known if isinstance(known, Evidence) else None
    judged = known if isinstance(known, Judged) else None
    reason = evidence.reason if evidence else ""
    return CriterionRow(
        number=number,
        criterion=criterion.text,
        verify=criterion.verify,
        verdict=verdict_of(known, was_green_before=was_green_before, tip_tree=tip_tree),
        flaky=evidence is not None and evidence.reading.value == "flaky",
        tree=known.tree if known else None,
        exit_status=evidence.exit_status if evidence else None,
        output_digest=evidence.output_digest if evidence else None,
        at=_moment(known),
        output=evidence.output if evidence else None,
        reason=f"{judged.by}: {judged.words}" if judged else reason,
    )


def _question(state: RunState, work: Work) -> QuestionRow | None:
    if not isinstance(work.stage, Asking):
        return None
    asked, until = work.stage.question, deadline_of(work.stage, state.effective_config())
    return QuestionRow(
        text=asked.text,
        options=asked.options,
        default=asked.default,
        until=until and until.isoformat().replace("+00:00", "Z"),
    )


def _story_row(state: RunState, story: Story) -> StoryRow:
    standing, work = state.going.stories[story.id], state.going.work.get(story.id)
    cs = work.cs if work is not None else fresh_continuation(state.effective_config())
    in_hand = work.calls if work is not None and standing.state is StoryState.BUILDING else 0
    attempt = attempt_of(work.cs) + 1 if in_hand and work is not None else 0
    return StoryRow(
        id=story.id,
        title=story.title,
        state=standing_of(work, standing.state) if work is not None else standing.state,
        reason=standing.reason,
        attempts=standing.attempts + attempt,
        calls=standing.calls + in_hand,
        commits=standing.commits,
        pins=standing.pins,
        suspicions=tuple(dict.fromkeys((*standing.suspicions, *(work.suspicions if work is not None else ())))),
        question=_question(state, work) if work is not None else None,
        replies=standing.replies,
        evidence=evidence_rows(state, story),
        continuation=msgspec.to_builtins(cs),
    )
