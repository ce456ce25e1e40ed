"""Command agents: any program as an agent, spoken to through stdin, environment variables and two files.

What the program may rely on is docs/own-agent.md. The scripted agent is such a program too, one that ships.
Everything of a call lies in its call directory (prompt, output, exit record) and in the worktree's `.storyloop`
(artifact, report, schema), under names that follow from the order alone: so the call is found again.
"""

import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import assert_never

from storyloop.agents.outcome import NOTHING_LEFT, Traces, report_of
from storyloop.contracts.codec import schema_path
from storyloop.contracts.xml import MAX_BYTES
from storyloop.core.errors import OperatorError
from storyloop.core.facts import CallReport, Failed, Failure
from storyloop.core.policy import AgentKind
from storyloop.ports import Activity, CallOrder, artifact_path
from storyloop.world import process
from storyloop.world.environment import allowed_environment
from storyloop.world.files import clear_private, place_private, read_regular
from storyloop.world.process import Exit, Lost, Order, Supervised
from storyloop.world.text import readable

SPOOL_CAP = 1 << 31  # bytes of output; an agent that prints more is ended
_TAIL = 8_192  # bytes of output that a report is made from
_GLANCE = 4_096  # and that a look at the activity reads
_MAX_REPORT = 1 << 16
_MAX_ACTIVITY = 120  # characters


class CommandAgents:
    """The `Agents` port over processes under supervision. `environ` is the user's, which agents get a part of."""

    def __init__(self, environ: Mapping[str, str], *, spool_cap: int = SPOOL_CAP) -> None:
        self._environ = environ
        self._spool_cap = spool_cap

    def launch(self, order: CallOrder) -> "Call":
        """Start the agent; the moment this returns it has its prompt and a supervisor."""
        schema = schema_path(order.drain)
        contract = contract_of(order)
        environment = {**order.agent.env, **contract}
        call_dir = Path(order.call_dir)
        try:
            clear_private(order.worktree, Path(contract["STORYLOOP_ARTIFACT"]).name)
            clear_private(order.worktree, Path(contract["STORYLOOP_REPORT"]).name)
            place_private(order.worktree, schema.name, schema.read_bytes())
            call_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            (call_dir / "prompt").write_bytes(order.prompt.encode("utf-8", "replace"))
            supervised = process.launch(
                Order(
                    call_dir=call_dir,
                    argv=_argv(order),
                    cwd=Path(order.worktree),
                    env=allowed_environment(self._environ, extra=environment, pass_env=order.agent.pass_env),
                    stdin=call_dir / "prompt",
                    worktree=Path(order.worktree),
                    idle_timeout=order.idle_timeout,
                    deadline=order.call_timeout,
                    spool_cap=self._spool_cap,
                    orphan_grace=order.orphan_grace,
                )
            )
        except OSError as error:
            raise OperatorError(
                f"The call of {order.ref} could not be prepared: {error}.",
                "The agent was not started.",
                "Make room or restore what is missing, then run `storyloop resume`.",
            ) from error
        return Call(order, supervised)

    def adopt(self, order: CallOrder) -> "Call":
        """The call that an earlier process began: still under way, ended meanwhile, or lost."""
        return Call(order, process.adopt(Path(order.call_dir)))


def contract_of(order: CallOrder) -> dict[str, str]:
    """What an agent is told through its environment."""
    artifact = Path(artifact_path(order.worktree, order.key))
    return {
        "STORYLOOP_RUN": order.run_id,
        "STORYLOOP_STORY": order.story or "",
        "STORYLOOP_DRAIN": order.drain,
        "STORYLOOP_ATTEMPT": str(order.attempt),
        "STORYLOOP_CALL": str(order.call),
        "STORYLOOP_MODE": order.mode,
        "STORYLOOP_MODEL": order.ref.model or order.agent.model or "",
        "STORYLOOP_SESSION": order.session or "",
        "STORYLOOP_ARTIFACT": str(artifact),
        "STORYLOOP_SCHEMA": str(artifact.with_name(schema_path(order.drain).name)),
        "STORYLOOP_REPORT": str(_report_path(order)),
    }


class Call:
    """A call that is under way or has ended: the `Watch` of a process."""

    def __init__(self, order: CallOrder, found: Supervised | Exit | Lost) -> None:
        self._order = order
        self._found = found
        self._report: CallReport | None = None
        self._seen = 0  # bytes of stdout that activity has looked past

    def wait(self, seconds: float) -> CallReport | None:
        """Its report as soon as it has ended, else None after so many seconds."""
        if self._report is None:
            watched = isinstance(self._found, Supervised)
            ended = self._found.wait(seconds) if isinstance(self._found, Supervised) else self._found
            if ended is None:
                return None
            self._report = self._reported(ended, watched=watched)
            if isinstance(self._found, Supervised):
                self._found.close()
        return self._report

    def stop(self) -> None:
        """End the agent's whole tree."""
        if isinstance(self._found, Supervised) and self._report is None:
            self._found.stop()

    def activity(self) -> Activity | None:
        """The last line of its output, if there is new output since the last question."""
        stdout, _ = process.spools(Path(self._order.call_dir))
        size = stdout.stat().st_size if stdout.exists() else 0
        if size == self._seen:
            return None
        self._seen = size
        lines = [line.strip() for line in readable(process.tail(stdout, _GLANCE)).splitlines()]
        last = next((line for line in reversed(lines) if line), None)
        return None if last is None else Activity(text=last[:_MAX_ACTIVITY])

    def _reported(self, ended: Exit | Lost, *, watched: bool) -> CallReport:
        match ended:
            case Exit():
                return self._of_exit(ended)
            case Lost() if watched:
                message = "Its supervisor was killed, and what was left of it with it."
                return CallReport(outcome=Failed(failure=Failure.TRANSIENT, message=message))
            case Lost():
                return CallReport(outcome=NOTHING_LEFT)
            case _:
                assert_never(ended)

    def _of_exit(self, ended: Exit) -> CallReport:
        stdout, stderr = process.spools(Path(self._order.call_dir))
        with stdout.open("rb") if stdout.exists() else BytesIO() as spool:
            traces = Traces(
                artifact=read_regular(artifact_path(self._order.worktree, self._order.key), MAX_BYTES),
                report=read_regular(_report_path(self._order), _MAX_REPORT),
                stdout=spool,
                stdout_tail=process.tail(stdout, _TAIL),
                stderr_tail=process.tail(stderr, _TAIL),
            )
            return report_of(self._order, ended, traces)


def _argv(order: CallOrder) -> tuple[str, ...]:
    match order.agent.kind:
        case AgentKind.COMMAND:
            return order.agent.command
        case AgentKind.SCRIPT:
            return (sys.executable, "-I", "-m", "storyloop.agents.scripted", str(order.agent.script))
        case _:
            assert_never(order.agent.kind)


def _report_path(order: CallOrder) -> Path:
    return Path(artifact_path(order.worktree, order.key)).with_suffix(".report.json")
