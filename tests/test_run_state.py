"""RunState keeps every row of its reference: the 18 fields, the methods, and the moves that are legal."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyloop.core.errors import IllegalTransition, ImpossibleState, ProgrammerError
from storyloop.core.knowledge import NotedFile, NotedKnowledge, ProjectKnowledge, StoryChanges
from storyloop.core.policy import Drain, Limits, Policy
from storyloop.core.run_state import (
    IterationRecord,
    RunState,
    phase_key,
    session_id_of,
)
from storyloop.core.usage import Usage
from storyloop.core.words import IterationStatus, MachineState, RunStatus

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUN_ID = "6f1c2a3e-0000-4000-8000-000000000001"
SUCCESS, FAILED = IterationStatus.SUCCESS, IterationStatus.FAILED

FIELDS = """
    run_id status machine_state spec_json_path spec_md_path branch current_story iteration review_iteration
    started_at finished_at iterations config knowledge pre_story_commit session_id total_usage phase_usage
""".split()  # noqa: SIM905 - the order of the reference, readable
METHODS = """
    new from_spec effective_config transition_to start_iteration finish_iteration set_work_summary
    current_iteration_duration run_duration_secs capture_pre_story_state record_story_changes
    capture_story_knowledge capture_usage set_iteration_usage
"""


def later(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def opened(**fields: Any) -> RunState:
    return RunState.new("spec.json", "feature/x", run_id=RUN_ID, started_at=T0, **fields)


def changed(before: RunState, after: RunState) -> dict[str, Any]:
    """The fields that differ, with their new values."""
    return {name: getattr(after, name) for name in FIELDS if getattr(after, name) != getattr(before, name)}


# --- the 18 fields and the constructors -------------------------------------------------------------------


def test_the_json_of_a_new_run_shows_the_18_fields_in_the_order_of_the_reference() -> None:
    """Snake case, times RFC 3339 with Z, absent options null."""
    expected = {
        "run_id": RUN_ID,
        "status": "running",
        "machine_state": "initializing",
        "spec_json_path": "spec.json",
        "spec_md_path": None,
        "branch": "feature/x",
        "current_story": None,
        "iteration": 0,
        "review_iteration": 0,
        "started_at": "2026-01-02T03:04:05Z",
        "finished_at": None,
        "iterations": [],
        "config": None,
        "knowledge": {
            "files": {},
            "decisions": [],
            "patterns": [],
            "story_changes": [],
            "baseline_commit": None,
        },
        "pre_story_commit": None,
        "session_id": None,
        "total_usage": None,
        "phase_usage": {},
    }
    shown = msgspec.json.decode(msgspec.json.encode(opened().reference_fields()))
    assert list(shown.items()) == list(expected.items())
    assert list(shown) == FIELDS
    assert len(FIELDS) == 18


def test_a_run_of_a_markdown_spec_begins_by_loading_it_and_has_no_branch_yet() -> None:
    """`from_spec`, in the reference's order of arguments."""
    run = RunState.from_spec("spec.md", "spec.json", run_id=RUN_ID, started_at=T0)
    assert changed(opened(), run) == {
        "machine_state": MachineState.LOADING_SPEC,
        "spec_md_path": "spec.md",
        "branch": "",
    }


def test_config_and_session_can_be_given_to_both_constructors() -> None:
    """Together the two stand for the seven of the reference."""
    given_too = {"config": Policy(no_wait=True), "session_id": "1a2b3c4d"}
    from_spec = RunState.from_spec("spec.md", "spec.json", run_id=RUN_ID, started_at=T0, **given_too)
    for run in (opened(**given_too), from_spec):
        assert {name: getattr(run, name) for name in given_too} == given_too


@pytest.mark.parametrize("name", METHODS.split())
def test_every_method_of_the_reference_is_there(name: str) -> None:
    """A reader of the reference finds each of its methods under its own name."""
    assert callable(getattr(RunState, name))


def test_a_run_cannot_be_written_to() -> None:
    """Methods return a new value."""
    run = opened()
    with pytest.raises(AttributeError):
        run.iteration = 1  # type: ignore[misc]
    run.start_iteration("US-001", T0)
    assert run == opened()


