"""A PRM at vLLM servers: paths go to `/pooling`, and an output for every token, or every tag, comes back."""

import json
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collect.endpoint import CONNECT_SECONDS, RETRIES, SECONDS, failure, key, survey
from collect.engine import EngineError
from collect.prm.passes import PathScorer, load_kind
from collect.prm.scorer import KNOWN
from env.errors import UserError

# At a server.
IN_FLIGHT = 32


class ServerScorer(PathScorer):
    """Scores at servers; see `Scorer`.

    A server with step pooling gives the outputs at the tags alone: all of them, also those that a question or
    a step has in its text, so which one is whose is known here. No server shares beginnings between paths.

    Args:
        model: name or folder of the checkpoint, for its tokenizer; a server may know it by another name.
        urls: of servers that have it.
        kind: None = by the checkpoint's architecture.
        window: see `collect.prm.scorer.open_scorer`.
        step_tag: see there.
        in_flight: requests at a time, at each server.
        seconds: that a request may take, each time that it is tried.

    Raises:
        UserError: there is no such model, it is no PRM, or it does not know its step tag.
        EngineError: a server is down, has another model, or does not answer as it should.
    """

    def __init__(
        self,
        model: str,
        urls: Sequence[str],
        kind: str | None = None,
        window: int | None = None,
        step_tag: str | None = None,
        in_flight: int = IN_FLIGHT,
        seconds: float = SECONDS,
    ) -> None:
        from openai import OpenAI, Timeout

        served = survey(urls, [model])[model]
        try:
            found, _ = load_kind(model, kind, {}, step_tag)
        except ImportError:
            raise UserError(
                "a PRM at a server is asked with its tokenizer: `pip install transformers`"
            ) from None
        super().__init__(model, found, min(each.context for each in served), window)
        patience = Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        self._servers = [
            (each, OpenAI(api_key=key(), base_url=each.url, max_retries=RETRIES, timeout=patience))
            for each in served
        ]
        self._pool = ThreadPoolExecutor(in_flight * len(served))
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown(cancel_futures=True)
        for _, client in self._servers:
            client.close()

    def _check(self) -> None:
        path = self._kind.read(*KNOWN)
        probabilities = self._ask(0, path.ids)[path.tags]
        if not (abs(probabilities.sum(axis=1) - 1) < 1e-3).all():
            raise self._unusable(0, "its two outputs a step are no probabilities")

    def _encode(self, prompts: list[list[int]], cached: bool) -> list[tuple[Any, int]]:
        found = self._pool.map(self._ask, range(len(prompts)), prompts)
        return [(probabilities, 0) for probabilities in found]

    def _ask(self, number: int, ids: list[int]) -> NDArray[np.float32]:
        """float32[tokens, 2]; NaN where the server gives no output."""
        from openai import OpenAIError

        served, client = self._servers[number % len(self._servers)]
        body = {"model": served.name, "input": ids, "task": "token_classify", "add_special_tokens": False}
        try:
            reply: Any = client.post("/pooling", body=body, cast_to=object)
            (data,) = reply["data"]
            outputs = np.array(data["data"], np.float32)
        except (OpenAIError, ValueError, LookupError, TypeError) as error:
            raise failure(served.url, error) from None
        tags = [place for place, token in enumerate(ids) if token == self._kind.tag_id]
        if outputs.shape == (len(ids), 2):
            return outputs
        if outputs.shape != (len(tags), 2):
            raise self._unusable(
                number, f"for {len(ids)} tokens, {len(tags)} of them tags, its output has {outputs.shape}"
            )
        spread = np.full((len(ids), 2), np.nan, np.float32)
        spread[tags] = outputs
        return spread

    def _unusable(self, number: int, what: str) -> EngineError:
        served, _ = self._servers[number % len(self._servers)]
        pooler = {"task": "token_classify", "tok_pooling_type": "ALL"}
        options = {"runner": "pooling", "pooler_config": pooler} | self._kind.engine_args()
        words = " ".join(f"--{name.replace('_', '-')} {_word(value)}" for name, value in options.items())
        return EngineError(
            f"the server {served.url} does not score steps as {self.kind} needs it: {what}; start it "
            f"with {words}"
        )


def _word(value: Any) -> str:
    """A value as a command line has it."""
    return shlex.quote(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
