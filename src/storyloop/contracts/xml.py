"""XML at the border: hostile text in, a small tree of values out, or complaints that a model can act on.

The text is bounded before it is parsed (bytes, tags), a DOCTYPE is refused before the parser sees it, and
nothing is loaded from anywhere. libxml2's complaints are told again as line, element and what was expected:
its own words ("content type is 'element-only'") send models astray.

One child of the root may be named a *gift*: it is never validated, and left out where it is not even XML, so
that it cannot spoil the text around it.
"""

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

MAX_BYTES = 1 << 20
_MAX_TAGS = 20_000  # in all: a parsed tag takes a hundred times the memory of its text
_MAX_ATTRIBUTES = 5_000  # in all: reading them takes the square of their number in time
_MAX_COMPLAINTS = 30

# Possessive throughout: a prolog of ten thousand comments must not be tried in every possible way.
_DOCTYPE = re.compile(rb"(?:\s++|<\?(?>.*?\?>)|<!--(?>.*?-->))*+<!DOCTYPE", re.DOTALL | re.IGNORECASE)
_XS = {"xs": "http://www.w3.org/2001/XMLSchema"}
_ELEMENT = "//xs:element[@name=$name]"
# What XML allows and a terminal obeys: carriage returns by reference, DEL and the C1 controls.
_UNPRINTABLE = dict.fromkeys([0x0D, *range(0x7F, 0xA0)])
_ESCAPE = "in text, write < as &lt; and & as &amp;"

# libxml2 sets up the types of schemas when the first is compiled, which two threads must not do at once: at best one is
# refused as no schema, at worst the process dies.
_COMPILING = Lock()

_Lxml = Any  # the edge to lxml: its stubs keep the names of its classes private


class Invalid(Exception):  # noqa: N818 - what the text is, not what befell us
    """Everything that is wrong with a text, each in one line."""

    def __init__(self, *errors: str) -> None:
        super().__init__(*errors)
        self.errors = errors


class Node(msgspec.Struct, frozen=True, gc=False):
    """An element of a valid text; what it says is read when it is asked for, which for most of it is never."""

    element: _Lxml
    lines_before: int
    gifts: tuple["Node", ...] = ()  # of the root: its children that were not validated

    @property
    def name(self) -> str:
        return self.element.tag

    @property
    def line(self) -> int:
        return self.element.sourceline + self.lines_before

    @property
    def text(self) -> str:
        """Its own text without blank ends and control characters."""
        own = self.element.text or ""
        if len(self.element):
            own += "".join([child.tail or "" for child in self.element])
        return _printable(own) if own else ""

    @property
    def attributes(self) -> dict[str, str]:
        return {name: _printable(value) for name, value in self.element.items()}

    @property
    def children(self) -> tuple["Node", ...]:
        return self.named(None)

    def named(self, name: str | None, most: int | None = None) -> tuple["Node", ...]:
        """The children of that name, in order, or the first of them."""
        found = islice(self.element.iterchildren(name), most)
        return tuple([Node(child, self.lines_before) for child in found])

    def text_of(self, name: str) -> str:
        """The text of the first child of that name; "" when there is none."""
        return next((child.text for child in self.named(name, 1)), "")


def read(text: bytes, *, schema: Path, gift: str | None) -> Node:
    """The root of a valid text; raises `Invalid`.

    A byte order mark and a markdown fence around the text are no part of it; lines are counted with them.
    """
    from lxml import etree

    root_name = schema.stem
    _refuse_unbounded(text)
    inner = text.removeprefix(b"\xef\xbb\xbf").strip()
    if inner.startswith(b"```"):
        inner = inner.partition(b"\n")[2].rstrip(b"`").strip()
    if not inner:
        raise Invalid(f"the artifact is empty; expected <{root_name}>")
    if _DOCTYPE.match(inner):
        raise Invalid("the artifact has a DOCTYPE; expected none")
    complaints = _Complaints(etree.parse(schema), root_name, text[: text.find(inner)].count(b"\n"))
    root = _parsed(inner, gift, complaints)
    # Each attribute has a sign of its own, and counting these takes no time.
    if text.count(b"=") > _MAX_ATTRIBUTES and root.xpath("count(//@*)") > _MAX_ATTRIBUTES:
        raise Invalid(f"the artifact has more than {_MAX_ATTRIBUTES:,} attributes; expected an account of the work")
    before = complaints.lines_before
    gifts = tuple([Node(element, before) for element in root.findall(gift)]) if gift else ()
    for given in gifts:
        root.remove(given.element)
    complaints.raise_unless_valid(root)
    return Node(root, before, gifts)


