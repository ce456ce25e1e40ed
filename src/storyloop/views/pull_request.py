"""The words of a pull request: what was done, how each criterion is proven, what is left, and what it cost.

Our part stands between two marks, so that it can be brought up to date later without touching what people wrote
around it. Where the repository has a template, our part goes below its first heading; where an agent was asked for
the words, it goes behind them. Whatever did not come from us is text: it calls nobody, closes nothing, gives no
orders to the forge, and does not end our part.
"""

import re
from collections.abc import Iterator

from storyloop.core.forge import PullRequest, PullRequestText
from storyloop.core.review import is_shipped
from storyloop.core.run_state import RunState
from storyloop.core.words import StoryState
from storyloop.views.report import told_of
from storyloop.views.rows import (
    CriterionRow,
    StoryRow,
    check_rows,
    final_line,
    issue_line,
    open_issues,
    review_line,
    story_rows,
)
from storyloop.views.words import count, duration, money, one_line, tokens

_BEGIN, _DRAFTED, _END = "<!-- storyloop -->", "<!-- storyloop: draft -->", "<!-- /storyloop -->"
_OURS = re.compile(f"(?:{_BEGIN}|{_DRAFTED}).*?{_END}", re.DOTALL)
_HEADING = re.compile(r"^#{1,6} .*$", re.MULTILINE)
_LONGEST_TITLE = 200  # characters, where forges allow 255,
_LONGEST_BODY = 60_000  # and 65,536
_LONGEST_WORDS = 20_000  # of an agent or a template
_LONGEST_SUMMARY = 1_000
# What forges act upon, and where a character that nobody sees breaks it.
_MAGIC = (
    (re.compile(r"(?<!\w)@(?=\w)"), "@\u200b"),  # calls somebody
    (re.compile(r"([#!]|\bGH-)(?=\d)"), "\\1\u200b"),  # names an issue, and may close it
    (re.compile(r"://"), ":\u200b//"),
    (re.compile(r"&(?=#?\w+;)"), "&\u200b"),  # any of these in disguise
    (re.compile(r"^(\s*)/(?=\w)", re.MULTILINE), "\\1\u200b/"),  # GitLab's quick actions
    (re.compile(r"<(?=!--)"), "<\u200b"),
)


def new_pull_request(state: RunState, *, draft: bool) -> PullRequestText:
    """What it says when it is opened."""
    delivery, spec = state.going.delivery, state.going.spec
    title = one_line(delivery.text.title if delivery.text else spec.title)
    ours = _ours(state, drafted=draft and not state.effective_config().pull_request.draft)
    if delivery.text is not None:
        body = f"{quiet(delivery.text.body)[:_LONGEST_WORDS]}\n\n{ours}"
    else:
        heading = _HEADING.search(delivery.template)
        at = heading.end() if heading else len(delivery.template)
        above, below = delivery.template[:at].rstrip(), delivery.template[at:].strip()
        body = "\n\n".join(part for part in (above, ours, below) if part)
    return PullRequestText(title=quiet(title)[:_LONGEST_TITLE], body=f"{body}\n")


def brought_up_to_date(state: RunState, there: PullRequest, *, draft: bool) -> tuple[str, bool]:
    """The body with our part as it is now, and whether it stays a draft: one that only we made a draft need not."""
    drafted = there.draft and _DRAFTED in there.body
    stays = there.draft and (draft or not drafted)
    ours = _ours(state, drafted=drafted and stays)
    if _OURS.search(there.body):
        return _OURS.sub(lambda _: ours, there.body, count=1), stays
    return f"{there.body.rstrip()}\n\n{ours}\n".lstrip(), stays


def quiet(text: str) -> str:
    """Somebody else's words, so that a forge reads nothing into them."""
    for pattern, instead in _MAGIC:
        text = pattern.sub(instead, text)
    return text


def _ours(state: RunState, *, drafted: bool) -> str:
    told = "\n\n".join(_parts(state))
    if len(told) > _LONGEST_BODY - _LONGEST_WORDS:
        told = told[: _LONGEST_BODY - _LONGEST_WORDS].rpartition("\n")[0]
        told += "\n\nThe rest is in the run's report."
    return f"{_DRAFTED if drafted else _BEGIN}\n{told}\n{_END}"


def _parts(state: RunState) -> Iterator[str]:
    progress, rows = state.going, story_rows(state)
    said = {record.story_id: record.work_summary for record in state.iterations if record.work_summary}
    passed = sum(row.state is StoryState.PASSED for row in rows)
    shipped = "" if is_shipped(progress) else " What is missing stands below: this is not finished."
    yield f"{passed} of {count(len(rows), 'story')} passed.{shipped}"
    if progress.spec.description:
        yield quiet(progress.spec.description[:_LONGEST_SUMMARY])
    yield "## Stories"
    for row in rows:
        if row.state is StoryState.PASSED:
            yield _story(row, said.get(row.id, ""))
    left = [f"**{row.id}** {_line(row.title)}: {row.state}. {_line(row.reason)}" for row in rows if _is_left(row)]
    if left:
        yield f"## Not done\n\n{_listed(left)}"
    if issues := open_issues(state):
        yield f"## Open issues\n\n{_listed([_line(issue_line(issue)) for issue in issues])}"
    checks = [f"check {check.name}: {_code(check.command)} {check.reading}" for check in check_rows(state)]
    yield f"## How it was verified\n\n{_listed([_line(final_line(state)), _line(review_line(state)), *checks])}"
    ledger = progress.ledger
    yield (
        f"## What it cost\n\n{count(ledger.calls, 'agent call')}, {tokens(state.total_usage)}, "
        f"{money(ledger.total)}, {duration(ledger.active)}; run {state.run_id} of Storyloop"
    )


def _is_left(row: StoryRow) -> bool:
    return row.state is not StoryState.PASSED


def _story(row: StoryRow, summary: str) -> str:
    parts = [
        f"### {row.id} {_line(row.title)}",
        quiet(summary[:_LONGEST_SUMMARY]),
        _listed(map(_criterion, row.evidence)),
    ]
    return "\n\n".join(part for part in parts if part)


def _criterion(row: CriterionRow) -> str:
    by = f" by {_code(row.verify)}" if row.verify else ""
    flaky = ", flaky" if row.flaky else ""
    return f"{_line(row.criterion)}: {_line(told_of(row))}{by}{flaky}"


def _listed(lines: "Iterator[str] | list[str] | map[str]") -> str:
    return "\n".join(f"- {line}" for line in lines)


def _line(text: str) -> str:
    return quiet(one_line(text))


def _code(text: str) -> str:
    """As code, whatever backticks it has."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{one_line(text)}{pad}{fence}"
