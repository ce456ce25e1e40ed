"""Purposes: why we run a command of the project. One deed and one fact serve them all."""

import msgspec


class SettingUp(msgspec.Struct, frozen=True, tag="setup"):
    """Preparing the new worktree; `number` counts the commands from 0."""

    number: int


class Baselining(msgspec.Struct, frozen=True, tag="baseline"):
    """A check on the base commit: red here is inherited."""

    check: str


class Probing(msgspec.Struct, frozen=True, tag="probe"):
    """A criterion's command before the story's work: green here makes its proof vacuous."""

    story: str
    iteration: int
    criterion: int


class Checking(msgspec.Struct, frozen=True, tag="check"):
    """A check on the tree of an attempt."""

    story: str
    iteration: int
    attempt: int
    check: str


class Demonstrating(msgspec.Struct, frozen=True, tag="prove"):
    """A criterion's command on the tree of an attempt."""

    story: str
    iteration: int
    attempt: int
    criterion: int


Purpose = SettingUp | Baselining | Probing | Checking | Demonstrating


def key_of(purpose: Purpose) -> str:
    """The derived key of the deed."""
    match purpose:
        case SettingUp(number=number):
            return f"setup/{number}"
        case Baselining(check=check):
            return f"baseline/{check}"
        case Probing(story=story, iteration=iteration, criterion=criterion):
            return f"{story}/{iteration}/probe/{criterion}"
        case Checking(story=story, iteration=iteration, attempt=attempt, check=check):
            return f"{story}/{iteration}/prove/{attempt}/check/{check}"
        case Demonstrating(story=story, iteration=iteration, attempt=attempt, criterion=criterion):
            return f"{story}/{iteration}/prove/{attempt}/criterion/{criterion}"
