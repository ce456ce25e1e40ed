"""The artifact codec: what an agent wrote, as a value; or what is wrong with it, and what was expected.

The schemas are strict with one exception, made on purpose: `<knowledge>` is a gift. What is wrong inside it
is left out, and never spoils a result that is otherwise valid.
"""

import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from storyloop.contracts.plan import planned
from storyloop.contracts.xml import MAX_BYTES, Invalid, Node, read
from storyloop.core.artifacts import (
    Analysis,
    Artifact,
    Asks,
    CommitMessage,
    ConflictResult,
    DevelopmentResult,
    FixResult,
    Issue,
    Issues,
    Judgement,
    PrText,
    Question,
    Ruling,
    Severity,
    Triage,
    Triaged,
)
from storyloop.core.facts import Malformed
from storyloop.core.knowledge import NotedDecision, NotedFile, NotedKnowledge, NotedPattern
from storyloop.core.policy import Drain
from storyloop.core.words import ConflictStatus, DevelopmentStatus, FixStatus

_SCHEMAS = Path(__file__).parent / "schemas"
_ROOTS = {
    Drain.PLAN: "plan",
    Drain.STORY: "development-result",
    Drain.ANALYSIS: "analysis",
    Drain.REVIEW: "issues",
    Drain.TRIAGE: "triage",
    Drain.FIX: "fix-result",
    Drain.CONFLICT: "conflict-result",
    Drain.COMMIT: "commit-message",
    Drain.PR: "pull-request",
}
_GIFT = "knowledge"

_MAX_FILES = 2_000
_MAX_ISSUES = 200
_MAX_GIVEN = 200  # notes of each kind, and symbols of each file
_MAX_OPTIONS = 20
# Characters:
_MAX_TEXT = 8_000
_MAX_FINDING = 2_000
_MAX_NOTE = 500
_MAX_PATH = 1_000
_MAX_ERROR = 400
_MAX_ERRORS = 4_000

_TRAILER = re.compile(r"^\s*storyloop-", re.IGNORECASE | re.MULTILINE)
_PLACE = re.compile(r"[^\s:]:\d")


def schema_path(drain: Drain) -> Path:
    """The XSD file that ships for this drain."""
    return _SCHEMAS / f"{_ROOTS[drain]}.xsd"


def decode(drain: Drain, text: bytes) -> Artifact | Malformed:
    """The artifact that this drain owes, or everything that is wrong with it."""
    try:
        root = read(text, schema=schema_path(drain), gift=_GIFT if drain is Drain.STORY else None)
        return _VALUES[drain](root)
    except Invalid as invalid:
        received = text[: 4 * _MAX_TEXT].decode("utf-8", "replace")
        return Malformed(errors=_listed(invalid.errors), text=_clipped(received, _MAX_TEXT))


def missing(drain: Drain, why: str) -> Malformed:
    """What is said when there is nothing to decode; `why` is a sentence."""
    return Malformed(errors=f"- {why} Expected <{_ROOTS[drain]}> in the artifact file.")


def find_artifact(drain: Drain, spool: BinaryIO) -> bytes | None:
    """The last element with the right root in a file of any size, in constant memory; None if there is none.

    What stands around it, a markdown fence for example, does not matter.
    """
    root = _ROOTS[drain].encode()
    closing = b"</%b>" % root
    start = spool.seek(0, 2)
    window = b""
    while (at := window.rfind(closing)) < 0:
        if start == 0:
            return None
        # Chunks overlap by what a closing tag that is cut in two leaves on the later side.
        size, rest = min(start, MAX_BYTES), window[: len(closing) - 1]
        start = spool.seek(start - size)
        window = spool.read(size) + rest
    end = start + at + len(closing)
    start = spool.seek(max(0, end - MAX_BYTES))
    text = spool.read(end - start)
    openings = [match.start() for match in re.finditer(rb"<%b[\s/>]" % root, text)]
    return text[openings[-1] :] if openings else None


def _listed(errors: Iterable[str]) -> str:
    """The errors, one a line, as many as fit."""
    lines = [f"- {_clipped(error, _MAX_ERROR)}" for error in dict.fromkeys(errors)]
    kept = _MAX_ERRORS // _MAX_ERROR - 1
    return "\n".join(lines[:kept] + [f"- and {len(lines) - kept} more"] * (len(lines) > kept))


# --- values, and the rules beyond the schema ---------------------------------------------------------------


