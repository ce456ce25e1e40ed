"""Laws that hold in every run there can be, whatever agents, commands, clocks and humans do.

An adversarial `World` answers each owed effect with any legal fact: every outcome of a call, every reading of a
command, any tree, clocks that stand still or go back; and humans who stop, kill, resume, amend, skip and retry, a
bounded number of times. What it does is read from a script of bytes that is repeated: a script of one byte does the
same evil for ever, a long one is luck. `lived` is the whole journey; each law looks at it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from random import Random
from typing import Any

import msgspec
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from makers import (
    CRASHED,
    GREEN,
    INTERRUPTED,
    LOGGED_OUT,
    MALFORMED,
    MISCONFIGURED,
    NOT_INSTALLED,
    OFFLINE,
    PARTIAL,
    RED,
    SAID_FAILED,
    TIMED_OUT,
    Run,
    asks,
    call_started,
    chain,
    exited,
    facts_of,
    found,
    limited,
    mended,
    policy_of,
    reconciled,
    ruled,
    side_by_side,
    spec_of,
    story,
    unmeasured,
)
from msgspec.structs import replace

from storyloop.core.artifacts import Analysis, Ruling
from storyloop.core.bounds import bounds, bounds_of, may_return
from storyloop.core.draft import Draft
from storyloop.core.effects import (
    CallAgent,
    CleanHandover,
    Effect,
    FinishRun,
    LandStory,
    LeaveStory,
    OpenWorktree,
    ParkRun,
    RunCommand,
    ScrubWorktree,
    SetAside,
    StartReview,
    StartStory,
    TakeUp,
    Wait,
    WriteHandover,
)
from storyloop.core.errand import Calling, Errand, Stranded, Waiting
from storyloop.core.events import (
    CallEnded,
    CallStarted,
    CommandMeasured,
    Event,
    FinalProofBegun,
    LimitLearned,
    QuestionAnswered,
    RequestRefused,
    ReviewStarted,
    RunFinished,
    RunInterrupted,
    RunResumed,
    RunUndone,
    StoryApproved,
    StoryLanded,
    StoryLeft,
    StoryRejected,
    StoryReopened,
    StorySkipped,
    WorktreeLost,
    WorktreeOpened,
    WorktreeScrubbed,
)
from storyloop.core.evidence import deserves_second_run
from storyloop.core.facts import Answered, CallReport, Measured, Outcome
from storyloop.core.final import is_final_proof_due
from storyloop.core.judge import owed_probes
from storyloop.core.plan import plan
from storyloop.core.policy import (
    WRITING_DRAINS,
    Budget,
    Drain,
    OnExhausted,
    Policy,
    Require,
    ReviewPolicy,
    StoryBudget,
    WorktreePolicy,
)
from storyloop.core.purpose import (
    RUN,
    Baselining,
    Checking,
    Demonstrating,
    FinalChecking,
    FinalDemonstrating,
    Probing,
    Reproving,
    SettingUp,
)
from storyloop.core.reduce import fold, reduce
from storyloop.core.run_state import RunState
from storyloop.core.spec import Spec
from storyloop.core.stages import (
    Approving,
    Asking,
    Building,
    Closing,
    Describing,
    Judging,
    Landing,
    Leaving,
    Preparing,
    Proving,
    Reconciling,
    ReviewEnd,
    TakingUp,
    Work,
    can_be_left,
    errand_of,
    waiting_of,
)
from storyloop.core.steps import is_initializing
from storyloop.core.undoing import review_then, standings_then, steps_of
from storyloop.core.words import IterationStatus, MachineState, RunStatus, StoryState

MOST_FACTS = 5_000  # far more than any of these runs can have: who comes here does not end
HUMANS = QuestionAnswered | StoryApproved | StoryRejected | StorySkipped | StoryReopened | RequestRefused
HUMANS |= RunInterrupted | RunResumed | WorktreeLost
FAR = 1e7


# --- worlds -----------------------------------------------------------------------------------------------


class World(msgspec.Struct, frozen=True):
    """A spec, a policy, and what the rest of the world does about it."""

    spec: Spec
    policy: Policy
    width: int
    humans: int  # how often somebody intervenes
    script: bytes


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """One to five stories; each may need earlier ones, and have commands of its own."""
    shapes = draw(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=5))
    stories = [
        story(
            f"S{number}",
            *(f"S{earlier}" for earlier in range(number) if needs & (1 << earlier)),
            verify=tuple(f"v{n}" for n in range(proofs)),
            priority=1 + other % 3,
            passes=other == 9,
        )
        for number, (needs, proofs, other) in enumerate(shapes)
    ]
    return spec_of(*reversed(stories))


CHAINS = [("a",), ("a", "b"), ("a:m", "a", "b"), ("a", "a"), ("b", "a:m", "c")]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Small limits, so that every one of them is met."""
    pick = st.sampled_from
    policy = policy_of(
        *draw(pick(CHAINS)),
        review=draw(pick([True, True, False])),
        review_cycles=draw(pick([0, 1, 2, 3])),
        fix_continuations=draw(pick([0, 1, 2])),
        checks=draw(pick([(), ("test",), ("lint", "test")])),
        commit=(bound := draw(pick([((), ()), ((), ("d",)), (("c",), ()), (("a", "b"), ())])))[0],
        analysis=bound[1],
        continuations=draw(pick([0, 1, 3, 5])),
        format_retries=draw(pick([0, 1, 2])),
        same_agent_retries=draw(pick([0, 1, 2, 3])),
        chain_cycles=draw(pick([0, 1, 2, 3])),
        loop_threshold=draw(pick([2, 3])),
        calls_per_errand=draw(pick([1, 3, 6, 12])),
        backoff=draw(pick([0.0, 15.0, 400.0])),
        max_wait=draw(pick([0.0, 1000.0, 1e9])),
        questions=draw(pick([0, 1, 3, 3])),
        question_deadline=draw(pick([None, None, 0.0, 60.0, FAR])),
        on_exhausted=draw(pick(OnExhausted)),
    )
    return replace(
        policy,
        require=draw(pick([Require.CHECKS, Require.CHECKS, Require.CRITERIA if bound[1] else Require.NONE])),
        review=replace(policy.review, per_story=draw(pick([False, False, False, True]))),
        budget=replace(
            draw(pick([Budget(), Budget(), Budget(calls=3), Budget(tokens=50), Budget(usd=0.5), Budget(time=40.0)])),
            story=draw(pick([StoryBudget(), StoryBudget(), StoryBudget(calls=2), StoryBudget(tokens=25)])),
        ),
        no_wait=draw(st.booleans()),
        step=draw(pick([False, False, False, False, True])),
        worktree=WorktreePolicy(setup=draw(pick([(), ("npm ci", "make")]))),
    )


