"""The Markdown form of a spec: its grammar, in both directions.

Reading goes from text to the fields of the JSON form, so that one set of rules checks both forms; `lines` says where
each field stood. First `_scanned` makes tokens and takes out what is never structure: fenced code is one token,
comments and rules are blank. Then the tokens are cut into blocks at headings of level 1 to 3, and each block
belongs to a section or is a story. Whatever we do not know is text, and text is kept: that of a story in the story's
description, everything else in the spec's.

Writing puts a backslash before a line of text that would be read as structure; reading takes exactly one away.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Slip(msgspec.Struct, frozen=True):
    """A line that breaks the grammar."""

    line: int
    what: str
    cure: str


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """A Markdown spec as the fields of the JSON form, unchecked; `lines` has a line for each path in them."""

    fields: dict[str, object]
    lines: dict[str, int]
    slips: tuple[Slip, ...]


class _Text(msgspec.Struct, frozen=True):
    line: int
    text: str


class _Code(msgspec.Struct, frozen=True):
    line: int
    rows: tuple[str, ...]  # with both fences


class _Heading(msgspec.Struct, frozen=True):
    line: int
    raw: str
    level: int
    text: str


class _Section(StrEnum):
    PROJECT = "project"
    BRANCH = "branch"
    DESCRIPTION = "description"
    STORIES = "user stories"


class _Part(StrEnum):
    """What a label opens within a story."""

    PRIORITY = "priority"
    DEPENDS = "depends on"
    DESCRIPTION = "description"
    CRITERIA = "acceptance criteria"
    NOTES = "notes"


_SECTIONS = {section.value: section for section in _Section}
_PARTS = {part.value: part for part in _Part} | {"dependencies": _Part.DEPENDS}
_NO_DEPENDENCY = frozenset({"", "none", "n/a", "-", "–", "—"})

# No pattern below may hold two neighbouring repetitions that match the same character: reading stays linear.
STORY_ID = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_AFTER_ID = re.compile(r"\s*(?:[:–—]|[-.](?=\s|\Z))")
_HEADING = re.compile(r" {0,3}(#{1,6})(.*)")
_BOLD = re.compile(r" {0,3}\*\*([^*]{1,60})\*\*(.*)")
_ITEM = re.compile(r"([ \t]*)(?:[-*+]|\d{1,9}[.)])(?:[ \t]+(\[[ xX]?\](?=\s|\Z))?(.*)|\Z)")
_FENCE = re.compile(r"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+(?:\[[ xX]?\][ \t]+)?)?(`{3,}(?=[^`]*\Z)|~{3,})")
_VERIFY = re.compile(r"[ \t]*(?:[-*+][ \t]+)?(?:\*\*)?verify(?:\*\*:|:\*\*|:)(.*)", re.IGNORECASE)


def read_markdown(text: str) -> Outline:
    """What stands in the text, which has `\\n` for line ends. Without stories only `slips` of its tokens count."""
    tokens, unclosed = _scanned(text)
    reader = _Reader()
    for heading, body in _blocks(tokens):
        reader.take(heading, body)
    slips = unclosed + (reader.slips if reader.stories else [])
    reader.fields["description"] = "\n\n".join(filter(None, map(_joined, reader.runs)))
    reader.fields["userStories"] = reader.stories
    return Outline(fields=reader.fields, lines=reader.lines, slips=tuple(slips))


def _scanned(text: str) -> tuple[list[_Text | _Code | _Heading], list[Slip]]:
    tokens: list[_Text | _Code | _Heading] = []
    slips: list[Slip] = []
    rows: list[str] = []
    opened = 0
    fence = ""
    in_comment = False
    for line, raw in enumerate(text.split("\n"), start=1):
        if fence:
            rows.append(raw)
            if _closes(raw, fence):
                tokens.append(_Code(opened, tuple(rows)))
                fence = ""
        elif in_comment or raw.lstrip().startswith("<!--"):
            opened = opened if in_comment else line
            _, end, rest = raw.partition("-->")
            in_comment = not end
            tokens.append(_Text(line, rest.rstrip()))
        elif opener := _FENCE.match(raw):
            fence, rows, opened = opener[1], [raw], line
        elif _is_rule(raw):
            _underline(tokens, _Text(line, raw.strip()))
        elif (heading := _heading(raw)) and heading[0] <= 3:
            tokens.append(_Heading(line, raw.rstrip(), *heading))
        else:
            tokens.append(_Text(line, raw.rstrip()))
    if fence:
        slips.append(Slip(opened, "The code fence is never closed", f"Add a line {fence} where the code ends."))
    elif in_comment:
        slips.append(Slip(opened, "The comment is never closed", "Add --> where it ends."))
    return tokens, slips


def _closes(raw: str, fence: str) -> bool:
    bare = raw.strip()
    return len(bare) >= len(fence) and bare == fence[0] * len(bare)


def _is_rule(raw: str) -> bool:
    """A line of only - * _ or =: a rule between paragraphs, or what underlines a heading."""
    marks = "".join(raw.split())
    return len(marks) >= 3 and marks[0] in "-*_=" and marks == marks[0] * len(marks)


def _underline(tokens: list[_Text | _Code | _Heading], rule: _Text) -> None:
    """Make the paragraph of one line above the rule a heading, if the rule underlines one.

    Only a known section is believed to be underlined with ---: elsewhere people mean a rule.
    """
    alone = len(tokens) < 2 or isinstance(tokens[-2], _Heading) or tokens[-2] == _Text(tokens[-2].line, "")
    if tokens and alone and isinstance(above := tokens[-1], _Text) and above.text:
        title = above.text.strip()
        if rule.text[0] == "=":
            tokens[-1] = _Heading(above.line, above.text, 1, title)
        elif rule.text[0] == "-" and _section(title)[0]:
            tokens[-1] = _Heading(above.line, above.text, 2, title)
    tokens.append(_Text(rule.line, ""))


def _heading(raw: str) -> tuple[int, str] | None:
    """Level and text of an ATX heading; a forgotten space after ## is forgiven, #word is a tag."""
    found = _HEADING.match(raw)
    if not found:
        return None
    level, rest = len(found[1]), found[2]
    if rest and not rest[0].isspace() and (level == 1 or rest[0] == "#"):
        return None
    text, _, closing = rest.strip().rpartition(" ")
    return level, rest.strip() if closing.strip("#") else text.rstrip()


