"""Is one controller better than another, on the problems that both have run?

Both controllers are frontiers: per beta (and setting) the accuracy and the tokens, each averaged over
problems, then over stores. Two questions are asked of them, in the manner of Bjøntegaard's deltas between
rate-distortion curves (VCEG-M33, 2001), with straight lines in log tokens between non-dominated points: how
much more accurate is one at equal cost, and how much cheaper at equal accuracy, each averaged over the range
that both cover.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import polars as pl

from env.errors import UserError
from env.frontier import Points, interpolate
from env.statistics import COST, EFFECT, MIN_PROBLEMS, Estimate, Floats, Panel, cost_columns

# Places along the common range at which two frontiers are held against each other.
STEPS = 33


class ComparisonError(UserError):
    """Two evaluations cannot be compared: other problems, other protocols, nothing in common."""


class Verdict(StrEnum):
    """What the data say of the first controller against the second."""

    BETTER = "better"
    """At equal cost its accuracy is higher: the whole interval lies above 0."""
    WORSE = "worse"
    """At equal cost its accuracy is lower: the whole interval lies below 0."""
    NO_WORSE = "no worse"
    """At equal cost its accuracy is not lower by the margin: the whole interval lies above -margin."""
    CHEAPER = "cheaper"
    """At equal accuracy it needs fewer tokens: the whole interval of the ratio lies below 1."""
    DEARER = "dearer"
    """At equal accuracy it needs more tokens: the whole interval of the ratio lies above 1."""
    UNDECIDED = "the data cannot tell"
    """The interval leaves both possible, or fewer problems are in play than could decide anything."""


class Answer(NamedTuple):
    """One question's verdict; where it is undecided, about how many problems like these would settle it."""

    verdict: Verdict
    problems_needed: int | None


@dataclass(frozen=True)
class Comparison:
    """Two controllers, paired by problem.

    Attributes:
        a: the first controller's name.
        b: the second's.
        stores: how many stores both ran on.
        problems: distinct questions that both ran.
        in_play: those that are neither always nor never solved in all their rows.
        margin: the loss of accuracy (0..1) that still counts as no worse.
        cost: what is held equal, "tokens" or another cost that was measured.
        accuracy: accuracy of a minus that of b at equal cost (0..1), the mean over `budgets`.
        budgets: tokens (or that cost) per problem, the range that both frontiers cover. Where the ranges do
            not meet, the cheapest budget that affords both.
        tokens: tokens (or that cost) of a over those of b at equal accuracy, the geometric mean over
            `accuracies`.
        sequential: the same for sequential tokens, the latency.
        accuracies: the range that both frontiers cover; where they do not meet, the most that both reach.
    """

    a: str
    b: str
    stores: int
    problems: int
    in_play: int
    margin: float
    cost: str
    accuracy: Estimate
    budgets: tuple[float, float]
    tokens: Estimate
    sequential: Estimate
    accuracies: tuple[float, float]

    def at_equal_cost(self) -> Answer:
        """Is a more accurate at the same cost, or at least no worse?"""
        low, high = self._decisive(self.accuracy)
        if low > 0:
            return Answer(Verdict.BETTER, None)
        if high < 0:
            return Answer(Verdict.WORSE, None)
        if low > -self.margin:
            return Answer(Verdict.NO_WORSE, None)
        value, error = self.accuracy.value, self.accuracy.error
        needs = [self._needed(value, error), self._needed(max(value + self.margin, 0.0), error)]
        return Answer(Verdict.UNDECIDED, min((need for need in needs if need), default=None))

    def at_equal_accuracy(self) -> Answer:
        """Does a cost less for the same accuracy?"""
        low, high = self._decisive(self.tokens)
        if high < 1:
            return Answer(Verdict.CHEAPER, None)
        if low > 1:
            return Answer(Verdict.DEARER, None)
        # Of the logarithm, by the delta method.
        error = self.tokens.error / self.tokens.value
        return Answer(Verdict.UNDECIDED, self._needed(math.log(self.tokens.value), error))

    def _decisive(self, estimate: Estimate) -> tuple[float, float]:
        undecided = estimate.interval is None or self.in_play < MIN_PROBLEMS
        return (-math.inf, math.inf) if undecided or estimate.interval is None else estimate.interval

    def _needed(self, effect: float, error: float) -> int | None:
        """Problems for 80% power at 5% two-sided, the standard error shrinking with their square root."""
        if effect == 0 or error == 0:
            return None
        return max(math.ceil(self.problems * (EFFECT * error / effect) ** 2), self.problems + 1)


