"""The supervisor's own figures: how soon an agent runs, what holding it costs, and what its output costs us."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.measure import median_of
from storyloop.world.process import Exit, Order, launch


def _order(place: Path, name: str, *argv: str) -> Order:
    call_dir = place / "supervised" / name
    call_dir.mkdir(parents=True, exist_ok=True)
    return Order(call_dir=call_dir, argv=argv, cwd=place, env=dict(os.environ), stdin=None)


def first_instruction_ms(place: Path) -> float:
    """Milliseconds from the call of `launch` to the moment that the agent, a shell, writes down."""
    number = iter(range(1000))

    def once() -> float:
        order = _order(place, f"start-{next(number)}", "date", "+%s.%N")
        begun = time.time()
        _ended(order)
        return (float((order.call_dir / "stdout").read_text()) - begun) * 1e3

    return median_of(once, runs=15)


def resident_mb(place: Path) -> float:
    """Resident memory of a supervisor while its agent sleeps."""
    supervised = launch(_order(place, "sleeper", "sleep", "30"))
    time.sleep(0.5)
    pid = int((place / "supervised" / "sleeper" / "pid").read_text().split()[0])
    resident = psutil.Process(pid).memory_info().rss
    supervised.stop()
    supervised.wait(20)
    supervised.close()
    return resident / 2**20


def peak_while_printing(place: Path, size: int) -> float:
    """Peak resident bytes of a fresh process of ours that watches an agent print so much."""
    script = (
        "import sys; from pathlib import Path; from benchmarks.supervised import watch_printing; "
        "watch_printing(Path(sys.argv[1]), int(sys.argv[2]))"
    )
    env = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(place), str(size)], env=env, check=True, capture_output=True
    )
    return float(done.stdout)


def watch_printing(place: Path, size: int) -> None:
    """What `peak_while_printing` measures; prints its own peak."""
    order = _order(place, f"print-{size}", "sh", "-c", f"head -c {size} /dev/zero | tr '\\0' 'x'")
    _ended(order)
    (order.call_dir / "stdout").unlink()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _ended(order: Order) -> Exit:
    supervised = launch(order)
    ended = supervised.wait(120)
    supervised.close()
    if not isinstance(ended, Exit):
        raise RuntimeError(f"{order.argv} came to {ended}")  # noqa: TRY004 - no wrong type: a broken measurement
    return ended
