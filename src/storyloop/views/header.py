"""The header: what a run is about to do, with whom, and the most that it can cost. Plain text."""

from storyloop.core.bounds import Bounds
from storyloop.core.policy import OPTIONAL_DRAINS, Drain, Policy, PullRequestPolicy
from storyloop.core.progress import Feedback
from storyloop.core.spec import Spec
from storyloop.views.words import count, duration


def header(spec: Spec, policy: Policy, most: Bounds, *, branch: str, worktree: str, sandbox: str) -> str:
    """The lines before a run starts; `sandbox` is what holds its agents and checks."""
    agents = " -> ".join(str(ref) for ref in policy.chain_of(Drain.STORY))
    stories = count(len(spec.user_stories), "story")
    if spec.is_free_form:
        planner = " -> ".join(str(ref) for ref in policy.chain_of(Drain.PLAN))
        stories = f"free-form; its stories are not known yet, {planner} plans them first"
    checks = ", ".join(policy.checks) or "none of the project; the criteria's own commands prove the stories"
    rows = [
        ("spec", f"{spec.title}: {stories}"),
        ("branch", f"{branch}  in  {worktree}"),
        ("agents", agents),
        *([("attempts", " -> ".join(map(str, policy.escalation)))] if policy.escalation else []),
        ("checks", checks),
        ("at most", bounds_line(most)),
        ("sandbox", sandbox),
        ("review", _review(policy)),
        *([("bound", bound)] if (bound := _bound(policy)) else []),
        *([("delivery", _delivery(policy.pull_request))] if policy.pull_request.create else []),
        *([("step", "parks before each commit until you approve it")] if policy.step else []),
    ]
    return "\n".join(f"{name:<14}{value}" for name, value in rows)


def feedback_header(
    spec: Spec, policy: Policy, most: Bounds, *, feedback: Feedback, worktree: str, sandbox: str
) -> str:
    """The same for a run on feedback."""
    judges, menders = (" -> ".join(map(str, policy.chain_of(drain))) for drain in (Drain.TRIAGE, Drain.FIX))
    push = "no: what was done is answered when it is, by `storyloop deliver`"
    if policy.pull_request.create:
        push = "yes" + (", and until its checks are green and nothing is unanswered" if feedback.watch else "")
    rows = [
        ("follows up", f"{spec.title}  ({feedback.url})"),
        ("branch", f"{spec.branch_name}  in  {worktree}"),
        ("concerns", f"{len(feedback.concerns)}; {judges} judges them, {menders} mends"),
        ("checks", ", ".join(policy.checks) or "none of the project"),
        ("at most", bounds_line(most)),
        ("sandbox", sandbox),
        ("review", _review(policy)),
        ("push", push),
    ]
    return "\n".join(f"{name:<14}{value}" for name, value in rows)


def _review(policy: Policy) -> str:
    if not policy.review.enabled or not policy.limits.review_cycles:
        return "turned off"
    bound = f"by {' -> '.join(map(str, policy.drains[Drain.REVIEW]))}" if Drain.REVIEW in policy.drains else ""
    who = bound or "by another agent than the author, where there is one"
    what = "each story before its commit, " if policy.review.per_story else ""
    return f"{what}{who}; at most {count(policy.limits.review_cycles, 'cycle')}"


def _delivery(wanted: PullRequestPolicy) -> str:
    return f"pushed to {wanted.remote}, where a {'draft ' * wanted.draft}pull request is opened"


def _bound(policy: Policy) -> str:
    """Who is asked for what only somebody who is bound to it is asked for."""
    chains = ((drain, policy.chain_of(drain)) for drain in Drain if drain in OPTIONAL_DRAINS)
    return ", ".join(f"{drain} by {' -> '.join(map(str, chain))}" for drain, chain in chains if chain)


def bounds_line(most: Bounds) -> str:
    """The upper bounds of a run in one line."""
    parts = [
        count(most.calls, "agent call"),
        f"{duration(most.agent_seconds)} of agent time",
        f"{duration(most.check_seconds)} of checks",
        f"{duration(most.wait_seconds)} of waiting",
    ]
    if most.tokens is not None:
        parts.append(count(most.tokens, "token"))
    if most.usd is not None:
        parts.append(f"${most.usd:.2f}")
    return ", ".join(parts)


def spec_lines(spec: Spec) -> list[str]:
    """What a spec asks for, and in which order."""
    criteria = [criterion for story in spec.user_stories for criterion in story.acceptance_criteria]
    proven = sum(criterion.verify is not None for criterion in criteria)
    if spec.is_free_form:
        return [
            f"{spec.title}: free-form, on branch {spec.branch_name}",
            "It has no stories (### US-001: Title) yet: `storyloop run` has an agent make them of the text first.",
        ]
    return [
        f"{spec.title}: {count(len(spec.user_stories), 'story')} on branch {spec.branch_name}",
        f"{count(len(criteria), 'criterion')}, {proven} with a command that proves it",
        "",
        *order_lines(spec),
    ]


def order_lines(spec: Spec) -> list[str]:
    """The stories in the order in which they are taken if each passes."""
    after = {story.id: f"  (after {', '.join(story.depends_on)})" for story in spec.user_stories if story.depends_on}
    taken = enumerate(spec.order(), start=1)
    return [f"{number:>3}. {story.id}  {story.title}{after.get(story.id, '')}" for number, story in taken]
