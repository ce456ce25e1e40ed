"""Measuring: running a command of the project on a tree, twice if it is red, and undoing what it did to the files."""

import threading
from collections.abc import Iterator

from storyloop.core.effects import RunCommand
from storyloop.core.events import CommandMeasured, Event
from storyloop.core.evidence import deserves_second_run
from storyloop.core.facts import Change, Finding
from storyloop.core.judge import owed_measurements
from storyloop.core.progress import Preparing, Proving
from storyloop.core.purpose import Baselining, Checking, Demonstrating, Probing, SettingUp
from storyloop.core.run_state import RunState
from storyloop.engine.hands import Hands
from storyloop.ports import CheckOrder

_NAMED = 8  # paths named in a finding


def run_command(effect: RunCommand, state: RunState, hands: Hands, stop: threading.Event) -> Iterator[Event]:
    """One fact, or none when it was stopped: then it is owed again."""
    first = hands.checks.run(_order(effect, hands, "1"), stop)
    second = None
    # Red before the work is what a proof should be, so only what gates is looked at twice.
    gates = isinstance(effect.purpose, Baselining | Checking | Demonstrating)
    if first is not None and gates and deserves_second_run(first):
        _undo(effect, hands)
        second = hands.checks.run(_order(effect, hands, "2"), stop)
        if second is None:
            return
    if first is None:
        return
    findings = _undo(effect, hands)
    if effect.tree is not None and _is_last_of_its_round(effect, state):
        hands.repository.remove_creations(hands.place, tree=effect.tree)
    if isinstance(effect.purpose, SettingUp) and _is_last_of_its_round(effect, state):
        findings = _after_set_up(state, hands)
    yield CommandMeasured(
        key=effect.key,
        at=hands.clock.now(),
        purpose=effect.purpose,
        command=effect.command.run,
        tree=effect.tree or state.going.tip_tree,
        first=first,
        second=second,
        findings=findings,
    )


def _order(effect: RunCommand, hands: Hands, run: str) -> CheckOrder:
    name = effect.key.replace("/", ".")
    return CheckOrder(
        check_dir=f"{hands.place.run_dir}/checks/{name}.{run}",
        worktree=hands.place.worktree,
        run_dir=hands.place.run_dir,
        command=effect.command,
        timeout=effect.timeout,
    )


def _undo(effect: RunCommand, hands: Hands) -> tuple[Finding, ...]:
    """What a command changed in the tree's own files is put back; what it created stays until its round is over."""
    if effect.tree is None:
        return ()
    changed = hands.repository.undo_changes(hands.place, tree=effect.tree)
    if not changed:
        return ()
    detail = f"`{effect.command.run}` changed {_named(changed)}; that was undone."
    return (Finding("check-changed-files", detail),)


def _after_set_up(state: RunState, hands: Hands) -> tuple[Finding, ...]:
    """What set-up made and git does not ignore belongs to no story: it is ignored from here on."""
    repository, place, tree = hands.repository, hands.place, state.going.tip_tree
    changed = repository.undo_changes(place, tree=tree)
    ignored = repository.ignore_creations(place, tree=tree)
    findings: list[Finding] = []
    if changed:
        findings.append(Finding("setup-changed-files", f"The set-up changed {_named(changed)}; that was undone."))
    if ignored:
        names = ", ".join(ignored[:_NAMED])
        detail = f"The set-up made files that git does not ignore; they are no part of any commit: {names}."
        findings.append(Finding("setup-created-files", detail))
    return tuple(findings)


def _named(changes: tuple[Change, ...]) -> str:
    names = ", ".join(change.path for change in changes[:_NAMED])
    return names + (f" and {len(changes) - _NAMED} more" if len(changes) > _NAMED else "")


def _is_last_of_its_round(effect: RunCommand, state: RunState) -> bool:
    progress, policy = state.going, state.effective_config()
    match effect.purpose:
        case SettingUp(number=number):
            return number + 1 == len(policy.worktree.setup)
        case Baselining():
            return len(progress.opening.baseline) + 1 == len(policy.checks)
        case Probing(story=story):
            work = progress.work[story]
            proofs = sum(c.verify is not None for c in progress.spec.story(story).acceptance_criteria)
            return isinstance(work.stage, Preparing) and len(work.stage.probed) + 1 == proofs
        case Checking(story=story) | Demonstrating(story=story):
            work = progress.work[story]
            if not isinstance(work.stage, Proving):
                return False
            return len(owed_measurements(work, work.stage, progress.spec.story(story), policy)) == 1
