"""Delivery: the run's branch is pushed and a pull request opened for it, behind everything else and only when told to.

A delivery is a push, the words of the pull request where a `pr` chain is bound, and the pull request, in this order.
Each step is a fact, so one that was cut goes on where it was; the last one, or a failure, settles the delivery. A
failure says what was in the way and changes nothing about how the run ends: `storyloop deliver` does the rest later,
on a run that has ended as well. What is delivered is the branch's tip and whether it ships: a run that is delivered
and then goes on is owed another delivery. A run on feedback has its pull request already: behind the push it answers
there what is to be answered, and changes nothing else.
"""

from msgspec.structs import replace

from storyloop.core import errand as errands
from storyloop.core.artifacts import PrText
from storyloop.core.draft import Draft
from storyloop.core.effects import Effect, OpenPullRequest, PushBranch
from storyloop.core.events import BranchPushed, DeliveryFailed, PullRequestOpened
from storyloop.core.feedback import answers_owed
from storyloop.core.policy import Drain, Policy
from storyloop.core.progress import Delivery, Progress
from storyloop.core.purpose import RUN, label_of
from storyloop.core.review import is_shipped
from storyloop.core.stages import Wording, Work
from storyloop.core.steps import expect, fresh_continuation
from storyloop.core.words import RunStatus


def owed_delivery(run: Progress, policy: Policy) -> Effect | None:
    """The next step of the delivery that the policy wants; None when it wants none, or has had it."""
    wanted = policy.pull_request.create and (run.tip != run.base or answers_owed(run, policy) is not None)
    return delivery_step(run, policy) if wanted and run.delivery.settled != _what(run, policy) else None


def delivery_step(run: Progress, policy: Policy) -> Effect:
    """The next step of the delivery that is under way, or the first of a new one."""
    delivery = run.delivery
    key = f"deliver/{delivery.number + 1}/{run.tip[:12]}"
    if not _is_pushed(run):
        own = delivery.pushed.commit if delivery.pushed else ""
        return PushBranch(key=f"{key}/push", remote=policy.pull_request.remote, commit=run.tip, own=own)
    if (answer := answers_owed(run, policy)) is not None:
        return answer
    draft = policy.pull_request.draft or not is_shipped(run)
    return OpenPullRequest(key=f"{key}/pull-request", draft=draft)


def is_delivering(run: Draft) -> bool:
    """Whether a delivery is under way: the branch is pushed, and the pull request still to come."""
    return _is_pushed(run) and run.delivery.settled != _what(run, run.effective_config())


def branch_pushed(run: Draft, event: BranchPushed) -> None:
    """The remote has the branch's tip; who is bound to word the pull request is asked, once."""
    expect(event.pushed.commit == run.tip and not _is_pushed(run), run, event)
    run.find(*event.findings)
    delivery = run.delivery
    run.delivery = replace(delivery, pushed=event.pushed, pushed_in=delivery.number + 1, template=event.template)
    policy = run.effective_config()
    answered_there(run)
    chain = policy.chain_of(Drain.PR) if run.feedback is None else ()
    if run.status is not RunStatus.RUNNING or not chain or delivery.asked:
        return
    number = delivery.number + 1
    errand, cs = errands.begin(
        f"{label_of(RUN)}/{number}/{Drain.PR}",
        Drain.PR,
        chain=chain,
        cs=fresh_continuation(policy),
        table=run.cooling,
        now=event.at,
    )
    run.delivery = replace(run.delivery, asked=True)
    run.put(Work(story=RUN, iteration=number, head=run.tip, tree=run.tip_tree, errand=errand, cs=cs, stage=Wording()))


def worded(run: Draft, text: PrText | None) -> None:
    """The words are there, or are ours to find."""
    run.delivery = replace(run.delivery, text=text)
    run.work = {name: work for name, work in run.work.items() if name != RUN}


def pull_request_opened(run: Draft, event: PullRequestOpened) -> None:
    """The forge has the pull request as it should be."""
    expect(_is_pushed(run), run, event)
    drafted = event.draft if event.created else run.delivery.drafted and event.draft
    run.delivery = replace(_settled(run), pull_request=event.number, url=event.url, drafted=drafted, trouble="")


def answered_there(run: Draft) -> None:
    """The branch is pushed: where nothing is left to be said about it, a run on feedback is delivered."""
    feedback = run.feedback
    if feedback is not None and _is_pushed(run) and answers_owed(run, run.effective_config()) is None:
        run.delivery = replace(_settled(run), pull_request=feedback.number, url=feedback.url, trouble="")


def delivery_failed(run: Draft, event: DeliveryFailed) -> None:
    """Something was in the way; the work is safe."""
    run.delivery = replace(_settled(run), trouble=f"{event.problem} {event.cure}")


def _settled(run: Draft) -> Delivery:
    return replace(run.delivery, number=run.delivery.number + 1, settled=_what(run, run.effective_config()))


def _is_pushed(run: Progress | Draft) -> bool:
    delivery = run.delivery
    is_new = delivery.pushed_in == delivery.number + 1
    return is_new and delivery.pushed is not None and delivery.pushed.commit == run.tip


def _what(run: Progress | Draft, policy: Policy) -> str:
    """What there is to deliver."""
    answer = answers_owed(run, policy)
    return f"{run.tip} {'shipped' if is_shipped(run) else 'not shipped'}" + (f" {answer.concern}" if answer else "")
