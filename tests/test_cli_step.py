"""`--step` at the command line: what a user is shown before a commit, and what her word does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User

SPEC = "../spec.md"
# Writes what it was told, in its prompt, when its work was rejected.
OBEYS = """case $prompt in
*"rejected it: In words."*) echo one >"$STORYLOOP_STORY.txt" ;;
*) echo 1 >"$STORYLOOP_STORY.txt" ;;
esac
answer completed
"""


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """She has a repository and a spec."""
    user = User(tmp_path / "user")
    user.makes_a_repository()
    yield user
    user.leaves()


def test_nothing_is_committed_before_she_has_seen_and_approved_it(user: User) -> None:
    """The run parks with 3 and names commands, diff and verbs; rejected work is made anew, approved work committed."""
    user.has_an_agent(OBEYS)
    user.has_a_spec()
    done = user.asks("run", SPEC, "--step")
    (row,) = user.asks("status", "--json").rows
    run, waits = row["run_id"][:8], row["waits_for"]
    assert (done.code, row["status"]) == (3, "parked")
    assert waits.startswith("US-001 is proven by `test -f US-001.txt` and waits for you: `git show refs/storyloop/")
    assert waits in done.out
    assert waits in user.asks("status").out
    ref = waits.split("`git show ")[1].split("`")[0]
    assert "+1" in user.git("show", ref).splitlines()
    (story,) = user.asks("show", run, "--json").rows["stories"]
    assert (story["state"], [proof["verdict"] for proof in story["evidence"]]) == ("waiting", ["proven"])
    go_on = f"storyloop approve {run} US-001  (or: storyloop reject {run} US-001 --with HINT)"
    assert f"Go on with: {go_on}, then: storyloop resume {run}" in done.out

    told = user.asks("reject", run, "--with", "In words.")
    assert (told.code, told.out) == (0, f"Noted: reject US-001. Now: storyloop resume {run}\n")
    assert user.asks("resume", run).code == 3
    assert "US-001: a human rejects it: In words." in user.asks("logs", run).out
    told = user.asks("approve", run, "US-001")
    assert (told.code, told.out) == (0, f"Noted: approve US-001. Now: storyloop resume {run}\n")
    assert user.asks("resume", run).code == 0
    assert user.git("show", "feature/x:US-001.txt") == "one"

    for words in (("approve", run), ("reject", run, "US-001")):
        late = user.asks(*words)
        assert (late.code, "wait" in late.err and "for approval" in late.err) == (2, True), late.err


REVIEWS = """case $STORYLOOP_DRAIN in
  story) echo 1 >"$STORYLOOP_STORY.txt"; answer completed ;;
  review) echo '<issues><issue severity="major">It is wrong</issue></issues>' >"$STORYLOOP_ARTIFACT" ;;
  fix) echo 2 >>US-001.txt
    echo '<fix-result><status>all_issues_addressed</status><summary>s</summary></fix-result>' >"$STORYLOOP_ARTIFACT" ;;
esac
"""


def test_a_review_that_did_not_converge_is_asked_for_once_more(user: User) -> None:
    """By its own word, and only then; `resume` goes on with it."""
    user.makes_a_repository()
    user.has_an_agent(REVIEWS)
    spec = user.has_a_spec("US-001")
    user.asks("config", "set", "review.enabled", "true")
    user.asks("config", "set", "limits.review_cycles", "1")
    done = user.asks("run", spec)
    assert (done.code, "review: review cycles used up after 1 cycle" in done.out) == (1, True), done
    run = next(word for word in done.out.split("storyloop retry ")[1].split() if word)
    assert user.asks("retry", run, "review").out == f"Noted: retry review. Now: storyloop resume {run}\n"
    again = user.asks("resume", run)
    assert (again.code, "review: no progress after 2 cycles" in again.out) == (1, True), again
