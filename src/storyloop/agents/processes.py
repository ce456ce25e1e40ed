"""Agents as processes under supervision: the one implementation of the `Agents` port over the real world.

What agents have in common is here: the call directory, the launch, the watch. What differs by kind (arguments,
environment, stdin, and what to make of its output) is told by `own` for programs of the user's, and by `cli` for the
built-in ones and for ACP.
"""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import assert_never

from storyloop.agents import cli, metering, own
from storyloop.agents.outcome import NOTHING_LEFT, Traces
from storyloop.agents.profiles import PROFILES
from storyloop.agents.start import SPOOL_CAP, Start, contract_of, report_path
from storyloop.contracts.codec import schema_path
from storyloop.contracts.xml import MAX_BYTES
from storyloop.core.errors import OperatorError
from storyloop.core.facts import CallReport, Failed, Failure
from storyloop.core.policy import AgentKind
from storyloop.ports.agents import Activity, CallOrder, artifact_path
from storyloop.world import process
from storyloop.world.environment import allowed_environment
from storyloop.world.files import Unreadable, clear_private, place_private, read_regular
from storyloop.world.papers import BACKGROUND
from storyloop.world.process import Exit, Lost, Order, Supervised
from storyloop.world.redaction import Redactor
from storyloop.world.sandbox import Fence, Fencing, environment, prefix
from storyloop.world.text import readable

_TAIL = 8_192  # bytes of output that a report is made from
_GLANCE = 4_096  # and that a look at the activity of a program of the user's reads
_MAX_REPORT = 1 << 16
_MAX_ACTIVITY = 120  # characters


