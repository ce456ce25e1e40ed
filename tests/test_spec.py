"""Specs: what can be read, what is refused and how, what survives a round trip, and which story is next."""

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storyloop.core.branch import branch_fault, default_branch
from storyloop.core.errors import UserError
from storyloop.core.spec import Criterion, Problem, Spec, SpecErrors, Story, ready
from storyloop.core.spec_file import MAX_SPEC_BYTES, dump_spec, parse_spec
from storyloop.core.spec_text import dump_markdown

CASES = Path(__file__).parent / "specs"
DOCUMENTATION = Path(__file__).parents[1] / "docs" / "spec.md"
STORY = "# T\n## User Stories\n### US-001: One\n**Acceptance Criteria:**\n- [ ] First\n"


def parsed(text: str | bytes, name: str = "spec.md") -> Spec:
    spec = parse_spec(text if isinstance(text, bytes) else text.encode(), name=name)
    assert isinstance(spec, Spec)
    return spec


def refused(text: str | bytes, name: str = "spec.md") -> tuple[Problem, ...]:
    with pytest.raises(SpecErrors) as raised:
        parse_spec(text if isinstance(text, bytes) else text.encode(), name=name)
    return raised.value.problems


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", sorted((CASES / "good").glob("*.*.json")), ids=lambda path: path.stem)
def test_a_good_file_is_read_as_written_down_beside_it(case: Path) -> None:
    """Each file in specs/good reads as the canonical JSON next to it."""
    file = case.with_suffix("")
    canonical = dump_spec(parsed(file.read_bytes(), file.name))
    assert msgspec.json.decode(canonical) == msgspec.json.decode(case.read_bytes())


@pytest.mark.parametrize("case", sorted((CASES / "bad").glob("*.txt")), ids=lambda path: path.stem)
def test_a_bad_file_is_refused_with_every_problem_in_the_order_of_the_file(case: Path) -> None:
    """Each file in specs/bad is refused with exactly the sentences next to it."""
    file = case.with_suffix("")
    with pytest.raises(SpecErrors) as raised:
        parse_spec(file.read_bytes(), name=file.name)
    assert str(raised.value) == case.read_text().rstrip("\n")


def test_both_examples_of_the_documentation_can_be_run() -> None:
    """The Markdown and the JSON of docs/spec.md are specs, and tell the same first story."""
    blocks = dict(re.findall(r"^```(markdown|json)\n(.*?)^```", DOCUMENTATION.read_text(), re.DOTALL | re.MULTILINE))
    markdown, json = parsed(blocks["markdown"]), parsed(blocks["json"], "spec.json")
    assert [story.id for story in markdown.user_stories] == ["US-001", "US-002"]
    assert markdown.user_stories[1].acceptance_criteria[1] == Criterion(
        "An unknown language is an error that names the known ones", "! python greet.py --language xx"
    )
    assert json.user_stories[0].acceptance_criteria[0].verify == markdown.user_stories[0].acceptance_criteria[0].verify


def test_the_error_of_the_documentation_is_the_one_that_is_shown() -> None:
    """The sentence shown in docs/spec.md is what a story without criteria gives, for both forms."""
    text = "\n".join(["# T", *[""] * 26, "## User Stories", "### US-002: Two"])
    assert str(SpecErrors(refused(text))) in DOCUMENTATION.read_text()
    stories = b'{"title": "T", "userStories": [{"id": "US-003", "title": "Three", "acceptanceCriteria": []}]}'
    (problem,) = refused(stories, "spec.json")
    assert str(problem) == "Story US-003 has no acceptance criteria (userStories[0] of spec.json). Add at least one."


@pytest.mark.parametrize(
    "encoded",
    [
        STORY.replace("\n", "\r\n").encode(),
        STORY.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + STORY.encode(),
        STORY.replace("\n", " \t\n").encode(),
    ],
    ids=["crlf", "cr", "byte order mark", "trailing spaces"],
)
def test_an_editors_habits_change_nothing(encoded: bytes) -> None:
    """Line ends, a byte order mark and trailing spaces are not part of a spec."""
    assert parsed(encoded) == parsed(STORY)


