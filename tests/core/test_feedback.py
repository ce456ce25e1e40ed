"""Feedback: what is said of a pull request is judged, mended by its own story each, answered once, and watched."""

from datetime import timedelta
from typing import Any

import pytest
from makers import RED, Run, facts_of, mended, policy_of, spec_of, story, triage
from msgspec.structs import replace

from storyloop.core.artifacts import Asks
from storyloop.core.bounds import feedback_bounds
from storyloop.core.delivery import delivery_step
from storyloop.core.effects import (
    AnswerThread,
    CallAgent,
    FinishRun,
    LeaveStory,
    ParkRun,
    PushBranch,
    ResolveThread,
    ScrubWorktree,
    SeeFeedback,
    StartStory,
    Wait,
    WriteSpec,
)
from storyloop.core.errand import Mode
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import DeliveryFailed, FeedbackSeen, RunFinished, ThreadAnswered
from storyloop.core.feedback import MARK, concerns_of
from storyloop.core.forge import CheckState, Comment, DeliveryStep, ForgeCheck, Thread, Trouble
from storyloop.core.policy import Drain, Policy, PullRequestPolicy
from storyloop.core.progress import Feedback
from storyloop.core.words import MachineState, RunStatus, StoryState

TIP = "commit-base"


def said(name: str, *texts: str, file: str | None = "src/x.py") -> Thread:
    comments = tuple(Comment(id=f"{name}-{n}", author="ann", text=text) for n, text in enumerate(texts or ("Why?",)))
    return Thread(id=name, file=file, line=12 if file else None, comments=comments, resolvable=True)


def red(name: str) -> ForgeCheck:
    return ForgeCheck(name=name, state=CheckState.RED, tail="E   assert 1 == 2")


def followed(*heard: Thread | ForgeCheck, policy: Policy | None = None, watch: bool = False) -> Run:
    """A run that follows up what was said, at its first call."""
    concerns = concerns_of(heard, commit=TIP)
    feedback = Feedback(number=7, url="https://forge/7", base="", concerns=concerns, watch=watch)
    spec = replace(spec_of(), title="Pull request 7", description="It adds x.")
    pull_request = PullRequestPolicy(create=watch, resolve=True)
    policy = replace(policy or policy_of(), pull_request=pull_request)
    return Run(spec, policy, feedback=feedback).until(CallAgent if heard else Wait)


def feedback_of(run: Run) -> Feedback:
    assert run.state.going.feedback is not None
    return run.state.going.feedback


# --- triage -------------------------------------------------------------------------------------------------


def test_what_asks_for_work_becomes_a_story_of_its_own() -> None:
    """The others have their answer; all of it is judged by one errand, as reviewing is its business."""
    policy = replace(policy_of("a"), drains={Drain.REVIEW: policy_of("r").chain})
    run = followed(said("t1"), said("t2", "Rename it.", "And soon."), said("t3"), red("ci"), policy=policy)
    assert (run.call.drain, str(run.call.ref), run.state.machine_state) == (
        Drain.TRIAGE,
        "r",
        MachineState.GENERATING_SPEC,
    )
    run.did(outcome=triage("question", "suggestion", "no-action", "real"))
    assert isinstance(run.due, WriteSpec)
    run.did()
    stories = {s.id: (s.title, s.description, s.notes) for s in run.state.going.spec.user_stories}
    assert stories == {
        "PR-2": ("src/x.py:12: Rename it.", "ann: Rename it.\n\nann: And soon.", "reason 2"),
        "PR-4": (
            "check ci: red in the forge's CI",
            "The check ci is red in the forge's CI. Its log ends with:\nE   assert 1 == 2",
            "reason 4",
        ),
    }
    judged = [(c.asks, c.reason, c.story) for c in feedback_of(run).concerns]
    assert judged == [
        (Asks.QUESTION, "reason 1", ""),
        (Asks.SUGGESTION, "reason 2", "PR-2"),
        (Asks.NO_ACTION, "reason 3", ""),
        (Asks.REAL, "reason 4", "PR-4"),
    ]
    assert run.state.going.ledger.iterations_allowed == 2


INCOMPLETE = {
    "one is left out": (("real",), "- concern 2 is not there; expected each once"),
    "one too many": (("real", "real", "question"), "- there is no concern 3; expected 1 to 2"),
}


