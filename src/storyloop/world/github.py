"""GitHub, and GitHub Enterprise: REST, and GraphQL for what REST does not have (drafts, review threads)."""

from collections.abc import Iterator

import msgspec

from storyloop.core.forge import CheckState, Comment, ForgeCheck, PullRequest, PullRequestState, PullRequestText, Thread
from storyloop.world.forge_api import Address, Api, Transport
from storyloop.world.reviews import PullComment, Review, User, about, is_of_review, name_of, requests

# The first comment of a thread is the one that can be answered; the newest are those that matter.
_THREADS = """
query($owner: String!, $name: String!, $number: Int!, $after: String) {
  repository(owner: $owner, name: $name) { pullRequest(number: $number) {
    reviewThreads(first: 50, after: $after) {
      pageInfo { hasNextPage endCursor }
      nodes { id isResolved path line
        first: comments(first: 1) { nodes { databaseId } }
        newest: comments(last: 50) { nodes { databaseId body author { login } } } }
    } } }
}"""
_RESOLVE = "mutation($id: ID!) { resolveReviewThread(input: {threadId: $id}) { clientMutationId } }"
_RED = frozenset({"failure", "timed_out", "cancelled", "startup_failure", "action_required"})
_STATUSES = {"success": CheckState.GREEN, "pending": CheckState.PENDING}


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


class _Note(msgspec.Struct, rename="camel"):
    database_id: int
    body: str = ""
    author: User | None = None


class _Notes(msgspec.Struct):
    nodes: list[_Note]


class _Thread(msgspec.Struct, rename="camel"):
    id: str
    is_resolved: bool
    path: str
    first: _Notes
    newest: _Notes
    line: int | None = None


class _PageInfo(msgspec.Struct, rename="camel"):
    has_next_page: bool
    end_cursor: str | None = None


class _Threads(msgspec.Struct, rename="camel"):
    page_info: _PageInfo
    nodes: list[_Thread]


class _OfPull(msgspec.Struct, rename="camel"):
    review_threads: _Threads


class _OfRepository(msgspec.Struct, rename="camel"):
    pull_request: _OfPull


class _Found(msgspec.Struct):
    repository: _OfRepository


class _Output(msgspec.Struct, frozen=True):
    summary: str | None = None
    text: str | None = None


class _CheckRun(msgspec.Struct):
    id: int
    name: str
    status: str
    conclusion: str | None = None
    html_url: str | None = None
    output: _Output = _Output()


class _Status(msgspec.Struct):
    context: str
    state: str
    target_url: str | None = None
    description: str | None = None


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

    def threads(self, number: int) -> tuple[Thread, ...]:
        reviews = self._api.pages(f"{self._repo}/pulls/{number}/reviews", Review)
        comments = self._api.pages(f"{self._repo}/issues/{number}/comments", PullComment)
        return (*self._threads(number), *requests(reviews, comments))

    def _threads(self, number: int) -> Iterator[Thread]:
        owner, _, name = self._repo.removeprefix("repos/").partition("/")
        after: str | None = None
        while True:
            found = self._api.query(_THREADS, _Found, owner=owner, name=name, number=number, after=after)
            threads = found.repository.pull_request.review_threads
            yield from (_thread(thread) for thread in threads.nodes if not thread.is_resolved and thread.first.nodes)
            if not threads.page_info.has_next_page:
                return
            after = threads.page_info.end_cursor

    def reply(self, number: int, thread: Thread, text: str) -> str:
        if is_of_review(thread):
            path, text = f"issues/{number}/comments", f"{text}\n{about(thread)}"
        else:
            path = f"pulls/{number}/comments/{thread.id.rpartition(' ')[2]}/replies"
        return str(self._api.write("POST", f"{self._repo}/{path}", PullComment, body=text).id)

    def resolve(self, number: int, thread: Thread) -> None:  # noqa: ARG002 - the port's
        self._api.query(_RESOLVE, msgspec.Raw, id=thread.id.partition(" ")[0])

    def checks(self, commit: str) -> tuple[ForgeCheck, ...]:
        here = f"{self._repo}/commits/{commit}"
        runs = self._api.pages(f"{here}/check-runs", _CheckRun, within="check_runs")
        newest = {run.name: run for run in sorted(runs, key=lambda run: run.id)}
        statuses = self._api.pages(f"{here}/status", _Status, within="statuses")
        return (*map(self._check, newest.values()), *map(_of_status, statuses))

    def _check(self, run: _CheckRun) -> ForgeCheck:
        tail, state = "", CheckState.GREEN if run.conclusion not in _RED else CheckState.RED
        if run.status != "completed":
            state = CheckState.PENDING
        elif state is CheckState.RED:  # a job of its own CI has the number of its check
            told = run.output.text or run.output.summary or ""
            tail = self._api.tail(f"{self._repo}/actions/jobs/{run.id}/logs") or told
        return ForgeCheck(name=run.name, state=state, url=run.html_url or "", tail=tail)

    def _pull(self, number: int) -> _Pull:
        return self._api.read(f"{self._repo}/pulls/{number}", _Pull)


def _thread(thread: _Thread) -> Thread:
    comments = (
        Comment(id=str(note.database_id), author=name_of(note.author), text=note.body) for note in thread.newest.nodes
    )
    return Thread(
        id=f"{thread.id} {thread.first.nodes[0].database_id}",
        file=thread.path,
        line=thread.line,
        comments=tuple(comments),
        resolvable=True,
    )


def _of_status(status: _Status) -> ForgeCheck:
    state = _STATUSES.get(status.state, CheckState.RED)
    tail = (status.description or "") if state is CheckState.RED else ""
    return ForgeCheck(name=status.context, state=state, url=status.target_url or "", tail=tail)


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
