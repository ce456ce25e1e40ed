"""Planning: when a free-form spec is planned, what counts as a plan, how often it is tried, and what comes of it."""

from typing import Any

import pytest
from makers import (
    CRASHED,
    INTERRUPTED,
    LOGGED_OUT,
    MALFORMED,
    MISSING,
    Run,
    call_started,
    later,
    limited,
    planned,
    policy_of,
    spec_of,
    story,
)
from msgspec.structs import replace

from storyloop.core.bounds import bounds
from storyloop.core.effects import CallAgent, OpenWorktree, RunCommand, StartStory, WriteSpec
from storyloop.core.errand import Mode
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import RunFinished, SpecPlanned
from storyloop.core.facts import Outcome
from storyloop.core.policy import Command, Drain, Policy, Require, WorktreePolicy
from storyloop.core.purpose import Baselining, SettingUp
from storyloop.core.usage import Usage
from storyloop.core.words import MachineState, RunStatus

IDEA = replace(spec_of(), title="An idea", description="Make it fast.\n")
PROVEN, BARE = story("US-002", verify=("v",)), story("US-001")
GOOD, LACKING = planned(PROVEN), planned(BARE, PROVEN)
WITHOUT_CHECKS = policy_of(checks=())


def idea(policy: Policy | None = None) -> Run:
    return Run(IDEA, policy or policy_of())


def asked(policy: Policy | None = None) -> Run:
    """The plan is owed."""
    return idea(policy).until(CallAgent)


def test_the_plan_is_owed_between_the_set_up_and_the_baseline() -> None:
    """The agent finds a worktree that works; what is measured is what it did not touch."""
    run = idea(replace(policy_of(), worktree=WorktreePolicy(setup=("npm ci",))))
    seen: list[tuple[str, MachineState]] = []
    while not isinstance(run.due, StartStory):
        seen.append((type(run.due).__name__, run.state.machine_state))
        run.did(**({"outcome": GOOD} if isinstance(run.due, CallAgent) else {}))
    assert seen == [
        (OpenWorktree.__name__, MachineState.LOADING_SPEC),
        (RunCommand.__name__, MachineState.LOADING_SPEC),
        (CallAgent.__name__, MachineState.GENERATING_SPEC),
        (WriteSpec.__name__, MachineState.GENERATING_SPEC),
        (RunCommand.__name__, MachineState.INITIALIZING),
    ]
    purposes = [event.purpose for event in run.events if hasattr(event, "purpose")]
    assert purposes == [SettingUp(0), Baselining("test")]


def test_a_spec_in_markdown_that_has_its_stories_is_loaded_at_once() -> None:
    """And one in JSON was never to be loaded."""
    run = Run(spec_of(PROVEN), policy_of())
    assert run.state.machine_state is MachineState.INITIALIZING


def test_the_stories_are_the_plans_and_the_names_are_the_texts() -> None:
    """Title, project and branch are as the run was opened with; the plan describes the whole, if it does."""
    told = planned(PROVEN, BARE, title="Other", project="other", branch_name="other/x", description="In two steps.")
    run = asked().did(outcome=told).did()
    assert run.state.going.spec == replace(IDEA, description="In two steps.", user_stories=(PROVEN, BARE))
    assert list(run.state.going.stories) == ["US-002", "US-001"]
    assert run.state.going.ledger.iterations_allowed == 2
    assert run.state.going.work == {}
    plain = asked().did(outcome=GOOD).did()
    assert plain.state.going.spec.description == "Make it fast.\n"


def test_a_planned_run_goes_on_to_its_end_like_any_other() -> None:
    """The stories are built, proven and shipped."""
    run = asked().did(outcome=GOOD).to_end()
    assert run.state.status is RunStatus.COMPLETED
    assert run.standing("US-002").state == "passed"


def test_what_planning_used_is_counted_as_planning() -> None:
    """Under the reference's key, and in the total."""
    run = asked().did(outcome=MALFORMED, usage=Usage(input_tokens=5)).did(outcome=GOOD, usage=Usage(input_tokens=2))
    assert run.state.phase_usage == {"Planning": Usage(input_tokens=7)}
    assert run.state.going.ledger.calls == 2


# what the policy requires, the plan, what its agent is told
RULES: dict[str, tuple[Policy, Outcome, str | None]] = {
    "a check proves any story": (policy_of(), planned(BARE), None),
    "a command of its own does": (WITHOUT_CHECKS, GOOD, None),
    "nothing does": (WITHOUT_CHECKS, LACKING, "- story US-001: no command could prove it; give at least one of"),
    "nothing needs to": (replace(WITHOUT_CHECKS, require=Require.NONE), planned(BARE), None),
    "each criterion has one": (replace(policy_of(), require=Require.CRITERIA), GOOD, None),
    "one has none": (replace(policy_of(), require=Require.CRITERIA), LACKING, "- story US-001: each of its criteria"),
}


@pytest.mark.parametrize(("policy", "plan", "told"), RULES.values(), ids=RULES)
def test_a_plan_must_be_provable_as_the_policy_requires(policy: Policy, plan: Outcome, told: str | None) -> None:
    """By the rule for specs that users write; else it goes back to the same agent, as one whose form is wrong."""
    run = asked(policy).did(outcome=plan, session="s-1")
    if told is None:
        assert isinstance(run.due, WriteSpec)
        return
    assert run.call.mode is Mode.FORMAT_RETRY
    work = run.work("")
    assert (work.cs.last_xsd_error or "").startswith(told)
    assert "US-001" in work.errand.invalid_text


