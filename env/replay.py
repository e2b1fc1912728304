"""The replay engine: answers the actions of many episodes at once from the flat arrays of a store.

A round of any number of episodes is one call of `Replay.step`; nothing in it loops over episodes or branches.
What an action means and costs is said in the action table of the design; `Index` holds what depends on the
protocol, `Branches` where everything stands, `Codes` what controllers are told of answers.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.actions import id_counts
from env.branches import EXHAUSTED, LIVE, TO_THE_END, Branches
from env.codes import Codes
from env.episode import BRANCH, EXTEND, FINISH, FORK, MAX_ACTIONS, PRUNE, SCORE, UNASKED, UNPARSED
from env.index import Index, Ints
from env.order import Order, begins, mix, rank, runs

UNKNOWN_BRANCH, TWICE, NEGATIVE, NO_FORKS, NO_PRM, NO_ARM, NO_ACTION, TOO_MANY, NO_PROBES = range(1, 10)
DECODE, PROBE_TOKENS, PRM_TOKENS, SEQUENTIAL = range(4)


@dataclass(frozen=True)
class Revealed(ABC):
    """What a round revealed: A actions, R rows (a row a branch of an action), in the order they were asked.

    Attributes:
        episode: int64[A], who acted.
        rows: int64[A], rows of each action; minus a number of `episode.REFUSALS` where it was refused.
        ledger: int64[A, 4], decode, probe, PRM and sequential tokens of the action's episode after the round.
        branch, answer, tokens, probe_tokens, end: int[R]; `answer` is the episode's own code.
        children: int64[R], forks left, where there are forks.
        confidence: float32[R] where it is known.
        news: int64[N], the rows, in order, whose branch has ended or whose answer is not what was last told.
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


@dataclass(frozen=True)
class Results(Revealed):
    """The same of a store; `node` is int64[R], where each row's branch stands now."""

    index: Index
    node: Ints

    @property
    def depth(self) -> NDArray[np.int32]:
        """int32[R], segments from the root."""
        return self.index.depth[self.node]


