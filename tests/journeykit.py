"""Journeys: whole runs as data, and how one is played.

A journey (tests/journeys/*.toml; of agents that lie: tests/liars/*.toml) says what lies in the repository, what the
spec asks, what each scripted agent does, what a person does (`act`), and what must come of it: the facts of each act as
lines (`told`), exit codes, the commits and files of the branch, where each story stands, what is kept by refs, what an
agent was told, what the report says.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, assert_never

import msgspec

from storyloop.archive import Archive
from storyloop.config.layers import Flags
from storyloop.core.artifacts import Analysis, ConflictResult, DevelopmentResult, FixResult, Issues, Plan, Triage
from storyloop.core.events import (
    BranchPushed,
    CallEnded,
    CallStarted,
    CommandMeasured,
    DeliveryFailed,
    Event,
    FeedbackSeen,
    FinalProofBegun,
    HandoverCleaned,
    HandoverWritten,
    LimitLearned,
    PullRequestOpened,
    QuestionAnswered,
    RequestRefused,
    ReviewStarted,
    RunCleaned,
    RunFinished,
    RunForked,
    RunInterrupted,
    RunOpened,
    RunParked,
    RunResumed,
    RunUndone,
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
    WorktreeLost,
    WorktreeOpened,
    WorktreeScrubbed,
)
from storyloop.core.evidence import Reading, reading_of
from storyloop.core.facts import Answered, CallReport, Ending, Failed, Finding, Interrupted, Malformed
from storyloop.core.forge import PullRequest
from storyloop.core.policy import Drain
from storyloop.core.purpose import (
    RUN,
    Baselining,
    Checking,
    Demonstrating,
    FinalChecking,
    FinalDemonstrating,
    Probing,
    Purpose,
    Reproving,
    SettingUp,
    SettingUpLane,
    Trying,
    label_of,
)
from storyloop.core.run_state import RunState
from storyloop.core.words import RunStatus
from storyloop.driving import exit_code, open_run, resume_run
from storyloop.preparing import Prepared
from storyloop.sending import deliver
from storyloop.service import Service
from storyloop.views.account import account_of
from storyloop.views.notice import notice_of
from storyloop.views.report import report
from storyloop.views.rows import evidence_rows

FOLDERS = {name: Path(__file__).with_name(name) for name in ("journeys", "liars")}
BRANCH = "feature/journey"
_DEAD = (RunStatus.RUNNING, RunStatus.INTERRUPTED)


# --- what a journey says ------------------------------------------------------------------------------------


class _Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a journey's file."""


class StorySaid(_Said, frozen=True, kw_only=True):
    """A story of the spec; a criterion is its command, or empty where nothing proves it."""

    id: str
    criteria: list[str]
    depends_on: list[str] = []
    passes: bool = False


class Act(_Said, frozen=True, kw_only=True):
    """One thing that a person does, and the facts that come of it."""

    # run | resume | retry | skip | answer | approve | reject, or what happens outside: turns (another script),
    # put (a file), delete (the worktree), later (time), limit (of an account, met by another run), push (a commit of
    # somebody else's to this branch of the remote), say (in a new
    # thread), close | merge (the pull request), trouble (what push or the forge's
    # `path` meets from here on; without text it is over); or deliver
    do: str
    flags: dict[str, Any] = {}
    story: str = ""
    text: str = ""
    agent: str = ""
    path: str = ""
    turns: list[dict[str, Any]] = []
    seconds: float = 0.0
    interrupt: str = ""  # the fact upon which the run is interrupted
    exit: int = 0
    facts: str = ""


class SaidThere(_Said, frozen=True, kw_only=True):
    """A thread of the pull request, of one comment."""

    file: str
    text: str


class Told(_Said, frozen=True, kw_only=True):
    """Something that the prompt of a call, or the file beside it, must hold, or must not."""

    call: str  # US-001-1-story-2: story, iteration, drain, number
    holds: list[str] = []
    lacks: list[str] = []
    beside: list[str] = []  # what the file beside the prompt holds


