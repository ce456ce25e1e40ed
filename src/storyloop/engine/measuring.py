"""Measuring: running a command of the project on a tree, twice if it is red, and undoing what it did to the files."""

import threading
from collections.abc import Iterator

from msgspec.structs import replace

from storyloop.core.effects import RunCommand
from storyloop.core.errors import ProgrammerError
from storyloop.core.events import CommandMeasured, Event
from storyloop.core.evidence import deserves_second_run
from storyloop.core.facts import Change, ChangeKind, Finding
from storyloop.core.judge import owed_probes
from storyloop.core.languages import belongs_to_tests
from storyloop.core.progress import files_in_hand
from storyloop.core.purpose import (
    RUN,
    Baselining,
    Checking,
    Demonstrating,
    FinalChecking,
    FinalDemonstrating,
    Probing,
    Reproving,
    SettingUp,
    SettingUpLane,
    Trying,
    key_of,
)
from storyloop.core.run_state import RunState
from storyloop.core.stages import Preparing, Proving
from storyloop.engine.hands import Hands
from storyloop.engine.laying import lay, lay_alone
from storyloop.ports.checks import CheckOrder, GitAccess, checks_dir

_NAMED = 8  # paths named in a finding


def run_command(effect: RunCommand, state: RunState, hands: Hands, stop: threading.Event) -> Iterator[Event]:
    """One fact, or none when it was stopped: then its round is owed again."""
    if isinstance(effect.purpose, Trying):
        yield from _try_without_the_work(effect, effect.purpose, state, hands, stop)
        return
    done, owed = _round(effect, state)
    findings = _alone(effect, state, hands) if done == 0 else ()
    first = hands.checks.run(_order(effect, state, hands, "1"), stop)
    second = None
    # Red before the work is what a proof should be, so only what gates is looked at twice.
    gates = not isinstance(effect.purpose, SettingUp | SettingUpLane | Probing)
    if first is not None and gates and deserves_second_run(first):
        findings += _undo(effect, hands, creations=False)
        second = hands.checks.run(_order(effect, state, hands, "2"), stop)
        if second is None:
            return
    if first is None:
        return
    findings += _undo(effect, hands, creations=owed == 1)
    if isinstance(effect.purpose, SettingUp | SettingUpLane) and owed == 1:
        findings += _after_set_up(effect.purpose, state, hands)
    yield CommandMeasured(
        key=effect.key,
        at=hands.clock.now(),
        purpose=effect.purpose,
        command=effect.command.run,
        tree=effect.tree or state.going.tip_tree,
        first=first,
        second=second,
        findings=tuple(dict.fromkeys(findings)),
    )


def _try_without_the_work(
    effect: RunCommand, trying: Trying, state: RunState, hands: Hands, stop: threading.Event
) -> Iterator[Event]:
    """The command on the story's beginning with nothing but its tests; then the files are again as they were proven."""
    assert effect.tree is not None
    findings = _alone(effect, state, hands)
    beginning = state.going.work[trying.of.story].tree
    tree = hands.repository.graft(hands.place, base=beginning, tree=effect.tree, wanted=belongs_to_tests)
    # Python tells its compiled files by whole seconds: none may be left of what stood here for a moment.
    env = effect.command.env | {"PYTHONDONTWRITEBYTECODE": "1"}
    without = replace(effect, tree=tree, command=replace(effect.command, env=env))
    lay(tree, hands)
    measured = hands.checks.run(_order(without, state, hands, "1"), stop)
    lay(effect.tree, hands)
    if measured is not None:
        yield CommandMeasured(
            key=effect.key,
            at=hands.clock.now(),
            purpose=trying,
            command=effect.command.run,
            tree=tree,
            first=measured,
            findings=findings,
        )


def _alone(effect: RunCommand, state: RunState, hands: Hands) -> tuple[Finding, ...]:
    """A round begins on its very tree: what else lies there is of a round that broke off, or of somebody's hand."""
    if effect.tree is None:
        return ()
    whence, at = f"`{effect.command.run}` ran", state.going.last_at
    return lay_alone(effect.tree, hands, whence=whence, label="before", at=at)


def _order(effect: RunCommand, state: RunState, hands: Hands, run: str) -> CheckOrder:
    name = key_of(effect.purpose).replace("/", ".")
    return CheckOrder(
        check_dir=f"{checks_dir(hands.place.run_dir)}/{name}.{run}",
        worktree=hands.place.worktree,
        run_dir=hands.place.run_dir,
        command=effect.command,
        timeout=effect.timeout,
        sandbox=state.effective_config().sandbox,
        git=_git_access(effect),
    )


def _git_access(effect: RunCommand) -> GitAccess:
    """Set-up is the user's word, and fetches submodules; in the final proof it also starts what agents wrote."""
    match effect.purpose:
        case SettingUp(round=0) | SettingUpLane():
            return GitAccess.ALL
        case SettingUp():
            return GitAccess.SUBMODULES
        case _:
            return GitAccess.NOTHING


def _undo(effect: RunCommand, hands: Hands, *, creations: bool) -> tuple[Finding, ...]:
    """What a command changed in the tree's own files is put back; what it created stays until its round is over."""
    if effect.tree is None:
        return ()
    undone = hands.repository.undo_changes(hands.place, tree=effect.tree, creations=creations)
    changed = tuple(change for change in undone if change.kind is not ChangeKind.CREATED)
    if not changed:
        return ()
    detail = f"`{effect.command.run}` changed {_named(changed)}; that was undone."
    return (Finding("check-changed-files", detail),)


def _after_set_up(purpose: SettingUp | SettingUpLane, state: RunState, hands: Hands) -> tuple[Finding, ...]:
    """What set-up made and git does not ignore belongs to no story: it is ignored from here on."""
    repository, place = hands.repository, hands.place
    is_lane = isinstance(purpose, SettingUpLane)
    tree = state.going.lanes[purpose.lane].tree if is_lane else files_in_hand(state.going)
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


def _round(effect: RunCommand, state: RunState) -> tuple[int, int]:
    """How many commands of its round are done, and how many are owed, this one too."""
    progress, policy = state.going, state.effective_config()
    match effect.purpose:
        case SettingUp(number=number):
            return number, len(policy.worktree.setup) - number
        case SettingUpLane(number=number):
            return number, len(policy.worktree.setup) - number
        case Baselining():
            done = len(progress.opening.baseline)
            return done, len(policy.checks) - done
        case FinalChecking() | FinalDemonstrating():
            return len(progress.final.measured), len(progress.final.owed)
        case Trying():
            raise ProgrammerError("What is tried without the work is no round on one tree.")
        case Reproving():
            story = RUN
        case Probing(story=story) | Checking(story=story) | Demonstrating(story=story):
            pass
    work = progress.work[story]
    match work.stage:
        case Preparing(probed=probed):
            return len(probed), len(owed_probes(work, progress.spec.story(story)))
        case Proving() as proving:
            return len(proving.measured), len(proving.owed)
        case _:
            raise ProgrammerError(f"Story {story} is not being measured.")
