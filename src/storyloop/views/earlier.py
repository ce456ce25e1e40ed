"""Earlier: what the runs on a branch came to and left open, in words for whoever goes on with it."""

from collections.abc import Iterable, Iterator

from storyloop.core.run_state import RunState
from storyloop.core.words import StoryState
from storyloop.views.learnt import knowledge_lines
from storyloop.views.report import headline
from storyloop.views.rows import evidence_rows, issue_line, open_issues
from storyloop.views.words import one_line

_MOST_RUNS = 5


def earlier(states: Iterable[RunState], *, tip_tree: str) -> str:
    """What the newest of these runs came to, newest first; evidence of another tree than the branch's is stale."""
    return "\n".join(line for state in list(states)[:_MOST_RUNS] for line in _of_run(state, tip_tree))


def learnt(state: RunState) -> str:
    """All that is known of the project, to be told with it."""
    return "\n".join(["What was learnt:", *knowledge_lines(state.knowledge)])


def _of_run(state: RunState, tip_tree: str) -> Iterator[str]:
    spec = state.going.spec
    yield f"Run {state.run_id[:8]}, {one_line(spec.title)}. {one_line(headline(state))}"
    summaries = {record.story_id: record.work_summary for record in state.iterations if record.work_summary}
    for story in spec.user_stories:
        standing = state.going.stories[story.id]
        why = f": {one_line(standing.reason)}" if standing.reason else ""
        summary = f". {one_line(summaries[story.id])}" if story.id in summaries else ""
        yield f"- {story.id} {one_line(story.title)}: {standing.state}{why}{summary}"
        for pin in standing.pins if standing.state is not StoryState.PASSED else ():
            yield f"  its work is kept: git show {pin}"
        for row in evidence_rows(state, story):
            if row.verify and row.tree is not None and row.tree != tip_tree and standing.state is StoryState.PASSED:
                yield f"  stale since the branch has changed: criterion {row.number}, by `{row.verify}`"
    yield from (f"- open issue of the review: {issue_line(known)}" for known in open_issues(state))
