"""A twin of a forge: a small server on loopback that speaks the calls we make, with the state behind them.

Branches and commits are those of a real bare repository on disk; what a forge keeps beside it is kept here. A fault
makes one request go wrong, before it is done or behind it.
"""

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "twin-token-0123456789"
PROJECT = "acme/shop"


@dataclass
class Pull:
    """A pull request as the twin keeps it."""

    number: int
    title: str
    body: str
    head: str
    base: str
    state: str = "open"  # open, closed, merged
    draft: bool = False
    foreign: bool = False  # from a fork, whose branch has the same name


@dataclass
class Said:
    """Something that somebody wrote."""

    id: int
    author: str
    text: str


@dataclass
class Talk:
    """A conversation about a line of a pull request."""

    id: int
    pull: int
    file: str
    line: int | None
    said: list[Said]
    resolved: bool = False


@dataclass
class Reviewed:
    """Somebody's word on the whole of a pull request."""

    id: int
    pull: int
    author: str
    state: str  # approved, requests-changes, comments
    body: str


@dataclass
class Ran:
    """A check that ran on a commit, or runs."""

    id: int
    commit: str
    name: str
    state: str  # red, green, pending
    log: str = ""  # empty: there is none


@dataclass
class Fault:
    """What goes wrong with the next request of this method whose path matches; `done`: it is done all the same."""

    method: str
    path: str
    status: int = 0  # answered with it; 0: the connection is cut
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"message": "made to fail"}'
    seconds: float = 0.0  # until the answer
    done: bool = False
    times: int = 1


class Refused(Exception):  # noqa: N818 - it says what happened
    """An answer that is none of the good ones."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status, self.body = status, body


@dataclass
class Request:
    """One call, as it came in; a group of the route's path each."""

    method: str
    path: str
    params: dict[str, str]
    fields: dict[str, Any]
    parts: tuple[str, ...] = ()


@dataclass
class Text:
    """An answer that is no JSON."""

    text: str


Route = tuple[str, str, Callable[[Request], Any]]  # method, pattern of the path, what is done


