"""The artifact codec: a good artifact becomes a value, a bad one becomes an error that a model can act on."""

import io
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from storyloop.contracts.codec import decode, find_artifact, schema_path
from storyloop.core.artifacts import (
    Analysis,
    Artifact,
    Asks,
    CommitMessage,
    ConflictResult,
    DevelopmentResult,
    FixResult,
    Issue,
    Issues,
    Judgement,
    Plan,
    PrText,
    Question,
    Ruling,
    Severity,
    Triage,
    Triaged,
)
from storyloop.core.facts import Answered, Malformed, Outcome
from storyloop.core.knowledge import NotedDecision, NotedFile, NotedKnowledge, NotedPattern
from storyloop.core.policy import Drain
from storyloop.core.spec import Criterion, Spec, Story
from storyloop.core.words import ConflictStatus, DevelopmentStatus, FixStatus
from storyloop.world.files import Unreadable, place_private, read_regular

FULL = """<?xml version="1.0" encoding="UTF-8"?>
<development-result>
  <knowledge>
    <file path="src/a.py" purpose="reads a &lt;spec&gt;"><symbol>parse</symbol><symbol>Spec</symbol></file>
    <decision topic="storage" choice="sqlite">one file</decision>
    <pattern example="src/a.py">errors are sentences</pattern>
  </knowledge>
  <next-steps>write the tests</next-steps>
  <status> partial </status>
  <files-changed><file>src/a.py</file><file>./src/b.py</file><file>src/a.py</file></files-changed>
  <summary>Half of it &amp; more.</summary>
</development-result>
"""
PLAN = """<plan>
  <user-stories>
    <story>
      <acceptance-criteria>
        <criterion><verify>pytest -q &amp;&amp; true</verify><text>It reads</text></criterion>
        <criterion>It writes</criterion>
      </acceptance-criteria>
      <id>US-001</id><title>Read</title>
    </story>
    <story>
      <depends-on><id>US-001</id></depends-on>
      <title>Write</title><id>US-002</id><priority>7</priority>
      <notes>Look at <![CDATA[src/<x>.py]]>.</notes><description>All of it.</description>
      <acceptance-criteria><criterion>It writes &lt;a&gt;</criterion></acceptance-criteria>
    </story>
  </user-stories>
  <title>Reports  as
    CSV</title>
  <description>Take reports out.</description>
</plan>
"""
# One valid artifact of each other drain, its children in no particular order, and the value that it is.
VALID: dict[str, tuple[Drain, str, Artifact]] = {
    "plan": (
        Drain.PLAN,
        PLAN,
        Plan(
            spec=Spec(
                project="Reports as CSV",
                branch_name="storyloop/reports-as-csv",
                title="Reports as CSV",
                description="Take reports out.",
                user_stories=(
                    Story(
                        id="US-001",
                        title="Read",
                        priority=1,
                        acceptance_criteria=(Criterion("It reads", "pytest -q && true"), Criterion("It writes")),
                    ),
                    Story(
                        id="US-002",
                        title="Write",
                        priority=7,
                        description="All of it.",
                        notes="Look at src/<x>.py.",
                        depends_on=("US-001",),
                        acceptance_criteria=(Criterion("It writes <a>"),),
                    ),
                ),
            )
        ),
    ),
    "analysis": (
        Drain.ANALYSIS,
        """<analysis>
        <criterion verdict="met" number="2" story="US-001">src/a.py:12 quotes</criterion>
        <criterion verdict="unmet" number="1" story="US-001">nothing reads</criterion>
        <criterion verdict="unknown" number="1" story="US-002"/></analysis>""",
        Analysis(
            judgements=(
                Judgement(story="US-001", number=2, ruling=Ruling.MET, evidence="src/a.py:12 quotes"),
                Judgement(story="US-001", number=1, ruling=Ruling.UNMET, evidence="nothing reads"),
                Judgement(story="US-002", number=1, ruling=Ruling.UNKNOWN, evidence=""),
            )
        ),
    ),
    "review": (
        Drain.REVIEW,
        """<issues><issue line=" 12 " file="./src/a.py" severity="blocker" story="US-001">loses a row</issue>
        <issue severity="minor">no changelog</issue></issues>""",
        Issues(
            found=(
                Issue(severity=Severity.BLOCKER, text="loses a row", file="src/a.py", line=12, story="US-001"),
                Issue(severity=Severity.MINOR, text="no changelog"),
            )
        ),
    ),
    "review without issues": (Drain.REVIEW, "<issues>\n <none/>\n</issues>", Issues()),
    "triage": (
        Drain.TRIAGE,
        """<triage><concern asks="question" number="2">It sorts by date.</concern>
        <concern number="1" asks="real">line 12 loses a row</concern></triage>""",
        Triage(
            concerns=(
                Triaged(number=2, asks=Asks.QUESTION, reason="It sorts by date."),
                Triaged(number=1, asks=Asks.REAL, reason="line 12 loses a row"),
            )
        ),
    ),
    "conflict": (
        Drain.CONFLICT,
        "<conflict-result><status>resolved</status><summary>Both.</summary></conflict-result>",
        ConflictResult(status=ConflictStatus.RESOLVED, summary="Both."),
    ),
    "fix": (
        Drain.FIX,
        "<fix-result><summary>Both.</summary><status>all_issues_addressed</status></fix-result>",
        FixResult(status=FixStatus.ALL_ISSUES_ADDRESSED, summary="Both."),
    ),
    "pr": (
        Drain.PR,
        "<pull-request><body>Why.\n\nHow.</body><title>Export\n  reports</title></pull-request>",
        PrText(title="Export reports", body="Why.\n\nHow."),
    ),
    "story with a question": (
        Drain.STORY,
        """<development-result><question default="SQLite">Which <option>SQLite</option>store
        <option>files</option><option>SQLite</option><option> </option></question><status>partial</status>
        <next-steps>Store it.</next-steps><summary>Read.</summary></development-result>""",
        DevelopmentResult(
            status=DevelopmentStatus.PARTIAL,
            summary="Read.",
            next_steps="Store it.",
            question=Question(text="Which store", default="SQLite", options=("SQLite", "files")),
        ),
    ),
}
PLAIN = "<status>completed</status><summary>Done.</summary>"


