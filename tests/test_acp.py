"""ACP agents: one turn through the host, what its dialect makes of it, and that nothing of it is ever left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

import warm
from storyloop.agents.acp import HOST, HostOrder, host_order
from storyloop.agents.dialects.acp import dialect
from storyloop.agents.dialects.lines import MAX_ANSWER
from storyloop.agents.failures import classify
from storyloop.agents.processes import ProcessAgents
from storyloop.agents.stream import Turn, What
from storyloop.core.artifacts import DevelopmentResult
from storyloop.core.errand import Mode
from storyloop.core.facts import Answered, CallReport, Failed, Failure
from storyloop.core.policy import AgentKind, AgentRef, AgentSpec, Drain
from storyloop.core.usage import Usage
from storyloop.core.words import DevelopmentStatus
from storyloop.ports.agents import CallOrder, artifact_path
from storyloop.world import process

pytestmark = pytest.mark.processes

AGENT = Path(__file__).with_name("acp_agent.py")
LOADS = {"loadSession": True}
RESUMES = {"loadSession": True, "sessionCapabilities": {"resume": {}}}
OFFERED = {"kind": "edit", "kinds": ["allow_always", "allow_once", "reject_once"]}


class Table:
    """A worktree, and whoever is asked in it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.worktree = place / "work"
        self.worktree.mkdir()
        self.log = place / "said.jsonl"
        self.stderr = ""
        self.code: int | None = None
        self.seen: list[tuple[What, str]] = []

    def order(self, *steps: dict[str, Any], script: dict[str, Any] | None = None, **facts: Any) -> bytes:
        told = {"log": str(self.log), "steps": steps, **(script or {})}
        argv = (sys.executable, "-S", str(AGENT), json.dumps(told))
        facts = {"argv": argv, "cwd": str(self.worktree), "prompt": "Go.", **facts}
        HostOrder(**facts)
        return json.dumps(facts).encode()

    def asks(self, *steps: dict[str, Any], script: dict[str, Any] | None = None, **facts: Any) -> Turn:
        """One whole call, without a supervisor: what is left behind then is ours to see."""
        order = self.order(*steps, script=script, **facts)
        self.code, out, err = warm.ask((), program="acp_host", cwd=Path.cwd(), env=os.environ, stdin=order)
        self.stderr = err.decode()
        return self.reads(out)

    def call(self, agent: AgentSpec, **facts: Any) -> CallOrder:
        plain: dict[str, Any] = {
            "run_id": "r", "key": "k", "call_dir": str(self.place / "call"), "worktree": str(self.worktree),
            "ref": AgentRef("mine", "m"), "agent": agent, "drain": Drain.STORY, "story": None, "attempt": 0, "call": 1,
            "mode": Mode.FRESH, "session": None, "prompt": "Go.", "call_timeout": 30, "idle_timeout": 30,
            "orphan_grace": 30,
        }  # fmt: skip
        return CallOrder(**plain | facts)

    def reports(self, *steps: dict[str, Any], script: dict[str, Any]) -> CallReport:
        """The same as Storyloop itself asks it."""
        told = json.loads(self.order(*steps, script={"offers": {"models": {"currentModelId": "m"}}, **script}))
        agent = AgentSpec(kind=AgentKind.ACP, command=tuple(told["argv"]))
        report = ProcessAgents({"PATH": os.defpath}).launch(self.call(agent)).wait(30)
        assert report is not None
        return report

    def reads(self, spool: bytes) -> Turn:
        reader = dialect()
        for line in spool.splitlines():
            self.seen += [(seen.what, seen.text) for seen in reader.feed(line)]
        return reader.turn()

    def heard(self, method: str) -> list[dict[str, Any]]:
        """What the agent was sent under this method, as its parameters."""
        return [said["params"] for said in self._said() if said.get("method") == method]

    def answers(self) -> list[dict[str, Any]]:
        """What the client answered to the agent's own requests."""
        return [said for said in self._said() if "method" not in said]

    def _said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    table = Table(tmp_path)
    yield table
    left = [one for one in psutil.process_iter(["cmdline"]) if str(table.log) in " ".join(one.info["cmdline"] or ())]
    for one in left:
        one.kill()
    assert left == []