def _mixed(seed: int) -> bytes:
    """A world that does something else each time; its length is prime, so that the rolls do not fall in step."""
    return Random(seed).randbytes(997)


seeds = st.integers(0, 2**32)
worlds = st.builds(
    World,
    spec=specs(),
    policy=policies(),
    width=st.sampled_from([1, 1, 1, 2, 3, 4]),
    humans=st.integers(0, 8),
    script=st.one_of(st.binary(min_size=1, max_size=8), seeds.map(_mixed), seeds.map(_mixed), seeds.map(_mixed)),
)

OUTCOMES: list[Outcome] = [PARTIAL, MALFORMED, CRASHED, TIMED_OUT, LOGGED_OUT, NOT_INSTALLED, MISCONFIGURED]
OUTCOMES += [OFFLINE, INTERRUPTED, SAID_FAILED, *[asks()] * 4]
ISSUES = [(), *[("the first number is wrong",)] * 2]
ISSUES += [("the second file is never closed", "the first number is wrong")]
READINGS: list[Measured] = [*[GREEN] * 7, RED, RED, exited(127), exited(137), unmeasured()]


# --- what happens in it -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One fact, the states around it, and the effect that it completes, if it completes one."""

    before: RunState
    event: Event
    after: RunState
    done: Effect | None


class Life:
    """The journey of a run through a world."""

    def __init__(self, world: World) -> None:
        world = replace(world, policy=side_by_side(world.policy, world.width))
        self.world, self.run, self.steps = world, Run(world.spec, world.policy), list[Step]()
        self._at, self._humans = 0, world.humans
        self.retries, self.policies = 0, [world.policy]

    def lived(self) -> "Life":
        while len(self.steps) < MOST_FACTS:
            if self._humans and (not self.run.owed or self._roll(12) == 1):
                self._humans -= 1
                self._intervene()
            elif not self.run.owed:
                return self
            else:
                self._perform(self.run.owed[self._roll(len(self.run.owed))])
        raise AssertionError("the run does not end")

    @property
    def states(self) -> Iterator[RunState]:
        yield fold(self.run.events[:1])  # pyright: ignore[reportReturnType] - one event makes a state
        yield from (step.after for step in self.steps)

    def _roll(self, sides: int) -> int:
        """A side of a die, as the script says."""
        self._at += 1
        return self.world.script[self._at % len(self.world.script)] % sides

    def _now(self) -> datetime:
        """Mostly later, sometimes the same moment, sometimes before."""
        return self.run.state.going.last_at + timedelta(seconds=[1, 7, 0, -10][self._roll(4)])

    def _happened(self, event: Event, done: Effect | None = None) -> None:
        before = self.run.state
        self.run.happened(event)
        self.steps.append(Step(before, event, self.run.state, done))

    def _perform(self, effect: Effect) -> None:
        state, now = self.run.state, self._now()
        how: dict[str, Any] = {}
        if isinstance(effect, CallAgent):
            if not effect.begun and self._roll(9) == 0 and self._learns(effect, now):
                return
            if not effect.begun and self._roll(3) == 0:  # it will be found by whoever looks next
                self._happened(call_started(effect, now))
                return
            how = self._answer(effect, state)
        elif isinstance(effect, RunCommand):
            how["first"] = READINGS[self._roll(len(READINGS))]
            judged = not isinstance(effect.purpose, SettingUp | Probing)
            if judged and deserves_second_run(how["first"]):
                how["second"] = READINGS[self._roll(len(READINGS))]
            if isinstance(effect.purpose, SettingUp) and self._roll(8):
                how["first"] = GREEN
        if isinstance(effect, TakeUp) and state.going.work[effect.story].head != state.going.tip:
            clash = self._roll(4)
            how = {"clash": clash == 1, "clashes": ("src/x.py",) if clash == 2 else ()}
        events = facts_of(effect, state, now, **how)
        if isinstance(effect, Wait) and self._roll(3) == 0:  # the clock was set back meanwhile
            events = tuple(replace(event, at=now) for event in events)
        for event in events[:-1]:
            self._happened(event)
        self._happened(events[-1], effect)

    def _learns(self, effect: CallAgent, now: datetime) -> bool:
        """Another run has met this agent's limit, if there is still one to be heeded."""
        state = self.run.state
        errand = _turn(state.going.work[effect.story])
        if errand.learned >= state.effective_config().limits.calls_per_errand:
            return False
        until = now + timedelta(seconds=[1.0, 60.0, 700.0, FAR][self._roll(4)])
        key = f"{effect.key}/limit/{errand.learned + 1}"
        learned = LimitLearned(
            key=key, at=now, story=effect.story, drain=effect.drain, ref=effect.ref, until=until, reason="elsewhere"
        )
        self._happened(learned)
        return True

    def _answer(self, effect: CallAgent, state: RunState) -> dict[str, Any]:
        work = state.going.work[effect.story]
        tree = [work.tree, "tree-1", "tree-2", f"tree-{effect.key}"][self._roll(4)]
        kind = self._roll(3 * len(OUTCOMES))
        outcome: Outcome | None = None  # done, as owed
        if kind < len(OUTCOMES):
            outcome = OUTCOMES[kind]
            if effect.drain is Drain.ANALYSIS and outcome in (PARTIAL, SAID_FAILED, asks()):
                outcome = ruled(effect.story, ["unmet", "unknown", "met", "met"][self._roll(4)])
            elif effect.drain is Drain.COMMIT and outcome in (PARTIAL, SAID_FAILED, asks()):
                outcome = MALFORMED
            elif effect.drain is Drain.FIX and outcome in (PARTIAL, SAID_FAILED, asks()):
                outcome = mended(["issues_remain", "no_issues_found", "failed"][self._roll(3)])
        elif kind < len(OUTCOMES) + 5:
            seconds = [None, -5.0, 60.0, 700.0, FAR][kind - len(OUTCOMES)]
            outcome = limited(None if seconds is None else state.going.last_at + timedelta(seconds=seconds))
        if effect.drain is Drain.CONFLICT and outcome in (PARTIAL, SAID_FAILED, asks()):
            outcome = reconciled(["resolved", "failed"][self._roll(2)])
        if effect.drain is Drain.REVIEW and outcome in (None, PARTIAL, SAID_FAILED, asks()):
            outcome = found(*ISSUES[self._roll(len(ISSUES))])
        if effect.drain not in WRITING_DRAINS:
            tree = work.tree
        cost = [None, 0.25][self._roll(2)]
        return {"outcome": outcome, "tree": tree, "session": f"session of {effect.key}", "cost_usd": cost}

    # --- humans -------------------------------------------------------------------------------------------

    def _intervene(self) -> None:
        state, run = self.run.state, self.run
        name = list(state.going.stories)[self._roll(len(state.going.stories))]
        standing, work = state.going.stories[name], state.going.work.get(name)
        asking = [other.story for other in state.going.work.values() if isinstance(other.stage, Asking)]
        proven = [other.story for other in state.going.work.values() if isinstance(other.stage, Approving)]
        number = state.going.inbox_seen + 1
        wish = self._roll(5)
        ids: dict[str, Any] = {"key": f"request/{number}", "at": run.now, "number": number}
        in_hand = work is not None and can_be_left(work)
        waiting = work is None and standing.state in (StoryState.OPEN, StoryState.BLOCKED)
        over = work is None and standing.state in (StoryState.BLOCKED, StoryState.SKIPPED)
        if wish == 0 and (in_hand or waiting):
            self._happened(StorySkipped(**ids, story=name))
        elif wish <= 2 and proven:
            judged = [StoryApproved, StoryApproved, StoryRejected][self._roll(3)]
            self._happened(judged(**ids, story=proven[0]))
        elif wish <= 2 and asking:
            self._happened(QuestionAnswered(**ids, story=asking[0], text="yes"))
        elif wish <= 2 and over:
            self.retries += 1
            self._happened(StoryReopened(**ids, story=name))
        elif wish == 3 and state.status is RunStatus.RUNNING:
            key = f"interrupted/{state.going.resumes}"
            self._happened(RunInterrupted(key=key, at=run.now, reason="Ctrl-C"))
        elif _can_be_resumed(state):
            if state.going.opening.worktree_opened and self._roll(4) == 0:
                self._happened(WorktreeLost(key=f"worktree/lost/{state.going.resumes}", at=run.now))
            self._happened(RunResumed(key=f"resumed/{state.going.resumes + 1}", at=self._now(), policy=self._amended()))
        else:
            self._happened(RequestRefused(**ids, reason="it cannot be granted"))

    def _amended(self) -> Policy | None:
        policy = self.run.state.effective_config()
        match self._roll(5):
            case 0:
                policy = replace(policy, budget=Budget(calls=20))
            case 1:
                policy = replace(policy, chain=chain(*CHAINS[self._roll(len(CHAINS))]))
            case 2:
                policy = replace(policy, no_wait=not policy.no_wait)
            case _:
                return None
        self.policies.append(policy)
        return policy


