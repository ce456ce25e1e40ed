"""The sandbox: what an agent or a check can reach, tried by real processes in a real fence; and that it still ends."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gitkit import git, isolated, make_repository, write_file
from storyloop.agents.processes import ProcessAgents
from storyloop.core.errors import UserError
from storyloop.core.facts import Ending
from storyloop.core.policy import AgentKind, AgentRef, AgentSpec, Command, Drain, SandboxMode, SandboxPolicy
from storyloop.ports.agents import CallOrder
from storyloop.ports.checks import CheckOrder
from storyloop.world import sandbox
from storyloop.world.checks import SupervisedChecks
from storyloop.world.environment import allowed_environment
from storyloop.world.process import Exit, Lost, Order, Supervised, launch, spools
from storyloop.world.sandbox import Fence, Fencing, environment, held_by, prefix

REASON = sandbox.why_not()
works = pytest.mark.skipif(REASON is not None, reason=f"no sandbox on this machine: {REASON}")
AUTO = SandboxPolicy()


class Yard:
    """A user with a home, a repository, a remote and a worktree of a run; and calls in its fence."""

    def __init__(self, root: Path) -> None:
        self.root, self.home, self.checkout = root, root / "home", root / "repo"
        self.worktree, self.state = root / "repo-wt", root / "home" / "state"
        self.environ = isolated(self.home) | {"SSH_AUTH_SOCK": "/nowhere"}
        for name in (".ssh/id", ".netrc", ".claude/login", ".codex/login", "state/journal"):
            write_file(self.home / name, "opens doors")
        make_repository(self.checkout, {"a.txt": "one\n", ".gitignore": ".storyloop\n"}, env=self.environ)
        git(root, "init", "--quiet", "--bare", "remote.git", env=self.environ)
        git(self.checkout, "remote", "add", "origin", str(root / "remote.git"), env=self.environ)
        git(self.checkout, "worktree", "add", "--quiet", "-b", "run", str(self.worktree), env=self.environ)
        self.calls = 0
        self.watched: list[Supervised] = []

    def fencing(self) -> Fencing:
        return Fencing(
            self.environ,
            state=self.state,
            git_dir=str(self.checkout / ".git"),
            agent_homes=[self.home / ".claude", self.home / ".codex"],
        )

    def fence(
        self, policy: SandboxPolicy = AUTO, *, network: bool = True, homes: tuple[str, ...] = (".claude",)
    ) -> Fence | None:
        return self.fencing().around(
            str(self.worktree), policy, network=network, homes=[self.home / home for home in homes]
        )

    def start(self, *argv: str, fence: Fence | None, term_grace: float = 2.0, deadline: float = 20.0) -> Supervised:
        self.calls += 1
        extra = environment(fence) if fence else {}
        watched = launch(
            Order(
                call_dir=self.root / "calls" / str(self.calls),
                argv=argv,
                fence=prefix(fence) if fence else (),
                cwd=self.worktree,
                env=allowed_environment(self.environ, extra=extra, pass_env=("SSH_AUTH_SOCK", "GIT_CONFIG_NOSYSTEM")),
                stdin=None,
                deadline=deadline,
                term_grace=term_grace,
            )
        )
        self.watched.append(watched)
        return watched

    def run(self, script: str, *, fence: Fence | None) -> tuple[int | None, str]:
        """The exit status and everything that it printed."""
        watched = self.start("sh", "-c", script, fence=fence)
        ended = watched.wait(30)
        assert isinstance(ended, Exit)
        assert ended.how == "exited", ended
        return ended.code, "".join(spool.read_text() for spool in spools(watched.call_dir))

    def outside(self) -> dict[str, bytes]:
        """Every file that is not for the fenced to write."""
        found: dict[str, bytes] = {}
        for above, _, files in os.walk(self.root):
            place = Path(above)
            if not place.is_relative_to(self.root / "calls") and not place.is_relative_to(self.worktree):
                found |= {str(place / name): (place / name).read_bytes() for name in files}
        git_file = self.worktree / ".git"
        return found | {"registration": git_file.read_bytes() if git_file.is_file() else b"gone"}


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path)
    yield yard
    for watched in yard.watched:
        if watched.wait(0) is None:
            watched.stop()
            watched.stop()
            watched.wait()
        watched.close()


@pytest.fixture
def fence(yard: Yard) -> Fence:
    """What an agent whose home is `~/.claude` is put into."""
    fence = yard.fence()
    assert fence is not None
    return fence


def ends(watched: Supervised) -> Exit:
    ended = watched.wait(30)
    assert isinstance(ended, Exit)
    return ended


def comes(is_so: Callable[[], bool]) -> bool:
    until = time.monotonic() + 30
    while not is_so() and time.monotonic() < until:
        time.sleep(0.02)
    return is_so()


ESCAPES = {
    "write into the home": "echo x > $HOME/new",
    "write into the checkout": "echo x > ../repo/a.txt",
    "take another agent's login": "echo x > $HOME/.codex/login",
    "commit": "echo x > a.txt; git commit -qam mine",
    "move the branch": "git update-ref refs/heads/run $(git commit-tree -m x HEAD^{tree})",
    "move somebody's branch": "git branch -f main HEAD^{tree} || git branch other",
    "push": "git push -q origin HEAD:refs/heads/gift",
    "write a hook": "printf '#!/bin/sh\\n' > ../repo/.git/hooks/pre-commit",
    "change the config": "git config core.fsmonitor /bin/false",
    "change the worktree's own config": "git config extensions.worktreeConfig true",
    "replace the .git file": "rm .git; echo x > .git",
    "move the .git file away": "mv .git git",
    "make .git a repository": "rm .git && git init -q",
    "delete the worktree": "rm -rf $PWD; test ! -d $PWD",
    "move the worktree": "mv $PWD $PWD-away",
    "write our journal": "echo x > $HOME/state/journal",
}


@works
@pytest.mark.parametrize("escape", ESCAPES)
def test_what_stands_outside_of_the_fence_cannot_be_changed_from_inside(yard: Yard, fence: Fence, escape: str) -> None:
    """Each deed fails, and every file outside is as it was."""
    before = yard.outside()
    code, said = yard.run(ESCAPES[escape], fence=fence)
    assert code != 0, said
    assert yard.outside() == before


@pytest.mark.parametrize("escape", ESCAPES)
def test_each_of_these_deeds_would_have_succeeded_without_a_fence(yard: Yard, escape: str) -> None:
    """Else the test above would prove nothing."""
    before = yard.outside()
    code, said = yard.run(ESCAPES[escape], fence=None)
    assert code == 0, said
    assert yard.outside() != before


@works
@pytest.mark.parametrize(
    "path", [".ssh/id", ".netrc", ".codex/login", "state/journal"], ids=["directory", "file", "other agent", "ours"]
)
def test_secrets_and_what_is_ours_cannot_be_read(yard: Yard, fence: Fence, path: str) -> None:
    """Neither keys, nor the login of another agent, nor the journal of every run."""
    _, said = yard.run(f"cat $HOME/{path}", fence=fence)
    assert "opens doors" not in said
    assert yard.run(f"cat $HOME/{path}", fence=None)[1] == "opens doors"


@works
def test_an_agent_reads_and_writes_its_own_home(yard: Yard, fence: Fence) -> None:
    """Its login is there, and its sessions stay."""
    code, said = yard.run("cat $HOME/.claude/login && echo s > $HOME/.claude/session", fence=fence)
    assert (code, said) == (0, "opens doors")
    assert (yard.home / ".claude" / "session").read_text() == "s\n"


@works
def test_the_home_of_an_agent_is_made_where_it_is_missing(yard: Yard) -> None:
    """An agent that was never started here can start."""
    fence = yard.fence(homes=(".config/mine", ".mine.json", ".mine.json.lock"))
    code, said = yard.run(
        "cat $HOME/.mine.json; echo s | tee $HOME/.config/mine/session > $HOME/.mine.json", fence=fence
    )
    assert (code, said) == (0, "{}\n")
    assert (yard.home / ".config" / "mine").stat().st_mode & 0o777 == 0o700
    assert (yard.home / ".mine.json").read_text() == "s\n"
    assert not (yard.home / ".mine.json.lock").exists()  # made, it would lock for ever


@works
def test_work_goes_on_inside(yard: Yard, fence: Fence) -> None:
    """Files of the worktree, our private directory, temporary files, and git for reading."""
    script = """
        set -e
        echo two > a.txt; rm .gitignore; mkdir -p sub .storyloop; echo x > sub/new; echo x > .storyloop/artifact.xml
        mktemp; git status --short; git diff --stat; git log --oneline | wc -l
    """
    code, said = yard.run(script, fence=fence)
    assert code == 0, said
    assert " M a.txt" in said
    assert (yard.worktree / ".storyloop" / "artifact.xml").read_text() == "x\n"
    assert git(yard.worktree, "status", "--short", env=yard.environ).splitlines() == [
        " D .gitignore",
        " M a.txt",
        "?? .storyloop/",
        "?? sub/",
    ]


@works
def test_package_managers_keep_their_caches_with_us(yard: Yard, fence: Fence) -> None:
    """The next call finds them, and the user's own caches are left alone."""
    for name in ("XDG_CACHE_HOME", "CARGO_HOME", "GOCACHE", "GOMODCACHE", "npm_config_cache", "PIP_CACHE_DIR"):
        code, said = yard.run(f"mkdir -p ${name} && echo {name} > ${name}/kept", fence=fence)
        assert code == 0, said
    _, said = yard.run("cat $CARGO_HOME/kept $GOCACHE/kept", fence=yard.fence(homes=()))
    assert said == "CARGO_HOME\nGOCACHE\n"
    assert not (yard.home / ".cache").exists()


