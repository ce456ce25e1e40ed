"""The command line as users and scripts rely on it: exit codes, JSON, what goes where, and runs that are live."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from clikit import WRITES_ITS_STORY, Done, User, command, ended, until
from gitkit import make_repository
from storyloop.world.sandbox import why_not

fenced = pytest.mark.skipif(why_not() is not None, reason="There is no sandbox on this machine.")

SPEC = "../spec.md"
HANGS = 'echo $$ >"$HOME/agent.pid"; sleep 600 & wait\n'
ORPHANS_END = '[limits]\norphan_grace = "20s"\n'  # should a test fail half-way

RUN_STATE = [
    "run_id",
    "status",
    "machine_state",
    "spec_json_path",
    "spec_md_path",
    "branch",
    "current_story",
    "iteration",
    "review_iteration",
    "started_at",
    "finished_at",
    "iterations",
    "config",
    "knowledge",
    "pre_story_commit",
    "session_id",
    "total_usage",
    "phase_usage",
]
CONTINUATION = [
    "previous_status",
    "previous_summary",
    "previous_files_changed",
    "previous_next_steps",
    "continuation_attempt",
    "invalid_output_attempts",
    "context_write_pending",
    "context_cleanup_pending",
    "xsd_retry_count",
    "xsd_retry_pending",
    "xsd_retry_session_reuse_pending",
    "last_xsd_error",
    "last_review_xsd_error",
    "last_fix_xsd_error",
    "same_agent_retry_count",
    "same_agent_retry_pending",
    "same_agent_retry_reason",
    "continue_pending",
    "current_artifact",
    "max_xsd_retry_count",
    "max_same_agent_retry_count",
    "max_continue_count",
    "fix_status",
    "fix_previous_summary",
    "fix_continuation_attempt",
    "fix_continue_pending",
    "max_fix_continue_count",
    "last_effect_kind",
    "consecutive_same_effect_count",
    "max_consecutive_same_effect",
]
STATUS = [
    "run_id",
    "status",
    "machine_state",
    "project",
    "branch",
    "current_story",
    "stories_passed",
    "stories_total",
    "iteration",
    "review_iteration",
    "started_at",
    "finished_at",
    "session_id",
    "worktree",
    "total_usage",
    "cost_usd",
    "waits_for",
    "in_hand",
    "live",
]
STORY = ["id", "title", "state", "reason", "attempts", "calls", "commits", "evidence", "continuation"]
STORY += ["question", "replies"]
EVIDENCE = ["criterion", "verify", "verdict", "flaky", "tree", "exit_status", "output_digest", "at"]
REPORT = [
    "file",
    "headline",
    "shipped",
    "unshipped",
    "verdicts",
    "not_proven",
    "not_measured",
    "final_proof",
    "review",
    "issues",
    "unmended",
    "suspicions",
    "findings",
    "seconds",
    "budgets",
    "account",
    "delivery",
    "feedback",
    "way_on",
]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

# What an agent might write to take over a terminal, or to be read as markup.
NASTY = r"\033[31mred\033[0m \033]0;pwned\007 [red]kept[/red] [/] \a\b"


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    """She has a repository, an agent that does its work, and a spec of one story."""
    user = User(tmp_path / "user")
    user.makes_a_repository()
    user.has_an_agent()
    user.has_a_spec()
    yield user
    user.leaves()


class Shipped(NamedTuple):
    """A user whose run has ended well, and what `run --json` said."""

    user: User
    done: Done

    @property
    def run(self) -> str:
        return self.report["run_state"]["run_id"]

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.done.out.splitlines()[-1])


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """One run that all tests look at, which changes nothing."""
    user = User(tmp_path_factory.mktemp("shipped") / "user")
    user.makes_a_repository()
    user.has_an_agent(settings='[checks]\ntest = "true"\n')
    return Shipped(user, user.asks("run", user.has_a_spec(), "--json"))


# --- the ways a run ends ---------------------------------------------------------------------------------


def test_shipped_is_0_and_json_lines_end_with_the_report(shipped: Shipped) -> None:
    """Events as they are stored, then what `show --json` shows; nothing else, and nothing on stderr."""
    first, *_, last, report = map(json.loads, shipped.done.out.splitlines())
    assert (shipped.done.code, shipped.done.err) == (0, "")
    assert (first["type"], last["type"]) == ("run_opened", "run_finished")
    shown = shipped.user.asks("show", "--json").rows
    assert report == shown
    assert report["run_state"]["status"] == "completed"


def test_blocked_is_1_and_a_retry_with_a_hint_reaches_the_agent(user: User) -> None:
    """`resume` says how to retry and exits 1 as well; the hint stands in the next prompt."""
    user.has_an_agent(
        'case $prompt in *"green ink"*) touch US-001.txt; answer completed ;; *) answer failed No. Ask. ;; esac\n',
        settings="[limits]\ncontinuations = 1\n",
    )
    done = user.asks("run", SPEC)
    run = user.asks("status", "--json").rows[0]["run_id"]
    retry = f"storyloop retry {run[:8]} US-001"
    assert done.code == 1
    assert done.out.startswith("Not shipped: 0 of 1 story passed.\n")
    assert retry in done.out
    assert "US-001 blocked" in done.err  # the telling
    assert done.err.startswith("spec ")  # the header comes first
    assert_ids_stand_free(run, done.out + done.err)

    again = user.asks("resume")
    assert (again.code, retry in again.out) == (1, True)

    asked = user.asks("retry", run[:8], "US-001", "--with", "Use green ink.")
    assert (asked.code, asked.out) == (0, f"Noted: retry US-001. Now: storyloop resume {run[:8]}\n")
    assert user.asks("resume", "-q").code == 0


def test_no_agent_is_logged_in_is_3(user: User) -> None:
    """A human has to do something; the way on is printed."""
    user.has_an_agent("""echo '{"failure": {"class": "auth", "message": "Log in."}}' >"$STORYLOOP_REPORT"; exit 1\n""")
    done = user.asks("run", SPEC)
    row = user.asks("status", "--json").rows[0]
    assert (done.code, row["status"], row["finished_at"]) == (3, "parked", None)
    assert f"storyloop resume {row['run_id'][:8]}" in done.out
    assert "Log in." in done.err


def test_a_spent_budget_is_4_and_resume_with_more_ships(user: User) -> None:
    """`-q` says nothing but the answer, which names the flag; what is unknown costs null, not 0."""
    user.has_a_spec("US-001", "US-002")
    done = user.asks("run", SPEC, "--max-calls", "1", "-q")
    row = user.asks("status", "--json").rows[0]
    assert (done.code, done.err, row["status"]) == (4, "", "parked")
    assert done.out.startswith("Parked: 1 of 2 stories passed; ")
    assert f"storyloop resume {row['run_id'][:8]} --max-calls N" in done.out
    report = user.state / "runs" / row["run_id"] / "report.md"
    assert f"report {report}\n" in done.out
    assert "Parked: 1 of 2 stories passed" in report.read_text()
    assert (row["total_usage"], row["cost_usd"]) == (None, None)
    more = user.asks("resume", "--max-calls", "10", "-q")
    assert (more.code, more.err) == (0, "")
    assert more.out.startswith("Completed: 2 of 2 stories passed.\n")
    assert user.git("log", "--format=%s", "main..feature/x").splitlines() == [
        "US-002: Make US-002",
        "US-001: Make US-001",
    ]


@fenced
def test_a_set_up_fills_submodules_inside_of_the_sandbox(user: User) -> None:
    """With the default settings, in the final proof's clean worktree too."""
    library = user.home / "library"  # the sandbox hides what else is in /tmp
    make_repository(library, {"lib.txt": "A library.\n"}, env=user.env)
    user.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(library), "lib")
    user.git("commit", "--quiet", "-m", "A submodule")
    setup = 'setup = ["git -c protocol.file.allow=always submodule update --init"]'
    user.has_an_agent("test -f lib/lib.txt && " + WRITES_ITS_STORY, settings=f"[worktree]\n{setup}\n")
    settings = user.repo / "storyloop.toml"
    settings.write_text(settings.read_text().replace('"off"', '"require"'))
    done = user.asks("run", SPEC)
    assert done.code == 0, done.out + done.err
    assert user.git("ls-tree", "-r", "--name-only", "feature/x").splitlines() == [
        ".gitmodules",
        "README",
        "US-001.txt",
        "lib",
        "storyloop.toml",
    ]