def result(inner: str) -> bytes:
    return f"<development-result>{inner}</development-result>".encode()


def errors_of(text: bytes, drain: Drain = Drain.STORY) -> str:
    decoded = decode(drain, text)
    assert isinstance(decoded, Malformed), decoded
    return decoded.errors


# --- good ones --------------------------------------------------------------------------------------------


def test_children_may_come_in_any_order() -> None:
    """Every child of a development result is read, wherever it stands."""
    assert decode(Drain.STORY, FULL.encode()) == DevelopmentResult(
        status=DevelopmentStatus.PARTIAL,
        summary="Half of it & more.",
        files_changed=("src/a.py", "src/b.py"),
        next_steps="write the tests",
        knowledge=NotedKnowledge(
            files=(NotedFile(path="src/a.py", purpose="reads a <spec>", symbols=("parse", "Spec")),),
            decisions=(NotedDecision(topic="storage", choice="sqlite", rationale="one file"),),
            patterns=(NotedPattern(description="errors are sentences", example_file="src/a.py"),),
        ),
    )


def test_a_completed_result_needs_no_more_than_a_summary() -> None:
    """Everything optional may be left out, or be empty."""
    done = DevelopmentResult(status=DevelopmentStatus.COMPLETED, summary="Done.")
    assert decode(Drain.STORY, result(PLAIN)) == done
    assert decode(Drain.STORY, result(PLAIN + "<files-changed/><next-steps> </next-steps><knowledge/>")) == done


@pytest.mark.parametrize(("drain", "text", "value"), VALID.values(), ids=VALID)
def test_every_drain_has_its_artifact(drain: Drain, text: str, value: Artifact) -> None:
    """Whatever the order of its children, it becomes the value that it says."""
    assert decode(drain, text.encode()) == value


@pytest.mark.parametrize("value", [value for _, _, value in VALID.values()], ids=VALID)
def test_an_artifact_in_the_journal_is_the_same_when_it_is_read(value: Artifact) -> None:
    """Each is told from the others, in an outcome as well as by itself."""
    told = Answered(artifact=value)
    assert msgspec.json.decode(msgspec.json.encode(told), type=Outcome) == told


def test_a_commit_message_has_a_subject_of_one_line() -> None:
    """A subject that was broken over lines is one line again; the body keeps its lines."""
    text = b"<commit-message><body>why\n\nand how</body><subject>Read\n   the spec</subject></commit-message>"
    assert decode(Drain.COMMIT, text) == CommitMessage(subject="Read the spec", body="why\n\nand how")


@pytest.mark.parametrize(
    "wrapped",
    [
        b"\xef\xbb\xbf" + result(PLAIN),
        b"```xml\n" + result(PLAIN) + b"\n```\n",
        b"\n\n  " + result(PLAIN) + b"\n",
        b"\xef\xbb\xbf```\n\n<?xml version='1.0' encoding='latin-1'?>" + result(PLAIN) + b"```",
        b"<!-- here it is -->" + result(PLAIN) + b"<?done?>",
        b'<development-result xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        b'xsi:noNamespaceSchemaLocation="x.xsd">' + PLAIN.encode() + b"</development-result>",
    ],
    ids=["byte order mark", "fence", "blank ends", "all of it", "comments", "schema location"],
)
def test_what_stands_around_an_artifact_does_not_spoil_it(wrapped: bytes) -> None:
    """A byte order mark, a markdown fence, comments and a schema location are no part of the artifact."""
    assert decode(Drain.STORY, wrapped) == DevelopmentResult(status=DevelopmentStatus.COMPLETED, summary="Done.")


@pytest.mark.parametrize(
    ("knowledge", "read"),
    [
        ("<knowledge>free text</knowledge>", None),
        ("<knowledge version='2'><file/><decision topic='t'>no choice</decision><odd/></knowledge>", None),
        ("<knowledge><file path='/etc/passwd'/><file path='../up'/></knowledge>", None),
        ("<knowledge>a & b <file path='a'></knowledge>", None),
        (
            "<knowledge><pattern example='/abs'>kept</pattern></knowledge><knowledge><file path='b'/></knowledge>",
            NotedKnowledge(files=(NotedFile(path="b"),), patterns=(NotedPattern(description="kept"),)),
        ),
    ],
    ids=["text", "unknown words", "outside", "not XML", "twice"],
)
def test_malformed_knowledge_never_spoils_a_result(knowledge: str, read: NotedKnowledge | None) -> None:
    """What is wrong inside <knowledge> is left out; the rest of the result stands."""
    decoded = decode(Drain.STORY, result(PLAIN + knowledge))
    assert decoded == DevelopmentResult(status=DevelopmentStatus.COMPLETED, summary="Done.", knowledge=read)


