"""Policy: the limits, chains, drains, checks and budgets of a run, frozen when it opens.

A run decides from this value alone; configuration files are never read again. `resume` may amend it,
and the amendment is an event (`PolicyAmended`). All durations are seconds.
"""

from enum import StrEnum

import msgspec

from storyloop.core.words import Severity


class Drain(StrEnum):
    """A role with a contract to which a chain of agents is bound."""

    PLAN = "plan"
    STORY = "story"
    ANALYSIS = "analysis"
    REVIEW = "review"
    TRIAGE = "triage"
    FIX = "fix"
    COMMIT = "commit"
    PR = "pr"
    CONFLICT = "conflict"


# These leave files behind; the others read and report.
WRITING_DRAINS = frozenset({Drain.STORY, Drain.FIX, Drain.CONFLICT})
# These run only when `[drains]` binds them: a default chain does not.
OPTIONAL_DRAINS = frozenset({Drain.ANALYSIS, Drain.COMMIT, Drain.PR})
# Without their answer the run goes on, and says so: who has no valid one is not asked for ever.
DISPENSABLE_DRAINS = frozenset({Drain.ANALYSIS, Drain.REVIEW, Drain.COMMIT, Drain.PR})
_BRIEF_DRAINS = DISPENSABLE_DRAINS - {Drain.ANALYSIS}  # one analysis serves all attempts at a story


class AgentRef(msgspec.Struct, frozen=True, order=True):
    """One entry of a chain: an agent, and the model it is asked to use (None: its own default)."""

    agent: str
    model: str | None = None

    @classmethod
    def parse(cls, text: str) -> "AgentRef":
        """`claude` or `claude:small-model`."""
        agent, _, model = text.partition(":")
        return cls(agent=agent, model=model or None)

    def __str__(self) -> str:
        return self.agent if self.model is None else f"{self.agent}:{self.model}"


class Way(StrEnum):
    """How an attempt at a story is made."""

    CONTINUE = "continue"  # with what the last one reported, and what we measured of it
    FRESH = "fresh"  # with what we measured alone: no word of the agent before
    PLAN_FIRST = "plan-first"
    SMALLER_STEPS = "smaller-steps"


Rung = Way | AgentRef  # an agent: this one is asked from here on, and continues


def agents_of(ladder: tuple[Rung, ...]) -> tuple[AgentRef, ...]:
    """The agents that an escalation names."""
    return tuple(rung for rung in ladder if isinstance(rung, AgentRef))


class AgentKind(StrEnum):
    """How an agent is spoken to."""

    PROFILE = "profile"  # a CLI that the product knows
    COMMAND = "command"
    SCRIPT = "script"
    ACP = "acp"


class AgentSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An agent as configured: what is started, and which variables it gets besides the allow-list."""

    kind: AgentKind
    profile: str | None = None
    command: tuple[str, ...] = ()
    script: str | None = None
    model: str | None = None
    env: dict[str, str] = {}
    pass_env: tuple[str, ...] = ()
    account: str | None = None  # agents of one account share its limits and its seats
    parallel: int | None = None  # calls of this account at one time, of all runs on this machine

    def shared_account(self) -> str | None:
        """Whose limits this agent shares with other runs; None for a program that nobody else need know."""
        return self.account or self.profile


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command of the project: one line for `sh -c`, run in the worktree's root."""

    run: str
    timeout: float | None = None  # None: limits.check_timeout
    env: dict[str, str] = {}
    pass_env: tuple[str, ...] = ()


class OnExhausted(StrEnum):
    """What becomes of a story's partial work when its attempts are used up."""

    BLOCK = "block"
    COMMIT = "commit"


class Require(StrEnum):
    """What must be provable before a run may start (`[proof] require`)."""

    CHECKS = "checks"
    CRITERIA = "criteria"
    NONE = "none"


class Tampering(StrEnum):
    """What becomes of a change that bends its own proof (`[proof] tampering`)."""

    REPORT = "report"
    DENY = "deny"  # the attempt failed
    ALLOW = "allow"  # it is not looked for


class NewTests(StrEnum):
    """Whether new tests are tried without the work (`[proof] new_tests`)."""

    REPORT = "report"
    OFF = "off"


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What bounds an errand and a run; the names are those of `[limits]`."""

    parallel: int = 1  # stories that are worked on at one time
    continuations: int = 3
    fix_continuations: int = 3
    format_retries: int = 10
    same_agent_retries: int = 2
    chain_cycles: int = 3
    review_cycles: int = 3
    loop_threshold: int = 5
    calls_per_errand: int = 24
    calls_per_reading: int = 8  # the same of an errand that a run can go without
    call_timeout: float = 3600.0
    idle_timeout: float = 900.0
    check_timeout: float = 1800.0
    orphan_grace: float = 1800.0
    backoff: float = 15.0  # the first pause between two cycles of a chain; it doubles, up to 15 minutes
    max_wait: float = 86400.0
    questions: int = 3  # of an agent to a human, per story
    question_deadline: float | None = None  # after it the question's own default holds; None: a human is waited for
    on_exhausted: OnExhausted = OnExhausted.BLOCK

    def calls_of(self, drain: Drain) -> int:
        """The most starts of an agent in one errand of this drain."""
        is_brief = drain in _BRIEF_DRAINS
        return min(self.calls_per_errand, self.calls_per_reading) if is_brief else self.calls_per_errand


class StoryBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be spent each time that a story is taken up; None is unlimited."""

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    time: float | None = None