@works
def test_tmp_is_private_and_run_holds_no_sockets(yard: Yard, fence: Fence) -> None:
    """What others keep there is not seen, though home and worktree of this test lie below `/tmp`."""
    mine = Path("/tmp", f"storyloop-test-{os.getpid()}")
    mine.write_text("x")
    try:
        code, _ = yard.run(f"test ! -e {mine} && test ! -e /run/user && test ! -e /run/docker.sock", fence=fence)
    finally:
        mine.unlink()
    assert code == 0
    assert yard.run("echo x > ../beside", fence=fence)[0] == 0  # in a `/tmp` that nobody else sees
    assert not (yard.root / "beside").exists()


@works
def test_what_the_user_lists_may_be_written_but_secrets_in_it_stay_hidden(yard: Yard) -> None:
    """The deeper path counts, and a secret that is listed itself is wanted."""
    wide = yard.fence(SandboxPolicy(writable=("~", "relative", "")))
    assert yard.run("echo x > $HOME/new && cat $HOME/.ssh/id", fence=wide)[0] == 1
    assert (yard.home / "new").exists()
    exact = yard.fence(SandboxPolicy(writable=(str(yard.home / ".netrc"),)))
    assert yard.run("cat $HOME/.netrc", fence=exact) == (0, "opens doors")


