"""The Markdown form of a spec, read and written.

Reading goes from text to the fields of the JSON form, so that one set of rules checks both forms; `Outline.lines`
says where each field stood. The tokens are cut into blocks at headings of level 1 to 3, and each block belongs to a
section or is a story. What we do not know is text, and text is kept: that of a story in the story's description,
everything else in the spec's.
"""

import re
from collections.abc import Iterable

import msgspec

from storyloop.core.spec import Criterion, Spec, Story
from storyloop.core.spec_lines import (
    PARTS,
    Code,
    Heading,
    Part,
    Section,
    Slip,
    Text,
    Token,
    escaped,
    escaped_text,
    is_blank,
    is_structure,
    is_structure_of_spec,
    is_structure_of_story,
    item_of,
    label_of,
    opens,
    scanned,
    section_of,
    unescaped,
    verify_of,
)

STORY_ID = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_AFTER_ID = re.compile(r"\s*(?:[:–—]|[-.](?=\s|\Z))")
_NO_DEPENDENCY = frozenset({"", "none", "n/a", "-", "–", "—"})


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """A Markdown spec as the fields of the JSON form, unchecked; `lines` maps the paths of fields to lines."""

    fields: dict[str, object]
    lines: dict[str, int]
    slips: tuple[Slip, ...]


def read_markdown(text: str) -> Outline:
    """What stands in a text whose lines end with `\\n`; without any story it is free-form and hardly can slip."""
    tokens, unclosed = scanned(text)
    reader = _Reader()
    for heading, body in _blocks(tokens):
        reader.take(heading, body)
    reader.fields["description"] = "\n\n".join(filter(None, map(_joined, reader.runs)))
    reader.fields["userStories"] = reader.stories
    slips = unclosed + (reader.slips if reader.stories else [])
    return Outline(fields=reader.fields, lines=reader.lines, slips=tuple(slips))


_Body = list[Text | Code]


def _blocks(tokens: Iterable[Token]) -> list[tuple[Heading | None, _Body]]:
    blocks: list[tuple[Heading | None, _Body]] = [(None, [])]
    for token in tokens:
        if isinstance(token, Heading):
            blocks.append((token, []))
        else:
            blocks[-1][1].append(token)
    return blocks


def _prose(body: Iterable[Text | Code]) -> list[str]:
    rows: list[str] = []
    for token in body:
        rows.extend(token.rows if isinstance(token, Code) else [unescaped(token.text)])
    return rows


def _joined(rows: Iterable[str]) -> str:
    return "\n".join(rows).strip()


def _story_heading(text: str) -> tuple[str, str] | None:
    """Id and title of `US-001: Title`; a space alone parts them only when the id has a digit."""
    found = STORY_ID.match(text)
    if not found:
        return None
    story_id, rest = found[0], text[found.end() :]
    if parted := _AFTER_ID.match(rest):
        return story_id, rest[parted.end() :].strip()
    if _has_digit(story_id) and (not rest or rest[0].isspace()):
        return story_id, rest.strip()
    return None


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


