"""Episodes as both Gymnasium environments play them: buttons are pressed, and what is seen changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.episode import KINDS, UNPARSED
from env.gym_replay import RestartingReplay
from env.gym_show import Buttons, Display, requests, show, show_totals
from env.gym_table import Table
from env.stand import Ints

Seen = dict[str, NDArray[Any]]

NO_LENGTHS, NO_SCORES = np.zeros(0, np.int64), np.zeros(0, np.float32)


class Board:
    """E episodes, each of which may begin anew with another problem; none has begun yet.

    Attributes:
        replay: the engine that plays them.
        seen: the observation, a row an episode.
        leader: int64[E], the code of the answer with most votes.
    """

    def __init__(self, table: Table, episodes: int) -> None:
        self.table = table
        self.replay = RestartingReplay(table.index, episodes, table.ceilings, table.slots)
        self.seen = table.blank(episodes)
        each = (episodes, table.slots)
        columns = {"children": np.zeros((0, 0), np.int32), "score": np.zeros((0, 0), np.float32)} | self.seen
        self._confidence = columns.pop("confidence", None)
        self._display = Display(
            **columns,
            exact=np.zeros(each, np.int64),
            scored_at=np.zeros(each, np.int64),
            unasked=np.zeros(each, np.bool_),
            unscored=np.zeros(each, np.bool_),
            leader=np.zeros(episodes, np.int64),
        )
        self.leader = self._display.leader
        by_kind = (
            [where.get(kind, 0) for kind in range(len(KINDS))] for where in (table.everywhere, table.at)
        )
        self._buttons = Buttons(np.array(table.moves, np.int64), *(np.array(x, np.int64) for x in by_kind))
        self._arrays: tuple[Any, ...] = (*self._buttons, *self._display)
        self._blank: Seen = table.blank()

    def restart(self, episodes: Ints, problems: Sequence[int], seeds: Sequence[int]) -> None:
        """Put these episodes at the start of these problems, served in the orders of these seeds."""
        self.replay.restart(episodes, problems, seeds)
        for name, values in self._blank.items():
            self.seen[name][episodes] = values
        display = self._display
        display.exact[episodes], display.scored_at[episodes], display.leader[episodes] = 0, -1, UNPARSED
        display.unasked[episodes] = display.unscored[episodes] = False
        display.action_mask[episodes, 0] = 1
        links, stand = self.table.index.trees.links, self.replay.stand
        show_totals(links, stand.episodes, stand.roots, stand.slots, self._buttons, display, episodes)

    def act(self, chosen: Ints) -> None:
        """Do what int64[E] actions say; see `env.gym_show.requests`."""
        (moves, _, blocks), display, replay = self._buttons, self._display, self.replay
        actions, ids = requests(moves, blocks, display.action_mask, display.unasked, display.unscored, chosen)
        results = replay.step(actions, ids)
        trees, stand = self.table.index.trees, replay.stand
        lengths, scores = results.scores or (NO_LENGTHS, NO_SCORES)
        show(
            trees.nodes, trees.links, stand.episodes, stand.roots, stand.slots, actions, ids, results.rows,
             results.branch, results.tokens, lengths, scores, *self._arrays,
        )  # fmt: skip
        if self._confidence is not None and results.confidence is not None:
            episodes = np.repeat(results.episode, results.rows)
            self._confidence[episodes, results.branch] = np.nan_to_num(results.confidence)

    def finish(self, episodes: Ints) -> None:
        """End episodes with the answer that leads."""
        self.replay.finish(episodes, self.leader[episodes])
        self._display.action_mask[episodes, 1:] = 0
