"""Built-in agents: a call of a CLI by its profile, or of any agent by ACP, and what its stream came to."""

import shutil
import uuid
from collections.abc import Mapping
from datetime import datetime
from io import BytesIO
from pathlib import Path

import msgspec

from storyloop.agents.acp import HOST, host_order
from storyloop.agents.dialects import dialect_named
from storyloop.agents.failures import classify
from storyloop.agents.metering import metered
from storyloop.agents.outcome import Traces, answered, settled
from storyloop.agents.prices import price
from storyloop.agents.profile import (
    DIRECTORIES,
    MODEL,
    PERMISSION,
    PROMPT_FILE,
    READ_PROMPT,
    SESSION,
    Named,
    Profile,
    Prompt,
    filled,
    spliced,
)
from storyloop.agents.profiles import PROFILES
from storyloop.agents.reading import glance, read_stream
from storyloop.agents.start import Start
from storyloop.agents.stream import Turn
from storyloop.core.facts import CallReport, Failed, Failure, Outcome
from storyloop.core.policy import AgentKind, AgentSpec
from storyloop.core.usage import Usage
from storyloop.ports.agents import CallOrder
from storyloop.world.files import PRIVATE
from storyloop.world.process import Exit
from storyloop.world.text import readable

_MAX_SNIPPET = 2_000  # characters
_MAX_QUOTE = 100


def is_known(agent: AgentSpec) -> bool:
    """Whether its stream is one that we can read."""
    return agent.kind in (AgentKind.PROFILE, AgentKind.ACP)


# --- the start ---


def start(order: CallOrder, *, fenced: bool, directories: tuple[str, ...]) -> Start:
    """How the CLI is started; the prompt is on its stdin or in a file, never an argument."""
    profile = _profile(order)
    permission = profile.fenced if fenced else profile.alone
    session = order.session or _own_session(order, profile)
    private = f"{order.worktree}/{PRIVATE}"
    words = {"session": session or "", "model": _model(order) or "", "private": private, "prompt": READ_PROMPT}
    parts = {
        SESSION: profile.resume if order.session else profile.begin,
        MODEL: profile.model if _model(order) else (),
        PERMISSION: permission.argv,
        DIRECTORIES: tuple(filled(word, {"directory": path}) for path in directories for word in profile.directory),
    }
    prompt = order.prompt.encode("utf-8", "replace")
    by_stdin = profile.prompt is Prompt.STDIN
    return Start(
        argv=(profile.program, *(filled(word, words) for word in spliced(profile.argv, parts))),
        stdin=prompt if by_stdin else None,
        env=_settings(profile.env | permission.env, words | {"objects": str(_objects(Path(order.worktree)))}),
        pass_env=profile.passed(),
        papers=_papers(profile) | ({} if by_stdin else {PROMPT_FILE: prompt}),
    )


def start_host(order: CallOrder, *, fenced: bool, directories: tuple[str, ...]) -> Start:
    """How the host of an ACP agent is started; a built-in one gets its settings as its CLI would."""
    argv = (*HOST,)
    if order.agent.profile is None:
        return Start(argv=argv, stdin=host_order(order, fenced=fenced, writable=directories))
    profile = _profile(order)
    told = msgspec.structs.replace(order, agent=msgspec.structs.replace(order.agent, command=profile.acp))
    return Start(
        argv=argv,
        stdin=host_order(told, fenced=fenced, writable=directories),
        env=_settings(profile.env | (profile.fenced.env if fenced else {}), {"private": f"{order.worktree}/{PRIVATE}"}),
        pass_env=profile.passed(),
        papers=_papers(profile),
    )


def _profile(order: CallOrder) -> Profile:
    return PROFILES[order.agent.profile or order.ref.agent]


def _model(order: CallOrder) -> str | None:
    return order.ref.model or order.agent.model


def _own_session(order: CallOrder, profile: Profile) -> str | None:
    """The id that we give a new session: derived, so that it is known even of a call that told nothing."""
    if profile.named is not Named.BY_US:
        return None
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"storyloop:{order.run_id}/{order.key}"))


def _settings(env: Mapping[str, str], words: Mapping[str, str]) -> dict[str, str]:
    return {name: filled(value, words) for name, value in env.items()}


