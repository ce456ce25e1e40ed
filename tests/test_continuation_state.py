"""ContinuationState keeps every row of its reference: names, counts, boundaries, and what cannot exist."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyloop.core.continuation import ContinuationState
from storyloop.core.errors import ImpossibleState, ProgrammerError
from storyloop.core.words import ArtifactType, DevelopmentStatus, FixStatus, SameAgentRetryReason

PARTIAL, FAILED = DevelopmentStatus.PARTIAL, DevelopmentStatus.FAILED
REMAIN = FixStatus.ISSUES_REMAIN
TIMEOUT, INTERRUPTED = SameAgentRetryReason.TIMEOUT, SameAgentRetryReason.INTERRUPTED

# The reference's 30 fields, in its order, with the value that a new state has.
FIELDS: dict[str, Any] = {
    "previous_status": None,
    "previous_summary": None,
    "previous_files_changed": None,
    "previous_next_steps": None,
    "continuation_attempt": 0,
    "invalid_output_attempts": 0,
    "context_write_pending": False,
    "context_cleanup_pending": False,
    "xsd_retry_count": 0,
    "xsd_retry_pending": False,
    "xsd_retry_session_reuse_pending": False,
    "last_xsd_error": None,
    "last_review_xsd_error": None,
    "last_fix_xsd_error": None,
    "same_agent_retry_count": 0,
    "same_agent_retry_pending": False,
    "same_agent_retry_reason": None,
    "continue_pending": False,
    "current_artifact": None,
    "max_xsd_retry_count": 10,
    "max_same_agent_retry_count": 2,
    "max_continue_count": 3,
    "fix_status": None,
    "fix_previous_summary": None,
    "fix_continuation_attempt": 0,
    "fix_continue_pending": False,
    "max_fix_continue_count": 3,
    "last_effect_kind": None,
    "consecutive_same_effect_count": 0,
    "max_consecutive_same_effect": 5,
}
METHODS = """
    new with_limits with_max_xsd_retry with_max_same_agent_retry is_continuation reset with_artifact
    trigger_xsd_retry clear_xsd_retry_pending xsd_retries_exhausted trigger_same_agent_retry
    clear_same_agent_retry_pending same_agent_retries_exhausted trigger_continue clear_continue_pending
    continuations_exhausted trigger_continuation fix_continuations_exhausted trigger_fix_continuation
    clear_fix_continue_pending reset_fix_continuation update_loop_detection_counters is_loop_detected