def test_much_knowledge_is_kept_in_part() -> None:
    """The first 200 of each kind: too much of a gift spoils nothing either."""
    files = "".join(f"<file path='f{number}' purpose='p'/>" for number in range(1_000))
    decisions = "".join(f"<decision topic='t{number}' choice='c'/>" for number in range(500))
    decoded = decode(Drain.STORY, result(f"{PLAIN}<knowledge>{files}{decisions}</knowledge>"))
    assert isinstance(decoded, DevelopmentResult)
    assert decoded.knowledge is not None
    assert [file.path for file in decoded.knowledge.files] == [f"f{number}" for number in range(200)]
    assert [noted.topic for noted in decoded.knowledge.decisions] == [f"t{number}" for number in range(200)]


def test_what_a_terminal_obeys_is_taken_out_of_text() -> None:
    """C1 controls and returned carriages do not reach a person's screen through a summary."""
    decoded = decode(Drain.STORY, result("<status>completed</status><summary>a&#x9b;2Jb&#13;c\td</summary>"))
    assert isinstance(decoded, DevelopmentResult)
    assert decoded.summary == "a2Jbc\td"


def test_texts_are_bounded() -> None:
    """A long summary is kept as its beginning, so that no artifact fills the journal."""
    decoded = decode(Drain.STORY, result(f"<status>completed</status><summary>{'x' * 100_000}</summary>"))
    assert isinstance(decoded, DevelopmentResult)
    assert decoded.summary == "x" * 7_999 + "…"


# --- bad ones ---------------------------------------------------------------------------------------------

BAD = {
    "unknown status": (
        "\n<status>done</status><summary>s</summary>",
        "- line 2, <status>: found 'done'; expected one of completed, partial, failed",
    ),
    "no status": ("<summary>s</summary>", "- line 1, <development-result>: expected also <status>"),
    "nothing": ("", "- line 1, <development-result>: expected also <status>, <summary>"),
    "twice": (PLAIN + "<summary>s</summary>", "- line 1, <summary>: it stands here twice; expected it once"),
    "unknown element": (
        PLAIN + "\n\n<notes/>",
        "- line 3, <notes>: it is not allowed in <development-result>; "
        "expected <status>, <summary>, <files-changed>, <next-steps>, <question>, <knowledge>",
    ),
    "unknown element in the second list entry": (
        PLAIN + "<files-changed><file>a</file><path>b</path></files-changed>",
        "- line 1, <path>: it is not allowed in <files-changed>; expected <file>",
    ),
    "text where elements belong": (
        PLAIN + "<files-changed>a.py, b.py</files-changed>",
        "- line 1, <files-changed>: it holds text of its own; expected only <file>",
    ),
    "elements where text belongs": (
        "<status>completed</status><summary>a <b>big</b> change</summary>",
        "- line 1, <summary>: it holds elements; expected text only (in text, write < as &lt; and & as &amp;)",
    ),
    "an attribute": (
        "<status sure='1'>completed</status><summary>s</summary>",
        "- line 1, <status>: it has an attribute 'sure'; expected none",
    ),
    "ampersand": (
        "<status>completed</status><summary>a & b</summary>",
        "- line 1: an & that starts no entity; expected &amp;",
    ),
    "less than": (
        "<status>completed</status>\n<summary>a < b</summary>",
        "- line 2: a < that starts no tag; expected &lt;",
    ),
    "HTML entity": (
        "<status>completed</status><summary>a&nbsp;b</summary>",
        "- line 1: Entity 'nbsp' not defined; expected only &amp; &lt; &gt; &quot; &apos;",
    ),
    "wrong closing tag": (
        "<status>completed</status><summary>s</status>",
        "- line 1: </status> stands where <summary> is open; expected </summary> "
        "(in text, write < as &lt; and & as &amp;)",
    ),
    "open CDATA": (
        "<status>completed</status><summary><![CDATA[s</summary>",
        "- line 1: a <![CDATA[ without its end; expected ]]>",
    ),
    "control character": (
        "<status>completed</status><summary>\x08</summary>",
        "- line 1: a control character; expected none",
    ),
    "blank summary": (
        "<status>completed</status><summary> \n </summary>",
        "- line 1, <summary>: it is blank; expected what was done, in a few sentences",
    ),
    "failed without next steps": (
        "<status>failed</status><summary>s</summary><next-steps>\t</next-steps>",
        "- line 1, <next-steps>: it is missing or blank; "
        "expected what remains to be done, because the status is failed",
    ),
}