def test_a_turn_comes_to_its_answer_session_model_and_usage(table: Table) -> None:
    """What was said last is the answer; what was thought or said before a tool is not."""
    usage = {"inputTokens": 10, "outputTokens": 4, "totalTokens": 20, "cachedReadTokens": 5, "cachedWriteTokens": 1}
    turn = table.asks(
        {"think": "Hm."},
        {"say": "I will write."},
        {"update": {"kind": "tool_call", "toolCallId": "t", "title": "Write a.py", "status": "pending"}},
        {"update": {"kind": "tool_call_update", "toolCallId": "t", "status": "completed"}},
        {"say": "It is "},
        {"say": "done."},
        script={
            "answer": {"stopReason": "end_turn", "usage": usage},
            "offers": {"models": {"currentModelId": "m-1", "availableModels": []}},
        },
    )
    assert turn == Turn(
        answered=True,
        finished=True,
        session="s-1",
        model="m-1",
        answer="It is done.",
        usage=Usage(input_tokens=10, output_tokens=4, cache_read_tokens=5, cache_creation_tokens=1, model="m-1"),
    )
    assert table.code == 0
    assert table.seen == [
        (What.THINKING, "Hm."),
        (What.TEXT, "I will write."),
        (What.TOOL, "Write a.py"),
        (What.RESULT, "Write a.py: completed"),
        (What.TEXT, "It is"),
        (What.TEXT, "done."),
    ]
    assert table.heard("session/new") == [{"cwd": str(table.worktree), "mcpServers": []}]
    assert table.heard("session/prompt") == [{"sessionId": "s-1", "prompt": [{"type": "text", "text": "Go."}]}]


@pytest.mark.parametrize(("can", "method"), [(LOADS, "session/load"), (RESUMES, "session/resume")])
def test_what_a_session_replays_is_no_part_of_this_turn(table: Table, can: dict[str, Any], method: str) -> None:
    """It is taken up by the way that the agent offers."""
    turn = table.asks({"say": "new"}, script={"can": can, "replay": ["old"]}, session="s-1", needs_session=True)
    assert (turn.answer, turn.session, turn.finished) == ("new", "s-1", True)
    assert table.seen == [(What.TEXT, "new")]
    assert [params["sessionId"] for params in table.heard(method)] == ["s-1"]
    assert table.heard("session/new") == []


def test_a_lost_session_is_replaced_where_the_prompt_stands_alone(table: Table) -> None:
    """And that is said."""
    gone = {"code": -32603, "message": "No such session"}
    turn = table.asks({"say": "new"}, script={"can": LOADS, "errors": {"session/load": gone}}, session="s-0")
    assert (turn.answer, turn.session, turn.finished) == ("new", "s-1", True)
    assert table.seen[0] == (What.NOTE, "Session s-0 could not be taken up (load): No such session")


@pytest.mark.parametrize("can", [LOADS, {}], ids=["refused", "not offered"])
def test_a_lost_session_ends_a_call_that_needs_it(table: Table, can: dict[str, Any]) -> None:
    """The prompt of a format retry would be a riddle to somebody new."""
    script = {"can": can, "errors": {"session/load": {"code": -32603, "message": "No such session"}}}
    turn = table.asks({"say": "never"}, script=script, session="s-0", needs_session=True)
    assert (turn.finished, turn.trouble and turn.trouble.word, turn.session) == (False, "session_lost", None)
    assert table.code == 1
    assert table.heard("session/prompt") == []


