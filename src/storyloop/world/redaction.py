"""Redaction: secrets are taken out of what we store or show, and what stands there instead says which one it was.

A secret is known by its value, when a variable of the user's environment with a telling name holds it, or by its
shape, when it looks like a token of a well-known kind. Values are found as they are and as they stand inside a JSON
string. Not found are values in another dress (base64, split over two lines, one character at a time): who wants to
smuggle one out can, and against that stands the sandbox, not this.

A gigabyte of output is searched within seconds, because few passes go over it: a hint looks for one letter that several
kinds of tokens have, and then behind itself; only where it strikes are their patterns asked.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

_CHUNK = 1 << 20
_LONGEST = 1 << 15  # bytes of the longest secret that a shape finds
_CONTEXT = 64  # bytes before a secret that a shape looks at

_TELLING = re.compile(r"SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|(?:^|_|API|ACCESS|AUTH)(?:KEY|TOKEN|PAT|PASS)$")
_HARMLESS = re.compile(r"(?i)true|false|enabled|disabled|[~.]?/.*|\w+://[^@]*")  # a switch, a path, a plain address
_SHORTEST = 8


class _Shape(msgspec.Struct, frozen=True):
    """One kind of token. Where the pattern has a group `secret`, it is that."""

    name: str
    pattern: re.Pattern[bytes]


def _shape(name: str, pattern: bytes) -> _Shape:
    return _Shape(name, re.compile(pattern))


# Of a URL's password only what somebody chose: not a placeholder, nor the login of a database on one's own machine.
_URL_PASSWORD = _shape(
    "url-password",
    rb"://([^\s/:@\"'\\]{1,128}):(?!\1@|(?i:pass|passwd|password|secret|test|root|admin|guest|postgres|pw)@|[$*<{%])"
    rb"(?P<secret>[^\s/@\"'\\]{1,256})@(?!localhost|127\.|\[::1\])",
)
_SHAPES = {
    re.compile(rb"-(?:(?<=sk-)(?<![\w-]sk-)|(?<=lpat-)|(?<=xox.-)|(?<=-)----BEGIN )"): (
        _shape("api-key", rb"sk-(?<![\w-]sk-)(?:ant-|(?=[\w-]{0,64}\d)[\w-]{12})[\w-]{20,400}"),
        _shape("gitlab-token", rb"glpat-[\w-]{20,255}"),
        _shape("slack-token", rb"xox[baprs]-(?=[A-Za-z-]*\d)[A-Za-z0-9-]{20,255}"),
        _shape(
            "private-key",
            rb"-----BEGIN ([A-Z0-9 ]{0,32})PRIVATE KEY-----[^\"'{}<>]{32,16384}?-----END \1PRIVATE KEY-----",
        ),
    ),
    re.compile(rb"_(?:(?<=gh._)|(?<=hub_pat_)|(?<=npm_))"): (
        _shape("github-token", rb"gh[pousr]_(?<![A-Za-z0-9]....)[A-Za-z0-9]{36,255}"),
        _shape("github-token", rb"github_pat_[A-Za-z0-9_]{50,255}"),
        _shape("npm-token", rb"npm_(?<!\wnpm_)[A-Za-z0-9]{36}(?!\w)"),
    ),
    re.compile(rb"A(?:[KS]IA|Iza)"): (
        _shape("aws-key", rb"A[KS]IA(?<![\w+/]....)[A-Z0-9]{16}(?!\w)"),
        _shape("google-key", rb"AIza(?<![\w+/-]....)[\w-]{35}(?![\w-])"),
    ),
    re.compile(rb"J(?<=eyJ)"): (_shape("jwt", rb"eyJ(?<![\w-]eyJ)[\w-]{10,4096}\.eyJ[\w-]{10,8192}\.[\w-]{10,4096}"),),
    _URL_PASSWORD.pattern: (_URL_PASSWORD,),
}


class _Span(msgspec.Struct, frozen=True, order=True):
    """Where a secret stands; in order, of two that begin together the longer one comes first."""

    start: int
    before_end: int  # the end, negative
    name: str

    @property
    def end(self) -> int:
        return -self.before_end


class Redactor:
    """Knows the secrets of an environment, and the shapes of all others."""

    def __init__(self, *environments: Mapping[str, str]) -> None:
        secrets = {
            value: name
            for environment in environments
            for name, value in environment.items()
            if len(value) >= _SHORTEST and _TELLING.search(name.upper()) and not _HARMLESS.fullmatch(value)
        }
        self._environments = environments
        self._names = {form: name for value, name in secrets.items() for form in _forms(value)}
        shapeless = [form for form in self._names if not any(shape.pattern.fullmatch(form) for shape in _all_shapes())]
        self._known = [_shape(self._names[form], re.escape(form)) for form in shapeless]
        self._longest = max([_LONGEST, *map(len, self._names)])

    def knowing(self, environment: Mapping[str, str]) -> "Redactor":
        """One that knows the secrets of this environment, too."""
        return Redactor(*self._environments, environment) if environment else self

    def find(self, data: bytes) -> list[str]:
        """The names of the secrets in it, each once."""
        return list(dict.fromkeys(span.name for span in self._found(data)))

    def data(self, data: bytes) -> bytes:
        """The bytes without their secrets. What was valid JSON still is."""
        parts: list[bytes] = []
        done = 0
        for span in self._found(data):
            parts += data[done : span.start], _instead(span)
            done = span.end
        return b"".join([*parts, data[done:]]) if parts else data

    def text(self, text: str) -> str:
        """The text without its secrets; the very same object when it has none."""
        data = text.encode("utf-8", "surrogatepass")
        clean = self.data(data)
        return text if clean is data else clean.decode("utf-8", "surrogatepass")

    def file(self, path: Path) -> list[str]:
        """Put a copy without secrets in the place of a file that holds some, whole or not at all; their names.

        The copy is for us alone (0600). Memory is constant, whatever the file's size.
        """
        with path.open("rb") as source:
            spans = self._spans(source)
            first = next(spans, None)
            if first is None:
                return []
            new = path.with_name(f"{path.name}.redacted")
            new.unlink(missing_ok=True)
            names: dict[str, None] = {}
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy, path.open("rb") as rest:
                for span in _with(first, spans):
                    _copy(rest, copy, span.start - rest.tell())
                    copy.write(_instead(span))
                    rest.seek(span.end)
                    names[span.name] = None
                _copy(rest, copy, os.fstat(rest.fileno()).st_size - rest.tell())
                copy.flush()
                os.fsync(copy.fileno())
            new.rename(path)
            return list(names)

    def _found(self, data: bytes) -> Iterator[_Span]:
        spans: list[_Span] = []
        likely = [shape for hint, shapes in _SHAPES.items() if hint.search(data) for shape in shapes]
        for shape in (*self._known, *likely):
            for match in shape.pattern.finditer(data):
                start, end = match.span("secret" if "secret" in shape.pattern.groupindex else 0)
                spans.append(_Span(start, -end, self._names.get(data[start:end], shape.name)))
        done = 0
        for span in sorted(spans):
            if span.start >= done:
                yield span
                done = span.end

    def _spans(self, file: BinaryIO) -> Iterator[_Span]:
        """Every secret of a file, in order. One that a window's end may have cut is left for the next window."""
        window, at, told = b"", 0, 0  # `at` is the window's place in the file; what begins before `told` is done with
        while True:
            chunk = file.read(_CHUNK)
            window += chunk
            settled = at + len(window) - (self._longest if chunk else 0)
            for span in self._found(window):
                here = _Span(at + span.start, span.before_end - at, span.name)
                if told <= here.start < settled:
                    yield here
                    told = here.end
            if not chunk:
                return
            told = max(told, settled)
            passed = max(0, settled - _CONTEXT - at)
            window, at = window[passed:], at + passed


def _with(first: _Span, rest: Iterator[_Span]) -> Iterator[_Span]:
    yield first
    yield from rest


def _instead(span: _Span) -> bytes:
    return f"[redacted:{span.name}]".encode()


def _forms(value: str) -> set[bytes]:
    """A value as it is, and as it stands inside a JSON string."""
    written = (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
    return {form.encode("utf-8", "surrogateescape") for form in (value, *written)}


def _all_shapes() -> Iterator[_Shape]:
    return (shape for shapes in _SHAPES.values() for shape in shapes)


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size > 0:
        chunk = source.read(min(size, _CHUNK))
        target.write(chunk)
        size -= len(chunk) or size
