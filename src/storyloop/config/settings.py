"""The settings: one table of every key that a configuration file may hold.

Parser, errors, `config show|get|set` and the page in the docs all follow this table. Keys are dotted; a `*`
stands for a name that the user chose, of an agent or of a check. A default is not repeated here: it is what
`Policy()` holds.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import cast

import msgspec

from storyloop.config import kinds
from storyloop.config.kinds import Kind, nearest
from storyloop.core.policy import (
    Drain,
    ForgeKind,
    NewTests,
    Occasion,
    OnExhausted,
    Policy,
    Require,
    SandboxMode,
    Tampering,
)
from storyloop.core.words import Severity

# The built-in agents, which need no entry: the names of the table in `agents.profiles`, which is beside us.
PROFILES = (
    "claude", "codex", "opencode", "gemini", "qwen", "copilot", "pi", "kimi",
    "aider", "mini", "cursor-agent", "amp", "goose", "crush", "kiro",
)  # fmt: skip
SPEAK_ACP = frozenset(PROFILES) - {"pi", "aider", "mini", "amp", "crush"}


class WrittenKind(StrEnum):
    """What a file may call an agent's kind; a built-in agent has none."""

    COMMAND = "command"
    SCRIPT = "script"
    ACP = "acp"


class Setting(msgspec.Struct, frozen=True):
    """One key. `later`: read, checked and kept, but nothing acts on it in this version."""

    key: str
    kind: Kind
    says: str
    later: bool = False


_DRAINS = {
    Drain.PLAN: "Who turns a free-form specification into stories.",
    Drain.STORY: "Who works on the stories.",
    Drain.ANALYSIS: "Who judges criteria that have no command; runs only when bound here.",
    Drain.REVIEW: "Who reviews the finished stories.",
    Drain.TRIAGE: "Who judges what is said of a pull request; `review`, unless bound here.",
    Drain.FIX: "Who mends what a review, or the feedback to a pull request, found.",
    Drain.COMMIT: "Who writes commit messages; runs only when bound here.",
    Drain.PR: "Who writes the pull request's text; runs only when bound here.",
    Drain.CONFLICT: "Who settles clashes between stories.",
}

SETTINGS = (
    Setting("agents.*.kind", kinds.one_of(WrittenKind), "How the agent is spoken to."),
    Setting("agents.*.profile", kinds.TEXT, "The built-in agent that it is, under a name of your own."),
    Setting("agents.*.command", kinds.WORDS, 'Program and arguments of an agent of kind "command" or "acp".'),
    Setting("agents.*.script", kinds.TEXT, 'The file of turns that an agent of kind "script" plays.'),
    Setting("agents.*.model", kinds.TEXT, "The model it is asked to use unless the chain names one."),
    Setting("agents.*.env", kinds.ENVIRONMENT, "Variables it gets besides the allow-list."),
    Setting("agents.*.pass_env", kinds.VARIABLES, "Variables of yours that are handed on to it."),
    Setting("agents.*.account", kinds.TEXT, "Agents of one account share its limits."),
    Setting("agents.*.parallel", kinds.count(1), "The most calls of it at one time on this machine."),
    Setting("chains.default", kinds.CHAIN, "The agents to ask, the preferred one first."),
    *(Setting(f"drains.{drain}", kinds.CHAIN, _DRAINS[drain]) for drain in Drain),
    Setting("checks.*", kinds.CHECK, "A command that must be green; they run in the order of the file."),
    Setting("worktree.setup", kinds.TEXTS, "Commands that are run once in each new worktree."),
    Setting("worktree.copy", kinds.PATHS_INSIDE, "Ignored files of the checkout to bring along."),
    Setting("worktree.pattern", kinds.PATTERN, "The worktree's name, beside the repository."),
    Setting("worktree.cleanup", kinds.SWITCH, "Whether the worktree is removed when the run has completed."),
    Setting("limits.parallel", kinds.count(1), "Stories that are worked on at one time, each in its own worktree."),
    Setting("limits.continuations", kinds.count(0), "Attempts at a story's work."),
    Setting("limits.fix_continuations", kinds.count(0), "Attempts at mending what a review found."),
    Setting("limits.format_retries", kinds.count(0), "How often an invalid answer goes back to its agent."),
    Setting("limits.same_agent_retries", kinds.count(0), "Failures of one agent; the last one falls back."),
    Setting("limits.chain_cycles", kinds.count(1), "How often a whole chain is gone through."),
    Setting("limits.review_cycles", kinds.count(0), "How often the finished stories are reviewed and mended, at most."),
    Setting("limits.loop_threshold", kinds.count(2), "Equal steps in a row that count as a loop."),
    Setting("limits.calls_per_errand", kinds.count(1), "The most starts of an agent in one errand."),
    Setting("limits.calls_per_reading", kinds.count(1), "The same of what a run can go without, such as a review."),
    Setting("limits.call_timeout", kinds.DURATION, "The longest that one call may take."),
    Setting("limits.idle_timeout", kinds.DURATION, "The longest that an agent may be silent and change nothing."),
    Setting("limits.check_timeout", kinds.DURATION, "The longest that a check may take unless it says otherwise."),
    Setting("limits.orphan_grace", kinds.PAUSE, "How long an agent outlives a Storyloop that died."),
    Setting("limits.backoff", kinds.PAUSE, "The first pause between two cycles of a chain; it doubles."),
    Setting("limits.max_wait", kinds.PAUSE, "All waiting of a run together."),
    Setting("limits.questions", kinds.count(0), "Questions of agents to you that are answered, per story."),
    Setting("limits.question_deadline", kinds.PAUSE, "After it a question's default holds; not set, you are awaited."),
    Setting("limits.on_exhausted", kinds.one_of(OnExhausted), "What becomes of work whose attempts are used up."),
    Setting("escalation.attempts", kinds.LADDER, "How each attempt at a story is made; the last one holds."),
    Setting("proof.require", kinds.one_of(Require), "What must be provable before a run may start."),
    Setting("proof.tampering", kinds.one_of(Tampering), "What becomes of a change that bends its own proof."),
    Setting("proof.new_tests", kinds.one_of(NewTests), "Whether new tests are tried without the work, too."),
    Setting("budget.calls", kinds.count(1), "The most starts of agents; not set, the limits bound them."),
    Setting("budget.tokens", kinds.count(1), "The most tokens; not set, unlimited."),
    Setting("budget.usd", kinds.AMOUNT, "The most money, in US dollars; not set, unlimited."),
    Setting("budget.time", kinds.DURATION, "The most time of the run, without its waiting; not set, unlimited."),
    Setting("budget.story.calls", kinds.count(1), "The most starts of agents each time that a story is taken up."),
    Setting("budget.story.tokens", kinds.count(1), "The most tokens of it."),
    Setting("budget.story.usd", kinds.AMOUNT, "The most money of it, in US dollars."),
    Setting("budget.story.time", kinds.DURATION, "The most time of its agents."),
    Setting("review.enabled", kinds.SWITCH, "Whether the finished stories are reviewed."),
    Setting("review.per_story", kinds.SWITCH, "Whether each is reviewed before its commit, instead of all together."),
    Setting("review.severity", kinds.one_of(Severity), "The least severity of issues that are mended."),
    Setting("pull_request.create", kinds.SWITCH, "Whether the branch is pushed and a pull request opened."),
    Setting("pull_request.draft", kinds.SWITCH, "Whether that pull request is a draft."),
    Setting("pull_request.remote", kinds.TEXT, "The remote of your clone that it is pushed to."),
    Setting("pull_request.answer", kinds.SWITCH, "Whether `pr-review` answers threads, once it has pushed."),
    Setting("pull_request.resolve", kinds.SWITCH, "Whether it also resolves those whose issue is mended."),
    Setting("forge.kind", kinds.one_of(ForgeKind), "Which forge it is, where the remote's host does not tell."),
    Setting("forge.url", kinds.TEXT, "Where the forge is, if not at that host; your own file alone may say it."),
    Setting("notify.urls", kinds.URLS, "Where word is sent, by Apprise; your own file alone may say it."),
    Setting("notify.on", kinds.some_of(Occasion), "When word is sent."),
    Setting("sandbox.mode", kinds.one_of(SandboxMode), "How far agents and checks are fenced in."),
    Setting("sandbox.writable", kinds.TEXTS, "Further paths that agents and checks may write."),
    Setting("sandbox.agent_network", kinds.SWITCH, "Whether agents may use the network."),
    Setting("sandbox.checks_network", kinds.SWITCH, "Whether checks may use the network."),
)  # fmt: skip

