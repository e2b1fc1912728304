"""The replay engine: answers the actions of many episodes at once from the flat arrays of a store.

A round of any number of episodes is one call of `Replay.step`; nothing in it loops over episodes or branches.
What an action means and costs is said in the action table of the design; `Index` holds what depends on the
protocol, `Branches` where everything stands, `Codes` what controllers are told of answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.branches import EXHAUSTED, LIVE, TO_THE_END, Branches
from env.codes import Codes
from env.episode import BRANCH, EXTEND, FINISH, FORK, MAX_ACTIONS, PRUNE, SCORE, UNPARSED
from env.index import Index, Ints
from env.order import Order, begins, mix, rank

UNKNOWN_BRANCH, TWICE, NEGATIVE, NO_FORKS, NO_PRM, NO_ARM, NO_ACTION, TOO_MANY, NO_PROBES = range(1, 10)
DECODE, PROBE_TOKENS, PRM_TOKENS, SEQUENTIAL = range(4)


@dataclass(frozen=True)
class Results:
    """What a round revealed: A actions, R rows (a row a branch of an action), in the order they were asked.

    Attributes:
        episode: int64[A], who acted.
        rows: int64[A], rows of each action; minus a number of `episode.REFUSALS` where it was refused.
        ledger: int64[A, 4], decode, probe, PRM and sequential tokens of the action's episode after the round.
        branch, answer, tokens, probe_tokens, depth, end: int[R]; `answer` is the episode's own code.
        children: int64[R], forks left, where the store has forks.
        confidence: float32[R] where the store has it.
        scores: PRM scores of each row's path, as counts int64[R] and values float32[S]; None unless asked.
    """

    episode: Ints
    rows: Ints
    ledger: Ints
    branch: Ints
    answer: Ints
    tokens: Ints
    probe_tokens: Ints
    depth: NDArray[np.int32]
    end: NDArray[np.uint8]
    children: Ints | None
    confidence: NDArray[np.float32] | None
    scores: tuple[Ints, NDArray[np.float32]] | None


@dataclass
class _Actions:
    """A round's actions as columns of length A, and the ids that they name, in order.

    Attributes:
        opening: bool[A], whether it opens branches instead of naming them.
        refused: int64[A], 0 or why it was refused.
        rows: int64[A], branches it is about.
        steps: for each id, the segments it was given of its own; None where no action gives any.
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
        pool = index.pool[self.problems].sum(axis=1)
        ceiling = pool if index.protocol == "published" else np.maximum(1, pool // 2)
        self.max_branches = ceiling if max_branches is None else np.minimum(pool, max_branches)
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

    def seed_key(self, episode: int) -> int:
        """What seeds `ep.rng`: 64 bits that depend on the seed only, and so tell nothing of the problem."""
        return int(mix(self.seeds[episode : episode + 1].astype(np.uint64))[0])

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
        if asked.opening.any():
            self._open(asked)
        action, episode, branch, slot = self._rows(asked)
        results = self._advance(asked, action, episode, branch, slot)
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
        episode, kind, probe, count, argument = np.ascontiguousarray(actions.T).astype(np.int64)
        ids = ids.astype(np.int64)
        opening = (kind == BRANCH) | (kind == FORK)
        stepwise = (kind == EXTEND) & (argument == -1)
        named = np.where(opening, 0, np.maximum(count, 0))
        refused = self._refusals(episode, kind, probe, count, argument)
        steps = None
        prune = kind == PRUNE
        if stepwise.any() or prune.any() or refused.any():
            action = np.repeat(np.arange(len(kind)), np.where(stepwise, 2 * named, named))
            is_step = stepwise[action] & (rank(action) >= named[action])
            if prune.any():
                given_up = prune[action]
                owner, branch = episode[action[given_up]], ids[given_up]
                known = self._branches.known(owner, branch)
                self._branches.prune(self._branches.slot(owner[known], branch[known]))
            if stepwise.any():
                steps = np.zeros(len(ids), np.int64)
                steps[stepwise[action] & ~is_step] = np.maximum(ids[is_step], 0)
            keep = ~(is_step | prune[action] | (refused[action] > 0))
            ids = ids[keep]
            steps = None if steps is None else steps[keep]
        rows = np.where(opening | (refused > 0), 0, named)
        columns = (episode, kind, probe, count, argument, opening, refused, rows)
        if prune.any():
            episode, kind, probe, count, argument, opening, refused, rows = (c[~prune] for c in columns)
        return _Actions(episode, kind, probe, count, argument, opening, refused, rows, ids, steps)

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

    def _open(self, asked: _Actions) -> None:
        """Open the branches of a round; several actions of one episode take turns."""
        # An id that this very round gives out is not known yet.
        owner = np.repeat(asked.episode, asked.rows)
        asked.ids = np.where(self._branches.known(owner, asked.ids), asked.ids, -1)
        todo = np.flatnonzero(asked.opening & (asked.refused == 0))
        turns = rank(asked.episode[todo])
        for turn in range(int(turns.max(initial=-1)) + 1):
            for kind, open_them in ((BRANCH, self._branches.open_roots), (FORK, self._branches.open_forks)):
                now = todo[(turns == turn) & (asked.kind[todo] == kind)]
                if len(now):
                    episode, wanted = asked.episode[now], asked.count[now]
                    asked.rows[now] = got = open_them(episode, asked.argument[now], wanted)
                    self.asked[episode] += wanted
                    self.granted[episode] += got

    def _rows(self, asked: _Actions) -> tuple[Ints, Ints, Ints, Ints]:
        """For every row its action, episode, branch and slot; actions that misuse ids are refused."""
        while True:
            action = np.repeat(np.arange(len(asked.rows)), asked.rows)
            episode = asked.episode[action]
            if asked.opening.any():
                branch = self._with_born(asked, action, episode)
            else:
                branch = asked.ids
            # Born branches are known and named by nobody, so any fault is one of the ids.
            fault, why = ~self._branches.known(episode, branch), UNKNOWN_BRANCH
            if not fault.any():
                slot = self._branches.slot(episode, branch)
                fault, why = self._branches.repeated(slot), TWICE
                if not fault.any():
                    return action, episode, branch, slot
            which = np.zeros(len(asked.rows), np.bool_)
            which[action[fault]] = True
            asked.refuse(which, why)

    def _with_born(self, asked: _Actions, action: Ints, episode: Ints) -> Ints:
        """The branch of every row; born ones are the last of their episode, in the order of the actions."""
        new = asked.opening[action]
        branch = np.empty(len(action), np.int64)
        branch[~new] = asked.ids
        owner = episode[new]
        born = np.bincount(owner, minlength=len(self))[owner]
        branch[new] = self._branches.opened[owner] - born + rank(owner)
        return branch

    def _advance(self, asked: _Actions, action: Ints, episode: Ints, branch: Ints, slot: Ints) -> Results:
        index, branches = self.index, self._branches
        reach = np.where(asked.kind == EXTEND, asked.argument, 0)
        steps = np.where(asked.kind == FINISH, TO_THE_END, reach)[action]
        if asked.steps is not None:
            named = ~asked.opening[action]
            steps[named] = np.where(steps[named] == -1, asked.steps, steps[named])
        before, node, stuck = branches.advance(episode, slot, steps)
        np.add.at(self.asked, stuck, 1)
        probe = asked.probe[action] != 0
        tokens = self._decoded(asked.opening[action], probe, before, node, steps, slot)
        state = branches.state[slot]
        end = np.where(state == LIVE, index.end[node], state)
        probing = probe & ((end == LIVE) | (end == EXHAUSTED))
        fresh = probing & (branches.asked_at[slot] != node)
        branches.asked_at[slot[fresh]] = node[fresh]
        probe_tokens = np.where(fresh, index.probe_cost[node], 0)
        shown = probing | ((end > LIVE) & (end < EXHAUSTED))
        scores, prm = None, None
        scoring = (asked.kind == SCORE)[action]
        if scoring.any():
            prm = np.where(scoring, index.cost[node] - branches.scored[slot], 0)
            branches.scored[slot] += prm
            scores = self._scores(np.where(scoring, node, -1))
        self._charge(episode, tokens, probe_tokens, prm)
        confidence = index.forest.confidence
        return Results(
            episode=asked.episode,
            rows=np.where(asked.refused > 0, -asked.refused, asked.rows),
            ledger=self.ledger[asked.episode],
            branch=branch,
            answer=self._codes.encode(episode, node, shown),
            tokens=tokens,
            probe_tokens=probe_tokens,
            depth=index.depth[node],
            end=end,
            children=branches.forks_left(slot) if index.has_forks else None,
            confidence=None if confidence is None else confidence[index.order[node]],
            scores=scores,
        )

    def _decoded(
        self,
        new: NDArray[np.bool_],
        probe: NDArray[np.bool_],
        before: Ints,
        node: Ints,
        steps: Ints,
        slot: Ints,
    ) -> Ints:
        """Tokens decoded on the way from one node to another; into the node, for a branch that is new."""
        index = self.index
        tokens = index.cost[node] - index.cost[before]
        if new.any():
            above = index.parent[node]
            tokens = np.where(new, index.cost[node] - np.where(above >= 0, index.cost[above], 0), tokens)
        if index.whole is not None and (new.any() or (steps == TO_THE_END).any()):
            # The published rule: read whole without ever being asked, a branch costs its true length.
            opening = np.minimum(index.cost[before], index.whole[before])
            tokens = np.where(new & ~probe, opening, tokens)
            unasked = (index.depth[before] == 1) & (self._branches.asked_at[slot] != before)
            unasked &= (steps == TO_THE_END) & (node != before)
            tokens = np.where(unasked, index.whole[node] - opening, tokens)
        return tokens

    def _charge(self, episode: Ints, decode: Ints, probe: Ints, prm: Ints | None) -> None:
        if not len(episode):
            return
        starts = np.flatnonzero(begins(episode))
        owner = episode[starts]
        self.ledger[owner, DECODE] += np.add.reduceat(decode, starts)
        self.ledger[owner, PROBE_TOKENS] += np.add.reduceat(probe, starts)
        self.ledger[owner, SEQUENTIAL] += np.maximum.reduceat(decode + probe, starts)
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
            nth = rank(np.repeat(rows, own))
            values[np.repeat(stop[rows] - own, own) + nth] = forest.prm[np.repeat(first, own) + nth]
            stop[rows] -= own
            here[rows] = index.parent[here[rows]]
        return counts, values
