"""Calls of one live episode to a model: each attempt is counted and logged, what fails made again."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from collect.endpoint import RETRIES
from collect.engine import Request, Sample
from collect.live.streams import Dropped, Piece, Streams
from env.live.model import ModelError, Name, Usage

# Seconds before the first new attempt, doubled for each further one up to the longest.
PAUSE, LONGEST_PAUSE = 0.5, 8.0


class Log(Protocol):
    """Where calls are written down."""

    def write(self, **fields: Any) -> None:
        """One call: plain values, no keys."""
        ...


@dataclass
class Calls:
    """The calls of one episode.

    Args:
        streams: for each arm, where its model is.
        usage: of the episode.
        log: of the run.
        about: what the log says of each call, such as the problem.
    """

    streams: list[Streams]
    usage: Usage
    log: Log
    about: dict[str, Any]

    async def stream(
        self, arm: int, request: Request, kind: str, name: Name, known: int
    ) -> AsyncGenerator[Piece, None]:
        """One attempt at a request; see `Streams.stream`.

        Args:
            arm: whose model.
            request: what is asked.
            kind: of call, for the log.
            name: of the branch.
            known: of the prompt's tokens, those that the model has read or made for this episode before.
        """
        begin = time.monotonic()
        streams, usage = self.streams[arm], self.usage
        first, tokens, cached, outcome = None, 0, 0, "cancelled"
        try:
            async with aclosing(streams.stream(request)) as pieces:
                async for piece in pieces:
                    if piece.ids and first is None:
                        first = time.monotonic() - begin
                    tokens += len(piece.ids)
                    cached = max(cached, piece.cached)
                    outcome = piece.finish or outcome
                    yield piece
        except (Dropped, ModelError) as error:
            outcome = f"error: {error}"[:300]
            raise
        finally:
            if tokens:
                usage.requests += 1
                usage.prompt += len(request.prompt)
                usage.cached += cached
                usage.recomputed += max(0, known - cached)
            self.log.write(
                **self.about,
                call=kind,
                branch=list(name),
                server=streams.where,
                prompt=len(request.prompt),
                cached=cached,
                decoded=tokens,
                first=first,
                seconds=time.monotonic() - begin,
                outcome=outcome,
            )

    async def whole(self, arm: int, request: Request, kind: str, name: Name, known: int) -> Sample:
        """The whole sample of a request, asked for until it is there."""
        patience = Patience(self.usage)
        while True:
            ids: list[int] = []
            cached, finish = 0, None
            try:
                async with aclosing(self.stream(arm, request, kind, name, known)) as pieces:
                    async for piece in pieces:
                        ids += piece.ids
                        cached, finish = max(cached, piece.cached), piece.finish
            except Dropped as dropped:
                await patience.wait(dropped)
            else:
                return Sample(ids, np.zeros(0, np.float32), None, finish or "length", cached)


class Patience:
    """How often and how long something is tried that came to nothing."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._tries = 0

    def renew(self) -> None:
        """It came to something."""
        self._tries = 0

    async def wait(self, dropped: Dropped) -> None:
        """Wait for the next attempt. Raises ModelError if there have been enough."""
        if self._tries >= RETRIES:
            raise dropped.final
        pause = min(PAUSE * 2**self._tries, LONGEST_PAUSE)
        self._tries += 1
        self._usage.retries += 1
        # Not all at once: what is busy should not be hit by everybody at the same moment.
        await asyncio.sleep(pause * random.uniform(0.5, 1) if dropped.after is None else dropped.after)
