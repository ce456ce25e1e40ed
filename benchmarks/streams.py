"""`python -m benchmarks.streams`: how fast each dialect reads a long stream, and how much memory it takes.

Each stream is the same work told in the format of one agent, over and over: a thought, words, a tool with two
kilobytes of input, its result of four; of ACP, whose lines can be the shortest, it is pieces of text alone. It is
read in a process of its own; the growth is that of the process's peak from before the first line to after the last.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from storyloop.agents.dialects import dialect_named
from storyloop.agents.reading import read_stream

_SIZE = 200_000_000  # bytes
_CODE = 'def area(width: float, height: float) -> float:\n    return width * height  # "plain"\n'
_WORDS = "I look at how the shapes are measured, and then at the tests that say what they promise. "
_INPUT = {"file_path": "/repo/src/shapes.py", "content": _CODE * 23}
_RESULT = _CODE * 46
_CALL_USAGE = {"input": 1200, "output": 40, "cacheRead": 800, "cacheWrite": 0, "cost": {"total": 0.001}}


class Row(NamedTuple):
    """One dialect's figures."""

    dialect: str
    megabytes_per_second: float  # of CPU time
    growth_mib: float


def rows(size: int = _SIZE) -> Iterator[Row]:
    """Measure every dialect on a stream of so many bytes."""
    for dialect, turn in _TURNS.items():
        with tempfile.NamedTemporaryFile(suffix=".jsonl") as spool:
            block = b"".join(
                line.encode() if isinstance(line, str) else json.dumps(line).encode() + b"\n" for line in turn
            )
            for _ in range(size // len(block)):
                spool.write(block)
            spool.flush()
            argv = (sys.executable, "-m", "benchmarks.streams", dialect, spool.name)
            told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        seconds, growth = map(float, told.split())
        yield Row(dialect, size / seconds / 1e6, growth / 1024)


def main() -> int:
    """Without arguments the table; with a dialect and a spool, the seconds and the KiB that reading it took."""
    if len(sys.argv) == 3:
        dialect = dialect_named(sys.argv[1])
        before, begun = _peak(), time.process_time()
        with Path(sys.argv[2]).open("rb") as spool:
            read_stream(spool, dialect)
        seconds = time.process_time() - begun
        print(seconds, _peak() - before)
        return 0
    for row in rows():
        print(f"{row.dialect:10} {row.megabytes_per_second:8.0f} MB/s {row.growth_mib:8.1f} MiB")
    return 0


def _peak() -> int:
    """KiB of this process alone; what `getrusage` tells begins with the parent's."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def _claude(kind: str, *blocks: object) -> object:
    usage = {"input_tokens": 1200, "cache_creation_input_tokens": 100, "output_tokens": 1}
    message = {"id": "msg_1", "role": kind, "model": "some-model", "content": blocks, "usage": usage}
    ids = {"session_id": "9e5251b4-a9fb-4251-80fe-18deb4985df3", "uuid": "be43015c-e596-45d7-806e-6b20bb4c47ca"}
    return {"type": kind, "message": message, "parent_tool_use_id": None, **ids}


def _claude_turn() -> list[object]:
    return [
        _claude("assistant", {"type": "thinking", "thinking": _WORDS * 4, "signature": "c2NyaXB0ZWQ=" * 20}),
        _claude("assistant", {"type": "text", "text": _WORDS * 2}),
        _claude("assistant", {"type": "tool_use", "id": "toolu_1", "name": "Write", "input": _INPUT}),
        _claude("user", {"type": "tool_result", "tool_use_id": "toolu_1", "content": _RESULT}),
    ]


def _codex(**item: object) -> object:
    return {"type": "item.completed", "item": {"id": "item_1", **item}}


def _opencode(kind: str, **part: object) -> object:
    return {"type": kind, "timestamp": 1, "sessionID": "ses_1", "part": {"id": "prt_1", **part}}


def _copilot(kind: str, **data: object) -> object:
    return {"type": kind, "data": data, "id": "1", "timestamp": "2026-01-01T00:00:00Z", "parentId": "0"}


def _acp(kind: str) -> object:
    return {"event": "update", "update": {"sessionUpdate": kind, "content": {"type": "text", "text": _WORDS[:50]}}}


def _pi() -> Iterator[object]:
    message = {"role": "assistant", "model": "some-model", "usage": _CALL_USAGE, "stopReason": "stop"}
    for length in range(1, 9):
        part = {**message, "content": [{"type": "text", "text": _WORDS * length}]}
        yield {"type": "message_update", "assistantMessageEvent": {"delta": _WORDS, "partial": part}, "message": part}
    yield {"type": "message_end", "message": {**message, "content": [{"type": "text", "text": _WORDS * 8}]}}
    yield {"type": "tool_execution_start", "toolCallId": "1", "toolName": "write", "args": _INPUT}
    result = {"content": [{"type": "text", "text": _RESULT}]}
    yield {"type": "tool_execution_end", "toolCallId": "1", "toolName": "write", "result": result}


_TURNS: dict[str, list[object]] = {
    "claude": _claude_turn(),
    "qwen": _claude_turn(),
    "codex": [
        _codex(type="reasoning", text=_WORDS * 4),
        _codex(type="agent_message", text=_WORDS * 2),
        _codex(type="command_execution", command="cat shapes.py", aggregated_output=_RESULT, exit_code=0),
    ],
    "opencode": [
        _opencode("text", text=_WORDS * 2),
        _opencode("tool_use", tool="write", state={"status": "completed", "input": _INPUT, "output": _RESULT}),
        _opencode("step_finish", reason="tool-calls", tokens={"input": 1, "output": 1}, cost=0.1),
    ],
    "gemini": [
        *[{"type": "message", "role": "assistant", "content": _WORDS, "delta": True}] * 3,
        {"type": "tool_use", "tool_name": "write_file", "tool_id": "write_file_1", "parameters": _INPUT},
        {"type": "tool_result", "tool_id": "write_file_1", "status": "success", "output": _RESULT},
    ],
    "copilot": [
        *[_copilot("assistant.message_delta", messageId="1", deltaContent=_WORDS)] * 2,
        _copilot("assistant.message", model="some-model", content=_WORDS * 2),
        _copilot("tool.execution_start", toolName="create", arguments=_INPUT),
        _copilot("tool.execution_complete", success=True, result={"content": _RESULT}),
    ],
    "pi": list(_pi()),
    "kimi": [
        {
            "role": "assistant",
            "content": _WORDS * 2,
            "tool_calls": [{"id": "1", "function": {"name": "Write", "arguments": json.dumps(_INPUT)}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": _RESULT},
    ],
    "acp": [_acp("agent_thought_chunk"), _acp("agent_message_chunk")],
    "plain": [_WORDS + "\n", _CODE, "\n", "Applied edit to shapes.py\n"],
}

if __name__ == "__main__":
    raise SystemExit(main())
