"""What a call came to, from what its process left behind: how it ended, its artifact, its report, its output.

The rules, in this order:

1. We ended it (`storyloop stop`, Ctrl-C, nobody watched): interrupted, whatever it had written.
2. Its report names a failure: that failure, with its class.
3. It did not end by itself with exit status 0: transient. A valid artifact does not change that: an exit status
   alone is never believed, and neither is an artifact whose author broke off.
4. Its artifact: the file, or else the last element with the right root in its stdout; valid, or malformed.
"""

import errno
import os
from datetime import UTC, datetime
from typing import Annotated, BinaryIO, assert_never

import msgspec

from storyloop.contracts.codec import decode, find_artifact, missing
from storyloop.core.errors import OperatorError
from storyloop.core.facts import Answered, CallReport, Failed, Failure, Interrupted, Malformed, Outcome
from storyloop.core.usage import Usage
from storyloop.ports import CallOrder
from storyloop.world.files import Unreadable
from storyloop.world.process import Exit
from storyloop.world.text import readable, signal_name

NOTHING_LEFT = Interrupted(reason="Nothing is left of the call that had begun.")

_MAX_MESSAGE = 500  # characters
_MAX_SNIPPET = 2_000

_SessionId = Annotated[str, msgspec.Meta(pattern="^[!-~]{1,200}$")]  # it travels through an environment variable


class Traces(msgspec.Struct, frozen=True, kw_only=True):
    """What a process left behind, besides how it ended."""

    artifact: bytes | Unreadable | None
    report: bytes | Unreadable | None
    stdout: BinaryIO  # of any size
    stdout_tail: bytes
    stderr_tail: bytes


class _Failure(msgspec.Struct, frozen=True, kw_only=True, rename={"failure": "class"}):
    failure: Failure
    resets_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    message: str = ""


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    """The optional JSON that an agent of one's own may write; keys that we do not know are passed over."""

    session_id: _SessionId | None = None
    usage: Usage | None = None
    failure: _Failure | None = None


def report_of(order: CallOrder, ended: Exit, traces: Traces) -> CallReport:
    """The report of a call whose process has ended; raises `OperatorError` where it never ran because of us."""
    told, complaint = _read_report(traces.report)
    usage = told.usage
    if usage is not None and usage.model is None:
        usage = msgspec.structs.replace(usage, model=order.ref.model)
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
    match ended.how:
        case "stopped":
            return Interrupted(reason="We stopped the agent.")
        case "orphaned":
            return Interrupted(reason="Storyloop was gone for longer than the agent was to be left alone.")
        case "failed_to_start":
            return _unstarted(order, ended)
        case "exited" | "signalled" | "idle" | "deadline" | "spool_cap":
            if failure is not None:
                message = failure.message or f"{order.ref} reports {failure.failure}."
                return Failed(failure=failure.failure, message=_message(message), resets_at=_utc(failure.resets_at))
            if ended.how == "exited" and ended.code == 0:
                return _artifact(order, traces)
            timed_out = ended.how in ("idle", "deadline")
            message = _message(_how(order, ended), readable(traces.stderr_tail))
            return Failed(failure=Failure.TRANSIENT, message=message, timed_out=timed_out)
        case _:
            assert_never(ended.how)


def _artifact(order: CallOrder, traces: Traces) -> Outcome:
    text = traces.artifact
    if isinstance(text, Unreadable):
        return missing(order.drain, text.why)
    if text is None or not text.strip():
        text = find_artifact(order.drain, traces.stdout)
    if text is None:
        return missing(order.drain, "No result was found: there is no artifact file, and none in the output.")
    decoded = decode(order.drain, text)
    return decoded if isinstance(decoded, Malformed) else Answered(artifact=decoded)


def _unstarted(order: CallOrder, ended: Exit) -> Failed:
    command = order.agent.command[0] if order.agent.command else str(order.agent.script)
    where = f"the entry [agents.{order.ref.agent}] of your configuration"
    if ended.blamed != "command":
        raise OperatorError(
            f"{order.ref} could not be started: {_strerror(ended)} ({ended.blamed}).",
            "Nothing was lost: the call is asked again.",
            "Make room or restore the worktree, then run `storyloop resume`.",
        )
    if ended.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
        message = f"{command} was not found or is not executable. Install it, or correct {where}."
        return Failed(failure=Failure.MISSING, message=message)
    message = f"{command} cannot be started: {_strerror(ended)}. Correct {where}."
    return Failed(failure=Failure.CONFIG, message=message)


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


def _strerror(ended: Exit) -> str:
    return os.strerror(ended.errno or 0)


def _message(said: str, output: str = "") -> str:
    text = " ".join(readable(said).split())[:_MAX_MESSAGE]
    return f"{text}\n{output.strip()[-_MAX_MESSAGE:]}" if output.strip() else text


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.astimezone(UTC)
