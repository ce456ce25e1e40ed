"""The ACP host: a program that starts one agent and asks it one thing over the Agent Client Protocol.

    python -I -m storyloop.agents.acp_host < ORDER

It runs under a supervisor like any agent, so a call outlives Storyloop. Each thing that happens is a line of JSON on
stdout, which the dialect `acp` reads: `agent`, `session`, `model`, `prompted`, `update` (as the agent sent it),
`permission`, `file`, `unknown`, `note`, and last `result` (the turn has ended, status 0) or `trouble` (it has not,
1). A line of the agent that is no message stands between them as it came.

Nobody can be asked anything here, so every request of the agent is answered at once: what names a path outside the
worktree is refused, as are git's own files, all else is allowed. That is policy for the honest; the sandbox is for
the others. What is said before the prompt, such as the replay of a session that is loaded, belongs to no turn of ours.

Messages stay the plain objects that they are: the library's models refuse what they do not know, and agents differ.
It takes a second to import, which passes while the agent starts: hence the imports below the start.
"""

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from storyloop import __version__
from storyloop.agents.acp import HostOrder, read_order

LONGEST_LINE = 1 << 27  # bytes; a longer one is passed over
MOST_READ = 1 << 26  # bytes of a file that is read for the agent
MOST_SHOWN = 2_000  # bytes of a line that is no message
CANCEL_GRACE = 0.9  # seconds for the answer to a cancel: a stop ends us in two
STOP_GRACE = 0.3  # between the steps by which a stopped agent is ended
END_GRACE = 1.5  # and one whose turn is over
LOOK = 0.1  # between looks at whether it lives
LAST_WORDS = 0.5  # for what a dead agent has left in its pipe

_CHATTER = frozenset({"available_commands_update", "config_option_update"})  # up to a megabyte, and of no use to us
_PATHS = frozenset({"path", "file_path", "filePath", "filepath", "fileName"})  # of a tool's raw input

_Form = TypeVar("_Form")


class _Named(msgspec.Struct, frozen=True):
    id: str
    category: object = None


class _Modes(msgspec.Struct, frozen=True, rename="camel"):
    available_modes: tuple[_Named, ...] = ()
    current_mode_id: str | None = None


class _Models(msgspec.Struct, frozen=True, rename="camel"):
    current_model_id: str | None = None


class _Option(_Named, frozen=True, rename="camel"):
    current_value: object = None


class _Opened(msgspec.Struct, frozen=True, rename="camel"):
    session_id: str | None = None
    modes: _Modes | None = None
    models: _Models | None = None
    config_options: tuple[_Option, ...] | None = None

    def model_option(self) -> _Option | None:
        return next((option for option in self.config_options or () if "model" in (option.id, option.category)), None)

    def model(self) -> object:
        option = self.model_option()
        return option.current_value if option else self.models and self.models.current_model_id


class _Capabilities(msgspec.Struct, frozen=True, rename="camel"):
    load_session: bool = False
    session_capabilities: dict[str, object] | None = None


class _Greeting(msgspec.Struct, frozen=True, rename="camel"):
    agent_info: dict[str, object] | None = None
    agent_capabilities: _Capabilities = _Capabilities()


class _Tool(msgspec.Struct, frozen=True, rename="camel"):
    title: str | None = None
    kind: str | None = None
    locations: list[dict[str, Any]] | None = None
    content: list[dict[str, Any]] | None = None
    raw_input: dict[str, Any] | str | list[Any] | None = None

    def paths(self) -> set[str]:
        """Every path that it names where a path belongs."""
        inputs = self.raw_input if isinstance(self.raw_input, dict) else {}
        named = [place.get("path") for place in (*(self.locations or ()), *(self.content or ()))]
        named += [inputs[key] for key in inputs.keys() & _PATHS]
        return {path for path in named if isinstance(path, str)}


class _Choice(msgspec.Struct, frozen=True, rename="camel"):
    option_id: str
    kind: str


class _Permission(msgspec.Struct, frozen=True, rename="camel"):
    tool_call: _Tool
    options: tuple[_Choice, ...]


class _File(msgspec.Struct, frozen=True):
    path: str
    content: str = ""
    line: int | None = None
    limit: int | None = None


