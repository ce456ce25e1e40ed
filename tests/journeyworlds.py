"""The two worlds that journeys are played in, which come to the same outcome.

In memory everything lives in this process (repository, agents, checks, journal, clock) and outlives any `Cut`: a
`Knife` counts the calls of every port and ends the process that makes them at a chosen one. The other world is real
git, real processes and a real journal below one directory.
"""

import json
import os
import re
import shutil
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping
from copy import copy
from dataclasses import is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import msgspec
import tomlkit
from msgspec.structs import replace

from gitkit import files_of, git, isolated, make_repository, write_file
from journeykit import BRANCH, Act, Journey, Play, StorySaid, Understudy
from storyloop.agents.memory import MemoryAgents
from storyloop.agents.script import parse_script
from storyloop.archive import Archive
from storyloop.config.layers import Flags
from storyloop.contracts.prompts import TemplatePrompts, read_overrides
from storyloop.core.events import Event
from storyloop.core.facts import CallReport, Failed, Failure, Interrupted, Measured
from storyloop.core.feedback import concerns_of
from storyloop.core.forge import Comment, ForgeTrouble, PullRequest, PullRequestState, PullRequestText, Thread, Trouble
from storyloop.core.progress import Feedback
from storyloop.core.run_state import RunState
from storyloop.engine.crew import Deed, End, Fact, Facts, News, Nudge, Threads
from storyloop.engine.hands import Hands
from storyloop.journal.memory import MemoryJournal
from storyloop.ports.agents import CallOrder, Limited
from storyloop.ports.checks import CheckOrder
from storyloop.ports.repository import Free, Place
from storyloop.preparing import Prepared, prepare
from storyloop.service import Service, Tools
from storyloop.views.account import Account, account_of
from storyloop.views.report import report
from storyloop.wiring import make_service
from storyloop.world.accounts import FileAccounts, MemoryAccounts
from storyloop.world.clock import HandClock
from storyloop.world.memory_forge import MemoryForge
from storyloop.world.memory_repository import MemoryRepository
from storyloop.world.notifier import SilentNotifier
from storyloop.world.papers import MemoryPapers
from storyloop.world.redaction import Redactor
from storyloop.world.symbols import symbols_reader
from storyloop.world.tiny_shell import MemoryChecks

SECRETS = {"DEPLOY_TOKEN": "correct-horse-battery"}  # that the user has in the environment
START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


_STANDS_IN = [StorySaid(id="US-001", criteria=["true"])]  # where the stories are made of feedback


def _spec(journey: Journey) -> dict[str, Any]:
    return {
        "project": "journey",
        "branchName": BRANCH,
        "description": journey.promise,
        "userStories": [
            {
                "id": story.id,
                "title": f"The story {story.id}",
                "description": "As the criteria say.",
                "acceptanceCriteria": [
                    {"text": f"Criterion {n}", "verify": verify} if verify else f"Criterion {n}"
                    for n, verify in enumerate(story.criteria, start=1)
                ],
                "priority": number,
                "passes": story.passes,
                "dependsOn": story.depends_on,
            }
            for number, story in enumerate(journey.story or _STANDS_IN, start=1)
        ],
    }


def _config(journey: Journey, scripts: Path) -> str:
    more = journey.config.get("agents", {})
    agents = {
        name: {"kind": "script", "script": str(scripts / f"{name}.json"), **more.get(name, {})}
        for name in journey.agents
    }
    chains = {"default": list(journey.agents)}
    sandbox = {"mode": "off"}  # in memory there is none: what it stops is undone instead, in both worlds
    said = {"chains": chains, "sandbox": sandbox, "review": {"enabled": False}, **journey.config, "agents": agents}
    return tomlkit.dumps(said)


def _elsewhere(until: datetime) -> Limited:
    return Limited(until=until, reason="another run has met it")


def _script(turns: list[dict[str, Any]]) -> bytes:
    return json.dumps({"turn": turns}).encode()


# --- the world in memory ------------------------------------------------------------------------------------------


class Cut(BaseException):
    """The end of the process, at this very instant."""


