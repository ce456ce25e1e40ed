"""Spec, Story, Criterion: what is wanted, as values, and the order in which stories are taken.

`spec_file` makes these values from a user's file and checks them: whoever is handed a `Spec` may trust that
its ids are unique, its dependencies known and free of cycles, and its branch a name that git accepts.
"""

import heapq
from collections.abc import Set
from functools import cached_property

import msgspec

from storyloop.core.errors import UserError


class Criterion(msgspec.Struct, frozen=True):
    """One sentence that can be proven; exit status 0 of `verify`, where there is one, proves it."""

    text: str
    verify: str | None = None
    extra: dict[str, object] = {}


class Story(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One slice of a spec. `extra` holds the keys of the user's JSON that we do not know."""

    id: str
    title: str
    acceptance_criteria: tuple[Criterion, ...]
    priority: int
    description: str = ""
    passes: bool = False
    notes: str = ""
    depends_on: tuple[str, ...] = ()
    extra: dict[str, object] = {}


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", dict=True):
    """What is wanted; `user_stories` stand in the order of the file.

    Without any it is free-form: the description is the whole text, and the plan drain makes stories of it first.
    """

    project: str
    branch_name: str
    title: str
    user_stories: tuple[Story, ...]
    description: str = ""
    extra: dict[str, object] = {}

    @property
    def is_free_form(self) -> bool:
        """Whether its stories are still to be planned."""
        return not self.user_stories

    def story(self, story_id: str) -> Story:
        """The story with this id; a `KeyError` when there is none."""
        return self._by_id[story_id]

    @cached_property
    def _by_id(self) -> dict[str, Story]:
        return {story.id: story for story in self.user_stories}

    def order(self) -> tuple[Story, ...]:
        """Every story, in the order in which a run takes them one at a time if all of them pass."""
        return self._order

    @cached_property
    def _order(self) -> tuple[Story, ...]:
        dependents: dict[str, list[int]] = {}
        missing = [len(story.depends_on) for story in self.user_stories]
        for place, story in enumerate(self.user_stories):
            for dependency in story.depends_on:
                dependents.setdefault(dependency, []).append(place)
        startable = [(story.priority, place) for place, story in enumerate(self.user_stories) if not missing[place]]
        heapq.heapify(startable)
        taken: list[Story] = []
        while startable:
            _, place = heapq.heappop(startable)
            taken.append(self.user_stories[place])
            for dependent in dependents.get(taken[-1].id, ()):
                missing[dependent] -= 1
                if not missing[dependent]:
                    heapq.heappush(startable, (self.user_stories[dependent].priority, dependent))
        return tuple(taken)


def ready(spec: Spec, passed: Set[str], *, closed: Set[str] = frozenset()) -> tuple[Story, ...]:
    """The stories that may start now, the next one first.

    `passed` are the ids of the stories that have passed, those with `passes` among them; `closed` are those
    that shall not start for another reason: they are at work, blocked or skipped.
    """
    startable = (
        story
        for story in spec.user_stories
        if not (story.id in passed or story.id in closed) and all(one in passed for one in story.depends_on)
    )
    return tuple(sorted(startable, key=lambda story: story.priority))


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with a spec file: what it is, where it stands, and the cure."""

    what: str
    place: str
    cure: str

    def __str__(self) -> str:
        return f"{self.what} ({self.place}). {self.cure}"


class SpecErrors(UserError):  # noqa: N818 - it carries many
    """A spec file that cannot be used, with all its problems at once, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(f"The spec has {len(problems)} problem(s).", "Mend them and start again.")
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))
