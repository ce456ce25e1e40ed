"""A remote of the user's clone: its branch of the run's name is made to hold the run's commits, and loses nothing.

Pushed is one commit to one branch, with an explicit lease on what was seen there: a branch that moves meanwhile, or
that has commits we do not know, is refused and not overwritten, and so is the remote's default branch. What reaches
the remote is what its user could push: by his credential helpers and his ssh agent, with nobody to ask for a
password. His hooks do not run, here as for commits: they would run what an agent wrote, outside of any sandbox.
"""

import os
import re
import threading
from collections.abc import Callable

from storyloop.core.forge import ForgeTrouble, Pushed, Trouble
from storyloop.ports.repository import PushOrder
from storyloop.world.git import LONGEST, Git, GitFailed

_LOGIN = (
    "See that `git push` works there without asking for a password: a credential helper, or a key in the ssh agent."
)
_RIGHT = "Ask for the right to push there, or let [pull_request] remote name a remote that you may push to."
_LONGEST_LOOK = 120.0  # seconds that a remote may take to say what it has
# What git and its remotes say, in the order in which it is looked for.
_SAYS = (
    (r"LFS object", Trouble.REJECTED, "Push them with `git lfs push REMOTE BRANCH`."),
    (r"protected branch|hook declined|pre-receive|GH0\d\d", Trouble.REJECTED, "Change that there, or push by hand."),
    (r"could not read (Username|Password)|Authentication failed|\(publickey|error: 401", Trouble.NOT_LOGGED_IN, _LOGIN),
    (r"error: 403|denied to|not allowed|[Pp]ermission|not authorized", Trouble.FORBIDDEN, _RIGHT),
    (r"[Nn]ot found|does not appear to be|does not exist|No such", Trouble.NOT_FOUND, "Correct its URL."),
    (r"resolve host|refused|timed out|unreachable|unable to access|hung up|Could not read from remote|early EOF",
     Trouble.OFFLINE, "See that it can be reached."),
)  # fmt: skip


def push(git: Git, branch: str, order: PushOrder, stop: threading.Event) -> Pushed | None:
    """Bring the commit to the remote; None when `stop` was set first. Raises `ForgeTrouble`."""
    name = order.remote
    url, to = url_of(git, name), git.line("remote", "get-url", "--push", name)
    refs = tuple(f"refs/heads/{wanted}" for wanted in (branch, order.base) if wanted)
    listed = _asked(git, name, stop, "ls-remote", "--symref", name if to == url else to, "HEAD", *refs)
    if listed is None:
        return None
    told = [line.split("\t") for line in listed.splitlines() if "\t" in line]
    commits = {ref: what for what, ref in told if not what.startswith("ref: ")}
    default = next((what[5:] for what, ref in told if ref == "HEAD" and what.startswith("ref: ")), "")
    default = default.removeprefix("refs/heads/")
    require_other(branch, default, remote=name)

    def precedes(one: str, other: str) -> bool:
        return git.ask("merge-base", "--is-ancestor", one, other).code == 0  # no, too, where one is unknown here

    ref = f"refs/heads/{branch}"
    there = commits.get(ref, "")
    if is_due(branch, there, order=order, precedes=precedes):
        argv = ("push", "--porcelain", "--no-verify", "--no-signed", "--no-follow-tags", "--recurse-submodules=no")
        lease = f"--force-with-lease={ref}:{there}"
        if _asked(git, name, stop, *argv, lease, "--", name, f"{order.commit}:{ref}") is None:
            return None
    base = order.base if f"refs/heads/{order.base}" in commits and order.base != branch else default
    return Pushed(remote=name, commit=order.commit, base=base)


def url_of(git: Git, name: str) -> str:
    """Where a remote is. Raises `ForgeTrouble` where there is none of this name."""
    if name not in os.fsdecode(git.run("remote")).split("\n"):
        raise no_remote(name)
    return git.line("remote", "get-url", name)


def no_remote(name: str) -> ForgeTrouble:
    """There is none of this name."""
    cure = "Add it with `git remote add`, or let [pull_request] remote name another one."
    return ForgeTrouble(Trouble.NOT_FOUND, f"The repository has no remote {name}.", cure)


def require_other(branch: str, default: str, *, remote: str) -> None:
    """Refuse to push the remote's default branch, or to make a remote's first one."""
    if not default:
        cure = "Push the branch that pull requests are to go to there first."
        raise ForgeTrouble(Trouble.NOT_FOUND, f"The remote {remote} has no default branch yet.", cure)
    if branch == default:
        problem = f"{branch} is the default branch of the remote {remote}, which is never pushed."
        raise ForgeTrouble(Trouble.REJECTED, problem, "Push it yourself, or give the spec another `## Branch`.")


def is_due(branch: str, there: str, *, order: PushOrder, precedes: Callable[[str, str], bool]) -> bool:
    """Whether the remote's commit (empty: it has no such branch) is to be replaced; refuses where it must not be."""
    if not there and order.own:
        problem = f"{branch} was deleted on the remote {order.remote} after it had been pushed."
        cure = f"If it was merged, nothing is left to do; else push it yourself: `git push {order.remote} {branch}`."
        raise ForgeTrouble(Trouble.REJECTED, problem, cure)
    if there == order.commit:
        return False
    if there and precedes(order.commit, there):
        if there != order.own:
            return False
        problem = f"{branch} on the remote {order.remote} still has what was pushed and then undone ({there[:12]})."
        back = (
            f"git push --force-with-lease={branch}:{there[:12]} {order.remote} {order.commit[:12]}:refs/heads/{branch}"
        )
        raise ForgeTrouble(Trouble.REJECTED, problem, f"Go on with the run, or take it back by hand: `{back}`.")
    if there and there != order.own and not precedes(there, order.commit):
        problem = f"{branch} on the remote {order.remote} has commits that this run does not know ({there[:12]})."
        cure = (
            f"They are not overwritten: bring both together with `git pull {order.remote} {branch}` and push by hand."
        )
        raise ForgeTrouble(Trouble.REJECTED, problem, cure)
    return True


def _asked(git: Git, remote: str, stop: threading.Event, *args: str) -> str | None:
    """What git printed; None when it was stopped."""
    if stop.is_set():
        return None
    try:
        answer = git.ask(*args, stop=stop, longest=_LONGEST_LOOK if args[0] == "ls-remote" else LONGEST)
    except GitFailed as silent:
        problem = f"`git {args[0]}` to the remote {remote} failed: {silent.stderr}."
        raise ForgeTrouble(Trouble.OFFLINE, problem, "See that it can be reached.") from silent
    if stop.is_set() and answer.code < 0:
        return None
    if answer.code == 0:
        return os.fsdecode(answer.out)
    said = re.sub(r"://[^/@\s]+@", "://", (answer.err + answer.out).decode(errors="replace"))
    lines = [line.strip() for line in said.splitlines() if not line.startswith(("To ", "Done", "Pushing to"))]
    words = " ".join(re.sub(r"\s+", " ", line) for line in lines if line)[:400].rstrip(".")
    if "stale info" in said or "fetch first" in said or "non-fast-forward" in said:
        trouble, cure = Trouble.REJECTED, "It was moved there in this moment, and is not overwritten: try again."
    else:
        found = ((trouble, cure) for pattern, trouble, cure in _SAYS if re.search(pattern, said))
        trouble, cure = next(found, (Trouble.BROKEN, "See what `git push` says there."))
    raise ForgeTrouble(trouble, f"`git {args[0]}` to the remote {remote} failed: {words or answer.code}.", cure)
