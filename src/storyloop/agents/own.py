"""Agents of one's own: any program, spoken to through stdin, environment variables and two files.

What the program may rely on is docs/own-agent.md. The scripted agent is such a program too, one that ships.
"""

import sys
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from storyloop.agents.outcome import Traces, answered, settled
from storyloop.agents.start import Start
from storyloop.core.facts import CallReport, Failed, Failure, Outcome
from storyloop.core.policy import AgentKind
from storyloop.core.usage import Usage
from storyloop.ports.agents import CallOrder
from storyloop.world.files import Unreadable
from storyloop.world.process import Exit
from storyloop.world.text import readable, signal_name

_MAX_MESSAGE = 500  # characters
_MAX_SNIPPET = 2_000

_SessionId = Annotated[str, msgspec.Meta(pattern="^[!-~]{1,200}$")]  # it travels through an environment variable


class _Failure(msgspec.Struct, frozen=True, kw_only=True, rename={"failure": "class"}):
    failure: Failure
    resets_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    message: str = ""


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    """The optional JSON that an agent of one's own may write; keys that we do not know are passed over."""

    session_id: _SessionId | None = None
    usage: Usage | None = None
    failure: _Failure | None = None


def start(order: CallOrder) -> Start:
    """How the program is started: with the prompt on stdin."""
    scripted = (sys.executable, "-I", "-m", "storyloop.agents.scripted", str(order.agent.script))
    argv = scripted if order.agent.kind is AgentKind.SCRIPT else order.agent.command
    return Start(argv=argv, stdin=order.prompt.encode("utf-8", "replace"))


def report_of(order: CallOrder, ended: Exit, traces: Traces) -> CallReport:
    """The report of a call whose process has ended; raises `OperatorError` where it never ran because of us."""
    told, complaint = _read_report(traces.report)
    usage = told.usage
    if usage is not None:
        usage = msgspec.structs.replace(usage, model=usage.model or order.ref.model)
        if usage == Usage(model=usage.model):
            usage = None  # no call takes no token: it only did not tell
    snippet = readable(traces.stdout_tail)[-_MAX_SNIPPET:]
    return CallReport(
        outcome=_outcome(order, ended, traces, told.failure),
        session=told.session_id,
        usage=usage,
        seconds=ended.ended_at - ended.started_at,
        snippet="\n".join(part for part in (snippet, complaint) if part),
        leftovers=ended.leftovers,
    )


def _read_report(text: bytes | Unreadable | None) -> tuple[_Report, str]:
    """The report, or an empty one and why it was passed over."""
    if text is None:
        return _Report(), ""
    if isinstance(text, Unreadable):
        return _Report(), f"[The agent's report was ignored: {text.why}]"
    try:
        return msgspec.json.decode(text, type=_Report), ""
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # DecodeError includes the wrong shape
        return _Report(), f"[The agent's report was ignored: {error}.]"


def _outcome(order: CallOrder, ended: Exit, traces: Traces, failure: _Failure | None) -> Outcome:
    program = order.agent.command[0] if order.agent.command else str(order.agent.script)
    if (outcome := settled(order, ended, program)) is not None:
        return outcome
    if failure is not None:
        message = failure.message or f"{order.ref} reports {failure.failure}."
        return Failed(failure=failure.failure, message=_message(message), resets_at=_utc(failure.resets_at))
    if ended.how == "exited" and ended.code == 0:
        return answered(order, traces.artifact, traces.stdout)
    timed_out = ended.how in ("idle", "deadline")
    message = _message(_how(order, ended), readable(traces.stderr_tail))
    return Failed(failure=Failure.TRANSIENT, message=message, timed_out=timed_out)


def _how(order: CallOrder, ended: Exit) -> str:
    if ended.how == "idle":
        return f"It did nothing for {order.idle_timeout:g} s and was ended."
    if ended.how == "deadline":
        return f"It took longer than {order.call_timeout:g} s and was ended."
    if ended.how == "spool_cap":
        return "It printed more than is kept and was ended."
    if ended.signal is not None:
        return f"It was killed by {signal_name(ended.signal)}."
    return f"It ended with exit status {ended.code}."


def _message(said: str, output: str = "") -> str:
    text = " ".join(readable(said).split())[:_MAX_MESSAGE]
    return f"{text}\n{output.strip()[-_MAX_MESSAGE:]}" if output.strip() else text


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.astimezone(UTC)
