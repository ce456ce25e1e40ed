"""Wires: the four protocols by which agent CLIs speak to a model, as a server sees them.

A wire reads a request into `Asked`, and tells a `Reply` as one document or as a stream of events. The bodies are
anybody's JSON: here is the edge where it is looked at untyped.
"""

import json
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from storyloop.conformance.scenario import Said, Who
from storyloop.conformance.tools import EDITS_BY_TEXT, Tool, Use
from storyloop.core.usage import Usage

Json = dict[str, Any]
Event = tuple[str | None, Json | str]  # its name where the protocol has names, and what it says

_PIECE = 60  # characters of a delta; of a huge text the pieces grow, so that the events do not
_MOST_PIECES = 1000
_STAMP = 1_700_000_000


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants of the model."""

    model: str
    streamed: bool
    talk: tuple[Said, ...]
    tools: tuple[Tool, ...]
    edits_by_text: bool = False  # its client reads edits out of what the model says

    @property
    def is_turn(self) -> bool:
        """Whether an agent asks for its next turn; titles and summaries are asked for without tools."""
        return bool(self.tools) or self.edits_by_text


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the model answers; `number` is unique in its conversation."""

    model: str
    number: int
    thinks: str
    says: str
    use: Use | None
    usage: Usage

    @property
    def call(self) -> str:
        """The id of the tool's use."""
        return f"call_{self.number}"

    @property
    def arguments(self) -> str:
        """The tool's arguments as JSON, or its free text."""
        given = self.use.arguments if self.use is not None else {}
        return given if isinstance(given, str) else json.dumps(given)


class Wire(Protocol):
    """One protocol."""

    def asked(self, body: Json, path: str) -> Asked:
        """The request behind a POST."""
        ...

    def whole(self, reply: Reply) -> Json:
        """The answer as one document."""
        ...

    def events(self, reply: Reply) -> Iterator[Event]:
        """The same as a stream."""
        ...

    def refusal(self, status: int, message: str) -> Json:
        """The body of an HTTP error."""
        ...

    def failing_event(self, status: int, message: str) -> Event:
        """An error in the midst of a stream."""
        ...


class Messages:
    """Anthropic's Messages."""

    def asked(self, body: Json, path: str) -> Asked:  # noqa: ARG002 - the protocol's
        return Asked(
            model=body.get("model", ""),
            streamed=bool(body.get("stream")),
            talk=tuple(_message(one) for one in body.get("messages", [])),
            tools=tuple(Tool(tool["name"], tool["input_schema"]) for tool in _offered(body) if "input_schema" in tool),
        )

    def whole(self, reply: Reply) -> Json:
        content: list[Json] = []
        if reply.thinks:
            content.append({"type": "thinking", "thinking": reply.thinks, "signature": "c2NyaXB0"})
        if reply.says:
            content.append({"type": "text", "text": reply.says})
        if reply.use is not None:
            content.append({"type": "tool_use", "id": reply.call, "name": reply.use.name, "input": reply.use.arguments})
        return {
            "id": f"msg_{reply.number}",
            "type": "message",
            "role": "assistant",
            "model": reply.model,
            "content": content,
            "stop_reason": "tool_use" if reply.use is not None else "end_turn",
            "stop_sequence": None,
            "usage": self._usage(reply.usage),
        }

    def events(self, reply: Reply) -> Iterator[Event]:
        whole = self.whole(reply)
        yield self._event("message_start", message={**whole, "content": [], "stop_reason": None})
        for index, block in enumerate(whole["content"]):
            match block["type"]:
                case "thinking":
                    blank: Json = {**block, "thinking": "", "signature": ""}
                    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(reply.thinks)]
                    deltas.append({"type": "signature_delta", "signature": block["signature"]})
                case "text":
                    blank = {**block, "text": ""}
                    deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(reply.says)]
                case _:
                    blank = {**block, "input": {}}
                    deltas = [{"type": "input_json_delta", "partial_json": p} for p in _pieces(reply.arguments)]
            yield self._event("content_block_start", index=index, content_block=blank)
            for delta in deltas:
                yield self._event("content_block_delta", index=index, delta=delta)
            yield self._event("content_block_stop", index=index)
        end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield self._event("message_delta", delta=end, usage=whole["usage"])
        yield self._event("message_stop")

    def refusal(self, status: int, message: str) -> Json:
        kinds = {
            400: "invalid_request_error",
            401: "authentication_error",
            403: "permission_error",
            404: "not_found_error",
            429: "rate_limit_error",
            529: "overloaded_error",
        }
        return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}}

    def failing_event(self, status: int, message: str) -> Event:
        return "error", self.refusal(status, message)

    def _event(self, kind: str, **what: object) -> Event:
        return kind, {"type": kind, **what}

    def _usage(self, usage: Usage) -> Json:
        return {
            "input_tokens": usage.input_tokens,
            "cache_creation_input_tokens": usage.cache_creation_tokens,
            "cache_read_input_tokens": usage.cache_read_tokens,
            "output_tokens": usage.output_tokens,
        }


