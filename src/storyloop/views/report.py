"""The report: what shipped, what did not and why, what is proven by what, what is not, and what it all cost.

One value, shown in three ways: as a file of Markdown, on one screen of a terminal, and as JSON.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from storyloop.core.budget import nearly_spent
from storyloop.core.evidence import Verdict
from storyloop.core.passing import waiting_for_approval
from storyloop.core.progress import ParkedFor
from storyloop.core.review import is_review_open
from storyloop.core.run_state import RunState
from storyloop.core.stages import OpenIssue
from storyloop.core.words import RunStatus, StoryState
from storyloop.views.account import Account, Retry, Spent
from storyloop.views.feedback import ConcernRow, concern_rows, settled_line, unsaid_line
from storyloop.views.rows import (
    CriterionRow,
    StoryRow,
    check_rows,
    delivery_line,
    final_line,
    issue_line,
    open_issues,
    review_line,
    reviews_of,
    show_json,
    story_rows,
)
from storyloop.views.words import count, duration, money, one_line, tokens

_MOST_ISSUES = 5  # on one screen
_MOST_ROWS = 12  # stories on one screen,
_MOST_REASON = 130  # and characters of why one did not pass

PROVEN = {
    Verdict.PROVEN: "proven",
    Verdict.STALE: "proven when it landed; later commits changed the tree since",
    Verdict.VACUOUS: "green, but it was green before the work too (vacuous)",
    Verdict.FAILED: "failed",
    Verdict.UNPROVEN: "unproven: no command stands behind it",
    Verdict.UNMEASURED: "could not be measured",
    Verdict.JUDGED: "judged",
}


class Unshipped(msgspec.Struct, frozen=True, kw_only=True):
    """A story that did not pass: why, what keeps its work, and the command that shows it."""

    id: str
    state: StoryState
    reason: str
    pins: tuple[str, ...]
    show: str | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to say about a run; the sentences are for a person."""

    headline: str
    shipped: tuple[str, ...]
    unshipped: tuple[Unshipped, ...]
    verdicts: dict[str, int]  # how many criteria of what shipped have each
    not_proven: tuple[str, ...]  # criteria of what shipped that no command proves,
    not_measured: tuple[str, ...]  # and what else nobody has measured
    final_proof: str
    review: str
    issues: tuple[OpenIssue, ...]  # that the review found and that are open,
    unmended: tuple[str, ...]  # and refs that keep fixes which did not land
    suspicions: tuple[str, ...]  # that a change bends its own proof
    findings: tuple[str, ...]  # what agents or checks did that was undone or set aside
    seconds: float  # from its beginning to its end, or until now
    budgets: tuple[str, ...]  # of which most is spent
    account: Account
    delivery: str  # of its pull request
    feedback: tuple[ConcernRow, ...]  # that the run is on
    way_on: str | None


def report_of(state: RunState, account: Account, now: datetime) -> Report:
    """The run as it stands, whether it has ended or not."""
    rows = story_rows(state)
    shipped = [row for row in rows if row.state is StoryState.PASSED]
    verdicts = [criterion.verdict for row in shipped for criterion in row.evidence]
    return Report(
        headline=headline(state),
        shipped=tuple(row.id for row in shipped),
        unshipped=tuple(_unshipped(row) for row in rows if row.state is not StoryState.PASSED),
        verdicts={verdict.value: verdicts.count(verdict) for verdict in Verdict if verdict in verdicts},
        not_proven=tuple(line for row in shipped for line in _unsure(row)),
        not_measured=tuple(_not_measured(state)),
        final_proof=final_line(state),
        review=review_line(state),
        issues=open_issues(state),
        unmended=tuple(pin for review in reviews_of(state) for pin in review.pins),
        suspicions=tuple(f"{row.id}: {suspicion}" for row in rows for suspicion in row.suspicions),
        findings=tuple(dict.fromkeys(finding.detail for finding in state.going.findings)),
        seconds=state.run_duration_secs(now if state.status is RunStatus.RUNNING else state.going.last_at),
        budgets=tuple(nearly_spent(state).values()),
        account=account,
        delivery=delivery_line(state),
        feedback=concern_rows(state),
        way_on=way_on(state),
    )


def headline(state: RunState) -> str:
    """One line: how the run stands."""
    progress = state.going
    passed = sum(s.state is StoryState.PASSED for s in progress.stories.values())
    of = f"{passed} of {count(len(progress.stories), 'story')} passed"
    if progress.feedback is not None:
        of = settled_line(state)
    elif progress.spec.is_free_form:
        of = "its stories are not planned"
    match state.status:
        case RunStatus.COMPLETED:
            return f"Completed: {of}."
        case RunStatus.FAILED:
            return f"Not shipped: {of}." + (f" {progress.failure}" if progress.failure else "")
        case RunStatus.PARKED:
            reason = progress.parked.reason if progress.parked else ""
            return f"Parked: {of}; {reason.rstrip('.')}."
        case RunStatus.INTERRUPTED:
            return f"Interrupted: {of} so far."
        case RunStatus.RUNNING:
            return f"Running: {of} so far."