@works
def test_a_link_to_a_secret_leads_nowhere(yard: Yard) -> None:
    """A user who keeps keys elsewhere and links to them hides them there, too."""
    write_file(yard.home / "vault" / "credentials", "opens doors")
    (yard.home / ".aws").symlink_to(yard.home / "vault")
    script = "cat $HOME/.aws/credentials $HOME/vault/credentials"
    assert "opens doors" not in yard.run(script, fence=yard.fence())[1]


@works
def test_no_way_to_ask_the_users_ssh_agent(yard: Yard, fence: Fence) -> None:
    """Even where its address was passed on."""
    assert yard.run('echo "<$SSH_AUTH_SOCK>"', fence=fence)[1] == "<>\n"
    assert yard.run('echo "<$SSH_AUTH_SOCK>"', fence=None)[1] == "</nowhere>\n"


@works
def test_processes_inside_see_none_outside(yard: Yard, fence: Fence) -> None:
    """So they end neither Storyloop nor their supervisor."""
    code, said = yard.run(f"kill -0 {os.getpid()}; ls /proc | grep -c '^[0-9]'", fence=fence)
    assert code == 0
    assert "No such process" in said
    assert int(said.split()[0]) <= 6


@works
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
def test_root_inside_mounts_nothing_anew(yard: Yard, fence: Fence) -> None:
    """A root with its capabilities would make everything writable again."""
    for words in ("-o remount,rw /", "-o remount,bind,rw $HOME", "--bind /proc/1/root $PWD"):
        assert yard.run(f"mount {words}", fence=fence)[0] != 0
    assert yard.run("umount $HOME/.ssh || umount -l $PWD/.git", fence=fence)[0] != 0


