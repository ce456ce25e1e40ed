"""Configuration: defaults, the user's file, the repository's file and flags become one `Policy`.

What comes out is frozen for a run, and remembers where each value came from. Everything that is wrong is found
before anything is reported.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec

from storyloop.config.chains import Described, built_in, check_chains, described_agents
from storyloop.config.files import ConfigErrors, Problem, read_text
from storyloop.config.kinds import literal
from storyloop.config.layers import DEFAULT, NO_FLAGS, Document, Flags, Origin, Said, Source, say_document, say_flags
from storyloop.config.settings import SETTINGS, cure_for, default_of, is_section, lookup, place_in_policy, value_in
from storyloop.core.policy import Command, NotifyPolicy, Policy
from storyloop.ports.texts import Secrets

REPOSITORY_FILE = "storyloop.toml"


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, and how it came about. `values` and `origins` hold what somebody said, by dotted key.

    What it says of `notify` stands apart: a policy is journaled, and addresses are secrets.
    """

    policy: Policy
    notify: NotifyPolicy
    values: dict[str, object]
    origins: dict[str, Origin]
    warnings: tuple[str, ...] = ()


def user_file(environ: Mapping[str, str]) -> Path:
    """The user's own file, whether it is there or not."""
    if named := environ.get("STORYLOOP_CONFIG"):
        return Path(named)
    xdg = Path(environ.get("XDG_CONFIG_HOME", ""))
    if xdg.is_absolute():  # the XDG specification has relative ones ignored
        return xdg / "storyloop" / "config.toml"
    if sys.platform == "darwin":
        from platformdirs import user_config_path

        return user_config_path("storyloop", appauthor=False) / "config.toml"
    return Path(environ.get("HOME") or Path.home(), ".config", "storyloop", "config.toml")


def documents(*, root: Path | None, environ: Mapping[str, str]) -> tuple[Document, ...]:
    """The files to lay over each other. `root` is the checkout's; None outside of any."""
    user = _document(Source.USER, user_file(environ))
    return (user,) if root is None else (user, _document(Source.REPOSITORY, root / REPOSITORY_FILE))


def _document(source: Source, path: Path) -> Document:
    try:
        return Document(source=source, path=path, text=read_text(path))
    except ConfigErrors as error:
        return Document(source=source, path=path, text=None, problems=error.problems)


def load(*, root: Path | None, environ: Mapping[str, str], flags: Flags = NO_FLAGS) -> Loaded:
    """The policy that holds in this checkout now. Raises `ConfigErrors` with all that is wrong."""
    files = documents(root=root, environ=environ)
    loaded = resolve(files, root=root, flags=flags)
    named = environ.get("STORYLOOP_CONFIG")
    if named and files[0].text is None:
        missing = f"STORYLOOP_CONFIG names {named}, and there is no such file: it says nothing."
        return msgspec.structs.replace(loaded, warnings=(missing, *loaded.warnings))
    return loaded


def resolve(files: Sequence[Document], *, root: Path | None, flags: Flags = NO_FLAGS) -> Loaded:
    """Lay the files and flags over the defaults. Raises `ConfigErrors` with all that is wrong."""
    said = Said()
    for document in files:
        say_document(document, said)
    say_flags(flags, said)
    described = described_agents(said, root)
    policy = _assembled(said, agents=described.agents, no_wait=flags.no_wait, step=bool(flags.step))
    if not said.unread:  # else agents would be missed that the unread file describes
        check_chains(policy, described, said)
    if said.problems:
        raise ConfigErrors(said.problems)
    most = max(1, policy.limits.continuations)
    if len(policy.escalation) > most:
        said.warnings.append(
            f"escalation.attempts has {len(policy.escalation)} entries, but limits.continuations allows"
            f" {most}: what is behind them is never reached."
        )
    later = [key for key in said.origins if (setting := lookup(key)) and setting.later]
    if later:
        said.warnings.append(f"Kept, but without effect in this version: {', '.join(later)}.")
    notify, policy = policy.notify, msgspec.structs.replace(policy, notify=NotifyPolicy())
    return Loaded(policy=policy, notify=notify, values=said.values, origins=said.origins, warnings=tuple(said.warnings))


