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
    asked = user.asks("show", "--prompt", "--story", "US-001").out
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
