"""The final proof: everything that passed is proven once more, all of it together, in a clean worktree of the tip.

A round of it is due when every story has ended and one has passed, unless nothing has landed since the last round.
What it finds broken goes back to its author: a criterion's is its story, a check's is the story that landed last. Each
story goes back once in a run, in at most `limits.continuations` rounds; behind that it is blocked, and its commits
stay. A set-up that fails in the clean worktree is nobody's work: then nothing was measured.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from storyloop.core.draft import Draft
from storyloop.core.events import CommandMeasured, FinalProofBegun, WorktreeScrubbed
from storyloop.core.evidence import Evidence, Reading
from storyloop.core.policy import Policy
from storyloop.core.progress import Measurement, Progress
from storyloop.core.purpose import FinalChecking, FinalDemonstrating, FinalPurpose
from storyloop.core.steps import block_all_dependents, expect
from storyloop.core.words import StoryState

_MOST_TAILS = 12  # commands whose output is kept for the stories that go back,
_TAIL_CHARACTERS = 1_200  # and how much of each
_MOST_TOLD = 2  # of them for one story, so that its hint is short
_MOST_NAMED = 8


def final_commands(run: Progress | Draft, policy: Policy, proof: int) -> tuple[FinalPurpose, ...]:
    """What this round runs, in order: the checks, then the criteria of every story that has passed."""
    passed = [story for story in run.spec.user_stories if run.stories[story.id].state is StoryState.PASSED]
    checks = policy.checks if passed else ()
    return (
        *(FinalChecking(proof, name) for name in checks),
        *(
            FinalDemonstrating(proof, story.id, number)
            for story in passed
            for number, criterion in enumerate(story.acceptance_criteria, start=1)
            if criterion.verify
        ),
    )


def is_final_proof_due(run: Progress | Draft, policy: Policy) -> bool:
    """Whether a round is to be begun."""
    final = run.final
    if run.work or final.owed or final.tree == run.tip_tree:
        return False
    if run.feedback is not None and not any(standing.commits for standing in run.stories.values()):
        return False  # nothing has landed: the branch is as it was found
    is_over = all(standing.state is not StoryState.OPEN for standing in run.stories.values())
    return is_over and bool(final_commands(run, policy, final.rounds))


def final_proof_begun(run: Draft, event: FinalProofBegun) -> None:
    """From here on nothing else happens to the worktree until the round is over."""
    expect(is_final_proof_due(run, run.effective_config()) and event.round == run.final.rounds + 1, run, event)
    run.final = replace(run.final, rounds=event.round, tree=run.tip_tree)
    _begin(run)


def proven_anew(run: Draft) -> None:
    """A round that was broken off begins again, with a clean worktree."""
    if run.final.owed:
        _begin(run)


def _begin(run: Draft) -> None:
    owed = final_commands(run, run.effective_config(), run.final.rounds)
    run.final = replace(run.final, owed=owed, scrubbed=False, measured=())
    run.opening, run.set_up, run.lanes = replace(run.opening, setup_done=0), False, {}


def worktree_scrubbed(run: Draft, event: WorktreeScrubbed) -> None:
    """It is clean: now it is set up again."""
    final = run.final
    expect(bool(final.owed) and not final.scrubbed and event.round == final.rounds, run, event)
    run.final = replace(final, scrubbed=True)
    run.find(*event.findings)


def final_proof_measured(run: Draft, event: CommandMeasured, purpose: FinalPurpose, evidence: Evidence) -> None:
    """One more command was run in the clean worktree."""
    final = run.final
    expect(final.scrubbed and final.owed[:1] == (purpose,) and evidence.tree == final.tree, run, event)
    expect(run.opening.setup_done == len(run.effective_config().worktree.setup), run, event)
    tail = ""
    if not evidence.reading.is_green and sum(bool(m.tail) for m in final.measured) < _MOST_TAILS:
        tail = (event.second or event.first).tail[-_TAIL_CHARACTERS:]
    measured = (*final.measured, Measurement(purpose, evidence, tail))
    run.final = replace(final, owed=final.owed[1:], measured=measured)
    if not run.final.owed:
        run.final = replace(run.final, scrubbed=False)
        _judged(run)


def final_proof_failed(run: Draft, event: CommandMeasured) -> None:
    """The set-up failed: nothing that passed could be measured in the round in hand, if one is."""
    final = run.final
    if not final.owed:
        return
    lost = [Measurement(purpose, _unmeasured(run, purpose, event)) for purpose in final.owed]
    run.final = replace(final, tree="", owed=(), scrubbed=False)
    _renew(run, lost)


def _unmeasured(run: Draft, purpose: FinalPurpose, event: CommandMeasured) -> Evidence:
    match purpose:
        case FinalChecking(check=check):
            command, criterion = run.effective_config().checks[check].run, None
        case FinalDemonstrating(story=story, criterion=criterion):
            command, check = run.spec.story(story).acceptance_criteria[criterion - 1].verify or "", None
    return Evidence(
        command=command,
        reading=Reading.UNMEASURED,
        tree=event.tree,
        at=event.at,
        exit_status=None,
        output_digest="",
        output="",
        seconds=0.0,
        reason=run.failure,
        check=check,
        criterion=criterion,
    )


# --- what a round comes to ------------------------------------------------------------------------------


def _judged(run: Draft) -> None:
    """Nothing is left to be run: evidence is renewed, and what is broken goes back or is blocked."""
    final = run.final
    _renew(run, final.measured)
    broken: dict[str, list[Measurement]] = {}
    for measurement in final.measured:
        match measurement.purpose:
            case _ if measurement.evidence.reading.is_green:
                continue
            case FinalDemonstrating(story=story):
                broken.setdefault(story, []).append(measurement)
            case FinalChecking(check=check) if check not in run.inherited:
                broken.setdefault(_landed_last(run), []).append(measurement)
            case FinalChecking():
                pass
    green = {m.evidence.check for m in final.measured if m.evidence.reading.is_green}
    run.inherited = tuple(check for check in run.inherited if check not in green)
    may_return = final.returns < run.effective_config().limits.continuations
    back = [story for story in broken if may_return and story not in final.returned]
    for story, red in broken.items():
        standing = run.stories[story]
        if story in back:
            run.hints = run.hints | {story: _regression(run, story, red)}
            run.stand(story, replace(standing, state=StoryState.OPEN, reason=""))
            run.allow(1)
        else:
            reason = f"its proof is red on the final tree: {', '.join(m.evidence.label for m in red[:_MOST_NAMED])}"
            run.stand(story, replace(standing, state=StoryState.BLOCKED, reason=reason))
    run.final = replace(run.final, returns=final.returns + bool(back), returned=(*final.returned, *back))
    block_all_dependents(run)


def _renew(run: Draft, measured: Iterable[Measurement]) -> None:
    """The evidence of every story that has passed is what this round showed."""
    checks: list[Evidence] = []
    proofs: dict[str, list[Evidence]] = {}
    for measurement in measured:
        match measurement.purpose:
            case FinalChecking():
                checks.append(measurement.evidence)
            case FinalDemonstrating(story=story):
                proofs.setdefault(story, []).append(measurement.evidence)
    for story, standing in list(run.stories.items()):
        if standing.state is StoryState.PASSED:
            run.stand(story, replace(standing, evidence=(*checks, *proofs.get(story, ()))))


def _landed_last(run: Draft) -> str:
    """The newest story of those that stand as passed; one that changed files, if there is one."""
    passed = {name: standing for name, standing in run.stories.items() if standing.state is StoryState.PASSED}
    committed = [name for name, standing in passed.items() if standing.landed and standing.commits]
    return max(committed or reversed(passed), key=lambda name: passed[name].landed)


# --- what its author is told ----------------------------------------------------------------------------


def _regression(run: Draft, story: str, red: list[Measurement]) -> str:
    """A hint, bounded: what is red with the end of its output, and both diffs."""
    shown = [m for m in red if m.tail][:_MOST_TOLD]
    parts = [
        "The story had passed, but it is broken now. All stories were proven "
        "together, in a clean worktree of the branch's tip that was set up anew, and these are not green:",
        *(f"- {_shown(m.evidence)}" for m in red[:_MOST_NAMED]),
        *_diffs(run, story),
        "Make them green without breaking what the other stories did. A clean worktree has only what is committed and "
        "what the set-up makes: no file that git ignores may be needed besides.",
        *(f"{m.evidence.label} printed last:\n{m.tail.rstrip()}" for m in shown),
    ]
    return "\n".join(parts)


def _shown(evidence: Evidence) -> str:
    why = evidence.reason or f"exit status {evidence.exit_status}"
    return f"{evidence.label}: `{evidence.command[:300]}`: {why}"


def _diffs(run: Draft, story: str) -> Iterable[str]:
    own = run.stories[story].commits
    if own:
        yield f"Its own commit: `git diff {own[-1]}~1..{own[-1]}`"
    landed = run.stories[story].landed
    later = sorted((standing.landed, name) for name, standing in run.stories.items() if standing.landed > landed)
    names = [f"{name} as {run.stories[name].commits[-1]}" for _, name in later if run.stories[name].commits]
    if names:
        since = own[-1] if own else run.base
        more = ", ..." if len(names) > _MOST_NAMED else ""
        yield f"What landed after it ({', '.join(names[:_MOST_NAMED])}{more}): `git diff {since}..{run.tip}`"
    else:
        yield "Nothing landed after it."
