"""Ports: what the engine needs of the world, as protocols, each with at least two implementations.

Every implementation passes the contract suite of its port (`tests/ports/`). A port reports facts and
raises only for its operator (`OperatorError`: disk full, repository gone) or its programmer; a failure that
belongs to the run (an agent that crashed, a check that is red) is a value. The forge alone has an error of its own:
each of its calls can fail in the same seven ways.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from storyloop.core.errand import Mode
from storyloop.core.errors import OperatorError
from storyloop.core.events import Event
from storyloop.core.facts import CallReport, Change, Finding, Measured, Pin
from storyloop.core.forge import ForgeCheck, PullRequest, PullRequestText, Pushed, Thread
from storyloop.core.policy import AgentRef, AgentSpec, Command, Drain, SandboxMode, SandboxPolicy
from storyloop.core.run_row import RunRow
from storyloop.core.run_state import RunState
from storyloop.core.telling import PromptValues


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """This moment, in UTC."""
        ...

    def wait_until(self, moment: datetime, stop: threading.Event) -> bool:
        """Sleep until `moment`; True when it has come, False as soon as `stop` is set."""
        ...


# --- journal ------------------------------------------------------------------------------------------


class JournalConflict(OperatorError):  # noqa: N818 - it names what was met
    """Two processes write to one run, or one fact was told twice; nothing was stored."""

    def __init__(self, run_id: str, problem: str) -> None:
        super().__init__(
            f"Run {run_id} {problem}.",
            "Nothing was stored.",
            "If another storyloop works on this run, end it; then `storyloop resume` goes on from what is stored.",
        )
        self.run_id = run_id


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What another process asks of a run's one writer.

    `what` is open on purpose: a newer Storyloop may post what this one does not know, and is then refused by
    an event.
    """

    number: int  # the inbox's own, rising; whatever a request says that is posted
    what: str  # stop | skip | retry | answer
    story: str | None = None
    text: str = ""


class Journal(Protocol):
    """The ordered events of every run: the only truth. One writer per run, any number of readers."""

    def append(self, run_id: str, events: Sequence[Event], *, after: int, row: RunRow) -> int:
        """Store the events durably, all or none, with the run's row; the last one's number comes back.

        `after` is the number of the last event the writer knows: another writer's event in between, or a
        key that is there already, raises `JournalConflict`, and nothing is stored.
        """
        ...

    def read(self, run_id: str, *, after: int = 0) -> Iterator[tuple[int, Event]]:
        """The events behind number `after`, oldest first, never all in memory at once."""
        ...

    def rows(self, repository: str | None = None) -> list[RunRow]:
        """Every run (of one repository), newest first."""
        ...

    def offer_snapshot(self, run_id: str, seq: int, state: RunState) -> None:
        """Keep the state as of event `seq` if that is worth its bytes; cheap to ask after every append.

        A snapshot is a cache: the newest replaces the older one, and losing it costs time only.
        """
        ...

    def load_snapshot(self, run_id: str) -> tuple[int, RunState] | None:
        """The newest snapshot, if this version of the program wrote it and it is undamaged."""
        ...

    def post(self, run_id: str, request: Request) -> int:
        """Put a request into the run's inbox; its number, higher than any before, comes back."""
        ...

    def inbox(self, run_id: str, *, after: int) -> list[Request]:
        """Requests behind number `after`, oldest first."""
        ...

    def close(self) -> None: ...


# --- repository ---------------------------------------------------------------------------------------


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run sits: absolute paths, so that nothing depends on the process's directory."""

    run_id: str
    worktree: str
    branch: str
    run_dir: str  # ours: private index, guard copies, repositories put aside


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The worktree's files as a tree object, after the agent's tampering with git was undone."""

    tree: str
    findings: tuple[Finding, ...] = ()


class Author(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit of ours says: message with trailers, and the moment it is dated with."""

    message: str
    at: datetime


