"""The errand machine as a table of journeys: what a chain is asked, how, and what it comes to.

A journey is told in short sentences, one for each call that is owed and each wait, the end last. Its inputs
are outcomes of calls; `red T` stands for a completed answer whose tree T was found wanting by our own commands.
"""

from datetime import datetime

import pytest
from makers import (
    COMPLETED,
    CRASHED,
    INTERRUPTED,
    LOGGED_OUT,
    MALFORMED,
    MISCONFIGURED,
    MISSING,
    NOT_INSTALLED,
    OFFLINE,
    T0,
    TIMED_OUT,
    chain,
    later,
    limited,
)

from storyloop.core import errand as errands
from storyloop.core.chain import CoolingTable
from storyloop.core.continuation import ContinuationState
from storyloop.core.errand import (
    Calling,
    Delivered,
    GivenUp,
    Mode,
    Owed,
    Shortfall,
    Stranded,
    Waiting,
    mode_owed,
)
from storyloop.core.facts import Outcome
from storyloop.core.policy import Drain, Limits
from storyloop.core.words import ArtifactType, DevelopmentStatus, SameAgentRetryReason


class Journey:
    """An errand under way, with its counters, the cooling table and the clock."""

    def __init__(
        self,
        *agents: str,
        drain: Drain = Drain.STORY,
        table: CoolingTable | None = None,
        now: datetime = T0,
        **limits: float,
    ) -> None:
        self.limits = Limits(**limits)  # pyright: ignore[reportArgumentType] - names and numbers from the tables
        self.table: CoolingTable = table or {}
        self.now = now
        fresh = ContinuationState(
            max_xsd_retry_count=self.limits.format_retries,
            max_same_agent_retry_count=self.limits.same_agent_retries,
            max_continue_count=self.limits.continuations,
            max_consecutive_same_effect=self.limits.loop_threshold,
        )
        self.errand, self.cs = errands.begin(
            f"US-001/1/{drain}", drain, chain=chain(*agents), cs=fresh, table=self.table, now=now
        )

    def start(self) -> "Journey":
        self.errand, self.cs = errands.call_started(self.errand, self.cs, self.now)
        return self

    def end(self, outcome: Outcome, session: str | None = None) -> "Journey":
        self.errand, self.cs, self.table = errands.call_ended(
            self.errand, self.cs, outcome, session=session, table=self.table, limits=self.limits, now=self.now
        )
        return self

    def found_wanting(self, tree: str) -> "Journey":
        shortfall = Shortfall(
            status=DevelopmentStatus.FAILED,
            summary="did it",
            files=("src/x.py",),
            next_steps="make the tests pass",
            reason="not green: check test",
            fingerprint=f"{self.errand.ref}/{tree}",
        )
        self.errand, self.cs = errands.work_failed(
            self.errand, self.cs, shortfall, table=self.table, limits=self.limits, now=self.now
        )
        return self

    def waited(self) -> "Journey":
        assert isinstance(self.errand.stage, Waiting)
        self.now = self.errand.stage.until
        self.errand, self.cs = errands.wait_ended(self.errand, self.cs, table=self.table, now=self.now)
        return self

    def resumed(self) -> "Journey":
        self.table = {name: cooling for name, cooling in self.table.items() if cooling.until is not None}
        self.errand, self.cs = errands.wait_ended(self.errand, self.cs, table=self.table, now=self.now)
        return self

    def asked(self, outcome: Outcome | str, session: str | None = None) -> "Journey":
        """One input of the tables."""
        if isinstance(outcome, Outcome):
            return self.start().end(outcome, session)
        if outcome == "resume":
            return self.resumed()
        return self.start().end(COMPLETED, session).found_wanting(outcome.removeprefix("red "))

    def told(self) -> str:
        stage, ref = self.errand.stage, self.errand.ref
        match stage:
            case Owed():
                return f"{mode_owed(self.cs)} {ref}"
            case Waiting(since=since, until=until, why=why):
                return f"{why} {(until - since).total_seconds():g}s"
            case Stranded(reason=reason) | GivenUp(reason=reason):
                return f"{type(stage).__name__}: {reason}"
            case Calling() | Delivered():
                return type(stage).__name__


def journey(agents: str, inputs: list[Outcome | str], **limits: float) -> list[str]:
    """The sentences of a whole journey."""
    going = Journey(*agents.split(), **limits)
    sentences = [going.told()]
    for outcome in inputs:
        going.asked(outcome)
        sentences.append(going.told())
        while isinstance(going.errand.stage, Waiting):
            sentences.append(going.waited().told())
    return sentences


