"""The opening: a run's first state, and its worktrees, their set-up and the baseline of its checks."""

from typing import Any

from msgspec.structs import replace

from storyloop.core.draft import Draft
from storyloop.core.events import CommandMeasured, RunOpened, WorktreeLost, WorktreeOpened
from storyloop.core.evidence import Evidence, reading_of
from storyloop.core.facts import Finding
from storyloop.core.feedback import is_unplanned
from storyloop.core.final import final_proof_failed
from storyloop.core.progress import Ledger, Progress, StoryProgress
from storyloop.core.purpose import SettingUp, SettingUpLane
from storyloop.core.run_state import RunState
from storyloop.core.stages import Leaving
from storyloop.core.steps import expect, work_of
from storyloop.core.words import MachineState, RunStatus, StoryState


def opened(event: RunOpened) -> RunState:
    """A run at its beginning."""
    told: dict[str, Any] = {
        "run_id": event.run_id,
        "started_at": event.at,
        "config": event.policy,
        "session_id": event.session_id,
    }
    if event.spec_md_path is None:
        state = RunState.new(event.spec_json_path, event.branch, **told)
    else:
        state = replace(RunState.from_spec(event.spec_md_path, event.spec_json_path, **told), branch=event.branch)
    stories = {
        story.id: StoryProgress(state=StoryState.PASSED, reason="marked as passed in the spec")
        if story.passes
        else StoryProgress()
        for story in event.spec.user_stories
    }
    progress = Progress(
        spec=event.spec,
        repository=event.repository,
        checkout=event.checkout,
        base=event.base,
        base_tree=event.base_tree,
        worktree=event.worktree,
        base_branch=event.base_branch,
        reuse_branch=event.reuse_branch,
        earlier=event.earlier,
        tip=event.base,
        tip_tree=event.base_tree,
        stories=stories,
        widest=event.policy.limits.parallel,
        feedback=event.feedback,
        ledger=Ledger(iterations_allowed=sum(not s.passes for s in event.spec.user_stories)),
        last_at=event.at,
    )
    state = replace(state, knowledge=event.knowledge, progress=progress)
    if is_unplanned(progress):
        return replace(state, machine_state=MachineState.LOADING_SPEC)
    return state.transition_to(MachineState.INITIALIZING, event.at)


def worktree_opened(run: Draft, event: WorktreeOpened) -> None:
    """The run's branch and worktree are there."""
    expect(not run.opening.worktree_opened, run, event)
    run.opening = replace(run.opening, worktree_opened=True)
    run.find(*(Finding("worktree", warning) for warning in event.warnings))
    run.tip, run.tip_tree = event.tip, event.tip_tree


def worktree_lost(run: Draft, event: WorktreeLost) -> None:
    """It, or a lane, is owed anew, with its set-up."""
    if event.lane:
        run.lanes = {**run.lanes, event.lane: replace(run.lanes[event.lane], set_up=0)}
        return
    opening = run.opening
    expect(opening.worktree_opened and run.status is not RunStatus.COMPLETED, run, event)
    run.opening = replace(opening, worktree_opened=False, setup_done=0, losses=opening.losses + 1)
    run.set_up = False


def set_up(run: Draft, event: CommandMeasured, purpose: SettingUp) -> None:
    """The next command of the set-up is done; without it the run has failed."""
    opening, commands = run.opening, run.effective_config().worktree.setup
    expect(opening.worktree_opened and run.final.scrubbed is bool(run.final.owed), run, event)
    expect(purpose.number == opening.setup_done < len(commands), run, event)
    if reading_of(event.first, event.second).is_green:
        run.opening = replace(opening, setup_done=purpose.number + 1)
        return
    where = " in the clean worktree of the final proof" if run.final.owed else ""
    run.failure = f"the worktree's set-up command `{event.command}` failed{where}: {_why(event)}"
    final_proof_failed(run, event)
    run.transition_to(MachineState.FAILED, event.at)


def lane_set_up(run: Draft, event: CommandMeasured, purpose: SettingUpLane) -> None:
    """A lane is ready for its story, or the story cannot be worked on: the set-up that fails here had not before."""
    work = work_of(run, purpose.story, event)
    expect(work.lane == purpose.lane, run, event)
    lane = run.lanes[purpose.lane]
    expect(lane.set_up == purpose.number, run, event)
    if reading_of(event.first, event.second).is_green:
        run.lanes = {**run.lanes, purpose.lane: replace(lane, set_up=lane.set_up + 1)}
        return
    reason = f"the set-up command `{event.command}` failed in a worktree of its own: {_why(event)}"
    run.put(replace(work, stage=Leaving(state=StoryState.BLOCKED, reason=reason, at=event.at)))


def baselined(run: Draft, event: CommandMeasured, check: str, evidence: Evidence) -> None:
    """One more check was run on the base commit: red there, it is inherited."""
    policy, opening = run.effective_config(), run.opening
    expect(opening.worktree_opened and opening.setup_done == len(policy.worktree.setup), run, event)
    expect(check in policy.checks and check not in {e.check for e in opening.baseline}, run, event)
    run.opening = replace(opening, baseline=(*opening.baseline, evidence))
    if not evidence.reading.is_green:
        run.inherited = (*run.inherited, check)


def _why(event: CommandMeasured) -> str:
    return event.first.reason or f"exit status {event.first.exit_status}"