@pytest.mark.parametrize(("inner", "told"), BAD.values(), ids=BAD)
def test_an_error_names_line_element_and_what_was_expected(inner: str, told: str) -> None:
    """Each common mistake of a model is answered with how to mend it."""
    assert errors_of(result(inner)) == told


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/a.py", "a/../../b", "~/a.py", ".", "", "a\nb", "x" * 1_001])
def test_a_changed_file_lies_inside_the_worktree(path: str) -> None:
    """Paths that leave the worktree, or name none, are refused."""
    errors = errors_of(result(f"{PLAIN}<files-changed><file>{path}</file></files-changed>"))
    assert "expected a path relative to the worktree's root that stays inside it" in errors


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "- the artifact is empty; expected <development-result>"),
        (b"```\n```", "- the artifact is empty; expected <development-result>"),
        (b"All done!", "- line 1: text that is not XML; expected <development-result> and nothing before it"),
        (b"<result/>", "- line 1: the root is <result>; expected <development-result>, without a namespace"),
        (
            b"<development-result xmlns='urn:x'/>",
            "- line 1: the root is <{urn:x}development-result>; expected <development-result>, without a namespace",
        ),
        (
            result(PLAIN) + b"\nI hope this helps.",
            "- line 2: something follows the root element; expected nothing after </development-result>",
        ),
        (
            b"<development-result>\n<status>completed</status>",
            "- line 2: the text ends too early; expected </development-result> at its end",
        ),
        (b"<development-result>\n\xff", "- line 2: a byte that is not UTF-8; expected text in UTF-8"),
        (PLAIN.encode("utf-16"), "- line 1: a byte that is not UTF-8; expected text in UTF-8"),
    ],
    ids=["empty", "empty fence", "prose", "other root", "namespace", "words after", "cut off", "not UTF-8", "UTF-16"],
)
def test_a_text_that_is_no_such_document_is_told_so(text: bytes, told: str) -> None:
    """Whatever an agent writes instead of an artifact, the answer is a sentence."""
    assert errors_of(text) == told


def test_lines_are_those_of_the_file_that_the_agent_wrote() -> None:
    """A fence and blank lines before the artifact are counted."""
    wrapped = b"\n```xml\n\n" + result("\n<status>done</status><summary>s</summary>") + b"\n```"
    assert errors_of(wrapped).startswith("- line 5, <status>")


def test_the_first_complaint_stands_when_the_knowledge_was_not_to_blame() -> None:
    """Leaving the knowledge out to save the rest does not change what is said of the rest."""
    text = result("<knowledge>\n\n</knowledge>\n<status>completed</status><summary>a & b</summary>")
    assert errors_of(text) == "- line 4: an & that starts no entity; expected &amp;"


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        ("<subject> </subject>", "- line 1, <subject>: it is empty; expected text"),
        ("<subject>...</subject>", "- line 1, <subject>: it holds no word; expected what changed, in one line"),
        (f"<subject>{'x' * 201}</subject>", "- line 1, <subject>: it is too long; expected at most 200 characters"),
        ("<body>b</body>", "- line 1, <commit-message>: expected also <subject>"),
        (
            "<subject>s</subject><body>b\n storyloop-effect : x</body>",
            "- line 1, <body>: a line begins with 'Storyloop-'; expected no trailer of ours",
        ),
        (
            "<subject>s</subject><knowledge/>",
            "- line 1, <knowledge>: it is not allowed in <commit-message>; expected <subject>, <body>",
        ),
    ],
    ids=["blank", "placeholder", "long", "missing", "our trailers", "knowledge"],
)
def test_a_commit_message_cannot_say_what_is_ours_to_say(inner: str, told: str) -> None:
    """The subject is a line of words, and our trailers cannot be forged through the message."""
    assert errors_of(f"<commit-message>{inner}</commit-message>".encode(), Drain.COMMIT) == told


def plan(*stories: str) -> str:
    return f"<plan><title>t</title>\n<user-stories>\n{chr(10).join(stories)}\n</user-stories></plan>"


def story(story_id: str, more: str = "", criteria: str = "<criterion>c</criterion>") -> str:
    criteria = f"<acceptance-criteria>{criteria}</acceptance-criteria>"
    return f"<story><id>{story_id}</id><title>t</title>{criteria}{more}</story>"


def criterion(number: object, verdict: str, text: str) -> str:
    return f'<criterion story="US-001" number="{number}" verdict="{verdict}">{text}</criterion>'