def _refuse_unbounded(text: bytes) -> None:
    if len(text) > MAX_BYTES:
        raise Invalid(f"the artifact has {len(text):,} bytes; expected at most {MAX_BYTES:,}")
    if text.count(b"<") > _MAX_TAGS:
        raise Invalid(f"the artifact has more than {_MAX_TAGS:,} tags; expected an account of the work")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise Invalid(f"line {line}: a byte that is not UTF-8; expected text in UTF-8") from error


def _parsed(text: bytes, gift: str | None, complaints: "_Complaints") -> _Lxml:
    from lxml import etree

    def parse(text: bytes) -> _Lxml:
        parser: _Lxml = etree.XMLParser(
            encoding="utf-8",
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )
        try:
            return etree.fromstring(text, parser)
        except etree.XMLSyntaxError as error:
            raise Invalid(*map(complaints.of_syntax, parser.error_log)) from error

    try:
        return parse(text)
    except Invalid as first:
        if (whole := _without(text, gift)) is None:
            raise
        try:
            return parse(whole)
        except Invalid:
            raise first from None  # the gift was not to blame, and the first complaint knows the true lines


def _without(text: bytes, gift: str | None) -> bytes | None:
    """The text without all from the gift's first tag to its last; None if it holds no gift."""
    if gift is None:
        return None
    name = re.escape(gift.encode())
    before, *_ = re.split(rb"<%b[\s>]" % name, text, maxsplit=1)
    after = text.rpartition(b"</%b>" % name)[2]
    return before + after if len(before) + len(after) < len(text) else None


def _printable(text: str) -> str:
    return text.strip() if text.isprintable() else text.translate(_UNPRINTABLE).strip()