def way_on(state: RunState) -> str | None:
    """What to do next, if there is something to do."""
    run = state.run_id[:8]
    blocked = [n for n, s in state.going.stories.items() if s.state is StoryState.BLOCKED and s.blocked_by is None]
    match state.status:
        case RunStatus.INTERRUPTED:
            return f"Go on with: storyloop resume {run}"
        case RunStatus.PARKED if waits := waiting_for_approval(state.going):
            of = f"{run} {waits[0]}".rstrip()
            told = f"storyloop approve {of}  (or: storyloop reject {of} --with HINT)"
            return f"Go on with: {told}, then: storyloop resume {run}"
        case RunStatus.PARKED:
            parked = state.going.parked
            more = " --max-calls N (or --max-usd, --max-tokens, --max-time)"
            raise_it = more if parked is not None and parked.what is ParkedFor.BUDGET else ""
            return f"Go on with: storyloop resume {run}{raise_it}"
        case RunStatus.FAILED if blocked:
            return f"Try a story again with: storyloop retry {run} {blocked[0]}, then: storyloop resume {run}"
        case RunStatus.FAILED if is_review_open(state.going):
            return f"Review once more with: storyloop retry {run} review, then: storyloop resume {run}"
        case RunStatus.COMPLETED | RunStatus.FAILED if unsaid_line(state):
            return f"Push it and answer with: storyloop deliver {run}"
        case RunStatus.COMPLETED | RunStatus.FAILED if state.going.delivery.trouble:
            return f"Deliver it with: storyloop deliver {run}"
        case RunStatus.FAILED if state.going.failure:
            return f"Mend the cause, then: storyloop resume {run}"
        case _:
            return None


def _unshipped(row: StoryRow) -> Unshipped:
    show = f"git show {row.pins[-1]}" if row.pins else None
    return Unshipped(id=row.id, state=row.state, reason=row.reason, pins=row.pins, show=show)


def _unsure(row: StoryRow) -> list[str]:
    told = (Verdict.VACUOUS, Verdict.UNMEASURED)
    unsure = [c for c in row.evidence if c.verdict in told or not c.verify]
    return [f"{row.id}, criterion {c.number} ({c.criterion}): {told_of(c)}" for c in unsure]


def _not_measured(state: RunState) -> Iterator[str]:
    ledger = state.going.ledger
    for check in check_rows(state):
        if check.reading in ("unmeasured", "not run"):
            yield f"check {check.name}: {check.reading}"
        elif check.inherited:
            yield f"check {check.name} was red before the work and has not been green since: it proves nothing"
    if not state.going.final.tree:
        yield final_line(state)
    if unpriced := ledger.total.unpriced_calls:
        yield f"what {count(unpriced, 'call')} cost: no price is known"
    for name, spent in ledger.by_agent.items():
        if spent.unmetered_calls:
            yield f"the tokens of {count(spent.unmetered_calls, 'call')} of {name}: it did not tell them"


def evidence_line(story: str, row: CriterionRow) -> str:
    """What is known of a criterion, in a line."""
    return f"{story} criterion {row.number}: {told_of(row)}" + (f" by `{row.verify}`" if row.verify else "")


def told_of(row: CriterionRow) -> str:
    """What is known of a criterion, in words."""
    if row.verify is not None and row.tree is None:
        return "not proven: its command was not run on the work"
    if row.verify is None and row.tree is not None:
        since = ", which later commits have changed," if row.verdict is Verdict.STALE else ""
        return f"judged met on tree {row.tree[:12]}{since} by {' '.join(row.reason.split())}"
    return PROVEN[row.verdict]


# --- a file -----------------------------------------------------------------------------------------------