class Point(msgspec.Struct, frozen=True):
    """Where a process is cut: at the n-th call of a lane, before it takes effect or after.

    Calls of the writer (the journal) and of the deeds under way may run side by side; each lane's own order is the
    same every time. All deeds are one lane, unless stories are worked on side by side: then each has its own.
    """

    lane: str
    number: int
    name: str  # of the method that is called
    after: bool = False


# Methods that leave the world as it is: a snapshot is a cache, or an object that nothing names yet, and guarding means
# nothing to a repository in memory.
READS = frozenset(
    {"inbox", "read", "load_snapshot", "offer_snapshot", "rows", "has_worktree", "tip", "tree_of", "changes"}
    | {"snapshot"}
    | {"remains", "scratch_refs"}
    | {"edits", "diff", "merged", "limit"}
    | {"contents", "find", "get", "name", "guard", "end_left", "wait", "activity", "now"}
)


class Knife:
    """One process's life: lets its calls through up to a point, and nothing any more behind it."""

    def __init__(self, point: Point | None, passed: Callable[[Point], None]) -> None:
        self._point, self._passed = point, passed
        self._lock = threading.Lock()
        self._counts = Counter[str]()
        self._is_dead = False
        self.doing = ""  # the deed whose turn it is, where they take turns
        self.points: list[Point] = []

    def call(self, lane: str, name: str, deed: Callable[[], Any]) -> Any:
        with self._lock:
            number = self._counts[lane] = self._counts[lane] + 1
            self._pass(Point(lane, number, name))
            done = deed()
            self._pass(Point(lane, number, name, after=True))
            return done

    def _pass(self, point: Point) -> None:
        self.points.append(point)
        self._is_dead = self._is_dead or point == self._point
        if self._is_dead:
            raise Cut(point)
        self._passed(point)


class Sharp:
    """A port whose every call passes a knife."""

    def __init__(self, port: Any, knife: Knife, lane: str, *, many: bool = False) -> None:
        self._port, self._knife, self._lane, self._many = port, knife, lane, many

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._port, name)
        if not callable(inner):
            return inner

        def call(*args: Any, **more: Any) -> Any:
            lane = (self._knife.doing or threading.current_thread().name) if self._many else self._lane
            done = self._knife.call(lane, name, lambda: inner(*args, **more))
            return Sharp(done, self._knife, self._lane, many=self._many) if name in ("launch", "adopt") else done

        return call


class Workers:
    """In-memory agents that are still at work when they are first looked at; what they were told is remembered."""

    def __init__(self, agents: MemoryAgents, papers: MemoryPapers) -> None:
        self._agents, self._papers = agents, papers
        self.launched: list[str] = []
        self.unready: list[str] = []  # of these, the calls of agents that a human would have to help first
        self.told: dict[str, tuple[str, str]] = {}  # prompt, and the file beside it

    def launch(self, order: CallOrder) -> "_AtWork":
        watch = self._agents.launch(order)
        name = Path(order.call_dir).name
        self.launched.append(name)
        outcome = watch.wait(0).outcome
        if isinstance(outcome, Failed) and outcome.failure in (Failure.AUTH, Failure.MISSING):
            self.unready.append(name)
        self.told[name] = order.prompt, order.background
        return _AtWork(self._agents, order, watch)

    def adopt(self, order: CallOrder) -> "_AtWork":
        return _AtWork(self._agents, order, self._agents.adopt(order))


class _AtWork:
    def __init__(self, agents: MemoryAgents, order: CallOrder, watch: Any) -> None:
        self._agents, self._order, self._watch = agents, order, watch
        self._looks = 0

    def wait(self, seconds: float) -> CallReport | None:
        self._looks += 1
        return None if self._looks == 1 else self._watch.wait(seconds)

    def stop(self) -> None:
        """Ended in mid-turn: so says whoever adopts it, too."""
        if self._order.call_dir in self._agents.calls:
            report = CallReport(outcome=Interrupted(reason="We stopped the agent."))
            self._agents.calls[self._order.call_dir] = report
            self._watch = self._agents.adopt(self._order)

    def activity(self) -> Any:
        return self._watch.activity()


