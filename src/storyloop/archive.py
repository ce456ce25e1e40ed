"""The archive: what was and is, read from the journal and the runs' directories. Nothing here writes.

Apart from the service, so that looking at a run does not pay for what only driving one needs.
"""

from collections.abc import Callable, Iterator, Set
from itertools import islice
from pathlib import Path

import msgspec

from storyloop.core.errors import UserError
from storyloop.core.events import Event
from storyloop.core.run_row import RunRow
from storyloop.core.run_state import RunState
from storyloop.core.spec import Spec
from storyloop.core.words import StoryState
from storyloop.journal.load import load_state
from storyloop.ports.journal import Journal
from storyloop.views.account import Account, account_of

_MOST_EARLIER, _MOST_LOOKED_AT = 10, 40  # runs


class Archive:
    """The runs on this machine, to be looked at."""

    def __init__(self, journal: Journal, home: Path, holder: Callable[[Path], int | None]) -> None:
        self._journal, self._home, self._lock_holder = journal, home, holder

    def rows(self, repository: str | None) -> list[RunRow]:
        """The runs of a repository (None: of all), newest first."""
        return self._journal.rows(repository)

    def state(self, run_id: str) -> RunState:
        """The run as its journal folds."""
        return load_state(self._journal, run_id)[0]

    def earlier(self, agents: Set[str]) -> Iterator[RunState]:
        """The newest runs on this machine, of any repository, that asked these agents (`agent:model`) and no others."""
        rows = [row for row in self._journal.rows() if row.iteration][:_MOST_LOOKED_AT]
        states = (self.state(row.run_id) for row in rows)
        return islice((state for state in states if state.going.ledger.by_agent.keys() <= agents), _MOST_EARLIER)

    def spec_of(self, run_id: str) -> Spec:
        """The run's spec, its passed stories marked so."""
        progress = self.state(run_id).going
        passed = {name for name, standing in progress.stories.items() if standing.state is StoryState.PASSED}
        stories = (msgspec.structs.replace(s, passes=s.id in passed) for s in progress.spec.user_stories)
        return msgspec.structs.replace(progress.spec, user_stories=tuple(stories))

    def events(self, run_id: str, *, after: int = 0) -> Iterator[tuple[int, Event]]:
        """The run's facts, oldest first."""
        return self._journal.read(run_id, after=after)

    def account(self, run_id: str) -> Account:
        """What it spent on what."""
        return account_of(event for _, event in self.events(run_id))

    def holder(self, run_id: str) -> int | None:
        """The process that has the run, if one is live."""
        return self._lock_holder(self.run_dir(run_id) / "lock")

    def run_dir(self, run_id: str) -> Path:
        """Where the run's files are."""
        return self._home / "runs" / run_id

    def report_file(self, run_id: str) -> str | None:
        """The run's report, as it was when the run last ended, was parked or was interrupted."""
        path = self.run_dir(run_id) / "report.md"
        return str(path) if path.exists() else None

    def find(self, prefix: str | None, repository: str | None) -> RunRow:
        """A run by any unambiguous prefix of its id; left out: the only unfinished one, else the newest."""
        if prefix is not None:
            return self._by_prefix(prefix)
        rows = self._journal.rows(repository)
        if not rows:
            raise UserError("This repository has no runs.", "Start one with `storyloop run SPEC`.")
        unfinished = [row for row in rows if row.finished_at is None]
        if len(unfinished) > 1:
            ids = ", ".join(row.run_id[:8] for row in unfinished)
            raise UserError(f"Several runs of this repository are unfinished: {ids}.", "Name the one you mean.")
        return unfinished[0] if unfinished else rows[0]

    def _by_prefix(self, prefix: str) -> RunRow:
        found = [row for row in self._journal.rows() if row.run_id.startswith(prefix)]
        if not found:
            raise UserError(f"There is no run {prefix}.", "`storyloop status --all` lists them.")
        if len(found) > 1:
            ids = ", ".join(row.run_id for row in found[:5])
            raise UserError(f"{prefix} could be any of {ids}.", "Give more of the id.")
        return found[0]
