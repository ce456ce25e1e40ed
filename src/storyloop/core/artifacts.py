"""Artifacts as values: the typed answers that drains owe.

The XML codec in `contracts` makes these from what an agent wrote; nothing else does. Text is as the
agent wrote it, bounded by the codec, and is never trusted with a decision beyond its own status.
"""

from enum import StrEnum

import msgspec

from storyloop.core.knowledge import NotedKnowledge
from storyloop.core.policy import Drain
from storyloop.core.spec import Spec
from storyloop.core.words import ArtifactType, ConflictStatus, DevelopmentStatus, FixStatus, Severity

# A plan has no more: what a run can cost is bounded before its stories are known.
MOST_PLANNED_STORIES = 100
MOST_PLANNED_CRITERIA = 20  # of each story


class Plan(msgspec.Struct, frozen=True, kw_only=True, tag="plan"):
    """What a plan errand owes: stories, checked by the same rules as a spec file; none of them has passed."""

    spec: Spec


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent needs a human to decide; `default` is what it would do if nobody answers."""

    text: str
    default: str
    options: tuple[str, ...] = ()


class DevelopmentResult(msgspec.Struct, frozen=True, kw_only=True, tag="development_result"):
    """What a story errand owes. `next_steps` is present whenever the status is not completed; a question only then."""

    status: DevelopmentStatus
    summary: str
    files_changed: tuple[str, ...] = ()
    next_steps: str | None = None
    knowledge: NotedKnowledge | None = None
    question: Question | None = None


class Ruling(StrEnum):
    """What an analysis says of a criterion."""

    MET = "met"
    UNMET = "unmet"
    UNKNOWN = "unknown"


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """One criterion, judged by reading. `evidence` of a criterion that is met names file and line."""

    story: str
    number: int  # of the criterion, from 1
    ruling: Ruling
    evidence: str


class Analysis(msgspec.Struct, frozen=True, kw_only=True, tag="analysis"):
    """What an analysis errand owes: no criterion is judged twice, but one may be left out."""

    judgements: tuple[Judgement, ...]


class Issue(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a review found; the line is one of the file."""

    severity: Severity
    text: str
    file: str | None = None
    line: int | None = None
    story: str | None = None


class Issues(msgspec.Struct, frozen=True, kw_only=True, tag="issues"):
    """What a review errand owes; empty only where the review says in so many words that there are none."""

    found: tuple[Issue, ...] = ()


class Asks(StrEnum):
    """What somebody asks for who said something of a pull request."""

    REAL = "real"  # something is wrong, and is to be mended
    SUGGESTION = "suggestion"  # a change that is worth making
    QUESTION = "question"  # an answer, and no change
    NO_ACTION = "no-action"

    @property
    def is_work(self) -> bool:
        """Whether files are to be changed for it."""
        return self in (Asks.REAL, Asks.SUGGESTION)


class Triaged(msgspec.Struct, frozen=True, kw_only=True):
    """What one concern asks for; `reason` is told to who raised it, and answers it where nothing is to be changed."""

    number: int  # of the concern, as the errand was told it
    asks: Asks
    reason: str


class Triage(msgspec.Struct, frozen=True, kw_only=True, tag="triage"):
    """What a triage errand owes: each concern once."""

    concerns: tuple[Triaged, ...]


class FixResult(msgspec.Struct, frozen=True, kw_only=True, tag="fix_result"):
    """What a fix errand owes."""

    status: FixStatus
    summary: str


class ConflictResult(msgspec.Struct, frozen=True, kw_only=True, tag="conflict_result"):
    """What a conflict errand owes."""

    status: ConflictStatus
    summary: str


class CommitMessage(msgspec.Struct, frozen=True, kw_only=True, tag="commit_message"):
    """What a commit errand owes: a subject of one line, and a body that may be empty."""

    subject: str
    body: str = ""


class PrText(msgspec.Struct, frozen=True, kw_only=True, tag="pr_text"):
    """What a pr errand owes: a title of one line, and a body."""

    title: str
    body: str


Artifact = Plan | DevelopmentResult | Analysis | Issues | Triage | FixResult | ConflictResult | CommitMessage | PrText

_OWED: dict[Drain, ArtifactType] = {
    Drain.PLAN: ArtifactType.PLAN,
    Drain.STORY: ArtifactType.DEVELOPMENT_RESULT,
    Drain.ANALYSIS: ArtifactType.ANALYSIS,
    Drain.REVIEW: ArtifactType.ISSUES,
    Drain.TRIAGE: ArtifactType.TRIAGE,
    Drain.FIX: ArtifactType.FIX_RESULT,
    Drain.COMMIT: ArtifactType.COMMIT_MESSAGE,
    Drain.PR: ArtifactType.PR_TEXT,
    Drain.CONFLICT: ArtifactType.CONFLICT_RESULT,
}


def owed_artifact(drain: Drain) -> ArtifactType:
    """The artifact that this drain owes."""
    return _OWED[drain]