class _Reader:
    """What has been found so far; each block adds to it."""

    def __init__(self) -> None:
        self.fields: dict[str, object] = {"title": ""}
        self.lines: dict[str, int] = {}
        self.stories: list[dict[str, object]] = []
        self.runs: list[list[str]] = [[]]  # the description; what was taken out of it parts two runs
        self.slips: list[Slip] = []
        self._section = Section.DESCRIPTION
        self._seen: dict[Section, int] = {}

    def take(self, heading: Heading | None, body: _Body) -> None:
        match heading:
            case None:
                self._keep(body)
            case Heading(level=1):
                self._title(heading)
                self._keep(body)
            case Heading(level=2):
                self._open_section(heading, body)
            case _:
                self._story_or_text(heading, body)

    def _slip(self, line: int, what: str, cure: str) -> None:
        self.slips.append(Slip(line, what, cure))

    def _keep(self, body: _Body) -> None:
        for token in body:
            item = item_of(token.text) if isinstance(token, Text) else None
            is_criterion = item is not None and item.has_checkbox and self._section is Section.STORIES
            if is_criterion or opens(Part.CRITERIA, token):
                cure = 'Put it below the heading of its story ("### US-001: Title").'
                self._slip(token.line, "This criterion stands outside of any story", cure)
        self.runs[-1].extend(_prose(body))

    def _title(self, heading: Heading) -> None:
        if "title" in self.lines:
            what = f'"{heading.text}" is a second title, after the one in line {self.lines["title"]}'
            self._slip(heading.line, what, "Make it a heading of level 2 (##).")
            return
        self.fields["title"] = heading.text
        self.lines["title"] = heading.line
        self.runs.append([])

    def _open_section(self, heading: Heading, body: _Body) -> None:
        section, value = section_of(heading.text)
        self._section = section or Section.DESCRIPTION
        if section is None:
            self.runs[-1].append(heading.raw)
            self._keep(body)
            return
        if section in self._seen:
            what = f'The section "{heading.text}" was there already, in line {self._seen[section]}'
            self._slip(heading.line, what, "Merge the two.")
        self._seen.setdefault(section, heading.line)
        self.runs.append([])
        match section:
            case Section.PROJECT:
                self._name("project", heading, [value, *_prose(body)])
            case Section.BRANCH:
                self._name("branchName", heading, [value, *_prose(body)])
            case Section.STORIES | Section.DESCRIPTION:
                self.runs[-1].append(value)
                self._keep(body)

    def _name(self, field: str, heading: Heading, rows: Iterable[str]) -> None:
        names = [row.strip() for row in rows if row.strip()]
        self.lines.setdefault(field, heading.line)
        if len(names) > 1:
            cure = "Keep the name alone; other text belongs to the description."
            self._slip(heading.line, f'The section "{heading.text}" holds more than one line', cure)
        if names:
            self.fields.setdefault(field, _unquoted(names[0]))

    def _story_or_text(self, heading: Heading, body: _Body) -> None:
        named = _story_heading(heading.text)
        among_stories = self._section is Section.STORIES
        has_criteria = any(opens(Part.CRITERIA, token) for token in body)
        if named and (has_criteria or (among_stories and _has_digit(named[0]))):
            self.runs.append([])
            at = f"userStories[{len(self.stories)}]"
            self.lines[at] = heading.line
            story = _StoryReader(named[0], at, self)
            self.stories.append(story.read(body) | {"id": named[0], "title": named[1]})
        elif among_stories:
            cure = 'Write it as "### US-001: Title", with acceptance criteria below.'
            self._slip(heading.line, f'The heading "{heading.text}" is not that of a story', cure)
        else:
            self.runs[-1].append(heading.raw)
            self._keep(body)


class _Gathered(msgspec.Struct):
    """A criterion while its lines are still coming: the one value here that changes."""

    line: int
    indent: int
    text: list[str]
    verify: str | None = None
    verify_line: int = 0


