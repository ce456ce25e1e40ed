"""Synthetic journals: runs of any length that could have happened, for benchmarks and for tests of the journal.

Every story takes two attempts, the first one red, and every other story answers once with an invalid artifact:
25 events a story on average, with texts of the lengths that agents and test runners really print. The same
number of stories gives the same events, byte for byte.
"""

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from storyloop.core.artifacts import DevelopmentResult
from storyloop.core.errand import Mode
from storyloop.core.events import (
    CallEnded,
    CallStarted,
    CommandMeasured,
    Event,
    HandoverCleaned,
    HandoverWritten,
    RunFinished,
    RunOpened,
    StoryLanded,
    StoryStarted,
    WorktreeOpened,
)
from storyloop.core.facts import Answered, CallReport, Ending, Malformed, Measured, Outcome, Pin
from storyloop.core.knowledge import NotedDecision, NotedFile, NotedKnowledge, NotedPattern, StoryChanges
from storyloop.core.policy import AgentKind, AgentRef, AgentSpec, Command, Drain, Policy
from storyloop.core.purpose import Baselining, Checking, Demonstrating, Probing, Purpose, key_of
from storyloop.core.spec import Criterion, Spec, Story
from storyloop.core.usage import Usage
from storyloop.core.words import DevelopmentStatus

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_CHECKS = {"lint": "ruff check .", "types": "pyright", "test": "pytest -q"}
_CRITERIA = 3
_CODER = AgentRef("coder")
_SENTENCE = """the parser reads a line and keeps what it cannot understand so that a later story may look at it again
test function module returns value error path option default handles empty input because session token refactor
extract rename added removed updated assertion expected actual passed failed"""
_WORDS = _SENTENCE.split()


def synthetic_events(stories: int) -> Iterator[Event]:
    """The events of one run over so many stories, all of which pass."""
    return _Run(stories).events()


