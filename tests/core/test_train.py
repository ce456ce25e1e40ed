"""Stories side by side: who has a worktree, who may land, and what becomes of who comes too late."""

from typing import Any

import pytest
from makers import (
    COMPLETED,
    GREEN,
    PARTIAL,
    RED,
    Run,
    asks,
    call_started,
    exited,
    facts_of,
    found,
    policy_of,
    reconciled,
    run_of,
    story,
)
from msgspec.structs import replace

from storyloop.core.effects import CallAgent, Effect, LandStory, LeaveStory, ParkRun, RunCommand, StartStory, TakeUp
from storyloop.core.policy import Budget, Drain, OnExhausted, Policy, ReviewPolicy, WorktreePolicy
from storyloop.core.purpose import Checking, SettingUpLane
from storyloop.core.stages import Building, Landing, Proving, Reconciling
from storyloop.core.train import turn_of
from storyloop.core.words import StoryState


def owed_for(run: Run, name: str) -> Effect:
    """The first deed that is owed for this story."""
    for effect in run.owed:
        about = getattr(effect, "story", None) or getattr(getattr(effect, "purpose", None), "story", None)
        if about == name:
            return effect
    raise AssertionError(f"nothing is owed for {name}, but {run.owed}")


def go(run: Run, name: str, until: type[Effect], **how: Any) -> Run:
    """What is owed for this story is done, benignly, until such a deed is owed for it."""
    for _ in range(50):
        effect = owed_for(run, name)
        if isinstance(effect, until):
            return run
        run.happened(*facts_of(effect, run.state, run.now, **how))
    raise AssertionError(f"{until.__name__} was never owed for {name}")


def do(run: Run, name: str, **how: Any) -> Run:
    """The deed that is owed for this story was done, and came to this."""
    return run.happened(*facts_of(owed_for(run, name), run.state, run.now, **how))


def asked(*names: str, width: int = 2, policy: Policy | None = None, **needs: str) -> Run:
    """A run in which as many of these stories as may be are at their first call."""
    stories = [story(name, *needs.get(name, "").split(), priority=n) for n, name in enumerate(names, start=1)]
    run = run_of(*stories, policy=policy, width=width)
    while not all(isinstance(effect, CallAgent) for effect in run.owed):
        run.did(type(next(effect for effect in run.owed if not isinstance(effect, CallAgent))))
    return run


def proven(run: Run, name: str) -> Run:
    """This story's agent has done its work, and all of it is green."""
    do(run, name)
    while run.work(name).stage.__class__ is not Landing:
        do(run, name)
    return run


def lanes(run: Run) -> dict[str, int | None]:
    return {work.story: work.lane for work in run.state.going.work.values()}


def test_the_first_in_order_is_in_the_runs_own_worktree_and_the_others_in_lanes() -> None:
    """So it lands as it was proven."""
    assert lanes(asked("A", "B", "C", width=3)) == {"A": 0, "B": 1, "C": 2}


def test_who_is_proven_too_early_waits_and_its_worktree_goes_to_the_next() -> None:
    """A slow first story holds back the landing of the others, not their work."""
    run = proven(asked("A", "B", "C"), "B")
    assert lanes(run) == {"A": 0, "B": None}
    start = owed_for(run, "C")
    assert isinstance(start, StartStory)
    assert start.lane == 1
    assert not any(isinstance(effect, LandStory | TakeUp) for effect in run.owed)


@pytest.mark.parametrize("first", ["B", "C"])
def test_landing_goes_by_the_order_of_the_spec(first: str) -> None:
    """Whoever was proven first."""
    run = asked("A", "B", "C", width=3)
    for name in (first, "C" if first == "B" else "B", "A"):
        proven(run, name)
    landed: list[str] = []
    while len(landed) < 3:
        effect = run.owed[0]
        landed += [effect.story] if isinstance(effect, LandStory) else []
        run.happened(*facts_of(effect, run.state, run.now))
    assert landed == ["A", "B", "C"]


def test_at_its_turn_a_story_is_proven_anew_on_what_has_landed_under_keys_of_its_own() -> None:
    """And exactly that tree is committed."""
    run = proven(asked("A", "B"), "B")
    go(proven(run, "A"), "A", LandStory)
    do(run, "A")
    do(run, "A")
    take_up = owed_for(run, "B")
    assert (take_up.key, getattr(take_up, "lane", None)) == ("B/2/turn/1", 0)
    do(run, "B")
    check = owed_for(run, "B")
    assert isinstance(check, RunCommand)
    assert check.purpose == Checking("B", 2, 0, "test", 1)
    assert check.key == "B/2/prove/0/turn/1/check/test/0"
    combined = run.work("B").pin
    assert combined is not None
    assert check.tree == combined.tree != "tree-B/2/story/0/1"
    do(run, "B")
    do(run, "B")
    assert run.state.going.tip_tree == combined.tree
    assert run.standing("B").landed == 2


