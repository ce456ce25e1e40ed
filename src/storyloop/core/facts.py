"""Small values that ports report and events carry: what was measured, changed, pinned or found.

They live in the core because the journal keeps them and the reducer reads them; the hands in `world`
and `agents` only fill them in.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from storyloop.core.artifacts import Artifact
from storyloop.core.usage import Usage


class ChangeKind(StrEnum):
    """What became of a path between two trees; a rename is a deletion and a creation."""

    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"


class Change(msgspec.Struct, frozen=True):
    """One path that differs between two trees. A path that is not UTF-8 is git-quoted."""

    path: str
    kind: ChangeKind
    lines: int | None = None  # lines of the file now; None for deleted, binary or unmeasured files


class Finding(msgspec.Struct, frozen=True):
    """Something that an agent or a check did to the repository and that we undid or kept aside.

    `what` is a short stable word (`agent-commit`, `switched-branch`, `git-file`, `worktree-gone`, `config-changed`,
    `worktree-registration`, `hooks-changed`, `nested-repository`, `nested-worktree`, `unfinished-operation`,
    `stash-dropped`, `submodule-moved`, `left-out`, `check-changed-files`, `changed-files`);
    `detail` is a sentence for a person, naming where the other version is kept.
    """

    what: str
    detail: str


class SuspicionKind(StrEnum):
    """What a change does that bends its own proof, or what its new tests fail to show."""

    CHECK_CHANGED = "check-changed"
    TEST_CONFIG_CHANGED = "test-config-changed"
    CI_CHANGED = "ci-changed"
    FILES_IGNORED = "files-ignored"
    FAILURE_SWALLOWED = "failure-swallowed"
    TESTS_DELETED = "tests-deleted"  # the whole file
    TESTS_REMOVED = "tests-removed"
    TESTS_SKIPPED = "tests-skipped"
    ASSERTIONS_WEAKENED = "assertions-weakened"
    TESTS_PROVE_NOTHING = "tests-prove-nothing"  # new ones that are green without the work
    TESTS_NOT_TRIED = "tests-not-tried"  # without the work: there is no command, or it could not be measured


class Suspicion(msgspec.Struct, frozen=True):
    """Something in a story's change that a reviewer should look at: no verdict."""

    kind: SuspicionKind
    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail} ({self.kind})"


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """A worktree's files at one moment, kept by a ref."""

    tree: str
    commit: str
    ref: str


class Ending(StrEnum):
    """How a command that we ran ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    UNSTARTED = "unstarted"  # the shell itself could not be started, or its end was lost


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one command by us: its end, and its output kept as a file."""

    ending: Ending
    exit_status: int | None  # None unless it exited
    seconds: float
    output: str  # path of the file with stdout and stderr, relative to the run's directory
    output_digest: str  # SHA-256 of that file, hex
    output_size: int
    tail: str  # the end of the output as text, bounded; bytes that are no UTF-8 replaced
    reason: str = ""  # one sentence when there is more to say than the exit status: timeout, signal, disk full


class Failure(StrEnum):
    """Why a call gave no answer; the classes decide what is owed next."""

    TRANSIENT = "transient"
    LIMIT = "limit"
    AUTH = "auth"
    MISSING = "missing"
    CONFIG = "config"
    OFFLINE = "offline"


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag="answered"):
    """The call ended with a valid artifact."""

    artifact: Artifact


class Malformed(msgspec.Struct, frozen=True, kw_only=True, tag="malformed"):
    """The call ended well, but its artifact is missing or invalid."""

    errors: str  # the validator's words: line, element, what was expected
    text: str = ""  # what was received, bounded, for a retry without a session


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The call broke. `timed_out` tells a deadline from a crash."""

    failure: Failure
    message: str
    resets_at: datetime | None = None
    timed_out: bool = False


class Interrupted(msgspec.Struct, frozen=True, kw_only=True, tag="interrupted"):
    """We, or the end of the machine, stopped the call: asked again on resume, not a failure."""

    reason: str


Outcome = Answered | Malformed | Failed | Interrupted


class CallReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one call came to: its outcome and what it cost. None means unknown, never zero."""

    outcome: Outcome
    session: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    seconds: float = 0.0
    snippet: str = ""  # the last characters the agent printed, bounded
    leftovers: int = 0  # processes that the agent left behind and we ended