def _can_be_resumed(state: RunState) -> bool:
    if state.status is not RunStatus.FAILED:
        return state.status is not RunStatus.COMPLETED
    reopened = any(standing.state is StoryState.OPEN for standing in state.going.stories.values())
    return reopened or bool(state.going.failure)


THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
lived = settings(max_examples=5000 if THOROUGH else 300, deadline=None, database=None)
SEED = 3  # of lives in which all happens that the laws are about


@cache
def lives() -> list[Life]:
    """The same ones in every run of the suite, and for every law."""
    found: list[Life] = []

    @seed(SEED)
    @lived
    @given(world=worlds)
    def live(world: World) -> None:
        found.append(Life(world).lived())

    live()
    return found


def law(*, width: int = 0) -> Any:
    """A promise about every life in these worlds, or about of this width; the end of one that breaks it is told.

    With HYPOTHESIS_PROFILE=thorough each law has thousands of lives of its own, other ones each time, and the smallest
    that breaks it is shown.
    """

    def decorated(test: Any) -> Any:
        def told(life: Life) -> None:
            try:
                test(life)
            except BaseException:
                print(life.world, *(f"{s.event.key}: {s.after.machine_state}" for s in life.steps[-60:]), sep="\n")
                raise

        def checked() -> None:
            for life in lives():
                if width in (0, life.world.width):
                    told(life)

        @lived
        @given(world=worlds.map(lambda world: replace(world, width=width)) if width else worlds)
        def hunted(world: World) -> None:
            told(Life(world).lived())

        law = hunted if THOROUGH else checked
        law.__name__, law.__doc__ = test.__name__, test.__doc__
        return law

    return decorated


# --- the laws ---------------------------------------------------------------------------------------------


