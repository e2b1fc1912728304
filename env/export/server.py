"""A model at a vLLM server: token ids in, token ids out, and whatever text has to become ids there."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import openai

from env.export.settings import Settings

# The first vLLM that returns token ids.
OLDEST = "0.10.2"
# A token's own text is what it adds to this one.
ANCHOR = "a"


class ServerError(Exception):
    """What is wrong with a server, in one sentence."""


class Dropped(Exception):
    """A reply that ended before it was whole."""


@dataclass
class Usage:
    """What a question really took; of tokens that a cancelled request decoded, those that arrived.

    Attributes:
        requests: to the model, probes included.
        prompt_tokens: sent with all requests; most of them repeat what was sent or decoded before.
        cached_tokens: prompt tokens that the server took from its cache; None = it does not say.
        decoded_tokens: of branches, those included that no controller asked for.
        probe_tokens: of probes.
        prm_tokens: read by the reward model.
        seconds: by the clock.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    decoded_tokens: int = 0
    probe_tokens: int = 0
    prm_tokens: int = 0
    seconds: float = 0.0

    def told(self, usage: Any) -> None:
        """Take in what a server says of a finished request."""
        details = getattr(usage, "prompt_tokens_details", None)
        if details is not None and details.cached_tokens is not None:
            self.cached_tokens = (self.cached_tokens or 0) + details.cached_tokens


class Chunk(NamedTuple):
    """Tokens of a branch, their text, their confidence where it is wanted, why the reply ended if it did."""

    ids: list[int]
    text: str
    confidence: list[float]
    finish: str


class Prompt(NamedTuple):
    """A question as token ids; `thinking` if they end inside the model's thinking."""

    ids: list[int]
    thinking: bool


