"""History: one event, one readable line. What `logs`, `show --events` and plain `run` print."""

from collections.abc import Iterable, Iterator
from typing import assert_never

from storyloop.core.artifacts import Analysis, Issues, Plan, Ruling
from storyloop.core.budget import nearly_spent
from storyloop.core.errand import Mode
from storyloop.core.events import (
    BranchPushed,
    CallEnded,
    CallStarted,
    CommandMeasured,
    DeliveryFailed,
    Event,
    FeedbackSeen,
    FinalProofBegun,
    HandoverCleaned,
    HandoverWritten,
    LimitLearned,
    PullRequestOpened,
    QuestionAnswered,
    RequestRefused,
    ReviewStarted,
    RunCleaned,
    RunFinished,
    RunForked,
    RunInterrupted,
    RunOpened,
    RunParked,
    RunResumed,
    RunUndone,
    SpecPlanned,
    StoryApproved,
    StoryLanded,
    StoryLeft,
    StoryRejected,
    StoryReopened,
    StorySetAside,
    StorySkipped,
    StoryStarted,
    StoryTakenUp,
    ThreadAnswered,
    ThreadResolved,
    WaitEnded,
    WorktreeLost,
    WorktreeOpened,
    WorktreeScrubbed,
)
from storyloop.core.evidence import Reading, reading_of
from storyloop.core.facts import Answered, Failed, Interrupted, Malformed
from storyloop.core.feedback import unjudged
from storyloop.core.judge import unprovable
from storyloop.core.policy import Drain
from storyloop.core.progress import Concern, Feedback
from storyloop.core.purpose import (
    LOOKING,
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
)
from storyloop.core.reduce import reduce
from storyloop.core.run_state import RunState
from storyloop.core.stages import TakingUp, errand_of, waiting_of
from storyloop.core.words import StoryState
from storyloop.views.feedback import judged_lines
from storyloop.views.rows import final_line, review_line
from storyloop.views.words import clock_time, count, duration

_ASKED = {
    Mode.FRESH: "asks",
    Mode.CONTINUATION: "continues with",
    Mode.FORMAT_RETRY: "asks for a valid artifact from",
    Mode.SAME_AGENT_RETRY: "asks again",
}


_ROLES = {
    Drain.ANALYSIS: " to judge what no command proves",
    Drain.COMMIT: " for a commit message",
    Drain.CONFLICT: " to reconcile it with what has landed meanwhile",
}


def history(told: Iterable[tuple[int, Event]]) -> Iterator[tuple[int, Event, str]]:
    """Every event that has something to tell, with its number and its line, folding as it goes."""
    state: RunState | None = None
    for number, event in told:
        before, state = state, reduce(state, event)
        for line in lines_of(event, before, state):
            yield number, event, line


def lines_of(event: Event, before: RunState | None, state: RunState) -> Iterator[str]:
    """What happened, and of which budgets most is spent by it; without a state before, nothing is said of budgets."""
    line = line_of(event, state)
    if line is not None:
        yield line
    if before is not None and (near := nearly_spent(state)):
        known = nearly_spent(before)
        yield from (sentence for budget, sentence in near.items() if budget not in known)


