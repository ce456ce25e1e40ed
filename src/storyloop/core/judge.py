"""The rules of "When does a story pass?", as pure functions over what was measured.

`owed_measurements` says which commands an attempt's tree is owed; `judge` says what the attempt came to once
all of them are in. The agent's own word can fail an attempt, it can never pass one.
"""

import re

import msgspec

from storyloop.core.artifacts import DevelopmentResult
from storyloop.core.errand import Shortfall, attempt_of
from storyloop.core.evidence import Evidence
from storyloop.core.policy import Drain, Policy, Require
from storyloop.core.purpose import Checking, Demonstrating, Probing, Trying
from storyloop.core.spec import Spec, Story
from storyloop.core.stages import Landing, Preparing, Proving, Work
from storyloop.core.words import DevelopmentStatus


class Passed(msgspec.Struct, frozen=True):
    """Everything that gates is green on a tree that may be committed; the note is for the report."""

    note: str = ""


class GreenButPartial(msgspec.Struct, frozen=True):
    """All green, but the agent says there is more to do: it goes on, and passes when its attempts end."""

    shortfall: Shortfall


class Short(msgspec.Struct, frozen=True):
    """The attempt failed."""

    shortfall: Shortfall


Judgement = Passed | GreenButPartial | Short


def unprovable(spec: Spec, policy: Policy) -> tuple[str, ...]:
    """The stories that have fewer commands than the policy requires before a run may take them up."""
    proofs = {story.id: [c.verify is not None for c in story.acceptance_criteria] for story in spec.user_stories}
    match policy.require:
        case Require.NONE:
            return ()
        case Require.CHECKS:
            return () if policy.checks else tuple(name for name, proven in proofs.items() if not any(proven))
        case Require.CRITERIA if policy.chain_of(Drain.ANALYSIS):
            return ()  # what no command proves is to be judged met
        case Require.CRITERIA:
            return tuple(name for name, proven in proofs.items() if not all(proven))


def owed_probes(work: Work, story: Story) -> list[Probing]:
    """What is still to be tried on the untouched tree: green there makes a criterion's proof vacuous."""
    tried = work.stage.probed if isinstance(work.stage, Preparing) else ()
    return [
        Probing(story.id, work.iteration, number)
        for number, criterion in enumerate(story.acceptance_criteria, start=1)
        if criterion.verify and number not in tried
    ]


def owed_measurements(work: Work, tree: str, story: Story, policy: Policy) -> tuple[Checking | Demonstrating, ...]:
    """What is to be run on the tree that an attempt left, in order: the checks, then the criteria's own commands."""
    proofs = [number for number, criterion in enumerate(story.acceptance_criteria, start=1) if criterion.verify]
    if tree == work.tree and not proofs:
        return ()  # an unchanged tree without proofs cannot pass, whatever the checks say
    this, turn = (story.id, work.iteration, attempt_of(work.cs)), work.turns
    return (
        *[Checking(*this, name, turn) for name in policy.checks],
        *[Demonstrating(*this, number, turn) for number in proofs],
    )


def owed_tries(
    work: Work, proven: tuple[Evidence, ...], story: Story, *, policy: Policy, inherited: tuple[str, ...]
) -> tuple[Trying, ...]:
    """What is to be run without the work, if it brings new tests: what runs them, and was green before it, too."""
    if not work.new_tests or work.pin is None:
        return ()
    green = {(e.check, e.criterion) for e in proven if e.reading.is_green and e.check not in inherited}
    tries: list[Trying] = []
    for purpose in owed_measurements(work, work.pin.tree, story, policy):
        match purpose:
            case Checking(check=check) if (check, None) in green:
                tries.append(Trying(purpose))
            case Demonstrating(criterion=number) if (None, number) in green:
                if _names(story.acceptance_criteria[number - 1].verify or "", work.new_tests):
                    tries.append(Trying(purpose))
            case _:
                pass
    return tuple(tries)


def _names(command: str, paths: tuple[str, ...]) -> bool:
    """Whether one of these files, or a directory that it lies in, stands in the command."""
    words = {word.removeprefix("./").rstrip("/") for word in re.split(r"[\s:;&|'\"]+", command)}
    return any(path in words or any(path.startswith(f"{word}/") for word in words if word) for path in paths)