class TurnEndedError(Exception):
    """The turn cannot go on; the word says why, code and data are those of JSON-RPC."""

    def __init__(self, word: str, message: str, *, code: int | None = None, data: object = None) -> None:
        super().__init__(message)
        self.facts = {"word": word, "message": message, "code": code, "data": data}


class RefusedError(TurnEndedError):
    """The agent answered a request with an error."""


def say(event: str, **facts: object) -> None:
    """One line for the spool, at once."""
    spool(json.dumps({"event": event, **facts}, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def spool(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


class Pipes:
    """The agent's stdin and stdout as a transport of the library; a line that is no message ends in the spool."""

    def __init__(self, agent: Process) -> None:
        assert agent.stdin is not None
        assert agent.stdout is not None
        self._stdin, self._stdout = agent.stdin, agent.stdout

    async def send(self, message: dict[str, Any]) -> None:
        self._stdin.write(json.dumps(message).encode() + b"\n")
        await self._stdin.drain()

    async def receive(self) -> dict[str, Any] | None:
        while True:
            try:
                line = await self._stdout.readline()
            except ValueError:
                say("note", text=f"It sent a line of more than {LONGEST_LINE:,} bytes.")
                continue
            if not line:
                return None
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if isinstance(message, dict):
                return cast("dict[str, Any]", message)
            spool(line[:MOST_SHOWN].rstrip() + b"\n")

    async def close(self) -> None:
        self._stdin.close()


class Host:
    """One agent, from its first greeting to its end."""

    def __init__(self, order: HostOrder, agent: Process, stopped: "asyncio.Future[None]") -> None:
        from acp.connection import Connection

        self._order = order
        self._agent = agent
        self._stopped = stopped
        self._gone = asyncio.ensure_future(self._exit())
        self._pipes = Pipes(agent)
        self._connection = Connection(self._answer, self._pipes)
        self._roots = tuple(Path(os.path.realpath(root)) for root in (order.cwd, *order.roots))
        self._session: str | None = None
        self._prompted = False
        self._earlier = 0  # updates before the prompt

    # --- what we ask ----------------------------------------------------------------------------------

    async def turn(self) -> None:
        """Greet, open the session, prompt; the answer is told as it is."""
        client = {"name": "storyloop", "title": "Storyloop", "version": __version__}
        # Reading is not offered: Gemini cannot create a file when a client tells it that there is none yet.
        can = {"fs": {"readTextFile": False, "writeTextFile": True}, "terminal": False}
        hello = {"protocolVersion": 1, "clientInfo": client, "clientCapabilities": can}
        greeting = await self._start("initialize", hello, _Greeting)
        say("agent", info=greeting.agent_info)
        self._session, opened = await self._opened(greeting.agent_capabilities)
        await self._set_up(self._session, opened)
        self._prompted = True
        say("prompted", earlier=self._earlier)
        prompt = [{"type": "text", "text": self._order.prompt}]
        say("result", answer=await self._ask("session/prompt", {"sessionId": self._session, "prompt": prompt}, None))

    async def _opened(self, can: _Capabilities) -> tuple[str, _Opened]:
        wanted = self._order.session
        place: dict[str, Any] = {"cwd": self._order.cwd, "mcpServers": []}
        ways = {"resume": "resume" in (can.session_capabilities or {}), "load": can.load_session}
        for how in [how for how, offered in ways.items() if offered and wanted is not None]:
            try:
                opened = await self._start(f"session/{how}", {**place, "sessionId": wanted}, _Opened)
            except RefusedError as error:
                say("note", text=f"Session {wanted} could not be taken up ({how}): {error}")
            else:
                say("session", id=wanted, how=how, model=opened.model())
                return str(wanted), opened
        if wanted is not None and self._order.needs_session:
            raise TurnEndedError("session_lost", f"Session {wanted} could not be taken up again.")
        opened = await self._start("session/new", place, _Opened)
        if opened.session_id is None:
            raise TurnEndedError("protocol", "It answered session/new without a session.")
        say("session", id=opened.session_id, how="new", model=opened.model())
        return opened.session_id, opened

    async def _set_up(self, session: str, opened: _Opened) -> None:
        offered = {mode.id for mode in opened.modes.available_modes} if opened.modes else set[str]()
        mode = next((mode for mode in self._order.modes if mode in offered), None)
        if opened.modes is not None and mode not in (None, opened.modes.current_mode_id):
            try:
                await self._start("session/set_mode", {"sessionId": session, "modeId": mode}, object)
            except RefusedError as error:
                say("note", text=f"The mode {mode} was refused: {error}")
        model, option = self._order.model, opened.model_option()
        if model in (None, opened.model()):
            return
        if option is not None:
            asked = ("session/set_config_option", {"sessionId": session, "configId": option.id, "value": model})
        elif opened.models is not None:
            asked = ("session/set_model", {"sessionId": session, "modelId": model})
        else:
            raise TurnEndedError("model", f"It cannot be asked for the model {model}: it offers no choice of models.")
        try:
            await self._start(*asked, object)
        except RefusedError as error:
            raise TurnEndedError("model", f"It refused the model {model}: {error}") from error
        say("model", model=model)

    async def _start(self, method: str, params: dict[str, Any], form: type[_Form]) -> _Form:
        """A question before the prompt, which must be answered soon and well."""
        try:
            return msgspec.convert(await self._ask(method, params, self._order.start_seconds) or {}, form)
        except msgspec.ValidationError as error:
            raise TurnEndedError("protocol", f"Its answer to {method} cannot be read: {error}") from error

    async def _ask(self, method: str, params: dict[str, Any], within: float | None) -> Any:
        from acp.exceptions import RequestError

        asked = asyncio.ensure_future(self._connection.send_request(method, params))
        ends = {asked, self._gone, self._stopped}
        await asyncio.wait(ends, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done() and self._stopped.done() and self._prompted:
            with contextlib.suppress(ConnectionError):
                await self._connection.send_notification("session/cancel", {"sessionId": self._session})
            await asyncio.wait({asked, self._gone}, timeout=CANCEL_GRACE, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done() and self._gone.done():
            await asyncio.wait({asked}, timeout=LAST_WORDS)
        if not asked.done():
            asked.cancel()
            if self._stopped.done():
                raise TurnEndedError("stopped", "It was stopped.")
            if self._gone.done():
                raise self._crashed()
            raise TurnEndedError("start", f"It did not answer {method} within {within:g} s.")
        try:
            return asked.result()
        except RequestError as error:
            raise RefusedError("refused", str(error), code=error.code, data=error.data) from error
        except ConnectionError:
            await asyncio.wait({self._gone}, timeout=LAST_WORDS)
            raise self._crashed() from None

    def _crashed(self) -> TurnEndedError:
        if not self._gone.done():
            return TurnEndedError("crashed", "The agent closed its output in the middle of the call.")
        code = self._agent.returncode
        return TurnEndedError("crashed", f"The agent ended in the middle of the call, with status {code}.")

    # --- what it asks ---------------------------------------------------------------------------------

    async def _answer(self, method: str, params: Any, is_notification: bool) -> dict[str, Any]:
        from acp.exceptions import RequestError

        try:
            match method:
                case "session/update":
                    self._update(msgspec.convert(params, dict[str, Any]))
                    return {}
                case "session/request_permission":
                    return self._permit(msgspec.convert(params, _Permission))
                case "fs/read_text_file":
                    return self._read(msgspec.convert(params, _File))
                case "fs/write_text_file":
                    return self._write(msgspec.convert(params, _File))
                case _ if is_notification:
                    return {}  # an extension of the agent's own
                case _:
                    say("unknown", method=method)
                    raise RequestError.method_not_found(method)
        except msgspec.ValidationError as error:
            say("note", text=f"{method} cannot be read: {error}")
            raise RequestError.invalid_params({"details": str(error)}) from error
        except OSError as error:
            raise RequestError(-32603, f"{method} failed: {error.strerror}") from error

    def _update(self, params: dict[str, Any]) -> None:
        if not self._prompted:
            self._earlier += 1
            return
        update = msgspec.convert(params.get("update"), dict[str, Any])
        kind = update.get("sessionUpdate")
        other = {} if params.get("sessionId") == self._session else {"of": params.get("sessionId")}
        say("update", update={"sessionUpdate": kind} if kind in _CHATTER else update, **other)

    def _permit(self, asked: _Permission) -> dict[str, Any]:
        outside = sorted(path for path in asked.tool_call.paths() if self._place(path) is None)
        wanted = ("reject_once", "reject_always") if outside else ("allow_once", "allow_always")
        choices = {choice.kind: choice.option_id for choice in reversed(asked.options)}
        chosen = next((choices[kind] for kind in wanted if kind in choices), None)
        tool = asked.tool_call.title or asked.tool_call.kind or "a tool"
        say("permission", tool=tool, allowed=chosen is not None and not outside, outside=outside, chosen=chosen)
        return {"outcome": {"outcome": "cancelled"} if chosen is None else {"outcome": "selected", "optionId": chosen}}

    def _read(self, wanted: _File) -> dict[str, Any]:
        from acp.exceptions import RequestError

        place = self._allowed("read", wanted)
        if not place.exists():
            raise RequestError.resource_not_found(wanted.path)
        with place.open("rb") as file:
            text = file.read(MOST_READ).decode("utf-8", "replace")
        if wanted.line is not None or wanted.limit is not None:
            start = max((wanted.line or 1) - 1, 0)
            end = None if wanted.limit is None else start + max(wanted.limit, 0)
            text = "".join(list(io.StringIO(text, newline="\n"))[start:end])
        return {"content": text}

    def _write(self, wanted: _File) -> dict[str, Any]:
        place = self._allowed("write", wanted)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(wanted.content.encode("utf-8", "replace"))
        return {}

    def _allowed(self, deed: str, wanted: _File) -> Path:
        from acp.exceptions import RequestError

        place = self._place(wanted.path)
        if place is not None and place.exists() and not place.is_file():
            place = None  # a FIFO would hold us for ever
        say("file", tool=f"{deed} {wanted.path}", allowed=place is not None)
        if place is None:
            raise RequestError(-32602, f"{wanted.path} is no file of the worktree: it is not yours to {deed}.")
        return place

    def _place(self, path: str) -> Path | None:
        """Where a path really leads; None outside of all roots, and for git's own files."""
        try:
            real = Path(os.path.realpath(os.path.join(self._order.cwd, path)))
        except ValueError:  # a NUL in it
            return None
        inner = next((real.relative_to(root) for root in self._roots if real.is_relative_to(root)), None)
        return None if inner is None or ".git" in (part.lower() for part in inner.parts) else real

    # --- the end --------------------------------------------------------------------------------------

    async def _exit(self) -> None:
        """Its own end. asyncio's `wait` also awaits the end of its output, which a tool that outlives it may hold."""
        while self._agent.returncode is None:
            await asyncio.sleep(LOOK)

    async def end(self) -> None:
        """End of input first; who ignores that is told by signals, with all of its process group."""
        await self._pipes.close()
        grace = STOP_GRACE if self._stopped.done() else END_GRACE
        for signum in (signal.SIGTERM, signal.SIGKILL):
            done, _ = await asyncio.wait({self._gone}, timeout=grace)
            if done:
                break
            self._signal(signum)
        await self._gone
        self._signal(signal.SIGKILL)  # its workers, where it was only their launcher
        await self._connection.close()

    def _signal(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._agent.pid, signum)


async def serve(order: HostOrder) -> int:
    """Play the whole call; the exit status comes back."""
    stopped = asyncio.get_running_loop().create_future()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, lambda: stopped.done() or stopped.set_result(None))
    try:
        agent = await asyncio.create_subprocess_exec(
            *order.argv, cwd=order.cwd, stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE, start_new_session=True
        )
    except OSError as error:
        return failed("missing", f"{order.argv[0]} cannot be started: {error.strerror}. Install it, or correct it.")
    host = Host(order, agent, stopped)
    try:
        await host.turn()
    except TurnEndedError as ended:
        say("trouble", **ended.facts)
        return 1
    finally:
        await host.end()
    return 1 if stopped.done() else 0


def failed(word: str, message: str) -> int:
    """The call could not even begin."""
    print(message, file=sys.stderr)
    say("trouble", word=word, message=message)
    return 1


def main() -> int:
    """Read the order from stdin and carry it out."""
    order = read_order(sys.stdin.buffer.read())
    if find_spec("acp") is None:
        return failed("missing", "An ACP agent needs a library: install it with `pip install storyloop[acp]`.")
    return asyncio.run(serve(order))


if __name__ == "__main__":
    sys.exit(main())