def test_an_agent_writes_and_reads_the_worktree_through_us(table: Table) -> None:
    """Lines are counted from one, and limited."""
    path = str(table.worktree / "new" / "a.txt")
    table.asks(
        {"request": ["fs/write_text_file", {"path": path, "content": "one\ntwo\nthree\nfour\n"}]},
        {"request": ["fs/read_text_file", {"path": path, "line": 2, "limit": 2}]},
        {"request": ["fs/read_text_file", {"path": path + ".no"}]},
    )
    assert Path(path).read_text() == "one\ntwo\nthree\nfour\n"
    assert [said.get("result") for said in table.answers()] == [{}, {"content": "two\nthree\n"}, None]
    assert table.answers()[2]["error"]["code"] == -32002


def test_nothing_outside_the_worktree_is_touched_for_an_agent(table: Table) -> None:
    """Neither directly, nor by a symlink, nor git's own files, nor what would hold us for ever."""
    os.mkfifo(table.worktree / "fifo")
    (table.worktree / "way-out").symlink_to(table.place)
    (table.place / "x.txt").write_text("secret")
    paths = ["/etc/x.txt", "../x.txt", "way-out/x.txt", ".git/hooks/x", "sub/.GIT/config", "fifo", "nul\0"]
    deeds = [(deed, path) for deed in ("write", "read") for path in paths]
    turn = table.asks(*({"request": [f"fs/{deed}_text_file", {"path": path, "content": "x"}]} for deed, path in deeds))
    assert [said["error"]["code"] for said in table.answers()] == [-32602] * 14
    assert turn.denied == tuple(f"{deed} {path}" for deed, path in deeds)
    assert turn.finished
    assert (table.place / "x.txt").read_text() == "secret"


def test_every_permission_is_answered_by_where_it_leads(table: Table) -> None:
    """Inside is allowed, outside refused, and where neither is offered the request is cancelled."""
    outside = {"type": "diff", "path": "../b", "newText": ""}
    answers: list[tuple[dict[str, Any], str | None]] = [
        ({"title": "1", "locations": [{"path": "a.py"}], **OFFERED}, "o-allow_once"),
        ({"title": "2", "rawInput": {"command": "cat /etc/passwd"}, **OFFERED}, "o-allow_once"),
        ({"title": "3", "locations": [{"path": "/etc/passwd"}], **OFFERED}, "o-reject_once"),
        ({"title": "4", "content": [outside], **OFFERED}, "o-reject_once"),
        ({"title": "5", "rawInput": {"file_path": "/etc/passwd"}, **OFFERED}, "o-reject_once"),
        ({"title": "6", "locations": [{"path": ".git/config"}], **OFFERED}, "o-reject_once"),
        ({"title": "7", "kinds": ["allow_always"]}, "o-allow_always"),
        ({"title": "8", "locations": [{"path": "/x"}], "kinds": ["allow_once"]}, None),
    ]
    turn = table.asks(*({"ask": tool} for tool, _ in answers))
    chosen = [said["result"]["outcome"].get("optionId") for said in table.answers()]
    assert chosen == [option for _, option in answers]
    assert table.answers()[-1]["result"] == {"outcome": {"outcome": "cancelled"}}
    assert turn.denied == ("3", "4", "5", "6", "8")
    assert turn.finished


def test_what_we_do_not_know_is_counted_and_refused(table: Table) -> None:
    """A private request, an unknown update, lines that are no messages, a request without its parameters."""
    turn = table.asks(
        {"request": ["craft/drainMidTurnQueue", {}]},
        {"update": {"kind": "sprouted", "leaf": [1]}},
        {"raw": "warning: no JSON"},
        {"raw": "42"},
        {"request": ["fs/read_text_file", {"path": 5}]},
        {"say": "Done."},
    )
    assert [said["error"]["code"] for said in table.answers()] == [-32601, -32602]
    assert (turn.finished, turn.answer) == (True, "Done.")
    assert (turn.unknown, turn.broken) == ({"craft/drainMidTurnQueue": 1, "sprouted": 1}, 2)