JOURNEYS: dict[str, tuple[str, dict[str, float], list[Outcome | str], list[str]]] = {
    "an answer at once": ("a", {}, [COMPLETED], ["fresh a", "Delivered"]),
    # format retries: the agent mends its artifact, up to the limit
    "an invalid artifact is mended": ("a b", {}, [MALFORMED, COMPLETED], ["fresh a", "format-retry a", "Delivered"]),
    "a missing artifact is an invalid one": (
        "a b",
        {},
        [MISSING, COMPLETED],
        ["fresh a", "format-retry a", "Delivered"],
    ),
    "ten format retries, the 11th failure goes to the next agent": (
        "a b",
        {},
        [MALFORMED] * 11,
        ["fresh a", *["format-retry a"] * 10, "fresh b"],
    ),
    "one format retry allowed": ("a b", {"format_retries": 1}, [MISSING] * 2, ["fresh a", "format-retry a", "fresh b"]),
    "no format retry allowed": ("a b", {"format_retries": 0}, [MALFORMED], ["fresh a", "fresh b"]),
    "format retries start anew with the next agent": (
        "a b c",
        {"format_retries": 1},
        [MALFORMED] * 4,
        ["fresh a", "format-retry a", "fresh b", "format-retry b", "fresh c"],
    ),
    "format retries start anew with the next attempt": (
        "a b",
        {"format_retries": 1},
        [MALFORMED, "red t1", MALFORMED, MALFORMED],
        ["fresh a", "format-retry a", "continuation a", "format-retry a", "continuation b"],
    ),
    # same-agent retries: a budget of failures
    "the first crash is retried, the second falls back": (
        "a b",
        {},
        [CRASHED, CRASHED],
        ["fresh a", "same-agent-retry a", "fresh b"],
    ),
    "a timeout counts like a crash": ("a b", {}, [TIMED_OUT, CRASHED], ["fresh a", "same-agent-retry a", "fresh b"]),
    "a failure budget of three": (
        "a b",
        {"same_agent_retries": 3},
        [CRASHED] * 3,
        ["fresh a", "same-agent-retry a", "same-agent-retry a", "fresh b"],
    ),
    "a failure budget of one": ("a b", {"same_agent_retries": 1}, [CRASHED], ["fresh a", "fresh b"]),
    "a failure budget of none": ("a b", {"same_agent_retries": 0}, [CRASHED], ["fresh a", "fresh b"]),
    "the failure budget starts anew with the next agent": (
        "a b c",
        {},
        [CRASHED] * 4,
        ["fresh a", "same-agent-retry a", "fresh b", "same-agent-retry b", "fresh c"],
    ),
    "the failure budget starts anew with the next attempt": (
        "a b",
        {},
        [CRASHED, "red t1", CRASHED, CRASHED],
        ["fresh a", "same-agent-retry a", "continuation a", "same-agent-retry a", "continuation b"],
    ),
    "a call that ended well gives the failure budget back, even with an invalid artifact": (
        "a b",
        {},
        [CRASHED, MALFORMED, CRASHED, CRASHED],
        ["fresh a", "same-agent-retry a", "format-retry a", "same-agent-retry a", "fresh b"],
    ),
    "a crash gives no format retry back": (
        "a b",
        {"format_retries": 1},
        [MALFORMED, CRASHED, MALFORMED],
        ["fresh a", "format-retry a", "same-agent-retry a", "fresh b"],
    ),
    # limits: the next agent, or a wait
    "a limit goes to the next agent at once": ("a b", {}, [limited(later(3600))], ["fresh a", "fresh b"]),
    "a limit of one model leaves the other models of the agent": (
        "a:big a:small",
        {},
        [limited(later(3600))],
        ["fresh a:big", "fresh a:small"],
    ),
    "a limit of an agent's own model leaves its other models": (
        "a a:small",
        {},
        [limited(later(3600))],
        ["fresh a", "fresh a:small"],
    ),
    "a fallback passes over who is cooling down": (
        "a b c",
        {"same_agent_retries": 1, "backoff": 15},
        [limited(later(3600)), limited(later(3600)), CRASHED, CRASHED],
        ["fresh a", "fresh b", "fresh c", "back-off 15s", "fresh c", "back-off 30s", "fresh c"],
    ),
    "all are cooling down: it waits for the earliest": (
        "a b",
        {},
        [limited(later(3600)), limited(later(600))],
        ["fresh a", "fresh b", "limit 600s", "fresh b"],
    ),
    "a limit without a stated end is guessed, longer each time": (
        "a",
        {"backoff": 15},
        [limited(), limited(), limited()],
        ["fresh a", "limit 60s", "fresh a", "limit 120s", "fresh a", "limit 240s", "fresh a"],
    ),
    "a limit whose stated end is past costs a cycle, so that it cannot spin": (
        "a",
        {"chain_cycles": 2},
        [limited(T0), limited(T0)],
        ["fresh a", "back-off 15s", "fresh a", "GivenUp: every agent of the chain failed 2 times: out of quota"],
    ),
    # who cannot be asked at all
    "a logged-out agent goes to the next": ("a b", {}, [LOGGED_OUT], ["fresh a", "fresh b"]),
    "a missing agent goes to the next": ("a b", {}, [NOT_INSTALLED], ["fresh a", "fresh b"]),
    "a logged-out agent is out with every model": ("a:big a:small b", {}, [LOGGED_OUT], ["fresh a:big", "fresh b"]),
    "nobody is left: it needs a human, and goes on after a resume": (
        "a b",
        {},
        [LOGGED_OUT, NOT_INSTALLED, "resume"],
        ["fresh a", "fresh b", "Stranded: a: log in first; b: it is not installed", "fresh a"],
    ),
    "one logged out, one limited: it waits for the limited one": (
        "a b",
        {},
        [LOGGED_OUT, limited(later(90))],
        ["fresh a", "fresh b", "limit 90s", "fresh b"],
    ),
    "a wrong configuration goes to the next agent and cools nobody": (
        "a b",
        {},
        [MISCONFIGURED, MISCONFIGURED],
        ["fresh a", "fresh b", "back-off 15s", "fresh a"],
    ),
    # offline and interrupted: nobody's fault
    "offline waits, and costs neither attempt nor cycle nor retry": (
        "a b",
        {"chain_cycles": 1, "same_agent_retries": 1},
        [OFFLINE, OFFLINE, OFFLINE, COMPLETED],
        ["fresh a", "offline 15s", "fresh a", "offline 30s", "fresh a", "offline 60s", "fresh a", "Delivered"],
    ),
    "offline during a format retry goes on with the format retry": (
        "a",
        {},
        [MALFORMED, OFFLINE, COMPLETED],
        ["fresh a", "format-retry a", "offline 30s", "format-retry a", "Delivered"],
    ),
    "an interruption is asked again and is no failure": (
        "a b",
        {"same_agent_retries": 2},
        [INTERRUPTED, INTERRUPTED, INTERRUPTED, CRASHED, CRASHED],
        ["fresh a", *["same-agent-retry a"] * 4, "fresh b"],
    ),
    "an interrupted format retry is asked again as one, and does not count twice": (
        "a b",
        {"format_retries": 1},
        [MALFORMED, INTERRUPTED, MALFORMED],
        ["fresh a", "format-retry a", "format-retry a", "fresh b"],
    ),
    # cycles
    "the chain is gone through again after a pause that doubles, then it gives up": (
        "a b",
        {"same_agent_retries": 1, "chain_cycles": 3, "backoff": 15},
        [CRASHED] * 6,
        [
            "fresh a",
            "fresh b",
            "back-off 15s",
            "fresh a",
            "fresh b",
            "back-off 30s",
            "fresh a",
            "fresh b",
            "GivenUp: every agent of the chain failed 3 times: it crashed",
        ],
    ),
    "one cycle only": (
        "a",
        {"same_agent_retries": 1, "chain_cycles": 1},
        [CRASHED],
        ["fresh a", "GivenUp: every agent of the chain failed 1 time: it crashed"],
    ),
    "cycles do not start anew with an attempt": (
        "a",
        {"same_agent_retries": 1, "chain_cycles": 2},
        [CRASHED, "red t1", CRASHED],
        [
            "fresh a",
            "back-off 15s",
            "fresh a",
            "continuation a",
            "GivenUp: every agent of the chain failed 2 times: it crashed",
        ],
    ),
    "the pause ends at 15 minutes": (
        "a",
        {"same_agent_retries": 1, "chain_cycles": 4, "backoff": 400},
        [CRASHED] * 3,
        ["fresh a", "back-off 400s", "fresh a", "back-off 800s", "fresh a", "back-off 900s", "fresh a"],
    ),
    # attempts
    "three attempts, and no other agent gets a fresh set": (
        "a b",
        {},
        ["red t1", "red t2", "red t3"],
        ["fresh a", "continuation a", "continuation a", "GivenUp: 3 attempts used up: not green: check test"],
    ),
    "one attempt": (
        "a b",
        {"continuations": 1},
        ["red t1"],
        ["fresh a", "GivenUp: 1 attempt used up: not green: check test"],
    ),
    "no continuation still allows the first attempt": (
        "a b",
        {"continuations": 0},
        ["red t1"],
        ["fresh a", "GivenUp: 1 attempt used up: not green: check test"],
    ),
    "a continuation stays with the agent it fell back to": (
        "a b",
        {"same_agent_retries": 1},
        [CRASHED, "red t1", COMPLETED],
        ["fresh a", "fresh b", "continuation b", "Delivered"],
    ),
    "the agent fallen back to in a later attempt is handed the work over": (
        "a b",
        {"same_agent_retries": 1},
        ["red t1", CRASHED, "red t2", CRASHED, "red t3"],
        [
            "fresh a",
            "continuation a",
            "continuation b",
            "continuation b",
            "back-off 15s",
            "continuation a",
            "GivenUp: 3 attempts used up: not green: check test",
        ],
    ),
    # calls: the cap over everything
    "calls end it, whatever the reason for each was": (
        "a b",
        {"calls_per_errand": 6},
        [MALFORMED, CRASHED, INTERRUPTED, OFFLINE, "red t1", limited(later(60))],
        [
            "fresh a",
            "format-retry a",
            "same-agent-retry a",
            "same-agent-retry a",
            "offline 120s",
            "same-agent-retry a",
            "continuation a",
            "GivenUp: all 6 calls of the errand are used up: out of quota",
        ],
    ),
    "interruptions alone use the calls up": (
        "a",
        {"calls_per_errand": 2},
        [INTERRUPTED, INTERRUPTED],
        ["fresh a", "same-agent-retry a", "GivenUp: all 2 calls of the errand are used up: Ctrl-C"],
    ),
    "being offline alone uses the calls up": (
        "a",
        {"calls_per_errand": 2},
        [OFFLINE, OFFLINE],
        ["fresh a", "offline 15s", "fresh a", "GivenUp: all 2 calls of the errand are used up: no network"],
    ),
    "a stranded errand out of calls needs no human any more": (
        "a",
        {"calls_per_errand": 1},
        [LOGGED_OUT],
        ["fresh a", "GivenUp: all 1 calls of the errand are used up: log in first"],
    ),
    "an answer to the last call counts": ("a", {"calls_per_errand": 1}, [COMPLETED], ["fresh a", "Delivered"]),
    "a red tree after the last call ends it": (
        "a",
        {"calls_per_errand": 1},
        ["red t1"],
        ["fresh a", "GivenUp: all 1 calls of the errand are used up: not green: check test"],
    ),
    # loops: another prompt, the next agent, the end
    "the same result over and over changes the prompt, then the agent, then ends": (
        "a b",
        {"continuations": 20, "loop_threshold": 2},
        ["red t1"] * 5,
        [
            "fresh a",
            "continuation a",
            "continuation a",
            "continuation b",
            "continuation b",
            "GivenUp: the same result 2 times in a row: not green: check test",
        ],
    ),
    "with a single agent a loop costs a cycle, then ends": (
        "a",
        {"continuations": 20, "loop_threshold": 2},
        ["red t1"] * 4,
        [
            "fresh a",
            "continuation a",
            "continuation a",
            "back-off 15s",
            "continuation a",
            "GivenUp: the same result 4 times in a row: not green: check test",
        ],
    ),
    "changing results are no loop": (
        "a",
        {"continuations": 6, "loop_threshold": 2},
        ["red t1", "red t2", "red t1", "red t2", "red t1"],
        ["fresh a", *["continuation a"] * 5],
    ),
    "failed calls in between do not feed the streak": (
        "a b",
        {"continuations": 6, "loop_threshold": 3},
        [MALFORMED, CRASHED, "red t1", MALFORMED, OFFLINE, "red t1"],
        [
            "fresh a",
            "format-retry a",
            "same-agent-retry a",
            "continuation a",
            "format-retry a",
            "offline 240s",
            "format-retry a",
            "continuation a",
        ],
    ),
}


