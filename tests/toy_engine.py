"""An engine and a scorer without a model, to be loaded in other processes: what they answer is arithmetic."""

import os
import time
from collections import deque

import numpy as np

from collect.engine import EngineError, Request, Sample
from env.errors import UserError


def sample_of(request: Request) -> Sample:
    """What the engine answers: a function of the request alone."""
    dice = np.random.default_rng([request.seed, *request.prompt])
    ids = dice.integers(2, 100, dice.integers(1, request.max_tokens + 1)).tolist()
    logprobs = -dice.random(len(ids), np.float32)
    return Sample([*ids, 1][: request.max_tokens], logprobs, None, "length", os.getpid())


class ToyEngine:
    """Answers some requests at a time, after `seconds`; a sample's `cached_tokens` is the process."""

    def __init__(self, seconds: float = 0.0, context: int = 100, error: Exception | None = None) -> None:
        if error is not None:
            raise error
        self.model, self.context, self.slots = "toy", context, 4
        self._seconds = seconds
        self._queue: deque[tuple[int, Request]] = deque()
        self._tickets = 0

    def submit(self, requests):
        tickets = list(range(self._tickets, self._tickets + len(requests)))
        self._tickets += len(requests)
        self._queue.extend(zip(tickets, requests, strict=True))
        return tickets

    def finished(self):
        time.sleep(self._seconds)
        if any(13 in request.prompt for _, request in self._queue):
            raise EngineError("the model stopped at 13")
        done = [self._queue.popleft() for _ in range(min(self.slots, len(self._queue)))]
        return [(ticket, sample_of(request)) for ticket, request in done]

    def close(self):
        pass


class ToyScorer:
    """Scores a step by its length, and says by the first step of a path which process did."""

    def __init__(self, name: str = "toy") -> None:
        self.name, self.kind, self.context = name, "toy", 100
        self.steps = self.unscored = self.tokens = 0

    def score(self, items):
        found = [[os.getpid(), *(len(step) / 100 for step in steps[1:])] for _, steps in items]
        self.steps += sum(map(len, found))
        self.tokens += sum(len(step) for _, steps in items for step in steps)
        if any("bad" in question for question, _ in items):
            raise UserError("this question cannot be scored")
        return found

    def close(self):
        pass
