"""Kinds: what a setting accepts, read from a file's plain value and written back as one.

A kind reads strictly: TOML has types of its own, so `"3"` is no number and `1` is no switch. The two
exceptions are meant: a duration is a text or a number of seconds, a check is a text or a table.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, StrEnum
from typing import cast

import msgspec

from storyloop.core.policy import AgentRef, Command, Rung, Way

_MOST = 10**15  # a count that every journal, clock and float can hold
_LONGEST = 366 * 86400.0
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_READ = {"d": 86400.0, **_UNITS}  # days are not written: 24h is what a user has said
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?){unit})?" for unit in _READ))
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASKED = "agent"  # an entry of an escalation that names one
_RUNGS = ", ".join([*(f'"{way}"' for way in Way), f'"{_ASKED}:NAME"'])
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Unfit(Exception):  # noqa: N818 - what the value is, not a mishap
    """A value that its kind refuses; the text ends the sentence that the setting's name begins."""


class Kind(msgspec.Struct, frozen=True):
    """What a setting accepts. `read` raises `Unfit`; `write` turns Policy's value into a file's."""

    accepts: str
    read: Callable[[object], object]
    write: Callable[[object], object]


# --- between plain values and Policy's ---------------------------------------------------------------


def literal(value: object) -> str:
    """The value as TOML has it; what TOML has no word for is shown as Python says it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # JSON's strings are TOML's, but for one character that TOML wants escaped.
            clean = value.encode("utf-8", "replace")
            return msgspec.json.encode(clean.decode()).decode().replace("\x7f", "\\u007f")
        case list():
            return "[" + ", ".join(literal(item) for item in cast("list[object]", value)) + "]"
        case dict():
            pairs = cast("dict[str, object]", value).items()
            inner = ", ".join(f"{k if _BARE.fullmatch(k) else literal(k)} = {literal(v)}" for k, v in pairs)
            return f"{{ {inner} }}" if inner else "{}"
        case _:
            return str(value)


def plain(value: object) -> object:
    """Policy's value as a file would hold it."""
    match value:
        case AgentRef():
            return str(value)
        case Enum():
            return value.value
        case Command():
            return _plain_command(value)
        case tuple():
            return [plain(item) for item in cast("tuple[object, ...]", value)]
        case _:
            return value


def _plain_command(command: Command) -> object:
    timeout = None if command.timeout is None else duration_text(command.timeout)
    parts = {"run": command.run, "timeout": timeout, "env": command.env, "pass_env": plain(command.pass_env)}
    said = {name: part for name, part in parts.items() if part}
    return command.run if len(said) == 1 else said


def duration_text(seconds: object) -> str:
    """`5400.0` as `1h30m`."""
    left = round(float(cast("float", seconds)) * 1000)
    text = ""
    for unit, worth in _UNITS.items():
        count, left = divmod(left, round(worth * 1000))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


# --- readers -----------------------------------------------------------------------------------------


def _unless(fits: bool, complaint: str) -> None:
    if not fits:
        raise Unfit(complaint)


def _must_be(accepts: str, value: object) -> Unfit:
    shown = literal(value)
    return Unfit(f"must be {accepts}, not {shown if len(shown) <= 60 else shown[:57] + '...'}.")


def count(least: int) -> Kind:
    """A whole number with a lower end."""
    accepts = f"a whole number, {least} or more"

    def read(value: object) -> int:
        if type(value) is not int or value < least:
            raise _must_be(accepts, value)
        _unless(value <= _MOST, f"is too large: {_MOST:,} is the most.")
        return value

    return Kind(accepts, read, plain)