def gating_failures(measured: tuple[Evidence, ...], inherited: tuple[str, ...]) -> tuple[Evidence, ...]:
    """What was not green and counts: a check that is red since the base commit does not."""
    return tuple([e for e in measured if not e.reading.is_green and e.check not in inherited])


def judge(work: Work, proving: Proving, *, inherited: tuple[str, ...], require: Require) -> Judgement:
    """What the attempt came to. Every owed measurement is in `proving.measured`."""
    result, measured = proving.result, proving.measured
    unchanged = proving.tree == work.tree
    failures = gating_failures(measured, inherited)
    if failures:
        return Short(_shortfall_of_red(work, proving, failures))
    if unchanged and not any(e.criterion is not None for e in measured):
        return Short(
            shortfall_of(
                work,
                proving,
                status=DevelopmentStatus.FAILED,
                asked="Do the work that the story asks for in the files of this directory.",
                reason="nothing was changed",
            )
        )
    if not any(e.reading.is_green for e in measured) and require is Require.CHECKS:
        return Short(_shortfall_of_nothing_green(work, proving))
    match result.status:
        case DevelopmentStatus.COMPLETED:
            return Passed("already satisfied: no change was needed" if unchanged else "")
        case DevelopmentStatus.PARTIAL:
            return GreenButPartial(_as_told(work, proving, result, "the agent says partial"))
        case DevelopmentStatus.FAILED:
            return Short(_as_told(work, proving, result, f"the agent says it failed: {_first_line(result.summary)}"))


def _as_told(work: Work, proving: Proving, result: DevelopmentResult, reason: str) -> Shortfall:
    return shortfall_of(work, proving, status=result.status, asked="", next_steps=result.next_steps, reason=reason)


def _shortfall_of_red(work: Work, proving: Proving, failures: tuple[Evidence, ...]) -> Shortfall:
    asked = "Make these pass; we ran them on your work and they did not:\n" + _listed(failures)
    reason, steps = f"not green: {_named(failures)}", proving.result.next_steps
    return shortfall_of(work, proving, status=DevelopmentStatus.FAILED, asked=asked, next_steps=steps, reason=reason)


def _shortfall_of_nothing_green(work: Work, proving: Proving) -> Shortfall:
    """Every check that ran is red since the base commit: that is no failure, but it proves nothing either."""
    asked, reason = "", "no command could prove it"
    if proving.measured:
        asked = "Nothing that we ran on your work was green, so nothing proves it. Make one of these pass:\n"
        asked += _listed(proving.measured)
        reason = f"nothing proves it; not green: {_named(proving.measured)}"
    return shortfall_of(work, proving, status=DevelopmentStatus.FAILED, asked=asked, reason=reason)


def _listed(evidence: tuple[Evidence, ...]) -> str:
    return "\n".join(f"- {e.label}: `{e.command}` {_how(e)}" for e in evidence)


def _named(evidence: tuple[Evidence, ...]) -> str:
    return ", ".join(e.label for e in evidence[:4]) + (", ..." if len(evidence) > 4 else "")


def _how(evidence: Evidence) -> str:
    if evidence.reason:
        return evidence.reason
    return f"ended with exit status {evidence.exit_status}"


def shortfall_of(
    work: Work,
    proving: Proving | Landing,
    *,
    status: DevelopmentStatus,
    asked: str,
    reason: str,
    next_steps: str | None = None,
) -> Shortfall:
    """What an attempt lacks, as the next one is told, with what it reported itself."""
    if proving.tree == (work.wanting or work.tree):
        asked = f"The last attempt changed nothing. {asked}".rstrip()
    elif proving.tree in work.tried:
        asked = f"The last attempt went back to what an earlier one had left: go another way. {asked}".rstrip()
    return Shortfall(
        status=status,
        summary=proving.result.summary,
        files=work.changed,
        next_steps=next_steps,
        reason=reason,
        fingerprint=f"call_agent/{work.errand.drain}/{work.story}/{work.errand.ref}/{proving.tree}",
        asked=asked,
    )


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else "no reason given"