@pytest.mark.parametrize(
    ("name", "text", "is_free_form"),
    [
        ("spec.json", '{"title": "T", "userStories": [{"id": "A", "title": "a", "acceptanceCriteria": ["c"]}]}', False),
        ("SPEC.JSON", '{"title": "T", "userStories": [{"id": "A", "title": "a", "acceptanceCriteria": ["c"]}]}', False),
        ("spec", ' \n{"title": "T", "userStories": [{"id": "A", "title": "a", "acceptanceCriteria": ["c"]}]}', False),
        (
            "spec.md",
            '{"title": "T", "userStories": [{"id": "A", "title": "a", "acceptanceCriteria": ["c"]}]}',
            True,
        ),
        ("spec", STORY, False),
        ("spec.txt", STORY, False),
        ("idea.md", "# An idea\n## User Stories\n- As a user I want it.\n### Epic: all of it\n", True),
        ("idea.md", "Just build it.\n\n# A\n# B\n**Acceptance Criteria:**\n- [ ] none of a story", True),
    ],
)
def test_the_name_tells_the_form_and_else_the_first_character(name: str, text: str, is_free_form: bool) -> None:
    """JSON by its suffix or its brace; Markdown without a story is free-form, whatever else stands in it."""
    assert parse_spec(text.encode(), name=name).is_free_form is is_free_form


def test_a_free_form_text_is_handed_on_as_it_is() -> None:
    """The plan drain gets every character but the byte order mark and the carriage returns."""
    assert parse_spec(b"\xef\xbb\xbfBuild it. \r\n", name="idea.md").description == "Build it. \n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("# Search\n## Project\nfinder\n## Branch\nfeature/fast\nSoon.", ("Search", "finder", "feature/fast")),
        ("# Fast search\nIt is slow.", ("Fast search", "Fast search", "storyloop/fast-search")),
        ("- **Make** it fast\n- and small", ("**Make** it fast", "**Make** it fast", "storyloop/make-it-fast")),
        ("Word " * 20, ("Word " * 11 + "Word", "Word " * 11 + "Word", "storyloop/" + "word-" * 9 + "word")),
        ("語" * 70, ("語" * 60, "語" * 60, "storyloop/" + "語" * 50)),
    ],
)
def test_a_free_form_text_is_called_as_it_calls_itself(text: str, named: tuple[str, str, str]) -> None:
    """Title, project and branch by its headings, else by its first line in short."""
    spec = parse_spec(text.encode(), name="idea.md")
    assert (spec.title, spec.project, spec.branch_name) == named


def test_a_free_form_text_that_says_nothing_is_no_spec() -> None:
    """Headings of ours alone."""
    with pytest.raises(SpecErrors, match="no title"):
        parse_spec(b"## Branch\nfeature/x\n", name="idea.md")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "The file is empty"),
        (b" \n\t\n", "The file is empty"),
        (b"PK\x03\x04\x00", "The file is binary: it holds NUL bytes"),
        ("# Größe".encode("latin-1"), "The file is not UTF-8 text: byte 5 fits no character"),
        ("# T".encode("utf-16"), "The file is not UTF-8 text: byte 1 fits no character"),
        (b"x" * (MAX_SPEC_BYTES + 1), "The file has 5,000,001 bytes; a spec may have 5,000,000"),
        (b"x\n" * 20_001, "The file has 20,001 lines; a spec may have 20,000"),
        (b"# T\n<!-- and so on\n" + STORY.encode(), "The comment that opens here is never closed"),
    ],
)
def test_what_is_no_text_is_refused_in_one_sentence(content: bytes, what: str) -> None:
    """Empty, binary, wrongly encoded or huge files are named for what they are."""
    assert [problem.what for problem in refused(content)] == [what]