class Free(msgspec.Struct, frozen=True):
    """No such branch, and nothing in its way."""


class Exists(msgspec.Struct, frozen=True):
    """The branch exists and is checked out nowhere."""

    commit: str


class CheckedOut(msgspec.Struct, frozen=True):
    """The branch exists and is checked out."""

    path: str


class Clashes(msgspec.Struct, frozen=True):
    """A branch is in the way: git cannot have `a` and `a/b`."""

    other: str


BranchState = Free | Exists | CheckedOut | Clashes


class Checkout(Protocol):
    """The user's checkout as it stands when a run is to be opened; nothing here writes."""

    @property
    def root(self) -> str:
        """Absolute path of the checkout the user stands in."""
        ...

    @property
    def identity(self) -> str:
        """Absolute real path of the common git directory."""
        ...

    @property
    def head(self) -> str:
        """The commit that is checked out."""
        ...

    @property
    def head_tree(self) -> str: ...

    @property
    def head_branch(self) -> str:
        """The branch that is checked out; empty if none is."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of this repository before a run."""
        ...

    def remote_url(self, name: str) -> str:
        """Where this remote is; empty when there is none."""
        ...

    def commit(self, name: str) -> str:
        """The commit that is called so here; empty when there is none."""
        ...

    def tree_of(self, commit: str) -> str: ...

    def common(self, one: str, other: str) -> str:
        """The newest commit that both build on; empty when there is none, or one of them is not here."""
        ...

    def branch(self, name: str) -> BranchState:
        """Whether a run could make this branch."""
        ...

    def worktree_path(self, pattern: str, branch: str) -> str:
        """Where a run's worktree stands by this pattern: a sibling of the repository's main checkout."""
        ...


class Merged(msgspec.Struct, frozen=True):
    """What a merge came to."""

    tree: str
    clashes: tuple[str, ...] = ()  # files that hold both sides, between marks where they are text


