"""One episode of `env.replay.Replay` in plain Python.

With a single branch to advance, numpy's calls cost several times the work. The rules are the engine's,
where they are explained; a property test holds the two equal.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.episode import UNASKED, UNPARSED
from env.index import Index
from env.order import shuffled
from env.stand import EXHAUSTED, LIVE, PRUNED, TO_THE_END

NOT_SCORED = -1.0
WORD = (1 << 64) - 1


COLUMNS = (
    "cost tail end depth answer parent child_count first_child children roots first_root correct "
    "first_answer probe_cost whole order"
)


def buffer(values: NDArray[Any] | None) -> Any:
    """An array for reading and writing plain numbers one at a time; None stays None."""
    return None if values is None else memoryview(np.ascontiguousarray(values))  # type: ignore[arg-type]


class Columns(SimpleNamespace):
    """The arrays of an index and of its forest as buffers, for any number of episodes."""

    def __init__(self, index: Index) -> None:
        forest = index.forest
        super().__init__(
            arms=index.arms,
            local=buffer(index.local if index.has_forks else None),
            confidence=buffer(forest.confidence),
            prm=buffer(forest.prm),
            prm_first=buffer(forest.prm_first),
            **{name: buffer(getattr(index, name)) for name in COLUMNS.split()},
        )


class Solo:
    """One episode at its start; branches are numbered as they are opened, and lists are by branch.

    Attributes:
        answer: latest known code; UNASKED = never asked, UNPARSED = nothing parsed.
        end: 0 while it runs, else why it ended, an index of `env.episode.ENDS`.
        tokens: decoded so far.
        depth: segments from the root.
        score: the newest PRM score known on its path, NOT_SCORED = none.
        ledger: decode, probe, PRM and sequential tokens.
        running: branches that have not ended.
        unasked: branches without an end of their own that have moved since they were asked last.
        unscored: branches, not pruned, that have moved since they were scored last.

    An action must be about branches that it changes, as the environment's mask sees to.
    """

    def __init__(self, columns: Columns, problem: int, seed: int) -> None:
        first = problem * columns.arms
        self.columns = columns
        self.seed = seed
        self.node: list[int] = []
        self.answer: list[int] = []
        self.end: list[int] = []
        self.tokens: list[int] = []
        self.depth: list[int] = []
        self.score: list[float] = []
        self.ledger = [0, 0, 0, 0]
        self.running: set[int] = set()
        self.unasked: set[int] = set()
        self.unscored: set[int] = set()
        self._served: list[int] = []
        self._scored: list[int] = []
        self._rooted = [0] * columns.arms
        self._pools = [columns.first_root[first + arm : first + arm + 2] for arm in range(columns.arms)]
        self._meaning: list[int] = []
        self._code: dict[int, int] = {}
        self._first_answer = columns.first_answer[problem]

    def left(self, arm: int) -> int:
        """Root branches of an arm that have not been opened."""
        first, last = self._pools[arm]
        return int(last - first) - self._rooted[arm]

    def children(self, branch: int) -> int:
        """Forks left at a branch's node."""
        return int(self.columns.child_count[self.node[branch]]) - self._served[branch]

    def confidence(self, branch: int) -> float:
        """Of the branch's latest segment, NaN where unknown; only where the store has it."""
        c = self.columns
        return float(c.confidence[c.order[self.node[branch]]])

    @property
    def spent(self) -> int:
        """Decoded, probe and PRM tokens together."""
        return self.ledger[0] + self.ledger[1] + self.ledger[2]

    def open(self, count: int, arm: int = 0) -> range:
        """Open root branches through their first segment, as many as are left; nothing is asked."""
        c = self.columns
        first, last = self._pools[arm]
        start = self._rooted[arm]
        order = shuffled(last - first, self.seed)[start : start + count]
        nodes = [c.roots[first + k] for k in order.tolist()]
        self._rooted[arm] += len(nodes)
        return self._open(nodes, None)

    def fork(self, branch: int) -> range:
        """Open a branch from this branch's node, which has a child left."""
        child = self._child(self.node[branch], self._served[branch])
        self._served[branch] += 1
        return self._open([child], branch)

    def extend(self, branches: Sequence[int], steps: int = 1) -> None:
        """Advance running branches by segments; `TO_THE_END` finishes them."""
        c, decoded, longest = self.columns, 0, 0
        for b in branches:
            before = self.node[b]
            node = before + steps
            if node > c.tail[before] or self._served[b]:
                node = self._walk(b, before, steps)
            tokens = c.cost[node] - c.cost[before]
            if c.whole and steps == TO_THE_END and c.depth[before] == 1 and b in self.unasked:
                tokens = c.whole[node] - min(c.cost[before], c.whole[node])
            if node != before:
                self._arrive(b, node)
                self.tokens[b] += tokens
                decoded += tokens
                if tokens > longest:
                    longest = tokens
        self.ledger[0] += decoded
        self.ledger[3] += longest

    def ask_answer(self, branches: Sequence[int]) -> None:
        """Ask branches of `unasked` what they would answer."""
        costs = [self.columns.probe_cost[self.node[b]] for b in branches]
        for b in branches:
            self._show(b, self.node[b])
        self.unasked.difference_update(branches)
        self.ledger[1] += sum(costs)
        self.ledger[3] += max(costs)

    def ask_score(self, branches: Sequence[int]) -> None:
        """Have branches of `unscored` scored, as far as they have not been (where the store has scores)."""
        for b in branches:
            cost = self.columns.cost[self.node[b]]
            self.ledger[2] += cost - self._scored[b]
            self._scored[b] = cost
            self.score[b] = self._newest_score(self.node[b])
        self.unscored.difference_update(branches)

    def prune(self, branch: int) -> None:
        """Give a running branch up."""
        self.end[branch] = PRUNED
        for branches in (self.running, self.unasked, self.unscored):
            branches.discard(branch)

    def grade(self, code: int) -> bool:
        """Whether a code that was seen in this episode is right."""
        return code >= 0 and bool(self.columns.correct[self._first_answer + self._meaning[code]])

    def _open(self, nodes: Sequence[int], parent: int | None) -> range:
        c, costs = self.columns, [0]
        first = len(self.node)
        for b, node in enumerate(nodes, first):
            above = c.parent[node]
            tokens = c.cost[node] - (c.cost[above] if above >= 0 else 0)
            if c.whole:
                tokens = min(tokens, c.whole[node])
            self.node.append(node)
            self.answer.append(UNASKED)
            self.end.append(LIVE)
            self.tokens.append(tokens)
            self.depth.append(1)
            self.score.append(NOT_SCORED if parent is None else self.score[parent])
            self._scored.append(0 if parent is None else self._scored[parent])
            self._served.append(0)
            self.running.add(b)
            self._arrive(b, node)
            costs.append(tokens)
        self.ledger[0] += sum(costs)
        self.ledger[3] += max(costs)
        return range(first, len(self.node))

    def _walk(self, branch: int, node: int, steps: int) -> int:
        c = self.columns
        while steps > 0:
            if not self._served[branch]:
                run = min(c.tail[node] - node, steps)
                node, steps = node + run, steps - run
                if not steps:
                    break
            if c.child_count[node] <= self._served[branch]:
                if not c.end[node]:
                    self.end[branch] = EXHAUSTED
                    self.running.discard(branch)
                break
            node, steps = self._child(node, self._served[branch]), steps - 1
            self._served[branch] = 0
        return node

    def _child(self, node: int, nth: int) -> int:
        c = self.columns
        first, count = c.first_child[node], c.child_count[node]
        siblings = list(c.children[first : first + count])
        if count > 1:
            key, local = _mix(self.seed & WORD), c.local
            siblings.sort(key=lambda child: _mix(key + local[child] & WORD))
        child: int = siblings[nth]
        return child

    def _arrive(self, branch: int, node: int) -> None:
        end = self.columns.end[node]
        self.node[branch], self.depth[branch] = node, self.columns.depth[node]
        self.unscored.add(branch)
        if end:
            self.end[branch] = end
            self.running.discard(branch)
            self.unasked.discard(branch)
            self._show(branch, node)
        else:
            self.unasked.add(branch)

    def _show(self, branch: int, node: int) -> None:
        answer = self.columns.answer[node]
        if answer >= 0:
            code = self._code.setdefault(answer, len(self._meaning))
            if code == len(self._meaning):
                self._meaning.append(answer)
            self.answer[branch] = code
        elif answer == UNPARSED:
            self.answer[branch] = UNPARSED

    def _newest_score(self, node: int) -> float:
        c = self.columns
        while node >= 0:
            stored = c.order[node]
            if c.prm_first[stored + 1] > c.prm_first[stored]:
                return float(c.prm[c.prm_first[stored + 1] - 1])
            node = c.parent[node]
        return NOT_SCORED


def _mix(value: int) -> int:
    """SplitMix64's finaliser, as the engine orders siblings by it."""
    z = value + 0x9E3779B97F4A7C15 & WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)
