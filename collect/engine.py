"""What a collection asks of a language model, and what it gets back: token ids in, token ids out.

Implemented by an engine in this process, by servers and by Ray workers; a collection knows no other way to a
model.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from env.errors import UserError


class EngineError(UserError):
    """A model cannot be loaded, or stopped answering."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Every field is sent and recorded: none is left to a model's or server's defaults.

    Attributes:
        top_k: 0 = all tokens.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0


GREEDY = Sampling(temperature=0.0)


class Spliced(Sequence[int]):
    """The first tokens of several sequences, one after another, without a copy of them.

    The probes of a long branch are many times as long as the branch itself. Most of them wait, and should
    take no room meanwhile.

    Args:
        parts: (tokens, how many of them).
    """

    def __init__(self, *parts: tuple[Sequence[int], int]) -> None:
        self._parts = parts
        self._length = sum(count for _, count in parts)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(islice(tokens, count) for tokens, count in self._parts)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        return list(self)[index]


@dataclass(frozen=True)
class Request:
    """One continuation of a prompt.

    Attributes:
        prompt: token ids.
        max_tokens: the most tokens to decode.
        seed: of this request alone; the sample is a function of the request, whatever runs beside it.
        stop_token_ids: tokens that end the sample, and are its last token; no others do.
        top_logprobs: for how many of the likeliest tokens a position's log probabilities are averaged
            (`Sample.confidence`); 0 = not at all.
        origin: what it was asked for. Requests of one origin share prefixes, so an engine with several prefix
            caches keeps them together; None = they share none.
        read_prompt: whether the log probabilities of the prompt's own tokens are wanted too.
    """

    prompt: Sequence[int]
    max_tokens: int
    seed: int
    sampling: Sampling
    stop_token_ids: tuple[int, ...]
    top_logprobs: int = 0
    origin: Hashable = None
    read_prompt: bool = False


@dataclass(frozen=True, eq=False)
class Sample:
    """What came of a request: T tokens.

    Attributes:
        token_ids: T, a stop token included.
        logprobs: float32[T], log probability of each token at temperature 1.
        confidence: float32[T], minus the mean log probability of the likeliest tokens at that position, the
            token confidence of DeepConf (Fu et al. 2025, arXiv:2508.15260, eq. 2); None where not asked.
        finish: "stop" or "length".
        cached_tokens: prompt tokens that the engine took from its prefix cache.
        prompt_logprobs: float32[P], the same for each token of the prompt, NaN for the first; None where not
            asked.
        prompt_confidence: float32[P], likewise.
    """

    token_ids: list[int]
    logprobs: NDArray[np.float32]
    confidence: NDArray[np.float32] | None
    finish: Literal["stop", "length"]
    cached_tokens: int
    prompt_logprobs: NDArray[np.float32] | None = None
    prompt_confidence: NDArray[np.float32] | None = None


class Engine(Protocol):
    """A language model that continues token ids, many prompts at a time.

    Requests may be added while others are under way, so that a model never waits for the longest of a batch.

    Attributes:
        model: name or folder of the model.
        context: the most tokens that a prompt and its continuation can have together.
        slots: how many requests it works on at a time; more wait.
    """

    model: str
    context: int
    slots: int

    def submit(self, requests: Sequence[Request]) -> list[int]:
        """Queue requests; returns a ticket for each. Requests are begun in the order in which they come."""
        ...

    def finished(self) -> list[tuple[int, Sample]]:
        """Wait until a queued request is answered; returns all that are, as (ticket, sample), each once.

        Raises:
            EngineError: nothing more will come; what was under way is lost.
        """
        ...

    def close(self) -> None:
        """Free the model's memory; what is under way is given up."""
        ...


def generate(engine: Engine, requests: Sequence[Request]) -> list[Sample]:
    """The samples of all requests, in their order. The engine must have nothing else under way."""
    tickets = engine.submit(requests)
    samples: dict[int, Sample] = {}
    while len(samples) < len(tickets):
        samples.update(engine.finished())
    return [samples[ticket] for ticket in tickets]