QUESTION = "<question default='a'>Which?</question>"
BAD_OF_OTHERS = {
    "review: neither issues nor none": (
        Drain.REVIEW,
        "<issues/>",
        "- line 1, <issues>: expected also <none> or <issue>",
    ),
    "review: none beside issues": (
        Drain.REVIEW,
        "<issues><issue severity='major'>x</issue>\n<none/></issues>",
        "- line 2, <none>: it stands beside others; expected <none> or <issue>, not both",
    ),
    "review: issues beside none": (
        Drain.REVIEW,
        "<issues><none/><issue severity='major'>x</issue></issues>",
        "- line 1, <issue>: it stands beside others; expected <none> or <issue>, not both",
    ),
    "review: none that says something": (
        Drain.REVIEW,
        "<issues><none>really</none></issues>",
        "- line 1, <none>: it holds something; expected it empty",
    ),
    "review: severity": (
        Drain.REVIEW,
        "<issues><issue severity='minor'>x</issue>\n<issue severity='critical'>x</issue></issues>",
        "- line 2, <issue>, severity: found 'critical'; expected one of blocker, major, minor",
    ),
    "review: no severity": (
        Drain.REVIEW,
        "<issues><issue>x</issue></issues>",
        "- line 1, <issue>: it lacks the attribute 'severity'; expected it: blocker | major | minor",
    ),
    "review: line": (
        Drain.REVIEW,
        "<issues><issue severity='major' file='a' line='12-14'>x</issue></issues>",
        "- line 1, <issue>, line: found '12-14'; expected a whole number from 1",
    ),
    "review: line 0": (
        Drain.REVIEW,
        "<issues><issue severity='major' file='a' line='0'>x</issue></issues>",
        "- line 1, <issue>, line: found '0'; expected a whole number from 1",
    ),
    "review: a line of digits": (
        Drain.REVIEW,
        f"<issues><issue severity='major' file='a' line='{'9' * 5_000}'>x</issue></issues>",
        f"- line 1, <issue>, line: found '{'9' * 100}'; expected a whole number from 1",
    ),
    "review: a line of no file": (
        Drain.REVIEW,
        "<issues><issue severity='major' line='1'>x</issue></issues>",
        "- line 1, <issue>: it has a line and no file; expected also the file",
    ),
    "review: outside": (
        Drain.REVIEW,
        "<issues><issue severity='major' file='/etc/passwd'>x</issue></issues>",
        "- line 1, <issue>: found '/etc/passwd'; expected a path relative to the worktree's root that stays inside it",
    ),
    "review: blank": (
        Drain.REVIEW,
        "<issues><issue severity='major'> </issue></issues>",
        "- line 1, <issue>: it is blank; expected what is wrong, and what would be right",
    ),
    "review: elements in an issue": (
        Drain.REVIEW,
        "<issues><issue severity='major'>a <b>b</b></issue></issues>",
        "- line 1, <issue>: it holds elements; expected text only (in text, write < as &lt; and & as &amp;)",
    ),
    "review: unknown attribute": (
        Drain.REVIEW,
        "<issues><issue severity='major' category='x'>a</issue></issues>",
        "- line 1, <issue>: it has an attribute 'category'; expected severity, file, line, story",
    ),
    "review: too many": (
        Drain.REVIEW,
        "<issues>" + "<issue severity='minor'>x</issue>" * 201 + "</issues>",
        "- line 1, <issues>: expected at most 200 of them, the worst first",
    ),
    "fix: status": (
        Drain.FIX,
        "<fix-result><status>fixed</status><summary> </summary></fix-result>",
        "- line 1, <status>: found 'fixed'; "
        "expected one of all_issues_addressed, issues_remain, no_issues_found, failed",
    ),
    "fix: blank summary": (
        Drain.FIX,
        "<fix-result><status>failed</status><summary> </summary></fix-result>",
        "- line 1, <summary>: it is blank; expected what was done, in a few sentences",
    ),
    "pr: placeholders": (
        Drain.PR,
        "<pull-request><title>...</title><body>...</body></pull-request>",
        "- line 1, <body>: it holds no word; expected what changes and why, for a reviewer\n"
        "- line 1, <title>: it holds no word; expected what changed, in one line",
    ),
    "pr: our trailers": (
        Drain.PR,
        "<pull-request><title>t</title><body>b\nStoryloop-Run: x</body></pull-request>",
        "- line 1, <body>: a line begins with 'Storyloop-'; expected no trailer of ours",
    ),
    "pr: no body": (
        Drain.PR,
        "<pull-request><title>t</title></pull-request>",
        "- line 1, <pull-request>: expected also <body>",
    ),
    "analysis: nothing": (Drain.ANALYSIS, "<analysis/>", "- line 1, <analysis>: expected also <criterion>"),
    "analysis: twice": (
        Drain.ANALYSIS,
        f"<analysis>{criterion(1, 'met', 'a.py:1')}\n{criterion(1, 'unknown', '')}</analysis>",
        "- line 2, <criterion>: criterion 1 of US-001 stands here twice; expected it once",
    ),
    "analysis: met without a place": (
        Drain.ANALYSIS,
        f"<analysis>{criterion(1, 'met', 'I am sure: it works')}</analysis>",
        "- line 1, <criterion>: it names no place; expected file and line, as in src/a.py:12, and what stands there",
    ),
    "analysis: unmet without a word": (
        Drain.ANALYSIS,
        f"<analysis>{criterion(1, 'unmet', ' ')}</analysis>",
        "- line 1, <criterion>: it is blank; expected what is missing or wrong",
    ),
    "analysis: verdict and number": (
        Drain.ANALYSIS,
        f"<analysis>{criterion('one', 'yes', 'a.py:1')}</analysis>",
        "- line 1, <criterion>, number: found 'one'; expected a whole number from 1\n"
        "- line 1, <criterion>, verdict: found 'yes'; expected one of met, unmet, unknown",
    ),
    "plan: no stories": (
        Drain.PLAN,
        "<plan><title>t</title></plan>",
        "- line 1, <plan>: expected also <user-stories>",
    ),
    "plan: a story without criteria": (
        Drain.PLAN,
        plan(story("US-001"), "<story><id>US-002</id><title>t</title></story>"),
        "- line 4, <story>: expected also <acceptance-criteria>",
    ),
    "plan: a blank criterion": (
        Drain.PLAN,
        plan(story("US-001", criteria="\n<criterion> </criterion>")),
        "- line 4, <criterion>: Criterion 1 of story US-001 is empty. "
        "Write one sentence that can be proven, or take it out.",
    ),
    "plan: what a spec file may not say": (
        Drain.PLAN,
        plan(
            story("US-001", "\n<depends-on><id>US-009</id></depends-on>"),
            story("1"),
            story("US-001"),
            story("US-002", "<depends-on><id>US-003</id></depends-on>"),
            story("US-003", "<depends-on>\n<id>US-002</id></depends-on>"),
        ),
        "- line 5, <id>: Story 1 has an id that cannot be used. "
        "Use letters, digits, '.', '_' and '-': a letter first, a letter or digit last.\n"
        "- line 6, <story>: There are two stories US-001. Give each story an id of its own.\n"
        '- line 4, <id>: Story US-001 depends on "US-009", which no story is. '
        "Write the id of a story of this file, or take it out.\n"
        "- line 7, <id>: These stories wait for each other: US-002 -> US-003 -> US-002. "
        "Take one of these dependencies out.",
    ),
    "plan: branch": (
        Drain.PLAN,
        plan(story("US-001")).replace("\n", "<branch-name>\na b</branch-name>\n", 1),
        '- line 1, <branch-name>: The spec cannot have the branch "a b": it contains a space or one of ~^:?*[\\. '
        'Write one such as "feature/login".',
    ),
    "plan: it says that a story has passed": (
        Drain.PLAN,
        plan(story("US-001", "<passes>true</passes>")),
        "- line 3, <passes>: it is not allowed in <story>; "
        "expected <id>, <title>, <description>, <acceptance-criteria>, <priority>, <notes>, <depends-on>",
    ),
    "plan: priority": (
        Drain.PLAN,
        plan(story("US-001", "<priority>high</priority>")),
        "- line 3, <priority>: found 'high'; expected a whole number from 0",
    ),
    "plan: too many stories": (
        Drain.PLAN,
        plan(*(story(f"US-{number}") for number in range(101))),
        "- line 2, <user-stories>: it has 101 stories; expected at most 100",
    ),
    "plan: too many criteria": (
        Drain.PLAN,
        plan(story("US-001", criteria="<criterion>c</criterion>" * 21)),
        "- line 3, <acceptance-criteria>: it has 21 criteria; expected at most 20",
    ),
    "triage: one twice, and blank": (
        Drain.TRIAGE,
        "<triage><concern number='1' asks='real'>r</concern>\n"
        "<concern number='1' asks='no-action'> </concern></triage>",
        "- line 2, <concern>: concern 1 stands here twice; expected it once\n"
        "- line 2, <concern>: it is blank; expected the reason, or the answer to the question",
    ),
    "triage: a word that is none": (
        Drain.TRIAGE,
        "<triage><concern number='1' asks='fix'>r</concern></triage>",
        "- line 1, <concern>, asks: found 'fix'; expected one of real, suggestion, question, no-action",
    ),
    "question: blank": (
        Drain.STORY,
        "<development-result><question default=''> <option>a</option></question><status>partial</status>"
        "<summary>s</summary><next-steps>n</next-steps></development-result>",
        "- line 1, <question>: it is blank; expected what is to be decided\n"
        "- line 1, <question>: its default is blank; expected what you would do if nobody answers",
    ),
    "question: without a default": (
        Drain.STORY,
        "<development-result><question>Which?</question><status>partial</status>"
        "<summary>s</summary><next-steps>n</next-steps></development-result>",
        "- line 1, <question>: it lacks the attribute 'default'; expected it",
    ),
    "question: when all is done": (
        Drain.STORY,
        f"<development-result>{QUESTION}{PLAIN}</development-result>",
        "- line 1, <question>: it stands beside the status completed; expected partial, while a decision is open",
    ),
    "an attribute of the root": (
        Drain.STORY,
        f"<development-result version='1'>{PLAIN}</development-result>",
        "- line 1, <development-result>: it has an attribute 'version'; expected none",
    ),
    "question: two": (
        Drain.STORY,
        f"<development-result>{QUESTION * 2}<status>partial</status>"
        "<summary>s</summary><next-steps>n</next-steps></development-result>",
        "- line 1, <question>: it stands here twice; expected it once",
    ),
}


