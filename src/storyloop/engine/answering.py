"""Answering: what is said in the threads of a pull request, and the looks at what others say there.

A comment of ours ends with a mark that names the run and the concern, unseen by readers. Whoever is to answer looks for
it first: what a process did that died before it could tell is found, and nothing is said twice.
"""

from collections.abc import Iterator

from storyloop.core.effects import AnswerThread, ResolveThread, SeeFeedback
from storyloop.core.events import Event, FeedbackSeen, RunParked, ThreadAnswered, ThreadResolved
from storyloop.core.feedback import MARK, new_concerns
from storyloop.core.forge import CheckState, DeliveryStep, ForgeCheck, ForgeTrouble, Thread, Trouble
from storyloop.core.progress import Concern, Feedback, ParkedFor
from storyloop.core.run_state import RunState
from storyloop.engine.delivering import failed
from storyloop.engine.hands import Hands
from storyloop.views.answers import answer

_OF_THIS_ONE = (Trouble.NOT_FOUND, Trouble.REJECTED, Trouble.FORBIDDEN)  # it stands against one thread, not against all
_PASSING = (Trouble.LIMITED, Trouble.OFFLINE, Trouble.BROKEN)  # what may be over at the next look


def answer_thread(effect: AnswerThread, state: RunState, hands: Hands) -> Iterator[Event]:
    """Say it, unless it stands there already."""
    feedback, concern = _concern(effect, state)
    about = concern.about
    assert isinstance(about, Thread)
    mark = f"{MARK}{state.run_id}/answer/{effect.concern} -->"
    comment = trouble = ""
    try:
        forge = hands.forge()
        thread = next((one for one in forge.threads(feedback.number) if one.id == about.id), None)
        if thread is None:
            trouble = "it was resolved, or is gone"
        elif ours := [one.id for one in thread.comments if mark in one.text]:
            comment = ours[0]
        else:
            text = hands.secrets.text(answer(state, concern))
            comment = forge.reply(feedback.number, thread, f"{text}\n\n{mark}")
    except ForgeTrouble as problem:
        if problem.trouble not in _OF_THIS_ONE:
            yield failed(effect.key, DeliveryStep.ANSWER, problem, hands)
            return
        trouble = str(problem)
    now = hands.clock.now()
    yield ThreadAnswered(key=effect.key, at=now, concern=effect.concern, comment=comment, trouble=trouble)


def resolve_thread(effect: ResolveThread, state: RunState, hands: Hands) -> Iterator[Event]:
    """Mark it as resolved; one that is so already stays so."""
    feedback, concern = _concern(effect, state)
    assert isinstance(concern.about, Thread)
    trouble = ""
    try:
        hands.forge().resolve(feedback.number, concern.about)
    except ForgeTrouble as problem:
        if problem.trouble not in _OF_THIS_ONE:
            yield failed(effect.key, DeliveryStep.ANSWER, problem, hands)
            return
        trouble = str(problem)
    yield ThreadResolved(key=effect.key, at=hands.clock.now(), concern=effect.concern, trouble=trouble)


def see_feedback(effect: SeeFeedback, state: RunState, hands: Hands) -> Iterator[Event]:
    """Look once more; where that cannot get better by itself, a human is waited for."""
    feedback, key, now = state.going.feedback, effect.key, hands.clock.now()
    assert feedback is not None
    try:
        forge = hands.forge()
        said: list[Thread | ForgeCheck] = list(forge.threads(feedback.number))
        checks = forge.checks(state.going.tip)
    except ForgeTrouble as problem:
        if problem.trouble in _PASSING:
            yield FeedbackSeen(key=key, at=now, said=(), trouble=str(problem))
        else:
            yield RunParked(key=key, at=now, what=ParkedFor.HUMAN, reason=str(problem))
        return
    red = [check for check in checks if check.state is CheckState.RED]
    pending = tuple(check.name for check in checks if check.state is CheckState.PENDING)
    new = tuple(concern.about for concern in new_concerns(state.going, (*said, *red)))
    yield FeedbackSeen(key=key, at=now, said=new, pending=pending, red=tuple(check.name for check in red))


def _concern(effect: AnswerThread | ResolveThread, state: RunState) -> tuple[Feedback, Concern]:
    feedback = state.going.feedback
    assert feedback is not None
    return feedback, feedback.concerns[effect.concern - 1]