def line_of(event: Event, state: RunState) -> str | None:
    """What happened, as a sentence without a full stop; None for facts that only the engine needs.

    `state` is the state after the event.
    """
    match event:
        case RunOpened(feedback=Feedback(concerns=concerns, url=url)):
            return f"run {event.run_id} opened on {count(len(concerns), 'concern')} of {url}, on branch {event.branch}"
        case RunOpened():
            stories = "no stories yet" if event.spec.is_free_form else count(len(event.spec.user_stories), "story")
            return f"run {event.run_id} opened: {stories} on branch {event.branch}"
        case SpecPlanned() if (feedback := state.going.feedback) is not None:
            return f"{count(len(feedback.concerns), 'concern')} judged:\n" + "\n".join(judged_lines(state))
        case FeedbackSeen():
            return _seen(event, state)
        case ThreadAnswered(trouble=trouble) | ThreadResolved(trouble=trouble) if trouble:
            return f"{_concern(event, state).place}: nothing is said there: {trouble}"
        case ThreadAnswered():
            return f"{_concern(event, state).place}: answered"
        case ThreadResolved():
            return f"{_concern(event, state).place}: resolved"
        case SpecPlanned(spec=spec):
            named = "; ".join(f"{story.id} {story.title}" for story in spec.order())
            return f"{count(len(spec.user_stories), 'story')} planned: {named}"
        case WorktreeLost(lane=lane) if lane:
            return f"worktree {lane} was deleted: it is made again"
        case WorktreeLost():
            return f"somebody has deleted the worktree {state.going.worktree}"
        case WorktreeOpened():
            return f"worktree ready: {state.going.worktree}"
        case CommandMeasured():
            return _measured(event, state)
        case StoryStarted(story=story):
            return f"{story} begins: {state.going.spec.story(story).title}"
        case ReviewStarted(cycle=cycle):
            return f"review {cycle} of what passed, at {state.going.tip[:12]}"
        case FinalProofBegun():
            commands = count(len(state.going.final.owed), "command")
            return f"final proof of all that passed: {commands} in a clean worktree"
        case HandoverCleaned() | HandoverWritten() | WorktreeScrubbed():
            return None
        case CallStarted(story=story, ref=ref, call=call, mode=mode, drain=drain):
            role = _ROLES.get(drain, "") if story else ""
            return f"{story or drain}: {_ASKED[mode]} {ref}{role} (call {call})"
        case CallEnded():
            return _call_ended(event, state)
        case LimitLearned(story=story, drain=drain, ref=ref, until=until):
            work = state.going.work[story]
            on = f"waits until {clock_time(until)}" if waiting_of(work) else "another agent is asked"
            return f"{story or drain}: the account of {ref} has met a limit, so it is not asked; {on}"
        case WaitEnded(story=story) if story == LOOKING:
            return None
        case WaitEnded(story=story) if story and isinstance(state.going.work[story].stage, TakingUp):
            default = state.going.stories[story].replies[-1].text
            return f"{story}: nobody has answered in time, so it goes on with: {_first_line(default)}"
        case WaitEnded(story=story, seconds=seconds):
            return f"{story or 'the run'}: goes on after {duration(seconds)}"
        case StorySetAside(story=story):
            return f"{story}: waits for a human; its work is set aside"
        case QuestionAnswered(story=story, text=text):
            return f"{story}: a human answers: {_first_line(text)}"
        case StoryTakenUp(key=key, story=story, pin=pin, clashes=clashes) if "/turn/" in key:
            if not state.going.work[story].since:
                return None  # nothing has landed since it began: it lands as it was proven
            come = f"clashes in {', '.join(clashes[:4])}" if clashes else "is proven anew" if pin else "clashes"
            return f"{story}: its turn to land: on what has landed meanwhile, it {come}"
        case StoryTakenUp(story=story, pin=pin):
            told = "is taken up again" if pin else "is taken up again, on the branch as it is: what it had done clashes"
            return f"{story}: {told}"
        case StoryApproved(story=story):
            return f"{story or Drain.FIX}: a human approves it"
        case StoryRejected(story=story, hint=hint):
            return f"{story or Drain.FIX}: a human rejects it" + (f": {_first_line(hint)}" if hint.strip() else "")
        case StoryLanded(story="", commit=commit):
            return f"the fix of the review's issues is green, committed as {(commit or '')[:12]}{_review_end(state)}"
        case StoryLeft(story="", pins=pins):
            kept = f"; it is kept by {pins[0]}" if pins else ""
            return f"the fix of the review's issues is given up{kept}{_review_end(state)}"
        case StoryLanded(story=story, commit=commit):
            note = state.going.stories[story].reason
            done = f"committed as {commit[:12]}" if commit else "nothing to commit"
            return f"{story} passed, {done}" + (f" ({note})" if note else "")
        case StoryLeft(story=story, pins=pins):
            standing = state.going.stories[story]
            kept = f"; its work is kept by {pins[0]}" if pins else ""
            return f"{story} {standing.state}: {standing.reason}{kept}"
        case StorySkipped(story=story):
            return f"{story}: a human said to skip it"
        case StoryReopened(story=""):
            return "a human asked for another round of the review"
        case StoryReopened(story=story):
            return f"{story}: a human asked for another try"
        case RequestRefused(reason=reason):
            return f"request refused: {reason}"
        case RunInterrupted(reason=reason):
            return f"run interrupted: {reason}"
        case RunParked(reason=reason):
            return f"run parked: {reason}"
        case RunResumed():
            opening = state.going.opening
            again = opening.losses and not opening.worktree_opened
            healed = f"; its worktree is made again from branch {state.branch}" if again else ""
            return f"run resumed ({state.going.resumes}){healed}"
        case RunForked(of=of, at_event=number, branch=branch):
            return f"forked from run {of} behind its event {number}, on branch {branch}"
        case RunUndone(what=what, tip=tip, kept=kept):
            return f"undone: {what}; the branch is at {tip[:12]}, what left it is kept by {', '.join(kept)}"
        case RunCleaned(what=what, kept=kept):
            return f"cleaned up: {what}" + (f"; what lay there is kept by {', '.join(kept)}" if kept else "")
        case BranchPushed(pushed=pushed):
            return f"branch {state.branch} is on the remote {pushed.remote} as {pushed.commit[:12]}"
        case PullRequestOpened(url=url, created=created, draft=draft):
            return f"{'draft ' * draft}pull request {'opened' if created else 'brought up to date'}: {url}"
        case DeliveryFailed(step=step, problem=problem, cure=cure):
            return f"no {step}: {problem} {cure.rstrip('.')}"
        case RunFinished(shipped=shipped):
            return "run completed: every story passed" if shipped else "run ended without shipping"
        case _:
            assert_never(event)


