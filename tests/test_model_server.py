"""The scripted model server: four wires, deeds done with any client's tools, faults as the real world has them."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from storyloop.conformance.scenario import (
    ARTIFACT,
    Break,
    Deed,
    EditFile,
    ModelTurn,
    Part,
    Prompt,
    ReadFile,
    Refusal,
    Scenario,
    Shell,
    WriteFile,
    plain,
)
from storyloop.conformance.server import ModelServer, serving
from storyloop.conformance.tools import Tool, use_for
from storyloop.core.usage import Usage

PROMPT = "Do it, then write\n    /place/tree/.storyloop/US-001-1-story-0-1.xml"
NEXT_PROMPT = "And now `/place/tree/.storyloop/US-002-1-story-0-1.xml`."
TOOLS = {"write": {"path": {"type": "string"}, "content": {"type": "string"}}, "shell": {"command": {"type": "string"}}}
SCENARIOS = {
    "parts": Scenario(
        (
            Part(
                (
                    ModelTurn(
                        thinks="Hm.",
                        says="I write.",
                        does=WriteFile("a.txt", "a\n"),
                        usage=Usage(input_tokens=7, output_tokens=5, cache_read_tokens=3, thinking_tokens=2),
                    ),
                    ModelTurn(says="Written."),
                ),
                owed="^US-001-",
            ),
            Part((ModelTurn(says="The second story."),), owed="^US-002-"),
        )
    ),
    "limit": plain(ModelTurn(fault=Refusal(429, "Enough.", {"retry-after": "3600"}))),
    "hang": plain(ModelTurn(says="words " * 100, fault=Break.HANG)),
    "stall": plain(ModelTurn(says="words " * 100, fault=Break.STALL)),
    "cut": plain(ModelTurn(says="words " * 100, fault=Break.CUT)),
    "garbage": plain(ModelTurn(says="words " * 100, fault=Break.GARBAGE)),
    "error-event": plain(ModelTurn(says="words " * 100, fault=Break.ERROR_EVENT)),
    "huge": plain(ModelTurn(says="x" * 10_000_000)),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """One server; it keeps nothing between two requests."""
    with serving(SCENARIOS) as server:
        yield server


# --- four clients: how each wire asks, how it tells its talk, and what it makes of an answer -----------------------


def messages(talk: list[tuple[str, str]], *, stream: bool, tools: bool = True) -> tuple[str, dict[str, Any]]:
    """Anthropic."""
    told = {
        "user": lambda text: {"role": "user", "content": [{"type": "text", "text": text}]},
        "model": lambda text: {
            "role": "assistant",
            "content": [{"type": "text", "text": text}, {"type": "tool_use", "id": "call_1", "name": "w", "input": {}}],
        },
        "tool": lambda text: {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": text}],
        },
    }
    offered = [{"name": name, "input_schema": {"properties": its}} for name, its in TOOLS.items() if tools]
    said = [told[who](text) for who, text in talk]
    return "/v1/messages", {"model": "m", "stream": stream, "messages": said, "tools": offered}


def responses(talk: list[tuple[str, str]], *, stream: bool, tools: bool = True) -> tuple[str, dict[str, Any]]:
    """OpenAI's newer one: an item for each thing said."""
    told = {
        "user": lambda text: [{"role": "user", "content": [{"type": "input_text", "text": text}]}],
        "model": lambda text: [
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
            {"type": "function_call", "call_id": "call_1", "name": "write", "arguments": "{}"},
        ],
        "tool": lambda text: [{"type": "function_call_output", "call_id": "call_1", "output": text}],
    }
    offered = [
        {"type": "function", "name": name, "parameters": {"properties": its}} for name, its in TOOLS.items() if tools
    ]
    said = [item for who, text in talk for item in told[who](text)]
    return "/v1/responses", {"model": "m", "stream": stream, "input": said, "tools": offered}


def chat(talk: list[tuple[str, str]], *, stream: bool, tools: bool = True) -> tuple[str, dict[str, Any]]:
    """OpenAI's older one."""
    told = {
        "user": lambda text: {"role": "user", "content": text},
        "model": lambda text: {
            "role": "assistant",
            "content": text,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "write", "arguments": "{}"}}],
        },
        "tool": lambda text: {"role": "tool", "tool_call_id": "call_1", "content": text},
    }
    offered = [
        {"type": "function", "function": {"name": name, "parameters": {"properties": its}}}
        for name, its in TOOLS.items()
        if tools
    ]
    said = [{"role": "system", "content": "Be good."}, *(told[who](text) for who, text in talk)]
    body = {"model": "m", "stream": stream, "messages": said, "tools": offered or None}
    return "/v1/chat/completions", body