class Remains(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a worktree, and of the work in it."""

    unkept: tuple[str, ...] = ()  # paths of files, a few, that no ref keeps as they are
    unpushed: int = 0  # commits of its branch that no remote has, where there is a remote


class ScratchRef(msgspec.Struct, frozen=True, kw_only=True):
    """A ref of a run's own."""

    name: str
    commit: str
    is_spare: bool  # every file in it is also on a branch, under a tag, or under a ref that is not spare


class PushOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be on a remote, under the run's branch."""

    remote: str  # by its name
    commit: str
    own: str  # what we pushed last; empty: nothing
    base: str  # the branch that a pull request should go to, if the remote has it; else it is the default one


class Repository(Protocol):
    """The user's repository and the run's worktrees in it. The user's checkout is never written to."""

    @property
    def identity(self) -> str:
        """Absolute real path of the common git directory."""
        ...

    def open_worktree(self, place: Place, *, base: str, reuse_branch: bool, copy: Sequence[str]) -> tuple[str, ...]:
        """Create branch and worktree at `base` (a branch that is reused keeps its tip); warnings come back.

        Doing it again after a crash at any instruction completes it. `copy` names ignored files of the
        user's checkout to bring along; one that is not there is a warning.
        """
        ...

    def has_worktree(self, place: Place) -> bool:
        """Whether the run's worktree stands. Raises UserError, with the cure, when somebody deleted its branch."""
        ...

    def tip(self, place: Place) -> str:
        """The commit that the run's branch points at."""
        ...

    def tree_of(self, commit: str) -> str:
        """The tree of a commit."""
        ...

    def guard(self, place: Place) -> None:
        """Remember git's own files (the `.git` file, config, hooks) as they are before an agent starts."""
        ...

    def settle(self, place: Place, *, expected_tip: str, label: str) -> Snapshot:
        """Undo what an agent did to git (keeping it aside), then hash the worktree's files.

        Commits of the agent are pinned under `refs/storyloop/<run>/<label>/agent-commits` and the branch is put back to
        `expected_tip` with the files left as they are.
        """
        ...

    def snapshot(self, place: Place) -> str:
        """The tree of the worktree's files now (tracked and untracked, without ignored ones and `.storyloop`)."""
        ...

    def pin(self, place: Place, *, tree: str, label: str, author: Author) -> Pin:
        """A commit of that tree on the branch's tip, kept by `refs/storyloop/<run>/<label>/files`.

        Pinned again, the same tree is the same pin; another tree under the same label is kept beside it.
        """
        ...

    def undo_changes(self, place: Place, *, tree: str) -> tuple[Change, ...]:
        """Put files of `tree` that were changed or deleted back; what had changed comes back, creations left."""
        ...

    def remove_creations(self, place: Place, *, tree: str) -> tuple[str, ...]:
        """Delete untracked, not ignored files that are not in `tree`; their paths come back."""
        ...

    def ignore_creations(self, place: Place, *, tree: str) -> tuple[str, ...]:
        """Untracked, not ignored files that are not in `tree` are ignored from here on, in this worktree alone.

        For what set-up leaves behind (an unignored `.venv`): it must survive, and be part of no tree. The ignored
        paths come back, a whole new directory as one path ending in `/`.
        """
        ...

    def commit(self, place: Place, *, tree: str, parent: str, author: Author) -> str:
        """Commit exactly `tree` onto the branch, compare-and-set against `parent`; the commit comes back.

        The same arguments give the same commit: done twice, it is found the second time.
        """
        ...

    def reset(self, place: Place, *, commit: str) -> None:
        """Branch, index and files back to `commit`; untracked files go, ignored ones stay."""
        ...

    def move_back(self, place: Place, *, commit: str, tip: str, label: str) -> str:
        """Branch, index and files from `tip` back to `commit`; the ref that keeps the tip comes back.

        Doing it again completes it. Raises UserError, with the way on, when the branch is at neither of the two.
        """
        ...

    def scrub(self, place: Place, *, commit: str, copy: Sequence[str]) -> None:
        """Files and index as in `commit`, and nothing else: ignored files go as well, `.storyloop` stays.

        What was ignored by `ignore_creations` is so no longer, and the files of `copy` are brought along again.
        """
        ...

    def changes(self, old_tree: str, new_tree: str) -> tuple[Change, ...]:
        """What differs between two trees, by path; lines counted for created and modified text files."""
        ...

    def additions(self, old_tree: str, new_tree: str) -> Iterator[tuple[str, bytes]]:
        """The lines that `new_tree` has and `old_tree` has not, by path; without binary and very large files."""
        ...

    def contents(self, tree: str, paths: Sequence[str], *, most: int) -> Iterator[tuple[str, bytes]]:
        """These files of a tree, by path; without links, and files of more than so many bytes."""
        ...

    def graft(self, place: Place, *, base: str, tree: str, wanted: Callable[[str], bool]) -> str:
        """A tree like `base`, with those files of `tree` whose path is wanted; what `tree` has deleted stays."""
        ...

    def diff(self, old_tree: str, new_tree: str, *, most: int) -> str:
        """The difference as a person reads it, cut behind so many characters; bytes that are no UTF-8 replaced."""
        ...

    def merged(self, commit: str, onto: str) -> Merged | None:
        """The tree of `onto` with what `commit` changed since the two parted.

        Nothing but objects is written. A git that is too old to merge without a worktree (before 2.38) gives None.
        """
        ...

    def remains(self, place: Place) -> Remains | None:
        """What is left of the run's worktree; None where nothing is. Asking changes nothing."""
        ...

    def scratch_refs(self, run_id: str, *, base: str) -> tuple[ScratchRef, ...]:
        """The refs below `refs/storyloop/<run>/`. Each tree that only they have is said to be so of exactly one."""
        ...

    def keep(self, run_id: str, names: Sequence[str]) -> None:
        """The commits of these names that are there are reachable by `refs/storyloop/<run>/forked/`, too."""
        ...

    def drop_refs(self, refs: Sequence[ScratchRef]) -> None:
        """Delete these refs if they still are what they were: all, or none where one has moved."""
        ...

    def push(self, place: Place, order: PushOrder, stop: threading.Event) -> Pushed | None:
        """Have the remote's branch hold the commit, with an explicit lease; None when `stop` was set meanwhile.

        Raises `ForgeTrouble`: never pushed is the default branch, nor over commits that are not in the commit and that
        we did not push. Done again, it finds the commit there.
        """
        ...

    def close_worktree(self, place: Place, *, with_branch: bool = False) -> None:
        """Remove the worktree's directory and registration, or what a crash left of its opening; pins stay."""
        ...


# --- forge --------------------------------------------------------------------------------------------


class PullRequests(Protocol):
    """The repository on GitHub, GitLab, Gitea or Forgejo. Every call may raise `ForgeTrouble`, and nothing else.

    Calls that only read are tried again by themselves; one that writes is made once. When such a one raises, it may
    have been done all the same: who calls it again looks first.
    """

    @property
    def name(self) -> str:
        """Where it is, for people: `GitHub (github.com/owner/name)`."""
        ...

    def default_branch(self) -> str:
        """The branch that pull requests go to unless they say otherwise."""
        ...

    def find(self, head: str) -> PullRequest | None:
        """The open pull request from this branch, else the newest that was closed or merged."""
        ...

    def get(self, number: int) -> PullRequest:
        """The pull request with this number."""
        ...

    def create(self, text: PullRequestText, *, head: str, base: str, draft: bool) -> PullRequest:
        """Open one; where there is an open one from this branch already it is `REJECTED`."""
        ...

    def update(self, pull_request: PullRequest, *, body: str, draft: bool) -> PullRequest:
        """Give it this body, and make it a draft or ready for review. Its title stays."""
        ...


class Forge(PullRequests, Protocol):
    """And what is said of a pull request there."""

    def threads(self, number: int) -> tuple[Thread, ...]:
        """The unresolved review threads and the reviews that request changes, of all pages, the oldest first."""
        ...

    def reply(self, number: int, thread: Thread, text: str) -> str:
        """Answer in a thread; the new comment's id comes back."""
        ...

    def resolve(self, number: int, thread: Thread) -> None:
        """Mark a resolvable thread as resolved; one that is so already stays so."""
        ...

    def checks(self, commit: str) -> tuple[ForgeCheck, ...]:
        """The newest run of each check on this commit, of all pages."""
        ...


# --- agents and checks --------------------------------------------------------------------------------


def artifact_path(worktree: str, key: str) -> str:
    """Where the agent of the call with this key puts its artifact: known before the call, fresh for each."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in key)
    return f"{worktree}/.storyloop/{name[-100:]}.xml"


_UNFENCED = SandboxPolicy(mode=SandboxMode.OFF)


class CallOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One start of one agent: everything that is needed to launch it, or to find it again."""

    run_id: str
    key: str  # derived: story/iteration/drain/attempt/call
    call_dir: str  # of this one call, and never used again
    worktree: str
    ref: AgentRef
    agent: AgentSpec
    drain: Drain
    story: str | None
    iteration: int = 0  # over the story, or of the review
    attempt: int
    call: int
    mode: Mode
    session: str | None
    prompt: str  # only launching reads it
    call_timeout: float
    idle_timeout: float
    orphan_grace: float
    sandbox: SandboxPolicy = _UNFENCED
    seat: int | None = None  # the lock that is held for as long as the call lasts, whoever dies


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is seen doing; for watching, never for deciding."""

    text: str


class Watch(Protocol):
    """A call that is under way."""

    def wait(self, seconds: float) -> CallReport | None:
        """Its report as soon as it has ended, else None after so many seconds."""
        ...

    def stop(self) -> None:
        """End the agent's whole tree; `wait` then reports it as interrupted."""
        ...

    def activity(self) -> Activity | None:
        """The newest thing it was seen doing since the last question, read within a fixed bound."""
        ...


class Agents(Protocol):
    """Starts agents, and finds the ones that a dead Storyloop left running."""

    def launch(self, order: CallOrder) -> Watch:
        """Start the agent; one that cannot be started is a report (`missing`), not an error."""
        ...

    def adopt(self, order: CallOrder) -> Watch:
        """Take up the call that an earlier process began; one that is lost reports as interrupted."""
        ...


class Limited(msgspec.Struct, frozen=True, kw_only=True):
    """An agent has no quota left, and for how long."""

    until: datetime
    reason: str


class Seat(msgspec.Struct, frozen=True):
    """The right to one call of an account. Any process that has inherited `lock` holds it as well."""

    leave: Callable[[], None]
    lock: int | None = None


class Accounts(Protocol):
    """What the runs of this machine share of agents' accounts: limits that were met, and seats."""

    def limit(self, account: str, model: str | None) -> Limited | None:
        """What was last met of this account and model; it may be over by now."""
        ...

    def learn(self, account: str, model: str | None, limited: Limited | None) -> None:
        """A limit was met, or (None) there is quota again."""
        ...

    def take_seat(self, account: str, seats: int) -> Seat | None:
        """One of so many seats; None while all are taken."""
        ...


SymbolsReader = Callable[[bytes], tuple[str, ...]]  # a file's content -> the names that it defines, a few


class Secrets(Protocol):
    """Knows secrets when it sees them."""

    def text(self, text: str) -> str:
        """The text without its secrets; the very same object when it has none."""
        ...

    def find(self, data: bytes) -> list[str]:
        """The names of the secrets in these bytes, each once."""
        ...

    def knowing(self, environment: Mapping[str, str]) -> "Secrets":
        """One that knows the secrets of this environment, too."""
        ...


def checks_dir(run_dir: str) -> str:
    """Below it each command of a run has a directory of its own."""
    return f"{run_dir}/checks"


class GitAccess(StrEnum):
    """What a command may write of git's directory, although a sandbox holds it."""

    NOTHING = "nothing"
    SUBMODULES = "submodules"  # the repositories of those that this worktree has already
    ALL = "all"


class CheckOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one command of the project."""

    check_dir: str
    worktree: str
    run_dir: str
    command: Command
    timeout: float
    sandbox: SandboxPolicy = _UNFENCED
    git: GitAccess = GitAccess.NOTHING


class Checks(Protocol):
    """Runs the project's commands, never through an agent."""

    def run(self, order: CheckOrder, stop: threading.Event) -> Measured | None:
        """Run it to its end in the worktree's root; None when `stop` was set meanwhile."""
        ...

    def end_left(self, run_dir: str) -> None:
        """End what a dead process left running of this run's commands, before anybody looks at the worktree."""
        ...


class Prompts(Protocol):
    """Renders what an agent is told."""

    def render(self, values: PromptValues) -> str:
        """The prompt of one call."""
        ...

    def handover(self, values: PromptValues) -> str:
        """The text of `.storyloop/handover.md`."""
        ...


class Notifier(Protocol):
    """Sends word to whoever is not watching."""

    def send(self, title: str, text: str) -> str | None:
        """What went wrong, as a sentence that names no address; None when all went well."""
        ...


class Papers(Protocol):
    """The files that we write for agents and people to read, outside of every tree."""

    def write_handover(self, place: Place, text: str) -> None:
        """Put the handover into the worktree's `.storyloop`, replacing an older one."""
        ...

    def remove_handover(self, place: Place) -> None:
        """Take it away again; there need not be one."""
        ...

    def save_spec(self, place: Place, data: bytes) -> None:
        """Keep the run's spec in its directory, in the place of an older one."""
        ...

    def save_report(self, place: Place, text: str) -> str:
        """Keep the run's report in its directory; the path comes back."""
        ...