class _Complaints:
    """What libxml2 finds wrong, told anew; the schema's source says which children an element may have."""

    def __init__(self, schema: _Lxml, root_name: str, lines_before: int) -> None:
        self._schema = schema
        self._root_name = root_name
        self.lines_before = lines_before

    def raise_unless_valid(self, root: _Lxml) -> None:
        """Validate what the agent wrote, without its gift."""
        from lxml import etree

        with _COMPILING:
            validator: _Lxml = etree.XMLSchema(self._schema)
        if not validator.validate(root):
            entries = islice(validator.error_log, _MAX_COMPLAINTS)
            raise Invalid(*(self._of_schema(entry, root) for entry in entries))

    def of_syntax(self, entry: _Lxml) -> str:
        """A complaint of the parser."""
        at = f"line {entry.line + self.lines_before}"
        root = self._root_name
        match entry.type_name:
            case "ERR_NAME_REQUIRED" if "EntityRef" not in entry.message:
                return f"{at}: a < that starts no tag; expected &lt;"
            case "ERR_NAME_REQUIRED" | "ERR_ENTITYREF_SEMICOL_MISSING":
                return f"{at}: an & that starts no entity; expected &amp;"
            case "ERR_UNDECLARED_ENTITY":
                return f"{at}: {entry.message}; expected only &amp; &lt; &gt; &quot; &apos;"
            case "ERR_TAG_NAME_MISMATCH" if names := re.search(r"(\S+) line \d+ and (\S+)$", entry.message):
                return f"{at}: </{names[2]}> stands where <{names[1]}> is open; expected </{names[1]}> ({_ESCAPE})"
            case "ERR_TAG_NOT_FINISHED":
                return f"{at}: the text ends too early; expected </{root}> at its end"
            case "ERR_DOCUMENT_END":
                return f"{at}: something follows the root element; expected nothing after </{root}>"
            case "ERR_DOCUMENT_EMPTY":
                return f"{at}: text that is not XML; expected <{root}> and nothing before it"
            case "ERR_MISPLACED_CDATA_END":
                return f"{at}: ]]> in text; expected ]]&gt;"
            case "ERR_CDATA_NOT_FINISHED":
                return f"{at}: a <![CDATA[ without its end; expected ]]>"
            case "ERR_INVALID_CHAR":
                return f"{at}: a control character; expected none"
            case "ERR_RESOURCE_LIMIT":
                return f"{at}: elements are nested too deep; expected only those of the schema"
            case _:
                return f"{at}: {entry.message} ({_ESCAPE})"

    def _of_schema(self, entry: _Lxml, root: _Lxml) -> str:
        # Only names are taken from the message: libxml2 cuts long values off, and the rest with them.
        line = f"line {entry.line + self.lines_before}"
        name, *rest = (*re.findall(r"'([^']*)'", entry.message), "?", "?")
        attribute = rest[0] if ", attribute '" in entry.message else None
        at = f"{line}, <{name}>" if attribute is None else f"{line}, <{name}>, {attribute}"
        match entry.type_name:
            case "SCHEMAV_CVC_ELT_1":
                return f"{line}: the root is <{name}>; expected <{self._root_name}>, without a namespace"
            case "SCHEMAV_CVC_ENUMERATION_VALID":
                wanted = f"one of {', '.join(self._facets(name, attribute, 'enumeration'))}"
                return f"{at}: found '{_found(entry, root, attribute)}'; expected {wanted}"
            case "SCHEMAV_CVC_DATATYPE_VALID_1_2_1" | "SCHEMAV_CVC_MININCLUSIVE_VALID":
                least = (*self._facets(name, attribute, "minInclusive"), "0")[0]
                return f"{at}: found '{_found(entry, root, attribute)}'; expected a whole number from {least}"
            case "SCHEMAV_CVC_MINLENGTH_VALID":
                return f"{at}: it is empty; expected text"
            case "SCHEMAV_CVC_MAXLENGTH_VALID":
                longest = self._facets(name, attribute, "maxLength")[0]
                return f"{at}: it is too long; expected at most {longest} characters"
            case "SCHEMAV_CVC_TYPE_3_1_2" | "SCHEMAV_CVC_COMPLEX_TYPE_2_2":
                return f"{at}: it holds elements; expected text only ({_ESCAPE})"
            case "SCHEMAV_CVC_COMPLEX_TYPE_2_1":
                return f"{at}: it holds something; expected it empty"
            case "SCHEMAV_CVC_COMPLEX_TYPE_2_3":
                return f"{at}: it holds text of its own; expected only {_tags(self._children(name))}"
            case "SCHEMAV_ELEMENT_CONTENT" if "Missing child" in entry.message:
                present = {child.tag for child in root.xpath(entry.path)[0]}
                required = self._children(name, "[not(@minOccurs)]")
                joint = " or " if self._is_choice(name) else ", "
                return f"{at}: expected also {_tags((child for child in required if child not in present), joint)}"
            case "SCHEMAV_ELEMENT_CONTENT":
                parent = entry.path.split("/")[-2].partition("[")[0]
                allowed = self._children(parent)
                if name in allowed and self._is_choice(parent):
                    return f"{at}: it stands beside others; expected {_tags(allowed, ' or ')}, not both"
                if name in allowed:
                    return f"{at}: it stands here twice; expected it once"
                return f"{at}: it is not allowed in <{parent}>; expected {_tags(allowed)}"
            case "SCHEMAV_CVC_COMPLEX_TYPE_4":
                missing = rest[0]
                wanted = f": {told}" if (told := " | ".join(self._facets(name, missing, "enumeration"))) else ""
                return f"{at}: it lacks the attribute '{missing}'; expected it{wanted}"
            case "SCHEMAV_CVC_COMPLEX_TYPE_3_2_1" | "SCHEMAV_CVC_TYPE_3_1_1":
                path = "//xs:attribute[ancestor::xs:element[1]/@name=$name]/@name"
                allowed = ", ".join(self._schema.xpath(path, namespaces=_XS, name=name)) or "none"
                return f"{line}, <{name}>: it has an attribute '{attribute}'; expected {allowed}"
            case _:
                return f"{line}: {entry.message}"

    def _children(self, name: str, occurs: str = "") -> list[str]:
        path = f"{_ELEMENT}/xs:complexType/*/xs:element{occurs}/@name"
        return self._schema.xpath(path, namespaces=_XS, name=name)

    def _is_choice(self, name: str) -> bool:
        return bool(self._schema.xpath(f"{_ELEMENT}/xs:complexType/xs:choice", namespaces=_XS, name=name))

    def _facets(self, name: str, attribute: str | None, kind: str) -> list[str]:
        within = "" if attribute is None else "//xs:attribute[@name=$attribute]"
        path = f"{_ELEMENT}{within}//xs:{kind}/@value"
        return self._schema.xpath(path, namespaces=_XS, name=name, attribute=attribute or "")


def _found(entry: _Lxml, root: _Lxml, attribute: str | None) -> str:
    element = root.xpath(entry.path)[0]
    return ((element.text if attribute is None else element.get(attribute)) or "")[:100]


def _tags(names: Iterable[str], joint: str = ", ") -> str:
    return joint.join(f"<{name}>" for name in names)
