"""Following up: a run on the feedback to a pull request, prepared; everything about it is known, nothing is written.

The run builds on the pull request's own branch, as the user's clone has it. The stories that the last run on this
branch has proven come along as passed, so that what mends a remark cannot break them unseen.
"""

import re
from enum import Enum
from pathlib import Path

import msgspec

from storyloop.config.layers import Flags
from storyloop.config.load import Loaded
from storyloop.core.bounds import feedback_bounds
from storyloop.core.errors import UserError
from storyloop.core.feedback import MOST_CONCERNS, concerns_of
from storyloop.core.forge import CheckState, ForgeCheck, ForgeTrouble, PullRequest, PullRequestState, Thread
from storyloop.core.policy import Drain, Policy
from storyloop.core.progress import Feedback
from storyloop.core.spec import Criterion, Spec, Story
from storyloop.ports.forge import Forge
from storyloop.ports.repository import Checkout
from storyloop.preparing import Basis, Prepared, run_of, surveyed
from storyloop.service import Service


class Reach(Enum):
    """What is followed up, and for how long."""

    REMARKS = "what people said, once"
    CHECKS = "red checks of the forge's CI, too"
    WATCH = "the same again, until nothing is red, pending or unanswered"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asks for."""

    pull_request: str = ""  # a number, a URL or a branch; empty: of the branch that the user is at
    reach: Reach = Reach.REMARKS
    answer: bool = True


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A pull request and what is said of it: nothing was looked at yet but the forge."""

    pull_request: PullRequest
    feedback: Feedback
    checkout: Checkout
    loaded: Loaded


def heard(service: Service, wanted: Wanted, cwd: Path, *, flags: Flags) -> Heard:
    """Ask the forge. Raises UserError, also for what the forge says."""
    checkout, loaded = surveyed(service, cwd, flags=flags)
    pull = msgspec.structs.replace(loaded.policy.pull_request, answer=wanted.answer)
    loaded = msgspec.structs.replace(loaded, policy=msgspec.structs.replace(loaded.policy, pull_request=pull))
    if wanted.reach is Reach.WATCH and not pull.create:
        raise UserError("--watch waits for what the forge says of what was pushed.", "Add --push.")
    try:
        forge = _forge(service, checkout, loaded.policy)
        pull_request = _found(service, forge, checkout, wanted.pull_request)
        said: list[Thread | ForgeCheck] = list(forge.threads(pull_request.number))
        checks = forge.checks(pull_request.head_commit) if wanted.reach is not Reach.REMARKS else ()
    except ForgeTrouble as trouble:
        raise UserError(trouble.problem, trouble.cure) from trouble
    said += [check for check in checks if check.state is CheckState.RED]
    feedback = Feedback(
        number=pull_request.number,
        url=pull_request.url,
        base="",
        concerns=concerns_of(tuple(said), commit=pull_request.head_commit),
        watch=wanted.reach is Reach.WATCH,
        pending=tuple(check.name for check in checks if check.state is CheckState.PENDING),
        red=tuple(check.name for check in checks if check.state is CheckState.RED),
    )
    return Heard(pull_request=pull_request, feedback=service.clean(feedback), checkout=checkout, loaded=loaded)


def prepared(service: Service, heard: Heard) -> Prepared:
    """Look at everything that a run on it needs. Raises UserError."""
    checkout, pull_request, policy = heard.checkout, heard.pull_request, heard.loaded.policy
    remote, feedback = policy.pull_request.remote, heard.feedback
    tip = _tip(checkout, pull_request, remote)
    base = checkout.commit(f"refs/remotes/{remote}/{pull_request.base}") or checkout.commit(pull_request.base)
    spec = service.clean(_spec(service, checkout, pull_request))
    ready = run_of(service, _with_one(spec), checkout, heard.loaded, drains=_DRAINS, basis=Basis.REUSED)
    most = MOST_CONCERNS if feedback.watch else len(feedback.concerns)
    rounds = policy.limits.review_cycles if feedback.watch else 1
    return msgspec.structs.replace(
        ready,
        spec=spec,
        feedback=msgspec.structs.replace(feedback, base=checkout.common(base, tip) if base else ""),
        base=tip,
        base_tree=checkout.tree_of(tip),
        bounds=feedback_bounds(spec, policy, concerns=most, rounds=rounds),
    )


