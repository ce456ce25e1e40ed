"""Purposes: why we run a command of the project. One deed and one fact serve them all."""

import msgspec

LOOKING = "@feedback"  # in the place of a story, where the forge is waited for
RUN = ""  # in the place of a story: what belongs to none, but to the run itself


def label_of(story: str) -> str:
    """What keys and files name its work by; no story is called `@run`."""
    return story or "@run"


class SettingUp(msgspec.Struct, frozen=True, tag="setup"):
    """Preparing the new worktree, or the clean one of the final proof; `number` counts the commands from 0."""

    number: int
    round: int = 0  # of the final proof; 0 before the first story


class SettingUpLane(msgspec.Struct, frozen=True, tag="setup_lane"):
    """The same in a new lane, before the work of the story that is in it."""

    story: str
    iteration: int
    lane: int
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
    turn: int = 0  # how often the work had been put onto the branch's tip to land there


class Demonstrating(msgspec.Struct, frozen=True, tag="prove"):
    """A criterion's command on the tree of an attempt."""

    story: str
    iteration: int
    attempt: int
    criterion: int
    turn: int = 0


class Trying(msgspec.Struct, frozen=True, tag="try"):
    """The same command without the work: on the story's beginning, with nothing but its tests. Red is right there."""

    of: Checking | Demonstrating


class Reproving(msgspec.Struct, frozen=True, tag="reprove"):
    """A criterion's command on the tree that a fix left, in a cycle of the review."""

    cycle: int
    attempt: int
    story: str
    criterion: int


class FinalChecking(msgspec.Struct, frozen=True, tag="final_check"):
    """A check in a round of the final proof."""

    round: int
    check: str


class FinalDemonstrating(msgspec.Struct, frozen=True, tag="final_prove"):
    """A criterion's command in a round of the final proof."""

    round: int
    story: str
    criterion: int


FinalPurpose = FinalChecking | FinalDemonstrating
Proof = Checking | Demonstrating | Reproving | Trying
Purpose = SettingUp | SettingUpLane | Baselining | Probing | Proof | FinalPurpose


def is_final(purpose: Purpose) -> bool:
    """Whether it belongs to a round of the final proof."""
    return isinstance(purpose, FinalPurpose) or (isinstance(purpose, SettingUp) and purpose.round > 0)


def key_of(purpose: Purpose) -> str:
    """The derived key of the deed."""
    match purpose:
        case SettingUp(number=number, round=0):
            return f"setup/{number}"
        case SettingUp(number=number, round=proof):
            return f"final/{proof}/setup/{number}"
        case SettingUpLane(story=story, iteration=iteration, lane=lane, number=number):
            return f"{story}/{iteration}/lane/{lane}/setup/{number}"
        case Baselining(check=check):
            return f"baseline/{check}"
        case Probing(story=story, iteration=iteration, criterion=criterion):
            return f"{story}/{iteration}/probe/{criterion}"
        case Checking(story=story, iteration=iteration, attempt=attempt, check=check, turn=turn):
            return f"{label_of(story)}/{iteration}/prove/{_try(attempt, turn)}/check/{check}"
        case Demonstrating(story=story, iteration=iteration, attempt=attempt, criterion=criterion, turn=turn):
            return f"{story}/{iteration}/prove/{_try(attempt, turn)}/criterion/{criterion}"
        case Trying(of=of):
            return f"{key_of(of)}/without-the-work"
        case Reproving(cycle=cycle, attempt=attempt, story=story, criterion=criterion):
            return f"{label_of(RUN)}/{cycle}/prove/{attempt}/criterion/{story}/{criterion}"
        case FinalChecking(round=proof, check=check):
            return f"final/{proof}/check/{check}"
        case FinalDemonstrating(round=proof, story=story, criterion=criterion):
            return f"final/{proof}/criterion/{story}/{criterion}"


def _try(attempt: int, turn: int) -> str:
    return f"{attempt}/turn/{turn}" if turn else f"{attempt}"
