"""Knowledge merges diff and agent's word as its reference says, and its rendering never exceeds its budget."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyloop.core.knowledge import (
    Decision,
    FileInfo,
    NotedDecision,
    NotedFile,
    NotedKnowledge,
    NotedPattern,
    Pattern,
    ProjectKnowledge,
    StoryChanges,
    excerpt,
    merge_story,
    render,
)

NOTHING = ProjectKnowledge()


def landed(story_id: str, **paths: tuple[str, ...]) -> StoryChanges:
    return StoryChanges(story_id=story_id, **paths, commit_hash=f"commit of {story_id}")  # type: ignore[arg-type]


def decided(knowledge: ProjectKnowledge, story_id: str, topic: str, choice: str) -> ProjectKnowledge:
    noted = NotedKnowledge(decisions=(NotedDecision(topic=topic, choice=choice, rationale="small"),))
    return merge_story(knowledge, story_id, landed(story_id), noted)


# --- JSON -------------------------------------------------------------------------------------------------


def test_the_json_is_that_of_the_reference() -> None:
    """Names and nesting, written out; null where a file was not measured or no example was given."""
    knowledge = merge_story(
        ProjectKnowledge(baseline_commit="b0"),
        "US-001",
        StoryChanges(
            story_id="US-001",
            files_created=("src/a.py",),
            files_modified=("logo.png",),
            files_deleted=("old.py",),
            commit_hash="c1",
        ),
        NotedKnowledge(
            files=(NotedFile(path="src/a.py", purpose="parses", symbols=("parse", "Spec")),),
            decisions=(NotedDecision(topic="storage", choice="sqlite", rationale="durable"),),
            patterns=(NotedPattern(description="errors are sentences"),),
        ),
        line_counts={"src/a.py": 12},
    )
    expected: dict[str, Any] = {
        "files": {
            "logo.png": {"purpose": "", "key_symbols": [], "touched_by": ["US-001"], "line_count": None},
            "src/a.py": {
                "purpose": "parses",
                "key_symbols": ["parse", "Spec"],
                "touched_by": ["US-001"],
                "line_count": 12,
            },
        },
        "decisions": [{"story_id": "US-001", "topic": "storage", "choice": "sqlite", "rationale": "durable"}],
        "patterns": [{"story_id": "US-001", "description": "errors are sentences", "example_file": None}],
        "story_changes": [
            {
                "story_id": "US-001",
                "files_created": ["src/a.py"],
                "files_modified": ["logo.png"],
                "files_deleted": ["old.py"],
                "commit_hash": "c1",
            }
        ],
        "baseline_commit": "b0",
    }
    text = msgspec.json.encode(knowledge)
    assert msgspec.json.decode(text) == expected
    assert msgspec.json.decode(text, type=ProjectKnowledge) == knowledge


def test_an_empty_knowledge_shows_its_five_names() -> None:
    """Nothing is left out because it is empty."""
    assert msgspec.json.decode(msgspec.json.encode(NOTHING)) == {
        "files": {},
        "decisions": [],
        "patterns": [],
        "story_changes": [],
        "baseline_commit": None,
    }


# --- merging ----------------------------------------------------------------------------------------------


def test_a_merge_changes_no_older_value() -> None:
    """Merging is pure: the knowledge it was given stays as it was."""
    before = merge_story(NOTHING, "US-001", landed("US-001", files_created=("a.py",)), None)
    copy = msgspec.json.decode(msgspec.json.encode(before), type=ProjectKnowledge)
    merge_story(before, "US-002", landed("US-002", files_deleted=("a.py",)), None)
    assert before == copy


def test_stories_that_touched_a_file_are_listed_once_each_oldest_first() -> None:
    """touched_by accumulates without duplicates; the line count is that of the newest diff."""
    knowledge = NOTHING
    for story, count in (("US-002", 10), ("US-001", 25), ("US-002", 20)):
        changes = landed(story, files_modified=("a.py",))
        knowledge = merge_story(knowledge, story, changes, None, line_counts={"a.py": count})
    assert knowledge.files == {"a.py": FileInfo(touched_by=("US-002", "US-001"), line_count=20)}


def test_a_line_count_is_forgotten_when_a_changed_file_was_not_measured_again() -> None:
    """An old number for a new content would be a guess."""
    first = merge_story(NOTHING, "US-001", landed("US-001", files_created=("a",)), None, line_counts={"a": 9})
    second = merge_story(first, "US-002", landed("US-002", files_modified=("a",)), None)
    assert second.files["a"].line_count is None


def test_symbols_that_were_read_stand_in_the_place_of_those_that_were_told() -> None:
    """Also in the place of older ones; a file that could not be read has those that agents told, together."""
    told = NotedKnowledge(files=tuple(NotedFile(path=path, symbols=("told",)) for path in ("a.py", "b.ts")))
    changes = landed("US-001", files_created=("a.py", "b.ts"))
    first = merge_story(NOTHING, "US-001", changes, told, symbols={"a.py": ("read",)})
    assert {path: info.key_symbols for path, info in first.files.items()} == {"a.py": ("read",), "b.ts": ("told",)}
    changes = landed("US-002", files_modified=("a.py", "b.ts"))
    later = NotedKnowledge(files=(NotedFile(path="b.ts", symbols=("new", "told")),))
    second = merge_story(first, "US-002", changes, later, symbols={"a.py": ()})
    assert {path: info.key_symbols for path, info in second.files.items()} == {"a.py": (), "b.ts": ("told", "new")}


def test_deleted_files_leave_and_a_renamed_one_arrives_under_its_new_name() -> None:
    """A rename is a deletion and a creation; a note about a deleted file does not bring it back."""
    before = merge_story(NOTHING, "US-001", landed("US-001", files_created=("old.py", "gone.py")), None)
    after = merge_story(
        before,
        "US-002",
        landed("US-002", files_created=("new.py",), files_deleted=("old.py", "gone.py", "never-known.py")),
        NotedKnowledge(files=(NotedFile(path="gone.py", purpose="was removed"),)),
    )
    assert list(after.files) == ["new.py"]


def test_a_purpose_is_replaced_only_by_another_and_symbols_add_up() -> None:
    """An empty note takes nothing away; `./a.py` is `a.py`."""
    knowledge = NOTHING
    for purpose, symbols in (("parses", ("parse", "Spec")), ("", ("Spec", "Story")), ("parses stories", ())):
        noted = NotedKnowledge(files=(NotedFile(path="./a.py", purpose=purpose, symbols=symbols),))
        knowledge = merge_story(knowledge, "US-001", landed("US-001", files_modified=("a.py",)), noted)
    assert knowledge.files == {
        "a.py": FileInfo(purpose="parses stories", key_symbols=("parse", "Spec", "Story"), touched_by=("US-001",))
    }


def test_with_a_diff_an_agent_cannot_say_that_a_story_touched_a_file() -> None:
    """A file it only describes is known with its purpose, and touched by nobody."""
    noted = NotedKnowledge(files=(NotedFile(path="lib.py", purpose="helpers"),))
    after = merge_story(NOTHING, "US-001", landed("US-001", files_created=("a.py",)), noted)
    assert after.files["lib.py"] == FileInfo(purpose="helpers")
    assert after.files["a.py"].touched_by == ("US-001",)


def test_without_a_diff_the_changes_are_empty_and_the_agent_is_believed_alone() -> None:
    """No diff: an empty StoryChanges, knowledge from the agent."""
    noted = NotedKnowledge(files=(NotedFile(path="a.py", purpose="parses"),))
    after = merge_story(NOTHING, "US-001", None, noted)
    assert after.story_changes == (StoryChanges(story_id="US-001", commit_hash=None),)
    assert after.files == {"a.py": FileInfo(purpose="parses", touched_by=("US-001",))}


def test_a_missing_or_malformed_note_is_an_empty_one() -> None:
    """None and an empty NotedKnowledge leave the same."""
    changes = landed("US-001", files_created=("a.py",))
    assert merge_story(NOTHING, "US-001", changes, None) == merge_story(NOTHING, "US-001", changes, NotedKnowledge())


def test_a_newer_decision_on_the_same_topic_supersedes_the_older_which_is_kept_and_marked() -> None:
    """Topics are compared without case and spacing; the mark names the story that decided anew."""
    knowledge = decided(NOTHING, "US-001", "Storage", "files")
    knowledge = decided(knowledge, "US-002", "logging", "none")
    knowledge = decided(knowledge, "US-003", " storage ", "sqlite")
    assert [(d.story_id, d.choice, d.superseded_by) for d in knowledge.decisions] == [
        ("US-001", "files", "US-003"),
        ("US-002", "none", None),
        ("US-003", "sqlite", None),
    ]
    shown = msgspec.json.decode(msgspec.json.encode(knowledge.decisions[0]))
    assert shown == {
        "story_id": "US-001",
        "topic": "Storage",
        "choice": "files",
        "rationale": "small",
        "superseded_by": "US-003",
    }


def test_each_decision_on_a_topic_supersedes_only_the_one_in_force() -> None:
    """A chain of changes of mind keeps who overruled whom; going back is a decision again."""
    knowledge = NOTHING
    for story, choice in (("US-001", "a"), ("US-002", "b"), ("US-003", "a")):
        knowledge = decided(knowledge, story, "storage", choice)
    assert [(d.choice, d.superseded_by) for d in knowledge.decisions] == [
        ("a", "US-002"),
        ("b", "US-003"),
        ("a", None),
    ]


def test_what_an_agent_repeats_from_its_prompt_is_not_recorded_again() -> None:
    """Same topic and choice, same pattern: the older one stands."""
    noted = NotedKnowledge(
        decisions=(NotedDecision(topic="storage", choice="SQLite"),),
        patterns=(NotedPattern(description="errors are  sentences", example_file="b.py"),),
    )
    before = ProjectKnowledge(
        decisions=(Decision(story_id="US-001", topic="storage", choice="sqlite", rationale="small"),),
        patterns=(Pattern(story_id="US-001", description="Errors are sentences", example_file="a.py"),),
    )
    after = merge_story(before, "US-002", landed("US-002"), noted)
    assert (after.decisions, after.patterns) == (before.decisions, before.patterns)


# --- rendering --------------------------------------------------------------------------------------------

TOLD = ProjectKnowledge(
    files={
        "src/old.py": FileInfo(purpose="old things", touched_by=("US-001",), line_count=5),
        "src/new.py": FileInfo(
            purpose="new\n things", key_symbols=("make", "New"), touched_by=("US-001", "US-003"), line_count=80
        ),
        "src/named.py": FileInfo(touched_by=("US-001",)),
    },
    decisions=(
        Decision(story_id="US-001", topic="db", choice="files", rationale="", superseded_by="US-002"),
        Decision(story_id="US-002", topic="db", choice="sqlite", rationale="durable"),
    ),
    patterns=(Pattern(story_id="US-003", description="errors are sentences", example_file="src/new.py"),),
    story_changes=tuple(StoryChanges(story_id=story) for story in ("US-001", "US-002", "US-003")),
)


def test_everything_that_is_in_force_is_told_when_there_is_room() -> None:
    """Newest first within each section; superseded decisions are left out; each entry is one line."""
    assert render(TOLD, focus=frozenset(), budget_tokens=1000) == (
        "Files:\n"
        "- src/new.py (80 lines): new things [make, New]\n"
        "- src/old.py (5 lines): old things\n"
        "- src/named.py\n"
        "Decisions:\n"
        "- db: sqlite (US-002) - durable\n"
        "Patterns:\n"
        "- errors are sentences (US-003, see src/new.py)"
    )


def test_what_the_story_names_comes_before_what_is_recent() -> None:
    """By path, by bare file name, or by the story that touched it; room for one line shows which is first."""
    first = {
        frozenset[str](): "- src/new.py (80 lines): new things [make, New]",
        frozenset({"src/named.py"}): "- src/named.py",
        frozenset({"old.py"}): "- src/old.py (5 lines): old things",
        frozenset({"US-002"}): "- db: sqlite (US-002) - durable",
    }
    for focus, line in first.items():
        room = len(f"Decisions:\n{line}\n") // 4 + 1
        text = render(TOLD, focus=focus, budget_tokens=room)
        assert text.splitlines()[1:] == [line]


def test_what_dependencies_touched_comes_before_what_others_did_since() -> None:
    """US-001's three files, newest touch first, fill these 104 characters; the newer decision has to wait."""
    lines = render(TOLD, focus=frozenset({"US-001"}), budget_tokens=26).splitlines()
    assert lines == [
        "Files:",
        "- src/new.py (80 lines): new things [make, New]",
        "- src/old.py (5 lines): old things",
        "- src/named.py",
    ]


