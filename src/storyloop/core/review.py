"""The review: what passed is read by somebody else, what they find is mended and proven, until that converges.

A cycle is one review and, where it left something to mend, one fix errand behind it; it is work of the run's own
(`Work.story == RUN`). It ends with a commit, with the fix pinned and undone, or with nothing done. The next review sees
what has changed since the last one and the issues that are open, and nothing else.

An issue is known again by where it is and by its words, so that rewording does not make it another one: its fingerprint
is that of its first sighting. What is not found again is no longer open; what then comes back has gone in a circle.
Only a valid answer that says so means "no issues": a crash, a limit or an empty answer never does.

Where stories are reviewed one by one (`per_story`), a cycle is a review of an attempt that would land, and the attempt
behind it that mends; the same rules end it, and then the story lands, with what is open told.
"""

import re
from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.analysis import asked_to_read
from storyloop.core.artifacts import DevelopmentResult, FixResult, Issue, Issues
from storyloop.core.draft import Draft
from storyloop.core.errand import Shortfall
from storyloop.core.errors import IllegalTransition
from storyloop.core.events import Event, ReviewStarted, StoryLanded, StoryLeft, StoryReopened
from storyloop.core.feedback import is_left_red, is_no_work
from storyloop.core.judge import shortfall_of
from storyloop.core.knowledge import StoryChanges
from storyloop.core.policy import Drain, Policy
from storyloop.core.progress import Progress
from storyloop.core.purpose import RUN, Checking, Reproving, label_of
from storyloop.core.stages import Building, Closing, Landing, Leaving, OpenIssue, Review, ReviewEnd, Work
from storyloop.core.steps import chain_of, expect, fresh_continuation
from storyloop.core.words import DevelopmentStatus, FixStatus, StoryState

_MOST_TOLD, _MOST_WORDS = 20, 800  # issues that the next attempt at a story is told, and characters of each
_NEAR = 8  # lines between two sightings of one issue,
_ALIKE, _SOMEWHAT_ALIKE = 0.35, 0.15  # and the share of words that they have in common: anywhere, and so near
_WORD = re.compile(r"\w{4,}")  # shorter ones are mostly the same in all issues

# How a fix's word is judged: as a story's.
_SAYS = {
    FixStatus.ALL_ISSUES_ADDRESSED: DevelopmentStatus.COMPLETED,
    FixStatus.NO_ISSUES_FOUND: DevelopmentStatus.COMPLETED,
    FixStatus.ISSUES_REMAIN: DevelopmentStatus.PARTIAL,
    FixStatus.FAILED: DevelopmentStatus.FAILED,
}


def is_review_due(run: Progress | Draft, policy: Policy, cycle: int) -> bool:
    """Whether another cycle is to be begun behind this one: a change has passed that no reviewer has seen."""
    review, standings = run.review, run.stories.values()
    if policy.review.per_story and RUN not in run.hints:  # else a human wants it
        return False
    if run.work or run.final.owed or not policy.review.enabled or cycle >= policy.limits.review_cycles:
        return False
    if any(s.state is StoryState.OPEN for s in standings) or not any(s.commits for s in standings):
        return False
    return run.tip != review.tip or review.end is None


def is_shipped(run: Progress | Draft) -> bool:
    """Whether all that was wanted has passed, and no review stands in the way."""
    passed = all(s.state is StoryState.PASSED or is_no_work(run, name) for name, s in run.stories.items())
    return passed and not is_left_red(run) and not is_review_open(run)


def is_review_open(run: Progress | Draft) -> bool:
    """Whether a review has ended without converging: that of the run, where there was one, or a story's own."""
    if run.review.end is not None:
        return run.review.end is not ReviewEnd.CONVERGED
    of_stories = (standing.review for standing in run.stories.values())
    return any(review is not None and review.end is not ReviewEnd.CONVERGED for review in of_stories)


def gating_issues(run: Progress | Draft, policy: Policy) -> tuple[OpenIssue, ...]:
    """The open issues that are to be mended before the work is handed over."""
    return _gating(run.review.open, policy)


def _gating(issues: tuple[OpenIssue, ...], policy: Policy) -> tuple[OpenIssue, ...]:
    return tuple(known for known in issues if policy.review.gates(known.issue.severity))


def touched_stories(
    run: Progress | Draft, work: Work, policy: Policy, changed: Iterable[StoryChanges]
) -> tuple[str, ...]:
    """The stories that passed and that a fix is about: an issue names them, or it changed one of their files."""
    named = {known.issue.story for known in gating_issues(run, policy)}
    files = set(work.changed)
    for changes in changed:
        if not files.isdisjoint((*changes.files_created, *changes.files_modified, *changes.files_deleted)):
            named.add(changes.story_id)
    return tuple(name for name, s in run.stories.items() if s.state is StoryState.PASSED and name in named)


# --- a cycle ---------------------------------------------------------------------------------------------


