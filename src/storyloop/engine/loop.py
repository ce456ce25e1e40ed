"""The loop: what the state owes is done by a crew, and one writer turns its facts into the journal.

A deed hands each fact over and goes on when it is durable. The writer alone appends, folds and plans. Everything else
(signals, requests of other processes) reaches it between two facts.
"""

import threading
from collections.abc import Callable

from storyloop.core.effects import (
    AnswerThread,
    CallAgent,
    Effect,
    FinishRun,
    OpenPullRequest,
    PushBranch,
    ResolveThread,
    RunCommand,
    ScrubWorktree,
    SeeFeedback,
    StartReview,
    StartStory,
)
from storyloop.core.errors import OperatorError, UserError
from storyloop.core.events import CallStarted, Event, RunInterrupted, StoryStarted
from storyloop.core.plan import plan
from storyloop.core.reduce import reduce
from storyloop.core.run_state import RunState
from storyloop.core.words import RunStatus
from storyloop.engine.crew import Crew, Deed, End, Fact, News, Nudge
from storyloop.engine.deeds import perform, save_report
from storyloop.engine.hands import Hands
from storyloop.engine.lanes import lane_of
from storyloop.engine.requests import can_be_stopped, fact_of, objection
from storyloop.engine.secrecy import without_secrets
from storyloop.ports.journal import Journal, Request
from storyloop.views.rows import row_of

_INBOX_GLANCE = 1.0  # seconds between two looks into the inbox while deeds are under way
_BETWEEN = (
    StartStory,
    StartReview,
    ScrubWorktree,
    PushBranch,
    OpenPullRequest,
    AnswerThread,
    ResolveThread,
    SeeFeedback,
    FinishRun,
)  # deeds between two stories, or behind the last


# What counts from here on: side by side with others, a deed may come to it when it is no longer owed.
_COUNTED = (StoryStarted, CallStarted)


class Engine:
    """Drives one run until nothing is owed any more. Not reusable."""

    def __init__(
        self,
        journal: Journal,
        hands: Hands,
        crew: Crew,
        *,
        state: RunState,
        seq: int,
        watch: Callable[[Event, RunState], None] = lambda _event, _state: None,
    ) -> None:
        self._journal, self._hands, self._crew, self._watch = journal, hands, crew, watch
        self.state, self._seq = state, seq
        self._deeds: dict[str, Deed] = {}
        self._interrupted: str | None = None
        self._stop_request: int | None = None
        self._trouble: OperatorError | UserError | None = None

    def interrupt(self, reason: str) -> None:
        """Stop as soon as everything under way has been stopped and saved. Safe to call from a signal handler."""
        self._interrupted = self._interrupted or reason
        self._crew.nudge()

    def run(self) -> RunState:
        """Until the run has ended, is parked or was interrupted; the state it then has comes back."""
        try:
            while True:
                if self._look_up():
                    self._begin(plan(self.state))
                elif self._interrupted is None:
                    self._begin(tuple(e for e in plan(self.state) if isinstance(e, CallAgent) and e.begun))
                if not self._deeds:
                    break
                self._take(self._crew.news(_INBOX_GLANCE))
            if self._interrupted is not None and self.state.status is RunStatus.RUNNING:
                self._interrupted_for(self._interrupted)
            if self._trouble is not None:
                raise self._trouble
            return self.state
        finally:
            self._crew.disband()

    def _interrupted_for(self, reason: str) -> None:
        event = RunInterrupted(
            key=f"interrupted/{self.state.going.resumes}",
            at=self._hands.clock.now(),
            reason=reason,
            number=self._stop_request,
        )
        try:
            save_report(event, self.state, self._hands)
        except OSError as problem:  # which may be why it is interrupted
            told = f"The report could not be written ({problem.strerror})."
            trouble = OperatorError(told, "The run is as it was.", "Make room, then go on with `storyloop resume`.")
            self._trouble = self._trouble or trouble
        self._append(event)

    def do(self, effect: Effect) -> None:
        """Do this alone, here and now, whether the state owes it or not."""
        for event in perform(effect, self.state, self._hands, threading.Event()):
            self._append(event)

    # --- deeds ----------------------------------------------------------------------------------------

    def _begin(self, owed: tuple[Effect, ...]) -> None:
        for effect in owed:
            lane = lane_of(effect, self.state.going)
            busy = lane is not None and any(deed.lane == lane for deed in self._deeds.values())
            if effect.key not in self._deeds and not busy:
                deed = self._deeds[effect.key] = Deed(effect, lane)
                self._crew.begin(deed, perform(effect, self.state, self._hands, deed.stop))

    def _take(self, news: News) -> None:
        match news:
            case Fact(deed=deed, event=event):
                deed.is_late = isinstance(event, _COUNTED) and not self._owes(deed.effect)
                if not deed.is_late:
                    self._append(event)
                self._crew.go_on(deed)
            case End(deed=deed, error=error):
                del self._deeds[deed.effect.key]
                if isinstance(error, OperatorError | UserError):
                    # Nothing of the run is lost: it is interrupted, and says so, before the error flies on.
                    self._trouble = self._trouble or error
                    self._interrupted = self._interrupted or str(error)
                elif error is not None:
                    raise error
            case Nudge():
                pass

    def _owes(self, effect: Effect) -> bool:
        return any(owed.key == effect.key for owed in plan(self.state))

    def _append(self, event: Event) -> None:
        event = without_secrets(event, self._hands.secrets)
        state = reduce(self.state, event)
        self._seq = self._journal.append(state.run_id, [event], after=self._seq, row=row_of(state))
        self.state = state
        self._journal.offer_snapshot(state.run_id, self._seq, state)
        self._watch(event, state)

    # --- what others want -----------------------------------------------------------------------------

    def _look_up(self) -> bool:
        """Deal with requests; whether new deeds may begin (not while a request waits for one to end)."""
        if self._interrupted is None:
            for request in self._journal.inbox(self.state.run_id, after=self.state.going.inbox_seen):
                if not self._dealt_with(request):
                    return False
        if self._interrupted is not None:
            for deed in self._deeds.values():
                deed.stop.set()
            return False
        return True

    def _dealt_with(self, request: Request) -> bool:
        if request.what == "stop":
            self._stop_request = request.number
            self._interrupted = "stopped by `storyloop stop`"
            return True
        work = self.state.going.work.get(request.story or "")
        may = objection(self.state, request.what, request.story) is None
        if may and request.what in ("skip", "answer") and work is not None:
            mine = [deed for deed in self._deeds.values() if _story_of(deed.effect) == request.story]
            for deed in mine:
                deed.stop.set()
            if mine or can_be_stopped(work):
                return False
        if request.what == "retry" and any(isinstance(deed.effect, _BETWEEN) for deed in self._deeds.values()):
            return False  # what they rest on is that no story is open, or this one is next
        self._append(fact_of(self.state, request, self._hands.clock.now()))
        return True


def _story_of(effect: Effect) -> str | None:
    if isinstance(effect, RunCommand):
        return getattr(effect.purpose, "story", None)
    return getattr(effect, "story", None)
