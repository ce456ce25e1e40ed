"""Playing a turn: the one interpretation of a script's steps, on whatever stage.

A stage is real files and processes (`scripted`), or an in-memory worktree (`memory`). Paths are bytes, relative to
the worktree's root, because not every name is text.
"""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

from storyloop.agents.script import Script, Step, Turn, data_of, path_of, turn_for
from storyloop.core.errors import UserError

# Exit statuses of our own, besides those that a script asks for.
NO_TURN = 2
CANNOT_PLAY = 70
_PIECE = 1 << 16  # bytes


class Stage(Protocol):
    """What a turn is played on."""

    def read(self, path: bytes) -> bytes:
        """The file's bytes; none where there is no file."""
        ...

    def write(self, path: bytes, data: bytes) -> None: ...
    def delete(self, path: bytes) -> None: ...
    def rename(self, path: bytes, to: bytes) -> None: ...
    def symlink(self, path: bytes, target: bytes) -> None: ...
    def chmod(self, path: bytes, mode: int) -> None: ...
    def run(self, line: str) -> None: ...
    def sleep(self, seconds: float) -> None: ...
    def print(self, data: bytes, *, to: str) -> None: ...

    def answer(self, data: bytes) -> None:
        """Put the artifact where it belongs."""
        ...

    def report(self, facts: dict[str, Any], *, resets_in: float | None) -> None:
        """Add to the report; `resets_in` seconds from now is when the failure's limit ends."""
        ...

    def hang(self) -> NoReturn: ...
    def crash(self) -> NoReturn: ...

    def leave(self, seconds: float, *, detached: bool, stubborn: bool) -> None:
        """Leave a child behind that lives so long; in a session of its own; deaf to SIGTERM."""
        ...


def play(load: Callable[[], Script], asked: Mapping[str, str], stage: Stage) -> int:
    """Play the turn for what was asked; the exit status comes back, if the turn gets to an end.

    Without a script or a turn for it, the report says so: that is the configuration's fault. A step that cannot be
    done ends the turn.
    """
    try:
        turn = turn_for(load(), asked)
    except UserError as error:
        stage.print(f"{error}\n".encode(), to="stderr")
        stage.report({"failure": {"class": "config", "message": str(error)}}, resets_in=None)
        return NO_TURN
    try:
        return _play(turn, stage, story=asked["story"])
    except OSError as error:
        stage.print(f"The script cannot go on: {error}\n".encode(), to="stderr")
        return CANNOT_PLAY


def _play(turn: Turn, stage: Stage, *, story: str) -> int:
    for step in turn.steps:
        match step:
            case {"write": name}:
                stage.write(path_of(name), data_of(step))
            case {"append": name}:
                stage.write(path_of(name), stage.read(path_of(name)) + data_of(step))
            case {"edit": name, "find": find, "replace": replace}:
                text = stage.read(path_of(name))
                if find.encode() not in text:
                    raise FileNotFoundError(f"{name} does not hold {find!r}")
                stage.write(path_of(name), text.replace(find.encode(), replace.encode()))
            case {"delete": name}:
                stage.delete(path_of(name))
            case {"rename": name, "to": to}:
                stage.rename(path_of(name), path_of(to))
            case {"symlink": name, "to": to}:
                stage.symlink(path_of(name), path_of(to))
            case {"chmod": name, "mode": mode}:
                stage.chmod(path_of(name), int(mode, 8))
            case {"run": line}:
                stage.run(line)
            case {"sleep": seconds}:
                stage.sleep(seconds)
            case {"print": text}:
                _print(step, text.encode(), stage)
            case {"answer": status}:
                _answer(step, _development_result(step, status), stage)
            case {"analysis": judged}:
                _answer(step, _analysis(judged, story), stage)
            case {"triage": judged}:
                _answer(step, _triage(judged), stage)
            case {"review": found}:
                _answer(step, _issues(found), stage)
            case {"fix": status}:
                _answer(step, _result("fix", status, step), stage)
            case {"conflict": status}:
                _answer(step, _result("conflict", status, step), stage)
            case {"commit": subject}:
                body = f"<body>{_xml(step['body'])}</body>" if "body" in step else ""
                message = f"<commit-message><subject>{_xml(subject)}</subject>{body}</commit-message>\n"
                _answer(step, message.encode(), stage)
            case {"garbage": text}:
                _answer(step, data_of(step, text), stage)
            case {"usage": usage}:
                stage.report({"usage": usage}, resets_in=None)
            case {"session": session}:
                stage.report({"session_id": session}, resets_in=None)
            case {"fail": failure}:
                told = {name: step[name] for name in ("message", "resets_at") if name in step}
                stage.report({"failure": {"class": failure, **told}}, resets_in=step.get("resets_in"))
            case {"exit": code}:
                return code
            case {"hang": _}:
                stage.hang()
            case {"crash": _}:
                stage.crash()
            case {"leave": seconds}:
                for _ in range(step.get("count", 1)):
                    stage.leave(seconds, detached="detached" in step, stubborn="stubborn" in step)
            case _:
                raise AssertionError(step)
    return 0


