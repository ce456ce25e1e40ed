"""`doctor`: what is wrong with a machine is told before a run, with its cure; an agent that changed is found out."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clikit import Done, User
from storyloop.conformance.alone import is_alone, way_there

CHANGED = """\
#!/bin/sh
[ "$1" = --version ] && { echo 9.9.9; exit; }
echo '{"type":"surprise"}'
"""


@pytest.fixture
def user(tmp_path: Path) -> User:
    """With a repository, and no agent on her PATH but those that a test puts there."""
    user = User(tmp_path / "user")
    user.makes_a_repository()
    programs = user.place / "bin"
    programs.mkdir()
    user.env["PATH"] = f"{programs}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    return user


def has_program(user: User, name: str, text: str) -> None:
    """On her PATH."""
    program = user.place / "bin" / name
    program.write_text(text)
    program.chmod(0o755)


def told(done: Done) -> dict[str, list[tuple[str, str]]]:
    """What the findings say about each part."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in done.rows:
        found.setdefault(row["about"], []).append((row["verdict"], f"{row['says']} {row['cure']}"))
    return found


def test_a_machine_without_a_problem_is_exit_0(user: User) -> None:
    """Every part has been looked at, and no agent is a warning only."""
    done = user.asks("doctor")
    assert done.code == 0, done.out + done.err
    parts = [line.split()[1] for line in done.out.splitlines()]
    assert list(dict.fromkeys(parts)) == ["repository", "git", "store", "disk", "configuration", "sandbox", "agents"]
    assert "problem" not in done.out


def test_outside_of_a_repository_the_rest_is_looked_at(user: User) -> None:
    """One may ask before there is anything."""
    done = user.asks("doctor", "--json", cwd=user.home)
    assert done.code == 0
    assert told(done)["repository"][0][0] == "warning"
    assert told(done)["git"][0][1].startswith("git version ")


def test_a_user_whom_git_does_not_know_is_told_how_to_say_it(user: User) -> None:
    """Commits are made in her name."""
    (user.home / ".gitconfig").write_text("")
    done = user.asks("doctor", "--json")
    assert done.code == 1
    assert [text for verdict, text in told(done)["git"] if verdict == "problem"] == [
        "git does not know who you are, and commits are made in your name. "
        'Say it: `git config --global user.name "Your Name"` and `git config --global user.email you@example.com`.'
    ]


def test_a_damaged_store_is_a_problem_and_the_rest_is_told_all_the_same(user: User) -> None:
    """No part that is broken hides another one."""
    user.state.mkdir()
    (user.state / "storyloop.db").write_bytes(b"no database " * 1000)
    done = user.asks("doctor", "--json")
    assert done.code == 1
    assert told(done)["store"][0][0] == "problem"
    assert "is not a database of Storyloop" in told(done)["store"][0][1]
    assert told(done)["disk"][0][0] == "ok"


def test_every_mistake_of_the_configuration_is_a_line(user: User) -> None:
    """With its cure."""
    (user.repo / "storyloop.toml").write_text('[limits]\ncontinuation = 2\n[proof]\nrequire = "luck"\n')
    done = user.asks("doctor", "--json")
    assert done.code == 1
    problems = [text for verdict, text in told(done)["configuration"] if verdict == "problem"]
    assert len(problems) == 2
    assert "limits.continuation" in problems[0]


def test_a_sandbox_that_is_required_in_vain_is_a_problem(user: User) -> None:
    """Here bubblewrap is a program that fails."""
    has_program(user, "bwrap", "#!/bin/sh\necho no namespaces >&2\nexit 1\n")
    assert told(user.asks("doctor", "--json"))["sandbox"][0][0] == "warning"
    (user.repo / "storyloop.toml").write_text('[sandbox]\nmode = "require"\n')
    done = user.asks("doctor", "--json")
    assert done.code == 1
    assert told(done)["sandbox"][0][0] == "problem"


def test_an_agent_of_an_unknown_version_is_told_from_a_known_one(user: User) -> None:
    """And so is one of which nobody can see that it is logged in."""
    has_program(user, "pi", CHANGED)
    has_program(user, "claude", "#!/bin/sh\necho '2.1.329 (Claude Code)'\n")
    done = user.asks("doctor", "--json", CLAUDE_CODE_OAUTH_TOKEN="a-token")
    assert done.code == 0
    assert told(done)["agent claude"] == [("ok", f"2.1.329, {user.place / 'bin' / 'claude'} ")]
    [(verdict, version), (_, login)] = told(done)["agent pi"]
    assert (verdict, "9.9.9 was never seen" in version) == ("warning", True)
    assert "logged in" in login


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["doctor", "pi"], "NAME goes with --agents"),
        (["doctor", "--agents", "cursor-agent"], "cursor-agent cannot be driven offline."),
        (["doctor", "--agents", "pi"], "pi is not on your PATH."),
        (["doctor", "--agents"], "No agent that we can drive is on your PATH."),
    ],
    ids=["name alone", "no recipe", "absent", "none"],
)
def test_what_cannot_be_driven_is_a_sentence(user: User, words: list[str], says: str) -> None:
    """Exit 2, as with any bad input."""
    done = user.asks(*words)
    assert done.code == 2
    assert says in done.err


@pytest.mark.processes
def test_an_agent_that_changed_fails_its_columns_and_its_new_words_are_named(user: User) -> None:
    """Nothing is `ok` because nothing was seen."""
    has_program(user, "pi", CHANGED)
    done = user.asks("doctor", "--agents", "--json")
    assert done.code == 1, done.err
    [row] = done.rows["agents"]
    assert {column for column, cell in row["cells"].items() if cell["verdict"] == "failed"} == {
        *("fresh turn", "file edit", "artifact", "session resume", "usage", "limit recognised", "interrupt"),
    }
    assert (row["version"], row["known"], row["drifted"]) == ("9.9.9", False, ["event surprise"])
    table = user.asks("doctor", "--agents", "pi").out.splitlines()
    assert max(map(len, table[:2])) <= 100
    assert "pi: version 9.9.9 was never seen; its profile says what another one does." in table
    assert "pi: nobody knows the event surprise in its stream." in table
    assert [*(user.state / "scratch").iterdir()] == []


def test_who_has_a_way_out_is_not_alone() -> None:
    """A datagram's socket that connects sends nothing, but asks for a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        way_out = any_socket.connect_ex(("192.0.2.1", 9)) == 0
    assert is_alone() is not way_out


@pytest.mark.processes
@pytest.mark.skipif(not way_there(), reason="This machine allows no network namespace.")
def test_alone_there_is_loopback_and_no_way_out() -> None:
    """A request to anywhere fails at once."""
    tries = """
import socket
from storyloop.conformance.alone import is_alone, raise_loopback
assert is_alone()
raise_loopback()
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run(
        [*way_there(), sys.executable, "-c", tries], env=os.environ, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("Network is unreachable\n", "")


def test_the_pins_of_the_real_agents_are_versions_that_the_profiles_know() -> None:
    """One number in two places."""
    from storyloop.agents.profiles import PROFILES

    pins = json.loads((Path(__file__).parent / "real_agents" / "package.json").read_text())["dependencies"]
    known = {profile.install.removeprefix("npm install -g "): profile.versions for profile in PROFILES.values()}
    assert {package: (version,) for package, version in pins.items()} == {package: known[package] for package in pins}