@pytest.mark.parametrize(("agents", "limits", "inputs", "told"), JOURNEYS.values(), ids=JOURNEYS)
def test_an_errand_goes_the_way_that_the_table_tells(
    agents: str, limits: dict[str, float], inputs: list[Outcome | str], told: list[str]
) -> None:
    """Every class of failure, every counter, every end."""
    assert journey(agents, inputs, **limits) == told


FRESH_AND_RETRIES = "fresh {0}", *("format-retry {0}",) * 7
MUTE: dict[str, tuple[str, list[str]]] = {
    "one alone has all eight calls": ("a", [told.format("a") for told in FRESH_AND_RETRIES]),
    "of two, each has half": (
        "a b",
        [told.format(name) for name in "ab" for told in FRESH_AND_RETRIES[:4]],
    ),
    "of three, each has its share": (
        "a b c",
        [told.format(name) for name in "abc" for told in FRESH_AND_RETRIES[:2]],
    ),
    "of nine, eight are asked once": ("a b c d e f g h i", [f"fresh {name}" for name in "abcdefgh"]),
}


@pytest.mark.parametrize("drain", [Drain.REVIEW, Drain.ANALYSIS, Drain.COMMIT, Drain.PR])
@pytest.mark.parametrize(("agents", "told"), MUTE.values(), ids=MUTE)
def test_who_has_no_valid_answer_to_give_is_not_asked_for_ever(drain: Drain, agents: str, told: list[str]) -> None:
    """Not where the run can go on without the answer; no cycle of the chain begins for it."""
    going = Journey(*agents.split(), drain=drain)
    asked: list[str] = []
    while isinstance(going.errand.stage, Owed):
        asked.append(going.told())
        going.asked(MALFORMED)
        if drain is Drain.ANALYSIS and len(asked) == 8:
            break  # its calls are those of all attempts together
    assert asked == told
    if drain is not Drain.ANALYSIS:
        assert isinstance(going.errand.stage, GivenUp)