@pytest.mark.parametrize(("drain", "text", "told"), BAD_OF_OTHERS.values(), ids=BAD_OF_OTHERS)
def test_every_drain_says_what_it_expected(drain: Drain, text: str, told: str) -> None:
    """Line, element and expectation, where the schema knows better and where only we do."""
    assert errors_of(text.encode(), drain) == told


@pytest.mark.parametrize("name", [name for name in VALID if name != "story with a question"])
def test_an_artifact_of_one_drain_is_none_of_another(name: str) -> None:
    """An agent that answers what it was not asked is told what it owes."""
    drain, text, _ = VALID[name]
    assert "expected <development-result>" in errors_of(text.encode())
    owed = Drain.FIX if drain is not Drain.FIX else Drain.REVIEW
    assert isinstance(decode(owed, text.encode()), Malformed)


def test_a_retry_is_shown_what_was_received_within_a_bound() -> None:
    """A malformed artifact keeps the beginning of its text, and its errors, however many there are."""
    files = "".join(f"<file>/{number}</file>" for number in range(1_500))
    decoded = decode(Drain.STORY, result(f"{PLAIN}<files-changed>{files}</files-changed>"))
    assert isinstance(decoded, Malformed)
    assert decoded.errors.splitlines()[-1] == "- and 1491 more"
    assert len(decoded.errors) <= 4_000
    assert decoded.text.startswith("<development-result><status>completed")
    assert len(decoded.text) == 8_000


# --- hostile ones -----------------------------------------------------------------------------------------

