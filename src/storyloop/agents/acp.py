"""ACP agents: what the host of an agent is told when a call begins (the host itself is `acp_host`).

The order goes to the host's stdin, in the place of the prompt: so it needs no path that a sandbox would have to show.
The prompt of a format retry tells only what is wrong, because the session knows the rest. Where that session is lost,
the call ends with the trouble `session_lost` and the errand asks the whole again; any other prompt stands alone, and
begins a new session instead.
"""

import json
import sys

import msgspec

from storyloop.core.errand import Mode
from storyloop.ports.agents import CallOrder

HOST = (sys.executable, "-I", "-m", "storyloop.agents.acp_host")

# What agents call the mode in which they work without asking, the first that one offers is taken. What they ask all
# the same is answered by the host's policy. Codex drops commands silently in any other mode than this one.
_UNASKED = ("agent-full-access", "yolo", "acceptEdits", "autoEdit")
_FENCED = ("bypassPermissions", *_UNASKED)


class HostOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of one agent, as the host reads it."""

    argv: tuple[str, ...]  # the agent's own
    cwd: str  # the worktree
    prompt: str
    session: str | None = None  # to be taken up again
    needs_session: bool = False  # the prompt means nothing without it
    model: str | None = None
    modes: tuple[str, ...] = _UNASKED
    roots: tuple[str, ...] = ()  # where the agent may read and write through us, besides the worktree
    start_seconds: float = 60.0  # for each question before the prompt


def host_order(order: CallOrder, *, fenced: bool, writable: tuple[str, ...] = ()) -> bytes:
    """What the host of this call reads; `fenced` when a sandbox of ours holds the agent."""
    told = HostOrder(
        argv=order.agent.command,
        cwd=order.worktree,
        prompt=order.prompt,
        session=order.session,
        needs_session=order.mode is Mode.FORMAT_RETRY,
        model=order.ref.model or order.agent.model,
        modes=_FENCED if fenced else _UNASKED,
        roots=writable,
    )
    return json.dumps(msgspec.to_builtins(told)).encode()  # not msgspec's: a path may hold bytes that are no UTF-8


def read_order(text: bytes) -> HostOrder:
    """The order again, on the host's side."""
    return msgspec.convert(json.loads(text), HostOrder)
