"""What a seed decides: the order in which a problem's branches, and the children of a node, are served."""

import random
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from env.compiled import own
from env.index import Index
from env.siblings import nth_children
from env.stand import Ints


class Order:
    """The orders of E episodes, each fixed by the episode's seed and the problem's tree alone.

    Root branches: `order = list(range(n)); random.Random(seed).shuffle(order)`, the published evaluation's
    own rule. Children of an inner node: by a hash of the seed and the child's place in the problem's tree.

    Attributes:
        at: int64[E, arms], where the order of an arm's root branches begins in `orders`.
        first_root: int64[E, arms], the first of them in `Index.roots`.
    """

    def __init__(self, index: Index, problems: Ints, seeds: Sequence[int] | Ints) -> None:
        self._index = index
        self._seeds = np.asarray(seeds, np.int64)
        self.at = np.zeros((len(problems), index.arms), np.int64)
        known: dict[tuple[int, int], int] = {}
        parts: list[Ints] = []
        total = 0
        for arm in range(index.arms):
            pool = index.pool[problems, arm].tolist()
            for episode, key in enumerate(zip(pool, self._seeds.tolist(), strict=True)):
                if key not in known:
                    known[key] = total
                    parts.append(shuffled(*key))
                    total += key[0]
                self.at[episode, arm] = known[key]
        self.orders = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        self.first_root = index.first_root[problems[:, None] * index.arms + np.arange(index.arms)]

    def root(self, episode: Ints, arm: Ints, nth: Ints) -> Ints:
        """The node that is each episode's nth root branch of an arm."""
        place = self.orders[self.at[episode, arm] + nth]
        return self._index.roots[self.first_root[episode, arm] + place]

    def child(self, episode: Ints, node: Ints, nth: Ints) -> Ints:
        """The nth child of each node in its episode's order."""
        seeds = self._seeds[episode].astype(np.uint64)
        return nth_children(self._index.trees, seeds, own(node), own(nth))


def rank(grouped: Ints) -> Ints:
    """Each element's place within its run of equal values."""
    place = np.arange(len(grouped))
    first = begins(grouped)
    return place - place[first][np.cumsum(first) - 1]


def begins(grouped: Ints) -> NDArray[np.bool_]:
    """Whether each element is the first of its run of equal values."""
    begins = np.ones(len(grouped), np.bool_)
    np.not_equal(grouped[1:], grouped[:-1], out=begins[1:])
    return begins


def runs(first: Ints, lengths: Ints) -> Ints:
    """The places first, first + 1, ... of each run, one run behind the other."""
    stops = np.cumsum(lengths)
    return np.arange(stops[-1] if len(stops) else 0) + np.repeat(first - stops + lengths, lengths)


@lru_cache(maxsize=65536)
def shuffled(count: int, seed: int) -> Ints:
    """The order in which a seed serves `count` root branches; shared, so not to be written to."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return np.array(order, np.int64)