@pytest.mark.parametrize(
    ("model", "offers", "method", "params"),
    [
        ("m", {"models": {"currentModelId": "n"}}, "session/set_model", {"modelId": "m"}),
        ("m", {"configOptions": [{"id": "model", "currentValue": "n"}]}, "session/set_config_option",
         {"configId": "model", "value": "m"}),
        (None, {"modes": {"availableModes": [{"id": "plan"}, {"id": "acceptEdits"}, {"id": "yolo"}]}},
         "session/set_mode", {"modeId": "yolo"}),
    ],
)  # fmt: skip
def test_model_and_mode_are_set_where_they_are_offered(
    table: Table, model: str | None, offers: dict[str, Any], method: str, params: dict[str, Any]
) -> None:
    """By the request that belongs to what was offered."""
    assert table.asks({"say": "x"}, script={"offers": offers}, model=model).finished
    assert table.heard(method) == [{"sessionId": "s-1", **params}]


@pytest.mark.parametrize(
    ("script", "facts", "word", "status", "said"),
    [
        ({"errors": {"session/new": {"code": -32000, "message": "Log in"}}}, {}, "auth_required", 401, "Log in"),
        ({"errors": {"session/prompt": {"code": 429, "message": "Slow down"}}}, {}, "refused", 429, "Slow down"),
        ({"errors": {"session/prompt": {"code": -32603, "message": "No", "data": {"errorName": "APIError"}}}}, {},
         "APIError", None, "No"),
        ({"silent_at": "initialize"}, {"start_seconds": 0.3}, "start", None,
         "It did not answer initialize within 0.3 s."),
        ({}, {"model": "m"}, "model", None, "It cannot be asked for the model m: it offers no choice of models."),
        ({"offers": {"models": {}}, "errors": {"session/set_model": {"code": -32602, "message": "Unknown"}}},
         {"model": "m"}, "model", None, "It refused the model m: Unknown"),
        ({"steps": [{"say": "half"}, {"exit": 7}]}, {}, "crashed", None,
         "The agent ended in the middle of the call, with status 7."),
        ({"steps": [{"child": 1}, {"exit": 0}]}, {}, "crashed", None,
         "The agent ended in the middle of the call, with status 0."),
    ],
)  # fmt: skip
def test_a_call_that_fails_says_why(
    table: Table, script: dict[str, Any], facts: dict[str, Any], word: str, status: int | None, said: str
) -> None:
    """By the codes of the answer, never by its words; and the host's status is not 0."""
    turn = table.asks({"say": "x"}, script=script, **facts)
    assert turn.trouble is not None
    assert (turn.trouble.word, turn.trouble.status, turn.trouble.message) == (word, status, said)
    assert (turn.finished, table.code) == (False, 1)


@pytest.mark.parametrize("reason", ["max_tokens", "max_turn_requests", "refusal", "cancelled"])
def test_a_turn_that_ended_before_its_end_is_in_trouble(table: Table, reason: str) -> None:
    """The agent's own word for it is kept."""
    turn = table.reads(json.dumps({"event": "result", "answer": {"stopReason": reason}}).encode())
    assert (turn.finished, turn.trouble and turn.trouble.word) == (True, reason)


def test_an_agent_that_ignores_the_end_of_its_input_is_ended_with_its_children(table: Table) -> None:
    """The turn is over and counts; the fixture looks for who is left."""
    turn = table.asks({"child": 1}, {"say": "Done."}, script={"ignores_eof": True})
    assert (turn.finished, turn.answer, table.code) == (True, "Done.", 0)


def test_a_line_of_ten_megabytes_is_an_answer_like_any_other(table: Table) -> None:
    """Of which the end is kept: an artifact stands there."""
    turn = table.asks({"long": 10_000_000})
    assert turn.answer.endswith("xxxthe end")
    assert len(turn.answer) == MAX_ANSWER
    assert turn.finished


def test_an_agent_that_is_not_there_is_missing(table: Table) -> None:
    """One sentence on stderr, and the trouble."""
    turn = table.asks(argv=["no-such-agent"])
    assert turn.trouble is not None
    assert turn.trouble.word == "missing"
    assert table.stderr == "no-such-agent cannot be started: No such file or directory. Install it, or correct it.\n"