"""

# A state in which every field that a step could clear is set, so that what a step leaves alone shows.
FULL = ContinuationState(
    previous_status=PARTIAL,
    previous_summary="half of it",
    previous_files_changed=("src/a.py",),
    previous_next_steps="the other half",
    continuation_attempt=1,
    invalid_output_attempts=4,
    context_write_pending=True,
    xsd_retry_count=3,
    xsd_retry_pending=True,
    xsd_retry_session_reuse_pending=True,
    last_xsd_error="line 1",
    last_review_xsd_error="line 2",
    last_fix_xsd_error="line 3",
    same_agent_retry_count=1,
    same_agent_retry_pending=True,
    same_agent_retry_reason=TIMEOUT,
    continue_pending=True,
    current_artifact=ArtifactType.ISSUES,
    max_xsd_retry_count=11,
    max_same_agent_retry_count=4,
    max_continue_count=5,
    fix_status=REMAIN,
    fix_previous_summary="one issue left",
    fix_continuation_attempt=1,
    fix_continue_pending=True,
    max_fix_continue_count=6,
    last_effect_kind="call",
    consecutive_same_effect_count=2,
    max_consecutive_same_effect=7,
)
NO_FORMAT_RETRY = {
    "xsd_retry_count": 0,
    "xsd_retry_pending": False,
    "xsd_retry_session_reuse_pending": False,
    "last_xsd_error": None,
    "last_review_xsd_error": None,
    "last_fix_xsd_error": None,
}
NO_SAME_AGENT_RETRY = {
    "same_agent_retry_count": 0,
    "same_agent_retry_pending": False,
    "same_agent_retry_reason": None,
}

Step = Callable[[ContinuationState], ContinuationState]


def changed(before: ContinuationState, after: ContinuationState) -> dict[str, Any]:
    """The fields that differ, with their new values."""
    return {name: getattr(after, name) for name in FIELDS if getattr(after, name) != getattr(before, name)}


# --- names, defaults, constructors ------------------------------------------------------------------------


def test_the_thirty_fields_stand_in_the_order_of_the_reference_with_the_documented_defaults() -> None:
    """JSON shows exactly the 30 snake_case names, each with its documented default."""
    shown = msgspec.json.decode(msgspec.json.encode(ContinuationState.new()))
    assert len(FIELDS) == 30
    assert list(shown.items()) == list(FIELDS.items())


@pytest.mark.parametrize("name", METHODS.split())
def test_every_method_of_the_reference_is_there(name: str) -> None:
    """A reader of the reference finds each of its methods under its own name."""
    assert callable(getattr(ContinuationState, name))


def test_with_limits_takes_format_continue_and_same_agent_in_this_order_and_fixes_follow_continue() -> None:
    """Order matters: three integers look alike."""
    state = ContinuationState.with_limits(7, 8, 9)
    assert changed(ContinuationState.new(), state) == {
        "max_xsd_retry_count": 7,
        "max_continue_count": 8,
        "max_same_agent_retry_count": 9,
        "max_fix_continue_count": 8,
    }
    assert state == ContinuationState.with_limits(
        max_xsd_retry_count=7, max_continue_count=8, max_same_agent_retry_count=9
    )


def test_limits_can_be_chained_onto_any_state() -> None:
    """The two builders change their own limit and nothing else."""
    state = FULL.with_max_xsd_retry(1).with_max_same_agent_retry(0)
    assert changed(FULL, state) == {"max_xsd_retry_count": 1, "max_same_agent_retry_count": 0}


def test_a_state_cannot_be_written_to() -> None:
    """Nothing mutates: a step returns a new value."""
    state = ContinuationState.new()
    with pytest.raises(AttributeError):
        state.continuation_attempt = 1  # type: ignore[misc]
    state.trigger_continuation(PARTIAL, "half")
    assert state == ContinuationState.new()


# --- each step, on a state where everything is set --------------------------------------------------------

STEPS: dict[str, tuple[Step, dict[str, Any]]] = {
    "with_artifact clears the format retries and nothing else": (
        lambda s: s.with_artifact(ArtifactType.PLAN),
        {**NO_FORMAT_RETRY, "current_artifact": ArtifactType.PLAN},
    ),
    "trigger_xsd_retry counts": (lambda s: s.trigger_xsd_retry(), {"xsd_retry_count": 4}),
    "clear_xsd_retry_pending keeps count, session reuse, review and fix texts": (
        lambda s: s.clear_xsd_retry_pending(),
        {"xsd_retry_pending": False, "last_xsd_error": None},
    ),
    "clear_session_reuse is the flag only": (
        lambda s: s.clear_session_reuse(),
        {"xsd_retry_session_reuse_pending": False},
    ),
    "a valid artifact or another agent ends the format retries": (
        lambda s: s.clear_xsd_retries(),
        NO_FORMAT_RETRY,
    ),
    "trigger_same_agent_retry counts and gives the reason": (
        lambda s: s.trigger_same_agent_retry(SameAgentRetryReason.OTHER),
        {"same_agent_retry_count": 2, "same_agent_retry_reason": SameAgentRetryReason.OTHER},
    ),
    "clear_same_agent_retry_pending keeps the count": (
        lambda s: s.clear_same_agent_retry_pending(),
        {"same_agent_retry_pending": False, "same_agent_retry_reason": None},
    ),
    "a call that ended well or another agent ends the same-agent retries": (
        lambda s: s.clear_same_agent_retries(),
        NO_SAME_AGENT_RETRY,
    ),
    "an interruption by the user is asked again and not counted": (
        lambda s: s.ask_again_after_interruption(),
        {"same_agent_retry_reason": INTERRUPTED},
    ),
    "trigger_continue changes nothing when it is pending": (lambda s: s.trigger_continue(), {}),
    "clear_continue_pending is the flag only": (
        lambda s: s.clear_continue_pending(),
        {"continue_pending": False},
    ),
    "clear_fix_continue_pending is the flag only": (
        lambda s: s.clear_fix_continue_pending(),
        {"fix_continue_pending": False},
    ),
    "reset_fix_continuation is the fix track only": (
        lambda s: s.reset_fix_continuation(),
        {
            "fix_status": None,
            "fix_previous_summary": None,
            "fix_continuation_attempt": 0,
            "fix_continue_pending": False,
        },
    ),
    "context_written is the flag only": (lambda s: s.context_written(), {"context_write_pending": False}),
    "begin_cleanup takes the place of a handover still to be written": (
        lambda s: s.begin_cleanup(),
        {"context_write_pending": False, "context_cleanup_pending": True},
    ),
    "trigger_continuation starts a new attempt, None overwrites, the fix track stays": (
        lambda s: s.trigger_continuation(FAILED, "tests are red", ["b.py", "c.py"], None),
        {
            **NO_FORMAT_RETRY,
            **NO_SAME_AGENT_RETRY,
            "previous_status": FAILED,
            "previous_summary": "tests are red",
            "previous_files_changed": ("b.py", "c.py"),
            "previous_next_steps": None,
            "continuation_attempt": 2,
            "invalid_output_attempts": 0,
        },
    ),
    "trigger_fix_continuation starts a new fix attempt, development's context stays": (
        lambda s: s.trigger_fix_continuation(FixStatus.FAILED, None),
        {
            **NO_FORMAT_RETRY,
            **NO_SAME_AGENT_RETRY,
            "fix_status": FixStatus.FAILED,
            "fix_previous_summary": None,
            "fix_continuation_attempt": 2,
            "invalid_output_attempts": 0,
            "context_write_pending": False,
            "continue_pending": False,
        },
    ),
    "the same fingerprint lengthens the streak": (
        lambda s: s.update_loop_detection_counters("call"),
        {"consecutive_same_effect_count": 3},
    ),
    "another fingerprint begins a streak of 1": (
        lambda s: s.update_loop_detection_counters("prove"),
        {"last_effect_kind": "prove", "consecutive_same_effect_count": 1},
    ),
    "reset leaves the five limits": (
        lambda s: s.begin_cleanup().reset(),
        {name: value for name, value in FIELDS.items() if not name.startswith("max_")},
    ),
}


@pytest.mark.parametrize("promise", STEPS)
def test_each_step_changes_exactly_these_fields(promise: str) -> None:
    """On a state with everything set, a step changes what its row says and leaves all else."""
    step, expected = STEPS[promise]
    after = {name: getattr(step(FULL), name) for name in FIELDS}
    assert after == {name: getattr(FULL, name) for name in FIELDS} | expected


def test_trigger_xsd_retry_on_a_fresh_state_owes_a_retry_in_the_same_session() -> None:
    """Pending, counted, and the session is wanted again."""
    assert changed(ContinuationState.new(), ContinuationState.new().trigger_xsd_retry()) == {
        "xsd_retry_count": 1,
        "xsd_retry_pending": True,
        "xsd_retry_session_reuse_pending": True,
    }


def test_trigger_same_agent_retry_on_a_fresh_state_owes_a_retry_and_leaves_the_format_alone() -> None:
    """Pending, counted, with its reason; no session is asked for."""
    assert changed(ContinuationState.new(), ContinuationState.new().trigger_same_agent_retry(TIMEOUT)) == {
        "same_agent_retry_count": 1,
        "same_agent_retry_pending": True,
        "same_agent_retry_reason": TIMEOUT,
    }


def test_the_wish_for_the_old_session_outlives_the_prompt_and_ends_when_the_call_starts() -> None:
    """`clear_xsd_retry_pending` keeps it, `clear_session_reuse` ends it, the count survives both."""
    prepared = ContinuationState.new().trigger_xsd_retry().clear_xsd_retry_pending()
    assert (prepared.xsd_retry_session_reuse_pending, prepared.xsd_retry_count) == (True, 1)
    started = prepared.clear_session_reuse()
    assert (started.xsd_retry_session_reuse_pending, started.xsd_retry_count) == (False, 1)


def test_an_interruption_is_pending_with_its_reason_even_when_no_retry_was_counted() -> None:
    """The user's Ctrl-C costs no failure of the agent's budget."""
    asked = ContinuationState.new().ask_again_after_interruption()
    assert changed(ContinuationState.new(), asked) == {
        "same_agent_retry_pending": True,
        "same_agent_retry_reason": INTERRUPTED,
    }
    assert asked.clear_same_agent_retry_pending() == ContinuationState.new()


def test_trigger_continue_sets_the_flag_only() -> None:
    """The flag, and neither attempt nor context."""
    assert changed(ContinuationState.new(), ContinuationState.new().trigger_continue()) == {"continue_pending": True}


def test_trigger_continuation_owes_the_handover_and_the_continuation_while_attempts_remain() -> None:
    """A pending cleanup gives way to the handover."""
    after = ContinuationState.new().begin_cleanup().trigger_continuation(PARTIAL, "half", None, "more")
    assert changed(ContinuationState.new(), after) == {
        "previous_status": PARTIAL,
        "previous_summary": "half",
        "previous_next_steps": "more",
        "continuation_attempt": 1,
        "context_write_pending": True,
        "continue_pending": True,
    }


def test_files_and_next_steps_that_are_not_given_are_none() -> None:
    """None, which is not the same as an empty list of files."""
    after = FULL.trigger_continuation(PARTIAL, "half")
    assert (after.previous_files_changed, after.previous_next_steps) == (None, None)
    assert FULL.trigger_continuation(PARTIAL, "half", []).previous_files_changed == ()
    assert FULL.trigger_fix_continuation(REMAIN).fix_previous_summary is None


def test_a_fix_continuation_never_owes_a_handover() -> None:
    """The context duty belongs to development; a pending one is cleared."""
    after = ContinuationState.new().begin_cleanup().trigger_fix_continuation(REMAIN, "two left")
    assert changed(ContinuationState.new(), after) == {
        "fix_status": REMAIN,
        "fix_previous_summary": "two left",
        "fix_continuation_attempt": 1,
        "fix_continue_pending": True,
    }


def test_the_handover_is_written_once_and_removed_once() -> None:
    """write due -> written; cleanup due -> cleaned."""
    written = ContinuationState.new().trigger_continuation(PARTIAL, "half").context_written()
    assert (written.context_write_pending, written.continue_pending) == (False, True)
    cleaned = written.begin_cleanup().context_cleaned()
    assert cleaned == written


# --- counting and boundaries ------------------------------------------------------------------------------


PREDICATES = {
    "xsd_retries_exhausted": ("xsd_retry_count", "max_xsd_retry_count"),
    "same_agent_retries_exhausted": ("same_agent_retry_count", "max_same_agent_retry_count"),
    "continuations_exhausted": ("continuation_attempt", "max_continue_count"),
    "fix_continuations_exhausted": ("fix_continuation_attempt", "max_fix_continue_count"),
    "is_loop_detected": ("consecutive_same_effect_count", "max_consecutive_same_effect"),
}


@pytest.mark.parametrize("predicate", PREDICATES)
@pytest.mark.parametrize(("count", "maximum", "answer"), [(0, 3, False), (2, 3, False), (3, 3, True), (4, 3, True)])
def test_exhausted_means_that_the_counter_has_reached_its_limit(
    predicate: str, count: int, maximum: int, answer: bool
) -> None:
    """Counter >= limit, for each of the five."""
    counter, limit = PREDICATES[predicate]
    state = ContinuationState(**{counter: count, limit: maximum})  # type: ignore[arg-type]
    assert getattr(state, predicate)() is answer


def test_a_limit_of_zero_is_exhausted_at_once() -> None:
    """Before anything was counted."""
    state = ContinuationState.with_limits(0, 0, 0)
    assert state.xsd_retries_exhausted()
    assert state.same_agent_retries_exhausted()
    assert state.continuations_exhausted()
    assert state.fix_continuations_exhausted()


@pytest.mark.parametrize(("attempt", "answer"), [(0, False), (1, True), (2, True)])
def test_a_continuation_is_any_attempt_but_the_first(attempt: int, answer: bool) -> None:
    """`is_continuation` = attempt > 0."""
    assert ContinuationState(continuation_attempt=attempt).is_continuation() is answer


@pytest.mark.parametrize(("limit", "retries"), [(10, 10), (1, 1), (0, 0)])
def test_a_limit_of_n_gives_n_format_retries_and_the_next_failure_goes_on(limit: int, retries: int) -> None:
    """A failure while not exhausted triggers a retry: limit 10 = ten retries, 0 = next agent at once."""
    state, granted = ContinuationState.new().with_max_xsd_retry(limit), 0
    for failure in range(1, 20):
        state = state.record_invalid_output(f"failure {failure}")
        if state.xsd_retries_exhausted():
            break
        state, granted = state.trigger_xsd_retry(), granted + 1
    assert granted == retries
    assert state.invalid_output_attempts == retries + 1


@pytest.mark.parametrize(("limit", "retries"), [(3, 2), (2, 1), (1, 0), (0, 0)])
def test_same_agent_retries_are_a_budget_of_failures(limit: int, retries: int) -> None:
    """The failure is counted first: 2 = one retry, then fall back; 0 and 1 = fall back at once."""
    state, granted = ContinuationState.new().with_max_same_agent_retry(limit), 0
    while True:
        state = state.trigger_same_agent_retry(TIMEOUT)
        if state.same_agent_retries_exhausted():
            break
        granted += 1
    assert granted == retries


BOUNDARY = [(4, 4), (3, 3), (2, 2), (1, 1), (0, 1)]


@pytest.mark.parametrize(("limit", "attempts"), BOUNDARY)
def test_development_gets_as_many_attempts_as_its_limit_and_at_least_one(limit: int, attempts: int) -> None:
    """Limit 3 = attempts 0, 1, 2; limits 0 and 1 still allow the initial attempt."""
    state, made = ContinuationState.with_limits(10, limit, 2), 1
    while (state := state.trigger_continuation(PARTIAL, "half")).continue_pending:
        made += 1
    assert made == attempts
    assert state.continuations_exhausted()


@pytest.mark.parametrize(("limit", "attempts"), BOUNDARY)
def test_fixes_get_as_many_attempts_as_their_limit_and_at_least_one(limit: int, attempts: int) -> None:
    """The fix track has the same boundary as development."""
    state, made = ContinuationState.with_limits(10, limit, 2), 1
    while (state := state.trigger_fix_continuation(REMAIN, None)).fix_continue_pending:
        made += 1
    assert made == attempts
    assert state.fix_continuations_exhausted()


@pytest.mark.parametrize("counted", [2, 3])
def test_at_the_boundary_the_attempt_is_counted_and_nothing_is_pending(counted: int) -> None:
    """Ours: the originals either left a continuation pending or did not count the attempt."""
    state = ContinuationState(continuation_attempt=counted, same_agent_retry_count=1).trigger_xsd_retry()
    spent = state.begin_cleanup().trigger_continuation(FAILED, "no", ("a.py",), "tests are red")
    assert spent == ContinuationState(
        previous_status=FAILED,
        previous_summary="no",
        previous_files_changed=("a.py",),
        previous_next_steps="tests are red",
        continuation_attempt=counted + 1,
    )


def test_a_false_claim_of_completion_counts_like_any_failed_attempt() -> None:
    """Claimed completed, but red: failed, the real files, the failing checks as next steps."""
    state = ContinuationState.new()
    for _ in range(3):
        state = state.trigger_continuation(FAILED, "done!", ("src/a.py",), "test: 2 failed")
    assert state.continuations_exhausted()
    assert (state.previous_status, state.previous_next_steps) == (FAILED, "test: 2 failed")


def test_the_loop_is_detected_when_the_streak_reaches_the_limit() -> None:
    """Five equal fingerprints in a row, not four."""
    state = ContinuationState.new().update_loop_detection_counters("other")
    found: list[bool] = []
    for _ in range(5):
        state = state.update_loop_detection_counters("same")
        found.append(state.is_loop_detected())
    assert found == [False, False, False, False, True]


def test_retries_do_not_feed_the_streak() -> None:
    """Format and same-agent retries, back-off and interruptions leave the loop's counters alone."""
    before = ContinuationState.new().update_loop_detection_counters("call")
    after = (
        before.record_invalid_output("bad")
        .trigger_xsd_retry()
        .trigger_same_agent_retry(TIMEOUT)
        .ask_again_after_interruption()
        .clear_xsd_retries()
    )
    assert (after.last_effect_kind, after.consecutive_same_effect_count) == ("call", 1)


