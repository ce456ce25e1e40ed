"""The supervisor: a tiny program that starts one agent, watches over it and leaves an exit record.

Theory of operation. It runs as `python -I -S supervisor.py OPTION=VALUE... -- COMMAND...` with the call's
directory as its own, in its own session, so that neither a terminal nor the death of Storyloop reaches it.
What it says, it says by files in that directory:

    alive       locked by the launcher before we are born and handed down; free again only when we are dead.
                Whoever gets this lock knows that nobody supervises the call, and that nobody ever will.
    owner       locked by whoever watches the call. When we could have it, nobody does: the orphan clock runs.
    pid         our process id, there before the agent is.
    stdout, stderr   the agent's spools. Nobody reads them into memory, so a gigabyte costs only disk.
    exit        the exit record (JSON), complete or not there at all; written when the whole tree is gone.
                It was `exit.tmp` before: the launcher takes its room on the disk while there is some.

As child sub-reaper we inherit every descendant whose parent dies, however it was forked or whatever
session it opened: as long as `waitpid` knows of a child, the tree is not gone, and an agent that left
nothing behind costs neither a grace nor a look at /proc.

Every clock here stands still while the machine sleeps (CLOCK_MONOTONIC): an agent does not work while the
lid is closed, and measured by the wall each of them would be past its deadline at the moment of waking.

A fence (`sandbox.py`) stands between us and an agent: bubblewrap, its init, and only then the agent. These two pass
on how the agent ended, but no signal, and they die of SIGTERM or are deaf to it. So SIGTERM is for what is inside,
and SIGKILL for all: bubblewrap's own end is that of everything inside, by the kernel's hand. In the same way ends what
a fenced agent leaves behind.

It lives beside each agent, hence the diet: no subprocess, json, typing, and `_signal`, because `signal`
pulls in enum. Only the standard library, since -I -S hides everything else.

The untidy part: without Linux there is no sub-reaper and no /proc. There the agent's process group is
killed, and what left that group survives until Storyloop sweeps by the mark in the environment.
"""

import errno
import fcntl
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
else:
    import _signal

STOPS = {_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP}
AWAITED = {*STOPS, _signal.SIGCHLD, _signal.SIGALRM}
VIOLENT = {_signal.SIGABRT, _signal.SIGKILL, _signal.SIGSEGV}  # no program ends itself with 128 and one of these
INFINITY = float("inf")

TICK = 1.0  # how often limits and owner are looked at, and how late that may be noticed
QUICK_TICK = 0.05  # while the spools grow fast: a full disk is only seconds away
FAST_GROWTH = 1 << 20  # bytes between two looks
SETTLE = 0.3  # what an agent that has ended leaves behind gets this long after its SIGTERM
STUBBORN = 10.0  # a process that SIGKILL does not end (another user's, or stuck in the kernel) is given up


