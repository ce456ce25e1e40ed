"""Delivering: the run's branch is pushed, and its pull request opened or brought up to date.

Both look before they act, so done again after a crash they find what was done. What is in the way is a fact and no
error: the run ends as it would have ended.
"""

import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

from storyloop.core.effects import OpenPullRequest, PushBranch
from storyloop.core.events import BranchPushed, DeliveryFailed, Event, PullRequestOpened
from storyloop.core.facts import Finding
from storyloop.core.forge import DeliveryStep, ForgeTrouble, PullRequest, PullRequestState, Trouble
from storyloop.core.run_state import RunState
from storyloop.engine.hands import Hands
from storyloop.engine.secrecy import without_secrets
from storyloop.ports.forge import Forge
from storyloop.ports.repository import PushOrder
from storyloop.views.pull_request import brought_up_to_date, new_pull_request

_T = TypeVar("_T")
_GLANCE = 0.1
_LARGEST_TEMPLATE = 20_000  # bytes
_NAMES = ("pull_request_template.md", "PULL_REQUEST_TEMPLATE.md", "pull_request_template.txt", "PULL_REQUEST_TEMPLATE/")
# Where forges look for it, in this order; of a directory, its only file.
_TEMPLATES = (
    *(f"{folder}{name}" for folder in (".forgejo/", ".gitea/", ".github/", "", "docs/") for name in _NAMES),
    *(f".gitlab/merge_request_templates/{name}" for name in ("Default.md", "default.md")),
)


def push_branch(effect: PushBranch, state: RunState, hands: Hands, stop: threading.Event) -> Iterator[Event]:
    """The remote has the run's branch as we have it."""
    progress = state.going
    order = PushOrder(remote=effect.remote, commit=effect.commit, own=effect.own, base=progress.base_branch)
    try:
        pushed = hands.repository.push(hands.place, order, stop)
    except ForgeTrouble as trouble:
        yield failed(effect.key, DeliveryStep.PUSH, trouble, hands)
        return
    if pushed is not None:
        template, findings = _template(progress.base_tree, hands)
        now = hands.clock.now()
        yield BranchPushed(key=effect.key, at=now, pushed=pushed, template=template, findings=findings)


def open_pull_request(effect: OpenPullRequest, state: RunState, hands: Hands, stop: threading.Event) -> Iterator[Event]:
    """The forge has the branch's pull request, one and no more."""
    try:
        event = _unless_stopped(lambda: _opened(effect, state, hands), stop)
    except ForgeTrouble as trouble:
        event = failed(effect.key, DeliveryStep.PULL_REQUEST, trouble, hands)
    if event is not None:
        yield event


def _opened(effect: OpenPullRequest, state: RunState, hands: Hands) -> Event:
    pushed = state.going.delivery.pushed
    assert pushed is not None
    forge = hands.forge()
    found = forge.find(state.branch)
    created = False
    if found is None:
        text = without_secrets(new_pull_request(state, draft=effect.draft), hands.secrets)
        try:
            found = forge.create(text, head=state.branch, base=pushed.base, draft=effect.draft)
            created = True
        except ForgeTrouble as trouble:
            found = forge.find(state.branch) if trouble.trouble is Trouble.REJECTED else None
            if found is None:  # else somebody was quicker
                raise
    if not created and not (found.state is PullRequestState.MERGED and found.head_commit == pushed.commit):
        found = _updated(forge, found, effect, state, hands)
    return PullRequestOpened(
        key=effect.key,
        at=hands.clock.now(),
        forge=forge.name,
        number=found.number,
        url=found.url,
        draft=found.draft,
        created=created,
    )


def _updated(forge: Forge, found: PullRequest, effect: OpenPullRequest, state: RunState, hands: Hands) -> PullRequest:
    if found.state is not PullRequestState.OPEN:
        problem = f"The pull request of {state.branch}, {found.url}, is {found.state} already."
        cure = "Reopen it, or open another one by hand; the branch is pushed."
        raise ForgeTrouble(Trouble.REJECTED, problem, cure)
    body, draft = brought_up_to_date(state, found, draft=effect.draft)
    body = without_secrets(body, hands.secrets)
    if (body, draft) == (found.body, found.draft):
        return found
    return forge.update(found, body=body, draft=draft)


def failed(key: str, step: DeliveryStep, trouble: ForgeTrouble, hands: Hands) -> Event:
    """What stands against the delivery; whoever delivers later goes on there."""
    return DeliveryFailed(
        key=f"{key}/failed",
        at=hands.clock.now(),
        step=step,
        trouble=trouble.trouble,
        problem=trouble.problem,
        cure=trouble.cure,
    )


def _template(tree: str, hands: Hands) -> tuple[str, tuple[Finding, ...]]:
    """The repository's own template for pull requests; one that is no UTF-8 is a finding."""
    files = dict(hands.repository.contents(tree, _TEMPLATES, most=_LARGEST_TEMPLATE))
    for place in _TEMPLATES:
        found = [path for path in files if path == place or (place.endswith("/") and path.startswith(place))]
        if len(found) == 1:
            try:
                return files[found[0]].decode("utf-8-sig"), ()
            except UnicodeDecodeError:
                told = f"The template {found[0]} was not used for the pull request: it is not in UTF-8."
                return "", (Finding("template", told),)
    return "", ()


def _unless_stopped(act: Callable[[], _T], stop: threading.Event) -> _T | None:
    """What this comes to; None as soon as `stop` is set. A forge may be slow, and whoever stops us waits for us."""
    done: SimpleQueue[tuple[_T | None, BaseException | None]] = SimpleQueue()

    def carried() -> None:
        try:
            done.put((act(), None))
        except BaseException as problem:  # noqa: BLE001 - carried to who waits, and raised there
            done.put((None, problem))

    threading.Thread(target=carried, name="forge", daemon=True).start()
    while not stop.is_set():
        try:
            value, problem = done.get(timeout=_GLANCE)
        except Empty:
            continue
        if problem is not None:
            raise problem
        return value
    return None
