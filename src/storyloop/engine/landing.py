"""Starting, setting aside, landing, leaving and closing stories.

These are the deeds that move the run's branch and its worktree.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from storyloop.core.effects import (
    CleanHandover,
    LandStory,
    LeaveStory,
    ScrubWorktree,
    SetAside,
    StartReview,
    StartStory,
    TakeUp,
)
from storyloop.core.errors import ProgrammerError
from storyloop.core.events import (
    Event,
    FinalProofBegun,
    HandoverCleaned,
    ReviewStarted,
    StoryLanded,
    StoryLeft,
    StorySetAside,
    StoryStarted,
    StoryTakenUp,
    WorktreeScrubbed,
)
from storyloop.core.facts import Change, ChangeKind, Finding
from storyloop.core.feedback import concern_of
from storyloop.core.knowledge import StoryChanges
from storyloop.core.purpose import RUN
from storyloop.core.review import gating_issues
from storyloop.core.run_state import RunState
from storyloop.core.spec import Story
from storyloop.core.stages import Closing, Landing, Leaving, Work
from storyloop.core.train import is_in_line
from storyloop.engine.hands import Hands
from storyloop.engine.lanes import PROOF, close_lanes, lane_place, open_lane
from storyloop.engine.laying import lay
from storyloop.ports.repository import Author, Merged

_MOST_CHANGED = 200  # paths that a fact names
_MOST_READ = 50  # files whose symbols are read,
_SMALL = 100_000  # and the bytes of each


def start_story(effect: StartStory, state: RunState, hands: Hands) -> Iterator[Event]:
    """A story starts at the branch's tip; whatever else lies in the worktree is kept by a ref first."""
    progress, label = state.going, f"before/{effect.story}-{effect.iteration}"
    findings = _settled(state, hands, label=label, before=effect.story, lane=effect.lane)
    yield StoryStarted(
        key=effect.key,
        at=hands.clock.now(),
        story=effect.story,
        iteration=effect.iteration,
        head=progress.tip,
        tree=progress.tip_tree,
        lane=effect.lane,
        findings=findings,
    )


def start_review(effect: StartReview, state: RunState, hands: Hands) -> Iterator[Event]:
    """A reviewer reads the branch's tip; what lies in the worktree besides is kept by a ref first."""
    findings = _settled(state, hands, label=f"before/@run-{effect.cycle}", before="the review")
    yield ReviewStarted(key=effect.key, at=hands.clock.now(), cycle=effect.cycle, findings=findings)


def set_aside(effect: SetAside, state: RunState, hands: Hands) -> Iterator[Event]:
    """The worktree is its branch's tip; the story's files are kept by the pin of its last call."""
    progress, work = state.going, state.going.work[effect.story]
    now = hands.repository.snapshot(hands.place)
    pins: tuple[str, ...] = ()
    if now not in _kept(work, work.tree):  # somebody changed files after that call
        label = f"waiting/{work.label}-{work.iteration}/{now[:12]}"
        pins = (_pin(work, now, label, progress.last_at, hands),)
    hands.repository.reset(hands.place, commit=work.head)
    hands.papers.remove_handover(hands.place)
    yield StorySetAside(key=effect.key, at=hands.clock.now(), story=effect.story, pins=pins)


def take_up(effect: TakeUp, state: RunState, hands: Hands) -> Iterator[Event]:
    """The worktree is the branch's tip with the story's files merged in.

    Where they clash it is the tip alone; or, at the story's turn to land, both sides for somebody to make one of.
    """
    progress, repository, place = state.going, hands.repository, hands.place
    work = progress.work[effect.story]
    if work.pin is None:
        raise ProgrammerError(f"Story {effect.story} has no worktree, and no call of it had ended.")
    merged = Merged(work.pin.tree) if work.head == progress.tip else repository.merged(work.pin.commit, progress.tip)
    if merged is not None and merged.clashes and not isinstance(work.stage, Landing):
        merged = None
    tree = progress.tip_tree if merged is None else merged.tree
    label, number = ("turn", work.turns + 1) if is_in_line(work) else ("taken-up", work.calls)
    label = f"{label}/{work.label}-{work.iteration}-{number}"
    findings = _settled(state, hands, label=label, before=effect.story, lane=effect.lane, laid=tree)
    lay(tree, hands)
    author = Author(message=f"{work.label}: files on the branch as it is now", at=progress.last_at)
    yield StoryTakenUp(
        key=effect.key,
        at=hands.clock.now(),
        story=effect.story,
        head=progress.tip,
        tree=progress.tip_tree,
        lane=effect.lane,
        pin=None if merged is None else repository.pin(place, tree=tree, label=label, author=author),
        clashes=merged.clashes[:_MOST_CHANGED] if merged is not None else (),
        changed=tuple(change.path for change in repository.changes(progress.tip_tree, tree)[:_MOST_CHANGED]),
        findings=findings,
    )