def test_a_run_that_no_journal_stands_behind_has_no_progress_to_ask_for() -> None:
    """What is ours beyond the reference is never made up."""
    with pytest.raises(ProgrammerError, match="not folded from a journal"):
        _ = opened().going


def test_the_policy_in_force_is_the_snapshot_or_else_the_defaults() -> None:
    """`effective_config` reads no file."""
    assert opened().effective_config() == Policy()
    snapshot = Policy(limits=Limits(continuations=7))
    assert opened(config=snapshot).effective_config() == snapshot


@pytest.mark.parametrize(
    ("worktree", "session"),
    # printf %s PATH | sha256sum | cut -c1-8
    [("/home/ada/shop-wt-feature-x", "2fe0f32d"), ("/tmp/caf\udce9", "87169873")],
)
def test_a_session_is_8_hex_digits_of_the_worktrees_path(worktree: str, session: str) -> None:
    """Deterministic; a path that is not UTF-8 has one too."""
    assert session_id_of(worktree) == session


def test_the_session_of_a_main_checkout_is_main() -> None:
    """As in the reference; a worktree beside it has an id of its own."""
    assert session_id_of("/home/ada/shop", main_checkout="/home/ada/shop") == "main"
    assert session_id_of("/home/ada/shop-wt-feature-x", main_checkout="/home/ada/shop") != "main"


# --- machine states ---------------------------------------------------------------------------------------

LEGAL = {
    "idle": "loading-spec initializing",
    "loading-spec": "generating-spec initializing waiting parked failed",
    "generating-spec": "loading-spec initializing waiting parked failed",
    "initializing": "picking-story running-agent waiting parked failed",
    "picking-story": "running-agent proving landing committing reviewing correcting creating-pr completed "
    "waiting parked failed",
    "running-agent": "picking-story correcting proving landing committing reviewing waiting parked failed",
    "proving": "picking-story running-agent landing committing reviewing correcting creating-pr completed "
    "waiting parked failed",
    "landing": "picking-story running-agent proving committing waiting parked failed",
    "committing": "picking-story running-agent proving landing reviewing correcting creating-pr completed "
    "waiting parked failed",
    "reviewing": "picking-story running-agent correcting proving landing committing waiting parked failed",
    "correcting": "picking-story running-agent reviewing proving landing committing waiting parked failed",
    "creating-pr": "picking-story running-agent completed waiting parked failed",
    "waiting": "loading-spec generating-spec initializing picking-story running-agent proving landing "
    "reviewing correcting committing creating-pr parked failed",
    "parked": "loading-spec generating-spec initializing picking-story running-agent proving landing "
    "reviewing correcting committing creating-pr waiting failed",
    "completed": "picking-story",
    "failed": "picking-story initializing loading-spec",
}


def in_state(state: MachineState) -> RunState:
    endings = {"completed": RunStatus.COMPLETED, "failed": RunStatus.FAILED}
    status = endings.get(state, RunStatus.PARKED if state == "parked" else RunStatus.RUNNING)
    end = later(9) if state in endings else None
    return msgspec.structs.replace(opened(), machine_state=state, status=status, finished_at=end)


def test_the_table_names_every_machine_state() -> None:
    """Sixteen rows, none forgotten and none too many."""
    assert set(LEGAL) == {state.value for state in MachineState}


@pytest.mark.parametrize("state", MachineState)
def test_exactly_the_moves_of_the_table_are_legal(state: MachineState) -> None:
    """From each state to each other: moved, or refused with both states kept in the error."""
    legal = set(LEGAL[state].split())
    for target in MachineState:
        if target is state:
            continue
        if target in legal:
            assert in_state(state).transition_to(target, later(10)).machine_state is target
        else:
            with pytest.raises(IllegalTransition) as refused:
                in_state(state).transition_to(target, later(10))
            assert (refused.value.state, refused.value.event) == (state, target)
            assert f"{state.value} cannot be followed by {target.value}" in str(refused.value)


@pytest.mark.parametrize("state", MachineState)
def test_to_stay_is_no_move(state: MachineState) -> None:
    """The same state again changes nothing, not even an end that was set."""
    assert in_state(state).transition_to(state, later(99)) == in_state(state)