class Understudy(_Said, frozen=True, kw_only=True):
    """What stands in for a command that the tiny shell lacks: a line for its first run and one for its second.

    While the line `when` is green, the command does not end by itself, but so.
    """

    line: str
    again: str = "false"
    when: str = ""
    ending: Ending = Ending.EXITED
    reason: str = ""


class Expected(_Said, frozen=True, kw_only=True):
    """What has come of it in the end."""

    stories: dict[str, str]  # state, and its reason after a colon
    calls: int
    commits: list[str]  # subjects, oldest first, on top of the base
    files: dict[str, str]  # what the branch holds besides the base's files, or otherwise; a deleted one is empty
    ignored: dict[str, str] = {}  # what the worktree holds besides
    verdicts: dict[str, list[str]] = {}  # of each criterion, for the stories that are named
    kept: dict[str, dict[str, str]] = {}  # by story: the files besides the base's that its pins keep
    findings: list[str] = []
    inherited: list[str] = []
    pull_requests: list[str] = []  # as "open draft main <- feature/journey: title"
    remote: dict[str, str] = {}  # by branch: the subject of its commit
    body: list[str] = []  # sentences of the last pull request's body
    threads: list[str] = []  # of the pull request: how many comments each has, and whether it is resolved
    waited: float | None = None  # seconds in all, by the hand-wound clock
    told: list[Told] = []
    report: list[str] = []  # sentences that the report has,
    sections: dict[str, list[str]] = {}  # and by the heading that they stand under; the first has none


class Journey(_Said, frozen=True, kw_only=True):
    """A file of tests/journeys."""

    promise: str
    real: bool = False  # also played with real git and real processes
    spends_calls: bool = False  # what comes of it depends on the number of calls, so a call that a cut costs tells
    memory: bool = True  # false where only real git can play it
    files: dict[str, str] = msgspec.field(default_factory=lambda: {"base.txt": "base\n"})
    remote: bool = False  # there is one, with a forge; in memory
    brief: str = ""  # a free-form spec, in the place of stories
    said: list[SaidThere] = []  # of the pull request that is followed up, in the place of stories
    watch: bool = False  # until nothing new is said there
    story: list[StorySaid] = []
    config: dict[str, Any] = {}
    agents: dict[str, list[dict[str, Any]]]
    shell: dict[str, Understudy] = {}  # in memory, by command
    act: list[Act]
    expect: Expected

    @property
    def width(self) -> int:
        """How many stories are worked on at one time; if several, the facts of an act are some of them, in order."""
        return self.config.get("limits", {}).get("parallel", 1)


def journeys() -> dict[str, Journey]:
    """Every journey by its name, the liars' too."""
    paths = sorted(path for folder in FOLDERS.values() for path in folder.glob("*.toml"))
    return {path.stem: msgspec.toml.decode(path.read_bytes(), type=Journey) for path in paths}


# --- what a fact says -----------------------------------------------------------------------------------------


