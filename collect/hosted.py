"""A model in another process, where it runs: what it is asked from outside, one call at a time."""

import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from collect.engine import EngineError, Request, Sample
from collect.prm.scorer import Item
from env.errors import UserError

# Makes an engine (`collect.engine.Engine`) or a scorer (`collect.prm.scorer.Scorer`); sent there by pickle.
OpenModel = Callable[[], Any]


class Scores(NamedTuple):
    """The scores of some paths, and how much the scorer has done so far."""

    scores: list[list[float | None]]
    steps: int
    unscored: int
    tokens: int


class Hosted:
    """An engine or a scorer, and its calls as messages. Whatever they raise is a UserError."""

    def __init__(self) -> None:
        self._model: Any = None
        self._names: dict[int, int] = {}

    def open(self, open_model: OpenModel, facts: Sequence[str]) -> dict[str, Any]:
        """Loads the model; returns some of its attributes. Raises UserError."""
        self._model = open_model()
        return {name: getattr(self._model, name) for name in facts}

    def exchange(self, requests: Sequence[tuple[int, Request]]) -> list[tuple[int, Sample]]:
        """Queues requests, given with the caller's tickets, and waits until some request is answered."""
        tickets = self._model.submit([request for _, request in requests])
        self._names.update(zip(tickets, (name for name, _ in requests), strict=True))
        return [(self._names.pop(ticket), sample) for ticket, sample in self._model.finished()]

    def score(self, items: Sequence[Item]) -> Scores:
        """Scores paths."""
        scores = self._model.score(items)
        return Scores(scores, self._model.steps, self._model.unscored, self._model.tokens)


def serve(connection: Connection) -> None:
    """Answers calls, (method, arguments), until whoever makes them is gone."""
    hosted = Hosted()
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = True, getattr(hosted, method)(*arguments)
        except UserError as error:
            answer = False, error
        # It must be told there; here nobody looks.
        except Exception as error:
            answer = False, EngineError(f"{type(error).__name__}: {error}")
        try:
            connection.send(answer)
        except BrokenPipeError:
            return


def main() -> None:
    """Serves whoever holds the other end of the pipe whose number is the only argument."""
    serve(Connection(int(sys.argv[1])))
