"""Interactive sessions: how an agent is started where the user sits, with something said to it first."""

from typing import NamedTuple

from storyloop.agents.profile import MODEL, filled, spliced
from storyloop.agents.profiles import PROFILES
from storyloop.core.policy import AgentKind, AgentRef, AgentSpec, Drain


class Session(NamedTuple):
    """What is started, and the variables that are set besides the user's own."""

    argv: tuple[str, ...]
    env: dict[str, str]


def session_with(ref: AgentRef, agent: AgentSpec, *, opening: str) -> Session | None:
    """The session with this agent that begins with `opening`; None when it has no interactive mode."""
    model = ref.model or agent.model or ""
    match agent.kind:
        case AgentKind.COMMAND:
            told = {
                "STORYLOOP_DRAIN": Drain.PLAN.value,
                "STORYLOOP_MODE": "interactive",
                "STORYLOOP_MODEL": model,
                "STORYLOOP_PROMPT": opening,
            }
            return Session(agent.command, agent.env | told)
        case AgentKind.PROFILE if argv := PROFILES[agent.profile or ref.agent].interactive:
            profile = PROFILES[agent.profile or ref.agent]
            words = {"model": model, "prompt": opening}
            told = spliced(argv, {MODEL: profile.model if model else ()})
            return Session((profile.program, *(filled(word, words) for word in told)), agent.env)
        case _:
            return None