class Responses:
    """OpenAI's Responses."""

    def asked(self, body: Json, path: str) -> Asked:  # noqa: ARG002 - the protocol's
        asked: Any = body.get("input", [])
        items: list[Json] = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        return Asked(
            model=body.get("model", ""),
            streamed=bool(body.get("stream")),
            talk=tuple(self._said(item) for item in items),
            tools=tuple(
                Tool(tool["name"], tool.get("parameters") or {} if tool["type"] == "function" else None)
                for tool in _offered(body)
                if tool.get("type") in ("function", "custom")
            ),
        )

    def whole(self, reply: Reply) -> Json:
        items: list[Json] = []
        if reply.thinks:
            summary = [{"type": "summary_text", "text": reply.thinks}]
            items.append({"type": "reasoning", "id": f"rs_{reply.number}", "summary": summary})
        if reply.says:
            content: list[Json] = [{"type": "output_text", "text": reply.says, "annotations": []}]
            items.append({"type": "message", "id": f"msg_{reply.number}", "role": "assistant", "content": content})
        if reply.use is not None:
            used = {"id": f"fc_{reply.number}", "call_id": reply.call, "name": reply.use.name}
            if isinstance(reply.use.arguments, str):
                items.append({"type": "custom_tool_call", **used, "input": reply.arguments})
            else:
                items.append({"type": "function_call", **used, "arguments": reply.arguments})
        return {
            "id": f"resp_{reply.number}",
            "object": "response",
            "created_at": _STAMP,
            "model": reply.model,
            "status": "completed",
            "error": None,
            "output": [{**item, "status": "completed"} for item in items],
            "usage": self._usage(reply.usage),
        }

    def events(self, reply: Reply) -> Iterator[Event]:
        whole = self.whole(reply)
        begun: Json = {**whole, "status": "in_progress", "output": [], "usage": None}
        told: list[tuple[str, Json]] = [("response.created", {"response": begun})]
        for index, item in enumerate(whole["output"]):
            empty, inside = self._inside(item, reply, {"output_index": index, "item_id": item["id"]})
            begun = {**item, **empty, "status": "in_progress"}
            told.append(("response.output_item.added", {"output_index": index, "item": begun}))
            told += inside
            told.append(("response.output_item.done", {"output_index": index, "item": item}))
        told.append(("response.completed", {"response": whole}))
        for number, (kind, what) in enumerate(told):
            yield kind, {"type": kind, "sequence_number": number, **what}

    def _inside(self, item: Json, reply: Reply, at: Json) -> tuple[Json, list[tuple[str, Json]]]:
        """What an item lacks when it begins, and the events that bring it."""
        match item["type"]:
            case "message":
                text: Json = item["content"][0]
                part: Json = {**at, "content_index": 0}
                return {"content": []}, [
                    ("response.content_part.added", {**part, "part": {**text, "text": ""}}),
                    *(("response.output_text.delta", {**part, "delta": piece}) for piece in _pieces(reply.says)),
                    ("response.output_text.done", {**part, "text": reply.says}),
                    ("response.content_part.done", {**part, "part": text}),
                ]
            case "reasoning":
                kind = "response.reasoning_summary_text.delta"
                return {"summary": []}, [(kind, {**at, "summary_index": 0, "delta": reply.thinks})]
            case "custom_tool_call":
                return {"input": ""}, []
            case _:
                kind = "response.function_call_arguments"
                return {"arguments": ""}, [
                    *((f"{kind}.delta", {**at, "delta": piece}) for piece in _pieces(reply.arguments)),
                    (f"{kind}.done", {**at, "arguments": reply.arguments}),
                ]

    def refusal(self, status: int, message: str) -> Json:
        codes = {400: "context_length_exceeded", 401: "invalid_api_key", 429: "rate_limit_exceeded"}
        kind = "invalid_request_error" if status < 429 else "server_error" if status > 429 else "rate_limit_exceeded"
        return {"error": {"message": message, "type": kind, "param": None, "code": codes.get(status)}}

    def failing_event(self, status: int, message: str) -> Event:
        error = {"code": "server_is_overloaded" if status == 529 else "server_error", "message": message}
        failed: Json = {"id": "resp_failed", "object": "response", "status": "failed", "output": [], "error": error}
        return "response.failed", {"type": "response.failed", "response": failed}

    def _said(self, item: Json) -> Said:
        kind: str = item.get("type", "message")
        if kind == "message":
            return _message(item)
        return Said(Who.TOOL, json.dumps(item)) if kind.endswith("_output") else Said(Who.MODEL)

    def _usage(self, usage: Usage) -> Json:
        read = usage.input_tokens + usage.cache_read_tokens
        return {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": usage.cache_read_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
            "total_tokens": read + usage.output_tokens,
        }