# --- the three error texts --------------------------------------------------------------------------------

ERROR_TEXTS = [
    (None, "last_xsd_error"),
    (ArtifactType.PLAN, "last_xsd_error"),
    (ArtifactType.DEVELOPMENT_RESULT, "last_xsd_error"),
    (ArtifactType.ISSUES, "last_review_xsd_error"),
    (ArtifactType.FIX_RESULT, "last_fix_xsd_error"),
    (ArtifactType.TRIAGE, "last_xsd_error"),
    (ArtifactType.COMMIT_MESSAGE, "last_xsd_error"),
    (ArtifactType.ANALYSIS, "last_xsd_error"),
    (ArtifactType.PR_TEXT, "last_xsd_error"),
    (ArtifactType.CONFLICT_RESULT, "last_xsd_error"),
]


@pytest.mark.parametrize(("artifact", "text"), ERROR_TEXTS)
def test_the_validators_words_are_kept_where_the_errand_looks(artifact: ArtifactType | None, text: str) -> None:
    """Review and fix have texts of their own; each invalid output is counted, a missing one too."""
    state = ContinuationState(current_artifact=artifact)
    assert changed(state, state.record_invalid_output("line 3: no status")) == {
        text: "line 3: no status",
        "invalid_output_attempts": 1,
    }


