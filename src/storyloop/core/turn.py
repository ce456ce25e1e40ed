"""A turn: what was proven in a lane is put onto what has landed meanwhile, is proven anew, and lands or goes back."""

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.artifacts import ConflictResult
from storyloop.core.attempt import fell_short, worked, worked_on
from storyloop.core.draft import Draft
from storyloop.core.errand import Errand, GivenUp, Shortfall
from storyloop.core.events import Event, StoryTakenUp
from storyloop.core.passing import afforded
from storyloop.core.policy import Drain
from storyloop.core.stages import Landing, Leaving, Reconciling, Work
from storyloop.core.steps import expect, with_errand
from storyloop.core.words import ConflictStatus, DevelopmentStatus


def turn_come(run: Draft, work: Work, event: StoryTakenUp) -> None:
    """It is in the run's own worktree, on the tip: nothing else lands before it has ended."""
    expect((event.lane, event.head, event.tree) == (0, run.tip, run.tip_tree), run, event)
    expect(all(other.lane != 0 for other in run.work.values()), run, event)
    run.find(*event.findings)
    stage, is_new, clashed = work.stage, event.head != work.head, event.pin is None or bool(event.clashes)
    assert isinstance(stage, Landing | Leaving)
    work = replace(work, lane=0, turns=work.turns + 1)
    if is_new:
        work = replace(
            work,
            since=work.head,
            head=event.head,
            tree=event.tree,
            pin=event.pin or work.pin,
            changed=event.changed,
            clashes=event.clashes,
        )
    match stage:
        case Leaving():  # unproven work is committed where it fits, and is kept by its pin alone where it does not
            run.put(replace(work, stage=replace(stage, commit_unproven=not (is_new and clashed))))
        case Landing() if not is_new:
            run.put(work)
        case Landing() if clashed:
            _clashed(run, work, stage, event)
        case Landing():
            worked_on(run, work, stage, event)


def reconciled(run: Draft, work: Work, reconciling: Reconciling, result: ConflictResult, event: Event) -> None:
    """Somebody made one of both sides, which is proven as everything else is; or could not."""
    if result.status is ConflictStatus.FAILED:
        not_reconciled(run, work, reconciling, result.summary, event)
        return
    landing, work = reconciling.landing, replace(work, cs=reconciling.before)
    worked(run, work, replace(landing.result, status=DevelopmentStatus.COMPLETED, next_steps=None), event)


def not_reconciled(run: Draft, work: Work, reconciling: Reconciling, why: str, event: Event) -> None:
    """The story's own agent goes on, on the branch as it is now."""
    landing = reconciling.landing
    why = " ".join(why.split())[:300]
    shortfall = Shortfall(
        status=DevelopmentStatus.FAILED,
        summary=landing.result.summary,
        files=work.changed,
        next_steps=None,
        asked=f"Your work was green, but what landed meanwhile changed the same places: {why}\nDo it on top of that.",
        reason=f"it clashes with what has landed meanwhile: {why}",
        fingerprint=f"clash/{work.label}/{landing.tree}/{work.head}",
    )
    fell_short(run, replace(work, cs=reconciling.before), shortfall, event, evidence=landing.evidence)


def _clashed(run: Draft, work: Work, landing: Landing, event: Event) -> None:
    """The conflict errand is asked: one for all clashes of an iteration, so that one cap holds its calls."""
    policy = run.effective_config()
    chain = policy.chain_of(Drain.CONFLICT)
    key = f"{work.label}/{work.iteration}/{Drain.CONFLICT}"
    errand, cs = errands.asked_anew(
        work.conflict or Errand(key=key, drain=Drain.CONFLICT, chain=chain),
        work.cs.context_written().clear_continue_pending().clear_same_agent_retries(),
        chain=chain,
        table=run.cooling,
        limits=policy.limits,
        now=event.at,
    )
    reconciling = Reconciling(landing=landing, before=work.cs)
    work = replace(work, stage=reconciling)
    errand = afforded(run, work, errand)
    work = with_errand(run, work, errand, cs)
    if isinstance(errand.stage, GivenUp):
        not_reconciled(run, work, reconciling, errand.stage.reason, event)