class Budget(StoryBudget, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user is willing to spend on a run, and on each of its stories."""

    story: StoryBudget = StoryBudget()


class WorktreePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the run's worktree stands and what it needs before the first story."""

    setup: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()
    pattern: str = "{repo}-wt-{branch}"
    cleanup: bool = False


class ReviewPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the finished stories are reviewed before they are handed over, and from what on an issue is mended."""

    enabled: bool = True
    per_story: bool = False  # each before its commit, instead of all of them together
    severity: Severity = Severity.MAJOR

    def gates(self, severity: Severity) -> bool:
        """Whether an issue of this severity stands in the way of handing over."""
        worst_first = list(Severity)
        return worst_first.index(severity) <= worst_first.index(self.severity)


class PullRequestPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the branch is pushed and a pull request opened for it: never, unless told to."""

    create: bool = False
    draft: bool = False
    remote: str = "origin"  # of the user's clone, by its name
    answer: bool = True  # whether threads are answered, once what was done is pushed,
    resolve: bool = False  # and marked as resolved where it is done


class ForgeKind(StrEnum):
    """The forges that we can speak to."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    FORGEJO = "forgejo"


class ForgePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where pull requests are opened, when the remote's URL does not tell."""

    kind: ForgeKind | None = None
    url: str | None = None  # of the forge itself; the user's own file alone may say it, because tokens are sent there


class Occasion(StrEnum):
    """When word is sent to whoever is not watching."""

    PARKED = "parked"
    BLOCKED = "blocked"  # a story is given up
    FINISHED = "finished"
    LIMIT = "limit"  # an agent has no quota left


class NotifyPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where word is sent, and when. Addresses hold secrets: no run is ever opened with one."""

    urls: tuple[str, ...] = ()
    on: tuple[Occasion, ...] = tuple(Occasion)


class SandboxMode(StrEnum):
    """How far agents and checks are fenced in; in the order from loose to tight."""

    OFF = "off"
    AUTO = "auto"  # where bubblewrap works
    REQUIRE = "require"


class SandboxPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What agents and checks may reach besides their worktree."""

    mode: SandboxMode = SandboxMode.AUTO
    writable: tuple[str, ...] = ()
    agent_network: bool = True
    checks_network: bool = True


UNFENCED = SandboxPolicy(mode=SandboxMode.OFF)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run was opened with. `Policy()` holds the documented defaults."""

    agents: dict[str, AgentSpec] = {}
    chain: tuple[AgentRef, ...] = ()
    drains: dict[Drain, tuple[AgentRef, ...]] = {}
    checks: dict[str, Command] = {}
    worktree: WorktreePolicy = WorktreePolicy()
    limits: Limits = Limits()
    require: Require = Require.CHECKS
    tampering: Tampering = Tampering.REPORT
    new_tests: NewTests = NewTests.REPORT
    budget: Budget = Budget()
    review: ReviewPolicy = ReviewPolicy()
    pull_request: PullRequestPolicy = PullRequestPolicy()
    forge: ForgePolicy = ForgePolicy()
    sandbox: SandboxPolicy = SandboxPolicy()
    notify: NotifyPolicy = NotifyPolicy()
    prompts: dict[str, str] = {}  # templates of the user's own, by the name of ours that each takes the place of
    no_wait: bool = False
    step: bool = False  # nothing is committed before a human has approved it
    escalation: tuple[Rung, ...] = ()  # how each attempt at a story is made; behind the last entry, that one holds

    def rung(self, attempt: int) -> Rung:
        """How this attempt at a story is made."""
        return self.escalation[min(attempt, len(self.escalation) - 1)] if self.escalation else Way.CONTINUE

    def chain_of(self, drain: Drain, *, attempt: int = 0) -> tuple[AgentRef, ...]:
        """The agents to ask for this drain, in order; empty when it is optional and not bound.

        At a story's attempt, the agent that the escalation has named last is the first.
        """
        if drain is Drain.TRIAGE and drain not in self.drains:
            drain = Drain.REVIEW
        chain = self.drains.get(drain, () if drain in OPTIONAL_DRAINS else self.chain)
        if not self.escalation or drain is not Drain.STORY:
            return chain
        named = agents_of(self.escalation[: attempt + 1])[-1:]
        return (*named, *(ref for ref in chain if ref not in named))

    def check_timeout(self, check: Command) -> float:
        """Seconds after which this command counts as unmeasured."""
        return self.limits.check_timeout if check.timeout is None else check.timeout