def told(event: Event) -> str:
    """A fact in a line of a few words: what a journey's file expects. Empty where all is well in the final proof."""
    match event:
        case RunOpened():
            return "opened"
        case WorktreeLost(lane=lane) if lane:
            return f"lost lane {lane}"
        case WorktreeLost():
            return "lost"
        case WorktreeOpened():
            return "worktree" + " warned" * len(event.warnings)
        case SpecPlanned(spec=spec):
            return " ".join(["planned", *(story.id for story in spec.user_stories)])
        case CommandMeasured():
            reading = reading_of(event.first, event.second)
            final = "final" in _purpose(event.purpose)
            if final and reading is Reading.GREEN and not event.findings:
                return ""
            return f"{_purpose(event.purpose)} {reading}{_findings(event.findings)}"
        case StoryStarted():
            return f"start {event.story}{_findings(event.findings)}"
        case FeedbackSeen():
            seen = f"seen {len(event.said)}" + f" pending {len(event.pending)}" * bool(event.pending)
            return f"{seen} trouble" if event.trouble else seen
        case ThreadAnswered(concern=concern, trouble=trouble):
            return f"answered {concern}" + " not" * bool(trouble)
        case ThreadResolved(concern=concern, trouble=trouble):
            return f"resolved {concern}" + " not" * bool(trouble)
        case ReviewStarted():
            return f"review {event.cycle}{_findings(event.findings)}"
        case HandoverCleaned():
            return f"clean {label_of(event.story)}"
        case HandoverWritten():
            return f"handover {event.story}"
        case CallStarted():
            drain = "" if event.drain is Drain.STORY else f"{event.drain} "
            return f"call {drain}{label_of(event.story)} {event.call} {event.ref} {event.mode}"
        case CallEnded():
            secret = " secret" if event.secrets else ""
            bent = "".join(f" ({suspicion.kind})" for suspicion in event.suspicions)
            said = f"{_outcome(event.report)}{secret}{bent}{_findings(event.findings)}"
            return f"ended {label_of(event.story)} {event.call} {said}"
        case LimitLearned():
            return f"limit {label_of(event.story)} {event.ref}"
        case WaitEnded():
            return f"waited {label_of(event.story)}"
        case StorySetAside():
            return f"aside {event.story}" + " [pinned]" * len(event.pins)
        case QuestionAnswered():
            return f"answer {event.story}"
        case StoryTakenUp():
            return (
                f"take up {event.story}"
                + ("" if event.pin and not event.clashes else " clash")
                + _findings(event.findings)
            )
        case StoryApproved():
            return f"approve {label_of(event.story)}"
        case StoryRejected():
            return f"reject {label_of(event.story)}"
        case StoryLanded():
            return f"land {label_of(event.story)}" + ("" if event.commit else " unchanged") + _findings(event.findings)
        case StoryLeft():
            return f"leave {label_of(event.story)}" + (" committed" if event.commit else "")
        case FinalProofBegun():
            return f"final proof {event.round}"
        case WorktreeScrubbed():
            return f"scrub{_findings(event.findings)}" if event.findings else ""
        case StorySkipped():
            return f"skip {event.story}"
        case StoryReopened():
            return f"reopen {label_of(event.story)}"
        case RequestRefused():
            return "refuse"
        case RunInterrupted():
            return "interrupted"
        case RunParked():
            return f"parked {event.what}"
        case RunResumed():
            return "resumed" + (" amended" if event.policy else "")
        case RunForked():
            return f"forked at {event.at_event}"
        case RunUndone():
            return f"undone to {event.to}"
        case RunCleaned():
            return f"cleaned {event.what}"
        case BranchPushed():
            return "pushed" + _findings(event.findings)
        case PullRequestOpened():
            return f"pull request {event.number}" + " draft" * event.draft + ("" if event.created else " updated")
        case DeliveryFailed():
            return f"no {event.step}: {event.trouble}"
        case RunFinished():
            return "finished " + ("shipped" if event.shipped else "not shipped")
        case _:
            assert_never(event)


def _purpose(purpose: Purpose) -> str:
    match purpose:
        case SettingUp(number=number, round=proof):
            return f"setup {number}" + (" final" if proof else "")
        case SettingUpLane(story=story, number=number):
            return f"setup {number} {story}"
        case Reproving(story=story, criterion=criterion):
            return f"prove {label_of(RUN)} {story} {criterion}"
        case FinalChecking(check=check):
            return f"final check {check}"
        case FinalDemonstrating(story=story, criterion=criterion):
            return f"final prove {story} {criterion}"
        case Baselining(check=check):
            return f"baseline {check}"
        case Probing(story=story, criterion=criterion):
            return f"probe {story} {criterion}"
        case Checking(story=story, check=check):
            return f"check {label_of(story)} {check}"
        case Trying(of=of):
            return f"without {_purpose(of)}"
        case Demonstrating(story=story, criterion=criterion):
            return f"prove {story} {criterion}"