class _StoryReader:
    """Reads the block of one story; tells the reader of the file its lines and slips."""

    def __init__(self, story_id: str, at: str, file: _Reader) -> None:
        self._id = story_id
        self._at = at
        self._lines = file.lines
        self._slips = file.slips
        self._criteria: list[_Gathered] = []

    def read(self, body: _Body) -> dict[str, object]:
        story: dict[str, object] = {}
        parts: dict[Part, _Body] = {part: [] for part in Part}
        seen: dict[Part, int] = {}
        part = Part.DESCRIPTION
        for token in body:
            label = label_of(token.text) if isinstance(token, Text) else None
            opened = PARTS.get(label[0]) if label else None
            if label is None or opened is None:
                if _leaves(part, token, is_label=label is not None):
                    part = Part.DESCRIPTION
                parts[part].append(token)
                continue
            rest = label[1]
            if opened in seen:
                what = f"Story {self._id} has **{opened.capitalize()}:** twice, first in line {seen[opened]}"
                self._slip(token.line, what, "Merge the two.")
            elif opened is Part.PRIORITY:
                story["priority"] = _number(rest)
                self._lines[f"{self._at}.priority"] = token.line
            else:
                parts[opened].append(Text(token.line, rest))
            seen.setdefault(opened, token.line)
            is_whole = opened is Part.PRIORITY or (opened is Part.DEPENDS and rest)
            part = Part.DESCRIPTION if is_whole else opened
        story["dependsOn"] = self._depends_on(parts[Part.DEPENDS])
        outside = self._gather(parts[Part.CRITERIA])
        story["acceptanceCriteria"] = [self._criterion(*numbered) for numbered in enumerate(self._criteria)]
        texts = (_joined(_prose(tokens)) for tokens in (parts[Part.DESCRIPTION], outside))
        story["description"] = "\n\n".join(filter(None, texts))
        story["notes"] = _joined(_prose(parts[Part.NOTES]))
        return story

    def _slip(self, line: int, what: str, cure: str) -> None:
        self._slips.append(Slip(line, what, cure))

    def _depends_on(self, body: _Body) -> list[str]:
        ids: list[str] = []
        for token in body:
            text = token.text if isinstance(token, Text) else ""
            item = item_of(text)
            for word in re.split(r"[,;\s]+", item.text if item else text):
                story_id = word.strip("`.")
                if story_id.casefold() not in _NO_DEPENDENCY:
                    self._lines[f"{self._at}.dependsOn[{len(ids)}]"] = token.line
                    ids.append(story_id)
        return ids

    def _criterion(self, number: int, gathered: _Gathered) -> dict[str, str | None]:
        path = f"{self._at}.acceptanceCriteria[{number}]"
        self._lines[path] = gathered.line
        self._lines[f"{path}.verify"] = gathered.verify_line
        return {"text": "".join(gathered.text), "verify": gathered.verify}

    def _gather(self, body: _Body) -> _Body:
        """Collects the criteria, and gives back what stands between them and is none."""
        outside: _Body = []
        apart = True  # a blank line or code came before
        for token in body:
            if is_blank(token):
                apart = True
                outside += [token] if outside and not is_blank(outside[-1]) else []
                continue
            current = self._criteria[-1] if self._criteria else None
            indent = _indent(token.text) if isinstance(token, Text) else token.indent
            match token:
                case Text(line, text):
                    item, verify = item_of(text), verify_of(text)
                    nested = current is not None and indent >= current.indent + 2
                    if item and (item.has_checkbox or not nested):
                        self._begin(line, indent, item.text)
                    elif verify is not None:
                        self._prove(line, current, verify)
                    elif current and (indent or not apart):
                        self._go_on(token, current, joined=not apart and item is None)
                    else:
                        outside.append(token)
                case Code():
                    if current and (indent or not apart):
                        self._go_on(token, current, joined=False)
                    else:
                        outside.append(token)
            apart = isinstance(token, Code)
        return outside

    def _begin(self, line: int, indent: int, text: str) -> None:
        verify = verify_of(text)
        if verify is None:
            self._criteria.append(_Gathered(line, indent, [unescaped(text)]))
        else:
            self._prove(line, None, verify)

    def _prove(self, line: int, criterion: _Gathered | None, written: str) -> None:
        if criterion is None:
            cure = "Put it below its criterion, indented by two spaces."
            self._slip(line, "This verify command belongs to no criterion", cure)
            return
        if criterion.verify is not None:
            self._slip(line, "This criterion has a second verify command", "Join the two with &&.")
            return
        command = _command(written)
        if command is None:
            cure = "Put the whole command between them and nothing after it; around a backtick put two."
            self._slip(line, "The backticks of this verify command do not match", cure)
        criterion.verify = written if command is None else command
        criterion.verify_line = line

    def _go_on(self, token: Text | Code, criterion: _Gathered, *, joined: bool) -> None:
        if criterion.verify == "" and isinstance(token, Code):
            criterion.verify = "\n".join(token.dedented()[1:-1])
        elif criterion.verify is not None:
            cure = "Write the command on one line or in a code fence, and all text before it."
            self._slip(token.line, "This line follows the verify command of its criterion", cure)
        elif isinstance(token, Code):
            criterion.text += ["\n", "\n".join(token.dedented())]
        elif joined:
            criterion.text += [" ", unescaped(token.text.strip())]
        else:
            within = criterion.indent + 2
            criterion.text += ["\n", unescaped(token.text[:within].lstrip() + token.text[within:])]


