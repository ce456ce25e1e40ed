"""Many runs at once, driven by one process: what is ours of memory and CPU while their agents sleep."""

import contextlib
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.world import World

_SLEEPS = 600
_WATCHED = 30.0  # seconds


class Idle(NamedTuple):
    """Of each run: bytes that it alone costs (shared pages are divided). Of all of them: cores that are busy."""

    memory: float
    cores: float


def many_at_once(place: Path, runs: int) -> Idle:
    """So many runs whose agents sleep, watched for half a minute and then stopped."""
    world = World(place)
    (world.repository / "agent.sh").write_text(f"#!/bin/sh\nexec sleep {_SLEEPS}\n")
    world.git("commit", "--quiet", "--all", "--message=an agent that sleeps")
    specs = [str(world.spec(f"run-{number}", 1)) for number in range(runs)]
    with tempfile.TemporaryFile() as told:
        run = subprocess.Popen(
            world.storyloop("run", "--quiet", *specs), cwd=world.repository, env=world.env, stdout=told, stderr=told
        )
        try:
            _until_all_sleep(run, runs)
            ours = [psutil.Process(run.pid), *_below(run, "supervisor.py")]
            begun, before = time.monotonic(), _cpu(ours)
            time.sleep(_WATCHED)
            cores = (_cpu(ours) - before) / (time.monotonic() - begun)
            return Idle(sum(process.memory_full_info().pss for process in ours) / runs, cores)
        finally:
            run.terminate()
            run.wait(120)


def _until_all_sleep(run: "subprocess.Popen[bytes]", runs: int) -> None:
    until = time.monotonic() + 300
    while sum(process.status() != psutil.STATUS_ZOMBIE for process in _below(run, f"sleep {_SLEEPS}")) < runs:
        if run.poll() is not None or time.monotonic() > until:
            raise RuntimeError("the runs did not all come to their agents")
        time.sleep(0.5)
    time.sleep(5)  # what starting left to be done


def _below(run: "subprocess.Popen[bytes]", words: str) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.Process(run.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if words in " ".join(process.cmdline()):
                found.append(process)
    return found


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)
