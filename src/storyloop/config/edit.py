"""`config set`: one value of a file is changed, its comments survive, and nothing invalid is ever written."""

import tomllib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import cast

import msgspec

from storyloop.config.files import ConfigErrors, Problem, parse, replace
from storyloop.config.kinds import Unfit
from storyloop.config.layers import Source
from storyloop.config.load import REPOSITORY_FILE, documents, resolve
from storyloop.config.settings import Setting, cure_for, is_section, lookup


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What `config set` did: the file it changed, and what is to be said of the result."""

    path: Path
    warnings: tuple[str, ...]


def set_setting(key: str, text: str, *, target: Source, root: Path | None, environ: Mapping[str, str]) -> Written:
    """Write the setting into the file of `target`, user or repository.

    The text is TOML (`3`, `["a", "b"]`), or itself where the setting accepts that. The whole configuration is
    validated with the new value in place before anything is written; `ConfigErrors` tells what is wrong with it.
    """
    value = _value(key, text)
    files = documents(root=root, environ=environ)
    chosen = next((file for file in files if file.source is target), None)
    if chosen is None:
        what = f"There is no repository here whose {REPOSITORY_FILE} could be changed."
        raise ConfigErrors([Problem(file=None, what=what, cure="Go into one, or say --user.")])
    new = msgspec.structs.replace(chosen, text=_edited(chosen.text or "", key, value, path=chosen.path))
    # The user's own file has to stand without this repository's.
    below = [] if target is Source.USER else [file for file in files if file.source is not target]
    loaded = resolve([*below, new], root=root)
    replace(new.path, new.text or "")
    return Written(path=new.path, warnings=loaded.warnings)


def _value(key: str, text: str) -> object:
    setting = lookup(key)
    if setting is None and not is_section(key):
        raise ConfigErrors([Problem(file=None, what=f"{key} is not a setting.", cure=cure_for(key))])
    meant = _as_toml(text)
    if setting is None:
        return text if meant is None else meant
    # `true` is also a command, and `5` a model's name; but what was quoted was meant as it is.
    tried = [text] if meant is None else [meant] if isinstance(meant, str) else [meant, text]
    return next((value for value in tried if _fits(setting, value)), tried[0])


def _fits(setting: Setting, value: object) -> bool:
    try:
        setting.kind.read(value)
    except Unfit:
        return False
    return True


def _as_toml(text: str) -> object | None:
    try:
        tree = tomllib.loads(f"value = {text}\n")
    except (ValueError, RecursionError):
        return None
    return tree["value"] if len(tree) == 1 else None


def _edited(text: str, key: str, value: object, *, path: Path) -> str:
    import tomlkit

    parse(text, path)  # its errors name line and column in our words
    document = tomlkit.parse(text)
    *sections, last = key.split(".")
    table = cast("MutableMapping[str, object]", document)
    for section in sections:
        inner = table.setdefault(section, tomlkit.table())
        if not isinstance(inner, MutableMapping):
            what = f"{section} must be a table."
            raise ConfigErrors([Problem(file=str(path), what=what, cure=f"Write [{section}] there first.")])
        table = cast("MutableMapping[str, object]", inner)
    table[last] = _inline(cast("dict[str, object]", value)) if isinstance(value, dict) and lookup(key) else value
    return tomlkit.dumps(document)


def _inline(parts: dict[str, object]) -> object:
    import tomlkit

    table = tomlkit.inline_table()
    for name, part in parts.items():
        table[name] = part
    return table