@pytest.mark.parametrize("ending", ["completed", "failed"])
def test_an_ending_sets_status_and_end(ending: str) -> None:
    """completed and failed, as in the reference."""
    proving = in_state(MachineState.PROVING)
    assert changed(proving, proving.transition_to(MachineState(ending), later(60))) == {
        "machine_state": MachineState(ending),
        "status": RunStatus(ending),
        "finished_at": later(60),
    }


def test_a_retry_of_a_failed_run_makes_it_run_again() -> None:
    """Leaving failed takes the end back."""
    again = in_state(MachineState.FAILED).transition_to(MachineState.PICKING_STORY, later(10))
    assert (again.status, again.finished_at) == (RunStatus.RUNNING, None)


def test_a_parked_run_says_so_until_it_goes_on() -> None:
    """Parked is a status too, and not an end; waiting is part of running."""
    parked = in_state(MachineState.RUNNING_AGENT).transition_to(MachineState.PARKED, later(10))
    assert (parked.status, parked.finished_at) == (RunStatus.PARKED, None)
    assert parked.transition_to(MachineState.WAITING, later(11)).status is RunStatus.RUNNING


def test_an_interrupted_run_is_running_as_soon_as_it_moves() -> None:
    """Interruption keeps the machine state; the next move ends it."""
    stopped = msgspec.structs.replace(in_state(MachineState.PROVING), status=RunStatus.INTERRUPTED)
    assert stopped.transition_to(MachineState.COMMITTING, later(10)).status is RunStatus.RUNNING


@pytest.mark.parametrize(
    "fields",
    [
        {"machine_state": "completed"},
        {"machine_state": "failed", "status": "failed"},
        {"status": "completed", "finished_at": later(1)},
        {"status": "interrupted", "finished_at": later(1)},
        {"machine_state": "failed", "status": "completed", "finished_at": later(1)},
    ],
)
def test_only_completed_and_failed_runs_have_an_end(fields: dict[str, Any]) -> None:
    """State, status and end agree, wherever the run comes from; the error names all three."""
    shown = msgspec.to_builtins(opened()) | fields
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.json.decode(msgspec.json.encode(shown), type=RunState)
    for name in ("machine_state", "status", "finished_at"):
        assert f"{name}=" in str(refused.value)


# --- iterations -------------------------------------------------------------------------------------------


def test_starting_an_iteration_opens_the_next_record() -> None:
    """iteration + 1, the story is current, an agent runs."""
    assert changed(opened(), opened().start_iteration("US-001", later(5))) == {
        "machine_state": MachineState.RUNNING_AGENT,
        "current_story": "US-001",
        "iteration": 1,
        "iterations": (IterationRecord(number=1, story_id="US-001", started_at=later(5)),),
    }


def test_a_record_shows_the_eight_names_of_the_reference() -> None:
    """A new record is running, with nothing said yet."""
    shown = opened().start_iteration("US-001", later(5)).reference_fields()["iterations"]
    assert list(shown) == [
        {
            "number": 1,
            "story_id": "US-001",
            "started_at": "2026-01-02T03:04:10Z",
            "finished_at": None,
            "status": "running",
            "output_snippet": "",
            "work_summary": None,
            "usage": None,
        }
    ]


@pytest.mark.parametrize("status", [SUCCESS, FAILED])
def test_finishing_an_iteration_closes_its_record_and_the_next_story_is_picked(status: IterationStatus) -> None:
    """Whether the story passed or not; no story is current then."""
    started = opened().start_iteration("US-001", later(5))
    assert changed(started, started.finish_iteration(status, "done", later(65))) == {
        "machine_state": MachineState.PICKING_STORY,
        "current_story": None,
        "iterations": (
            IterationRecord(
                number=1,
                story_id="US-001",
                started_at=later(5),
                finished_at=later(65),
                status=status,
                output_snippet="done",
            ),
        ),
    }


