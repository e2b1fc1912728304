"""An OpenAI-compatible HTTP server on a loopback socket that answers from a script."""

import json
import socket
import struct
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from typing import Any

from loopback import LoopbackServer

Answer = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def completion(
    text: str | None = None, calls: Iterable[tuple[str, Any]] = (), finish: str = "", **fields: Any
) -> dict[str, Any]:
    """A chat completion; `calls` are (tool, arguments as an object or as raw text)."""
    tool_calls = [
        {
            "id": f"id{number}",
            "type": "function",
            "function": {"name": name, "arguments": args if isinstance(args, str) else json.dumps(args)},
        }
        for number, (name, args) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": text, **fields.pop("message", {})}
    if tool_calls:
        message["tool_calls"] = tool_calls
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish or ("tool_calls" if tool_calls else "stop"),
                "message": message,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        **fields,
    }


def reply(
    body: Any, status: int = 200, headers: dict[str, str] | None = None, kind="application/json"
) -> Answer:
    """Answer with a status and a body (an object becomes JSON)."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()

    def send(handler, request):
        handler.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return send


def failure(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    """An error as OpenAI words it; `retry_after="0.01"` becomes the header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return reply({"error": {"message": message, "type": "error", "code": code}}, status, named)


def hang(seconds: float) -> Answer:
    """Say nothing for a while, then drop the connection."""

    def wait(handler, request):
        time.sleep(seconds)
        handler.close_connection = True

    return wait


def reset(handler, request):
    """Reset the connection without an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def half(body: Any) -> Answer:
    """Promise a whole body, send half of it, close."""
    data = json.dumps(body).encode()

    def send(handler, request):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.close_connection = True

    return send


class ScriptedServer(LoopbackServer):
    """Plays one answer a request, in order, then the last one again and again. A context manager.

    Attributes:
        requests: the bodies that came in.
        headers: their headers, names in lower case.
    """

    daemon_threads = False

    def __init__(self, *script: Answer | dict[str, Any]) -> None:
        super().__init__(_Handler)
        self.script = [step if callable(step) else reply(step) for step in script]
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"{super().url}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = len(self.server.requests)
        self.server.requests.append(body)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.path != "/v1/chat/completions":
            return reply({"error": {"message": f"no route {self.path}"}}, 404)(self, body)
        self.server.script[min(number, len(self.server.script) - 1)](self, body)

    def log_message(self, *args):
        pass
