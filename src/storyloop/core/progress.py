"""Progress: what RunState holds beyond the 18 fields of the reference.

Two kinds of story state are kept apart: `stories` holds what is settled about each story, and changes only when a
story changes its standing; `work` holds what is in hand (errand, proof, counters), and is small however long
the run is. Folding an event therefore copies little, whatever the number of stories.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from storyloop.core.artifacts import Asks, PrText, Question
from storyloop.core.chain import CoolingTable
from storyloop.core.evidence import Evidence, Judged
from storyloop.core.facts import Finding, Suspicion
from storyloop.core.forge import ForgeCheck, Pushed, Thread
from storyloop.core.purpose import FinalPurpose
from storyloop.core.spec import Spec
from storyloop.core.stages import Closing, Review, TakingUp, Work
from storyloop.core.usage import Amounts, Spending
from storyloop.core.words import StoryState


class Reply(msgspec.Struct, frozen=True):
    """What an agent asked, and what it goes by."""

    question: Question
    text: str
    by_human: bool


class StoryProgress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is settled about a story."""

    state: StoryState = StoryState.OPEN
    reason: str = ""  # why it is blocked or skipped, or what is to be said about how it passed
    attempts: int = 0
    calls: int = 0
    commits: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()  # refs that keep work that was not committed
    evidence: tuple[Evidence, ...] = ()
    judged: tuple[Judged, ...] = ()  # criteria that are met as far as reading can tell
    green_before: tuple[int, ...] = ()  # criteria whose command was green before the work
    suspicions: tuple[Suspicion, ...] = ()  # what a reviewer should look at in what was committed
    blocked_by: str | None = None  # the story whose failure blocks this one
    replies: tuple[Reply, ...] = ()  # to all that was asked; they stay when the story is taken up again
    unproven_commit: bool = False  # `on_exhausted = "commit"`: committed without proof
    author: str = ""  # the agent whose work landed,
    landed: int = 0  # the greater, the later; 0 for one that has not
    review: Review | None = None  # of what landed, where stories are reviewed one by one


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """A worktree beside the run's own, with a branch of its own."""

    head: str  # the commit of its branch
    tree: str  # its files, when the last work left it
    set_up: int = 0  # how many of the worktree's set-up commands are green in it


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What happens before the first story."""

    worktree_opened: bool = False
    losses: int = 0  # how often the worktree was deleted by somebody, and made again
    setup_done: int = 0  # how many of the worktree's set-up commands are green
    baseline: tuple[Evidence, ...] = ()  # one reading per check, on the base commit


class Measurement(msgspec.Struct, frozen=True):
    """A command of the final proof, what it showed, and the end of what it printed if that was not green (bounded)."""

    purpose: FinalPurpose
    evidence: Evidence
    tail: str = ""


class FinalProof(msgspec.Struct, frozen=True, kw_only=True):
    """The round of the final proof that is in hand, or else the last one."""

    rounds: int = 0  # begun so far
    tree: str = ""  # what the round proves; empty if a story has landed since, or if nothing could be measured
    owed: tuple[FinalPurpose, ...] = ()  # still to be run, in order; empty when no round is in hand
    scrubbed: bool = False  # the worktree of the round in hand is clean
    measured: tuple[Measurement, ...] = ()
    returns: int = 0  # rounds that sent stories back to their authors
    returned: tuple[str, ...] = ()  # these stories


class Concern(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that was said of a pull request, and what became of it. What is said is untrusted text."""

    about: Thread | ForgeCheck
    commit: str = ""  # the branch's tip when it was heard
    asks: Asks | None = None  # until it is judged
    reason: str = ""
    story: str = ""  # that mends it, where it asks for work
    answer: str = ""  # the id of our comment,
    mute: str = ""  # or why the forge would not have it
    resolved: bool = False

    @property
    def place(self) -> str:
        """Where it is, in a word or two."""
        match self.about:
            case Thread(file=None):
                return "all of it"
            case Thread(file=file, line=line):
                return f"{file}:{line}" if line else f"{file}"
            case ForgeCheck(name=name):
                return f"check {name}"

    @property
    def text(self) -> str:
        """All that was said, with who said it."""
        match self.about:
            case Thread(comments=comments):
                return "\n\n".join(f"{comment.author}: {comment.text}" for comment in comments)
            case ForgeCheck(name=name, tail=tail):
                log = f" Its log ends with:\n{tail}" if tail else " The forge has no log of it."
                return f"The check {name} is red in the forge's CI.{log}"


