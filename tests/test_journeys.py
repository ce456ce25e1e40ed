"""Journeys: each file of tests/journeys is played in memory, and some with real git and processes too."""

from pathlib import Path

import pytest

from journeykit import Journey, Play, journeys
from journeyworlds import MemoryWorld, RealWorld

JOURNEYS = journeys()
IN_MEMORY = [name for name, journey in JOURNEYS.items() if journey.memory]
REAL = [name for name, journey in JOURNEYS.items() if journey.real]


def played(journey: Journey, play: Play) -> None:
    """Play it act by act, and compare with everything that its file says."""
    for act in journey.act:
        facts = play.act(act)
        if act.do in ("run", "resume"):
            assert facts == act.facts.splitlines()
            assert play.exits[-1] == act.exit
    assert play.known == play.state()
    outcome, expect = play.outcome(), journey.expect
    assert outcome.stories == expect.stories
    assert {name: outcome.verdicts[name] for name in expect.verdicts} == expect.verdicts
    assert [subject for subject, _ in outcome.history[1:]] == expect.commits
    files = {path: text for path, text in (journey.files | expect.files).items() if text}
    assert outcome.history[-1][1] == files
    assert outcome.worktree == files | expect.ignored
    assert {name: besides(journey, pins) for name, pins in outcome.kept.items()} == expect.kept
    assert outcome.findings == expect.findings
    assert outcome.inherited == expect.inherited
    assert not outcome.handover or play.state().going.work
    assert outcome.calls == expect.calls
    for told in expect.told:
        prompt = play.world.told(told.call)
        assert [text for text in told.holds if text not in prompt] == []
        assert [text for text in told.lacks if text in prompt] == []
    report = play.world.report(play.state())
    assert [text for text in expect.report if text not in report] == []


def besides(journey: Journey, pins: list[dict[str, str]]) -> dict[str, str]:
    """What these trees hold that the base does not."""
    return {path: text for pin in pins for path, text in pin.items() if journey.files.get(path) != text}


@pytest.mark.parametrize("name", IN_MEMORY)
def test_a_journey_comes_to_what_its_file_says(name: str, tmp_path: Path) -> None:
    """Facts, exit codes, commits, files, standings, pins, prompts and report, without a process."""
    play = Play(JOURNEYS[name], MemoryWorld(JOURNEYS[name], tmp_path))
    played(JOURNEYS[name], play)
    if (waited := JOURNEYS[name].expect.waited) is not None:
        assert play.state().going.ledger.waited == waited


@pytest.mark.processes
@pytest.mark.parametrize("name", REAL)
def test_a_journey_comes_to_the_same_with_real_git_and_processes(name: str, tmp_path: Path) -> None:
    """The same facts, commits, files, standings, pins, prompts and report."""
    played(JOURNEYS[name], Play(JOURNEYS[name], RealWorld(JOURNEYS[name], tmp_path)))
