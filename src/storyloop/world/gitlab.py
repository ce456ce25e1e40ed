"""GitLab: merge requests. A draft is one whose title begins with `Draft:`."""

import re

import msgspec

from storyloop.core.forge import CheckState, Comment, ForgeCheck, PullRequest, PullRequestState, PullRequestText, Thread
from storyloop.world.forge_api import Address, Api, Transport, encoded

_STATES = {"opened": PullRequestState.OPEN, "locked": PullRequestState.OPEN, "merged": PullRequestState.MERGED}
_DRAFT = re.compile(r"^\s*(\[draft\]|\(draft\)|draft:|\[wip\]|wip:)\s*", re.IGNORECASE)


class _Request(msgspec.Struct):
    iid: int
    web_url: str
    state: str
    source_branch: str
    target_branch: str
    title: str
    source_project_id: int | None = None
    target_project_id: int | None = None
    sha: str | None = None
    draft: bool | None = None
    work_in_progress: bool = False
    description: str | None = None


class _Project(msgspec.Struct):
    default_branch: str | None = None


class _Author(msgspec.Struct):
    username: str


class _Position(msgspec.Struct):
    new_path: str | None = None
    new_line: int | None = None


class _Note(msgspec.Struct):
    id: int
    body: str
    author: _Author | None = None
    resolvable: bool = False
    resolved: bool = False
    position: _Position | None = None


class _Discussion(msgspec.Struct):
    id: str
    notes: list[_Note]


class _Status(msgspec.Struct):
    id: int
    name: str
    status: str
    target_url: str | None = None
    description: str | None = None
    allow_failure: bool = False


_CHECKS = {
    **dict.fromkeys(("success", "skipped", "manual"), CheckState.GREEN),
    **dict.fromkeys(("failed", "canceled"), CheckState.RED),
}


class GitLab:
    """One project there."""

    def __init__(self, address: Address, transport: Transport) -> None:
        self._api = Api(address, transport)
        self.name = str(address)
        self._project = f"projects/{encoded(address.project)}"

    def default_branch(self) -> str:
        return self._api.read(self._project, _Project).default_branch or ""

    def find(self, head: str) -> PullRequest | None:
        found = self._api.read(
            f"{self._project}/merge_requests",
            list[_Request],
            source_branch=head,
            state="all",
            order_by="created_at",
            sort="desc",
        )
        own = [_pull_request(one) for one in found if one.source_project_id == one.target_project_id]
        return next((one for one in own if one.state is PullRequestState.OPEN), next(iter(own), None))

    def get(self, number: int) -> PullRequest:
        return _pull_request(self._api.read(f"{self._project}/merge_requests/{number}", _Request))

    def create(self, text: PullRequestText, *, head: str, base: str, draft: bool) -> PullRequest:
        return _pull_request(
            self._api.write(
                "POST",
                f"{self._project}/merge_requests",
                _Request,
                title=_title(text.title, draft=draft),
                description=text.body,
                source_branch=head,
                target_branch=base,
            )
        )

    def update(self, pull_request: PullRequest, *, body: str, draft: bool) -> PullRequest:
        path = f"{self._project}/merge_requests/{pull_request.number}"
        title = _title(pull_request.title, draft=draft)
        return _pull_request(self._api.write("PUT", path, _Request, title=title, description=body))

    def threads(self, number: int) -> tuple[Thread, ...]:
        found = self._api.pages(f"{self._project}/merge_requests/{number}/discussions", _Discussion)
        return tuple(_thread(one) for one in found if any(n.resolvable and not n.resolved for n in one.notes))

    def reply(self, number: int, thread: Thread, text: str) -> str:
        path = f"{self._project}/merge_requests/{number}/discussions/{thread.id}/notes"
        return str(self._api.write("POST", path, _Note, body=text).id)

    def resolve(self, number: int, thread: Thread) -> None:
        path = f"{self._project}/merge_requests/{number}/discussions/{thread.id}"
        self._api.write("PUT", path, msgspec.Raw, resolved=True)

    def checks(self, commit: str) -> tuple[ForgeCheck, ...]:
        statuses = self._api.pages(f"{self._project}/repository/commits/{commit}/statuses", _Status)
        newest = {status.name: status for status in sorted(statuses, key=lambda status: status.id)}
        return tuple(map(self._check, newest.values()))

    def _check(self, status: _Status) -> ForgeCheck:
        state, tail = _CHECKS.get(status.status, CheckState.PENDING), ""
        if state is CheckState.RED and status.allow_failure:
            state = CheckState.GREEN
        elif state is CheckState.RED:  # a job of its own CI has the number of its status
            tail = self._api.tail(f"{self._project}/jobs/{status.id}/trace") or status.description or ""
        return ForgeCheck(name=status.name, state=state, url=status.target_url or "", tail=tail)


def _thread(discussion: _Discussion) -> Thread:
    position = next((note.position for note in discussion.notes if note.position is not None), _Position())
    comments = (
        Comment(id=str(note.id), author=note.author.username if note.author else "somebody", text=note.body)
        for note in discussion.notes
    )
    return Thread(
        id=discussion.id,
        file=position.new_path,
        line=position.new_line,
        comments=tuple(comments),
        resolvable=True,
    )


def _title(title: str, *, draft: bool) -> str:
    return f"Draft: {title}" if draft else title


def _pull_request(request: _Request) -> PullRequest:
    return PullRequest(
        number=request.iid,
        url=request.web_url,
        state=_STATES.get(request.state, PullRequestState.CLOSED),
        head=request.source_branch,
        head_commit=request.sha or "",
        base=request.target_branch,
        draft=request.work_in_progress if request.draft is None else request.draft,
        title=_DRAFT.sub("", request.title),
        body=request.description or "",
    )
