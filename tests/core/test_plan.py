"""What a run owes in each of its stages, under which key, and what humans, budgets and waits do to it.

A journey is a list of the keys of the deeds that were owed, one after the other, written by hand.
"""

from typing import Any

import pytest
from makers import (
    BASE_TREE,
    COMPLETED,
    CRASHED,
    GREEN,
    INTERRUPTED,
    LOGGED_OUT,
    MALFORMED,
    OFFLINE,
    PARTIAL,
    RED,
    Run,
    call_ended,
    call_started,
    chain,
    later,
    limited,
    policy_of,
    run_of,
    story,
    worded,
)
from msgspec.structs import replace

from storyloop.core.effects import (
    CallAgent,
    CleanHandover,
    Effect,
    FinishRun,
    LandStory,
    LeaveStory,
    ParkRun,
    RunCommand,
    StartStory,
    Wait,
    WriteHandover,
)
from storyloop.core.errand import Owed
from storyloop.core.policy import Budget, Command, Drain, OnExhausted, Require, WorktreePolicy
from storyloop.core.progress import ParkedFor
from storyloop.core.purpose import (
    Baselining,
    Checking,
    Demonstrating,
    FinalChecking,
    FinalDemonstrating,
    Probing,
    SettingUp,
)
from storyloop.core.spec import Story
from storyloop.core.usage import Usage
from storyloop.core.words import IterationStatus, MachineState, RunStatus, StoryState


def keys_to_end(run: Run, **how: Any) -> list[str]:
    """The keys of all deeds until nothing is owed any more."""
    keys: list[str] = []
    while run.owed:
        keys.append(run.due.key)
        run.did(**how)
    return keys


def at_first_call(*stories: Story, **policy: Any) -> Run:
    return run_of(*stories, policy=replace(policy_of(), **policy) if policy else None).until(CallAgent)


def states(run: Run) -> dict[str, str]:
    return {name: str(standing.state) for name, standing in run.state.going.stories.items()}


# --- a whole run ------------------------------------------------------------------------------------------


def test_a_run_that_goes_well_owes_these_deeds_in_this_order() -> None:
    """Open, set up, baseline; for each story: clean, probe, ask, prove, land, clean; then the final proof of both."""
    policy = replace(policy_of(checks=("lint", "test")), worktree=WorktreePolicy(setup=("npm ci", "make")))
    run = run_of(story("US-001", verify=("v1", "v2")), story("US-002"), policy=policy)
    assert keys_to_end(run) == [
        "open/worktree",
        "setup/0/0",
        "setup/1/0",
        "baseline/lint/0",
        "baseline/test/0",
        "US-001/1/start",
        "US-001/1/clean/start",
        "US-001/1/probe/1/0",
        "US-001/1/probe/2/0",
        "US-001/1/story/0/1",
        "US-001/1/prove/0/check/lint/0",
        "US-001/1/prove/0/check/test/0",
        "US-001/1/prove/0/criterion/1/0",
        "US-001/1/prove/0/criterion/2/0",
        "US-001/1/land",
        "US-001/1/clean/end",
        "US-002/2/start",
        "US-002/2/clean/start",
        "US-002/2/story/0/1",
        "US-002/2/prove/0/check/lint/0",
        "US-002/2/prove/0/check/test/0",
        "US-002/2/land",
        "US-002/2/clean/end",
        "final/1/scrub/0",
        "final/1/setup/0/0",
        "final/1/setup/1/0",
        "final/1/check/lint/0",
        "final/1/check/test/0",
        "final/1/criterion/US-001/1/0",
        "final/1/criterion/US-001/2/0",
        "finish/0",
    ]
    assert (run.state.status, run.state.machine_state) == (RunStatus.COMPLETED, MachineState.COMPLETED)


def test_a_story_that_fails_owes_a_handover_before_each_continuation_and_is_left_at_the_end() -> None:
    """Calls count through, attempts and their proofs are told apart by their number."""
    run = at_first_call(story("US-001"), story("US-002", "US-001"))
    assert keys_to_end(run, first=RED, second=RED) == [
        "US-001/1/story/0/1",
        "US-001/1/prove/0/check/test/0",
        "US-001/1/story/1/1/handover",
        "US-001/1/story/1/2",
        "US-001/1/prove/1/check/test/0",
        "US-001/1/story/2/2/handover",
        "US-001/1/story/2/3",
        "US-001/1/prove/2/check/test/0",
        "US-001/1/leave",
        "US-001/1/clean/end",
        "finish/0",
    ]
    assert (run.state.status, states(run)) == (RunStatus.FAILED, {"US-001": "blocked", "US-002": "blocked"})


