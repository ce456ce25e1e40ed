"""The artifact codec: a good artifact becomes a value, a bad one becomes an error that a model can act on."""

import io
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storyloop.contracts.codec import decode, find_artifact, schema_path
from storyloop.core.artifacts import CommitMessage, DevelopmentResult
from storyloop.core.errors import ProgrammerError
from storyloop.core.facts import Malformed
from storyloop.core.knowledge import NotedDecision, NotedFile, NotedKnowledge, NotedPattern
from storyloop.core.policy import Drain
from storyloop.core.words import DevelopmentStatus
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
        "expected <status>, <summary>, <files-changed>, <next-steps>, <knowledge>",
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


def test_a_retry_is_shown_what_was_received_within_a_bound() -> None:
    """A malformed artifact keeps the beginning of its text, and its errors, however many there are."""
    files = "".join(f"<file>/{number}</file>" for number in range(1_500))
    decoded = decode(Drain.STORY, result(f"{PLAIN}<files-changed>{files}</files-changed>"))
    assert isinstance(decoded, Malformed)
    assert decoded.errors.splitlines()[-1] == "- and 1491 more"
    assert len(decoded.errors) <= 4_000
    assert decoded.text.startswith("<development-result><status>completed")
    assert len(decoded.text) == 8_000


def test_a_drain_without_a_schema_is_a_defect_of_ours() -> None:
    """Asking for an artifact that nobody has defined is not an agent's fault."""
    with pytest.raises(ProgrammerError):
        decode(Drain.PLAN, b"<plan/>")


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
    """Nothing an agent writes takes a second, or more than 4,000 characters to answer, or is believed."""
    started = time.process_time()
    errors = errors_of(text)
    assert time.process_time() - started < 1.0
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


@settings(max_examples=300, deadline=None)
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


# --- cost -------------------------------------------------------------------------------------------------


def test_decoding_takes_less_than_five_milliseconds() -> None:
    """A typical artifact costs a run nothing."""
    text = FULL.encode()
    decode(Drain.STORY, text)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        decode(Drain.STORY, text)
        best = min(best, time.perf_counter() - started)
    assert best < 0.005


def test_lxml_is_imported_when_there_is_something_to_decode() -> None:
    """Storyloop starts without it."""
    code = """
import sys, storyloop.contracts.codec, storyloop.contracts.prompts
print([name for name in ("lxml", "jinja2") if name in sys.modules])
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def test_the_schemas_agree_with_what_the_codec_accepts() -> None:
    """What is documented as a result is valid by the very file that agents are given."""
    from lxml import etree

    schema = etree.XMLSchema(etree.parse(schema_path(Drain.STORY)))
    assert schema.validate(etree.fromstring(FULL.encode()))