def report(state: RunState, account: Account, now: datetime) -> str:
    """The whole report, as Markdown."""
    progress, told, rows = state.going, report_of(state, account, now), story_rows(state)
    ledger = progress.ledger
    facts = [
        f"run {state.run_id}",
        f"branch `{state.branch}` at `{progress.tip[:12]}`, worktree {progress.worktree}",
        f"{duration(told.seconds)}, {count(ledger.calls, 'agent call')}, {tokens(state.total_usage)}, "
        f"{money(ledger.total)}",
        told.final_proof,
        *([told.delivery] if told.delivery else []),
        *told.budgets,
    ]
    checks = [
        f"{c.name}: `{c.command}` {c.reading}" + (" (inherited)" if c.inherited else "") for c in check_rows(state)
    ]
    sections = {
        "What was said": _listed(map(str, told.feedback)),
        "Shipped": [_story(row) for row in rows if row.id in told.shipped],
        "Not shipped": [_story(row) for row in rows if row.id not in told.shipped],
        "Checks": _listed(checks),
        "Not proven": _listed(told.not_proven),
        "Not measured": _listed(told.not_measured),
        "Review": [
            told.review,
            *_listed([*map(issue_line, told.issues), *(f"a fix that did not land: `{pin}`" for pin in told.unmended)]),
        ],
        "Retries": _listed(_retried(retry) for retry in account.retries),
        "What it cost": _table("phase", account.phases) + _table("agent", account.agents),
        "What was undone or set aside": _listed(told.findings),
    }
    parts = [f"# {progress.spec.title}", told.headline, *_listed(facts)]
    for heading, lines in sections.items():
        parts += [f"## {heading}", *lines] if lines else []
    return "\n\n".join([*parts, *([told.way_on] if told.way_on else [])]) + "\n"


def _listed(lines: "Iterator[str] | list[str] | tuple[str, ...]") -> list[str]:
    listed = "\n".join(f"- {line}" for line in lines)
    return [listed] if listed else []


def question_lines(state: RunState, story: str | None = None) -> list[str]:
    """What humans are asked, of all stories or one, and how to answer. What an agent wrote begins no line of ours."""
    lines: list[str] = []
    for row in story_rows(state):
        if row.question is not None and story in (None, row.id):
            asked, run = row.question, state.run_id[:8]
            until = f" until {asked.until}" if asked.until else ""
            how = "N, or words of your own" if asked.options else "TEXT"
            lines += [
                f"{row.id} asks: {one_line(asked.text)}",
                *(f"  {number}. {one_line(option)}" for number, option in enumerate(asked.options, start=1)),
                f"  unless answered{until}: {one_line(asked.default)}",
                f"  Answer with: storyloop answer {run} {row.id} {how}",
            ]
    return lines


def _story(row: StoryRow) -> str:
    told = f": {row.reason}" if row.reason else ""
    made = f"{count(row.attempts, 'attempt')}, {count(row.calls, 'call')}"
    lines = [_criterion(c) for c in row.evidence]
    lines += [f"- committed as `{commit[:12]}`" for commit in row.commits]
    lines += [f"- work kept by `{pin}`; `git show {pin}` shows it" for pin in row.pins]
    lines += [f"- suspicious: {suspicion}" for suspicion in row.suspicions]
    lines += [
        f"- asked: {one_line(reply.question.text)} "
        f"{'Answered' if reply.by_human else 'Nobody answered, so'}: {one_line(reply.text)}"
        for reply in row.replies
    ]
    return f"### {row.id} {row.title}\n\n{row.state}{told} ({made})\n\n" + "\n".join(lines)


def _criterion(row: CriterionRow) -> str:
    by = f" by `{row.verify}`" if row.verify else ""
    on = f" on tree `{row.tree[:12]}`" if row.tree and row.verify else ""
    flaky = ", flaky (red, then green on an immediate second run)" if row.flaky else ""
    return f"- {row.number}. {row.criterion}: {told_of(row)}{by}{on}{flaky}"


def _retried(retry: Retry) -> str:
    return f"{retry.story} call {retry.call} of {retry.ref} ({retry.mode}): {retry.cause}".lstrip()


def _table(of: str, rows: dict[str, Spent]) -> list[str]:
    heads = (of, "calls", "tokens", "money", "agents", "commands", "waiting")
    lines = [heads, ("---",) * len(heads), *((name, *_columns(spent)) for name, spent in rows.items())]
    return ["\n".join(f"| {' | '.join(line)} |" for line in lines)] if rows else []


def _columns(spent: Spent) -> tuple[str, ...]:
    calls = spent.spending.calls
    asked = (tokens(spent.spending.usage), money(spent.spending)) if calls else ("", "")
    times = (duration(seconds) if seconds else "" for seconds in (spent.agent, spent.commands, spent.waited))
    return (str(calls), *asked, *times)


# --- JSON --------------------------------------------------------------------------------------------------


def report_json(state: RunState, account: Account, report_path: str | None) -> dict[str, Any]:
    """What `show RUN --json` prints, the report's values and its file under `report`."""
    told = report_of(state, account, state.going.last_at)
    return show_json(state, report={"file": report_path, **msgspec.structs.asdict(told)})


