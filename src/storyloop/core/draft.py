"""A draft: a run while facts are folded into it, written in place.

`reduce` takes a state and gives a state; between the two stands a draft. It has every field of `RunState` and of its
`Progress`, and copies a container before it writes to it for the first time: so the state it began from never
changes, and a long journal is folded without a copy for each of its events. It never leaves `reduce`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from msgspec.structs import replace

from storyloop.core.chain import CoolingTable
from storyloop.core.facts import Finding
from storyloop.core.knowledge import Learning, ProjectKnowledge
from storyloop.core.policy import AgentRef, Policy
from storyloop.core.progress import (
    Delivery,
    Feedback,
    FinalProof,
    Lane,
    Ledger,
    Opening,
    Parked,
    Progress,
    StoryProgress,
)
from storyloop.core.run_state import IterationRecord, Learnt, RunState, RunSteps
from storyloop.core.spec import Spec
from storyloop.core.stages import Review, Work, is_set_aside
from storyloop.core.usage import Amounts, Spending, Usage
from storyloop.core.words import MachineState, RunStatus

_RUN = tuple(name for name in RunState.__struct_fields__ if name != "progress")
_PROGRESS = Progress.__struct_fields__
_MOST_FINDINGS = 200


class Draft(RunSteps):
    """Not frozen: that is what it is for."""

    __slots__ = (*_RUN, *_PROGRESS, "_owned", "active", "set_up")

    run_id: str
    status: RunStatus
    machine_state: MachineState
    branch: str
    current_story: str | None
    iteration: int
    review_iteration: int
    finished_at: datetime | None
    iterations: list[IterationRecord]
    config: Policy | None
    knowledge: ProjectKnowledge | Learning
    pre_story_commit: str | None
    total_usage: Usage | None
    phase_usage: dict[str, Usage]
    spec: Spec
    worktree: str
    session_id: str | None
    reuse_branch: bool
    base: str
    tip: str
    tip_tree: str
    opening: Opening
    stories: dict[str, StoryProgress]
    work: dict[str, Work]
    lanes: dict[int, Lane]
    widest: int
    inherited: tuple[str, ...]
    cooling: CoolingTable
    ledger: Ledger
    findings: tuple[Finding, ...]
    hints: dict[str, str]
    earlier: str
    review: Review
    feedback: Feedback | None
    final: FinalProof
    delivery: Delivery
    plans: int
    parked: Parked | None
    failure: str
    last_at: datetime
    resumes: int
    inbox_seen: int

    def __init__(self, state: RunState) -> None:
        progress = state.going
        for name in _RUN:
            setattr(self, name, getattr(state, name))
        for name in _PROGRESS:
            setattr(self, name, getattr(progress, name))
        self.active = progress.ledger.active  # counted here for every fact, and entered in the ledger at the end
        self.set_up = False  # seen to be past its opening
        self._owned: set[str] = set()  # the containers that are no longer the state's

    def state(self) -> RunState:
        """What it came to. The draft is at its end: its containers are the state's now."""
        if "iterations" in self._owned:
            setattr(self, "iterations", tuple(self.iterations))  # noqa: B010 - a list until here
        if isinstance(self.knowledge, Learning):
            self.knowledge = self.knowledge.known()
        self.count(active=self.active)
        progress = Progress(**{name: getattr(self, name) for name in _PROGRESS})
        return RunState(**{name: getattr(self, name) for name in _RUN}, progress=progress)

    # --- small steps --------------------------------------------------------------------------------------

    def put(self, work: Work) -> None:
        """This work in hand."""
        self._own("work", dict)
        self.work[work.story] = work

    def put_in_line(self, work: Work) -> None:
        """The same; one that was set aside comes behind those that have a worktree."""
        if is_set_aside(self.work[work.story]):
            self.work = {name: other for name, other in self.work.items() if name != work.story}
        self.put(work)

    def stand(self, story: str, standing: StoryProgress) -> None:
        """What is settled about this story."""
        self._own("stories", dict)
        self.stories[story] = standing

    def count(self, **changes: object) -> None:
        """The ledger with these columns changed."""
        self.ledger = replace(self.ledger, **changes)

    def allow(self, more: int) -> None:
        """So many more stories may be begun (or fewer)."""
        self.count(iterations_allowed=self.ledger.iterations_allowed + more)

    def spend(self, ref: AgentRef, spending: Spending) -> None:
        """The ledger with this added for this agent."""
        by_agent, dearest, name = self.ledger.by_agent, self.ledger.dearest, str(ref)
        before, most = by_agent.get(name), dearest.get(name)
        call = Amounts.of(spending, calls=0, time=spending.seconds)
        self.count(
            by_agent={**by_agent, name: spending if before is None else before + spending},
            dearest={**dearest, name: call if most is None else most.or_more(call)},
        )

    def find(self, *findings: Finding) -> None:
        """What was undone or kept aside, remembered for the report; the newest are kept."""
        if findings:
            self.findings = (*self.findings, *findings)[-_MOST_FINDINGS:]

    # --- primitives of the steps of RunState ----------------------------------------------------------------

    def _with(self, **changes: Any) -> Self:
        for name, value in changes.items():
            setattr(self, name, value)
        return self

    def _with_record(self, record: IterationRecord) -> Self:
        self._own("iterations", list)
        self.iterations[record.number - 1 : record.number] = [record]
        return self

    def _with_phase(self, phase_key: str, usage: Usage) -> Self:
        self._own("phase_usage", dict)
        self.phase_usage[phase_key] = usage
        return self

    def _with_baseline(self, commit: str) -> Self:
        self._learning().baseline_commit = commit
        return self

    def _with_story(self, story_id: str, learnt: Learnt) -> Self:
        self._learning().merge(
            story_id,
            learnt.changes,
            learnt.noted,
            commit_hash=learnt.commit_hash,
            line_counts=learnt.line_counts,
            symbols=learnt.symbols,
        )
        return self

    def _in_hand(self) -> Mapping[str, Work]:
        return self.work

    def _learning(self) -> Learning:
        if not isinstance(self.knowledge, Learning):
            self.knowledge = Learning(self.knowledge)
        return self.knowledge

    def _own(self, name: str, copy: type[dict[Any, Any]] | type[list[Any]]) -> None:
        if name not in self._owned:
            self._owned.add(name)
            setattr(self, name, copy(getattr(self, name)))
