"""A round's actions, and the ids that they name one behind the other, as `env.episode` lays them out."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from env.episode import EXTEND, OPENING, PRUNE
from env.stand import Ints


class Turn(NamedTuple):
    """One action of a round.

    Attributes:
        wanted: its count.
        ids: the branches that it names.
        rows: its part of the round's results; None for a prune, which gets none, and where it was refused.
    """

    episode: int
    kind: int
    wanted: int
    argument: int
    ids: list[int]
    rows: slice | None


def id_counts(kind: Ints, count: Ints, argument: Ints) -> Ints:
    """int64[A], ids of each action: none where it opens branches, two a branch that has steps of its own."""
    named = np.where(np.isin(kind, OPENING), 0, np.maximum(count, 0))
    return np.where((kind == EXTEND) & (argument == -1), 2 * named, named)


def turns(actions: NDArray[Any], ids: NDArray[Any], rows: Ints) -> Iterator[Turn]:
    """The actions of a logged round, one by one; `rows` as in `env.replay.Results`."""
    at = stop = 0
    answered = iter(rows.tolist())
    _, kinds, _, counts, arguments = np.asarray(actions, np.int64).reshape(-1, 5).T
    widths = id_counts(kinds, counts, arguments).tolist()
    for (episode, kind, _, count, argument), width in zip(actions.tolist(), widths, strict=True):
        named = ids[at : at + (count if width else 0)].tolist()
        at += width
        got = -1 if kind == PRUNE else next(answered)
        stop += max(0, got)
        here = slice(stop - got, stop) if got >= 0 else None
        yield Turn(episode, kind, count, argument, named, here)
