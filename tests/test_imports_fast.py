"""What is asked often imports little: `--version`, `status` and `show` pay for nothing that only a run needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clikit import User
from storyloop import __version__

HEAVY = [
    "asyncio",
    "rich",
    "jinja2",
    "lxml",
    "platformdirs",
    "filelock",
    "psutil",
    "importlib.metadata",
    "subprocess",
    "tomlkit",
    "tomllib",
    "http",
    "ssl",
    "socket",
    "multiprocessing",
    "concurrent.futures",
    "logging",
    "storyloop.engine",
    "storyloop.service",
    "storyloop.config",
    "storyloop.contracts",
    "storyloop.agents",
]
NOT_FOR_A_LIST = ["msgspec", "storyloop.core.reduce", "storyloop.core.run_state", "storyloop.core.events"]

# Runs the program as it is run, then says which of the modules named after `--` have been imported.
TELLS = """
import sys
from storyloop.__main__ import main
cut = sys.argv.index("--")
denied, sys.argv = sys.argv[cut + 1:], sys.argv[:cut]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(*(name for name in denied if name in sys.modules), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> User:
    """She has a run to look at."""
    user = User(tmp_path_factory.mktemp("imports") / "user")
    user.makes_a_repository()
    user.has_an_agent()
    assert user.asks("run", user.has_a_spec(), "-q").code == 0
    return user


@pytest.mark.parametrize(
    ("words", "denied"),
    [
        (["--version"], [*HEAVY, *NOT_FOR_A_LIST, "sqlite3", "json", "click"]),
        (["status"], [*HEAVY, *NOT_FOR_A_LIST]),
        (["status", "--all", "--json"], [*HEAVY, *NOT_FOR_A_LIST]),
        (["show"], HEAVY),
        (["show", "--json"], HEAVY),
        (["show", "--events"], HEAVY),
        (["logs"], HEAVY),
        (["--help"], [*HEAVY, *NOT_FOR_A_LIST]),
    ],
    ids=" ".join,
)
def test_a_verb_that_only_looks_imports_nothing_heavy(user: User, words: list[str], denied: list[str]) -> None:
    """Each of these costs milliseconds that are paid every time."""
    done = subprocess.run(
        [sys.executable, "-c", TELLS, *words, "--", *denied],
        cwd=user.repo,
        env=user.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1].split() == []


def test_the_version_is_the_same_whoever_tells_it(user: User) -> None:
    """Without the library that reads command lines, and by it, where more than the version is asked for."""
    program = [sys.executable, "-m", "storyloop"]
    alone, among_others = (
        subprocess.run([*program, *words], cwd=user.repo, env=user.env, capture_output=True, text=True, check=True)
        for words in (["--version"], ["--version", "status"])
    )
    assert alone.stdout == among_others.stdout == f"storyloop, version {__version__}\n"


def test_a_version_that_nobody_reads_is_no_crash(user: User) -> None:
    """The pipe's other end is closed."""
    end, pipe = os.pipe()
    os.close(end)
    done = subprocess.run(
        [sys.executable, "-m", "storyloop", "--version"],
        cwd=user.repo,
        env=user.env,
        stdout=pipe,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(pipe)
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_package_itself_imports_nothing() -> None:
    """`import storyloop` is free; its values are loaded when they are asked for."""
    tells = "import sys; before = set(sys.modules); import storyloop; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", tells], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["storyloop"]