class ProcessAgents:
    """The `Agents` port over processes. `environ` is the user's, which agents get a part of.

    `fencing` raises the sandbox that an order asks for; `fenced` says that somebody else's holds all that is started
    here. `directories` are those that agents may use besides the worktree.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        fencing: Fencing | None = None,
        fenced: bool = False,
        directories: tuple[str, ...] = (),
        spool_cap: int = SPOOL_CAP,
    ) -> None:
        self._environ = environ
        self._redactor = Redactor(environ)
        self._fencing = fencing
        self._fenced = fenced
        self._directories = directories
        self._spool_cap = spool_cap

    def launch(self, order: CallOrder) -> "Call":
        """Start the agent; the moment this returns it has its prompt and a supervisor."""
        schema = schema_path(order.drain)
        contract = contract_of(order)
        call_dir = Path(order.call_dir)
        try:
            fence = self._fence(order)
            start = self._start(order, fenced=self._fenced or fence is not None)
            clear_private(order.worktree, Path(contract["STORYLOOP_ARTIFACT"]).name)
            clear_private(order.worktree, Path(contract["STORYLOOP_REPORT"]).name)
            clear_private(order.worktree, BACKGROUND)
            papers = {schema.name: schema.read_bytes(), **start.papers}
            call_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            if order.background:
                papers[BACKGROUND] = order.background.encode("utf-8", "replace")
                (call_dir / BACKGROUND).write_bytes(papers[BACKGROUND])
            for name, text in papers.items():
                place_private(order.worktree, name, text)
            asked = order.prompt.encode("utf-8", "replace")
            (call_dir / "prompt").write_bytes(asked)
            stdin = None if start.stdin is None else call_dir / ("prompt" if start.stdin == asked else "stdin")
            if start.stdin is not None and start.stdin != asked:
                (call_dir / "stdin").write_bytes(start.stdin)
            metering.carry(order)
            supervised = process.launch(
                Order(
                    call_dir=call_dir,
                    argv=start.argv,
                    fence=prefix(fence) if fence else (),
                    cwd=Path(order.worktree),
                    env=allowed_environment(
                        self._environ,
                        extra={**(environment(fence) if fence else {}), **start.env, **order.agent.env, **contract},
                        pass_env=(*start.pass_env, *order.agent.pass_env),
                    ),
                    stdin=stdin,
                    worktree=Path(order.worktree),
                    idle_timeout=order.idle_timeout,
                    deadline=order.call_timeout,
                    spool_cap=self._spool_cap,
                    orphan_grace=order.orphan_grace,
                    holds=() if order.seat is None else (order.seat,),
                )
            )
        except OSError as error:
            raise OperatorError(
                f"The call of {order.ref} could not be prepared: {error}.",
                "The agent was not started.",
                "Make room or restore what is missing, then run `storyloop resume`.",
            ) from error
        return Call(order, supervised, self._redactor.knowing(order.agent.env))

    def adopt(self, order: CallOrder) -> "Call":
        """The call that an earlier process began: still under way, ended meanwhile, or lost."""
        return Call(order, process.adopt(Path(order.call_dir)), self._redactor.knowing(order.agent.env))

    def _fence(self, order: CallOrder) -> Fence | None:
        if self._fencing is None:
            return None
        profile = PROFILES[order.agent.profile] if order.agent.profile else None
        return self._fencing.around(
            order.worktree,
            order.sandbox,
            network=order.sandbox.agent_network,
            homes=profile.homes({**self._environ, **order.agent.env}) if profile else (),
            needs=[*order.agent.command, *filter(None, [order.agent.script])],
        )

    def _start(self, order: CallOrder, *, fenced: bool) -> Start:
        match order.agent.kind:
            case AgentKind.COMMAND | AgentKind.SCRIPT:
                return own.start(order)
            case AgentKind.PROFILE:
                return cli.start(order, fenced=fenced, directories=self._directories)
            case AgentKind.ACP:
                return cli.start_host(order, fenced=fenced, directories=self._directories)
            case _:
                assert_never(order.agent.kind)


class Call:
    """A call that is under way or has ended: the `Watch` of a process. What it tells is redacted."""

    def __init__(self, order: CallOrder, found: Supervised | Exit | Lost, redactor: Redactor) -> None:
        self._order = order
        self._redactor = redactor
        self._found = found
        self._report: CallReport | None = None
        self._looked_to = 0  # the byte of stdout up to which activity has looked

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
        """What its newest output shows, if there is any since the last question."""
        stdout, _ = process.spools(Path(self._order.call_dir))
        size = stdout.stat().st_size if stdout.exists() else 0
        if size == self._looked_to:
            return None
        if cli.is_known(self._order.agent):
            text, self._looked_to = cli.glimpse(self._order, stdout, self._looked_to)
        else:
            self._looked_to = size
            lines = [line.strip() for line in readable(process.tail(stdout, _GLANCE)).splitlines()]
            text = next((line for line in reversed(lines) if line), None)
        return None if text is None else Activity(text=self._redactor.text(text)[:_MAX_ACTIVITY])

    def _reported(self, ended: Exit | Lost, *, watched: bool) -> CallReport:
        self._redact_spools()
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

    def _redact_spools(self) -> None:
        try:
            for spool in process.spools(Path(self._order.call_dir)):
                if spool.exists():
                    self._redactor.file(spool)
        except OSError as error:
            raise OperatorError(
                f"The output of {self._order.ref} could not be freed of secrets: {error}.",
                "It was left as it is, readable by you alone; nothing was made of it.",
                "Make room, then run `storyloop resume`.",
            ) from error

    def _read(self, path: str | Path, cap: int) -> bytes | Unreadable | None:
        found = read_regular(path, cap)
        return self._redactor.data(found) if isinstance(found, bytes) else found

    def _of_exit(self, ended: Exit) -> CallReport:
        stdout, stderr = process.spools(Path(self._order.call_dir))
        with stdout.open("rb") if stdout.exists() else BytesIO() as spool:
            traces = Traces(
                artifact=self._read(artifact_path(self._order.worktree, self._order.key), MAX_BYTES),
                report=self._read(report_path(self._order), _MAX_REPORT),
                stdout=spool,
                stdout_tail=process.tail(stdout, _TAIL),
                stderr_tail=process.tail(stderr, _TAIL),
            )
            known = cli.is_known(self._order.agent)
            return (cli if known else own).report_of(self._order, ended, traces)