class _Run:
    """Not frozen: it counts seconds and draws words as the events are told."""

    def __init__(self, stories: int) -> None:
        self._ids = [f"US-{number:04}" for number in range(1, stories + 1)]
        self._random = random.Random(stories)
        self._at = _BEGIN
        self._tip, self._tree = _digest("base"), _digest("base tree")

    def events(self) -> Iterator[Event]:
        yield self._opened()
        yield WorktreeOpened(key="open/worktree", at=self._later(1), tip=self._tip, tip_tree=self._tree)
        for name, line in _CHECKS.items():
            yield self._measured(Baselining(name), line, self._tree, exit_status=0)
        for number, story in enumerate(self._ids, start=1):
            yield from self._story(story, number)
        yield RunFinished(key="finish/0", at=self._later(1), shipped=True)

    def _story(self, story: str, number: int) -> Iterator[Event]:
        prefix = f"{story}/{number}"
        start = self._later(1)
        yield StoryStarted(
            key=f"{prefix}/start", at=start, story=story, iteration=number, head=self._tip, tree=self._tree
        )
        yield HandoverCleaned(key=f"{prefix}/clean/start", at=self._later(0.01), story=story)
        for criterion in range(1, _CRITERIA + 1):
            probing = Probing(story=story, iteration=number, criterion=criterion)
            yield self._measured(probing, _verify(story, criterion), self._tree, exit_status=1)
        yield from self._attempt(story, number, attempt=0)
        yield HandoverWritten(key=f"{prefix}/story/1/handover", at=self._later(0.01), story=story)
        yield from self._attempt(story, number, attempt=1)
        self._tip, self._tree = _digest(f"{prefix}/commit"), _digest(f"{prefix}/1")
        paths = _paths(number)
        yield StoryLanded(
            key=f"{prefix}/land",
            at=self._later(0.2),
            story=story,
            commit=self._tip,
            tip=self._tip,
            tip_tree=self._tree,
            changes=StoryChanges(story_id=story, files_created=paths[:1], files_modified=paths[1:]),
            lines=dict.fromkeys(paths, 120),
        )
        yield HandoverCleaned(key=f"{prefix}/clean/end", at=self._later(0.01), story=story)

    def _attempt(self, story: str, number: int, *, attempt: int) -> Iterator[Event]:
        """The calls of one attempt and our commands on what it left; the first attempt's last proof is red."""
        tree = _digest(f"{story}/{number}/{attempt}")
        asked = [Mode.CONTINUATION, Mode.FORMAT_RETRY][: 1 + number % 2] if attempt else [Mode.FRESH]
        for call, mode in enumerate(asked, start=attempt + 1):
            answered = Answered(artifact=self._artifact(number))
            malformed = Malformed(errors="line 3: element `status` is missing", text=self._text(600))
            outcome = answered if mode is asked[-1] else malformed
            yield from self._call(story, number, attempt, call=call, mode=mode, tree=tree, outcome=outcome)
        for name, line in _CHECKS.items():
            checking = Checking(story=story, iteration=number, attempt=attempt, check=name)
            yield self._measured(checking, line, tree, exit_status=0)
        for criterion in range(1, _CRITERIA + 1):
            proving = Demonstrating(story=story, iteration=number, attempt=attempt, criterion=criterion)
            red = not attempt and criterion == _CRITERIA
            yield self._measured(proving, _verify(story, criterion), tree, exit_status=int(red))

    def _call(
        self, story: str, number: int, attempt: int, *, call: int, mode: Mode, tree: str, outcome: Outcome
    ) -> Iterator[Event]:
        key = f"{story}/{number}/story/{attempt}/{call}"
        yield CallStarted(
            key=f"{key}/started",
            at=self._later(0.1),
            story=story,
            drain=Drain.STORY,
            call=call,
            ref=_CODER,
            mode=mode,
        )
        report = CallReport(
            outcome=outcome,
            session=_digest(key)[:32],
            usage=Usage(input_tokens=41_000, output_tokens=9_000, cache_read_tokens=310_000, model="large-model-1"),
            cost_usd=0.25,
            seconds=240.0,
            snippet=self._text(2_000),
        )
        yield CallEnded(
            key=f"{key}/ended",
            at=self._later(240),
            story=story,
            drain=Drain.STORY,
            call=call,
            ref=_CODER,
            report=report,
            pin=Pin(tree=tree, commit=_digest(f"{key}/pin"), ref=f"refs/storyloop/4f1c09aa/{key}"),
            changed=_paths(number),
        )

    def _artifact(self, number: int) -> DevelopmentResult:
        path = _paths(number)[0]
        knowledge = NotedKnowledge(
            files=(NotedFile(path=path, purpose=self._text(60), symbols=("parse", "render")),),
            decisions=(NotedDecision(topic=f"topic {number}", choice=self._text(40), rationale=self._text(80)),),
            patterns=(NotedPattern(description=f"pattern {number // 4}", example_file=path),),
        )
        return DevelopmentResult(
            status=DevelopmentStatus.COMPLETED,
            summary=self._text(400),
            files_changed=_paths(number),
            knowledge=knowledge,
        )

    def _measured(self, purpose: Purpose, command: str, tree: str, *, exit_status: int) -> CommandMeasured:
        key = key_of(purpose)
        first = Measured(
            ending=Ending.EXITED,
            exit_status=exit_status,
            seconds=4.0,
            output=f"checks/{key}/output",
            output_digest=_digest(f"{key}/output") + _digest(tree)[:24],
            output_size=2_400,
            tail=self._text(1_000 if exit_status else 200),
        )
        second = first if exit_status and not isinstance(purpose, Probing) else None
        return CommandMeasured(
            key=key, at=self._later(4), purpose=purpose, command=command, tree=tree, first=first, second=second
        )

    def _opened(self) -> RunOpened:
        spec = Spec(
            project="synthetic",
            branch_name="storyloop/synthetic",
            title="A synthetic run",
            user_stories=tuple(
                Story(
                    id=story,
                    title=self._text(40),
                    description=self._text(200),
                    priority=number,
                    acceptance_criteria=tuple(
                        Criterion(self._text(60), _verify(story, criterion)) for criterion in range(1, _CRITERIA + 1)
                    ),
                )
                for number, story in enumerate(self._ids, start=1)
            ),
        )
        policy = Policy(
            agents={"coder": AgentSpec(kind=AgentKind.COMMAND, command=("coder", "--yes"))},
            chain=(_CODER,),
            checks={name: Command(run=line) for name, line in _CHECKS.items()},
        )
        return RunOpened(
            key="opened",
            at=self._at,
            run_id="4f1c09aa",
            spec=spec,
            spec_json_path="/home/dev/.local/state/storyloop/runs/4f1c09aa/spec.json",
            spec_md_path="/home/dev/project/spec.md",
            policy=policy,
            repository="/home/dev/project/.git",
            checkout="/home/dev/project",
            branch=spec.branch_name,
            base=self._tip,
            base_tree=self._tree,
            reuse_branch=False,
            worktree="/home/dev/project-wt-storyloop-synthetic",
            session_id="0f3a9c1d",
        )

    def _later(self, seconds: float) -> datetime:
        self._at += timedelta(seconds=seconds)
        return self._at

    def _text(self, length: int) -> str:
        words = self._random.choices(_WORDS, k=length // 5)
        return " ".join(words)[:length]


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _verify(story: str, criterion: int) -> str:
    return f"pytest -q tests/test_{story}.py -k criterion_{criterion}"


def _paths(number: int) -> tuple[str, ...]:
    """What a story touches: one file of its own, and three that many stories share."""
    shared = (f"src/package/module_{(number + n) % 97}.py" for n in range(3))
    return (f"src/package/story_{number}.py", *shared)