@fenced
def test_a_sandbox_that_is_required_in_vain_is_2_for_run_and_resume_alike(user: User) -> None:
    """Before anything starts, and a run that is there stays as it was."""
    user.has_a_spec("US-001", "US-002")
    settings = user.repo / "storyloop.toml"
    settings.write_text(settings.read_text().replace('"off"', '"require"'))
    broken = user.place / "bin" / "bwrap"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no namespaces >&2\nexit 1\n")
    broken.chmod(0o755)
    without = {"PATH": f"{broken.parent}:{user.env['PATH']}"}
    refused = user.asks("run", SPEC, **without)
    assert (refused.code, user.asks("status", "--json").rows) == (2, [])
    assert user.asks("run", SPEC, "--max-calls", "1", "-q").code == 4
    before = user.asks("show", "--events", "--json").out
    again = user.asks("resume", "--max-calls", "10", **without)
    assert (again.code, again.out, again.err) == (2, "", refused.err)
    assert "The sandbox is required, but cannot be had. bubblewrap does not work here: no namespaces." in again.err
    assert user.asks("show", "--events", "--json").out == before
    assert user.asks("resume", "--max-calls", "10", "-q").code == 0


@pytest.mark.processes
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=["INT", "TERM", "HUP"]
)
def test_a_signal_ends_the_agent_and_prints_the_way_to_resume(user: User, number: signal.Signals, code: int) -> None:
    """The run is interrupted, not ended; no process of it is left."""
    user.has_an_agent(HANGS, settings=ORPHANS_END)
    run = user.starts("run", SPEC)
    agent = the_agent(user)
    run.send_signal(number)
    done = ended(run)
    row = user.asks("status", "--json").rows[0]
    assert (done.code, row["status"], row["finished_at"], row["live"]) == (code, "interrupted", None, False)
    assert f"Go on with: storyloop resume {row['run_id'][:8]}\n" in done.out
    assert f"/runs/{row['run_id']}/report.md\n" in done.out
    assert "stopping: " in done.err
    assert f"by {number.name}" in user.asks("show", "--events").out
    assert_gone(agent)