@pytest.mark.parametrize(
    ("content", "what", "place"),
    [
        ("{", "The file is not valid JSON: it ends too early", "spec.json:1:2"),
        ('{\n "a": 1\n "b": 2}', "The file is not valid JSON: expected ',' or '}'", "spec.json:3:2"),
        ('{"ä": x}', "The file is not valid JSON: invalid character", "spec.json:1:7"),
        ("[" * 100_000, "The JSON is nested too deeply", "spec.json"),
        ('{"priority": ' + "9" * 5000 + "}", "The JSON holds a number that is too large", "spec.json"),
        ('{"priority": 1e999}', "The JSON holds a number that is too large", "spec.json"),
        ("[]", "The spec is a list, not an object", "spec.json"),
        ("null", "The spec is null, not an object", "spec.json"),
    ],
)
def test_broken_json_is_refused_with_its_place(content: str, what: str, place: str) -> None:
    """Syntax errors have line and column; depth bombs and enormous numbers get a sentence, not a traceback."""
    assert [(problem.what, problem.place) for problem in refused(content, "spec.json")] == [(what, place)]


def test_unknown_values_that_are_nested_too_deeply_are_refused() -> None:
    """What we keep without knowing it can always be written again: a bomb within the decoder's limit is refused."""
    bomb = '{"title": "T", "x": ' + '[{"":' * 250 + "0" + "}]" * 250 + ', "userStories": [{"id": "A", "title": "a", '
    bomb += '"acceptanceCriteria": ["c"], "y": [[]]}]}'
    assert [(problem.what, problem.place) for problem in refused(bomb, "spec.json")] == [
        ("The spec has a value that is nested too deeply", "x of spec.json")
    ]


def test_at_most_five_hundred_problems_are_told() -> None:
    """A file that is something else altogether does not flood the terminal."""
    assert len(refused('{"userStories": [' + "{}," * 9999 + "{}]}", "spec.json")) == 500


def test_the_errors_are_a_users_and_keep_their_parts() -> None:
    """`SpecErrors` is a `UserError` whose problems stay apart: what, where, cure."""
    with pytest.raises(UserError) as raised:
        parse_spec(b"# T\n## User Stories\n### US-001: One\n", name="a.md")
    assert isinstance(raised.value, SpecErrors)
    assert raised.value.problems == (Problem("Story US-001 has no acceptance criteria", "a.md:3", "Add at least one."),)


# --- nothing but SpecErrors, and in time ---------------------------------------------------------------------------

FRAGMENTS = """# T|# T #|## Project|## Branch|feature/x|## Description|## User Stories|### US-001: One|### US-002: Two
### US-003 - Three|### Epic: none|#### Acceptance Criteria|#### more|**Priority:** 1|**Priority:** high|**Depends on:**
**Depends on:** US-001|**Acceptance Criteria:**|**Acceptance Criteria:** - [ ] x|**Notes:** n|**Notes:**|**Size:** M
- [ ] one|- [x] two|- three|  - four|  - [ ] five|  verify: `true`|  verify:|verify: `a` b|- verify: x|```|  ```|~~~
- ```|<!--|-->|  <!-- x -->|---|===|***|text|  indented|    code|\\### US-001: x|\\\\# x|\\- [ ] y|\\verify: z|\\```
1. number|* star|\t- [ ] tab|## Other|Project|##close|**bold** text|`|``|-|- [ ]|- US-001|\x0b|\u2028|ſ|ÄÖ|{|"|x  |#"""
lines = st.lists(st.sampled_from([*re.split(r"[|\n]", FRAGMENTS), "", ""]), max_size=14)
nasty = lines.map("\n".join)


@given(
    st.one_of(st.binary(), st.text().map(str.encode), nasty.map(str.encode)), st.sampled_from(["a.md", "a.json", "a"])
)
@example(b'{"userStories": [{"id": "a", "dependsOn": ["a", "b", "a"]}, {"id": "a", "dependsOn": [""]}]}', "a.json")
@settings(max_examples=200, deadline=None)
def test_whatever_a_file_holds_only_spec_errors_are_raised(content: bytes, name: str) -> None:
    """No text and no bytes make the parser raise anything else."""
    with suppress(SpecErrors):
        parse_spec(content, name=name)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | nasty,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "verify", "x"]), inner),
    max_leaves=6,
)
json_stories = st.dictionaries(
    st.sampled_from(["id", "title", "acceptanceCriteria", "priority", "passes", "dependsOn", "x"]), json_values
)


