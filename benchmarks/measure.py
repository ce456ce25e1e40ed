"""Measuring: CPU and memory of child processes by the operating system's own account, medians of several runs."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Cost(NamedTuple):
    """One process from start to end: seconds, and bytes of resident memory at its peak."""

    cpu: float
    wall: float
    peak: int


def cost_of(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], expect: int = 0) -> Cost:
    """Run the program once; its output is thrown away. CPU counts the program alone, not its children."""
    begun = time.perf_counter()
    with open(os.devnull, "wb") as nowhere:
        child = subprocess.Popen(argv, cwd=cwd, env=dict(env), stdout=nowhere, stderr=nowhere)
        _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - begun
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != expect:
        raise RuntimeError(f"{' '.join(argv)} ended with {child.returncode}, not {expect}")
    return Cost(used.ru_utime + used.ru_stime, wall, used.ru_maxrss * 1024)


def median_of(measure: Callable[[], float], *, runs: int) -> float:
    """The median of so many measurements, after one that is not counted."""
    measure()
    return statistics.median(measure() for _ in range(runs))