@pytest.mark.parametrize(("asks", "told"), INCOMPLETE.values(), ids=INCOMPLETE)
def test_each_concern_is_judged_once(asks: tuple[str, ...], told: str) -> None:
    """A triage that forgets one, or makes one up, goes back to its agent as one whose form is wrong."""
    run = followed(said("t1"), said("t2")).did(outcome=triage(*asks), session="s")
    assert (run.call.mode, run.work("").cs.last_xsd_error) == (Mode.FORMAT_RETRY, told)


def test_a_triage_that_is_never_valid_ends_the_run() -> None:
    """Nothing is guessed of what people said; `resume` asks anew."""
    run = followed(said("t1"))
    for _ in range(3):
        run.did(outcome=triage("real", "real"))
    assert run.state.status is RunStatus.FAILED
    assert run.state.going.failure.startswith("no valid triage in 3 tries.")
    assert run.resumed().call.drain is Drain.TRIAGE


def test_where_nothing_asks_for_work_nothing_is_changed_nor_proven() -> None:
    """No story, no final proof, no commit; and the run has done what there was to do."""
    run = followed(said("t1"), said("t2")).did(outcome=triage("question", "no-action")).to_end()
    assert (run.state.status, run.state.going.tip) == (RunStatus.COMPLETED, TIP)
    assert run.state.going.final.rounds == 0


# --- the work -------------------------------------------------------------------------------------------------


def test_a_concern_is_mended_by_the_fix_drain_and_proven_as_any_story() -> None:
    """The fix's chain is asked, a red check is an attempt, a green one a commit; then all of it is proven together."""
    policy = replace(policy_of("a"), drains={Drain.FIX: policy_of("f").chain})
    run = followed(said("t1"), policy=policy).did(outcome=triage("real")).until(CallAgent)
    assert (run.call.key, str(run.call.ref)) == ("PR-1/1/fix/0/1", "f")
    run.attempted(mended(), check=RED)
    assert run.until(CallAgent).call.key == "PR-1/1/fix/1/2"
    run.attempted(mended()).until(ScrubWorktree)
    standing = run.standing("PR-1")
    assert (standing.state, standing.attempts, len(standing.commits)) == (StoryState.PASSED, 2, 1)
    assert run.to_end().state.status is RunStatus.COMPLETED


def test_a_remark_that_cannot_be_mended_spoils_no_other() -> None:
    """It is blocked, its work kept; the next is done; the run has not shipped."""
    run = followed(said("t1"), said("t2"), policy=policy_of(fix_continuations=1)).did(outcome=triage("real", "real"))
    run.attempted(mended(), check=RED).until(LeaveStory).did()
    run.attempted(mended()).to_end()
    assert (run.standing("PR-1").state, run.standing("PR-2").state) == (StoryState.BLOCKED, StoryState.PASSED)
    assert run.state.status is RunStatus.FAILED
    run.retried("PR-1", "look again").resumed().attempted(mended()).to_end()
    assert run.state.status is RunStatus.COMPLETED


def test_who_finds_nothing_to_mend_says_so_once() -> None:
    """Nothing was changed, so there is nothing to prove: it asked for no work after all, and the answer tells why."""
    run = followed(said("t1")).did(outcome=triage("real")).until(CallAgent)
    run.did(outcome=mended("no_issues_found", "It is right as it is."), tree="tree-base").to_end()
    (concern,) = feedback_of(run).concerns
    assert (concern.asks, concern.reason) == (Asks.NO_ACTION, "It is right as it is.")
    assert run.standing("PR-1").state is StoryState.SKIPPED
    assert run.state.status is RunStatus.COMPLETED


def test_what_an_earlier_run_has_proven_stays_proven() -> None:
    """Its stories come along as passed; a fix that breaks one sends it back to its author, who builds stories."""
    before = story("US-001", verify=("v",), passes=True)
    feedback = Feedback(number=7, url="u", base="", concerns=concerns_of((said("t1"),), commit=TIP))
    run = Run(spec_of(before), policy_of(), feedback=feedback).until(CallAgent)
    run.did(outcome=triage("real")).attempted(mended()).until(ScrubWorktree).did()
    run.did().did(first=RED, second=RED)
    assert isinstance(run.due, StartStory)
    assert (run.due.story, run.did().until(CallAgent).call.drain) == ("US-001", Drain.STORY)


# --- the answers ----------------------------------------------------------------------------------------------------


def delivered(run: Run) -> list[str]:
    """All that is said and done on the forge until the run ends, in order."""
    seen: list[str] = []
    while run.owed:
        seen += [f"{run.due.key}"] if isinstance(run.due, PushBranch | AnswerThread | ResolveThread) else []
        run.did()
    return seen


