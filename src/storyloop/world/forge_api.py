"""How a forge is spoken to: JSON over HTTP, by httpx with a token, or by `gh api` or `glab api` if logged in.

Either way a request is one function, so that each forge's calls are written once. Whatever can go wrong comes out as
`ForgeTrouble`: a status by the table below, and no answer as `OFFLINE`. What only reads is asked again after a moment;
what writes never is, because nobody knows whether it was done. A token is in a header, and in no sentence.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast
from urllib.parse import quote, urlencode

import msgspec

from storyloop.core.forge import ForgeTrouble, Trouble

if TYPE_CHECKING:
    from ssl import SSLContext

_T = TypeVar("_T")
_TRIES = 3  # of what only reads
_LONGEST = 60.0  # seconds that one request may take
_LARGEST = 20_000_000  # bytes of an answer
_MOST_PAGES = 200
_PER_PAGE = 100
_TAIL = 4_000  # characters of a log
_RATE_LIMIT = re.compile(r"rate limit|abuse detection", re.IGNORECASE)


class Reply(msgspec.Struct, frozen=True):
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Unanswered(Exception):  # noqa: N818 - it says what happened
    """No whole answer came; whether the request arrived is unknown."""


class Transport(Protocol):
    """Sends one request and waits for the whole answer, or raises `Unanswered`."""

    @property
    def login(self) -> str:
        """How a person logs in, as a sentence."""
        ...

    def send(self, method: str, path: str, body: bytes | None) -> Reply: ...


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a repository is on a forge."""

    service: str  # "GitHub"
    web: str  # `https://host[:port][/prefix]`, without a slash at the end
    project: str  # `owner/name`, on GitLab perhaps with more above

    @property
    def host(self) -> str:
        return self.web.partition("://")[2].partition("/")[0]

    def __str__(self) -> str:
        return f"{self.service} ({self.web.partition('://')[2]}/{self.project})"