ENTITIES = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 20))
HOSTILE = {
    "doctype": b"<!DOCTYPE development-result>" + result(PLAIN),
    "external entity": b"<?xml version='1.0'?>\n<!-- a --><!DOCTYPE r [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
    + result("<status>completed</status><summary>&x;</summary>"),
    "billion laughs": f"<!DOCTYPE r [<!ENTITY e0 'ha'>{ENTITIES}]>".encode() + result("<summary>&e19;</summary>"),
    "lower-case doctype": b"<!doctype x>" + result(PLAIN),
    "a prolog of comments": b"<!---->" * 14_000 + b"<!DOCTYPE x>" + result(PLAIN),
    "a prolog of comments without a DOCTYPE": b"<!---->" * 14_000 + b"<result/>",
    "an endless comment": b"<!-- " * 15_000,
    "too many bytes": result(f"<summary>{'x' * (1 << 20)}</summary>"),
    "too many tags": b"<a/>" * 250_000,
    "too many of our own tags": result("<files-changed>" + "<file/>" * 15_000 + "</files-changed>"),
    "too many attributes": b"<development-result " + b" ".join(b"a%d=''" % n for n in range(80_000)) + b"/>",
    "attributes everywhere": result("<files-changed>" + "<file a='' b='' c=''/>" * 9_000 + "</files-changed>"),
    "a deep nest": b"<development-result>" * 10_000,
    "a deep nest in the knowledge": result("<knowledge>" + "<a>" * 9_000 + "</knowledge>"),
    "a long name": b"<development-result><" + b"x" * 900_000 + b"/></development-result>",
    "long names that do not match": b"<" + b"x" * 9_000 + b"></" + b"y" * 9_000 + b">",
    "ampersands": result("&" * 900_000),
    "NUL": result("<summary>\0</summary>"),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_artifact_is_refused_soon_and_in_few_words(text: bytes) -> None:
    """Nothing an agent writes takes for ever, or more than 4,000 characters to answer, or is believed."""
    errors = errors_of(text)
    assert 0 < len(errors) <= 4_000


def test_a_doctype_is_refused_before_it_is_parsed() -> None:
    """No entity is ever expanded and no file ever opened, because the parser does not see them."""
    assert {name for name in HOSTILE if errors_of(HOSTILE[name]) == "- the artifact has a DOCTYPE; expected none"} == {
        "doctype",
        "external entity",
        "billion laughs",
        "lower-case doctype",
        "a prolog of comments",
    }


def test_a_doctype_in_a_text_is_only_text() -> None:
    """A summary may speak of HTML."""
    decoded = decode(Drain.STORY, result("<status>completed</status><summary><![CDATA[<!DOCTYPE html>]]></summary>"))
    assert isinstance(decoded, DevelopmentResult)
    assert decoded.summary == "<!DOCTYPE html>"


def test_an_artifact_cannot_make_us_open_a_file(tmp_path: Path) -> None:
    """A schema location is not followed; one that names a FIFO would block us for ever."""
    os.mkfifo(tmp_path / "fifo")
    text = (
        '<development-result xmlns:x="http://www.w3.org/2001/XMLSchema-instance" '
        f'x:noNamespaceSchemaLocation="{tmp_path}/fifo" x:schemaLocation="urn:x {tmp_path}/fifo">{PLAIN}'
        "</development-result>"
    )
    assert isinstance(decode(Drain.STORY, text.encode()), DevelopmentResult)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *("<development-result>", "</development-result>", "<status>", "</status>", "completed", "<summary>"),
                *("</summary>", "<x:y>", "<knowledge>", "</knowledge>", "<file path='a'>", "</file>", "&", "&#0;"),
                *("<![CDATA[", "]]>", "<!--", "-->", "<?xml version='1.0'?>", "```", "'", '"', "\n", "é", "\x1b"),
                "<!DOCTYPE ",
            ]
        )
        | st.text(max_size=5),
        max_size=20,
    )
)
@example(["<status a='", "x" * 5_000, "'/>"])
def test_decoding_never_fails(parts: list[str]) -> None:
    """Whatever is written, the answer is a value or an error, never an exception."""
    text = "".join(parts).encode("utf-8", "surrogatepass")
    for drain in (Drain.STORY, Drain.COMMIT):
        decoded = decode(drain, text)
        assert isinstance(decoded, DevelopmentResult | CommitMessage) or decoded.errors


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(VALID)), st.data())
def test_decoding_never_fails_on_what_is_nearly_right(name: str, data: st.DataObject) -> None:
    """Tags, attributes and words of a valid artifact, some of them lost, doubled or exchanged."""
    drain, text, value = VALID[name]
    parts = re.split(r"""(<[^>]*>|"[^"]*"|\s)""", text)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(parts) - 1))
        other = st.sampled_from([*parts, "", "<none/>", "<x:y xmlns:x='u'/>", ' line="0"', "<id>a</id>", "99999999999"])
        parts[at] = data.draw(other) + parts[at] * data.draw(st.integers(0, 2))
    decoded = decode(drain, "".join(parts).encode())
    assert isinstance(decoded, type(value)) or (isinstance(decoded, Malformed) and decoded.errors)


# --- finding one in an output -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (b"", None),
        (b"no artifact here </development-result>", None),
        (b"<development-results></development-results>", None),
        (b"one <development-result>1</development-result> two <development-result >2</development-result>.", "2"),
        (b"```xml\n<development-result>\n3</development-result>\n```\nDone.", "\n3"),
        (b"I will write a <development-result> now: <development-result>4</development-result>", "4"),
        (b"\xff\xfe\0<development-result>5</development-result>\0\xff", "5"),
        (b"<development-result>6</development-result> <development-result>cut o", "6"),
    ],
)
def test_the_last_element_of_an_output_is_the_artifact(output: bytes, found: str | None) -> None:
    """Prose, fences, garbage and earlier drafts around it do not matter."""
    text = find_artifact(Drain.STORY, io.BytesIO(output))
    assert (text and text.decode().partition(">")[2].removesuffix("</development-result>")) == found


