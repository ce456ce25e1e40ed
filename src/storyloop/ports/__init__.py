"""Ports: what the engine needs of the world, as protocols, each with at least two implementations.

Every implementation passes the contract suite of its port (`tests/ports/`). A port reports facts and
raises only for its operator (`OperatorError`: disk full, repository gone) or its programmer; a failure that
belongs to the run (an agent that crashed, a check that is red) is a value. The forge alone has an error of its own:
each of its calls can fail in the same seven ways.
"""

from storyloop.ports.agents import (
    Accounts,
    Activity,
    Agents,
    CallOrder,
    Limited,
    Seat,
    Watch,
    artifact_path,
)
from storyloop.ports.checks import (
    CheckOrder,
    Checks,
    GitAccess,
    checks_dir,
)
from storyloop.ports.clock import (
    Clock,
)
from storyloop.ports.forge import (
    Forge,
    PullRequests,
)
from storyloop.ports.journal import (
    Journal,
    JournalConflict,
    Request,
)
from storyloop.ports.repository import (
    Author,
    BranchState,
    CheckedOut,
    Checkout,
    Clashes,
    Exists,
    Free,
    Merged,
    Place,
    PushOrder,
    Remains,
    Repository,
    ScratchRef,
    Snapshot,
)
from storyloop.ports.texts import (
    Notifier,
    Papers,
    Prompts,
    Secrets,
    SymbolsReader,
)

__all__ = [
    "Accounts",
    "Activity",
    "Agents",
    "Author",
    "BranchState",
    "CallOrder",
    "CheckOrder",
    "CheckedOut",
    "Checkout",
    "Checks",
    "Clashes",
    "Clock",
    "Exists",
    "Forge",
    "Free",
    "GitAccess",
    "Journal",
    "JournalConflict",
    "Limited",
    "Merged",
    "Notifier",
    "Papers",
    "Place",
    "Prompts",
    "PullRequests",
    "PushOrder",
    "Remains",
    "Repository",
    "Request",
    "ScratchRef",
    "Seat",
    "Secrets",
    "Snapshot",
    "SymbolsReader",
    "Watch",
    "artifact_path",
    "checks_dir",
]
