"""RunRow: a run as `status` lists it, kept beside the events so that listing runs folds none.

It is a plain tuple with nothing but the standard library behind it: who only lists runs pays for nothing else.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple


class RunRow(NamedTuple):
    """What the last event made of a run."""

    run_id: str
    repository: str  # identity: absolute path of the repository's common git directory
    status: str
    machine_state: str
    project: str
    branch: str
    current_story: str | None
    stories_passed: int
    stories_total: int
    iteration: int
    review_iteration: int
    started_at: datetime
    finished_at: datetime | None
    session_id: str | None
    worktree: str
    total_usage: Mapping[str, object] | None  # as `--json` shows a Usage
    cost_usd: float | None
    waits_for: str = ""  # what a human is asked; empty while nobody is
    in_hand: int = 0  # stories that are worked on, or wait for their turn to land