def scrub_worktree(effect: ScrubWorktree, state: RunState, hands: Hands) -> Iterator[Event]:
    """It is known that the worktree is no longer set up before anything of it goes."""
    if not state.going.final.owed:
        yield FinalProofBegun(key=f"{effect.key}/begun", at=hands.clock.now(), round=effect.round)
    findings: tuple[Finding, ...] = ()
    if not state.going.is_in_checkout:
        findings = _settled(state, hands, label=f"before/final-{effect.round}", before="the final proof")
    close_lanes(state, hands)
    if state.going.is_in_checkout:
        open_lane(state, replace(hands, place=lane_place(hands.place, PROOF)))
    else:
        copy = state.effective_config().worktree.copy
        hands.repository.scrub(hands.place, commit=state.going.tip, copy=copy)
    yield WorktreeScrubbed(key=effect.key, at=hands.clock.now(), round=effect.round, findings=findings)


def _settled(
    state: RunState, hands: Hands, *, label: str, before: str, lane: int = 0, laid: str = ""
) -> tuple[Finding, ...]:
    """The worktree is as the run's branch has its tip, or `laid`; what else lay in it is kept by a ref."""
    progress, repository, place = state.going, hands.repository, hands.place
    tip, left = progress.tip, progress.tip_tree
    if lane:
        known, tip = progress.lanes.get(lane), open_lane(state, hands)
        if known is not None:  # unless a process that died here had got further
            tip, left = (tip if tip == progress.tip else known.head), known.tree
    settled = repository.settle(place, expected_tip=tip, label=label)
    if tip == progress.tip and settled.tree in (laid, progress.tip_tree):
        return settled.findings
    findings = settled.findings
    if settled.tree not in (left, progress.tip_tree):
        author = Author(message=f"What lay in the worktree before {before}", at=progress.last_at)
        pin = repository.pin(place, tree=settled.tree, label=f"{label}/{settled.tree[:12]}", author=author)
        detail = f"Files that belonged to no story were set aside before {before}; they are kept by {pin.ref}."
        findings = (*findings, Finding("leftover", detail))
    repository.reset(place, commit=progress.tip)
    return findings


def land_story(effect: LandStory, state: RunState, hands: Hands) -> Iterator[Event]:
    """Commit exactly the proven tree. The same state makes the same commit, so a second try finds the first."""
    progress, repository, place = state.going, hands.repository, hands.place
    work = progress.work[effect.story]
    landing = work.stage
    if not isinstance(landing, Landing):
        raise ProgrammerError(f"Story {effect.story} is not landing.")
    findings = tuple(_besides(work, landing, hands))
    commit, tip, tip_tree = None, progress.tip, progress.tip_tree
    if landing.tree != work.tree:
        author = Author(message=_message(state, landing, effect), at=landing.at)
        commit = repository.commit(place, tree=landing.tree, parent=progress.tip, author=author)
        tip, tip_tree = commit, landing.tree
    changes = repository.changes(work.tree, tip_tree, counted=True)
    yield StoryLanded(
        key=effect.key,
        at=hands.clock.now(),
        story=effect.story,
        commit=commit,
        tip=tip,
        tip_tree=tip_tree,
        changes=_story_changes(effect.story, changes, commit),
        lines={change.path: change.lines for change in changes if change.lines is not None},
        symbols=_symbols(changes, tip_tree, hands),
        findings=findings,
    )


def _symbols(changes: tuple[Change, ...], tree: str, hands: Hands) -> dict[str, tuple[str, ...]]:
    there = (change.path for change in changes if change.kind is not ChangeKind.DELETED)
    readers = {path: read for path in there if (read := hands.symbols(path))}
    contents = hands.repository.contents(tree, tuple(readers)[:_MOST_READ], most=_SMALL)
    return {path: readers[path](content) for path, content in contents}


def _besides(work: Work, landing: Landing, hands: Hands) -> Iterator[Finding]:
    """Somebody who looked at it, or anything else, changed files since the proof; cleaning up would take that away."""
    if (now := hands.repository.snapshot(hands.place)) not in (landing.tree, work.undone):
        ref = _pin(work, now, f"besides/{work.label}-{work.iteration}/{now[:12]}", landing.at, hands)
        detail = f"What lay in the worktree besides the work that was proven was set aside; it is kept by {ref}."
        yield Finding("leftover", detail)