def test_an_excerpt_holds_a_few_short_lines_of_what_a_story_is_about() -> None:
    """By turns what its dependencies decided, the newest and standing ones first, and the files that it names."""
    assert excerpt(TOLD, focus=frozenset({"US-001", "US-002", "old.py"})) == (
        "- db: sqlite (US-002) - durable\n- src/old.py (5 lines): old things"
    )
    assert excerpt(TOLD, focus=frozenset({"US-001"})) == ""  # its decision no longer stands
    crowded = msgspec.structs.replace(
        TOLD,
        files={f"{name}.py": FileInfo(purpose="p" * 80) for name in "abc"},
        decisions=tuple(Decision(story_id="US-1", topic=name, choice="c", rationale="") for name in "xyz"),
    )
    told = excerpt(crowded, focus=frozenset({"US-1", "a.py", "b.py", "c.py"}))
    assert told.splitlines() == ["- z: c (US-1)", f"- a.py: {'p' * 63}…", "- y: c (US-1)"]


def test_no_room_or_no_knowledge_is_no_text() -> None:
    """A heading never stands alone."""
    assert render(NOTHING, focus=frozenset(), budget_tokens=1000) == ""
    assert [render(TOLD, focus=frozenset(), budget_tokens=room) for room in (0, 1, 2, 3)] == [""] * 4