@pytest.mark.processes
def test_a_terminal_that_is_closed_ends_the_agent_and_the_run_can_be_resumed(user: User) -> None:
    """Nothing can be said there any more, and of its end both the kernel and the shell tell."""
    user.has_an_agent(HANGS, settings=ORPHANS_END)
    master, slave = pty.openpty()
    with subprocess.Popen(
        command("run", SPEC), cwd=user.repo, env=user.env, stdin=slave, stdout=slave, stderr=slave
    ) as run:
        os.close(slave)
        agent = the_agent(user)
        os.close(master)
        for _ in range(2):
            run.send_signal(signal.SIGHUP)
        assert run.wait(timeout=60) == 143
    assert user.asks("status", "--json").rows[0]["status"] == "interrupted"
    assert not (user.state / "errors").exists()
    assert_gone(agent)


@pytest.mark.processes
@pytest.mark.parametrize(("prefix", "code", "status"), [((), 143, "interrupted"), (("nohup",), 0, "completed")])
def test_a_reader_who_leaves_stops_the_run_in_order_unless_it_is_to_go_on(
    user: User, prefix: tuple[str, ...], code: int, status: str
) -> None:
    """As in `storyloop run 2>&1 | head`; under nohup the end of a terminal is none of its business."""
    user.has_an_agent('echo $$ >"$HOME/agent.pid"; until [ -e "$HOME/go" ]; do sleep 0.05; done\n' + WRITES_ITS_STORY)
    with subprocess.Popen(
        [*prefix, *command("run", SPEC)],
        cwd=user.repo,
        env=user.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as run:
        the_agent(user)
        assert run.stderr is not None
        run.stderr.close()
        (user.home / "go").touch()
        assert run.wait(timeout=60) == code
    assert user.asks("status", "--json").rows[0]["status"] == status
    assert not (user.state / "errors").exists()


@pytest.mark.processes
def test_a_live_run_is_held_followed_and_stopped_from_elsewhere(user: User) -> None:
    """Others are told its process and exit 5; `logs -f` ends when it does."""
    user.has_an_agent(HANGS, settings=ORPHANS_END)
    run = user.starts("run", SPEC)
    agent = the_agent(user)
    row = user.asks("status", "--json").rows[0]
    follower = user.starts("logs", "-f")
    assert (row["status"], row["live"], row["current_story"]) == ("running", True, "US-001")
    for words in (("resume",), ("run", SPEC)):
        refused = user.asks(*words)
        assert (refused.code, refused.out) == (5, "")
        assert f"{row['run_id']} is held by process {run.pid}." in refused.err
        assert f"storyloop stop {row['run_id'][:8]}" in refused.err

    stopped = user.asks("stop", row["run_id"][:6])
    assert (stopped.code, stopped.err) == (0, "")
    assert stopped.out.endswith(f"Go on with: storyloop resume {row['run_id'][:8]}\n")
    assert ended(run).code == 143
    history = ended(follower)
    assert (history.code, "run interrupted" in history.out.splitlines()[-1]) == (0, True)
    assert_ids_stand_free(row["run_id"], stopped.out + refused.err + history.out)
    assert_gone(agent)


@pytest.mark.processes
def test_a_run_that_was_killed_is_said_to_be_and_its_agent_is_found_again(user: User) -> None:
    """Nobody waits for a process that is gone; a request that came meanwhile is the first thing that is dealt with."""
    user.has_an_agent(HANGS, settings=ORPHANS_END)
    run = user.starts("run", SPEC)
    agent = the_agent(user)
    follower = user.starts("logs", "-f")
    run.kill()
    ended(run)
    assert ended(follower).code == 0
    row = user.asks("status", "--json").rows[0]
    assert (row["status"], row["live"]) == ("running", False)
    assert f"{row['run_id'][:8]}  crashed " in user.asks("status").out
    assert f"No process has it any more. Go on with: storyloop resume {row['run_id'][:8]}" in user.asks("show").out
    assert user.asks("skip", row["run_id"], "US-001").out.startswith("Noted: skip US-001.")
    assert user.asks("resume", "-q").code == 1
    assert_gone(agent)


@pytest.mark.processes
def test_a_story_is_skipped_whether_it_waits_or_is_in_hand(user: User) -> None:
    """The one in hand loses its agent; what is left of the run goes on to its end."""
    user.has_an_agent(HANGS, settings=ORPHANS_END)
    user.has_a_spec("US-001", "US-002")
    run = user.starts("run", SPEC)
    agent = the_agent(user)
    told = [user.asks("skip", user.asks("status", "--json").rows[0]["run_id"], story) for story in ("US-002", "US-001")]
    assert [done.code for done in told] == [0, 0]
    done = ended(run)
    assert done.code == 1
    assert [story["state"] for story in user.asks("show", "--json").rows["stories"]] == ["skipped", "skipped"]
    assert_gone(agent)


# --- what scripts read -----------------------------------------------------------------------------------


def test_show_as_json_has_the_keys_of_the_contract(shipped: Shipped) -> None:
    """The reference's 18 fields in their order, and for each story its 30."""
    shown = shipped.user.asks("show", shipped.run[:8], "--json").rows
    assert list(shown) == ["run_state", "stories", "checks", "budget", "bounds", "report"]
    assert list(shown["run_state"]) == RUN_STATE
    (story,) = shown["stories"]
    assert list(story) == STORY
    assert list(story["continuation"]) == CONTINUATION
    (evidence,) = story["evidence"]
    assert list(evidence) == EVIDENCE
    assert (story["state"], evidence["verdict"], evidence["exit_status"]) == ("passed", "proven", 0)
    assert Path(shown["report"]["file"]).read_text().startswith("# A spec\n")
    assert list(shown["report"]) == REPORT
    assert list(shown["report"]["account"]) == ["phases", "agents", "retries", "reasons"]
    moments = [shown["run_state"]["started_at"], shown["run_state"]["finished_at"], evidence["at"]]
    assert [moment for moment in moments if not MOMENT.fullmatch(moment)] == []


def test_status_as_json_has_the_keys_of_the_contract(shipped: Shipped) -> None:
    """One row per run of the repository; a price that is unknown is null."""
    (row,) = shipped.user.asks("status", "--json").rows
    assert list(row) == STATUS
    assert (row["run_id"], row["status"], row["stories_passed"], row["stories_total"]) == (
        shipped.run,
        "completed",
        1,
        1,
    )
    assert (row["cost_usd"], row["live"]) == (None, False)
    assert MOMENT.fullmatch(row["started_at"])
    assert MOMENT.fullmatch(row["finished_at"])
    assert shipped.user.asks("status", "--all", "--json", cwd=shipped.user.home).rows == [row]
    assert shipped.user.asks("status", "--json", cwd=Path(row["worktree"])).rows == [row]


def test_what_is_shown_goes_to_stdout_without_escape_codes_and_ids_stand_free(shipped: Shipped) -> None:
    """Every face of text, not on a terminal; a double click on an id takes the id."""
    worktree_line = "worktree ready: "
    asked = {
        ("status",): shipped.run[:8],
        ("show",): f"run {shipped.run}",
        ("show", shipped.run[:5], "--story", "US-001"): "### US-001 Make US-001",
        ("show", "--evidence"): "   proven",
        ("show", "--cost"): "total  1 call, tokens unknown, cost unknown",
        ("show", "--events"): worktree_line,
        ("logs", "--story", "US-001"): "US-001 passed, committed as ",
        ("spec", "export", "--format", "md"): "### US-001: Make US-001",
    }
    for words, told in asked.items():
        done = shipped.user.asks(*words)
        assert (done.code, told in done.out, "\x1b" in done.out + done.err) == (0, True, False), words
        assert_ids_stand_free(shipped.run, done.out)


def test_a_spec_is_checked_and_comes_back_out_of_a_run(shipped: Shipped) -> None:
    """What passed is marked; the rest is what went in."""
    checked = shipped.user.asks("spec", "check", SPEC, "--json").rows
    exported = shipped.user.asks("spec", "export").rows
    assert [story.pop("passes") for story in exported["userStories"]] == [True]
    assert [story.pop("passes") for story in checked["userStories"]] == [False]
    assert exported == checked
    assert "1 story on branch feature/x" in shipped.user.asks("spec", "check", SPEC).out


def test_a_dry_run_shows_order_and_bounds_and_leaves_no_trace(user: User) -> None:
    """It is an answer, so it goes to stdout."""
    user.has_a_spec("US-002", "US-001")
    config = user.repo / "storyloop.toml"
    config.write_text(f'{config.read_text()}[drains]\ncommit = ["sh"]\n')
    before = user.belongings()
    done = user.asks("run", SPEC, "--dry-run", "--max-calls", "7", "--step")
    assert (done.code, user.belongings()) == (0, before)
    assert "at most       7 agent calls" in done.out
    assert done.out.index("1. US-002  Make US-002") < done.out.index("2. US-001  Make US-001")
    assert "\nbound         commit by sh\nstep          parks before each commit until you approve it\n" in done.out
    assert user.asks("config", "set", "review.enabled", "true").code == 0
    reviewed, not_reviewed = (user.asks("run", SPEC, "--dry-run", *flags).out for flags in ((), ("--no-review",)))
    assert ("turned off" in reviewed, "turned off" in not_reviewed) == (False, True)


# --- text that wants to be more --------------------------------------------------------------------------


@pytest.fixture
def nasty(user: User) -> User:
    """Titles, output, summary and an error of the agent are all of the same kind."""
    spec = user.has_a_spec(title="A [red]nice[/red] [/] spec")
    spec.write_text(spec.read_text().replace("Make US-001", "Make \x1b[31m\x1b]0;pwned\x07\x9b1m [red]it[/red] [/]"))
    user.has_an_agent(
        f"""printf '{NASTY}\\n'; sleep 1.2
if [ $STORYLOOP_CALL = 1 ]
then printf '{{"failure": {{"class": "transient", "message": "%s"}}}}' '\\u001b]0;pwned\\u0007 [red]kept[/red] [/]' \
    >"$STORYLOOP_REPORT"; exit 1
fi
touch US-001.txt
answer completed '[red]kept[/red] &#x9b;31m [/]'
""",
        settings='[limits]\nbackoff = "1s"\n',
    )
    return user


def test_what_agents_write_reaches_no_pipe_raw(nasty: User) -> None:
    """Escape sequences are taken out, markup is text like any other."""
    done = nasty.asks("run", SPEC)
    said = done.out + done.err
    assert done.code == 0
    assert "A [red]nice[/red] [/] spec" in said
    assert "US-001 begins: Make " in said
    assert "(transient): [red]kept[/red] [/]" in " ".join(said.split())
    for words in (("show", "--events"), ("show",), ("show", "--json"), ("logs", "--json"), ("logs",), ("status",)):
        said += nasty.asks(*words).out
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said) == []


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}], ids=["colours", "NO_COLOR"])
def test_what_agents_write_does_not_rule_a_terminal(nasty: User, env: dict[str, str]) -> None:
    """The live view's own codes are there, the agent's are not; what looks like markup is printed as it is."""
    code, seen = on_a_terminal(nasty, "run", SPEC, TERM="xterm", **env)
    assert code == 0
    assert "\x1b[" in seen  # it is the live view
    assert "[red]it[/red] [/]" in seen
    assert "red [red]kept[/red] [/]" in " ".join(seen.replace("\x1b[0m", "").split())  # the activity
    assert "(transient): [red]kept[/red] [/]" in " ".join(seen.split())
    assert "\x1b]" not in seen
    assert "pwned" not in seen
    assert re.findall(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]", seen) == []
    assert re.findall(r"\x1b\[[0-9;]*\b(?:3[0-9]|4[0-9]|9[0-7])m", seen) == []  # no colour, ours neither