class Feedback(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The pull request that a run follows up, and what was said of it; concerns are only ever added."""

    number: int
    url: str
    base: str  # the commit at which its changes begin; empty where that is not known
    concerns: tuple[Concern, ...] = ()
    watch: bool = False  # the forge, its checks too, until nothing is red, pending or unanswered
    waits: int = 0  # before a look,
    looks: int = 0  # at the forge, behind the first,
    rounds: int = 1  # and how many of all looks found something new
    idle: int = 0  # looks in a row that found nothing
    pending: tuple[str, ...] = ()  # checks that had not ended at the last look,
    red: tuple[str, ...] = ()  # and those that were red
    trouble: str = ""  # why nothing could be seen


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What the run has used up; nothing in it ever falls."""

    calls: int = 0  # starts of agent processes, counted when they begin
    by_agent: dict[str, Spending] = {}  # what ended calls cost
    dearest: dict[str, Amounts] = {}  # the most of each that one call of an agent has come to
    waited: float = 0.0  # seconds
    active: float = 0.0  # seconds between events while a process had the run and did not merely wait
    iterations_allowed: int = 0  # stories that may still be begun: bounds every path that starts work

    @property
    def total(self) -> Spending:
        """What ended calls cost together."""
        return sum(self.by_agent.values(), Spending())


class ParkedFor(StrEnum):
    """Who or what a parked run waits for; the exit code follows from it."""

    HUMAN = "human"
    BUDGET = "budget"
    QUOTA = "quota"


class Parked(msgspec.Struct, frozen=True):
    """Why the run does not go on by itself."""

    what: ParkedFor
    reason: str


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has become of the branch on its remote, and of its pull request there."""

    number: int = 0  # deliveries that are over, however they ended
    settled: str = ""  # what the last of them was of, so that it is not owed again
    pushed: Pushed | None = None
    pushed_in: int = 0  # the number of the delivery that did
    template: str = ""
    asked: bool = False  # somebody was asked to word the pull request,
    text: PrText | None = None  # and did
    pull_request: int = 0
    url: str = ""
    drafted: bool = False  # it is a draft because it was opened as one by us
    trouble: str = ""  # what was in the way of the last delivery, and what to do about it


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a run's state that the reference lacks."""

    spec: Spec
    repository: str
    base: str
    base_tree: str
    worktree: str
    checkout: str  # the user's own, which may be the worktree
    base_branch: str = ""  # that was checked out when the run began
    reuse_branch: bool = False
    tip: str  # what we last made the run's branch point at
    tip_tree: str
    opening: Opening = Opening()
    stories: dict[str, StoryProgress] = {}
    work: dict[str, Work] = {}
    lanes: dict[int, Lane] = {}
    widest: int = 1  # the most stories that were ever allowed at one time: there are no more lanes
    inherited: tuple[str, ...] = ()  # checks that have not been green since the base commit: shown, not gating
    cooling: CoolingTable = {}
    ledger: Ledger = Ledger()
    findings: tuple[Finding, ...] = ()
    hints: dict[str, str] = {}
    earlier: str = ""  # what earlier runs on this branch came to and left open
    review: Review = Review()
    feedback: Feedback | None = None
    final: FinalProof = FinalProof()
    delivery: Delivery = Delivery()
    plans: int = 0  # plans that were begun: none for a spec that had its stories, one more each time one has failed
    parked: Parked | None = None
    failure: str = ""  # why the run ended before its stories did
    last_at: datetime
    resumes: int = 0
    inbox_seen: int = 0

    @property
    def is_in_checkout(self) -> bool:
        """Whether the run works in the user's own checkout."""
        return self.worktree == self.checkout


def files_in_hand(progress: Progress) -> str:
    """The tree that the run's own worktree is to hold: what the work in it has made so far, else the branch's tip."""
    for work in progress.work.values():
        if work.lane == 0 and not isinstance(work.stage, TakingUp | Closing) and work.pin is not None:
            return work.pin.tree
    return progress.tip_tree
