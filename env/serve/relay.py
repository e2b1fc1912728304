"""Passes on what no controller can work at: the upstream server's own chat completions, as they come."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from env.serve.errors import ApiError
from env.serve.reply import DONE, event
from env.serve.request import LENGTHS, Chat, Offer

# New attempts of a request of which nothing has been passed on yet, and the seconds before the first of them,
# doubled for each further one.
RETRIES, PAUSE = 6, 0.25
LONGEST_PAUSE = 8.0
CONNECT_SECONDS = 10.0


class Place:
    """An upstream server: its address without /v1, what it calls the model, the tokens that this holds."""

    def __init__(self, url: str, model: str, context: int) -> None:
        self.url, self.model, self.context = f"{url}/v1/chat/completions", model, context
        self.open = 0


class _Again(Exception):
    """An attempt that came to nothing; `error` is what the client is told when it was the last."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass
class Relay:
    """Asks upstream servers, all of one event loop; `close` it there.

    Args:
        places: servers of the model, at least one.
        key: for them.
        offer: what clients may ask for.
        seconds: without a byte until a request counts as lost.
        seconds_whole: the same where the reply comes whole, after its last token.
    """

    places: Sequence[Place]
    key: str
    offer: Offer
    seconds: float
    seconds_whole: float
    _client: aiohttp.ClientSession | None = field(default=None, init=False)

    async def whole(self, chat: Chat) -> dict[str, Any]:
        """The reply to a chat that does not stream. Raises ApiError, the upstream's own among others.

        One that is not there in time is not asked for again: it would take as long again.
        """
        attempt = 0
        while True:
            try:
                async with self._ask(chat) as response:
                    reply = await response.json()
                    if not isinstance(reply, dict) or "choices" not in reply:
                        raise ValueError("it is no chat completion")
                    return reply
            except _Again as failed:
                await _pause(attempt, failed)
            attempt += 1

    async def events(self, chat: Chat) -> AsyncGenerator[bytes, None]:
        """The events of a chat that streams. Raises ApiError; once there was an event, none is repeated."""
        attempt, begun = 0, False
        while True:
            try:
                async with self._ask(chat) as response:
                    async for line in response.content:
                        if not line.startswith(b"data:"):
                            continue
                        data = line[5:].strip()
                        if data == b"[DONE]":
                            yield DONE
                            return
                        said = json.loads(data)
                        begun = True
                        yield event(said)
                    raise ValueError("it broke off")
            except _Again as failed:
                if begun:
                    raise failed.error from None
                await _pause(attempt, failed)
            attempt += 1

    async def close(self) -> None:
        """Let go of the servers."""
        if self._client is not None:
            await self._client.close()

    @asynccontextmanager
    async def _ask(self, chat: Chat) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """One attempt. Raises _Again, or ApiError where it is no use to ask again."""
        place = min(self.places, key=lambda each: each.open)
        body = {name: value for name, value in chat.body.items() if name != "beta"} | {"model": place.model}
        if not any(body.get(name) for name in LENGTHS) and self.offer.max_tokens < place.context:
            # Else the server's own limit, the rest of its context, is the lower one; and before vLLM 0.32 it
            # refuses what prompt and reply together could not hold.
            body["max_tokens"] = self.offer.max_tokens
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=CONNECT_SECONDS,
            sock_read=self.seconds if chat.stream else self.seconds_whole,
        )
        place.open += 1
        try:
            async with self._session().post(place.url, json=body, timeout=timeout) as response:
                if response.status != 200:
                    raise _refusal(response.status, await response.read())
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            what = f"{type(error).__name__}: {error}".replace(self.key, "[key]")[:300]
            failed = ApiError(502, f"the upstream server failed: {what}", "upstream_failed")
            is_late = isinstance(error, aiohttp.SocketTimeoutError) and not chat.stream
            raise failed if is_late else _Again(failed) from None
        finally:
            place.open -= 1

    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            self._client = aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {self.key}"},
                connector=aiohttp.TCPConnector(limit=0),
                read_bufsize=2**20,
            )
        return self._client


def _refusal(status: int, data: bytes) -> Exception:
    """What the upstream server says instead of a reply."""
    said: Mapping[str, Any] = {}
    try:
        body = json.loads(data)
        # Older servers have no "error" around it.
        said = body.get("error") or body
        message = str(said["message"])
    except (ValueError, LookupError, TypeError, AttributeError):
        message = " ".join(data.decode(errors="replace").split())[:300] or f"HTTP {status}"
    if status in (401, 403):
        # Its key is ours, not the client's.
        return ApiError(502, "the upstream server refuses the key of this one", "upstream_failed")
    param = said.get("param") if isinstance(said, Mapping) else None
    error = ApiError(status, message, "upstream_failed" if status >= 500 else None, param)
    return _Again(error) if status in (408, 409, 425, 429) or status >= 500 else error


async def _pause(attempt: int, failed: _Again) -> None:
    """Wait before the next attempt; the error if there have been enough."""
    if attempt >= RETRIES:
        raise failed.error from None
    await asyncio.sleep(min(PAUSE * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1))