def review_started(run: Draft, event: ReviewStarted) -> None:
    """A cycle begins: somebody is asked to read."""
    expect(is_review_due(run, run.effective_config(), run.review_iteration), run, event)
    expect(event.cycle == run.review.cycles + 1, run, event)
    run.review = replace(run.review, cycles=event.cycle, tip=run.tip, end=None, reason="")
    run.review_iteration += 1
    run.find(*event.findings)
    errand, cs = _errand(run, event.cycle, Drain.REVIEW, event.at)
    run.put(
        Work(
            story=RUN,
            iteration=event.cycle,
            head=run.tip,
            tree=run.tip_tree,
            errand=errand,
            cs=cs.begin_cleanup(),
            stage=Building(),
            hint=run.hints.get(RUN, ""),
        )
    )


def review_reopened(run: Draft, event: StoryReopened) -> None:
    """A human wants another round of a review that did not converge, with cycles of its own."""
    expect(RUN not in run.work and is_review_open(run), run, event)
    run.review, run.review_iteration = replace(run.review, end=None, reason=""), 0
    run.hints = run.hints | {RUN: event.hint}


def reviewed(run: Draft, work: Work, issues: Issues, now: datetime) -> None:
    """A reviewer has answered: it has converged, or goes in circles, or there is something to mend."""
    run.review = heard(run.review, issues, run.effective_config(), seen=run.tip)
    if run.review.end is not None:
        _over(run, work, run.review.end, run.review.reason)
    else:
        errand, cs = _errand(run, work.iteration, Drain.FIX, now)
        run.put(replace(work, errand=errand, cs=cs, stage=Building()))


def heard(before: Review, issues: Issues, policy: Policy, *, seen: str) -> Review:
    """The review with this answer, of what was read at `seen`; it has an end unless there is something to mend."""
    were_open = {known.fingerprint for known in _gating(before.open, policy)}
    found = _known_again(issues.found, (*before.open, *before.mended))
    still = {known.fingerprint for known in found}
    mended = tuple(known for known in (*before.mended, *before.open) if known.fingerprint not in still)
    review = replace(before, open=found, mended=mended, seen=seen, account="")
    owed, once_mended = _gating(found, policy), {known.fingerprint for known in before.mended}
    back = [known.issue.text for known in owed if known.fingerprint in once_mended]
    if not owed:
        return replace(review, end=ReviewEnd.CONVERGED)
    if back:
        why = f"an issue that had been mended is back: {back[0][:200]}"
        return replace(review, end=ReviewEnd.OSCILLATION, reason=why)
    if were_open and were_open <= still:
        return replace(review, end=ReviewEnd.NO_PROGRESS, reason="all issues that were open before still are")
    return review


# --- a story's own ----------------------------------------------------------------------------------------


def is_reviewed_alone(run: Draft, work: Work, landing: Landing) -> bool:
    """Whether this is to be reviewed before it lands."""
    policy = run.effective_config()
    wanted = policy.review.enabled and policy.review.per_story and policy.limits.review_cycles > 0
    return wanted and work.errand.drain is Drain.STORY and landing.tree != work.tree


def story_review_asked(run: Draft, work: Work, landing: Landing, event: Event) -> Work:
    """The work while somebody reviews it; or its review has an end, because that was done often enough."""
    before = work.review or Review()
    if before.cycles >= run.effective_config().limits.review_cycles:
        return replace(work, review=replace(before, end=ReviewEnd.CYCLES, reason="the last change was not reviewed"))
    review = replace(before, cycles=before.cycles + 1, end=None, reason="", account=landing.result.summary)
    return asked_to_read(run, replace(work, review=review), landing, Drain.REVIEW, event)


def story_reviewed(run: Draft, work: Work, issues: Issues) -> Work:
    """A story's reviewer has answered."""
    assert work.review is not None
    assert work.pin is not None
    return replace(work, review=heard(work.review, issues, run.effective_config(), seen=work.pin.commit))


def issues_to_mend(run: Draft, work: Work, landing: Landing) -> Shortfall:
    """What the next attempt at a story is told to mend."""
    assert work.review is not None
    owed = _gating(work.review.open, run.effective_config())
    listed = "\n".join(f"- {_told(known.issue)}" for known in owed[:_MOST_TOLD])
    return shortfall_of(
        work,
        landing,
        status=DevelopmentStatus.FAILED,
        asked=f"All that we ran is green, but a reviewer found issues. Mend these, and keep the rest:\n{listed}",
        next_steps=landing.result.next_steps,
        reason=f"the review found {len(owed)} issue{'s' * (len(owed) != 1)}",
    )


def _told(issue: Issue) -> str:
    place = f"{issue.file}:{issue.line}: " if issue.line else f"{issue.file}: " if issue.file else ""
    return f"{issue.severity} {place}{issue.text[:_MOST_WORDS]}"


# --- the end of a cycle -----------------------------------------------------------------------------------


def review_failed(run: Draft, work: Work, reason: str) -> None:
    """No review could be had, which says nothing of the work."""
    _over(run, work, ReviewEnd.UNAVAILABLE, reason)


def is_disputed(work: Work, fix: FixResult) -> bool:
    """Whether who was to mend the issues says that there are none, and left all as it was."""
    return fix.status is FixStatus.NO_ISSUES_FOUND and work.pin is not None and work.pin.tree == work.tree


