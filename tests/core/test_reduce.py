"""Which fact may follow which state, and that folding is one function of the facts, however it is cut.

The table of moves lists, for each state that a run can be in, the only facts that may come next. Every other pair
must be refused: it would mean that the journal and this program disagree about what happened.
"""

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from makers import (
    BASE_TREE,
    COMPLETED,
    CRASHED,
    INTERRUPTED,
    LOGGED_OUT,
    PARTIAL,
    RED,
    T0,
    Run,
    asks,
    call_ended,
    call_started,
    chain,
    facts_of,
    later,
    limited,
    opened,
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
from storyloop.core.errand import Mode
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import (
    CallEnded,
    CallStarted,
    CommandMeasured,
    Event,
    HandoverCleaned,
    HandoverWritten,
    QuestionAnswered,
    RequestRefused,
    RunCleaned,
    RunFinished,
    RunForked,
    RunInterrupted,
    RunOpened,
    RunParked,
    RunResumed,
    RunUndone,
    StoryApproved,
    StoryLanded,
    StoryLeft,
    StoryRejected,
    StoryReopened,
    StorySetAside,
    StorySkipped,
    StoryStarted,
    StoryTakenUp,
    WaitEnded,
    WorktreeLost,
    WorktreeOpened,
)
from storyloop.core.facts import Answered, Failed, Failure, Finding
from storyloop.core.knowledge import StoryChanges
from storyloop.core.policy import Budget, Command, Drain, Limits, OnExhausted, Policy, WorktreePolicy
from storyloop.core.progress import ParkedFor
from storyloop.core.purpose import Baselining, Checking, Demonstrating, Probing, Purpose, SettingUp
from storyloop.core.reduce import fold, reduce
from storyloop.core.usage import Spending, Usage
from storyloop.core.words import IterationStatus, MachineState, RunStatus, StoryState

# --- the table of moves -----------------------------------------------------------------------------------

POLICY = replace(policy_of("a", commit=("c",), continuations=2), worktree=WorktreePolicy(setup=("npm ci",)))
FIRST, SECOND = story("US-001", verify=("v1",)), story("US-002", "US-001")


def going(policy: Policy = POLICY) -> Run:
    return run_of(FIRST, SECOND, policy=policy)


def calling() -> Run:
    run = going().until(CallAgent)
    return run.happened(call_started(run.call, run.now))


def asking(deadline: float | None = 600.0) -> Run:
    policy = replace(POLICY, limits=Limits(question_deadline=deadline))
    return going(policy).until(CallAgent).did(outcome=asks(), tree="tree-1")


def approving() -> Run:
    return going(replace(POLICY, step=True)).attempted()


def blocked() -> Run:
    return going(replace(POLICY, limits=Limits(continuations=1))).attempted(check=RED).until(LeaveStory).did()


STATES: dict[str, Callable[[], Run]] = {
    "just opened": going,
    "to be set up": lambda: going().did(),
    "without a baseline": lambda: going().did().did(),
    "picking": lambda: going().until(StartStory),
    "cleaning": lambda: going().until(CleanHandover),
    "probing": lambda: going().until(CleanHandover).did(),
    "a call is owed": lambda: going().until(CallAgent),
    "calling": calling,
    "waiting": lambda: going().until(CallAgent).did(outcome=limited(later(600))),
    "nobody to ask": lambda: going().until(CallAgent).did(outcome=LOGGED_OUT),
    "a question is to be set aside": asking,
    "a question is open": lambda: asking().did(),
    "a question has its reply": lambda: asking().did().answered("US-001"),
    "checking": lambda: going().until(CallAgent).did(),
    "demonstrating": lambda: going().until(CallAgent).did().did(),
    "a handover is owed": lambda: going().attempted(check=RED),
    "an approval is owed": approving,
    "a message is owed": lambda: going().attempted(),
    "landing": lambda: going().until(LandStory),
    "clean-up of a passed story": lambda: going().until(LandStory).did(),
    "leaving": lambda: going().until(CallAgent).skipped("US-001"),
    "clean-up of a blocked story": blocked,
    "all that can be done is done": lambda: blocked().did(),
    "completed": lambda: going().to_end(),
    "failed": lambda: blocked().to_end(),
    "failed at the set-up": lambda: going().did().did(first=RED),
    "parked for an approval": lambda: approving().did(),
    "parked for an answer": lambda: asking(None).did().did(),
    "parked": lambda: going(replace(POLICY, budget=Budget(calls=0))).until(ParkRun).did(),
    "interrupted": lambda: going().until(CallAgent).interrupted(),
    "interrupted in mid-call": lambda: calling().interrupted(),
}
ALWAYS_IN_A_RUN = "refused interrupted parked resumed"
LEGAL: dict[str, str] = {
    "just opened": "worktree skipped-1 skipped-2",
    "to be set up": "setup skipped-1 skipped-2",
    "without a baseline": "baseline skipped-1 skipped-2",
    "picking": "started-1 skipped-1 skipped-2",
    "cleaning": "cleaned skipped-1 skipped-2",
    "probing": "probe skipped-1 skipped-2",
    "a call is owed": "call-started skipped-1 skipped-2",
    "calling": "call-ended skipped-2",
    "waiting": "wait-ended skipped-1 skipped-2",
    "nobody to ask": "skipped-1 skipped-2",
    "a question is to be set aside": "aside answered skipped-1 skipped-2",
    "a question is open": "wait-ended answered skipped-1 skipped-2",
    "a question has its reply": "taken-up skipped-1 skipped-2",
    "checking": "check criterion skipped-1 skipped-2",
    "demonstrating": "criterion skipped-1 skipped-2",
    "a handover is owed": "written skipped-1 skipped-2",
    "an approval is owed": "approved rejected skipped-1 skipped-2",
    "a message is owed": "commit-call-started skipped-2",
    "landing": "landed skipped-2",
    "clean-up of a passed story": "cleaned skipped-2",
    "leaving": "left skipped-2",
    "clean-up of a blocked story": "cleaned skipped-2 reopened-2",
    "all that can be done is done": "finished-failed skipped-1 skipped-2 reopened-1 reopened-2",
}
# Not running: humans may ask, and a process may take it up again.
QUIET: dict[str, str] = {
    "completed": "refused",
    "failed": "refused skipped-1 skipped-2 reopened-1 reopened-2",
    "failed at the set-up": "refused resumed skipped-1 skipped-2",
    "parked for an approval": "refused resumed approved rejected skipped-1 skipped-2",
    "parked for an answer": "refused resumed answered skipped-1 skipped-2",
    "parked": "refused resumed skipped-1 skipped-2",
    "interrupted": "refused resumed skipped-1 skipped-2",
    "interrupted in mid-call": "refused resumed skipped-2",
}


def facts(run: Run) -> dict[str, Event]:
    """One fact of every kind, as it would be told of this run if it could happen now."""
    state, now = run.state, run.now
    work = state.going.work.get("US-001")
    call = CallAgent(
        key="US-001/1/story/0/1",
        story="US-001",
        drain=Drain.STORY,
        attempt=0,
        call=1,
        ref=chain("a")[0],
        mode=Mode.FRESH,
        begun=False,
    )
    wording = replace(call, key="US-001/1/commit/0/1", drain=Drain.COMMIT, ref=chain("c")[0])
    tree = getattr(work.stage, "tree", BASE_TREE) if work else BASE_TREE
    iteration = {"story": "US-001", "iteration": 1}
    tip, tip_tree = state.going.tip, state.going.tip_tree
    changes = StoryChanges(story_id="US-001")
    ids: dict[str, Any] = {"key": "k", "at": now}
    return {
        "opened": opened(run.spec, run.policy, now),
        "worktree": WorktreeOpened(**ids, tip=tip, tip_tree=tip_tree),
        "lost": WorktreeLost(**ids),
        "setup": command(run, SettingUp(0), BASE_TREE),
        "baseline": command(run, Baselining("test"), BASE_TREE),
        "probe": command(run, Probing(**iteration, criterion=1), BASE_TREE),
        "check": command(run, Checking(**iteration, attempt=0, check="test"), tree),
        "criterion": command(run, Demonstrating(**iteration, attempt=0, criterion=1), tree),
        "started-1": StoryStarted(**ids, story="US-001", iteration=state.iteration + 1, head=tip, tree=tip_tree),
        "started-2": StoryStarted(**ids, story="US-002", iteration=state.iteration + 1, head=tip, tree=tip_tree),
        "cleaned": HandoverCleaned(**ids, story="US-001"),
        "written": HandoverWritten(**ids, story="US-001"),
        "call-started": call_started(call, now),
        "call-ended": call_ended(call, now, COMPLETED, tree="tree-1"),
        "commit-call-started": call_started(wording, now),
        "commit-call-ended": call_ended(wording, now, worded(), tree="tree-1"),
        "wait-ended": WaitEnded(**ids, story="US-001", seconds=1.0),
        "aside": StorySetAside(**ids, story="US-001"),
        "answered": QuestionAnswered(**ids, story="US-001", number=1, text="yes"),
        "taken-up": StoryTakenUp(**ids, story="US-001", head=tip, tree=tip_tree, pin=None),
        "approved": StoryApproved(**ids, story="US-001", number=1),
        "rejected": StoryRejected(**ids, story="US-001", number=1),
        "landed": StoryLanded(**ids, story="US-001", commit="c1", tip="c1", tip_tree=tree, changes=changes),
        "left": StoryLeft(**ids, story="US-001", pins=(), commit=None, tip=tip, tip_tree=tip_tree),
        "skipped-1": StorySkipped(**ids, story="US-001", number=1),
        "skipped-2": StorySkipped(**ids, story="US-002", number=1),
        "reopened-1": StoryReopened(**ids, story="US-001", number=1),
        "reopened-2": StoryReopened(**ids, story="US-002", number=1),
        "refused": RequestRefused(**ids, number=1, reason="no"),
        "interrupted": RunInterrupted(**ids, reason="Ctrl-C"),
        "parked": RunParked(**ids, what=ParkedFor.HUMAN, reason="a question"),
        "resumed": RunResumed(**ids),
        "undone": RunUndone(
            **ids,
            to=2,
            what="all",
            tip=tip,
            tip_tree=tip_tree,
            kept=(),
            stories={},
            knowledge=state.knowledge,
            inherited=(),
            review=state.going.review,
        ),
        "forked": RunForked(**ids, of="r1", at_event=9, branch="feature/y", worktree="/wt", session_id="0" * 8),
        "tidied": RunCleaned(**ids, what="its worktree"),
        "finished-shipped": RunFinished(**ids, shipped=True),
        "finished-failed": RunFinished(**ids, shipped=False),
    }


def command(run: Run, purpose: Purpose, tree: str) -> CommandMeasured:
    effect = RunCommand(key="k", purpose=purpose, command=Command(run="x"), timeout=1.0, tree=tree)
    (fact,) = facts_of(effect, run.state, run.now)
    assert isinstance(fact, CommandMeasured)
    return fact


@pytest.mark.parametrize("state", STATES)
def test_only_these_facts_may_follow(state: str) -> None:
    """Of one fact of every kind, those that the table names and no other."""
    run = STATES[state]()
    legal = set(f"{LEGAL[state]} {ALWAYS_IN_A_RUN}".split() if state in LEGAL else QUIET[state].split())
    legal |= {"tidied", *(["forked"] if state != "completed" else [])}
    unmeasured = ("just opened", "to be set up", "without a baseline", "failed at the set-up")
    legal |= {"undone"} if state not in unmeasured else set()
    legal |= {"lost"} if state not in ("just opened", "completed") else set()  # a worktree that is there may go
    followed: set[str] = set()
    for name, fact in facts(run).items():
        try:
            reduce(run.state, fact)
        except IllegalTransition:
            continue
        followed.add(name)
    assert followed == legal


def test_a_run_begins_with_its_opening_and_nothing_else() -> None:
    """A journal that starts in the middle is no journal."""
    for name, fact in facts(going()).items():
        if name == "opened":
            assert reduce(None, fact).machine_state is MachineState.INITIALIZING
        else:
            with pytest.raises(IllegalTransition):
                reduce(None, fact)


# The right fact with a wrong detail: a state to reach, and what of the fact that is owed there is changed.
WRONG: dict[str, tuple[Callable[[], Run], dict[str, Any]]] = {
    "a story that the spec does not have": (STATES["picking"], {"story": "US-009"}),
    "a story whose needs have not passed": (STATES["picking"], {"story": "US-002"}),
    "an iteration that is not the next": (STATES["picking"], {"iteration": 2}),
    "a set-up command out of order": (STATES["to be set up"], {"purpose": SettingUp(1)}),
    "a baseline of no check": (STATES["without a baseline"], {"purpose": Baselining("lint")}),
    "a probe of no criterion": (
        STATES["probing"],
        {"purpose": Probing(story="US-001", iteration=1, criterion=2)},
    ),
    "a probe of another iteration": (
        STATES["probing"],
        {"purpose": Probing(story="US-001", iteration=2, criterion=1)},
    ),
    "a probe on another tree": (STATES["probing"], {"tree": "tree-x"}),
    "a proof on another tree": (STATES["checking"], {"tree": "tree-x"}),
    "a proof of another attempt": (
        STATES["checking"],
        {"purpose": Checking(story="US-001", iteration=1, attempt=1, check="test")},
    ),
    "a proof of no check": (
        STATES["checking"],
        {"purpose": Checking(story="US-001", iteration=1, attempt=0, check="lint")},
    ),
    "a proof that is in already": (
        STATES["demonstrating"],
        {"purpose": Checking(story="US-001", iteration=1, attempt=0, check="test")},
    ),
    "a call that is not the next": (STATES["a call is owed"], {"call": 2}),
    "a call of another agent": (STATES["a call is owed"], {"ref": chain("b")[0]}),
    "a call of another drain": (STATES["a call is owed"], {"drain": Drain.COMMIT}),
    "a call in another mode": (STATES["a call is owed"], {"mode": Mode.CONTINUATION}),
    "the end of another call": (STATES["calling"], {"call": 2}),
    "the end of another agent's call": (STATES["calling"], {"ref": chain("b")[0]}),
    "the landing of another tree": (STATES["landing"], {"tip_tree": "tree-x"}),
    "the landing of a changed tree without a commit": (STATES["landing"], {"commit": None}),
    "a wait of a story that asks nothing": (STATES["a question is open"], {"story": "US-002"}),
    "setting a story aside that asks nothing": (STATES["a question is to be set aside"], {"story": "US-002"}),
    "work that is put onto another tip": (STATES["a question has its reply"], {"head": "c9"}),
    "a commit of blocked work that nobody asked for": (STATES["leaving"], {"commit": "c1"}),
    "a tip that moved without a commit": (STATES["leaving"], {"tip": "c1"}),
    "shipped, although a story is blocked": (STATES["all that can be done is done"], {"shipped": True}),
    "not shipped, although all have passed": (lambda: going().until(FinishRun), {"shipped": False}),
}


@pytest.mark.parametrize(("run", "change"), WRONG.values(), ids=WRONG)
def test_a_fact_with_a_wrong_detail_is_refused(run: Callable[[], Run], change: dict[str, Any]) -> None:
    """And the very same fact without it is taken."""
    reached = run()
    right = facts_of(reached.due, reached.state, reached.now)[0]
    reduce(reached.state, right)
    with pytest.raises(IllegalTransition):
        reduce(reached.state, replace(right, **change))


@pytest.mark.parametrize(
    ("run", "answer"),
    [(STATES["calling"], worded()), (lambda: going().attempted(), COMPLETED)],
    ids=["story", "commit"],
)
def test_an_artifact_of_another_drain_is_refused(run: Callable[[], Run], answer: Answered) -> None:
    """Each drain owes one kind."""
    reached = run()
    with pytest.raises(IllegalTransition):
        reached.did(outcome=answer)


def test_the_refusal_names_the_state_and_the_fact() -> None:
    """For whoever has to find out how the journal came to say so."""
    run = STATES["picking"]()
    with pytest.raises(IllegalTransition) as refused:
        reduce(run.state, HandoverCleaned(key="k", at=T0, story="US-001"))
    assert refused.value.state is MachineState.PICKING_STORY
    assert isinstance(refused.value.event, HandoverCleaned)


# --- one function of the facts ----------------------------------------------------------------------------


def eventful() -> Run:
    """A run with a bit of everything: retries, a fallback, a wait, a handover, a skip, a park, a retry, a resume."""
    run = run_of(
        story("US-001", verify=("v1",)),
        story("US-002", "US-001"),
        story("US-003"),
        policy=policy_of("a", "b", commit=("c",)),
    )
    run.until(CallAgent).did(outcome=CRASHED).did(outcome=CRASHED).did(outcome=limited(later(900)))
    run.until(CallAgent).did(outcome=INTERRUPTED).interrupted().resumed(after=60)
    run.attempted(PARTIAL).attempted(check=RED).until(LandStory).did().until(CallAgent)
    run.skipped("US-002").until(CallAgent).did(outcome=LOGGED_OUT).until(CallAgent).did(outcome=LOGGED_OUT)
    run.until(ParkRun).did().resumed(after=60).to_end()
    return run.retried("US-002", "try again").resumed().to_end()


def test_the_same_facts_fold_to_the_same_state() -> None:
    """Twice from the start."""
    run = eventful()
    assert fold(run.events) == fold(run.events) == run.state
    assert run.state.status is RunStatus.COMPLETED


def test_folding_in_two_parts_comes_to_the_same_as_folding_at_once() -> None:
    """Wherever a journal is cut, a snapshot there changes nothing."""
    events = eventful().events
    whole = fold(events)
    for cut in range(len(events) + 1):
        assert fold(events[cut:], fold(events[:cut])) == whole


def test_folding_leaves_the_state_that_it_started_from_as_it_was() -> None:
    """A state is a value: whoever keeps one keeps it."""
    run = run_of()
    kept: list[tuple[Any, Any]] = []
    while run.owed:
        kept.append((run.state, copy.deepcopy(run.state)))
        run.did()
    assert all(state == before for state, before in kept)


# --- what facts leave behind ------------------------------------------------------------------------------


def test_a_landed_story_moves_the_tip_and_closes_its_record() -> None:
    """With its usage, its summary, its evidence and its commit."""
    run = run_of(story("US-001", verify=("v1",)))
    run.until(CallAgent).did(usage=Usage(input_tokens=7), snippet="done", tree="tree-1").until(LandStory).did()
    (record,) = run.state.iterations
    assert (record.status, record.usage, record.output_snippet, record.work_summary) == (
        IterationStatus.SUCCESS,
        Usage(input_tokens=7),
        "done",
        "did it",
    )
    passed = run.standing("US-001")
    assert (passed.commits, [e.label for e in passed.evidence]) == (
        ("commit-of-US-001/1/land",),
        ["check test", "criterion 1"],
    )
    assert (run.state.going.tip, run.state.going.tip_tree) == ("commit-of-US-001/1/land", "tree-1")
    assert run.state.current_story is None
    assert run.state.pre_story_commit is None
    assert [c.commit_hash for c in run.state.knowledge.story_changes] == ["commit-of-US-001/1/land"]


def test_blocked_work_teaches_nothing() -> None:
    """Knowledge comes from what landed."""
    run = run_of(policy=policy_of(continuations=1)).attempted(check=RED).until(LeaveStory).did()
    assert run.state.knowledge.story_changes == ()
    assert run.state.pre_story_commit is None


def test_every_call_is_counted_and_paid_whatever_it_came_to() -> None:
    """By agent, by story and in total; a call without a price is counted as such."""
    run = run_of(policy=policy_of("a", "b", same_agent_retries=1))
    run.until(CallAgent).did(outcome=CRASHED, usage=Usage(input_tokens=5, model="m"), cost_usd=0.25)
    run.did(outcome=PARTIAL, usage=Usage(input_tokens=3, model="m"))
    ledger = run.state.going.ledger
    assert ledger.calls == 2
    assert ledger.total == Spending(usage=Usage(input_tokens=8, model="m"), cost_usd=0.25, calls=2, unpriced_calls=1)
    assert {name: spending.calls for name, spending in ledger.by_agent.items()} == {"a": 1, "b": 1}
    assert run.state.total_usage == run.state.phase_usage["US-001"] == Usage(input_tokens=8, model="m")


def test_time_counts_only_while_a_process_has_the_run() -> None:
    """Neither parked nor interrupted nor dead time; a clock that is set back takes nothing away."""
    run = run_of().did().did().did()
    assert run.state.going.ledger.active == 3
    run.interrupted().resumed(after=1000)
    assert run.state.going.ledger.active == 4
    run.resumed(after=1000)  # killed without a word
    assert run.state.going.ledger.active == 4
    run.happened(HandoverCleaned(key="k", at=later(1), story="US-001"))
    assert run.state.going.ledger.active == 4


def test_waiting_is_no_time_of_the_budget() -> None:
    """A quota's reset is waited for, and that costs nobody anything; what happens besides a wait counts."""
    run = run_of(policy=policy_of("a")).until(CallAgent)
    run.did(outcome=limited(run.now + timedelta(hours=5)))
    before = run.state.going.ledger.active
    run.interrupted().resumed().until(Wait).did()
    ledger = run.state.going.ledger
    assert (ledger.waited > 17_990, ledger.active) == (True, before)
    assert run.until(CallAgent).did().state.going.ledger.active == before + 1


def test_a_resume_lets_those_in_again_that_needed_a_human() -> None:
    """A limit still ends when it ends."""
    run = run_of(policy=policy_of("a", "b", "c")).until(CallAgent)
    run.did(outcome=LOGGED_OUT).did(outcome=limited(later(9000))).did(outcome=CRASHED).interrupted().resumed()
    assert list(run.state.going.cooling) == ["b"]


def test_findings_are_kept_and_bounded() -> None:
    """The newest two hundred."""
    run = run_of().did()
    many = tuple(Finding("check-changed-files", str(number)) for number in range(201))
    run.happened(*(replace(fact, findings=many) for fact in facts_of(run.due, run.state, run.now)))
    kept = run.state.going.findings
    assert (len(kept), kept[0].detail, kept[-1].detail) == (200, "1", "200")


def test_a_request_is_seen_once_whatever_came_of_it() -> None:
    """The inbox goes on behind it."""
    run = run_of(story("US-001"), story("US-002")).until(CallAgent).skipped("US-002")
    assert run.state.going.inbox_seen == 1
    run.happened(RequestRefused(key="request/2", at=run.now, number=2, reason="no"))
    assert run.state.going.inbox_seen == 2
    assert run.interrupted(number=3).state.going.inbox_seen == 3


def test_an_unproven_commit_is_no_stain_on_a_story_that_passes_later() -> None:
    """The last word counts."""
    run = run_of(policy=policy_of(continuations=1, on_exhausted=OnExhausted.COMMIT)).attempted(check=RED).to_end()
    assert run.standing("US-001").unproven_commit
    passed = run.retried("US-001").resumed().to_end().standing("US-001")
    assert (passed.state, passed.unproven_commit, len(passed.commits)) == (StoryState.PASSED, False, 2)


MACHINE: dict[type[Effect], MachineState] = {
    StartStory: MachineState.PICKING_STORY,
    CleanHandover: MachineState.RUNNING_AGENT,
    CallAgent: MachineState.RUNNING_AGENT,
    WriteHandover: MachineState.RUNNING_AGENT,
    Wait: MachineState.WAITING,
    LandStory: MachineState.LANDING,
    LeaveStory: MachineState.LANDING,
    FinishRun: MachineState.PICKING_STORY,
}


@pytest.mark.parametrize(("owed", "machine"), MACHINE.items(), ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_machine_state_says_what_the_run_is_doing(owed: type[Effect], machine: MachineState) -> None:
    """For whoever watches."""
    run = run_of(policy=policy_of(continuations=2))
    if owed is Wait:
        run.until(CallAgent).did(outcome=limited(later(600)))
    elif owed is WriteHandover:
        run.attempted(check=RED)
    elif owed is LeaveStory:
        run.attempted(check=RED).attempted(check=RED)
    assert run.until(owed).state.machine_state is machine


def test_a_story_that_waits_is_not_waiting_any_more_when_it_is_skipped() -> None:
    """It is being left."""
    run = run_of().until(CallAgent).did(outcome=Failed(failure=Failure.LIMIT, message="quota", resets_at=later(600)))
    assert run.skipped("US-001").state.machine_state is MachineState.LANDING


def test_a_story_that_will_have_to_wait_is_probed_first() -> None:
    """While all agents cool down, our own commands run, and that is what is shown."""
    run = run_of(story("US-001"), story("US-002", verify=("v1",)), policy=policy_of(continuations=1))
    run.until(CallAgent).did(outcome=limited(later(600))).skipped("US-001").until(StartStory).did()
    assert run.state.machine_state is MachineState.RUNNING_AGENT
    assert isinstance(run.until(RunCommand).did().due, Wait)
    assert run.state.machine_state is MachineState.WAITING


def test_an_opened_run_is_what_its_opening_says() -> None:
    """Passed stories are passed, the rest may be begun."""
    run = run_of(story("US-001", passes=True), story("US-002", "US-001"))
    assert isinstance(run.events[0], RunOpened)
    assert run.standing("US-001").reason == "marked as passed in the spec"
    assert run.state.going.ledger.iterations_allowed == 1
    assert (run.state.branch, run.state.session_id, run.state.started_at) == ("feature/x", "0a1b2c3d", T0)


def test_the_worktree_s_warnings_are_findings() -> None:
    """Said once, kept for the report."""
    run = run_of()
    run.happened(
        WorktreeOpened(key="open/worktree", at=run.now, tip="t", tip_tree="tt", warnings=(".env was not there",))
    )
    assert run.state.going.findings == (Finding("worktree", ".env was not there"),)
    assert (run.state.going.tip, run.state.going.tip_tree) == ("t", "tt")


def test_a_call_s_end_is_no_end_of_another_call() -> None:
    """Each end belongs to the call that is under way."""
    run = STATES["calling"]()
    end = facts_of(run.due, run.state, run.now)[-1]
    assert isinstance(end, CallEnded)
    run.happened(end)
    with pytest.raises(IllegalTransition):
        run.happened(end)


def test_a_call_is_started_once() -> None:
    """An adopted call is not another one."""
    run = STATES["calling"]()
    assert isinstance(run.events[-1], CallStarted)
    with pytest.raises(IllegalTransition):
        run.happened(run.events[-1])