@law()
def test_a_run_owes_something_waits_for_somebody_or_has_ended(life: Life) -> None:
    """There is no fourth case: no run hangs, and none that is over goes on."""
    for state in life.states:
        progress, owed = state.going, plan(state)
        assert bool(owed) is (state.status is RunStatus.RUNNING)
        assert (progress.parked is not None and progress.parked.reason != "") is (state.status is RunStatus.PARKED)
    for step in life.steps:
        if isinstance(step.event, RunFinished):
            left = {standing.state for standing in step.after.going.stories.values()}
            assert not step.after.going.work
            assert StoryState.OPEN not in left
            of_stories = [s.review.end for s in step.after.going.stories.values() if s.review is not None]
            end = step.after.going.review.end
            fine = end is ReviewEnd.CONVERGED or (end is None and {*of_stories} <= {ReviewEnd.CONVERGED})
            assert (left <= {StoryState.PASSED} and fine) is (step.after.status is RunStatus.COMPLETED)


LIFE: dict[type, int] = {Preparing: 5, Building: 4, Asking: 4, TakingUp: 4, Proving: 4, Judging: 4}
LIFE |= {Reconciling: 4, Approving: 3, Describing: 3, Landing: 2, Leaving: 2, Closing: 1}
ASKED = Building | Judging | Reconciling | Describing


def budget_left(state: RunState) -> tuple[int, ...]:
    """What a run can still do: every fact that no human caused makes this smaller, in the order of the dictionary.

    - whether it is running at all: ending, parking and interrupting take it away;
    - what has still to be opened and measured before the first story;
    - the stories that the final proof may still send back to their authors: each goes back once;
    - the stories that may still be begun: starting one and blocking its dependents take from it;
    - the cycles of the review that may still be begun;
    - the turns that may come to the stories in hand: one, and another one behind each question;
    - how far the stories in hand are from their end: preparing, building or proving, describing or waiting for an
      approval (behind which humans alone go on), landing or leaving, closing; and the review's cycle, whose fix is
      behind its review. Building and proving alternate, so they count alike, and what bounds them is
    - the calls that their errands may still make: each start of a process takes one;
    - the limits of other runs that they may still heed;
    - the calls under way: each end takes one, whatever it comes to;
    - the steps from a question to its reply: set aside, replied to, taken up;
    - the commands that are still to be run on what the last call left;
    - the waits: the one that is on, and those that other agents' cooling down could put behind it;
    - the handovers to be written and to be removed;
    - the final proof: a round that is due, the clean worktree of the one in hand, its commands;
    - the commands that set the worktree up, which each round of the final proof owes anew; and those of the lanes.
    """
    progress, policy = state.going, state.effective_config()
    opening = progress.opening
    works = list(progress.work.values())
    turns = [(work, _turn(work)) for work in works]
    return (
        int(state.status is RunStatus.RUNNING),
        (not opening.worktree_opened) + len(policy.checks) - len(opening.baseline),
        len(progress.stories) - len(progress.final.returned),
        progress.ledger.iterations_allowed,
        policy.limits.review_cycles - state.review_iteration,
        sum(2 + policy.limits.questions - work.turns for work in works),
        sum(LIFE[type(work.stage)] + (work.errand.drain is Drain.REVIEW) for work in works),
        sum(4 * policy.limits.calls_per_errand - sum(e.calls for e in _errands_of(work)) for work in works),
        sum(4 * policy.limits.calls_per_errand - sum(e.learned for e in _errands_of(work)) for work in works),
        sum(isinstance(errand.stage, Calling) for _, errand in turns),
        sum(_steps_of_asking(work) for work in works),
        sum(_commands_owed(state, work) for work in works),
        sum(_waits(state, errand) for work, errand in turns if isinstance(work.stage, ASKED)),
        sum(work.cs.context_write_pending + work.cs.context_cleanup_pending for work in works),
        *_final_left(state),
        len(policy.worktree.setup) - opening.setup_done,
        sum(len(policy.worktree.setup) - lane.set_up for lane in progress.lanes.values()),
    )


def _final_left(state: RunState) -> tuple[int, int]:
    """Whether a clean worktree is owed (twice so, before its round has begun), and how many commands in it."""
    final, due = state.going.final, is_final_proof_due(state.going, state.effective_config())
    return 2 * due + (bool(final.owed) and not final.scrubbed), len(final.owed)


def _turn(work: Work) -> Errand:
    return errand_of(work)[0]


def _steps_of_asking(work: Work) -> int:
    match work.stage:
        case Asking(set_aside=set_aside):
            return 2 if set_aside else 3
        case TakingUp():
            return 1
        case _:
            return 0


def _errands_of(work: Work) -> list[Errand]:
    """All that it has: an attempt's, its analysis, its review and its clashes' alternate."""
    worded = work.stage.errand if isinstance(work.stage, Describing) else None
    all_of_it = (work.errand, work.analysis, work.reviewer, work.conflict, worded)
    return [errand for errand in all_of_it if errand is not None]


def _commands_owed(state: RunState, work: Work) -> int:
    if isinstance(work.stage, Proving):
        return 1 + len(work.stage.owed)
    return len(owed_probes(work, state.going.spec.story(work.story))) if isinstance(work.stage, Preparing) else 0


def _waits(state: RunState, errand: Errand) -> int:
    if not isinstance(errand.stage, Waiting):
        return 0
    until = errand.stage.until
    return 1 + sum(cooling.until is not None and cooling.until > until for cooling in state.going.cooling.values())


@law()
def test_every_fact_that_no_human_caused_uses_something_up(life: Life) -> None:
    """A tuple of counts that only falls cannot fall for ever: so every run ends, whatever the agents answer."""
    for step in life.steps:
        if not isinstance(step.event, HUMANS):
            after, before = budget_left(step.after), budget_left(step.before)
            assert after < before, f"{step.event.key}: {before} -> {after}"
            assert min(after) >= 0