def _section(title: str) -> tuple[_Section | None, str]:
    """Which section a heading of level 2 opens, and the value when it says `Branch: feature/x` at once."""
    name, _, value = title.partition(":")
    return _SECTIONS.get(" ".join(name.casefold().split())), value.strip()


def _label(text: str) -> tuple[str, str] | None:
    """Name and rest of `**Name:** rest` or `#### Name`, whether we know the name or not."""
    if found := _BOLD.match(text):
        name, rest = found[1].strip(), found[2].strip()
        if not name.endswith(":"):
            if rest and not rest.startswith(":"):
                return None
            rest = rest[1:].strip()
    elif heading := _heading(text):
        name, rest = heading[1], ""
    else:
        return None
    return " ".join(name.rstrip(":").casefold().split()), rest


def _opens(text: str, part: _Part) -> bool:
    label = _label(text)
    return label is not None and _PARTS.get(label[0]) is part


def _blocks(
    tokens: Sequence[_Text | _Code | _Heading],
) -> list[tuple[_Heading | None, list[_Text | _Code]]]:
    blocks: list[tuple[_Heading | None, list[_Text | _Code]]] = [(None, [])]
    for token in tokens:
        if isinstance(token, _Heading):
            blocks.append((token, []))
        else:
            blocks[-1][1].append(token)
    return blocks


def _prose(tokens: Sequence[_Text | _Code]) -> list[str]:
    rows: list[str] = []
    for token in tokens:
        rows.extend(token.rows if isinstance(token, _Code) else [_unescaped(token.text)])
    return rows


def _joined(rows: Sequence[str]) -> str:
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


class _Item(msgspec.Struct):
    """A criterion while its lines are still coming, hence the only value here that changes."""

    line: int
    indent: int
    text: list[str]
    verify: str | None = None
    verify_line: int = 0