@works
@pytest.mark.parametrize(("network", "code"), [(True, 0), (False, 1)])
def test_the_network_is_there_or_not(yard: Yard, network: bool, code: int) -> None:
    """Cut off, not even a server on this machine is reached."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = yard.start(
            *(sys.executable, "-c", f"import socket; socket.create_connection({server.getsockname()!r}, 2)"),
            fence=yard.fence(network=network),
        )
        assert ends(done).code == code


@works
@pytest.mark.parametrize(
    ("script", "how", "code", "number"),
    [
        ("exit 0", "exited", 0, None),
        ("exit 7", "exited", 7, None),
        ("exit 129", "exited", 129, None),  # what git says of a wrong usage
        ("kill -9 $$", "signalled", None, 9),
        ("kill -15 $$", "exited", 143, None),  # a shell would tell it so, and many programs do
    ],
)
def test_the_exit_status_comes_through(
    yard: Yard, fence: Fence, script: str, how: str, code: int | None, number: int | None
) -> None:
    """Of a signal only one that no program ends itself with."""
    ended = ends(yard.start("sh", "-c", script, fence=fence))
    assert (ended.how, ended.code, ended.signal) == (how, code, number)


@works
@pytest.mark.parametrize("program", ["no-such-agent", "./no-such-agent", "/no/such/agent"])
def test_a_missing_program_is_told_as_without_a_fence(yard: Yard, fence: Fence, program: str) -> None:
    """It failed to start, and it is to blame; it did not end with some exit status."""
    fenced, plain = (ends(yard.start(program, fence=around)) for around in (fence, None))
    assert (fenced.how, fenced.blamed, fenced.errno) == ("failed_to_start", "command", 2)
    assert (plain.how, plain.blamed, plain.errno) == (fenced.how, fenced.blamed, fenced.errno)


@works
def test_a_stopped_agent_has_its_grace_to_save_its_work(yard: Yard, fence: Fence) -> None:
    """SIGTERM goes to the agent, not to the fence, and its own exit status is told."""
    script = "trap 'sleep 0.5; echo saved > saved; exit 9' TERM; echo up > up; while :; do sleep 0.05; done"
    watched = yard.start("sh", "-c", script, fence=fence)
    assert comes((yard.worktree / "up").exists)
    watched.stop()
    ended = ends(watched)
    assert (ended.how, ended.code, ended.leftovers) == ("stopped", 9, 0)
    assert (yard.worktree / "saved").exists()


@works
def test_an_agent_that_will_not_end_is_killed_with_its_whole_tree(yard: Yard, fence: Fence) -> None:
    """Deaf to SIGTERM, in sessions of their own, twice forked: nothing survives."""
    script = "trap '' TERM; (setsid sh -c 'sleep 60; :' &) ; echo up > up; while :; do sleep 1; done"
    watched = yard.start("sh", "-c", script, fence=fence, term_grace=0.3)
    whole = 5  # bubblewrap, its init, the agent, and two that sleep
    assert comes(lambda: len(psutil.Process(watched.pid).children(recursive=True)) >= whole)
    tree = psutil.Process(watched.pid).children(recursive=True)
    watched.stop()
    assert ends(watched).survivors == 0
    assert not any(process.is_running() for process in tree)


@works
def test_what_an_agent_leaves_behind_ends_with_it(yard: Yard, fence: Fence) -> None:
    """At once, and its exit status is its own."""
    watched = yard.start("sh", "-c", "setsid sleep 60 & echo up > up; sleep 0.3; exit 3", fence=fence)
    assert comes((yard.worktree / "up").exists)
    tree = psutil.Process(watched.pid).children(recursive=True)
    ended = ends(watched)
    assert (ended.how, ended.code, ended.survivors) == ("exited", 3, 0)
    assert not any(process.is_running() for process in tree)


@works
def test_a_fenced_tree_dies_with_its_supervisor(yard: Yard, fence: Fence) -> None:
    """kill -9 of the supervisor is the end of everything inside, without anybody who sweeps."""
    watched = yard.start("sh", "-c", "setsid sleep 60 & echo up > up; sleep 60", fence=fence)
    assert comes((yard.worktree / "up").exists)
    tree = psutil.Process(watched.pid).children(recursive=True)
    os.kill(watched.pid, signal.SIGKILL)
    assert comes(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in tree))
    ended = watched.wait(30)
    assert isinstance(ended, Lost)
    assert ended.swept == ()


@works
def test_the_deadline_holds_inside_of_a_fence(yard: Yard, fence: Fence) -> None:
    """The limits are those of any call."""
    assert ends(yard.start("sleep", "60", fence=fence, deadline=0.3, term_grace=0.2)).how == "deadline"


@works
def test_two_fences_stand_side_by_side(yard: Yard, fence: Fence) -> None:
    """Each agent has a `/tmp` of its own."""
    codes: list[int | None] = []
    script = "test ! -e /tmp/mine && echo x > /tmp/mine && sleep 0.3"
    both = [
        threading.Thread(target=lambda watched: codes.append(ends(watched).code), args=[watched])
        for watched in (yard.start("sh", "-c", script, fence=fence), yard.start("sh", "-c", script, fence=fence))
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert codes == [0, 0]


# --- agents and checks --------------------------------------------------------------------------------


def order_for_agent(yard: Yard, line: str, **settings: Any) -> CallOrder:
    plain: dict[str, Any] = {
        "run_id": "run-1",
        "key": "US-001/1/story/0/1",
        "call_dir": str(yard.root / "calls" / "agent"),
        "worktree": str(yard.worktree),
        "ref": AgentRef("mine"),
        "agent": AgentSpec(kind=AgentKind.COMMAND, command=("sh", "-c", line)),
        "drain": Drain.STORY,
        "story": "US-001",
        "attempt": 0,
        "call": 1,
        "mode": "fresh",
        "session": None,
        "prompt": "Do it.",
        "call_timeout": 20.0,
        "idle_timeout": 20.0,
        "orphan_grace": 1.0,
    }
    return CallOrder(**(plain | settings))


def order_for_check(yard: Yard, line: str, **settings: Any) -> CheckOrder:
    plain: dict[str, Any] = {
        "check_dir": str(yard.root / "calls" / "check"),
        "run_dir": str(yard.root / "calls"),
        "worktree": str(yard.worktree),
        "command": Command(run=line),
        "timeout": 20.0,
    }
    return CheckOrder(**(plain | settings))


TRESPASS = "echo x > in; echo x > ../repo/a.txt"


@works
@pytest.mark.parametrize("policy", [AUTO, SandboxPolicy(mode=SandboxMode.OFF)], ids=["auto", "off"])
def test_an_agent_is_held_when_its_order_says_so(yard: Yard, policy: SandboxPolicy) -> None:
    """Whatever kind of agent it is."""
    agents = ProcessAgents(yard.environ, fencing=yard.fencing())
    report = agents.launch(order_for_agent(yard, TRESPASS, sandbox=policy)).wait(20)
    assert report is not None
    assert (yard.worktree / "in").exists()
    assert (yard.checkout / "a.txt").read_text() == ("one\n" if policy == AUTO else "x\n")


@works
@pytest.mark.parametrize("policy", [AUTO, SandboxPolicy(mode=SandboxMode.OFF)], ids=["auto", "off"])
def test_a_check_is_held_when_its_order_says_so(yard: Yard, policy: SandboxPolicy) -> None:
    """It runs what agents have written."""
    checks = SupervisedChecks(yard.environ, fencing=yard.fencing())
    measured = checks.run(order_for_check(yard, TRESPASS, sandbox=policy), threading.Event())
    assert measured is not None
    assert (yard.worktree / "in").exists()
    assert (yard.checkout / "a.txt").read_text() == ("one\n" if policy == AUTO else "x\n")
    assert (measured.ending, measured.exit_status == 0) == (Ending.EXITED, policy != AUTO)


@works
def test_a_check_whose_fence_cannot_be_raised_is_not_red(yard: Yard) -> None:
    """It tells nothing about the work, so it is not measured, and bubblewrap's words say why."""
    policy = SandboxPolicy(writable=(f"/proc/{os.getpid()}/fdinfo",))
    checks = SupervisedChecks(yard.environ, fencing=yard.fencing())
    measured = checks.run(order_for_check(yard, "true", sandbox=policy), threading.Event())
    assert measured is not None
    assert (measured.ending, measured.exit_status) == (Ending.UNSTARTED, None)
    assert measured.reason.startswith("It could not be started: bwrap: ")