class _Checks:
    """In-memory checks, with understudies for what the tiny shell cannot play."""

    def __init__(self, checks: MemoryChecks, understudies: Mapping[str, Understudy]) -> None:
        self._checks, self._understudies = checks, understudies

    def run(self, order: CheckOrder, stop: threading.Event) -> Measured | None:
        understudy = self._understudies.get(order.command.run)
        if understudy is None:
            return self._checks.run(order, stop)
        again = order.check_dir.endswith(".2")
        measured = self._line(understudy.again if again else understudy.line, order, stop)
        if measured is None or not understudy.when:
            return measured
        guard = self._line(understudy.when, order, stop)
        if guard is None or guard.exit_status != 0:
            return guard and measured
        return replace(measured, ending=understudy.ending, exit_status=None, reason=understudy.reason)

    def end_left(self, run_dir: str) -> None:
        self._checks.end_left(run_dir)

    def _line(self, line: str, order: CheckOrder, stop: threading.Event) -> Measured | None:
        return self._checks.run(replace(order, command=replace(order.command, run=line)), stop)


class InTurn:
    """A crew without threads, whose switching would take most of the time: each deed in turn comes to its next fact."""

    def __init__(self, knife: Knife) -> None:
        self._knife = knife
        self._under_way: list[tuple[Deed, Facts]] = []
        self._nudges = 0

    def begin(self, deed: Deed, facts: Facts) -> None:
        self._under_way.append((deed, facts))

    def news(self, seconds: float) -> News:  # noqa: ARG002 - there is nothing to wait for
        if self._nudges:
            self._nudges -= 1
            return Nudge()
        deed, facts = self._under_way.pop(0)
        self._knife.doing = deed.effect.key
        error: BaseException | None = None
        try:
            if not deed.is_late:
                fact = Fact(deed, next(facts))
                self._under_way.append((deed, facts))
                return fact
        except StopIteration:
            pass
        except BaseException as problem:  # noqa: BLE001 - the writer raises it
            error = problem
        facts.close()
        return End(deed, error)

    def go_on(self, deed: Deed) -> None:
        """It does when its turn has come."""

    def nudge(self) -> None:
        self._nudges += 1

    def disband(self) -> None:
        for deed, facts in self._under_way:
            deed.stop.set()
            facts.close()


class _Held:
    """A lock that the process's end lets go of."""

    def __init__(self) -> None:
        self.held = False

    def acquire(self) -> int | None:
        if self.held:
            return os.getpid()
        self.held = True
        return None

    def release(self) -> None:
        self.held = False


class _MemoryCheckout:
    """The user's checkout: settings and spec are files of the test's directory, the rest is in memory."""

    warnings = ()
    head_branch = "main"

    def __init__(self, root: Path, repository: MemoryRepository) -> None:
        self.root = self.main_root = str(root)
        self.identity, self.head = repository.identity, repository.base
        self.head_tree = repository.tree_of(repository.base)

    def branch(self, name: str) -> Free:  # noqa: ARG002 - nothing is in its way
        return Free()

    def worktree_path(self, pattern: str, branch: str) -> str:  # noqa: ARG002
        return "/memory/worktree"


def _nothing(_: Point) -> None:
    """Nobody wants to know."""


def twin_of(play: Play) -> Play:
    """The same play in the same world once more, as both are now; what becomes of the one does not touch the other."""
    world = play.world
    assert isinstance(world, MemoryWorld)
    shared = {id(one): one for one in (play.journey, world.prepared_run, *world.knives)}
    return _twin(play, shared | {id(world.passed): _nothing, id(world.cuts): {}})


def _twin(thing: Any, known: dict[int, Any]) -> Any:
    kind = type(thing)
    if id(thing) in known or not _can_change(kind):
        return known.get(id(thing), thing)
    if isinstance(thing, MethodType):
        return getattr(_twin(thing.__self__, known), thing.__name__)
    twin = known[id(thing)] = copy(thing)
    match twin:
        case dict():
            twin.update({key: _twin(value, known) for key, value in thing.items()})
        case list():
            twin[:] = [_twin(one, known) for one in thing]
        case set():
            pass
        case _:
            for name in kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else vars(thing):
                setattr(twin, name, _twin(getattr(thing, name), known))
    return twin


def likeness_of(play: Play) -> Hashable:
    """Equal for plays that stand alike in worlds that are alike, whatever time it is and what commands have printed."""
    world = play.world
    assert isinstance(world, MemoryWorld)
    besides = (world.clock, world.checks, world.knives, world.passed, world.cuts)
    return _likeness(play, {id(one): 0 for one in besides})


