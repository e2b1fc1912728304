"""Many problems under way at once: while some wait for their longest branch, others fill the model's slots.

The work on a problem is a generator: it yields requests, is sent their samples, yields the next ones, and
returns a result. It never knows which engine answers, nor what else runs.
"""

from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from collect.engine import Engine, Request, Sample

Result = TypeVar("Result")
Key = TypeVar("Key", bound=Hashable)
Work = Generator[Sequence[Request], list[Sample], Result]

# So many requests for each slot are queued that a slot never waits for this process.
QUEUED = 2


@dataclass
class Tally:
    """What an engine was asked and did, for figures while it works and after."""

    requests: int = 0
    decoded_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0

    def add(self, request: Request, sample: Sample) -> None:
        """Counts one request."""
        self.requests += 1
        self.decoded_tokens += len(sample.token_ids)
        self.prompt_tokens += len(request.prompt)
        self.cached_tokens += sample.cached_tokens


@dataclass(eq=False)
class _Round(Generic[Key, Result]):
    """The requests that one piece of work waits for."""

    key: Key
    work: Work[Result]
    requests: Sequence[Request]
    samples: list[Sample | None]
    missing: int


def work_through(
    engine: Engine, works: Iterable[tuple[Key, Work[Result]]], tally: Tally
) -> Iterator[tuple[Key, Result]]:
    """Does all work, begun in the given order; yields (key, result) as each is done.

    Raises:
        EngineError: the engine stopped.
    """
    coming = iter(works)
    # The engine is handed no more than it will soon begin: a queue of long prompts takes memory.
    queue: deque[tuple[_Round[Key, Result], int]] = deque()
    waiting: dict[int, tuple[_Round[Key, Result], int]] = {}
    done: deque[tuple[Key, Result]] = deque()
    most = QUEUED * engine.slots

    def proceed(key: Key, work: Work[Result], samples: list[Sample] | None) -> None:
        """Lets a piece of work go on until it has requests that take time."""
        while True:
            try:
                requests = next(work) if samples is None else work.send(samples)
            except StopIteration as end:
                done.append((key, end.value))
                return
            if requests:
                turn = _Round(key, work, requests, [None] * len(requests), len(requests))
                queue.extend((turn, number) for number in range(len(requests)))
                return
            samples = []

    exhausted = False
    while True:
        while not exhausted and len(waiting) + len(queue) < most:
            try:
                key, work = next(coming)
            except StopIteration:
                exhausted = True
            else:
                proceed(key, work, None)
        while done:
            yield done.popleft()
        if not (waiting or queue):
            return
        batch = [queue.popleft() for _ in range(min(len(queue), most - len(waiting)))]
        tickets = engine.submit([replace(turn.requests[number], origin=turn.key) for turn, number in batch])
        waiting.update(zip(tickets, batch, strict=True))
        for ticket, sample in engine.finished():
            turn, number = waiting.pop(ticket)
            turn.samples[number] = sample
            turn.missing -= 1
            tally.add(turn.requests[number], sample)
            if not turn.missing:
                proceed(turn.key, turn.work, [each for each in turn.samples if each is not None])
