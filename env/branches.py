"""Where every branch of every episode stands, and how branches open and move through the trees."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.episode import ENDS, UNASKED
from env.index import Index, Ints
from env.order import Order, rank

LIVE, EXHAUSTED, PRUNED = (ENDS.index(why) for why in (None, "exhausted", "pruned"))
TO_THE_END = 1 << 40


class Branches:
    """The branches of E episodes, as flat arrays; branch b of episode e is in slot `e * capacity + b`.

    Attributes:
        opened: int64[E], branches so far.
        node: int64[slots], the node that each stands at.
        asked_at: int64[slots], the node at which it was last probed, -1 = nowhere.
        state: uint8[slots], LIVE, EXHAUSTED or PRUNED; how a path ended by itself is its node's to say.
        told: int64[slots], the answer code that its controller knows, UNASKED for none.
        scored: int64[slots], tokens of its path that the PRM has seen; empty where the store has no scores.
    """

    def __init__(self, index: Index, problems: Ints, order: Order, max_branches: Ints) -> None:
        self.index = index
        self.capacity = int(max_branches.max(initial=1))
        self.opened = np.zeros(len(problems), np.int64)
        slots = len(problems) * self.capacity
        self.node = np.zeros(slots, np.int64)
        self.asked_at = np.full(slots, -1, np.int64)
        self.state = np.zeros(slots, np.uint8)
        self.told = np.full(slots, UNASKED, np.int64)
        self.scored = np.zeros(slots if index.forest.prm is not None else 0, np.int64)
        self._served = np.zeros(slots if index.has_forks else 0, np.int64)
        self._ticket = np.zeros(slots, np.int64)
        self._rooted = np.zeros((len(problems), index.arms), np.int64)
        self._pool = index.pool[problems]
        self._max_branches = max_branches
        self._order = order
        self._any_stopped = False

    def slot(self, episode: Ints, branch: Ints) -> Ints:
        """Where the arrays hold a branch."""
        return episode * self.capacity + branch

    def known(self, episode: Ints, branch: Ints) -> NDArray[np.bool_]:
        """Whether an episode has opened a branch of that id."""
        known: NDArray[np.bool_] = (branch >= 0) & (branch < self.opened[episode])
        return known

    def repeated(self, slot: Ints) -> NDArray[np.bool_]:
        """Which of these slots are named again later."""
        ticket = np.arange(len(slot))
        self._ticket[slot] = ticket
        repeated: NDArray[np.bool_] = self._ticket[slot] != ticket
        return repeated

    def ends(self, slot: Ints, node: Ints) -> NDArray[np.uint8]:
        """Why each branch ended, standing at its node; LIVE where it has not."""
        end = self.index.end[node]
        if self._any_stopped:
            state = self.state[slot]
            end = np.where(state == LIVE, end, state)
        return end

    def tell(self, slot: Ints, code: Ints, end: NDArray[np.uint8]) -> Ints:
        """Which of these rows are news to a controller; it is told of them."""
        told = self.told[slot]
        code = np.where(code == UNASKED, told, code)
        self.told[slot] = code
        return np.flatnonzero((code != told) | (end != LIVE))

    def forks_left(self, slot: Ints) -> Ints:
        """Children of each branch's node that no branch has taken."""
        return self.index.child_count[self.node[slot]] - self._served[slot]

    def open_roots(self, episode: Ints, arm: Ints, wanted: Ints) -> Ints:
        """Open new branches at the root, for each episode at most once; returns how many each one got."""
        room = self._max_branches[episode] - self._rooted[episode].sum(axis=1)
        left = np.minimum(room, self._pool[episode, arm] - self._rooted[episode, arm])
        got = np.minimum(wanted, np.maximum(left, 0))
        which = np.repeat(np.arange(len(got)), got)
        nth = rank(which)
        owner = episode[which]
        nodes = self._order.root(owner, arm[which], self._rooted[owner, arm[which]] + nth)
        self._rooted[episode, arm] += got
        self._admit(episode, got, owner, nth, nodes)
        return got

    def open_forks(self, episode: Ints, parent: Ints, wanted: Ints) -> Ints:
        """Open new branches from branches, for each episode at most once; returns how many each one got."""
        slot = self.slot(episode, parent)
        left = np.where(self.state[slot] == PRUNED, 0, self.forks_left(slot))
        got = np.minimum(wanted, np.maximum(left, 0))
        which = np.repeat(np.arange(len(got)), got)
        nth = rank(which)
        owner = episode[which]
        nodes = self._order.child(owner, self.node[slot][which], self._served[slot][which] + nth)
        self._served[slot] += got
        born = self._admit(episode, got, owner, nth, nodes)
        if len(self.scored):
            self.scored[born] = self.scored[self.slot(episode, parent)[which]]
        return got

    def advance(self, episode: Ints, slot: Ints, steps: Ints) -> tuple[Ints, Ints, Ints]:
        """Move branches down their paths, `steps` segments each, as far as the store goes.

        Returns:
            The node each stood at, the node it stands at now, and the episodes (one entry a branch) whose
            branch had to stop because the store holds no continuation.
        """
        if self._any_stopped:
            steps = np.where(self.state[slot] == PRUNED, 0, steps)
        before = self.node[slot]
        stuck: Ints = np.zeros(0, np.int64)
        if self.index.has_forks:
            node, stuck = self._walk(episode, slot, before, steps)
        else:
            node = np.minimum(before + steps, self.index.tail[before])
            if self.index.has_open_leaves:
                short = (before + steps > node) & (self.index.end[node] == LIVE)
                stuck = self._exhaust(slot[short], episode[short])
        self.node[slot] = node
        return before, node, stuck

    def prune(self, slot: Ints) -> None:
        """Give branches up."""
        self._any_stopped = True
        self.state[slot] = np.where(self.state[slot] == LIVE, PRUNED, self.state[slot])

    def _admit(self, episode: Ints, got: Ints, owner: Ints, nth: Ints, nodes: Ints) -> Ints:
        self._grow(int((self.opened[episode] + got).max(initial=0)))
        born = self.slot(owner, self.opened[owner] + nth)
        self.node[born] = nodes
        self.opened[episode] += got
        return born

    def _walk(self, episode: Ints, slot: Ints, node: Ints, steps: Ints) -> tuple[Ints, Ints]:
        """`advance` where paths fork: a branch takes its node's next unserved child."""
        index, node, left = self.index, node.copy(), steps.copy()
        stuck: list[Ints] = [np.zeros(0, np.int64)]
        moving = np.flatnonzero((left > 0) & (self.state[slot] == LIVE))
        while len(moving):
            here, at = node[moving], slot[moving]
            free = index.child_count[here] - self._served[at]
            short = (free <= 0) & (index.end[here] == LIVE)
            stuck.append(self._exhaust(at[short], episode[moving[short]]))
            moving, here, at = moving[free > 0], here[free > 0], at[free > 0]
            run = np.where(self._served[at] == 0, np.minimum(index.tail[here] - here, left[moving]), 0)
            child = self._order.child(episode[moving], here, self._served[at])
            node[moving] = np.where(run > 0, here + run, child)
            left[moving] -= np.maximum(run, 1)
            self._served[at] = 0
            moving = moving[left[moving] > 0]
        return node, np.concatenate(stuck)

    def _exhaust(self, slot: Ints, episode: Ints) -> Ints:
        if not len(slot):
            return episode
        self._any_stopped = True
        first = self.state[slot] == LIVE
        self.state[slot[first]] = EXHAUSTED
        return episode[first]

    def _grow(self, needed: int) -> None:
        """Room for more branches an episode; only forks can need it."""
        if needed <= self.capacity:
            return
        episodes, old, new = len(self.opened), self.capacity, max(needed, 2 * self.capacity)

        def widen(values: NDArray[Any], fill: int = 0) -> NDArray[Any]:
            if not len(values):
                return values
            grown = np.full((episodes, new), fill, values.dtype)
            grown[:, :old] = values.reshape(episodes, old)
            return grown.ravel()

        self.node, self.state, self._ticket = widen(self.node), widen(self.state), widen(self._ticket)
        self.asked_at, self.scored = widen(self.asked_at, -1), widen(self.scored)
        self.told = widen(self.told, UNASKED)
        self._served = widen(self._served)
        self.capacity = new
