"""ProjectKnowledge: what the stories of a run taught about the project, handed to the prompts of later ones.

Two sources meet here. The diff of a landed story says which files were touched: that is certain. The agent's
`<knowledge>` says what they are for, what was decided and which patterns hold: that is its word, and never
adds to `touched_by` while there is a diff. A newer decision on the same topic supersedes the older one, which
is kept and marked; what an agent merely repeats from its prompt is not recorded again.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, islice, zip_longest
from operator import itemgetter

import msgspec
from msgspec.structs import replace

CHARACTERS_PER_TOKEN = 4


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A file: its purpose as told, its symbols as measured or else as told, its stories and its size."""

    purpose: str = ""
    key_symbols: tuple[str, ...] = ()
    touched_by: tuple[str, ...] = ()  # story ids, oldest first
    line_count: int | None = None  # None: never measured, or not text


_UNKNOWN = FileInfo()


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A choice that a story made; `superseded_by` is the story that later chose otherwise."""

    story_id: str
    topic: str
    choice: str
    rationale: str
    superseded_by: str | None = None


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """A way of doing things in this project, with a file that shows it."""

    story_id: str
    description: str
    example_file: str | None


class StoryChanges(msgspec.Struct, frozen=True, kw_only=True):
    """The paths that one story changed; a renamed file was deleted and created."""

    story_id: str
    files_created: tuple[str, ...] = ()
    files_modified: tuple[str, ...] = ()
    files_deleted: tuple[str, ...] = ()
    commit_hash: str | None = None


class ProjectKnowledge(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known so far, and the commit that the run began from."""

    files: Mapping[str, FileInfo] = {}
    decisions: tuple[Decision, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    story_changes: tuple[StoryChanges, ...] = ()
    baseline_commit: str | None = None


class NotedFile(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says a file is for."""

    path: str
    purpose: str = ""
    symbols: tuple[str, ...] = ()


class NotedDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says it decided."""

    topic: str
    choice: str
    rationale: str = ""


class NotedPattern(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern that an agent says it followed."""

    description: str
    example_file: str | None = None


class NotedKnowledge(msgspec.Struct, frozen=True, kw_only=True):
    """The `<knowledge>` of one artifact; a malformed one is empty."""

    files: tuple[NotedFile, ...] = ()
    decisions: tuple[NotedDecision, ...] = ()
    patterns: tuple[NotedPattern, ...] = ()


class Learning:
    """Knowledge that grows in place while facts are folded. Not frozen; what it came to is a `ProjectKnowledge`."""

    def __init__(self, known: ProjectKnowledge) -> None:
        self.baseline_commit = known.baseline_commit
        self._files = dict(known.files)
        self._touched: dict[str, dict[str, None]] = {}  # by path, the stories in order: what is new to `_files`
        self._decisions = list(known.decisions)
        self._patterns = list(known.patterns)
        self.story_changes = list(known.story_changes)
        # Where the decision that stands on each topic is, and the patterns, in the form in which they are compared.
        standing = enumerate(known.decisions)
        self._standing = {_same(decision.topic): at for at, decision in standing if decision.superseded_by is None}
        self._known_patterns = {_same(pattern.description) for pattern in known.patterns}

    def known(self) -> ProjectKnowledge:
        """What is known by now."""
        return ProjectKnowledge(
            files=self._files
            | {path: replace(self._files[path], touched_by=tuple(by)) for path, by in self._touched.items()},
            decisions=tuple(self._decisions),
            patterns=tuple(self._patterns),
            story_changes=tuple(self.story_changes),
            baseline_commit=self.baseline_commit,
        )

    def merge(
        self,
        story_id: str,
        changes: StoryChanges | None,
        noted: NotedKnowledge | None,
        *,
        commit_hash: str | None = None,
        line_counts: Mapping[str, int] | None = None,
        symbols: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Add what one landed story changed and noted: see `merge_story`."""
        record = changes or StoryChanges(story_id=story_id)
        record = replace(record, story_id=story_id, commit_hash=commit_hash or record.commit_hash)
        self.story_changes.append(record)
        counts, measured = line_counts or {}, symbols or {}
        for path in record.files_deleted:
            self._files.pop(path, None)
            self._touched.pop(path, None)
        for path in (*record.files_created, *record.files_modified):
            known = self._files.get(path, _UNKNOWN)
            told = measured.get(path, known.key_symbols)
            self._files[path] = replace(known, key_symbols=told, line_count=counts.get(path))
            self._touch(path, story_id)
        for note in noted.files if noted else ():
            path = note.path.removeprefix("./")
            if path in record.files_deleted:
                continue
            known = self._files.get(path, _UNKNOWN)
            told = known.key_symbols if path in measured else _joined(known.key_symbols, note.symbols)
            self._files[path] = replace(known, purpose=note.purpose or known.purpose, key_symbols=told)
            if changes is None:
                self._touch(path, story_id)
        for decision in noted.decisions if noted else ():
            self._decide(story_id, decision)
        for pattern in noted.patterns if noted else ():
            self._follow(story_id, pattern)

    def _touch(self, path: str, story_id: str) -> None:
        if path not in self._touched:
            self._touched[path] = dict.fromkeys(self._files[path].touched_by)
        self._touched[path][story_id] = None

    def _decide(self, story_id: str, note: NotedDecision) -> None:
        topic = _same(note.topic)
        older = self._standing.get(topic)
        if older is not None:
            if _same(self._decisions[older].choice) == _same(note.choice):
                return
            self._decisions[older] = replace(self._decisions[older], superseded_by=story_id)
        self._standing[topic] = len(self._decisions)
        self._decisions.append(
            Decision(story_id=story_id, topic=note.topic, choice=note.choice, rationale=note.rationale)
        )

    def _follow(self, story_id: str, note: NotedPattern) -> None:
        form = _same(note.description)
        if form not in self._known_patterns:
            self._known_patterns.add(form)
            self._patterns.append(
                Pattern(story_id=story_id, description=note.description, example_file=note.example_file)
            )


def merge_story(
    knowledge: ProjectKnowledge,
    story_id: str,
    changes: StoryChanges | None,
    noted: NotedKnowledge | None,
    *,
    commit_hash: str | None = None,
    line_counts: Mapping[str, int] | None = None,
    symbols: Mapping[str, tuple[str, ...]] | None = None,
) -> ProjectKnowledge:
    """Add what one landed story changed and noted. `changes` None means that there is no diff.

    `line_counts` and `symbols` come with the diff: the lines that a created or modified text file has now, and the
    names that it defines, by path. Where they were read, they stand in the place of what agents told.
    """
    learning = Learning(knowledge)
    learning.merge(story_id, changes, noted, commit_hash=commit_hash, line_counts=line_counts, symbols=symbols)
    return learning.known()


def _joined(known: tuple[str, ...], told: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*known, *told)))


def _same(text: str) -> str:
    """The form in which two texts of an agent are compared."""
    return " ".join(text.split()).casefold()


# --- rendering for a prompt -------------------------------------------------------------------------------

_EXCERPT_LINES, _EXCERPT_LINE = 3, 72  # and the characters of each
_SECTIONS = ("Files:", "Decisions:", "Patterns:")
_Ranked = tuple[int, int, Callable[[], str]]


def render(knowledge: ProjectKnowledge, *, focus: frozenset[str], budget_tokens: int) -> str:
    """The most relevant knowledge as text within the budget; "" when there is none, or no room for any.

    `focus` holds story ids and file names: what they touch comes first, then what is recent. Decisions that
    were superseded are left out. A token is taken to be 4 characters.
    """
    room = budget_tokens * CHARACTERS_PER_TOKEN + 1  # each line is counted with its end; the last has none
    told: tuple[list[str], ...] = tuple([] for _ in _SECTIONS)
    for _, section, line in sorted(_ranked(knowledge, focus), key=itemgetter(0), reverse=True):
        text = line()
        cost = len(text) + 1 + (0 if told[section] else len(_SECTIONS[section]) + 1)
        if cost > room:
            break  # what is less relevant is never told in its place
        told[section].append(text)
        room -= cost
    return "\n".join("\n".join((heading, *lines)) for heading, lines in zip(_SECTIONS, told, strict=True) if lines)


def excerpt(knowledge: ProjectKnowledge, *, focus: frozenset[str]) -> str:
    """The least that somebody is told who finds the rest in a file, a few short lines; "" when there is nothing.

    By turns: what the stories in focus decided, newest first, and the files in focus.
    """
    decided = [
        _decision_line(decision)
        for decision in reversed(knowledge.decisions)
        if decision.superseded_by is None and decision.story_id in focus
    ]
    named = [_file_line(path, info) for path, info in knowledge.files.items() if not focus.isdisjoint(_names(path))]
    told = filter(None, chain.from_iterable(zip_longest(decided, named)))
    return "\n".join(_clipped(line, _EXCERPT_LINE) for line in islice(told, _EXCERPT_LINES))


def _ranked(knowledge: ProjectKnowledge, focus: frozenset[str]) -> Iterator[_Ranked]:
    """Everything that may be told: its rank (highest first), its section, and how to say it."""
    landed = {changes.story_id: number for number, changes in enumerate(knowledge.story_changes)}

    def rank(names: tuple[str, ...], newest_story: str) -> int:
        recency = landed.get(newest_story, -1)
        return recency if focus.isdisjoint(names) else recency + len(landed) + 1

    for path, info in knowledge.files.items():
        names = (*_names(path), *info.touched_by)
        newest = info.touched_by[-1] if info.touched_by else ""
        yield rank(names, newest), 0, partial(_file_line, path, info)
    for decision in knowledge.decisions:
        if decision.superseded_by is None:
            yield rank((decision.story_id,), decision.story_id), 1, partial(_decision_line, decision)
    for pattern in knowledge.patterns:
        names = (pattern.story_id, pattern.example_file or "")
        yield rank(names, pattern.story_id), 2, partial(_pattern_line, pattern)


def _names(path: str) -> tuple[str, str]:
    """How a file may be spoken of."""
    return path, path.rpartition("/")[2]


def _file_line(path: str, info: FileInfo) -> str:
    size = "" if info.line_count is None else f" ({info.line_count} lines)"
    purpose = f": {_clipped(info.purpose, 120)}" if info.purpose else ""
    symbols = f" [{_clipped(', '.join(info.key_symbols), 80)}]" if info.key_symbols else ""
    return f"- {_clipped(path, 200)}{size}{purpose}{symbols}"


def _decision_line(decision: Decision) -> str:
    why = f" - {_clipped(decision.rationale, 120)}" if decision.rationale else ""
    return f"- {_clipped(decision.topic, 80)}: {_clipped(decision.choice, 120)} ({decision.story_id}){why}"


def _pattern_line(pattern: Pattern) -> str:
    example = f", see {pattern.example_file}" if pattern.example_file else ""
    return f"- {_clipped(pattern.description, 240)} ({pattern.story_id}{example})"


def _clipped(text: str, limit: int) -> str:
    """The text on one line, at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