def test_a_story_taken_up_again_is_a_new_iteration() -> None:
    """Iterations are counted by starts, not by stories."""
    run = opened().start_iteration("US-001", later(1)).finish_iteration(FAILED, "", later(2))
    run = run.start_iteration("US-001", later(3))
    assert run.iteration == 2
    assert [(record.number, record.story_id) for record in run.iterations] == [(1, "US-001"), (2, "US-001")]


def test_parallel_stories_are_finished_by_number_and_the_newest_unfinished_one_is_current() -> None:
    """Without a number the last running record is meant."""
    run = opened()
    for second, story in enumerate(("US-001", "US-002", "US-003")):
        run = run.start_iteration(story, later(second))
    run = run.finish_iteration(SUCCESS, "two", later(10), number=2)
    assert run.current_story == "US-003"
    run = run.finish_iteration(FAILED, "three", later(11))
    assert run.current_story == "US-001"
    run = run.finish_iteration(SUCCESS, "one", later(12))
    assert run.current_story is None
    assert [(record.status, record.output_snippet) for record in run.iterations] == [
        (SUCCESS, "one"),
        (SUCCESS, "two"),
        (FAILED, "three"),
    ]


@pytest.mark.parametrize("number", [None, 1, 2])
def test_only_a_running_iteration_can_be_finished(number: int | None) -> None:
    """A record that ended keeps its end; one that never began is a programmer's error."""
    run = opened().start_iteration("US-001", later(1)).finish_iteration(SUCCESS, "", later(2))
    with pytest.raises(ProgrammerError, match="no running iteration"):
        run.finish_iteration(FAILED, "", later(3), number)


def test_an_iteration_cannot_be_finished_as_running() -> None:
    """A record has an end exactly when it is not running."""
    with pytest.raises(ImpossibleState, match="finished_at"):
        opened().start_iteration("US-001", T0).finish_iteration(IterationStatus.RUNNING, "", later(1))


@pytest.mark.parametrize("number", [-1, True, 1.0])
def test_the_number_of_an_iteration_is_a_count(number: Any) -> None:
    """Neither negative nor a number of another kind."""
    with pytest.raises(ImpossibleState, match=f"number={number}: a count"):
        IterationRecord(number=number, story_id="US-001", started_at=T0)


def test_the_snippet_is_the_last_2000_characters_and_the_summary_the_first_500() -> None:
    """Cut between characters, never inside one: a character of four bytes counts once."""
    run = opened().start_iteration("US-001", T0)
    run = run.finish_iteration(SUCCESS, "x" + "🧵" * 2000, later(1)).set_work_summary("é" * 500 + "y")
    assert run.iterations[0].output_snippet == "🧵" * 2000
    assert run.iterations[0].work_summary == "é" * 500


def test_summary_and_usage_go_to_the_last_record_or_the_numbered_one() -> None:
    """Also after the record was finished."""
    run = opened().start_iteration("US-001", T0).start_iteration("US-002", T0)
    run = run.finish_iteration(SUCCESS, "", later(1))
    run = run.set_work_summary("second").set_work_summary("first", 1)
    run = run.set_iteration_usage(Usage(input_tokens=2)).set_iteration_usage(Usage(input_tokens=1), 1)
    assert [(record.work_summary, record.usage) for record in run.iterations] == [
        ("first", Usage(input_tokens=1)),
        ("second", Usage(input_tokens=2)),
    ]
    assert run.set_work_summary(None).iterations[1].work_summary is None


def test_no_usage_changes_nothing() -> None:
    """None is a no-op, here and in `capture_usage`."""
    run = opened().start_iteration("US-001", T0).set_iteration_usage(Usage(input_tokens=2))
    assert run.set_iteration_usage(None) == run
    assert run.capture_usage("US-001", None) == run


@pytest.mark.parametrize("number", [None, 0, 1, -1])
def test_an_iteration_that_is_not_there_is_a_programmers_error(number: int | None) -> None:
    """Nothing is written to some other record instead."""
    with pytest.raises(ProgrammerError, match="no iteration"):
        opened().set_work_summary("lost", number)