def test_a_bound_commit_drain_words_the_message_before_the_landing() -> None:
    """An errand of its own, with calls of its own; the story's calls are the sum."""
    run = run_of(policy=policy_of("a", commit=("c",))).attempted()
    assert run.call == CallAgent(
        key="US-001/1/commit/0/1",
        story="US-001",
        drain=Drain.COMMIT,
        attempt=0,
        call=1,
        ref=chain("c")[0],
        mode="fresh",  # pyright: ignore[reportArgumentType] - the value that STORYLOOP_MODE carries
        begun=False,
    )
    assert run.state.machine_state is MachineState.COMMITTING
    keys = [run.due.key]
    run.did(outcome=MALFORMED)
    keys.append(run.due.key)
    run.did(outcome=worded("Add x"))
    keys.append(run.due.key)
    assert keys == ["US-001/1/commit/0/1", "US-001/1/commit/0/2", "US-001/1/land"]
    assert run.did().standing("US-001").calls == 3


def test_a_commit_errand_that_is_given_up_does_not_keep_the_story_from_landing() -> None:
    """The message is then ours."""
    run = run_of(policy=policy_of("a", commit=("c",), same_agent_retries=1, chain_cycles=1)).attempted()
    run.did(outcome=CRASHED)
    assert isinstance(run.due, LandStory)
    assert run.did().standing("US-001").state is StoryState.PASSED


def test_what_the_wording_agent_left_in_the_files_is_not_landed() -> None:
    """The proven tree is landed, not what lies there afterwards."""
    run = run_of(policy=policy_of("a", commit=("c",))).attempted(tree="tree-proven").did(tree="tree-of-the-writer")
    assert run.until(LandStory).did().state.going.tip_tree == "tree-proven"


def test_a_story_without_changes_needs_no_message() -> None:
    """There is no commit to word."""
    run = run_of(story("US-001", verify=("v1",)), policy=policy_of("a", commit=("c",)))
    assert isinstance(run.attempted(tree=BASE_TREE).due, LandStory)
    assert run.did().standing("US-001").commits == ()


# --- what each deed is given ------------------------------------------------------------------------------


def test_every_command_is_run_on_the_tree_that_it_is_about() -> None:
    """Set-up on what is there; baseline on the base, probes on the start, proofs on the attempt, then on the tip."""
    policy = replace(policy_of(check_timeout=60.0), worktree=WorktreePolicy(setup=("npm ci",)))
    run = run_of(story("US-001"), story("US-002", verify=("v1",)), policy=policy)
    run.until(CallAgent).did(tree="tree-1")
    told: list[tuple[object, str, str | None, float]] = []
    run = run_of(story("US-001"), story("US-002", verify=("v1",)), policy=policy)
    while run.owed:
        if isinstance(run.due, RunCommand):
            told.append((run.due.purpose, run.due.command.run, run.due.tree, run.due.timeout))
        run.did(**({"tree": f"tree-{run.due.story}"} if isinstance(run.due, CallAgent) else {}))
    assert told == [
        (SettingUp(0), "npm ci", None, 60.0),
        (Baselining("test"), "run test", BASE_TREE, 60.0),
        (Checking(story="US-001", iteration=1, attempt=0, check="test"), "run test", "tree-US-001", 60.0),
        (Probing(story="US-002", iteration=2, criterion=1), "v1", "tree-US-001", 60.0),
        (Checking(story="US-002", iteration=2, attempt=0, check="test"), "run test", "tree-US-002", 60.0),
        (Demonstrating(story="US-002", iteration=2, attempt=0, criterion=1), "v1", "tree-US-002", 60.0),
        (SettingUp(0, round=1), "npm ci", None, 60.0),
        (FinalChecking(1, "test"), "run test", "tree-US-002", 60.0),
        (FinalDemonstrating(1, "US-002", 1), "v1", "tree-US-002", 60.0),
    ]


def test_a_call_that_was_begun_is_owed_under_the_same_key_and_said_to_be_begun() -> None:
    """So that an agent in mid-turn is adopted, not asked again."""
    run = at_first_call()
    before = run.call
    run.happened(call_started(before, run.now))
    assert run.call == replace(before, begun=True)