@law()
def test_no_run_makes_more_calls_or_waits_longer_than_was_printed_before_it_started(life: Life) -> None:
    """Interruptions and resumes give nothing back; a retry adds one story's errands, a greater budget its own."""
    world, last = life.world, life.run.state
    made = sum(isinstance(step.event, CallStarted) for step in life.steps)
    assert made == last.going.ledger.calls
    if len(life.policies) == 1 and not life.retries:
        assert made <= bounds(world.spec, world.policy).calls
    stories = sum(not one.passes for one in world.spec.user_stories)
    unlimited = replace(world.policy, budget=Budget())
    once, turned_off = bounds(world.spec, unlimited), replace(unlimited, review=ReviewPolicy(enabled=False))
    reviews = life.retries * (once.calls - bounds(world.spec, turned_off).calls)
    assert made <= bounds_of(stories + life.retries, world.spec, unlimited).calls + reviews
    assert len(last.iterations) <= stories + life.retries + may_return(world.spec, world.policy)
    for step in life.steps:
        if isinstance(step.event, CallStarted):
            budget, made = step.before.effective_config().budget, step.before.going.work[step.event.story].calls
            assert budget.calls is None or step.before.going.ledger.calls < budget.calls
            assert step.event.story == RUN or budget.story.calls is None or made < budget.story.calls
            assert step.event.call <= world.policy.limits.calls_per_errand
    assert last.going.ledger.waited <= world.policy.limits.max_wait


ENCODER, DECODER = msgspec.json.Encoder(), msgspec.json.Decoder(RunState)
EVENTS = msgspec.json.Decoder(Event)


@law()
def test_every_state_and_every_fact_survives_json(life: Life) -> None:
    """A snapshot is the state, and a journal is the run."""
    for state in life.states:
        assert DECODER.decode(ENCODER.encode(state)) == state
    for event in life.run.events:
        assert EVENTS.decode(ENCODER.encode(event)) == event


@law()
def test_folding_the_journal_again_from_anywhere_comes_to_the_same_state(life: Life) -> None:
    """Resuming is the same fold."""
    events = life.run.events
    cut = len(events) // 2
    assert fold(events[cut:], fold(events[:cut])) == life.run.state


@law()
def test_no_key_is_ever_used_twice(life: Life) -> None:
    """Neither by a fact, which the journal would refuse, nor by a deed, which would be taken for done."""
    facts = [event.key for event in life.run.events]
    assert len(set(facts)) == len(facts)
    deeds = [step.done.key for step in life.steps if step.done is not None]
    assert len(set(deeds)) == len(deeds)


@law()
def test_no_two_deeds_are_owed_under_one_key_at_the_same_time(life: Life) -> None:
    """The engine tells deeds under way by their keys."""
    for state in life.states:
        keys = [effect.key for effect in plan(state)]
        assert len(set(keys)) == len(keys)


ENDINGS = {
    MachineState.COMPLETED: RunStatus.COMPLETED,
    MachineState.FAILED: RunStatus.FAILED,
    MachineState.PARKED: RunStatus.PARKED,
}


def doing(effect: Effect, state: RunState) -> MachineState | None:
    """What a run shows that owes just this."""
    match effect:
        case OpenWorktree() | RunCommand(purpose=SettingUp()) if state.going.opening.losses:
            return None  # made again, it is part of whatever it is made for
        case RunCommand(purpose=SettingUp(round=0)) if state.going.final.rounds:
            return None  # likewise where the set-up of a final proof has failed
        case RunCommand(purpose=SettingUp(round=proof)) if proof:
            return MachineState.PROVING
        case OpenWorktree() | RunCommand(purpose=SettingUp() | Baselining()):
            return MachineState.INITIALIZING
        case StartStory() | StartReview() | FinishRun():  # beside a question, it waits until the next story has begun
            return MachineState.WAITING if state.going.work else MachineState.PICKING_STORY
        case SetAside():
            return MachineState.WAITING
        case RunCommand(purpose=Probing()) | WriteHandover() | TakeUp() | CallAgent(drain=Drain.STORY):
            return MachineState.RUNNING_AGENT
        case ScrubWorktree():  # the first one of a round is where it begins
            return MachineState.PROVING if state.going.final.owed else MachineState.PICKING_STORY
        case RunCommand(purpose=Checking() | Demonstrating() | Reproving() | FinalChecking() | FinalDemonstrating()):
            return MachineState.PROVING
        case CallAgent(drain=Drain.ANALYSIS):
            return MachineState.PROVING
        case CallAgent(drain=Drain.REVIEW):
            return MachineState.REVIEWING
        case CallAgent(drain=Drain.FIX):
            return MachineState.CORRECTING
        case CallAgent():
            return MachineState.COMMITTING
        case Wait():
            return MachineState.WAITING
        case LandStory() | LeaveStory():
            return MachineState.LANDING
        case CleanHandover(key=key) if key.endswith("/end"):
            return MachineState.PICKING_STORY
        case CleanHandover(story=name):
            left = isinstance(state.going.work[name].stage, Leaving)
            waits = waiting_of(state.going.work[name]) is not None
            asking = MachineState.RUNNING_AGENT if name else MachineState.WAITING if waits else MachineState.REVIEWING
            return MachineState.LANDING if left else asking
        case ParkRun():
            return None  # whatever it cannot go on with


@law(width=1)
def test_the_machine_state_agrees_with_the_status_and_with_what_is_owed(life: Life) -> None:
    """Who reads one of them need not read the other."""
    for state in life.states:
        expected = ENDINGS.get(state.machine_state)
        assert state.status is expected or (
            expected is None and state.status in (RunStatus.RUNNING, RunStatus.INTERRUPTED)
        )
        assert (state.finished_at is not None) is (state.status in (RunStatus.COMPLETED, RunStatus.FAILED))
        if state.status is RunStatus.RUNNING:
            shown = doing(plan(state)[0], state)
            assert shown in (None, state.machine_state)


def is_green(event: CommandMeasured) -> bool:
    """Written once more, and plainly: exit 0, or exit 0 on the second look at a plain red."""
    first, second = event.first.exit_status, event.second
    return first == 0 or (first not in (None, 137) and second is not None and second.exit_status == 0)


