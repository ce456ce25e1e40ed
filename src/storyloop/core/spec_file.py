"""Spec files: bytes to a checked Spec, and back to the canonical JSON.

Both forms, JSON and Markdown, arrive here as the same fields and pass the same rules. The rules do not stop at the
first problem, so that whoever wrote the file mends it once; that is why the fields are taken by hand, one after
the other, and not by msgspec, which stops.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NoReturn, TypeVar, cast

import msgspec

from storyloop.core.branch import branch_fault, default_branch
from storyloop.core.spec import Criterion, Problem, Spec, SpecErrors, Story
from storyloop.core.spec_text import STORY_ID, read_markdown

MAX_SPEC_BYTES = 5_000_000
_MOST_LINES = 20_000
_MOST_PROBLEMS = 500  # nobody mends more at a time
_HIGHEST_PRIORITY = 2**32 - 1  # that of autom8's spec.json
_LONGEST_TITLE = 60  # of one that we find
_MARKER = re.compile(r"\A[-*+>#]+ +")  # at the beginning of a line of prose
_DEEPEST = 100  # levels within a value that we keep without knowing it

_TOO_LARGE = "Name the file of the spec itself, or split the spec."

_T = TypeVar("_T")
_WANTED: dict[type, tuple[str, str]] = {
    str: ("a text", "Put it in quotes."),
    int: ("a whole number", "Write a whole number; 1 is first."),
    bool: ("true or false", "Write true or false."),
    list: ("a list", "Put it in [ ]."),
    dict: ("an object", "Write an object in { }."),
}


def parse_spec(text: bytes, *, name: str) -> Spec:
    """The spec in a file of this name; Markdown without any story is a free-form one.

    JSON is what is named .json or, where the name does not tell, begins with `{`. Raises `SpecErrors`.
    """
    decoded = _decoded(text, name)
    if is_json(decoded, name=name):
        return _checked(_json(decoded, name), _Report(name))
    outline = read_markdown(decoded)
    report = _Report(name, lines=outline.lines)
    for slip in outline.slips:
        report.add_at(slip.line, slip.what, slip.cure)
    if outline.fields["userStories"]:
        return _checked(outline.fields, report)
    title = outline.fields["title"] or _first_words(str(outline.fields["description"]))
    return msgspec.structs.replace(_checked(outline.fields | {"title": title}, report), description=decoded)


def _first_words(text: str) -> str:
    """What a text without a title may be called."""
    line = _MARKER.sub("", text.partition("\n")[0]).rstrip()
    return line if len(line) <= _LONGEST_TITLE else line[:_LONGEST_TITLE].rsplit(" ", 1)[0]


def is_json(text: str, *, name: str) -> bool:
    """Whether a spec file of this name is read as JSON, not as Markdown."""
    suffix = name.casefold().rpartition(".")[2]
    return suffix == "json" or (suffix not in ("md", "markdown") and text.lstrip().startswith("{"))


def dump_spec(spec: Spec) -> bytes:
    """The canonical JSON of the spec: `parse_spec` makes the same spec of it, and autom8 can read it."""
    fields = {
        "project": spec.project,
        "branchName": spec.branch_name,
        "title": spec.title,
        "description": spec.description,
        "userStories": [_story_fields(story) for story in spec.user_stories],
    }
    return msgspec.json.format(msgspec.json.encode(fields | spec.extra), indent=2) + b"\n"


def _story_fields(story: Story) -> dict[str, object]:
    return {
        "id": story.id,
        "title": story.title,
        "description": story.description,
        "acceptanceCriteria": [_criterion_fields(criterion) for criterion in story.acceptance_criteria],
        "priority": story.priority,
        "passes": story.passes,
        "notes": story.notes,
        "dependsOn": story.depends_on,
    } | story.extra


def _criterion_fields(criterion: Criterion) -> str | dict[str, object]:
    if criterion.verify is None:
        return {"text": criterion.text} | criterion.extra if criterion.extra else criterion.text
    return {"text": criterion.text, "verify": criterion.verify} | criterion.extra


def _refuse(what: str, place: str, cure: str) -> NoReturn:
    raise SpecErrors((Problem(what, place, cure),))


def _decoded(text: bytes, name: str) -> str:
    if len(text) > MAX_SPEC_BYTES:
        _refuse(f"The file has {len(text):,} bytes; a spec may have {MAX_SPEC_BYTES:,}", name, _TOO_LARGE)
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(f"The file is not UTF-8 text: byte {error.start + 1} fits no character", name, "Save it as UTF-8.")
    if "\0" in decoded:
        _refuse("The file is binary: it holds NUL bytes", name, "Name a text file.")
    if not decoded.strip():
        cure = "Write what you want: a title, and stories with acceptance criteria."
        _refuse("The file is empty", name, cure)
    decoded = _plain_line_ends(decoded)
    if (lines := decoded.count("\n")) > _MOST_LINES:
        _refuse(f"The file has {lines:,} lines; a spec may have {_MOST_LINES:,}", name, _TOO_LARGE)
    return decoded


def _plain_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _json(text: str, name: str) -> object:
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        _refuse("The JSON is nested too deeply", name, "A spec needs five levels; take the others out.")
    except msgspec.ValidationError:  # with no type asked for, only a number can be refused
        _refuse("The JSON holds a number that is too large", name, "Write a smaller one.")
    except msgspec.DecodeError as error:
        fault, _, offset = str(error).removeprefix("JSON is malformed: ").partition(" (byte ")
        before = text.encode()[: int(offset.rstrip(")")) if offset else None].decode(errors="ignore")
        place = f"{name}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        fault = fault if offset else "it ends too early"
        cure = "Mend it there or just before: a comma, a quote or a bracket may be missing or one too many."
        _refuse(f"The file is not valid JSON: {fault}", place, cure)


class _Report:
    """Collects the problems of one file, and says where the field of a path stands in it."""

    def __init__(self, name: str, *, lines: Mapping[str, int] | None = None) -> None:
        self._name = name
        self._lines = lines  # those of Markdown; in JSON the path itself is the place
        self._problems: list[tuple[int, Problem]] = []

    @property
    def is_of_json(self) -> bool:
        return self._lines is None

    def add(self, what: str, path: str, cure: str) -> None:
        if self._lines is None:
            self._add(0, Problem(what, f"{path} of {self._name}" if path else self._name, cure))
            return
        while path and path not in self._lines:
            path = path.rpartition(".")[0]
        self.add_at(self._lines.get(path, 1), what, cure)

    def add_at(self, line: int, what: str, cure: str) -> None:
        self._add(line, Problem(what, f"{self._name}:{line}", cure))

    def _add(self, line: int, problem: Problem) -> None:
        self._problems.append((line, problem))
        if len(self._problems) == _MOST_PROBLEMS:
            self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raise `SpecErrors` with all problems, in the order of the file."""
        if self._problems:
            ordered = sorted(self._problems, key=lambda placed: placed[0])
            raise SpecErrors(tuple(problem for _, problem in ordered))


