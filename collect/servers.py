"""An engine over vLLM servers: token ids in and out of `/v1/completions`, many requests in flight at each."""

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from collect.endpoint import CONNECT_SECONDS, RETRIES, SECONDS, Served, failure, key
from collect.engine import EngineError, Request, Sample, Sampling
from collect.spread import Answers, SpreadEngine

T = TypeVar("T")

# Replies that say 200 and are no samples are asked for again so often, after so many seconds.
ATTEMPTS = 4
PAUSE = 1.0
# At a server; more would only wait there.
IN_FLIGHT = 256
# The first vLLM that returns token ids.
OLDEST = "0.10.2"
# How a server writes a log probability of minus infinity, which JSON does not have.
ABSENT = -9999.0


class BadReply(Exception):
    """A reply that is not the whole sample which was asked for, though the server seems to think so."""


def open_servers(
    model: str,
    served: Sequence[Served],
    top_logprobs: int = 0,
    in_flight: int = IN_FLIGHT,
    seconds: float = SECONDS,
) -> SpreadEngine:
    """An engine of all servers that have a model (`collect.endpoint.survey`), each tried before it is used.

    Args:
        model: its name.
        served: where it is.
        top_logprobs: the most that a request will ask for.
        in_flight: requests at a time, at each server.
        seconds: that a request may take, each time that it is tried.

    Raises:
        EngineError: a server does not answer as vLLM does.
    """
    places: list[ServerPlace] = []
    try:
        for each in served:
            places.append(ServerPlace(each, in_flight, seconds))
            places[-1].check(top_logprobs)
    except BaseException:
        for place in places:
            place.close()
        raise
    return SpreadEngine(model, places)


