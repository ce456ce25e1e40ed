"""The recorder: what agent CLIs print in each scenario, kept as files that tests read, with where they come from.

A recording is `<agent>/<scenario>.stdout`, `.stderr` and `.meta.json`; what is long is compressed. What belongs to this
machine and this moment (paths, the port, the host's name) is replaced, and nothing else.
"""

import lzma
import re
import shutil
import signal
import socket
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from storyloop.agents.cli import start
from storyloop.agents.profile import Can, Profile
from storyloop.conformance.scenario import Prompt
from storyloop.conformance.scratch import SPOOL_CAP, Asked, Scratch
from storyloop.conformance.scripts import SCRIPTS
from storyloop.conformance.server import ModelServer
from storyloop.world.process import Exit, tail

_LONGEST = 40.0  # seconds of one recording
_PATIENCE = 30.0  # and of silence, where nothing else is to be expected
_LONG = 1 << 20  # bytes; more are kept compressed
_STDERR = 8_192  # bytes, the last: no more of it is ever read
_NOBODY = "http://127.0.0.1:1"


class Take(msgspec.Struct, frozen=True, kw_only=True):
    """How a scenario is recorded."""

    script: str = ""  # where its name is another
    idle: float = _LONGEST
    fenced: bool = True
    stop_by: signal.Signals | None = None


TAKES: dict[str, Take] = {
    **dict.fromkeys(("write", "resume", "err401", "err429", "err429long", "err500", "err529", "refused"), Take()),
    **dict.fromkeys(("cut", "garbage", "error-event", "context", "huge"), Take()),
    **dict.fromkeys(("hang", "stall"), Take(idle=_PATIENCE)),
    "denied": Take(fenced=False),
    "sigint": Take(script="hang", idle=_PATIENCE, stop_by=signal.SIGINT),
    "sigterm": Take(script="hang", idle=_PATIENCE, stop_by=signal.SIGTERM),
}
_MET_BY_ALL = {"refused", *(name for name, scenario in SCRIPTS.items() if scenario.refusal() is not None)}


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a recording comes from, and how its process ended."""

    agent: str
    version: str
    date: str
    scenario: str
    argv: tuple[str, ...]
    exit: Exit


def record(place: Scratch, model: ModelServer, profile: Profile, version: str, *, into: Path) -> list[Path]:
    """Record every scenario that this agent can be put into; the recordings come back, without their suffixes."""
    kept: list[Path] = []
    session: str | None = None
    for scenario, take in TAKES.items():
        if scenario == "resume" and Can.RESUME not in profile.can:
            continue
        if kept and not _is_asked(place, model.prompts) and scenario not in _MET_BY_ALL:
            continue  # its model is offered no tool, so no turn was played to it
        before = len(model.prompts)
        asked = place.ask(
            profile,
            _NOBODY if scenario == "refused" else model.base(take.script or scenario),
            session=session if scenario == "resume" else None,
            deadline=_LONGEST,
            idle=take.idle,
            fenced=take.fenced,
            stop_when=partial(_is_killed, take, place, model, before),
            stop_by=take.stop_by,
        )
        session = asked.report.session if scenario == "write" else session
        replaced = _of_this_machine(place) | {
            _installed_in(profile, place.environ["PATH"]): "/agents",
            model.address.removeprefix("http://"): "127.0.0.1:1",
        }
        kept.append(_kept(take, asked, into / profile.name / scenario, version, replaced))
    return kept


def _is_killed(take: Take, place: Scratch, model: ModelServer, before: int) -> bool:
    """Now, while it waits for its model."""
    return take.stop_by is not None and _is_asked(place, model.prompts[before:])


def _is_asked(place: Scratch, prompts: list[Prompt]) -> bool:
    return any(prompt.worktree == str(place.repository) for prompt in prompts)


def _kept(take: Take, asked: Asked, path: Path, version: str, replaced: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with asked.spool("stdout").open("rb") as spool:
        stdout = spool.read(SPOOL_CAP)  # it may have printed more before it was ended
    for name, spooled in (("stdout", stdout), ("stderr", tail(asked.spool("stderr"), _STDERR))):
        text = _clean(spooled, replaced)
        if len(text) < _LONG:
            path.with_suffix(f".{name}").write_bytes(text)
        else:
            path.with_suffix(f".{name}.xz").write_bytes(lzma.compress(text))
    meta = Provenance(
        agent=asked.order.ref.agent,
        version=version,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        scenario=path.name,
        argv=start(asked.order, fenced=take.fenced, directories=()).argv,
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
    """The directory below which its program's files are: npm's, or a virtual environment of Python."""
    program = Path(shutil.which(profile.program, path=search_path) or "").resolve()
    return str(next((above for above in program.parents if above.name == "node_modules"), program.parents[1]))


def _clean(text: bytes, replaced: dict[str, str]) -> bytes:
    for here, there in sorted(replaced.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(here.encode(), there.encode())
    return text
