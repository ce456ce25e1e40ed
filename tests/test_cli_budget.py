"""Budgets and estimates as they are seen: what is said before a run, in it and after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User

SPEC = "../spec.md"
NEAR = "100% of the run's budget of 1 call is spent"


def counting(tokens: int) -> str:
    """An agent that does its work and tells so many tokens."""
    return f"""
echo x >"$STORYLOOP_STORY.txt"
echo '{{"usage": {{"input_tokens": {tokens}, "output_tokens": 20}}}}' >"$STORYLOOP_REPORT"
answer completed
"""


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """She has a repository, an agent that tells its tokens, and a spec of two stories."""
    user = User(tmp_path / "user")
    user.makes_a_repository()
    user.has_an_agent(counting(100))
    user.has_a_spec("US-001", "US-002")
    yield user
    user.leaves()


def test_that_most_of_a_budget_is_spent_is_said_once(user: User) -> None:
    """Where the run is watched, and in its history; not again by a process that goes on. `show` always says it."""
    done = user.asks("run", SPEC, "--max-calls", "1")
    assert (done.code, done.err.count(NEAR), done.out.count(NEAR)) == (4, 1, 1)
    again = user.asks("resume")
    assert (again.code, again.err.count(NEAR)) == (4, 0)
    for face in (("show",), ("show", "--cost"), ("show", "--events"), ("logs",)):
        assert user.asks(*face).out.count(NEAR) == 1, face
    more = user.asks("resume", "--max-calls", "10")
    assert (more.code, "budget" in more.err) == (0, False)


def test_a_budget_that_may_not_hold_an_agent_is_noted_before_the_run(user: User) -> None:
    """What an agent of her own does not tell, nobody can count; calls are counted by us."""
    note = "note: agent sh: its tokens and usd may stay unknown, and no budget counts them; calls and time hold it\n"
    assert note in user.asks("run", SPEC, "--dry-run", "--max-usd", "5", "--max-tokens", "9").err
    assert "may stay unknown" not in user.asks("run", SPEC, "--dry-run", "--max-calls", "5").err


def test_a_dry_run_estimates_by_earlier_runs_of_the_same_agents(user: User) -> None:
    """Medians of what calls came to, for as many as a story took; of other agents it says nothing."""
    none = "estimate      none: no earlier run on this machine asked these agents and no others\n"
    assert none in user.asks("run", SPEC, "--dry-run").out
    for number, tokens in enumerate((100, 200, 900)):
        user.has_an_agent(counting(tokens))
        user.has_a_spec("US-001", branch=f"feature/{number}")
        assert user.asks("run", SPEC, "-q").code == 0
    user.has_a_spec("US-001", "US-002", "US-003")
    told = user.asks("run", SPEC, "--dry-run").out
    assert "\nestimate      3 agent calls, 660 tokens, cost unknown, " in told
    assert " of agent time (medians of 3 earlier runs of these agents)\n" in told
    user.has_an_agent(name="other")
    assert none in user.asks("run", SPEC, "--dry-run", "--agent", "other").out
