"""A forest laid out for replay: depth-first, so that a path without forks is a run of consecutive nodes.

`Index.build` applies one of the two accounting rules (DESIGN: "Order, cost, and parity"):

standard    a segment costs the tokens decoded in it, a probe its recorded or assumed cost; answers are
            classes.
published   the released evaluator's: every probed segment costs the probe interval, an ending call the rest,
            probes are free, answers are raw strings. Only for stores of independent chains.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from env import stand as at
from env.errors import UserError
from env.forest import NOT_PARSED, NOT_PROBED, Forest
from env.stand import Ints, Trees

PROTOCOLS = ("standard", "published")


@dataclass(frozen=True, eq=False)
class Index:
    """Flat arrays over N nodes in depth-first order, grouped by problem; see `Forest` for what they hold.

    Attributes:
        parent: int64[N], -1 at the root.
        depth: int32[N], 1 for a root branch's first segment.
        cost: int64[N], tokens decoded from the root to the end of this node.
        answer: int64[N], answer id within the problem, -1 nothing parsed, -2 not asked.
        probe_cost: int64[N], tokens that asking here costs.
        end: uint8[N].
        tail: int64[N], where the run of single children from here ends.
        child_count: int64[N]; those of v are `children[first_child[v]:first_child[v] + child_count[v]]`.
        roots: the root nodes, by problem and arm; those of arm a of problem p start at
            `first_root[p * arms + a]` and are in stored order.
        correct: bool[C], by problem: answer id c of problem p is right where `correct[first_answer[p] + c]`.
        whole: int64[N] or None; under the published rule, what a branch costs that is finished unprobed.
    """

    forest: Forest
    protocol: str
    arms: int
    order: Ints
    parent: Ints
    depth: NDArray[np.int32]
    cost: Ints
    answer: Ints
    probe_cost: Ints
    end: NDArray[np.uint8]
    tail: Ints
    child_count: Ints
    first_child: Ints
    children: Ints
    roots: Ints
    first_root: Ints
    correct: NDArray[np.bool_]
    first_answer: Ints
    whole: Ints | None = None

    @classmethod
    def build(cls, forest: Forest, protocol: str = "standard", probe_tokens: int = 20) -> "Index":
        """Lay out `forest` under one accounting rule.

        Args:
            probe_tokens: what a probe costs where the store does not know (tokens).

        Raises:
            UserError: an unknown protocol, or the published one on a store that it does not define.
        """
        if protocol not in PROTOCOLS:
            raise UserError(f"no protocol {protocol!r}: choose {' or '.join(PROTOCOLS)}")
        forest = _without_gaps(forest)
        if protocol == "published":
            return _published(_lay_out(forest, np.zeros(len(forest.parent), np.int64)))
        known = forest.probe_tokens.astype(np.int64)
        return _lay_out(forest, np.where(known < 0, probe_tokens, known))

    @cached_property
    def trees(self) -> Trees:
        """The same for the engine, which looks at nothing twice.

        Raises:
            UserError: the store is damaged in a way that its checksums do not show.
        """
        problem = np.searchsorted(self.forest.first_node, self.order, "right") - 1
        within = self.parent < 0
        within |= problem[self.parent] == problem
        if not within.all():
            raise UserError("this store is damaged: a node's parent is of another problem; make it again")
        if ((self.answer < NOT_PROBED) | (self.answer >= np.diff(self.first_answer)[problem])).any():
            raise UserError("this store is damaged: a node's answer is none of its problem's; make it again")
        if max(self.cost.max(initial=0), self.probe_cost.max(initial=0)) >= 2**31:
            raise UserError("this store has paths or probes of more than 2**31 tokens: is their unit right?")
        nodes = np.zeros((len(self.parent), at.OF_NODE), np.int32)
        links = np.zeros((len(self.parent), at.OF_LINKS), np.int32)
        for table, column, values in (
            (nodes, at.COST, self.cost),
            (nodes, at.ANSWER, self.answer),
            (nodes, at.PROBE_COST, self.probe_cost),
            (nodes, at.END, self.end),
            (links, at.PARENT, self.parent),
            (links, at.DEPTH, self.depth),
            (links, at.TAIL, self.tail),
            (links, at.CHILD_COUNT, self.child_count),
            (links, at.FIRST_CHILD, self.first_child),
            (links, at.LOCAL, self.local if self.has_forks else 0),
            (links, at.WHOLE, -1 if self.whole is None else self.whole),
        ):
            table[:, column] = values
        return Trees(
            nodes=nodes,
            links=links,
            children=self.children.astype(np.int32),
            roots=self.roots.astype(np.int32),
            has_forks=self.has_forks,
            has_probes=self.has_probes,
            has_prm=self.forest.prm is not None,
        )

    @cached_property
    def has_forks(self) -> bool:
        """Whether any node has more than one child."""
        return bool(len(self.child_count) and self.child_count.max() > 1)

    @cached_property
    def has_probes(self) -> bool:
        """Whether branches can be asked before their end (vacuously so where none has a before)."""
        inner = self.end == 0
        return not inner.any() or bool((self.answer[inner] != NOT_PROBED).any())

    @cached_property
    def has_silent_nodes(self) -> bool:
        """Whether some node, not the end of its path, was never asked."""
        return bool(((self.end == 0) & (self.answer == NOT_PROBED)).any())

    @cached_property
    def pool(self) -> Ints:
        """int64[P, arms]: root branches of each problem and arm."""
        return np.diff(self.first_root).reshape(-1, self.arms)

    @cached_property
    def ceilings(self) -> Ints:
        """int64[P]: branches that an episode may open at the root: half of the problem's, published all."""
        pool = self.pool.sum(axis=1)
        return pool if self.protocol == "published" else np.maximum(1, pool // 2)

    @cached_property
    def local(self) -> Ints:
        """int64[N]: a node's place within its problem as stored, which seeds the order of its siblings."""
        problem = np.searchsorted(self.forest.first_node, np.arange(len(self.order)), "right") - 1
        return self.order - self.forest.first_node[problem]

    @cached_property
    def path_scores(self) -> Ints:
        """int64[N]: PRM scores on the path from the root through each node."""
        assert self.forest.prm_first is not None
        counts = np.diff(self.forest.prm_first)[self.order]
        return along_paths(counts, self.parent, self.depth)


def along_paths(values: Ints, parent: Ints, depth: NDArray[np.int32]) -> Ints:
    """int64[N], the sum of some values[N] on the path from the root through each node; nodes depth-first."""
    total = values.astype(np.int64)
    below = np.flatnonzero(parent >= 0)
    if not len(below):
        return total
    if (parent[below] == below - 1).all():
        running = np.cumsum(total)
        starts = np.flatnonzero(parent < 0)
        before = running[starts] - total[starts]
        return running - np.repeat(before, np.diff(np.append(starts, len(total))))
    for nodes in _by_depth(depth)[1:]:
        total[nodes] += total[parent[nodes]]
    return total


def _by_depth(depth: NDArray[np.int32]) -> list[Ints]:
    order = np.argsort(depth, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(depth[order])) + 1)