class ServerPlace:
    """One server; see `collect.spread.Place`. Its connections live in a thread of their own.

    Args:
        served: the model, and where it is.
        in_flight: requests at a time.
        seconds: that a request may take, each time that it is tried.
    """

    def __init__(self, served: Served, in_flight: int = IN_FLIGHT, seconds: float = SECONDS) -> None:
        from openai import AsyncOpenAI, Timeout

        self.context, self.slots = served.context, in_flight
        self._served = served
        self._client = AsyncOpenAI(
            api_key=key(),
            base_url=f"{served.url}/v1",
            max_retries=RETRIES,
            timeout=Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
        )
        self._turns = asyncio.Semaphore(in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=served.url, daemon=True)
        self._thread.start()

    def begin(self, requests: Sequence[tuple[int, Request]], answers: Answers) -> None:
        """Queue requests; see `collect.spread.Place`."""
        self._loop.call_soon_threadsafe(self._start, requests, answers)

    def check(self, top_logprobs: int) -> None:
        """Asks for one token in a way that shows whether the server does all that a collection needs.

        Raises:
            EngineError: it does not.
        """
        # Of three tokens the last has a probability, unless it is told after top-k.
        top = max(3, top_logprobs)
        sampling = Sampling(temperature=1.0, top_k=2)
        # Whatever comes is not a stop token, so the sample ends for its length.
        sample = self._wait(self._sample(Request([0], 1, 0, sampling, (), top)))
        assert sample.confidence is not None
        if sample.confidence.max() > -ABSENT / top / 2:
            raise EngineError(
                f"the server {self._served.url} reports log probabilities after top-k and temperature; start "
                "it without --logprobs-mode"
            )

    def close(self) -> None:
        """Give up what is under way, and close the connections."""
        if not self._thread.is_alive():
            return
        self._wait(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _start(self, requests: Sequence[tuple[int, Request]], answers: Answers) -> None:
        for ticket, request in requests:
            task = self._loop.create_task(self._answer(ticket, request, answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    async def _answer(self, ticket: int, request: Request, answers: Answers) -> None:
        try:
            async with self._turns:
                answers.put((ticket, await self._sample(request)))
        except EngineError as error:
            answers.put(error)
        # Without an answer the collection would wait for ever.
        except Exception as error:
            answers.put(failure(self._served.url, error, RETRIES))

    async def _sample(self, request: Request) -> Sample:
        """One request, tried until there is a whole sample."""
        from openai import OpenAIError

        asked = body_of(request)
        for attempt in range(ATTEMPTS):
            try:
                reply = await self._client.completions.with_raw_response.create(
                    model=self._served.name, **asked
                )
                return read(json.loads(reply.content), request, self._served.url)
            except OpenAIError as error:
                raise failure(self._served.url, error, RETRIES) from None
            except (BadReply, ValueError, LookupError, TypeError, AttributeError) as error:
                if attempt == ATTEMPTS - 1:
                    raise failure(self._served.url, error, RETRIES) from None
                await asyncio.sleep(PAUSE * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


def body_of(request: Request) -> dict[str, Any]:
    """A request as `/v1/completions` takes it: every field, nothing left to a server's defaults."""
    sampling = request.sampling
    return {
        "prompt": list(request.prompt),
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "n": 1,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logprobs": request.top_logprobs,
        "extra_body": {
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "min_tokens": 0,
            "stop_token_ids": list(request.stop_token_ids),
            # What ends a sample is what the request says, no token that a model's files add to it.
            "ignore_eos": True,
            "add_special_tokens": False,
            "return_token_ids": True,
            # Else likely tokens with the same text, such as parts of characters, would count as one.
            "return_tokens_as_token_ids": True,
            "prompt_logprobs": request.top_logprobs if request.read_prompt else None,
        },
    }


def read(reply: Any, request: Request, url: str) -> Sample:
    """The sample in a completion.

    Raises:
        BadReply: it is not whole, or not what was asked for, as when a server is shut down.
        EngineError: the server cannot do what is needed.
        LookupError, TypeError, AttributeError, ValueError: it is no completion.
    """
    (choice,) = reply["choices"]
    finish, ids, logprobs = choice["finish_reason"], choice.get("token_ids"), choice.get("logprobs")
    if ids is None:
        raise EngineError(f"the server {url} does not return token ids; it needs vLLM {OLDEST} or newer")
    if logprobs is None:
        raise EngineError(f"the server {url} does not return log probabilities; is it vLLM's?")
    usage = reply["usage"]
    check_sample(request, ids, finish, usage["prompt_tokens"], url)
    values = np.array(logprobs["token_logprobs"], np.float32)
    if len(values) != len(ids):
        raise BadReply(f"{len(ids)} tokens with {len(values)} log probabilities")
    prompt, prompt_confidence = None, None
    if request.read_prompt:
        # Nothing comes before the first token, so vLLM has no values for it.
        after = list(islice(request.prompt, 1, None))
        told = [
            {int(name): each["logprob"] for name, each in at.items()} for at in choice["prompt_logprobs"][1:]
        ]
        prompt = _after_first([at[token] for at, token in zip(told, after, strict=True)])
        if request.top_logprobs:
            prompt_confidence = _after_first(_confidence(told, after, request.top_logprobs))
    return Sample(
        [int(token) for token in ids],
        values,
        confidence_of(logprobs, ids, request.top_logprobs) if request.top_logprobs else None,
        finish,
        cached_tokens(usage),
        prompt,
        prompt_confidence,
    )


def check_sample(request: Request, ids: Sequence[int], finish: Any, prompt_tokens: int, url: str) -> None:
    """Whether these tokens are all of the sample that was asked for. Raises like `read`."""
    if finish not in ("stop", "length"):
        raise BadReply(f"a reply ended with {finish!r}")
    if prompt_tokens != len(request.prompt):
        raise EngineError(
            f"the server {url} read {prompt_tokens} tokens where {len(request.prompt)} were sent; "
            "start it without options that change prompts"
        )
    if not 1 <= len(ids) <= request.max_tokens:
        raise BadReply(f"{len(ids)} tokens where 1 to {request.max_tokens} were asked for")
    if finish == "length" and len(ids) < request.max_tokens:
        raise EngineError(
            f"the server {url} cut a reply at {len(ids)} tokens where {request.max_tokens} were asked for; "
            "start it with --generation-config vllm"
        )
    if finish == "stop" and ids[-1] not in request.stop_token_ids:
        raise EngineError(
            f"the server {url} ended a reply at the token {ids[-1]}, which the request does not name; start "
            "it with --generation-config vllm"
        )


def cached_tokens(usage: Any) -> int:
    """Of the prompt; 0 where the server does not tell."""
    return (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def confidence_of(logprobs: Any, ids: Sequence[int], count: int) -> NDArray[np.float32]:
    """Of each token, from the log probabilities of a completion; `count` as in `Request.top_logprobs`."""
    tops = [
        {int(name.removeprefix("token_id:")): value for name, value in top.items()}
        for top in logprobs["top_logprobs"]
    ]
    return _confidence(tops, ids, count)


def _after_first(values: Iterable[float]) -> NDArray[np.float32]:
    return np.array([np.nan, *values], np.float32)


def _confidence(tops: Sequence[dict[int, float]], ids: Sequence[int], count: int) -> NDArray[np.float32]:
    """Minus the mean of the likeliest at each position, among which the token itself need not be."""
    rows = []
    for top, token in zip(tops, ids, strict=True):
        values = [value for name, value in top.items() if len(top) <= count or name != token]
        if len(values) != count:
            raise BadReply(f"{len(values)} log probabilities at a position where {count} were asked for")
        # In the order in which an engine has them, or the sum would round another way.
        rows.append(sorted(values, reverse=True))
    confidence: NDArray[np.float32] = -np.array(rows, np.float32).mean(axis=1)
    return confidence
