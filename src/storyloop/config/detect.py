"""What `init` finds in a checkout: the checks that the project itself has set up, and what a new worktree needs.

Only marker files are read; no code of the project runs, and no tool is proposed that the project does not
configure. A marker that cannot be read is told in a note and counts as absent.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from configparser import Error as IniError
from configparser import RawConfigParser
from pathlib import Path
from typing import cast

import msgspec

from storyloop.config.files import ConfigErrors, parse, read_text

_COPIED = (".env", ".env.local")


class ProposedCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A check for `[checks]`, and the reason for it. `of` tells it from another one of the same name."""

    name: str
    command: str
    why: str
    of: str
    timeout: str | None = None
    env: dict[str, str] = {}


class ProposedSetup(msgspec.Struct, frozen=True):
    """A command for `[worktree] setup`, and the reason for it."""

    command: str
    why: str


class Proposals(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `notes` are sentences about what could not be read or was passed over."""

    checks: tuple[ProposedCheck, ...] = ()
    setup: tuple[ProposedSetup, ...] = ()
    copy: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def propose(root: Path, *, is_ignored: Callable[[str], bool]) -> Proposals:
    """Look at the root of a checkout. `is_ignored` tells whether git ignores a path below it."""
    markers = _Markers(root, is_ignored=is_ignored)
    parts = [_python(markers), _node(markers), _rust(markers), _go(markers)]
    checks = [check for part in parts for check in part.checks]
    checks += _make(markers, taken={check.name for check in checks})
    order = ("lint", "types", "build", "check", "test")
    named = _distinct(sorted(checks, key=lambda check: order.index(check.name)))
    return Proposals(
        checks=tuple(named),
        setup=tuple(setup for part in parts for setup in part.setup),
        copy=tuple(name for name in _COPIED if markers.has(name) and is_ignored(name)),
        notes=tuple(markers.notes),
    )


def _distinct(checks: Sequence[ProposedCheck]) -> Iterator[ProposedCheck]:
    taken: set[str] = set()
    for check in checks:
        name = f"{check.name}-{check.of}" if check.name in taken else check.name
        taken.add(name)
        yield msgspec.structs.replace(check, name=name)


class _Markers:
    """The marker files of one checkout; what is wrong with them is noted, once each."""

    def __init__(self, root: Path, *, is_ignored: Callable[[str], bool]) -> None:
        self._root = root
        self.is_ignored = is_ignored
        self.notes: list[str] = []

    def has(self, *names: str) -> bool:
        return any((self._root / name).is_file() for name in names)

    def has_tests(self) -> bool:
        return any((self._root / name).is_dir() for name in ("tests", "test"))

    def matching(self, pattern: str) -> list[str]:
        return sorted(str(path.relative_to(self._root)) for path in self._root.glob(pattern) if path.is_file())

    def text(self, name: str) -> str:
        try:
            return read_text(self._root / name) or ""
        except ConfigErrors as error:
            self._note(str(error))
            return ""

    def toml(self, name: str) -> dict[str, object]:
        try:
            return parse(self.text(name), self._root / name)
        except ConfigErrors as error:
            self._note(str(error))
            return {}

    def json(self, name: str) -> dict[str, object]:
        text = self.text(name)
        try:
            return msgspec.json.decode(text, type=dict[str, object]) if text else {}
        except msgspec.DecodeError as error:
            self._note(f"{self._root / name}: This is not the JSON that was expected: {error}.")
            return {}

    def ini(self, name: str) -> dict[str, dict[str, str]]:
        parser = RawConfigParser(strict=False, allow_no_value=True)
        try:
            parser.read_string(self.text(name))
        except IniError as error:
            self._note(f"{self._root / name}: This is not a valid INI file: {error.message.splitlines()[0]}.")
            return {}
        return {section: {key: value or "" for key, value in parser.items(section)} for section in parser.sections()}

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _table(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    return [item for item in cast("list[object]", value) if isinstance(item, str)] if isinstance(value, list) else []


# --- Python ------------------------------------------------------------------------------------------


class _Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of the Python world, and the three ways to configure it."""

    check: str
    name: str
    arguments: str
    files: tuple[str, ...] = ()
    ini: tuple[tuple[str, str], ...] = ()
    timeout: str | None = None


_TOOLS = (
    _Tool(check="lint", name="ruff", arguments="check .", files=("ruff.toml", ".ruff.toml"), timeout="10m"),
    _Tool(
        check="lint", name="flake8", arguments="", timeout="10m",
        files=(".flake8",), ini=(("setup.cfg", "flake8"), ("tox.ini", "flake8")),
    ),
    _Tool(check="types", name="mypy", arguments="", files=("mypy.ini", ".mypy.ini"), ini=(("setup.cfg", "mypy"),)),
    _Tool(check="types", name="pyright", arguments="", files=("pyrightconfig.json",)),
    _Tool(
        check="test", name="pytest", arguments="-q",
        files=("pytest.ini", ".pytest.ini"), ini=(("tox.ini", "pytest"), ("setup.cfg", "tool:pytest")),
    ),
)  # fmt: skip
_LOCKED = {
    "uv.lock": ("uv sync", "uv run "),
    "poetry.lock": ("poetry install", "poetry run "),
    "pdm.lock": ("pdm sync", "pdm run "),
    "Pipfile.lock": ("pipenv sync --dev", "pipenv run "),
}
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_REQUIREMENT_FILES = ("*requirements*.txt", "requirements/*.txt")
_INSTALLED = re.compile(r"^requirements\.txt$|dev|test")


def _python(markers: _Markers) -> Proposals:
    project = markers.toml("pyproject.toml")
    needs = set(_python_needs(markers, project))
    found = [(tool, why) for tool in _TOOLS if (why := _why_tool(tool, markers, project))]
    names = [tool.name for tool, _ in found]
    if "pytest" not in names and "pytest" in needs and markers.has_tests():
        found.append((_TOOLS[-1], "pytest is among the requirements, and there are tests"))
    setup, runner = _python_setup(markers, project, tools=[tool.name for tool, _ in found])
    checks = [
        ProposedCheck(
            name=tool.check,
            command=f"{runner}{tool.name} {_arguments(tool, markers, project)}".rstrip(),
            why=why,
            of=tool.name,
            timeout=tool.timeout,
        )
        for tool, why in found
    ]
    if "test" not in {check.name for check in checks} and "testenv" in markers.ini("tox.ini"):
        checks.append(ProposedCheck(name="test", command="tox -q", why="tox.ini has a [testenv]", of="tox"))
    return Proposals(checks=tuple(checks), setup=setup)


def _why_tool(tool: _Tool, markers: _Markers, project: Mapping[str, object]) -> str | None:
    if tool.name in _table(project.get("tool")):
        return f"pyproject.toml has [tool.{tool.name}]"
    for name in tool.files:
        if markers.has(name):
            return f"{name} is there"
    for name, section in tool.ini:
        if section in markers.ini(name):
            return f"{name} has [{section}]"
    return None


def _arguments(tool: _Tool, markers: _Markers, project: Mapping[str, object]) -> str:
    if tool.name != "mypy":
        return tool.arguments
    said = set(_table(_table(project.get("tool")).get("mypy")))
    for name in ("mypy.ini", ".mypy.ini", "setup.cfg"):
        said |= set(markers.ini(name).get("mypy", {}))
    return "" if said & {"files", "packages", "modules"} else "."


def _python_needs(markers: _Markers, project: Mapping[str, object]) -> Iterator[str]:
    """The names of all packages that the project asks for, wherever it does."""
    said = _table(project.get("project"))
    poetry = _table(_table(project.get("tool")).get("poetry"))
    lists: list[object] = [said.get("dependencies"), *_table(said.get("optional-dependencies")).values()]
    lists += _table(project.get("dependency-groups")).values()
    tables = [poetry.get("dependencies"), poetry.get("dev-dependencies")]
    tables += [_table(group).get("dependencies") for group in _table(poetry.get("group")).values()]
    pipfile = markers.toml("Pipfile")
    tables += [pipfile.get("packages"), pipfile.get("dev-packages")]
    lines = [text for each in lists for text in _texts(each)] + [name for each in tables for name in _table(each)]
    for pattern in _REQUIREMENT_FILES:
        for name in markers.matching(pattern):
            lines += markers.text(name).splitlines()
    options = markers.ini("setup.cfg")
    lines += options.get("options", {}).get("install_requires", "").splitlines()
    lines += [line for extra in options.get("options.extras_require", {}).values() for line in extra.splitlines()]
    lines += markers.ini("tox.ini").get("testenv", {}).get("deps", "").splitlines()
    for line in lines:
        if name := _REQUIREMENT.match(line):
            yield name[1].lower()


def _python_setup(
    markers: _Markers, project: Mapping[str, object], *, tools: Sequence[str]
) -> tuple[tuple[ProposedSetup, ...], str]:
    """How the packages get into a new worktree, and what to put before a tool's name to find it there."""
    said = _table(project.get("project"))
    extras = _table(said.get("optional-dependencies"))
    for lock, (install, runner) in _LOCKED.items():
        if markers.has(lock):
            every = " --all-extras" if extras and lock in {"uv.lock", "poetry.lock"} else ""
            return (ProposedSetup(f"{install}{every}", f"{lock} is there"),), runner
    parts: list[str] = []
    held = {line.lower() for line in _texts(said.get("dependencies"))}
    if said or markers.has("setup.py") or "metadata" in markers.ini("setup.cfg"):
        wanted = [name for name, needs in extras.items() if any(_names(tool, _texts(needs)) for tool in tools)]
        held |= {line.lower() for name in wanted for line in _texts(extras[name])}
        parts.append(f"-e '.[{','.join(wanted)}]'" if wanted else "-e .")
    for name in filter(_INSTALLED.search, markers.matching(_REQUIREMENT_FILES[0])):
        parts.append(f"-r {name}")
        held |= {line.lower() for line in markers.text(name).splitlines()}
    if not parts:
        return (), "python3 -m "
    parts += [tool for tool in tools if not _names(tool, held)]
    # A directory that git does not ignore would become part of every commit.
    ignoring = "" if markers.is_ignored(".venv") else "echo '*' > .venv/.gitignore && "
    command = f"python3 -m venv .venv && {ignoring}.venv/bin/python -m pip install {' '.join(parts)}"
    return (ProposedSetup(command, "a new worktree has no .venv"),), ".venv/bin/python -m "


def _names(tool: str, requirements: Sequence[str] | set[str]) -> bool:
    return any((name := _REQUIREMENT.match(line)) and name[1].lower() == tool for line in requirements)


# --- Node, Rust, Go, Make ----------------------------------------------------------------------------

_NODE_LOCKS = {
    "pnpm-lock.yaml": ("pnpm", "pnpm install --frozen-lockfile"),
    "yarn.lock": ("yarn", "yarn install --frozen-lockfile"),
    "bun.lock": ("bun", "bun install --frozen-lockfile"),
    "bun.lockb": ("bun", "bun install --frozen-lockfile"),
    "package-lock.json": ("npm", "npm ci"),
    "npm-shrinkwrap.json": ("npm", "npm ci"),
}
_SCRIPTS = {
    "lint": "lint", "typecheck": "types", "type-check": "types", "types": "types", "build": "build", "test": "test",
}  # fmt: skip


def _node(markers: _Markers) -> Proposals:
    package = markers.json("package.json")
    lock = next((name for name in _NODE_LOCKS if markers.has(name)), None)
    # Without a lock file npm would write one, and it would be part of the first story's commit.
    tool, install = _NODE_LOCKS[lock] if lock else ("npm", "npm install --no-package-lock")
    if lock == "yarn.lock" and markers.has(".yarnrc.yml"):
        install = "yarn install --immutable"
    checks: dict[str, ProposedCheck] = {}
    for script, line in _table(package.get("scripts")).items():
        name = _SCRIPTS.get(script)
        if name is None or name in checks or not isinstance(line, str) or "no test specified" in line:
            continue
        if re.search(r"--watch(All)?(\s|$)", line):
            markers.notes.append(f"The script {script} of package.json watches and never ends: it was passed over.")
            continue
        command = "npm test" if (tool, script) == ("npm", "test") else f"{tool} run {script}"
        why = f'package.json has the script "{script}"'
        # Test runners of this world wait for changes unless they are told that nobody is there.
        checks[name] = ProposedCheck(name=name, command=command, why=why, of="node", env={"CI": "1"})
    needed = lock is not None or any(package.get(name) for name in ("dependencies", "devDependencies", "workspaces"))
    why = f"{lock} is there" if lock else "package.json has dependencies"
    setup = (ProposedSetup(install, why),) if needed and markers.has("package.json") else ()
    return Proposals(checks=tuple(checks.values()), setup=setup)


def _rust(markers: _Markers) -> Proposals:
    if not markers.has("Cargo.toml"):
        return Proposals()
    cargo = markers.toml("Cargo.toml")
    every = " --workspace" if "workspace" in cargo else ""
    test = ProposedCheck(name="test", command=f"cargo test{every}", why="Cargo.toml is there", of="rust")
    lints = _table(cargo.get("lints")) | _table(_table(cargo.get("workspace")).get("lints"))
    if "clippy" not in lints and not markers.has("clippy.toml", ".clippy.toml"):
        return Proposals(checks=(test,))
    lint = ProposedCheck(
        name="lint", command=f"cargo clippy{every} --all-targets", why="clippy is configured", of="rust"
    )
    return Proposals(checks=(lint, test))


def _go(markers: _Markers) -> Proposals:
    if not markers.has("go.mod"):
        return Proposals()
    checks = [ProposedCheck(name="test", command="go test ./...", why="go.mod is there", of="go")]
    if config := markers.matching(".golangci.*"):
        lint = ProposedCheck(name="lint", command="golangci-lint run", why=f"{config[0]} is there", of="go")
        checks.append(lint)
    return Proposals(checks=tuple(checks))


def _make(markers: _Markers, *, taken: set[str]) -> list[ProposedCheck]:
    """Targets for which nothing else was found: a Makefile mostly wraps the same tools."""
    name = next((name for name in ("GNUmakefile", "makefile", "Makefile") if markers.has(name)), None)
    if name is None:
        return []
    targets = set(re.findall(r"^(test|check|lint)[ \t]*:(?!=)", markers.text(name), re.MULTILINE))
    wanted = targets - taken - ({"check"} if "test" in targets | taken else set())
    return [
        ProposedCheck(name=target, command=f"make {target}", why=f"{name} has the target {target}", of="make")
        for target in sorted(wanted)
    ]
