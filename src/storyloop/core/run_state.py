"""RunState: a run as the fold of its journal, with the 18 fields and the methods of the reference.

Every method is pure and returns a new value: what the original read from git or the clock is an argument.
Moves between machine states are checked against one table. With stories in parallel the machine state and
`current_story` show one story of several; what is per story is not kept in the 18 fields, and the methods on
an iteration record take its number.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec

from storyloop.core.errors import IllegalTransition, ImpossibleState, ProgrammerError, are_counts, require_counts
from storyloop.core.knowledge import NotedKnowledge, ProjectKnowledge, StoryChanges, merge_story
from storyloop.core.policy import Drain, Policy
from storyloop.core.progress import Progress
from storyloop.core.stages import Work
from storyloop.core.transitions import ENDED, ENDINGS, LEGAL, STATUS
from storyloop.core.usage import Usage, add_known
from storyloop.core.words import IterationStatus, MachineState, RunStatus

SNIPPET_CHARACTERS = 2_000
SUMMARY_CHARACTERS = 500
_RUNNING = IterationStatus.RUNNING  # Python 3.11 takes long to look up a member

# --- small questions --------------------------------------------------------------------------------------


def session_id_of(worktree: str, *, main_checkout: str | None = None) -> str:
    """The id of the session that sits in this worktree (absolute path); a main checkout's is `main`."""
    if worktree == main_checkout:
        return "main"
    from hashlib import sha256  # slow to import, and needed when a run opens alone

    return sha256(worktree.encode(errors="surrogateescape")).hexdigest()[:8]


def phase_key(drain: Drain, story_id: str) -> str:
    """The key of `phase_usage` under which a call of this drain is counted."""
    phase = _PHASES.get(drain, story_id)
    if not phase:
        raise ProgrammerError(f"A call of the {drain} drain belongs to a story, but none was named.")
    return phase


# The calls of any other drain are counted under their story.
_PHASES = {
    Drain.PLAN: "Planning",
    Drain.REVIEW: "Final Review",
    Drain.TRIAGE: "Final Review",
    Drain.FIX: "Final Review",
    Drain.COMMIT: "PR & Commit",
    Drain.PR: "PR & Commit",
}


def _require_utc(value: object, *names: str) -> None:
    for name in names:
        moment: datetime | None = getattr(value, name)
        if moment is not None and moment.tzinfo is not UTC and moment.utcoffset() != timedelta(0):
            raise ImpossibleState(value, "times are in UTC and say so", {name: moment})


def _whole_seconds(start: datetime, end: datetime) -> int:
    # A clock that was set back must not yield a negative duration.
    return max(0, int((end - start).total_seconds()))


class Learnt(NamedTuple):
    """What a landed story taught: its diff, its agent's word, its commit, and what was measured of the files."""

    changes: StoryChanges | None
    noted: NotedKnowledge | None
    commit_hash: str | None
    line_counts: Mapping[str, int] | None
    symbols: Mapping[str, tuple[str, ...]] | None


class IterationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over one story with all its attempts; `usage` is the sum of its calls."""

    number: int
    story_id: str
    started_at: datetime
    finished_at: datetime | None = None
    status: IterationStatus = IterationStatus.RUNNING
    output_snippet: str = ""
    work_summary: str | None = None
    usage: Usage | None = None

    def __post_init__(self) -> None:
        if not are_counts(self.number):
            require_counts(self)
        end = self.finished_at
        if self.started_at.tzinfo is not UTC or (end is not None and end.tzinfo is not UTC):
            _require_utc(self, "started_at", "finished_at")
        if (self.status is _RUNNING) != (end is None):
            raise ImpossibleState(
                self,
                "an iteration has ended exactly when it is no longer running",
                {"status": self.status, "finished_at": self.finished_at},
            )


class RunSteps:
    """The steps of the reference, for a value that answers each with a new one (`RunState`) or changes in place.

    They are written once, over the primitives at the end.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        run_id: str
        machine_state: MachineState
        config: Policy | None
        iteration: int
        total_usage: Usage | None
        # A tuple or a list of records, a mapping of usages, knowledge or what it grows in:
        iterations: Any
        phase_usage: Any
        knowledge: Any

    def effective_config(self) -> Policy:
        """The policy the run was opened with, as amended since; the defaults when none was kept."""
        return Policy() if self.config is None else self.config

    def transition_to(self, state: MachineState, now: datetime) -> Self:
        """Move to a state that the table allows; to stay is no move. Raises `IllegalTransition`."""
        if state is self.machine_state:
            return self
        if state not in LEGAL[self.machine_state]:
            raise IllegalTransition(self.machine_state, state)
        return self._with(
            machine_state=state,
            status=STATUS[state],
            finished_at=now if state in ENDINGS else None,
        )

    def start_iteration(self, story_id: str, now: datetime) -> Self:
        """Open the next iteration record; its number is the new `iteration`."""
        record = IterationRecord(number=self.iteration + 1, story_id=story_id, started_at=now)
        moved = self.transition_to(MachineState.RUNNING_AGENT, now)._with_record(record)
        return moved._with(iteration=record.number, current_story=story_id)

    def finish_iteration(self, status: IterationStatus, snippet: str, now: datetime, number: int | None = None) -> Self:
        """Close a running record, the last one unless numbered; only the snippet's end is kept."""
        running = self._running()
        if number is None and running:
            number = running[-1].number
        closed = next((record for record in running if record.number == number), None)
        if closed is None:
            raise ProgrammerError(f"Run {self.run_id} has no running iteration {number or 'at all'} to finish.")
        unfinished = [record.story_id for record in running if record is not closed]
        closed = msgspec.structs.replace(
            closed, status=status, finished_at=now, output_snippet=snippet[-SNIPPET_CHARACTERS:]
        )
        moved = self.transition_to(MachineState.PICKING_STORY, now)._with_record(closed)
        return moved._with(current_story=unfinished[-1] if unfinished else None)

    def set_work_summary(self, text: str | None, number: int | None = None) -> Self:
        """What the artifact said was done, shortened; on the last record unless numbered."""
        summary = None if text is None else text[:SUMMARY_CHARACTERS]
        return self._with_record(msgspec.structs.replace(self._record(number), work_summary=summary))

    def set_iteration_usage(self, usage: Usage | None, number: int | None = None) -> Self:
        """The sum of the iteration's calls, on the last record unless numbered; None changes nothing."""
        return self if usage is None else self._with_record(msgspec.structs.replace(self._record(number), usage=usage))

    def capture_usage(self, phase_key: str, usage: Usage | None) -> Self:
        """Add a call's usage, whether it failed or not, to its phase and to the total; None is a no-op."""
        if usage is None:
            return self
        before = self.phase_usage.get(phase_key)
        in_phase = usage if before is None else before + usage
        return self._with(total_usage=add_known(self.total_usage, usage))._with_phase(phase_key, in_phase)

    def capture_pre_story_state(self, head: str | None) -> Self:
        """Remember the commit a story starts from, the first one as the run's baseline; None is a no-op."""
        if head is None:
            return self
        known = self if self.knowledge.baseline_commit is not None else self._with_baseline(head)
        return known._with(pre_story_commit=head)

    def record_story_changes(self, story_id: str, commit_hash: str | None, changes: StoryChanges | None) -> Self:
        """What a landed story changed, without anything an agent said of it."""
        return self.capture_story_knowledge(story_id, None, commit_hash, changes)

    def capture_story_knowledge(
        self,
        story_id: str,
        noted: NotedKnowledge | None,
        commit_hash: str | None,
        changes: StoryChanges | None,
        *,
        line_counts: Mapping[str, int] | None = None,
        symbols: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Self:
        """What a landed story changed and its agent noted; without a diff (None) the agent's word alone."""
        learnt = Learnt(changes, noted, commit_hash, line_counts, symbols)
        return self._with_story(story_id, learnt)._with(pre_story_commit=None)

    def _running(self) -> list[IterationRecord]:
        """The records that are not closed, oldest first; of a journal's run they are those of the work in hand."""
        in_hand = self._in_hand()
        if in_hand is None:
            return [record for record in self.iterations if record.finished_at is None]
        numbers = sorted(work.iteration for work in in_hand.values())
        return [record for number in numbers if (record := self.iterations[number - 1]).finished_at is None]

    def _record(self, number: int | None) -> IterationRecord:
        """The numbered record, or the last."""
        index = len(self.iterations) if number is None else number
        if not 1 <= index <= len(self.iterations):
            raise ProgrammerError(f"Run {self.run_id} has no iteration {number or 'yet'}.")
        return self.iterations[index - 1]

    # --- primitives ---------------------------------------------------------------------------------------

    def _with(self, **changes: Any) -> Self:
        """With these fields changed."""
        raise NotImplementedError

    def _with_record(self, record: IterationRecord) -> Self:
        """With this record in its place, or as the next."""
        raise NotImplementedError

    def _with_phase(self, phase_key: str, usage: Usage) -> Self:
        """With this usage for the phase."""
        raise NotImplementedError

    def _with_baseline(self, commit: str) -> Self:
        """With the commit from which everything known began."""
        raise NotImplementedError

    def _with_story(self, story_id: str, learnt: Learnt) -> Self:
        """With what one landed story taught."""
        raise NotImplementedError

    def _in_hand(self) -> Mapping[str, Work] | None:
        """The stories in hand; None in a value that no journal stands behind."""
        raise NotImplementedError


class RunState(RunSteps, msgspec.Struct, frozen=True, kw_only=True):
    """The 18 fields of the reference in its order, then ours. Paths are strings, times are in UTC."""

    run_id: str
    status: RunStatus = RunStatus.RUNNING
    machine_state: MachineState
    spec_json_path: str
    spec_md_path: str | None = None
    branch: str
    current_story: str | None = None  # the most recently started story that has not ended
    iteration: int = 0  # story iterations started so far; a continuation starts none
    review_iteration: int = 0
    started_at: datetime
    finished_at: datetime | None = None
    iterations: tuple[IterationRecord, ...] = ()
    config: Policy | None = None
    knowledge: ProjectKnowledge = ProjectKnowledge()
    pre_story_commit: str | None = None
    session_id: str | None = None
    total_usage: Usage | None = None
    phase_usage: Mapping[str, Usage] = {}
    progress: Progress | None = None  # None only in a value that no journal stands behind

    def __post_init__(self) -> None:
        # Run for every folded event, so the plain questions are asked in place; sentences are for whoever fails them.
        if not are_counts(self.iteration, self.review_iteration):
            require_counts(self)
        if self.review_iteration:
            self._require_review_allowed()
        if self.started_at.tzinfo is not UTC or self.finished_at is not None:
            _require_utc(self, "started_at", "finished_at")
        ending = ENDINGS.get(self.machine_state)
        ended = self.status if self.status in ENDED else None
        if ending is not ended or (ended is None) != (self.finished_at is None):
            raise ImpossibleState(
                self,
                "completed and failed runs, and no others, have that state, that status and an end",
                {
                    "machine_state": self.machine_state,
                    "status": self.status,
                    "finished_at": self.finished_at,
                },
            )

    def _require_review_allowed(self) -> None:
        cycles = self.effective_config().limits.review_cycles
        if self.review_iteration > cycles:
            raise ImpossibleState(
                self,
                f"the policy allows {cycles} review cycles",
                {"review_iteration": self.review_iteration},
            )

    # --- constructors -------------------------------------------------------------------------------------

    @classmethod
    def new(
        cls,
        spec_json_path: str,
        branch: str,
        *,
        run_id: str,
        started_at: datetime,
        config: Policy | None = None,
        session_id: str | None = None,
    ) -> "RunState":
        """A run of a spec that already has its stories."""
        return cls(
            run_id=run_id,
            machine_state=MachineState.INITIALIZING,
            spec_json_path=spec_json_path,
            branch=branch,
            started_at=started_at,
            config=config,
            session_id=session_id,
        )

    @classmethod
    def from_spec(
        cls,
        spec_md_path: str,
        spec_json_path: str,
        *,
        run_id: str,
        started_at: datetime,
        config: Policy | None = None,
        session_id: str | None = None,
    ) -> "RunState":
        """A run of a Markdown spec; its branch is known only once the spec is loaded."""
        return cls(
            run_id=run_id,
            machine_state=MachineState.LOADING_SPEC,
            spec_json_path=spec_json_path,
            spec_md_path=spec_md_path,
            branch="",
            started_at=started_at,
            config=config,
            session_id=session_id,
        )

    # --- questions ----------------------------------------------------------------------------------------

    @property
    def going(self) -> Progress:
        """What is ours beyond the reference; raises for a state that was not folded from a journal."""
        if self.progress is None:
            raise ProgrammerError(f"Run {self.run_id} was not folded from a journal: it has no progress.")
        return self.progress

    def current_iteration_duration(self, now: datetime) -> int:
        """Whole seconds of the last iteration, until its end or `now`; 0 before the first."""
        if not self.iterations:
            return 0
        record = self.iterations[-1]
        return _whole_seconds(record.started_at, record.finished_at or now)

    def run_duration_secs(self, now: datetime) -> int:
        """Whole seconds since the run was opened, until its end or `now`."""
        return _whole_seconds(self.started_at, self.finished_at or now)

    def reference_fields(self) -> dict[str, Any]:
        """The 18 fields of the reference, ready for JSON."""
        return msgspec.to_builtins({name: getattr(self, name) for name in REFERENCE_FIELDS})

    # --- primitives of the steps --------------------------------------------------------------------------

    def _with(self, **changes: Any) -> "RunState":
        return msgspec.structs.replace(self, **changes)

    def _with_record(self, record: IterationRecord) -> "RunState":
        if record.number > len(self.iterations):
            return self._with(iterations=(*self.iterations, record))
        records = list(self.iterations)
        records[record.number - 1] = record
        return self._with(iterations=tuple(records))

    def _with_phase(self, phase_key: str, usage: Usage) -> "RunState":
        return self._with(phase_usage={**self.phase_usage, phase_key: usage})

    def _with_baseline(self, commit: str) -> "RunState":
        return self._with(knowledge=msgspec.structs.replace(self.knowledge, baseline_commit=commit))

    def _with_story(self, story_id: str, learnt: Learnt) -> "RunState":
        return self._with(
            knowledge=merge_story(
                self.knowledge,
                story_id,
                learnt.changes,
                learnt.noted,
                commit_hash=learnt.commit_hash,
                line_counts=learnt.line_counts,
                symbols=learnt.symbols,
            )
        )

    def _in_hand(self) -> Mapping[str, Work] | None:
        return None if self.progress is None else self.progress.work


# Fields that are ours come after these.
REFERENCE_FIELDS = RunState.__struct_fields__[:18]
