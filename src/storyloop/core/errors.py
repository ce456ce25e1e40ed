"""The exception tree: one class per kind of reader, each keeping what explains it.

A text says what was met and then what to try; it is built when it is read, from fields that stay. What
belongs to the run itself (an agent that crashed, a check that is red) is a value and never raised.
"""

from collections.abc import Mapping


class StoryloopError(Exception):
    """Anything that Storyloop raises on purpose: what was met, and the cure, both in sentences."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(problem, cure)
        self.problem = problem
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.problem} {self.cure}"


class UserError(StoryloopError):
    """The user gave us something we cannot work with: usage, spec, config, repository (exit status 2)."""


class AgentError(StoryloopError):
    """An agent gave us something we cannot use; the text is what the agent is told."""


class OperatorError(StoryloopError):
    """The machine failed us (disk full, database locked); says also what is safe meanwhile."""

    def __init__(self, problem: str, safe: str, cure: str) -> None:
        super().__init__(problem, cure)
        self.safe = safe

    def __str__(self) -> str:
        return f"{self.problem} {self.safe} {self.cure}"


class ProgrammerError(StoryloopError):
    """A promise of our own code was broken; no reader but us can cure it."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, "This is a defect in Storyloop: please report it.")


class ImpossibleState(ProgrammerError, ValueError):  # noqa: N818 - it names the state, not the mishap
    """A value with a combination of fields that must not exist; names the fields.

    It is also a `ValueError`, because msgspec turns those into its `ValidationError` when the fields came
    from JSON, so a reader of files has one kind of error to catch.
    """

    def __init__(self, owner: object, why: str, fields: Mapping[str, object]) -> None:
        super().__init__(why)
        self.owner = type(owner).__name__
        self.fields = dict(fields)

    def __str__(self) -> str:
        listed = ", ".join(f"{name}={value}" for name, value in self.fields.items())
        return f"{self.owner} cannot have {listed}: {self.problem}. {self.cure}"


class IllegalTransition(ProgrammerError):  # noqa: N818 - a word of the domain
    """A state met an event, or was sent to a state, for which the table of transitions has no row."""

    def __init__(self, state: object, event: object) -> None:
        super().__init__("the table of transitions has no such row")
        self.state = state
        self.event = event

    def __str__(self) -> str:
        return f"{self.state} cannot be followed by {self.event}: {self.problem}. {self.cure}"


def are_counts(*values: int) -> bool:
    """Whether all of these are integers that are not negative: a quick look, for values that are made very often."""
    for value in values:  # noqa: SIM110 - `all` over a generator takes three times as long
        if type(value) is not int or value < 0:
            return False
    return True


def require_counts(value: object) -> None:
    """Raise `ImpossibleState` unless every field that is declared an integer is one, and not negative."""
    for name, declared in type(value).__annotations__.items():
        if declared is int and not are_counts(getattr(value, name)):
            raise ImpossibleState(value, "a count is an integer of 0 or more", {name: getattr(value, name)})