@pytest.mark.parametrize(
    ("outcomes", "attempt", "call", "ref", "mode"),
    [
        ([], 0, 1, "a", "fresh"),
        ([MALFORMED], 0, 2, "a", "format-retry"),
        ([CRASHED], 0, 2, "a", "same-agent-retry"),
        ([INTERRUPTED], 0, 2, "a", "same-agent-retry"),
        ([CRASHED, CRASHED], 0, 3, "b:m", "fresh"),
        ([PARTIAL], 1, 2, "a", "continuation"),
        ([PARTIAL, CRASHED, CRASHED], 1, 4, "b:m", "continuation"),
    ],
)
def test_a_call_carries_its_attempt_its_number_its_agent_and_its_mode(
    outcomes: list[Any], attempt: int, call: int, ref: str, mode: str
) -> None:
    """What STORYLOOP_ATTEMPT, STORYLOOP_CALL and STORYLOOP_MODE tell the agent."""
    run = run_of(policy=policy_of("a", "b:m"))
    for outcome in outcomes:
        run.attempted(outcome)
    owed = run.until(CallAgent).call
    assert (owed.attempt, owed.call, str(owed.ref), owed.mode) == (attempt, call, ref, mode)
    assert owed.key == f"US-001/1/story/{attempt}/{call}"


# --- when nothing is owed ---------------------------------------------------------------------------------

