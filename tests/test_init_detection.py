"""What `init` finds in a checkout, and the file it makes of that."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from storyloop.config import load
from storyloop.config.detect import Proposals, ProposedCheck, ProposedSetup, propose
from storyloop.config.starter import render_storyloop_toml
from storyloop.core.policy import Command

VENV = "python3 -m venv .venv && .venv/bin/python -m pip install "


def never_ignored(_: str) -> bool:
    return False


def always_ignored(_: str) -> bool:
    return True


def checkout(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def found(root: Path, files: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The checks and the set-up commands for a checkout with these files, whose ignored files are ignored."""
    proposals = propose(checkout(root, files), is_ignored=always_ignored)
    return {check.name: check.command for check in proposals.checks}, [each.command for each in proposals.setup]


PROJECT = '[project]\nname = "p"\n'
PYTEST = "[tool.pytest.ini_options]\n"


@pytest.mark.parametrize(
    ("files", "checks", "setup"),
    [
        ({"README.md": ""}, {}, []),
        ({"pyproject.toml": PROJECT}, {}, [VENV + "-e ."]),
        # pytest: configured in one of four places, or asked for and used
        ({"pyproject.toml": PYTEST}, {"test": "python3 -m pytest -q"}, []),
        ({"pytest.ini": "[pytest]"}, {"test": "python3 -m pytest -q"}, []),
        ({"tox.ini": "[pytest]\n[testenv]"}, {"test": "python3 -m pytest -q"}, []),
        ({"setup.cfg": "[tool:pytest]"}, {"test": "python3 -m pytest -q"}, []),
        ({"tox.ini": "[testenv]\ncommands = x"}, {"test": "tox -q"}, []),
        ({"tests/test_a.py": ""}, {}, []),
        (
            {"requirements-dev.txt": "pytest>=8\n", "requirements.txt": "x\n", "tests/test_a.py": ""},
            {"test": ".venv/bin/python -m pytest -q"},
            [VENV + "-r requirements-dev.txt -r requirements.txt"],
        ),
        ({"requirements-dev.txt": "pytest"}, {}, [VENV + "-r requirements-dev.txt"]),
        (
            {"pyproject.toml": PROJECT + '[dependency-groups]\ndev = ["pytest ~= 8.0"]\n', "tests/a.py": ""},
            {"test": ".venv/bin/python -m pytest -q"},
            [VENV + "-e . pytest"],
        ),
        (
            {"setup.py": "", "setup.cfg": "[options.extras_require]\nt =\n  pytest\n", "test/a.py": ""},
            {"test": ".venv/bin/python -m pytest -q"},
            [VENV + "-e . pytest"],
        ),
        (
            {"pyproject.toml": PROJECT + "[project.optional-dependencies]\nt = ['pytest']\ndocs = ['x']\n" + PYTEST},
            {"test": ".venv/bin/python -m pytest -q"},
            [VENV + "-e '.[t]'"],
        ),
        # where the packages come from a lock file, the tools run through its program
        (
            {"pyproject.toml": PROJECT + PYTEST + "[tool.ruff]\n[tool.mypy]\n", "uv.lock": ""},
            {"lint": "uv run ruff check .", "types": "uv run mypy .", "test": "uv run pytest -q"},
            ["uv sync"],
        ),
        (
            {"pyproject.toml": PROJECT + "[project.optional-dependencies]\nt = ['pytest']\n" + PYTEST, "uv.lock": ""},
            {"test": "uv run pytest -q"},
            ["uv sync --all-extras"],
        ),
        (
            {"pyproject.toml": "[tool.poetry.group.dev.dependencies]\npytest = '*'", "poetry.lock": "", "tests/a": ""},
            {"test": "poetry run pytest -q"},
            ["poetry install"],
        ),
        ({"Pipfile.lock": "", "Pipfile": "[packages]\npytest = '*'", "tests/a": ""}, {"test": "pipenv run pytest -q"},
         ["pipenv sync --dev"]),
        # linters and type checkers
        ({"ruff.toml": ""}, {"lint": "python3 -m ruff check ."}, []),
        ({"setup.cfg": "[flake8]\n[mypy]\nfiles = a"}, {"lint": "python3 -m flake8", "types": "python3 -m mypy"}, []),
        ({"pyproject.toml": "[tool.mypy]\npackages = ['a']\n"}, {"types": "python3 -m mypy"}, []),
        ({"mypy.ini": "[mypy]", "pyrightconfig.json": "{}"},
         {"types": "python3 -m mypy .", "types-pyright": "python3 -m pyright"}, []),
        # Node
        ({"package.json": "{}"}, {}, []),
        (
            {"package.json": '{"scripts": {"test": "vitest", "lint": "eslint", "type-check": "tsc", "start": "x"}}'},
            {"lint": "npm run lint", "types": "npm run type-check", "test": "npm test"},
            [],
        ),
        ({"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'}, {}, []),
        ({"package.json": '{"dependencies": {"x": "1"}}'}, {}, ["npm install --no-package-lock"]),
        ({"package.json": "{}", "package-lock.json": "{}"}, {}, ["npm ci"]),
        (
            {"package.json": '{"scripts": {"test": "jest", "build": "tsc"}}', "pnpm-lock.yaml": ""},
            {"build": "pnpm run build", "test": "pnpm run test"},
            ["pnpm install --frozen-lockfile"],
        ),
        ({"package.json": "{}", "yarn.lock": ""}, {}, ["yarn install --frozen-lockfile"]),
        ({"package.json": "{}", "yarn.lock": "", ".yarnrc.yml": ""}, {}, ["yarn install --immutable"]),
        ({"package.json": '{"scripts": {"test": "bun test"}}', "bun.lock": ""}, {"test": "bun run test"},
         ["bun install --frozen-lockfile"]),
        # Rust and Go
        ({"Cargo.toml": "[package]"}, {"test": "cargo test"}, []),
        ({"Cargo.toml": "[workspace.lints.clippy]"},
         {"lint": "cargo clippy --workspace --all-targets", "test": "cargo test --workspace"}, []),
        ({"Cargo.toml": "", "clippy.toml": ""}, {"lint": "cargo clippy --all-targets", "test": "cargo test"}, []),
        ({"go.mod": ""}, {"test": "go test ./..."}, []),
        ({"go.mod": "", ".golangci.yml": ""}, {"lint": "golangci-lint run", "test": "go test ./..."}, []),
        # Make
        ({"Makefile": "all:\n\ttrue\ntest: all\n\ttrue\nlint :\n"}, {"lint": "make lint", "test": "make test"}, []),
        ({"GNUmakefile": "check:\n"}, {"check": "make check"}, []),
        ({"Makefile": "check:\ntest:\n"}, {"test": "make test"}, []),
        ({"Makefile": "check:\n", "go.mod": ""}, {"test": "go test ./..."}, []),
        ({"Makefile": "test := x\n# lint: x\n  check:\n"}, {}, []),
        # several in one repository: a Makefile mostly wraps what was found already
        (
            {
                "Cargo.toml": "", "package.json": '{"scripts": {"test": "jest"}}', "package-lock.json": "",
                "pyproject.toml": PYTEST, "Makefile": "test:\nlint:\n",
            },
            {"lint": "make lint", "test": "python3 -m pytest -q", "test-node": "npm test", "test-rust": "cargo test"},
            ["npm ci"],
        ),
    ],
)  # fmt: skip
def test_a_project_is_proposed_what_it_has_set_up_itself(
    tmp_path: Path, files: dict[str, str], checks: dict[str, str], setup: list[str]
) -> None:
    """Its own tools, run where its own packages are, and nothing else."""
    assert found(tmp_path, files) == (checks, setup)


def test_checks_come_cheapest_first(tmp_path: Path) -> None:
    """So that an attempt fails fast."""
    files = {"go.mod": "", "package.json": '{"scripts": {"test": "a", "build": "b", "types": "c", "lint": "d"}}'}
    assert list(found(tmp_path, files)[0]) == ["lint", "types", "build", "test", "test-go"]


def test_each_proposal_says_why(tmp_path: Path) -> None:
    """The reason is something that the user can look up."""
    root = checkout(tmp_path, {"uv.lock": "", "pyproject.toml": "[tool.ruff.lint]\n", "Makefile": "test:\n"})
    assert propose(root, is_ignored=always_ignored) == Proposals(
        checks=(
            ProposedCheck(
                name="lint",
                command="uv run ruff check .",
                why="pyproject.toml has [tool.ruff]",
                of="ruff",
                timeout="10m",
            ),
            ProposedCheck(name="test", command="make test", why="Makefile has the target test", of="make"),
        ),
        setup=(ProposedSetup("uv sync", "uv.lock is there"),),
    )


def test_a_virtual_environment_never_gets_into_a_commit(tmp_path: Path) -> None:
    """Where git does not ignore it, it is made to ignore itself."""
    root = checkout(tmp_path, {"requirements.txt": ""})
    (setup,) = propose(root, is_ignored=never_ignored).setup
    assert setup.command == (
        "python3 -m venv .venv && echo '*' > .venv/.gitignore && .venv/bin/python -m pip install -r requirements.txt"
    )


def test_scripts_that_watch_are_passed_over_with_a_note(tmp_path: Path) -> None:
    """They would end by the time limit only."""
    root = checkout(
        tmp_path, {"package.json": '{"scripts": {"test": "jest --watch", "lint": "eslint --watchAll=false"}}'}
    )
    proposals = propose(root, is_ignored=always_ignored)
    assert [check.name for check in proposals.checks] == ["lint"]
    assert proposals.notes == ("The script test of package.json watches and never ends: it was passed over.",)


def test_only_files_that_git_ignores_are_brought_along(tmp_path: Path) -> None:
    """A tracked one is in the worktree anyway."""
    root = checkout(tmp_path, {".env": "A=1", ".env.local": "B=1"})
    assert propose(root, is_ignored=lambda path: path == ".env").copy == (".env",)
    assert propose(root, is_ignored=never_ignored).copy == ()


def test_no_code_of_the_project_runs(tmp_path: Path) -> None:
    """Markers are read, never executed or imported."""
    trap = "open('ran', 'w')\n"
    root = checkout(tmp_path, {"setup.py": trap, "conftest.py": trap, "noxfile.py": trap, "tests/__init__.py": trap})
    (root / "Makefile").write_text("test: $(shell touch ran)\n")
    before = sorted(os.listdir(root))
    assert [check.command for check in propose(root, is_ignored=always_ignored).checks] == ["make test"]
    assert sorted(os.listdir(root)) == before


@pytest.mark.parametrize(
    ("files", "note"),
    [
        ({"pyproject.toml": "[tool"}, "pyproject.toml, line 1: This is not valid TOML"),
        ({"package.json": "{"}, "package.json: This is not the JSON that was expected"),
        ({"package.json": "[]"}, "package.json: This is not the JSON that was expected"),
        ({"setup.cfg": "x"}, "setup.cfg: This is not a valid INI file"),
        ({"Cargo.toml": "= 3"}, "Cargo.toml, line 1: This is not valid TOML"),
        ({"Makefile": "\udcff"}, "Makefile, line 1: This line is not UTF-8."),
    ],
)
def test_a_marker_that_cannot_be_read_is_noted_once_and_the_rest_is_found(
    tmp_path: Path, files: dict[str, str], note: str
) -> None:
    """One broken file is no reason to find nothing."""
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    root = checkout(tmp_path, {"go.mod": ""})
    proposals = propose(root, is_ignored=always_ignored)
    assert [check.of for check in proposals.checks if check.of == "go"] == ["go"]
    assert len(proposals.notes) == 1
    assert note in proposals.notes[0]


@pytest.mark.parametrize(
    "text", ['{"scripts": 3}', '{"scripts": {"test": 3, "lint": null}}', '{"dependencies": [1]}', "{}"]
)
def test_markers_of_unexpected_shapes_are_harmless(tmp_path: Path, text: str) -> None:
    """Files in the wild hold anything."""
    odd = 'project = 1\ndependency-groups = {a = [{include-group = "b"}], c = 3}\n[tool]\npoetry = []\nuv = 1\n'
    assert found(tmp_path, {"package.json": text, "pyproject.toml": odd})[0] == {}


# --- the file ----------------------------------------------------------------------------------------

FULL = Proposals(
    checks=(
        ProposedCheck(name="lint", command="ruff check .", why="ruff.toml is there", of="ruff", timeout="10m"),
        ProposedCheck(name="test", command="npm test", why="package.json has the script", of="n", env={"CI": "1"}),
        ProposedCheck(name="test-go", command="go test ./...", why="go.mod is there", of="go"),
    ),
    setup=(ProposedSetup("npm ci", "package-lock.json is there"), ProposedSetup("echo '*' > \"a\\b\"", "a test")),
    copy=(".env",),
)


def test_the_file_that_init_writes_loads_as_what_was_found(tmp_path: Path) -> None:
    """By the same reader as any other."""
    (tmp_path / "storyloop.toml").write_text(render_storyloop_toml(FULL, agents_found=("claude", "codex")))
    loaded = load(root=tmp_path, environ={"HOME": str(tmp_path)})
    assert loaded.warnings == ()
    assert list(loaded.policy.checks.items()) == [
        ("lint", Command(run="ruff check .", timeout=600.0)),
        ("test", Command(run="npm test", env={"CI": "1"})),
        ("test-go", Command(run="go test ./...")),
    ]
    assert loaded.policy.worktree.setup == ("npm ci", "echo '*' > \"a\\b\"")
    assert loaded.policy.worktree.copy == (".env",)


def test_the_file_says_why_and_names_the_agents_that_are_here(tmp_path: Path) -> None:
    """They are asked in the order in which they were given."""
    text = render_storyloop_toml(FULL, agents_found=("claude", "codex"))
    assert 'test-go = "go test ./..."  # go.mod is there\n' in text
    (tmp_path / "storyloop.toml").write_text(text)
    loaded = load(root=tmp_path, environ={"HOME": str(tmp_path)})
    assert [str(ref) for ref in loaded.policy.chain] == ["claude", "codex"]


def test_where_nothing_was_found_the_file_says_how_to_go_on(tmp_path: Path) -> None:
    """It is valid as it is."""
    text = render_storyloop_toml(Proposals(), agents_found=())
    assert "No agent known by name was found; `storyloop agents` tells how to install one." in text
    assert "# test = " in text
    (tmp_path / "storyloop.toml").write_text(text)
    assert load(root=tmp_path, environ={"HOME": str(tmp_path)}).policy.checks == {}
    example = text[text.index("# [agents.mine]") : text.index("# Run by Storyloop")]
    uncommented = "\n".join(line.removeprefix("#").removeprefix(" ") for line in example.splitlines())
    (tmp_path / "storyloop.toml").write_text(uncommented)
    loaded = load(root=tmp_path, environ={"HOME": str(tmp_path)})
    assert str(loaded.policy.chain[0]) == "mine"
    assert loaded.policy.agents["mine"].command == (f"{tmp_path}/my-agent", "--yes")


@pytest.mark.processes
def test_the_proposed_virtual_environment_is_ignored_by_real_git(tmp_path: Path) -> None:
    """The command makes it so before anything is installed into it."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    checkout(tmp_path, {"requirements.txt": "\n"})
    (setup,) = propose(tmp_path, is_ignored=never_ignored).setup
    command = setup.command.replace("-m venv", "-m venv --without-pip").rpartition(" && ")[0]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    status = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert status.stdout == "?? requirements.txt\n"