_DRAINS = (Drain.TRIAGE, Drain.FIX)


def _forge(service: Service, checkout: Checkout, policy: Policy) -> Forge:
    name = policy.pull_request.remote
    url = checkout.remote_url(name)
    if not url:
        cure = "Add it with `git remote add`, or let [pull_request] remote name another one."
        raise UserError(f"The repository has no remote {name}.", cure)
    return service.tools.forge(url, policy.forge)


def _found(service: Service, forge: Forge, checkout: Checkout, which: str) -> PullRequest:
    """The open pull request that is meant."""
    if number := re.fullmatch(r"(?:[#!]|https?://\S*/)?(\d+)/?", which):
        found = forge.get(int(number[1]))
        own = forge.find(found.head)
        if own is None or (own.number != found.number and found.state is PullRequestState.OPEN):
            problem = f"Pull request {found.number} is not of a branch of this repository: {found.url}."
            raise UserError(problem, "Follow it up in a clone of the fork that it comes from.")
    else:
        branch = which or _branch(service, checkout, forge)
        found = forge.find(branch)
        if found is None:
            cure = "Name another one by its number; for a run's branch, `storyloop deliver` opens one."
            raise UserError(f"Branch {branch} has no pull request at {forge.name}.", cure)
    if found.state is not PullRequestState.OPEN:
        cure = "Reopen it there, or name another one by its number."
        raise UserError(f"Pull request {found.number} of {found.head} is {found.state} already: {found.url}.", cure)
    return found


def _branch(service: Service, checkout: Checkout, forge: Forge) -> str:
    """The branch that the user is at; at the default branch, that of the newest run."""
    here = checkout.head_branch
    if here and here != forge.default_branch():
        return here
    newest = next((row.branch for row in service.rows(checkout.identity)), None)
    if newest is None:
        at = f"You are at {here}" if here else "No branch is checked out"
        raise UserError(f"{at}, and this repository has no runs.", "Name the pull request: `storyloop pr-review 12`.")
    return newest


def _tip(checkout: Checkout, pull_request: PullRequest, remote: str) -> str:
    """The branch's commit here, which is what the forge has or builds on it."""
    head = pull_request.head
    tip = checkout.commit(f"refs/heads/{head}")
    if not tip:
        cure = f"Bring it here: `git fetch {remote} {head}:{head}`."
        raise UserError(f"Branch {head} of pull request {pull_request.number} is not in this repository.", cure)
    there = pull_request.head_commit
    if tip != there and checkout.common(there, tip) != there:
        problem = f"Branch {head} is at {tip[:12]} here, and pull request {pull_request.number} has other commits"
        cure = f"Bring both together first: `git switch {head}` and `git pull {remote} {head}`; then switch back."
        raise UserError(f"{problem} ({there[:12]}).", cure)
    return tip


def _spec(service: Service, checkout: Checkout, pull_request: PullRequest) -> Spec:
    """The pull request as a spec, with the stories that the last run on its branch has proven by commands."""
    rows = (row for row in service.rows(checkout.identity) if row.branch == pull_request.head)
    before = next((service.spec_of(row.run_id) for row in rows), None)
    stories = (story for story in before.user_stories if story.passes) if before else ()
    proven = (story for story in stories if any(criterion.verify for criterion in story.acceptance_criteria))
    return Spec(
        project=before.project if before else Path(checkout.root).name,
        branch_name=pull_request.head,
        title=f"Pull request {pull_request.number}: {' '.join(pull_request.title.split())}",
        description=f"{pull_request.title}\n\n{pull_request.body}".strip(),
        user_stories=tuple(msgspec.structs.replace(story, depends_on=()) for story in proven),
    )


def _with_one(spec: Spec) -> Spec:
    """With a story such as feedback becomes: whether it could be proven is known before anybody is asked."""
    one = Story(id="PR", title="", acceptance_criteria=(Criterion(""),), priority=1)
    return msgspec.structs.replace(spec, user_stories=(*spec.user_stories, one))