def test_who_has_the_tip_still_below_it_lands_as_it_was_proven() -> None:
    """Nothing is run once more."""
    run = asked("A", "B").skipped("A")
    run.did(LeaveStory)
    do(run, "A")
    proven(run, "B")
    do(run, "B")
    assert isinstance(owed_for(run, "B"), LandStory)


def at_its_turn(policy: Policy | None = None, **how: Any) -> Run:
    """B is proven, and comes to its turn when A has landed."""
    run = proven(asked("A", "B", policy=policy), "B")
    go(proven(run, "A"), "A", LandStory)
    do(run, "A")
    do(run, "A")
    return do(run, "B", **how)


def test_who_is_red_on_what_has_landed_goes_back_and_keeps_the_turn() -> None:
    """The attempt fell short; the next one begins on the combined tree, and is told since when it has to look."""
    run = do(at_its_turn(), "B", first=RED, second=RED)
    work = run.work("B")
    assert (type(work.stage), work.lane, work.cs.continuation_attempt) == (Building, 0, 1)
    assert (work.since, work.head) == ("commit-base", run.state.going.tip)
    assert [red.evidence.label for red in work.red] == ["check test"]
    assert turn_of(run.state.going) == "B"


def test_who_has_no_attempt_left_is_blocked_and_the_others_land() -> None:
    """Its work on the combined tree is kept."""
    run = do(at_its_turn(policy_of(continuations=1)), "B", first=RED, second=RED)
    assert isinstance(owed_for(run, "B"), LeaveStory)
    do(run, "B")
    assert run.standing("B").state is StoryState.BLOCKED
    assert run.standing("B").reason == "1 attempt used up: not green: check test"


@pytest.mark.parametrize("how", [{"clashes": ("src/x.py",)}, {"clash": True}], ids=["marked", "not merged"])
def test_a_clash_is_an_errand_of_its_own_whose_result_is_proven(how: dict[str, Any]) -> None:
    """Before it can land."""
    run = at_its_turn(**how)
    call = owed_for(run, "B")
    assert isinstance(call, CallAgent)
    assert (call.drain, call.key) == (Drain.CONFLICT, "B/2/conflict/0/1")
    assert isinstance(run.work("B").stage, Reconciling)
    do(run, "B")
    assert owed_for(run, "B").key == "B/2/prove/0/turn/1/check/test/0"
    go(run, "B", LandStory)
    assert run.work("B").cs.continuation_attempt == 0


def test_files_that_hold_both_sides_still_are_never_proven() -> None:
    """Whoever left them so: it is an attempt that fell short."""
    run = at_its_turn(clashes=("src/x.py",))
    call = owed_for(run, "B")
    started, ended = facts_of(call, run.state, run.now, tree="tree-marked")
    run.happened(started, replace(ended, clashes=("src/x.py",)))  # pyright: ignore[reportCallIssue]
    work = run.work("B")
    assert (type(work.stage), work.errand.last_failure) == (Building, "a clash is not reconciled in src/x.py")


def test_a_clash_that_nobody_reconciles_goes_back_to_the_storys_own_agent() -> None:
    """With the reason."""
    run = do(at_its_turn(clashes=("src/x.py",)), "B", outcome=reconciled("failed", "They contradict."))
    work = run.work("B")
    assert type(work.stage) is Building
    assert work.errand.last_failure == "it clashes with what has landed meanwhile: They contradict."


def test_who_asks_a_human_is_passed_over_with_those_who_need_it() -> None:
    """And the others land."""
    run = asked("A", "B", "C", "D", width=3, D="A")
    do(run, "A", outcome=asks())
    assert turn_of(run.state.going) == "A"  # as long as it is in the way
    do(run, "A")
    assert lanes(run)["A"] is None
    assert turn_of(run.state.going) == "B"
    go(proven(run, "B"), "B", LandStory)


def test_a_proven_story_can_be_skipped_until_its_turn_has_come() -> None:
    """It holds no worktree, so nothing is to be waited for but the run's own."""
    run = proven(asked("A", "B"), "B").skipped("B")
    assert not any(getattr(effect, "story", None) == "B" for effect in run.owed)
    go(proven(run, "A"), "A", LandStory)
    do(run, "A")
    do(run, "A")
    do(run, "B")
    assert run.standing("B").state is StoryState.SKIPPED
    assert run.standing("B").pins == ("refs/blocked/B",)


def test_unproven_work_that_is_to_be_committed_waits_for_its_turn_and_stays_a_pin_where_it_clashes() -> None:
    """The branch does not depend on who gave up first."""
    policy = policy_of(continuations=1, on_exhausted=OnExhausted.COMMIT)
    run = do(asked("A", "B", policy=policy), "B", outcome=PARTIAL)
    do(run, "B", first=RED, second=RED)
    assert lanes(run)["B"] is None
    go(proven(run, "A"), "A", LandStory)
    do(run, "A")
    do(run, "A")
    do(run, "B", clash=True)
    do(run, "B")
    assert (run.standing("B").commits, run.standing("B").pins) == ((), ("refs/blocked/B",))


