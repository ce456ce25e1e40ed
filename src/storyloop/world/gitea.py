"""Gitea and Forgejo, which answer alike. A draft is one whose title begins with `WIP:`, as both have it by default."""

import re
from collections.abc import Iterator
from itertools import islice

import msgspec

from storyloop.core.forge import (
    CheckState,
    ForgeCheck,
    ForgeTrouble,
    PullRequest,
    PullRequestState,
    PullRequestText,
    Thread,
    Trouble,
)
from storyloop.world.forge_api import Address, Api, Transport
from storyloop.world.reviews import PullComment, Review, User, about, is_of_review, requests

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


class _CodeComment(PullComment):
    path: str = ""
    position: int = 0  # the line in the new file; 0 where it is about one that is gone
    original_position: int = 0
    resolver: User | None = None


class _Status(msgspec.Struct):
    context: str
    status: str
    target_url: str | None = None
    description: str | None = None


_CHECKS = {
    **dict.fromkeys(("success", "warning", "skipped"), CheckState.GREEN),
    "pending": CheckState.PENDING,
}


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

    def threads(self, number: int) -> tuple[Thread, ...]:
        reviews = list(self._api.pages(f"{self._repo}/pulls/{number}/reviews", Review))
        comments = self._api.pages(f"{self._repo}/issues/{number}/comments", PullComment)
        return (*self._conversations(number, reviews), *requests(reviews, comments))

    def _conversations(self, number: int, reviews: list[Review]) -> Iterator[Thread]:
        """Comments on one line of one file are one, across reviews: so they are shown, and so they are resolved."""
        found: dict[tuple[str, int, int], list[_CodeComment]] = {}
        for review in reviews:
            path = f"{self._repo}/pulls/{number}/reviews/{review.id}/comments"
            for comment in self._api.pages(path, _CodeComment) if review.comments_count else ():
                place = (comment.path, comment.position, comment.original_position)
                found.setdefault(place, []).append(comment)
        for (path, line, old), said in sorted(found.items(), key=lambda item: min(one.id for one in item[1])):
            said.sort(key=lambda comment: comment.id)
            if not any(comment.resolver for comment in said):
                yield Thread(
                    id=f"{said[0].id} {line} {old}",
                    file=path,
                    line=line or None,
                    comments=tuple(comment.shown() for comment in said),
                    resolvable=True,
                )

    def reply(self, number: int, thread: Thread, text: str) -> str:
        if is_of_review(thread):
            body = f"{text}\n{about(thread)}"
            return str(self._api.write("POST", f"{self._repo}/issues/{number}/comments", PullComment, body=body).id)
        _, line, old = thread.id.split()
        comment = {"path": thread.file, "body": text, "new_position": int(line), "old_position": int(old)}
        path = f"{self._repo}/pulls/{number}/reviews"
        return str(self._api.write("POST", path, Review, event="COMMENT", body="", comments=[comment]).id)

    def resolve(self, number: int, thread: Thread) -> None:
        try:
            path = f"{self._repo}/pulls/{number}/comments/{thread.id.split()[0]}/resolve"
            self._api.write("POST", path, msgspec.Raw)
        except ForgeTrouble as problem:
            if problem.trouble is not Trouble.NOT_FOUND:
                raise
            told = f"{self.name} has no way to resolve a thread but by hand."
            raise ForgeTrouble(Trouble.NOT_FOUND, told, "Gitea has one since 1.26; resolve it there.") from problem

    def checks(self, commit: str) -> tuple[ForgeCheck, ...]:
        path = f"{self._repo}/commits/{commit}/statuses"
        newest: dict[str, _Status] = {}
        for status in self._api.pages(path, _Status, sort="highestindex"):
            newest.setdefault(status.context, status)
        return tuple(map(_check, newest.values()))


def _check(status: _Status) -> ForgeCheck:
    """No log of it is to be had: what it says in a line stands for one."""
    state = _CHECKS.get(status.status, CheckState.RED)
    tail = (status.description or "") if state is CheckState.RED else ""
    return ForgeCheck(name=status.context, state=state, url=status.target_url or "", tail=tail)


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