def _outcome(ended: CallReport) -> str:
    match ended.outcome:
        case Answered(artifact=DevelopmentResult(status=status, question=question)):
            return status if question is None else "asks"
        case Answered(artifact=Plan()):
            return "plan"
        case Answered(artifact=Triage()):
            return "triage"
        case Answered(artifact=FixResult(status=status) | ConflictResult(status=status)):
            return status
        case Answered(artifact=Issues(found=found)):
            return f"{len(found)} issues"
        case Answered(artifact=Analysis(judgements=judgements)):
            return " ".join(f"{one.number} {one.ruling}" for one in judgements)
        case Answered():
            return "message"
        case Malformed():
            return "malformed"
        case Failed(failure=failure, timed_out=timed_out):
            return "timeout" if timed_out else failure
        case Interrupted():
            return "interrupted"


def _findings(findings: tuple[Finding, ...]) -> str:
    return "".join(f" [{finding.what}]" for finding in findings)


# --- what has come of it ----------------------------------------------------------------------------------------


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that must be equal however a journey was played, cut and resumed; but for the calls."""

    exits: list[int]
    stories: dict[str, str]
    attempts: dict[str, int]
    verdicts: dict[str, list[str]]
    history: list[tuple[str, dict[str, str]]]  # subject and files of each commit, oldest first, the base's too
    worktree: dict[str, str]
    kept: dict[str, list[dict[str, str]]]
    findings: list[str]
    inherited: list[str]
    pull_requests: list[str]
    remote: dict[str, str]
    threads: list[str]
    handover: bool  # one is left in the worktree
    calls: int  # that were begun; those that a cut cost, too


class World(Protocol):
    """Where a journey is played."""

    @property
    def archive(self) -> Archive: ...
    def service(self) -> Service: ...
    def prepared(self, service: Service, flags: Flags) -> Prepared: ...
    def history(self) -> list[tuple[str, dict[str, bytes]]]: ...
    def pinned(self, ref: str) -> dict[str, bytes]: ...
    def worktree(self, state: RunState) -> dict[str, bytes]: ...
    def handover(self, state: RunState) -> bool: ...
    def put(self, state: RunState, path: str, text: str) -> None: ...
    def delete(self, state: RunState) -> None: ...
    def turns(self, agent: str, turns: list[dict[str, Any]]) -> None: ...
    def later(self, seconds: float) -> None: ...
    def limit(self, account: str, seconds: float) -> None: ...
    def happen(self, act: Act) -> None: ...
    def pull_requests(self) -> list[PullRequest]: ...
    def remote(self) -> dict[str, str]: ...
    def threads(self) -> list[str]: ...
    def told(self, call: str) -> tuple[str, str]: ...
    def report(self, state: RunState) -> str: ...


class Play:
    """A journey under way in a world."""

    def __init__(self, journey: Journey, world: World) -> None:
        self.journey, self.world = journey, world
        self.exits: list[int] = []
        self.known: RunState  # as the last process to run it left it
        self.stop_at = 0  # the number of the fact upon which somebody stops the run, to resume it at once
        self.watched = 0  # facts so far, by whoever ran it
        self._seq = 0

    def act(self, act: Act) -> list[str]:
        """Do it, or go on with it where an earlier try was cut; the facts that came of it since the last act."""
        match act.do:
            case "run" | "resume":
                state = self.state() if self._is_over() else self._driven(act)
                if state.status is RunStatus.INTERRUPTED and act.interrupt not in self._news():
                    state = self._driven(act)
                self.known = state
                self.exits.append(exit_code(state))
            case "retry" | "skip" | "answer" | "approve" | "reject":
                self.world.service().request(self.run_id, act.do, story=act.story, text=act.text)
            case "deliver":
                if not {"pull request", "no push", "no pull request"}.intersection(map(_kind, self._news())):
                    deliver(self.world.service(), self.run_id, draft=bool(act.flags), watch=lambda *_: None)
                self.known = self.state()
                self.exits.append(int(bool(self.known.going.delivery.trouble)))
            case "push" | "say" | "close" | "merge" | "trouble":
                self.world.happen(act)
            case "put":
                self.world.put(self.known, act.path, act.text)
            case "delete":
                self.world.delete(self.known)
            case "turns":
                self.world.turns(act.agent, act.turns)
            case "later":
                self.world.later(act.seconds)
            case "limit":
                self.world.limit(act.agent, act.seconds)
            case _:
                raise AssertionError(act.do)
        news = self._news()
        self._seq = max((seq for seq, _ in self._events()), default=self._seq)
        return news

    def _driven(self, act: Act) -> RunState:
        service, flags = self.world.service(), Flags(**act.flags)
        if self.run_id:
            drive = resume_run(service, self.run_id, flags=flags)
        else:
            drive = open_run(service, self.world.prepared(service, flags))
        if isinstance(drive, RunState):
            return drive
        with drive:

            def watch(event: Event, state: RunState) -> None:
                self.watched += 1
                notice_of(event, state)  # whatever happens, there is a word for it or there is none
                if (act.interrupt and told(event) == act.interrupt) or self.watched == self.stop_at:
                    drive.interrupt("by the journey")

            if act.interrupt in self._news():
                drive.interrupt("by the journey")
            return drive.run(watch)

    @property
    def run_id(self) -> str:
        """The run's id, as soon as there is one."""
        return next((row.run_id for row in self.world.archive.rows(None)), "")

    def state(self) -> RunState:
        """The run as its journal folds."""
        return self.world.archive.state(self.run_id)

    def _news(self) -> list[str]:
        """The facts since the last act that have something to tell."""
        return [line for _, event in self._events() if (line := told(event))]

    def _events(self) -> Iterator[tuple[int, Event]]:
        return self.world.archive.events(self.run_id, after=self._seq)

    def _is_over(self) -> bool:
        """What this act does is done already: it was cut behind its last fact."""
        begun = {"opened", "resumed", "resumed amended"}.intersection(self._news())
        return bool(begun) and self.world.archive.rows(None)[0].status not in _DEAD

    def report(self) -> str:
        """The file, or what it would hold where the run has not ended."""
        state = self.state()
        account = account_of(event for _, event in self.world.archive.events(self.run_id))
        return self.world.report(state) or report(state, account, state.going.last_at)

    def outcome(self) -> Outcome:
        """What has come of it so far."""
        state = self.known
        stories = state.going.stories
        return Outcome(
            exits=self.exits,
            stories={name: s.state + (f": {s.reason}" if s.reason else "") for name, s in stories.items()},
            attempts={name: s.attempts for name, s in stories.items()},
            verdicts={
                story.id: [row.verdict + (" flaky" if row.flaky else "") for row in evidence_rows(state, story)]
                for story in state.going.spec.user_stories
            },
            history=[(message.splitlines()[0], _text(files)) for message, files in self.world.history()],
            worktree=_text(self.world.worktree(state)),
            kept={name: [_text(self.world.pinned(ref)) for ref in s.pins] for name, s in stories.items() if s.pins},
            findings=[finding.what for finding in state.going.findings],
            inherited=list(state.going.inherited),
            pull_requests=[_shown(one) for one in self.world.pull_requests()],
            remote=self.world.remote(),
            threads=self.world.threads(),
            handover=self.world.handover(state),
            calls=state.going.ledger.calls,
        )


def _kind(fact: str) -> str:
    return next((kind for kind in ("pull request", "no push", "no pull request") if fact.startswith(kind)), "")


def _shown(one: PullRequest) -> str:
    return f"{one.state} {'draft ' * one.draft}{one.base} <- {one.head}: {one.title}"


def _text(files: Mapping[str, bytes]) -> dict[str, str]:
    return {path: data.decode() for path, data in sorted(files.items())}
