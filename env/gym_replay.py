"""The engine as the Gymnasium environments need it: an episode that ends makes room for another at once."""

from collections.abc import Sequence

import numpy as np

from env import stand as at
from env.episode import UNASKED, UNPARSED
from env.index import Index
from env.order import shuffled
from env.replay import Replay
from env.stand import NEW, Ints, Stand


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
        self._ceilings, self._slots = ceilings, slots
        self._pool = int(index.pool.sum(axis=1).max())
        self._codes = int(np.diff(index.first_answer).max(initial=0)) + 2
        nothing = np.zeros(episodes, np.int64)
        super().__init__(index, nothing, nothing.copy(), max_branches=1)

    def _at_start(self) -> Stand:
        stand, many = super()._at_start().with_room(self._slots), len(self.problems)
        stand.episodes[:, at.FIRST_CODE] = np.arange(many) * self._codes - UNASKED
        return stand._replace(
            orders=np.zeros(many * self._pool, np.int64),
            codes=np.full((many * self._codes, at.MEANING + 1), NEW, np.int64),
        )

    def restart(self, episodes: Ints, problems: Sequence[int], seeds: Sequence[int]) -> None:
        """Put these episodes at the start of these problems, served in the orders of these seeds."""
        index, stand = self.index, self._stand
        self.problems[episodes], self.seeds[episodes] = problems, seeds
        self.live[episodes], self.final[episodes], self.correct[episodes] = True, UNPARSED, False
        problem = self.problems[episodes]
        self.max_branches[episodes] = self._ceilings[problem]
        first_code = stand.episodes[episodes, at.FIRST_CODE]
        stand.episodes[episodes] = 0
        stand.episodes[episodes, at.FIRST_CODE] = first_code
        stand.episodes[episodes, at.MAX_BRANCHES] = self.max_branches[episodes]
        pool, arms = index.pool[problem], np.arange(index.arms)
        order_at = (episodes * self._pool)[:, None] + np.cumsum(pool, axis=1) - pool
        stand.roots[episodes, :, at.POOL], stand.roots[episodes, :, at.SERVED_ROOTS] = pool, 0
        stand.roots[episodes, :, at.FIRST_ROOT] = index.first_root[problem[:, None] * index.arms + arms]
        stand.roots[episodes, :, at.ORDER_AT] = order_at
        for starts, counts, seed in zip(order_at.tolist(), pool.tolist(), seeds, strict=True):
            for start, count in zip(starts, counts, strict=True):
                stand.orders[start : start + count] = shuffled(count, seed)
        stand.slots.reshape(len(self), -1, len(at.FRESH))[episodes] = at.FRESH
        codes = stand.codes.reshape(len(self), self._codes, -1)
        codes[episodes] = NEW
        codes[episodes, :2, at.CODE] = UNASKED, UNPARSED