def test_an_analysis_that_nobody_can_give_ends_without_another_cycle() -> None:
    """Although more calls are left for later attempts."""
    going = Journey("a", "b", drain=Drain.ANALYSIS)
    for _ in range(8):
        going.asked(MALFORMED)
    assert going.told() == "GivenUp: every agent of the chain failed 1 time: the artifact was not valid"


def test_a_review_whose_agents_break_is_waited_for_in_cycles() -> None:
    """Only an invalid answer says that asking again is in vain; the calls end that, too."""
    going = Journey("a", "b", drain=Drain.REVIEW)
    sentences: list[str] = []
    for _ in range(8):
        going.asked(CRASHED)
        sentences.append(going.told())
        if isinstance(going.errand.stage, Waiting):
            going.waited()
    assert sentences[3] == "back-off 15s"
    assert sentences[-1] == "GivenUp: all 8 calls of the errand are used up: it crashed"


def test_the_rungs_of_loop_recovery_only_rise() -> None:
    """0 while all is well, 1 with another prompt, 2 with the next agent, 3 at the end."""
    going = Journey("a", "b", continuations=20, loop_threshold=2)
    rungs = [going.asked("red t1").errand.rung for _ in range(5)]
    assert rungs == [0, 1, 2, 2, 3]


def test_another_loop_after_a_better_result_goes_on_where_recovery_stood() -> None:
    """A recovery that did not help for good is not tried again."""
    going = Journey("a", "b", continuations=20, loop_threshold=2)
    for tree in ("red t1", "red t1", "red t2"):
        going.asked(tree)
    assert (going.errand.rung, going.told()) == (1, "continuation a")
    assert (going.asked("red t2").errand.rung, going.told()) == (2, "continuation b")


