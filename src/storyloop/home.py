"""Home: where runs are kept on this machine. Standard library alone: the fast verbs ask it, too."""

import sys
from collections.abc import Mapping
from pathlib import Path


def state_directory(environ: Mapping[str, str]) -> Path:
    """`STORYLOOP_HOME`, else the platform's place for an application's state."""
    if named := environ.get("STORYLOOP_HOME"):
        return Path(named).absolute()
    if sys.platform == "darwin":
        from platformdirs import user_state_path

        return user_state_path("storyloop", appauthor=False)
    xdg = Path(environ.get("XDG_STATE_HOME", ""))
    if xdg.is_absolute():  # the XDG specification has relative ones ignored
        return xdg / "storyloop"
    return Path(environ.get("HOME") or Path.home(), ".local", "state", "storyloop")


def database_file(environ: Mapping[str, str]) -> Path:
    """The journal of every run."""
    return state_directory(environ) / "storyloop.db"


def run_directory(environ: Mapping[str, str], run_id: str) -> Path:
    """The files of one run."""
    return state_directory(environ) / "runs" / run_id
