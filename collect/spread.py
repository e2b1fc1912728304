"""Several places that work for one engine: servers, processes, Ray actors; a problem stays where it began."""

from collections.abc import Hashable, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from collect.engine import EngineError, Request, Sample

# What places answer with: a sample and its ticket, or the reason why there will be no more.
Answers = SimpleQueue[tuple[int, Sample] | EngineError]


class Place(Protocol):
    """A model somewhere else, which takes requests at once and answers them when it can.

    Attributes:
        context: the most tokens that a prompt and its continuation can have together.
        slots: how many requests it works on at a time.
    """

    context: int
    slots: int

    def begin(self, requests: Sequence[tuple[int, Request]], answers: Answers) -> None:
        """Queue requests, given with their tickets, and return; `answers` gets each sample, or an error."""
        ...

    def close(self) -> None:
        """Give up what is under way, and let go of the model."""
        ...


class SpreadEngine:
    """An engine of several places; see `collect.engine.Engine`.

    Requests of one origin share prefixes, which one place has in its cache and others would compute again. So
    an origin stays at the place that it was given first: the one with the least to do at that moment.

    Args:
        model: its name.
        places: at least one, all with this model.
    """

    def __init__(self, model: str, places: Sequence[Place]) -> None:
        self.model = model
        self.context = min(place.context for place in places)
        self.slots = sum(place.slots for place in places)
        self._places = list(places)
        self._answers: Answers = SimpleQueue()
        self._home: dict[Hashable, int] = {}
        self._under_way: dict[int, int] = {}
        self._load = [0] * len(places)
        self._tickets = 0

    def submit(self, requests: Sequence[Request]) -> list[int]:
        """Queue requests; see `collect.engine.Engine`."""
        batches: list[list[tuple[int, Request]]] = [[] for _ in self._places]
        first = self._tickets
        for request in requests:
            place = self._place(request.origin)
            self._under_way[self._tickets] = place
            self._load[place] += 1
            batches[place].append((self._tickets, request))
            self._tickets += 1
        for each, batch in zip(self._places, batches, strict=True):
            if batch:
                each.begin(batch, self._answers)
        return list(range(first, self._tickets))

    def finished(self) -> list[tuple[int, Sample]]:
        """Wait for samples; see `collect.engine.Engine`."""
        if not self._under_way:
            raise EngineError(f"nothing was asked of {self.model!r}, so nothing can be waited for")
        answers = [self._answers.get()]
        while True:
            try:
                answers.append(self._answers.get_nowait())
            except Empty:
                break
        samples = []
        for answer in answers:
            if isinstance(answer, EngineError):
                raise answer
            self._load[self._under_way.pop(answer[0])] -= 1
            samples.append(answer)
        return samples

    def close(self) -> None:
        """Let go of all places."""
        for place in self._places:
            place.close()

    def _place(self, origin: Hashable) -> int:
        if (place := self._home.get(origin)) is None:
            loads = [load / each.slots for load, each in zip(self._load, self._places, strict=True)]
            place = loads.index(min(loads))
            if origin is not None:
                self._home[origin] = place
        return place