class _Fields:
    """The fields of one object of the file; a field of a wrong type is told, and then counts as missing.

    `null` is a missing field: autom8 and others write it for what they do not have.
    """

    def __init__(self, fields: Mapping[str, object], report: _Report, *, at: str, owner: str) -> None:
        self._fields = fields
        self._report = report
        self._at = at
        self._owner = owner

    def path(self, key: str) -> str:
        return f"{self._at}.{key}" if self._at else key

    def problem(self, what: str, key: str, cure: str) -> None:
        self._report.add(f"{self._owner} {what}", self.path(key), cure)

    def is_missing(self, key: str) -> bool:
        value = self._fields.get(key)
        return value is None or value == [] or (isinstance(value, str) and not value.strip())

    def take(self, key: str, kind: type[_T]) -> _T | None:
        value = self._fields.get(key)
        if value is None:
            return None
        if type(value) is kind:  # not isinstance: true is no number here
            return cast("_T", value)
        wanted, cure = _WANTED[kind]
        self.problem(f"has {_shown(value)} as {key}, not {wanted}", key, cure)
        return None

    def text(self, key: str) -> str:
        """The text with plain line ends."""
        value = self.take(key, str) or ""
        if "\0" in value:
            self.problem(f"has a NUL character in its {key}", key, "Take it out.")
        return _plain_line_ends(value).strip()

    def line(self, key: str) -> str:
        return " ".join(self.text(key).split())

    def prose(self, key: str) -> str:
        return "\n".join(row.rstrip() for row in self.text(key).split("\n"))

    def items(self, key: str) -> list[object]:
        return cast("list[object]", self.take(key, list) or [])

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, each once."""
        values = self.items(key)
        for number, value in enumerate(values):
            if not isinstance(value, str):
                path, (wanted, cure) = f"{key}[{number}]", _WANTED[str]
                self.problem(f"has {_shown(value)} in {key}, not {wanted}", path, cure)
        return tuple(dict.fromkeys(value.strip() for value in values if isinstance(value, str)))

    def extra(self, known: type[msgspec.Struct]) -> dict[str, object]:
        """The fields that are none of this struct's."""
        names = set(known.__struct_encode_fields__) - {"extra"}
        extra = {key: value for key, value in self._fields.items() if key not in names}
        for key in [key for key, value in extra.items() if _is_deep(value)]:
            self.problem("has a value that is nested too deeply", key, "Take it out, or make it flatter.")
        return extra


