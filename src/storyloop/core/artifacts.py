"""Artifacts as values: the typed answers that drains owe.

The XML codec in `contracts` makes these from what an agent wrote; nothing else does. Text is as the
agent wrote it, bounded by the codec, and is never trusted with a decision beyond its own status.
"""

import msgspec

from storyloop.core.knowledge import NotedKnowledge
from storyloop.core.policy import Drain
from storyloop.core.words import ArtifactType, DevelopmentStatus


class DevelopmentResult(msgspec.Struct, frozen=True, kw_only=True, tag="development_result"):
    """What a story errand owes. `next_steps` is present whenever the status is not completed."""

    status: DevelopmentStatus
    summary: str
    files_changed: tuple[str, ...] = ()
    next_steps: str | None = None
    knowledge: NotedKnowledge | None = None


class CommitMessage(msgspec.Struct, frozen=True, kw_only=True, tag="commit_message"):
    """What a commit errand owes: a subject of one line, and a body that may be empty."""

    subject: str
    body: str = ""


Artifact = DevelopmentResult | CommitMessage

_OWED: dict[Drain, ArtifactType] = {
    Drain.PLAN: ArtifactType.PLAN,
    Drain.STORY: ArtifactType.DEVELOPMENT_RESULT,
    Drain.ANALYSIS: ArtifactType.ANALYSIS,
    Drain.REVIEW: ArtifactType.ISSUES,
    Drain.FIX: ArtifactType.FIX_RESULT,
    Drain.COMMIT: ArtifactType.COMMIT_MESSAGE,
    Drain.PR: ArtifactType.PR_TEXT,
    Drain.CONFLICT: ArtifactType.CONFLICT_RESULT,
}


def owed_artifact(drain: Drain) -> ArtifactType:
    """The artifact that this drain owes."""
    return _OWED[drain]
