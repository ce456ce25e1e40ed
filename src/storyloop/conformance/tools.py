"""Tools: how a deed of the scripted model is done with the tools that a client offered.

No client's tools are known here by heart. A tool is recognised by a word of its name and by the arguments that its
JSON schema has; what else the schema requires is filled in by its type.
"""

import re
from typing import Any, assert_never

import msgspec

from storyloop.conformance.scenario import ARTIFACT, Deed, EditFile, ModelTurn, Prompt, ReadFile, Shell, WriteFile


class Tool(msgspec.Struct, frozen=True):
    """A tool as a client offers it; without a schema it takes free text."""

    name: str
    schema: dict[str, Any] | None  # JSON schema, anybody's


class Use(msgspec.Struct, frozen=True):
    """A tool used: with arguments, or with free text."""

    name: str
    arguments: dict[str, Any] | str


EDITS_BY_TEXT = "*file listing*"  # in the orders of a model that is offered no tool, and edits all the same

# What a schema calls the arguments of a deed.
_PATH = re.compile(r"(file_?|absolute_?|target_?)?path|file(_?name)?", re.IGNORECASE)
_CONTENT = re.compile(r"content|file_?text", re.IGNORECASE)
_OLD = re.compile(r"old(_?(string|str|text))?", re.IGNORECASE)
_NEW = re.compile(r"new(_?(string|str|text))?", re.IGNORECASE)
_COMMAND = re.compile(r"command|cmd", re.IGNORECASE)
# Words of a tool's name; the order of the tools decides between several.
_WRITES = re.compile(r"write|create", re.IGNORECASE)
_EDITS = re.compile(r"edit|replace", re.IGNORECASE)
_READS = re.compile(r"read|view", re.IGNORECASE)
_RUNS = re.compile(r"bash|shell|exec", re.IGNORECASE)


def use_for(deed: Deed, tools: tuple[Tool, ...], prompt: Prompt) -> Use | None:
    """The deed with one of these tools; None when the client offers nothing for it."""
    match deed:
        case WriteFile():
            path = _path(deed.path, prompt)
            return (
                _with(tools, _WRITES, {_PATH: path, _CONTENT: deed.content})
                or _patched(tools, f"*** Add File: {_short(path, prompt)}\n" + _lines("+", deed.content))
                or use_for(Shell(f"cat >'{path}' <<'END-OF-FILE'\n{deed.content}END-OF-FILE"), tools, prompt)
            )
        case EditFile():
            path = _path(deed.path, prompt)
            hunk = f"*** Update File: {_short(path, prompt)}\n@@\n" + _lines("-", deed.old) + _lines("+", deed.new)
            return (
                _with(tools, _EDITS, {_PATH: path, _OLD: deed.old, _NEW: deed.new})
                or _patched(tools, hunk)
                or use_for(Shell(f"sed -i 's|{deed.old}|{deed.new}|' '{path}'"), tools, prompt)
            )
        case ReadFile():
            path = _path(deed.path, prompt)
            return _with(tools, _READS, {_PATH: path}) or use_for(Shell(f"cat '{path}'"), tools, prompt)
        case Shell():
            return _with(tools, _RUNS, {_COMMAND: deed.command})
        case _:
            assert_never(deed)


def told(turns: tuple[ModelTurn, ...]) -> str:
    """All that these turns say and write, for a client that reads edits out of one answer; the rest it cannot do."""
    files: dict[str, str] = {}
    for deed in (turn.does for turn in turns):
        match deed:
            case WriteFile(path=path, content=content):
                files[path] = content
            case EditFile(path=path, old=old, new=new) if path in files:
                files[path] = files[path].replace(old, new)
            case _:
                pass
    artifact = files.pop(ARTIFACT, "")
    edits = (f"{path}\n```\n{content}```\n" for path, content in files.items())
    return "\n".join(text for text in (*(turn.says for turn in turns), *edits, artifact) if text)


def _path(path: str, prompt: Prompt) -> str:
    """Absolute: some clients insist on it, and none minds."""
    return f"{prompt.worktree}/" + (f".storyloop/{prompt.artifact}" if path == ARTIFACT else path)


def _short(path: str, prompt: Prompt) -> str:
    return path.removeprefix(f"{prompt.worktree}/")


def _with(tools: tuple[Tool, ...], named: re.Pattern[str], roles: dict[re.Pattern[str], str]) -> Use | None:
    for tool in tools:
        properties: dict[str, Any] = (tool.schema or {}).get("properties") or {}
        arguments = {
            name: value for role, value in roles.items() if (name := next(filter(role.fullmatch, properties), None))
        }
        if named.search(tool.name) and len(arguments) == len(roles):
            given = {
                name: ["sh", "-c", value] if _type(properties[name]) == "array" else value
                for name, value in arguments.items()
            }
            required: list[str] = (tool.schema or {}).get("required") or []
            rest = {name: _filler(properties.get(name) or {}) for name in required if name not in given}
            return Use(tool.name, {**given, **rest})
    return None


def _patched(tools: tuple[Tool, ...], hunk: str) -> Use | None:
    """A tool that takes a whole patch as free text."""
    if not any(tool.name == "apply_patch" and tool.schema is None for tool in tools):
        return None
    return Use("apply_patch", f"*** Begin Patch\n{hunk}*** End Patch")


def _lines(mark: str, text: str) -> str:
    return "".join(f"{mark}{line}\n" for line in text.splitlines())


def _type(schema: Any) -> str:
    kind: Any = schema.get("type")
    return str(kind if isinstance(kind, str) or not kind else kind[0]).lower()


def _filler(schema: Any) -> object:
    if schema.get("enum"):
        return schema["enum"][0]
    kinds: dict[str, object] = {"boolean": False, "integer": 1, "number": 1, "array": [], "object": {}}
    return kinds.get(_type(schema), "as scripted")