def test_every_kind_of_artifact_has_a_text() -> None:
    """The table above forgets none."""
    assert {artifact for artifact, _ in ERROR_TEXTS} == {None, *ArtifactType}


@pytest.mark.parametrize("artifact", [ArtifactType.ISSUES, ArtifactType.FIX_RESULT])
def test_review_and_fix_texts_outlive_the_prompt_and_go_with_a_valid_artifact(artifact: ArtifactType) -> None:
    """Cleared by a valid artifact, or by the errand that follows; not by preparing the retry's prompt."""
    failed = ContinuationState.new().with_artifact(artifact).record_invalid_output("bad").trigger_xsd_retry()
    kept = failed.clear_xsd_retry_pending()
    assert "bad" in (kept.last_review_xsd_error, kept.last_fix_xsd_error)
    for gone in (kept.clear_xsd_retries(), kept.with_artifact(ArtifactType.PLAN)):
        assert (gone.last_review_xsd_error, gone.last_fix_xsd_error) == (None, None)


# --- JSON -------------------------------------------------------------------------------------------------


def test_missing_names_load_with_defaults_and_unknown_ones_are_ignored() -> None:
    """Old and newer files can be read."""
    loaded = msgspec.json.decode(b'{"continuation_attempt": 2, "of_the_future": []}', type=ContinuationState)
    assert loaded == ContinuationState(continuation_attempt=2)


