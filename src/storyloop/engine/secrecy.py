"""Secrecy: no fact goes into the journal with a secret in it, and no file with one is taken for finished work."""

from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeVar, cast

import msgspec

from storyloop.core.policy import Policy
from storyloop.ports.repository import Edited
from storyloop.ports.texts import Secrets

_T = TypeVar("_T")
_SHORTEST = 8  # characters: nothing shorter is a secret
_MOST_TOLD = 20


def without_secrets(value: _T, secrets: Secrets) -> _T:
    """The value with every free text in it redacted; words of an enumeration are no free text.

    A policy is left as it is: none is ever opened with a secret in it, and its commands are run as they stand.
    """
    return cast("_T", _clean(value, secrets))


def _clean(value: Any, secrets: Secrets) -> Any:
    if type(value) is str:
        return secrets.text(value) if len(value) >= _SHORTEST else value
    if isinstance(value, msgspec.Struct):
        if isinstance(value, Policy):
            return value
        before = {name: getattr(value, name) for name in value.__struct_fields__}
        after = {name: _clean(part, secrets) for name, part in before.items()}
        changed = {name: part for name, part in after.items() if part is not before[name]}
        return msgspec.structs.replace(value, **changed) if changed else value
    if isinstance(value, tuple | list):
        parts = cast("tuple[Any, ...]", value)
        cleaned = [_clean(part, secrets) for part in parts]
        return type(parts)(cleaned) if any(a is not b for a, b in zip(cleaned, parts, strict=True)) else parts
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value)
        clean = {name: _clean(part, secrets) for name, part in entries.items()}
        return clean if any(clean[name] is not entries[name] for name in entries) else entries
    return value


def secrets_in(edited: Iterable[Edited], secrets: Secrets) -> tuple[str, ...]:
    """Which secrets stand in lines that are new, as `name in path`."""
    found = (f"{name} in {edit.path}" for edit in edited for name in secrets.find(edit.added))
    return tuple(islice(found, _MOST_TOLD))
