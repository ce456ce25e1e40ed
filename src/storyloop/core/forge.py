"""What a forge (GitHub, GitLab, Gitea, Forgejo) knows of a branch: its pull request, what was said of it, its checks.

They live in the core because the journal keeps some of them. What people and agents wrote on a forge is untrusted text.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from storyloop.core.errors import StoryloopError


class PullRequestState(StrEnum):
    """How a pull request stands."""

    OPEN = "open"
    CLOSED = "closed"
    MERGED = "merged"


class PullRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A pull request (GitLab: merge request) from a branch of the repository itself."""

    number: int  # as people name it: GitLab's `iid`
    url: str
    state: PullRequestState
    head: str  # its branch
    head_commit: str  # what the forge has of it
    base: str
    draft: bool
    title: str  # without what marks a draft
    body: str


class PullRequestText(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull request says."""

    title: str
    body: str


class Comment(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that somebody wrote."""

    id: str
    author: str
    text: str


class Thread(msgspec.Struct, frozen=True, kw_only=True, tag="thread"):
    """An unresolved conversation about a pull request, or the text of a review that requests changes."""

    id: str  # the forge's own, opaque
    file: str | None  # None: it is about all of it
    line: int | None  # in the file as the pull request has it; None where it is outdated, or about all of the file
    comments: tuple[Comment, ...]  # the oldest first, at least one
    resolvable: bool  # whether the forge can mark it as resolved


class CheckState(StrEnum):
    """How a check of the forge's CI stands."""

    PENDING = "pending"
    GREEN = "green"
    RED = "red"


class ForgeCheck(msgspec.Struct, frozen=True, kw_only=True, tag="check"):
    """A check that the forge's CI ran on a commit."""

    name: str
    state: CheckState
    url: str = ""
    tail: str = ""  # the end of its log, bounded; of red ones only, and empty where there is none to be had


class Trouble(StrEnum):
    """In which way a forge, or a push to it, did not do what was asked."""

    NOT_LOGGED_IN = "not logged in"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not found"
    REJECTED = "rejected"  # it understood, and will not have it
    LIMITED = "limited"  # its rate limit is used up
    OFFLINE = "offline"  # no answer, or none in time: whether it was done is unknown
    BROKEN = "broken"  # an error of its own, or an answer that makes no sense


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """A branch of ours as a remote has it."""

    remote: str
    commit: str
    base: str  # the remote's branch that a pull request goes to


class DeliveryStep(StrEnum):
    """What a delivery is made of."""

    PUSH = "push"
    PULL_REQUEST = "pull request"
    ANSWER = "answer"


class ForgeTrouble(StoryloopError):  # noqa: N818 - it names what was met
    """A call to the forge came to nothing, or it is not known to what; the work itself is safe."""

    def __init__(self, trouble: Trouble, problem: str, cure: str, *, until: datetime | None = None) -> None:
        super().__init__(problem, cure)
        self.trouble = trouble
        self.until = until  # when a limit is over, where the forge says so
