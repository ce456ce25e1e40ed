"""Dialects: one module for each format in which an agent tells on its stdout what it does."""

from importlib import import_module
from typing import cast

from storyloop.agents.stream import Dialect


def dialect_named(name: str) -> Dialect:
    """A fresh reader of the format: it reads one call. Only the module that is asked for is imported."""
    return cast("Dialect", import_module(f"{__name__}.{name}").dialect())  # a module's attribute has no type
