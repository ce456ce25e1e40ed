"""Learnt: what a run knows about its project, as lines for a person and in the JSON form of the reference."""

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from storyloop.core.knowledge import Decision, FileInfo, Pattern, ProjectKnowledge, StoryChanges
from storyloop.views.words import count


def knowledge_lines(knowledge: ProjectKnowledge) -> list[str]:
    """Everything, file by file; what goes into a prompt is the part that matters there (`show --prompt`)."""
    sections = {
        "Files": [_file(path, info) for path, info in sorted(knowledge.files.items())],
        "Decisions": [_decision(decision) for decision in knowledge.decisions],
        "Patterns": [_pattern(pattern) for pattern in knowledge.patterns],
        "Changes": [_changes(changes) for changes in knowledge.story_changes],
    }
    told = [line for name, lines in sections.items() if lines for line in (name, *lines, "")]
    return told[:-1] or ["Nothing is known yet: no story has landed."]


def knowledge_json(knowledge: ProjectKnowledge) -> dict[str, Any]:
    """The fields of the reference, named as there: `keySymbols`, `touchedBy`, `storyChanges`."""
    return _camel(knowledge)


def _file(path: str, info: FileInfo) -> str:
    size = "" if info.line_count is None else f" ({count(info.line_count, 'line')})"
    parts = [info.purpose, f"[{', '.join(info.key_symbols)}]" if info.key_symbols else ""]
    return "  ".join(filter(None, [f"  {path}{size}", *parts, f"by {', '.join(info.touched_by)}"]))


def _decision(decision: Decision) -> str:
    since = f"  (superseded by {decision.superseded_by})" if decision.superseded_by else ""
    why = f": {decision.rationale}" if decision.rationale else ""
    return f"  {decision.story_id}  {decision.topic}: {decision.choice}{why}{since}"


def _pattern(pattern: Pattern) -> str:
    example = f"  (see {pattern.example_file})" if pattern.example_file else ""
    return f"  {pattern.story_id}  {pattern.description}{example}"


def _changes(changes: StoryChanges) -> str:
    marked = [
        *(f"+{path}" for path in changes.files_created),
        *(f"~{path}" for path in changes.files_modified),
        *(f"-{path}" for path in changes.files_deleted),
    ]
    return f"  {changes.story_id}  {' '.join(marked) or 'no file'}"


def _camel(value: object) -> Any:
    match value:
        case msgspec.Struct():
            fields = {name: getattr(value, name) for name in value.__struct_fields__}
            return {_renamed(name): _camel(part) for name, part in fields.items()}
        case Mapping():
            return {key: _camel(part) for key, part in cast("Mapping[str, object]", value).items()}
        case tuple():
            return [_camel(part) for part in cast("tuple[object, ...]", value)]
        case _:
            return value


def _renamed(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