def _measured(event: CommandMeasured, state: RunState) -> str:
    reading = reading_of(event.first, event.second)
    decisive = event.second or event.first
    seconds = duration(decisive.seconds)
    shown = f"{reading} in {seconds}" if reading.is_green else f"{reading}: {_why(event)}"
    match event.purpose:
        case SettingUp():
            return f"set-up `{event.command}` {shown}"
        case SettingUpLane(story=story, lane=lane):
            return f"{story}: set-up `{event.command}` in worktree {lane} {shown}"
        case Baselining(check=check):
            inherited = "" if reading.is_green else " (inherited: shown, not gating until it is first green)"
            return f"base commit: check {check} {shown}{inherited}"
        case Probing(story=story, criterion=number):
            before = "not yet green, as it should be"
            if reading.is_green:
                is_vacuous = number in state.going.work[story].green_before
                before = "already green: its proof is vacuous" if is_vacuous else "still green"
            return f"{story}: criterion {number} before the work: {before}"
        case Checking(story=story, check=check):
            gating = " (inherited, not gating)" if check in state.going.inherited and not reading.is_green else ""
            return f"{story or Drain.FIX}: check {check} {shown}{gating}"
        case Demonstrating(story=story, criterion=number):
            return f"{story}: criterion {number} {shown}"
        case Trying(of=of):
            name = of.check if isinstance(of, Checking) else f"criterion {of.criterion}"
            fails = "red, as it should be" if reading is Reading.RED else shown
            return f"{of.story}: {name} with the new tests, without the work: {fails}"
        case Reproving(story=story, criterion=number):
            return f"{Drain.FIX}: {story}, criterion {number} {shown}"
        case FinalChecking(check=check):
            gating = " (inherited, not gating)" if check in state.going.inherited and not reading.is_green else ""
            return f"final proof: check {check} {shown}{gating}{_final_end(state)}"
        case FinalDemonstrating(story=story, criterion=number):
            return f"final proof: {story}, criterion {number} {shown}{_final_end(state)}"