@pytest.mark.parametrize("padding", ["", "x", "xx", "xxx"])
def test_the_budget_is_used_to_its_last_character(padding: str) -> None:
    """Everything is told from the first budget that holds it: no token is held back."""
    everything = ProjectKnowledge(
        files={"a.py": FileInfo(purpose="p" + padding), "b.py": FileInfo()},
        patterns=(Pattern(story_id="US-001", description="short", example_file=None),),
    )
    text = f"Files:\n- a.py: p{padding}\n- b.py\nPatterns:\n- short (US-001)"
    enough = -(-len(text) // 4)
    assert render(everything, focus=frozenset(), budget_tokens=enough) == text
    assert len(render(everything, focus=frozenset(), budget_tokens=enough - 1)) < len(text)


def test_a_pattern_is_relevant_through_its_example() -> None:
    """The story that names the example is told the pattern first."""
    knowledge = ProjectKnowledge(
        patterns=(
            Pattern(story_id="US-001", description="first", example_file="a.py"),
            Pattern(story_id="US-001", description="second", example_file="b.py"),
        )
    )
    told = render(knowledge, focus=frozenset({"b.py"}), budget_tokens=12)
    assert told == "Patterns:\n- second (US-001, see b.py)"


def test_long_texts_of_an_agent_are_cut_between_characters() -> None:
    """One entry cannot eat the budget, and what just fits is whole."""
    knowledge = ProjectKnowledge(
        files={
            "a.py": FileInfo(purpose="ü" * 5000, key_symbols=("s" * 5000,)),
            "b.py": FileInfo(purpose="ü" * 120, key_symbols=("s" * 80,)),
            "c" * 5000: FileInfo(),
        },
        decisions=(Decision(story_id="US-001", topic="t" * 500, choice="c" * 500, rationale="r" * 500),),
        patterns=(Pattern(story_id="US-001", description="d" * 500, example_file=None),),
    )
    assert render(knowledge, focus=frozenset(), budget_tokens=1000).splitlines() == [
        "Files:",
        f"- a.py: {'ü' * 119}… [{'s' * 79}…]",
        f"- b.py: {'ü' * 120} [{'s' * 80}]",
        f"- {'c' * 199}…",
        "Decisions:",
        f"- {'t' * 79}…: {'c' * 119}… (US-001) - {'r' * 119}…",
        "Patterns:",
        f"- {'d' * 239}… (US-001)",
    ]


STORY = st.sampled_from(["US-001", "US-002", "US-003"])
WORDS = st.text(max_size=30)
KNOWLEDGE = st.builds(
    ProjectKnowledge,
    files=st.dictionaries(
        WORDS,
        st.builds(
            FileInfo,
            purpose=WORDS,
            key_symbols=st.lists(WORDS, max_size=3).map(tuple),
            touched_by=st.lists(STORY, max_size=2, unique=True).map(tuple),
            line_count=st.none() | st.integers(0, 9999),
        ),
        max_size=6,
    ),
    decisions=st.lists(
        st.builds(
            Decision,
            story_id=STORY,
            topic=WORDS,
            choice=WORDS,
            rationale=WORDS,
            superseded_by=st.none() | STORY,
        ),
        max_size=4,
    ).map(tuple),
    patterns=st.lists(
        st.builds(Pattern, story_id=STORY, description=WORDS, example_file=st.none() | WORDS), max_size=4
    ).map(tuple),
    story_changes=st.lists(st.builds(StoryChanges, story_id=STORY), max_size=4).map(tuple),
)


@given(KNOWLEDGE, st.frozensets(STORY | WORDS, max_size=3), st.integers(0, 200))
def test_a_rendering_never_exceeds_its_budget_and_is_always_the_same(
    knowledge: ProjectKnowledge, focus: frozenset[str], budget: int
) -> None:
    """4 characters a token; a round trip through JSON changes nothing."""
    text = render(knowledge, focus=focus, budget_tokens=budget)
    assert len(text) <= 4 * budget
    again = msgspec.json.decode(msgspec.json.encode(knowledge), type=ProjectKnowledge)
    assert render(again, focus=focus, budget_tokens=budget) == text


def test_a_large_project_fills_its_budget_and_no_more() -> None:
    """1,000 files and 500 decisions, of which a prompt has room for some."""
    knowledge = ProjectKnowledge(
        files={
            f"src/part_{n % 37}/module_{n}.py": FileInfo(
                purpose="reads the stories of a specification and says what is wrong with them",
                key_symbols=("parse", "Spec", "Story"),
                touched_by=(f"US-{n % 60:03}", f"US-{(n + 7) % 60:03}"),
                line_count=n,
            )
            for n in range(1000)
        },
        decisions=tuple(
            Decision(story_id=f"US-{n % 60:03}", topic=f"topic {n}", choice="sqlite", rationale="durable " * 20)
            for n in range(500)
        ),
        story_changes=tuple(StoryChanges(story_id=f"US-{n:03}") for n in range(60)),
    )
    text = render(knowledge, focus=frozenset({"US-003", "US-004"}), budget_tokens=1500)
    assert 5000 < len(text) <= 6000
