"""The forge: pull requests, and what is said of them."""

from typing import Protocol

from storyloop.core.forge import ForgeCheck, PullRequest, PullRequestText, Thread


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
