"""A forge in memory: the `Forge` port for tests and demonstrations, by the same contract as the real ones."""

from collections.abc import Callable

from msgspec.structs import replace

from storyloop.core.forge import (
    Comment,
    ForgeCheck,
    ForgeTrouble,
    PullRequest,
    PullRequestState,
    PullRequestText,
    Thread,
    Trouble,
)


class MemoryForge:
    """One repository; `commits` says what its branches hold. `before` sees every call by its name, and may raise."""

    name = "memory (acme/shop)"

    def __init__(self, commits: Callable[[str], str], *, before: Callable[[str], None] = lambda _: None) -> None:
        self._commits, self._before = commits, before
        self.pull_requests: list[PullRequest] = []
        self.said: dict[int, list[Thread]] = {}  # by pull request; resolved threads, too
        self.resolved: set[str] = set()
        self.ran: dict[str, tuple[ForgeCheck, ...]] = {}  # by commit

    def default_branch(self) -> str:
        self._before("default_branch")
        return "main"

    def find(self, head: str) -> PullRequest | None:
        self._before("find")
        return self._found(head)

    def get(self, number: int) -> PullRequest:
        self._before("get")
        if not 1 <= number <= len(self.pull_requests):
            raise ForgeTrouble(Trouble.NOT_FOUND, f"There is no pull request {number}.", "Name another one.")
        return self._shown(self.pull_requests[number - 1])

    def create(self, text: PullRequestText, *, head: str, base: str, draft: bool) -> PullRequest:
        self._before("create")
        there = self._found(head)
        if (there and there.state is PullRequestState.OPEN) or not (self._commits(head) and self._commits(base)):
            raise ForgeTrouble(
                Trouble.REJECTED, f"No pull request of {head} can be made.", "Push it, or use the open one."
            )
        made = PullRequest(
            number=len(self.pull_requests) + 1,
            url=f"https://forge.example/acme/shop/pulls/{len(self.pull_requests) + 1}",
            state=PullRequestState.OPEN,
            head=head,
            head_commit="",
            base=base,
            draft=draft,
            title=text.title,
            body=text.body,
        )
        self.pull_requests.append(made)
        return self._shown(made)

    def update(self, pull_request: PullRequest, *, body: str, draft: bool) -> PullRequest:
        self._before("update")
        changed = replace(self.get(pull_request.number), body=body, draft=draft)
        self.pull_requests[changed.number - 1] = changed
        return changed

    def threads(self, number: int) -> tuple[Thread, ...]:
        self._before("threads")
        return tuple(thread for thread in self.said.get(number, ()) if thread.id not in self.resolved)

    def reply(self, number: int, thread: Thread, text: str) -> str:
        self._before("reply")
        comment = Comment(id=f"{thread.id}-{len(thread.comments) + 1}", author="me", text=text)
        self.said[number] = [
            replace(one, comments=(*one.comments, comment)) if one.id == thread.id else one for one in self.said[number]
        ]
        return comment.id

    def resolve(self, number: int, thread: Thread) -> None:  # noqa: ARG002 - ids are of no one pull request
        self._before("resolve")
        self.resolved.add(thread.id)

    def checks(self, commit: str) -> tuple[ForgeCheck, ...]:
        self._before("checks")
        return self.ran.get(commit, ())

    def end(self, number: int, state: PullRequestState) -> None:
        """What a person does."""
        self.pull_requests[number - 1] = replace(self.pull_requests[number - 1], state=state)

    def _found(self, head: str) -> PullRequest | None:
        found = [self._shown(one) for one in reversed(self.pull_requests) if one.head == head]
        return next((one for one in found if one.state is PullRequestState.OPEN), next(iter(found), None))

    def _shown(self, pull_request: PullRequest) -> PullRequest:
        return replace(pull_request, head_commit=self._commits(pull_request.head))
