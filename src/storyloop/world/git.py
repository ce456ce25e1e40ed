"""The one file that runs git: a fixed, quiet, prompt-free git that runs nobody else's command.

An agent may write into everything that git reads in a worktree, so nothing is discovered: every call names
its git directory, its worktree and its index. What git would start by itself (hooks, fsmonitor, pagers,
gpg, maintenance, recursion into submodules) is switched off on the command line, which no config overrides.
Filters stay, because a repository with LFS is wrong without them; that they are the user's own is the business
of `guard`, which puts the config back before any of this runs.

git is started in a session of its own: a Ctrl-C in the terminal must not cut a commit in half, and there is no
terminal that ssh could ask a question at. `hold` is a descriptor with a lock that git inherits: should we be
killed, the next Storyloop waits until the git that we left behind has ended.
"""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

import msgspec

from storyloop.core.errors import OperatorError, UserError

_GLANCE = 0.05
LONGEST = 3600.0  # seconds: a checkout that fetches large files may take long, but nothing waits for ever

_FLAGS = ("--no-optional-locks", "--no-pager", "--no-replace-objects")
_SETTINGS = (
    "core.fsmonitor=", "core.hooksPath=/dev/null", "core.untrackedCache=false", "core.splitIndex=false",
    "core.safecrlf=false", "core.quotePath=false", "index.sparse=false", "gc.auto=0", "maintenance.auto=false",
    "submodule.recurse=false", "diff.ignoreSubmodules=dirty", "i18n.commitEncoding=UTF-8", "user.useConfigOnly=true",
    "advice.updateSparsePath=false", "advice.addEmbeddedRepo=false",
)  # fmt: skip
# The agent's work is promised to be reachable after a power cut, so objects and refs reach the disk.
_DURABLE = ("core.fsync=objects,reference,index", "core.fsyncMethod=batch")

# Of the user's GIT_* only these are handed on: where his config is, and how his remotes are reached.
_HANDED_ON = frozenset(
    {
        "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH",
        "GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_LFS_SKIP_SMUDGE",
    }
)  # fmt: skip
IDENTITY = frozenset({"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"})  # on top, where the question is who the user is
# An empty askpass is none, whatever core.askPass says: a window that nobody looks at waits as long as a terminal does.
_FORCED = {
    "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS_REQUIRE": "never", "GCM_INTERACTIVE": "never",
    "LC_ALL": "C", "LANGUAGE": "",
}  # fmt: skip

# What git says of the registration of a worktree that another git has only just begun to write.
_HALF_MADE = re.compile(rb"failed to read \S*/commondir: (Success|No such file)")
_TRIES, _PAUSE = 100, 0.05

_CURES = (
    (r"lfs", "Install git-lfs, or take its filter out of the git config with `git lfs uninstall`."),
    (r"No space left|Disk quota", "Free some disk space, then go on with `storyloop resume`."),
    (r"\.lock'?: File exists", "If no git is running in this repository, remove that file."),
    (r"filter .* failed", "See that the filter's program is installed and works in a fresh worktree."),
    (r"[Pp]ermission denied|not permitted", "Give yourself access to it, then go on with `storyloop resume`."),
    (r"promisor|Could not read from remote|unable to access", "See that the remote can be reached."),
)


class GitFailed(OperatorError):  # noqa: N818 - it says what happened
    """git exited with a failure that we did not expect; keeps its words."""

    def __init__(self, argv: Sequence[str], code: int, stderr: str) -> None:
        self.argv = tuple(argv)
        self.code = code
        self.stderr = stderr
        words = "; ".join(line for line in stderr.splitlines() if line)[-1500:] or f"exit status {code}"
        cure = next((cure for pattern, cure in _CURES if re.search(pattern, stderr)), "Run `git fsck` there.")
        super().__init__(
            f"`git {' '.join(argv[:2])}` failed: {words}.",
            "What agents left is kept under refs/storyloop/.",
            cure,
        )


class Answer(msgspec.Struct, frozen=True):
    """What a git command printed, and its exit status."""

    code: int
    out: bytes
    err: bytes


