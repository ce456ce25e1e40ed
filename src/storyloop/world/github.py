"""GitHub, and GitHub Enterprise: REST, and GraphQL for what REST does not have (drafts, review threads)."""

import msgspec

from storyloop.core.forge import PullRequest, PullRequestState, PullRequestText
from storyloop.world.forge_api import Address, Api, Transport


class _Branch(msgspec.Struct):
    ref: str
    sha: str


class _Pull(msgspec.Struct):
    number: int
    html_url: str
    state: str
    head: _Branch
    base: _Branch
    title: str
    node_id: str = ""
    draft: bool = False
    merged_at: str | None = None
    body: str | None = None


class _Repository(msgspec.Struct):
    default_branch: str


class GitHub:
    """One repository there."""

    def __init__(self, address: Address, transport: Transport) -> None:
        self._api = Api(address, transport)
        self.name = str(address)
        self._owner = address.project.partition("/")[0]
        self._repo = f"repos/{address.project}"

    def default_branch(self) -> str:
        return self._api.read(self._repo, _Repository).default_branch

    def find(self, head: str) -> PullRequest | None:
        found = self._api.read(
            f"{self._repo}/pulls",
            list[_Pull],
            head=f"{self._owner}:{head}",
            state="all",
            sort="created",
            direction="desc",
        )
        # A filter that it does not understand, GitHub passes over in silence.
        pulls = [_pull_request(pull) for pull in found if pull.head.ref == head]
        return next((pull for pull in pulls if pull.state is PullRequestState.OPEN), next(iter(pulls), None))

    def get(self, number: int) -> PullRequest:
        return _pull_request(self._pull(number))

    def create(self, text: PullRequestText, *, head: str, base: str, draft: bool) -> PullRequest:
        return _pull_request(
            self._api.write(
                "POST",
                f"{self._repo}/pulls",
                _Pull,
                title=text.title,
                body=text.body,
                head=head,
                base=base,
                draft=draft,
            )
        )

    def update(self, pull_request: PullRequest, *, body: str, draft: bool) -> PullRequest:
        path = f"{self._repo}/pulls/{pull_request.number}"
        changed = self._api.write("PATCH", path, _Pull, body=body)
        if changed.draft is not draft:
            mutation = "convertPullRequestToDraft" if draft else "markPullRequestReadyForReview"
            text = f"mutation($id: ID!) {{ {mutation}(input: {{pullRequestId: $id}}) {{ clientMutationId }} }}"
            self._api.query(text, msgspec.Raw, id=changed.node_id)
        return self.get(pull_request.number)

    def _pull(self, number: int) -> _Pull:
        return self._api.read(f"{self._repo}/pulls/{number}", _Pull)


def _pull_request(pull: _Pull) -> PullRequest:
    return PullRequest(
        number=pull.number,
        url=pull.html_url,
        state=PullRequestState.MERGED if pull.merged_at else PullRequestState(pull.state),
        head=pull.head.ref,
        head_commit=pull.head.sha,
        base=pull.base.ref,
        draft=pull.draft,
        title=pull.title,
        body=pull.body or "",
    )