@dataclass
class _Actions:
    """A round's actions as columns of length A, and the ids that they name, in order.

    Attributes:
        opening: bool[A], whether it opens branches instead of naming them.
        refused: int64[A], 0 or why it was refused.
        rows: int64[A], branches it is about.
        steps: for each id, the segments it was given of its own, if its action gives any; None if none does.
    """

    episode: Ints
    kind: Ints
    probe: Ints
    count: Ints
    argument: Ints
    opening: NDArray[np.bool_]
    refused: Ints
    rows: Ints
    ids: Ints
    steps: Ints | None

    def refuse(self, which: NDArray[np.bool_], why: int) -> None:
        """Refuse actions that name ids, after the fact."""
        keep = ~which[np.repeat(np.arange(len(self.rows)), np.where(self.opening, 0, self.rows))]
        self.ids = self.ids[keep]
        self.steps = None if self.steps is None else self.steps[keep]
        self.refused[which] = why
        self.rows = np.where(which, 0, self.rows)


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
        self.problems = np.asarray(problems, np.int64)
        self.seeds = np.asarray(seeds, np.int64)
        episodes = len(self.problems)
        self.max_branches = (
            index.ceilings[self.problems]
            if max_branches is None
            else np.minimum(index.pool[self.problems].sum(axis=1), max_branches)
        )
        self.ledger = np.zeros((episodes, 4), np.int64)
        self.asked = np.zeros(episodes, np.int64)
        self.granted = np.zeros(episodes, np.int64)
        self.rounds = np.zeros(episodes, np.int64)
        self.live = np.ones(episodes, np.bool_)
        self.final = np.full(episodes, UNPARSED, np.int64)
        self.correct = np.zeros(episodes, np.bool_)
        self.log: list[tuple[NDArray[Any], NDArray[Any], Results]] | None = [] if log else None
        # By kind of action; the first and the last entry stand for kinds that there are not.
        lacking = [NO_ACTION, 0, 0, 0, 0, NO_PRM, NO_FORKS, 0, NO_ACTION]
        if index.forest.prm is not None:
            lacking[SCORE] = 0
        if index.has_forks:
            lacking[FORK] = 0
        self._lacking = np.array(lacking)
        order = Order(index, self.problems, self.seeds)
        self._branches = Branches(index, self.problems, order, self.max_branches)
        self._codes = Codes(index, self.problems)

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.problems)

    @cached_property
    def seed_keys(self) -> list[int]:
        """What seeds each `ep.rng`: 64 bits that depend on its seed only, and tell nothing of the problem."""
        return mix(self.seeds.astype(np.uint64)).tolist()

    def step(self, actions: NDArray[Any], ids: NDArray[Any]) -> Results:
        """Answer one round.

        Args:
            actions: int[A, 5], columns episode, kind, probe, count, argument, as in `env.episode`; sorted by
                episode, of episodes that are live.
            ids: int[I], the branch ids of the actions in order.

        Misuse refuses that action (see `Results.rows`) and leaves the rest of the round as it is. PRUNE
        actions get no results.
        """
        asked = self._read(actions, ids)
        self.rounds[asked.episode[begins(asked.episode)]] += 1
        slot = self._named(asked)
        if asked.opening.any():
            slot = self._open(asked)
        results = self._advance(asked, slot)
        if self.log is not None:
            self.log.append((actions, ids, results))
        return results

    def finish(self, episodes: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.bool_]:
        """End episodes with an answer each (a code of that episode, or -1 for none); grades them.

        Returns:
            bool[len(episodes)]: False where the code had never been seen in the episode: not an answer.
        """
        seen = self._codes.seen(episodes, answers)
        answers = np.where(seen, answers, UNPARSED)
        self.live[episodes] = False
        self.final[episodes] = answers
        self.correct[episodes] = self._codes.correct(episodes, answers)
        return seen

    def _read(self, actions: NDArray[Any], ids: NDArray[Any]) -> _Actions:
        """The columns of a round, pruning done, each action checked by itself."""
        episode, kind, probe, count, argument = np.ascontiguousarray(actions.T, np.int64)
        ids = np.asarray(ids, np.int64)
        opening = (kind == BRANCH) | (kind == FORK)
        stepwise = (kind == EXTEND) & (argument == -1)
        named = np.where(opening, 0, np.maximum(count, 0))
        refused = self._refusals(episode, kind, probe, count, argument)
        prune = kind == PRUNE
        rows = np.where(opening | prune | (refused > 0), 0, named)
        steps = None
        if len(ids) != int(rows.sum()):
            width = id_counts(kind, count, argument)
            first = np.cumsum(width) - width
            if prune.any():
                given_up = np.repeat(episode[prune], named[prune])
                self._give_up(given_up, ids[runs(first[prune], named[prune])])
            if stepwise.any():
                steps = ids[runs(first + np.where(stepwise, named, 0), rows)] & 0xFFFFFFFF
            ids = ids[runs(first, rows)]
        columns = (episode, kind, probe, count, argument, opening, refused, rows)
        if prune.any():
            episode, kind, probe, count, argument, opening, refused, rows = (c[~prune] for c in columns)
        return _Actions(episode, kind, probe, count, argument, opening, refused, rows, ids, steps)

    def _give_up(self, episode: Ints, branch: Ints) -> None:
        known = self._branches.known(episode, branch)
        self._branches.prune(self._branches.slot(episode[known], branch[known]))

    def _refusals(self, episode: Ints, kind: Ints, probe: Ints, count: Ints, argument: Ints) -> Ints:
        refused = self._lacking[np.minimum(np.maximum(kind, 0), PRUNE + 1)]
        refused[(count < 0) | ((kind == EXTEND) & (argument < -1))] = NEGATIVE
        if not self.index.has_probes:
            refused[probe != 0] = NO_PROBES
        root = kind == BRANCH
        if root.any():
            refused[root & ((argument < 0) | (argument >= self.index.arms))] = NO_ARM
        if self.index.has_forks:
            fork = np.flatnonzero((kind == FORK) & (refused == 0))
            refused[fork[~self._branches.known(episode[fork], argument[fork])]] = UNKNOWN_BRANCH
        if len(kind) > MAX_ACTIONS:
            refused[rank(episode) >= MAX_ACTIONS] = TOO_MANY
        return refused

    def _named(self, asked: _Actions) -> Ints:
        """The slots of the branches that actions name; actions that misuse ids are refused."""
        while True:
            named = np.where(asked.opening, 0, asked.rows)
            known = asked.ids.view(np.uint64) < np.repeat(self._branches.opened[asked.episode], named)
            slot = np.repeat(asked.episode * self._branches.capacity, named) + asked.ids
            if not known.all():
                fault, why = ~known, UNKNOWN_BRANCH
            elif (slot[1:] > slot[:-1]).all() or not (fault := self._branches.repeated(slot)).any():
                return slot
            else:
                why = TWICE
            which = np.zeros(len(named), np.bool_)
            which[np.repeat(np.arange(len(named)), named)[fault]] = True
            asked.refuse(which, why)

    def _open(self, asked: _Actions) -> Ints:
        """Open the branches of a round, actions of one episode in turns; returns the slot of each row."""
        branches = self._branches
        todo = np.flatnonzero(asked.opening & (asked.refused == 0))
        first = np.zeros(len(asked.rows), np.int64)
        turns = rank(asked.episode[todo])
        for turn in range(int(turns.max(initial=-1)) + 1):
            for kind, open_them in ((BRANCH, branches.open_roots), (FORK, branches.open_forks)):
                now = todo[(turns == turn) & (asked.kind[todo] == kind)]
                if len(now):
                    episode, wanted = asked.episode[now], asked.count[now]
                    first[now] = branches.opened[episode]
                    asked.rows[now] = got = open_them(episode, asked.argument[now], wanted)
                    self.asked[episode] += wanted
                    self.granted[episode] += got
        action = np.repeat(np.arange(len(asked.rows)), asked.rows)
        born = asked.opening[action]
        branch = np.empty(len(action), np.int64)
        branch[~born] = asked.ids
        branch[born] = first[action[born]] + rank(action[born])
        return branches.slot(asked.episode[action], branch)

    def _advance(self, asked: _Actions, slot: Ints) -> Results:
        index, branches = self.index, self._branches
        rows = asked.rows
        episode = np.repeat(asked.episode, rows)
        before, node, stuck, steps = self._move(asked, episode, slot)
        np.add.at(self.asked, stuck, 1)
        end = branches.ends(slot, node)
        probing = np.repeat(asked.probe != 0, rows) & ((end == LIVE) | (end == EXHAUSTED))
        asked_at = branches.asked_at[slot]
        tokens = self._decoded(asked, before, node, steps, asked_at)
        branches.asked_at[slot] = np.where(probing, node, asked_at)
        if index.has_free_probes:
            probe_tokens = np.zeros(len(node), np.int64)
        else:
            probe_tokens = np.where(probing & (asked_at != node), index.probe_cost[node], 0)
        answer = index.answer[node]
        if index.has_silent_nodes:
            silent = probing & (asked_at != node) & (answer == UNASKED)
            np.add.at(self.asked, episode[silent], 1)
        shown = probing | ((end > LIVE) & (end < EXHAUSTED))
        if not shown.all():
            answer = np.where(shown, answer, UNASKED)
        scores, prm = None, None
        if (asked.kind[rows > 0] == SCORE).any():
            scoring = np.repeat(asked.kind == SCORE, rows)
            prm = np.where(scoring, index.cost[node] - branches.scored[slot], 0)
            branches.scored[slot] += prm
            scores = self._scores(np.where(scoring, node, -1))
        self._charge(asked, tokens, probe_tokens, prm)
        code = self._codes.encode(episode, answer)
        confidence = index.forest.confidence
        return Results(
            index=index,
            episode=asked.episode,
            rows=np.where(asked.refused > 0, -asked.refused, rows),
            ledger=self.ledger[asked.episode],
            branch=slot - episode * branches.capacity,
            node=node,
            answer=code,
            tokens=tokens,
            probe_tokens=probe_tokens,
            end=end,
            children=branches.forks_left(slot) if index.has_forks else None,
            confidence=None if confidence is None else confidence[index.order[node]],
            news=branches.tell(slot, code, end),
            scores=scores,
        )

    def _move(self, asked: _Actions, episode: Ints, slot: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Move what is to move; the nodes before and after, who got stuck, and the steps asked for."""
        reach = np.where(asked.kind == EXTEND, asked.argument, 0)
        reach[asked.kind == FINISH] = TO_THE_END
        steps = np.repeat(reach, asked.rows)
        if asked.steps is not None:
            # Branches that an action opens have no steps to be given, and none of their own.
            own = np.flatnonzero(np.repeat(~asked.opening, asked.rows))
            steps[own] = np.where(steps[own] == -1, asked.steps, steps[own])
        return *self._branches.advance(episode, slot, steps), steps

    def _decoded(self, asked: _Actions, before: Ints, node: Ints, steps: Ints, asked_at: Ints) -> Ints:
        """Tokens decoded on the way from one node to another; into the node, for a branch that is new."""
        index = self.index
        tokens = index.cost[node] - index.cost[before]
        if asked.opening.any():
            new = np.flatnonzero(np.repeat(asked.opening, asked.rows))
            into = node[new]
            above = index.parent[into]
            tokens[new] = index.cost[into] - np.where(above >= 0, index.cost[above], 0)
            if index.whole is not None:
                # The published rule: read whole without ever being asked, a branch costs its true length.
                silent = new[np.repeat(asked.probe == 0, asked.rows)[new]]
                tokens[silent] = np.minimum(index.cost[node[silent]], index.whole[node[silent]])
        if index.whole is not None and (asked.kind == FINISH).any():
            unasked = (index.depth[before] == 1) & (asked_at != before)
            unasked &= (steps == TO_THE_END) & (node != before)
            opening = np.minimum(index.cost[before], index.whole[before])
            tokens = np.where(unasked, index.whole[node] - opening, tokens)
        return tokens

    def _charge(self, asked: _Actions, decode: Ints, probe: Ints, prm: Ints | None) -> None:
        """Add the rows of a round to the ledgers of their episodes."""
        if not len(decode):
            return
        stops = np.cumsum(asked.rows)
        first = np.flatnonzero(begins(asked.episode))
        starts = stops[first] - asked.rows[first]
        some = np.append(starts[1:], len(decode)) > starts
        owner, starts = asked.episode[first[some]], starts[some]
        self.ledger[owner, DECODE] += np.add.reduceat(decode, starts)
        if not self.index.has_free_probes:
            self.ledger[owner, PROBE_TOKENS] += np.add.reduceat(probe, starts)
            decode = decode + probe
        self.ledger[owner, SEQUENTIAL] += np.maximum.reduceat(decode, starts)
        if prm is not None:
            self.ledger[owner, PRM_TOKENS] += np.add.reduceat(prm, starts)

    def _scores(self, node: Ints) -> tuple[Ints, NDArray[np.float32]]:
        """PRM scores along the paths to some nodes (-1 = none), gathered from their ends upwards."""
        index, forest = self.index, self.index.forest
        assert forest.prm is not None and forest.prm_first is not None
        counts = np.where(node >= 0, index.path_scores[node], 0)
        values = np.empty(int(counts.sum()), np.float32)
        stop, here = np.cumsum(counts), node.copy()
        while (rows := np.flatnonzero(here >= 0)).size:
            stored = index.order[here[rows]]
            first = forest.prm_first[stored]
            own = forest.prm_first[stored + 1] - first
            values[runs(stop[rows] - own, own)] = forest.prm[runs(first, own)]
            stop[rows] -= own
            here[rows] = index.parent[here[rows]]
        return counts, values