def _objects(worktree: Path) -> Path:
    """Where the repository keeps its objects: beside the registration that a linked worktree's `.git` names."""
    link = worktree / ".git"
    directory = Path(link.read_text().removeprefix("gitdir: ").strip()).parents[1] if link.is_file() else link
    return directory / "objects"


def _papers(profile: Profile) -> dict[str, bytes]:
    return {name: text.encode() for name, text in profile.papers.items()}


# --- the end ---


def glimpse(order: CallOrder, stdout: Path, since: int) -> tuple[str | None, int]:
    """The newest thing that it was seen doing behind byte `since`, and the byte to look from next time."""
    with stdout.open("rb") as spool:
        seen, looked_to = glance(spool, dialect_named(_dialect(order)), since)
    return (seen.text or None) if seen is not None else None, looked_to


def report_of(order: CallOrder, ended: Exit, traces: Traces) -> CallReport:
    """The report of a call whose process has ended; raises `OperatorError` where it never ran because of us."""
    turn = read_stream(traces.stdout, dialect_named(_dialect(order)))
    session = _session(order, turn)
    used, cost = metered(order, turn, session=session, at=ended.ended_at)
    usage = None if used is None else _named(used, turn.model or _model(order))
    said = turn.answer or readable(traces.stdout_tail)
    _tidy(order)
    return CallReport(
        outcome=_outcome(order, ended, traces, turn),
        session=session,
        usage=usage,
        cost_usd=price(usage) if cost is None and usage is not None else cost,
        seconds=ended.ended_at - ended.started_at,
        snippet=said[-_MAX_SNIPPET:],
        leftovers=ended.leftovers,
    )


def _dialect(order: CallOrder) -> str:
    return "acp" if order.agent.kind is AgentKind.ACP else _profile(order).dialect


def _session(order: CallOrder, turn: Turn) -> str | None:
    """The session that can be taken up again: as it tells, or as we named it once its model has said anything."""
    if turn.session is not None or not turn.answered:
        return turn.session
    if order.agent.kind is AgentKind.ACP:
        return order.session
    return order.session or _own_session(order, _profile(order))


def _named(usage: Usage, model: str | None) -> Usage:
    return msgspec.structs.replace(usage, model=usage.model or model)


def _outcome(order: CallOrder, ended: Exit, traces: Traces, turn: Turn) -> Outcome:
    profile = PROFILES[order.agent.profile] if order.agent.profile else None
    program = profile.program if profile else order.agent.command[0]
    if (outcome := settled(order, ended, program)) is not None:
        return outcome
    now = datetime.fromtimestamp(ended.ended_at).astimezone()
    exits = profile.exits if profile and order.agent.kind is AgentKind.PROFILE else {}
    failed = classify(turn, ended, stderr_tail=traces.stderr_tail, now=now, exits=exits)
    if failed is not None:
        cure = _cure(order, failed, turn, profile=profile, stdout_tail=traces.stdout_tail)
        return msgspec.structs.replace(failed, message=f"{failed.message} {cure}") if cure else failed
    refused = ", ".join(dict.fromkeys(turn.denied))
    hint = f"The agent was refused what nobody could permit: {refused}." if refused else ""
    return answered(order, traces.artifact, BytesIO(turn.answer.encode("utf-8", "replace")), hint=hint)


def _cure(order: CallOrder, failed: Failed, turn: Turn, *, profile: Profile | None, stdout_tail: bytes) -> str:
    """What a person can do about it."""
    where = f"[agents.{order.ref.agent}]"
    if failed.failure is Failure.AUTH:
        keys = f", or set {' or '.join(profile.keys)}" if profile and profile.keys else ""
        return f"Start {profile.program if profile else order.ref.agent} once by hand to log in{keys}."
    if failed.failure is Failure.CONFIG:
        return f"Correct the model or {where} in your configuration."
    if failed.failure is Failure.TRANSIENT and not turn.answered and (turn.unknown or turn.broken):
        last = readable(stdout_tail).strip().rpartition("\n")[2][:_MAX_QUOTE]
        return f"It printed what we do not know ({last}): `storyloop agents` tells whether its version was ever seen."
    return ""


def _tidy(order: CallOrder) -> None:
    """Remove what the CLI keeps for itself in the worktree's root, which would be part of the next tree."""
    if order.agent.kind is AgentKind.PROFILE:
        for name in _profile(order).litter:
            shutil.rmtree(Path(order.worktree, name), ignore_errors=True)  # what stays is seen in the tree