def compare(
    a: pl.DataFrame,
    b: pl.DataFrame,
    *,
    margin: float = 0.01,
    cost: str = "tokens",
    rng: np.random.Generator | int = 0,
) -> Comparison:
    """Hold two controllers against each other on the (store, problem) pairs that both have run.

    Args:
        a: episodes of one controller, any betas and settings: they are the points of its frontier.
        b: those of the other.
        margin: the loss of accuracy (0..1) that still counts as no worse.
        cost: what to hold equal: "tokens", or a cost that both were evaluated with.
        rng: the generator of the resamples, or its seed.

    Raises:
        ComparisonError: they share no problem, were evaluated under different protocols, or without `cost`.
    """
    names = [_only(frame, "controller") for frame in (a, b)]
    protocols = [_only(frame, "protocol") for frame in (a, b)]
    if protocols[0] != protocols[1]:
        raise ComparisonError(
            f"{names[0]} was evaluated under the {protocols[0]} protocol, {names[1]} under the {protocols[1]}"
            " one: their tokens mean different things. Evaluate both under one --protocol."
        )
    column = cost if cost == "tokens" else f"{COST}{cost}"
    if missing := [name for name, side in zip(names, (a, b), strict=True) if column not in side.columns]:
        raise ComparisonError(
            f"{missing[0]} was evaluated without --cost {cost}; evaluate it again with that."
        )
    pair = ["store", "problem"]
    frame = pl.concat(
        [
            # Two versions of one controller often share their name.
            _without_other_costs(mine, column)
            .join(other.select(pair).unique(), on=pair, how="semi")
            .with_columns(controller=pl.lit(label))
            for mine, other, label in ((a, b, "a"), (b, a, "b"))
        ]
    )
    if frame.is_empty():
        raise ComparisonError(
            f"{names[0]} and {names[1]} have no problem of any store in common: {names[0]} ran on "
            f"{_stores(a)}, {names[1]} on {_stores(b)}. Evaluate both on the same stores."
        )
    panel = Panel.of(frame)
    points = Points.of(panel, np.random.default_rng(rng), column)
    sides = [points.of_controller(label) for label in ("a", "b")]
    for side, name in zip(sides, names, strict=True):
        if not side.points:
            raise ComparisonError(
                f"no beta of {name} was evaluated on all of {', '.join(panel.stores)}; evaluate one on all."
            )
    of_a, of_b = (side.frontier() for side in sides)
    share = np.linspace(0.0, 1.0, STEPS)

    low = np.maximum(of_a.tokens[:, :1], of_b.tokens[:, :1])
    high = np.maximum(low, np.minimum(of_a.tokens[:, -1:], of_b.tokens[:, -1:]))
    at = low + (high - low) * share
    gain = interpolate(of_a.tokens, of_a.accuracy, at) - interpolate(of_b.tokens, of_b.accuracy, at)
    budgets = math.exp(low[0, 0]), math.exp(high[0, 0])

    high = np.minimum(of_a.accuracy[:, -1:], of_b.accuracy[:, -1:])
    low = np.minimum(high, np.maximum(of_a.accuracy[:, :1], of_b.accuracy[:, :1]))
    at = low + (high - low) * share
    tokens, sequential = (
        interpolate(of_a.accuracy, ours, at) - interpolate(of_b.accuracy, theirs, at)
        for ours, theirs in ((of_a.tokens, of_b.tokens), (of_a.sequential, of_b.sequential))
    )

    def estimate(differences: Floats) -> Estimate:
        means: Floats = np.atleast_1d(np.trapezoid(differences, share, axis=-1))
        return Estimate.of(means, len(panel.problems))

    return Comparison(
        a=names[0],
        b=names[1],
        stores=len(panel.stores),
        problems=len(panel.problems),
        in_play=int(panel.in_play().any(axis=1).sum()),
        margin=margin,
        cost=cost,
        accuracy=estimate(gain),
        budgets=budgets,
        tokens=estimate(tokens).exp(),
        sequential=estimate(sequential).exp(),
        accuracies=(float(low[0, 0]), float(high[0, 0])),
    )


def _without_other_costs(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """One side may have been measured by more costs than the other."""
    return frame.drop([name for name in cost_columns(frame) if name != column])


def _only(frame: pl.DataFrame, column: str) -> str:
    values = frame[column].unique().sort().to_list()
    if len(values) != 1:
        raise ComparisonError(
            f"expected episodes of one {column} on each side of a comparison, got"
            f" {', '.join(values) or 'no episodes at all'}; compare them two by two."
        )
    return str(values[0])


def _stores(frame: pl.DataFrame) -> str:
    return ", ".join(frame["store"].unique().sort())
