"""GitLab: merge requests. A draft is one whose title begins with `Draft:`."""

import re

import msgspec

from storyloop.core.forge import PullRequest, PullRequestState, PullRequestText
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