# --- the words and counters that a call carries -----------------------------------------------------------


def test_a_format_retry_carries_the_errors_and_the_session() -> None:
    """What was wrong, what was received, and the session to mend it in."""
    going = Journey("a").asked(MALFORMED, session="s1")
    assert going.cs.last_xsd_error == "line 3: status is missing"
    assert going.cs.xsd_retry_session_reuse_pending
    assert (going.errand.invalid_text, going.errand.session) == ("<development-result/>", "s1")
    assert isinstance(going.start().errand.stage, Calling)
    assert going.errand.stage.session == "s1"


def test_a_session_in_which_a_call_crashed_is_not_taken_up_again() -> None:
    """It may be lost, or too long; one that the crash itself told is new, and is."""
    going = Journey("a", same_agent_retries=5).asked(CRASHED, session="s1")
    assert going.errand.session == "s1"
    assert going.asked(CRASHED).errand.session is None
    again = Journey("a", same_agent_retries=5).asked(CRASHED, session="s1")
    assert again.asked(CRASHED, session="s2").errand.session == "s2"
    offline = Journey("a", same_agent_retries=5).asked(MALFORMED, session="s1").asked(OFFLINE)
    assert offline.errand.session == "s1"


def test_an_interrupted_format_retry_keeps_its_errors_and_its_session() -> None:
    """It goes back to exactly what it was begun from."""
    going = Journey("a").asked(MALFORMED, session="s1")
    owed = going.cs
    going.asked(INTERRUPTED)
    assert going.cs == owed
    assert going.errand.session == "s1"


