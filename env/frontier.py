"""Accuracy against the logarithm of tokens: Pareto frontier, curves along it, area above a reference point.

Everything is vectorised over leading axes, so that a bootstrap's resamples are one more axis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from env.forest import Forest
from env.program import GRID
from env.statistics import Estimate, Floats, Panel, Point, resample

# Self-consistency at this many branches costs what the reference point costs.
REFERENCE_BRANCHES = 64
# What costs nothing has no logarithm. A price may well be far below 1, though.
LEAST = 1e-12


@dataclass(frozen=True)
class Reference:
    """The point from which a store's hypervolume is measured, problem by problem.

    It is kept by problem so that resamples and subsets of the problems move it along with the frontier.

    Attributes:
        tokens: by question hash, the expected tokens of 64 whole branches.
        accuracy: by question hash, the chance that one whole branch is right.
    """

    tokens: Mapping[str, float]
    accuracy: Mapping[str, float]


def reference(forest: Forest, protocol: str = "standard") -> Reference:
    """Compute a store's reference exactly, not from sampled episodes.

    A fresh branch takes each of the problem's roots (of arm 0) with equal chance, then each child of the node
    it stands on with equal chance, until it ends.

    Args:
        forest: the store's trees.
        protocol: "published" grades the raw strings, anything else the classes. Both charge a whole branch
            the tokens decoded in it.
    """
    parent = forest.parent.astype(np.int64)
    problem = np.repeat(np.arange(len(forest)), np.diff(forest.first_node))
    root = parent < 0
    siblings = np.where(root, parent.size + problem, parent)
    eligible = ~root | (forest.arm == 0)
    counts = np.bincount(siblings[eligible], minlength=parent.size + len(forest))
    reached = np.where(eligible, 1 / np.maximum(counts[siblings], 1), 0.0)
    # Pointer doubling: each pass multiplies in twice as many ancestors as the one before.
    ancestor = parent
    while (ancestor >= 0).any():
        reached = np.where(ancestor >= 0, reached * reached[ancestor], reached)
        ancestor = np.where(ancestor >= 0, ancestor[ancestor], -1)
    answer, first, grades = (
        (forest.raw, forest.raw_first, forest.raw_correct)
        if protocol == "published"
        else (forest.answer, forest.class_first, forest.class_correct)
    )
    final = (forest.end != 0) & (answer >= 0)
    correct = np.zeros(parent.size)
    correct[final] = grades[first[problem[final]] + answer[final]]
    tokens = np.bincount(problem, reached * forest.tokens, len(forest)) * REFERENCE_BRANCHES
    accuracy = np.bincount(problem, reached * correct, len(forest))
    return Reference(
        tokens=dict(zip(forest.question_hash, tokens.tolist(), strict=True)),
        accuracy=dict(zip(forest.question_hash, accuracy.tolist(), strict=True)),
    )


def expected(panel: Panel, references: Mapping[str, Reference], figure: str) -> Floats:
    """float64[H, S], the "tokens" or the "accuracy" of the references; NaN where a store lacks a problem."""
    table = np.full(panel.held.shape, np.nan)
    for s, store in enumerate(panel.stores):
        known = getattr(references[store], figure)
        here = np.flatnonzero(panel.held[:, s])
        table[here, s] = [known[panel.problems[h]] for h in here]
    return table


def pareto(tokens: Floats, accuracy: Floats) -> NDArray[np.int64]:
    """Where the non-dominated points stand, cheapest first, each dominated one replaced by the one before it.

    A point is dominated when another has at least its accuracy for at most its tokens and is not equal to it.
    The shape stays that of the input, so that the frontier may differ from one resample to the next; repeats
    are harmless to `interpolate` and `hypervolume`.

    Args:
        tokens: float64[..., K].
        accuracy: float64[..., K].

    Returns:
        int64[..., K], to be used with `numpy.take_along_axis`.
    """
    order = np.lexsort((-accuracy, tokens), axis=-1)
    sorted_accuracy = np.take_along_axis(accuracy, order, axis=-1)
    best_before = np.roll(np.maximum.accumulate(sorted_accuracy, axis=-1), 1, axis=-1)
    best_before[..., 0] = -np.inf
    place = np.where(sorted_accuracy > best_before, np.arange(tokens.shape[-1]), 0)
    return np.take_along_axis(order, np.maximum.accumulate(place, axis=-1), axis=-1)


def interpolate(x: Floats, y: Floats, at: Floats) -> Floats:
    """Straight lines between the points (x, y), level outside them.

    Args:
        x: float64[..., K], never falling along the last axis.
        y: float64[..., K].
        at: float64[..., G].

    Returns:
        float64[..., G].
    """
    above = np.minimum((x[..., None, :] <= at[..., :, None]).sum(axis=-1), x.shape[-1] - 1)
    below = np.maximum(above - 1, 0)
    x0, x1, y0, y1 = (np.take_along_axis(a, i, axis=-1) for a in (x, y) for i in (below, above))
    width = x1 - x0
    share = np.divide(at - x0, width, out=np.ones_like(at), where=width > 0)
    values: Floats = y0 + (y1 - y0) * np.clip(share, 0.0, 1.0)
    return values


def hypervolume(tokens: Floats, accuracy: Floats, at_tokens: Floats, at_accuracy: Floats) -> Floats:
    """The area that a frontier wins over the reference point, in accuracy x nats.

    The axes are ln(tokens), smaller is better, and accuracy in 0..1, larger is better. A point (t, a) wins
    the rectangle [ln t, ln at_tokens] x [at_accuracy, a]; the hypervolume is the area of the union of these
    rectangles (Zitzler & Thiele 1998), that is under the staircase of the non-dominated points. A point that
    costs more than the reference, or is less accurate, wins nothing. A single point with the reference's
    cost divided by e and 10 points more accuracy wins 0.1. Fewer than one token counts as one.

    Args:
        tokens: float64[..., K].
        accuracy: float64[..., K].
        at_tokens: float64[...], the reference's tokens.
        at_accuracy: float64[...], the reference's accuracy.

    Returns:
        float64[...].
    """
    stairs = pareto(tokens, accuracy)
    right = np.log(np.maximum(at_tokens, 1.0))[..., None]
    x = np.minimum(np.log(np.maximum(np.take_along_axis(tokens, stairs, axis=-1), 1.0)), right)
    height = np.maximum(np.take_along_axis(accuracy, stairs, axis=-1) - at_accuracy[..., None], 0.0)
    area: Floats = np.sum(height * np.diff(x, axis=-1, append=right), axis=-1)
    return area


@dataclass(frozen=True, eq=False)
class Points:
    """The K points of some frontiers, averaged over stores, on the data and on each resample.

    Attributes:
        points: what identifies each.
        tokens: float64[1 + RESAMPLES, K]; the natural logarithm of tokens per problem, at least one token. Of
            another cost, where that is what the frontier is over.
        sequential: the same of sequential tokens.
        accuracy: float64[1 + RESAMPLES, K].
    """

    points: list[Point]
    tokens: Floats
    sequential: Floats
    accuracy: Floats

    @classmethod
    def of(cls, panel: Panel, rng: np.random.Generator, cost: str = "tokens") -> "Points":
        """Of every controller, beta and setting that ran on all the stores; `cost` is a column."""
        points = panel.points()
        columns = np.array(list(points.values()), dtype=np.intp).reshape(-1, len(panel.stores))
        tokens, sequential, accuracy = (
            samples[:, columns].mean(axis=2)
            for samples in panel.resample((cost, "sequential", "correct"), rng)
        )
        return cls(
            points=list(points),
            tokens=np.log(np.maximum(tokens, 1.0 if cost == "tokens" else LEAST)),
            sequential=np.log(np.maximum(sequential, 1.0)),
            accuracy=accuracy,
        )

    def take(self, at: Sequence[int]) -> "Points":
        """Some of them, by place."""
        return Points(
            points=[self.points[k] for k in at],
            tokens=self.tokens[:, at],
            sequential=self.sequential[:, at],
            accuracy=self.accuracy[:, at],
        )

    def of_controller(self, name: str) -> "Points":
        """Those of one controller."""
        return self.take([k for k, point in enumerate(self.points) if point.controller == name])

    def frontier(self) -> "Points":
        """Cheapest first and without dominated points, as `pareto` has it; `points` are those of the data."""
        order = pareto(self.tokens, self.accuracy)
        return Points(
            points=[self.points[k] for k in order[0]],
            tokens=np.take_along_axis(self.tokens, order, axis=1),
            sequential=np.take_along_axis(self.sequential, order, axis=1),
            accuracy=np.take_along_axis(self.accuracy, order, axis=1),
        )


@dataclass(frozen=True, eq=False)
class Hypervolume:
    """The hypervolume of one controller, averaged over stores.

    Attributes:
        controller: its name.
        settings: JSON text of its overrides.
        estimate: value and interval, in accuracy x nats.
        by_store: value on each store alone.
        problems: distinct questions.
        samples: float64[1 + RESAMPLES]; the value, then that of each resample. All controllers of one
            `hypervolumes` call share the resamples, so differences between their samples are paired.
    """

    controller: str
    settings: str
    estimate: Estimate
    by_store: Mapping[str, float]
    problems: int
    samples: Floats

    def minus(self, other: "Hypervolume") -> Estimate:
        """The paired difference to another one of the same `hypervolumes` call."""
        return Estimate.of(self.samples - other.samples, self.problems)


def hypervolumes(
    frame: pl.DataFrame,
    references: Mapping[str, Reference],
    rng: np.random.Generator | int = 0,
    betas: Sequence[float] = GRID,
) -> list[Hypervolume]:
    """The hypervolume of every controller that ran on all the betas of the grid, best first.

    Others are left out, since the area grows with the number of points; so are rows at other betas.

    Args:
        frame: a row an episode.
        references: by store, as the frame names it; it must know every problem of the frame on that store.
        rng: the generator of the resamples, or its seed.
        betas: the grid.
    """
    frame = frame.filter(pl.col("beta").is_in(list(betas)))
    if frame.is_empty():
        return []
    panel = Panel.of(frame)
    columns = [panel.values["tokens"], panel.values["correct"]]
    columns += [expected(panel, references, figure) for figure in ("tokens", "accuracy")]
    samples = resample(np.hstack(columns), panel.strata, np.random.default_rng(rng))
    cuts = np.cumsum([column.shape[1] for column in columns])[:-1]
    tokens, accuracy, at_tokens, at_accuracy = np.split(samples, cuts, axis=1)

    sweeps: dict[tuple[str, str], dict[str, dict[float, int]]] = {}
    for c, row in enumerate(panel.rows):
        sweeps.setdefault((row.controller, row.settings), {}).setdefault(row.store, {})[row.beta] = c
    found = []
    for (controller, settings), sweep in sweeps.items():
        if len(sweep) < len(panel.stores) or any(len(points) < len(betas) for points in sweep.values()):
            continue
        areas = {}
        for s, store in enumerate(panel.stores):
            at = list(sweep[store].values())
            areas[store] = hypervolume(tokens[:, at], accuracy[:, at], at_tokens[:, s], at_accuracy[:, s])
        samples = np.mean(list(areas.values()), axis=0)
        found.append(
            Hypervolume(
                controller=controller,
                settings=settings,
                estimate=Estimate.of(samples, len(panel.problems)),
                by_store={store: float(area[0]) for store, area in areas.items()},
                problems=len(panel.problems),
                samples=samples,
            )
        )
    return sorted(found, key=lambda each: -each.estimate.value)