def test_a_lane_is_set_up_once() -> None:
    """Before its first story; the next one finds it so."""
    policy = replace(policy_of(), worktree=WorktreePolicy(setup=("npm ci",)))
    run = run_of(*(story(name, priority=n) for n, name in enumerate("ABC")), policy=policy, width=2).until(StartStory)
    do(run, "A")
    do(run, "B")
    set_up = owed_for(run, "B")
    assert isinstance(set_up, RunCommand)
    assert set_up.purpose == SettingUpLane("B", 2, 1, 0)
    go(run, "B", CallAgent)
    go(proven(run, "B"), "C", CallAgent)
    assert lanes(run) == {"A": 0, "B": None, "C": 1}
    assert [e.key for e in run.events if "/setup/" in e.key] == ["B/2/lane/1/setup/0/0"]


def test_a_set_up_that_fails_in_a_lane_blocks_the_story_that_is_in_it() -> None:
    """The run goes on."""
    policy = replace(policy_of(), worktree=WorktreePolicy(setup=("npm ci",)))
    run = run_of(story("A"), story("B"), policy=policy, width=2).until(StartStory)
    do(run, "A")
    do(run, "B")
    do(run, "B", first=exited(7))
    do(go(run, "B", LeaveStory), "B")
    assert run.standing("B").reason == ("the set-up command `npm ci` failed in a worktree of its own: exit status 7")


def test_calls_side_by_side_never_pass_the_budget_of_calls() -> None:
    """The last one is made once."""
    run = asked("A", "B", policy=replace(policy_of(), budget=Budget(calls=1)))
    (call,) = run.owed
    assert isinstance(call, CallAgent)
    run.happened(call_started(call, run.now))
    assert run.owed == (replace(call, begun=True),)


def test_a_story_that_lands_takes_no_room_from_those_that_ask() -> None:
    """Its checks run beside as many agents as there may be."""
    run = proven(asked("A", "B", "C", "D", "E", width=2), "A")
    assert {type(effect) for effect in run.owed} == {LandStory, CallAgent, StartStory}


def test_with_fewer_allowed_since_a_resume_what_is_under_way_is_seen_to_its_end() -> None:
    """Then only so many go on."""
    run = asked("A", "B", "C", width=3)
    for call in run.owed:
        assert isinstance(call, CallAgent)
        run.happened(call_started(call, run.now))
    run.interrupted().resumed(replace(run.policy, limits=replace(run.policy.limits, parallel=1)))
    assert len(run.owed) == 1
    assert run.to_end(outcome=COMPLETED, first=GREEN).state.going.widest == 3


def test_the_run_parks_when_nobody_has_anything_to_do_but_to_wait() -> None:
    """What others are at goes on first."""
    run = asked("A", "B", policy=replace(policy_of(), step=True))
    do(run, "A")
    do(run, "A")
    assert [type(effect) for effect in run.owed] == [CallAgent]
    do(run, "B")
    do(run, "B")
    assert [type(effect) for effect in run.owed] == [ParkRun]


def test_what_was_read_waits_for_its_turn_when_mending_it_came_to_nothing() -> None:
    """Its lane is known to hold what was tried; on what has landed meanwhile it is proven anew, and that no reviewer
    has read it there is said."""
    policy = replace(policy_of("a", "b", continuations=2), review=ReviewPolicy(per_story=True))
    run = asked("A", "B", policy=policy)
    go(do(run, "B", tree="tree-1"), "B", CallAgent)
    go(do(run, "B", outcome=found("The sum is wrong")), "B", CallAgent)
    do(run, "B", tree="tree-2")
    do(run, "B", first=RED, second=RED)
    work = run.work("B")
    assert isinstance(work.stage, Landing)
    assert work.pin is not None
    assert (work.stage.tree, work.pin.tree, work.lane, run.state.going.lanes[1].tree) == (
        *("tree-1", "tree-1", None, "tree-2"),
    )
    go(run, "A", LandStory)
    do(do(do(run, "A"), "A"), "B")
    assert isinstance(again := run.work("B").stage, Proving)
    assert again.tree == "tree-1+tree-A/1/story/0/1"
    do(go(run, "B", LandStory), "B")
    assert run.standing("B").reason == (
        "review: fix attempts used up, 1 issue open; reviewed before it was merged with what landed meanwhile"
    )


def test_what_was_read_before_others_landed_never_lands_over_them() -> None:
    """It was mended, and is red on what has landed meanwhile: what it was before would take that away."""
    policy = replace(policy_of("a", "b", continuations=3), review=ReviewPolicy(per_story=True))
    run = asked("A", "B", policy=policy)
    go(do(run, "B", tree="tree-1"), "B", CallAgent)
    go(do(run, "B", outcome=found("The sum is wrong")), "B", CallAgent)
    go(do(run, "B", tree="tree-2"), "B", CallAgent)
    go(do(run, "B", outcome=found()), "A", LandStory)
    do(do(do(run, "A"), "A"), "B")
    do(run, "B", first=RED, second=RED)
    go(run, "B", CallAgent)
    do(do(run, "B", tree="tree-3"), "B", first=RED, second=RED)
    assert isinstance(owed_for(run, "B"), LeaveStory)