def gemini(talk: list[tuple[str, str]], *, stream: bool, tools: bool = True) -> tuple[str, dict[str, Any]]:
    """Google."""
    told = {
        "user": lambda text: {"role": "user", "parts": [{"text": text}]},
        "model": lambda text: {
            "role": "model",
            "parts": [{"text": text}, {"functionCall": {"id": "call_1", "name": "write", "args": {}}}],
        },
        "tool": lambda text: {
            "role": "user",
            "parts": [{"functionResponse": {"id": "call_1", "name": "write", "response": {"output": text}}}],
        },
    }
    declared = [{"name": name, "parametersJsonSchema": {"properties": its}} for name, its in TOOLS.items()]
    manner = "streamGenerateContent?alt=sse" if stream else "generateContent"
    said = [told[who](text) for who, text in talk]
    return f"/v1beta/models/m:{manner}", {
        "contents": said,
        "tools": [{"functionDeclarations": declared}] if tools else [],
    }


def of_messages(answer: Any, *, streamed: bool) -> tuple[str, Any]:
    """The text and the tool's arguments."""
    if not streamed:
        texts = [block["text"] for block in answer["content"] if block["type"] == "text"]
        uses = [block["input"] for block in answer["content"] if block["type"] == "tool_use"]
        return "".join(texts), next(iter(uses), None)
    deltas = [event["delta"] for event in answer if event["type"] == "content_block_delta"]
    written = "".join(delta.get("partial_json", "") for delta in deltas)
    return "".join(delta.get("text", "") for delta in deltas), json.loads(written) if written else None


def of_responses(answer: Any, *, streamed: bool) -> tuple[str, Any]:
    """Of a stream: what came in pieces, which has to be what its last event says as a whole."""
    whole = answer[-1]["response"] if streamed else answer
    texts = [item["content"][0]["text"] for item in whole["output"] if item["type"] == "message"]
    written = [item["arguments"] for item in whole["output"] if item["type"] == "function_call"]
    if streamed:
        assert [event["type"] for event in answer[:1]] == ["response.created"]
        for kind, known in (("output_text", texts), ("function_call_arguments", written)):
            pieces = [event["delta"] for event in answer if event["type"] == f"response.{kind}.delta"]
            assert "".join(pieces) == "".join(known)
    return "".join(texts), json.loads(written[0]) if written else None


def of_chat(answer: Any, *, streamed: bool) -> tuple[str, Any]:
    """Pieces of one message."""
    key = "delta" if streamed else "message"
    found = [choice[key] for part in (answer if streamed else [answer]) for choice in part["choices"]]
    calls = [call["function"]["arguments"] for part in found for call in part.get("tool_calls", [])]
    return "".join(part.get("content") or "" for part in found), json.loads("".join(calls)) if calls else None


def of_gemini(answer: Any, *, streamed: bool) -> tuple[str, Any]:
    """Parts that are no thought."""
    frames = answer if streamed else [answer]
    parts = [part for frame in frames for part in frame["candidates"][0]["content"]["parts"] if not part.get("thought")]
    uses = [part["functionCall"]["args"] for part in parts if "functionCall" in part]
    return "".join(part.get("text", "") for part in parts), next(iter(uses), None)


WIRES = {
    "messages": (messages, of_messages),
    "responses": (responses, of_responses),
    "chat": (chat, of_chat),
    "gemini": (gemini, of_gemini),
}
every_wire = pytest.mark.parametrize("wire", WIRES)
both_manners = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def posted(base: str, path: str, body: Any) -> http.client.HTTPResponse:
    """The answer to a POST, its head read."""
    return asked("POST", base + path, json.dumps(body).encode())


