"""A profile: how one agent CLI is started and read, as plain data. The table of them is `profiles`.

An argument that is one of the splices stands for what belongs there in this call: the session to begin or to take
up, the model, the permissions, further directories. Inside of other arguments, variables and papers `{session}`,
`{model}`, `{directory}`, `{private}` (the worktree's `.storyloop`), `{prompt}` (one sentence that names the file in
which the prompt stands) and, in variables, `{objects}` (where git keeps them) are filled in; in `Offline` it is
`{base}` and `{model}`. The prompt itself is never an argument: it may be longer than a system takes.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from storyloop.core.facts import Failure

SESSION, MODEL, PERMISSION, DIRECTORIES = "<session>", "<model>", "<permission>", "<directories>"
SPLICES = (SESSION, MODEL, PERMISSION, DIRECTORIES)
PROMPT_FILE = "prompt.md"  # in the worktree's `.storyloop`, for those that do not read stdin
READ_PROMPT = f"Read the file .storyloop/{PROMPT_FILE} in the current directory and do exactly what it says."


class Can(StrEnum):
    """What a CLI can do, beyond a turn."""

    RESUME = "resume"  # take a session up again
    USAGE = "usage"  # tell the tokens that it used
    COST = "cost"  # and the money
    SCHEMA = "schema"  # answer by a JSON schema
    MCP = "mcp"  # use MCP servers that the call names
    ACP = "acp"


class Prompt(StrEnum):
    """Where the CLI finds what it is told."""

    STDIN = "stdin"
    FILE = "file"


class Named(StrEnum):
    """Who names a session."""

    BY_US = "by us"
    BY_ITSELF = "by itself"
    BY_NOBODY = "by nobody"


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """What lets the CLI work where nobody can be asked."""

    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}


class Offline(msgspec.Struct, frozen=True, kw_only=True):
    """What points the CLI at a model server on loopback with a dummy key, in a home of its own."""

    env: dict[str, str] = {}
    files: dict[str, str] = {}  # path below the home -> text
    model: str = "{model}"  # what the CLI has to be told, for the server's model {model}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One agent CLI. What is not known of an unverified one is left empty."""

    name: str
    title: str
    program: str
    install: str  # the command, or where to look
    verified: bool = True  # measured on the real program
    versions: tuple[str, ...] = ()  # that were seen to behave as this says
    version: tuple[str, ...] = ("--version",)
    dialect: str
    argv: tuple[str, ...]  # behind the program, with splices
    interactive: tuple[str, ...] = ()  # the same for a session on the user's terminal that begins with {prompt}
    prompt: Prompt = Prompt.STDIN
    named: Named = Named.BY_ITSELF
    begin: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    model: tuple[str, ...] = ("--model", "{model}")
    fenced: Permission = Permission()  # a sandbox of ours holds: the CLI's own and all its questions are off
    alone: Permission = Permission()  # none does: the tightest in which it still edits and runs commands
    directory: tuple[str, ...] = ()  # once for each further directory that it may use
    env: dict[str, str] = {}  # telemetry and self-update off, inner retries lowered
    papers: dict[str, str] = {}  # settings for this call, files in `{private}`
    keys: tuple[str, ...] = ()  # variables of the user's that log it in,
    pass_env: tuple[str, ...] = ()  # and others that it needs
    home: tuple[str, ...]  # what it must write below HOME; the first is where its login and its sessions are,
    moved_by: str | None = None  # unless this variable names another directory for them
    login: tuple[str, ...] = ()  # files below HOME of which one is there when it is logged in
    litter: tuple[str, ...] = ()  # what it leaves in the worktree's root for itself
    exits: dict[int, Failure] = {}  # exit statuses that mean something
    can: frozenset[Can] = frozenset()
    edits_by_text: bool = False  # its model is offered no tools: it runs nothing, and its result stands in what it says
    acp: tuple[str, ...] = ()  # program and arguments of its ACP agent
    offline: Offline | None = None

    def passed(self) -> tuple[str, ...]:
        """The user's variables that are handed on."""
        moved_by = () if self.moved_by is None else (self.moved_by,)
        return (*self.keys, *self.pass_env, *moved_by)

    def homes(self, environ: Mapping[str, str]) -> tuple[Path, ...]:
        """The paths that it must be able to write, as this environment has them."""
        return tuple(self._placed(path, environ) for path in self.home)

    def is_logged_in(self, environ: Mapping[str, str]) -> bool | None:
        """True where a key or a login is there; None where that cannot be told from outside."""
        found = any(environ.get(key) for key in self.keys)
        return found or any(_is_filled(self._placed(path, environ)) for path in self.login) or None

    def _placed(self, path: str, environ: Mapping[str, str]) -> Path:
        moved = environ.get(self.moved_by) if self.moved_by else None
        if moved and Path(path).is_relative_to(self.home[0]):
            return Path(moved, Path(path).relative_to(self.home[0]))
        return Path(environ.get("HOME") or Path.home(), path)


def _is_filled(path: Path) -> bool:
    """Some leave an empty `{}` where nobody has logged in yet."""
    return path.exists() and path.stat().st_size > len("{}\n")


def spliced(argv: tuple[str, ...], parts: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """The arguments, with what belongs there in the place of each splice."""
    for word in argv:
        yield from parts.get(word, (word,))


def filled(text: str, words: Mapping[str, str]) -> str:
    """The text with its placeholders filled in; not `str.format`, because JSON has braces of its own."""
    for name, word in words.items():
        text = text.replace(f"{{{name}}}", word)
    return text
