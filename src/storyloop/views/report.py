"""The report: what shipped, what did not and why, what is proven by what, and what it cost. Markdown."""

from datetime import datetime

from storyloop.core.evidence import Verdict
from storyloop.core.progress import ParkedFor, StoryState
from storyloop.core.run_state import RunState
from storyloop.core.words import RunStatus
from storyloop.views.rows import CriterionRow, StoryRow, check_rows, final_line, story_rows
from storyloop.views.words import count, duration, money, tokens

NOT_BUILT = ("review: not run",)

_PROVEN = {
    Verdict.PROVEN: "proven",
    Verdict.STALE: "proven when it landed; later commits changed the tree since",
    Verdict.VACUOUS: "green, but it was green before the work too (vacuous)",
    Verdict.FAILED: "failed",
    Verdict.UNPROVEN: "unproven: no command stands behind it",
    Verdict.UNMEASURED: "could not be measured",
    Verdict.JUDGED: "judged",
}


def headline(state: RunState) -> str:
    """One line: how the run stands."""
    progress = state.going
    passed = sum(s.state is StoryState.PASSED for s in progress.stories.values())
    of = f"{passed} of {count(len(progress.stories), 'story')} passed"
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


def report(state: RunState, now: datetime) -> str:
    """The whole report."""
    progress = state.going
    rows = story_rows(state)
    ledger = progress.ledger
    parts = [
        f"# {progress.spec.title}",
        headline(state),
        "\n".join(
            [
                f"- run {state.run_id}",
                f"- branch `{state.branch}` at `{progress.tip[:12]}`, worktree {progress.worktree}",
                f"- {duration(state.run_duration_secs(now))}, {count(ledger.calls, 'agent call')}, "
                f"{tokens(state.total_usage)}, {money(ledger.total)}",
                *(f"- {line}" for line in (*NOT_BUILT, final_line(state))),
            ]
        ),
        "## Stories",
        *(_story(row) for row in rows),
    ]
    checks = check_rows(state)
    if checks:
        lines = [f"- {c.name}: `{c.command}` {c.reading}" + (" (inherited)" if c.inherited else "") for c in checks]
        parts += ["## Checks", "\n".join(lines)]
    unsure = [line for row in rows for line in _unsure(row)]
    if unsure:
        parts += ["## Not proven", "\n".join(unsure)]
    if progress.findings:
        details = dict.fromkeys(f"- {finding.detail}" for finding in progress.findings)
        parts += ["## What was undone or set aside", "\n".join(details)]
    if ledger.by_agent:
        lines = [
            f"- {name}: {count(s.calls, 'call')}, {tokens(s.usage)}, {money(s)}" for name, s in ledger.by_agent.items()
        ]
        parts += ["## Agents", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def way_on(state: RunState) -> str | None:
    """What to do next, if there is something to do."""
    run = state.run_id[:8]
    blocked = [n for n, s in state.going.stories.items() if s.state is StoryState.BLOCKED and s.blocked_by is None]
    match state.status:
        case RunStatus.INTERRUPTED:
            return f"Go on with: storyloop resume {run}"
        case RunStatus.PARKED:
            parked = state.going.parked
            more = " --max-calls N (or --max-usd, --max-tokens, --max-time)"
            raise_it = more if parked is not None and parked.what is ParkedFor.BUDGET else ""
            return f"Go on with: storyloop resume {run}{raise_it}"
        case RunStatus.FAILED if blocked:
            return f"Try a story again with: storyloop retry {run} {blocked[0]}, then: storyloop resume {run}"
        case RunStatus.FAILED if state.going.failure:
            return f"Mend the cause, then: storyloop resume {run}"
        case _:
            return None


def _story(row: StoryRow) -> str:
    told = f": {row.reason}" if row.reason else ""
    head = (
        f"### {row.id} {row.title}\n\n{row.state}{told} ({count(row.attempts, 'attempt')}, {count(row.calls, 'call')})"
    )
    lines = [_criterion(c) for c in row.evidence]
    lines += [f"- committed as `{commit[:12]}`" for commit in row.commits]
    lines += [f"- work kept by `{pin}`" for pin in row.pins]
    lines += [f"- suspicious: {suspicion}" for suspicion in row.suspicions]
    return head + "\n\n" + "\n".join(lines)


def _criterion(row: CriterionRow) -> str:
    by = f" by `{row.verify}`" if row.verify else ""
    on = f" on tree `{row.tree[:12]}`" if row.tree else ""
    flaky = ", flaky (red, then green on an immediate second run)" if row.flaky else ""
    return f"- {row.number}. {row.criterion}: {_told(row)}{by}{on}{flaky}"


def _told(row: CriterionRow) -> str:
    if row.verify is not None and row.tree is None:
        return "not proven: its command was not run on the work"
    return _PROVEN[row.verdict]


def _unsure(row: StoryRow) -> list[str]:
    told = (Verdict.UNPROVEN, Verdict.VACUOUS, Verdict.UNMEASURED)
    return [
        f"- {row.id}, criterion {c.number} ({c.criterion}): {_told(c)}"
        for c in row.evidence
        if c.verdict in told and row.state is StoryState.PASSED
    ]


def summary(state: RunState, now: datetime, report_path: str | None) -> str:
    """The report in one screen: the answer that `run` prints at its end."""
    ledger = state.going.ledger
    rows = story_rows(state)
    width = max((len(row.id) for row in rows), default=0)
    shown = rows if len(rows) <= 24 else [row for row in rows if row.state is not StoryState.PASSED][:24]
    lines = [headline(state), ""]
    lines += [f"  {row.id:<{width}}  {row.state:<8} {_proof(row)}" for row in shown]
    if len(shown) < len(rows):
        lines.append(f"  and {count(len(rows) - len(shown), 'more story')}")
    unsure = sum(len(_unsure(row)) for row in rows)
    if unsure:
        lines += ["", f"{count(unsure, 'criterion')} not proven; the report names them."]
    suspicions = sum(len(row.suspicions) for row in rows)
    if suspicions:
        lines += ["", f"{count(suspicions, 'suspicion')} that a change bends its own proof; the report names them."]
    if state.going.findings:
        lines += [
            "",
            f"{count(len(state.going.findings), 'finding')}: what agents or checks did that was undone or set aside.",
        ]
    lines += [
        "",
        f"{duration(state.run_duration_secs(now))}, {count(ledger.calls, 'agent call')}, {tokens(state.total_usage)}, "
        f"{money(ledger.total)}",
        "; ".join((*NOT_BUILT, final_line(state))),
        f"branch {state.branch}  at  {state.going.tip[:12]}",
    ]
    if report_path is not None:
        lines.append(f"report {report_path}")
    on = way_on(state)
    return "\n".join([*lines, *([on] if on else [])])


def _proof(row: StoryRow) -> str:
    if row.state is not StoryState.PASSED:
        return row.reason + (f"; work kept by {row.pins[-1]}" if row.pins else "")
    proven = sum(c.verdict in (Verdict.PROVEN, Verdict.STALE) for c in row.evidence)
    told = f"{proven} of {len(row.evidence)} criteria proven"
    commit = f", commit {row.commits[-1][:12]}" if row.commits else ""
    return f"{told}{commit}" + (f" ({row.reason})" if row.reason else "")


def story_lines(state: RunState, story: str) -> list[str]:
    """One story: where it stands, its criteria, its commits and pins."""
    row = next(row for row in story_rows(state) if row.id == story)
    return _story(row).splitlines()


def evidence_lines(state: RunState, story: str | None) -> list[str]:
    """What proves each criterion, of all stories or one, and whether it still holds on the branch's tip."""
    lines: list[str] = []
    for row in story_rows(state):
        if story in (None, row.id):
            lines += [
                f"{row.id}  {row.title} ({row.state})",
                *(f"  {line}" for c in row.evidence for line in _detail(c)),
                "",
            ]
    return [*lines, final_line(state)]


def cost_lines(state: RunState) -> list[str]:
    """Calls, tokens and money, by phase and by agent; what is unknown is said to be."""
    ledger = state.going.ledger
    lines = [f"total  {count(ledger.calls, 'call')}, {tokens(state.total_usage)}, {money(ledger.total)}", ""]
    lines += [f"  {phase}  {tokens(usage)}" for phase, usage in state.phase_usage.items()]
    lines += [""] if state.phase_usage else []
    lines += [
        f"  {name}  {count(s.calls, 'call')}, {tokens(s.usage)}, {money(s)}" for name, s in ledger.by_agent.items()
    ]
    return [*lines, "", f"waited {duration(ledger.waited)}, at work {duration(ledger.active)}"]


def _detail(row: CriterionRow) -> list[str]:
    lines = [f"{row.number}. {row.criterion}", f"   {_told(row)}" + (", flaky" if row.flaky else "")]
    if row.verify:
        ended = f", exit status {row.exit_status}" if row.exit_status is not None else ""
        lines.append(f"   `{row.verify}`{ended}")
    if row.tree:
        lines.append(f"   tree {row.tree[:12]}, output {(row.output_digest or '')[:12]}, {row.at}")
    return lines