def test_a_full_state_survives_json_and_shows_every_name() -> None:
    """Round trip equal; nothing at its default is left out."""
    text = msgspec.json.encode(FULL)
    assert msgspec.json.decode(text, type=ContinuationState) == FULL
    assert list(msgspec.json.decode(text)) == list(FIELDS)
    assert msgspec.json.decode(text)["same_agent_retry_reason"] == "timeout"


# --- what cannot exist ------------------------------------------------------------------------------------

IMPOSSIBLE: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"context_write_pending": True, "context_cleanup_pending": True},
        ["context_write_pending", "context_cleanup_pending"],
    ),
    (
        {"continue_pending": True, "continuation_attempt": 3},
        ["continue_pending", "continuation_attempt", "max_continue_count"],
    ),
    ({"continue_pending": True, "max_continue_count": 0}, ["continue_pending", "max_continue_count"]),
    (
        {"fix_continue_pending": True, "fix_continuation_attempt": 4},
        ["fix_continue_pending", "fix_continuation_attempt", "max_fix_continue_count"],
    ),
    (
        {"same_agent_retry_reason": "timeout"},
        ["same_agent_retry_reason", "same_agent_retry_pending", "same_agent_retry_count"],
    ),
    ({"max_consecutive_same_effect": 1}, ["max_consecutive_same_effect"]),
    *(({name: -1}, [name]) for name, value in FIELDS.items() if isinstance(value, int) and not isinstance(value, bool)),
    ({"max_continue_count": True}, ["max_continue_count"]),
    ({"max_xsd_retry_count": 2.5}, ["max_xsd_retry_count"]),
    ({"max_consecutive_same_effect": 2.5}, ["max_consecutive_same_effect"]),
]