# --- the first ten minutes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "check"),
    [
        ({"pyproject.toml": '[project]\nname = "x"\n[tool.pytest.ini_options]\n', "tests/test_x.py": ""}, "pytest"),
        ({"package.json": '{"scripts": {"test": "node --test"}}', "package-lock.json": "{}"}, "npm"),
    ],
    ids=["Python", "Node"],
)
def test_init_writes_a_file_that_loads_with_the_checks_it_found(
    tmp_path: Path, files: dict[str, str], check: str
) -> None:
    """`config show` says where each comes from; `--print` shows the same without writing it."""
    user = User(tmp_path / "user")
    user.makes_a_repository(files)
    shown = user.asks("init", "--print")
    done = user.asks("init")
    assert (done.code, shown.out) == (0, (user.repo / "storyloop.toml").read_text())
    rows = user.asks("config", "show", "checks", "--json").rows
    assert [row["key"] for row in rows if check in str(row["value"])] != []
    assert {"storyloop.toml" in row["origin"] for row in rows} == {True}
    assert user.git("status", "--porcelain") == "?? storyloop.toml"


def test_a_setting_is_set_shown_and_its_neighbours_comments_stay(user: User) -> None:
    """`set`, then `get` and `show` with the origin."""
    before = (user.repo / "storyloop.toml").read_text()
    (user.repo / "storyloop.toml").write_text("# mine\n" + before)
    assert user.asks("config", "set", "limits.continuations", "2").code == 0
    assert user.asks("config", "get", "limits.continuations").out == "2\n"
    assert re.search(r"limits\.continuations +2 +\(.*storyloop\.toml", user.asks("config", "show", "limits").out)
    assert (user.repo / "storyloop.toml").read_text().startswith("# mine\n" + before)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_complete_verbs(user: User, shell: str) -> None:
    """The script is the shell's, and asking as it does names the verbs."""
    script = user.asks("completions", shell).out
    assert f"_STORYLOOP_COMPLETE={shell}_complete" in script
    asking = {"_STORYLOOP_COMPLETE": f"{shell}_complete", "COMP_WORDS": "storyloop sta", "COMP_CWORD": "1"}
    asked = user.asks(**asking if shell != "fish" else asking | {"COMP_CWORD": "sta"})
    assert "status" in asked.out