def _checked(decoded: object, report: _Report) -> Spec:
    """The spec in these fields; raises `SpecErrors` with everything that is wrong."""
    if not isinstance(decoded, dict):
        report.add(f"The spec is {_shown(decoded)}, not an object", "", _WANTED[dict][1])
        report.raise_if_any()
    values = cast("dict[str, object]", decoded)
    fields = _Fields(values, report, at="", owner="The spec")
    project, branch, title = fields.line("project"), fields.text("branchName"), fields.line("title")
    if values.get("title") is None:  # neither autom8 nor the Ralph tools have one
        title = project or branch.rpartition("/")[2]
    if not title and fields.is_missing("title"):
        report.add("The spec has no title", "", 'Give it one: "# Title" in Markdown, "title" in JSON.')
    branch = branch or default_branch(title)
    if fault := branch_fault(branch):
        cure = 'Write one such as "feature/login".'
        fields.problem(f'cannot have the branch "{_short(branch)}": {fault}', "branchName", cure)
    if fields.is_missing("userStories") and report.is_of_json:
        report.add("The spec has no stories", "", 'Add at least one to "userStories".')
    placed: list[tuple[Story, str]] = []
    for number, value in enumerate(fields.items("userStories")):
        place = f"userStories[{number}]"
        if isinstance(value, dict):
            placed.append((_story(cast("dict[str, object]", value), number, place, report), place))
        else:
            report.add(f"Story {number + 1} is {_shown(value)}, not an object", place, _WANTED[dict][1])
    _check_ids(placed, report)
    _check_dependencies(placed, report)
    spec = Spec(
        project=project or title,
        branch_name=branch,
        title=title,
        description=fields.prose("description"),
        user_stories=tuple(story for story, _ in placed),
        extra=fields.extra(Spec),
    )
    report.raise_if_any()
    return spec


def _story(values: Mapping[str, object], number: int, at: str, report: _Report) -> Story:
    named = values.get("id")
    owner = f"Story {_short(named)}" if isinstance(named, str) and named.strip() else f"Story {number + 1}"
    fields = _Fields(values, report, at=at, owner=owner)
    story_id = fields.text("id")
    if fields.is_missing("id"):
        report.add(f"{owner} has no id", at, 'Give it one such as "US-001".')
    elif story_id and (not STORY_ID.fullmatch(story_id) or branch_fault(story_id)):
        cure = "Use letters, digits, '.', '_' and '-': a letter first, a letter or digit last."
        fields.problem("has an id that cannot be used", "id", cure)
    if fields.is_missing("title"):
        report.add(f"{owner} has no title", at, "Say in a few words what it brings.")
    if fields.is_missing("acceptanceCriteria"):
        report.add(f"{owner} has no acceptance criteria", at, "Add at least one.")
    priority = fields.take("priority", int)
    if priority is not None and not 0 <= priority <= _HIGHEST_PRIORITY:
        fields.problem(f"has the priority {_shown(priority)}, out of range", "priority", _WANTED[int][1])
    criteria = enumerate(fields.items("acceptanceCriteria"))
    return Story(
        id=story_id,
        title=fields.line("title"),
        description=fields.prose("description"),
        acceptance_criteria=tuple(_criterion(value, place, owner, at, report) for place, value in criteria),
        priority=number + 1 if priority is None else priority,
        passes=fields.take("passes", bool) or False,
        notes=fields.prose("notes"),
        depends_on=fields.texts("dependsOn"),
        extra=fields.extra(Story),
    )