def test_without_the_library_its_installation_is_named(table: Table) -> None:
    """The host itself runs without it, as here, where it is not found."""
    bare = "import sys, importlib.util as util; find = util.find_spec; from storyloop.agents import acp_host; "
    bare += "acp_host.find_spec = lambda name: None if name == 'acp' else find(name); sys.exit(acp_host.main())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", bare], input=table.order(), capture_output=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr == b"An ACP agent needs a library: install it with `pip install storyloop[acp]`.\n"
    turn = table.reads(done.stdout)
    assert turn.trouble is not None
    assert turn.trouble.word == "missing"


def test_sigterm_cancels_the_turn_and_leaves_no_process(table: Table) -> None:
    """The agent may still say what the turn came to."""
    with subprocess.Popen(HOST, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as host:
        assert host.stdin is not None
        assert host.stdout is not None
        host.stdin.write(table.order({"child": 1}, {"say": "Thinking."}, {"wait": 1}))
        host.stdin.close()
        spool = b""
        while b"Thinking." not in spool:
            spool += host.stdout.readline()
        host.send_signal(signal.SIGTERM)
        spool += host.stdout.read()
    assert host.returncode == 1
    turn = table.reads(spool)
    assert turn.trouble is not None
    assert (turn.trouble.word, turn.answer) == ("cancelled", "Thinking.")
    assert table.heard("session/cancel") == [{"sessionId": "s-1"}]


def test_a_call_is_adopted_like_any_other(table: Table) -> None:
    """The host is an ordinary process under a supervisor: whoever began the call may be gone when it ends."""
    (table.place / "order").write_bytes(table.order({"say": "Going."}, {"wait": 1}))
    call_dir = table.place / "call"
    launched = process.launch(
        process.Order(
            call_dir=call_dir,
            argv=HOST,
            cwd=table.worktree,
            env={"PATH": os.defpath},
            stdin=table.place / "order",
            orphan_grace=60,
        )
    )
    launched.close()  # as if we had died
    adopted = process.adopt(call_dir)
    assert isinstance(adopted, process.Supervised)
    spool, _ = process.spools(call_dir)
    until = time.monotonic() + 20
    while not (spool.exists() and b"Going." in spool.read_bytes()) and time.monotonic() < until:
        time.sleep(0.02)
    adopted.stop()
    ended = adopted.wait(20)
    adopted.close()
    assert isinstance(ended, process.Exit)
    assert (ended.how, ended.survivors) == ("stopped", 0)
    assert table.reads(spool.read_bytes()).answer == "Going."


@pytest.mark.parametrize(
    ("name", "answer", "usage"),
    [
        ("Copilot", {"usage": {"inputTokens": 60, "outputTokens": 2, "totalTokens": 62, "cachedReadTokens": 20}},
         Usage(input_tokens=40, output_tokens=2, cache_read_tokens=20)),
        ("codex", {"usage": {"inputTokens": 40, "outputTokens": 2, "totalTokens": 62, "cachedReadTokens": 20},
                   "_meta": {"quota": {"model_usage": [{"model": "g"}]}}},
         Usage(input_tokens=40, output_tokens=2, cache_read_tokens=20, model="g")),
        ("OpenCode", {"usage": {"inputTokens": 40, "outputTokens": 2, "totalTokens": 42}}, None),
        ("gemini-cli", {"_meta": {"quota": {"token_count": {"input_tokens": 60, "output_tokens": 2}}}},
         Usage(input_tokens=60, output_tokens=2)),
        ("claude", {"usage": {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}}, None),
        ("kimi", {}, None),
    ],
)  # fmt: skip
def test_usage_is_what_the_agent_means_by_it(
    table: Table, name: str, answer: dict[str, Any], usage: Usage | None
) -> None:
    """Whether its input counts the cache is told by its total; what is known to be wrong is unknown."""
    lines = [
        {"event": "agent", "info": {"name": name}},
        {"event": "result", "answer": {"stopReason": "end_turn", **answer}},
    ]
    assert table.reads(b"\n".join(json.dumps(line).encode() for line in lines)).usage == usage


@pytest.mark.parametrize(("how", "cumulative"), [("new", False), ("load", True)])
def test_a_cost_is_told_as_of_the_whole_session(table: Table, how: str, cumulative: bool) -> None:
    """Whose earlier turns were counted before."""
    paid = {"event": "update", "update": {"sessionUpdate": "usage_update", "cost": {"amount": 0.5, "currency": "USD"}}}
    lines = [{"event": "session", "id": "s", "how": how}, paid]
    turn = table.reads(b"\n".join(json.dumps(line).encode() for line in lines))
    assert (turn.cost_usd, turn.cost_cumulative) == (0.5, cumulative)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ("Error: Authentication failed with provider at http://localhost/v1 (HTTP 401).\n  Check your key.", "auth"),
        ("Error: 429 usage limit reached", "limit"),
    ],
)
def test_an_error_that_is_spoken_is_known_by_what_was_used(table: Table, error: str, failure: str) -> None:
    """Copilot ends its turn as if all were well, but without any usage; with usage, it is only a text."""
    said = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": error}}
    ended = process.Exit(how="exited", code=0, started_at=0, ended_at=1)
    for usage, expected in ((None, failure), ({"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}, None)):
        answer = {"stopReason": "end_turn", "usage": usage}
        lines = [{"event": "agent", "info": {"name": "Copilot"}}, {"event": "update", "update": said}]
        lines.append({"event": "result", "answer": answer})
        turn = table.reads(b"\n".join(json.dumps(line).encode() for line in lines))
        failed = classify(turn, ended, stderr_tail=b"", now=datetime.now(UTC))
        assert (failed and failed.failure) == expected


def test_the_host_is_told_what_the_call_is(table: Table) -> None:
    """A format retry needs its session, a sandbox allows more, a path may be no UTF-8."""
    agent = AgentSpec(kind=AgentKind.ACP, command=("my-agent", "acp"))
    order = table.call(agent, worktree="/w/\udcff", mode=Mode.FORMAT_RETRY, session="s", prompt="Mend.")
    told = json.loads(host_order(order, fenced=True, writable=("/cache",)))
    assert told.pop("modes")[0] == "bypassPermissions"
    assert told == {
        "argv": ["my-agent", "acp"], "cwd": "/w/\udcff", "prompt": "Mend.", "session": "s", "needs_session": True,
        "model": "m", "roots": ["/cache"], "start_seconds": 60.0,
    }  # fmt: skip


def test_an_acp_agent_is_an_agent_like_any_other(table: Table) -> None:
    """Launched by its entry in the configuration, its report has the artifact, the session and the usage."""
    result = "<development-result><status>completed</status><summary>Done.</summary></development-result>"
    usage = {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
    script = {"answer": {"stopReason": "end_turn", "usage": usage}}
    path = artifact_path(str(table.worktree), "k")
    report = table.reports({"request": ["fs/write_text_file", {"path": path, "content": result}]}, script=script)
    done = DevelopmentResult(status=DevelopmentStatus.COMPLETED, summary="Done.")
    assert report.outcome == Answered(artifact=done)
    assert (report.session, report.leftovers) == ("s-1", 0)
    assert report.usage == Usage(input_tokens=1, output_tokens=2, model="m")


@pytest.mark.parametrize(
    ("code", "failure"), [(-32000, Failure.AUTH), (429, Failure.LIMIT), (-32603, Failure.TRANSIENT)]
)
def test_an_acp_agents_refusal_has_its_class(table: Table, code: int, failure: Failure) -> None:
    """By the code of its answer."""
    report = table.reports(script={"errors": {"session/prompt": {"code": code, "message": "No."}}})
    assert isinstance(report.outcome, Failed)
    assert report.outcome.failure is failure


def test_only_the_host_imports_the_library() -> None:
    """A run without ACP agents pays nothing for them, and its dialect nothing for the host."""
    tells = (
        "import sys, storyloop.agents.acp, storyloop.agents.dialects.acp; print({'acp', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", tells], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
