"""Undoing: what a run did in the repository, as a list of steps, and what holds after it is walked back to one of them.

Walking back to a step makes the branch what it was behind that step, and the stories what they were then: those that
had not passed yet are open again, with another iteration allowed for each. What was spent stays spent, what a human
said (an answer, a skip, a retry) stays said, and counters that name things go on, so that no name comes twice. Whatever
was in hand is dropped; what was on the branch and in the worktree is kept by refs.

The run is then interrupted between two stories, also if it had ended: `resume` goes on from there.
"""

from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from storyloop.core.draft import Draft
from storyloop.core.events import Event, RunUndone, StoryLanded, StoryLeft, WorktreeOpened
from storyloop.core.progress import StoryProgress
from storyloop.core.purpose import RUN
from storyloop.core.run_state import RunState
from storyloop.core.stages import Closing, Review
from storyloop.core.steps import block_all_dependents, expect, is_initializing
from storyloop.core.words import IterationStatus, MachineState, RunStatus, StoryState


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done to the branch, or in its worktree."""

    number: int  # of the event that tells it
    names: tuple[str, ...]  # what it can be called by, besides number and commit
    what: str
    tip: str  # of the branch, behind it
    tip_tree: str


def steps_of(told: Iterable[tuple[int, Event]], branch: str) -> tuple[Step, ...]:
    """What was done and still holds, oldest first."""
    steps: list[Step] = []
    for number, event in told:
        match event:
            case WorktreeOpened(tip=tip, tip_tree=tree) if not steps:
                names, what = ("branch", branch), f"branch {branch} begun at {tip[:12]}"
            case StoryLanded(story=story, commit=commit, tip=tip, tip_tree=tree):
                name = "review" if story == RUN else story
                done = f"landed as {commit[:12]}" if commit else "passed, with nothing to commit"
                names, what = (name,), f"{name} {done}"
            case StoryLeft(story=story, tip=tip, tip_tree=tree, pins=pins):
                name = "review" if story == RUN else story
                kept = f", kept by {pins[0]}" if pins else ""
                names, what = (name, "reset"), f"{name} given up: its work taken out of the worktree{kept}"
            case RunUndone(to=to):
                steps = [step for step in steps if step.number <= to]
                continue
            case _:
                put_back = next((f for f in getattr(event, "findings", ()) if f.what == "agent-commit"), None)
                if put_back is None or not steps:
                    continue
                names, what, tip, tree = ("reset",), put_back.detail, steps[-1].tip, steps[-1].tip_tree
        steps.append(Step(number=number, names=names, what=what, tip=tip, tip_tree=tree))
    return tuple(steps)


def step_called(steps: tuple[Step, ...], name: str) -> Step | None:
    """The newest step that goes by this name, number or beginning of a commit."""
    for step in reversed(steps):
        is_commit = len(name) >= 4 and step.tip.startswith(name.lower())
        if name == str(step.number) or name in step.names or is_commit:
            return step
    return None


def standings_then(now: RunState, then: RunState) -> dict[str, StoryProgress]:
    """How stories stood, for each that has changed since by what the run itself did."""
    changed: dict[str, StoryProgress] = {}
    for name, standing in now.going.stories.items():
        before = then.going.stories.get(name, StoryProgress())
        same = standing == before and standing.state is not StoryState.BUILDING  # it is in hand no more
        if standing.state in (StoryState.OPEN, StoryState.SKIPPED) or same:
            continue
        # One that was blocked then, and is not now, was opened by a human.
        stays = before.state is StoryState.PASSED or before.state is standing.state is StoryState.BLOCKED
        state = before.state if stays else StoryState.OPEN
        work = now.going.work.get(name)
        pins = (*standing.pins, work.pin.ref) if work is not None and work.pin is not None else standing.pins
        changed[name] = replace(
            before,
            state=state,
            reason="" if state is StoryState.OPEN else before.reason,
            blocked_by=None if state is StoryState.OPEN else before.blocked_by,
            attempts=standing.attempts,
            calls=standing.calls + (work.calls if work is not None else 0),
            pins=tuple(dict.fromkeys(pins)),
            replies=standing.replies,
        )
    return changed


def review_then(now: RunState, then: RunState) -> Review:
    """The review as it was; the number of cycles, by which each is called, stays."""
    review = now.going.review
    return replace(then.going.review, cycles=review.cycles, pins=review.pins)


def undone(run: Draft, event: RunUndone) -> None:
    """The run is as it was behind that step, and interrupted."""
    expect(not is_initializing(run), run, event)
    run.transition_to(MachineState.PICKING_STORY, event.at)
    for work in run.work.values():
        if work.story != RUN and not isinstance(work.stage, Closing):
            run.finish_iteration(IterationStatus.FAILED, work.snippet, event.at, work.iteration)
    opened = _opened_again(run.stories, event.stories)
    for name, standing in event.stories.items():
        run.stand(name, standing)
    run.work, run.current_story, run.pre_story_commit = {}, None, None
    run.allow(opened)
    block_all_dependents(run)
    run.knowledge, run.inherited, run.review = event.knowledge, event.inherited, event.review
    run.review_iteration = 0  # what comes of it is reviewed with cycles of its own
    run.final = replace(run.final, tree="", owed=(), measured=(), scrubbed=False)
    run.tip, run.tip_tree = event.tip, event.tip_tree
    run.parked, run.failure, run.status = None, "", RunStatus.INTERRUPTED


def _opened_again(now: Mapping[str, StoryProgress], then: Mapping[str, StoryProgress]) -> int:
    """How many more stories may be begun; of those that were blocked or in hand, one was taken away before."""
    return sum(then[name].state is StoryState.OPEN and now[name].state is not StoryState.OPEN for name in then)