_ROWS = {setting.key: setting for setting in SETTINGS}
_SECTIONS = {key[: dot.start()] for key in _ROWS for dot in re.finditer(r"\.", key)}
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_ELSEWHERE = {
    "chains.default": ("chain",),
    "proof.require": ("require",),
    "proof.tampering": ("tampering",),
    "proof.new_tests": ("new_tests",),
    "escalation.attempts": ("escalation",),
}


def place_in_policy(key: str) -> tuple[str, ...]:
    """The fields that lead to this setting's value in a `Policy`."""
    return _ELSEWHERE.get(key) or tuple(key.split("."))


def value_in(policy: Policy, key: str) -> object:
    """What the policy holds for this key; None when it holds nothing."""
    found: object = policy
    for step in place_in_policy(key):
        found = cast("dict[str, object]", found).get(step) if isinstance(found, dict) else getattr(found, step)
    return found


def default_of(setting: Setting) -> object:
    """What holds when nobody says anything; None for a setting without a default."""
    return None if "*" in setting.key else value_in(Policy(), setting.key)


def is_name(text: str) -> bool:
    """Whether an agent or a check can be called so."""
    return bool(_NAME.fullmatch(text))


def _row(key: str) -> str:
    """`agents.mine.command` as the table has it; empty when the name is none."""
    section, *rest = key.split(".")
    if section not in {"agents", "checks"} or not rest:
        return key
    return ".".join([section, "*", *rest[1:]]) if is_name(rest[0]) else ""


def lookup(key: str) -> Setting | None:
    """The setting of this key."""
    return _ROWS.get(_row(key))


def is_section(key: str) -> bool:
    """Whether settings stand below this key."""
    return _row(key) in _SECTIONS


def cure_for(wrong: str) -> str:
    """What to write instead of a key that does not exist."""
    if '"' in wrong:
        return "A name is made of letters, digits, _ and -."
    above, _, last = wrong.rpartition(".")
    section, *rest = wrong.split(".")
    sections = [key for key in sorted(_SECTIONS) if "." not in key]
    known = [key.replace("*", rest[0] if rest else "NAME") for key in _ROWS if key != "checks.*"] + sections
    anywhere = {key.rpartition(".")[2]: key for key in known}
    beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == above}
    likely = beside.get(nearest(last, beside) or "") or anywhere.get(nearest(last, anywhere) or "")
    if likely:
        return f"Did you mean {likely}?"
    if is_section(section):
        return f"[{section}] knows {', '.join(_below(section))}."
    return f"The sections are {', '.join(sections)}."


def _below(section: str) -> Iterator[str]:
    for key in _ROWS:
        if key.startswith(f"{section}."):
            yield key.removeprefix(f"{section}.").removeprefix("*.")
