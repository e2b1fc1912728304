"""The replay engine: answers the actions of many episodes at once from the flat arrays of a store.

A round of any number of episodes is one call of `Replay.step`. What an action means and costs is said in the
action table of the design; `Index` holds what depends on the protocol, `env.stand` where everything stands,
and `env.engine` plays the round.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env import engine
from env import stand as at
from env.compiled import own
from env.episode import SCORE, UNASKED, UNPARSED
from env.index import Index
from env.order import Order, runs
from env.siblings import mixed
from env.stand import NEW, Ints, Shown, Stand


# Not frozen: that makes a `Results` take a tenth of the time that a small round takes.
@dataclass(eq=False)
class Revealed(ABC):
    """What a round revealed: A actions, R rows (a row a branch of an action), in the order they were asked.

    Attributes:
        episode: int64[A], who acted.
        rows: int64[A], rows of each action; minus a number of `episode.REFUSALS` where it was refused.
        ledger: int64[A, 4], decode, probe, PRM and sequential tokens of the action's episode after the round.
        branch, answer, tokens, probe_tokens, end: int[R]; `answer` is the episode's own code.
        children: int64[R], forks left, where there are forks.
        confidence: float32[R] where it is known.
        news: int64[N, 4], of the rows, in order, whose branch has ended or whose answer is not what was last
            told: the row, its branch, its answer and its end.
        scores: PRM scores of each row's path, as counts int64[R] and values float32[S]; None unless asked.
    """

    episode: Ints
    rows: Ints
    ledger: Ints
    branch: Ints
    answer: Ints
    tokens: Ints
    probe_tokens: Ints
    end: NDArray[np.uint8]
    children: Ints | None
    confidence: NDArray[np.float32] | None
    news: Ints
    scores: tuple[Ints, NDArray[np.float32]] | None

    @property
    @abstractmethod
    def depth(self) -> NDArray[np.int32]:
        """int32[R], segments from the root."""


@dataclass(eq=False)
class Results(Revealed):
    """The same of a store; `node` is int64[R], where each row's branch stands now."""

    index: Index
    node: Ints

    @property
    def depth(self) -> NDArray[np.int32]:
        """int32[R], segments from the root."""
        return self.index.depth[self.node]