@law(width=1)
def test_a_story_passes_only_by_green_commands_on_exactly_the_landed_tree(life: Life) -> None:
    """Every check that gates and every proof, told again from the bare facts of the journal.

    Of stories one by one: side by side, a check may begin to gate between a story's proof and its landing.
    """
    policy, spec = life.world.policy, life.world.spec
    inherited: set[str] = set()
    shown: dict[tuple[str, int, str], dict[str, bool]] = {}  # story, iteration, tree -> what each command showed
    met: dict[tuple[str, int, str], set[str]] = {}  # the same key -> the criteria that were last judged met
    fixed: dict[tuple[int, str], dict[str, bool]] = {}  # the same of fixes, by cycle and tree
    passed = {one.id for one in spec.user_stories if one.passes}
    for step in life.steps:
        passed -= broken_by(step)
        match step.event:
            case CommandMeasured(purpose=Baselining(check=check)) as event if not is_green(event):
                inherited.add(check)
            case CommandMeasured(purpose=Checking(story="") | Reproving() as purpose) as event:
                cycle = step.before.going.review.cycles
                label = purpose.check if isinstance(purpose, Checking) else f"{purpose.story} {purpose.criterion}"
                fixed.setdefault((cycle, event.tree), {})[label] = is_green(event) or label in inherited
            case CommandMeasured(purpose=Checking() as purpose) as event:
                tried = shown.setdefault((purpose.story, purpose.iteration, event.tree), {})
                tried[purpose.check] = is_green(event)
            case CommandMeasured(purpose=Demonstrating() as purpose) as event:
                tried = shown.setdefault((purpose.story, purpose.iteration, event.tree), {})
                tried[str(purpose.criterion)] = is_green(event)
            case CallEnded(story=name, report=CallReport(outcome=Answered(artifact=Analysis(judgements=told)))):
                work = step.before.going.work[name]
                rulings = {one.ruling for one in told}
                assert work.pin is not None
                met[name, work.iteration, work.pin.tree] = {str(one.number) for one in told if one.ruling is Ruling.MET}
                assert Ruling.UNMET not in rulings or isinstance(step.after.going.work[name].stage, Building | Leaving)
            case StoryLanded(story="", tip_tree=tip_tree):
                assert all(fixed.get((step.before.going.review.cycles, tip_tree), {}).values())
            case StoryLanded(story=name, commit=commit, tip_tree=tip_tree):
                work = step.before.going.work[name]
                tree = tip_tree if commit else work.tree
                tried = shown.get((name, work.iteration, tree), {})
                proofs = {str(n) for n, c in enumerate(spec.story(name).acceptance_criteria, start=1) if c.verify}
                assert set(tried) == set(policy.checks) | proofs
                assert all(tried[label] for label in tried if label not in inherited)
                assert any(tried.values()) or policy.require is not Require.CHECKS
                judged = step.after.going.stories[name].judged
                criteria = {str(n) for n in range(1, 1 + len(spec.story(name).acceptance_criteria))}
                assert {str(one.criterion) for one in judged} == met.get((name, work.iteration, tree), set())
                assert {one.tree for one in judged} <= {tree}
                assert (
                    policy.require is not Require.CRITERIA
                    or proofs | {str(one.criterion) for one in judged} == criteria
                )
                assert commit or proofs
                inherited -= {label for label, green in tried.items() if green}
                assert step.after.going.inherited == tuple(c for c in policy.checks if c in inherited)
                evidence = step.after.going.stories[name].evidence
                assert {e.check or str(e.criterion): e.reading.is_green for e in evidence} == tried
                assert {e.tree for e in evidence} <= {tree}
                passed.add(name)
            case StoryLeft(commit=commit):
                assert commit is None or policy.limits.on_exhausted is OnExhausted.COMMIT
            case _:
                pass
        moved = step.before.going.tip_tree != step.after.going.tip_tree
        assert not moved or isinstance(step.event, StoryLanded | StoryLeft | WorktreeOpened)
        if (shown_finally := step.after.going.final.measured) and not step.after.going.final.owed:
            inherited -= {m.evidence.check for m in shown_finally if m.evidence.reading.is_green and m.evidence.check}
    stories = life.run.state.going.stories
    assert {name for name, s in stories.items() if s.state is StoryState.PASSED} == passed


@law()
def test_under_step_only_the_very_tree_that_a_human_approved_is_committed(life: Life) -> None:
    """Of stories and of fixes; and nothing is committed that was not proven.

    Side by side, what was approved is put onto what has landed meanwhile, and that is another tree, proven anew.
    """
    approved: dict[str, str] = {}
    for step in life.steps:
        match step.event:
            case StoryApproved(story=name):
                work = step.before.going.work[name]
                assert isinstance(work.stage, Approving)
                approved[name] = work.stage.landing.tree
            case StoryLanded(story=name, commit=commit, tip_tree=tree) if life.world.policy.step:
                work = step.before.going.work[name]
                assert approved.pop(name) == (tree if commit else work.tree) or work.since
            case StoryLeft(commit=commit) if life.world.policy.step:
                assert commit is None
            case _:
                pass


def broken_by(step: Step) -> set[str]:
    """The stories that a round of the final proof took the standing of, at its end."""
    if not step.before.going.final.owed or step.after.going.final.owed:
        return set()
    before, after = step.before.going.stories, step.after.going.stories
    return {name for name in before if before[name].state is StoryState.PASSED is not after[name].state}


