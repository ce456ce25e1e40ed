"""Scripts: files of turns for a scripted agent, how they are read, and which turn is for what was asked.

The format is docs/scripted-agent.md. A turn is chosen by what the agent was asked and by nothing else, so a script
plays the same after a crash. Only the standard library is imported, because a scripted agent is a process per call.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from storyloop.core.errors import UserError

Step = dict[str, Any]  # as the file has it, checked against _STEPS when it is read

ASKED = ("story", "drain", "iteration", "attempt", "call", "mode")

_NUMBER = (int, float)
_NAMED: dict[Any, str] = {str: "a text", int: "a whole number", _NUMBER: "a number", dict: "a table", list: "a list"}
_YES = frozenset({True})
_SPOOL = frozenset({"stdout", "stderr"})
_PLACE = frozenset({"file", "stdout"})
_STATUS = frozenset({"completed", "partial", "failed"})
_CONFLICT = frozenset({"resolved", "failed"})
_FIX = frozenset({"all_issues_addressed", "issues_remain", "no_issues_found", "failed"})
_FAILURE = frozenset({"transient", "limit", "auth", "missing", "config", "offline"})

# The first word of each step and what it takes, then the words that may stand beside it (! = must).
_STEPS: dict[str, dict[str, Any]] = {
    "write": {"write!": str, "text": str, "base64": str},
    "append": {"append!": str, "text": str, "base64": str},
    "edit": {"edit!": str, "find!": str, "replace!": str},
    "delete": {"delete!": str},
    "rename": {"rename!": str, "to!": str},
    "symlink": {"symlink!": str, "to!": str},
    "chmod": {"chmod!": str, "mode!": str},
    "run": {"run!": str},
    "sleep": {"sleep!": _NUMBER},
    "print": {"print!": str, "bytes": int, "to": _SPOOL},
    "answer": {"answer!": _STATUS, "summary": str, "next_steps": str, "files": list, "knowledge": str, "to": _PLACE}
    | {"question": str, "options": list, "default": str},
    "analysis": {"analysis!": list, "to": _PLACE},
    "review": {"review!": list, "to": _PLACE},
    "triage": {"triage!": list, "to": _PLACE},
    "fix": {"fix!": _FIX, "summary": str, "to": _PLACE},
    "conflict": {"conflict!": _CONFLICT, "summary": str, "to": _PLACE},
    "commit": {"commit!": str, "body": str, "to": _PLACE},
    "garbage": {"garbage!": str, "base64": str, "to": _PLACE},
    "usage": {"usage!": dict},
    "session": {"session!": str},
    "fail": {"fail!": _FAILURE, "message": str, "resets_in": _NUMBER, "resets_at": str},
    "exit": {"exit!": int},
    "hang": {"hang!": _YES},
    "crash": {"crash!": _YES},
    "leave": {"leave!": _NUMBER, "count": int, "detached": _YES, "stubborn": _YES},
}


class Turn(NamedTuple):
    """What is done when it is asked for: the conditions, and the steps in order."""

    conditions: dict[str, tuple[str, ...]]
    steps: tuple[Step, ...]


class Script(NamedTuple):
    """A file of turns."""

    name: str
    turns: tuple[Turn, ...]


def load_script(path: str) -> Script:
    """The script in this file, TOML or (by its name) JSON; raises `UserError`."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        cure = "Correct `script` in the agent's entry of your configuration."
        raise UserError(f"The script {path} cannot be read: {error.strerror}.", cure) from error
    return parse_script(text, name=path)


def parse_script(text: bytes, *, name: str) -> Script:
    """The script in this text; raises `UserError` that names the turn, the step and the cure."""
    try:
        if name.endswith(".json"):
            import json

            table = json.loads(text)
        else:
            import tomllib

            table = tomllib.loads(text.decode())
    except ValueError as error:  # both libraries' errors, and that of text which is not UTF-8
        raise UserError(f"The script {name} cannot be read: {error}.", "Mend it there.") from error
    turns = _table(table, f"The script {name}").get("turn")
    if not isinstance(turns, list) or not turns:
        raise UserError(f"The script {name} has no turns.", "Begin each turn with [[turn]].")
    numbered = enumerate(cast("list[Any]", turns), start=1)
    return Script(name, tuple(_turn(turn, f"Turn {number} of {name}") for number, turn in numbered))


