"""A scripted vLLM server that streams, what can go wrong on the way from it, and a model to ask it as."""

import asyncio
import contextlib
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from collect.endpoint import Served
from collect.engine import Sampling
from collect.live.model import LiveArm, LiveModel
from collect.live.server import ServerStreams
from collect.plan import Arm, Plan, Segments
from collect.probes import Probing
from collect.problems import Source
from collect.prompts import Prompting
from collect.sampler import Drawing, Shape
from env.tasks import load_task

MODEL = "scripted"
# What ends a text, what ends a question, and the first token of a probe's opening.
END, ASK, PROBE = 1, 2, 3
CONTEXT = 4096


class Letters:
    """A tokenizer with a token for each character; takes the place of `collect.tokens.Tokens`."""

    model, ends, has_template = MODEL, (END,), False

    def encode(self, text: str, special: bool = False) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids, start: int = 0) -> str:
        return "".join(map(chr, ids[start:])).replace(chr(END), "")

    def piece(self, token: int) -> str:
        return chr(token)

    def with_text(self, text: str) -> tuple[int, ...]:
        return (ord(text),)

    def chat(self, messages, arguments) -> str:
        return messages[0]["content"]

    def only(self, text: str) -> None:
        return None


PLAN = Plan(
    arms=(Arm(MODEL, Prompting("{question}" + chr(ASK))),),
    source=Source("made-up"),
    dataset="made-up",
    task="exact",
    shape=Shape(),
    drawing=Drawing(Sampling(), max_tokens=400, seed=7, top_logprobs=2, window=8),
    segments=Segments(None, 1),
    probing=Probing(chr(PROBE) + "\\boxed{", 4),
)


def script(question: list[int], first: int) -> list[int]:
    """All that a branch says whose first token is this, however often it is interrupted."""
    dice = hashlib.blake2b(bytes(question) + bytes([first]), digest_size=32).digest()
    steps = [chr(97 + each % 26) * (3 + each % 9) for each in dice[: 2 + dice[0] % 6]]
    return [first, *map(ord, "\n\n".join(["", *steps, f"\\boxed{{{dice[1] % 3}}}"])), END]


def reply_to(body: dict[str, Any]) -> list[int]:
    """What comes after a prompt: the rest of a branch, or the answer to a probe."""
    prompt = body["prompt"]
    at = prompt.index(ASK)
    question, said = prompt[:at], prompt[at + 1 :]
    if PROBE in said:
        return [ord(str(said[0] % 3)), ord("}")]
    first = said[0] if said else 65 + body["seed"] % 20
    return script(question, first)[len(said) :]


# Given the server's way to write, does what goes wrong before the reply; False if the reply goes on.
Fault = Callable[["Exchange"], AsyncIterator[None]]


