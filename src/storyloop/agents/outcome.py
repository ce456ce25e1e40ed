"""What a call came to, from what its process left behind: the rules that hold for every kind of agent.

1. We ended it (`storyloop stop`, Ctrl-C, nobody watched): interrupted, whatever it had written.
2. It says that it failed: in its report, or in its stream. That failure, with its class.
3. It did not end by itself with exit status 0: transient. A valid artifact does not change that: an exit status
   alone is never believed, and neither is an artifact whose author broke off.
4. Its artifact: the file, or else the last element with the right root in what it said; valid, or malformed.

The second and the third are told by the kind: `own` for programs of the user's, `cli` for those that we know.
"""

import errno
import os
from typing import BinaryIO, assert_never

import msgspec

from storyloop.contracts.codec import decode, find_artifact, missing
from storyloop.core.errors import OperatorError
from storyloop.core.facts import Answered, Failed, Failure, Interrupted, Malformed, Outcome
from storyloop.ports.agents import CallOrder
from storyloop.world.files import Unreadable
from storyloop.world.process import Exit

NOTHING_LEFT = Interrupted(reason="Nothing is left of the call that had begun.")


class Traces(msgspec.Struct, frozen=True, kw_only=True):
    """What a process left behind, besides how it ended."""

    artifact: bytes | Unreadable | None
    report: bytes | Unreadable | None
    stdout: BinaryIO  # of any size
    stdout_tail: bytes
    stderr_tail: bytes


def settled(order: CallOrder, ended: Exit, program: str) -> Outcome | None:
    """The outcome where the agent had no say in it: we ended it, or it never began.

    Raises `OperatorError` where it never began because of us.
    """
    match ended.how:
        case "stopped":
            return Interrupted(reason="We stopped the agent.")
        case "orphaned":
            return Interrupted(reason="Storyloop was gone for longer than the agent was to be left alone.")
        case "failed_to_start":
            return _unstarted(order, ended, program)
        case "exited" | "signalled" | "idle" | "deadline" | "spool_cap":
            return None
        case _:
            assert_never(ended.how)


def answered(order: CallOrder, artifact: bytes | Unreadable | None, said: BinaryIO, *, hint: str = "") -> Outcome:
    """The artifact of a call that ended well, from its file or from what it `said`; `hint` is why it may be missing."""
    text = artifact
    if isinstance(text, Unreadable):
        return missing(order.drain, text.why)
    if text is None or not text.strip():
        text = find_artifact(order.drain, said)
    if text is None:
        why = "No result was found: there is no artifact file, and none in the output."
        return missing(order.drain, f"{why} {hint}".strip())
    decoded = decode(order.drain, text)
    return decoded if isinstance(decoded, Malformed) else Answered(artifact=decoded)


def _unstarted(order: CallOrder, ended: Exit, program: str) -> Failed:
    where = f"the entry [agents.{order.ref.agent}] of your configuration"
    if ended.blamed != "command":
        raise OperatorError(
            f"{order.ref} could not be started: {_strerror(ended)} ({ended.blamed}).",
            "Nothing was lost: the call is asked again.",
            "Make room or restore the worktree, then run `storyloop resume`.",
        )
    if ended.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
        message = f"{program} was not found or is not executable. Install it, or correct {where}."
        return Failed(failure=Failure.MISSING, message=message)
    message = f"{program} cannot be started: {_strerror(ended)}. Correct {where}."
    return Failed(failure=Failure.CONFIG, message=message)


def _strerror(ended: Exit) -> str:
    return os.strerror(ended.errno or 0)