def _depths(parent: Ints) -> NDArray[np.int32]:
    depth = np.ones(len(parent), np.int32)
    above = parent.copy()
    while (up := np.flatnonzero(above >= 0)).size:
        if (above[up] == up - 1).all():
            starts = np.flatnonzero(above < 0)
            run = np.arange(len(parent)) - np.repeat(starts, np.diff(np.append(starts, len(parent))))
            return (depth + run).astype(np.int32)
        depth[up] += 1
        above[up] = parent[above[up]]
    return depth


def _preorder(parent: Ints, depth: NDArray[np.int32]) -> Ints:
    """The stored nodes in depth-first order; siblings keep their stored order."""
    size = np.ones(len(parent), np.int64)
    levels = _by_depth(depth)
    for nodes in reversed(levels[1:]):
        np.add.at(size, parent[nodes], size[nodes])
    place = np.zeros(len(parent), np.int64)
    for nodes in levels:
        siblings = nodes[np.argsort(parent[nodes], kind="stable")]
        before = np.cumsum(size[siblings]) - size[siblings]
        up = parent[siblings]
        first = np.r_[True, up[1:] != up[:-1]]
        group = np.maximum.accumulate(np.where(first, np.arange(len(up)), 0))
        base = np.where(up >= 0, place[up] + 1, 0)
        place[siblings] = base + before - before[group]
    order = np.empty(len(parent), np.int64)
    order[place] = np.arange(len(parent))
    return order


def _without_gaps(forest: Forest) -> Forest:
    """The same without the steps that lie beyond what the reward model could read: they have no score."""
    if forest.prm is None or forest.prm_first is None or not np.isnan(forest.prm).any():
        return forest
    known = ~np.isnan(forest.prm)
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(known)])
    return replace(forest, prm=forest.prm[known], prm_first=before[forest.prm_first])


