"""The replay engine: answers the actions of many episodes at once from the flat arrays of a store.

A round of any number of episodes is one call of `Replay.step`; nothing in it loops over episodes or branches.
What an action means and costs is said in DESIGN's action table; `Index` holds what depends on the protocol.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.episode import BRANCH, EXTEND, FINISH, FORK, MAX_ACTIONS, PRUNE, SCORE, UNASKED, UNPARSED
from env.index import Index

Ints = NDArray[np.int64]
LIVE, EXHAUSTED, PRUNED = 0, 3, 4
TO_THE_END = 1 << 40
UNKNOWN_BRANCH, TWICE, NEGATIVE, NO_FORKS, NO_PRM, NO_ARM, NO_ACTION, TOO_MANY, NO_PROBES = range(1, 10)


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


class Replay:
    """E episodes of one store, all at their start.

    Args:
        index: the store laid out under a protocol.
        problems: int[E], which problem each episode plays.
        seeds: E seeds; the seed alone fixes the order in which a problem's branches and forks are served.
        max_branches: branches an episode may open at the root; by default half of the problem's pool (at the
            whole pool every seed draws the same branches), under the published protocol all of it.
        log: keep every round's actions and results in `log`, for traces and cost functions.
    """

    def __init__(
        self,
        index: Index,
        problems: Sequence[int] | Ints,
        seeds: Sequence[int],
        *,
        max_branches: int | None = None,
        log: bool = False,
    ) -> None:
        self.index = index
        self.problems = np.asarray(problems, np.int64)
        self.seeds = np.asarray(seeds, np.int64)
        count = len(self.problems)
        pool = index.pool[self.problems].sum(axis=1)
        ceiling = pool if index.protocol == "published" else np.maximum(1, pool // 2)
        self.max_branches = ceiling if max_branches is None else np.minimum(pool, max_branches)
        self.ledger = np.zeros((count, 4), np.int64)
        self.asked = np.zeros(count, np.int64)
        self.granted = np.zeros(count, np.int64)
        self.rounds = np.zeros(count, np.int64)
        self.live = np.ones(count, np.bool_)
        self.final = np.full(count, UNPARSED, np.int64)
        self.correct = np.zeros(count, np.bool_)
        self.log: list[tuple[NDArray[Any], NDArray[Any], Results]] | None = [] if log else None
        self._opened = np.zeros(count, np.int64)
        self._rooted = np.zeros((count, index.arms), np.int64)
        self._capacity = int(self.max_branches.max(initial=1))
        slots = count * self._capacity
        self._node = np.zeros(slots, np.int64)
        self._asked_at = np.full(slots, -1, np.int64)
        self._state = np.zeros(slots, np.uint8)
        self._stamp = np.zeros(slots, np.int64)
        self._served = np.zeros(slots if index.has_forks else 0, np.int64)
        self._scored = np.zeros(slots if index.forest.prm is not None else 0, np.int64)
        self._any_pruned = False
        answers = np.diff(index.first_answer)[self.problems]
        self._codes_at = np.cumsum(answers) - answers
        self._code = np.full(int(answers.sum()), UNASKED, np.int64)
        self._meaning = np.zeros(len(self._code), np.int64)
        self._codes = np.zeros(count, np.int64)
        self._order, self._order_at = _orders(index, self.problems, seeds)

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.problems)

    def seed_key(self, episode: int) -> int:
        """What seeds `ep.rng`: 64 bits that depend on the seed only, and so tell nothing about the problem."""
        return int(_mix(self.seeds[episode : episode + 1].astype(np.uint64))[0])

    def step(self, actions: NDArray[Any], ids: NDArray[Any]) -> Results:
        """Answer one round.

        Args:
            actions: int[A, 5], columns episode, kind, probe, count, argument, as in `env.episode`; sorted by
                episode, of episodes that are live.
            ids: int[I], the branch ids of the actions in order.

        Misuse refuses that action (see `Results.rows`) and leaves the rest of the round as it is. PRUNE
        actions get no results.
        """
        episode, kind, probe, count, argument = np.ascontiguousarray(actions.T).astype(np.int64)
        raw_ids, ids = ids, ids.astype(np.int64)
        if (kind == PRUNE).any():
            ids, keep = self._prune(episode, kind, count, argument, ids)
            episode, kind, probe, count, argument = (x[keep] for x in (episode, kind, probe, count, argument))
        self.rounds[_distinct(episode)] += 1
        opening = (kind == BRANCH) | (kind == FORK)
        refused = self._refusals(episode, kind, probe, count, argument)
        by_id = np.where(opening, 0, count)
        steps_given = (kind == EXTEND) & (argument == -1)
        rows = np.where(opening | (refused > 0), 0, count)
        if steps_given.any() or refused.any():
            ids, given = _split_ids(ids, by_id, steps_given, refused > 0)
        else:
            given = None
        if opening.any():
            # An id that this very round gives out is not known yet.
            ids = np.where(ids < self._opened[np.repeat(episode, rows)], ids, -1)
            born = self._open(episode, kind, count, argument, opening, refused)
            rows = np.where(opening, born, rows)
        while True:
            action = np.repeat(np.arange(len(rows)), rows)
            row_episode = episode[action]
            branch = self._branches(opening, rows, row_episode, action, ids)
            slot = row_episode * self._capacity + branch
            fault = self._misuse(row_episode, branch, slot)
            if fault is None:
                break
            bad = np.zeros(len(rows), np.bool_)
            bad[action[fault[0]]] = True
            bad &= ~opening
            refused[bad] = fault[1]
            keep = ~bad[action[~opening[action]]]
            ids = ids[keep]
            given = given[keep] if given is not None else None
            rows = np.where(bad, 0, rows)
        results = self._advance(
            episode, kind, probe, argument, opening, rows, action, row_episode, branch, slot, given
        )
        results.rows[refused > 0] = -refused[refused > 0]
        if self.log is not None:
            self.log.append((actions, raw_ids, results))
        return results

    def finish(self, episodes: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.bool_]:
        """End episodes with an answer each (a code of that episode, or -1 for none); grades them.

        Returns:
            bool[len(episodes)]: False where the code had never been seen in the episode: not an answer.
        """
        seen = (answers >= UNPARSED) & (answers < self._codes[episodes])
        self.live[episodes] = False
        told = seen & (answers >= 0)
        meaning = self._meaning[self._codes_at[episodes[told]] + answers[told]]
        problem = self.problems[episodes[told]]
        self.final[episodes] = np.where(seen, answers, UNPARSED)
        self.correct[episodes[told]] = self.index.correct[self.index.first_answer[problem] + meaning]
        return seen

    def _refusals(self, episode: Ints, kind: Ints, probe: Ints, count: Ints, argument: Ints) -> Ints:
        refused = np.zeros(len(kind), np.int64)
        refused[(kind < BRANCH) | (kind > FORK)] = NO_ACTION
        refused[count < 0] = NEGATIVE
        refused[(kind == EXTEND) & (argument < -1)] = NEGATIVE
        if not self.index.has_forks:
            refused[kind == FORK] = NO_FORKS
        if self.index.forest.prm is None:
            refused[kind == SCORE] = NO_PRM
        if not self.index.has_probes:
            refused[probe != 0] = NO_PROBES
        refused[(kind == BRANCH) & ((argument < 0) | (argument >= self.index.arms))] = NO_ARM
        fork = np.flatnonzero((kind == FORK) & (refused == 0))
        refused[fork[(argument[fork] < 0) | (argument[fork] >= self._opened[episode[fork]])]] = UNKNOWN_BRANCH
        if len(kind) > MAX_ACTIONS:
            rank = _rank(episode)
            refused[rank >= MAX_ACTIONS] = TOO_MANY
        return refused

    def _branches(self, opening: Any, rows: Ints, row_episode: Ints, action: Ints, ids: Ints) -> Ints:
        if not opening.any():
            return ids
        branch = np.empty(len(action), np.int64)
        new = opening[action]
        branch[~new] = ids
        # Born branches are the last ones opened in their episode, in the order of the actions.
        born = np.flatnonzero(new)
        if len(born):
            owner = row_episode[born]
            rank = _rank(owner)
            total = np.bincount(owner, minlength=len(self))[owner]
            branch[born] = self._opened[owner] - total + rank
        return branch

    def _misuse(self, row_episode: Ints, branch: Ints, slot: Ints) -> tuple[Any, int] | None:
        if not len(branch):
            return None
        outside = (branch < 0) | (branch >= self._opened[row_episode])
        if outside.any():
            return outside, UNKNOWN_BRANCH
        ticket = np.arange(len(slot))
        self._stamp[slot] = ticket
        again = self._stamp[slot] != ticket
        return (again, TWICE) if again.any() else None

    def _prune(self, episode: Ints, kind: Ints, count: Ints, argument: Ints, ids: Ints) -> tuple[Ints, Any]:
        width = np.where((kind == BRANCH) | (kind == FORK), 0, np.maximum(count, 0))
        width = np.where((kind == EXTEND) & (argument == -1), 2 * width, width)
        prune = kind == PRUNE
        mine = np.repeat(prune, width)[: len(ids)]
        owner = np.repeat(episode, width)[: len(ids)][mine]
        branch = ids[mine]
        known = (branch >= 0) & (branch < self._opened[owner])
        slot = (owner * self._capacity + branch)[known]
        self._state[slot] = np.where(self._state[slot] == LIVE, PRUNED, self._state[slot])
        self._any_pruned = True
        return ids[~mine], ~prune

    def _open(
        self, episode: Ints, kind: Ints, count: Ints, argument: Ints, opening: Any, refused: Ints
    ) -> Ints:
        """Give new branches their first nodes; returns how many each action got."""
        born = np.zeros(len(kind), np.int64)
        todo = np.flatnonzero(opening & (refused == 0))
        turns = _rank(episode[todo])
        for turn in range(int(turns.max(initial=-1)) + 1):
            now = todo[turns == turn]
            owner, wanted = episode[now], count[now]
            root = kind[now] == BRANCH
            left = np.zeros(len(now), np.int64)
            problem, arm = self.problems[owner], np.where(root, argument[now], 0)
            left[root] = np.minimum(
                self.max_branches[owner] - self._rooted[owner].sum(axis=1),
                self.index.pool[problem, arm] - self._rooted[owner, arm],
            )[root]
            if not root.all():
                parent = owner[~root] * self._capacity + argument[now][~root]
                stopped = self._state[parent] == PRUNED
                left[~root] = np.where(
                    stopped, 0, self.index.child_count[self._node[parent]] - self._served[parent]
                )
            got = np.minimum(wanted, np.maximum(left, 0))
            self.asked += np.bincount(owner, wanted, len(self)).astype(np.int64)
            self.granted += np.bincount(owner, got, len(self)).astype(np.int64)
            self._grow(int((self._opened[owner] + got).max(initial=0)))
            which = np.repeat(np.arange(len(now)), got)
            nth = _rank(which)
            row_owner = owner[which]
            slot = row_owner * self._capacity + self._opened[row_owner] + nth
            rooted = root[which]
            place = problem[which] * self.index.arms + arm[which]
            k = self._rooted[row_owner, arm[which]] + nth
            at = self._order_at[row_owner, arm[which]]
            nodes = np.empty(len(slot), np.int64)
            first = self.index.first_root[place[rooted]]
            nodes[rooted] = self.index.roots[first + self._order[(at + k)[rooted]]]
            if not rooted.all():
                parent = (owner * self._capacity + argument[now])[which[~rooted]]
                nodes[~rooted] = self._child(
                    self._node[parent], row_owner[~rooted], self._served[parent] + nth[~rooted]
                )
                forked = ~root
                parents = owner[forked] * self._capacity + argument[now][forked]
                self._served[parents] += got[forked]
                if len(self._scored):
                    self._scored[slot[~rooted]] = self._scored[parent]
            self._node[slot] = nodes
            self._opened[owner] += got
            self._rooted[owner[root], arm[root]] += got[root]
            born[now] = got
        return born

    def _advance(
        self,
        episode: Ints,
        kind: Ints,
        probe: Ints,
        argument: Ints,
        opening: Any,
        rows: Ints,
        action: Ints,
        row_episode: Ints,
        branch: Ints,
        slot: Ints,
        given: Ints | None,
    ) -> Results:
        index = self.index
        reach = np.where(kind == EXTEND, argument, np.where(kind == FINISH, TO_THE_END, 0))
        steps = reach[action]
        if given is not None:
            by_id = ~opening[action]
            steps[by_id] = np.where(steps[by_id] == -1, given, steps[by_id])
        if self._any_pruned:
            steps = np.where(self._state[slot] == PRUNED, 0, steps)
        before = self._node[slot]
        if index.has_forks:
            node = self._walk(slot, row_episode, before, steps)
        else:
            node = np.minimum(before + steps, index.tail[before])
            if index.has_open_leaves:
                short = (before + steps > node) & (index.end[node] == LIVE)
                self._exhaust(slot[short], row_episode[short])
        tokens = index.cost[node] - index.cost[before]
        if opening.any():
            new = opening[action]
            above = index.parent[node]
            tokens = np.where(new, index.cost[node] - np.where(above >= 0, index.cost[above], 0), tokens)
            if index.whole is not None:
                unprobed = new & (probe[action] == 0)
                tokens[unprobed] = np.minimum(tokens, index.whole[node])[unprobed]
        if index.whole is not None:
            at_once = (steps == TO_THE_END) & (index.depth[before] == 1) & (self._asked_at[slot] != before)
            at_once &= node != before
            whole = index.whole[node]
            tokens = np.where(at_once, whole - np.minimum(index.cost[before], whole), tokens)
        self._node[slot] = node
        end = index.end[node]
        state = self._state[slot]
        end = np.where(state == LIVE, end, state)
        probing = (probe[action] != 0) & ((end == LIVE) | (end == EXHAUSTED))
        if probing.any():
            fresh = probing & (self._asked_at[slot] != node)
            probe_tokens = np.where(fresh, index.probe_cost[node], 0)
            self._asked_at[slot] = np.where(fresh, node, self._asked_at[slot])
        else:
            probe_tokens = np.zeros(len(node), np.int64)
        shown = probing | ((end != LIVE) & (end < EXHAUSTED))
        answer = np.where(shown, self._encode(row_episode, node, shown), UNASKED)
        scores, prm = None, np.zeros(0, np.int64)
        scoring = kind == SCORE
        asked = scoring[action]
        if asked.any():
            prm = np.where(asked, index.cost[node] - self._scored[slot], 0)
            self._scored[slot] += prm
            scores = self._scores(node, asked)
        self._charge(row_episode, tokens, probe_tokens, prm)
        confidence = index.forest.confidence
        return Results(
            episode=episode,
            rows=rows.copy(),
            ledger=self.ledger[episode],
            branch=branch,
            answer=answer,
            tokens=tokens,
            probe_tokens=probe_tokens,
            depth=index.depth[node],
            end=end,
            children=index.child_count[node] - self._served[slot] if index.has_forks else None,
            confidence=None if confidence is None else confidence[index.order[node]],
            scores=scores,
        )

    def _walk(self, slot: Ints, row_episode: Ints, node: Ints, steps: Ints) -> Ints:
        """Follow branches down a tree, `steps` segments each; each takes its node's next unserved child."""
        index, node, left = self.index, node.copy(), steps.copy()
        moving = np.flatnonzero((left > 0) & (self._state[slot] == LIVE))
        while len(moving):
            here, at = node[moving], slot[moving]
            free = index.child_count[here] - self._served[at]
            stuck = (free <= 0) & (index.end[here] == LIVE)
            if stuck.any():
                self._exhaust(at[stuck], row_episode[moving[stuck]])
            moving, here, at = moving[free > 0], here[free > 0], at[free > 0]
            run = np.where(self._served[at] == 0, np.minimum(index.tail[here] - here, left[moving]), 0)
            child = self._child(here, row_episode[moving], self._served[at])
            node[moving] = np.where(run > 0, here + run, child)
            left[moving] -= np.maximum(run, 1)
            self._served[at] = 0
            moving = moving[left[moving] > 0]
        return node

    def _exhaust(self, slot: Ints, row_episode: Ints) -> None:
        """The store holds no continuation of these branches: they end here, and it counts as shortfall."""
        first = self._state[slot] == LIVE
        self._state[slot[first]] = EXHAUSTED
        np.add.at(self.asked, row_episode[first], 1)

    def _child(self, node: Ints, row_episode: Ints, nth: Ints) -> Ints:
        """The nth child of each node in the order that the episode's seed gives to its siblings."""
        index = self.index
        first, count = index.first_child[node], index.child_count[node]
        chosen = nth.copy()
        several = np.flatnonzero(count > 1)
        if len(several):
            width = int(count[several].max())
            column = np.arange(width)
            inside = column < count[several, None]
            child = index.children[np.where(inside, first[several, None] + column, 0)]
            seeds = self.seeds[row_episode[several]].astype(np.uint64)
            keys = _mix(_mix(seeds)[:, None] + index.local[child].astype(np.uint64))
            keys = np.where(inside, keys, np.uint64(2**64 - 1))
            ranked = np.argsort(keys, axis=1, kind="stable")
            chosen[several] = ranked[np.arange(len(several)), nth[several]]
        return index.children[first + chosen]

    def _encode(self, row_episode: Ints, node: Ints, shown: Any) -> Ints:
        """Answer ids of the problem as the episode's own codes, numbered as they are first seen."""
        answer = self.index.answer[node]
        known = shown & (answer >= 0)
        place = self._codes_at[row_episode] + np.maximum(answer, 0)
        if not known.all():
            place = np.where(known, place, 0) if len(self._code) else place * 0
            if not len(self._code):
                return answer
        code = self._code[place]
        fresh = np.flatnonzero(known & (code == UNASKED))
        if len(fresh):
            _, at = np.unique(place[fresh], return_index=True)
            fresh = fresh[np.sort(at)]
            owner = row_episode[fresh]
            number = self._codes[owner] + _rank(owner)
            self._code[place[fresh]] = number
            self._meaning[self._codes_at[owner] + number] = answer[fresh]
            np.add.at(self._codes, owner, 1)
            code = self._code[place]
        return np.where(known, code, answer)

    def _charge(self, row_episode: Ints, decode: Ints, probe: Ints, prm: Ints) -> None:
        if not len(row_episode):
            return
        starts = np.flatnonzero(np.r_[True, row_episode[1:] != row_episode[:-1]])
        owner = row_episode[starts]
        self.ledger[owner, 0] += np.add.reduceat(decode, starts)
        self.ledger[owner, 1] += np.add.reduceat(probe, starts)
        self.ledger[owner, 3] += np.maximum.reduceat(decode + probe, starts)
        if len(prm):
            self.ledger[owner, 2] += np.add.reduceat(prm, starts)

    def _scores(self, node: Ints, asked: Any) -> tuple[Ints, NDArray[np.float32]]:
        index, forest = self.index, self.index.forest
        assert forest.prm is not None and forest.prm_first is not None
        counts = np.where(asked, index.path_scores[node], 0)
        values = np.empty(int(counts.sum()), np.float32)
        stop, here = np.cumsum(counts), np.where(asked, node, -1)
        while (rows := np.flatnonzero(here >= 0)).size:
            stored = index.order[here[rows]]
            own = forest.prm_first[stored + 1] - forest.prm_first[stored]
            nth = _rank(np.repeat(rows, own))
            values[np.repeat(stop[rows] - own, own) + nth] = forest.prm[
                np.repeat(forest.prm_first[stored], own) + nth
            ]
            stop[rows] -= own
            here[rows] = index.parent[here[rows]]
        return counts, values

    def _grow(self, needed: int) -> None:
        """Room for more branches an episode; only forks can need it."""
        if needed <= self._capacity:
            return
        wider = max(needed, 2 * self._capacity)

        def widen(values: NDArray[Any], fill: int) -> NDArray[Any]:
            grown = np.full((len(self), wider), fill, values.dtype)
            grown[:, : self._capacity] = values.reshape(len(self), -1)
            return grown.ravel()

        for name, fill in (("_node", 0), ("_asked_at", -1), ("_state", 0), ("_stamp", 0)):
            setattr(self, name, widen(getattr(self, name), fill))
        self._served = widen(self._served, 0)
        if len(self._scored):
            self._scored = widen(self._scored, 0)
        self._capacity = wider


