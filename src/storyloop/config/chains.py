"""Who can be asked: the agents as all layers together describe them, and the chains that name them.

A built-in agent needs no description: a chain may simply name it.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import msgspec

from storyloop.config.kinds import nearest
from storyloop.config.layers import DEFAULT, Said
from storyloop.config.settings import PROFILES, SPEAK_ACP, WrittenKind
from storyloop.core.policy import AgentKind, AgentRef, AgentSpec, Drain, Policy, Rung, agents_of

_OWED = {
    WrittenKind.COMMAND: ("command", '["./my-agent", "--yes"]'),
    WrittenKind.SCRIPT: ("script", '"turns.toml"'),
    WrittenKind.ACP: ("command", '["my-agent", "--acp"], the command of an agent that speaks ACP'),
}
_LADDER = "escalation.attempts"
_KINDS = 'kind = "command" (any program), "acp" (any ACP agent) or "script" (a file of turns)'


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """The agents of all layers, and the built-in ones that a chain names."""

    agents: Mapping[str, object]
    broken: frozenset[str]  # already objected to


def described_agents(said: Said, root: Path | None) -> Described:
    """Put the agents together, and object to those that make no sense."""
    fields_of: dict[str, dict[str, object]] = {}
    for key, value in said.values.items():
        if key.startswith("agents."):
            _, name, field = key.split(".")
            fields_of.setdefault(name, {})[field] = value
    agents: dict[str, object] = {}
    broken = {key.split(".")[1] for key in said.unfit if key.startswith("agents.")}
    for name, fields in fields_of.items():
        if name in broken:
            continue
        kind = fields.get("kind")
        is_built_in = name in PROFILES and (kind is None or (kind is WrittenKind.ACP and "command" not in fields))
        by_name = {"profile": name} if is_built_in else {}
        agent = {"kind": AgentKind.PROFILE, **by_name, **fields}
        if fault := _fault(name, agent, kind=kind):
            origin = next(place for key, place in said.origins.items() if key.startswith(f"agents.{name}."))
            said.object_to(origin, *fault)
            broken.add(name)
        else:
            agents[name] = agent | {part: _placed(agent[part], root) for part in ("command", "script") if part in agent}
    unsaid = {name: spec for name, spec in built_in(_chains(said)).items() if name not in fields_of}
    return Described(agents={**agents, **unsaid}, broken=frozenset(broken))


def built_in(chains: Mapping[str, tuple[AgentRef, ...]]) -> dict[str, AgentSpec]:
    """The agents that these chains name and that need no entry."""
    named = (ref.agent for chain in chains.values() for ref in chain)
    return {name: AgentSpec(kind=AgentKind.PROFILE, profile=name) for name in named if name in PROFILES}


def _chains(said: Said) -> dict[str, tuple[AgentRef, ...]]:
    keys = ("chains.default", *(f"drains.{drain}" for drain in Drain))
    chains = {key: cast("tuple[AgentRef, ...]", said.values[key]) for key in keys if key in said.values}
    return chains | {_LADDER: agents_of(cast("tuple[Rung, ...]", said.values.get(_LADDER, ())))}


def _fault(name: str, agent: Mapping[str, object], *, kind: object) -> tuple[str, str] | None:
    """What is wrong with the agent, and the cure."""
    profile = agent.get("profile")
    if profile is not None and profile not in PROFILES:
        likely = nearest(str(profile), PROFILES)
        cure = f"Did you mean {likely}?" if likely else f"Built in are {', '.join(PROFILES)}."
        return f"agents.{name} has the profile {profile}, but no such agent is built in.", cure
    if kind is None and profile is None:
        return f"agents.{name} has no kind.", f'Write {_KINDS}, or profile = "claude" for a built-in agent.'
    if profile is not None and kind in (WrittenKind.COMMAND, WrittenKind.SCRIPT):
        return f'agents.{name} is of kind "{kind}", but has a profile.', "Remove one of the two."
    if profile is not None and kind is WrittenKind.ACP and profile not in SPEAK_ACP:
        return f"agents.{name} is {profile}, which does not speak ACP.", 'Remove kind = "acp".'
    owed, example = ("profile", "") if kind is None else _OWED[WrittenKind(kind)]
    if owed not in agent and profile is None:
        return f'agents.{name} is of kind "{kind}", but has no {owed}.', f"Write {owed} = {example}."
    what = f"is the built-in agent {profile}" if profile is not None else f'is of kind "{kind}"'
    for other in ("command", "script"):
        if other in agent and (other != owed or profile is not None):
            cure = "Remove one of the two." if profile is None else f"Remove it, or give the agent a kind: {_KINDS}."
            return f"agents.{name} {what}, but has a {other}.", cure
    return None


def _placed(program_or_script: object, root: Path | None) -> object:
    """A program that is named by its path, and a script, stand in the user's checkout, not in a worktree."""
    if isinstance(program_or_script, str):
        return _absolute(program_or_script, root)
    program, *arguments = cast("tuple[str, ...]", program_or_script)
    return (_absolute(program, root) if "/" in program else program, *arguments)


def _absolute(path: str, root: Path | None) -> str:
    return os.path.normpath((root or Path()).absolute() / Path(path).expanduser())


def check_chains(policy: Policy, described: Described, said: Said) -> None:
    """Object to agents that nobody described and that are not built in."""
    for key, name in _named(policy):
        if name not in policy.agents and name not in described.broken:
            origin = said.origins.get(key, DEFAULT)
            what = f"{key} names {name}, but there is no such agent."
            said.object_to(origin, what, _cure_for_agent(name, described))


def _named(policy: Policy) -> Iterator[tuple[str, str]]:
    chains = {"chains.default": policy.chain, **{f"drains.{d}": refs for d, refs in policy.drains.items()}}
    for key, chain in (chains | {_LADDER: agents_of(policy.escalation)}).items():
        for name in dict.fromkeys(ref.agent for ref in chain):
            yield key, name


def _cure_for_agent(wrong: str, described: Described) -> str:
    own = dict.fromkeys((*described.agents, *sorted(described.broken)))
    if likely := nearest(wrong, own) or nearest(wrong, PROFILES):
        return f"Did you mean {likely}? A new agent is described in [agents.{wrong}] with {_KINDS}."
    listed = f"Described are {', '.join(own)}. " if own else ""
    return f"{listed}Built in are {', '.join(PROFILES)}. Describe it in [agents.{wrong}] with {_KINDS}."
