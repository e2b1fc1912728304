"""The order in which a seed serves the children of a node: by a hash of it and of each child's place."""

import numpy as np
from numpy.typing import NDArray

from env import stand as at
from env.compiled import compiled
from env.stand import Ints, Trees


@compiled
def nth_child(trees: Trees, seed: np.uint64, node: int, nth: int) -> int:
    """The nth child of a node, ordered by a hash of the seed and of the child's place in its tree."""
    first, count = trees.links[node, at.FIRST_CHILD], trees.links[node, at.CHILD_COUNT]
    if not 0 <= nth < count:
        raise IndexError("a node has no such child")
    if count == 1:
        return trees.children[first]
    keys, seed_key = np.empty(count, np.uint64), mix(seed)
    for k in range(count):
        keys[k] = mix(seed_key + np.uint64(trees.links[trees.children[first + k], at.LOCAL]))
    chosen = first
    for k in range(count):
        earlier = 0
        for other in range(count):
            earlier += keys[other] < keys[k] or (keys[other] == keys[k] and other < k)
        if earlier == nth:
            chosen = first + k
    return trees.children[chosen]


@compiled
def nth_children(trees: Trees, seeds: NDArray[np.uint64], nodes: Ints, nth: Ints) -> Ints:
    """`nth_child` of many nodes, each under a seed of its own."""
    found = np.empty(len(nodes), np.int64)
    for k in range(len(nodes)):
        found[k] = nth_child(trees, seeds[k], nodes[k], nth[k])
    return found


@compiled
def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`mix` of each."""
    return np.array([mix(value) for value in values], np.uint64)


@compiled
def mix(value: np.uint64) -> np.uint64:
    """SplitMix64's finaliser (Steele et al. 2014): neighbouring inputs give unrelated outputs."""
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