@pytest.mark.slow
def test_the_demo_ships_and_leaves_nothing_behind(user: User) -> None:
    """Everything it needs is in the package."""
    before = user.belongings()
    done = user.asks("demo", cwd=user.home)
    assert (done.code, "Completed: 4 of 4 stories passed." in done.out) == (0, True)
    assert user.belongings() == before


# --- how it is looked at ---------------------------------------------------------------------------------


def the_agent(user: User) -> int:
    """The pid of the hanging agent, as soon as it is there."""
    file = user.home / "agent.pid"
    until(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())


def assert_gone(agent: int) -> None:
    """Neither the agent nor anything that carries its run's marker is left."""
    assert not psutil.pid_exists(agent) or psutil.Process(agent).status() == psutil.STATUS_ZOMBIE


def assert_ids_stand_free(run: str, text: str) -> None:
    """White space or a backtick on both sides, so that a double click takes the id alone (or a path as a whole)."""
    words = [word for word in re.split(r"[\s`]+", text) if run[:8] in word and "/" not in word]
    assert set(words) <= {run, run[:8]}


def on_a_terminal(user: User, *words: str, **env: str) -> tuple[int, str]:
    """The program on a terminal of 100 columns: its exit status, and every byte it sent there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with subprocess.Popen(
        command(*words), cwd=user.repo, env=user.env | env, stdin=slave, stdout=slave, stderr=slave
    ) as program:
        os.close(slave)
        seen = b"".join(_read(master))
    os.close(master)
    return program.returncode, seen.decode()


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            yield os.read(terminal, 65_536)
        except OSError:  # Linux says EIO when the last program has left
            return
