"""The engine as a vector environment needs it: an episode that ends makes room for another at once."""

from collections.abc import Sequence

import numpy as np

from env.branches import Branches
from env.codes import NEW, Codes
from env.episode import UNASKED, UNPARSED
from env.index import Index, Ints
from env.order import Order, shuffled
from env.replay import Replay


class RestartingReplay(Replay):
    """E episodes, each of which may begin anew with another problem; none has begun yet.

    The engine packs its arrays for the problems it is given; here every episode has room for any problem.

    Args:
        index: the store laid out under a protocol.
        episodes: E.
        ceilings: int64[P], how many root branches an episode of each problem may open.
        slots: how many branches an episode may have in all; the caller sees to it that it has no more.
    """

    def __init__(self, index: Index, episodes: int, ceilings: Ints, slots: int) -> None:
        nothing = np.zeros(episodes, np.int64)
        super().__init__(index, nothing, nothing.copy(), max_branches=1)
        self._ceilings = ceilings
        self._orders = _Order(index, self.problems, self.seeds)
        self._branches: _Branches = _Branches(index, self.problems, self._orders, np.full(episodes, slots))
        self._codes: _Codes = _Codes(index, self.problems)

    def restart(self, episodes: Ints, problems: Sequence[int], seeds: Sequence[int]) -> None:
        """Put these episodes at the start of these problems, served in the orders of these seeds."""
        self.problems[episodes], self.seeds[episodes] = problems, seeds
        self.max_branches[episodes] = self._ceilings[self.problems[episodes]]
        for values in (self.ledger, self.asked, self.granted, self.rounds, self.correct):
            values[episodes] = 0
        self.live[episodes], self.final[episodes] = True, UNPARSED
        self._orders.restart(episodes, self.problems[episodes])
        self._branches.restart(episodes, self.problems[episodes], self.max_branches[episodes])
        self._codes.restart(episodes)


class _Order(Order):
    def __init__(self, index: Index, problems: Ints, seeds: Ints) -> None:
        super().__init__(index, problems, seeds)
        self._width = int(index.pool.sum(axis=1).max())
        self._orders = np.zeros(len(problems) * self._width, np.int64)

    def restart(self, episodes: Ints, problems: Ints) -> None:
        index = self._index
        pool = index.pool[problems]
        self._first_root[episodes] = index.first_root[problems[:, None] * index.arms + np.arange(index.arms)]
        self._at[episodes] = (episodes * self._width)[:, None] + np.cumsum(pool, axis=1) - pool
        each = zip(self._at[episodes].tolist(), pool.tolist(), self._seeds[episodes].tolist(), strict=True)
        for starts, counts, seed in each:
            for start, count in zip(starts, counts, strict=True):
                self._orders[start : start + count] = shuffled(count, seed)


class _Branches(Branches):
    def restart(self, episodes: Ints, problems: Ints, max_branches: Ints) -> None:
        self._pool[episodes], self._max_branches[episodes] = self.index.pool[problems], max_branches
        self.opened[episodes], self._rooted[episodes] = 0, 0
        starts = (
            (self.asked_at, -1),
            (self.state, 0),
            (self.told, UNASKED),
            (self.scored, 0),
            (self._served, 0),
        )
        for values, start in starts:
            if len(values):
                values.reshape(-1, self.capacity)[episodes] = start


class _Codes(Codes):
    def __init__(self, index: Index, problems: Ints) -> None:
        super().__init__(index, problems)
        self._width = int(np.diff(index.first_answer).max(initial=0)) + 2
        self._first = np.arange(len(problems)) * self._width + 2
        self._code, self._meaning = np.full((2, len(problems) * self._width), NEW, np.int64)
        self._begin(np.arange(len(problems)))

    def restart(self, episodes: Ints) -> None:
        self._given[episodes] = 0
        self._code.reshape(-1, self._width)[episodes] = NEW
        self._begin(episodes)
