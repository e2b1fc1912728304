"""Streams of a vLLM server: token ids in and out of `/v1/completions`, as server-sent events."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from collect.endpoint import CONNECT_SECONDS, Served, failure, key
from collect.engine import EngineError, Request
from collect.live.streams import Dropped, Piece
from collect.servers import IN_FLIGHT, OLDEST, BadReply, body_of, cached_tokens, check_sample, confidence_of
from env.live.model import ModelError, RefusedError

# Without a token for so long a connection counts as dead; a busy server lets requests wait before it begins.
SECONDS = 600.0
# What passes: time-outs, conflicts, too many requests. So does everything from 500 on.
_PASSING = frozenset({408, 409, 425, 429})
# What is wrong with the request itself.
_REFUSED = frozenset({400, 422})
# No server should have us wait for longer.
_LONGEST_WAIT = 60.0


class ServerStreams:
    """One server; see `collect.live.streams.Streams`.

    Args:
        served: the model, and where it is.
        in_flight: requests at a time.
        seconds: without a token until a request counts as lost.

    Attributes:
        name: by which the server knows the model.
    """

    def __init__(self, served: Served, in_flight: int = IN_FLIGHT, seconds: float = SECONDS) -> None:
        from openai import AsyncOpenAI, Timeout

        self.where, self.context, self.sessions = served.url, served.context, 0
        self.name = served.name
        self._client = AsyncOpenAI(
            api_key=key(),
            base_url=f"{served.url}/v1",
            # Whoever asks counts what fails, and knows what is worth another attempt.
            max_retries=0,
            timeout=Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
        )
        self._turns = asyncio.Semaphore(in_flight)

    async def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """See `Streams`."""
        from openai import OpenAIError

        said = _Said(request, self.where)
        create = self._client.completions.with_streaming_response.create
        try:
            try:
                async with (
                    self._turns,
                    # What is in `extra_body` is sent as it is; the package looks at every token of a prompt.
                    create(model=self.name, prompt="", stream=True, extra_body=_body(request)) as response,
                ):
                    async for event in _events(response.iter_bytes()):
                        if piece := said.read(event):
                            yield piece
            except OpenAIError:
                if said.finish is None:
                    raise
                # Only the count of tokens is lost.
            yield said.end()
        except OpenAIError as error:
            raise self._failed(error) from None
        except EngineError as error:
            raise ModelError(str(error)) from None
        except (BadReply, ValueError, LookupError, TypeError, AttributeError) as error:
            raise Dropped(ModelError(str(failure(self.where, error)))) from None

    async def capacity(self) -> int | None:
        """See `Streams`; a server's metrics tell, unless a gateway keeps them back."""
        tokens = 0
        for line in await self._metric("vllm:cache_config_info"):
            sizes = [re.search(rf'{name}="(\d+)"', line) for name in ("num_gpu_blocks", "block_size")]
            if sizes[0] and sizes[1]:
                tokens += int(sizes[0][1]) * int(sizes[1][1])
        return tokens or None

    async def preemptions(self) -> int | None:
        """See `Streams`."""
        counts = [float(line.split()[-1]) for line in await self._metric("vllm:num_preemptions_total")]
        return round(sum(counts)) if counts else None

    async def close(self) -> None:
        """See `Streams`."""
        await self._client.close()

    async def _metric(self, name: str) -> list[str]:
        """The lines of a metric, one an engine."""
        from openai import OpenAIError

        try:
            text = await self._client.get(f"{self.where}/metrics", cast_to=str)
        except OpenAIError:
            return []
        return [line for line in text.splitlines() if line.startswith(name)]

    def _failed(self, error: Any) -> Exception:
        """What a failure of the connection, or a refusal, means for the request."""
        from openai import APIStatusError

        final = ModelError(str(failure(self.where, error)))
        if not isinstance(error, APIStatusError):
            return Dropped(final)
        if error.status_code in _REFUSED:
            said = error.body.get("message") if isinstance(error.body, dict) else None
            return RefusedError(str(final), str(said or error.message))
        if error.status_code not in _PASSING and error.status_code < 500:
            return final
        try:
            after = float(error.response.headers.get("retry-after", ""))
        except ValueError:
            return Dropped(final)
        return Dropped(final, min(max(after, 0.0), _LONGEST_WAIT))


def _body(request: Request) -> dict[str, Any]:
    asked = body_of(request)
    asked |= asked.pop("extra_body")
    # Nobody reads the log probabilities of the tokens themselves, and they are most of a reply.
    return asked | {"logprobs": request.top_logprobs or None, "stream_options": {"include_usage": True}}


class _Said:
    """What a server has said so far to one request."""

    def __init__(self, request: Request, url: str) -> None:
        self.finish: Any = None
        self._request, self._url = request, url
        self._ids: list[int] = []
        self._last = Piece([])
        self._usage: Any = None

    def read(self, event: bytes) -> Piece | None:
        """The tokens of an event, if it has any and is not the last. Raises like `collect.servers.read`."""
        reply = json.loads(event)
        if "error" in reply:
            raise BadReply(f"it broke off: {reply['error']}")
        self._usage = reply.get("usage") or self._usage
        if not reply["choices"]:
            return None
        (choice,) = reply["choices"]
        self.finish = choice["finish_reason"] or self.finish
        ids = choice.get("token_ids")
        if ids is None and choice.get("text"):
            raise EngineError(
                f"the server {self._url} does not return token ids; it needs vLLM {OLDEST} or newer"
            )
        if not ids:
            return None
        self._ids += ids
        top = self._request.top_logprobs
        piece = Piece(ids, confidence_of(choice["logprobs"], ids, top) if top else None)
        if self.finish is None:
            return piece
        # Whoever stops reading at the last token must not take it for one that others follow.
        self._last = piece
        return None

    def end(self) -> Piece:
        """The last piece. Raises like `collect.servers.check_sample`."""
        prompt = self._usage["prompt_tokens"] if self._usage else len(self._request.prompt)
        check_sample(self._request, self._ids, self.finish, prompt, self._url)
        return self._last._replace(finish=self.finish, cached=cached_tokens(self._usage or {}))


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What each server-sent event carries, but for the one that says that there are no more.

    A reply that is not read to its end costs its connection.
    """
    rest = b""
    async for chunk in _whole(chunks):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                event = line[5:].strip()
                if event != b"[DONE]":
                    yield event


async def _whole(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What a connection brings; where it breaks, in the words that the package has for its beginning."""
    from openai import APIConnectionError, APITimeoutError

    try:
        async for chunk in chunks:
            yield chunk
    # The errors of whichever package moves the bytes; nothing else happens here.
    except Exception as error:
        request: Any = None
        lost = (
            APITimeoutError(request)
            if "Timeout" in type(error).__name__
            else APIConnectionError(request=request)
        )
        raise lost from error