def _print(step: Step, text: bytes, stage: Stage) -> None:
    """Once, or over and over up to a number of bytes."""
    to = step.get("to", "stdout")
    if "bytes" not in step:
        return stage.print(text, to=to)
    piece = text * max(1, _PIECE // max(1, len(text)))
    for start in range(0, step["bytes"], max(1, len(piece))):
        stage.print(piece[: step["bytes"] - start], to=to)
    return None


def _answer(step: Step, data: bytes, stage: Stage) -> None:
    if step.get("to") == "stdout":
        stage.print(data, to="stdout")
    else:
        stage.answer(data)


def _development_result(step: Step, status: str) -> bytes:
    parts = [f"<status>{status}</status>", f"<summary>{_xml(step.get('summary', 'As scripted.'))}</summary>"]
    if "files" in step:
        files = "".join(f"<file>{_xml(file)}</file>" for file in step["files"])
        parts.append(f"<files-changed>{files}</files-changed>")
    if "next_steps" in step:
        parts.append(f"<next-steps>{_xml(step['next_steps'])}</next-steps>")
    if "knowledge" in step:
        parts.append(f"<knowledge>{step['knowledge']}</knowledge>")
    if "question" in step:
        options = "".join(f"<option>{_xml(option)}</option>" for option in step.get("options", ()))
        default = _xml(step.get("default", "")).replace('"', "&quot;")
        parts.append(f'<question default="{default}">{_xml(step["question"])}{options}</question>')
    return "\n".join(("<development-result>", *parts, "</development-result>\n")).encode()


def _result(name: str, status: str, step: Step) -> bytes:
    summary = _xml(step.get("summary", "As scripted."))
    return f"<{name}-result><status>{status}</status><summary>{summary}</summary></{name}-result>\n".encode()


def _analysis(judged: list[dict[str, Any]], story: str) -> bytes:
    """Each judgement a table of `number`, and else of `verdict`, `evidence`, `story`."""
    said = [{"story": story, "verdict": "met", "evidence": "a.txt:1", **one} for one in judged]
    criteria = [
        f'<criterion story="{_xml(one["story"])}" number="{_xml(one["number"])}" verdict="{_xml(one["verdict"])}">'
        f"{_xml(one['evidence'])}</criterion>"
        for one in said
    ]
    return f"<analysis>{''.join(criteria)}</analysis>\n".encode()


def _triage(judged: list[dict[str, Any]]) -> bytes:
    """Each concern, in order, a table of `asks` and `reason`."""
    said = [{"number": number, "asks": "real", "reason": "it is so", **one} for number, one in enumerate(judged, 1)]
    concerns = [
        f'<concern number="{_xml(one["number"])}" asks="{_xml(one["asks"])}">{_xml(one["reason"])}</concern>'
        for one in said
    ]
    return f"<triage>{''.join(concerns)}</triage>\n".encode()


def _issues(found: list[dict[str, Any]]) -> bytes:
    """Each issue a table of `text` and what else is said of it: severity, file, line, story."""
    said = [{"severity": "major", **issue} for issue in found]
    attributes = [" ".join(f'{name}="{_xml(value)}"' for name, value in i.items() if name != "text") for i in said]
    issues = [f"<issue {told}>{_xml(i['text'])}</issue>" for told, i in zip(attributes, said, strict=True)]
    return f"<issues>{''.join(issues) or '<none/>'}</issues>\n".encode()


def _xml(text: object) -> str:
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