@pytest.mark.parametrize(("fields", "named"), IMPOSSIBLE)
def test_an_impossible_combination_is_refused_by_name_wherever_it_comes_from(
    fields: dict[str, Any], named: list[str]
) -> None:
    """Neither the constructor nor JSON makes one, and the error names the fields."""
    with pytest.raises(ImpossibleState) as built:
        ContinuationState(**fields)
    with pytest.raises(msgspec.ValidationError) as loaded:
        msgspec.json.decode(msgspec.json.encode(fields), type=ContinuationState)
    for name in named:
        assert name in built.value.fields
        assert name in str(built.value)
        assert name in str(loaded.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"same_agent_retry_reason": TIMEOUT, "same_agent_retry_pending": True},
        {"same_agent_retry_reason": TIMEOUT, "same_agent_retry_count": 1},
        {"continue_pending": True, "continuation_attempt": 2},
        {"max_consecutive_same_effect": 2},
    ],
)
def test_what_stands_just_inside_is_allowed(fields: dict[str, Any]) -> None:
    """The refusals are no wider than they say."""
    assert ContinuationState(**fields)


def test_trigger_continue_on_an_exhausted_state_is_a_programmers_error() -> None:
    """It raises instead of making a continuation that could never run."""
    with pytest.raises(ProgrammerError, match="continue_pending"):
        ContinuationState(continuation_attempt=3).trigger_continue()


