"""A real vLLM server for tests, and what can happen to a connection on the way to it."""

import http.client
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from loopback import LoopbackServer

# Of a server on a small machine; float32, so that samples do not depend on what runs beside them.
OPTIONS = "--dtype float32 --enforce-eager --block-size 32 --kv-cache-memory-bytes 67108864 --max-num-seqs 16"
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_CI_ENV": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
}
KEY = "sk-only-the-server-may-know"
SECONDS = 240


@contextmanager
def serve(model: Path, log: Path, *options: str) -> Iterator[str]:
    """The address of a server of this model, which asks for `KEY`."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), *OPTIONS.split(), *options]
    environment = os.environ | ENVIRONMENT | {"VLLM_API_KEY": KEY}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        deadline = time.monotonic() + SECONDS
        while not is_up(port):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def is_up(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


# Given the handler and the server's reply (None = the request has not been passed on), does what it does.
Fault = Callable[["_Handler", dict[str, Any] | None], dict[str, Any] | None]


def reset_before(handler: "_Handler", reply: dict[str, Any] | None) -> dict[str, Any] | None:
    """The connection is reset before the server hears of the request."""
    if reply is None:
        handler.reset()
    return reply


def reset_after(handler: "_Handler", reply: dict[str, Any] | None) -> dict[str, Any] | None:
    """The server has sampled, and its reply is lost."""
    if reply is not None:
        handler.reset()
    return reply


def busy(handler: "_Handler", reply: dict[str, Any] | None) -> dict[str, Any] | None:
    if reply is None:
        handler.send(429, {"error": {"message": "slow down"}}, {"retry-after": "0.05"})
    return reply


def unavailable(handler: "_Handler", reply: dict[str, Any] | None) -> dict[str, Any] | None:
    if reply is None:
        handler.send(503, {"error": {"message": "starting"}}, {"retry-after": "0.05"})
    return reply


def truncated(handler: "_Handler", reply: dict[str, Any] | None) -> dict[str, Any] | None:
    """Half of the body that was promised."""
    if reply is not None:
        handler.send(200, reply, part=0.5)
        handler.close_connection = True
    return reply


def half_json(handler: "_Handler", reply: dict[str, Any] | None) -> dict[str, Any] | None:
    """Half of the body, promised as the whole."""
    if reply is not None:
        handler.send(200, json.dumps(reply)[: len(json.dumps(reply)) // 2])
    return reply


def aborted(handler: "_Handler", reply: dict[str, Any] | None) -> dict[str, Any] | None:
    """As a server answers that is shut down amid its work: some tokens, and a reason."""
    if reply is not None and "choices" in reply:
        (choice,) = reply["choices"]
        keep = len(choice["token_ids"]) // 2
        cut = {name: values[:keep] for name, values in choice["logprobs"].items()}
        half = {"finish_reason": "abort", "token_ids": choice["token_ids"][:keep], "logprobs": cut}
        handler.send(200, reply | {"choices": [choice | half]})
    return reply


def late(handler: "_Handler", reply: dict[str, Any] | None) -> dict[str, Any] | None:
    """The answer comes when nobody waits for it any more."""
    if reply is not None:
        time.sleep(2.5)
    return reply


FAULTS = (reset_before, reset_after, busy, unavailable, truncated, half_json, aborted)


class Proxy(LoopbackServer):
    """Between a client and a server, with a fault in every `every`-th request or so; a context manager.

    Args:
        upstream: the server's address.
        faults: which there are.
        every: on average.
        change: what it does to replies that pass.

    Attributes:
        seen: bodies of the completions and poolings asked for, repetitions included.
        passed: how many replies went through whole.
        struck: how often each fault did.
    """

    daemon_threads = True

    def __init__(
        self,
        upstream: str,
        faults: tuple[Fault, ...] = (),
        every: int = 4,
        change: Callable[[dict[str, Any]], dict[str, Any]] = lambda reply: reply,
    ) -> None:
        super().__init__(_Handler)
        self.port = int(upstream.rpartition(":")[2])
        self.faults, self.every, self.change = faults, every, change
        self.dice = random.Random(11)
        self.lock = threading.Lock()
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.passed = 0
        self.struck: Counter[str] = Counter()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_GET(self):
        self._pass_on("GET", b"", None)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        proxy = self.server
        with proxy.lock:
            proxy.seen.append(json.loads(body))
            proxy.headers.append({name.lower(): value for name, value in self.headers.items()})
            strikes = proxy.faults and proxy.dice.randrange(proxy.every) == 0
            fault = proxy.dice.choice(proxy.faults) if strikes else None
            if fault:
                proxy.struck[fault.__name__] += 1
        self._pass_on("POST", body, fault)

    def _pass_on(self, method: str, body: bytes, fault: Fault | None) -> None:
        self.answered = False
        if fault:
            fault(self, None)
        if self.answered:
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=120)
        kept = {"Content-Type": "application/json", "Authorization": self.headers.get("Authorization", "")}
        try:
            upstream.request(method, self.path, body, kept)
            response = upstream.getresponse()
            status, reply = response.status, json.loads(response.read())
        finally:
            upstream.close()
        if fault and status == 200:
            fault(self, reply)
        if not self.answered:
            self.send(status, self.server.change(reply) if status == 200 else reply)
            with self.server.lock:
                self.server.passed += method == "POST"

    def send(self, status: int, reply: Any, headers: dict[str, str] | None = None, part: float = 1) -> None:
        data = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
        self.answered = True
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: int(len(data) * part)])

    def reset(self) -> None:
        self.answered = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *args):
        pass
