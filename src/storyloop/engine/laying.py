"""Laying: the worktree's files made those of a tree; what else lay there is kept by a ref first."""

from datetime import datetime

from storyloop.core.facts import Finding
from storyloop.engine.hands import Hands
from storyloop.ports.repository import Author


def lay(tree: str, hands: Hands) -> None:
    """The worktree's files are those of this tree; ignored ones stay."""
    hands.repository.undo_changes(hands.place, tree=tree, creations=True)


def lay_alone(tree: str, hands: Hands, *, whence: str, label: str, at: datetime) -> tuple[Finding, ...]:
    """The same for a worktree that should hold this tree already: what is found besides is nobody's in the run."""
    now = hands.repository.snapshot(hands.place)
    if now == tree:
        return ()
    author = Author(message=f"What lay in the worktree before {whence}", at=at)
    pin = hands.repository.pin(hands.place, tree=now, label=f"{label}/{now[:12]}", author=author)
    lay(tree, hands)
    detail = f"What lay in the worktree before {whence}, besides its tree, was set aside; it is kept by {pin.ref}."
    return (Finding("leftover", detail),)