class Tree:
    """The agent and everything that came of it."""

    def __init__(self, agent: int, *, fenced: bool = False) -> None:
        self.agent = agent  # or the fence around it
        self.fenced = fenced
        self.status: int | None = None  # of the agent, as waitpid gives it
        self.leftovers: set[int] = set()  # what we had to signal besides the agent
        self.survivors = 0

    def is_gone(self) -> bool:
        """Bury the dead; True when no descendant is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if not pid:
                return False
            if pid == self.agent:
                self.status = status

    def has_lost_its_agent(self) -> bool:
        """The agent itself has ended, whatever it left behind."""
        return self.is_gone() or self.status is not None

    def end(self, grace: float) -> None:
        """The agent has its grace, what it leaves behind a moment; who does not obey SIGTERM, is killed."""
        if not (self.obeys(grace, self.has_lost_its_agent) and self.obeys(SETTLE, self.is_gone)):
            self.kill()

    def obeys(self, grace: float, is_done: "Callable[[], bool]") -> bool:
        """SIGTERM to all there are; True when it is done within the grace and before a stop comes (again).

        Not to who is born meanwhile: how a handler saves its work is its own affair.
        """
        if is_done():
            return True
        until = time.monotonic() + grace
        self.signal(self.members(inside=True), _signal.SIGTERM)
        while not is_done():
            left = until - time.monotonic()
            if left <= 0 or pause(left) in STOPS:
                return False
        return True

    def kill(self) -> None:
        """SIGKILL until nobody is left; what even that does not end is given up and counted."""
        until = time.monotonic() + STUBBORN
        seen: set[int] = set()
        while not self.is_gone():
            members = self.members()
            if time.monotonic() > until:
                self.survivors = len(members)
                return
            self.signal(members, _signal.SIGKILL)
            # Somebody new may be a spawner's child: look again before it forks once more.
            if seen.issuperset(members):
                pause(QUICK_TICK)
            seen = set(members)

    def signal(self, pids: list[int], signum: int) -> None:
        for pid in pids:
            try:
                # Ids go round: one that was a descendant's a moment ago is not given to a stranger before
                # every other id has been used.
                os.kill(pid, signum)
            except (ProcessLookupError, PermissionError):
                continue
            if pid != self.agent and not self.fenced:
                self.leftovers.add(pid)

    def members(self, *, inside: bool = False) -> list[int]:
        """Everything below us (or inside the fence), parents first, so that nobody starts anew what was just ended."""
        if sys.platform != "linux":
            return [-self.agent]
        children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                children.setdefault(parent_of(name), []).append(int(name))
        found = [os.getpid()]
        for pid in found:
            found += children.get(pid, [])
        # No orphan leaves a fence, so our own children are bubblewrap, or the init that outlived it for an instant.
        fence = [*children.get(found[0], []), *children.get(self.agent, [])] if inside and self.fenced else []
        return [pid for pid in found[1:] if pid not in fence]


def parent_of(pid: str) -> int:
    """The parent's id, or 0 when the process has gone meanwhile."""
    try:
        stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        # The command's name stands in parentheses and may hold anything, more of them too.
        return int(os.read(stat, 512).rpartition(b")")[2].split(None, 2)[1])
    except ProcessLookupError:
        return 0
    finally:
        os.close(stat)


def pause(seconds: float) -> int:
    """Sleep until one of our signals comes, or the time has passed; the signal's number comes back."""
    _signal.setitimer(_signal.ITIMER_REAL, seconds)  # not sigtimedwait, which macOS lacks
    return _signal.sigwait(AWAITED)


def become_sub_reaper() -> None:
    if sys.platform == "linux":
        import ctypes

        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def spawn(command: list[str], options: dict[str, str], spools: list[int]) -> int:
    """Start the agent in a session of its own with nothing but its three files; its process id."""
    stdin = os.open(options["stdin"], os.O_RDONLY)
    environment = dict(os.environ)
    # A Python that starts in the C locale writes its own choice into its environment (PEP 538).
    environment.pop("LC_CTYPE", None)
    if "lc_ctype" in options:
        environment["LC_CTYPE"] = options["lc_ctype"]
    ours = os.open(".", os.O_RDONLY)
    os.chdir(options["cwd"])
    try:
        if int(options["fence"]):
            must_be_there(command[int(options["fence"])])
        return os.posix_spawnp(
            command[0],
            command,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, place) for place, fd in enumerate([stdin, *spools])],
            setsid=True,
            setsigmask=(),
            setsigdef=_signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP},
        )
    finally:
        os.fchdir(ours)


def must_be_there(program: str) -> None:
    """Raise what starting it without a fence would raise; bubblewrap itself would only say so on stderr."""
    places = [""] if "/" in program else os.environ.get("PATH", os.defpath).split(":")
    paths = [os.path.join(place, program) for place in places]
    if not any(os.path.isfile(path) and os.access(path, os.X_OK) for path in paths):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)


def watch(tree: Tree, options: dict[str, str], spools: list[int]) -> str | None:
    """Look after the agent until it ends by itself (None) or has to be ended (why, in a word)."""
    idle = float(options["idle"]) or INFINITY
    deadline = time.monotonic() + (float(options["deadline"]) or INFINITY)
    cap = float(options["spool_cap"]) or INFINITY
    owner = os.open("owner", os.O_RDWR | os.O_CREAT, 0o600)
    active, active_at = time.monotonic(), time.time()  # the last sign of life, by both clocks
    orphaned, size, tick = INFINITY, 0, QUICK_TICK
    while not tree.has_lost_its_agent():
        now = time.monotonic()
        growth = sum(os.fstat(spool).st_size for spool in spools) - size
        size += growth
        if growth:
            active, active_at = now, time.time()
        elif now - active >= idle:
            changed_at = newer_change(options["worktree"], active_at)
            if changed_at is None:
                return "idle"
            # As active as the change is fresh, but a big worktree is not walked more often than four times
            # per timeout.
            active, active_at = now - min(max(time.time() - changed_at, 0.0), idle * 0.75), changed_at
        orphaned = INFINITY if is_watched(owner) else min(orphaned, now + float(options["orphan_grace"]))
        if size > cap:
            return "spool_cap"
        if now >= deadline:
            return "deadline"
        if now >= orphaned:
            return "orphaned"
        tick = QUICK_TICK if growth > FAST_GROWTH else min(tick * 2, TICK)
        if pause(tick) in STOPS:
            return "stopped"
    return None


