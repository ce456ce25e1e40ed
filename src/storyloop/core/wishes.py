"""Wishes: what humans ask of a run, as it folds: a story skipped or tried again, and the run itself taken up."""

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.attempt import measured_anew
from storyloop.core.calling import errand_moved
from storyloop.core.draft import Draft
from storyloop.core.events import RunResumed, StoryReopened, StorySkipped
from storyloop.core.feedback import is_unplanned
from storyloop.core.final import proven_anew
from storyloop.core.policy import Policy
from storyloop.core.progress import Progress
from storyloop.core.review import is_review_due
from storyloop.core.stages import Leaving, can_be_left, errand_of
from storyloop.core.steps import block_all_dependents, block_dependents, chain_of, expect, is_initializing, with_errand
from storyloop.core.words import MachineState, RunStatus, StoryState


def is_unfinished(run: Progress | Draft, policy: Policy, cycle: int) -> bool:
    """Whether a run that has failed could go on; `cycle` is that of the review."""
    is_open = any(standing.state is StoryState.OPEN for standing in run.stories.values())
    return is_open or bool(run.work) or bool(run.failure) or is_review_due(run, policy, cycle)


def inbox_seen(run: Draft, number: int) -> None:
    """So far the requests of others were dealt with."""
    run.inbox_seen = max(run.inbox_seen, number)


def skipped(run: Draft, event: StorySkipped) -> None:
    """A story is not to be done: it is blocked from being begun, or what is there of it is left."""
    standing = run.stories.get(event.story)
    open_or_blocked = (StoryState.OPEN, StoryState.BLOCKED, StoryState.BUILDING)
    expect(standing is not None and standing.state in open_or_blocked, run, event)
    assert standing is not None
    reason = "skipped by a human"
    work = run.work.get(event.story)
    if work is not None:
        expect(can_be_left(work), run, event)
        run.put_in_line(replace(work, stage=Leaving(state=StoryState.SKIPPED, reason=reason, at=event.at)))
        return
    if standing.state is StoryState.OPEN:
        run.allow(-1)
    run.stand(event.story, replace(standing, state=StoryState.SKIPPED, reason=reason, blocked_by=None))
    block_dependents(run, event.story)


def reopened(run: Draft, event: StoryReopened) -> None:
    """A story that had ended is begun again, with those that it blocked."""
    standing = run.stories.get(event.story)
    ended = (StoryState.BLOCKED, StoryState.SKIPPED)
    expect(standing is not None and standing.state in ended, run, event)
    expect(event.story not in run.work, run, event)  # it is still being left
    reopened = {event.story} | {name for name, s in run.stories.items() if s.blocked_by == event.story}
    for name in reopened:
        run.stand(name, replace(run.stories[name], state=StoryState.OPEN, reason="", blocked_by=None))
    run.hints = run.hints | {event.story: event.hint}
    run.allow(len(reopened))
    run.review_iteration = 0  # what comes of it is reviewed with cycles of its own
    block_all_dependents(run)  # others may still be in the way


def resumed(run: Draft, event: RunResumed) -> None:
    """A process takes the run up, where it stands."""
    expect(run.status is not RunStatus.COMPLETED, run, event)
    unfinished = is_unfinished(run, run.effective_config(), run.review_iteration)
    expect(run.status is not RunStatus.FAILED or unfinished, run, event)
    stands, died = run.status in (RunStatus.FAILED, RunStatus.PARKED), run.status is RunStatus.RUNNING
    if event.policy is not None:
        if event.policy.checks != run.effective_config().checks:
            run.final = replace(run.final, tree="")
        run.config, run.set_up = event.policy, False
        run.widest = max(run.widest, event.policy.limits.parallel)
    policy = run.effective_config()
    # A failed or parked run leaves that state here; where it then stands follows from the rest of the state.
    if stands:
        run.delivery = replace(run.delivery, settled="", asked=False)
        run.transition_to(_taken_up(run), event.at)
    run.status = RunStatus.RUNNING
    run.parked, run.failure, run.resumes = None, "", run.resumes + 1
    run.cooling = {name: cooling for name, cooling in run.cooling.items() if cooling.until is not None}
    if len(run.opening.baseline) < len(policy.checks):
        run.opening, run.inherited, run.set_up = replace(run.opening, baseline=()), (), False
    proven_anew(run)
    for standing in list(run.work.values()):
        work = measured_anew(run, standing)
        errand, cs = errand_of(work)
        chain = chain_of(run, errand.drain, attempt=errands.attempt_of(cs), work=work)
        if chain and chain != errand.chain:
            errand, cs = errands.rechained(errand, cs, chain=chain, table=run.cooling, now=event.at)
        elif isinstance(errand.stage, errands.Stranded):
            errand, cs = errands.wait_ended(errand, cs, table=run.cooling, now=event.at)
            errand_moved(run, with_errand(run, work, errand, cs), event)  # its story may have spent all it has
            continue
        elif isinstance(errand.stage, errands.Waiting) and not died:
            # Nobody has waited since the run was parked or stopped; how long the dead had waited nobody knows.
            waiting = replace(errand.stage, since=min(event.at, errand.stage.until))
            errand = replace(errand, stage=waiting)
        with_errand(run, work, errand, cs)


def _taken_up(run: Draft) -> MachineState:
    if is_unplanned(run):
        return MachineState.LOADING_SPEC
    return MachineState.INITIALIZING if is_initializing(run) else MachineState.PICKING_STORY
