"""The analysis: criteria that no command proves are judged by somebody who reads the work, where `[drains]` binds one.

It is asked as soon as all that gates is green on an attempt. What is met is kept with the words of who said so, and
is known of that tree alone; what is unmet fails the attempt, and the next one is told what is missing. What could
not be told stays unproven, which fails the attempt only where `[proof] require = "criteria"`. One errand serves all
attempts of an iteration, as the story's own does, so one cap holds all its calls.
"""

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.artifacts import Analysis, Judgement, Ruling
from storyloop.core.draft import Draft
from storyloop.core.errand import Errand, Shortfall
from storyloop.core.events import CallEnded, Event
from storyloop.core.evidence import Judged
from storyloop.core.judge import shortfall_of
from storyloop.core.policy import Drain, Require
from storyloop.core.purpose import RUN
from storyloop.core.spec import Story
from storyloop.core.stages import Judging, Landing, Work
from storyloop.core.steps import chain_of, with_errand
from storyloop.core.words import DevelopmentStatus

_MOST_WORDS = 500  # characters of a judgement that the next attempt is told


def analysis_asked(run: Draft, work: Work, landing: Landing, event: Event) -> Work | None:
    """The work while it is judged; None where nobody is bound to that, or where commands prove everything."""
    chain = run.effective_config().chain_of(Drain.ANALYSIS)
    if work.story == RUN or not chain or not _open_criteria(run.spec.story(work.story)):
        return None
    return asked_to_read(run, work, landing, Drain.ANALYSIS, event)


def asked_to_read(run: Draft, work: Work, landing: Landing, drain: Drain, event: Event) -> Work:
    """The work while somebody of this drain is asked about what is to land."""
    reading = replace(work, stage=Judging(landing=landing, drain=drain, before=work.cs))
    known = work.reviewer if drain is Drain.REVIEW else work.analysis
    chain = chain_of(run, drain, work=reading)
    errand, cs = errands.asked_anew(
        known or Errand(key=f"{work.label}/{work.iteration}/{drain}", drain=drain, chain=chain),
        work.cs.context_written().clear_continue_pending().clear_same_agent_retries(),
        chain=chain,
        table=run.cooling,
        limits=run.effective_config().limits,
        now=event.at,
    )
    return with_errand(run, reading, errand, cs)


def judged(
    run: Draft, work: Work, landing: Landing, analysis: Analysis, event: CallEnded
) -> tuple[Judged, ...] | Shortfall:
    """The criteria that are met; or what is missing. Whatever is said of others counts for nothing."""
    story = run.spec.story(work.story)
    asked_for = _open_criteria(story)
    told = [one for one in analysis.judgements if one.story == story.id and one.number in asked_for]
    unmet = [one for one in told if one.ruling is Ruling.UNMET]
    if unmet:
        found = "\n".join(_line(story, one) for one in unmet)
        asked = f"All that we ran is green, but somebody read your work and found these criteria unmet:\n{found}"
        return _short(work, landing, asked, "judged unmet", [one.number for one in unmet])
    met = {one.number: one.evidence for one in told if one.ruling is Ruling.MET}
    unknown = [number for number in asked_for if number not in met]
    if unknown and run.effective_config().require is Require.CRITERIA:
        named = "\n".join(f"- criterion {number}: {story.acceptance_criteria[number - 1].text}" for number in unknown)
        asked = f"All that we ran is green, but who read your work could not tell that these are met:\n{named}"
        return _short(work, landing, asked, "neither proven nor judged met", unknown)
    return tuple(
        Judged(criterion=number, tree=landing.tree, at=event.at, by=str(event.ref), words=words)
        for number, words in sorted(met.items())
    )


def _open_criteria(story: Story) -> tuple[int, ...]:
    """The numbers of the criteria that no command proves."""
    return tuple(number for number, c in enumerate(story.acceptance_criteria, start=1) if not c.verify)


def _line(story: Story, unmet: Judgement) -> str:
    text = story.acceptance_criteria[unmet.number - 1].text
    return f"- criterion {unmet.number} ({text}): {unmet.evidence[:_MOST_WORDS]}"


def _short(work: Work, landing: Landing, asked: str, why: str, numbers: list[int]) -> Shortfall:
    reason = f"{why}: {', '.join(f'criterion {number}' for number in sorted(numbers))}"
    steps = landing.result.next_steps
    return shortfall_of(work, landing, status=DevelopmentStatus.FAILED, asked=asked, next_steps=steps, reason=reason)