def _split_ids(ids: Ints, count: Ints, steps_given: Any, refused: Any) -> tuple[Ints, Ints]:
    """The ids of the actions that were not refused, and the segment counts that came with some of them."""
    width = np.maximum(count, 0) * np.where(steps_given, 2, 1)
    action = np.repeat(np.arange(len(count)), width)[: len(ids)]
    place = _rank(action)
    is_step = steps_given[action] & (place >= count[action])
    keep = ~is_step & ~refused[action]
    steps = np.zeros(len(ids), np.int64)
    steps[steps_given[action] & ~is_step] = ids[is_step]
    return ids[keep], np.maximum(steps[keep], 0)


def _distinct(sorted_values: Ints) -> Ints:
    return (
        sorted_values[np.r_[True, sorted_values[1:] != sorted_values[:-1]]]
        if len(sorted_values)
        else sorted_values
    )


def _rank(grouped: Ints) -> Ints:
    """Each element's place within its run of equal values."""
    place = np.arange(len(grouped))
    if not len(grouped):
        return place
    first = np.r_[True, grouped[1:] != grouped[:-1]]
    return place - np.maximum.accumulate(np.where(first, place, 0))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014): neighbouring inputs give unrelated outputs."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


@lru_cache(maxsize=65536)
def _shuffled(count: int, seed: int) -> Ints:
    """The published evaluation's order of a problem's branches."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return np.array(order, np.int64)


def _orders(index: Index, problems: Ints, seeds: Sequence[int]) -> tuple[Ints, Ints]:
    """The order of every episode's root branches, concatenated, and where each episode's and arm's begins."""
    at = np.zeros((len(problems), index.arms), np.int64)
    parts: list[Ints] = []
    known: dict[tuple[int, int], int] = {}
    total = 0
    pool = index.pool[problems]
    for arm in range(index.arms):
        for episode, (count, seed) in enumerate(zip(pool[:, arm].tolist(), seeds, strict=True)):
            key = count, int(seed)
            if key not in known:
                known[key] = total
                parts.append(_shuffled(*key))
                total += count
            at[episode, arm] = known[key]
    return (np.concatenate(parts) if parts else np.zeros(0, np.int64)), at