class Exchange:
    """One request to the server."""

    def __init__(self, server: "StreamingServer | None", writer: asyncio.StreamWriter) -> None:
        self.server, self.writer = server, writer
        self.body: dict[str, Any] = {}

    async def stream(self, body: dict[str, Any], stop_after: int | None = None) -> None:
        """Say it all, or so many events of it."""
        server, writer = self.server, self.writer
        ids = server.reply_to(body)[: body["max_tokens"]]
        finish = "stop" if ids and ids[-1] in body["stop_token_ids"] else "length"
        self.head(200, "text/event-stream", chunked=True)
        size = server.tokens_an_event
        for number, first in enumerate(range(0, len(ids), size)):
            if number == stop_after:
                return
            part, last = ids[first : first + size], first + size >= len(ids)
            choice = {"index": 0, "text": "", "token_ids": part, "finish_reason": finish if last else None}
            if body["logprobs"]:
                top = {"token_id:7": -1.0, "token_id:8": -part[0] / 64}
                choice["logprobs"] = {"top_logprobs": [top] * len(part)}
            self.event({"choices": [choice]})
            if server.seconds:
                await asyncio.sleep(server.seconds)
            await writer.drain()
        prompt = len(body["prompt"])
        cached = {"cached_tokens": prompt // 16 * 16}
        self.event({"choices": [], "usage": {"prompt_tokens": prompt, "prompt_tokens_details": cached}})
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")
        server.told += len(ids)
        server.finished += 1

    def event(self, value: Any) -> None:
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    def head(self, status: int, kind: str, length: int = 0, chunked: bool = False, more: str = "") -> None:
        how = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
        self.writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{how}\r\n{more}\r\n".encode())

    def say(self, status: int, value: Any, more: str = "") -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.head(status, "application/json", len(data), more=more)
        self.writer.write(data)


async def busy(exchange: Exchange) -> None:
    exchange.say(429, {"error": {"message": "slow down"}}, "Retry-After: 0.01\r\n")


async def unavailable(exchange: Exchange) -> None:
    exchange.say(503, {"error": {"message": "starting"}})


async def reset_before(exchange: Exchange) -> None:
    exchange.writer.transport.abort()


async def reset_amid(exchange: Exchange) -> None:
    await exchange.stream(exchange.body, stop_after=2)
    await exchange.writer.drain()
    exchange.writer.transport.abort()


async def truncated(exchange: Exchange) -> None:
    await exchange.stream(exchange.body, stop_after=3)
    exchange.writer.write(b'ff\r\ndata: {"choices": [{"ind')
    exchange.writer.close()


async def aborted(exchange: Exchange) -> None:
    """As a server answers that is shut down amid its work: some tokens, and a reason."""
    exchange.head(200, "text/event-stream", chunked=True)
    part = exchange.server.reply_to(exchange.body)[:3]
    exchange.event({"choices": [{"index": 0, "text": "", "token_ids": part, "finish_reason": "abort"}]})
    exchange.chunk(b"data: [DONE]\n\n")
    exchange.chunk(b"")


async def aborted_and_gone(exchange: Exchange) -> None:
    """The same, and the server does not live to say what it took."""
    part = exchange.server.reply_to(exchange.body)[:3]
    exchange.head(200, "text/event-stream", chunked=True)
    exchange.event({"choices": [{"index": 0, "text": "", "token_ids": part, "finish_reason": "abort"}]})
    await exchange.writer.drain()
    await asyncio.sleep(0.01)
    exchange.writer.transport.abort()


async def broken_off(exchange: Exchange) -> None:
    exchange.head(200, "text/event-stream", chunked=True)
    exchange.event({"error": {"message": "engine died"}})
    exchange.chunk(b"")


async def empty(exchange: Exchange) -> None:
    """Not a token, and nothing wrong with that as far as the server is concerned."""
    exchange.head(200, "text/event-stream", chunked=True)
    exchange.event({"choices": [{"index": 0, "text": "", "token_ids": [], "finish_reason": "stop"}]})
    exchange.chunk(b"data: [DONE]\n\n")
    exchange.chunk(b"")


async def late(exchange: Exchange) -> None:
    await asyncio.sleep(0.4)


async def nonsense(exchange: Exchange) -> None:
    exchange.say(200, b"<html>gateway</html>")


FAULTS = (
    *(busy, unavailable, reset_before, reset_amid, truncated, aborted, aborted_and_gone, broken_off),
    *(empty, nonsense),
)


class StreamingServer:
    """Answers `/v1/completions` from the script.

    Args:
        faults: which there are; a request meets the next of them in turn, every so many requests.
        every: how many.
        seconds: between events.
        tokens_an_event: as it says.

    Attributes:
        bodies: what was asked, repetitions included.
        finished: replies that were sent whole; `told` is their tokens.
        struck: how often each fault did.
    """

    reply_to = staticmethod(reply_to)

    def __init__(
        self, faults: tuple = (), every: int = 3, seconds: float = 0.0, tokens_an_event: int = 1
    ) -> None:
        self.faults, self.every, self.seconds, self.tokens_an_event = faults, every, seconds, tokens_an_event
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.struck: Counter[str] = Counter()
        self.finished = self.told = self.open = self.busiest = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A server that ends may have half a connection open.
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                self.open += 1
                self.busiest = max(self.busiest, self.open)
                try:
                    await self._answer(Exchange(self, writer), head.split()[1], head, body)
                    await writer.drain()
                finally:
                    self.open -= 1

    async def _answer(self, exchange: Exchange, path: str, head: str, body: bytes) -> None:
        if path == "/v1/models":
            return exchange.say(200, {"data": [{"id": MODEL, "root": MODEL, "max_model_len": CONTEXT}]})
        if path == "/metrics":
            info = b'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
            info += info.replace(b"100", b"50")
            preempted = (b'vllm:num_preemptions_total{engine="%d"} %d.0\n' % (k, k + 1) for k in (0, 1))
            return exchange.say(200, info + b"".join(preempted))
        if path != "/v1/completions":
            return exchange.say(404, {})
        exchange.body = json.loads(body)
        self.bodies.append(exchange.body)
        self.headers.append(head)
        if len(exchange.body["prompt"]) + exchange.body["max_tokens"] > CONTEXT:
            return exchange.say(400, {"error": {"message": "maximum context length"}})
        if self.faults and len(self.bodies) % self.every == 0:
            fault = self.faults[sum(self.struck.values()) % len(self.faults)]
            self.struck[fault.__name__] += 1
            return await fault(exchange)
        await exchange.stream(exchange.body)


class Meddler:
    """Between a client and a real server: a fault in every `every`-th completion that is asked for.

    Attributes:
        struck: how often each fault did.
        passed: completions that went through whole.
    """

    KINDS = ("busy", "reset before", "reset amid", "truncated", "late")

    def __init__(self, upstream: str, every: int = 3) -> None:
        self.port, self.every = int(upstream.rpartition(":")[2]), every
        self.struck: Counter[str] = Counter()
        self.seen = self.passed = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1]) if length else 0)
            kind = ""
            if b"/v1/completions" in head:
                self.seen += 1
                if self.seen % self.every == 0:
                    kind = self.KINDS[sum(self.struck.values()) % len(self.KINDS)]
                    self.struck[kind] += 1
            await self._pass_on(head, body, kind, writer)

    async def _pass_on(self, head: bytes, body: bytes, kind: str, writer: asyncio.StreamWriter) -> None:
        if kind == "busy":
            Exchange(None, writer).say(429, {"error": {"message": "slow down"}}, "Connection: close\r\n")
            return await writer.drain()
        if kind == "reset before":
            return writer.transport.abort()
        upstream, sink = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.closing(sink):
            sink.write(re.sub(rb"(?i)connection: [^\r]*", b"Connection: close", head) + body)
            events = 0
            while part := await upstream.read(1 << 14):
                events += part.count(b"data: {")
                if kind == "late":
                    await asyncio.sleep(0.05)
                elif kind and events > 4:
                    writer.write(part[: len(part) // 2])
                    await writer.drain()
                    return writer.transport.abort() if kind == "reset amid" else None
                writer.write(part)
                await writer.drain()
        self.passed += b"/v1/completions" in head


@contextlib.contextmanager
def running(server: Any) -> Iterator[Any]:
    """Serves from a thread of its own."""
    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(asyncio.start_server(server.serve, "127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(listening.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(_end())
        loop.close()


async def _end() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)


def scripted_model(*urls: str, plan: Plan = PLAN, seconds: float = 5.0, **options) -> LiveModel:
    """A live model of such servers."""
    places = [ServerStreams(Served(url, MODEL, CONTEXT, None), seconds=seconds) for url in urls]
    return LiveModel([LiveArm(plan.sampler(0, Letters(), load_task(plan.task)), places)], **options)
