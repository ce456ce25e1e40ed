"""Free-form specs as a user meets them: what is said before, while and after an agent plans their stories."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User

IDEA = "# Greetings\n## Branch\nfeature/hello\n\nSay hello.\n"
PLANS = """\
[ "$STORYLOOP_DRAIN" = plan ] && { cat >"$STORYLOOP_ARTIFACT" <<'XML'
<plan><title>Any</title><user-stories><story><id>US-001</id><title>Say hello</title><acceptance-criteria>
<criterion><text>It is said</text><verify>test -f US-001.txt</verify></criterion></acceptance-criteria></story>
</user-stories></plan>
XML
exit 0; }
echo "$STORYLOOP_STORY" >"$STORYLOOP_STORY.txt"; answer completed
"""


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    user = User(tmp_path)
    user.makes_a_repository()
    (user.place / "idea.md").write_text(IDEA)
    yield user
    user.leaves()


def test_before_there_is_a_plan_its_bounds_are_shown_and_who_makes_it(user: User) -> None:
    """`spec check` says the same; nothing is written."""
    user.has_an_agent(PLANS)
    before = user.belongings()
    dry = user.asks("run", "../idea.md", "--dry-run")
    assert (dry.code, user.belongings()) == (0, before)
    assert "Greetings: free-form; its stories are not known yet, sh plans them first" in dry.out
    assert "at most       4,824 agent calls" in dry.out
    assert "at most       9 agent calls" in user.asks("run", "../idea.md", "--dry-run", "--max-calls", "9").out
    check = user.asks("spec", "check", "../idea.md")
    assert check.code == 0
    assert "Greetings: free-form, on branch feature/hello" in check.out


def test_a_plan_is_shown_kept_and_carried_out(user: User) -> None:
    """In the telling, in `show`, in the report, in the run's directory and by `spec export`."""
    user.has_an_agent(PLANS)
    done = user.asks("run", "../idea.md")
    assert done.code == 0, done.err
    for told in ("opened: no stories yet", "plan: asks sh (call 1)", "1 story planned: US-001 Say hello"):
        assert told in done.err
    shown = user.asks("show", "--json").rows
    assert shown["run_state"]["spec_md_path"] == str(user.place / "idea.md")
    kept = json.loads(Path(shown["run_state"]["spec_json_path"]).read_text())
    assert [kept[name] for name in ("title", "branchName")] == ["Greetings", "feature/hello"]
    assert [story["id"] for story in kept["userStories"]] == ["US-001"]
    assert user.asks("spec", "export").rows["userStories"][0] == kept["userStories"][0] | {"passes": True}
    assert "### US-001 Say hello" in Path(shown["report"]["file"]).read_text()
    assert (user.place / "idea.md").read_text() == IDEA
    assert shown["budget"]["calls"] <= shown["bounds"]["calls"] == 24 + 2 * 24


def test_a_run_without_a_valid_plan_ends_with_what_was_wrong(user: User) -> None:
    """Exit status 1, and the way on."""
    user.has_an_agent("echo '<plan/>' >\"$STORYLOOP_ARTIFACT\"\n")
    done = user.asks("run", "../idea.md")
    assert done.code == 1
    for told in ("its stories are not planned", "no valid plan in 3 tries", "line 1, <plan>", "storyloop resume"):
        assert told in done.out
    row = user.asks("status", "--json").rows[0]
    assert (row["status"], row["stories_total"], row["branch"]) == ("failed", 0, "feature/hello")
    user.has_an_agent(PLANS)
    assert user.asks("resume").code == 0


def test_a_planner_that_is_not_here_is_told_before_anything_is_made(user: User) -> None:
    """As whoever does the stories is."""
    user.has_an_agent(
        settings='[agents.absent]\nkind = "command"\ncommand = ["no-such-agent"]\n[drains]\nplan = ["absent"]\n'
    )
    done = user.asks("run", "../idea.md")
    assert (done.code, user.asks("status", "--json").rows) == (2, [])
    assert "agent absent: no-such-agent was not found" in done.err
