"""Scratch: a home and a repository to throw away, in which an agent CLI is asked for real against the scripted model.

It is asked in the way a run asks it: same launching, same supervisor, same sandbox where one can be had, same dialect.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

import msgspec

from storyloop.agents.processes import ProcessAgents
from storyloop.agents.profile import Profile, filled
from storyloop.agents.profiles import PROFILES
from storyloop.conformance.alone import NO_WAY_OUT, is_alone
from storyloop.conformance.scripts import SCRIPTS
from storyloop.conformance.server import MODEL, ModelServer, serving
from storyloop.core.errand import Mode
from storyloop.core.facts import CallReport
from storyloop.core.policy import AgentKind, AgentRef, AgentSpec, Drain, SandboxMode, SandboxPolicy
from storyloop.home import state_directory
from storyloop.ports.agents import CallOrder, artifact_path
from storyloop.world.sandbox import Fencing

_USER = "[user]\n\tname = Scratch\n\temail = scratch@example.invalid\n"  # for want of one, aider writes to .git/config
_DEADLINE = 60.0  # seconds of one call
_WATCH = 0.05
SPOOL_CAP = 1 << 25  # bytes: the longest answer of our scripts, told several times over
_UNDER_WAY = 1.0  # seconds until what an agent has begun shows
_AT_ONCE = 2  # agents; some keep a whole core busy

Made = TypeVar("Made")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A call that has ended: what it came to, and what of it was still running."""

    order: CallOrder
    report: CallReport
    left: tuple[str, ...]

    @property
    def artifact(self) -> Path:
        return Path(artifact_path(self.order.worktree, self.order.key))

    def spool(self, name: str) -> Path:
        """Its `stdout` or its `stderr`."""
        return Path(self.order.call_dir, name)


class Scratch:
    """One agent's throw-away home and repository. When `stopping` is set, its calls are stopped."""

    def __init__(self, place: Path, *, search_path: str, stopping: threading.Event) -> None:
        self.place = place
        self.repository, self.home = place / "repository", place / "home"
        self.environ = {
            "PATH": search_path,
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "NO_COLOR": "1",
            **({} if is_alone() else NO_WAY_OUT),
        }
        self._stopping = stopping
        homes = [home for profile in PROFILES.values() for home in profile.homes(self.environ)]
        fencing = Fencing(self.environ, state=place / "state", git_dir=str(self.repository / ".git"), agent_homes=homes)
        # The place is to be thrown away: without a sandbox on this machine, too, no agent has to ask for anything.
        self._fenced = ProcessAgents(self.environ, fencing=fencing, fenced=True, spool_cap=SPOOL_CAP)
        self._alone = ProcessAgents(self.environ, spool_cap=SPOOL_CAP)
        self._numbers = itertools.count(1)
        self.home.mkdir()
        (self.home / ".gitconfig").write_text(_USER)
        self.repository.mkdir()
        (self.repository / "README").write_text("A place to try agents.\n")
        for words in (("init", "--quiet"), ("add", "README"), ("commit", "--quiet", "--message", "Begin")):
            subprocess.run(["git", *words], cwd=self.repository, env=self.environ, check=True)

    def ask(
        self,
        profile: Profile,
        base: str,
        *,
        session: str | None = None,
        deadline: float = _DEADLINE,
        idle: float | None = None,
        fenced: bool = True,
        stop_when: Callable[[], bool] = lambda: False,
        stop_by: signal.Signals | None = None,
    ) -> Asked:
        """One call, its model at `base`, with the permissions that it has in a sandbox or without one.

        When `stop_when` becomes true, it is stopped as a run stops it, or `stop_by` a signal to its own process alone.
        """
        number = next(self._numbers)
        key = f"scratch/1/story/0/{number}"
        artifact = artifact_path(str(self.repository), key)
        order = CallOrder(
            run_id="conformance",
            key=key,
            call_dir=str(self.place / "calls" / str(number)),
            worktree=str(self.repository),
            ref=AgentRef(agent=profile.name),
            agent=self._offline(profile, base),
            drain=Drain.STORY,
            story="scratch",
            attempt=0,
            call=number,
            mode=Mode.FRESH if session is None else Mode.FORMAT_RETRY,
            session=session,
            prompt=f"Write some notes into notes.txt, then your result as a file of its own:\n\n    {artifact}\n",
            call_timeout=deadline,
            idle_timeout=idle or deadline,
            orphan_grace=1.0,
            sandbox=SandboxPolicy(mode=SandboxMode.AUTO if fenced else SandboxMode.OFF),
        )
        watch = (self._fenced if fenced else self._alone).launch(order)
        stopped = False
        while (report := watch.wait(_WATCH)) is None:
            if not stopped and (stop_when() or self._stopping.is_set()):
                stopped = True
                if stop_by is None or self._stopping.is_set():
                    watch.stop()
                else:
                    _kill(order, stop_by)
        return Asked(report=report, order=order, left=self._left())

    def _offline(self, profile: Profile, base: str) -> AgentSpec:
        assert profile.offline is not None
        words = {"base": base, "model": MODEL}
        for path, text in profile.offline.files.items():
            file = self.home / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(filled(text, words))
        return AgentSpec(
            kind=AgentKind.PROFILE,
            profile=profile.name,
            model=filled(profile.offline.model, words),
            env={name: filled(text, words) for name, text in profile.offline.env.items()},
        )

    def _left(self) -> tuple[str, ...]:
        """The processes that live in this place, or carry its mark."""
        import psutil

        found: list[str] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if Path(process.cwd()).is_relative_to(self.place) or str(self.place) in process.environ().values():
                    found.append(process.name())
        return tuple(found)


def _kill(order: CallOrder, stop_by: signal.Signals) -> None:
    """What somebody does who kills an agent by hand, in the midst of its turn."""
    import psutil

    time.sleep(_UNDER_WAY)
    below = psutil.Process(int(Path(order.call_dir, "pid").read_text())).children(recursive=True)
    agent = next(process for process in below if process.name() != "bwrap")
    agent.send_signal(stop_by)


def driven(
    installed: Mapping[str, str], environ: Mapping[str, str], work: Callable[[Scratch, ModelServer, Profile, str], Made]
) -> Generator[Made]:
    """The work done with each of these agents (name and version), in the order in which they come to their end.

    The places are in our state directory: below one that everybody may write, some agents read no settings.
    """
    above = state_directory(environ) / "scratch"
    above.mkdir(mode=0o700, parents=True, exist_ok=True)
    search_path = environ.get("PATH", os.defpath)
    stopping = threading.Event()

    def alone(name: str, version: str) -> Made:
        place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=above)).resolve()
        try:
            return work(Scratch(place, search_path=search_path, stopping=stopping), model, PROFILES[name], version)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    with serving(SCRIPTS) as model, ThreadPoolExecutor(_AT_ONCE) as threads:
        try:
            yield from (
                done.result() for done in as_completed(threads.submit(alone, *one) for one in installed.items())
            )
        finally:  # of an error, or of a Ctrl-C
            stopping.set()
            threads.shutdown(cancel_futures=True)
