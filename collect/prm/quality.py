"""How well step scores tell branches that end right from those that end wrong: areas under ROC curves.

An area is the chance that a step of a branch that ends right scores higher than a step of one that ends
wrong, ties counting half (Mann and Whitney's U with midranks). 0.5 is a coin.

Depth is absolute: the number of the step on its path, in ranges that double (1, 2, 3-4, 5-8, ...). That is
what a controller knows when it must choose; how far along a branch is, it learns when the branch has ended.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from env.forest import END_NONE, Forest
from env.index import Index, along_paths
from env.order import rank

NEAR_CHANCE = 0.55

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve over some steps.

    Attributes:
        overall: over all pairs of a step of a right and a step of a wrong branch; NaN where there are none.
        within: over the pairs within a problem, all problems' pairs together. It alone says whether scores
            help to choose between branches: telling easy problems from hard ones helps `overall` only.
        steps: how many steps it is over.
    """

    overall: float
    within: float
    steps: int


@dataclass(frozen=True)
class Quality:
    """How far a store's step scores can be trusted.

    Attributes:
        all: over all steps.
        by_depth: (first, last) number of a step on its path, and the area over those; where both kinds of
            branches have any.
        problems: problems with branches of both kinds, from which `within` is.
        unscored: steps without a score.
    """

    all: Area
    by_depth: list[tuple[tuple[int, int], Area]]
    problems: int
    unscored: int

    @property
    def warning(self) -> str | None:
        """What to tell a user whose scores are little better than chance, None if they are."""
        for name, area in (("", self.all.overall), (" within a problem", self.all.within)):
            if area < NEAR_CHANCE:
                return (
                    f"the step scores hardly tell right branches from wrong ones{name}: the area under the "
                    f"ROC curve is {area:.3f}, chance is 0.5; check --prm-kind and the step separator, or "
                    "use another PRM"
                )
        return None

    def lines(self) -> list[str]:
        """The figures as a small table, a line each."""
        rows = [("all", self.all), *((_range(ends), area) for ends, area in self.by_depth)]
        table = [f"{name:>9}  {a.overall:>7.3f}  {a.within:>14.3f}  {a.steps:>8}" for name, a in rows]
        return [f"{'step':>9}  {'ROC AUC':>7}  {'within problem':>14}  {'steps':>8}", *table]


def measure(forest: Forest) -> Quality:
    """Holds step scores against whether the branch ended right.

    A step that several branches share counts once for each of them that ended; branches that did not end have
    no answer and count nowhere.

    Args:
        forest: of a store with PRM scores.

    Raises:
        ValueError: it has no scores.
    """
    if forest.prm is None or forest.prm_first is None:
        raise ValueError("the store has no PRM scores")
    index = Index.build(forest)
    right, wrong = _branches_through(index)
    counts = np.diff(forest.prm_first)[index.order]
    node = np.repeat(np.arange(len(counts)), counts)
    nth = rank(node)
    score = forest.prm[forest.prm_first[index.order][node] + nth].astype(np.float64)
    # Steps without a score count here, which replay leaves out.
    step = (along_paths(counts, index.parent, index.depth) - counts)[node] + nth + 1
    problem = np.searchsorted(forest.first_node, index.order[node], "right") - 1
    known = ~np.isnan(score)
    used = known & (right[node] + wrong[node] > 0)
    score, step, problem, node = (values[used] for values in (score, step, problem, node))
    for_right, for_wrong = right[node], wrong[node]
    total = _area(problem, score, for_right, for_wrong)
    by_depth = []
    first = last = 1
    while len(step) and first <= step.max():
        here = (step >= first) & (step <= last)
        area = _area(problem[here], score[here], for_right[here], for_wrong[here])
        if not np.isnan(area.overall):
            by_depth.append(((first, last), area))
        first, last = last + 1, 2 * last
    both = np.bincount(problem, for_right) * np.bincount(problem, for_wrong) > 0
    return Quality(total, by_depth, int(both.sum()), int((~known).sum()))


def _branches_through(index: Index) -> tuple[Floats, Floats]:
    """For each node how many branches through it ended right and how many wrong."""
    ended = index.end != END_NONE
    problem = np.searchsorted(index.forest.first_node, index.order, "right") - 1
    is_right = np.zeros(len(ended), np.bool_)
    parsed = ended & (index.answer >= 0)
    is_right[parsed] = index.correct[index.first_answer[problem[parsed]] + index.answer[parsed]]
    right, wrong = is_right.astype(np.float64), (ended & ~is_right).astype(np.float64)
    deepest = np.argsort(-index.depth, kind="stable")
    levels = np.split(deepest, np.flatnonzero(np.diff(index.depth[deepest])) + 1)
    for nodes in levels[:-1]:
        np.add.at(right, index.parent[nodes], right[nodes])
        np.add.at(wrong, index.parent[nodes], wrong[nodes])
    return right, wrong


def _area(problem: Ints, score: Floats, right: Floats, wrong: Floats) -> Area:
    overall = _share(*_pairs(np.zeros_like(problem), score, right, wrong))
    return Area(overall, _share(*_pairs(problem, score, right, wrong)), len(score))


def _pairs(group: Ints, score: Floats, right: Floats, wrong: Floats) -> tuple[float, float]:
    """Pairs of a right and a wrong one within a group: those in order, a tie counting half, and all."""
    if not len(score):
        return 0.0, 0.0
    order = np.lexsort((score, group))
    group, score, right, wrong = group[order], score[order], right[order], wrong[order]
    new_group = np.r_[True, group[1:] != group[:-1]]
    tied = np.flatnonzero(new_group | np.r_[True, score[1:] != score[:-1]])
    right, wrong = np.add.reduceat(right, tied), np.add.reduceat(wrong, tied)
    before = np.cumsum(wrong) - wrong
    starts = np.flatnonzero(new_group[tied])
    sizes = np.diff(np.r_[starts, len(tied)])
    below = before - np.repeat(before[starts], sizes)
    in_order = float((right * (below + wrong / 2)).sum())
    return in_order, float((np.add.reduceat(right, starts) * np.add.reduceat(wrong, starts)).sum())


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _range(ends: tuple[int, int]) -> str:
    first, last = ends
    return str(first) if first == last else f"{first}-{last}"
