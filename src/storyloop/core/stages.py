"""Stages: where work in hand stands, from the preparations for its first call to its landing or its end.

A stage holds what is known only there; what is gathered on the way is the work's own.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from storyloop.core.artifacts import CommitMessage, DevelopmentResult, Issue, Question, Triage
from storyloop.core.continuation import ContinuationState
from storyloop.core.errand import Calling, Errand, Waiting
from storyloop.core.evidence import Evidence, Judged
from storyloop.core.facts import Pin, Suspicion
from storyloop.core.policy import Drain
from storyloop.core.purpose import Checking, Demonstrating, Reproving, Trying, label_of
from storyloop.core.spec import Spec
from storyloop.core.usage import Spending
from storyloop.core.words import StoryState


class Red(msgspec.Struct, frozen=True):
    """A command that was not green on an attempt, and the end of what it printed (bounded)."""

    evidence: Evidence
    tail: str


class Preparing(msgspec.Struct, frozen=True, kw_only=True, tag="preparing"):
    """Before the first call: handover of an older iteration removed, proofs tried on the untouched tree."""

    probed: tuple[int, ...] = ()


class Planning(msgspec.Struct, frozen=True, kw_only=True, tag="planning"):
    """The run's own errand for the stories of a free-form spec."""

    tries: int = 0  # plans that were not valid
    fault: str = ""  # what was wrong with the last of them, bounded


class Planned(msgspec.Struct, frozen=True, tag="planned"):
    """The stories are known, and still to be written down."""

    spec: Spec
    triage: Triage | None = None  # what they were made of, where that is feedback


class Building(msgspec.Struct, frozen=True, tag="building"):
    """The agent's turn: the errand says what is owed."""


class Proving(msgspec.Struct, frozen=True, kw_only=True, tag="proving"):
    """Our turn: checks and proofs are run on the tree that the agent left."""

    result: DevelopmentResult
    tree: str
    owed: tuple[Checking | Demonstrating | Reproving, ...]  # what is still to be run on this tree, in order
    measured: tuple[Evidence, ...] = ()
    red: tuple["Red", ...] = ()
    again: "Landing | None" = None  # it was proven in its lane: now it is on the branch as that has become meanwhile


class Judging(msgspec.Struct, frozen=True, kw_only=True, tag="judging"):
    """All that gates is green: somebody is asked to read, for criteria that no command proves or as a reviewer."""

    landing: "Landing"
    drain: Drain = Drain.ANALYSIS
    before: ContinuationState  # the story's counters as the attempt left them: what follows goes on from there


class Reconciling(msgspec.Struct, frozen=True, kw_only=True, tag="reconciling"):
    """Proven in its lane, but what has landed meanwhile changed the same places: the conflict errand is asked."""

    landing: "Landing"
    before: ContinuationState


class Doubting(msgspec.Struct, frozen=True, kw_only=True, tag="doubting"):
    """Proven, with new tests: whether they fail without the work is tried, until one command is red."""

    landing: "Landing"
    owed: tuple[Trying, ...]


class Describing(msgspec.Struct, frozen=True, kw_only=True, tag="describing"):
    """Proven; a commit errand, where one is bound, words the message."""

    landing: "Landing"
    errand: Errand
    cs: ContinuationState


class Landing(msgspec.Struct, frozen=True, kw_only=True, tag="landing"):
    """Proven: exactly this tree is owed a commit. `at` dates it, so that doing it twice gives one commit.

    Work that was proven in a lane waits here for its turn, without a worktree.
    """

    result: DevelopmentResult
    tree: str
    evidence: tuple[Evidence, ...]
    at: datetime
    note: str = ""
    judged: tuple[Judged, ...] = ()
    message: CommitMessage | None = None


class Reviewed(msgspec.Struct, frozen=True, kw_only=True):
    """Proven work in which a reviewer found something to mend: it lands as it is, if nothing better comes of that."""

    landing: "Landing"
    head: str  # where it stands,
    pin: Pin  # and what is known of it
    changed: tuple[str, ...]
    suspicions: tuple[Suspicion, ...]


class Leaving(msgspec.Struct, frozen=True, kw_only=True, tag="leaving"):
    """Given up or skipped: the work is pinned and the worktree goes back to the last good commit."""

    state: StoryState
    reason: str
    at: datetime
    evidence: tuple[Evidence, ...] = ()
    commit_unproven: bool = False


class Asking(msgspec.Struct, frozen=True, kw_only=True, tag="asking"):
    """The agent has a question. Once its work is set aside, other stories go on, and only the reply is waited for."""

    question: Question
    at: datetime
    set_aside: bool = False


class TakingUp(msgspec.Struct, frozen=True, tag="taking_up"):
    """The question has its reply: the work is owed to be put onto the branch's tip as that is now."""


class Approving(msgspec.Struct, frozen=True, tag="approving"):
    """Proven; a human is to look at it before it is committed."""

    landing: "Landing"


class Wording(msgspec.Struct, frozen=True, tag="wording"):
    """The run's own errand for the words of its pull request."""


class Closing(msgspec.Struct, frozen=True, tag="closing"):
    """The iteration is over; its handover is still to be removed."""


Stage = (
    Planning
    | Planned
    | Preparing
    | Building
    | Asking
    | TakingUp
    | Proving
    | Judging
    | Reconciling
    | Doubting
    | Approving
    | Describing
    | Landing
    | Leaving
    | Wording
    | Closing
)


class OpenIssue(msgspec.Struct, frozen=True, kw_only=True):
    """An issue that a review found, as it was last seen, under the fingerprint of its first sighting."""

    fingerprint: str
    issue: Issue