def turn_for(script: Script, asked: Mapping[str, str]) -> Turn:
    """The turn for what was asked; raises `UserError` if there is none.

    It is the first turn whose conditions all hold. If others state exactly the same, they are taken in order, by
    the number of the call, and the last one is repeated.
    """
    fitting = (turn for turn in script.turns if all(asked[name] in wanted for name, wanted in turn.conditions.items()))
    first = next(fitting, None)
    if first is None:
        told = ", ".join(f"{name} {asked[name]}" for name in ASKED)
        raise UserError(f"{script.name} has no turn for {told}.", "Add one, or at the end a turn without conditions.")
    same = [turn for turn in script.turns if turn.conditions == first.conditions]
    return same[min(int(asked["call"]), len(same)) - 1]


def path_of(name: str) -> bytes:
    """The path that a name in a script stands for: %FF is that byte, %25 a per cent sign."""
    first, *rest = name.split("%")
    return first.encode() + b"".join(bytes.fromhex(part[:2]) + part[2:].encode() for part in rest)


def data_of(step: Step, text: str = "") -> bytes:
    """The bytes that a step writes: its `text`, or its `base64`, or else what is given here."""
    if "base64" in step:
        from base64 import b64decode

        return b64decode(step["base64"], validate=True)
    return step.get("text", text).encode()


# --- checking ---------------------------------------------------------------------------------------------


def _turn(given: Any, place: str) -> Turn:
    turn = _table(given, place)
    _check(turn, {**dict.fromkeys(ASKED, (str, int, list)), "steps!": list}, place)
    conditions: dict[str, tuple[str, ...]] = {}
    for name in turn.keys() & set(ASKED):
        wanted = turn[name] if isinstance(turn[name], list) else [turn[name]]
        conditions[name] = tuple(str(one) for one in cast("list[Any]", wanted))
    numbered = enumerate(cast("list[Any]", turn["steps"]), start=1)
    return Turn(conditions, tuple(_step(step, f"{place}, step {number}") for number, step in numbered))


def _step(given: Any, place: str) -> Step:
    step = _table(given, place)
    verb = next((word for word in _STEPS if word in step), None)
    if verb is None:
        raise UserError(f"{place} says nothing to do.", f"Begin it with one of: {', '.join(_STEPS)}.")
    _check(step, _STEPS[verb], place)
    try:
        _decode_on_trial(step)
    except ValueError as error:
        raise UserError(f"{place} cannot be played: {error}.", "Correct the value.") from error
    return step


def _table(given: Any, place: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UserError(f"{place} is {given!r}.", 'Make it a table, such as { run = "make" }.')
    return cast("dict[str, Any]", given)


def _check(table: dict[str, Any], form: dict[str, Any], place: str) -> None:
    kinds = {word.rstrip("!"): kind for word, kind in form.items()}
    for word, value in table.items():
        if word not in kinds:
            raise UserError(f"{place} has the unknown word {word}.", f"It may have: {', '.join(kinds)}.")
        kind = kinds[word]
        if isinstance(kind, frozenset):
            choices = cast("frozenset[object]", kind)
            fits, wanted = value in choices, f"one of: {', '.join(sorted(map(str, choices))).lower()}"
        else:
            fits, wanted = isinstance(value, kind) and not isinstance(value, bool), _NAMED.get(kind, "text or number")
        if not fits:
            raise UserError(f"{place}: {word} is {value!r}.", f"Make it {wanted}.")
    for word in form:
        if word.endswith("!") and word[:-1] not in table:
            raise UserError(f"{place} lacks {word[:-1]}.", "Add it.")


def _decode_on_trial(step: Step) -> None:
    """What is decoded only when it is played must fail when it is read."""
    for word in ("write", "append", "edit", "delete", "rename", "symlink", "chmod", "to"):
        path_of(step.get(word, ""))
    data_of(step)
    int(step.get("mode", "0"), 8)
    if "resets_at" in step:
        from datetime import datetime

        if datetime.fromisoformat(step["resets_at"]).tzinfo is None:
            raise ValueError("resets_at has no time zone")
