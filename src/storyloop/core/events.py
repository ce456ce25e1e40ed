"""Events: every fact of a run, past tense, immutable.

An event's `key` is derived from the deed it reports, so the journal refuses the same fact twice. Renaming a
tag or a field needs an upcast in `journal/codec.py`: stored events are never rewritten.
"""

from datetime import datetime

import msgspec

from storyloop.core.errand import Mode
from storyloop.core.facts import CallReport, Finding, Measured, Pin, Suspicion
from storyloop.core.forge import DeliveryStep, ForgeCheck, Pushed, Thread, Trouble
from storyloop.core.knowledge import ProjectKnowledge, StoryChanges
from storyloop.core.policy import AgentRef, Drain, Policy
from storyloop.core.progress import Feedback, ParkedFor, StoryProgress
from storyloop.core.purpose import Purpose
from storyloop.core.spec import Spec
from storyloop.core.stages import Review


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    at: datetime


class RunOpened(_Event, frozen=True, kw_only=True, tag="run_opened"):
    """A run began; its policy is frozen."""

    run_id: str
    spec: Spec
    spec_json_path: str
    spec_md_path: str | None
    policy: Policy
    repository: str
    checkout: str
    branch: str
    base: str
    base_tree: str
    reuse_branch: bool
    worktree: str
    session_id: str
    base_branch: str = ""  # the branch that was checked out; empty if none was
    knowledge: ProjectKnowledge = ProjectKnowledge()  # of the last run on this branch, where it is reused
    earlier: str = ""  # what earlier runs on it came to and left open, as agents are told
    feedback: Feedback | None = None  # what it follows up, where that is a pull request


class WorktreeOpened(_Event, frozen=True, kw_only=True, tag="worktree_opened"):
    """The run's branch and worktree are there."""

    tip: str
    tip_tree: str
    warnings: tuple[str, ...] = ()


class WorktreeLost(_Event, frozen=True, kw_only=True, tag="worktree_lost"):
    """Somebody deleted the run's worktree, or a lane, while nobody had the run: its set-up is owed anew."""

    lane: int = 0


class SpecPlanned(_Event, frozen=True, kw_only=True, tag="spec_planned"):
    """The stories of a free-form spec are known, and written down in the run's directory."""

    spec: Spec


class CommandMeasured(_Event, frozen=True, kw_only=True, tag="command_measured"):
    """A command of the project was run by us; a red one perhaps twice."""

    purpose: Purpose
    command: str
    tree: str
    first: Measured
    second: Measured | None = None
    findings: tuple[Finding, ...] = ()


class StoryStarted(_Event, frozen=True, kw_only=True, tag="story_started"):
    """An iteration over a story began at this commit."""

    story: str
    iteration: int
    head: str
    tree: str
    lane: int = 0
    findings: tuple[Finding, ...] = ()


class HandoverCleaned(_Event, frozen=True, kw_only=True, tag="handover_cleaned"):
    """No handover of this or an older iteration is left in the worktree; behind an end, its files are the tip's."""

    story: str


class HandoverWritten(_Event, frozen=True, kw_only=True, tag="handover_written"):
    """What the last attempt did and what failed is there to read for the next one."""

    story: str


class CallStarted(_Event, frozen=True, kw_only=True, tag="call_started"):
    """One start of one agent process; it counts from here on."""

    story: str
    drain: Drain
    call: int
    ref: AgentRef
    mode: Mode


class CallEnded(_Event, frozen=True, kw_only=True, tag="call_ended"):
    """A call is over; the worktree's files are pinned as it left them."""

    story: str
    drain: Drain
    call: int
    ref: AgentRef
    report: CallReport
    pin: Pin
    changed: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    secrets: tuple[str, ...] = ()  # changed files that hold a known secret, each with the secret's name
    suspicions: tuple[Suspicion, ...] = ()  # what in the change since the story's beginning bends its own proof
    new_tests: tuple[str, ...] = ()  # test files in which a test stands that stood nowhere before, bounded
    clashes: tuple[str, ...] = ()  # of the files that clashed, those in which both sides still stand