def test_an_interruption_is_told_as_one_and_not_counted() -> None:
    """The next call says why it is made; the failure budget is whole."""
    going = Journey("a").asked(INTERRUPTED, session="s1")
    assert going.cs.same_agent_retry_reason is SameAgentRetryReason.INTERRUPTED
    assert (going.cs.same_agent_retry_count, going.cs.invalid_output_attempts) == (0, 0)
    assert going.errand.session == "s1"


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(CRASHED, SameAgentRetryReason.INTERNAL_ERROR), (TIMED_OUT, SameAgentRetryReason.TIMEOUT)],
)
def test_a_same_agent_retry_says_why(outcome: Outcome, reason: SameAgentRetryReason) -> None:
    """A deadline is not a crash."""
    assert Journey("a").asked(outcome).cs.same_agent_retry_reason is reason


def test_a_continuation_is_asked_in_a_fresh_session() -> None:
    """What the next attempt needs stands in the handover, not in a context that led to a red tree."""
    going = Journey("a").asked("red t1", session="s1")
    assert going.errand.session is None
    assert going.cs.context_write_pending
    assert isinstance(going.start().errand.stage, Calling)
    assert (going.errand.stage.mode, going.errand.stage.session) == (Mode.CONTINUATION, None)


@pytest.mark.parametrize("failed", [CRASHED, MISCONFIGURED, LOGGED_OUT, limited(later(60))])
def test_no_session_is_carried_to_another_agent(failed: Outcome) -> None:
    """A session belongs to the agent that opened it."""
    going = Journey("a", "b", same_agent_retries=1).asked(failed, session="s1")
    assert (str(going.errand.ref), going.errand.session) == ("b", None)


def test_a_begun_call_has_taken_everything_that_was_pending_with_it() -> None:
    """What is owed once is not owed twice."""
    going = Journey("a").asked("red t1").asked(MALFORMED).start()
    cs = going.cs
    assert not (cs.xsd_retry_pending)
    assert not (cs.xsd_retry_session_reuse_pending)
    assert not (cs.same_agent_retry_pending)
    assert not cs.continue_pending
    assert going.errand.calls == 3


def test_every_start_of_a_process_counts_as_a_call() -> None:
    """The interrupted, the offline and the broken ones too."""
    going = Journey("a", "b")
    outcomes = (MALFORMED, CRASHED, INTERRUPTED, OFFLINE, limited(later(60)))
    assert [going.asked(outcome).errand.calls for outcome in outcomes[:4]] == [1, 2, 3, 4]
    assert going.waited().asked(outcomes[4]).errand.calls == 5


def test_an_errand_begins_with_its_own_artifact() -> None:
    """The drain says what is owed."""
    assert Journey("a").cs.current_artifact is ArtifactType.DEVELOPMENT_RESULT


# --- between errands and stories --------------------------------------------------------------------------


def test_the_next_errand_passes_over_who_is_still_cooling_down() -> None:
    """A limit outlives the errand that met it."""
    table = Journey("a", "b").asked(limited(later(3600))).table
    assert Journey("a", "b", table=table, now=later(3599)).told() == "fresh b"


def test_the_next_errand_starts_at_the_head_again_when_the_cool_down_is_over() -> None:
    """The preferred agent comes back at the stated moment, not a second later."""
    table = Journey("a", "b").asked(limited(later(3600))).table
    assert Journey("a", "b", table=table, now=later(3600)).told() == "fresh a"