def _lay_out(forest: Forest, probe_cost: Ints) -> Index:
    parent = forest.parent.astype(np.int64)
    nodes = np.arange(len(parent))
    depth = _depths(parent)
    order = nodes
    inner = parent >= 0
    if not (parent[inner] == nodes[inner] - 1).all():
        order = _preorder(parent, depth)
        place = np.empty_like(order)
        place[order] = nodes
        parent = parent[order]
        parent = np.where(parent >= 0, place[parent], -1)
        depth = depth[order]
    child_count = np.bincount(parent[parent >= 0], minlength=len(parent)).astype(np.int64)
    has_parent = np.flatnonzero(parent >= 0)
    children = has_parent[np.argsort(parent[has_parent], kind="stable")]
    first_child = np.cumsum(child_count) - child_count
    runs_on = child_count == 1
    stops = np.where(runs_on, len(parent), nodes)
    tail = np.minimum.accumulate(stops[::-1])[::-1]
    arms = int(forest.arm.max(initial=0)) + 1
    roots = np.flatnonzero(parent < 0)
    problem = np.searchsorted(forest.first_node, roots, "right") - 1
    group = problem * arms + forest.arm[order][roots]
    roots = roots[np.argsort(group, kind="stable")]
    first_root = np.r_[0, np.cumsum(np.bincount(group, minlength=len(forest) * arms))].astype(np.int64)
    return Index(
        forest=forest,
        protocol="standard",
        arms=arms,
        order=order,
        parent=parent,
        depth=depth,
        cost=along_paths(forest.tokens[order].astype(np.int64), parent, depth),
        answer=forest.answer[order].astype(np.int64),
        probe_cost=probe_cost[order],
        end=forest.end[order],
        tail=tail,
        child_count=child_count,
        first_child=first_child,
        children=children,
        roots=roots,
        first_root=first_root,
        correct=forest.class_correct,
        first_answer=forest.class_first,
    )


def _published(index: Index) -> Index:
    """The same chains in the released evaluator's rows: n of the probe interval, then a call that ends."""
    # It has no verifier; and the scores of a node that stands for two rows would be shown twice.
    forest = replace(index.forest, prm=None, prm_first=None)
    interval = forest.segment_tokens
    if index.has_forks or interval is None:
        what = "trees" if index.has_forks else "no fixed probe interval"
        raise UserError(f"this store has {what}, which --protocol published does not define: use standard")
    rows = index.depth[index.tail[index.roots]].astype(np.int64)
    last = index.tail[index.roots]
    length = index.cost[last]
    # An end at or before the last probe was folded into that probe's row when the store was made.
    folded = forest.probed[index.order[last]]
    rows += folded
    total = int(rows.sum())
    start = np.cumsum(rows) - rows
    chain = np.repeat(np.arange(len(rows)), rows)
    step = np.arange(total) - start[chain]
    ends = step == rows[chain] - 1
    source = index.roots[chain] + np.minimum(step, (rows - 1 - folded)[chain])
    is_error = np.asarray(pc.fill_null(pc.equal(forest.raw_strings, "ERR"), False))
    problem_of = np.searchsorted(forest.first_node, source, "right") - 1
    stored = index.order[source]
    raw = forest.raw[stored].astype(np.int64)
    known = raw >= 0
    raw[known] = np.where(is_error[(forest.raw_first[problem_of] + raw)[known]], NOT_PARSED, raw[known])
    probed = (rows - 1)[chain] * interval
    nodes = np.arange(total)
    return replace(
        index,
        forest=forest,
        protocol="published",
        order=stored,
        parent=np.where(step == 0, -1, nodes - 1),
        depth=(step + 1).astype(np.int32),
        cost=np.where(ends, probed + np.maximum(0, length[chain] - probed), (step + 1) * interval),
        answer=raw,
        probe_cost=np.zeros(total, np.int64),
        end=np.where(ends, index.end[last][chain], 0).astype(np.uint8),
        tail=(start + rows - 1)[chain],
        child_count=(~ends).astype(np.int64),
        first_child=np.cumsum(~ends) - ~ends,
        children=nodes[step > 0],
        roots=start,
        correct=forest.raw_correct,
        first_answer=forest.raw_first,
        whole=length[chain],
    )