@law()
def test_a_run_ends_only_when_all_that_passed_was_proven_together_in_a_clean_worktree(life: Life) -> None:
    """On the branch's tip, behind a set-up of its own; what was red there does not stand as passed.

    Told again from the bare facts: each round begins with a scrub and is thrown away if anything breaks it off.
    """
    policy, spec = life.world.policy, life.world.spec
    shown: dict[str, bool] = {}  # in the round in hand,
    proven: tuple[str, dict[str, bool]] = ("", {})  # and in the last one that came to its end, with its tree
    set_up = 0
    returned: set[str] = set()
    for step in life.steps:
        before, after = step.before.going, step.after.going
        match step.event:
            case FinalProofBegun():
                assert not before.work
                assert not any(standing.state is StoryState.OPEN for standing in before.stories.values())
            case WorktreeScrubbed():
                shown, set_up = {}, 0
            case CommandMeasured(purpose=SettingUp(round=proof)) if proof:
                set_up += 1
            case CommandMeasured(purpose=FinalChecking(check=label)) as event:
                assert (set_up, event.tree) == (len(policy.worktree.setup), after.tip_tree)
                shown[label] = is_green(event)
            case CommandMeasured(purpose=FinalDemonstrating(story=name, criterion=number)) as event:
                assert (set_up, event.tree) == (len(policy.worktree.setup), after.tip_tree)
                shown[f"{name} {number}"] = is_green(event)
            case RunFinished():
                tree, showed = proven
                passed = [one for one in spec.user_stories if after.stories[one.id].state is StoryState.PASSED]
                proofs = {
                    f"{s.id} {n}" for s in passed for n, c in enumerate(s.acceptance_criteria, start=1) if c.verify
                }
                owed = proofs | set(policy.checks if passed else ())
                assert owed <= set(showed)
                assert tree == after.tip_tree or not owed
                assert all(showed[label] for label in proofs)
            case _:
                pass
        if before.final.owed and not after.final.owed and step.after.status is RunStatus.RUNNING:
            proven = (after.tip_tree, shown)
            lost = broken_by(step)
            red = {label for label, green in shown.items() if not green}
            assert {label.split()[0] for label in red if " " in label} <= lost
            gating = red & set(policy.checks) - set(before.inherited)
            assert len(lost) <= len({label.split()[0] for label in red if " " in label}) + bool(gating)
            assert bool(lost) is bool(gating or any(" " in label for label in red))
            back = {name for name in lost if after.stories[name].state is StoryState.OPEN}
            assert not back & returned
            returned |= back
            assert after.ledger.iterations_allowed - before.ledger.iterations_allowed <= len(back)
    assert len(returned) <= may_return(spec, policy)


@law()
def test_records_and_stories_in_hand_are_one_account(life: Life) -> None:
    """One running record for each story in hand, numbered without a gap; the newest is the one that is shown."""
    taken: set[str] = set()  # stories that passed, but did no longer in the final proof
    for step in life.steps:
        taken |= broken_by(step)
        state, progress = step.after, step.after.going
        assert [record.number for record in state.iterations] == list(range(1, state.iteration + 1))
        running = {r.number: r.story_id for r in state.iterations if r.status is IterationStatus.RUNNING}
        stories = [w for w in progress.work.values() if w.story and not isinstance(w.stage, Closing)]
        in_hand = {w.iteration: w.story for w in stories}
        assert running == in_hand
        assert state.current_story == (running[max(running)] if running else None)
        succeeded = {r.story_id for r in state.iterations if r.status is IterationStatus.SUCCESS}
        passed = {name for name, s in progress.stories.items() if s.state is StoryState.PASSED}
        assert succeeded >= passed - {s.id for s in life.world.spec.user_stories if s.passes}
        assert succeeded <= passed | taken
        standings = [standing.state for standing in progress.stories.values()]
        assert progress.ledger.iterations_allowed == standings.count(StoryState.OPEN)
        assert standings.count(StoryState.BUILDING) == len(in_hand)


@law()
def test_calls_and_attempts_add_up(life: Life) -> None:
    """What the stories and the agents account for is what the ledger counts."""
    settled_reviews, of_reviews = 0, 0
    for step in life.steps:
        progress = step.after.going
        in_hand = [w for w in progress.work.values() if not isinstance(w.stage, Closing)]
        of_reviews += isinstance(step.event, CallStarted) and not step.event.story
        settled_reviews = settled_reviews if any(not w.story for w in in_hand) else of_reviews
        settled = settled_reviews + sum(standing.calls for standing in progress.stories.values())
        assert settled + sum(work.calls for work in in_hand) == progress.ledger.calls
        under_way = sum(isinstance(_turn(work).stage, Calling) for work in in_hand)
        assert progress.ledger.total.calls + under_way == progress.ledger.calls
        assert sum(s.calls for s in progress.ledger.by_agent.values()) == progress.ledger.total.calls
        assert all(standing.attempts <= standing.calls for standing in progress.stories.values())


@law()
def test_no_counter_passes_its_limit_and_no_impossible_state_is_reached(life: Life) -> None:
    """Whatever happens in between."""
    limits = life.world.policy.limits
    for state in life.states:
        for work in state.going.work.values():
            errand, cs = _turn(work), work.cs
            cs.__post_init__()  # raises for a combination of fields that must not exist
            assert errand.calls <= limits.calls_per_errand
            assert errand.cycle <= max(1, limits.chain_cycles)
            assert errand.rung <= 3
            assert cs.continuation_attempt <= max(1, limits.continuations)
            assert cs.xsd_retry_count <= limits.format_retries
            assert cs.same_agent_retry_count <= limits.same_agent_retries
            assert 0 <= errand.position < len(errand.chain)


@law()
def test_a_counter_never_falls_while_a_story_is_in_hand(life: Life) -> None:
    """No recovery path can reset the counter that bounds it."""
    for step in life.steps:
        before, after = step.before.going, step.after.going
        assert after.ledger.calls >= before.ledger.calls
        assert after.ledger.waited >= before.ledger.waited
        assert after.ledger.active >= before.ledger.active
        for name in before.work.keys() & after.work.keys():
            then, now = before.work[name], after.work[name]
            assert now.calls >= then.calls
            if isinstance(now.stage, Closing) or now.errand.key != then.errand.key:
                continue  # the story has left building, the review is over: their counters are gone on purpose
            assert now.cs.continuation_attempt >= then.cs.continuation_attempt
            assert (now.errand.calls, now.errand.rung) >= (then.errand.calls, then.errand.rung)
            assert now.errand.cycle >= then.errand.cycle


