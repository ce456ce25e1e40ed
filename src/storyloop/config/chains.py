"""Who can be asked: the agents as all layers together describe them, and the chains that name them.

This version runs programs and scripts. An agent that it cannot run is an error only where it would have to be
asked; elsewhere it is a warning, so that a file may already say what a later version needs.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec

from storyloop.config.layers import DEFAULT, Said
from storyloop.config.settings import PROFILES, WrittenKind, lookup, nearest
from storyloop.core.policy import Policy

_OWED = {"command": '["./my-agent", "--yes"]', "script": '"turns.toml"'}
_KINDS = 'kind = "command" (any program) or kind = "script" (a file of turns)'


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """The agents of all layers: what is known of those that can be run, and why the others cannot."""

    agents: Mapping[str, object]
    unready: dict[str, str]
    broken: frozenset[str]  # already objected to


def described_agents(said: Said, root: Path | None) -> Described:
    """Put the agents together, and object to those that make no sense."""
    fields_of: dict[str, dict[str, object]] = {}
    for key, value in said.values.items():
        if key.startswith("agents."):
            _, name, field = key.split(".")
            fields_of.setdefault(name, {})[field] = value
    agents: dict[str, dict[str, object]] = {}
    unready: dict[str, str] = {}
    broken = {key.split(".")[1] for key in said.unfit if key.startswith("agents.")}
    for name, fields in fields_of.items():
        kind = fields.get("kind")
        if name in broken:
            continue
        if kind is WrittenKind.ACP:
            unready[name] = f'{name} is of kind "acp", which is not built yet in this version'
        elif kind is None and name in PROFILES:
            unready[name] = _profile_missing(name)
        elif fault := _fault(name, kind, fields):
            origin = next(place for key, place in said.origins.items() if key.startswith(f"agents.{name}."))
            said.object_to(origin, *fault)
            broken.add(name)
        else:
            agents[name] = {**fields, str(kind): _placed(fields[str(kind)], root)}
    return Described(agents=agents, unready=unready, broken=frozenset(broken))


def _fault(name: str, kind: object, fields: Mapping[str, object]) -> tuple[str, str] | None:
    """What is wrong with the agent, and the cure."""
    if kind is None:
        return f"agents.{name} has no kind.", f"Write {_KINDS}."
    if str(kind) not in fields:
        return f'agents.{name} is of kind "{kind}", but has no {kind}.', f"Write {kind} = {_OWED[str(kind)]}."
    for other in _OWED:
        if other in fields and other != kind:
            return f'agents.{name} is of kind "{kind}", but has a {other}.', "Remove one of the two."
    return None


def _profile_missing(name: str) -> str:
    return f"the built-in profile of {name} is not built yet in this version"


def _placed(program_or_script: object, root: Path | None) -> object:
    """A program that is named by its path, and a script, stand in the user's checkout, not in a worktree."""
    if isinstance(program_or_script, str):
        return _absolute(program_or_script, root)
    program, *arguments = cast("tuple[str, ...]", program_or_script)
    return (_absolute(program, root) if "/" in program else program, *arguments)


def _absolute(path: str, root: Path | None) -> str:
    return os.path.normpath((root or Path()).absolute() / Path(path).expanduser())


def check_chains(policy: Policy, described: Described, said: Said) -> None:
    """Object to agents that nobody described, and to those that this version cannot run but would have to."""
    chains = {"chains.default": policy.chain, **{f"drains.{d}": refs for d, refs in policy.drains.items()}}
    for key, chain in chains.items():
        for name in dict.fromkeys(ref.agent for ref in chain):
            if name not in policy.agents and name not in described.broken:
                _object_to_agent(key, name, described=described, said=said)
    named = {ref.agent for chain in chains.values() for ref in chain}
    for name, why in described.unready.items():
        if name not in named:
            said.warnings.append(f"agents.{name} is set aside: {why}.")


def _object_to_agent(key: str, name: str, *, described: Described, said: Said) -> None:
    why = described.unready.get(name) or (_profile_missing(name) if name in PROFILES else None)
    origin = said.origins.get(key, DEFAULT)
    setting = lookup(key)
    if why is None:
        said.object_to(origin, f"{key} names {name}, but there is no such agent.", _cure_for_agent(name, described))
    elif setting is not None and setting.later:
        said.warnings.append(f"{key} names {name}: {why}.")
    else:
        cure = f"Until then describe a program of your own in [agents.NAME]: {_KINDS}."
        said.object_to(origin, f"{key} names {name}: {why}.", cure)


def _cure_for_agent(wrong: str, described: Described) -> str:
    known = (*described.agents, *sorted(described.broken))
    if likely := nearest(wrong, known):
        return f"Did you mean {likely}? A new agent is described in [agents.{wrong}] with {_KINDS}."
    listed = f"Described are {', '.join(known)}. " if known else ""
    return f"{listed}Describe it in [agents.{wrong}] with {_KINDS}."