def _likeness(thing: Any, known: dict[int, int]) -> Hashable:
    kind = type(thing)
    if id(thing) in known:
        return known[id(thing)]
    if isinstance(thing, MethodType) or not _can_change(kind):
        return thing if kind.__hash__ in _BY_VALUE else id(thing)
    known[id(thing)] = len(known)
    match thing:
        case dict():
            return frozenset((key, _likeness(value, known)) for key, value in thing.items())
        case list():
            return tuple(_likeness(one, known) for one in thing)
        case set():
            return frozenset(thing)
        case _:
            names = kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else vars(thing)
            return tuple(_likeness(getattr(thing, name), known) for name in names)


_BY_VALUE = {kind.__hash__ for kind in (str, bytes, int, float, type(None))}


@cache
def _can_change(kind: type) -> bool:
    """Whether a value of this kind may be another one later."""
    if issubclass(kind, msgspec.Struct):
        return not kind.__struct_config__.frozen
    if is_dataclass(kind):
        return kind.__hash__ is None  # those that are frozen have one
    return issubclass(kind, dict | list | set | MethodType) or (
        bool(kind.__dictoffset__) and not issubclass(kind, FunctionType | Enum)
    )


class MemoryWorld:
    """All of it in this process. It outlives every cut; each `service` is a new process in it."""

    def __init__(self, journey: Journey, home: Path, *, step: float = 0.0, threads: bool = True) -> None:
        self._journey, self.home, self._threads = journey, home, threads
        self.prepared_run: Prepared | None = None
        self._ids = 0
        self.knives: list[Knife] = []  # of every process so far
        self.cuts: dict[int, Point] = {}  # where the processes with these numbers are cut
        self.passed: Callable[[Point], None] = _nothing  # sees every instant at which one could have been cut
        self.clock = HandClock(START, step=step)
        self.repository = MemoryRepository({path: text.encode() for path, text in journey.files.items()})
        self.trouble: dict[str, Trouble] = {}  # by what is asked: of the forge, or `push`
        if journey.remote:
            self.repository.remotes["origin"] = {"main": self.repository.base}
        self.repository.before_push = self._met_by_push
        self.forge = MemoryForge(self._remote_tip, before=self._met)
        if journey.said:
            self._opened_pull_request()
        self.journal = MemoryJournal()
        self.papers = MemoryPapers()
        self.accounts = MemoryAccounts()
        self.scripts = {
            name: parse_script(_script(turns), name=f"{name}.json") for name, turns in journey.agents.items()
        }
        self.archive = Archive(self.journal, home, lambda _: None)  # to look at what no process does
        agents = MemoryAgents(self.scripts, files_of=self.repository.files, now=self.clock.now)
        self.workers = Workers(agents, self.papers)
        self.checks = _Checks(MemoryChecks(self.repository.files), journey.shell)

    def service(self) -> Service:
        self.accounts.free_seats()
        knife = Knife(self.cuts.get(len(self.knives)), self.passed)
        self.knives.append(knife)
        locks, many = defaultdict[Path, _Held](_Held), self._journey.width > 1

        def hands(place: Place, state: RunState) -> Hands:  # noqa: ARG001
            return Hands(
                clock=Sharp(self.clock, knife, "world", many=many),
                repository=Sharp(self.repository, knife, "world", many=many),
                agents=Sharp(self.workers, knife, "world", many=many),
                checks=Sharp(self.checks, knife, "world", many=many),
                prompts=_PROMPTS,
                papers=Sharp(self.papers, knife, "world", many=many),
                accounts=Sharp(self.accounts, knife, "world", many=many),
                secrets=Redactor(SECRETS),
                symbols=symbols_reader,
                place=place,
                forge=lambda: Sharp(self.forge, knife, "world"),
                report=lambda state, last: report(state, self._account(state, last), self.clock.now()),
            )

        return Service(
            Tools(
                home=self.home / "state",
                environ={"HOME": str(self.home)},
                clock=self.clock,
                journal=Sharp(self.journal, knife, "journal"),
                survey=lambda cwd: _MemoryCheckout(cwd, self.repository),
                hands=hands,
                crew=Threads if self._threads else lambda: InTurn(knife),
                templates=read_overrides,
                lock=locks.__getitem__,
                holder=lambda _: None,
                absent_program=lambda _: None,
                uncounted=lambda _ref, _agent: frozenset(),
                absent_word=lambda _line, _root: None,
                held_by=lambda _: "nothing",
                notifier=lambda _: SilentNotifier(),
                secrets=Redactor(SECRETS),
                forge=lambda _url, _policy: self.forge,
                sweep=list,
                at_work=lambda _: False,
                new_id=self._new_id,
            )
        )

    def _new_id(self) -> str:
        self._ids += 1
        return f"run-{self._ids}"

    def _account(self, state: RunState, last: Event) -> Account:
        return account_of([*(event for _, event in self.archive.events(state.run_id)), last])

    def prepared(self, service: Service, flags: Flags) -> Prepared:
        if self.prepared_run is None:
            self.prepared_run = _prepare(self._journey, service, self.home / "checkout", self.home, flags)
            if self._journey.said:
                self.prepared_run = self._on_feedback(self.prepared_run)
        return self.prepared_run

    def _on_feedback(self, prepared: Prepared) -> Prepared:
        """As a run on what is said of the pull request."""
        concerns = concerns_of(tuple(self.forge.said[1]), commit=self.repository.base)
        feedback = Feedback(
            number=1, url="https://forge.example/1", base="", concerns=concerns, watch=self._journey.watch
        )
        spec = replace(prepared.spec, user_stories=())
        return replace(prepared, feedback=feedback, spec=spec)

    def history(self) -> list[tuple[str, dict[str, bytes]]]:
        return self.repository.dump()[BRANCH][::-1]

    def pinned(self, ref: str) -> dict[str, bytes]:
        return self.repository.tree_files(self.repository.tree_of(self.repository.refs[ref]))

    def worktree(self, state: RunState) -> dict[str, bytes]:
        return dict(self.repository.files(state.going.worktree))

    def handover(self, state: RunState) -> bool:
        return state.going.worktree in self.papers.handovers

    def delete(self, state: RunState) -> None:
        place = Place(run_id="", worktree=state.going.worktree, branch="", run_dir="")
        self.repository.close_worktree(place)

    def put(self, state: RunState, path: str, text: str) -> None:
        self.repository.files(state.going.worktree)[path] = text.encode()

    def turns(self, agent: str, turns: list[dict[str, Any]]) -> None:
        self.scripts[agent] = parse_script(_script(turns), name=f"{agent}.json")

    def later(self, seconds: float) -> None:
        self.clock.wait_until(self.clock.now() + timedelta(seconds=seconds), threading.Event())

    def limit(self, account: str, seconds: float) -> None:
        self.accounts.learn(account, None, _elsewhere(self.clock.now() + timedelta(seconds=seconds)))

    def happen(self, act: Act) -> None:
        match act.do:
            case "push":
                self.repository.remotes["origin"][act.path] = self.repository.base[::-1]
            case "say":
                self._say(act.path, act.text)
            case "trouble" if act.text:
                self.trouble[act.path] = Trouble(act.text)
            case "trouble":
                self.trouble.pop(act.path)
            case _:
                state = PullRequestState.CLOSED if act.do == "close" else PullRequestState.MERGED
                self.forge.end(len(self.forge.pull_requests), state)

    def _opened_pull_request(self) -> None:
        self.repository.remotes["origin"] = {"main": self.repository.base, BRANCH: self.repository.base}
        text = PullRequestText(title="Sell more", body="All of it.")
        self.forge.create(text, head=BRANCH, base="main", draft=False)
        for said in self._journey.said:
            self._say(said.file, said.text)

    def _say(self, file: str, text: str) -> None:
        threads = self.forge.said.setdefault(1, [])
        said = Comment(id=f"{len(threads)}", author="ada", text=text)
        threads.append(Thread(id=f"t{len(threads)}", file=file, line=1, comments=(said,), resolvable=True))

    def threads(self) -> list[str]:
        return [
            f"{len(thread.comments)} {re.sub('[0-9a-f]{40}', '0000', thread.comments[-1].text.splitlines()[0])}"
            + " (resolved)" * (thread.id in self.forge.resolved)
            for thread in self.forge.said.get(1, [])
        ]

    def _met_by_push(self) -> None:
        self._met("push")

    def _met(self, call: str) -> None:
        if call in self.trouble:
            raise ForgeTrouble(self.trouble[call], f"There is trouble with {call}.", "Let it pass.")

    def _remote_tip(self, branch: str) -> str:
        return self.remote_commits().get(branch, "")

    def remote_commits(self) -> dict[str, str]:
        return self.repository.remotes.get("origin", {})

    def pull_requests(self) -> list[PullRequest]:
        return self.forge.pull_requests

    def remote(self) -> dict[str, str]:
        theirs = {self.repository.base[::-1]: "somebody else's"}
        return {
            branch: theirs.get(commit) or self.repository.describe(commit)[2].splitlines()[0]
            for branch, commit in self.remote_commits().items()
        }

    def told(self, call: str) -> tuple[str, str]:
        return self.workers.told[call]

    def report(self, state: RunState) -> str:
        return self.papers.reports.get(state.run_id, "")