class LimitLearned(_Event, frozen=True, kw_only=True, tag="limit_learned"):
    """Before it was asked, it was known that an agent has no quota left: another run on this machine had met it."""

    story: str
    drain: Drain
    ref: AgentRef
    until: datetime
    reason: str


class WaitEnded(_Event, frozen=True, kw_only=True, tag="wait_ended"):
    """The moment that a story's errand waited for has come."""

    story: str
    seconds: float


class StorySetAside(_Event, frozen=True, kw_only=True, tag="story_set_aside"):
    """A story waits for the reply to its question; the worktree is as the branch's tip, for the others."""

    story: str
    pins: tuple[str, ...] = ()  # what had come into its files since its last call


class QuestionAnswered(_Event, frozen=True, kw_only=True, tag="question_answered"):
    """A human replied to a story's question."""

    story: str
    number: int  # of the request in the inbox
    text: str


class StoryTakenUp(_Event, frozen=True, kw_only=True, tag="story_taken_up"):
    """A story that had none has a worktree again, at this tip, its files merged in. No pin: they clashed.

    At its turn to land, they are laid in with both sides of each clash between marks, and that is pinned.
    """

    story: str
    head: str
    tree: str
    lane: int = 0
    pin: Pin | None
    clashes: tuple[str, ...] = ()  # files in which both sides stand
    changed: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


class StoryApproved(_Event, frozen=True, kw_only=True, tag="story_approved"):
    """A human wants a story committed as it was proven, or a fix."""

    story: str
    number: int  # of the request in the inbox


class StoryRejected(_Event, frozen=True, kw_only=True, tag="story_rejected"):
    """A human wants a proven story otherwise, or a fix: the attempt fell short."""

    story: str
    number: int
    hint: str = ""


class StoryLanded(_Event, frozen=True, kw_only=True, tag="story_landed"):
    """A story passed, or a fix: its proven tree is the branch's tip. No commit: the tree was already right."""

    story: str
    commit: str | None
    tip: str
    tip_tree: str
    changes: StoryChanges
    lines: dict[str, int] = {}  # lines of the files it created or modified, where they could be counted
    symbols: dict[str, tuple[str, ...]] = {}  # what these files define, where it could be read
    findings: tuple[Finding, ...] = ()


class StoryLeft(_Event, frozen=True, kw_only=True, tag="story_left"):
    """A story was given up or skipped, or a fix given up: its work is kept by refs."""

    story: str
    pins: tuple[str, ...]
    commit: str | None
    tip: str
    tip_tree: str


class ReviewStarted(_Event, frozen=True, kw_only=True, tag="review_started"):
    """A cycle of the review began at the branch's tip."""

    cycle: int
    findings: tuple[Finding, ...] = ()


class FeedbackSeen(_Event, frozen=True, kw_only=True, tag="feedback_seen"):
    """The forge was looked at once more: what is new there, and how its checks stand."""

    said: tuple[Thread | ForgeCheck, ...]
    pending: tuple[str, ...] = ()
    red: tuple[str, ...] = ()
    trouble: str = ""  # why nothing could be seen


class ThreadAnswered(_Event, frozen=True, kw_only=True, tag="thread_answered"):
    """Our comment stands in a thread; or the forge will not have it there, and why."""

    concern: int  # from 1
    comment: str
    trouble: str = ""


class ThreadResolved(_Event, frozen=True, kw_only=True, tag="thread_resolved"):
    """A thread is marked as resolved; or the forge will not do it, and why."""

    concern: int
    trouble: str = ""


class FinalProofBegun(_Event, frozen=True, kw_only=True, tag="final_proof_begun"):
    """Every story has ended: what passed is proven again, together. The worktree is no longer set up."""

    round: int


class WorktreeScrubbed(_Event, frozen=True, kw_only=True, tag="worktree_scrubbed"):
    """The worktree holds the branch's tip and nothing else; what belonged to no story is kept by refs."""

    round: int
    findings: tuple[Finding, ...] = ()


