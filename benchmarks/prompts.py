"""What prompts and artifacts cost: tokens of a story prompt along a run, milliseconds of CPU for XML and for knowledge.

python -m benchmarks.prompts

The prompts are those of a synthetic run of a hundred stories, made by the very code that a run uses. Each story builds
on the one before it and names a file, so that it is told as much as there may be. A token is taken to be four
characters.
"""

import sys
import time
from collections.abc import Callable, Collection, Iterator

from msgspec.structs import replace

from benchmarks.measure import median_of
from benchmarks.synthetic import synthetic_events
from storyloop.contracts.codec import decode
from storyloop.contracts.prompts import TemplatePrompts
from storyloop.core.events import RunOpened, StoryStarted
from storyloop.core.facts import Malformed
from storyloop.core.knowledge import Decision, FileInfo, Pattern, ProjectKnowledge, StoryChanges, render
from storyloop.core.policy import Drain
from storyloop.core.reduce import reduce
from storyloop.core.run_state import RunState
from storyloop.core.spec import Spec
from storyloop.engine.prompting import values_of

Row = tuple[str, float, float, str]  # what, measured, bar, unit

_STORIES = (1, 10, 100)
_FILES, _DECISIONS = 1_000, 500
_TOKENS = 1_500


def rows() -> Iterator[Row]:
    """Every figure; a prompt's size has no bar, so it is its own."""
    tokens = story_tokens(_STORIES)
    first, tenth, last = (tokens[number] for number in _STORIES)
    for number in _STORIES:
        yield f"story prompt of story {number}", tokens[number], tokens[number], "tokens"
    yield "growth of it from story 1 to story 10", tenth / first, 1.1, "x"
    yield "growth of it from story 10 to story 100", last / tenth, 1.1, "x"
    told = f"{_FILES:,} files and {_DECISIONS} decisions"
    yield f"reading an artifact, {told}, files as changed", _decoding_ms(_artifact(known=False)), 5, "ms"
    yield f"reading an artifact, {told}, files as known", _decoding_ms(_artifact(known=True)), 5, "ms"
    knowledge = _knowledge()
    focus = frozenset({"US-0042", "src/package/module_7.py"})
    spent = _ms(lambda: render(knowledge, focus=focus, budget_tokens=_TOKENS))
    yield f"rendering the knowledge of {told}", spent, 5, "ms"


def story_tokens(stories: Collection[int]) -> dict[int, float]:
    """The size of the first prompt of these stories, in one run."""
    tokens: dict[int, float] = {}
    state: RunState | None = None
    for event in synthetic_events(max(stories)):
        state = reduce(state, replace(event, spec=_connected(event.spec)) if isinstance(event, RunOpened) else event)
        if isinstance(event, StoryStarted) and event.iteration in stories:
            prompt = TemplatePrompts().render(values_of(state, state.going.work[event.story]))
            tokens[event.iteration] = len(prompt) / 4
    return tokens


def _connected(spec: Spec) -> Spec:
    """Each story builds on the one before it, and names a file that is there from the first one on."""
    stories = spec.user_stories
    before = ((), *((story.id,) for story in stories))
    return replace(
        spec,
        user_stories=tuple(
            replace(story, depends_on=names, notes="See src/package/module_2.py.")
            for story, names in zip(stories, before, strict=False)
        ),
    )


def _artifact(*, known: bool) -> bytes:
    """A development result with so many decisions, and so many files: known, or else changed."""
    paths = [f"src/package/module_{number}.py" for number in range(_FILES)]
    changed = "".join(f"<file>{path}</file>" for path in paths)
    noted = "".join(f'<file path="{path}" purpose="reads a line"><symbol>parse</symbol></file>' for path in paths)
    decided = "".join(f'<decision topic="t{number}" choice="c">because</decision>' for number in range(_DECISIONS))
    files = "" if known else f"<files-changed>{changed}</files-changed>"
    knowledge = f"<knowledge>{noted if known else ''}{decided}</knowledge>"
    summary = "<status>completed</status><summary>Done.</summary>"
    return f"<development-result>{summary}{files}{knowledge}</development-result>".encode()


def _knowledge() -> ProjectKnowledge:
    stories = [f"US-{number:04}" for number in range(100)]
    return ProjectKnowledge(
        files={
            f"src/package/module_{number}.py": FileInfo(
                purpose="reads a line and keeps what it cannot understand",
                key_symbols=("parse", "render"),
                touched_by=(stories[number % 100], stories[number * 7 % 100]),
                line_count=number,
            )
            for number in range(_FILES)
        },
        decisions=tuple(
            Decision(story_id=stories[number % 100], topic=f"topic {number}", choice="sqlite", rationale="one file")
            for number in range(_DECISIONS)
        ),
        patterns=tuple(
            Pattern(story_id=story, description="errors are sentences", example_file=None) for story in stories
        ),
        story_changes=tuple(StoryChanges(story_id=story) for story in stories),
    )


def _decoding_ms(artifact: bytes) -> float:
    assert not isinstance(decode(Drain.STORY, artifact), Malformed)
    return _ms(lambda: decode(Drain.STORY, artifact))


def _ms(deed: Callable[[], object]) -> float:
    def once() -> float:
        begun = time.process_time()
        deed()
        return time.process_time() - begun

    return median_of(once, runs=15) * 1e3


def main() -> int:
    """Print the table; a person judges it."""
    for what, measured, bar, unit in rows():
        print(f"{what:<70} {measured:>10.2f} {bar:>9.2f}  {unit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