class Replay:
    """E episodes of one store, all at their start.

    Args:
        index: the store laid out under a protocol.
        problems: int[E], which problem each episode plays.
        seeds: E seeds; the seed alone fixes the order in which a problem's branches and forks are served.
        max_branches: branches an episode may open at the root; by default half of the problem's pool (at
            the whole pool every seed draws the same branches), under the published protocol all of it.
        log: keep every round's actions, ids and results in `log`, for traces and cost functions.

    Attributes:
        ledger: int64[E, 4], decode, probe, PRM and sequential tokens (a round counts as its longest branch).
        asked, granted: int64[E], branches and forks asked for and served; their difference is the shortfall.
            Continuations and probes that the store does not hold are asked for as well, and never granted.
        rounds: int64[E].
        live: bool[E], whether the episode has not answered yet.
        final: int64[E], the answer code it ended with, -1 for none.
        correct: bool[E].
    """

    def __init__(
        self,
        index: Index,
        problems: Sequence[int] | Ints,
        seeds: Sequence[int] | Ints,
        *,
        max_branches: int | None = None,
        log: bool = False,
    ) -> None:
        self.index = index
        self.problems = own(np.asarray(problems))
        self.seeds = own(np.asarray(seeds))
        episodes = len(self.problems)
        self.max_branches = (
            index.ceilings[self.problems]
            if max_branches is None
            else np.minimum(index.pool[self.problems].sum(axis=1), max_branches)
        )
        self._stand = self._at_start()
        table = self._stand.episodes
        self.ledger = table[:, : at.SEQUENTIAL + 1]
        self.asked, self.granted, self.rounds = table[:, at.ASKED], table[:, at.GRANTED], table[:, at.ROUNDS]
        self.live = np.ones(episodes, np.bool_)
        self.final = np.full(episodes, UNPARSED, np.int64)
        self.correct = np.zeros(episodes, np.bool_)
        self.log: list[tuple[NDArray[Any], NDArray[Any], Results]] | None = [] if log else None

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.problems)

    @cached_property
    def seed_keys(self) -> list[int]:
        """What seeds each `ep.rng`: 64 bits that depend on its seed only, and tell nothing of the problem."""
        return mixed(self.seeds.astype(np.uint64)).tolist()

    @property
    def stand(self) -> Stand:
        """Where the episodes stand."""
        return self._stand

    def step(self, actions: NDArray[Any], ids: NDArray[Any]) -> Results:
        """Answer one round.

        Args:
            actions: int[A, 5], columns episode, kind, probe, count, argument, as in `env.episode`; sorted by
                episode, of episodes that are live.
            ids: int[I], the branch ids of the actions in order.

        Misuse refuses that action (see `Results.rows`) and leaves the rest of the round as it is. PRUNE
        actions get no results.

        Raises:
            IndexError: an action of an episode that there is not, or more or fewer ids than actions name.
        """
        index, actions, ids = self.index, own(actions), own(ids)
        if index.has_forks:
            self._stand = self._stand.with_room(engine.room(index.trees, self._stand, actions))
        confidence = index.forest.confidence
        shown = engine.play(index.trees, self._stand, actions, ids, False)
        results = Results(
            index=index,
            episode=shown.episode,
            rows=shown.rows,
            ledger=shown.ledger,
            branch=shown.branch,
            node=shown.node,
            answer=shown.answer,
            tokens=shown.tokens,
            probe_tokens=shown.probe_tokens,
            end=shown.end,
            children=shown.children if index.has_forks else None,
            confidence=None if confidence is None else confidence[index.order[shown.node]],
            news=shown.news,
            scores=self._scores(shown) if index.trees.has_prm else None,
        )
        if self.log is not None:
            self.log.append((actions, ids, results))
        return results

    def finish(self, episodes: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.bool_]:
        """End episodes with an answer each (a code of that episode, or -1 for none); grades them.

        Returns:
            bool[len(episodes)]: False where the code had never been seen in the episode: not an answer.
        """
        index, stand = self.index, self._stand
        return engine.grade(
            stand.episodes, stand.codes, self.problems, index.first_answer, index.correct,
            own(episodes), own(answers), self.live, self.final, self.correct,
        )  # fmt: skip

    def _at_start(self) -> Stand:
        index, problems, many = self.index, self.problems, len(self.problems)
        order = Order(index, problems, self.seeds)
        roots = np.zeros((many, index.arms, at.ORDER_AT + 1), np.int64)
        roots[:, :, at.POOL] = index.pool[problems]
        roots[:, :, at.FIRST_ROOT], roots[:, :, at.ORDER_AT] = order.first_root, order.at
        # An episode's codes by answer id, two places on: ids UNASKED and UNPARSED have theirs as well.
        width = np.diff(index.first_answer)[problems] + 2
        first_code = np.cumsum(width) - width - UNASKED
        codes = np.full((int(width.sum()), at.MEANING + 1), NEW, np.int64)
        codes[first_code + UNASKED, at.CODE], codes[first_code + UNPARSED, at.CODE] = UNASKED, UNPARSED
        episodes = np.zeros((many, at.OF_EPISODE), np.int64)
        episodes[:, at.MAX_BRANCHES], episodes[:, at.FIRST_CODE] = self.max_branches, first_code
        slots = many * int(self.max_branches.max(initial=1))
        return Stand(
            episodes=episodes,
            seeds=self.seeds.view(np.uint64),
            roots=roots,
            orders=order.orders,
            slots=np.full((slots, len(at.FRESH)), at.FRESH, np.int32),
            codes=codes,
        )

    def _scores(self, shown: Shown) -> tuple[Ints, NDArray[np.float32]] | None:
        """PRM scores along the paths of the rows that were scored, gathered from their ends upwards."""
        scoring = np.repeat(shown.kind == SCORE, np.maximum(shown.rows, 0))
        if not scoring.any():
            return None
        index, forest = self.index, self.index.forest
        assert forest.prm is not None and forest.prm_first is not None
        here = np.where(scoring, shown.node, -1)
        counts = np.where(scoring, index.path_scores[shown.node], 0)
        values = np.empty(int(counts.sum()), np.float32)
        stop = np.cumsum(counts)
        while (rows := np.flatnonzero(here >= 0)).size:
            stored = index.order[here[rows]]
            first = forest.prm_first[stored]
            own_scores = forest.prm_first[stored + 1] - first
            values[runs(stop[rows] - own_scores, own_scores)] = forest.prm[runs(first, own_scores)]
            stop[rows] -= own_scores
            here[rows] = index.parent[here[rows]]
        return counts, values
