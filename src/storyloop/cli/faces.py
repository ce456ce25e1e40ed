"""Faces of a run in the foreground: a live view on a terminal, plain lines elsewhere, JSON lines, or silence.

stderr is the telling, stdout the answer. What agents wrote is stripped of everything a terminal would obey.
When whoever read it has left (a closed pipe, a terminal that is gone), what is still to be said goes nowhere, and the
run is stopped in order, as it is by the terminal's own signal; under `nohup` it goes on.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import click

from storyloop.cli.json_text import json_line
from storyloop.core.events import CallEnded, CallStarted, Event
from storyloop.core.purpose import RUN
from storyloop.core.run_state import RunState
from storyloop.core.stages import standing_of
from storyloop.core.words import StoryState
from storyloop.views.account import Account
from storyloop.views.history import lines_of
from storyloop.views.report import report_json, summary
from storyloop.views.rows import final_line, review_line, waits_for
from storyloop.views.words import count, duration, money
from storyloop.world.text import readable

if TYPE_CHECKING:
    from rich.console import RenderableType


class Face(Protocol):
    """How a run is shown while it goes on."""

    def tell(self, text: str) -> None:
        """Something that is said once."""
        ...

    def event(self, event: Event, state: RunState) -> None:
        """A fact has been stored."""
        ...

    def seen(self, text: str) -> None:
        """What the agent is doing right now."""
        ...

    def end(self, state: RunState, account: Account, report_path: str | None) -> None:
        """The answer."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was, however the run ended."""
        ...


def face_for(label: str = "", *, quiet: bool, verbose: bool, as_json: bool) -> Face:
    """The face for this terminal and these flags; with a label for one of several runs, which stands in each line."""
    if as_json:
        return JsonFace()
    if quiet:
        return QuietFace()
    if label or verbose or not sys.stderr.isatty():
        return PlainFace(label, stamped=verbose)
    return LiveFace()


def _said(say: Callable[[], object]) -> None:
    try:
        say()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        os.kill(os.getpid(), signal.SIGHUP)


class QuietFace:
    """Nothing but the answer."""

    def tell(self, text: str) -> None: ...
    def event(self, event: Event, state: RunState) -> None: ...
    def seen(self, text: str) -> None: ...
    def close(self) -> None: ...

    def end(self, state: RunState, account: Account, report_path: str | None) -> None:
        _said(lambda: click.echo(readable(summary(state, account, datetime.now(UTC), report_path))))


class PlainFace(QuietFace):
    """A line for each fact."""

    def __init__(self, label: str = "", *, stamped: bool) -> None:
        self._label, self._stamped = f"[{label}] " if label else "", stamped
        self._state: RunState | None = None  # as it was last shown

    def tell(self, text: str) -> None:
        lines = "\n".join(f"{self._label}{line}" for line in readable(text).split("\n"))
        _said(lambda: click.echo(lines, err=True))

    def event(self, event: Event, state: RunState) -> None:
        stamp = f"{event.at:%Y-%m-%dT%H:%M:%SZ}  " if self._stamped else ""
        for line in lines_of(event, self._state, state):
            self.tell(stamp + line)
        self._state = state

    def end(self, state: RunState, account: Account, report_path: str | None) -> None:
        _said(lambda: click.echo("", err=True))
        super().end(state, account, report_path)


class JsonFace(QuietFace):
    """The journal's events as JSON lines, then the report."""

    def event(self, event: Event, state: RunState) -> None:  # noqa: ARG002 - the protocol's
        _said(lambda: click.echo(json_line(event)))

    def end(self, state: RunState, account: Account, report_path: str | None) -> None:
        _said(lambda: click.echo(json_line(report_json(state, account, report_path))))


class LiveFace(PlainFace):
    """Finished facts scroll by; below them one block says what is going on."""

    def __init__(self) -> None:
        super().__init__(stamped=False)
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._doing = ""
        self._since = time.monotonic()
        self._live = Live(console=self._console, get_renderable=self._block, refresh_per_second=4, transient=True)

    def tell(self, text: str) -> None:
        _said(lambda: self._console.print(readable(text), markup=False))

    def event(self, event: Event, state: RunState) -> None:
        if self._state is None:
            _said(self._live.start)
        if isinstance(event, CallStarted):
            self._since, self._doing = time.monotonic(), ""
        elif isinstance(event, CallEnded):
            self._doing = ""
        super().event(event, state)

    def seen(self, text: str) -> None:
        self._doing = readable(text)

    def end(self, state: RunState, account: Account, report_path: str | None) -> None:
        self.close()
        super().end(state, account, report_path)

    def close(self) -> None:
        _said(self._live.stop)

    def _block(self) -> "RenderableType":
        from rich.text import Text

        state = self._state
        if state is None:
            return Text("")
        progress = state.going
        elapsed = duration((datetime.now(UTC) - state.started_at).total_seconds())
        used = f"{count(progress.ledger.calls, 'call')}, {_tokens(state)}{money(progress.ledger.total)}"
        second = f"{state.machine_state}  {elapsed}  {used}"
        lines = [_place(state), *_besides(state), second] + ([f"  {self._doing}"] if self._doing else [])
        lines += [f"{sentence}  (storyloop {verb})" for sentence, verb in waits_for(state)]
        width = max(20, self._console.width - 1)
        return Text("\n" + "\n".join(readable(line)[:width] for line in lines), style="bold")


def _place(state: RunState) -> str:
    """What the run is at."""
    progress = state.going
    if progress.spec.is_free_form:
        return "before the first story: they are not planned yet"
    if progress.final.owed or RUN in progress.work:
        return final_line(state) if progress.final.owed else review_line(state)
    ended = (StoryState.PASSED, StoryState.BLOCKED, StoryState.SKIPPED)
    number, stories = sum(s.state in ended for s in progress.stories.values()), len(progress.stories)
    story = state.current_story
    title = f"{story}  {progress.spec.story(story).title}" if story else "between two stories"
    return f"story {min(number + 1, stories)} of {stories}  {title}"


def _besides(state: RunState) -> list[str]:
    """The other stories in hand, where several are worked on at once."""
    progress = state.going
    works = [work for work in progress.work.values() if work.story not in (RUN, state.current_story)]
    titles = {work.story: progress.spec.story(work.story).title for work in works}
    return [f"  {work.story}  {standing_of(work, StoryState.BUILDING)}  {titles[work.story]}" for work in works]


def _tokens(state: RunState) -> str:
    usage = state.total_usage
    return f"{usage.input_tokens + usage.output_tokens:,} tokens, " if usage is not None else ""
