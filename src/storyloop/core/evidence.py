"""Evidence: what proves a criterion or a check, and how a story's attempt is judged by it.

A reading is what one command showed (`green`, `flaky`, `red`, `unmeasured`); a verdict is what a reading means
for a criterion. `unmeasured` is a third value: it blocks like red and is never counted as either.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from storyloop.core.facts import Ending, Measured

COMMAND_NOT_FOUND = 127
KILLED_IN_SHELL = 137


class Reading(StrEnum):
    """What a command showed on a tree."""

    GREEN = "green"
    FLAKY = "flaky"  # red, then green on an immediate second run of the same tree
    RED = "red"
    UNMEASURED = "unmeasured"

    @property
    def is_green(self) -> bool:
        return self in _GREENS


_GREENS = (Reading.GREEN, Reading.FLAKY)


class Verdict(StrEnum):
    """What is known of a criterion."""

    PROVEN = "proven"
    JUDGED = "judged"  # by somebody who read the work: no command stands behind it
    FAILED = "failed"
    UNPROVEN = "unproven"  # no command stands behind it
    UNMEASURED = "unmeasured"
    STALE = "stale"  # was proven or judged, but on a tree that a later commit has changed
    VACUOUS = "vacuous"  # green, but it was green before the work too


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One command, run by us, on one tree."""

    command: str
    reading: Reading
    tree: str
    at: datetime
    exit_status: int | None
    output_digest: str
    output: str  # file, relative to the run's directory
    seconds: float
    reason: str = ""
    check: str | None = None  # name of the project's check, or
    criterion: int | None = None  # number of the story's criterion, from 1

    @property
    def label(self) -> str:
        """How a person would call it."""
        return f"check {self.check}" if self.check is not None else f"criterion {self.criterion}"


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A criterion without a command that somebody has read the work for, and found to be met."""

    criterion: int
    tree: str
    at: datetime
    by: str  # the agent that was asked
    words: str  # its own, with file and line


def reading_of(first: Measured, second: Measured | None = None) -> Reading:
    """What one run, and the immediate second one if the first was red, show together."""
    decisive = first if second is None else second
    if first.ending is not Ending.EXITED or first.exit_status == KILLED_IN_SHELL:
        return Reading.UNMEASURED
    if first.exit_status == 0:
        return Reading.GREEN
    if decisive is not first and decisive.exit_status == 0:
        return Reading.FLAKY
    return Reading.RED


def deserves_second_run(measured: Measured) -> bool:
    """A red result is looked at twice; a missing command or an unmeasured one would only show the same."""
    return reading_of(measured) is Reading.RED and measured.exit_status != COMMAND_NOT_FOUND


def verdict_of(evidence: Evidence | Judged | None, *, was_green_before: bool, tip_tree: str | None) -> Verdict:
    """What this evidence says of its criterion while the run's branch has `tip_tree`."""
    if evidence is None:
        return Verdict.UNPROVEN
    if isinstance(evidence, Judged):
        return Verdict.JUDGED if tip_tree in (None, evidence.tree) else Verdict.STALE
    if evidence.reading is Reading.UNMEASURED:
        return Verdict.UNMEASURED
    if evidence.reading is Reading.RED:
        return Verdict.FAILED
    if was_green_before:  # it never was proven, so that cannot have gone stale
        return Verdict.VACUOUS
    return Verdict.PROVEN if tip_tree in (None, evidence.tree) else Verdict.STALE
