"""An error is sentences for one kind of reader, and keeps what explains it."""

import pytest

from storyloop.core.errors import (
    AgentError,
    IllegalTransition,
    ImpossibleState,
    OperatorError,
    ProgrammerError,
    StoryloopError,
    UserError,
)

REPORT = "This is a defect in Storyloop: please report it."


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("Story US-003 has no criteria.", "Add one."), "Story US-003 has no criteria. Add one."),
        (AgentError("Line 3: no <status>.", "Write it."), "Line 3: no <status>. Write it."),
        (
            OperatorError("The disk is full.", "Nothing was lost.", "Free some space, then resume."),
            "The disk is full. Nothing was lost. Free some space, then resume.",
        ),
        (ProgrammerError("The plan is empty."), f"The plan is empty. {REPORT}"),
        (
            ImpossibleState(1, "a count is 0 or more", {"calls": -1, "at": None}),
            f"int cannot have calls=-1, at=None: a count is 0 or more. {REPORT}",
        ),
        (
            IllegalTransition("completed", "proving"),
            f"completed cannot be followed by proving: the table of transitions has no such row. {REPORT}",
        ),
    ],
)
def test_every_error_says_what_was_met_and_what_to_try(error: StoryloopError, text: str) -> None:
    """One class per reader; the sentence ends with the cure."""
    assert str(error) == text
    assert text.endswith(error.cure)
