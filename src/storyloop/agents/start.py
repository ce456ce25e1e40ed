"""The start of a call: what is put in place for an agent, and what it is told through its environment.

Everything of a call lies in its call directory (prompt, output, exit record) and in the worktree's `.storyloop`
(artifact, report, schema), under names that follow from the order alone: so the call is found again.
"""

from pathlib import Path

import msgspec

from storyloop.contracts.codec import schema_path
from storyloop.ports.agents import CallOrder, artifact_path

SPOOL_CAP = 1 << 31  # bytes of output; an agent that prints more is ended


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between agents when a call begins."""

    argv: tuple[str, ...]
    stdin: bytes | None  # None: there is nothing to read
    env: dict[str, str] = {}  # what the agent's entry says wins over it
    pass_env: tuple[str, ...] = ()
    papers: dict[str, bytes] = {}  # files in the worktree's `.storyloop`


def contract_of(order: CallOrder) -> dict[str, str]:
    """What an agent is told through its environment."""
    artifact = Path(artifact_path(order.worktree, order.key))
    return {
        "STORYLOOP_RUN": order.run_id,
        "STORYLOOP_STORY": order.story or "",
        "STORYLOOP_DRAIN": order.drain,
        "STORYLOOP_ITERATION": str(order.iteration),
        "STORYLOOP_ATTEMPT": str(order.attempt),
        "STORYLOOP_CALL": str(order.call),
        "STORYLOOP_MODE": order.mode,
        "STORYLOOP_MODEL": order.ref.model or order.agent.model or "",
        "STORYLOOP_SESSION": order.session or "",
        "STORYLOOP_ARTIFACT": str(artifact),
        "STORYLOOP_SCHEMA": str(artifact.with_name(schema_path(order.drain).name)),
        "STORYLOOP_REPORT": str(report_path(order)),
    }


def report_path(order: CallOrder) -> Path:
    """Where an agent of one's own may put its report."""
    return Path(artifact_path(order.worktree, order.key)).with_suffix(".report.json")