def _concern(event: ThreadAnswered | ThreadResolved, state: RunState) -> Concern:
    assert state.going.feedback is not None
    return state.going.feedback.concerns[event.concern - 1]


def _seen(event: FeedbackSeen, state: RunState) -> str:
    feedback = state.going.feedback
    assert feedback is not None
    if event.trouble:
        return f"the pull request could not be looked at: {event.trouble}"
    new = len(unjudged(feedback))
    told = [f"{count(new, 'new concern')}"] if new else []
    told += [f"pending: {', '.join(event.pending)}"] if event.pending else []
    told += [f"red: {', '.join(event.red)}"] if event.red else []
    return f"looked at the pull request: {'; '.join(told) or 'nothing new, nothing pending, nothing red'}"


def _final_end(state: RunState) -> str:
    """What the round has come to, behind its last command."""
    progress = state.going
    if progress.final.owed:
        return ""
    opened = [name for name in progress.final.returned if progress.stories[name].state is StoryState.OPEN]
    told = [final_line(state), *(f"{name} goes back to its author" for name in opened)]
    return f"; {'; '.join(told)}"


def _review_end(state: RunState) -> str:
    """What the review has come to, if it is over."""
    return f"; {review_line(state)}" if state.going.review.end is not None else ""


def _why(event: CommandMeasured) -> str:
    decisive = event.second or event.first
    return decisive.reason or f"`{event.command}` ended with exit status {decisive.exit_status}"


def _call_ended(event: CallEnded, state: RunState) -> str:
    who = f"{event.story or event.drain}: {event.ref}"
    spent = f" after {duration(event.report.seconds)}"
    match event.report.outcome:
        case Answered(artifact=Plan(spec=spec)) if lacking := unprovable(spec, state.effective_config()):
            return f"{who} gave a plan{spent}, but with too few commands to prove {', '.join(lacking)}"
        case Answered(artifact=artifact):
            if event.secrets:
                return f"{who} left a secret in its work{spent}: {event.secrets[0]}"
            if isinstance(artifact, Issues):
                found = count(len(artifact.found), "issue") if artifact.found else "no issue"
                return f"{who} found {found}{spent}{'' if event.story else _review_end(state)}"
            if isinstance(artifact, Analysis):
                ruled = [judgement.ruling for judgement in artifact.judgements]
                told = ", ".join(f"{ruled.count(ruling)} {ruling}" for ruling in Ruling if ruling in ruled)
                return f"{who} judged by reading{spent}: {told}"
            said = getattr(artifact, "status", None)
            word = f"says {said}" if said is not None else "answered"
            bent = ", ".join(dict.fromkeys(f"{suspicion.kind} in {suspicion.path}" for suspicion in event.suspicions))
            return f"{who} {word}{spent}" + (f"; suspicious: {bent}" if bent else "")
        case Malformed(errors=errors):
            return f"{who} gave no valid artifact{spent}: {_first_line(errors)}"
        case Failed(failure=failure, message=message):
            return f"{who} failed{spent} ({failure}): {_first_line(message)}{_next(event, state)}"
        case Interrupted(reason=reason):
            return f"{who} was interrupted{spent}: {reason}"


def _next(event: CallEnded, state: RunState) -> str:
    work = state.going.work.get(event.story)
    waiting = waiting_of(work) if work is not None else None
    if waiting is not None:
        return f"; waits until {clock_time(waiting.until)}"
    if work is None:
        return ""
    errand, _ = errand_of(work)
    is_another = errand.drain is event.drain and errand.ref != event.ref
    return f"; falls back to {errand.ref}" if is_another else ""


def _first_line(text: str) -> str:
    lines = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip()]
    return lines[0][:160] if lines else "no reason given"