# --- laws over any sequence of steps ----------------------------------------------------------------------

TEXT = st.text(max_size=8)
STEP = st.one_of(
    st.sampled_from(
        [
            "reset",
            "trigger_xsd_retry",
            "clear_xsd_retry_pending",
            "clear_session_reuse",
            "clear_xsd_retries",
            "ask_again_after_interruption",
            "clear_same_agent_retry_pending",
            "clear_same_agent_retries",
            "trigger_continue",
            "clear_continue_pending",
            "clear_fix_continue_pending",
            "reset_fix_continuation",
            "context_written",
            "begin_cleanup",
            "context_cleaned",
        ]
    ).map(lambda name: (name, ())),
    st.tuples(st.just("with_artifact"), st.tuples(st.sampled_from(ArtifactType))),
    st.tuples(st.just("record_invalid_output"), st.tuples(TEXT)),
    st.tuples(st.just("trigger_same_agent_retry"), st.tuples(st.sampled_from(SameAgentRetryReason))),
    st.tuples(
        st.just("trigger_continuation"),
        st.tuples(
            st.sampled_from([PARTIAL, FAILED]),
            TEXT,
            st.none() | st.lists(TEXT, max_size=3),
            st.none() | TEXT,
        ),
    ),
    st.tuples(st.just("trigger_fix_continuation"), st.tuples(st.sampled_from([REMAIN, FixStatus.FAILED]), TEXT)),
    st.tuples(st.just("update_loop_detection_counters"), st.tuples(st.sampled_from("ab"))),
)
START = st.builds(
    ContinuationState,
    max_xsd_retry_count=st.integers(0, 4),
    max_same_agent_retry_count=st.integers(0, 4),
    max_continue_count=st.integers(0, 4),
    max_fix_continue_count=st.integers(0, 4),
    max_consecutive_same_effect=st.integers(2, 4),
)
LIMITS = [name for name in FIELDS if name.startswith("max_")]