@pytest.mark.parametrize("after", range((1 << 20) - 21, (1 << 20) + 2))
def test_an_artifact_is_found_wherever_a_chunk_ends(after: int) -> None:
    """The closing tag may be cut by the border between two reads at any of its letters."""
    output = b"x" * 1000 + result(PLAIN) + b"\n" * after
    assert find_artifact(Drain.STORY, io.BytesIO(output)) == result(PLAIN)


def test_finding_takes_little_memory_in_a_large_output(tmp_path: Path) -> None:
    """An output of any size is searched in constant memory; here a sparse file of 256 MiB."""
    spool = tmp_path / "stdout"
    with spool.open("wb") as file:
        file.write(result(PLAIN))
        file.truncate(256 << 20)
    tracemalloc.start()
    try:
        with spool.open("rb") as file:
            assert find_artifact(Drain.STORY, file) == result(PLAIN)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# --- reading files that an agent has touched ----------------------------------------------------------------


def test_only_an_ordinary_file_is_read(tmp_path: Path) -> None:
    """A symlink, a FIFO, a directory and an oversized file are each refused with a sentence, none is followed."""
    secret = tmp_path / "secret"
    secret.write_text("s")
    place = tmp_path / ".storyloop"
    place.mkdir()
    (place / "file").write_text("text")
    (place / "link").symlink_to(secret)
    os.mkfifo(place / "fifo")
    (place / "directory").mkdir()
    assert read_regular(place / "file", 4) == b"text"
    assert read_regular(place / "none", 4) is None
    assert read_regular(tmp_path / "no-directory" / "file", 4) is None
    assert read_regular(place / "file", 3) == Unreadable("file is larger than 3 bytes.")
    assert read_regular(place / "fifo", 9) == Unreadable("fifo is not an ordinary file.")
    assert read_regular(place / "directory", 9) == Unreadable("directory is not an ordinary file.")
    assert read_regular(place / "link", 9) == Unreadable(
        "link is a symlink, or its directory is not an ordinary directory."
    )


def test_a_symlink_in_place_of_our_directory_is_not_followed(tmp_path: Path) -> None:
    """An agent that swaps `.storyloop` for a symlink does not make us read or write elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("text")
    worktree = tmp_path / "worktree"
    worktree.mkdir()
    (worktree / ".storyloop").symlink_to(elsewhere)
    assert isinstance(read_regular(worktree / ".storyloop" / "file", 9), Unreadable)
    place_private(worktree, "file", b"new")
    assert (elsewhere / "file").read_text() == "text"
    assert (worktree / ".storyloop" / "file").read_bytes() == b"new"
    assert (worktree / ".storyloop" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("obstacle", ["symlink", "directory", "file at .storyloop", "no access"])
def test_a_file_of_ours_is_placed_whatever_stands_there(tmp_path: Path, obstacle: str) -> None:
    """What an agent put in our way is moved out of it, and what it points at is left alone."""
    private = tmp_path / ".storyloop"
    target = tmp_path / "target"
    target.write_text("kept")
    if obstacle == "file at .storyloop":
        private.write_text("x")
    else:
        private.mkdir()
        if obstacle == "symlink":
            (private / "note.md").symlink_to(target)
            (private / "note.md.new").symlink_to(target)
        elif obstacle == "directory":
            (private / "note.md" / "deep").mkdir(parents=True)
        else:
            private.chmod(0)
    place_private(tmp_path, "note.md", b"ours")
    assert (private / "note.md").read_bytes() == b"ours"
    assert target.read_text() == "kept"


# --- the library ------------------------------------------------------------------------------------------


def test_schemas_are_compiled_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents may answer at the same moment; libxml2 dies where two threads compile the first schema of a process."""
    compiled = etree.XMLSchema
    busy = threading.Lock()

    def alone(schema: Any) -> Any:
        assert busy.acquire(blocking=False)
        time.sleep(0.02)
        busy.release()
        return compiled(schema)

    monkeypatch.setattr(etree, "XMLSchema", alone)
    with ThreadPoolExecutor(4) as agents:
        read = list(agents.map(lambda _: decode(Drain.STORY, FULL.encode()), range(4)))
    assert all(isinstance(value, DevelopmentResult) for value in read)


def test_lxml_is_imported_when_there_is_something_to_decode() -> None:
    """Storyloop starts without it."""
    code = """
import sys, storyloop.contracts.codec, storyloop.contracts.prompts
print([name for name in ("lxml", "jinja2") if name in sys.modules])
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


@pytest.mark.parametrize(
    ("drain", "text"),
    [(Drain.STORY, FULL), *((drain, text) for drain, text, _ in VALID.values())],
    ids=["story", *VALID],
)
def test_the_schemas_agree_with_what_the_codec_accepts(drain: Drain, text: str) -> None:
    """What is documented as a result is valid by the very file that agents are given."""
    from lxml import etree

    schema = etree.XMLSchema(etree.parse(schema_path(drain)))
    assert schema.validate(etree.fromstring(text.encode()))
