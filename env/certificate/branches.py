"""Fresh branches against stored ones: does the model that is served still write what the store has?

Branches of a problem are exchangeable if nothing has changed, whoever drew them: so within each problem it
is permuted which of them are the fresh ones (Pitman 1937), which is exact for however few branches. Where a
change goes one way on all problems, it shows in sums over problems of what single branches score (the test
of Mantel and Haenszel, and for ranks that of van Elteren): pass rate, length, and how typical of its problem
a branch's answers are, as they are more so at a lower temperature. Where each problem changes in a way of its
own, it shows in the squares of the distances between the answers of both kinds (an energy statistic).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from env.forest import Forest
from env.statistics import Floats

Ints = NDArray[np.int64]

PERMUTATIONS = 4999
# What single branches score, and the test of distances besides.
SCORES = ("pass rate", "length", "how typical answers are")
TESTS = (*SCORES, "answers by depth")
TINY = 1e-9


@dataclass(frozen=True)
class Branches:
    """B whole branches of one problem by one model and prompt.

    Attributes:
        correct: bool[B].
        tokens: int64[B].
        answers: for each branch the class of its answer at the end of each segment, -1 = nothing parsed; the
            last is its final answer.
    """

    correct: NDArray[np.bool_]
    tokens: Ints
    answers: Sequence[Sequence[int]]

    def __len__(self) -> int:
        """How many."""
        return len(self.tokens)

    def take(self, places: Ints) -> "Branches":
        """Some of them."""
        return Branches(
            self.correct[places], self.tokens[places], [self.answers[place] for place in places.tolist()]
        )


def stored(forest: Forest, problem: int, arm: int = 0, probed: bool = True) -> Branches:
    """The root branches of a stored problem; where a branch was forked, its own continuation.

    Args:
        forest: of the store.
        problem: its number.
        arm: which model and prompt.
        probed: whether the answers before the end are wanted.
    """
    first, last = forest.first_node[problem : problem + 2].tolist()
    parent = forest.parent[first:last]
    onward: dict[int, int] = {}
    for node in range(last - first - 1, -1, -1):
        onward[int(parent[node]) - first] = node
    correct, tokens, answers = [], [], []
    right = forest.class_correct[forest.class_first[problem] : forest.class_first[problem + 1]]
    for root in np.flatnonzero((parent < 0) & (forest.arm[first:last] == arm)).tolist():
        path = [root]
        while path[-1] in onward:
            path.append(onward[path[-1]])
        nodes = [first + node for node in path]
        said = forest.answer[nodes].tolist()
        correct.append(bool(said[-1] >= 0 and right[said[-1]]))
        tokens.append(int(forest.tokens[nodes].sum()))
        answers.append(said if probed else said[-1:])
    return Branches(np.array(correct, np.bool_), np.array(tokens, np.int64), answers)


def from_row(row: dict[str, Any]) -> Branches:
    """The branches of a row of `env.certificate.fresh.draw`."""
    each = row["branches"]
    return Branches(
        np.array([one["correct"] for one in each], np.bool_),
        np.array([one["tokens"] for one in each], np.int64),
        [one["answers"] for one in each],
    )


def permutations_for(level: float) -> int:
    """Enough for a few of them to lie below a level, without which no test could fail."""
    return max(PERMUTATIONS, math.ceil(3 / level))


def p_values(
    pairs: Sequence[tuple[Branches, Branches]], rng: np.random.Generator, permutations: int
) -> dict[str, float]:
    """How often chance alone would set fresh and stored branches so far apart, for each of `TESTS`.

    Args:
        pairs: fresh and stored branches of each problem.
        rng: decides the permutations.
        permutations: how many.
    """
    sums = np.zeros((len(SCORES), 1 + permutations))
    distances = np.zeros(1 + permutations)
    for fresh, known in pairs:
        count, both = len(fresh), len(fresh) + len(known)
        chosen = np.zeros((1 + permutations, both))
        # The data's own arrangement comes first, and is one of those that were possible.
        chosen[0, :count] = 1
        drawn = rng.random((permutations, both)).argpartition(count - 1)[:, :count]
        np.put_along_axis(chosen[1:], drawn, 1, axis=1)
        alike = _likeness([*fresh.answers, *known.answers])
        lengths = np.concatenate([fresh.tokens, known.tokens])
        # Ranks, since one endless branch must not be all that counts; equal lengths share theirs.
        low, high = (np.searchsorted(np.sort(lengths), lengths, side) for side in ("left", "right"))
        correct = np.concatenate([fresh.correct, known.correct]).astype(np.float64)
        for score, total in zip((correct, (low + high) / 2 / both, alike.mean(0)), sums, strict=True):
            total += chosen @ (score - score.mean())
        middle = alike.mean(0)
        found = ((chosen @ (alike - middle - middle[:, None] + middle.mean())) * chosen).sum(1)
        if (scale := found[1:].mean()) > TINY:
            distances += found / scale
    values = [*np.abs(sums), distances]
    # Rounding must not tell equal values apart.
    return {name: float((each >= each[0] - TINY).mean()) for name, each in zip(TESTS, values, strict=True)}


def _likeness(answers: Sequence[Sequence[int]]) -> Floats:
    """float64[B, B]: at which share of depths two branches say the same."""
    depth = max(map(len, answers))
    # A branch that has ended stays with its answer.
    table = np.array([[*said, *[said[-1]] * (depth - len(said))] for said in answers])
    return np.mean([level[:, None] == level for level in table.T], axis=0, dtype=np.float64)
