"""Planning: a free-form spec, or feedback (`core.feedback`), gets its stories before the first of them can begin.

The plan is an errand of the run itself. A plan that breaks the rules of specs is malformed, and so is one whose stories
could not be proven as the policy requires: either goes back to its agent with what is wrong. After `MOST_TRIES` of them
together the run has failed, and `resume` has it planned anew. Title, project and branch are those that the run was
opened with, whatever a plan says.
"""

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.artifacts import Plan, Triage
from storyloop.core.draft import Draft
from storyloop.core.errand import Delivered, GivenUp
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import Event, SpecPlanned
from storyloop.core.facts import Answered, Malformed, Outcome
from storyloop.core.feedback import heard_triage, is_unplanned, triaged, with_work
from storyloop.core.judge import unprovable
from storyloop.core.policy import Drain, Policy, Require
from storyloop.core.progress import StoryProgress
from storyloop.core.purpose import RUN, label_of
from storyloop.core.stages import Planned, Planning, Work, waiting_of
from storyloop.core.steps import fresh_continuation
from storyloop.core.words import MachineState

MOST_TRIES = 3
_LONGEST_FAULT = 1_500  # characters of what was wrong with a plan

_LACKING = {
    Require.CHECKS: "no command could prove it; give at least one of its criteria a <verify>",
    Require.CRITERIA: "each of its criteria needs a <verify>",
}


def planning_due(run: Draft) -> bool:
    """Whether the worktree is set up for a plan that nobody is at yet."""
    if run.work or not run.opening.worktree_opened or not is_unplanned(run):
        return False
    return run.opening.setup_done == len(run.effective_config().worktree.setup)


def planning_begun(run: Draft, event: Event) -> None:
    """An agent is to be asked for the plan."""
    run.plans += 1
    policy, drain = run.effective_config(), Drain.PLAN if run.feedback is None else Drain.TRIAGE
    errand, cs = errands.begin(
        f"{label_of(RUN)}/{run.plans}/{drain}",
        drain,
        chain=policy.chain_of(drain),
        cs=fresh_continuation(policy),
        table=run.cooling,
        now=event.at,
    )
    run.put(
        Work(story=RUN, iteration=run.plans, head=run.tip, tree=run.tip_tree, errand=errand, cs=cs, stage=Planning())
    )


def heard(run: Draft, planning: Planning, outcome: Outcome, policy: Policy) -> tuple[Planning, Outcome]:
    """The outcome as this policy sees it, and the tries with it: a plan that cannot be proven is malformed."""
    outcome = heard_triage(run, outcome)
    match outcome:
        case Answered(artifact=Plan(spec=spec)) if lacking := unprovable(spec, policy):
            from storyloop.core.spec_file import dump_spec  # slow to import, and hardly ever needed to fold a run

            errors = "\n".join(f"- story {name}: {_LACKING[policy.require]}" for name in lacking)
            outcome = Malformed(errors=errors, text=dump_spec(spec).decode())
        case _:
            pass
    if isinstance(outcome, Malformed):
        planning = replace(planning, tries=planning.tries + 1, fault=outcome.errors[:_LONGEST_FAULT])
    return planning, outcome


def plan_moved(run: Draft, work: Work, planning: Planning, event: Event) -> None:
    """What the errand's delivery or end, or one more invalid plan, means for the run."""
    match work.errand.stage:
        case _ if planning.tries >= MOST_TRIES:
            _failed(run, f"no valid {work.errand.drain} in {MOST_TRIES} tries. The last one:\n{planning.fault}", event)
        case Delivered(artifact=Plan(spec=plan)):
            spec = replace(run.spec, description=plan.description or run.spec.description)
            run.put(replace(work, stage=Planned(replace(spec, user_stories=plan.user_stories))))
        case Delivered(artifact=Triage() as triage):
            run.put(replace(work, stage=Planned(with_work(run, triage), triage)))
        case Delivered():
            raise IllegalTransition(run.machine_state, event)
        case GivenUp(reason=reason):
            _failed(run, f"there is no {work.errand.drain}: {reason}", event)
        case _:
            pass


def _failed(run: Draft, why: str, event: Event) -> None:
    run.failure, run.work = why, {}
    run.transition_to(MachineState.FAILED, event.at)


def spec_planned(run: Draft, event: SpecPlanned) -> None:
    """The stories are known, and may begin once the checks have their baseline."""
    work = run.work.get(RUN)
    planned = work.stage if work is not None else None
    if not isinstance(planned, Planned) or planned.spec != event.spec:
        raise IllegalTransition(run.machine_state, event)
    run.spec, run.work = event.spec, {}
    if planned.triage is not None:
        triaged(run, planned.triage)
    new = [story.id for story in event.spec.user_stories if story.id not in run.stories]
    for story in new:
        run.stand(story, StoryProgress())
    run.allow(len(new))
    run.transition_to(MachineState.INITIALIZING, event.at)


def planning_state(run: Draft) -> MachineState:
    """What a run without stories is doing."""
    work = run.work.get(RUN)
    if work is None:
        return MachineState.LOADING_SPEC
    return MachineState.WAITING if waiting_of(work) else MachineState.GENERATING_SPEC
