"""Questions at the command line: how a user hears of one, answers it, and what a run does meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User, ended, until

SPEC = "../spec.md"
# Asks until it is told, in its prompt, what a human decided. What it writes would take over a terminal if it could.
ASKS = """case $prompt in
*"A human answered"*SQLite*) touch US-001.txt; answer completed ;;
*US-002*) touch US-002.txt; answer completed ;;
*) cat > "$STORYLOOP_ARTIFACT" <<'END' ;;
<development-result><status>partial</status><summary>Half.</summary><next-steps>The store.</next-steps>
<question default="files">Which &#x9b;31m
store? <option>files</option><option>SQLite</option></question></development-result>
END
esac
"""


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """She has a repository and a spec."""
    user = User(tmp_path / "user")
    user.makes_a_repository()
    yield user
    user.leaves()


def test_a_question_is_shown_everywhere_and_answered_by_its_number(user: User) -> None:
    """The run parks with 3; `run`, `status` and `show` say what is asked; `answer` says what to do then."""
    user.has_an_agent(ASKS)
    user.has_a_spec("US-001", "US-002")
    done = user.asks("run", SPEC)
    (row,) = user.asks("status", "--json").rows
    run = row["run_id"][:8]
    assert done.code == 3
    shown = f"""\
US-001 asks: Which 31m store?
  1. files
  2. SQLite
  unless answered: files
  Answer with: storyloop answer {run} US-001 N, or words of your own
"""
    assert shown in done.out
    assert shown in user.asks("show", run).out
    assert shown in user.asks("show", run, "--story", "US-001").out
    assert "Which" not in user.asks("show", run, "--story", "US-002").out
    assert row["waits_for"] == "US-001 asks: Which 31m store? (unless answered: files)"
    assert "US-001 asks: Which 31m store? (unless answered: files)" in user.asks("status").out
    asking, other = user.asks("show", run, "--json").rows["stories"]
    assert (asking["state"], other["state"], other["question"]) == ("waiting", "passed", None)
    assert asking["question"] == {
        "text": "Which 31m\nstore?",
        "options": ["files", "SQLite"],
        "default": "files",
        "until": None,
    }
    told = user.asks("answer", run, "US-001", "2")
    assert (told.code, told.out) == (0, f"Noted: answer US-001. Now: storyloop resume {run}\n")
    assert user.asks("resume", run).code == 0
    assert "asked: Which 31m store? Answered: SQLite" in user.asks("show", run, "--story", "US-001").out
    assert user.asks("status", "--json").rows[0]["waits_for"] == ""


def test_a_live_run_takes_an_answer_up_while_it_waits_for_the_deadline(user: User) -> None:
    """It need not be resumed."""
    user.has_an_agent(ASKS, settings='[limits]\nquestion_deadline = "1h"\n')
    user.has_a_spec()
    run = user.starts("run", SPEC)
    until(lambda: any(row["waits_for"] for row in user.asks("status", "--json").rows))
    (row,) = user.asks("status", "--json").rows
    told = user.asks("answer", row["run_id"], "US-001", "SQLite, in one file")
    assert (told.code, told.out) == (0, f"Run {row['run_id']} is told to answer US-001.\n")
    done = ended(run)
    assert done.code == 0
    assert "US-001: a human answers: SQLite, in one file" in done.err


# What is said, and a part of the sentence that refuses it.
REFUSED = {
    "of a story that asks nothing": (("US-002", "yes"), "story US-002 asks nothing"),
    "of a story that there is not": (("US-009", "yes"), "has no story US-009"),
    "empty": (("US-001", "  "), "The answer is empty."),
}


def test_an_answer_that_cannot_be_used_is_refused_at_once(user: User) -> None:
    """Nothing is noted of it."""
    user.has_an_agent(ASKS)
    user.has_a_spec("US-001", "US-002")
    user.asks("run", SPEC)
    run = user.asks("status", "--json").rows[0]["run_id"]
    for words, sentence in REFUSED.values():
        done = user.asks("answer", run, *words)
        assert (done.code, sentence in done.err) == (2, True), done.err