def _development_result(root: Node) -> DevelopmentResult:
    errors: list[str] = []
    status = DevelopmentStatus(root.text_of("status"))
    summary, next_steps = _summary(root, errors), root.text_of("next-steps")
    if status is not DevelopmentStatus.COMPLETED and not next_steps:
        errors.append(
            f"line {root.line}, <next-steps>: it is missing or blank; "
            f"expected what remains to be done, because the status is {status}"
        )
    listed = [file for element in root.named("files-changed") for file in element.children]
    if len(listed) > _MAX_FILES:
        errors.append(f"line {listed[0].line}, <files-changed>: expected at most {_MAX_FILES:,} files")
    files = [_file(file, file.text, errors) for file in listed]
    questions = [_question(element, status, errors) for element in root.named("question")]
    if errors:
        raise Invalid(*errors)
    return DevelopmentResult(
        status=status,
        summary=summary,
        files_changed=tuple(dict.fromkeys(path for path in files if path is not None)),
        next_steps=_clipped(next_steps, _MAX_TEXT) or None,
        knowledge=_noted(root.gifts),
        question=questions[0] if questions else None,
    )


def _question(element: Node, status: DevelopmentStatus, errors: list[str]) -> Question:
    at, default = f"line {element.line}, <question>", element.attributes["default"]
    if not element.text:
        errors.append(f"{at}: it is blank; expected what is to be decided")
    if not default:
        errors.append(f"{at}: its default is blank; expected what you would do if nobody answers")
    if status is DevelopmentStatus.COMPLETED:
        errors.append(f"{at}: it stands beside the status completed; expected partial, while a decision is open")
    options = [_clipped(option.text, _MAX_NOTE) for option in element.children if option.text]
    return Question(
        text=_clipped(element.text, _MAX_FINDING),
        default=_clipped(default, _MAX_NOTE),
        options=tuple(dict.fromkeys(options[:_MAX_OPTIONS])),
    )


def _analysis(root: Node) -> Analysis:
    errors: list[str] = []
    judged: dict[tuple[str, int], Judgement] = {}
    for element in root.children:
        at, told = f"line {element.line}, <criterion>", element.attributes
        story, number, ruling = told["story"], int(told["number"]), Ruling(told["verdict"])
        if (story, number) in judged:
            errors.append(f"{at}: criterion {number} of {_clipped(story, 100)} stands here twice; expected it once")
        if ruling is Ruling.MET and not _PLACE.search(element.text):
            errors.append(f"{at}: it names no place; expected file and line, as in src/a.py:12, and what stands there")
        elif ruling is Ruling.UNMET and not element.text:
            errors.append(f"{at}: it is blank; expected what is missing or wrong")
        evidence = _clipped(element.text, _MAX_FINDING)
        judged[story, number] = Judgement(story=story, number=number, ruling=ruling, evidence=evidence)
    if errors:
        raise Invalid(*errors)
    return Analysis(judgements=tuple(judged.values()))


def _issues(root: Node) -> Issues:
    errors: list[str] = []
    found = [_issue(element, errors) for element in root.named("issue")]
    if len(found) > _MAX_ISSUES:
        errors.append(f"line {root.line}, <issues>: expected at most {_MAX_ISSUES} of them, the worst first")
    if errors:
        raise Invalid(*errors)
    return Issues(found=tuple(found))


def _issue(element: Node, errors: list[str]) -> Issue:
    told = element.attributes
    file, line = told.get("file"), told.get("line")
    if not element.text:
        errors.append(f"line {element.line}, <issue>: it is blank; expected what is wrong, and what would be right")
    if line and not file:
        errors.append(f"line {element.line}, <issue>: it has a line and no file; expected also the file")
    return Issue(
        severity=Severity(told["severity"]),
        text=_clipped(element.text, _MAX_FINDING),
        file=_file(element, file, errors) if file else None,
        line=int(line) if line else None,
        story=_clipped(told.get("story", ""), _MAX_NOTE) or None,
    )


def _triage(root: Node) -> Triage:
    errors: list[str] = []
    triaged: dict[int, Triaged] = {}
    for element in root.children:
        at, number = f"line {element.line}, <concern>", int(element.attributes["number"])
        if number in triaged:
            errors.append(f"{at}: concern {number} stands here twice; expected it once")
        if not element.text:
            errors.append(f"{at}: it is blank; expected the reason, or the answer to the question")
        asks, reason = Asks(element.attributes["asks"]), _clipped(element.text, _MAX_FINDING)
        triaged[number] = Triaged(number=number, asks=asks, reason=reason)
    if errors:
        raise Invalid(*errors)
    return Triage(concerns=tuple(triaged.values()))


def _fix_result(root: Node) -> FixResult:
    errors: list[str] = []
    result = FixResult(status=FixStatus(root.text_of("status")), summary=_summary(root, errors))
    if errors:
        raise Invalid(*errors)
    return result


