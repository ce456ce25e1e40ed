"""Words: the closed enumerations that several values share, spelled as they appear in JSON."""

from enum import StrEnum


class RunStatus(StrEnum):
    """How a run stands, for whoever asks from outside."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    PARKED = "parked"


class MachineState(StrEnum):
    """What a run is doing; which state may follow which is a table in `run_state`."""

    IDLE = "idle"
    LOADING_SPEC = "loading-spec"
    GENERATING_SPEC = "generating-spec"
    INITIALIZING = "initializing"
    PICKING_STORY = "picking-story"
    RUNNING_AGENT = "running-agent"
    PROVING = "proving"
    LANDING = "landing"
    REVIEWING = "reviewing"
    CORRECTING = "correcting"
    COMMITTING = "committing"
    CREATING_PR = "creating-pr"
    WAITING = "waiting"
    PARKED = "parked"
    COMPLETED = "completed"
    FAILED = "failed"


class IterationStatus(StrEnum):
    """How an iteration stands; success means that its story passed."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"


class DevelopmentStatus(StrEnum):
    """What a story's agent says of its own work; never believed without proof."""

    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"


class FixStatus(StrEnum):
    """What a fix errand's agent says of the issues it was given."""

    ALL_ISSUES_ADDRESSED = "all_issues_addressed"
    ISSUES_REMAIN = "issues_remain"
    NO_ISSUES_FOUND = "no_issues_found"
    FAILED = "failed"


class ConflictStatus(StrEnum):
    """What who reconciles a clash says of it; never believed without proof."""

    RESOLVED = "resolved"
    FAILED = "failed"


class Severity(StrEnum):
    """How much an issue matters; the worst first."""

    BLOCKER = "blocker"
    MAJOR = "major"
    MINOR = "minor"


class ArtifactType(StrEnum):
    """The kinds of artifact, one per drain."""

    PLAN = "plan"
    DEVELOPMENT_RESULT = "development_result"
    ISSUES = "issues"
    TRIAGE = "triage"
    FIX_RESULT = "fix_result"
    COMMIT_MESSAGE = "commit_message"
    ANALYSIS = "analysis"
    PR_TEXT = "pr_text"
    CONFLICT_RESULT = "conflict_result"


class SameAgentRetryReason(StrEnum):
    """Why the same agent is asked the same thing again."""

    TIMEOUT = "timeout"
    INTERNAL_ERROR = "internal_error"
    INTERRUPTED = "interrupted"
    OTHER = "other"


class StoryState(StrEnum):
    """Where a story stands, as every face shows it."""

    OPEN = "open"
    BUILDING = "building"
    WAITING = "waiting"  # for a human
    PROVING = "proving"
    LANDING = "landing"
    PASSED = "passed"
    BLOCKED = "blocked"
    SKIPPED = "skipped"
