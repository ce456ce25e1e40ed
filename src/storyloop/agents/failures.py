"""Failures: what class of failure a call met, from structure first and from words last.

In this order: the HTTP status that the agent tells; the text of its own error; its exit status, where that means
something; nothing but that it broke. What the agent or its tools wrote is never searched: a project may be about
rate limits. Its stderr is, where the process failed; but tools print there too, so once the model has answered only
lines count that some agent is known to write of itself (`_COMPLAINTS`).
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

from storyloop.agents.stream import Trouble, Turn
from storyloop.core.facts import Failed, Failure
from storyloop.world.process import Exit
from storyloop.world.text import readable, signal_name

_MAX_MESSAGE = 500  # characters
_NO_EXITS: Mapping[int, Failure] = MappingProxyType({})
_UNSTARTED = {126: Failure.MISSING, 127: Failure.MISSING}  # a launcher's word for what it launches: no Node, say
_DECIDED_BEFORE = ("stopped", "orphaned", "failed_to_start")  # by us, or before there was an agent

_STATUSES = {
    400: Failure.CONFIG,
    401: Failure.AUTH,
    402: Failure.LIMIT,
    403: Failure.AUTH,
    404: Failure.CONFIG,
    405: Failure.CONFIG,
    422: Failure.CONFIG,
    429: Failure.LIMIT,
}
_VAGUE = (None, 400, 403, 404, 422)  # providers answer so to anything; their words say more
_STATUS = re.compile(r"(?:^|\bstatus:? |\bcode\"?: ?|\bHTTP |API Error: )([45]\d\d)\b")

# The first that is found decides, so what heals by itself stands before what it is often told with.
_WORDS = (
    (
        Failure.TRANSIENT,
        r"context.?(?:length|window|overflow)|prompt.{0,40}too long|maximum context|connection was closed",
    ),
    (
        Failure.LIMIT,
        r"rate.?limit|(?:usage|session|weekly|hour|your) limit|limit reached|quota|too many requests"
        r"|resource.?exhausted|credit balance|out of credits|insufficient.{0,10}(?:funds|credit|balance)",
    ),
    (
        Failure.AUTH,
        r"(?:invalid|incorrect).{0,10}(?:api.?key|token|credential)|unauthori[sz]ed|unauthenticated|authentication|auth_error"
        r"|logged in|/login|log in\b|token.{0,10}expired|no api.?key",
    ),
    (
        Failure.OFFLINE,
        r"ECONNREFUSED|connection.?refused|ENOTFOUND|EAI_AGAIN|ENETUNREACH|getaddrinfo|name.?resolution"
        r"|network is unreachable|connection_failed|connection +error|connection failed"
        r"|(?:could not|cannot|unable to) connect|fetch failed|waiting for network",
    ),
    (
        Failure.CONFIG,
        r"model.{0,40}(?:not.?found|does not exist|not supported)|(?:unknown|invalid) model|bad.?request"
        r"|invalid_request|unknown option|unexpected argument|cannot be used with root",
    ),
)
_SPOKEN = tuple((failure, re.compile(words, re.IGNORECASE)) for failure, words in _WORDS)

_COMPLAINTS = tuple(
    re.compile(line)
    for line in (
        r"error: failed to run prompt: (?P<word>[\w.]+): (?P<message>.*)",  # Kimi Code
        r"Retrying in \d+s \(attempt \d+/\d+\): (?P<message>.*)",  # Qwen Code
        r"Retrying .* in [\d.]+ seconds as it raised (?P<word>\w+): (?P<message>.*)",  # mini-swe-agent
        r"litellm\.exceptions\.(?P<word>\w+): (?P<message>.*)",  # and where it gives up
        r"(?P<message>Attempt \d+ failed(?: with status \d+)?\. Retrying with backoff.*)",  # Gemini CLI
        # OpenCode
        r'timestamp=\S+ level=ERROR .*\berror\.error(?:\.message)?="(?:(?P<word>\w+): )?(?P<message>(?:[^"\\]|\\.)*)"',
    )
)


def classify(
    turn: Turn, ended: Exit, *, stderr_tail: bytes, now: datetime, exits: Mapping[int, Failure] = _NO_EXITS
) -> Failed | None:
    """The failure of a call that ended, or None where nothing failed, or we ended it on purpose.

    `now` is when it ended, in the zone of the user: agents state resets by the clock on the wall. `exits` are the
    exit statuses that mean something with this agent.
    """
    by_itself = ended.how == "exited" and ended.code == 0
    if ended.how in _DECIDED_BEFORE or (by_itself and turn.finished and turn.trouble is None):
        return None
    timed_out = ended.how in ("idle", "deadline")
    complaint = None if by_itself else _complaint(turn, readable(stderr_tail), timed_out=timed_out)
    told = [trouble for trouble in (turn.trouble, complaint) if trouble is not None]
    said = told[0].message if told else readable(stderr_tail).strip()[-_MAX_MESSAGE:]
    message = f"{_ending(turn, ended)} {said}".strip()
    for trouble in told:
        failure = _class_of(trouble)
        if failure is not None and not (timed_out and failure is Failure.TRANSIENT):
            resets_at = _reset(trouble, now) if failure is Failure.LIMIT else None
            return Failed(failure=failure, message=message[: 2 * _MAX_MESSAGE], resets_at=resets_at)
    meanings = exits if turn.answered else {**_UNSTARTED, **exits}
    failure = meanings.get(ended.code or 0, Failure.TRANSIENT) if ended.how == "exited" else Failure.TRANSIENT
    return Failed(failure=failure, message=message[: 2 * _MAX_MESSAGE], timed_out=timed_out)


def _class_of(trouble: Trouble) -> Failure | None:
    told = _STATUS.search(trouble.message)
    status = trouble.status or (int(told[1]) if told else None)
    if status not in _VAGUE:
        return _STATUSES.get(status, Failure.TRANSIENT)
    text = f"{trouble.word}: {trouble.message}"
    return next((failure for failure, words in _SPOKEN if words.search(text)), _STATUSES.get(status or 0))


def _complaint(turn: Turn, stderr: str, *, timed_out: bool) -> Trouble | None:
    """What a failed agent says on stderr of why."""
    if timed_out and turn.answered and turn.trouble is None and not turn.finished:
        return None  # its model answered, nobody knows whether before or after; plain text is always "finished"
    for line in reversed(stderr.splitlines()):
        found = next((match for complaint in _COMPLAINTS if (match := complaint.match(line))), None)
        if found is not None:
            return Trouble(message=found["message"], word=found.groupdict().get("word") or "")
    return None if turn.answered or not stderr.strip() else Trouble(message=stderr.strip()[-_MAX_MESSAGE:])


def _ending(turn: Turn, ended: Exit) -> str:
    match ended.how:
        case "idle":
            return "It did nothing for too long and was ended."
        case "deadline":
            return "It took too long and was ended."
        case "spool_cap":
            return "It printed more than is kept and was ended."
        case _ if ended.signal is not None:
            return f"It was killed by {signal_name(ended.signal)}."
        case _ if ended.code:
            return f"It ended with exit status {ended.code}."
        case _ if turn.finished or turn.trouble:
            return "It failed, whatever its exit status says."
        case _ if turn.denied:
            return f"Its turn broke off after it was refused {', '.join(turn.denied)}."
        case _:
            return "Its turn broke off."


# --- when a limit ends ---

_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 0.001}
_PIECE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*(ms|[wdhms])", re.IGNORECASE)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def _epoch(found: re.Match[str], _: datetime) -> datetime:
    return datetime.fromtimestamp(int(found["epoch"]), UTC)


def _iso(found: re.Match[str], _: datetime) -> datetime:
    return datetime.fromisoformat(found["iso"])


def _in_seconds(found: re.Match[str], now: datetime) -> datetime:
    return now + timedelta(seconds=float(found["seconds"]))


def _after(found: re.Match[str], now: datetime) -> datetime:
    return now + timedelta(seconds=sum(float(n) * _UNITS[unit.lower()] for n, unit in _PIECE.findall(found["span"])))


def _at_clock(found: re.Match[str], now: datetime) -> datetime:
    """The next time that a clock shows this; on the day that is named, if one is."""
    here = now.astimezone(ZoneInfo(found["zone"])) if found["zone"] else now
    hour = int(found["hour"]) % 12 + (12 if found["half"].lower() == "pm" else 0)
    moment = here.replace(hour=hour, minute=int(found["minute"] or 0), second=0, microsecond=0)
    if not found["month"]:
        return moment if moment > here else moment + timedelta(days=1)
    month = _MONTHS.index(found["month"].lower()) + 1
    moment = moment.replace(year=int(found["year"] or here.year), month=month, day=int(found["day"]))
    return moment if found["year"] or moment > here else moment.replace(year=here.year + 1)


_STATEMENTS: tuple[tuple[str, Callable[[re.Match[str], datetime], datetime]], ...] = (
    (r"(?:reached\||resets?_?at\W{1,4})(?P<epoch>\d{10})\b", _epoch),
    (r"(?:resets_in_seconds|retry.?after|retryDelay)\W{1,5}(?P<seconds>\d{1,7}(?:\.\d{1,6})?)", _in_seconds),
    (
        r"resets?_?(?: ?at)?\W{1,4}(?P<iso>\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d))",
        _iso,
    ),
    (
        r"(?:try again|retry|resets?|available|wait) (?:in |after )?"
        r"(?P<span>\d[\d.]*\s*[wdhms][a-z]*(?:[\s,]*(?:and )?\d[\d.]*\s*[wdhms][a-z]*)*)",
        _after,
    ),
    (
        r"(?:resets?|try again)(?: at| on)? "
        r"(?:(?P<month>[a-z]{3})[a-z]* (?P<day>\d{1,2})(?:st|nd|rd|th)?,?(?: (?P<year>\d{4}),?)?(?: at)? )?"
        r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d))? ?(?P<half>[ap]m)\b(?: \((?P<zone>[\w/+-]+)\))?",
        _at_clock,
    ),
)
_RESETS = tuple((re.compile(words, re.IGNORECASE), moment) for words, moment in _STATEMENTS)


def _reset(trouble: Trouble, now: datetime) -> datetime | None:
    """When the limit ends, if that is stated."""
    if trouble.resets_at is not None:
        return trouble.resets_at.astimezone(UTC)
    if trouble.retry_after is not None:
        return (now + timedelta(seconds=trouble.retry_after)).astimezone(UTC)
    for words, moment in _RESETS:
        found = words.search(trouble.message)
        try:
            if found is not None:
                return moment(found, now).astimezone(UTC)
        except (ValueError, KeyError):
            continue  # a 30th of February, a zone that is none: not stated
    return None
