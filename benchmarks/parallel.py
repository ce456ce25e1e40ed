"""Stories side by side: how much sooner they are done, and what landing one costs in a large repository."""

import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import cost_of
from benchmarks.world import World

_FILES = 10_000
_SLOW = 3  # seconds that the agent takes


def faster(place: Path, *, stories: int = 12, parallel: int = 4) -> tuple[float, float]:
    """How many times sooner independent stories are done side by side, and the seconds that this takes."""
    world = World(place)
    _let_agent_sleep(world, _SLOW)
    wall = [
        cost_of(
            world.storyloop("run", str(world.spec(f"by-{width}", stories)), "--parallel", str(width), "--quiet"),
            cwd=world.repository,
            env=world.env,
        ).wall
        for width in (1, parallel)
    ]
    return wall[0] / wall[1], wall[1]


def landing(place: Path) -> float:
    """Seconds of ours from a story's turn until it has landed on others, in a repository of 10,000 files (median)."""
    world = World(place)
    for number in range(_FILES):
        path = world.repository / f"src/{number // 100}/{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 20)
    world.git("add", "--all")
    _let_agent_sleep(world, 1)
    spec = str(world.spec("large", 12))
    told = subprocess.run(
        world.storyloop("run", spec, "--parallel", "4", "--json"),
        cwd=world.repository,
        env=world.env,
        check=True,
        capture_output=True,
        text=True,
    )
    events: list[dict[str, Any]] = [e for line in told.stdout.splitlines() if "key" in (e := json.loads(line))]
    at = {event["key"]: datetime.fromisoformat(event["at"]).timestamp() for event in events}
    spans: list[float] = []
    for event in (event for event in events if event["type"] == "story_taken_up"):
        prefix = event["key"].removesuffix("/turn/1")
        check = next(e for e in events if e["key"].startswith(f"{prefix}/prove/0/turn/1/check/"))
        proven = max(at[e["key"]] for e in events if e["key"].startswith(f"{prefix}/prove/0/check/"))
        free = max(moment for key, moment in at.items() if key.endswith("/clean/end") and moment < at[event["key"]])
        spans.append(at[f"{prefix}/land"] - max(proven, free) - check["first"]["seconds"])
    return sorted(spans)[len(spans) // 2]


def figures(place: Path) -> Iterator[tuple[str, float, float, str]]:
    """The rows of the table: what, measured, bar, unit."""
    times, _ = faster(place / "faster")
    yield "12 stories of 3 s, 4 at once against 1: times faster (at least)", times, 3.2, "x"
    yield "landing a story on others, 10,000 files, its checks taken off", landing(place / "large"), 1.5, "s"


def _let_agent_sleep(world: World, seconds: int) -> None:
    agent = world.repository / "agent.sh"
    agent.write_text(agent.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\nsleep {seconds}\n"))
    world.git("commit", "--quiet", "--all", "--message=slow")