class _Reader:
    """What has been found so far; each block adds to it."""

    def __init__(self) -> None:
        self.fields: dict[str, object] = {"title": ""}
        self.lines: dict[str, int] = {}
        self.stories: list[dict[str, object]] = []
        self.runs: list[list[str]] = [[]]  # the description; what was taken out of it parts two runs
        self.slips: list[Slip] = []
        self._section = _Section.DESCRIPTION
        self._seen: dict[_Section, int] = {}

    def take(self, heading: _Heading | None, body: Sequence[_Text | _Code]) -> None:
        match heading:
            case None:
                self._keep(body)
            case _Heading(level=1):
                self._title(heading)
                self._keep(body)
            case _Heading(level=2):
                self._open_section(heading, body)
            case _:
                self._story_or_text(heading, body)

    def _slip(self, line: int, what: str, cure: str) -> None:
        self.slips.append(Slip(line, what, cure))

    def _keep(self, body: Sequence[_Text | _Code]) -> None:
        for token in body:
            if isinstance(token, _Text) and _opens(token.text, _Part.CRITERIA):
                cure = 'Put them below the heading of their story ("### US-001: Title").'
                self._slip(token.line, "These acceptance criteria belong to no story", cure)
        self.runs[-1].extend(_prose(body))

    def _title(self, heading: _Heading) -> None:
        if "title" in self.lines:
            what = f'"{heading.text}" is a second title, after the one in line {self.lines["title"]}'
            self._slip(heading.line, what, "Make it a heading of level 2 (##).")
            return
        self.fields["title"] = heading.text
        self.lines["title"] = heading.line
        self.runs.append([])

    def _open_section(self, heading: _Heading, body: Sequence[_Text | _Code]) -> None:
        section, value = _section(heading.text)
        self._section = section or _Section.DESCRIPTION
        if section is None:
            self.runs[-1].append(heading.raw)
            self._keep(body)
            return
        if section in self._seen:
            what = f'The section "{heading.text}" stands here a second time, after line {self._seen[section]}'
            self._slip(heading.line, what, "Merge the two.")
        self._seen.setdefault(section, heading.line)
        self.runs.append([])
        match section:
            case _Section.PROJECT:
                self._name("project", heading, [value, *_prose(body)])
            case _Section.BRANCH:
                self._name("branchName", heading, [value, *_prose(body)])
            case _Section.STORIES:
                for token in body:
                    if isinstance(token, _Text) and (item := _ITEM.match(token.text)) and item[2]:
                        cure = 'Put it below the heading of its story ("### US-001: Title").'
                        self._slip(token.line, "This criterion belongs to no story", cure)
                self._keep(body)
            case _Section.DESCRIPTION:
                self.runs[-1].append(value)
                self._keep(body)

    def _name(self, field: str, heading: _Heading, rows: Sequence[str]) -> None:
        names = [row.strip() for row in rows if row.strip()]
        self.lines[field] = heading.line
        if len(names) > 1:
            cure = "Keep the name alone, and put the rest into the description."
            self._slip(heading.line, f'The section "{heading.text}" holds more than a name', cure)
        if names:
            self.fields[field] = _unquoted(names[0])

    def _story_or_text(self, heading: _Heading, body: Sequence[_Text | _Code]) -> None:
        named = _story_heading(heading.text)
        among_stories = self._section is _Section.STORIES
        has_criteria = any(isinstance(token, _Text) and _opens(token.text, _Part.CRITERIA) for token in body)
        if named and (has_criteria or (among_stories and _has_digit(named[0]))):
            self.runs.append([])
            self._story(named, heading, body)
        elif among_stories:
            cure = 'Write it as "### US-001: Title", with acceptance criteria below.'
            self._slip(heading.line, f'The heading "{heading.text}" is not that of a story', cure)
        else:
            self.runs[-1].append(heading.raw)
            self._keep(body)

    def _story(self, named: tuple[str, str], heading: _Heading, body: Sequence[_Text | _Code]) -> None:
        at = f"userStories[{len(self.stories)}]"
        story: dict[str, object] = {"id": named[0], "title": named[1]}
        self.stories.append(story)
        self.lines[at] = heading.line
        tokens: dict[_Part, list[_Text | _Code]] = {part: [] for part in _Part}
        seen: dict[_Part, int] = {}
        part = _Part.DESCRIPTION
        for token in body:
            if isinstance(token, _Text) and (label := _label(token.text)):
                name, rest = label
                if opened := _PARTS.get(name):
                    if opened in seen:
                        what = f"Story {named[0]} has **{opened.value.capitalize()}:** twice, first in line"
                        self._slip(token.line, f"{what} {seen[opened]}", "Merge the two.")
                    seen[opened] = token.line
                    tokens[opened].append(_Text(token.line, rest))
                    takes_more = opened in (_Part.CRITERIA, _Part.NOTES) or (opened is _Part.DEPENDS and not rest)
                    part = opened if takes_more else _Part.DESCRIPTION
                    continue
                if part is _Part.CRITERIA and not token.text[0].isspace():
                    part = _Part.DESCRIPTION
                    tokens[part].append(_Text(token.line, ""))
            elif part is _Part.DEPENDS and isinstance(token, _Text) and token.text and not _ITEM.match(token.text):
                part = _Part.DESCRIPTION
            tokens[part].append(token)
        if _Part.PRIORITY in seen:
            self.lines[f"{at}.priority"] = seen[_Part.PRIORITY]
            story["priority"] = _number(_joined(_prose(tokens[_Part.PRIORITY])))
        story["dependsOn"] = self._depends_on(tokens[_Part.DEPENDS], at)
        story["acceptanceCriteria"], rest = self._criteria(tokens[_Part.CRITERIA], at)
        story["description"] = _joined(_prose([*tokens[_Part.DESCRIPTION], _Text(0, ""), *rest]))
        story["notes"] = _joined(_prose(tokens[_Part.NOTES]))

    def _depends_on(self, tokens: Sequence[_Text | _Code], at: str) -> list[str]:
        ids: list[str] = []
        for token in tokens:
            if isinstance(token, _Text):
                item = _ITEM.match(token.text)
                for word in re.split(r"[,;\s]+", item[3] or "" if item else token.text):
                    if (one := word.strip("`.")).casefold() not in _NO_DEPENDENCY:
                        self.lines[f"{at}.dependsOn[{len(ids)}]"] = token.line
                        ids.append(one)
        return ids

    def _criteria(
        self, tokens: Sequence[_Text | _Code], at: str
    ) -> tuple[list[dict[str, str]], list[_Text | _Code]]:
        """The criteria, and what stands between them and is none."""
        items: list[_Item] = []
        rest: list[_Text | _Code] = []
        after_gap = True
        for token in tokens:
            if token == _Text(token.line, ""):
                after_gap = True
                continue
            raw = token.text if isinstance(token, _Text) else token.rows[0]
            indent = len(raw[: len(raw) - len(raw.lstrip())].expandtabs(4))
            item = _ITEM.match(raw)
            if isinstance(token, _Text) and item and (item[2] or not items or indent < items[-1].indent + 2):
                self._begin(_Item(token.line, indent, [(item[3] or "").strip()]), items)
            elif isinstance(token, _Text) and (verify := _VERIFY.match(raw)):
                self._prove(verify[1].strip(), token.line, items)
            elif items and (indent or not after_gap):
                self._continue(token, items[-1], apart=after_gap or item is not None)
            else:
                rest.append(token)
            after_gap = False
        criteria: list[dict[str, str]] = []
        for number, one in enumerate(items):
            path = f"{at}.acceptanceCriteria[{number}]"
            self.lines[path] = one.line
            criterion = {"text": "".join(one.text)}
            if one.verify is not None:
                criterion["verify"] = one.verify
                self.lines[f"{path}.verify"] = one.verify_line
            criteria.append(criterion)
        return criteria, rest

    def _begin(self, item: _Item, items: list[_Item]) -> None:
        if _VERIFY.match(item.text[0]):
            self._homeless(item.line)
            return
        item.text = [_unescaped(item.text[0])]
        items.append(item)

    def _homeless(self, line: int) -> None:
        cure = "Put it below its criterion, indented by two spaces."
        self._slip(line, "This verify command belongs to no criterion", cure)

    def _prove(self, written: str, line: int, items: Sequence[_Item]) -> None:
        if not items:
            self._homeless(line)
            return
        item = items[-1]
        if item.verify is not None:
            self._slip(line, "This criterion has a second verify command", "Join the two with &&.")
            return
        command = _command(written)
        if command is None:
            cure = "Put the whole command, and nothing else, between them; a command with backticks in it needs two."
            self._slip(line, "The backticks of this verify command do not match", cure)
        item.verify = written if command is None else command
        item.verify_line = line

    def _continue(self, token: _Text | _Code, item: _Item, *, apart: bool) -> None:
        rows = _dedented(token)
        if item.verify == "" and isinstance(token, _Code):
            item.verify = "\n".join(rows[1:-1])
        elif item.verify is not None:
            cure = "Write the command on one line or in a code fence, and all text before it."
            self._slip(token.line, "This line follows the verify command of its criterion", cure)
        elif isinstance(token, _Code) or apart or item.text[-1].endswith(("```", "~~~")):
            item.text += ["\n", "\n".join(rows)]
        else:
            item.text += [" ", token.text.strip()]


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else text


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] == "`" else name


def _dedented(token: _Text | _Code) -> list[str]:
    raise NotImplementedError


def _command(written: str) -> str | None:
    """The command between backticks, or the whole line when it does not begin with one; None: they do not match."""
    if not written.startswith("`"):
        return written
    runs = re.findall("`+", written)
    if len(runs) < 2 or not written.endswith(runs[0]) or runs.index(runs[0], 1) != len(runs) - 1:
        return None
    return written[len(runs[0]) : -len(runs[0])].strip()