@given(
    st.dictionaries(
        st.sampled_from(["title", "project", "branchName", "description", "userStories", "x"]),
        json_values | st.lists(json_stories, max_size=3),
    )
)
@settings(max_examples=75, deadline=None)
def test_json_of_any_shape_is_a_spec_that_can_be_written_again_or_spec_errors(decoded: object) -> None:
    """Wrong types in any place are told, never raised; what is accepted survives its own dump."""
    try:
        spec = parsed(msgspec.json.encode(decoded), "a.json")
    except SpecErrors:
        return
    assert parsed(dump_spec(spec), "a.json") == spec


@pytest.mark.parametrize("before", ["", "x ", "### ", "**", "- [ ] ", "  verify: `"])
@pytest.mark.parametrize("repeated", [" ", "\t", "*", "-", "- ", "`", "`` ", "#", " #", "<!--", "\\", "**x:**", ": "])
def test_a_megabyte_of_one_pattern_is_read(before: str, repeated: str) -> None:
    """No repetition makes a pattern of ours backtrack, which would take hours."""
    text = STORY + before + repeated * (1_000_000 // len(repeated)) + " y"
    with suppress(SpecErrors):
        parse_spec(text.encode(), name="a.md")


@pytest.mark.parametrize(
    "repeated",
    ["### US-1: a\n", "- [ ] x\n", "  verify: `a`\n", "```\n", "~~~x\n", "a\n===\n", "## b\n", "\n- ", "  a\n"],
)
def test_as_many_lines_as_are_allowed_are_read(repeated: str) -> None:
    """The number of stories, criteria, fences or problems does not matter."""
    text = STORY + repeated * (19_990 // repeated.count("\n"))
    with suppress(SpecErrors):
        parse_spec(text.encode(), name="a.md")


def test_a_circle_and_a_chain_of_thousands_of_stories_are_no_trouble() -> None:
    """Dependencies are followed without recursion, in linear time."""

    def stories(last: list[str]) -> bytes:
        chain = [[f"S{number + 1}"] for number in range(4999)] + [last]
        fields = [
            {"id": f"S{number}", "title": "t", "acceptanceCriteria": ["c"], "dependsOn": one}
            for number, one in enumerate(chain)
        ]
        return msgspec.json.encode({"title": "T", "userStories": fields})

    order = parsed(stories([]), "a.json").order()
    assert [story.id for story in order[:2]] == ["S4999", "S4998"]
    (problem,) = refused(stories(["S0"]), "a.json")
    assert problem.what.startswith("These stories wait for each other: S0 -> S1 -> S2 ")
    assert problem.what.endswith(" -> S4999 -> S0")


# --- round trips ---------------------------------------------------------------------------------------------------


@given(lines)
@settings(max_examples=200, deadline=None)
def test_what_was_read_from_markdown_reads_the_same_from_both_dumps(below: list[str]) -> None:
    """`spec export` loses nothing: not text that looks like structure, not code, not several lines."""
    try:
        spec = parsed(STORY + "\n".join(below))
    except SpecErrors:
        return
    assert parsed(dump_markdown(spec)) == spec
    assert parsed(dump_spec(spec), "spec.json") == spec


unindented = lines.map(lambda rows: "\n".join(row.lstrip() for row in rows).strip() or "c")
criteria = st.builds(
    lambda text, verify: {"text": text, "verify": verify}, unindented, nasty.map(lambda text: text.strip() or "v")
)


@given(
    title=nasty.filter(str.strip),
    project=nasty,
    description=nasty,
    story=nasty.filter(str.strip),
    notes=nasty,
    acceptance=st.lists(criteria | unindented, min_size=1, max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_json_with_text_that_looks_like_structure_becomes_markdown_and_comes_back(
    title: str, project: str, description: str, story: str, notes: str, acceptance: list[object]
) -> None:
    """Headings, labels, fences and commands within texts are escaped, so that they stay text."""
    one = {"id": "A-1", "title": story, "description": description, "notes": notes, "acceptanceCriteria": acceptance}
    two = one | {"id": "A-2", "dependsOn": ["A-1"], "priority": 0}
    fields = {"title": title, "project": project, "description": description, "userStories": [one, two]}
    spec = parsed(msgspec.json.encode(fields), "a.json")
    assert parsed(dump_markdown(spec)) == spec


def test_markdown_is_written_as_a_person_would() -> None:
    """The dump of the documented example is that example, but for blank lines and ordering of nothing."""
    text = re.findall(r"^```markdown\n(.*?)^```", DOCUMENTATION.read_text(), re.DOTALL | re.MULTILINE)[0]
    written = dump_markdown(parsed(text))
    assert [row for row in written.split("\n") if row] == [row for row in text.split("\n") if row]


def test_fenced_code_is_written_as_it_stands() -> None:
    """Only code whose fence is in doubt is escaped; the rest stays readable, and longer fences hold backticks."""
    text = "### Told\n```sh\n# run\n```\n- [ ] task\n**Notes:** none"
    criterion = {"text": "It prints\n~~~\n- [ ] a\n~~~\nand ends", "verify": "cat <<E\n```\nE"}
    one = {"id": "A-1", "title": "One", "description": text, "acceptanceCriteria": [criterion], "priority": 2**32 - 1}
    written = dump_markdown(parsed(msgspec.json.encode({"title": "T", "userStories": [one]}), "a.json"))
    assert written.partition("## User Stories\n\n")[2] == (
        "### A-1: One\n\n**Priority:** 4294967295\n\n"
        "\\### Told\n```sh\n# run\n```\n- [ ] task\n\\**Notes:** none\n\n"
        "**Acceptance Criteria:**\n"
        "- [ ] It prints\n  ~~~\n  - [ ] a\n  ~~~\n  and ends\n"
        "  verify:\n  ````\n  cat <<E\n  ```\n  E\n  ````\n"
    )


def test_unknown_keys_survive_a_dump_and_known_ones_stay_first() -> None:
    """Keys that other tools gave a spec, a story or a criterion are written again, after ours."""
    text = '{"x": 1, "title": "T", "userStories": [{"y": [2], "id": "A", "title": "a", "acceptanceCriteria": '
    text += '[{"text": "c", "z": {"w": null}}]}]}'
    spec = parsed(text, "a.json")
    assert (spec.extra, spec.user_stories[0].extra) == ({"x": 1}, {"y": [2]})
    assert spec.user_stories[0].acceptance_criteria[0].extra == {"z": {"w": None}}
    dumped = msgspec.json.decode(dump_spec(spec))
    assert list(dumped) == ["project", "branchName", "title", "description", "userStories", "x"]
    assert dumped["userStories"][0]["acceptanceCriteria"] == [{"text": "c", "z": {"w": None}}]


def test_a_spec_is_a_value_that_the_journal_can_hold() -> None:
    """Encoded as a struct, as an event does it, a spec decodes to the same spec."""
    spec = parsed((CASES / "good" / "prd.json").read_bytes(), "prd.json")
    assert msgspec.json.decode(msgspec.json.encode(spec), type=Spec) == spec


# --- branches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "branch"),
    [
        ("Greetings in two languages", "storyloop/greetings-in-two-languages"),
        ("  C#: a/b & 100% `x`~^:?*[\\ ..@{ ", "storyloop/c-a-b-100-x"),
        ("Größe für alle Straßen", "storyloop/grosse-fur-alle-strassen"),
        ("日本語 の テスト", "storyloop/日本語-の-テスト"),
        ("添加 login", "storyloop/login"),
        ("!!! ...", "storyloop/spec"),
        ("𝔘", "storyloop/u"),
        ("HEAD.lock", "storyloop/head-lock"),
        ("word " * 40, "storyloop/word-word-word-word-word-word-word-word-word-word"),
    ],
)
def test_a_title_gives_a_branch(title: str, branch: str) -> None:
    """The default branch is the title in lower-case words, in its own letters when it has no others."""
    assert default_branch(title) == branch


@given(st.text())
@example("\u0345" * 60)
@example("𝔘" * 80)
def test_every_title_gives_a_branch_that_git_accepts(title: str) -> None:
    """No title leads to a name that would be refused."""
    assert branch_fault(default_branch(title)) is None


BRANCH_PIECES = [
    "a",
    "é",
    "/",
    ".",
    "..",
    "-",
    "@",
    "@{",
    ".lock",
    "~",
    "^",
    ":",
    "?",
    "*",
    "[",
    "]",
    "\\",
    " ",
    "\x7f",
]
BRANCH_PIECES += ["HEAD", "{", "}", "#", "'", '"', "\t", "x", "日", "//", "lock"]


@given(st.lists(st.sampled_from(BRANCH_PIECES), max_size=4).map("".join))
@example("HEAD")
@example("a/HEAD")
@example("-a")
@example("a.lock/b")
@settings(max_examples=150, deadline=None)
def test_a_branch_is_accepted_exactly_when_git_accepts_it(name: str) -> None:
    """Our pure rules agree with `git check-ref-format --branch`, except for `@`, which git reads as HEAD."""
    if name == "@":
        return
    git = subprocess.run(["git", "check-ref-format", "--branch", name], cwd="/", capture_output=True, check=False)
    assert (branch_fault(name) is None) == (git.returncode == 0)


@pytest.mark.parametrize("name", ["@", "a/" + "x" * 201, "a\udcff"])
def test_a_branch_that_only_we_refuse(name: str) -> None:
    """An alias of HEAD, a name too long for a file, bytes that are no text."""
    assert branch_fault(name)
    assert branch_fault("a/" + "x" * 200) is None


# --- order ---------------------------------------------------------------------------------------------------------


def story(story_id: str, priority: int, *depends_on: str) -> Story:
    return Story(
        id=story_id, title=story_id, acceptance_criteria=(Criterion("c"),), priority=priority, depends_on=depends_on
    )


PLANNED = Spec(
    project="p",
    branch_name="b",
    title="t",
    user_stories=(story("A", 3), story("B", 1, "D"), story("C", 2), story("D", 2), story("E", 1, "A", "B")),
)


@pytest.mark.parametrize(
    ("passed", "closed", "expected"),
    [
        ("", "", "CDA"),
        ("C", "", "DA"),
        ("D", "", "BCA"),
        ("D", "C", "BA"),
        ("", "D", "CA"),
        ("ABD", "", "EC"),
        ("ABCDE", "", ""),
    ],
)
def test_ready_stories_come_by_priority_then_by_place_in_the_file(passed: str, closed: str, expected: str) -> None:
    """A story waits for all its dependencies to have passed; one that is closed is neither taken nor passed."""
    assert "".join(one.id for one in ready(PLANNED, set(passed), closed=set(closed))) == expected


def test_the_order_of_a_run_is_that_of_the_first_ready_story_each_time() -> None:
    """`order` is what taking the first ready story over and over gives."""
    assert [one.id for one in PLANNED.order()] == ["C", "D", "B", "A", "E"]


def test_a_story_is_found_by_its_id() -> None:
    """An id that no story has is a `KeyError`."""
    assert PLANNED.story("D").priority == 2
    with pytest.raises(KeyError):
        PLANNED.story("d")


def test_reading_specs_needs_nothing_but_the_standard_library_and_msgspec() -> None:
    """A face that lists runs must not pay for what it does not use."""
    code = (
        "import sys, msgspec; had = set(sys.modules); import storyloop.core.spec_file; print(*set(sys.modules) - had)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    roots = {name.partition(".")[0] for name in run.stdout.split()}
    assert roots - set(sys.stdlib_module_names) == {"storyloop"}
    assert not roots & {"asyncio", "logging", "subprocess", "pathlib"}