def pushed(*heard: Thread | ForgeCheck) -> Run:
    run = followed(*heard)
    create = PullRequestPolicy(create=True, resolve=True)
    feedback = feedback_of(run)
    return Run(run.spec, replace(run.policy, pull_request=create), feedback=feedback).until(CallAgent)


def test_answers_come_behind_the_push_and_only_what_is_mended_is_resolved() -> None:
    """One of each; a check has no thread."""
    run = pushed(said("t1"), said("t2"), red("ci")).did(outcome=triage("question", "real", "real"))
    run.attempted(mended()).attempted(mended())
    tip = run.state.going.tip[:12]
    assert delivered(run) == [
        f"deliver/1/{tip}/push",
        "deliver/1/answer/1",
        "deliver/1/answer/2",
        "deliver/1/resolve/2",
    ]
    assert [(c.answer, c.resolved) for c in feedback_of(run).concerns] == [
        ("comment-1", False),
        ("comment-2", True),
        ("", False),
    ]
    delivery = run.state.going.delivery
    assert (delivery.number, delivery.pull_request, delivery.url) == (1, 7, "https://forge/7")
    assert run.state.status is RunStatus.COMPLETED


def test_nothing_is_said_unless_it_is_pushed() -> None:
    """By a run that was not told to push; what it would say is owed to whoever delivers it later."""
    run = followed(said("t1")).did(outcome=triage("question"))
    assert delivered(run) == []
    told = PullRequestPolicy(create=True)
    assert isinstance(delivery_step(run.state.going, replace(run.policy, pull_request=told)), PushBranch)


def test_what_is_not_mended_is_not_answered() -> None:
    """Its thread stays as it is, until somebody has it tried again."""
    run = pushed(said("t1")).did(outcome=triage("real"))
    run.until(CallAgent).did(outcome=mended("failed"))
    for _ in range(2):
        run.attempted(mended("failed"))
    run.to_end()
    assert (run.standing("PR-1").state, feedback_of(run).concerns[0].answer) == (StoryState.BLOCKED, "")
    run.retried("PR-1").resumed().attempted(mended())
    assert [key.split("/")[-2] for key in delivered(run)[1:]] == ["answer", "resolve"]


def test_a_thread_that_takes_no_answer_stands_in_no_others_way() -> None:
    """It was resolved meanwhile: that is told, and the next is answered; it is not resolved by us either."""
    run = pushed(said("t1"), said("t2")).did(outcome=triage("question", "question")).until(AnswerThread)
    run.happened(ThreadAnswered(key=run.due.key, at=run.now, concern=1, comment="", trouble="it is gone"))
    assert delivered(run) == ["deliver/1/answer/2"]
    assert feedback_of(run).concerns[0].mute == "it is gone"


def test_trouble_with_the_forge_ends_the_delivery_and_not_the_run() -> None:
    """What was answered is; the rest is owed to whoever delivers it later, in a delivery of its own."""
    run = pushed(said("t1"), said("t2")).did(outcome=triage("question", "question")).until(AnswerThread).did()
    failed = DeliveryFailed(
        key=f"{run.due.key}/failed",
        at=run.now,
        step=DeliveryStep.ANSWER,
        trouble=Trouble.OFFLINE,
        problem="It does not answer.",
        cure="Try again.",
    )
    run.happened(failed).to_end()
    assert run.state.status is RunStatus.COMPLETED
    assert run.state.going.delivery.trouble == "It does not answer. Try again."
    step = delivery_step(run.state.going, run.policy)
    assert isinstance(step, PushBranch)
    run.happened(*facts_of(step, run.state, run.now))
    assert delivery_step(run.state.going, run.policy) == AnswerThread(key="deliver/2/answer/2", concern=2)


# --- what is heard ------------------------------------------------------------------------------------------------


def test_a_thread_in_which_we_had_the_last_word_is_not_heard_again() -> None:
    """Until somebody answers; what is heard is bounded, the newest kept."""
    ours = said("t1", "Why?", f"Because.\n\n{MARK}run/answer/1 -->")
    again = replace(ours, comments=(*ours.comments, Comment(id="t1-3", author="ann", text="But why?")))
    assert [c.about.id for c in concerns_of((ours, said("t2")), commit=TIP)] == ["t2"]  # type: ignore[union-attr]
    assert len(concerns_of((again,), commit=TIP)) == 1
    long = concerns_of((said("t1", *(["x" * 9_000] * 30)),), commit=TIP)[0].about
    assert isinstance(long, Thread)
    assert (len(long.comments), {len(c.text) for c in long.comments}) == (20, {4_000})
    assert len(concerns_of(tuple(said(f"t{n}") for n in range(60)), commit=TIP)) == 50


