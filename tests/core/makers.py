"""Makers: small factories of specs, policies, outcomes and events with hand-wound times, and a run made of them.

A `Run` folds facts and shows what is owed. `facts_of` is the benign world: what an effect comes to when nothing
goes wrong, unless a test says otherwise. Nothing here judges; expected values stand in the tests.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

from msgspec.structs import replace

from storyloop.core.artifacts import (
    Analysis,
    Asks,
    CommitMessage,
    ConflictResult,
    DevelopmentResult,
    FixResult,
    Issue,
    Issues,
    Judgement,
    Plan,
    Question,
    Ruling,
    Triage,
    Triaged,
)
from storyloop.core.effects import (
    AnswerThread,
    CallAgent,
    CleanHandover,
    Effect,
    FinishRun,
    LandStory,
    LeaveStory,
    OpenPullRequest,
    OpenWorktree,
    ParkRun,
    PushBranch,
    ResolveThread,
    RunCommand,
    ScrubWorktree,
    SeeFeedback,
    SetAside,
    StartReview,
    StartStory,
    TakeUp,
    Wait,
    WriteHandover,
    WriteSpec,
)
from storyloop.core.events import (
    BranchPushed,
    CallEnded,
    CallStarted,
    CommandMeasured,
    Event,
    FeedbackSeen,
    FinalProofBegun,
    HandoverCleaned,
    HandoverWritten,
    PullRequestOpened,
    QuestionAnswered,
    ReviewStarted,
    RunFinished,
    RunInterrupted,
    RunOpened,
    RunParked,
    RunResumed,
    SpecPlanned,
    StoryApproved,
    StoryLanded,
    StoryLeft,
    StoryRejected,
    StoryReopened,
    StorySetAside,
    StorySkipped,
    StoryStarted,
    StoryTakenUp,
    ThreadAnswered,
    ThreadResolved,
    WaitEnded,
    WorktreeOpened,
    WorktreeScrubbed,
)
from storyloop.core.facts import (
    Answered,
    CallReport,
    Ending,
    Failed,
    Failure,
    Interrupted,
    Malformed,
    Measured,
    Outcome,
    Pin,
)
from storyloop.core.forge import Pushed
from storyloop.core.knowledge import StoryChanges
from storyloop.core.plan import plan
from storyloop.core.policy import WRITING_DRAINS, AgentRef, Command, Drain, Limits, Policy, ReviewPolicy
from storyloop.core.progress import Feedback, StoryProgress
from storyloop.core.reduce import reduce
from storyloop.core.run_state import RunState
from storyloop.core.spec import Criterion, Spec, Story
from storyloop.core.stages import Landing, Leaving, Work
from storyloop.core.words import ConflictStatus, DevelopmentStatus, FixStatus, Severity

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BASE_TREE = "tree-base"


def later(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


# --- what is wanted ---------------------------------------------------------------------------------------


def story(name: str, *needs: str, verify: tuple[str, ...] = (), **fields: Any) -> Story:
    """A story with one criterion per command of `verify`, or one that no command proves."""
    criteria = tuple(Criterion(f"{command} holds", command) for command in verify) or (Criterion("it is good"),)
    fields = {"priority": 1, "title": f"Title of {name}"} | fields
    return Story(id=name, acceptance_criteria=criteria, depends_on=needs, **fields)


def spec_of(*stories: Story) -> Spec:
    return Spec(project="project", branch_name="feature/x", title="Title", user_stories=stories)


def chain(*names: str) -> tuple[AgentRef, ...]:
    return tuple(AgentRef.parse(name) for name in names)


def policy_of(
    *agents: str,
    checks: tuple[str, ...] = ("test",),
    commit: tuple[str, ...] = (),
    analysis: tuple[str, ...] = (),
    review: bool = False,
    **limits: Any,
) -> Policy:
    """A policy with this chain (`a` alone by default), these checks and limits; other chains where given."""
    bound = {Drain.COMMIT: chain(*commit), Drain.ANALYSIS: chain(*analysis)}
    return Policy(
        review=ReviewPolicy(enabled=review),
        chain=chain(*agents or ("a",)),
        drains={drain: refs for drain, refs in bound.items() if refs},
        checks={name: Command(run=f"run {name}") for name in checks},
        limits=Limits(**limits),
    )


# --- what a call came to ----------------------------------------------------------------------------------


def said(status: str, summary: str = "did it", next_steps: str | None = None) -> Answered:
    """A valid development result."""
    if next_steps is None and status != "completed":
        next_steps = "the rest"
    result = DevelopmentResult(status=DevelopmentStatus(status), summary=summary, next_steps=next_steps)
    return Answered(artifact=result)


def planned(*stories: Story, **fields: Any) -> Answered:
    """A valid plan of these stories."""
    return Answered(artifact=Plan(spec=replace(spec_of(*stories), **fields)))


def asks(text: str = "Which?", default: str = "a", *options: str) -> Answered:
    """A valid development result that asks a question."""
    question = Question(text=text, default=default, options=options)
    result = DevelopmentResult(
        status=DevelopmentStatus.PARTIAL, summary="did half", next_steps="the rest", question=question
    )
    return Answered(artifact=result)


def worded(subject: str = "Add x") -> Answered:
    """A valid commit message."""
    return Answered(artifact=CommitMessage(subject=subject))


def found(*texts: str, **more: Any) -> Answered:
    """A valid review with these issues, major ones of src/x.py unless it is said; with none of them, that says so."""
    issues = (Issue(**{"severity": Severity.MAJOR, "file": "src/x.py", "text": text} | more) for text in texts)
    return Answered(artifact=Issues(found=tuple(issues)))


def ruled(name: str, *rulings: str, first: int = 1) -> Answered:
    """A valid analysis: of each criterion of this story, from the first one on."""
    judged = (
        Judgement(story=name, number=number, ruling=Ruling(ruling), evidence=f"src/x.py:{number}")
        for number, ruling in enumerate(rulings, start=first)
    )
    return Answered(artifact=Analysis(judgements=tuple(judged)))


def triage(*asks: str, **numbers: str) -> Answered:
    """A valid triage: what each concern asks for, in order."""
    told = {str(number): one for number, one in enumerate(asks, start=1)} | numbers
    judged = (Triaged(number=int(n), asks=Asks(one), reason=f"reason {n}") for n, one in told.items())
    return Answered(artifact=Triage(concerns=tuple(judged)))


def mended(status: str = "all_issues_addressed", summary: str = "mended it") -> Answered:
    """A valid fix result."""
    return Answered(artifact=FixResult(status=FixStatus(status), summary=summary))


def reconciled(status: str = "resolved", summary: str = "made one of both") -> Answered:
    """A valid conflict result."""
    return Answered(artifact=ConflictResult(status=ConflictStatus(status), summary=summary))


# What an errand of each drain delivers when all goes well.
DELIVERED = {Drain.COMMIT: worded(), Drain.REVIEW: found(), Drain.FIX: mended(), Drain.CONFLICT: reconciled()}

COMPLETED, PARTIAL, SAID_FAILED = said("completed"), said("partial"), said("failed")
MALFORMED = Malformed(errors="line 3: status is missing", text="<development-result/>")
MISSING = Malformed(errors="there is no artifact")
CRASHED = Failed(failure=Failure.TRANSIENT, message="it crashed")
TIMED_OUT = Failed(failure=Failure.TRANSIENT, message="it was silent for 15 minutes", timed_out=True)
LOGGED_OUT = Failed(failure=Failure.AUTH, message="log in first")
NOT_INSTALLED = Failed(failure=Failure.MISSING, message="it is not installed")
MISCONFIGURED = Failed(failure=Failure.CONFIG, message="unknown model")
OFFLINE = Failed(failure=Failure.OFFLINE, message="no network")
INTERRUPTED = Interrupted(reason="Ctrl-C")


def limited(resets_at: datetime | None = None) -> Failed:
    """A usage limit; without a moment, the agent did not say when it ends."""
    return Failed(failure=Failure.LIMIT, message="out of quota", resets_at=resets_at)


# --- what a command came to -------------------------------------------------------------------------------


def exited(status: int, *, tail: str = "") -> Measured:
    return Measured(
        ending=Ending.EXITED,
        exit_status=status,
        seconds=1.0,
        output="checks/x/output",
        output_digest="d1",
        output_size=len(tail),
        tail=tail,
        reason="command not found" if status == 127 else "",
    )


def unmeasured(ending: Ending = Ending.TIMEOUT) -> Measured:
    return replace(exited(0), ending=ending, exit_status=None, reason="it was ended after 30 minutes")


GREEN, RED = exited(0), exited(1, tail="E   assert 1 == 2")


# --- what happened ----------------------------------------------------------------------------------------


def opened(spec: Spec, policy: Policy, at: datetime = T0) -> RunOpened:
    return RunOpened(
        key="opened",
        at=at,
        run_id="6f1c2a3e-0000-4000-8000-000000000001",
        spec=spec,
        spec_json_path="/state/spec.json",
        spec_md_path="/ideas/idea.md" if spec.is_free_form else None,
        policy=policy,
        repository="/repo/.git",
        checkout="/repo",
        branch="feature/x",
        base="commit-base",
        base_tree=BASE_TREE,
        reuse_branch=False,
        worktree="/repo-wt-feature-x",
        session_id="0a1b2c3d",
    )


def call_started(effect: CallAgent, at: datetime) -> CallStarted:
    return CallStarted(
        key=f"{effect.key}/started",
        at=at,
        story=effect.story,
        drain=effect.drain,
        call=effect.call,
        ref=effect.ref,
        mode=effect.mode,
    )


def call_ended(
    effect: CallAgent, at: datetime, outcome: Outcome, *, tree: str, new_tests: tuple[str, ...] = (), **report: Any
) -> CallEnded:
    return CallEnded(
        key=f"{effect.key}/ended",
        at=at,
        story=effect.story,
        drain=effect.drain,
        call=effect.call,
        ref=effect.ref,
        report=CallReport(outcome=outcome, **report),
        pin=Pin(tree=tree, commit=f"commit-of-{tree}", ref=f"refs/pins/{effect.key}"),
        changed=() if tree == BASE_TREE else ("src/x.py",),
        new_tests=new_tests,
    )


def measured(
    effect: RunCommand, at: datetime, first: Measured = GREEN, second: Measured | None = None
) -> CommandMeasured:
    return CommandMeasured(
        key=effect.key,
        at=at,
        purpose=effect.purpose,
        command=effect.command.run,
        tree=effect.tree or BASE_TREE,
        first=first,
        second=second,
    )


def landed(effect: LandStory, state: RunState, at: datetime) -> StoryLanded:
    """The commit of exactly the proven tree; none where nothing was changed."""
    work = state.going.work[effect.story]
    assert isinstance(work.stage, Landing)
    commit = f"commit-of-{effect.key}" if work.stage.tree != work.tree else None
    return StoryLanded(
        key=effect.key,
        at=at,
        story=effect.story,
        commit=commit,
        tip=commit or state.going.tip,
        tip_tree=work.stage.tree if commit else state.going.tip_tree,
        changes=StoryChanges(story_id=effect.story, files_modified=("src/x.py",) if commit else ()),
    )


def taken_up(
    effect: TakeUp, state: RunState, at: datetime, *, clash: bool = False, clashes: tuple[str, ...] = ()
) -> StoryTakenUp:
    """The story's files merged onto the tip: a tree of their own, where the tip has moved."""
    work, tip, tip_tree = state.going.work[effect.story], state.going.tip, state.going.tip_tree
    assert work.pin is not None
    tree = work.pin.tree if work.head == tip else f"{work.pin.tree}+{tip_tree}"
    pin = None if clash else Pin(tree=tree, commit=f"commit-of-{tree}", ref=f"refs/pins/{effect.key}")
    return StoryTakenUp(
        key=effect.key,
        at=at,
        story=effect.story,
        head=tip,
        tree=tip_tree,
        lane=effect.lane,
        pin=pin,
        clashes=clashes,
        changed=("src/x.py",),
    )


