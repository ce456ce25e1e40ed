"""Configuration: TOML files and flags in, a frozen `Policy` out, and where each of its values came from."""

from storyloop.config.edit import Written, set_setting
from storyloop.config.files import ConfigErrors, Problem
from storyloop.config.layers import Flags, Origin, Source
from storyloop.config.load import REPOSITORY_FILE, Loaded, Row, amended, load, rows, user_file

__all__ = [
    "REPOSITORY_FILE",
    "ConfigErrors",
    "Flags",
    "Loaded",
    "Origin",
    "Problem",
    "Row",
    "Source",
    "Written",
    "amended",
    "load",
    "rows",
    "set_setting",
    "user_file",
]