class Model:
    """A model at a server; remembers what texts and tokens turned out to be.

    Attributes:
        context: how many tokens prompt and branch may have together; known once something was encoded.
    """

    def __init__(self, client: openai.AsyncOpenAI, name: str) -> None:
        self.client, self.name, self.context = client, name, 0
        self.root = str(client.base_url).rstrip("/").removesuffix("/v1")
        self._known: dict[str, list[int]] = {}
        self._pieces: dict[int, str] = {}

    async def encode(self, text: str) -> list[int]:
        """The ids of a text, with none that begin or end a text."""
        return await self.tokenize(prompt=text, add_special_tokens=False)

    async def known(self, text: str) -> list[int]:
        """The same of a text that will be needed again."""
        if text not in self._known:
            self._known[text] = await self.encode(text)
        return self._known[text]

    async def tokenize(self, **what: Any) -> list[int]:
        """The ids of a prompt or of messages, as the server's tokenizer and chat template have them."""
        reply = await self.post("/tokenize", {"model": self.name, **what})
        self.context = int(reply["max_model_len"])
        return [int(token) for token in reply["tokens"]]

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids."""
        if not ids:
            return ""
        reply = await self.post("/detokenize", {"model": self.name, "tokens": list(ids)})
        return str(reply["prompt"])

    async def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to a text."""
        new = [token for token in dict.fromkeys(ids) if token not in self._pieces]
        if new:
            anchor = (await self.known(ANCHOR))[-1]
            before, *both = await asyncio.gather(*[self.decode([anchor, *more]) for more in ([], *zip(new))])
            self._pieces |= {t: text[len(before) :] for t, text in zip(new, both, strict=True)}
        return [self._pieces[token] for token in ids]

    async def tags(self, settings: Settings) -> tuple[int, int] | None:
        """The tokens that open and close the model's thinking, None if it does not think."""
        opening, closing = [await self.known(tag) for tag in settings.think_tags]
        return (opening[0], closing[0]) if len(opening) == len(closing) == 1 else None

    async def ask(self, question: str, settings: Settings) -> Prompt:
        """The ids that ask a question: by the chat template, or as plain text where the model has none."""
        messages = [{"role": "user", "content": settings.prompt.replace("{question}", question)}]
        if settings.system is not None:
            messages.insert(0, {"role": "system", "content": settings.system})
        try:
            ids = await self.tokenize(
                messages=messages, chat_template_kwargs=dict(settings.chat_template_args)
            )
        except ServerError as error:
            if "chat template" not in str(error):
                raise
            ids = await self.tokenize(prompt="\n\n".join(message["content"] for message in messages))
        opening, closing = await self.tags(settings) or (-1, -1)
        return Prompt(ids, _last(ids, opening) > _last(ids, closing))

    async def stream(
        self,
        prompt: list[int],
        max_tokens: int,
        seed: int,
        settings: Settings,
        confidence: bool,
        usage: Usage,
    ) -> AsyncGenerator[Chunk, None]:
        """A branch as it is written, until it ends; whoever closes this iterator cancels the request.

        Raises:
            Dropped: the connection broke, or the server gave up; what came before is good.
            ServerError: it makes no sense to ask again.
        """
        top = settings.confidence_top if confidence else None
        usage.requests += 1
        usage.prompt_tokens += len(prompt)
        try:
            stream = await self.client.completions.create(
                model=self.name,
                prompt=prompt,
                max_tokens=max_tokens,
                seed=seed,
                temperature=settings.temperature,
                top_p=settings.top_p,
                presence_penalty=settings.presence_penalty,
                frequency_penalty=settings.frequency_penalty,
                logprobs=top,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={
                    "top_k": settings.top_k,
                    "min_p": settings.min_p,
                    "repetition_penalty": settings.repetition_penalty,
                    # A step may end with whatever token has its separator.
                    "skip_special_tokens": False,
                    "spaces_between_special_tokens": False,
                    # Else likely tokens with the same text would count as one.
                    "return_tokens_as_token_ids": True,
                    **_shared(settings),
                },
            )
        except (openai.OpenAIError, ValueError) as error:
            raise self.failure(error) from None
        try:
            async with stream:
                async for event in stream:
                    usage.told(event.usage)
                    for choice in event.choices:
                        ids, finish = self._ids(choice), str(choice.finish_reason or "")
                        usage.decoded_tokens += len(ids)
                        if finish not in ("", "stop", "length"):
                            raise Dropped(f"a reply ended with {finish!r}")
                        yield Chunk(ids, choice.text, _confidence(choice.logprobs, ids, top), finish)
        except (ServerError, Dropped):
            raise
        # Which error a broken connection is depends on the version of the package and of what is below it.
        except Exception as error:
            raise Dropped(_words(error)) from error

    async def probe(
        self, prefix: list[int], thinking: bool, settings: Settings, usage: Usage
    ) -> tuple[str, int]:
        r"""What a model answers that is told to stop here, in a \boxed{}, and how many tokens that took.

        The text is empty if the answer came to no end.
        """
        opening = settings.probe_text
        depth = max(0, opening.count("{") - opening.count("}"))
        suffix = await self.known((settings.think_tags[1] if thinking else "") + opening)
        stop = "}" if depth else "\n"
        said, text, reason = list[int](), "", stop
        # A brace inside the answer ends a request, not the answer.
        while len(said) < settings.probe_tokens and reason == stop and _end(text, depth) is None:
            prompt = [*prefix, *suffix, *said]
            usage.requests += 1
            usage.prompt_tokens += len(prompt)
            try:
                reply = await self.client.completions.create(
                    model=self.name,
                    prompt=prompt,
                    max_tokens=settings.probe_tokens - len(said),
                    temperature=0,
                    stop=[stop],
                    extra_body={"include_stop_str_in_output": True, **_shared(settings)},
                )
            except (openai.OpenAIError, ValueError) as error:
                raise self.failure(error) from None
            (choice,) = reply.choices
            ids, told = self._ids(choice), (choice.model_extra or {}).get("stop_reason")
            usage.told(reply.usage)
            usage.probe_tokens += len(ids)
            said += ids
            text += choice.text
            reason = told if told == stop else str(choice.finish_reason)
        end = _end(text, depth)
        if end is None and not depth and reason == "stop":
            end = len(text)
        if end is None or not text[: end - bool(depth)].strip():
            return "", len(said)
        return (opening + text[:end] if depth else f"\\boxed{{{text[:end].strip()}}}"), len(said)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """One of the requests that OpenAI's servers do not know."""
        try:
            return await self.client.post(self.root + path, body=body, cast_to=object)
        except (openai.OpenAIError, ValueError) as error:
            raise self.failure(error) from None

    def failure(self, error: Exception) -> ServerError:
        """What the openai package reports, in one sentence and without the key."""
        where = f"the server {self.root}"
        said = _words(error).replace(self.client.api_key, "[key]")
        if isinstance(error, openai.APIStatusError) and error.status_code in (401, 403):
            return ServerError(f"{where} refuses the key")
        if isinstance(error, openai.APIStatusError):
            return ServerError(f"{where} refuses a request (HTTP {error.status_code}): {said}")
        if isinstance(error, openai.APIConnectionError):
            return ServerError(f"there is no connection to {where}: {said}; see whether it is up")
        return ServerError(f"{where} does not answer as vLLM does: {said}")

    def broken(self, reason: str) -> ServerError:
        """A connection that breaks again and again."""
        return ServerError(
            f"the server {self.root} breaks off time and again: {reason}; see whether it is up"
        )

    def _ids(self, choice: Any) -> list[int]:
        ids = (choice.model_extra or {}).get("token_ids")
        if ids is None:
            raise ServerError(
                f"the server {self.root} does not return token ids; it needs vLLM {OLDEST} or newer"
            )
        return [int(token) for token in ids]


@lru_cache(maxsize=16)
def model_at(client: openai.AsyncOpenAI, name: str) -> Model:
    """The same model for the same client, so that what is known of it is learnt once."""
    return Model(client, name)


def _shared(settings: Settings) -> dict[str, Any]:
    stops = list(settings.stop_token_ids)
    return {
        "stop_token_ids": stops,
        "ignore_eos": bool(stops),
        "add_special_tokens": False,
        "return_token_ids": True,
    }


def _confidence(logprobs: Any, ids: Sequence[int], top: int | None) -> list[float]:
    """Minus the mean log probability of the likeliest tokens, among which the token itself need not be."""
    if top is None:
        return []
    found = []
    for alternatives, token in zip(logprobs.top_logprobs, ids, strict=True):
        named = {int(name.removeprefix("token_id:")): value for name, value in alternatives.items()}
        values = [value for name, value in named.items() if len(named) <= top or name != token]
        found.append(-sum(values) / len(values))
    return found


def _end(text: str, depth: int) -> int | None:
    """Where in `text` a probe's answer has ended, if it has."""
    if not depth:
        line = text.lstrip()
        end = line.find("\n")
        return len(text) - len(line) + end if end >= 0 else None
    for place, letter in enumerate(text, 1):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth == 0:
            return place
    return None


def _last(ids: Sequence[int], token: int) -> int:
    return max((place for place, each in enumerate(ids) if each == token), default=-1)


def _words(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
    return " ".join((str(cause or error) or type(error).__name__).split())[:300]
