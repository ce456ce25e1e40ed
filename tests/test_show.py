"""`show` answers: what an agent is told, what the run has learnt, what is proven by what."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clikit import User

SPEC = "../spec.md"
LEARNS = """
echo x >"$STORYLOOP_STORY.txt"
cat >"$STORYLOOP_ARTIFACT" <<END
<development-result><status>completed</status><summary>Done.</summary><knowledge>
<file path="$STORYLOOP_STORY.txt" purpose="Holds it."><symbol>x_y</symbol></file>
<decision topic="ink" choice="$STORYLOOP_STORY">It is there.</decision>
<pattern example="US-001.txt">A file for each.</pattern>
</knowledge></development-result>
END
"""


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """She has a repository, an agent that does its work, and a spec of three stories."""
    user = User(tmp_path / "user")
    user.makes_a_repository()
    user.has_an_agent(LEARNS)
    user.has_a_spec("US-001", "US-002", "US-003")
    yield user
    user.leaves()


def rules(user: User, text: str) -> None:
    """A template of hers."""
    (user.repo / "storyloop-prompts").mkdir(exist_ok=True)
    (user.repo / "storyloop-prompts" / "_rules.j2").write_text(text)


def test_a_run_keeps_the_templates_it_was_opened_with_until_it_is_told_to_read_them_again(user: User) -> None:
    """What the checkout holds meanwhile is another matter; the last prompt is shown, or the one that is owed."""
    rules(user, "Whistle while you work.\n")
    opened = user.asks("run", SPEC, "--max-calls", "1")
    assert (opened.code, "prompt templates of yours are used: _rules" in opened.err) == (4, True)
    owed = user.asks("show", "--prompt").out
    assert "# Do one story of A spec\n\n## The story\n\n```text\nUS-002: Make US-002\n" in owed
    assert "\nWhistle while you work.\n" in owed
    assert "- US-001: Make US-001\n  Done." in user.asks("show", "--prompt", "--knowledge").out
    asked = user.asks("show", "--prompt", "--story", "US-001").out
    assert "nothing is known yet" in user.asks("show", "--prompt", "--knowledge", "--story", "US-001").out
    assert ("US-001: Make US-001" in asked, "Whistle" in asked) == (True, True)
    assert "No agent was asked about US-003" in user.asks("show", "--prompt", "--story", "US-003").err

    rules(user, "Hum.\n")
    assert user.asks("resume", "--max-calls", "2").code == 4
    assert "Whistle" in user.asks("show", "--prompt", "--story", "US-002").out
    assert user.asks("resume", "--prompts", "--max-calls", "3").code == 0
    last = user.asks("show", "--prompt").out
    assert ("US-003: Make US-003" in last, "\nHum.\n" in last, "Whistle" in last) == (True, True, False)


def test_a_template_that_became_unusable_refuses_a_resume_that_reads_it(user: User) -> None:
    """And only that one."""
    assert user.asks("run", SPEC, "--max-calls", "1").code == 4
    rules(user, "{{ nothing }}")
    refused = user.asks("resume", "--prompts", "--max-calls", "9")
    assert (refused.code, "_rules.j2 cannot be used: line 1" in refused.err) == (2, True)
    assert user.asks("resume", "--max-calls", "9").code == 0


def test_knowledge_is_shown_in_full_and_in_the_form_of_the_reference(user: User) -> None:
    """Superseded decisions stay, marked."""
    assert user.asks("run", SPEC, "-q").code == 0
    lines = user.asks("show", "--knowledge").out.splitlines()
    assert lines == [
        "Files",
        "  US-001.txt (1 line)  Holds it.  [x_y]  by US-001",
        "  US-002.txt (1 line)  Holds it.  [x_y]  by US-002",
        "  US-003.txt (1 line)  Holds it.  [x_y]  by US-003",
        "",
        "Decisions",
        "  US-001  ink: US-001: It is there.  (superseded by US-002)",
        "  US-002  ink: US-002: It is there.  (superseded by US-003)",
        "  US-003  ink: US-003: It is there.",
        "",
        "Patterns",
        "  US-001  A file for each.  (see US-001.txt)",
        "",
        "Changes",
        "  US-001  +US-001.txt",
        "  US-002  +US-002.txt",
        "  US-003  +US-003.txt",
    ]
    told = user.asks("show", "--knowledge", "--json").rows
    assert list(told) == ["files", "decisions", "patterns", "storyChanges", "baselineCommit"]
    assert told["files"]["US-002.txt"] == {
        "purpose": "Holds it.",
        "keySymbols": ["x_y"],
        "touchedBy": ["US-002"],
        "lineCount": 1,
    }
    assert told["decisions"][2] == {
        "storyId": "US-003",
        "topic": "ink",
        "choice": "US-003",
        "rationale": "It is there.",
        "supersededBy": None,
    }
    assert told["patterns"] == [{"storyId": "US-001", "description": "A file for each.", "exampleFile": "US-001.txt"}]
    assert told["storyChanges"][0]["filesCreated"] == ["US-001.txt"]
    assert told["baselineCommit"] == user.git("rev-parse", "main").strip()


def test_evidence_tells_every_verdict_apart_and_whether_it_still_holds(user: User) -> None:
    """By which command, on which tree, when, with which output; for one story and as JSON too."""
    spec = user.has_a_spec("US-001", "US-002", "US-003")
    told = spec.read_text().replace(
        "### US-002: Make US-002\n**Acceptance Criteria:**",
        """### US-002: Make US-002
