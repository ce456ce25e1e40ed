"""The recorder: what agent CLIs print in each scenario, kept as files that tests read, with where they come from.

A recording is `<agent>/<scenario>.stdout`, `.stderr` and `.meta.json`. What belongs to this machine and this moment
(paths, the port, the host's name) is replaced, and nothing else.
"""

import re
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from storyloop.agents.cli import start
from storyloop.agents.profile import Profile
from storyloop.conformance.scratch import FENCED, Asked, Scratch
from storyloop.conformance.server import ModelServer
from storyloop.world.process import Exit

SCENARIOS = ("write", "resume", "err401", "err429", "err429long", "err500", "cut", "garbage", "context")
_LONGEST = 40.0  # seconds of one recording


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a recording comes from, and how its process ended."""

    agent: str
    version: str
    date: str
    scenario: str
    argv: tuple[str, ...]
    exit: Exit


def record(place: Scratch, model: ModelServer, profile: Profile, version: str, *, into: Path) -> list[Path]:
    """Record every scenario of one agent; the recordings come back, without their suffixes."""
    kept: list[Path] = []
    session: str | None = None
    for scenario in SCENARIOS:
        resumed = session if scenario == "resume" else None
        asked = place.ask(profile, model.base(scenario), session=resumed, deadline=_LONGEST)
        session = asked.report.session if scenario == "write" else session
        replaced = _of_this_machine(place) | {
            _installed_in(profile, place.environ["PATH"]): "/agents",
            model.address.removeprefix("http://"): "127.0.0.1:1",
        }
        kept.append(_kept(asked, into / profile.name / scenario, profile, version, replaced))
    return kept


def _kept(asked: Asked, path: Path, profile: Profile, version: str, replaced: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in ("stdout", "stderr"):
        path.with_suffix(f".{name}").write_bytes(_clean(asked.spool(name).read_bytes(), replaced))
    meta = Provenance(
        agent=profile.name,
        version=version,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        scenario=path.name,
        argv=start(asked.order, fenced=FENCED, directories=()).argv,
        exit=msgspec.json.decode(asked.spool("exit").read_bytes(), type=Exit),
    )
    written = _clean(msgspec.json.format(msgspec.json.encode(meta), indent=1), replaced)
    path.with_suffix(".meta.json").write_bytes(written + b"\n")
    return path


def _of_this_machine(place: Scratch) -> dict[str, str]:
    """The place's path, also as it is in names that agents make of it, and where a stream cuts it short."""
    flat = re.sub(r"[^A-Za-z0-9]", "-", str(place.place))
    above = {str(path): "/above" for path in place.place.parents if len(path.parts) > 2}
    return above | {str(place.place): "/scratch", flat: "-scratch", socket.gethostname(): "host"}


def _installed_in(profile: Profile, search_path: str) -> str:
    """The directory below which its program's files are."""
    program = Path(shutil.which(profile.program, path=search_path) or "").resolve()
    return str(next((above for above in program.parents if above.name == "node_modules"), program.parent))


def _clean(text: bytes, replaced: dict[str, str]) -> bytes:
    for here, there in sorted(replaced.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(here.encode(), there.encode())
    return text
