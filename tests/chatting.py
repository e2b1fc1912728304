"""A scripted vLLM server that chats, and a server of ours in front of it."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from programs import shipped
from streaming import ASK, CONTEXT, END, MODEL, PLAN, PROBE, Exchange, Letters, StreamingServer

from collect.endpoint import Served
from collect.live.chat import LiveChats
from collect.live.model import LiveArm, LiveModel
from collect.live.server import ServerStreams
from collect.plan import Arm, Segments
from collect.prompts import Prompting
from env.live.player import Player
from env.math_task import last_boxed
from env.serve.app import Limits, Server, serve
from env.serve.chats import Chats
from env.serve.relay import Place, Relay
from env.serve.request import Offer

OPENING, CLOSING = 4, 5


class ChatLetters(Letters):
    """Has a chat template, and tokens that open and close thinking."""

    has_template = True

    def chat(self, messages, arguments) -> str:
        return "".join(f"{each['role']}: {each['content']}\n" for each in messages) + chr(ASK)

    def only(self, text: str) -> int | None:
        return {"<think>": OPENING, "</think>": CLOSING}.get(text)

    def decode(self, ids, start: int = 0) -> str:
        text = super().decode(ids, start)
        return text.replace(chr(OPENING), "<think>").replace(chr(CLOSING), "</think>")


class Boxed:
    """A task whose answers are boxed or none."""

    def extract(self, text: str) -> str | None:
        return last_boxed(text)

    def equal(self, first: str, second: str) -> bool:
        return first == second

    def grade(self, gold: str, answer: str) -> bool:
        return gold == answer


class ChatServer(StreamingServer):
    """Answers by the last line of a chat that the user wrote.

    "hello ..." is greeted; "think ..." is thought about and answered; "long ..." rambles without an answer;
    else the answer is one of three digits, by the seed. `slow` events are told slowly.

    Attributes:
        chats: bodies of chat completions; each is kept waiting for `delay` seconds.
    """

    def __init__(self, *args, delay: float = 0, **options) -> None:
        super().__init__(*args, **options)
        self.delay = delay
        self.chats: list[dict[str, Any]] = []

    def reply_to(self, body: dict[str, Any]) -> list[int]:
        prompt = body["prompt"]
        at = prompt.index(ASK)
        said = prompt[at + 1 :]
        asked = "".join(map(chr, prompt[:at])).rstrip("\n").rpartition("user: ")[2]
        if PROBE in said:
            return [ord("7"), ord("}")]
        # Whoever goes on says what was begun.
        digit = (said[0] if said else 48 + body["seed"] % 3) - 48
        if asked.startswith("hello"):
            text = f"{digit}. Good day to you."
        elif asked.startswith("long"):
            text = f"{digit}" + "".join(f" and on\n\n{'x' * 40}" for _ in range(4 + 4 * digit))
        else:
            text = f"{digit} is what I\n\nthink it is: \\boxed{{{digit}}}"
        if asked.startswith("think"):
            text = f"{digit}{chr(OPENING)}let me\n\nsee{chr(CLOSING)}\n\n{text[1:]}"
        return [*map(ord, text), END][len(said) :]

    async def _answer(self, exchange: Exchange, path: str, head: str, body: bytes) -> None:
        if path == "/v1/completions" and json.loads(body).get("temperature") == 13:
            return exchange.say(400, {"error": {"message": "13 is refused", "param": "temperature"}})
        if path != "/v1/chat/completions":
            return await super()._answer(exchange, path, head, body)
        exchange.body = asked = json.loads(body)
        self.chats.append(asked)
        self.headers.append(head)
        if self.faults and len(self.chats) % self.every == 0:
            fault = self.faults[sum(self.struck.values()) % len(self.faults)]
            self.struck[fault.__name__] += 1
            return await fault(exchange)
        await asyncio.sleep(self.delay)
        if asked.get("temperature") == 13:
            return exchange.say(400, {"error": {"message": "13 is refused", "param": "temperature"}})
        choice = {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": "as is"},
        }
        told = {"id": "up", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
        told["usage"] = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        if not asked.get("stream"):
            return exchange.say(200, told)
        exchange.head(200, "text/event-stream", chunked=True)
        for part in ("as", " is"):
            delta = {"index": 0, "finish_reason": None, "delta": {"content": part}}
            exchange.event(told | {"object": "chat.completion.chunk", "choices": [delta]})
            await asyncio.sleep(self.seconds)
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.chunk(b"")


def server_for(
    url: str,
    program=None,
    beta: float = 0.5,
    settings: dict[str, Any] | None = None,
    key: str | None = None,
    limits: Limits | None = None,
    prompting: Prompting | None = None,
    seconds_whole: float = 5.0,
) -> tuple[Server, Any]:
    """A server in front of a scripted one, and what closes it with all that it holds."""
    plan = replace(PLAN, arms=(Arm(MODEL, prompting or Prompting("{question}")),), segments=Segments(None, 1))
    sampler = plan.sampler(0, ChatLetters(), Boxed())
    place = ServerStreams(Served(url, MODEL, CONTEXT, None), 1024, 5.0)
    model = LiveModel([LiveArm(sampler, [place])], confidence=False)
    player = Player(program or shipped("self_consistency"), beta, settings)
    offer = Offer(MODEL, beta, plan.drawing.max_tokens, 64)
    relay = Relay([Place(url, MODEL, CONTEXT)], "none", offer, 0.3, seconds_whole)
    server = Server(
        offer, Chats(LiveChats(model), player, sampler.task), relay, limits or Limits(heartbeat=0.05), key
    )

    async def close() -> None:
        await server.close()
        await model.close()
        player.close()

    return server, close


@contextlib.contextmanager
def serving(url: str, **options) -> Iterator[str]:
    """The base URL of a server of ours, in a thread of its own."""
    from aiohttp import web

    server, close = server_for(url, **options)
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(server.app(), access_log=None, handler_cancellation=True)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        asyncio.run_coroutine_threadsafe(close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


__all__ = ["ChatServer", "serve", "server_for", "serving"]