def disputed(run: Draft, work: Work, fix: FixResult) -> None:
    """The next reviewer is told why, and has the last word."""
    run.review = replace(run.review, account=fix.summary)
    _over(run, work, _end_of_cycle(run))


def as_development(fix: FixResult) -> DevelopmentResult:
    """A fix, to be judged as the work on a story is."""
    status = _SAYS[fix.status]
    left = None if status is DevelopmentStatus.COMPLETED else "Address the issues that are left."
    return DevelopmentResult(status=status, summary=fix.summary, next_steps=left)


def owed_after_fix(run: Draft, work: Work, tree: str) -> tuple[Checking | Reproving, ...]:
    """What is to be run on the tree that a fix left: the checks, then the proofs of the stories that it touches."""
    if tree == work.tree:
        return ()
    policy, cycle, attempt = run.effective_config(), work.iteration, work.cs.fix_continuation_attempt
    return (
        *(Checking(RUN, cycle, attempt, name) for name in policy.checks),
        *(
            Reproving(cycle, attempt, story, number)
            for story in touched_stories(run, work, policy, run.knowledge.story_changes)
            for number, criterion in enumerate(run.spec.story(story).acceptance_criteria, start=1)
            if criterion.verify
        ),
    )


def fix_landed(run: Draft, work: Work, landing: Landing, event: StoryLanded) -> None:
    """Mended and green: the commit stands on the branch, and is what the next reviewer reads."""
    if event.commit is None or event.tip_tree != landing.tree:
        raise IllegalTransition(run.machine_state, event)
    run.tip, run.tip_tree = event.tip, event.tip_tree
    review = run.review
    run.review = replace(
        review,
        tip=event.tip,
        commits=(*review.commits, event.commit),
        account=landing.result.summary,
        suspicions=work.suspicions,
    )
    spent = work.cs.fix_continuations_exhausted()
    _over(run, work, ReviewEnd.FIXES if spent else _end_of_cycle(run), landing.note if spent else "")


def fix_left(run: Draft, work: Work, leaving: Leaving, event: StoryLeft) -> None:
    """What was tried did not come to be green: it is kept by refs, and the run goes on without it."""
    expect(event.commit is None and event.tip == run.tip, run, event)
    run.review = replace(run.review, pins=(*run.review.pins, *event.pins))
    _over(run, work, ReviewEnd.FIXES, leaving.reason)


def _errand(run: Draft, cycle: int, drain: Drain, now: datetime) -> errands.Moved:
    """The cycle's errand of this drain, with counters of its own."""
    return errands.begin(
        f"{label_of(RUN)}/{cycle}/{drain}",
        drain,
        chain=chain_of(run, drain),
        cs=fresh_continuation(run.effective_config()),
        table=run.cooling,
        now=now,
    )


def _end_of_cycle(run: Draft) -> ReviewEnd | None:
    last = run.review_iteration >= run.effective_config().limits.review_cycles
    return ReviewEnd.CYCLES if last else None


def _over(run: Draft, work: Work, end: ReviewEnd | None, reason: str = "") -> None:
    """The cycle is over, and the review with it if it has come to an end."""
    run.review = replace(run.review, end=end, reason=reason)
    run.put(replace(work, stage=Closing(), cs=work.cs.reset().begin_cleanup()))


# --- what an issue is known by ------------------------------------------------------------------------------


def _known_again(found: tuple[Issue, ...], known: tuple[OpenIssue, ...]) -> tuple[OpenIssue, ...]:
    """Each issue under the fingerprint that it has, or gets; the same one twice is one."""
    from hashlib import sha256  # slow to import, and a run that is only shown needs none

    told: dict[str, OpenIssue] = {}
    for issue in found:
        alike = [(_likeness(one.issue, issue), one) for one in known if one.fingerprint not in told]
        likeness, first = max(alike, key=lambda pair: pair[0], default=(0.0, None))
        if first is not None and likeness > 0:
            told[first.fingerprint] = replace(first, issue=issue)
        else:
            mark = f"{issue.file}\0{issue.story}\0{' '.join(sorted(_words(issue)))}"
            fingerprint = sha256(mark.encode()).hexdigest()[:12]
            told.setdefault(fingerprint, OpenIssue(fingerprint=fingerprint, issue=issue))
    return tuple(told.values())


def _likeness(one: Issue, other: Issue) -> float:
    """How sure it is that two sightings are of one issue; 0 if it is not likely."""
    if one.file and other.file and one.file != other.file:
        return 0.0
    mine, theirs = _words(one), _words(other)
    shared = len(mine & theirs) / len(mine | theirs) if mine | theirs else 0.0
    is_near = bool(one.line and other.line) and abs((one.line or 0) - (other.line or 0)) <= _NEAR
    return shared if shared >= (_SOMEWHAT_ALIKE if is_near and one.file == other.file else _ALIKE) else 0.0


def _words(issue: Issue) -> set[str]:
    return set(_WORD.findall(issue.text.casefold()))