# --- watching -----------------------------------------------------------------------------------------------------


def looked(run: Run, *heard: Thread | ForgeCheck, **more: Any) -> Run:
    """The wait before a look, and the look."""
    run.until(Wait).did()
    assert isinstance(run.due, SeeFeedback)
    return run.happened(FeedbackSeen(key=run.due.key, at=run.now, said=heard, **more))


def test_it_is_watched_until_two_looks_have_found_nothing() -> None:
    """A check that begins late is seen; what is pending is waited for, longer each time; waiting is no work."""
    run = followed(said("t1"), watch=True).did(outcome=triage("question"))
    run.until(Wait)
    assert run.state.machine_state is MachineState.WAITING
    active = run.state.going.ledger.active
    looked(looked(looked(run), pending=("ci",)), pending=("ci",))
    assert isinstance(run.due, Wait)
    assert (run.due.until - run.due.since, run.due.key) == (timedelta(seconds=240), "feedback/4/wait")
    looked(run)
    assert isinstance(run.due, FinishRun)
    assert run.state.going.ledger.waited == 30 + 60 + 120 + 240
    assert run.state.going.ledger.active == active
    assert run.to_end().state.status is RunStatus.COMPLETED


def test_a_check_that_goes_red_is_judged_and_mended() -> None:
    """On each new commit anew; one that is known on this commit is not."""
    run = looked(followed(watch=True), red("ci"), red=("ci",)).until(CallAgent)
    assert (run.call.drain, run.state.going.plans) == (Drain.TRIAGE, 1)
    run.did(outcome=triage("real")).attempted(mended()).until(Wait)
    looked(run, red("ci"), red=("ci",)).until(CallAgent).did(outcome=triage("no-action")).until(Wait)
    looked(looked(run, red("ci"), red=("ci",)), red("ci"), red=("ci",))
    assert isinstance(run.due, FinishRun)
    assert [c.asks for c in feedback_of(run).concerns] == [Asks.REAL, Asks.NO_ACTION]
    run.did()
    assert run.state.status is RunStatus.FAILED, "it is still red there"


def test_rounds_have_an_end() -> None:
    """As many as a review may have; what is said after them is told, and not taken up."""
    run = followed(said("t1"), policy=policy_of(review_cycles=2), watch=True).did(outcome=triage("question"))
    looked(run, said("t2")).until(CallAgent).did(outcome=triage("question"))
    looked(run, said("t3"))
    assert isinstance(run.due, FinishRun)
    assert feedback_of(run).trouble == "more was said after 2 rounds: src/x.py:12"
    assert run.did().state.status is RunStatus.FAILED


def test_waiting_has_an_end() -> None:
    """All waiting of a run together: then it is parked, and says for what it waited."""
    run = looked(followed(watch=True, policy=policy_of(max_wait=60)), pending=("ci",))
    assert isinstance(run.due, ParkRun)
    assert run.due.reason == "waiting longer for ci would be more than max_wait allows"


def test_a_forge_that_does_not_answer_is_looked_at_again() -> None:
    """Trouble is not green."""
    run = looked(looked(followed(watch=True), trouble="offline"), trouble="offline")
    assert isinstance(run.due, Wait)
    looked(run)
    assert isinstance(run.due, FinishRun)


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_what_it_may_cost_is_known_before_it_starts() -> None:
    """One triage, an errand for each concern, each perhaps sent back once, and the cycles of the review."""
    policy = policy_of(calls_per_errand=5, review=True, review_cycles=2)
    most = feedback_bounds(spec_of(), policy, concerns=3, rounds=1)
    assert most.calls == 5 + (3 + 3) * 5 + 2 * 2 * 5


def test_a_fact_that_cannot_be_is_refused() -> None:
    """A look that nobody waited for."""
    run = followed(said("t1"))
    with pytest.raises(IllegalTransition):
        run.happened(FeedbackSeen(key="feedback/1/0", at=run.now, said=()))
    with pytest.raises(IllegalTransition):
        run.happened(RunFinished(key="finish/0", at=run.now, shipped=True))
