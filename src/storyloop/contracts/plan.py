"""Plans: the stories that an agent made of a free-form spec, checked by the very rules of spec files."""

from collections.abc import Iterable

import msgspec

from storyloop.contracts.xml import Invalid, Node
from storyloop.core.artifacts import MOST_PLANNED_CRITERIA, MOST_PLANNED_STORIES, Plan
from storyloop.core.spec import Problem, SpecErrors
from storyloop.core.spec_file import parse_spec

_NAME = "plan.json"  # what the rules take the fields for; no reader sees it
_TEXTS = {
    **{name: name for name in ("title", "project", "description", "id", "notes", "text", "verify")},
    "branch-name": "branchName",
}


def planned(root: Node) -> Plan:
    """The plan in this element, which its schema found valid; raises `Invalid`."""
    stories = [story for listed in root.named("user-stories") for story in listed.children]
    _require_few(root.named("user-stories"), MOST_PLANNED_STORIES, "stories")
    for story in stories:
        _require_few(story.named("acceptance-criteria"), MOST_PLANNED_CRITERIA, "criteria")
    places: dict[str, Node] = {"": root}
    fields = _fields(root, "", places)
    fields["userStories"] = [_story(story, f"userStories[{at}]", places) for at, story in enumerate(stories)]
    try:
        spec = parse_spec(msgspec.json.encode(fields), name=_NAME)
    except SpecErrors as errors:
        raise Invalid(*(_told(problem, places) for problem in errors.problems)) from errors
    return Plan(spec=spec)


def _require_few(lists: Iterable[Node], most: int, what: str) -> None:
    for one in lists:
        if len(one.children) > most:
            raise Invalid(f"line {one.line}, <{one.name}>: it has {len(one.children)} {what}; expected at most {most}")


def _story(story: Node, at: str, places: dict[str, Node]) -> dict[str, object]:
    fields = _fields(story, at, places)
    for priority in story.named("priority"):
        fields["priority"] = int(priority.text)
    criteria = [one for listed in story.named("acceptance-criteria") for one in listed.children]
    wanted = [one for listed in story.named("depends-on") for one in listed.children]
    places |= {f"{at}.dependsOn[{number}]": one for number, one in enumerate(wanted)}
    return fields | {
        "dependsOn": [one.text for one in wanted],
        "acceptanceCriteria": [
            {"text": one.text} | _fields(one, f"{at}.acceptanceCriteria[{number}]", places)
            for number, one in enumerate(criteria)
        ],
    }


def _fields(element: Node, at: str, places: dict[str, Node]) -> dict[str, object]:
    """The texts among the children of an element, and where each of them stands."""
    places[at] = element
    told = {_TEXTS[child.name]: child for child in element.children if child.name in _TEXTS}
    places |= {f"{at}.{name}".lstrip("."): child for name, child in told.items()}
    return {name: child.text for name, child in told.items()}


def _told(problem: Problem, places: dict[str, Node]) -> str:
    path = problem.place.rpartition(f" of {_NAME}")[0]
    element = places.get(path, places[""])
    return f"line {element.line}, <{element.name}>: {problem.what}. {problem.cure}"