def left(effect: LeaveStory, state: RunState, at: datetime) -> StoryLeft:
    work = state.going.work[effect.story]
    assert isinstance(work.stage, Leaving)
    changed = work.pin is not None and work.pin.tree != work.tree
    commit = f"commit-of-{effect.key}" if changed and work.stage.commit_unproven else None
    return StoryLeft(
        key=effect.key,
        at=at,
        story=effect.story,
        pins=(f"refs/blocked/{effect.story}",) if changed else (),
        commit=commit,
        tip=commit or state.going.tip,
        tip_tree=work.pin.tree if commit and work.pin else state.going.tip_tree,
    )


def facts_of(
    effect: Effect,
    state: RunState,
    at: datetime,
    *,
    outcome: Outcome | None = None,
    tree: str | None = None,
    first: Measured | None = None,
    second: Measured | None = None,
    clash: bool = False,
    clashes: tuple[str, ...] = (),
    **report: Any,
) -> tuple[Event, ...]:
    """What comes of an effect: by default an agent completes its work and every command is green."""
    match effect:
        case OpenWorktree(key=key):
            going = state.going
            tip, tip_tree = (going.tip, going.tip_tree) if going.opening.losses else ("commit-base", BASE_TREE)
            return (WorktreeOpened(key=key, at=at, tip=tip, tip_tree=tip_tree),)
        case RunCommand():
            return (measured(effect, at, first or GREEN, second),)
        case StartStory(key=key, story=name, iteration=iteration):
            tip, tip_tree = state.going.tip, state.going.tip_tree
            begun = StoryStarted(key=key, at=at, story=name, iteration=iteration, head=tip, tree=tip_tree)
            return (replace(begun, lane=effect.lane),)
        case CleanHandover(key=key, story=name):
            return (HandoverCleaned(key=key, at=at, story=name),)
        case WriteSpec(key=key, spec=spec):
            return (SpecPlanned(key=key, at=at, spec=spec),)
        case WriteHandover(key=key, story=name):
            return (HandoverWritten(key=key, at=at, story=name),)
        case CallAgent():
            if effect.drain is Drain.ANALYSIS:
                criteria = state.going.spec.story(effect.story).acceptance_criteria
                outcome = outcome or ruled(effect.story, *["met"] * len(criteria))
            outcome = outcome or DELIVERED.get(effect.drain, COMPLETED)
            if effect.drain not in WRITING_DRAINS:
                tree = tree or state.going.work[effect.story].tree
            ended = call_ended(effect, at, outcome, tree=tree or f"tree-{effect.key}", **report)
            return (ended,) if effect.begun else (call_started(effect, at), ended)
        case Wait(key=key, story=name, since=since, until=until):
            return (WaitEnded(key=key, at=max(at, until), story=name, seconds=(until - since).total_seconds()),)
        case SetAside(key=key, story=name):
            return (StorySetAside(key=key, at=at, story=name),)
        case TakeUp():
            return (taken_up(effect, state, at, clash=clash, clashes=clashes),)
        case LandStory():
            return (landed(effect, state, at),)
        case LeaveStory():
            return (left(effect, state, at),)
        case StartReview(key=key, cycle=cycle):
            return (ReviewStarted(key=key, at=at, cycle=cycle),)
        case PushBranch(key=key, remote=remote, commit=commit):
            pushed = Pushed(remote=remote, commit=commit, base="main")
            return (BranchPushed(key=key, at=at, pushed=pushed),)
        case OpenPullRequest(key=key, draft=draft):
            opened = {"forge": "a forge", "number": 1, "url": "https://forge/1", "draft": draft, "created": True}
            return (PullRequestOpened(key=key, at=at, **opened),)
        case SeeFeedback(key=key):
            return (FeedbackSeen(key=key, at=at, said=()),)
        case AnswerThread(key=key, concern=concern):
            return (ThreadAnswered(key=key, at=at, concern=concern, comment=f"comment-{concern}"),)
        case ResolveThread(key=key, concern=concern):
            return (ThreadResolved(key=key, at=at, concern=concern),)
        case ScrubWorktree(key=key, round=number):
            begun = FinalProofBegun(key=f"{key}/begun", at=at, round=number)
            scrubbed = WorktreeScrubbed(key=key, at=at, round=number)
            return (scrubbed,) if state.going.final.owed else (begun, scrubbed)
        case ParkRun(key=key, what=what, reason=reason):
            return (RunParked(key=key, at=at, what=what, reason=reason),)
        case FinishRun(key=key, shipped=shipped):
            return (RunFinished(key=key, at=at, shipped=shipped),)
        case _:
            assert_never(effect)


