"""The words of a pull request: bounded, ours between two marks, and nobody's words that a forge would act upon."""

import pytest
from makers import opened, policy_of, spec_of, story
from msgspec.structs import replace

from storyloop.core.artifacts import PrText
from storyloop.core.forge import PullRequest, PullRequestState
from storyloop.core.progress import Delivery
from storyloop.core.reduce import reduce
from storyloop.core.run_state import RunState
from storyloop.views.pull_request import brought_up_to_date, new_pull_request, quiet

QUIET = [
    ("thanks @ada, and a@b.example", "thanks @\u200bada, and a@b.example"),
    ("closes \x237 and !8 and GH-9", "closes #\u200b7 and !\u200b8 and GH-\u200b9"),
    ("fixes acme/shop#7", "fixes acme/shop#\u200b7"),
    ("fixes https://forge.example/issues/7", "fixes https:\u200b//forge.example/issues/7"),
    ("&#64;ada &num;7", "&#\u200b64;ada &\u200bnum;7"),
    ("ok\n/merge\n  /assign @ada\na/b", "ok\n\u200b/merge\n  \u200b/assign @\u200bada\na/b"),
    ("<!-- /storyloop -->", "<\u200b!-- /storyloop -->"),
    ("# A heading, 5 != 6, R&D; plain", "# A heading, 5 != 6, R&\u200bD; plain"),
]


def state_of(*names: str, **fields: object) -> RunState:
    state = reduce(None, opened(spec_of(*(story(name) for name in names)), policy_of()))
    return replace(state, progress=replace(state.going, **fields))


def there(body: str, *, draft: bool = False) -> PullRequest:
    return PullRequest(
        number=1, url="", state=PullRequestState.OPEN, head="x", head_commit="", base="main", draft=draft,
        title="Theirs", body=body,
    )  # fmt: skip


@pytest.mark.parametrize(("said", "shown"), QUIET)
def test_what_others_wrote_is_text(said: str, shown: str) -> None:
    """It calls nobody, closes nothing, orders nothing, and ends no part of ours."""
    assert quiet(said) == shown


def test_a_body_fits_whatever_the_run() -> None:
    """With more stories, words and template than any forge takes; both marks are there."""
    long = Delivery(text=PrText(title="t" * 900, body="b" * 99_000))
    for fields in ({}, {"delivery": long}, {"delivery": Delivery(template="# Form\n" * 2_800)}):
        text = new_pull_request(state_of(*(f"US-{n:04}" for n in range(2_000)), **fields), draft=False)
        assert len(text.body) <= 61_000
        assert len(text.title) <= 200
        assert (text.body.count("<!-- storyloop -->"), text.body.count("<!-- /storyloop -->")) == (1, 1)
        assert "The rest is in the run's report." in text.body


def test_only_our_part_is_written_anew() -> None:
    """What people wrote around it stays; where there is none, it is added."""
    state = state_of("US-001")
    ours, _ = brought_up_to_date(state, there("Mine.\n"), draft=False)
    assert ours.startswith("Mine.\n\n<!-- storyloop -->\n0 of 1 story passed.")

    again, _ = brought_up_to_date(state, there(f"Before.\n{ours.replace('0 of 1', '9 of 9')}Behind."), draft=False)
    assert again == f"Before.\n{ours}Behind."


@pytest.mark.parametrize(
    ("drafted_by_us", "is_draft", "wanted", "stays"),
    [
        (True, True, False, False),
        (True, True, True, True),
        (False, True, False, True),
        (True, False, True, False),
        (False, False, False, False),
    ],
)
def test_only_a_draft_that_we_made_becomes_ready(
    *, drafted_by_us: bool, is_draft: bool, wanted: bool, stays: bool
) -> None:
    """And one that a person made ready, or a draft, stays so."""
    state = state_of("US-001")
    body = new_pull_request(state, draft=drafted_by_us).body
    assert brought_up_to_date(state, there(body, draft=is_draft), draft=wanted)[1] is stays