class HttpTransport:
    """HTTP by ourselves. `rest` and `graphql` are URLs; a path of `graphql` means the latter."""

    def __init__(self, *, rest: str, headers: Mapping[str, str], login: str, graphql: str = "") -> None:
        self._rest, self._graphql, self._headers = rest, graphql, dict(headers)
        self.login = login

    def send(self, method: str, path: str, body: bytes | None) -> Reply:
        import httpx

        url = self._graphql if path == "graphql" else f"{self._rest}/{path}"
        headers = {"Accept": "application/json", "User-Agent": "storyloop", **self._headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        until = time.monotonic() + _LONGEST
        try:
            with (
                httpx.Client(verify=_trusted(), timeout=_LONGEST / 2, follow_redirects=True) as client,
                client.stream(method, url, headers=headers, content=body) as answer,
            ):
                received = bytearray()
                for part in answer.iter_bytes():
                    received += part
                    if time.monotonic() > until:
                        raise Unanswered(f"its answer took longer than {_LONGEST:.0f} s")
                    if len(received) > _LARGEST:
                        raise Unanswered(f"its answer has more than {_LARGEST // 1_000_000} MB")
                return Reply(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, bytes(received))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unanswered(str(error) or type(error).__name__) from error


@cache
def _trusted() -> "SSLContext":
    """Whose certificates are good; read once, because that takes longer than most answers."""
    import httpx

    return httpx.create_ssl_context()


class CliTransport:
    """HTTP by the forge's own program, with whatever it is logged in by: `gh api` or `glab api`."""

    def __init__(self, program: str, *, host: str, environ: Mapping[str, str]) -> None:
        self._program, self._host = program, host
        self._environ = {**environ, "GH_PROMPT_DISABLED": "1", "NO_COLOR": "1", "NO_PROMPT": "1"}
        self.login = f"Log in with `{os.path.basename(program)} auth login --hostname {host}`."

    def send(self, method: str, path: str, body: bytes | None) -> Reply:
        argv = [self._program, "api", path, "--hostname", self._host, "--method", method, "--include"]
        if body is not None:
            argv += ["--input", "-", "--header", "Content-Type: application/json"]
        try:
            done = subprocess.run(
                argv, input=body or b"", capture_output=True, env=self._environ, timeout=_LONGEST, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unanswered(f"`{argv[0]}`: {error}") from error
        head, _, text = done.stdout.replace(b"\r\n", b"\n").partition(b"\n\n")
        first, *rest = head.decode(errors="replace").split("\n")
        if not (found := re.match(r"HTTP/\S+ (\d{3})", first)):
            said = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
            raise Unanswered(f"`{os.path.basename(argv[0])}`: {one_line(said)}")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        return Reply(int(found[1]), headers, text)


class Api:
    """The calls of one forge, as typed answers."""

    def __init__(self, address: Address, transport: Transport) -> None:
        self.address, self._transport = address, transport

    def read(self, path: str, shape: type[_T], **params: str | int) -> _T:
        """What is at this path."""
        return self._decoded(self._read(path, params), shape)

    def pages(self, path: str, shape: type[_T], *, within: str = "", **params: str | int) -> Iterator[_T]:
        """The entries of a list, of all its pages; `within`: the list is this field of each."""
        number = 1
        for _ in range(_MOST_PAGES):
            # Each forge has its own word for the size of a page, and passes over the other's.
            sized = {**params, "per_page": _PER_PAGE, "limit": _PER_PAGE, "page": number}
            reply = self._read(path, sized)
            if within:
                fields = self._decoded(reply, dict[str, msgspec.Raw])
                yield from self._decoded(Reply(200, {}, bytes(fields.get(within, msgspec.Raw(b"[]")))), list[shape])
            else:
                yield from self._decoded(reply, list[shape])
            following = re.search(r'<[^>]*[?&]page=(\d+)[^>]*>;\s*rel="?next', reply.headers.get("link", ""))
            if following is None:
                return
            number = int(following[1])
        self._fail(Trouble.BROKEN, f"has more than {_MOST_PAGES} pages of {path}", "Try again later.")

    def tail(self, path: str) -> str:
        """The end of the log that is at this path; empty where there is none, or none any more, or not for us."""
        try:
            return self._read(path, {}).body[-4 * _TAIL :].decode(errors="replace")[-_TAIL:]
        except ForgeTrouble as problem:
            if problem.trouble not in (Trouble.NOT_FOUND, Trouble.FORBIDDEN, Trouble.REJECTED):
                raise
            return ""

    def write(self, method: str, path: str, shape: type[_T], **fields: object) -> _T:
        """Change something; once, whatever comes of it."""
        return self._decoded(self._sent(method, path, msgspec.json.encode(fields)), shape)

    def query(self, text: str, shape: type[_T], **variables: object) -> _T:
        """Ask by GraphQL for what has no other path; safe to be done again."""
        body = msgspec.json.encode({"query": text, "variables": variables})
        answer = self._decoded(self._again(partial(self._sent, "POST", "graphql", body)), _Answer)
        if answer.errors:
            types = {error.type for error in answer.errors}
            trouble = next((trouble for word, trouble in _GRAPHQL.items() if word in types), Trouble.REJECTED)
            self._fail(trouble, f"refuses: {one_line(answer.errors[0].message)}", "See that it is allowed there.")
        return self._decoded(Reply(200, {}, bytes(answer.data)), shape)

    def _read(self, path: str, params: Mapping[str, str | int]) -> Reply:
        path = f"{path}?{urlencode(params)}" if params else path
        return self._again(partial(self._sent, "GET", path, None))

    def _again(self, ask: "partial[Reply]") -> Reply:
        import stamina

        stamina.instrumentation.set_on_retry_hooks([])  # it would tell of each on our stderr
        passing = (Trouble.OFFLINE, Trouble.BROKEN)
        for attempt in stamina.retry_context(
            on=lambda error: isinstance(error, ForgeTrouble) and error.trouble in passing,
            attempts=_TRIES,
            wait_initial=0.2,
            wait_max=2.0,
            wait_jitter=0.2,
        ):
            with attempt:
                return ask()
        raise AssertionError  # the last attempt has returned or raised

    def _sent(self, method: str, path: str, body: bytes | None) -> Reply:
        try:
            reply = self._transport.send(method, path, body)
        except Unanswered as error:
            cure = "See that it can be reached, and try again."
            raise ForgeTrouble(Trouble.OFFLINE, f"{self.address} does not answer: {error}.", cure) from error
        if reply.status >= 300:
            self._refused(reply)
        return reply

    def _decoded(self, reply: Reply, shape: type[_T]) -> _T:
        try:
            return msgspec.json.decode(reply.body or b"null", type=shape)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._fail(Trouble.BROKEN, f"answers what makes no sense ({error})", "See that [forge] names it rightly.")

    def _refused(self, reply: Reply) -> NoReturn:
        said = _message(reply.body)
        because = f": {said}" if said else ""
        is_limit = reply.status == 429 or (
            reply.status == 403
            and (
                reply.headers.get("x-ratelimit-remaining") == "0"
                or "retry-after" in reply.headers
                or bool(_RATE_LIMIT.search(said))
            )
        )
        if is_limit:
            until = _until(reply.headers)
            when = f" until {until:%Y-%m-%d %H:%M:%S} UTC" if until else ""
            self._fail(Trouble.LIMITED, f"takes no more requests{when}{because}", "Try again then.", until=until)
        match reply.status:
            case 401:
                self._fail(Trouble.NOT_LOGGED_IN, f"does not know you{because}", self._transport.login)
            case 403:
                cure = "Ask for the right to push and to open pull requests there, or use a token that has it."
                self._fail(Trouble.FORBIDDEN, f"forbids it{because}", cure)
            case 404:
                cure = f"See that it exists and that you may see it. {self._transport.login}"
                self._fail(Trouble.NOT_FOUND, f"has nothing there{because}", cure)
            case status if 400 <= status < 500:
                self._fail(Trouble.REJECTED, f"refuses (status {status}){because}", "Mend that, and try again.")
            case status:
                self._fail(Trouble.BROKEN, f"fails (status {status}){because}", "Try again later.")

    def _fail(self, trouble: Trouble, problem: str, cure: str, *, until: datetime | None = None) -> NoReturn:
        raise ForgeTrouble(trouble, f"{self.address} {problem}.", cure, until=until)


class _GraphqlError(msgspec.Struct):
    message: str
    type: str = ""


class _Answer(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b"null")
    errors: list[_GraphqlError] = []


_GRAPHQL = {
    "NOT_FOUND": Trouble.NOT_FOUND,
    "FORBIDDEN": Trouble.FORBIDDEN,
    "RATE_LIMITED": Trouble.LIMITED,
}


def encoded(part: str) -> str:
    """One part of a path."""
    return quote(part, safe="")


def one_line(text: str) -> str:
    """Somebody else's words, for one of our sentences."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:600]).split())[:300].rstrip(".")


def _message(body: bytes) -> str:
    """The forge's own words; each has them in another place."""
    try:
        said: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    if not isinstance(said, dict):
        return ""
    entries = cast("dict[str, Any]", said)
    parts = (entries.get("message"), entries.get("error"), entries.get("errors"))
    return one_line("; ".join(text for part in parts for text in _texts(part)))


def _texts(part: Any) -> Iterator[str]:  # JSON of any shape
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        entries = cast("dict[str, Any]", part)
        yield from _texts(entries.get("message") or list(entries.values()))
    elif isinstance(part, list):
        for one in cast("list[Any]", part):
            yield from _texts(one)


def _until(headers: Mapping[str, str]) -> datetime | None:
    now = datetime.now(UTC)
    for name in ("retry-after", "ratelimit-reset", "x-ratelimit-reset"):
        if (value := headers.get(name, "")).isdecimal():
            seconds = min(int(value), 10**10)
            return now + timedelta(seconds=seconds) if seconds < 10**8 else datetime.fromtimestamp(seconds, UTC)
    return None