class Twin:
    """What the three have in common. A subclass has the routes and says how each thing is shown."""

    prefix = ""  # of its paths
    logins = (("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"token {TOKEN}"))  # either will do
    word_for_size = "per_page"
    max_page = 3  # entries: real ones allow fifty or a hundred, which no test wants to make

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.url = ""
        self.pulls: list[Pull] = []
        self.faults: list[Fault] = []
        self.calls: list[str] = []  # "POST /pulls", in order, as they came in
        self.may_write = True
        self.behind: Callable[[Request], None] = lambda _: None  # what happens once a request was done, unanswered
        self.talks: list[Talk] = []
        self.reviews: list[Reviewed] = []
        self.below: list[tuple[int, Said]] = []  # comments below a pull request
        self.ran: list[Ran] = []
        self._last_id = 100

    def routes(self) -> tuple[Route, ...]:
        raise NotImplementedError

    # --- what git says -----------------------------------------------------------------------------------

    def commit(self, branch: str) -> str:
        """The commit of a branch; empty where there is none."""
        return self._git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}")

    def default_branch(self) -> str:
        return self._git("symbolic-ref", "--short", "HEAD")

    def _git(self, *args: str) -> str:
        done = subprocess.run(["git", "-C", self.repository, *args], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    # --- pull requests -----------------------------------------------------------------------------------

    def pull(self, number: str | int) -> Pull:
        for pull in self.pulls:
            if pull.number == int(number):
                return pull
        raise Refused(404, {"message": "Not Found"})

    def open_pull(self, *, title: str, body: str, head: str, base: str, draft: bool, exists: int, lacks: int) -> Pull:
        """A new one, by the rules that all three have; `exists` and `lacks` are the statuses of their refusals."""
        if not self.may_write:
            raise Refused(403, {"message": "Resource not accessible"})
        if not self.commit(head) or not self.commit(base):
            raise Refused(
                lacks, {"message": "Validation Failed", "errors": [{"message": f"{head} or {base} is invalid"}]}
            )
        for pull in self.pulls:
            if (pull.head, pull.base, pull.state, pull.foreign) == (head, base, "open", False):
                raise Refused(exists, {"message": [f"A pull request already exists for {head}."]})
        self.pulls.append(Pull(len(self.pulls) + 1, title, body, head, base, draft=draft))
        return self.pulls[-1]

    # --- what is said of them ----------------------------------------------------------------------------

    def new_id(self) -> int:
        """Never given before."""
        self._last_id += 1
        return self._last_id

    def talk(self, pull: int, file: str, line: int | None, *texts: str) -> Talk:
        """Ada begins a conversation."""
        said = [Said(self.new_id(), "ada", text) for text in texts]
        self.talks.append(Talk(self.new_id(), pull, file, line, said))
        return self.talks[-1]

    def review(self, pull: int, author: str, state: str, body: str) -> Reviewed:
        """Somebody reviews the whole."""
        self.reviews.append(Reviewed(self.new_id(), pull, author, state, body))
        return self.reviews[-1]

    def check(self, commit: str, name: str, state: str, log: str = "") -> Ran:
        """A check runs."""
        self.ran.append(Ran(self.new_id(), commit, name, state, log))
        return self.ran[-1]

    def add(self, said: list[Said], text: str) -> Said:
        """We answer."""
        if not self.may_write:
            raise Refused(403, {"message": "Resource not accessible"})
        said.append(Said(self.new_id(), "me", text))
        return said[-1]

    def add_below(self, pull: str, text: str) -> Said:
        """The same below the pull request."""
        below: list[Said] = []
        self.below.append((self.pull(pull).number, self.add(below, text)))
        return below[0]

    def find(self, entries: list[Any], number: str) -> Any:
        """The one with this id."""
        for entry in entries:
            if entry.id == int(number):
                return entry
        raise Refused(404, {"message": "Not Found"})

    # --- serving -----------------------------------------------------------------------------------------

    def page(self, request: Request, entries: list[Any]) -> tuple[list[Any], dict[str, str]]:
        """The entries of the page that is asked for, and where the next is."""
        size = min(int(request.params.get(self.word_for_size, "30")), self.max_page)
        number = int(request.params.get("page", "1"))
        here = entries[(number - 1) * size : number * size]
        following = f"{self.url}{request.path}?{self.word_for_size}={size}&page={number + 1}"
        return here, {"Link": f'<{following}>; rel="next"'} if number * size < len(entries) else {}

    def answer(self, request: Request) -> tuple[Any, dict[str, str]]:
        path = request.path.removeprefix(self.prefix)
        for method, pattern, act in self.routes():
            if method == request.method and (found := re.fullmatch(pattern, path)):
                request.parts = tuple(unquote(part) for part in found.groups())
                said = act(request)
                return said if isinstance(said, tuple) else (said, {})
        raise Refused(404, {"message": "Not Found"})

    def fault_for(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == request.method and re.search(fault.path, request.path):
                fault.times -= 1
                return fault
        return None


@contextmanager
def serving(twin: Twin) -> Iterator[Twin]:
    """The twin, answering on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            split = urlsplit(self.path)  # a proxy is asked for a whole URL
            sent = self.sent()
            request = Request(
                self.command,
                split.path,
                {name: values[-1] for name, values in parse_qs(split.query).items()},
                json.loads(sent) if sent.strip() else {},
            )
            twin.calls.append(f"{request.method} {request.path.removeprefix(twin.prefix)}")
            fault = twin.fault_for(request)
            if fault is not None:
                if fault.done:
                    twin.answer(request)
                time.sleep(fault.seconds)
                if fault.status:
                    self.reply(fault.status, fault.body, fault.headers)
                elif not fault.seconds:
                    self.cut()
                    return
                if fault.status:
                    return
            if all(self.headers.get(name) != value for name, value in twin.logins):
                self.reply(401, b'{"message": "Bad credentials"}', {})
                return
            try:
                said, headers = twin.answer(request)
            except Refused as refused:
                self.reply(refused.status, json.dumps(refused.body).encode(), {})
                return
            twin.behind(request)
            body = said.text.encode() if isinstance(said, Text) else json.dumps(said).encode()
            self.reply(201 if request.method == "POST" else 200, body, headers)

        do_GET = do_POST = do_PATCH = do_PUT = do  # noqa: N815 - the names of the standard library

        def sent(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = b""
            while size := int(self.rfile.readline(), 16):
                chunks += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return chunks

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def cut(self) -> None:
            """In the midst of the answer."""
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"number"')
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    twin.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield twin
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
