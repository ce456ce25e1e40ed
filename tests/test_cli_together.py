"""Several runs in one process: as many branches, one signal for all, the worst end as the exit code."""

import signal
from collections.abc import Iterator
from ctypes import CDLL
from pathlib import Path

import pytest

from clikit import WRITES_ITS_STORY, User, ended, until

pytestmark = pytest.mark.processes


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    user = User(tmp_path)
    user.makes_a_repository()
    yield user
    user.leaves()


def specs(user: User, *branches: str) -> list[Path]:
    """A spec for each branch; its only story is the branch's name in capitals."""
    paths = [user.place / f"{number}.md" for number, _ in enumerate(branches)]
    for path, branch in zip(paths, branches, strict=True):
        path.write_bytes(user.has_a_spec(branch.upper(), branch=branch).read_bytes())
    return paths


def test_several_specs_are_as_many_runs(user: User) -> None:
    """Each on its own branch, each told under that name, with one that is blocked among them."""
    user.has_an_agent(
        f'[ "$STORYLOOP_STORY" = B ] && exec true\n{WRITES_ITS_STORY}',
        settings="[limits]\nformat_retries = 0\nchain_cycles = 1\n",
    )
    done = user.asks("run", *specs(user, "a", "b", "c"))
    assert done.code == 1
    assert {row["branch"]: row["status"] for row in user.asks("status", "--json").rows} == {
        "a": "completed",
        "b": "failed",
        "c": "completed",
    }
    assert user.git("show", "a:A.txt", "c:C.txt") == "A\nC"
    told = done.err.splitlines()
    shipped = sorted(line for line in told if "run completed" in line)
    assert shipped == ["[a] run completed: every story passed", "[c] run completed: every story passed"]
    assert {line.split("]")[0] for line in told if line} == {"[a", "[b", "[c"}


def test_two_specs_of_one_branch_are_refused(user: User) -> None:
    """Before anything is opened; and so is a stream of events that would be of several runs."""
    user.has_an_agent()
    one, other = specs(user, "a", "a")
    before = user.belongings()
    done = user.asks("run", one, other)
    assert (done.code, done.out) == (2, "")
    assert f"{one} and {other} would both use the branch a." in done.err
    assert user.asks("run", "--json", *specs(user, "a", "b")).code == 2
    assert user.asks("status", "--json").rows == []
    assert user.belongings().keys() >= before.keys()


@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_signal_is_heard_whichever_thread_it_reaches(user: User, names: str) -> None:
    """The kernel may give it to any, and Python hears it in the main thread alone."""
    user.has_an_agent("exec sleep 60\n")
    run = user.starts("run", *specs(user, *names))
    until(
        lambda: [row["machine_state"] for row in user.asks("status", "--json").rows] == ["running-agent"] * len(names)
    )
    other = next(int(path.name) for path in Path(f"/proc/{run.pid}/task").iterdir() if path.name != str(run.pid))
    assert CDLL(None).tgkill(run.pid, other, signal.SIGINT) == 0
    assert ended(run).code == 130


def test_a_signal_stops_them_all_and_they_are_resumed_together(user: User) -> None:
    """Every run is interrupted in order; `resume` takes several."""
    user.has_an_agent(f'[ -e "{user.home}/go" ] || exec sleep 60\n{WRITES_ITS_STORY}')
    run = user.starts("run", *specs(user, "a", "b"))
    until(lambda: [row["machine_state"] for row in user.asks("status", "--json").rows] == ["running-agent"] * 2)
    run.send_signal(signal.SIGINT)
    assert ended(run).code == 130
    rows = user.asks("status", "--json").rows
    assert [(row["status"], row["live"]) for row in rows] == [("interrupted", False)] * 2
    (user.home / "go").touch()
    assert user.asks("resume", *[row["run_id"] for row in rows]).code == 0
    assert user.git("show", "a:A.txt", "b:B.txt") == "A\nB"