def is_watched(owner: int) -> bool:
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(owner, fcntl.LOCK_UN)
    return False


def newer_change(worktree: str, moment: float) -> float | None:
    """When something in the worktree (not in its `.git`) changed after that moment; the first that is found.

    The inode's change time is asked, not the modification time: archives and copies set the latter at will.
    """
    pending = [worktree] if os.path.isdir(worktree) else []
    while pending:
        place = pending.pop()
        try:
            changes = [os.stat(place).st_ctime]
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name == ".git":
                        continue
                    changes.append(entry.stat(follow_symlinks=False).st_ctime)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except FileNotFoundError:
            return time.time()  # gone while we looked
        except OSError:
            continue  # not ours to read
        if max(changes) > moment:
            return max(changes)
    return None


def leave_record(paper: int, facts: dict[str, str | float]) -> int:
    """Put the exit record in its place, whole or not at all; our own exit status."""
    text = repr(facts).replace("'", '"')  # words and finite numbers: that makes it JSON
    problem: OSError | None = None
    for _ in range(5):
        try:
            os.pwrite(paper, text.encode(), 0)  # over blanks, which JSON may end with
            os.fsync(paper)
            os.rename("exit.tmp", "exit")
        except OSError as error:
            problem = error
            time.sleep(0.2)
        else:
            return os.EX_OK
    print(f"The exit record could not be written ({problem}): {text}", file=sys.stderr)
    return os.EX_IOERR


def main(words: list[str]) -> int:
    split = words.index("--")
    options = dict(word.split("=", 1) for word in words[:split])
    command = words[split + 1 :]
    program = command[int(options["fence"])]
    for lock in options["locks"].split(","):
        os.set_inheritable(int(lock), False)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, AWAITED)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # ignored, it would bury our children unseen
    become_sub_reaper()
    paper = os.open("exit.tmp", os.O_WRONLY)
    facts: dict[str, str | float] = {"started_at": time.time()}
    try:
        write_pid()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        spools = [os.open(name, flags, 0o600) for name in ("stdout", "stderr")]
        tree = Tree(spawn(command, options, spools), fenced=options["fence"] != "0")
    except OSError as error:
        blamed = {program: "command", options["cwd"]: "cwd", options["stdin"]: "stdin"}
        facts["how"] = "failed_to_start"
        facts["errno"] = error.errno or 0
        facts["blamed"] = blamed.get(error.filename, "call_dir")
    else:
        facts |= see_to_its_end(tree, options, spools)
    facts["ended_at"] = time.time()
    return leave_record(paper, facts)


def see_to_its_end(tree: Tree, options: dict[str, str], spools: list[int]) -> dict[str, str | float]:
    """Watch the agent, then end what is left of its tree; what there is to say of it."""
    import resource  # not earlier: the agent need not wait for it

    try:
        why = watch(tree, options, spools)
    except BaseException:
        tree.kill()  # whatever befalls us: no agent without a supervisor
        raise
    ended_by_itself = tree.has_lost_its_agent()
    tree.end(float(options["term_grace"]))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts: dict[str, str | float] = {
        "leftovers": len(tree.leftovers),
        "survivors": tree.survivors,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "max_rss": used.ru_maxrss * (1024 if sys.platform == "linux" else 1),
    }
    if tree.status is not None:
        code = os.waitstatus_to_exitcode(tree.status)
        if tree.fenced and code - 128 in VIOLENT:  # bubblewrap tells a signal as a shell does
            code = 128 - code
        facts |= {"code": code} if code >= 0 else {"signal": -code}
    facts["how"] = why if why and not ended_by_itself else "signalled" if "signal" in facts else "exited"
    return facts


def write_pid() -> None:
    fd = os.open("pid.tmp", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(fd, str(os.getpid()).encode())
    os.close(fd)
    os.rename("pid.tmp", "pid")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
