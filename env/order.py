"""What a seed decides: the order in which a problem's branches, and the children of a node, are served."""

import random
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from env.index import Index, Ints

LAST = np.uint64(2**64 - 1)


class Order:
    """The orders of E episodes, each fixed by the episode's seed and the problem's tree alone.

    Root branches: `order = list(range(n)); random.Random(seed).shuffle(order)`, the published evaluation's
    own rule. Children of an inner node: by a hash of the seed and the child's place in the problem's tree.
    """

    def __init__(self, index: Index, problems: Ints, seeds: Sequence[int] | Ints) -> None:
        self._index = index
        self._seeds = np.asarray(seeds, np.int64)
        self._at = np.zeros((len(problems), index.arms), np.int64)
        orders: dict[tuple[int, int], int] = {}
        parts: list[Ints] = []
        total = 0
        for arm in range(index.arms):
            pool = index.pool[problems, arm].tolist()
            for episode, key in enumerate(zip(pool, self._seeds.tolist(), strict=True)):
                if key not in orders:
                    orders[key] = total
                    parts.append(shuffled(*key))
                    total += key[0]
                self._at[episode, arm] = orders[key]
        self._orders = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        self._first_root = index.first_root[problems[:, None] * index.arms + np.arange(index.arms)]

    def root(self, episode: Ints, arm: Ints, nth: Ints) -> Ints:
        """The node that is each episode's nth root branch of an arm."""
        place = self._orders[self._at[episode, arm] + nth]
        return self._index.roots[self._first_root[episode, arm] + place]

    def child(self, episode: Ints, node: Ints, nth: Ints) -> Ints:
        """The nth child of each node in its episode's order."""
        index = self._index
        first, count = index.first_child[node], index.child_count[node]
        chosen = nth.copy()
        several = np.flatnonzero(count > 1)
        if len(several):
            column = np.arange(int(count[several].max()))
            inside = column < count[several, None]
            child = index.children[np.where(inside, first[several, None] + column, 0)]
            seeds = self._seeds[episode[several]].astype(np.uint64)
            keys = mix(mix(seeds)[:, None] + index.local[child].astype(np.uint64))
            ranked = np.argsort(np.where(inside, keys, LAST), axis=1, kind="stable")
            chosen[several] = ranked[np.arange(len(several)), nth[several]]
        return index.children[first + chosen]


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014): neighbouring inputs give unrelated outputs."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed


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
