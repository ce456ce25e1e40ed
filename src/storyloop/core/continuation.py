"""ContinuationState: what an errand's next call must know of the ones before it, and what may still be tried.

It has the 30 fields and the methods of the reference of that name. Four ladders stand side by side, each
with its own counter and limit:

- *format retries* (`xsd_*`): the artifact was missing or invalid; the same agent mends it, in its session.
- *same-agent retries*: the call broke for a passing reason; a budget of failures, counted as they happen.
- *continuations*, once for development and once for fixes: the artifact was valid, the work was not done.
- *loop detection*: the same effect on the same work product, over and over.

Every method returns a new value. A new attempt and a new agent begin the first two ladders anew; only
`reset()` begins the development track anew, and `reset_fix_continuation()` the fix track; nothing gives a
limit back. The untidy part: a retry counts what was *triggered*, so its predicate is asked before a format
retry (ten retries, the eleventh failure is too many) but after a same-agent one (a budget of failures).
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from storyloop.core.errors import ImpossibleState, are_counts, require_counts
from storyloop.core.words import ArtifactType, DevelopmentStatus, FixStatus, SameAgentRetryReason

_NO_FORMAT_RETRY: dict[str, Any] = {
    "xsd_retry_count": 0,
    "xsd_retry_pending": False,
    "xsd_retry_session_reuse_pending": False,
    "last_xsd_error": None,
    "last_review_xsd_error": None,
    "last_fix_xsd_error": None,
}
_NO_SAME_AGENT_RETRY: dict[str, Any] = {
    "same_agent_retry_count": 0,
    "same_agent_retry_pending": False,
    "same_agent_retry_reason": None,
}
_NO_RETRY = _NO_FORMAT_RETRY | _NO_SAME_AGENT_RETRY
# What was pending is under way once a call has started.
_UNDER_WAY: dict[str, Any] = {
    "xsd_retry_pending": False,
    "xsd_retry_session_reuse_pending": False,
    "last_xsd_error": None,
    "same_agent_retry_pending": False,
    "same_agent_retry_reason": None,
    "continue_pending": False,
    "fix_continue_pending": False,
}
# What every new attempt begins with, on either track.
_NEW_ATTEMPT: dict[str, Any] = {
    **_NO_RETRY,
    "invalid_output_attempts": 0,
    "context_write_pending": False,
    "context_cleanup_pending": False,
    "continue_pending": False,
}
_ERROR_TEXTS: dict[ArtifactType | None, str] = {
    ArtifactType.ISSUES: "last_review_xsd_error",
    ArtifactType.FIX_RESULT: "last_fix_xsd_error",
}


def _spent(count: int, limit: int) -> bool:
    return count >= limit


class ContinuationState(msgspec.Struct, frozen=True, kw_only=True):
    """The 30 fields of the reference, flat, in its order; combinations that must not exist are refused."""

    previous_status: DevelopmentStatus | None = None
    previous_summary: str | None = None
    previous_files_changed: tuple[str, ...] | None = None
    previous_next_steps: str | None = None
    continuation_attempt: int = 0
    invalid_output_attempts: int = 0
    context_write_pending: bool = False
    context_cleanup_pending: bool = False
    xsd_retry_count: int = 0
    xsd_retry_pending: bool = False
    xsd_retry_session_reuse_pending: bool = False
    last_xsd_error: str | None = None
    last_review_xsd_error: str | None = None
    last_fix_xsd_error: str | None = None
    same_agent_retry_count: int = 0
    same_agent_retry_pending: bool = False
    same_agent_retry_reason: SameAgentRetryReason | None = None
    continue_pending: bool = False
    current_artifact: ArtifactType | None = None
    max_xsd_retry_count: int = 10
    max_same_agent_retry_count: int = 2
    max_continue_count: int = 3
    fix_status: FixStatus | None = None
    fix_previous_summary: str | None = None
    fix_continuation_attempt: int = 0
    fix_continue_pending: bool = False
    max_fix_continue_count: int = 3
    last_effect_kind: str | None = None
    consecutive_same_effect_count: int = 0
    max_consecutive_same_effect: int = 5

    def __post_init__(self) -> None:
        # Run for every step of every errand: one look at all counts, and the sentence only for who fails it.
        if not are_counts(
            self.continuation_attempt,
            self.invalid_output_attempts,
            self.xsd_retry_count,
            self.same_agent_retry_count,
            self.max_xsd_retry_count,
            self.max_same_agent_retry_count,
            self.max_continue_count,
            self.fix_continuation_attempt,
            self.max_fix_continue_count,
            self.consecutive_same_effect_count,
            self.max_consecutive_same_effect,
        ):
            require_counts(self)
        if self.max_consecutive_same_effect < 2:
            self._refuse("one effect alone is no loop, so it is at least 2", "max_consecutive_same_effect")
        if self.context_write_pending and self.context_cleanup_pending:
            self._refuse(
                "a handover is due to be written or to be removed, never both",
                "context_write_pending",
                "context_cleanup_pending",
            )
        if self.continue_pending and self.continuations_exhausted():
            self._refuse(
                "no attempt is left to continue with",
                "continue_pending",
                "continuation_attempt",
                "max_continue_count",
            )
        if self.fix_continue_pending and self.fix_continuations_exhausted():
            self._refuse(
                "no fix attempt is left to continue with",
                "fix_continue_pending",
                "fix_continuation_attempt",
                "max_fix_continue_count",
            )
        retried = self.same_agent_retry_pending or self.same_agent_retry_count > 0
        if self.same_agent_retry_reason is not None and not retried:
            self._refuse(
                "a reason belongs to a retry that is pending or was counted",
                "same_agent_retry_reason",
                "same_agent_retry_pending",
                "same_agent_retry_count",
            )

    def _refuse(self, why: str, *names: str) -> None:
        raise ImpossibleState(self, why, {name: getattr(self, name) for name in names})

    # --- constructors -------------------------------------------------------------------------------------

    @classmethod
    def new(cls) -> "ContinuationState":
        """Every field at its default."""
        return cls()

    @classmethod
    def with_limits(
        cls, max_xsd_retry_count: int, max_continue_count: int, max_same_agent_retry_count: int
    ) -> "ContinuationState":
        """Limits in the reference's order; fixes get as many continuations as development."""
        return cls(
            max_xsd_retry_count=max_xsd_retry_count,
            max_continue_count=max_continue_count,
            max_same_agent_retry_count=max_same_agent_retry_count,
            max_fix_continue_count=max_continue_count,
        )

    def with_max_xsd_retry(self, max_xsd_retry_count: int) -> "ContinuationState":
        """0 disables format retries: the first invalid artifact goes to the next agent."""
        return self._with(max_xsd_retry_count=max_xsd_retry_count)

    def with_max_same_agent_retry(self, max_same_agent_retry_count: int) -> "ContinuationState":
        """0 and 1 both fall back at the first failure."""
        return self._with(max_same_agent_retry_count=max_same_agent_retry_count)

    def reset(self) -> "ContinuationState":
        """Everything at its default except the five limits; for a new iteration, never for a recovery."""
        return ContinuationState(
            max_xsd_retry_count=self.max_xsd_retry_count,
            max_same_agent_retry_count=self.max_same_agent_retry_count,
            max_continue_count=self.max_continue_count,
            max_fix_continue_count=self.max_fix_continue_count,
            max_consecutive_same_effect=self.max_consecutive_same_effect,
        )

    def with_artifact(self, artifact: ArtifactType) -> "ContinuationState":
        """The artifact that the errand now beginning owes; what was said of the last one's format goes."""
        return self._changed({**_NO_FORMAT_RETRY, "current_artifact": artifact})

    def call_started(self) -> "ContinuationState":
        """Whatever was pending has started; the counts stay."""
        return self._changed(_UNDER_WAY)

    def clear_retries(self) -> "ContinuationState":
        """The call ended well, or another agent is asked: retries of either kind start anew."""
        return self._changed(_NO_RETRY)

    # --- format retries -----------------------------------------------------------------------------------

    def record_invalid_output(self, error: str) -> "ContinuationState":
        """Count an invalid or missing artifact, and keep the validator's words where its errand looks."""
        text = _ERROR_TEXTS.get(self.current_artifact, "last_xsd_error")
        return self._with(invalid_output_attempts=self.invalid_output_attempts + 1, **{text: error})

    def trigger_xsd_retry(self) -> "ContinuationState":
        """Owe a format retry in the agent's own session. Only while `not xsd_retries_exhausted()`."""
        return self._with(
            xsd_retry_count=self.xsd_retry_count + 1,
            xsd_retry_pending=True,
            xsd_retry_session_reuse_pending=True,
        )

    def clear_xsd_retry_pending(self) -> "ContinuationState":
        """The retry's prompt is prepared; the wish for the old session outlives it."""
        return self._with(xsd_retry_pending=False, last_xsd_error=None)

    def clear_session_reuse(self) -> "ContinuationState":
        """The call that was to take up the old session has started."""
        return self._with(xsd_retry_session_reuse_pending=False)

    def clear_xsd_retries(self) -> "ContinuationState":
        """The artifact is valid, or another agent is asked: the format retries start anew."""
        return self._changed(_NO_FORMAT_RETRY)

    def xsd_retries_exhausted(self) -> bool:
        """Whether the next invalid artifact goes to the next agent."""
        return _spent(self.xsd_retry_count, self.max_xsd_retry_count)

    # --- same-agent retries -------------------------------------------------------------------------------

    def trigger_same_agent_retry(self, reason: SameAgentRetryReason) -> "ContinuationState":
        """Count a failure of the call and owe a retry; exhausted afterwards means: fall back instead."""
        return self._with(
            same_agent_retry_count=self.same_agent_retry_count + 1,
            same_agent_retry_pending=True,
            same_agent_retry_reason=reason,
        )

    def ask_again_after_interruption(self) -> "ContinuationState":
        """Owe a retry without counting it: our own user stopped the call, nothing failed."""
        return self._with(same_agent_retry_pending=True, same_agent_retry_reason=SameAgentRetryReason.INTERRUPTED)

    def clear_same_agent_retry_pending(self) -> "ContinuationState":
        """The retry has started; it stays counted."""
        return self._with(same_agent_retry_pending=False, same_agent_retry_reason=None)

    def clear_same_agent_retries(self) -> "ContinuationState":
        """The call ended well, or another agent is asked: the failure budget starts anew."""
        return self._changed(_NO_SAME_AGENT_RETRY)

    def same_agent_retries_exhausted(self) -> bool:
        """Whether this agent's failure budget is used up."""
        return _spent(self.same_agent_retry_count, self.max_same_agent_retry_count)

    # --- continuations of development ---------------------------------------------------------------------

    def trigger_continuation(
        self,
        status: DevelopmentStatus,
        summary: str,
        files_changed: Sequence[str] | None = None,
        next_steps: str | None = None,
    ) -> "ContinuationState":
        """Close an attempt whose work is not done; owe the next one with its handover, if one is left.

        The attempt that reaches the limit leaves nothing pending: `continuations_exhausted()` is then true.
        A claim of `completed` that the checks refute comes here as `failed`.
        """
        attempt = self.continuation_attempt + 1
        goes_on = not _spent(attempt, self.max_continue_count)
        return self._changed(
            {
                **_NEW_ATTEMPT,
                "context_write_pending": goes_on,
                "continue_pending": goes_on,
                "previous_status": status,
                "previous_summary": summary,
                "previous_files_changed": None if files_changed is None else tuple(files_changed),
                "previous_next_steps": next_steps,
                "continuation_attempt": attempt,
            }
        )

    def trigger_continue(self) -> "ContinuationState":
        """Owe a continuation, the flag only; raises `ImpossibleState` when no attempt is left."""
        return self._with(continue_pending=True)

    def clear_continue_pending(self) -> "ContinuationState":
        """The continuation has started."""
        return self._with(continue_pending=False)

    def is_continuation(self) -> bool:
        """Whether this is not the first attempt."""
        return self.continuation_attempt > 0

    def continuations_exhausted(self) -> bool:
        """Whether the attempts are used up: with a limit of 3, attempts 0, 1 and 2 are allowed."""
        return _spent(self.continuation_attempt, self.max_continue_count)

    # --- continuations of fixes ---------------------------------------------------------------------------

    def trigger_fix_continuation(self, status: FixStatus, summary: str | None = None) -> "ContinuationState":
        """Close a fix attempt that left issues; the same boundary as `trigger_continuation`, no handover."""
        attempt = self.fix_continuation_attempt + 1
        return self._with(
            **_NEW_ATTEMPT,
            fix_status=status,
            fix_previous_summary=summary,
            fix_continuation_attempt=attempt,
            fix_continue_pending=not _spent(attempt, self.max_fix_continue_count),
        )

    def clear_fix_continue_pending(self) -> "ContinuationState":
        """The fix continuation has started."""
        return self._with(fix_continue_pending=False)

    def reset_fix_continuation(self) -> "ContinuationState":
        """A new review cycle begins: the fix track at its defaults, nothing else."""
        return self._with(
            fix_status=None, fix_previous_summary=None, fix_continuation_attempt=0, fix_continue_pending=False
        )

    def fix_continuations_exhausted(self) -> bool:
        """Whether the fix attempts of this review cycle are used up."""
        return _spent(self.fix_continuation_attempt, self.max_fix_continue_count)

    # --- the handover -------------------------------------------------------------------------------------

    def context_written(self) -> "ContinuationState":
        """The handover stands in the worktree."""
        return self._with(context_write_pending=False)

    def hand_over(
        self, status: DevelopmentStatus, summary: str, files_changed: Sequence[str], next_steps: str | None
    ) -> "ContinuationState":
        """The attempt goes on in a later call, which is to read what came of this one: no attempt is spent."""
        return self._with(
            context_write_pending=True,
            previous_status=status,
            previous_summary=summary,
            previous_files_changed=tuple(files_changed),
            previous_next_steps=next_steps,
        )

    def begin_cleanup(self) -> "ContinuationState":
        """An iteration starts or ends: a handover is to be removed, and none is to be written."""
        return self._with(context_write_pending=False, context_cleanup_pending=True)

    def context_cleaned(self) -> "ContinuationState":
        """No handover is left in the worktree."""
        return self._with(context_cleanup_pending=False)

    # --- loop detection -----------------------------------------------------------------------------------

    def update_loop_detection_counters(self, current_fingerprint: str) -> "ContinuationState":
        """Lengthen the streak when the effect is the last one again, else begin a new streak of 1."""
        same = current_fingerprint == self.last_effect_kind
        return self._with(
            last_effect_kind=current_fingerprint,
            consecutive_same_effect_count=self.consecutive_same_effect_count + 1 if same else 1,
        )

    def is_loop_detected(self) -> bool:
        """Whether the streak has reached its limit."""
        return _spent(self.consecutive_same_effect_count, self.max_consecutive_same_effect)

    def _with(self, **changes: Any) -> "ContinuationState":
        return self._changed(changes)

    def _changed(self, changes: dict[str, Any]) -> "ContinuationState":
        # Half of all steps clear what is clear already: a copy and its checks would be a third of a long fold.
        for name, value in changes.items():
            if getattr(self, name) is not value:
                return msgspec.structs.replace(self, **changes)
        return self