def _conflict_result(root: Node) -> ConflictResult:
    errors: list[str] = []
    result = ConflictResult(status=ConflictStatus(root.text_of("status")), summary=_summary(root, errors))
    if errors:
        raise Invalid(*errors)
    return result


def _commit_message(root: Node) -> CommitMessage:
    subject, body = _worded(root, "subject", [])
    return CommitMessage(subject=subject, body=body)


def _pr_text(root: Node) -> PrText:
    errors: list[str] = []
    if not re.search(r"\w", root.text_of("body")):
        errors.append(f"line {root.line}, <body>: it holds no word; expected what changes and why, for a reviewer")
    title, body = _worded(root, "title", errors)
    return PrText(title=title, body=body)


def _worded(root: Node, name: str, errors: list[str]) -> tuple[str, str]:
    """The line of this name, and the body; raises what is wrong with them, after the errors that are known."""
    line, body = " ".join(root.text_of(name).split()), root.text_of("body")
    errors += [
        f"line {root.line}, <{name}>: a line begins with 'Storyloop-'; expected no trailer of ours"
        for name, text in ((name, line), ("body", body))
        if _TRAILER.search(text)
    ]
    if not re.search(r"\w", line):
        errors.append(f"line {root.line}, <{name}>: it holds no word; expected what changed, in one line")
    if errors:
        raise Invalid(*errors)
    return line, _clipped(body, _MAX_TEXT)


def _summary(root: Node, errors: list[str]) -> str:
    summary = root.text_of("summary")
    if not summary:
        errors.append(f"line {root.line}, <summary>: it is blank; expected what was done, in a few sentences")
    return _clipped(summary, _MAX_TEXT)


def _file(element: Node, named: str, errors: list[str]) -> str | None:
    path = _inside(named)
    if path is None:
        errors.append(
            f"line {element.line}, <{element.name}>: found '{_clipped(named, 100)}'; "
            "expected a path relative to the worktree's root that stays inside it"
        )
    return path


def _noted(gifts: tuple[Node, ...]) -> NotedKnowledge | None:
    """What can be read of `<knowledge>`; the rest is left out."""
    files, decisions, patterns = (
        [note for gift in gifts for note in gift.named(kind, _MAX_GIVEN)][:_MAX_GIVEN]
        for kind in ("file", "decision", "pattern")
    )
    noted = NotedKnowledge(
        files=tuple([known for note in files if (known := _noted_file(note))]),
        decisions=tuple([known for note in decisions if (known := _noted_decision(note))]),
        patterns=tuple([known for note in patterns if (known := _noted_pattern(note))]),
    )
    return noted if noted.files or noted.decisions or noted.patterns else None


def _noted_file(note: Node) -> NotedFile | None:
    told = note.attributes
    path = _inside(told.get("path", ""))
    if path is None:
        return None
    symbols = [_clipped(text, _MAX_NOTE) for one in note.named("symbol", _MAX_GIVEN) if (text := one.text)]
    return NotedFile(path=path, purpose=_clipped(told.get("purpose", ""), _MAX_NOTE), symbols=tuple(symbols))


def _noted_decision(note: Node) -> NotedDecision | None:
    told = note.attributes
    topic, choice = (_clipped(told.get(name, ""), _MAX_NOTE) for name in ("topic", "choice"))
    if not topic or not choice:
        return None
    return NotedDecision(topic=topic, choice=choice, rationale=_clipped(note.text, _MAX_NOTE))


def _noted_pattern(note: Node) -> NotedPattern | None:
    text = note.text
    if not text:
        return None
    example = _inside(note.attributes.get("example", ""))
    return NotedPattern(description=_clipped(text, _MAX_NOTE), example_file=example)


def _inside(path: str) -> str | None:
    """The path in its shortest form; None unless it is relative and stays inside the worktree."""
    normal = posixpath.normpath(path) if path else "."
    outside = normal in (".", "..") or normal.startswith(("/", "../", "~"))
    return None if outside or "\n" in normal or len(normal) > _MAX_PATH else normal


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


_VALUES: dict[Drain, Callable[[Node], Artifact]] = {
    Drain.PLAN: planned,
    Drain.STORY: _development_result,
    Drain.ANALYSIS: _analysis,
    Drain.REVIEW: _issues,
    Drain.TRIAGE: _triage,
    Drain.FIX: _fix_result,
    Drain.CONFLICT: _conflict_result,
    Drain.COMMIT: _commit_message,
    Drain.PR: _pr_text,
}
