"""Undoing: what a run has done as steps, and by which names each is found."""

from makers import Run, policy_of, spec_of, story
from msgspec.structs import replace

from storyloop.core.effects import FinishRun
from storyloop.core.events import RunUndone
from storyloop.core.progress import StoryProgress
from storyloop.core.reduce import fold
from storyloop.core.undoing import review_then, standings_then, step_called, steps_of
from storyloop.core.words import StoryState

SPEC = spec_of(story("US-001"), story("US-002", verify=()))


def ended() -> Run:
    """Both stories have landed."""
    run = Run(SPEC, replace(policy_of("a", checks=("test",)), step=False))
    run.until(FinishRun)
    return run


def test_each_step_has_a_number_and_names_and_the_newest_of_a_name_is_meant() -> None:
    """The branch, each story that landed, in order; a commit by its beginning, from four digits on."""
    run = ended()
    steps = steps_of(enumerate(run.events, start=1), "feature/x")
    assert [step.names[0] for step in steps] == ["branch", "US-001", "US-002"]
    assert [step_called(steps, name) for name in ("US-002", str(steps[2].number), "branch", "feature/x")] == [
        steps[2],
        steps[2],
        steps[0],
        steps[0],
    ]
    assert step_called(steps, steps[1].tip[:4]) in steps
    assert step_called(steps, "US-009") is None


def test_what_was_undone_is_no_step_any_more_and_what_was_spent_stays_spent() -> None:
    """Back to the first story: the second is open again, may be begun once more, and was called all the same."""
    run = ended()
    told = list(enumerate(run.events, start=1))
    to = steps_of(told, "feature/x")[1]
    then, now = fold(run.events[: to.number]), run.state
    assert then is not None
    run.happened(
        RunUndone(
            key="undone",
            at=run.now,
            to=to.number,
            what="US-002",
            tip=to.tip,
            tip_tree=to.tip_tree,
            kept=(),
            stories=standings_then(now, then),
            knowledge=then.knowledge,
            inherited=then.going.inherited,
            review=review_then(now, then),
        )
    )
    going = run.state.going
    assert {name: s.state for name, s in going.stories.items()} == {
        "US-001": StoryState.PASSED,
        "US-002": StoryState.OPEN,
    }
    assert (going.stories["US-002"].calls, going.ledger.iterations_allowed) == (now.going.stories["US-002"].calls, 1)
    assert [step.names[0] for step in steps_of(enumerate(run.events, start=1), "feature/x")] == ["branch", "US-001"]


def test_a_story_that_was_in_hand_then_and_is_now_is_open() -> None:
    """Side by side with the one that is walked back to; else nobody would ever go on with it."""
    begun = fold(ended().events[:1])
    assert begun is not None
    going = replace(begun.going, stories={"US-001": StoryProgress(state=StoryState.BUILDING)})
    in_hand = replace(begun, progress=going)
    assert standings_then(in_hand, in_hand) == {"US-001": StoryProgress()}
