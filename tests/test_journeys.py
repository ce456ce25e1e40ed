"""Journeys: each file of tests/journeys and tests/liars is played in memory, with real git and processes, or both."""

import contextlib
from pathlib import Path

import psutil
import pytest

from journeykit import Act, Journey, Play, journeys
from journeyworlds import MemoryWorld, RealWorld
from storyloop.core.bounds import bounds_of

JOURNEYS = journeys()
IN_MEMORY = [name for name, journey in JOURNEYS.items() if journey.memory]
REAL = [name for name, journey in JOURNEYS.items() if journey.real]


def played(journey: Journey, play: Play) -> None:
    """Play it act by act, and compare with everything that its file says."""
    for act in journey.act:
        facts = play.act(act)
        if act.do in ("run", "resume", "deliver"):
            assert (those(facts, act.facts) if journey.width > 1 else facts) == act.facts.splitlines()
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
    assert (outcome.pull_requests, outcome.remote) == (expect.pull_requests, expect.remote)
    assert outcome.threads == expect.threads
    body = next((one.body for one in reversed(play.world.pull_requests())), "")
    assert [text for text in expect.body if text not in body] == []
    assert not outcome.handover or play.state().going.work
    assert outcome.calls == expect.calls
    for told in expect.told:
        prompt, beside = play.world.told(told.call)
        assert [text for text in told.holds if text not in prompt] == []
        assert [text for text in told.lacks if text in prompt + beside] == []
        assert [text for text in told.beside if text not in beside] == []
    report = play.report()
    assert [text for text in expect.report if text not in report] == []
    parts = sections(report)
    assert {of: [text for text in texts if text not in parts[of]] for of, texts in expect.sections.items()} == {
        of: [] for of in expect.sections
    }
    assert_within_bounds(play)


def those(facts: list[str], wanted: str) -> list[str]:
    """Of these facts, the wanted ones as they are met in this order."""
    left = iter(facts)
    return [line for line in wanted.splitlines() if line in left]


def sections(report: str) -> dict[str, str]:
    """The text of the report by its headings; what stands before the first has none."""
    begin, *rest = f"\n{report}".split("\n## ")
    return {"": begin} | {heading: text for heading, _, text in (part.partition("\n") for part in rest)}


def assert_within_bounds(play: Play) -> None:
    """It cost no more than is told before it starts; each retry that a person asks for may cost a story more."""
    state, retries = play.state(), [act for act in play.journey.act if act.do == "retry"]
    going, ledger = state.going, state.going.ledger
    most = bounds_of(len(going.stories) + len(retries), going.spec, state.effective_config(), plans=going.plans)
    assert ledger.calls <= most.calls
    assert ledger.total.seconds <= most.agent_seconds
    assert ledger.waited <= most.wait_seconds


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
    """The same facts, commits, files, standings, pins, prompts and report; no process is left at work there."""
    played(JOURNEYS[name], Play(JOURNEYS[name], RealWorld(JOURNEYS[name], tmp_path)))
    assert at_work_below(tmp_path) == []


def at_work_below(place: Path) -> list[str]:
    """The processes whose directory is there."""
    found: list[str] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if place in (cwd := Path(process.cwd())).parents or cwd == place:
                found.append(" ".join(process.cmdline()))
    return found


def test_what_somebody_changes_behind_a_landing_is_kept_by_a_ref(tmp_path: Path) -> None:
    """The worktree goes back to the branch's tip only then."""
    world = MemoryWorld(JOURNEYS["plain-pass"], tmp_path)
    play = Play(JOURNEYS["plain-pass"], world)
    play.act(Act(do="run", interrupt="land US-001"))
    world.put(play.state(), "mine.txt", "mine\n")
    play.act(Act(do="resume"))
    kept = [world.pinned(ref) for ref in world.repository.refs if "/after/" in ref]
    assert [files.get("mine.txt") for files in kept] == [b"mine\n"]