def _leaves(part: Part, token: Text | Code, *, is_label: bool) -> bool:
    """Whether the token no longer belongs to the list that the part holds."""
    if part is Part.CRITERIA:
        is_text = isinstance(token, Text) and _indent(token.text) == 0 and verify_of(token.text) is None
        return is_label and is_text
    is_item = isinstance(token, Text) and item_of(token.text) is not None
    return part is Part.DEPENDS and not is_item and not is_blank(token)


def _indent(raw: str) -> int:
    return len(raw[: len(raw) - len(raw.lstrip())].expandtabs(4))


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else text


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] == "`" else name


def _command(written: str) -> str | None:
    """The command between backticks, or the whole when it begins with none; None when they do not match."""
    if not written.startswith("`"):
        return written
    runs = re.findall("`+", written)
    if len(runs) < 2 or runs[-1] != runs[0] or runs[0] in runs[1:-1] or not written.endswith("`"):
        return None
    return written[len(runs[0]) : -len(runs[0])].strip()


def dump_markdown(spec: Spec) -> str:
    """The spec as Markdown that reads as the same spec, but for `passes` and `extra`, which have no form there."""
    parts = [_heading_row(1, spec.title)]
    parts += ["## Project", _name_row(spec.project), "## Branch", _name_row(spec.branch_name)]
    if spec.description:
        parts += ["## Description", escaped_text(spec.description, is_structure_of_spec)]
    parts.append("## User Stories")
    for story in spec.user_stories:
        parts += _story_parts(story)
    return "\n\n".join(parts) + "\n"


def _heading_row(level: int, text: str) -> str:
    """A last word that consists of # needs one more after it, for a last # only closes the heading."""
    closing = "" if text.rpartition(" ")[2].strip("#") else " #"
    return f"{'#' * level} {text}{closing}"


def _name_row(name: str) -> str:
    return escaped(f"`{name}`" if name[0] == name[-1] == "`" else name, is_structure)


def _story_parts(story: Story) -> list[str]:
    labels = [f"**Priority:** {story.priority}"]
    if story.depends_on:
        labels.append(f"**Depends on:** {', '.join(story.depends_on)}")
    parts = [_heading_row(3, f"{story.id}: {story.title}"), "\n".join(labels)]
    if story.description:
        parts.append(escaped_text(story.description, is_structure_of_story))
    parts.append("\n".join(["**Acceptance Criteria:**", *map(_criterion_rows, story.acceptance_criteria)]))
    if story.notes:
        notes = escaped_text(story.notes, is_structure_of_story)
        parts.append("**Notes:**" + ("\n" if "\n" in notes else " ") + notes)
    return parts


def _criterion_rows(criterion: Criterion) -> str:
    tokens, _ = scanned(escaped_text(criterion.text, is_structure))
    rows: list[str] = []
    after_text = False
    for token in tokens:
        if isinstance(token, Code):
            rows += token.rows
        else:
            would_be_joined = after_text and item_of(token.text) is None
            rows += ["", token.text] if would_be_joined else [token.text]
        after_text = isinstance(token, Text)
    rows += _verify_rows(criterion.verify) if criterion.verify is not None else []
    return "- [ ] " + "\n".join(f"  {row}" if row else "" for row in rows)[2:]


def _verify_rows(command: str) -> list[str]:
    longest = max(map(len, re.findall("`+", command)), default=0)
    if "\n" in command:
        fence = "`" * max(3, longest + 1)
        return ["verify:", fence, *command.split("\n"), fence]
    ticks, space = "`" * (longest + 1), " " if longest else ""
    return [f"verify: {ticks}{space}{command}{space}{ticks}"]