@dataclass
class Run:
    """A run as its events tell it. Each fact comes a second after the last, unless a wait took longer."""

    spec: Spec
    policy: Policy
    feedback: Feedback | None = None
    events: list[Event] = field(default_factory=list[Event])
    state: RunState = field(init=False)

    def __post_init__(self) -> None:
        event = replace(opened(self.spec, self.policy), feedback=self.feedback)
        self.events.append(event)
        self.state = reduce(None, event)

    @property
    def now(self) -> datetime:
        return self.state.going.last_at + timedelta(seconds=1)

    def happened(self, *events: Event) -> "Run":
        for event in events:
            self.state = reduce(self.state, event)
            self.events.append(event)
        return self

    # --- what is owed -------------------------------------------------------------------------------------

    @property
    def owed(self) -> tuple[Effect, ...]:
        return plan(self.state)

    @property
    def due(self) -> Effect:
        """The one deed that is owed."""
        (effect,) = self.owed
        return effect

    @property
    def call(self) -> CallAgent:
        """The call that is owed, or under way."""
        assert isinstance(self.due, CallAgent), self.due
        return self.due

    def standing(self, name: str) -> StoryProgress:
        return self.state.going.stories[name]

    def work(self, name: str = "US-001") -> Work:
        return self.state.going.work[name]

    # --- what comes of it ---------------------------------------------------------------------------------

    def did(self, kind: type[Effect] | None = None, **how: Any) -> "Run":
        """The owed deed (the first of this kind, if there are several) was done, and came to this."""
        effect = self.due if kind is None else next(e for e in self.owed if isinstance(e, kind))
        return self.happened(*facts_of(effect, self.state, self.now, **how))

    def until(self, kind: type[Effect], **how: Any) -> "Run":
        """Everything was done, benignly, until such a deed is owed."""
        for _ in range(500):
            if isinstance(self.due, kind):
                return self
            self.did(**how)
        raise AssertionError(f"{kind.__name__} was never owed; now it is {self.due}")

    def to_end(self, **how: Any) -> "Run":
        """Everything was done until nothing was owed any more."""
        for _ in range(500):
            if not self.owed:
                return self
            self.did(**how)
        raise AssertionError(f"it does not end; now it owes {self.due}")

    def attempted(self, outcome: Outcome = COMPLETED, *, check: Measured = GREEN, **how: Any) -> "Run":
        """One attempt: the owed call came to this, and each command on its tree to `check` (red ones twice)."""
        self.until(CallAgent).did(outcome=outcome, **how)
        while self.owed and isinstance(self.due, RunCommand):
            self.did(first=check, second=check if check.exit_status == 1 else None)
        return self

    # --- what humans ask ----------------------------------------------------------------------------------

    def interrupted(self, number: int | None = None) -> "Run":
        key = f"interrupted/{self.state.going.resumes}"
        return self.happened(RunInterrupted(key=key, at=self.now, reason="Ctrl-C", number=number))

    def resumed(self, policy: Policy | None = None, *, after: float = 0) -> "Run":
        key = f"resumed/{self.state.going.resumes + 1}"
        return self.happened(RunResumed(key=key, at=self.now + timedelta(seconds=after), policy=policy))

    def skipped(self, name: str) -> "Run":
        number = self.state.going.inbox_seen + 1
        return self.happened(StorySkipped(key=f"request/{number}", at=self.now, story=name, number=number))

    def approved(self, name: str = "US-001") -> "Run":
        number = self.state.going.inbox_seen + 1
        return self.happened(StoryApproved(key=f"request/{number}", at=self.now, story=name, number=number))

    def rejected(self, name: str = "US-001", hint: str = "") -> "Run":
        number = self.state.going.inbox_seen + 1
        return self.happened(StoryRejected(key=f"request/{number}", at=self.now, story=name, number=number, hint=hint))

    def answered(self, name: str, text: str = "yes") -> "Run":
        number = self.state.going.inbox_seen + 1
        return self.happened(
            QuestionAnswered(key=f"request/{number}", at=self.now, story=name, number=number, text=text)
        )

    def retried(self, name: str, hint: str = "") -> "Run":
        number = self.state.going.inbox_seen + 1
        event = StoryReopened(key=f"request/{number}", at=self.now, story=name, number=number, hint=hint)
        return self.happened(event)


def side_by_side(policy: Policy, width: int) -> Policy:
    """The same, with so many stories at one time."""
    return replace(policy, limits=replace(policy.limits, parallel=width))


def run_of(*stories: Story, policy: Policy | None = None, width: int = 1) -> Run:
    """A run of these stories (one, US-001, by default), just opened."""
    return Run(spec_of(*stories or (story("US-001"),)), side_by_side(policy or policy_of(), width))
