"""Papers: the handover that the next attempt reads, and the report that a person reads. No part of any tree."""

import os
from pathlib import Path

from storyloop.ports.repository import Place
from storyloop.world.files import clear_private, place_private

HANDOVER = "handover.md"
BACKGROUND = "background.md"  # laid for each call, and kept with it
REPORT = "report.md"
SPEC = "spec.json"


class WorktreePapers:
    """The handover in the worktree's `.storyloop`, the report in the run's directory."""

    def write_handover(self, place: Place, text: str) -> None:
        place_private(place.worktree, HANDOVER, text.encode())

    def remove_handover(self, place: Place) -> None:
        clear_private(place.worktree, HANDOVER)

    def save_spec(self, place: Place, data: bytes) -> None:
        _replaced(Path(place.run_dir, SPEC), data)

    def save_report(self, place: Place, text: str) -> str:
        path = Path(place.run_dir, REPORT)
        _replaced(path, text.encode())
        return str(path)


def _replaced(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    os.replace(new, path)


class MemoryPapers:
    """The same in memory; what an agent would read and a person would see can be looked at."""

    def __init__(self) -> None:
        self.handovers: dict[str, str] = {}
        self.reports: dict[str, str] = {}
        self.specs: dict[str, bytes] = {}

    def write_handover(self, place: Place, text: str) -> None:
        self.handovers[place.worktree] = text

    def remove_handover(self, place: Place) -> None:
        self.handovers.pop(place.worktree, None)

    def save_spec(self, place: Place, data: bytes) -> None:
        self.specs[place.run_id] = data

    def save_report(self, place: Place, text: str) -> str:
        self.reports[place.run_id] = text
        return f"memory:{place.run_id}"