_PROMPTS = TemplatePrompts()


def _prepare(journey: Journey, service: Service, checkout: Path, home: Path, flags: Flags) -> Prepared:
    checkout.mkdir(exist_ok=True)
    (checkout / "storyloop.toml").write_text(_config(journey, home))
    spec = home / ("idea.md" if journey.brief else "spec.json")
    spec.write_text(journey.brief or json.dumps(_spec(journey)))
    return prepare(service, spec, checkout, flags=flags)


# --- the real world ---------------------------------------------------------------------------------------------------


class RealWorld:
    """Real git, real processes, a real journal, below one directory."""

    def __init__(self, journey: Journey, home: Path) -> None:
        self._journey, self._home = journey, home
        self._repository = home / "repository"
        self._git_env = isolated(home / "user")
        make_repository(self._repository, journey.files, env=self._git_env)
        for agent, turns in journey.agents.items():
            self.turns(agent, turns)
        self.archive = self._service = make_service({**self._git_env, **SECRETS, "STORYLOOP_HOME": str(home / "state")})
        self._run_dir = Path()

    def service(self) -> Service:
        return self._service

    def prepared(self, service: Service, flags: Flags) -> Prepared:
        return _prepare(self._journey, service, self._repository, self._home, flags)

    def history(self) -> list[tuple[str, dict[str, bytes]]]:
        told = git(self._repository, "log", "--reverse", "-z", "--format=%H%n%B", BRANCH, env=self._git_env)
        commits = (one.split("\n", 1) for one in told.split("\0")[:-1])
        return [(text, files_of(self._repository, commit, env=self._git_env)) for commit, text in commits]

    def pinned(self, ref: str) -> dict[str, bytes]:
        return files_of(self._repository, ref, env=self._git_env)

    def worktree(self, state: RunState) -> dict[str, bytes]:
        root = Path(state.going.worktree)
        found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
        return {str(path): (root / path).read_bytes() for path in found if path.parts[0] not in (".git", ".storyloop")}

    def handover(self, state: RunState) -> bool:
        return Path(state.going.worktree, ".storyloop", "handover.md").exists()

    def delete(self, state: RunState) -> None:
        shutil.rmtree(state.going.worktree)

    def put(self, state: RunState, path: str, text: str) -> None:
        write_file(Path(state.going.worktree, path), text)

    def turns(self, agent: str, turns: list[dict[str, Any]]) -> None:
        (self._home / f"{agent}.json").write_bytes(_script(turns))

    def later(self, seconds: float) -> None:
        time.sleep(seconds)

    def limit(self, account: str, seconds: float) -> None:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        FileAccounts(self._home / "state").learn(account, None, _elsewhere(until))

    def happen(self, act: Act) -> None:
        raise AssertionError(act.do)

    def pull_requests(self) -> list[PullRequest]:
        return []

    def remote(self) -> dict[str, str]:
        return {}

    def threads(self) -> list[str]:
        return []

    def told(self, call: str) -> tuple[str, str]:
        (found,) = (self._home / "state" / "runs").glob(f"*/calls/{call}/prompt")
        beside = found.with_name("background.md")
        return found.read_text(), beside.read_text() if beside.exists() else ""

    def report(self, state: RunState) -> str:
        path = self._service.report_file(state.run_id)
        return "" if path is None else Path(path).read_text()