@works
def test_bubblewrap_is_found_whatever_path_a_check_has(yard: Yard) -> None:
    """Its own PATH is for its own programs."""
    command = Command(run="echo $PATH", env={"PATH": "/bin"})
    checks = SupervisedChecks(yard.environ, fencing=yard.fencing())
    measured = checks.run(order_for_check(yard, "", sandbox=AUTO, command=command), threading.Event())
    assert measured is not None
    assert (measured.exit_status, measured.tail) == (0, "/bin")


# --- the words of a fence -----------------------------------------------------------------------------


def words(fence: Fence) -> str:
    """The mounts alone."""
    text = " ".join(prefix(fence))
    return text[text.index("--ro-bind / /") : text.index(" --unsetenv")]


PLAIN = Fence(worktree=Path("/w/wt"), cache=Path("/h/state/cache/1"))


def test_the_deeper_path_comes_later_so_that_it_counts() -> None:
    """bubblewrap mounts in the order of its words."""
    fence = Fence(
        worktree=Path("/w/repo/wt"),
        cache=Path("/h/state/cache/1"),
        git=(Path("/w/repo/.git"),),
        writable=(Path("/h/.claude"),),
        hidden=(Path("/h/state"), Path("/h/.ssh")),
        blank=(Path("/h/.netrc"),),
    )
    order = [
        "--ro-bind / /",
        "--tmpfs /h/state",
        "--ro-bind-try /w/repo/.git /w/repo/.git",
        "--bind /w/repo/wt /w/repo/wt",
        "--ro-bind-try /w/repo/wt/.git /w/repo/wt/.git",
        "--bind /h/state/cache/1 /h/state/cache/1",
    ]
    places = [words(fence).index(mount) for mount in order]
    assert places == sorted(places)
    assert "--dev-bind /dev/null /h/.netrc" in words(fence)