def test_review_cycles_never_pass_the_policys_limit() -> None:
    """0 before review, then 1, 2, 3."""
    for cycle in (0, 1, 2, 3):
        assert msgspec.structs.replace(opened(), review_iteration=cycle).review_iteration == cycle
    with pytest.raises(ImpossibleState, match="review_iteration=4"):
        msgspec.structs.replace(opened(), review_iteration=4)
    more = opened(config=Policy(limits=Limits(review_cycles=4)))
    assert msgspec.structs.replace(more, review_iteration=4).review_iteration == 4


# --- time -------------------------------------------------------------------------------------------------


def test_durations_are_whole_seconds_until_the_end_or_now() -> None:
    """Rounded down; 0 before the first iteration, and never negative when a clock was set back."""
    run = opened()
    assert (run.current_iteration_duration(later(5)), run.run_duration_secs(later(5.9))) == (0, 5)
    run = run.start_iteration("US-001", later(10))
    assert (run.current_iteration_duration(later(12.9)), run.run_duration_secs(later(12.9))) == (2, 12)
    run = run.finish_iteration(SUCCESS, "", later(40))
    assert (run.current_iteration_duration(later(99)), run.run_duration_secs(later(99))) == (30, 99)
    second = run.start_iteration("US-002", later(50))
    assert second.current_iteration_duration(later(57)) == 7
    ended = run.transition_to(MachineState.FAILED, later(100))
    assert ended.run_duration_secs(later(500)) == 100
    assert opened().run_duration_secs(later(-1)) == 0


@pytest.mark.parametrize(
    "moment",
    [T0.replace(tzinfo=None), T0.astimezone(timezone(timedelta(hours=2)))],
    ids=["naive", "another zone"],
)
def test_times_are_in_utc(moment: datetime) -> None:
    """A time without its zone, or in another, is refused by its name."""
    with pytest.raises(ImpossibleState, match="started_at"):
        RunState.new("spec.json", "b", run_id=RUN_ID, started_at=moment)
    with pytest.raises(ImpossibleState, match="started_at"):
        opened().start_iteration("US-001", moment)
    with pytest.raises(ImpossibleState, match="finished_at"):
        opened().transition_to(MachineState.FAILED, moment)


# --- usage ------------------------------------------------------------------------------------------------


def test_usage_is_added_to_its_phase_and_to_the_total() -> None:
    """The total is of all phases; a model is named while there is only one."""
    run = (
        opened()
        .capture_usage("Planning", Usage(input_tokens=1, model="a"))
        .capture_usage("US-001", Usage(output_tokens=2, model="a"))
        .capture_usage("US-001", Usage(input_tokens=4, model="b"))
    )
    assert run.phase_usage == {
        "Planning": Usage(input_tokens=1, model="a"),
        "US-001": Usage(input_tokens=4, output_tokens=2),
    }
    assert run.total_usage == Usage(input_tokens=5, output_tokens=2)


@pytest.mark.parametrize(
    ("drain", "key"),
    [
        (Drain.PLAN, "Planning"),
        (Drain.STORY, "US-001"),
        (Drain.ANALYSIS, "US-001"),
        (Drain.CONFLICT, "US-001"),
        (Drain.REVIEW, "Final Review"),
        (Drain.TRIAGE, "Final Review"),
        (Drain.FIX, "Final Review"),
        (Drain.COMMIT, "PR & Commit"),
        (Drain.PR, "PR & Commit"),
    ],
)
def test_each_drain_is_counted_under_the_phase_of_the_reference(drain: Drain, key: str) -> None:
    """Story ids for work on a story, three names for the rest."""
    assert phase_key(drain, "US-001") == key


def test_work_on_a_story_without_a_story_is_a_programmers_error() -> None:
    """It would be counted nowhere."""
    with pytest.raises(ProgrammerError, match="story"):
        phase_key(Drain.STORY, None)


# --- knowledge --------------------------------------------------------------------------------------------


def test_the_first_storys_start_is_the_baseline_and_outside_git_nothing_is_kept() -> None:
    """`head` None is a no-op; later heads move pre_story_commit only."""
    assert opened().capture_pre_story_state(None) == opened()
    run = opened().capture_pre_story_state("c1")
    assert changed(opened(), run) == {
        "pre_story_commit": "c1",
        "knowledge": ProjectKnowledge(baseline_commit="c1"),
    }
    assert changed(run, run.capture_pre_story_state("c2")) == {"pre_story_commit": "c2"}