def asked(method: str, address: str, body: bytes | None) -> http.client.HTTPResponse:
    """The answer, whose connection closes with it."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    connection.request(method, f"{url.path}?{url.query}", body)
    response = connection.getresponse()
    connection.sock.close()
    return response


def events(text: bytes) -> list[Any]:
    """What the events of a stream say."""
    lines = [line[6:] for line in text.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def answered(base: str, wire: str, talk: list[tuple[str, str]], *, stream: bool, tools: bool = True) -> tuple[str, Any]:
    """What the model says to this talk, and what it does."""
    ask, read = WIRES[wire]
    response = posted(base, *ask(talk, stream=stream, tools=tools))
    assert response.status == 200
    text = response.read()
    return read(events(text) if stream else json.loads(text), streamed=stream)


WROTE = {"path": "/place/tree/a.txt", "content": "a\n"}


@every_wire
@both_manners
def test_every_wire_tells_the_same_turn_in_both_manners(server: ModelServer, wire: str, stream: bool) -> None:
    """Text and tool."""
    assert answered(server.base("parts"), wire, [("user", PROMPT)], stream=stream) == ("I write.", WROTE)


@every_wire
@both_manners
def test_the_next_turn_follows_from_the_talk_alone(server: ModelServer, wire: str, stream: bool) -> None:
    """A retry gets its turn again, whoever asked in between; the result of a tool is no prompt, whatever it names."""
    talk = [
        ("user", "Some context."),
        ("user", PROMPT),
        ("model", "I write."),
        ("tool", f"Written: {NEXT_PROMPT}"),
    ]
    for _ in range(2):
        assert answered(server.base("parts"), wire, talk, stream=stream) == ("Written.", None)
    assert answered(server.base("parts"), wire, talk[:2], stream=stream) == ("I write.", WROTE)


@every_wire
def test_a_resumed_session_plays_the_part_of_its_newest_prompt(server: ModelServer, wire: str) -> None:
    """From its first turn on."""
    talk = [("user", PROMPT), ("model", "I write."), ("tool", "ok"), ("model", "Written."), ("user", NEXT_PROMPT)]
    assert answered(server.base("parts"), wire, talk, stream=True) == ("The second story.", None)


@every_wire
def test_a_prompt_in_a_file_is_read_before_anything_else(server: ModelServer, wire: str) -> None:
    """Agents that do not read stdin are told where it stands; what they read is the prompt."""
    talk = [("user", "Read the file .storyloop/prompt.md in the current directory and do what it says.")]
    reads = {"command": "cat .storyloop/prompt.md"}
    assert answered(server.base("parts"), wire, talk, stream=True) == ("", reads)
    talk += [("model", ""), ("tool", f"# The task\n{PROMPT}\n")]
    assert answered(server.base("parts"), wire, talk, stream=True) == ("I write.", WROTE)
    talk += [("model", "I write."), ("tool", f"Written: {NEXT_PROMPT}")]
    assert answered(server.base("parts"), wire, talk, stream=True) == ("Written.", None)


@every_wire
def test_who_asks_without_tools_or_prompt_gets_something_harmless(server: ModelServer, wire: str) -> None:
    """Titles and summaries; and the end of the script."""
    over = ("There is nothing left to do.", None)
    assert answered(server.base("parts"), wire, [("user", PROMPT)], stream=True, tools=False) == over
    assert answered(server.base("parts"), wire, [("user", "Hello.")], stream=True) == over
    behind = [("user", NEXT_PROMPT), ("model", "The second story."), ("tool", "ok")]
    assert answered(server.base("parts"), wire, behind, stream=True) == over


USED = {  # of 7 read anew, 3 read from a cache, and 5 written, 2 of them as thoughts
    "messages": {"input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3, "output_tokens": 5},
    "responses": {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    },
    "chat": {
        "prompt_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens": 5,
        "completion_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    },
    "gemini": {
        "promptTokenCount": 10,
        "cachedContentTokenCount": 3,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 2,
        "totalTokenCount": 15,
    },
}


@every_wire
def test_usage_is_told_in_the_wires_own_words(server: ModelServer, wire: str) -> None:
    """Some count what a cache read among the input, some do not."""
    ask, _ = WIRES[wire]
    answer = json.loads(posted(server.base("parts"), *ask([("user", PROMPT)], stream=False)).read())
    assert answer["usageMetadata" if wire == "gemini" else "usage"] == USED[wire]


# --- faults ---------------------------------------------------------------------------------------------------------


@every_wire
@both_manners
def test_a_refusal_meets_every_request_with_its_headers(server: ModelServer, wire: str, stream: bool) -> None:
    """Also one for a title."""
    ask, _ = WIRES[wire]
    for tools in (True, False):
        response = posted(server.base("limit"), *ask([("user", PROMPT)], stream=stream, tools=tools))
        assert (response.status, response.getheader("retry-after")) == (429, "3600")
        assert json.loads(response.read())["error"]["message"] == "Enough."


@every_wire
def test_a_cut_stream_ends_in_the_middle(server: ModelServer, wire: str) -> None:
    """The client sees that bytes are missing."""
    ask, _ = WIRES[wire]
    response = posted(server.base("cut"), *ask([("user", PROMPT)], stream=True))
    with response, pytest.raises(http.client.IncompleteRead) as cut:
        response.read()
    assert len(events(cut.value.partial)) == 2


@every_wire
def test_garbage_stands_in_the_middle_of_a_stream_that_ends_well(server: ModelServer, wire: str) -> None:
    """Not JSON, and not UTF-8."""
    ask, _ = WIRES[wire]
    text = posted(server.base("garbage"), *ask([("user", PROMPT)], stream=True)).read()
    with pytest.raises(UnicodeDecodeError):
        text.decode()
    assert len(events(b"\n".join(line for line in text.split(b"\n") if b"\xff" not in line))) > 2


FAILED = {
    "messages": lambda event: event["error"]["type"] == "overloaded_error",
    "responses": lambda event: event["response"]["error"]["code"] == "server_is_overloaded",
    "chat": lambda event: event["error"]["type"] == "server_error",
    "gemini": lambda event: event["error"]["code"] == 529,
}


@every_wire
def test_an_error_event_is_the_last_of_its_stream(server: ModelServer, wire: str) -> None:
    """The stream itself is whole."""
    ask, _ = WIRES[wire]
    told = events(posted(server.base("error-event"), *ask([("user", PROMPT)], stream=True)).read())
    assert len(told) == 3
    assert FAILED[wire](told[-1])


def test_a_model_that_hangs_or_stalls_does_so_until_the_server_closes() -> None:
    """Nothing comes, or the beginning and then nothing; and closing does not wait for the clients."""
    path, body = messages([("user", PROMPT)], stream=True)
    with serving(SCENARIOS) as server:
        stalled = posted(server.base("stall"), path, body)
        begun = b"".join(stalled.readline() for _ in range(6))
        url = urlsplit(server.base("hang"))
        with socket.create_connection((url.hostname, url.port)) as hanging:
            text = json.dumps(body).encode()
            head = f"POST {url.path}{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(text)}\r\n\r\n"
            hanging.sendall(head.encode() + text)
            hanging.settimeout(0.2)
            with pytest.raises(TimeoutError):
                hanging.recv(1)
            server.close()
            hanging.settimeout(10)
            assert hanging.recv(1) == b""
    assert len(events(begun)) == 2
    with stalled, pytest.raises(http.client.IncompleteRead):
        stalled.read()


def test_a_huge_text_comes_whole_in_a_bounded_number_of_events(server: ModelServer) -> None:
    """10 MB."""
    path, body = chat([("user", PROMPT)], stream=True)
    told = events(posted(server.base("huge"), path, body).read())
    assert len(told) < 1100
    assert len(of_chat(told, streamed=True)[0]) == 10_000_000


# --- the rest of HTTP -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/parts/v1/models", 200),
        ("HEAD", "/parts", 200),
        ("GET", "/parts/v1/account", 404),
        ("POST", "/parts/v1/messages/count_tokens", 200),
        ("POST", "/parts/v1beta/models/m:countTokens", 200),
        ("POST", "/parts/v1/embeddings", 404),
        ("POST", "/nothing/v1/messages", 404),
        ("POST", "/parts/v1/messages", 400),
    ],
)
def test_what_is_asked_besides_turns_gets_an_answer_or_a_sentence(
    server: ModelServer, method: str, path: str, status: int
) -> None:
    """A body that is not JSON, too."""
    response = asked(method, server.address + path, b"{" if method == "POST" else None)
    assert response.status == status
    assert json.loads(response.read() or b"{}") != {} or method == "HEAD"


def test_only_this_machine_can_ask(server: ModelServer) -> None:
    """Loopback, and a port that nobody else has."""
    assert server.address.startswith("http://127.0.0.1:")
    with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
        socket.create_connection(("127.0.0.2", urlsplit(server.address).port or 0), timeout=1)


# --- deeds ----------------------------------------------------------------------------------------------------------

AT = Prompt("/place/tree", "US-001-1-story-0-1.xml", 0)
TEXT = {"type": "string"}


def tool(name: str, *required: str, **properties: Any) -> Tool:
    """A tool whose arguments are these."""
    return Tool(name, {"type": "object", "properties": properties, "required": list(required)})


BASH = tool("Bash", "command", "description", command=TEXT, description=TEXT, timeout={"type": "number"})
DEEDS = {
    "a file, with what the schema requires besides": (
        WriteFile(ARTIFACT, "<x/>\n"),
        (
            tool("Edit", file_path=TEXT, content=TEXT),
            tool("create", "x", "y", path=TEXT, file_text=TEXT, y={"enum": [3]}),
        ),
        (
            "create",
            {
                "path": "/place/tree/.storyloop/US-001-1-story-0-1.xml",
                "file_text": "<x/>\n",
                "x": "as scripted",
                "y": 3,
            },
        ),
    ),
    "a file by the shell, where nothing else is offered": (
        WriteFile("a.txt", "a\n"),
        (tool("ReadFile", path=TEXT), BASH),
        (
            "Bash",
            {"command": "cat >'/place/tree/a.txt' <<'END-OF-FILE'\na\nEND-OF-FILE", "description": "as scripted"},
        ),
    ),
    "a file by a patch": (
        WriteFile("a.txt", "a\nb\n"),
        (BASH, Tool("apply_patch", None)),
        ("apply_patch", "*** Begin Patch\n*** Add File: a.txt\n+a\n+b\n*** End Patch"),
    ),
    "an edit": (
        EditFile("a.txt", "x", "y"),
        (
            tool("NotebookEdit", new_source=TEXT, notebook_path=TEXT),
            tool("replace", "all", file_path=TEXT, oldString=TEXT, newString=TEXT, all={"type": ["boolean", "null"]}),
        ),
        ("replace", {"file_path": "/place/tree/a.txt", "oldString": "x", "newString": "y", "all": False}),
    ),
    "an edit by a patch": (
        EditFile("a.txt", "x", "y"),
        (Tool("apply_patch", None),),
        ("apply_patch", "*** Begin Patch\n*** Update File: a.txt\n@@\n-x\n+y\n*** End Patch"),
    ),
    "an edit by the shell": (
        EditFile("a.txt", "x", "y"),
        (tool("shell", command={"type": "array", "items": TEXT}),),
        ("shell", {"command": ["sh", "-c", "sed -i 's|x|y|' '/place/tree/a.txt'"]}),
    ),
    "a look": (
        ReadFile("a.txt"),
        (BASH, tool("view", "path", path=TEXT)),
        ("view", {"path": "/place/tree/a.txt"}),
    ),
    "a look by the shell": (
        ReadFile("a.txt"),
        (tool("exec_command", cmd=TEXT),),
        ("exec_command", {"cmd": "cat '/place/tree/a.txt'"}),
    ),
    "a command": (Shell("make"), (BASH,), ("Bash", {"command": "make", "description": "as scripted"})),
}


@pytest.mark.parametrize("name", DEEDS)
def test_a_deed_is_done_with_whatever_the_client_offers(name: str) -> None:
    """Recognised by its schema."""
    deed, tools, (used, arguments) = DEEDS[name]
    use = use_for(deed, tools, AT)
    assert use is not None
    assert (use.name, use.arguments) == (used, arguments)


@pytest.mark.parametrize(
    "deed", [WriteFile("a", "a\n"), EditFile("a", "x", "y"), ReadFile("a"), Shell("true")], ids=str
)
def test_a_deed_without_a_tool_for_it_is_left_undone(deed: Deed) -> None:
    """The turn is its words alone."""
    assert use_for(deed, (tool("think", thought=TEXT),), AT) is None


def test_shell_edits_do_what_they_say(tmp_path: Path) -> None:
    """Run for real."""
    import subprocess

    at = Prompt(str(tmp_path), "x.xml", 0)
    for deed in (WriteFile("a.txt", "one\ntwo\n"), EditFile("a.txt", "two", "three")):
        use = use_for(deed, (tool("sh_exec", command=TEXT),), at)
        assert use is not None
        assert isinstance(use.arguments, dict)
        subprocess.run(["sh", "-c", use.arguments["command"]], check=True)
    assert (tmp_path / "a.txt").read_text() == "one\nthree\n"
