"""Replies as OpenAI's API writes them, whole and as server-sent events."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from env.serve.chats import Reply
from env.serve.errors import ApiError
from env.serve.request import Chat

DONE = b"data: [DONE]\n\n"
# A comment: clients skip it, and whatever stands between sees that the connection lives.
HEARTBEAT = b": nothing is decided yet\n\n"


def event(said: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def failure(error: ApiError) -> bytes:
    """The last event of a stream that failed."""
    return event(error.body)


def whole(chat: Chat, reply: Reply) -> dict[str, Any]:
    """A chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.said.content, "refusal": None}
    if reply.said.reasoning:
        message["reasoning_content"] = reply.said.reasoning
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}
    return _envelope("chat.completion", chat) | {"choices": [choice], "usage": reply.usage}


def events(chat: Chat, reply: Reply) -> Iterator[bytes]:
    """The same as the events of a stream."""
    envelope = _envelope("chat.completion.chunk", chat)
    if chat.wants_usage:
        envelope["usage"] = None

    def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event(envelope | {"choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    if reply.said.reasoning:
        yield chunk({"reasoning_content": reply.said.reasoning})
    if reply.said.content:
        yield chunk({"content": reply.said.content})
    yield chunk({}, reply.finish)
    if chat.wants_usage:
        yield event(envelope | {"choices": [], "usage": reply.usage})
    yield DONE


def _envelope(kind: str, chat: Chat) -> dict[str, Any]:
    name = f"chatcmpl-{uuid.uuid4().hex}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": chat.model}