def _criterion(value: object, number: int, story: str, at: str, report: _Report) -> Criterion:
    at = f"{at}.acceptanceCriteria[{number}]"
    owner = f"Criterion {number + 1} of {story[0].lower()}{story[1:]}"
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        report.add(f"{owner} is {_shown(value)}, not a text or an object", at, _WANTED[str][1])
        return Criterion("")
    fields = _Fields(cast("dict[str, object]", value), report, at=at, owner=owner)
    if fields.is_missing("text"):
        report.add(f"{owner} is empty", at, "Write one sentence that can be proven, or take it out.")
    verify = fields.text("verify") if fields.take("verify", str) is not None else None
    if verify == "":
        fields.problem("has an empty verify command", "verify", "Write a command that exits with 0 once it is met.")
    text = "\n".join(row for row in fields.prose("text").split("\n") if row)
    return Criterion(text, verify, fields.extra(Criterion))


def _check_ids(placed: Iterable[tuple[Story, str]], report: _Report) -> None:
    """No two ids may differ by case only either: refs are files, and some file systems see no difference."""
    first: dict[str, str] = {}
    for story, place in placed:
        folded = story.id.casefold()
        if folded in first:
            what = f"The ids {first[folded]} and {story.id} differ by their case only"
            if story.id == first[folded]:
                what = f"There are two stories {story.id}"
            report.add(what, place, "Give each story an id of its own.")
        elif story.id:
            first[folded] = story.id


def _check_dependencies(placed: Iterable[tuple[Story, str]], report: _Report) -> None:
    wanted = {story.id: story.depends_on for story, _ in placed}
    places: dict[tuple[str, str], str] = {}
    for story, at in placed:
        for number, dependency in enumerate(story.depends_on):
            place = places[story.id, dependency] = f"{at}.dependsOn[{number}]"
            if dependency == story.id:
                report.add(f"Story {story.id} depends on itself", place, "Take that out.")
            elif dependency not in wanted:
                what = f'Story {story.id} depends on "{_short(dependency)}", which no story is'
                report.add(what, place, "Write the id of a story of this file, or take it out.")
    for cycle in _cycles({story: [one for one in ids if one != story] for story, ids in wanted.items()}):
        what = f"These stories wait for each other: {' -> '.join([*cycle, cycle[0]])}"
        report.add(what, places[cycle[0], cycle[1]], "Take one of these dependencies out.")


def _cycles(dependencies: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Cycles such that every story that can never start waits for one of them.

    A story whose dependencies can all be met is taken away, until none can be. Each story that is left has a
    dependency that is left too: following the first of them must come to a cycle.
    """
    dependents: dict[str, list[str]] = {}
    missing = {story: {one for one in wanted if one in dependencies} for story, wanted in dependencies.items()}
    for story, wanted in missing.items():
        for one in wanted:
            dependents.setdefault(one, []).append(story)
    free = [story for story, wanted in missing.items() if not wanted]
    while free:
        story = free.pop()
        del missing[story]
        for dependent in dependents.get(story, ()):
            missing[dependent].discard(story)
            if not missing[dependent]:
                free.append(dependent)
    following = {story: next(one for one in dependencies[story] if one in missing) for story in missing}
    cycles: list[list[str]] = []
    walked: set[str] = set()
    for start in missing:
        path: list[str] = []
        story = start
        while story not in walked:
            walked.add(story)
            path.append(story)
            story = following[story]
        if story in path:
            cycles.append(path[path.index(story) :])
    return cycles


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(_DEEPEST):
        inner: list[object] = []
        for outer in level:
            if isinstance(outer, dict):
                inner.extend(cast("dict[str, object]", outer).values())
            elif isinstance(outer, list):
                inner.extend(cast("list[object]", outer))
        level = inner
        if not level:
            return False
    return True


def _shown(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{_short(value)}"'
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return _short(str(value))


def _short(text: str) -> str:
    """At most 60 characters of the text, on one line and without control characters."""
    line = "".join(character if character.isprintable() else " " for character in text[:61])
    return line if len(text) <= 60 else f"{line[:59]}…"
