"""Effects: every deed that a state can owe, imperative.

An effect's `key` is derived, never random: the same state owes the same keys, so a deed that was begun before a
crash is recognised after it.
"""

from datetime import datetime

import msgspec

from storyloop.core.errand import Mode
from storyloop.core.policy import AgentRef, Command, Drain
from storyloop.core.progress import ParkedFor
from storyloop.core.purpose import Purpose
from storyloop.core.spec import Spec


class _Effect(msgspec.Struct, frozen=True, kw_only=True):
    key: str


class OpenWorktree(_Effect, frozen=True, kw_only=True, tag="open_worktree"):
    """Make the run's branch and worktree."""


class WriteSpec(_Effect, frozen=True, kw_only=True, tag="write_spec"):
    """Write the stories that were planned down in the run's directory."""

    spec: Spec


class RunCommand(_Effect, frozen=True, kw_only=True, tag="run_command"):
    """Run a command of the project on a tree, and undo what it does to the files."""

    purpose: Purpose
    command: Command
    timeout: float
    tree: str | None  # None: whatever is there, and what it makes stays (set-up)


class StartStory(_Effect, frozen=True, kw_only=True, tag="start_story"):
    """Begin an iteration over a story at the branch's tip."""

    story: str
    iteration: int
    lane: int


class CleanHandover(_Effect, frozen=True, kw_only=True, tag="clean_handover"):
    """Remove the handover file; where an iteration is over, put the worktree back to the branch's tip."""

    story: str


class WriteHandover(_Effect, frozen=True, kw_only=True, tag="write_handover"):
    """Write the handover file for the continuation."""

    story: str


class CallAgent(_Effect, frozen=True, kw_only=True, tag="call_agent"):
    """Ask an agent; `begun` means that an earlier process already did: find the call, do not repeat it."""

    story: str
    drain: Drain
    attempt: int
    call: int
    ref: AgentRef
    mode: Mode
    begun: bool


class Wait(_Effect, frozen=True, kw_only=True, tag="wait"):
    """Let time pass until an errand may go on."""

    story: str
    since: datetime
    until: datetime


class SetAside(_Effect, frozen=True, kw_only=True, tag="set_aside"):
    """Put the worktree back to the branch's tip while a story waits for a human."""

    story: str


class TakeUp(_Effect, frozen=True, kw_only=True, tag="take_up"):
    """Put the work of a story that has no worktree onto the branch's tip, in this lane."""

    story: str
    lane: int


class LandStory(_Effect, frozen=True, kw_only=True, tag="land_story"):
    """Commit the proven tree onto the run's branch."""

    story: str


class LeaveStory(_Effect, frozen=True, kw_only=True, tag="leave_story"):
    """Keep the story's work by a ref."""

    story: str


class StartReview(_Effect, frozen=True, kw_only=True, tag="start_review"):
    """Begin a cycle of the review at the branch's tip."""

    cycle: int


class SeeFeedback(_Effect, frozen=True, kw_only=True, tag="see_feedback"):
    """Look at the forge once more."""


class AnswerThread(_Effect, frozen=True, kw_only=True, tag="answer_thread"):
    """Say in a thread what was done about it."""

    concern: int  # from 1


class ResolveThread(_Effect, frozen=True, kw_only=True, tag="resolve_thread"):
    """Mark a thread as resolved."""

    concern: int


class ScrubWorktree(_Effect, frozen=True, kw_only=True, tag="scrub_worktree"):
    """Begin a round of the final proof, or begin it again: put the worktree to the tip, without ignored files."""

    round: int


class ParkRun(_Effect, frozen=True, kw_only=True, tag="park_run"):
    """End the process; the run waits for somebody."""

    what: ParkedFor
    reason: str


class PushBranch(_Effect, frozen=True, kw_only=True, tag="push_branch"):
    """Make the branch on the remote this commit, over nothing that is not ours; `own` is what we last pushed."""

    remote: str
    commit: str
    own: str


class OpenPullRequest(_Effect, frozen=True, kw_only=True, tag="open_pull_request"):
    """Open the branch's pull request, or bring the open one up to date; one that is new is a draft if it says so."""

    draft: bool


class FinishRun(_Effect, frozen=True, kw_only=True, tag="finish_run"):
    """Write the report and end the run."""

    shipped: bool


Effect = (
    OpenWorktree
    | WriteSpec
    | RunCommand
    | StartStory
    | CleanHandover
    | WriteHandover
    | CallAgent
    | Wait
    | SetAside
    | TakeUp
    | LandStory
    | LeaveStory
    | StartReview
    | SeeFeedback
    | AnswerThread
    | ResolveThread
    | ScrubWorktree
    | ParkRun
    | PushBranch
    | OpenPullRequest
    | FinishRun
)
