"""Storyloop drives coding agents along a spec until every acceptance criterion is proven.

The values of a run are importable from here; they are immutable, and importing them does no I/O. They are loaded
when first asked for, so that `storyloop --version` does not pay for them.
"""

TYPE_CHECKING = False  # as in `typing`, which is not imported for a constant
if TYPE_CHECKING:
    from storyloop.core.continuation import ContinuationState
    from storyloop.core.evidence import Evidence, Verdict
    from storyloop.core.knowledge import ProjectKnowledge
    from storyloop.core.policy import Policy
    from storyloop.core.run_state import IterationRecord, RunState
    from storyloop.core.spec import Criterion, Spec, Story
    from storyloop.core.usage import Usage
    from storyloop.core.words import (
        ArtifactType,
        DevelopmentStatus,
        FixStatus,
        IterationStatus,
        MachineState,
        RunStatus,
        SameAgentRetryReason,
    )

__version__ = "0.1.0"

__all__ = [
    "ArtifactType",
    "ContinuationState",
    "Criterion",
    "DevelopmentStatus",
    "Evidence",
    "FixStatus",
    "IterationRecord",
    "IterationStatus",
    "MachineState",
    "Policy",
    "ProjectKnowledge",
    "RunState",
    "RunStatus",
    "SameAgentRetryReason",
    "Spec",
    "Story",
    "Usage",
    "Verdict",
    "__version__",
]

_HOMES = {
    "continuation": ("ContinuationState",),
    "evidence": ("Evidence", "Verdict"),
    "knowledge": ("ProjectKnowledge",),
    "policy": ("Policy",),
    "run_state": ("IterationRecord", "RunState"),
    "spec": ("Criterion", "Spec", "Story"),
    "usage": ("Usage",),
    "words": (
        "ArtifactType",
        "DevelopmentStatus",
        "FixStatus",
        "IterationStatus",
        "MachineState",
        "RunStatus",
        "SameAgentRetryReason",
    ),
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"storyloop.core.{module}"), name)
    raise AttributeError(f"module 'storyloop' has no attribute {name!r}")