@law()
def test_stopping_and_resuming_anywhere_gives_nothing_back_and_changes_nothing_owed(life: Life) -> None:
    """Only those who waited for a human go on, and a round of commands that was broken off is run again; of the final
    proof from the clean worktree on."""
    for state in life.states:
        if state.status is not RunStatus.RUNNING:
            continue
        stopped = reduce(state, RunInterrupted(key="i", at=state.going.last_at, reason="Ctrl-C"))
        again = reduce(stopped, RunResumed(key="r", at=state.going.last_at))
        assert (again.going.ledger, again.going.stories) == (state.going.ledger, state.going.stories)
        if any(isinstance(_turn(work).stage, Stranded) for work in state.going.work.values()):
            continue
        assert again.machine_state is state.machine_state
        if any(again.going.work[name].errand.chain != work.errand.chain for name, work in state.going.work.items()):
            assert len(life.policies) > 1  # amended in the middle of a review: the next resume takes it up
            continue
        assert _errands(again) == _errands(state)
        if state.going.final.owed and state.going.opening.worktree_opened:
            (scrub,) = plan(again)
            assert isinstance(scrub, ScrubWorktree)
            assert scrub.round == state.going.final.rounds
            continue
        waits = [turn.stage for turn in map(_turn, state.going.work.values()) if isinstance(turn.stage, Waiting)]
        if len(waits) > 1 or any(not wait.since <= state.going.last_at < wait.until for wait in waits):
            continue  # no time counts while a run is stopped, and more where the clock was set back: max_wait differs
        for now, then in zip(plan(again), plan(state), strict=True):
            assert type(now) is type(then)
            if isinstance(now, Wait) and isinstance(then, Wait):
                assert now.until == then.until
            else:
                assert isinstance(then, RunCommand) or replace(now, key="") == replace(then, key="")


def _errands(state: RunState) -> list[tuple[object, ...]]:
    """What is still to be asked, but for the moment since which a wait counts: nobody waits while a run is stopped."""
    told: list[tuple[object, ...]] = []
    for work in state.going.work.values():
        errand = _turn(work)
        if not isinstance(work.stage, Building | Proving | Judging | Describing):
            continue
        if isinstance(errand.stage, Waiting):
            errand = replace(errand, stage=replace(errand.stage, since=errand.stage.until))
        told.append((work.story, errand, work.cs))
    return told


@law()
def test_a_call_s_end_belongs_to_the_agent_that_was_asked(life: Life) -> None:
    """Also when the chain was amended while it worked."""
    asked: dict[str, CallStarted] = {}
    for step in life.steps:
        match step.event:
            case CallStarted(key=key) as started:
                asked[key.removesuffix("/started")] = started
            case CallEnded(key=key, ref=ref, call=call):
                started = asked[key.removesuffix("/ended")]
                assert (ref, call) == (started.ref, started.call)
            case _:
                pass


def test_the_worlds_are_worth_living_in() -> None:
    """The laws are about runs that pass, fail, park, wait, fall back and are resumed; this sees that they occur."""
    seen: set[str] = set()

    for life in lives():
        for step in life.steps:
            seen.add(type(step.event).__name__)
            seen.add(step.after.status.value)
            for name in broken_by(step):
                sent_back = step.after.going.stories[name].state is StoryState.OPEN
                seen.add("sent back" if sent_back else "broken for good")
            for work in step.after.going.work.values():
                seen.add(type(work.stage).__name__)
                seen.add(type(_turn(work).stage).__name__)
                if _turn(work).position:
                    seen.add("fell back")
                if work.cs.is_continuation():
                    seen.add("continued")
                if work.cs.fix_continuation_attempt:
                    seen.add("mended once more")
            reviews = (step.after.going.review, *(s.review for s in step.after.going.stories.values()))
            seen.update(review.end for review in reviews if review is not None and review.end is not None)
    missing = EXPECTED - seen
    assert not missing


EXPECTED = {kind.__name__ for kind in [*LIFE, Calling, Waiting, Stranded, CommandMeasured, StoryLanded, StoryLeft]}
EXPECTED |= {kind.__name__ for kind in [StorySkipped, StoryReopened, RunInterrupted, RunResumed, RunFinished]}
EXPECTED |= {kind.__name__ for kind in [FinalProofBegun, WorktreeScrubbed, ReviewStarted, QuestionAnswered]}
EXPECTED |= {StoryApproved.__name__, StoryRejected.__name__}
EXPECTED |= {"mended once more", *ReviewEnd} - {ReviewEnd.OSCILLATION}  # three cycles in one order: told in test_review
EXPECTED |= {"sent back", "broken for good", "fell back", "continued", *(status.value for status in RunStatus)}


@law()
def test_whatever_is_undone_the_run_goes_on_from_there_and_ends(life: Life) -> None:
    """Back to each of its steps; as many stories may be begun as are open, and no counter gives anything back."""
    before, events = life.run.state, list(life.run.events)
    if is_initializing(Draft(before)):  # nothing was done yet
        return
    for to in steps_of(enumerate(events, start=1), before.branch):
        then = fold(events[: to.number])
        assert then is not None
        undone = RunUndone(
            key=f"undone/{to.number}",
            at=before.going.last_at,
            to=to.number,
            what="",
            tip=to.tip,
            tip_tree=to.tip_tree,
            kept=(),
            stories=standings_then(before, then),
            knowledge=then.knowledge,
            inherited=then.going.inherited,
            review=review_then(before, then),
        )
        again = Life(replace(life.world, humans=0))
        again.run.state, again.run.events = before, list(events)
        again.run.happened(undone)
        progress = again.run.state.going
        standings = [standing.state for standing in progress.stories.values()]
        assert (again.run.state.status, progress.work) == (RunStatus.INTERRUPTED, {})
        assert progress.ledger.iterations_allowed == standings.count(StoryState.OPEN)
        assert progress.ledger.calls == before.going.ledger.calls
        assert (progress.tip, progress.tip_tree) == (to.tip, to.tip_tree)
        passed = {name for name, s in then.going.stories.items() if s.state is StoryState.PASSED}
        assert {name for name, s in progress.stories.items() if s.state is StoryState.PASSED} <= passed
        again.run.happened(RunResumed(key=f"resumed/{progress.resumes + 1}", at=progress.last_at))
        assert again.lived().run.state.status is not RunStatus.RUNNING
