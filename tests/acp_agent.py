"""A scripted ACP agent, as a program: what it offers and what it does when prompted stands in its one argument.

    python acp_agent.py '{"log": "said.jsonl", "steps": [{"say": "Done."}]}'

It speaks the protocol in plain JSON, because it must be able to break it. Everything that the client sends is logged.
"""

import json
import os
import signal
import sys
import time
from typing import Any

SCRIPT: dict[str, Any] = json.loads(sys.argv[1])
LOG = open(SCRIPT["log"], "a")  # noqa: SIM115 - until the end


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def receive() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        while SCRIPT.get("ignores_eof"):
            time.sleep(60)
        sys.exit(0)
    LOG.write(line)
    LOG.flush()
    return json.loads(line)


def update(kind: str, **facts: Any) -> None:
    send(method="session/update", params={"sessionId": "s-1", "update": {"sessionUpdate": kind, **facts}})


def text(kind: str, said: str) -> None:
    update(kind, content={"type": "text", "text": said})


def ask(method: str, params: dict[str, Any]) -> None:
    """A request to the client; its answer is in the log."""
    send(id=f"ours-{method}", method=method, params={"sessionId": "s-1", **params})
    receive()


def play(step: dict[str, Any]) -> None:
    ((verb, value),) = step.items()
    match verb:
        case "say":
            text("agent_message_chunk", value)
        case "long":
            text("agent_message_chunk", "x" * value + "the end")
        case "think":
            text("agent_thought_chunk", value)
        case "update":
            update(**value)
        case "ask":
            options = [{"optionId": f"o-{kind}", "name": kind, "kind": kind} for kind in value.pop("kinds")]
            ask("session/request_permission", {"toolCall": {"toolCallId": "t", **value}, "options": options})
        case "request":
            ask(*value)
        case "raw":
            sys.stdout.write(value + "\n")
            sys.stdout.flush()
        case "exit":
            os._exit(value)
        case "wait":
            while receive().get("method") != "session/cancel":
                pass
            SCRIPT["answer"] = {"stopReason": "cancelled"}
        case "child":
            if os.fork() == 0:  # it keeps our output open
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(60)
                os._exit(0)
        case _:
            raise AssertionError(verb)


def answer(method: str) -> None:
    if method in ("session/load", "session/resume"):
        for said in SCRIPT.get("replay", ()):
            text("agent_message_chunk", said)
    if method == "session/prompt":
        for step in SCRIPT["steps"]:
            play(step)


def main() -> None:
    if SCRIPT.get("ignores_eof"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    usual = {
        "initialize": {"protocolVersion": 1, "agentInfo": {"name": SCRIPT.get("name", "scripted")}},
        "session/new": {"sessionId": "s-1"},
    }
    usual["initialize"]["agentCapabilities"] = SCRIPT.get("can", {})
    usual["session/new"] |= SCRIPT.get("offers", {})
    while True:
        message = receive()
        method = message.get("method", "")
        if method == SCRIPT.get("silent_at"):
            continue
        if method in SCRIPT.get("errors", {}):
            send(id=message["id"], error=SCRIPT["errors"][method])
        elif "id" in message and method:
            answer(method)
            done = SCRIPT.get("answer", {"stopReason": "end_turn"}) if method == "session/prompt" else usual.get(method)
            send(id=message["id"], result=done or {})


main()