class Git(msgspec.Struct, frozen=True, kw_only=True):
    """git, pointed at one git directory, and maybe at a worktree with an index of ours."""

    environ: Mapping[str, str]  # the user's
    git_dir: str = ""  # empty: git discovers it from `cwd`; for the user's own checkout only
    work_tree: str = ""
    index: str = ""
    excludes: str = ""  # a file of patterns to read instead of the user's own
    cwd: str = ""  # empty: the worktree, or the git directory
    hold: int | None = None

    def ask(
        self,
        *args: str | bytes,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        stop: threading.Event | None = None,
        longest: float = LONGEST,
    ) -> Answer:
        """Run git; any exit status is an answer. One that `stop` ends has the signal's; raises `GitFailed` where it
        takes longer (seconds).

        A worktree that another git is just adding makes every git fail that looks at all of them: it is asked again.
        """
        answer = self._asked(*args, stdin=stdin, env=env, stop=stop, longest=longest)
        for _ in range(_TRIES):
            if answer.code == 0 or _HALF_MADE.search(answer.err) is None:
                break
            time.sleep(_PAUSE)
            answer = self._asked(*args, stdin=stdin, env=env, stop=stop, longest=longest)
        return answer

    def _asked(
        self,
        *args: str | bytes,
        stdin: bytes,
        env: Mapping[str, str] | None,
        stop: threading.Event | None,
        longest: float,
    ) -> Answer:
        argv = ["git", *_FLAGS]
        for setting in (*_SETTINGS, *_DURABLE):
            argv += ("-c", setting)
        if self.excludes:
            argv += ("-c", f"core.excludesFile={self.excludes}")
        if self.git_dir:
            argv.append(f"--git-dir={self.git_dir}")
        if self.work_tree:
            argv.append(f"--work-tree={self.work_tree}")
        cwd = self.cwd or self.work_tree or self.git_dir
        if not os.path.isdir(cwd):
            cure = "Move it back, or make a link there to where it is now; then try again."
            raise UserError(f"The directory {cwd} is not there any more.", cure)
        process = subprocess.Popen(
            [os.fsencode(arg) for arg in (*argv, *args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=self._environment(env or {}),
            start_new_session=True,
            pass_fds=() if self.hold is None else (self.hold,),
        )
        with process:
            try:
                out, err = process.communicate(stdin, longest) if stop is None else _watched(process, stop, longest)
            except BaseException as error:  # whatever ends our waiting ends git and its filters
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    words = f"it did not end within {longest:.0f} seconds"
                    raise GitFailed([os.fsdecode(arg) for arg in args], -signal.SIGKILL, words) from None
                raise
        return Answer(process.returncode, out, err)

    def run(self, *args: str | bytes, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
        """Run git, which must succeed; what it printed comes back. Raises `GitFailed`."""
        answer = self.ask(*args, stdin=stdin, env=env)
        if answer.code != 0:
            raise GitFailed([os.fsdecode(arg) for arg in args], answer.code, shown(answer.err))
        return answer.out

    def line(self, *args: str | bytes, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """The same for a command that prints one word."""
        return os.fsdecode(self.run(*args, stdin=stdin, env=env)).strip()

    def has(self, ref: str) -> bool:
        """Whether that ref exists and has a commit."""
        return self.ask("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").code == 0

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        handed_on = {
            name: value
            for name, value in self.environ.items()
            if (not name.startswith("GIT_") or name in _HANDED_ON) and name != "SSH_ASKPASS"
        }
        own = {"GIT_INDEX_FILE": self.index} if self.index else {}
        return {**handed_on, **_FORCED, **own, **extra}


def _watched(process: "subprocess.Popen[bytes]", stop: threading.Event, longest: float) -> tuple[bytes, bytes]:
    """What a git printed that reads nothing; once `stop` is set, it is ended."""
    for _ in range(int(longest / _GLANCE)):
        try:
            return process.communicate(timeout=_GLANCE)
        except subprocess.TimeoutExpired:
            if stop.is_set():
                os.killpg(process.pid, signal.SIGKILL)
    raise subprocess.TimeoutExpired(process.args, longest)


def shown(path: bytes) -> str:
    """A path as text: as it is where it is UTF-8, else quoted as git quotes it (`"caf\\351.txt"`).

    A path that itself begins with a quote is quoted too, so that the two cannot be taken for each other.
    """
    try:
        text = path.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and not text.startswith('"'):
        return text
    return '"' + "".join(_QUOTED.get(byte) or _octal(byte) for byte in path) + '"'


def unquoted(path: bytes) -> bytes:
    """A path that git has written where it quotes, in a patch for example."""
    if not path.startswith(b'"'):
        return path
    return re.sub(rb"\\([0-7]{3}|.)", lambda found: _PLAIN.get(found[1]) or bytes([int(found[1], 8)]), path[1:-1])


_PLAIN = {
    b'"': b'"', b"\\": b"\\", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
}  # fmt: skip
_QUOTED = {ord('"'): '\\"', ord("\\"): "\\\\", 9: "\\t", 10: "\\n", 13: "\\r"}


def _octal(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"