class ChatCompletions(Responses):
    """OpenAI's Chat Completions; its errors are those of Responses."""

    def asked(self, body: Json, path: str) -> Asked:  # noqa: ARG002 - the protocol's
        return Asked(
            model=body.get("model", ""),
            streamed=bool(body.get("stream")),
            talk=tuple(_message(one) for one in body.get("messages", []) if one["role"] not in ("system", "developer")),
            edits_by_text=not _offered(body) and any(EDITS_BY_TEXT in _text(m["content"]) for m in body["messages"]),
            tools=tuple(
                Tool(tool["function"]["name"], tool["function"].get("parameters") or {})
                for tool in _offered(body)
                if tool.get("type") == "function"
            ),
        )

    def whole(self, reply: Reply) -> Json:
        message: Json = {"role": "assistant", "content": reply.says or None}
        if reply.thinks:
            message["reasoning_content"] = reply.thinks
        if reply.use is not None:
            message["tool_calls"] = [self._use(reply, reply.arguments)]
        choice = {"index": 0, "message": message, "finish_reason": self._end(reply)}
        head = self._head(reply, "chat.completion")
        return {**head, "choices": [choice], "usage": self._chat_usage(reply.usage)}

    def events(self, reply: Reply) -> Iterator[Event]:
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        if reply.thinks:
            deltas.append({"reasoning_content": reply.thinks})
        deltas += [{"content": piece} for piece in _pieces(reply.says)]
        if reply.use is not None:
            deltas.append({"tool_calls": [self._use(reply, "")]})
            deltas += [
                {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in _pieces(reply.arguments)
            ]
        head = self._head(reply, "chat.completion.chunk")
        for delta in deltas:
            yield None, {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield None, {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": self._end(reply)}]}
        yield None, {**head, "choices": [], "usage": self._chat_usage(reply.usage)}
        yield None, "[DONE]"

    def failing_event(self, status: int, message: str) -> Event:
        return None, self.refusal(status, message)

    def _head(self, reply: Reply, kind: str) -> Json:
        return {"id": f"chatcmpl-{reply.number}", "object": kind, "created": _STAMP, "model": reply.model}

    def _use(self, reply: Reply, arguments: str) -> Json:
        name = reply.use.name if reply.use is not None else ""
        return {"index": 0, "id": reply.call, "type": "function", "function": {"name": name, "arguments": arguments}}

    def _end(self, reply: Reply) -> str:
        return "stop" if reply.use is None else "tool_calls"

    def _chat_usage(self, usage: Usage) -> Json:
        read = usage.input_tokens + usage.cache_read_tokens
        return {
            "prompt_tokens": read,
            "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
            "completion_tokens": usage.output_tokens,
            "completion_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
            "total_tokens": read + usage.output_tokens,
        }


class Gemini:
    """Google's Gemini: model and manner stand in the path."""

    def asked(self, body: Json, path: str) -> Asked:
        model, _, manner = path.rpartition("/")[2].partition(":")
        return Asked(
            model=model,
            streamed=manner.startswith("stream"),
            talk=tuple(self._said(content) for content in body.get("contents", [])),
            tools=tuple(
                Tool(one["name"], one.get("parametersJsonSchema") or one.get("parameters") or {})
                for tool in _offered(body)
                for one in tool.get("functionDeclarations", [])
            ),
        )

    def whole(self, reply: Reply) -> Json:
        parts = [{"text": text} for text in (reply.says,) if text] + self._use(reply)
        return self._frame(reply, parts, over=True)

    def events(self, reply: Reply) -> Iterator[Event]:
        if reply.thinks:
            yield None, self._frame(reply, [{"text": reply.thinks, "thought": True}])
        for piece in _pieces(reply.says):
            yield None, self._frame(reply, [{"text": piece}])
        if reply.use is not None:
            yield None, self._frame(reply, self._use(reply))
        yield None, self._frame(reply, [{"text": ""}], over=True)

    def refusal(self, status: int, message: str) -> Json:
        kinds = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED"}
        return {"error": {"code": status, "message": message, "status": kinds.get(status, "INTERNAL")}}

    def failing_event(self, status: int, message: str) -> Event:
        return None, self.refusal(status, message)

    def _said(self, content: Json) -> Said:
        parts: list[Json] = content.get("parts") or []
        if any("functionResponse" in part for part in parts):
            return Said(Who.TOOL, json.dumps(parts))
        return Said(Who.MODEL if content.get("role") == "model" else Who.USER, _text(parts))

    def _use(self, reply: Reply) -> list[Json]:
        if reply.use is None:
            return []
        return [{"functionCall": {"id": reply.call, "name": reply.use.name, "args": reply.use.arguments}}]

    def _frame(self, reply: Reply, parts: list[Json], *, over: bool = False) -> Json:
        candidate: Json = {"index": 0, "content": {"role": "model", "parts": parts}}
        frame: Json = {"candidates": [candidate], "modelVersion": reply.model, "responseId": f"resp-{reply.number}"}
        if over:
            candidate["finishReason"] = "STOP"
            read = reply.usage.input_tokens + reply.usage.cache_read_tokens
            thought = reply.usage.thinking_tokens
            frame["usageMetadata"] = {
                "promptTokenCount": read,
                "cachedContentTokenCount": reply.usage.cache_read_tokens,
                "candidatesTokenCount": reply.usage.output_tokens - thought,  # here alone they stand apart
                "thoughtsTokenCount": thought,
                "totalTokenCount": read + reply.usage.output_tokens,
            }
        return frame


# The end of a path tells the wire.
WIRES: dict[str, Wire] = {
    "/messages": Messages(),
    "/responses": Responses(),
    "/chat/completions": ChatCompletions(),
    ":generateContent": Gemini(),
    ":streamGenerateContent": Gemini(),
}


def _offered(body: Json) -> list[Json]:
    return body.get("tools") or []


def _message(message: Json) -> Said:
    """A message with a role; with Anthropic's, what tools came to stands in the user's."""
    content: Any = message.get("content") or ""
    parts: list[Json] = [] if isinstance(content, str) else content
    if message["role"] == "tool" or any(part.get("type") == "tool_result" for part in parts):
        return Said(Who.TOOL, json.dumps(content))
    return Said(Who.MODEL if message["role"] == "assistant" else Who.USER, _text(content))


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part.get("text") or "" for part in content)


def _pieces(text: str) -> Iterator[str]:
    size = max(_PIECE, len(text) // _MOST_PIECES)
    return (text[start : start + size] for start in range(0, len(text), size))