class StorySkipped(_Event, frozen=True, kw_only=True, tag="story_skipped"):
    """A human said that this story is not to be done."""

    story: str
    number: int  # of the request in the inbox


class StoryReopened(_Event, frozen=True, kw_only=True, tag="story_reopened"):
    """A human asked for another iteration over a story that had ended, or (`RUN`) for another round of the review."""

    story: str
    number: int
    hint: str = ""


class RequestRefused(_Event, frozen=True, kw_only=True, tag="request_refused"):
    """A request from the inbox could not be granted."""

    number: int
    reason: str


class RunInterrupted(_Event, frozen=True, kw_only=True, tag="run_interrupted"):
    """Somebody stopped the run; nothing is under way any more."""

    reason: str
    number: int | None = None  # of the stop request, if it came through the inbox


class RunParked(_Event, frozen=True, kw_only=True, tag="run_parked"):
    """The run waits for a human, a budget or a quota, and its process ends."""

    what: ParkedFor
    reason: str


class RunResumed(_Event, frozen=True, kw_only=True, tag="run_resumed"):
    """A process took the run up again, perhaps with an amended policy."""

    policy: Policy | None = None


class RunCleaned(_Event, frozen=True, kw_only=True, tag="run_cleaned"):
    """Something that a run had left was removed: its worktree, what was printed, refs whose content others keep."""

    what: str
    kept: tuple[str, ...] = ()  # refs that keep what lay in the worktree and was kept nowhere else
    refs: tuple[str, ...] = ()  # that are gone


class BranchPushed(_Event, frozen=True, kw_only=True, tag="branch_pushed"):
    """The remote's branch of this name holds this commit of ours."""

    pushed: Pushed
    template: str = ""  # the repository's own for pull requests, as the run's base has it, bounded
    findings: tuple[Finding, ...] = ()


class PullRequestOpened(_Event, frozen=True, kw_only=True, tag="pull_request_opened"):
    """The branch's pull request is on the forge as it should be: opened now, or an open one brought up to date."""

    forge: str
    number: int
    url: str
    draft: bool
    created: bool


class DeliveryFailed(_Event, frozen=True, kw_only=True, tag="delivery_failed"):
    """The branch could not be pushed, or its pull request not be opened; the run's work is as it was."""

    step: DeliveryStep
    trouble: Trouble
    problem: str
    cure: str


class RunForked(_Event, frozen=True, kw_only=True, tag="run_forked"):
    """All facts before this one are another run's, up to the event of this number; from here on it is its own."""

    of: str
    at_event: int
    branch: str
    worktree: str
    session_id: str


class RunUndone(_Event, frozen=True, kw_only=True, tag="run_undone"):
    """Somebody walked back what the run had done, to what held behind the event of this number."""

    to: int
    what: str
    tip: str
    tip_tree: str
    kept: tuple[str, ...]  # refs that keep what was on the branch and in the worktree
    stories: dict[str, StoryProgress]  # how those stand that had got further
    knowledge: ProjectKnowledge
    inherited: tuple[str, ...]
    review: Review


class RunFinished(_Event, frozen=True, kw_only=True, tag="run_finished"):
    """The run is over: shipped, or not."""

    shipped: bool


Event = (
    RunOpened
    | WorktreeOpened
    | WorktreeLost
    | SpecPlanned
    | CommandMeasured
    | StoryStarted
    | HandoverCleaned
    | HandoverWritten
    | CallStarted
    | CallEnded
    | LimitLearned
    | WaitEnded
    | StorySetAside
    | QuestionAnswered
    | StoryTakenUp
    | StoryApproved
    | StoryRejected
    | StoryLanded
    | StoryLeft
    | ReviewStarted
    | FeedbackSeen
    | ThreadAnswered
    | ThreadResolved
    | FinalProofBegun
    | WorktreeScrubbed
    | StorySkipped
    | StoryReopened
    | RequestRefused
    | RunInterrupted
    | RunParked
    | RunResumed
    | RunCleaned
    | BranchPushed
    | PullRequestOpened
    | DeliveryFailed
    | RunUndone
    | RunForked
    | RunFinished
)