def test_a_landed_storys_changes_and_notes_are_kept_with_its_commit() -> None:
    """The diff's record, the registry, and the start that is no longer of use."""
    run = opened().capture_pre_story_state("c1")
    after = run.capture_story_knowledge(
        "US-001",
        NotedKnowledge(files=(NotedFile(path="a.py", purpose="parses"),)),
        "c2",
        StoryChanges(story_id="US-001", files_created=("a.py",)),
        line_counts={"a.py": 3},
    )
    assert after.pre_story_commit is None
    assert msgspec.to_builtins(after.knowledge) == {
        "files": {"a.py": {"purpose": "parses", "key_symbols": (), "touched_by": ("US-001",), "line_count": 3}},
        "decisions": (),
        "patterns": (),
        "story_changes": (
            {
                "story_id": "US-001",
                "files_created": ("a.py",),
                "files_modified": (),
                "files_deleted": (),
                "commit_hash": "c2",
            },
        ),
        "baseline_commit": "c1",
    }


def test_changes_can_be_recorded_without_a_word_of_the_agent() -> None:
    """`record_story_changes`: the diff alone; without one an empty record with the commit."""
    run = opened().capture_pre_story_state("c1")
    after = run.record_story_changes("US-001", "c2", StoryChanges(story_id="US-001", files_deleted=("b.py",)))
    assert after.knowledge.story_changes == (
        StoryChanges(story_id="US-001", files_deleted=("b.py",), commit_hash="c2"),
    )
    empty = run.record_story_changes("US-001", "c2", None)
    assert empty.knowledge.story_changes == (StoryChanges(story_id="US-001", commit_hash="c2"),)
    assert (after.pre_story_commit, empty.pre_story_commit) == (None, None)


# --- JSON -------------------------------------------------------------------------------------------------


def test_fields_that_were_added_over_time_load_with_their_defaults() -> None:
    """An old file has only what was there from the beginning."""
    old = {
        "run_id": RUN_ID,
        "machine_state": "initializing",
        "spec_json_path": "spec.json",
        "branch": "feature/x",
        "started_at": "2026-01-02T03:04:05Z",
    }
    assert msgspec.json.decode(msgspec.json.encode(old), type=RunState) == opened()


STORY = st.sampled_from(["US-001", "US-002"])
STEP = st.one_of(
    st.tuples(st.just("start_iteration"), st.tuples(STORY)),
    st.tuples(st.just("finish_iteration"), st.tuples(st.sampled_from([SUCCESS, FAILED]), st.text(max_size=5))),
    st.tuples(st.just("transition_to"), st.tuples(st.sampled_from(MachineState))),
    st.tuples(st.just("capture_usage"), st.tuples(STORY, st.builds(Usage, input_tokens=st.integers(0, 9)))),
    st.tuples(st.just("capture_pre_story_state"), st.tuples(st.none() | st.just("c1"))),
)
TIMED = {"start_iteration", "finish_iteration", "transition_to"}


@given(st.lists(STEP, max_size=20))
def test_no_sequence_of_steps_breaks_a_law(steps: list[tuple[str, tuple[Any, ...]]]) -> None:
    """Numbers count up, ends and statuses agree, the total is the sum of the phases, JSON keeps all."""
    run = opened(config=Policy(), session_id="1a2b3c4d")
    for second, (name, arguments) in enumerate(steps):
        now = (later(second),) if name in TIMED else ()
        try:
            run = getattr(run, name)(*arguments, *now)
        except ProgrammerError:
            continue  # an illegal step leaves the run as it was
        assert [record.number for record in run.iterations] == list(range(1, run.iteration + 1))
        assert (run.finished_at is not None) == (run.status in {RunStatus.COMPLETED, RunStatus.FAILED})
        running = [record.story_id for record in run.iterations if record.finished_at is None]
        assert run.current_story == (running[-1] if running else None)
        total = sum(usage.input_tokens for usage in run.phase_usage.values())
        assert total == (run.total_usage.input_tokens if run.total_usage else 0)
    assert msgspec.json.decode(msgspec.json.encode(run), type=RunState) == run