def _read_amount(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= _MOST:
        raise _must_be(AMOUNT.accepts, value)
    return float(value)


def _duration(accepts: str, *, least: float) -> Kind:
    def read(value: object) -> float:
        seconds = _seconds(value)
        if seconds is None or seconds < least:
            raise _must_be(accepts, value)
        _unless(seconds <= _LONGEST, f"is too long: {duration_text(_LONGEST)} is the most.")
        return seconds

    return Kind(accepts, read, duration_text)


def _seconds(value: object) -> float | None:
    if isinstance(value, str):
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return float(text)
        parts = _DURATION.fullmatch(text)
        if not text or parts is None:
            return None
        said = cast("dict[str, str | None]", parts.groupdict())
        return math.fsum(float(count) * _READ[unit] for unit, count in said.items() if count)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _read_switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise _must_be(SWITCH.accepts, value)
    return value


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise _must_be(TEXT.accepts, value)
    _unless(bool(value.strip()), "is empty: fill it in, or remove it.")
    _unless("\0" not in value, "holds a NUL character, which no program can be given.")
    _unless(value == value.encode("utf-8", "replace").decode(), "is not UTF-8.")
    return value


def _items(value: object, accepts: str) -> list[object]:
    if not isinstance(value, list):
        raise _must_be(accepts, value)
    return cast("list[object]", value)


def _read_texts(value: object) -> tuple[str, ...]:
    items = _items(value, TEXTS.accepts)
    if not all(isinstance(item, str) for item in items):
        raise _must_be(TEXTS.accepts, value)
    _unless(all(cast("str", item).strip() for item in items), "has an empty entry: fill it in, or remove it.")
    return tuple(_read_text(item) for item in items)


def _read_words(value: object) -> tuple[str, ...]:
    _unless(value != [], "is empty: its first entry is the program.")
    return _read_texts(value)


def _read_paths_inside(value: object) -> tuple[str, ...]:
    paths = _read_texts(value)
    for path in paths:
        inside = not path.startswith(("/", "~")) and ".." not in path.split("/")
        _unless(inside, f"names {path}, which is outside of the checkout.")
    return paths


def _read_pattern(value: object) -> str:
    pattern = _read_text(value)
    rest = pattern.replace("{repo}", "").replace("{branch}", "")
    _unless("{branch}" in pattern, "must have {branch} in it: each branch needs a directory of its own.")
    _unless("{" not in rest and "}" not in rest, "knows {repo} and {branch} only.")
    _unless("/" not in rest, "is the name of a sibling of the repository: it cannot have a / in it.")
    return pattern


def _read_variables(value: object) -> tuple[str, ...]:
    names = _read_texts(value)
    for name in names:
        _unless(bool(_VARIABLE.fullmatch(name)), f"names {name}, which cannot be a variable's name.")
    return names


def _read_environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _must_be(ENVIRONMENT.accepts, value)
    variables = cast("dict[str, object]", value)
    for name, text in variables.items():
        _unless(bool(_VARIABLE.fullmatch(name)), f"names {name}, which cannot be a variable's name.")
        shown = literal(text)
        _unless(isinstance(text, str), f'gives {name} the value {shown}: it must be a text, {name} = "...".')
        _unless("\0" not in cast("str", text), f"gives {name} a NUL character, which no program can be given.")
    return cast("dict[str, str]", variables)


def _read_chain(value: object) -> tuple[AgentRef, ...]:
    _unless(value != [], "is empty: name at least one agent.")
    entries = _read_texts(_items(value, CHAIN.accepts))
    for entry in entries:
        name, colon, model = entry.partition(":")
        _unless(bool(name) and bool(model) == bool(colon), f'has the entry {literal(entry)}: write "agent:model".')
        _unless(entries.count(entry) == 1, f"names {entry} twice: a chain asks each of its agents in turn.")
    return tuple(AgentRef.parse(entry) for entry in entries)


def _read_ladder(value: object) -> tuple[Rung, ...]:
    return tuple(_rung(entry) for entry in _read_texts(_items(value, LADDER.accepts)))


def _rung(entry: str) -> Rung:
    if entry in list(Way):
        return Way(entry)
    word, colon, agent = entry.partition(":")
    if word == _ASKED:
        _unless(bool(agent), f'has the entry {literal(entry)}: write "{_ASKED}:NAME" or "{_ASKED}:NAME:MODEL".')
        (ref,) = _read_chain([agent])
        return ref
    likely = nearest(word, [*Way, _ASKED])
    cure = f"did you mean {literal(f'{likely}{colon}{agent}')}?" if likely else f"the entries are {_RUNGS}."
    raise Unfit(f"has the entry {literal(entry)}: {cure}")


def _plain_ladder(value: object) -> object:
    rungs = cast("tuple[Rung, ...]", value)
    return [f"{_ASKED}:{rung}" if isinstance(rung, AgentRef) else rung.value for rung in rungs]


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """The one that the writer probably meant."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(wrong.lower(), list(known), n=1)), None)


def _read_check(value: object) -> Command:
    if isinstance(value, str):
        return Command(run=_read_text(value))
    if not isinstance(value, dict):
        raise _must_be(CHECK.accepts, value)
    parts = cast("dict[str, object]", value)
    for name in parts:
        _unless(name in _CHECK, f"has {name}, but its table knows {', '.join(_CHECK)} only.")
    _unless("run" in parts, 'has no command: write run = "...".')
    return msgspec.convert({name: _read_part(name, part) for name, part in parts.items()}, Command)


def _read_part(name: str, part: object) -> object:
    try:
        return _CHECK[name].read(part)
    except Unfit as unfit:
        raise Unfit(f"has a {name} that {unfit}") from unfit


def _read_urls(value: object) -> tuple[str, ...]:
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(item, str) for item in items):
        raise Unfit(f"must be {URLS.accepts}.")  # and what it is instead is not shown: it may hold a secret
    for entry in (entries := _read_texts(items)):
        known = "://" in entry or (entry.startswith("$") and _VARIABLE.fullmatch(entry[1:]))
        _unless(bool(known), 'has an entry that is neither a URL nor "$NAME".')
    return entries


def _hidden_urls(value: object) -> object:
    """No secret of a URL is shown, wherever in it it stands."""
    return [
        url if url.startswith("$") else f"{url.partition('://')[0]}://..." for url in cast("tuple[str, ...]", value)
    ]


def some_of(words: type[StrEnum]) -> Kind:
    """A list of words of an enumeration."""
    one = one_of(words)
    accepts = f"a list of {one.accepts}"

    def read(value: object) -> tuple[object, ...]:
        return tuple(one.read(item) for item in _items(value, accepts))

    return Kind(accepts, read, plain)


def one_of(words: type[StrEnum]) -> Kind:
    """One word of an enumeration."""
    accepts = " or ".join(literal(word.value) for word in words)

    def read(value: object) -> StrEnum:
        if value not in list(words):
            raise _must_be(accepts, value)
        return words(value)

    return Kind(accepts, read, plain)


AMOUNT = Kind("a number above 0", _read_amount, plain)
DURATION = _duration('a duration above 0 such as "90s", "10m" or "1h30m", or a number of seconds', least=0.001)
PAUSE = _duration('a duration such as "90s", "10m" or "1h30m", or a number of seconds', least=0.0)
SWITCH = Kind("true or false", _read_switch, plain)
TEXT = Kind("a text", _read_text, plain)
TEXTS = Kind("a list of texts", _read_texts, plain)
WORDS = Kind("a list of texts: a program and its arguments", _read_words, plain)
PATHS_INSIDE = Kind("a list of paths inside the checkout", _read_paths_inside, plain)
PATTERN = Kind("a name with {branch} in it", _read_pattern, plain)
VARIABLES = Kind("a list of variables' names", _read_variables, plain)
ENVIRONMENT = Kind("a table of variables and their texts", _read_environment, plain)
URLS = Kind('a list of URLs, or of "$NAME" for a variable that holds one', _read_urls, _hidden_urls)
CHAIN = Kind('a list of agents, each "agent" or "agent:model"', _read_chain, plain)
LADDER = Kind(f"a list of {_RUNGS}", _read_ladder, _plain_ladder)
CHECK = Kind("a command, or a table with run, timeout, env and pass_env", _read_check, plain)

_CHECK: Mapping[str, Kind] = {"run": TEXT, "timeout": DURATION, "env": ENVIRONMENT, "pass_env": VARIABLES}