@pytest.mark.parametrize(
    ("visible", "shown"),
    [
        ("/tmp/home", True),
        ("/dev/shm/home", True),
        ("/run/wrappers", True),
        ("/home/ada", False),
        ("/tmp", False),
        ("/", False),
    ],
)
def test_only_what_lies_in_a_private_place_is_shown_again(visible: str, shown: bool) -> None:
    """And the private place itself stays private, whoever lives there."""
    fence = Fence(worktree=PLAIN.worktree, cache=PLAIN.cache, visible=(Path(visible),))
    assert (f"--ro-bind {visible} {visible}" in words(fence).removeprefix("--ro-bind / /")) is shown
    assert "--tmpfs /tmp" in words(fence)


def test_a_git_directory_that_the_user_lists_as_writable_is_writable() -> None:
    """A set-up that must write there can be allowed to."""
    fence = Fence(
        worktree=PLAIN.worktree, cache=PLAIN.cache, git=(Path("/w/.git"),), writable=(Path("/w/.git/modules"),)
    )
    assert words(fence).index("--ro-bind-try /w/.git") < words(fence).index("--bind /w/.git/modules /w/.git/modules")


def test_nobody_is_fenced_in_where_the_sandbox_is_off(yard: Yard) -> None:
    """And it is said."""
    off = SandboxPolicy(mode=SandboxMode.OFF)
    assert yard.fence(off) is None
    assert held_by(off) == "off: agents and checks run with your rights"


@works
@pytest.mark.parametrize(
    ("policy", "end"),
    [
        (AUTO, "hidden"),
        (SandboxPolicy(agent_network=False), "; no network for agents"),
        (SandboxPolicy(agent_network=False, checks_network=False), "; no network for agents and checks"),
    ],
)
def test_what_holds_is_said(policy: SandboxPolicy, end: str) -> None:
    """The line of the run's header."""
    assert held_by(policy).startswith("bubblewrap: all but the worktree is read-only, git too, your secrets are hidden")
    assert held_by(policy).endswith(end)


@pytest.fixture
def without_bubblewrap(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on whose PATH there is none."""
    monkeypatch.setenv("PATH", str(yard.root))
    sandbox.why_not.cache_clear()
    yield
    sandbox.why_not.cache_clear()


@pytest.mark.usefixtures("without_bubblewrap")
def test_without_bubblewrap_auto_runs_without_a_fence_and_says_why(yard: Yard) -> None:
    """Nobody believes to be protected who is not."""
    assert yard.fence() is None
    assert held_by(AUTO) == ("none: agents and checks run with your rights. bubblewrap (bwrap) is not installed.")


@pytest.mark.usefixtures("without_bubblewrap")
def test_without_bubblewrap_a_required_sandbox_is_refused_with_the_cure(yard: Yard) -> None:
    """Before anything runs."""
    required = SandboxPolicy(mode=SandboxMode.REQUIRE)
    for refused in (lambda: held_by(required), lambda: yard.fence(required)):
        with pytest.raises(UserError, match=r"cannot be had\. bubblewrap \(bwrap\) is not installed\.") as error:
            refused()
        assert "Install bubblewrap" in str(error.value)
