"""`python -m benchmarks`: every figure of docs/benchmarks.md, as a table of what, measured, bar.

python -m benchmarks               all of them, in about two minutes
python -m benchmarks --stories N   the run whose memory is measured has N stories (default 100)
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import cost_of, median_of
from benchmarks.parallel import figures
from benchmarks.synthetic import synthetic_events
from benchmarks.world import World
from storyloop.core.reduce import fold, reduce
from storyloop.core.run_state import RunState
from storyloop.journal.load import load_state
from storyloop.journal.sqlite import SqliteJournal
from storyloop.views.rows import row_of

_RUNS = 9


class Figure(NamedTuple):
    """One row of the table."""

    what: str
    measured: float
    bar: float
    unit: str


def main() -> int:
    """Measure and print; the exit status says nothing about the bars, a person judges noisy machines."""
    words = argparse.ArgumentParser(prog="benchmarks")
    words.add_argument("--stories", type=int, default=100)
    stories: int = words.parse_args().stories
    print(f"{'what':<66} {'measured':>10} {'at most':>9}  unit")
    with tempfile.TemporaryDirectory(prefix="storyloop-bench-") as place:
        for group in (_faces, _runs, _journal, _supervisor, _together, _side_by_side):
            for row in group(Path(place), stories):
                print(f"{row.what:<66} {row.measured:>10.3f} {row.bar:>9.3f}  {row.unit}", flush=True)
    return 0


def _side_by_side(place: Path, _stories: int) -> Iterator[Figure]:
    for what, measured, bar, unit in figures(place / "parallel"):
        yield Figure(what, measured, bar, unit)


def _faces(place: Path, _stories: int) -> Iterator[Figure]:
    world = World(place / "faces")
    _stored(Path(world.env["STORYLOOP_HOME"]) / "storyloop.db", stories=40, repository=str(world.repository / ".git"))

    def cpu(*words: str) -> float:
        return median_of(lambda: cost_of(world.storyloop(*words), cwd=world.repository, env=world.env).cpu, runs=_RUNS)

    yield Figure("CPU of storyloop --version", cpu("--version") * 1e3, 80, "ms")
    yield Figure("CPU of storyloop status", cpu("status") * 1e3, 80, "ms")
    yield Figure("CPU of storyloop show (a run of 1,000 events)", cpu("show") * 1e3, 120, "ms")
    yield Figure("CPU of storyloop agents, besides the CLIs' own --version", cpu("agents") * 1e3, 300, "ms")
    many = World(place / "many")
    _many_rows(Path(many.env["STORYLOOP_HOME"]) / "storyloop.db", 1000, str(many.repository / ".git"))
    wall = median_of(lambda: cost_of(many.storyloop("status"), cwd=many.repository, env=many.env).wall, runs=_RUNS)
    yield Figure("status over 1,000 runs (wall)", wall, 0.15, "s")


def _runs(place: Path, stories: int) -> Iterator[Figure]:
    world = World(place / "runs")
    few, used_few = _run(world, "few", 10)
    yield Figure("overhead of a story, agent and checks taken off (wall)", few["overhead"], 0.4, "s")
    yield Figure("CPU of Storyloop itself for a story", few["own_cpu"], 0.1, "s")
    yield Figure("CPU of Storyloop with its git and supervisors for a story", few["all_cpu"], 0.3, "s")
    whole, used_whole = _run(world, "whole", 20)
    yield Figure("a whole run of 20 stories, an instant agent, no review (wall)", whole["wall"], 10, "s")
    yield Figure("peak memory of Storyloop, 20 stories", used_whole / 2**20, 60, "MB")
    many, used_many = _run(world, "many", stories)
    yield Figure("peak memory of Storyloop, 10 stories", used_few / 2**20, 60, "MB")
    yield Figure(f"peak memory of Storyloop, {stories} stories", used_many / 2**20, 60, "MB")
    yield Figure(f"overhead of a story in a run of {stories} (wall)", many["overhead"], 0.4, "s")


def _run(world: World, name: str, stories: int) -> tuple[dict[str, float], int]:
    """One whole run: seconds for each story, and the peak memory of the process."""
    used = world.repository.parent / f"{name}.used"
    argv = [sys.executable, "-m", "benchmarks.driven", str(used), "run", str(world.spec(name, stories)), "--quiet"]
    paths = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    cost = cost_of(argv, cwd=world.repository, env=world.env | {"PYTHONPATH": paths})
    own = json.loads(used.read_text())
    run = max((Path(world.env["STORYLOOP_HOME"]) / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
    exits = [json.loads(path.read_text()) for path in run.glob("*/*/exit")]
    theirs = sum(ended["cpu_seconds"] for ended in exits)
    at_work = sum(ended["ended_at"] - ended["started_at"] for ended in exits)
    return {
        "wall": cost.wall,
        "overhead": (cost.wall - at_work) / stories,
        "own_cpu": own["cpu"] / stories,
        "all_cpu": (cost.cpu - theirs) / stories,
    }, own["peak"]


def _journal(place: Path, _stories: int) -> Iterator[Figure]:
    (place / "journal").mkdir()
    yield Figure("append one event, durable (median)", _append_ms(place / "journal" / "append.db"), 1, "ms")
    database = place / "journal" / "long.db"
    seq, state = _stored(database, stories=4000, repository="bench")
    yield Figure(f"resume a run of {seq:,} events, no snapshot (CPU)", _resume(database, state), 1.5, "s")
    journal = SqliteJournal(database)
    _keep_snapshot(journal, seq, state)
    journal.close()
    yield Figure(f"resume a run of {seq:,} events, with a snapshot (CPU)", _resume(database, state), 0.1, "s")
    short, long = _bytes_each(place / "journal" / "short.db", 10), _bytes_each(place / "journal" / "longer.db", 400)
    yield Figure("bytes written for each event, run of 256 events", short, short, "B")
    yield Figure("the same, run of 10,000 events, as a ratio", long / short, 1.1, "x")


def _append_ms(database: Path) -> float:
    journal = SqliteJournal(database)
    spans: list[float] = []
    state: RunState | None = None
    for seq, event in enumerate(synthetic_events(20)):
        state = reduce(state, event)
        row = row_of(state)
        begun = time.perf_counter()
        journal.append(state.run_id, [event], after=seq, row=row)
        spans.append(time.perf_counter() - begun)
    journal.close()
    return sorted(spans)[len(spans) // 2] * 1e3


def _resume(database: Path, state: RunState) -> float:
    def once() -> float:
        journal = SqliteJournal(database)
        begun = time.process_time()
        loaded, _ = load_state(journal, state.run_id)
        spent = time.process_time() - begun
        journal.close()
        if loaded != state:
            raise RuntimeError("the resumed state is not the state that was stored")
        return spent

    return median_of(once, runs=1)


def _bytes_each(database: Path, stories: int) -> float:
    """Bytes that the process hands to the kernel for each event, snapshots included."""
    journal = SqliteJournal(database)
    state: RunState | None = None
    count = 0
    before = _written()
    for event in synthetic_events(stories):
        state = reduce(state, event)
        count = journal.append(state.run_id, [event], after=count, row=row_of(state))
        journal.offer_snapshot(state.run_id, count, state)
    written = _written() - before
    journal.close()
    return written / count


def _written() -> int:
    return int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])


def _supervisor(place: Path, _stories: int) -> Iterator[Figure]:
    from benchmarks.supervised import first_instruction_ms, peak_while_printing, resident_mb

    yield Figure("supervised start: launch to the agent's first instruction", first_instruction_ms(place), 60, "ms")
    yield Figure("resident memory of a supervisor", resident_mb(place), 15, "MB")
    small, large = peak_while_printing(place, 1000), peak_while_printing(place, 1_000_000_000)
    yield Figure("memory of Storyloop, agent prints 1 GB against 1 kB", large / small, 1.1, "x")


def _together(place: Path, _stories: int) -> Iterator[Figure]:
    from benchmarks.fleet import many_at_once

    idle = many_at_once(place / "together", 50)
    yield Figure("memory of ours for each of 50 runs at once, agents asleep", idle.memory / 2**20, 10, "MB")
    yield Figure("cores that these 50 keep busy", idle.cores, 0.05, "")


# --- journals to measure on ---------------------------------------------------------------------------


def _stored(database: Path, *, stories: int, repository: str) -> tuple[int, RunState]:
    """A synthetic run in this database, written in large pieces and without a snapshot."""
    journal = SqliteJournal(database)
    events = list(synthetic_events(stories))
    state = fold(events)
    row = row_of(state)._replace(repository=str(Path(repository).resolve()) if repository != "bench" else repository)
    for start in range(0, len(events), 1000):
        journal.append(state.run_id, events[start : start + 1000], after=start, row=row)
    journal.close()
    return len(events), state


def _keep_snapshot(journal: SqliteJournal, seq: int, state: RunState) -> None:
    journal.offer_snapshot(state.run_id, seq, state)
    if journal.load_snapshot(state.run_id) is None:
        raise RuntimeError("the journal found a snapshot not worth keeping")


def _many_rows(database: Path, runs: int, repository: str) -> None:
    events = list(synthetic_events(1))
    journal = SqliteJournal(database)
    row = row_of(fold(events))
    for number in range(runs):
        run_id = f"{number:08x}{row.run_id[8:]}"
        named = row._replace(run_id=run_id, repository=str(Path(repository).resolve()))
        journal.append(run_id, events[:1], after=0, row=named)
    journal.close()


if __name__ == "__main__":
    sys.exit(main())