def leave_story(effect: LeaveStory, state: RunState, hands: Hands) -> Iterator[Event]:
    """Keep the story's work by a ref of its own; the worktree goes back only when that is known for good."""
    progress, repository, place = state.going, hands.repository, hands.place
    work = progress.work[effect.story]
    leaving = work.stage
    if not isinstance(leaving, Leaving):
        raise ProgrammerError(f"Story {effect.story} is not being left.")
    pins = list(_pinned_work(work, leaving, work.tree if work.lane else progress.tip_tree, hands))
    commit, tip, tip_tree = None, progress.tip, progress.tip_tree
    if leaving.commit_unproven and work.pin is not None and work.pin.tree != work.tree:
        author = Author(
            message=_unproven_message(progress.spec.story(work.story), leaving, state.run_id, effect.key), at=leaving.at
        )
        commit = repository.commit(place, tree=work.pin.tree, parent=progress.tip, author=author)
        tip, tip_tree = commit, work.pin.tree
    yield StoryLeft(
        key=effect.key,
        at=hands.clock.now(),
        story=effect.story,
        pins=tuple(pins),
        commit=commit,
        tip=tip,
        tip_tree=tip_tree,
    )


def clean_handover(effect: CleanHandover, state: RunState, hands: Hands) -> Iterator[Event]:
    """No handover lies in the worktree; and where an iteration is over, the files are its branch's tip."""
    progress, repository, place, work = state.going, hands.repository, hands.place, state.going.work[effect.story]
    tip, tree = (work.head, work.tree) if work.lane else (progress.tip, progress.tip_tree)
    if isinstance(work.stage, Closing) and (now := repository.snapshot(place)) != tree:
        if now not in _kept(work, tree):  # somebody changed files since the work was left or landed
            _pin(work, now, f"after/{work.label}-{work.iteration}/{now[:12]}", progress.last_at, hands)
        repository.reset(place, commit=tip)
    hands.papers.remove_handover(place)
    yield HandoverCleaned(key=effect.key, at=hands.clock.now(), story=effect.story)


def _pinned_work(work: Work, leaving: Leaving, tip_tree: str, hands: Hands) -> Iterator[str]:
    label = f"{leaving.state}/{work.label}-{work.iteration}"
    if work.pin is not None and work.pin.tree != work.tree:
        yield _pin(work, work.pin.tree, label, leaving.at, hands)
    now = hands.repository.snapshot(hands.place)
    if now not in _kept(work, tip_tree):  # somebody changed files after the last call had ended
        yield _pin(work, now, f"{label}-later/{now[:12]}", leaving.at, hands)


def _kept(work: Work, tip_tree: str) -> set[str]:
    """Trees that are reachable already."""
    return {work.tree, tip_tree} | ({work.pin.tree} if work.pin else set[str]())


def _pin(work: Work, tree: str, label: str, at: datetime, hands: Hands) -> str:
    author = Author(message=f"{work.label}: work that was not committed", at=at)
    return hands.repository.pin(hands.place, tree=tree, label=label, author=author).ref


def _message(state: RunState, landing: Landing, effect: LandStory) -> str:
    if landing.message is not None:
        subject, body = landing.message.subject, landing.message.body
    else:
        subject, body = _subject(state, effect.story), landing.result.summary
    return _with_trailers(subject, body, run_id=state.run_id, story=effect.story, key=effect.key)


def _subject(state: RunState, name: str) -> str:
    if (concern := concern_of(state.going, name)) is not None:
        return f"Review: mend {concern.place}"  # the words of others have no say in what we commit
    if name != RUN:
        return f"{name}: {state.going.spec.story(name).title}"
    issues = gating_issues(state.going, state.effective_config())
    return f"Review: mend {len(issues)} issue{'s' * (len(issues) != 1)}"


def _unproven_message(story: Story, leaving: Leaving, run_id: str, key: str) -> str:
    subject = f"{story.id} (unproven): {story.title}"
    body = f"Partial work, committed without proof. {leaving.reason}"
    return _with_trailers(subject, body, run_id=run_id, story=story.id, key=key)


def _with_trailers(subject: str, body: str, *, run_id: str, story: str, key: str) -> str:
    of_story = f"Storyloop-Story: {story}\n" if story != RUN else ""
    trailers = f"Storyloop-Run: {run_id}\n{of_story}Storyloop-Effect: {run_id}/{key}"
    return "\n\n".join(part for part in (" ".join(subject.split()), body.strip(), trailers) if part) + "\n"


def _story_changes(story: str, changes: tuple[Change, ...], commit: str | None) -> StoryChanges:
    def paths(kind: ChangeKind) -> tuple[str, ...]:
        return tuple(change.path for change in changes if change.kind is kind)

    return StoryChanges(
        story_id=story,
        files_created=paths(ChangeKind.CREATED),
        files_modified=paths(ChangeKind.MODIFIED),
        files_deleted=paths(ChangeKind.DELETED),
        commit_hash=commit,
    )
