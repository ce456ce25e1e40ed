"""The scripted model server: HTTP on loopback that answers agent CLIs as a scenario says, at zero tokens.

The first part of a request's path names the scenario, the end of it the wire: a client is given
`http://127.0.0.1:<port>/<scenario>` as the address of its model. The server keeps nothing between two requests.
"""

import contextlib
import gzip
import json
import threading
from collections.abc import Generator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from storyloop.conformance.scenario import Break, Prompt, Refusal, Scenario, newest_prompt
from storyloop.conformance.tools import told, use_for
from storyloop.conformance.wires import WIRES, Asked, Event, Json, Reply, Wire

_UNBROKEN = 2  # events before a stream breaks
MODEL = "scripted-model"


class ModelServer:
    """A server that runs; `prompts` are those of the turns that it was asked for, in their order."""

    def __init__(self, scenarios: Mapping[str, Scenario]) -> None:
        self.scenarios = scenarios
        self.prompts: list[Prompt] = []
        self.closing = threading.Event()
        self._http = _Http(self)
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"

    def base(self, scenario: str) -> str:
        """The address of a model that plays this scenario."""
        return f"{self.address}/{scenario}"

    def serve(self) -> None:
        """Answer until `close`."""
        self._http.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        """Let go of every client that waits."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()


@contextlib.contextmanager
def serving(scenarios: Mapping[str, Scenario]) -> Generator[ModelServer]:
    """A server in a thread of its own."""
    server = ModelServer(scenarios)
    thread = threading.Thread(target=server.serve, name="scripted model")
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = True  # a client that keeps its connection open does not hold us
    block_on_close = False
    request_queue_size = 64

    def __init__(self, model: ModelServer) -> None:
        self.model = model
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle of its answer is no error here: agents are killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http  # pyright: ignore[reportIncompatibleVariableOverride] - the one that is started here

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Nothing: what matters of it is in `prompts`."""

    def do_HEAD(self) -> None:
        self._document(200, {})

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not path.endswith("/models"):
            self._document(404, {"error": {"message": f"There is no {path} here."}})
            return
        of_openai = {"id": MODEL, "object": "model", "type": "model", "display_name": MODEL, "created": 0}
        of_google = {"name": f"models/{MODEL}", "displayName": MODEL, "inputTokenLimit": 1_000_000}
        self._document(200, {"object": "list", "has_more": False, "data": [of_openai], "models": [of_google]})

    def do_POST(self) -> None:
        sent = self._body()
        path = urlsplit(self.path).path
        scenario = self.server.model.scenarios.get(path.split("/")[1])
        if scenario is not None and path.endswith(("/count_tokens", ":countTokens")):
            self._document(200, {"input_tokens": len(sent) // 4, "totalTokens": len(sent) // 4})
            return
        wire = next((wire for end, wire in WIRES.items() if path.endswith(end)), None)
        if scenario is None or wire is None:
            self._document(404, {"error": {"message": f"There is no {path} here."}})
            return
        try:
            body: Json = json.loads(sent)
        except ValueError as error:
            self._document(400, wire.refusal(400, f"The request is not JSON: {error}."))
            return
        self._answer(wire, wire.asked(body, path), scenario)

    def _answer(self, wire: Wire, asked: Asked, scenario: Scenario) -> None:
        prompt = newest_prompt(asked.talk) if asked.is_turn else None
        if prompt is not None:
            self.server.model.prompts.append(prompt)
        turn = scenario.turn(prompt)
        fault = turn.fault or scenario.refusal()
        if isinstance(fault, Refusal):
            self._document(fault.status, wire.refusal(fault.status, fault.message), fault.headers)
            return
        if fault is Break.HANG:
            self._wait()
            return
        use = use_for(turn.does, asked.tools, prompt) if turn.does is not None and prompt is not None else None
        reply = Reply(
            model=asked.model or MODEL,
            number=len(asked.talk),
            thinks=turn.thinks,
            says=told(scenario.rest(prompt)) if asked.edits_by_text and prompt is not None else turn.says,
            use=use,
            usage=turn.usage,
        )
        if asked.streamed:
            self._stream(wire, reply, fault)
        else:
            self._document(200, wire.whole(reply))

    def _stream(self, wire: Wire, reply: Reply, fault: Break | None) -> None:
        self._head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for number, event in enumerate(wire.events(reply)):
            if number == _UNBROKEN and fault is not None and not self._breaks(wire, fault):
                return
            self._chunk(_told(event))
        self._chunk(b"")

    def _breaks(self, wire: Wire, fault: Break) -> bool:
        """Break the stream; whether it goes on behind that."""
        match fault:
            case Break.STALL | Break.HANG:
                self._wait()
                return False
            case Break.CUT:
                self.close_connection = True
                return False
            case Break.GARBAGE:
                self._chunk(b'data: {"type": "content\xff\xfe\n\n')
                return True
            case Break.ERROR_EVENT:
                self._chunk(_told(wire.failing_event(529, "The scripted model is overloaded.")))
                self._chunk(b"")
                return False

    def _wait(self) -> None:
        self.server.model.closing.wait()
        self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            sent = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                sent += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            sent = self.rfile.read(int(self.headers.get("content-length", "0")))
        return gzip.decompress(sent) if self.headers.get("content-encoding") == "gzip" else sent

    def _document(self, status: int, document: Json, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        about = {"content-type": "application/json", "content-length": str(len(body))}
        self._head(status, {**about, **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _chunk(self, text: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))
        self.wfile.flush()


def _told(event: Event) -> bytes:
    name, what = event
    text = what if isinstance(what, str) else json.dumps(what)
    return (f"data: {text}\n\n" if name is None else f"event: {name}\ndata: {text}\n\n").encode()
