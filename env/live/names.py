"""Which branches an episode gets, by name: new ones, or in a replay's order just those that a store holds."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from env.errors import UserError
from env.forest import END_NONE
from env.index import Index
from env.live.model import Name
from env.order import Order, shuffled

# A live branch can be forked without end; this many are as good as that, and no more than a reply can hold.
FORKS = 4096
MAX_BRANCHES = 64


@dataclass
class Place:
    """Where a branch stands: its name, segments so far, children served here, node of a store (-1 = none).

    A branch that is new stands at the end of its first segment.
    """

    name: Name
    depth: int = 0
    served: int = 0
    node: int = -1


class Names(Protocol):
    """The branches of one episode; a place that was left is not asked about again.

    Attributes:
        max_branches: the ceiling on branches opened at the root.
        has_forks: whether branches can be forked at all.
    """

    max_branches: int
    has_forks: bool

    def roots(self, arm: int, wanted: int) -> list[Place]:
        """So many new branches at the root, or as many as there are."""
        ...

    def forks(self, place: Place, wanted: int) -> list[Place]:
        """So many new branches from a place, or as many as there are."""
        ...

    def onward(self, place: Place) -> Place | None:
        """Where a branch is a segment later; None if it cannot go on although it has not ended."""
        ...

    def left(self, place: Place) -> int:
        """How many forks are left at a place."""
        ...


class Fresh:
    """New branches: the k-th of an arm is called (k,), the k-th fork of a place k."""

    has_forks = True

    def __init__(self, max_branches: int = MAX_BRANCHES) -> None:
        self.max_branches = max_branches
        self._opened = 0
        self._of_arm: dict[int, int] = {}

    def roots(self, arm: int, wanted: int) -> list[Place]:
        """See `Names`."""
        first = self._of_arm.get(arm, 0)
        count = min(wanted, self.max_branches - self._opened)
        self._opened += count
        self._of_arm[arm] = first + count
        return [Place((number,), 1) for number in range(first, first + count)]

    def forks(self, place: Place, wanted: int) -> list[Place]:
        """See `Names`."""
        return fresh_forks(place, wanted)

    def onward(self, place: Place) -> Place | None:
        """See `Names`."""
        return Place(place.name, place.depth + 1)

    def left(self, place: Place) -> int:
        """See `Names`."""
        return FORKS - place.served


def fresh_forks(place: Place, wanted: int) -> list[Place]:
    """New forks of a place, beside those that it had."""
    first = place.served + 1
    place.served += min(wanted, FORKS - place.served)
    names = [(*place.name, place.depth, child) for child in range(first, place.served + 1)]
    return [Place(name, place.depth + 1) for name in names]


@dataclass
class Stored:
    """The branches of a store's problem in the order in which a replay of this seed serves them.

    With the collection's own seeds, and where a seed decides a sample, the episode is the replayed one. Where
    the model says something else than it did then, a path that goes beyond the stored one is a new one.

    Args:
        index: of the store.
        problem: its number there.
        seed: of the episode.
        max_branches: as in `env.replay.Replay`: by default half of the problem's branches.

    Raises:
        UserError: the accounting is the published one, whose nodes are no segments.
    """

    index: Index
    problem: int
    seed: int
    max_branches: int = 0
    has_forks: bool = field(init=False)
    _order: Order = field(init=False)
    _served: dict[int, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.index.protocol != "standard":
            raise UserError("live episodes follow a store under --protocol standard only")
        self.has_forks = self.index.has_forks
        self._order = Order(self.index, np.array([self.problem]), [self.seed])
        if self.max_branches:
            self.max_branches = min(int(self.index.pool[self.problem].sum()), self.max_branches)
        else:
            self.max_branches = int(self.index.ceilings[self.problem])

    def roots(self, arm: int, wanted: int) -> list[Place]:
        """See `Names`."""
        served = self._served.get(arm, 0)
        room = self.max_branches - sum(self._served.values())
        pool = int(self.index.pool[self.problem, arm])
        count = max(0, min(wanted, room, pool - served))
        self._served[arm] = served + count
        first = int(self.index.first_root[self.problem * self.index.arms + arm])
        numbers = shuffled(pool, self.seed)[served : served + count].tolist()
        return [Place((number,), 1, node=int(self.index.roots[first + number])) for number in numbers]

    def forks(self, place: Place, wanted: int) -> list[Place]:
        """See `Names`."""
        if place.node < 0:
            return fresh_forks(place, wanted)
        count = max(0, min(wanted, int(self.index.child_count[place.node]) - place.served))
        found = [self._child(place, nth) for nth in range(place.served, place.served + count)]
        place.served += count
        return [Place(name, place.depth + 1, node=node) for name, node in found]

    def onward(self, place: Place) -> Place | None:
        """See `Names`."""
        if place.node < 0 or self.index.end[place.node] != END_NONE:
            return Place(place.name, place.depth + 1)
        if place.served >= self.index.child_count[place.node]:
            return None
        name, node = self._child(place, place.served)
        return Place(name, place.depth + 1, node=node)

    def left(self, place: Place) -> int:
        """See `Names`."""
        stored = int(self.index.child_count[place.node]) if place.node >= 0 else FORKS
        return stored - place.served

    def _child(self, place: Place, nth: int) -> tuple[Name, int]:
        """Name and node of the nth child that this episode is served at a place."""
        index, at = self.index, place.node
        node = int(self._order.child(_one(0), _one(at), _one(nth))[0])
        first = int(index.first_child[at])
        number = index.children[first : first + int(index.child_count[at])].tolist().index(node)
        return (*place.name, place.depth, number) if number else place.name, node


def _one(value: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([value], np.int64)
