"""Proof: what stands behind each criterion and check, in full, and whether it is still true on the branch's tip."""

from collections.abc import Iterator
from typing import Any

import msgspec

from storyloop.core.evidence import Verdict
from storyloop.core.run_state import RunState
from storyloop.core.words import IterationStatus, StoryState
from storyloop.views.report import told_of
from storyloop.views.rows import CheckRow, CriterionRow, StoryRow, check_rows, final_line, story_rows


def evidence_lines(state: RunState, story: str | None) -> list[str]:
    """Of all stories, or of one."""
    lines: list[str] = []
    for row in _rows(state, story):
        commit = f", commit {row.commits[-1][:12]}" if row.commits else ""
        lines.append(f"{row.id}  {row.title} ({row.state}{commit})")
        for criterion in row.evidence:
            lines += [f"  {line}" for line in _of_criterion(state, row, criterion)]
        lines.append("")
    checks = check_rows(state)
    if checks:
        lines += ["Checks", *(f"  {line}" for check in checks for line in _of_check(state, check)), ""]
    return [*lines, final_line(state)]


def evidence_json(state: RunState, story: str | None) -> dict[str, Any]:
    """The same as values; `holds` is the sentence that says whether it is still true."""
    stories = [
        {
            "id": row.id,
            "title": row.title,
            "state": row.state,
            "commits": row.commits,
            "criteria": [
                msgspec.structs.asdict(criterion) | {"told": told_of(criterion), "holds": holds(state, row, criterion)}
                for criterion in row.evidence
            ],
        }
        for row in _rows(state, story)
    ]
    return msgspec.to_builtins({"stories": stories, "checks": check_rows(state), "final_proof": final_line(state)})


def holds(state: RunState, row: StoryRow, criterion: CriterionRow) -> str:
    """Whether what a command or a judge found is so on the branch's tip, and after which story; "" if unknown."""
    if criterion.tree is None or criterion.verdict is Verdict.UNMEASURED:
        return ""
    if row.state is not StoryState.PASSED:
        return "measured on work that is not on the branch"
    landed = _landed_after(state, row.id)
    if criterion.tree != state.going.tip_tree:
        again = "run" if criterion.verify else "judged"
        return f"not {again} again since {', '.join(landed) or 'the branch moved'}"
    still = "still true" if criterion.verdict is not Verdict.FAILED else "not true any more"
    return f"{still} after {landed[-1]}" if landed else f"{still} on the branch's tip"


def _landed_after(state: RunState, story: str) -> list[str]:
    """The stories whose commits came after this one's, oldest first."""
    ended = [record for record in state.iterations if record.status is IterationStatus.SUCCESS]
    own = max((record.number for record in ended if record.story_id == story), default=0)
    later = dict.fromkeys(record.story_id for record in ended if record.number > own)
    return [name for name in later if name != story and state.going.stories[name].commits]


def _rows(state: RunState, story: str | None) -> Iterator[StoryRow]:
    return (row for row in story_rows(state) if story in (None, row.id))


def _of_criterion(state: RunState, row: StoryRow, criterion: CriterionRow) -> Iterator[str]:
    yield f"{criterion.number}. {criterion.criterion}"
    yield f"   {told_of(criterion)}" + (
        ", flaky (red, then green on an immediate second run)" if criterion.flaky else ""
    )
    if criterion.verify:
        yield f"   `{criterion.verify}`{_ended(criterion)}"
    if criterion.tree:
        told = holds(state, row, criterion)
        yield f"   tree {criterion.tree[:12]}" + (f": {told}" if told else "")
    if criterion.output:
        yield f"   output {criterion.output} (SHA-256 {(criterion.output_digest or '')[:12]})"


def _of_check(state: RunState, check: CheckRow) -> Iterator[str]:
    inherited = ", inherited: red before the work, and not gating until it is green" if check.inherited else ""
    yield f"{check.name}: {check.reading}{inherited}"
    yield f"   `{check.command}`{_ended(check)}"
    if check.tree:
        where = "the branch's tip" if check.tree == state.going.tip_tree else "not the branch's tip"
        yield f"   tree {check.tree[:12]}: {where}"
        yield f"   output {check.output}"


def _ended(row: CriterionRow | CheckRow) -> str:
    if row.at is None:
        return ""
    return f": {row.reason or f'exit status {row.exit_status}'}, {row.at}"
