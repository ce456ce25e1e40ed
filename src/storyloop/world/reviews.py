"""Reviews that request changes, as threads: GitHub and Gitea have them, and neither lets anybody answer in one.

They are answered by a comment on the pull request, which ends with a mark of the review that it is about; so it is
found again as a part of that conversation.
"""

from collections.abc import Iterable, Iterator

import msgspec

from storyloop.core.forge import Comment, Thread

_OF_REVIEW = "review-"
_REQUESTS = frozenset({"CHANGES_REQUESTED", "REQUEST_CHANGES"})
_TAKES_BACK = frozenset({"APPROVED", "DISMISSED"})


class User(msgspec.Struct):
    """Somebody there; one that was deleted is null."""

    login: str


class Review(msgspec.Struct):
    """What somebody said of the whole."""

    id: int
    state: str
    user: User | None = None
    body: str | None = None
    dismissed: bool = False
    comments_count: int = 0


class PullComment(msgspec.Struct):
    """What somebody said below it."""

    id: int
    user: User | None = None
    body: str | None = None

    def shown(self) -> Comment:
        return Comment(id=str(self.id), author=name_of(self.user), text=self.body or "")


def name_of(user: User | None) -> str:
    """What somebody is called."""
    return user.login if user is not None else "somebody"


def is_of_review(thread: Thread) -> bool:
    """Whether it is the text of a review."""
    return thread.id.startswith(_OF_REVIEW)


def about(thread: Thread) -> str:
    """The mark, unseen by readers, of a comment that is about this review."""
    return f"<!-- storyloop-about: {thread.id} -->"


def requests(reviews: Iterable[Review], comments: Iterable[PullComment]) -> Iterator[Thread]:
    """The reviews, of all that were made (the oldest first), that request changes still and say which."""
    standing: dict[str, list[Review]] = {}
    for review in reviews:
        if review.state in _TAKES_BACK:
            standing[name_of(review.user)] = []
        elif review.state in _REQUESTS and not review.dismissed and (review.body or "").strip():
            standing.setdefault(name_of(review.user), []).append(review)
    below = [comment.shown() for comment in comments] if any(standing.values()) else []
    for review in sorted((one for some in standing.values() for one in some), key=lambda one: one.id):
        said = Comment(id=str(review.id), author=name_of(review.user), text=review.body or "")
        thread = Thread(id=f"{_OF_REVIEW}{review.id}", file=None, line=None, comments=(said,), resolvable=False)
        yield msgspec.structs.replace(thread, comments=(said, *(one for one in below if about(thread) in one.text)))
