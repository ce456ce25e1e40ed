"""Layers: what each file and flag says, laid over each other key by key, and where each value came from.

A layer only speaks for itself here; whether the agents it names exist is asked when all are in place.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import cast

import msgspec

from storyloop.config.files import ConfigErrors, Problem, lines_of, parse
from storyloop.config.kinds import Unfit, literal
from storyloop.config.settings import Setting, cure_for, default_of, is_name, is_section, lookup
from storyloop.core.policy import OPTIONAL_DRAINS, AgentRef, Drain, Rung, SandboxMode, Way, agents_of


class Source(StrEnum):
    """The layers, the weakest first."""

    DEFAULT = "default"
    USER = "user"
    REPOSITORY = "repository"
    FLAG = "flag"


class Origin(msgspec.Struct, frozen=True):
    """Where a value came from; `file` is None for defaults, and the flag's name for flags."""

    source: Source
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = self.file or self.source.value
        return place if self.line is None else f"{place}, line {self.line}"


DEFAULT = Origin(Source.DEFAULT)


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration file as it stands now; without text there is no file, or it could not be read."""

    source: Source
    path: Path
    text: str | None
    problems: tuple[Problem, ...] = ()


_YOURS = ("notify", "forge.url")  # what would send secrets of the user's to wherever a repository says


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says; the user's own hand, so it may also loosen."""

    agents: tuple[str, ...] = ()
    max_calls: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    max_time: str | None = None
    parallel: int | None = None
    no_wait: bool = False
    step: bool | None = None
    no_review: bool = False
    pull_request: bool | None = None
    draft: bool = False

    def said(self) -> Iterator[tuple[str, str, object]]:
        """Each flag that was given, the setting it stands for, and the value it gives."""
        create = self.pull_request
        rows: tuple[tuple[str, str, object], ...] = (
            ("--agent", "chains.default", list(self.agents) or None),
            ("--max-calls", "budget.calls", self.max_calls),
            ("--max-tokens", "budget.tokens", self.max_tokens),
            ("--max-usd", "budget.usd", self.max_usd),
            ("--max-time", "budget.time", self.max_time),
            ("--parallel", "limits.parallel", self.parallel),
            ("--no-review", "review.enabled", False if self.no_review else None),
            ("--no-pr" if create is False else "--pr", "pull_request.create", create),
            ("--draft", "pull_request.draft", self.draft or None),
        )
        return (row for row in rows if row[2] is not None)


NO_FLAGS = Flags()


class Said(msgspec.Struct):
    """What the layers say so far, by dotted key. Not frozen: it grows while the layers are read, and then ends."""

    values: dict[str, object] = {}
    origins: dict[str, Origin] = {}
    problems: list[Problem] = []
    warnings: list[str] = []
    unread: bool = False  # a whole file is missing from the picture
    unfit: set[str] = set()  # keys that were said, but not well

    def put(self, key: str, value: object, origin: Origin) -> None:
        # A check that is said anew takes its place in the later file's order.
        self.values.pop(key, None)
        self.values[key] = value
        self.origins[key] = origin

    def drop(self, key: str) -> None:
        self.values.pop(key)
        self.origins.pop(key)

    def object_to(self, origin: Origin, what: str, cure: str) -> None:
        self.problems.append(Problem(file=origin.file, line=origin.line, what=what, cure=cure))

    def read(self, setting: Setting, key: str, *, value: object, origin: Origin) -> None:
        """Take the value up if it fits, unless a repository would loosen what the user's own file says."""
        try:
            new = setting.kind.read(value)
        except Unfit as unfit:
            default = default_of(setting)
            known = f"The default is {literal(setting.kind.write(default))}." if default not in (None, ()) else ""
            self.unfit.add(key)
            self.object_to(origin, f"{key} {unfit}", known)
            return
        held = self.values.get(key)
        if origin.source is Source.REPOSITORY and held is not None and _is_looser(key, new, held=held):
            self.warnings.append(
                f"{key} stays {literal(setting.kind.write(held))}, as {self.origins[key]} says."
                f" {origin} may tighten it, but not loosen it to {literal(setting.kind.write(new))}."
            )
        else:
            self.put(key, new, origin)


def _is_looser(key: str, new: object, *, held: object) -> bool:
    if key.startswith("budget."):
        return cast("float", new) > cast("float", held)
    order = list(SandboxMode)
    return key == "sandbox.mode" and order.index(SandboxMode(new)) < order.index(SandboxMode(held))


def say_document(document: Document, said: Said) -> None:
    """Lay what the file says over what was said before."""
    said.problems.extend(document.problems)
    said.unread = said.unread or bool(document.problems)
    if document.text is None:
        return
    try:
        tree = parse(document.text, document.path)
    except ConfigErrors as error:
        said.problems.extend(error.problems)
        said.unread = True
        return
    lines = lines_of(document.text)
    for key, value in _leaves(tree):
        origin = Origin(document.source, str(document.path), _line(key, lines))
        if document.source is Source.REPOSITORY and key.startswith(_YOURS):
            said.object_to(origin, f"{key} is yours to say, not a repository's.", "Move it to your own file.")
        elif (setting := lookup(key)) is not None:
            said.read(setting, key, value=value, origin=origin)
        elif is_section(key):
            said.object_to(origin, f"{key} must be a table, not {literal(value)}.", f"Write [{key}].")
        else:
            said.object_to(origin, f"{key} is not a setting.", cure_for(key))


def _leaves(table: dict[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Every key that is a setting or ought not to be there; tables that are sections are gone into."""
    for name, value in table.items():
        # Quoted where it is no plain name, so that a dot in it is not taken for a step down.
        key = above + (name if is_name(name) else literal(name))
        if isinstance(value, dict) and is_section(key):
            yield from _leaves(cast("dict[str, object]", value), f"{key}.")
        else:
            yield key, value


def _line(key: str, lines: Mapping[str, int]) -> int | None:
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return lines.get(key)


def say_flags(flags: Flags, said: Said) -> None:
    """Lay the command line over what was said before."""
    for flag, key, value in flags.said():
        if (setting := lookup(key)) is not None:
            said.read(setting, key, value=value, origin=Origin(Source.FLAG, flag))
    if flags.agents and "chains.default" in said.values:
        _bind_everywhere(said)


def _bind_everywhere(said: Said) -> None:
    """`--agent` means these agents and no others: drains that are bound to further ones follow."""
    for drain in Drain:
        key = f"drains.{drain}"
        if key in said.values:
            said.drop(key)
            if drain in OPTIONAL_DRAINS:
                said.put(key, said.values["chains.default"], said.origins["chains.default"])
    ladder = cast("tuple[Rung, ...]", said.values.get("escalation.attempts", ()))
    chain = cast("tuple[AgentRef, ...]", said.values["chains.default"])
    if not set(agents_of(ladder)) <= set(chain):
        kept = tuple(rung if isinstance(rung, Way) or rung in chain else Way.CONTINUE for rung in ladder)
        said.put("escalation.attempts", kept, said.origins["chains.default"])
