"""Noticing: what a change holds besides the work: signs of tampering, and new tests."""

from collections.abc import Iterable
from typing import NamedTuple

from storyloop.core.facts import Change, Suspicion
from storyloop.core.policy import NewTests, Tampering
from storyloop.core.run_state import RunState
from storyloop.core.stages import Work
from storyloop.core.tampering import Edit, Proofs, new_tests, suspicions
from storyloop.ports.repository import Edited

_MOST_FILES = 20
_LONGEST_LINE = 500  # characters; nobody reads on behind them


class Noticed(NamedTuple):
    """What the policy has us look for, as it was found."""

    suspicions: tuple[Suspicion, ...] = ()
    new_tests: tuple[str, ...] = ()


def noticed(changed: tuple[Change, ...], edited: Iterable[Edited], work: Work, state: RunState) -> Noticed:
    """What the change since the work's beginning holds; `edited` are its lines."""
    policy = state.effective_config()
    suspects, tries = policy.tampering is not Tampering.ALLOW, policy.new_tests is not NewTests.OFF
    if not changed or not (suspects or tries):
        return Noticed()
    lines = {edit.path: (_lines(edit.added), _lines(edit.removed)) for edit in edited}
    nothing = (_lines(b""), _lines(b""))
    edits: list[Edit] = []
    for change in changed:
        added, removed = lines.get(change.path, nothing)
        edits.append(Edit(path=change.path, kind=change.kind, added=added, removed=removed))
    return Noticed(
        suspicions=suspicions(edits, _proofs(work, state)) if suspects else (),
        new_tests=new_tests(edits)[:_MOST_FILES] if tries else (),
    )


def _lines(data: bytes) -> tuple[str, ...]:
    return tuple(line[:_LONGEST_LINE].decode(errors="replace") for line in data.split(b"\n"))


def _proofs(work: Work, state: RunState) -> Proofs:
    spec = state.going.spec
    asked = [story for story in spec.user_stories if work.story in ("", story.id)]
    texts = [
        text for s in asked for text in (s.title, s.description, s.notes, *(c.text for c in s.acceptance_criteria))
    ]
    return Proofs(
        checks=tuple(check.run for check in state.effective_config().checks.values()),
        verify=tuple(c.verify for s in spec.user_stories for c in s.acceptance_criteria if c.verify),
        asked="\n".join(texts),
    )
