"""The HTTP side: routes, the key, limits, events with heartbeats, and a shutdown that lets replies finish."""

import asyncio
import gc
import hmac
import logging
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from env.errors import UserError
from env.program import GRID
from env.serve import reply as replies
from env.serve.chats import Chats
from env.serve.errors import ApiError
from env.serve.relay import Relay
from env.serve.request import AT, Chat, Offer, beta_of, read

# A body that takes longer to arrive is given up.
BODY_SECONDS = 60.0
# Nobody waits as long; a second signal ends it sooner.
GRACE = 24 * 3600.0


@dataclass(frozen=True)
class Limits:
    """What the server takes.

    Attributes:
        requests: under way at a time.
        body: bytes of a request.
        heartbeat: seconds of silence in a stream.
    """

    requests: int = 256
    body: int = 4 * 2**20
    heartbeat: float = 5.0


class Server:
    """Answers requests, in one event loop.

    Args:
        offer: what clients may ask for.
        chats: finds replies.
        relay: passes on the other chats.
        limits: what it takes.
        key: that clients must have; None = none. It is never shown.

    Attributes:
        name: of the model, for clients.
    """

    def __init__(
        self, offer: Offer, chats: Chats, relay: Relay, limits: Limits, key: str | None = None
    ) -> None:
        self.name = offer.name
        self._offer, self._chats, self._relay, self._limits = offer, chats, relay, limits
        self._key = None if key is None else f"Bearer {key}".encode()
        self._running: set[asyncio.Task[Any]] = set()
        self._began = int(time.time())

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(client_max_size=self._limits.body, middlewares=[self._guard])
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model)
        app.router.add_post("/v1/chat/completions", self._complete)
        return app

    async def close(self) -> None:
        """Let go of the servers that are asked; the model and the player are others' to close."""
        await self._relay.close()

    def give_up(self) -> None:
        """Answer nothing that is under way."""
        for task in self._running:
            task.cancel()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Ask for the key, and word every failure as OpenAI does."""
        try:
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if self._key is not None and not hmac.compare_digest(given, self._key):
                raise ApiError(401, "the API key is missing or wrong", "invalid_api_key")
            return await handler(request)
        except ApiError as error:
            return _refused(error)
        except web.HTTPException as error:
            return _refused(_http_error(error, request, self._limits.body))
        except UserError as error:
            return _refused(ApiError(500, str(error)))
        except Exception:
            # What was asked is nobody's business.
            logging.exception("a request failed")
            return _refused(ApiError(500, "the server failed; its log says why"))

    async def _models(self, request: web.Request) -> web.Response:
        names = [self._offer.name, *(f"{self._offer.name}{AT}{beta:g}" for beta in GRID)]
        return web.json_response({"object": "list", "data": [self._card(name) for name in names]})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        beta_of(name, self._offer)
        return web.json_response(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._began, "owned_by": "autotts"}

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        # A page in somebody's browser may post to an address of this machine, but not as JSON.
        if request.content_type != "application/json":
            raise ApiError(415, "the Content-Type must be application/json")
        with self._turn():
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    data = await request.read()
            except TimeoutError:
                raise ApiError(408, f"the body took more than {BODY_SECONDS:g} seconds to arrive") from None
            except web.RequestPayloadError:
                raise ApiError(400, "the body is not encoded as its headers say") from None
            chat = read(data, self._offer)
            if chat.stream:
                return await self._stream(request, self._events(chat))
            if chat.votes:
                return web.json_response(replies.whole(chat, await self._chats.reply(chat)))
            return web.json_response(await self._relay.whole(chat))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if (count := len(self._running)) >= self._limits.requests:
            raise ApiError(429, f"{count} requests are under way, and no more are taken; try again", "busy")
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)

    def _events(self, chat: Chat) -> AsyncGenerator[bytes, None]:
        return self._voted(chat) if chat.votes else self._relay.events(chat)

    async def _voted(self, chat: Chat) -> AsyncGenerator[bytes, None]:
        for each in replies.events(chat, await self._chats.reply(chat)):
            yield each

    async def _stream(self, request: web.Request, events: AsyncGenerator[bytes, None]) -> web.StreamResponse:
        """Send events as they come. What fails before the first, or a heartbeat, has a status of its own."""
        response = web.StreamResponse(headers={"Cache-Control": "no-cache"})
        response.content_type = "text/event-stream"
        coming = asyncio.ensure_future(anext(events, None))
        try:
            while True:
                done, _ = await asyncio.wait([coming], timeout=self._limits.heartbeat)
                try:
                    sent = coming.result() if done else replies.HEARTBEAT
                except Exception as error:
                    if not response.prepared:
                        raise
                    sent = replies.failure(_told(error))
                if not response.prepared:
                    await response.prepare(request)
                if sent is None:
                    break
                await response.write(sent)
                if done:
                    if coming.exception() is not None:
                        break
                    coming = asyncio.ensure_future(anext(events, None))
            await response.write_eof()
            return response
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await events.aclose()


async def serve(server: Server, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve until a signal, then finish what is under way; a second signal gives that up.

    Args:
        server: what answers.
        host: address to listen at.
        port: 0 = any that is free.
        announce: is told the address, and later that the server is stopping.

    Raises:
        UserError: nothing can listen there.
    """
    # Work for clients that leave is given up.
    runner = web.AppRunner(server.app(), access_log=None, handler_cancellation=True, shutdown_timeout=GRACE)
    await runner.setup()
    signals, loop = asyncio.Queue[int](), asyncio.get_running_loop()
    again: asyncio.Future[int] | None = None
    try:
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError as error:
            raise UserError(
                f"cannot listen at {host}:{port}: {error.strerror}; choose another with --host and --port"
            ) from None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, signals.put_nowait, number)
        address, number, *_ = runner.addresses[0]
        shown = f"[{address}]" if ":" in address else address
        # What is there by now stays: looking through it again and again costs a millisecond a request.
        gc.collect()
        gc.freeze()
        announce(f"{server.name} is served at http://{shown}:{number}/v1")
        await signals.get()
        announce("stopping: what is under way is finished; once more to give it up")
        again = asyncio.ensure_future(signals.get())
        again.add_done_callback(lambda heard: None if heard.cancelled() else server.give_up())
    finally:
        await runner.cleanup()
        gc.unfreeze()
        if again is not None:
            again.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _told(error: Exception) -> ApiError:
    """What a client is told of a failure in mid-stream."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return ApiError(500, str(error))
    logging.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed; its log says why")


def _http_error(error: web.HTTPException, request: web.Request, most: int) -> ApiError:
    if error.status == 413:
        return ApiError(413, f"the body has more than {most:,} bytes", "body_too_large")
    if error.status in (404, 405):
        return ApiError(error.status, f"there is no {request.method} {request.path[:200]}", "unknown_url")
    return ApiError(error.status, error.reason)


def _refused(error: ApiError) -> web.Response:
    return web.json_response(error.body, status=error.status, headers=error.headers)