# --- a screen ---------------------------------------------------------------------------------------------


def summary(state: RunState, account: Account, now: datetime, report_path: str | None) -> str:
    """The report in one screen: the answer that `run` prints at its end."""
    told, rows, ledger = report_of(state, account, now), story_rows(state), state.going.ledger
    width = max((len(row.id) for row in rows), default=0)
    shown = (
        sorted(rows, key=lambda row: row.state is StoryState.PASSED)[:_MOST_ROWS] if len(rows) > _MOST_ROWS else rows
    )
    lines = [told.headline, ""]
    lines += [f"  {row.id:<{width}}  {row.state:<8} {_proof(row)}".rstrip() for row in shown]
    if len(shown) < len(rows):
        lines.append(f"  and {count(len(rows) - len(shown), 'more story')}")
    if any(row.pins for row in rows if row.id not in told.shipped):
        lines.append(f"  What they left is kept; how to see it: storyloop show {state.run_id[:8]} --story ID")
    lines += [f"  {row}" for row in told.feedback]
    lines.append("")
    lines += map(issue_line, told.issues[:_MOST_ISSUES])
    if len(told.issues) > _MOST_ISSUES:
        lines.append(f"and {count(len(told.issues) - _MOST_ISSUES, 'more issue')}")
    if told.verdicts:
        lines.append("criteria: " + ", ".join(f"{number} {verdict}" for verdict, number in told.verdicts.items()))
    if told.suspicions:
        bent = count(len(told.suspicions), "suspicion")
        lines.append(f"{bent} that a change bends its own proof; the report names them.")
    if state.going.findings:
        found = count(len(state.going.findings), "finding")
        lines.append(f"{found}: what agents or checks did that was undone or set aside.")
    phases = account.phases.values()
    spent = {name: sum(getattr(phase, name) for phase in phases) for name in ("agent", "commands", "waited")}
    parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in spent.items() if seconds)
    reasons = ", ".join(f"{number} {why}" for why, number in account.reasons.items())
    lines += [
        f"{duration(told.seconds)}" + (f" ({parts})" if parts else ""),
        f"{count(ledger.calls, 'agent call')}, {tokens(state.total_usage)}, {money(ledger.total)}"
        + (f"; asked again: {reasons}" if reasons else ""),
        f"{told.review}; {told.final_proof}",
        *told.budgets,
        f"branch {state.branch}  at  {state.going.tip[:12]}",
        *([told.delivery] if told.delivery else []),
        *([f"report {report_path}"] if report_path else []),
        *(["", *asked, ""] if (asked := question_lines(state)) else []),
        *([told.way_on] if told.way_on else []),
    ]
    return "\n".join(lines)


def _proof(row: StoryRow) -> str:
    if row.state is not StoryState.PASSED:
        return row.reason if len(row.reason) <= _MOST_REASON else f"{row.reason[: _MOST_REASON - 3]}..."
    proven = sum(c.verdict in (Verdict.PROVEN, Verdict.STALE) and c.verify is not None for c in row.evidence)
    judged = sum(c.tree is not None and c.verify is None for c in row.evidence)
    told = f"{proven} of {len(row.evidence)} criteria proven" + (f", {judged} judged" if judged else "")
    commit = f", commit {row.commits[-1][:12]}" if row.commits else ""
    return f"{told}{commit}" + (f" ({row.reason})" if row.reason else "")


def story_lines(state: RunState, story: str) -> list[str]:
    """One story: where it stands, its criteria, its commits and pins, and what was asked about it."""
    row = next(row for row in story_rows(state) if row.id == story)
    return [*_story(row).splitlines(), *question_lines(state, story)]


def cost_lines(state: RunState, account: Account) -> list[str]:
    """Calls, tokens, money and time, by phase and by agent; what is unknown is said to be."""
    ledger = state.going.ledger
    lines = [f"total  {count(ledger.calls, 'call')}, {tokens(state.total_usage)}, {money(ledger.total)}", ""]
    for rows in (account.phases, account.agents):
        lines += [*(f"  {name}  {_spent(spent)}" for name, spent in rows.items()), *([""] if rows else [])]
    return [
        *lines,
        *nearly_spent(state).values(),
        f"waited {duration(ledger.waited)}, at work {duration(ledger.active)}",
    ]


def _spent(spent: Spent) -> str:
    spending = spent.spending
    asked = [count(spending.calls, "call"), tokens(spending.usage), money(spending)] if spending.calls else []
    times = {"agents": spent.agent, "commands": spent.commands, "waiting": spent.waited}
    return ", ".join([*asked, *(f"{name} {duration(seconds)}" for name, seconds in times.items() if seconds)])
