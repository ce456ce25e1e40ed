"""The lines of a Markdown spec: what each of them is to us, and how text is kept from being structure.

`scanned` takes out first what is never structure: fenced code is one token, comments and rules are blank. The rest
is told line by line: headings, labels (`**Notes:** ...`), list items, verify lines. Writing puts a backslash before
a line of text that would be read as one of these; reading takes exactly one away.

No pattern here may hold two neighbouring repetitions that match the same character: reading stays linear.
"""

import re
from collections.abc import Callable
from enum import StrEnum

import msgspec


class Text(msgspec.Struct, frozen=True):
    """A line that is neither code nor a heading of level 1 to 3; blank when its text is empty."""

    line: int
    text: str


class Code(msgspec.Struct, frozen=True):
    """A fenced block, with its fences; the first of them is not here when it begins a list item."""

    line: int
    indent: int
    rows: tuple[str, ...]

    def dedented(self) -> list[str]:
        """The rows without the indentation of the block."""
        return [row[: self.indent].lstrip() + row[self.indent :] for row in self.rows]


class Heading(msgspec.Struct, frozen=True):
    """A heading of level 1 to 3: as written, and its bare text."""

    line: int
    raw: str
    level: int
    text: str


Token = Text | Code | Heading


class Slip(msgspec.Struct, frozen=True):
    """A line that breaks the grammar."""

    line: int
    what: str
    cure: str


class Section(StrEnum):
    """What a heading of level 2 opens."""

    PROJECT = "project"
    BRANCH = "branch"
    DESCRIPTION = "description"
    STORIES = "user stories"


class Part(StrEnum):
    """What a label opens within a story."""

    PRIORITY = "priority"
    DEPENDS = "depends on"
    DESCRIPTION = "description"
    CRITERIA = "acceptance criteria"
    NOTES = "notes"


_SECTIONS = {section.value: section for section in Section}
PARTS = {part.value: part for part in Part} | {"dependencies": Part.DEPENDS}

_MARKER = r"(?:[-*+]|\d{1,9}[.)])"
_HEADING = re.compile(r" {0,3}(#{1,6})(.*)")
_BOLD = re.compile(r" {0,3}\*\*([^*]{1,60})\*\*(.*)")
_ITEM = re.compile(rf"[ \t]*{_MARKER}(?:[ \t]+(\[[ xX]?\](?=\s|\Z))?(.*)|\Z)")
_FENCE = re.compile(rf"[ \t]*({_MARKER}[ \t]+(?:\[[ xX]?\][ \t]+)?)?(`{{3,}}(?=[^`]*\Z)|~{{3,}})")
_VERIFY = re.compile(r"[ \t]*(?:[-*+][ \t]+)?(?:\*\*)?verify(?:\*\*:|:\*\*|:)(.*)", re.IGNORECASE)


def scanned(text: str) -> tuple[list[Token], list[Slip]]:
    """The tokens of the text, and a slip when it ends within code or a comment."""
    tokens: list[Token] = []
    rows: list[str] = []
    opened = indent = 0
    fence = ""
    in_comment = False
    for line, raw in enumerate(text.split("\n"), start=1):
        if fence:
            rows.append(raw)
            if _closes(raw, fence):
                tokens.append(Code(opened, indent, tuple(rows)))
                fence = ""
        elif in_comment or raw.lstrip().startswith("<!--"):
            opened = opened if in_comment else line
            _, end, rest = raw.partition("-->")
            in_comment = not end
            tokens.append(Text(line, rest.rstrip()))
        elif opener := _FENCE.match(raw):
            fence, rows, opened, indent = opener[2], [raw], line, len(raw) - len(raw.lstrip())
            if opener[1]:  # the code begins a list item: that line has to stay one
                tokens.append(Text(line, raw.rstrip()))
                rows, indent = [], indent + 2
        elif _is_rule(raw):
            _underline(tokens, raw.strip())
            tokens.append(Text(line, ""))
        elif (heading := _heading(raw)) and heading[0] <= 3:
            tokens.append(Heading(line, raw.rstrip(), *heading))
        else:
            tokens.append(Text(line, raw.rstrip()))
    if fence:
        cure = f"Add a line {fence} where the code ends."
        return tokens, [Slip(opened, "The code fence that opens here is never closed", cure)]
    if in_comment:
        return tokens, [Slip(opened, "The comment that opens here is never closed", "Add --> where it ends.")]
    return tokens, []


def is_blank(token: Token) -> bool:
    """Whether the token is an empty line."""
    return isinstance(token, Text) and not token.text


def _closes(raw: str, fence: str) -> bool:
    bare = raw.strip()
    return len(bare) >= len(fence) and bare == fence[0] * len(bare)


