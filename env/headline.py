"""What a controller saves against a baseline, in one sentence with its uncertainty."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from env.comparison import ComparisonError
from env.frontier import Points, pareto
from env.statistics import Estimate, Floats, Panel, Point


@dataclass(frozen=True)
class Headline:
    """What a controller saves at the accuracy of one point of a baseline.

    The controller is taken where its frontier reaches the baseline's accuracy: at one of its points or
    between two neighbours, mixed in log tokens; if it never does, at its best point. That place is fixed on
    the data; the resamples then vary what happens there, so `accuracy` says how well the match holds.

    Attributes:
        controller: its name.
        baseline: the baseline's point, in words.
        accuracy: accuracy of the controller minus that of the baseline (0..1).
        tokens: tokens of the controller over those of the baseline.
        sequential: the same for sequential tokens, the latency.
        in_play: distinct questions which the points compared neither always nor never solve.
    """

    controller: str
    baseline: str
    accuracy: Estimate
    tokens: Estimate
    sequential: Estimate
    in_play: int

    def __str__(self) -> str:
        """One sentence."""
        gap = round(100 * self.accuracy.value, 1)
        apart = f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'} " if gap else ""
        decide = "1 problem decides" if self.in_play == 1 else f"{self.in_play} problems decide"
        return (
            f"{self.controller}: {apart}the accuracy of {self.baseline}"
            f"{_brackets(self.accuracy, '+.1f', ' points')} for {100 * self.tokens.value:.0f}% of its tokens"
            f"{_brackets(self.tokens, '.0f')}, {self.sequential.value:.2g} times its latency; {decide} this"
        )


def headline(
    frame: pl.DataFrame,
    controller: str,
    baseline: str,
    *,
    at: Point | None = None,
    names: Mapping[Point, str] | None = None,
    rng: np.random.Generator | int = 0,
) -> Headline:
    """Say in one sentence what a controller saves against a baseline.

    Args:
        frame: episodes of both, and possibly of others.
        controller: its name.
        baseline: the baseline's name.
        at: the baseline's point to match. None = the dearest one of its frontier whose accuracy the
            controller reaches, or the cheapest one if it reaches none.
        names: what to call a point of the baseline in the sentence, such as "self-consistency at 16".
        rng: the generator of the resamples, or its seed.

    Raises:
        ComparisonError: one of the two has no point that ran on every store of the frame.
    """
    panel = Panel.of(frame.filter(pl.col("controller").is_in([controller, baseline])))
    points = Points.of(panel, np.random.default_rng(rng))
    ours, theirs = points.of_controller(controller), points.of_controller(baseline)
    for found, name in ((ours, controller), (theirs, baseline)):
        if not found.points:
            raise ComparisonError(f"{name} was not evaluated on every store, so nothing can be said of it.")
    if at is None:
        frontier = pareto(theirs.tokens[0], theirs.accuracy[0])
        reached = [k for k in frontier if theirs.accuracy[0, k] <= ours.accuracy[0].max()]
        at = theirs.points[reached[-1] if reached else frontier[0]]
    theirs = theirs.take([theirs.points.index(at)])
    target = theirs.accuracy[0, 0]

    steps = list(dict.fromkeys(pareto(ours.tokens[0], ours.accuracy[0]).tolist()))
    heights = ours.accuracy[0, steps]
    after = min(int(np.searchsorted(heights, target)), len(steps) - 1)
    before = max(after - 1, 0)
    rise = heights[after] - heights[before]
    share = float(np.clip((target - heights[before]) / rise, 0.0, 1.0)) if rise > 0 else 1.0

    def matched(values: Floats) -> Floats:
        mixed: Floats = (1 - share) * values[:, steps[before]] + share * values[:, steps[after]]
        return mixed

    def estimate(mine: Floats, base: Floats) -> Estimate:
        return Estimate.of(matched(mine) - base[:, 0], len(panel.problems))

    used = {steps[k] for k, weight in ((before, 1 - share), (after, share)) if weight > 0}
    of_point = panel.points()
    columns = [column for point in (at, *(ours.points[k] for k in used)) for column in of_point[point]]
    return Headline(
        controller=controller,
        baseline=(names or {}).get(at) or describe(at),
        accuracy=estimate(ours.accuracy, theirs.accuracy),
        tokens=estimate(ours.tokens, theirs.tokens).exp(),
        sequential=estimate(ours.sequential, theirs.sequential).exp(),
        in_play=int(panel.in_play(columns).any(axis=1).sum()),
    )


def describe(point: Point) -> str:
    """Name a point: by its overrides where it has any, else by its beta."""
    settings = ", ".join(f"{name}={value}" for name, value in json.loads(point.settings).items())
    return f"{point.controller} {f'with {settings}' if settings else f'at beta {point.beta:g}'}"


def _brackets(estimate: Estimate, style: str, unit: str = "") -> str:
    if estimate.interval is None:
        return ""
    low, high = (format(100 * bound, style) for bound in estimate.interval)
    return f" [{low}, {high}{unit}]"