# The only steps that may lower a counter; a retry, a fallback or an interruption lowers neither attempt.
MAY_LOWER = {
    "continuation_attempt": {"reset"},
    "fix_continuation_attempt": {"reset", "reset_fix_continuation"},
    "invalid_output_attempts": {"reset", "trigger_continuation", "trigger_fix_continuation"},
    "xsd_retry_count": {
        "reset",
        "with_artifact",
        "clear_xsd_retries",
        "trigger_continuation",
        "trigger_fix_continuation",
    },
    "same_agent_retry_count": {
        "reset",
        "clear_same_agent_retries",
        "trigger_continuation",
        "trigger_fix_continuation",
    },
    "consecutive_same_effect_count": {"reset", "update_loop_detection_counters"},
}


@given(START, st.lists(STEP, max_size=30))
def test_no_sequence_of_steps_breaks_a_law(state: ContinuationState, steps: list[tuple[str, tuple[Any, ...]]]) -> None:
    """Limits stay, counters fall only where documented, JSON keeps all, the impossible is never reached."""
    limits = [getattr(state, name) for name in LIMITS]
    for name, arguments in steps:
        if name == "trigger_continue" and state.continuation_attempt >= state.max_continue_count:
            continue  # a programmer's error, tested above
        after: ContinuationState = getattr(state, name)(*arguments)
        for counter, lowering in MAY_LOWER.items():
            assert getattr(after, counter) >= getattr(state, counter) or name in lowering
        assert [getattr(after, limit) for limit in LIMITS] == limits
        assert not (after.context_write_pending and after.context_cleanup_pending)
        assert not (after.continue_pending and after.continuation_attempt >= after.max_continue_count)
        assert not (after.fix_continue_pending and after.fix_continuation_attempt >= after.max_fix_continue_count)
        if after.same_agent_retry_reason is not None:
            assert after.same_agent_retry_pending or after.same_agent_retry_count > 0
        state = after
    assert msgspec.json.decode(msgspec.json.encode(state), type=ContinuationState) == state