def _is_rule(raw: str) -> bool:
    """A line of only - * _ or =: a rule between paragraphs, or what underlines a heading."""
    marks = "".join(raw.split())
    return len(marks) >= 3 and marks[0] in "-*_=" and marks == marks[0] * len(marks)


def _underline(tokens: list[Token], rule: str) -> None:
    """Make the paragraph of one line above the rule a heading, if the rule underlines one.

    Only a known section is believed to be underlined with ---: elsewhere people mean a rule.
    """
    above = tokens[-1] if tokens else None
    alone = len(tokens) < 2 or isinstance(tokens[-2], Heading) or is_blank(tokens[-2])
    if not (isinstance(above, Text) and above.text and alone):
        return
    title = above.text.strip()
    if rule[0] == "=":
        tokens[-1] = Heading(above.line, above.text, 1, title)
    elif rule[0] == "-" and section_of(title)[0]:
        tokens[-1] = Heading(above.line, above.text, 2, title)


def _heading(raw: str) -> tuple[int, str] | None:
    """Level and text of a heading; a forgotten space after ## is forgiven, #word is a tag."""
    found = _HEADING.match(raw)
    if not found:
        return None
    level, rest = len(found[1]), found[2]
    if rest and not rest[0].isspace() and (level == 1 or rest[0] == "#"):
        return None
    text, _, closing = rest.strip().rpartition(" ")
    return level, rest.strip() if closing.strip("#") else text.rstrip()


def section_of(title: str) -> tuple[Section | None, str]:
    """Which section a heading of level 2 opens, and the value when it says `Branch: feature/x` at once."""
    name, _, value = title.partition(":")
    return _SECTIONS.get(" ".join(name.casefold().split())), value.strip()


def label_of(text: str) -> tuple[str, str] | None:
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


def opens(part: Part, token: Token) -> bool:
    """Whether the token is the label of this part."""
    label = label_of(token.text) if isinstance(token, Text) else None
    return label is not None and PARTS.get(label[0]) is part


class Item(msgspec.Struct, frozen=True):
    """A list item: with a checkbox, ticked or not, or without."""

    text: str
    has_checkbox: bool


def item_of(text: str) -> Item | None:
    """The list item that begins in this line."""
    found = _ITEM.match(text)
    return Item((found[2] or "").strip(), found[1] is not None) if found else None


def verify_of(text: str) -> str | None:
    """What stands after `verify:`; None when the line is no verify line."""
    found = _VERIFY.match(text)
    return found[1].strip() if found else None


def _is_mark(row: str) -> bool:
    return _FENCE.match(row) is not None or row.lstrip().startswith("<!--") or _is_rule(row)


def is_structure_of_spec(row: str) -> bool:
    """Whether the row would not be text in the description of a spec."""
    heading = _heading(row)
    if heading and heading[0] <= 2:
        return heading[0] == 1 or section_of(heading[1])[0] is not None
    return _is_mark(row) or opens(Part.CRITERIA, Text(0, row))


def is_structure_of_story(row: str) -> bool:
    """Whether the row would not be text in the description or the notes of a story."""
    heading, label = _heading(row), label_of(row)
    is_heading = heading is not None and heading[0] <= 3
    return _is_mark(row) or is_heading or (label is not None and label[0] in PARTS)


def is_structure(row: str) -> bool:
    """Whether the row would not be text in a criterion, where everything is structure that is so anywhere."""
    item = item_of(row)
    return is_structure_of_story(row) or verify_of(row) is not None or (item is not None and item.has_checkbox)


def unescaped(row: str) -> str:
    """The row without the backslash that kept it from being structure."""
    bare = row.lstrip()
    indent = row[: len(row) - len(bare)]
    is_escaped = bare.startswith("\\") and is_structure(indent + bare.lstrip("\\"))
    return indent + bare[1:] if is_escaped else row


def escaped(row: str, structure: Callable[[str], bool]) -> str:
    """The row as it must be written to read as this text where `structure` is what is not text."""
    bare = row.lstrip()
    indent, plain = row[: len(row) - len(bare)], bare.lstrip("\\")
    needed = structure(indent + plain) or (plain != bare and is_structure(indent + plain))
    return f"{indent}\\{bare}" if needed else row


def escaped_text(text: str, structure: Callable[[str], bool]) -> str:
    """The text with each row escaped; code stays as it is, where it is fenced beyond doubt."""
    rows: list[str] = []
    fence = ""
    for row in text.split("\n"):
        opener = None if fence else _FENCE.match(row)
        if opener and opener[1]:
            break
        rows.append(row if fence or opener else escaped(row, structure))
        if opener:
            fence = opener[2]
        elif fence and _closes(row, fence):
            fence = ""
    else:
        if not fence:
            return "\n".join(rows)
    return "\n".join(escaped(row, structure) for row in text.split("\n"))
