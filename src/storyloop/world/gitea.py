"""Gitea and Forgejo, which answer alike. A draft is one whose title begins with `WIP:`, as both have it by default."""

import re
from collections.abc import Iterator
from itertools import islice

import msgspec

from storyloop.core.forge import PullRequest, PullRequestState, PullRequestText
from storyloop.world.forge_api import Address, Api, Transport

_DRAFT = re.compile(r"^\s*(\[wip\]|wip:)\s*", re.IGNORECASE)
_MOST_ENDED = 500  # that are looked at for one that has ended: they cannot be asked for by branch


class _Repository(msgspec.Struct):
    default_branch: str


class _Branch(msgspec.Struct):
    ref: str
    sha: str = ""
    repo_id: int = 0


class _Pull(msgspec.Struct):
    number: int
    html_url: str
    state: str
    head: _Branch
    base: _Branch
    title: str
    merged: bool = False
    body: str | None = None


class Gitea:
    """One repository there."""

    def __init__(self, address: Address, transport: Transport) -> None:
        self._api = Api(address, transport)
        self.name = str(address)
        self._repo = f"repos/{address.project}"

    def default_branch(self) -> str:
        return self._api.read(self._repo, _Repository).default_branch

    def find(self, head: str) -> PullRequest | None:
        ended = islice(self._pulls("closed"), _MOST_ENDED)
        found = (pull for pulls in (self._pulls("open"), ended) for pull in pulls)
        own = (pull for pull in found if pull.head.ref == head and pull.head.repo_id == pull.base.repo_id)
        return next(map(_pull_request, own), None)

    def _pulls(self, state: str) -> Iterator[_Pull]:
        return self._api.pages(f"{self._repo}/pulls", _Pull, state=state, sort="recentupdate")

    def get(self, number: int) -> PullRequest:
        return _pull_request(self._api.read(f"{self._repo}/pulls/{number}", _Pull))

    def create(self, text: PullRequestText, *, head: str, base: str, draft: bool) -> PullRequest:
        return _pull_request(
            self._api.write(
                "POST",
                f"{self._repo}/pulls",
                _Pull,
                title=_title(text.title, draft=draft),
                body=text.body,
                head=head,
                base=base,
            )
        )

    def update(self, pull_request: PullRequest, *, body: str, draft: bool) -> PullRequest:
        path = f"{self._repo}/pulls/{pull_request.number}"
        title = _title(pull_request.title, draft=draft)
        return _pull_request(self._api.write("PATCH", path, _Pull, title=title, body=body))


def _title(title: str, *, draft: bool) -> str:
    return f"WIP: {title}" if draft else title


def _pull_request(pull: _Pull) -> PullRequest:
    return PullRequest(
        number=pull.number,
        url=pull.html_url,
        state=PullRequestState.MERGED if pull.merged else PullRequestState(pull.state),
        head=pull.head.ref,
        head_commit=pull.head.sha,
        base=pull.base.ref,
        draft=bool(_DRAFT.match(pull.title)),
        title=_DRAFT.sub("", pull.title),
        body=pull.body or "",
    )