class ReviewEnd(StrEnum):
    """How a review ended; all but the first leave something for a human to look at."""

    CONVERGED = "converged"
    NO_PROGRESS = "no progress"
    OSCILLATION = "oscillation"
    CYCLES = "review cycles used up"
    FIXES = "fix attempts used up"
    UNAVAILABLE = "no review could be had"


class Review(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What reviewers found, and what became of it."""

    cycles: int = 0  # begun so far
    tip: str = ""  # the commit that was or is being reviewed, or the fix behind it; empty before the first cycle
    seen: str = ""  # the commit that the last valid review had read
    open: tuple[OpenIssue, ...] = ()
    mended: tuple[OpenIssue, ...] = ()  # were open and were not found again
    account: str = ""  # what was last said to have been done about the open ones
    suspicions: tuple[Suspicion, ...] = ()  # what the next reviewer should look at in the last fix
    commits: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()  # refs that keep fixes which did not land
    end: ReviewEnd | None = None
    reason: str = ""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One iteration over one story, in hand; or, where the story is `RUN`, one pass over work of the run's own."""

    story: str
    iteration: int
    head: str  # the branch's tip when it began, or when it was last put onto it
    tree: str  # and its tree
    lane: int | None = 0  # the worktree that it has: 0 is the run's own; None while it waits for one
    turns: int = 0  # how often it was put onto the tip, to land there
    since: str = ""  # where it began, if others had landed by then
    clashes: tuple[str, ...] = ()  # files in which both sides of a clash still stand
    errand: Errand
    cs: ContinuationState
    analysis: Errand | None = None  # of all its attempts: each one that is green asks it again
    reviewer: Errand | None = None  # likewise,
    review: Review | None = None  # and what it found,
    reviewed: Reviewed | None = None  # in what, while that is mended
    conflict: Errand | None = None  # the same for its clashes with what has landed
    stage: Stage = Preparing()
    green_before: tuple[int, ...] = ()
    pin: Pin | None = None  # the worktree's files when the last call ended
    undone: str = ""  # the tree that lies in its worktree, where an earlier one lands
    wanting: str = ""  # the tree that the last attempt left, once it was found wanting,
    tried: tuple[str, ...] = ()  # and those of the attempts before it
    changed: tuple[str, ...] = ()  # paths that differ from the story's beginning, bounded
    secrets: tuple[str, ...] = ()  # known secrets in them, each with its file: such work is not proven, nor committed
    suspicions: tuple[Suspicion, ...] = ()  # what in them bends their own proof
    new_tests: tuple[str, ...] = ()  # of them, the files in which a new test stands
    red: tuple[Red, ...] = ()  # what was not green at the last proof
    green: Proving | None = None  # the last proof, if all of it was green and only the agent saw more to do
    calls: int = 0  # of all its errands
    spending: Spending = Spending()  # of its ended calls
    snippet: str = ""
    hint: str = ""  # why it is taken up again: a human's words, or what the final proof found

    @property
    def label(self) -> str:
        """What keys and files name it by."""
        return label_of(self.story)


# Looked up by type, which is quicker than `isinstance`: with every event it is asked whose turn it is.
AGENTS_TURN: frozenset[type] = frozenset({Planning, Building, Judging, Reconciling, Describing, Wording})
_WITH_ANOTHER: frozenset[type] = frozenset({Describing, Judging, Reconciling})  # than the work's own errand


def errand_of(work: Work) -> tuple[Errand, ContinuationState]:
    """The errand that is this story's turn now, with the counters it runs on."""
    if type(work.stage) not in _WITH_ANOTHER:
        return work.errand, work.cs
    match work.stage:
        case Describing(errand=errand, cs=cs):
            return errand, cs
        case Judging(drain=Drain.REVIEW) if work.reviewer is not None:
            return work.reviewer, work.cs
        case Judging() if work.analysis is not None:
            return work.analysis, work.cs
        case Reconciling() if work.conflict is not None:
            return work.conflict, work.cs
        case _:
            return work.errand, work.cs


def is_calling(work: Work) -> bool:
    """Whether an agent is at work for it."""
    return isinstance(errand_of(work)[0].stage, Calling)


def waiting_of(work: Work) -> Waiting | None:
    """What this work waits for, if it waits."""
    stage = errand_of(work)[0].stage if type(work.stage) in AGENTS_TURN else None
    return stage if isinstance(stage, Waiting) else None


def is_set_aside(work: Work) -> bool:
    """Whether it waits for a reply with its files out of the way."""
    return isinstance(work.stage, Asking) and work.stage.set_aside


_STANDING: dict[type, StoryState] = {
    Preparing: StoryState.BUILDING,
    Building: StoryState.BUILDING,
    Asking: StoryState.WAITING,
    TakingUp: StoryState.BUILDING,
    Proving: StoryState.PROVING,
    Judging: StoryState.PROVING,
    Reconciling: StoryState.BUILDING,
    Doubting: StoryState.PROVING,
    Approving: StoryState.WAITING,
    Describing: StoryState.LANDING,
    Landing: StoryState.LANDING,
    Leaving: StoryState.BUILDING,
}


def standing_of(work: Work, settled: StoryState) -> StoryState:
    """What a story in hand shows as its state."""
    return _STANDING.get(type(work.stage), settled)


def can_be_left(work: Work) -> bool:
    """A story in hand can be skipped unless a call is under way or its proven tree is being committed.

    One that was proven in its lane can be, as long as its turn has not come.
    """
    if isinstance(work.stage, Landing):
        return work.lane is None
    return not is_calling(work) and isinstance(
        work.stage, Preparing | Building | Asking | TakingUp | Proving | Judging | Reconciling | Approving
    )