**Acceptance Criteria:**
- [ ] It is pretty
- [ ] README stays
  verify: `test -f README`
- [ ] It can be measured
  verify: `test -f US-002.txt && kill -9 $$; false`""",
    )
    spec.write_text(told)
    user.has_an_agent(LEARNS, settings='[checks]\ntest = "true"\n[limits]\ncontinuations = 1\n')
    assert user.asks("run", SPEC, "-q").code == 1

    first = user.asks("show", "--evidence", "--story", "US-001").out.splitlines()
    assert first[0].startswith("US-001  Make US-001 (passed, commit ")
    assert first[1:3] == ["  1. It is there", "     proven"]
    assert first[3].startswith("     `test -f US-001.txt`: exit status 0, 20")
    assert (first[4][:10], first[4][-25:]) == ("     tree ", ": still true after US-003")
    run_dir = Path(first[-1].removeprefix("outputs are in "))
    assert (run_dir / first[5].split()[1]).is_file()
    assert "  test: green" in first

    whole = user.asks("show", "--evidence").out
    for verdict in (
        "1. It is pretty\n     unproven: no command stands behind it",
        "2. README stays\n     green, but it was green before the work too (vacuous)",
        "3. It can be measured\n     could not be measured",
        "measured on work that is not on the branch",
    ):
        assert verdict in whole
    story, *_ = user.asks("show", "--evidence", "--story", "US-002", "--json").rows["stories"]
    assert [c["verdict"] for c in story["criteria"]] == ["unproven", "vacuous", "unmeasured", "proven"]
    assert [c["holds"] for c in story["criteria"]] == [
        "",
        *["measured on work that is not on the branch"] * 1,
        "",
        "measured on work that is not on the branch",
    ]


def test_what_was_proven_on_an_older_tree_is_not_said_to_hold(user: User) -> None:
    """Before the final proof nothing has run again what a later story may have broken; what is vacuous stays so."""
    spec = user.repo.parent / "spec.md"
    more = "- [ ] README stays\n  verify: `test -f README`\n### US-002"
    spec.write_text(spec.read_text().replace("### US-002", more, 1))
    assert user.asks("run", SPEC, "--max-calls", "2").code == 4
    lines = user.asks("show", "--evidence", "--story", "US-001").out
    assert "proven when it landed; later commits changed the tree since" in lines
    assert "green, but it was green before the work too (vacuous)" in lines
    assert lines.count(": not run again since US-002") == 2
    assert ": still true on the branch's tip" in user.asks("show", "--evidence", "--story", "US-002").out


def test_the_report_fits_one_screen_and_says_why_agents_were_asked_again(user: User) -> None:
    """Five stories on 80 columns and 24 lines, however long the reasons are; a parked run is told as well."""
    user.has_an_agent(f"case $STORYLOOP_STORY in US-00[345]) answer partial '{'Long. ' * 80}'; exit ;; esac\n{LEARNS}")
    user.has_a_spec("US-001", "US-002", "US-003", "US-004", "US-005")
    parked = user.asks("run", SPEC, "--max-calls", "4")
    assert (parked.code, user.asks("show").out.splitlines()[1:]) == (4, parked.out.splitlines())
    done = user.asks("resume", "--max-calls", "99")
    assert done.code == 1
    assert sum(1 + max(0, len(line) - 1) // 80 for line in done.out.splitlines()) <= 24
    assert "criteria: 2 proven\n" in done.out
    assert "; asked again: 6 red" in done.out
    assert "review: turned off; final proof: 2 commands green in a clean worktree\n" in done.out


def test_later_work_on_the_branch_begins_with_what_was_learnt(user: User) -> None:
    """Knowledge outlives its run; a decision can be superseded by a later run's."""
    user.has_an_agent(LEARNS, settings="[worktree]\ncleanup = true\n")
    assert user.asks("run", SPEC, "-q").code == 0
    user.has_a_spec("US-009")
    assert user.asks("run", SPEC, "--reuse-branch", "-q").code == 0
    told = user.asks("show", "--prompt").out
    assert ("Read `.storyloop/background.md`" in told, "US-002.txt (1 line" in told) == (True, False)
    assert "- US-002.txt (1 line" in user.asks("show", "--prompt", "--knowledge").out
    known = user.asks("show", "--knowledge", "--json").rows
    assert list(known["files"]) == ["US-001.txt", "US-002.txt", "US-003.txt", "US-009.txt"]
    assert [d["supersededBy"] for d in known["decisions"]] == ["US-002", "US-003", "US-009", None]
    user.has_a_spec("US-001", branch="feature/other")
    assert user.asks("run", SPEC, "-q").code == 0
    assert list(user.asks("show", "--knowledge", "--json").rows["files"]) == ["US-001.txt"]