def test_an_errand_under_way_does_not_come_back_by_itself() -> None:
    """Its agent knows the work; only a failure moves it."""
    going = Journey("a", "b").asked(limited(later(60)))
    going.now = later(3600)
    assert going.asked("red t1").told() == "continuation b"


def test_an_errand_that_finds_all_cooling_down_waits_from_its_beginning() -> None:
    """It costs nobody a call to learn what is known."""
    table = Journey("a").asked(limited(later(600))).table
    going = Journey("a", table=table, now=later(500))
    assert going.told() == "limit 100s"
    assert going.waited().told() == "fresh a"


def test_a_continuation_does_not_ask_an_agent_that_cools_down_meanwhile() -> None:
    """Another story may have met its limit."""
    going = Journey("a", "b")
    going.table = Journey("a").asked(limited(later(600))).table
    assert going.asked("red t1").told() == "continuation a"  # it answered well: it does not cool down any more
    going.start().end(COMPLETED)
    going.table = Journey("a").asked(limited(later(600))).table
    assert going.found_wanting("t2").told() == "continuation b"


def test_a_wait_that_ends_at_another_agent_starts_its_counters_anew() -> None:
    """The format retry belonged to the agent that wrote the artifact."""
    going = Journey("a", "b").asked(MALFORMED, session="s1").asked(OFFLINE)
    going.table = Journey("a").asked(limited(later(600))).table
    going.waited()
    assert (going.told(), going.errand.session) == ("fresh b", None)
    assert (going.cs.xsd_retry_count, going.cs.last_xsd_error) == (0, None)


def test_a_wait_is_over_when_it_ended_whatever_the_clock_says() -> None:
    """A clock that was set back must not owe the same wait twice."""
    going = Journey("a").asked(limited(later(600)))
    going.errand, going.cs = errands.wait_ended(going.errand, going.cs, table=going.table, now=later(10))
    assert going.told() == "fresh a"


# --- an amended chain -------------------------------------------------------------------------------------


def rechained(going: Journey, *agents: str) -> Journey:
    going.errand, going.cs = errands.rechained(
        going.errand, going.cs, chain=chain(*agents), table=going.table, now=going.now
    )
    return going


def test_an_amended_chain_starts_at_its_head_and_keeps_attempts_cycles_and_calls() -> None:
    """`resume --agent` gives no budget back."""
    going = Journey("a", same_agent_retries=1).asked("red t1").asked(CRASHED)
    rechained(going, "b", "c")
    assert going.told() == "continuation b"
    assert (going.errand.calls, going.errand.cycle, going.cs.continuation_attempt) == (2, 1, 1)


def test_an_amended_chain_asks_another_agent_with_counters_of_its_own() -> None:
    """It cannot mend what another agent wrote, in a session it never had."""
    going = rechained(Journey("a").asked(MALFORMED, session="s1"), "b")
    assert (going.told(), going.errand.session, going.cs.xsd_retry_count) == ("fresh b", None, 0)


def test_an_amended_chain_with_the_same_head_goes_on_with_it() -> None:
    """A longer chain behind the agent changes nothing for what it is in the middle of."""
    going = rechained(Journey("a").asked(MALFORMED, session="s1"), "a", "b")
    assert (going.told(), going.errand.session, going.cs.xsd_retry_count) == ("format-retry a", "s1", 1)


def test_an_amended_chain_leaves_a_call_under_way_alone() -> None:
    """It was asked of the old agent; whatever it comes to is that agent's."""
    going = rechained(Journey("a").start(), "b")
    assert (going.told(), str(going.errand.ref)) == ("Calling", "a")


def test_an_amended_chain_helps_a_stranded_errand() -> None:
    """That is what it is for."""
    going = rechained(Journey("a").asked(LOGGED_OUT), "b")
    assert going.told() == "fresh b"


def test_an_amended_chain_ends_a_wait_if_one_of_it_is_ready() -> None:
    """Nobody waits for an agent that is not wanted any more."""
    assert rechained(Journey("a").asked(limited(later(3600))), "a", "b").told() == "fresh b"


def test_an_amended_chain_reopens_nothing() -> None:
    """Given up is given up; `retry` is the way on."""
    going = rechained(Journey("a", continuations=1).asked("red t1"), "b")
    assert going.told() == "GivenUp: 1 attempt used up: not green: check test"