def refuse_secrets(loaded: Loaded, secrets: Secrets) -> None:
    """Raises `ConfigErrors` for values with a secret in them: a policy is journaled, and an agent needs it as it is."""
    found = [
        Problem(
            file=loaded.origins[key].file,
            line=loaded.origins[key].line,
            what=f"{key} holds a secret ({', '.join(names)}), which would be stored in plain text.",
            cure="Name a variable of yours in `pass_env` instead, or let the program read it from a file.",
        )
        for key, value in loaded.values.items()
        if not key.startswith("notify.") and (names := _secrets_in(value, secrets))
    ]
    if found:
        raise ConfigErrors(found)


def _secrets_in(value: object, secrets: Secrets) -> list[str]:
    given = value.env if isinstance(value, Command) else value
    knowing = secrets.knowing(cast("dict[str, str]", given)) if isinstance(given, dict) else secrets
    return knowing.find(msgspec.json.encode(value))


def amended(policy: Policy, flags: Flags) -> Policy:
    """The policy with what the flags of `resume` say; no file is read. Raises `ConfigErrors`."""
    said = Said()
    for setting in SETTINGS:
        if "*" not in setting.key and (value := value_in(policy, setting.key)) not in (None, ()):
            said.put(setting.key, value, DEFAULT)
    say_flags(flags, said)
    step = policy.step if flags.step is None else flags.step
    new = _assembled(said, agents={}, no_wait=flags.no_wait or policy.no_wait, step=step)
    agents = {**built_in({"chains.default": new.chain}), **policy.agents} if flags.agents else policy.agents
    new = msgspec.structs.replace(new, agents=agents, checks=policy.checks, prompts=policy.prompts)
    if flags.agents:
        check_chains(new, Described(agents=new.agents, broken=frozenset()), said)
    if said.problems:
        raise ConfigErrors(said.problems)
    return new


def _assembled(said: Said, **fields: object) -> Policy:
    sections: dict[str, object] = {}
    for key, value in said.values.items():
        first, *rest = place_in_policy(key)
        if not rest:
            fields[first] = value
        elif first != "agents":  # they were put together from several keys
            *above, last = (first, *rest)
            table = sections
            for step in above:
                table = cast("dict[str, object]", table.setdefault(step, {}))
            table[last] = value
    return msgspec.convert({**fields, **sections}, Policy)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as `config show` prints it: its value as a file would hold it, None if it is not set."""

    key: str
    value: object
    origin: Origin

    @property
    def text(self) -> str:
        """The value as TOML has it."""
        return "not set" if self.value is None else literal(self.value)


def rows(loaded: Loaded, key: str | None = None) -> tuple[Row, ...]:
    """All settings, or those of one key or section: agent by agent, then as the table has them.

    Raises `ConfigErrors` for a key that is neither.
    """
    if key is not None and lookup(key) is None and not is_section(key):
        raise ConfigErrors([Problem(file=None, what=f"{key} is not a setting.", cure=cure_for(key))])
    found: list[Row] = []
    for setting in SETTINGS:
        named = [said for said in loaded.values if lookup(said) is setting]
        for each in named or ([] if "*" in setting.key else [setting.key]):
            if key is None or f"{each}.".startswith(f"{key}."):
                value = loaded.values.get(each, default_of(setting))
                plain = None if value is None else setting.kind.write(value)
                found.append(Row(key=each, value=plain, origin=loaded.origins.get(each, DEFAULT)))
    return tuple(sorted(found, key=lambda row: (not row.key.startswith("agents."), _agent_in(row.key))))


def _agent_in(key: str) -> str:
    section, name, *_ = key.split(".")
    return name if section == "agents" else ""
