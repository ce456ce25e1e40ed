"""The matrix: what each installed agent CLI really does, column by column, against the scripted model.

Four calls make a row: one that writes, edits and answers; one in the same session; one that meets a limit; one that is
stopped while its command runs. Each is made and judged by what a run would see of it.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import assert_never

import msgspec

from storyloop.agents.dialects import dialect_named
from storyloop.agents.profile import Can, Profile
from storyloop.agents.reading import read_stream
from storyloop.agents.stream import Turn
from storyloop.conformance.scenario import USAGE
from storyloop.conformance.scratch import Asked, Scratch
from storyloop.conformance.scripts import CONTENT, RUNNING, WRITE, WRITTEN
from storyloop.conformance.server import ModelServer
from storyloop.core.facts import Answered, Failed, Failure, Interrupted, Malformed, Outcome

_PATIENCE = 30.0  # seconds without a word, after which an agent that waits for its quota is ended
_LONGEST = 300  # characters of what was seen
_RESETS = timedelta(hours=1)  # what the scripted limit states
_INEXACT = timedelta(minutes=5)


class Column(StrEnum):
    """What is looked at."""

    FRESH = "fresh turn"
    EDIT = "file edit"
    ARTIFACT = "artifact"
    RESUME = "session resume"
    USAGE = "usage"
    LIMIT = "limit recognised"
    INTERRUPT = "interrupt"
    NOTHING_LEFT = "no process left"


class Verdict(StrEnum):
    """How it went."""

    OK = "ok"
    FAILED = "failed"
    NOT_OFFERED = "not offered"


class Cell(msgspec.Struct, frozen=True):
    """A verdict, and where it is not `ok`, what was seen."""

    verdict: Verdict
    seen: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent does; `drifted` names what of its stream nobody knows."""

    agent: str
    version: str
    known: bool  # its profile was measured on that version
    cells: dict[Column, Cell]
    drifted: tuple[str, ...] = ()


OK, NOT_OFFERED = Cell(Verdict.OK), Cell(Verdict.NOT_OFFERED)


def failed(seen: str) -> Cell:
    """A cell that tells what was seen."""
    return Cell(Verdict.FAILED, seen)


def fill(place: Scratch, model: ModelServer, profile: Profile, version: str) -> Row:
    """Ask the agent four times."""
    written = place.ask(profile, model.base("write"))
    again = place.ask(profile, model.base("resume"), session=written.report.session)
    remembered = any(prompt.remembered and prompt.artifact == again.artifact.name for prompt in model.prompts)
    limited = place.ask(profile, model.base("err429long"), idle=_PATIENCE)
    if profile.edits_by_text:  # it runs no command, and is ended while it waits for its model
        asked = len(model.prompts)
        stopped = place.ask(profile, model.base("hang"), stop_when=lambda: len(model.prompts) > asked)
    else:
        stopped = place.ask(profile, model.base("busy"), stop_when=(place.repository / RUNNING).exists)
    cells = {
        Column.FRESH: _answered(written),
        Column.EDIT: _edited(place.repository / WRITTEN),
        Column.ARTIFACT: _delivered(written, by_text=profile.edits_by_text),
        Column.RESUME: _resumed(written, again, remembered=remembered) if Can.RESUME in profile.can else NOT_OFFERED,
        Column.USAGE: _counted(*([(written, 1)] if profile.edits_by_text else [(written, len(WRITE)), (again, 2)]))
        if Can.USAGE in profile.can
        else NOT_OFFERED,
        Column.LIMIT: _limited(limited),
        Column.INTERRUPT: _interrupted(stopped),
        Column.NOTHING_LEFT: _ended(written, again, limited, stopped),
    }
    turns = [_turn(profile, asked) for asked in (written, again)]
    unknown = sorted({f"event {kind}" for turn in turns for kind in turn.unknown})
    broken = sum(turn.broken for turn in turns)
    return Row(
        agent=profile.name,
        version=version,
        known=version in profile.versions,
        cells=cells,
        drifted=(*unknown, *([f"lines that are no event: {broken}"] if broken else ())),
    )