QUIET = {
    "completed": lambda: run_of().to_end(),
    "failed": lambda: run_of(policy=policy_of(continuations=1)).to_end(first=RED, second=RED),
    "parked": lambda: run_of(policy=replace(policy_of(), budget=Budget(calls=0))).until(ParkRun).did(),
    "interrupted": lambda: at_first_call().interrupted(),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_nothing_is_owed_by_a_run_that_is_not_running(run: Any) -> None:
    """Until somebody resumes it."""
    assert run().owed == ()


def test_a_resumed_run_owes_what_it_owed() -> None:
    """The same deed, under the same key."""
    run = at_first_call()
    owed = run.due
    assert run.interrupted().resumed().due == owed


def test_a_run_killed_without_a_word_is_resumed_as_well() -> None:
    """Its status still says running."""
    run = at_first_call()
    owed = run.due
    assert run.resumed().due == owed


@pytest.mark.parametrize("kind", [StartStory, CleanHandover, CallAgent, LandStory, FinishRun])
def test_an_interruption_anywhere_changes_nothing_that_is_owed(kind: type[Effect]) -> None:
    """Which deed comes next follows from the state alone."""
    run = run_of().until(kind)
    owed = run.due
    resumed = run.interrupted().resumed().due
    assert (type(resumed), resumed.key) == (type(owed), owed.key.replace("finish/0", "finish/1"))


def test_a_round_of_commands_that_was_broken_off_is_measured_anew() -> None:
    """What its commands had made for each other, and the very tree, may be gone; a round that is over stays so."""
    run = run_of(story("US-001", verify=("a", "b")), policy=policy_of(checks=("lint", "test")))
    rounds = [
        (Baselining("lint"), "baseline/test", "baseline/lint"),
        (Probing(story="US-001", iteration=1, criterion=1), "US-001/1/probe/2", "US-001/1/probe/1"),
        (
            Checking(story="US-001", iteration=1, attempt=0, check="lint"),
            "US-001/1/prove/0/check/test",
            "US-001/1/prove/0/check/lint",
        ),
    ]
    for resumes, (first, next_one, again) in enumerate(rounds):
        while not (isinstance(run.due, RunCommand) and run.due.purpose == first):
            run.did()
        assert run.did(first=RED).due.key == f"{next_one}/{resumes}"
        assert run.interrupted().resumed().due.key == f"{again}/{resumes + 1}"
    assert run.state.going.inherited == ()
    assert run.to_end().state.status is RunStatus.COMPLETED
    assert [e.reading for e in run.standing("US-001").evidence] == ["green"] * 4


def test_a_set_up_that_fails_ends_the_run_and_a_resume_tries_it_again() -> None:
    """Under a key of its own; what had succeeded is not repeated."""
    run = run_of(policy=replace(policy_of(), worktree=WorktreePolicy(setup=("npm ci", "make"))))
    run.did().did().did(first=RED)
    assert (run.state.status, run.owed) == (RunStatus.FAILED, ())
    assert run.state.going.failure == "the worktree's set-up command `make` failed: exit status 1"
    assert run.resumed().due.key == "setup/1/1"
    assert run.state.going.failure == ""
    assert run.to_end().state.status is RunStatus.COMPLETED


# --- the order of the stories -----------------------------------------------------------------------------

ORDERS: dict[str, tuple[list[Story], list[str]]] = {
    "of the file": ([story("B"), story("A")], ["B", "A"]),
    "of priority": ([story("A", priority=2), story("B", priority=1)], ["B", "A"]),
    "of dependency before priority": ([story("A", "B", priority=1), story("B", priority=2)], ["B", "A"]),
    "a passed story counts as passed": ([story("A", passes=True), story("B", "A")], ["B"]),
    "nothing left to do": ([story("A", passes=True)], []),
}


@pytest.mark.parametrize(("stories", "order"), ORDERS.values(), ids=ORDERS)
def test_stories_are_started_in_order(stories: list[Story], order: list[str]) -> None:
    """Dependencies first, then priority, then the file."""
    run = run_of(*stories).to_end()
    assert [record.story_id for record in run.state.iterations] == order
    assert run.state.status is RunStatus.COMPLETED


def test_one_story_is_started_at_a_time_even_where_several_may_be_in_hand() -> None:
    """Iterations are numbered as they begin; the second is owed when the first has begun."""
    run = run_of(story("A"), story("B"), story("C"), width=2).until(StartStory)
    assert [effect.key for effect in run.owed] == ["A/1/start"]
    run.did()
    assert [effect.key for effect in run.owed] == ["A/1/clean/start", "B/2/start"]


def test_as_many_stories_are_in_hand_as_the_width_allows() -> None:
    """And no more."""
    run = run_of(story("A"), story("B"), story("C"), width=2).until(StartStory)
    for _ in range(2):
        run.did(StartStory)
    assert [effect.key for effect in run.owed] == ["A/1/clean/start", "B/2/clean/start"]


# --- budgets ----------------------------------------------------------------------------------------------

BUDGETS: dict[str, tuple[Budget, dict[str, Any], str]] = {
    "calls": (Budget(calls=1), {}, "the run's budget of 1 call is used up: 1 call spent"),
    "tokens": (
        Budget(tokens=1000),
        {"usage": Usage(input_tokens=600, output_tokens=400, cache_read_tokens=9999)},
        "the run's budget of 1,000 tokens is used up: 1,000 tokens spent",
    ),
    "usd": (Budget(usd=0.5), {"cost_usd": 0.75}, "the run's budget of $0.50 is used up: $0.75 spent"),
    "time": (Budget(time=6), {}, "the run's budget of 0:00:06 of time is used up: 0:00:07 of time spent"),
}


@pytest.mark.parametrize(("budget", "report", "reason"), BUDGETS.values(), ids=BUDGETS)
def test_a_used_up_budget_parks_the_run_before_the_next_call(
    budget: Budget, report: dict[str, Any], reason: str
) -> None:
    """What is not a call is still done: the attempt is proven, the handover written."""
    run = at_first_call(budget=budget).did(outcome=COMPLETED, **report)
    run.until(RunCommand).did(first=RED, second=RED).until(WriteHandover).did()
    assert run.due == ParkRun(key="park/0", what=ParkedFor.BUDGET, reason=reason)
    run.did()
    assert (run.state.status, run.state.machine_state) == (RunStatus.PARKED, MachineState.PARKED)


def test_a_budget_that_is_left_parks_nothing() -> None:
    """A call is left, and as many tokens, cents and seconds as the one before it took."""
    run = at_first_call(budget=Budget(calls=2, tokens=2000, usd=1.5, time=11.0))
    run.did(outcome=CRASHED, usage=Usage(input_tokens=600, output_tokens=400), cost_usd=0.75, seconds=5.0)
    assert isinstance(run.due, CallAgent)


def test_an_unknown_price_spends_nothing_of_the_budget() -> None:
    """Null is not zero, but it cannot be counted either; calls still are."""
    run = at_first_call(budget=Budget(usd=0.01)).did(outcome=CRASHED)
    assert isinstance(run.due, CallAgent)
    assert run.state.going.ledger.total.is_lower_bound()


def test_a_parked_run_is_parked_again_if_it_is_resumed_without_more_budget() -> None:
    """Under a key of its own, with no call in between."""
    run = run_of(policy=replace(policy_of(), budget=Budget(calls=0))).until(ParkRun).did().resumed()
    assert run.due.key == "park/1"


def test_a_greater_budget_goes_on_with_every_counter_as_it_was() -> None:
    """No recovery path can reset the counter that bounds it."""
    run = run_of(policy=replace(policy_of("a", "b"), budget=Budget(calls=3)))
    run.attempted(PARTIAL).attempted(MALFORMED).attempted(CRASHED).until(ParkRun)
    before = run.work()
    run.did().resumed(replace(run.policy, budget=Budget(calls=9)))
    assert run.state.effective_config().budget.calls == 9
    assert run.work() == before
    owed = run.call
    assert (owed.attempt, owed.call, owed.mode, run.state.going.ledger.calls) == (1, 4, "same-agent-retry", 3)


# --- waiting ----------------------------------------------------------------------------------------------


def test_a_limit_is_waited_for_until_its_moment() -> None:
    """A deed with an end, and a state that says so."""
    run = at_first_call().did(outcome=limited(later(3600)))
    key = f"US-001/1/story/wait/1/0/{later(3600).isoformat()}"
    assert run.due == Wait(key=key, story="US-001", since=later(5), until=later(3600))
    assert run.state.machine_state is MachineState.WAITING
    run.did()
    assert (run.state.going.ledger.waited, run.call.call) == (3595, 2)


@pytest.mark.parametrize(("broken_off", "seconds"), [("killed", 3595), ("stopped", 2100)])
def test_a_wait_that_was_broken_off_is_counted_once(broken_off: str, seconds: int) -> None:
    """In all its length when nobody knows how much of it a dead process had waited, else from the resume on."""
    run = at_first_call().did(outcome=limited(later(3600)))
    run = run.interrupted() if broken_off == "stopped" else run
    run.resumed(after=(later(1500) - run.now).total_seconds()).did()
    assert run.state.going.ledger.waited == seconds


def test_two_waits_for_the_same_moment_are_two_deeds() -> None:
    """A clock that stands still, or a pause of nothing, must not owe the same key twice."""
    run = at_first_call(limits=policy_of(backoff=0.0).limits)
    keys: list[str] = []
    for _ in range(3):
        run.did(outcome=OFFLINE)
        run.state = replace(run.state, progress=replace(run.state.going, last_at=later(0)))
        keys.append(run.due.key.split("/")[4])
        run.did()
    assert keys == ["1", "2", "3"]


def test_a_wait_for_the_same_moment_behind_a_resume_is_another_deed() -> None:
    """Others may have been asked for meanwhile, and it has come to the same."""
    run = at_first_call().did(outcome=limited(later(3600)))
    before = run.due.key
    assert run.interrupted().resumed().due.key != before


def test_without_waiting_a_limit_parks_the_run_and_says_when_it_is_over() -> None:
    """`--no-wait`."""
    run = at_first_call(no_wait=True).did(outcome=limited(later(3600)))
    assert run.due == ParkRun(
        key="park/0",
        what=ParkedFor.QUOTA,
        reason="a: out of quota; it is over at 2026-01-02 04:04:05 UTC (--no-wait was given)",
    )


def test_without_waiting_a_limit_that_is_over_at_the_resume_is_no_wait() -> None:
    """The human came back after it."""
    run = at_first_call(no_wait=True).did(outcome=limited(later(3600))).did().resumed(after=3600)
    assert run.until(CallAgent).call.call == 2


@pytest.mark.parametrize("outcome", [OFFLINE, CRASHED])
def test_without_waiting_short_pauses_are_still_made(outcome: Any) -> None:
    """They are no quota."""
    run = at_first_call(no_wait=True, limits=policy_of(same_agent_retries=1).limits).did(outcome=outcome)
    assert isinstance(run.due, Wait)


def test_more_waiting_than_is_allowed_parks_the_run() -> None:
    """The sum of the run counts."""
    run = at_first_call(limits=policy_of(max_wait=4000.0).limits)
    run.did(outcome=limited(later(3000))).did()
    assert isinstance(run.due, CallAgent)
    run.did(outcome=limited(later(6000)))
    assert run.due == ParkRun(
        key="park/0",
        what=ParkedFor.QUOTA,
        reason="a: out of quota; waiting until 2026-01-02 04:44:05 UTC would be more than max_wait allows",
    )


@pytest.mark.parametrize(("max_wait", "owed"), [(11.0, Wait), (10.0, ParkRun)])
def test_a_wait_is_compared_as_it_will_be_counted(max_wait: float, owed: type[Effect]) -> None:
    """Eleven seconds from when there was nobody to ask, although our own commands were run in two of them."""
    stories = (story("US-001"), story("US-002", verify=("v1",)))
    run = run_of(*stories, policy=policy_of(continuations=1, max_wait=max_wait)).until(CallAgent)
    run.did(outcome=limited(later(20))).skipped("US-001").until(StartStory).did()
    assert run.state.going.last_at == later(9)
    assert isinstance(run.did().did(first=RED).due, owed)
    if owed is Wait:
        assert run.did().state.going.ledger.waited == 11


def test_nobody_to_ask_parks_the_run_for_a_human() -> None:
    """With what there is to do."""
    run = at_first_call().did(outcome=LOGGED_OUT)
    assert run.due == ParkRun(key="park/0", what=ParkedFor.HUMAN, reason="no agent can be asked: a: log in first")
    owed = run.did().resumed().call
    assert (owed.call, str(owed.ref)) == (2, "a")


def test_what_is_under_way_is_seen_to_its_end_before_the_run_parks() -> None:
    """With two stories in hand, the other one's agent is not left behind."""
    run = run_of(story("A"), story("B"), width=2).until(StartStory).did()
    run.did(StartStory)
    for _ in range(2):
        run.did(CleanHandover)
    a, b = run.owed
    assert isinstance(a, CallAgent)
    assert isinstance(b, CallAgent)

    run.happened(call_started(a, run.now), call_started(b, run.now))
    run.happened(call_ended(a, run.now, LOGGED_OUT, tree="tree-a"))
    assert run.owed == (replace(b, begun=True),)
    run.happened(call_ended(b, run.now, COMPLETED, tree="tree-b"))
    run.did(RunCommand)
    assert [type(effect) for effect in run.owed] == [ParkRun]


# --- an amended chain -------------------------------------------------------------------------------------


def test_an_amended_chain_is_asked_from_its_head_with_every_counter_as_it_was() -> None:
    """`resume --agent`."""
    run = run_of(policy=policy_of("a")).attempted(PARTIAL).until(CallAgent).did(outcome=CRASHED).interrupted()
    run.resumed(replace(run.policy, chain=chain("b", "c")))
    owed = run.call
    assert (str(owed.ref), owed.attempt, owed.call, owed.mode) == ("b", 1, 3, "continuation")


def test_a_call_under_way_is_its_own_agents_until_it_ends() -> None:
    """Killed in mid-call and resumed with another chain: the old agent is adopted, then the new one is asked."""

    run = at_first_call()
    old = run.call
    run.happened(call_started(old, run.now)).resumed(replace(run.policy, chain=chain("b")))
    assert run.call == replace(old, begun=True)
    run.happened(call_ended(run.call, run.now, limited(later(9999)), tree=BASE_TREE))
    assert list(run.state.going.cooling) == ["a"]
    assert list(run.state.going.ledger.by_agent) == ["a"]
    assert (str(run.call.ref), run.call.call, run.call.mode) == ("b", 2, "fresh")


def test_a_chain_amended_while_an_attempt_is_proven_is_asked_for_the_next_one() -> None:
    """The proof goes on meanwhile."""
    run = at_first_call().did().interrupted()
    run.resumed(replace(run.policy, chain=chain("b")))
    assert isinstance(run.due, RunCommand)
    assert str(run.did(first=RED, second=RED).until(CallAgent).call.ref) == "b"


# --- blocked stories --------------------------------------------------------------------------------------


def red_stories(run: Run, *names: str) -> Run:
    """To the end, where every attempt at these stories is red."""
    while run.owed:
        due = run.due
        red = isinstance(due, RunCommand) and isinstance(due.purpose, Checking) and due.purpose.story in names
        run.did(**({"first": RED, "second": RED} if red else {}))
    return run


DIAMOND = (
    story("base"),
    story("left", "base"),
    story("right", "base"),
    story("top", "left", "right"),
    story("roof", "top"),
    story("alone"),
)


def test_a_blocked_story_blocks_what_needs_it_and_nothing_else() -> None:
    """By name of the culprit, also where it is needed indirectly."""
    run = red_stories(run_of(*DIAMOND), "left")
    told = {name: (s.state.value, s.reason, s.blocked_by) for name, s in run.state.going.stories.items()}
    assert told == {
        "base": ("passed", "", None),
        "left": ("blocked", "3 attempts used up: not green: check test", None),
        "right": ("passed", "", None),
        "top": ("blocked", "depends on left, which is blocked", "left"),
        "roof": ("blocked", "depends on left, which is blocked", "left"),
        "alone": ("passed", "", None),
    }
    assert (run.state.status, run.events[-1].key) == (RunStatus.FAILED, "finish/0")


def test_a_blocked_story_is_left_its_work_pinned_and_its_record_failed() -> None:
    """Nothing lost, nothing committed."""
    run = red_stories(run_of(story("US-001")), "US-001")
    blocked = run.standing("US-001")
    assert (blocked.pins, blocked.commits, blocked.attempts, blocked.calls) == (("refs/blocked/US-001",), (), 3, 3)
    assert [e.check for e in blocked.evidence] == ["test"]
    assert [record.status for record in run.state.iterations] == [IterationStatus.FAILED]
    assert (run.state.going.tip, run.state.going.tip_tree) == ("commit-base", BASE_TREE)


def test_exhausted_work_is_committed_unproven_only_where_that_is_asked_for() -> None:
    """It moves the tip, it does not pass the story, and the run still fails."""
    run = red_stories(run_of(policy=policy_of(on_exhausted=OnExhausted.COMMIT)), "US-001")
    blocked = run.standing("US-001")
    assert (blocked.state, blocked.unproven_commit, len(blocked.commits)) == (StoryState.BLOCKED, True, 1)
    assert run.state.going.tip == blocked.commits[0]
    assert run.state.status is RunStatus.FAILED


def test_a_blocked_dependent_uses_up_no_iteration() -> None:
    """What can never begin is not counted as if it could."""
    run = red_stories(run_of(*DIAMOND), "base")
    assert run.state.going.ledger.iterations_allowed == 0
    assert [record.story_id for record in run.state.iterations] == ["base", "alone"]


# --- skip -------------------------------------------------------------------------------------------------


def test_a_skipped_story_is_not_begun_and_what_needs_it_is_blocked() -> None:
    """And it is not counted among those that may still be begun."""
    run = run_of(*DIAMOND).until(CallAgent).skipped("left")
    assert states(run)["left"] == "skipped"
    assert run.state.going.ledger.iterations_allowed == 2
    run.to_end()
    told = {"base": "passed", "left": "skipped", "right": "passed", "top": "blocked", "roof": "blocked"}
    assert states(run) == told | {"alone": "passed"}
    assert run.standing("top").reason == "depends on left, which is skipped"
    assert run.state.status is RunStatus.FAILED


SKIPPABLE: dict[str, type[Effect]] = {
    "before its first call": CleanHandover,
    "while it is probed": RunCommand,
    "when a call is owed": CallAgent,
    "while it is proven": RunCommand,
    "when a continuation is owed": WriteHandover,
    "while it waits": Wait,
}


@pytest.mark.parametrize(("when", "kind"), SKIPPABLE.items(), ids=SKIPPABLE)
def test_a_story_in_hand_is_left_when_it_is_skipped(when: str, kind: type[Effect]) -> None:
    """Its work is pinned, its record closed, and the run goes on with the next."""
    run = run_of(story("US-001", verify=("v1",)), story("US-002")).until(CleanHandover)
    if when == "while it is probed":
        run.did()
    elif when != "before its first call":
        run.until(CallAgent)
    if when == "while it is proven":
        run.did()
    elif when == "when a continuation is owed":
        run.attempted(check=RED)
    elif when == "while it waits":
        run.did(outcome=limited(later(3600)))
    assert isinstance(run.due, kind)
    run.skipped("US-001")
    if isinstance(run.due, CleanHandover):  # the story's own clean-up comes first, whatever it is for
        run.did()
    assert isinstance(run.due, LeaveStory)
    assert run.state.machine_state is MachineState.LANDING
    calls = run.state.going.ledger.calls
    run.did()
    skipped = run.standing("US-001")
    assert (skipped.state, skipped.reason) == (StoryState.SKIPPED, "skipped by a human")
    assert (skipped.attempts, skipped.calls) == ((0, 0) if calls == 0 else (1, 1))
    assert run.to_end().standing("US-002").state is StoryState.PASSED
    assert [r.status for r in run.state.iterations] == [IterationStatus.FAILED, IterationStatus.SUCCESS]


# --- retry ------------------------------------------------------------------------------------------------


def test_a_retry_reopens_the_story_and_those_it_blocked() -> None:
    """As new iterations, with what the human said; the run ships after all."""
    run = red_stories(run_of(*DIAMOND), "left").retried("left", "use the other parser")
    assert states(run) == dict.fromkeys(("base", "right", "alone"), "passed") | dict.fromkeys(
        ("left", "top", "roof"), "open"
    )
    assert run.state.going.ledger.iterations_allowed == 3
    assert run.state.status is RunStatus.FAILED
    run.resumed().until(CallAgent)
    assert (run.call.key, run.work("left").hint) == ("left/5/story/0/1", "use the other parser")
    assert run.to_end().state.status is RunStatus.COMPLETED
    again = run.standing("left")
    assert (again.attempts, again.calls, len(again.commits), len(again.pins)) == (4, 4, 1, 1)


def test_a_retry_of_a_dependent_goes_back_to_blocked_while_its_culprit_is_in_the_way() -> None:
    """Named as before, and reopened with the culprit later."""
    run = red_stories(run_of(*DIAMOND), "left").retried("roof")
    assert states(run)["roof"] == "blocked"
    assert run.standing("roof").blocked_by == "left"
    assert run.state.going.ledger.iterations_allowed == 0
    run.retried("left")
    assert [states(run)[name] for name in ("left", "top", "roof")] == ["open", "open", "open"]


def test_a_retry_finds_every_other_culprit() -> None:
    """Two failures in the way of one story: the second one blocks it when the first is reopened."""
    run = red_stories(run_of(*DIAMOND), "left", "right").retried("left")
    assert [states(run)[name] for name in ("left", "right", "top", "roof")] == ["open", "blocked", "blocked", "blocked"]
    assert [run.standing(name).blocked_by for name in ("top", "roof")] == ["right", "right"]
    assert run.state.going.ledger.iterations_allowed == 1
    run.retried("right")
    assert [states(run)[name] for name in ("left", "right", "top", "roof")] == ["open"] * 4


def test_a_skipped_dependent_keeps_blocking_what_needs_it() -> None:
    """A reopened culprit does not undo what a human decided behind it."""
    run = red_stories(run_of(*DIAMOND), "left").skipped("top").retried("left")
    assert [states(run)[name] for name in ("left", "top", "roof")] == ["open", "skipped", "blocked"]
    assert run.standing("roof").reason == "depends on top, which is skipped"


def test_a_skipped_story_can_be_taken_up_again() -> None:
    """By the same request as a blocked one."""
    run = run_of(story("A"), story("B", "A")).until(CallAgent).skipped("A").to_end()
    assert states(run) == {"A": "skipped", "B": "blocked"}
    assert run.retried("A").resumed().to_end().state.status is RunStatus.COMPLETED


def test_a_retry_while_the_run_is_running_is_begun_in_its_turn() -> None:
    """No resume is needed."""
    run = run_of(story("A"), story("B"), policy=policy_of(continuations=1))
    run.until(CallAgent).did().did(first=RED, second=RED).until(CallAgent)
    assert states(run)["A"] == "blocked"
    run.retried("A").to_end()
    assert [record.story_id for record in run.state.iterations] == ["A", "B", "A"]
    assert run.state.status is RunStatus.COMPLETED


# --- counters of a new iteration --------------------------------------------------------------------------


def test_a_new_iteration_begins_with_counters_of_its_own() -> None:
    """What one story used up is not the next one's fault."""
    run = run_of(story("A"), story("B"), policy=policy_of(calls_per_errand=2))
    run.until(CallAgent).did(outcome=MALFORMED).did().until(LandStory).did().until(CallAgent)
    work = run.work("B")
    assert (work.errand.calls, work.cs.invalid_output_attempts, work.errand.stage) == (0, 0, Owed())


def test_a_policy_without_any_command_proves_nothing_and_asks_until_it_is_over() -> None:
    """Such a run is refused before it starts; if it does start, it ends."""
    run = run_of(policy=replace(policy_of(checks=()), require=Require.CHECKS)).to_end()
    assert run.standing("US-001").reason == "3 attempts used up: no command could prove it"


def test_a_policy_that_requires_nothing_passes_on_the_agents_word_and_a_changed_tree() -> None:
    """The user said so."""
    run = run_of(policy=replace(policy_of(checks=()), require=Require.NONE)).to_end()
    assert run.standing("US-001").state is StoryState.PASSED


def test_a_check_keeps_its_own_settings_wherever_it_is_run() -> None:
    """Baseline, proof and final proof run the same command."""
    check = Command(run="pytest", timeout=7.0, env={"A": "1"}, pass_env=("B",))
    run = run_of(policy=replace(policy_of(), checks={"test": check}))
    seen: list[Command] = []
    while run.owed:
        if isinstance(run.due, RunCommand):
            seen.append(run.due.command)
        run.did(**({"first": GREEN} if isinstance(run.due, RunCommand) else {}))
    assert seen == [check, check, check]