ENDINGS: dict[str, tuple[list[Outcome], dict[str, Any], str]] = {
    "always malformed": ([MALFORMED] * 3, {}, "no valid plan in 3 tries. The last one:\nline 3: status is missing"),
    "never there": ([MISSING] * 3, {}, "no valid plan in 3 tries. The last one:\nthere is no artifact"),
    "wrong in two ways": (
        [MALFORMED, LACKING, LACKING],
        {},
        "no valid plan in 3 tries. The last one:\n- story US-001: no",
    ),
    "a call that broke is no try": (
        [MALFORMED, CRASHED, MALFORMED, INTERRUPTED, MALFORMED],
        {},
        "no valid plan in 3 tries",
    ),
    "every call breaks": ([CRASHED] * 4, {"calls_per_errand": 4}, "there is no plan: all 4 calls of the errand"),
    "whoever is asked": ([MALFORMED] * 3, {"format_retries": 0}, "no valid plan in 3 tries"),
}


@pytest.mark.parametrize(("outcomes", "limits", "failure"), ENDINGS.values(), ids=ENDINGS)
def test_after_three_tries_or_all_its_calls_the_run_has_failed(
    outcomes: list[Outcome], limits: dict[str, Any], failure: str
) -> None:
    """And says why; nothing is owed any more."""
    run = asked(policy_of("a", "b", checks=(), **limits))
    for outcome in outcomes:
        assert run.state.status is RunStatus.RUNNING
        run.until(CallAgent).did(outcome=outcome)
    assert (run.state.status, run.owed) == (RunStatus.FAILED, ())
    assert run.state.going.failure.startswith(failure)


def test_a_resumed_run_is_planned_anew_and_stays_within_what_that_adds() -> None:
    """With three tries again, in calls that are told from the first ones."""
    run = asked()
    for _ in range(3):
        run.did(outcome=MALFORMED)
    run.resumed()
    assert run.call.key == "@run/2/plan/0/1"
    assert run.state.machine_state is MachineState.GENERATING_SPEC
    run.did(outcome=MALFORMED).did(outcome=GOOD).did()
    assert list(run.state.going.stories) == ["US-002"]
    assert run.state.going.plans == 2


def test_an_interrupted_plan_is_asked_for_again() -> None:
    """No try is lost by it, and the call under way is found."""
    run = asked()
    run.happened(call_started(run.call, run.now)).interrupted().resumed()
    assert run.call.begun
    run.did(outcome=INTERRUPTED)
    assert (run.call.begun, run.call.mode) == (False, Mode.SAME_AGENT_RETRY)
    assert isinstance(run.did(outcome=GOOD).due, WriteSpec)


def test_a_plan_waits_and_parks_like_any_errand() -> None:
    """A limit with an end is waited for; where nobody is logged in, a human is needed."""
    waits = asked().did(outcome=limited(later(600)))
    assert waits.state.machine_state is MachineState.WAITING
    assert isinstance(waits.did().due, CallAgent)
    parked = asked().did(outcome=LOGGED_OUT).did()
    assert parked.state.status is RunStatus.PARKED
    assert isinstance(parked.resumed().due, CallAgent)
    assert parked.state.machine_state is MachineState.GENERATING_SPEC


def test_nothing_of_a_story_happens_before_the_plan_is_written_down() -> None:
    """Nor does the run end, nor is another plan taken than the one that was given."""
    run = asked().did(outcome=GOOD)
    assert isinstance(run.due, WriteSpec)
    with pytest.raises(IllegalTransition):
        run.happened(SpecPlanned(key="x", at=run.now, spec=spec_of(BARE)))
    with pytest.raises(IllegalTransition):
        run.happened(RunFinished(key="x", at=run.now, shipped=True))
    with pytest.raises(IllegalTransition):
        asked().happened(SpecPlanned(key="x", at=run.now, spec=IDEA))


def test_before_there_is_a_plan_the_most_that_one_may_hold_bounds_the_run() -> None:
    """A hundred stories of twenty criteria, each of which the final proof may send back, and the plan's own errand."""
    policy = policy_of(checks=(), calls_per_errand=5, continuations=1, check_timeout=1.0)
    most = bounds(IDEA, policy)
    assert (most.stories, most.calls) == (100, 5 + 200 * 5)
    # each story and its return: 20 proofs, an attempt with 2 * 20, 20 without the work; then two rounds of 2 * 100 * 20
    assert most.check_seconds == 200 * (20 + 40 + 20) + 2 * 4000
    assert bounds(spec_of(story("US-001", passes=True)), policy).calls == 0


def test_a_plan_drain_that_is_bound_has_its_own_chain() -> None:
    """And the stories have theirs."""
    policy = replace(policy_of("a"), drains={Drain.PLAN: policy_of("p").chain}, checks={"test": Command(run="t")})
    run = asked(policy)
    assert str(run.call.ref) == "p"
    assert str(run.did(outcome=GOOD).until(CallAgent).call.ref) == "a"