_HEADS = dict(
    zip(Column, ("turn", "edit", "artifact", "resume", "usage", "limit", "interrupt", "no rest"), strict=True)
)
_SHOWN = {Verdict.OK: "ok", Verdict.FAILED: "FAILED", Verdict.NOT_OFFERED: "-"}


def table(rows: Iterable[Row]) -> Iterator[str]:
    """The rows for a person, within 100 columns; below them, what there is to say of some."""
    yield f"{'AGENT':<9} {'VERSION':<12} " + " ".join(f"{head:<9}" for head in _HEADS.values()).rstrip()
    notes: list[str] = []
    for row in rows:
        shown = " ".join(f"{_SHOWN[row.cells[column].verdict]:<9}" for column in Column)
        yield f"{row.agent:<9} {row.version:<12} {shown}".rstrip()
        if not row.known:
            notes.append(f"{row.agent}: version {row.version} was never seen; its profile says what another one does.")
        notes += [f"{row.agent}: nobody knows the {word} in its stream." for word in row.drifted]
        notes += [f"{row.agent}, {column}: {cell.seen}" for column, cell in row.cells.items() if cell.seen]
    yield from ("", *notes) if notes else ()


def _answered(asked: Asked) -> Cell:
    return OK if isinstance(asked.report.outcome, Answered) else failed(_told(asked.report.outcome))


def _edited(file: Path) -> Cell:
    text = file.read_text() if file.exists() else "nothing"
    return OK if text == CONTENT else failed(f"{file.name} holds {text!r}, not {CONTENT!r}")


def _resumed(written: Asked, again: Asked, *, remembered: bool) -> Cell:
    if written.report.session is None:
        return failed("its stream named no session")
    if not isinstance(again.report.outcome, Answered):
        return _answered(again)
    return OK if remembered else failed("it answered, but the model was told nothing of the first turn")


def _counted(*calls: tuple[Asked, int]) -> Cell:
    """Each call's own usage, of so many turns, whatever the session had used before."""
    for asked, turns in calls:
        usage = asked.report.usage
        if usage is None:
            return failed("its stream told none")
        told = (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens)
        true = (turns * USAGE.input_tokens, turns * USAGE.cache_read_tokens, turns * USAGE.output_tokens)
        if told not in (true, (true[0] + true[1], 0, true[2])):  # some tell no cache, and count it as input
            return failed(f"input, cache read and output were counted as {told}, not as {true}")
    return OK


def _limited(asked: Asked) -> Cell:
    outcome = asked.report.outcome
    if isinstance(outcome, Failed) and outcome.timed_out:
        return Cell(Verdict.NOT_OFFERED, "it waits for the reset in silence, and is ended as one that hangs")
    if not isinstance(outcome, Failed) or outcome.failure is not Failure.LIMIT:
        return failed(_told(outcome))
    if outcome.resets_at is None:
        return Cell(Verdict.OK, "recognised; when it ends was not told")
    late = abs(outcome.resets_at - datetime.now(UTC) - _RESETS)
    return OK if late < _INEXACT else failed(f"ends at {outcome.resets_at:%H:%M:%S}, which is {late} off")


def _delivered(asked: Asked, *, by_text: bool) -> Cell:
    if by_text:
        return _answered(asked)
    return OK if asked.artifact.exists() else failed("its file was not written")


def _interrupted(asked: Asked) -> Cell:
    return OK if isinstance(asked.report.outcome, Interrupted) else failed(_told(asked.report.outcome))


def _ended(*calls: Asked) -> Cell:
    left = sorted({name for asked in calls for name in asked.left})
    return failed(f"still there: {', '.join(left)}") if left else OK


def _turn(profile: Profile, asked: Asked) -> Turn:
    with asked.spool("stdout").open("rb") as spool:
        return read_stream(spool, dialect_named(profile.dialect))


def _told(outcome: Outcome) -> str:
    match outcome:
        case Answered():
            return "it answered"
        case Malformed():
            return _line(f"no valid artifact: {outcome.errors}")
        case Failed():
            return _line(f"{outcome.failure}: {outcome.message}")
        case Interrupted():
            return f"interrupted: {outcome.reason}"
        case _:
            assert_never(outcome)


def _line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
