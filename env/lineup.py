"""Many controllers side by side, against self-consistency: at its costs, at its accuracies, by difficulty.

Figures are averaged over stores and resample problems, as everywhere (see `env.statistics`); one set of
resamples serves them all, so differences are paired.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from env.frontier import REFERENCE_BRANCHES, Points, Reference, expected, hypervolumes, interpolate
from env.statistics import LEVEL, REPLAYABLE, Estimate, Floats, Panel, resample

BASELINE = "self_consistency"
# Self-consistency at so many branches sets the costs, and the accuracies, at which controllers are held
# against it. What a branch costs is expected exactly, from the store, whether or not so many were played.
WIDTHS = (4, 16, 64)
# Levels of difficulty, and how many problems the finer division asks of each.
FINE, COARSE, ENOUGH = 5, 3, 10


class Ratio(NamedTuple):
    """Times what self-consistency needs; infinite where its accuracy is never reached."""

    value: float
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, logarithms: Floats, problems: int) -> "Ratio":
        """From the logarithm of the ratio on the data, and on each resample."""
        value, draws = math.exp(logarithms[0]), logarithms[1:][~np.isnan(logarithms[1:])]
        if problems < 2 or not len(draws):
            return cls(value, None)
        # Quantiles that are among the draws: there is no middle between a number and infinity.
        ends = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
        return cls(value, (math.exp(ends[0]), math.exp(ends[1])))

    def __str__(self) -> str:
        """0.52 [0.41, never]; no interval around what is never reached anyhow."""
        value, *ends = (
            "never" if math.isinf(x) else f"{x:.2f}" for x in (self.value, *(self.interval or ()))
        )
        return f"{value} [{', '.join(ends)}]" if ends and set(ends) != {"never"} else value


class Matched(NamedTuple):
    """A controller against self-consistency at so many branches.

    Attributes:
        width: the branches.
        accuracy: at most what they cost spent, mixing neighbours of the controller's frontier; None where
            its cheapest point costs more.
        lead: that accuracy minus that of self-consistency, for the same tokens.
        sequential: the sequential tokens that go with `accuracy`.
        tokens: the tokens it takes to be as accurate as self-consistency is, in times those of
            self-consistency.
        latency: the same for sequential tokens.
    """

    width: int
    accuracy: Estimate | None
    lead: Estimate | None
    sequential: float | None
    tokens: Ratio
    latency: Ratio

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        plain: dict[str, Any] = {"branches": self.width, "sequential_tokens": self.sequential}
        for name in ("accuracy", "lead", "tokens", "latency"):
            figure: Estimate | Ratio | None = getattr(self, name)
            plain |= {name: figure and figure.value, f"{name}_ci": figure and figure.interval}
        return plain


class Place(NamedTuple):
    """A point of a controller's frontier; `shortfall` is the largest of any store."""

    beta: float
    accuracy: Estimate
    tokens: Estimate
    sequential: Estimate
    shortfall: float

    @property
    def replayable(self) -> bool:
        """Whether the store held what was asked for."""
        return self.shortfall <= REPLAYABLE


@dataclass(frozen=True)
class Entry:
    """A controller: its points by beta, its hypervolume (None off the grid), and how it matches."""

    controller: str
    points: tuple[Place, ...]
    hypervolume: Estimate | None
    matches: tuple[Matched, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "controller": self.controller,
            "hypervolume": self.hypervolume and self.hypervolume.value,
            "hypervolume_ci": self.hypervolume and self.hypervolume.interval,
            "against_self_consistency": [match.as_json() for match in self.matches],
        }


@dataclass(frozen=True)
class Level:
    """Problems of similar difficulty: one branch solves each of them with a chance from `low` to `high`.

    Attributes:
        matches: by controller, as in `Entry`, on these problems alone: tokens are equal within the level.
    """

    low: float
    high: float
    problems: int
    matches: Mapping[str, tuple[Matched, ...]]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        against = {name: [match.as_json() for match in matches] for name, matches in self.matches.items()}
        return {
            "pass_rate": [self.low, self.high],
            "problems": self.problems,
            "against_self_consistency": against,
        }


def lineup(
    frame: pl.DataFrame, references: Mapping[str, Reference], rng: np.random.Generator | int = 0
) -> list[Entry]:
    """Every controller that ran on all stores, largest hypervolume first.

    Args:
        frame: a row an episode, self-consistency's among them; no overrides of schedules.
        references: by store, as the frame names it.
        rng: the generator of the resamples, or its seed.
    """
    race = _Race(frame, references, rng)
    areas = {each.controller: each.estimate for each in hypervolumes(frame, references, rng)}
    shortfalls = _shortfalls(frame)
    entries = []
    for name in race.names:
        points = race.points.of_controller(name)
        problems = len(race.panel.problems)
        places = [
            Place(
                beta=point.beta,
                accuracy=Estimate.of(points.accuracy[:, k], problems),
                tokens=Estimate.of(points.tokens[:, k], problems).exp(),
                sequential=Estimate.of(points.sequential[:, k], problems).exp(),
                shortfall=shortfalls[name, point.beta],
            )
            for k, point in enumerate(points.points)
        ]
        places.sort(key=lambda place: place.beta)
        entries.append(Entry(name, tuple(places), areas.get(name), race.matches(name)))
    return sorted(entries, key=lambda entry: -(entry.hypervolume.value if entry.hypervolume else 0.0))


def by_difficulty(
    frame: pl.DataFrame, references: Mapping[str, Reference], rng: np.random.Generator | int = 0
) -> list[Level]:
    """How controllers match on problems of like difficulty, hardest first; arguments as for `lineup`.

    Difficulty is the chance that one branch is right, exact from the stores and averaged over those that hold
    the problem (the "oracle" difficulty of Snell et al. 2024). Quintiles, or terciles where those would have
    fewer than 10 problems; problems that are equally hard stay together.
    """
    panel = Panel.of(frame)
    chance = np.nanmean(expected(panel, references, "accuracy"), axis=1)
    count = FINE if len(chance) >= FINE * ENOUGH else COARSE
    cuts = np.quantile(chance, np.arange(1, count) / count)
    level_of = np.searchsorted(cuts, chance, side="right")
    levels = []
    for level in np.unique(level_of):
        here = np.flatnonzero(level_of == level)
        race = _Race(
            frame.filter(pl.col("problem").is_in([panel.problems[h] for h in here])), references, rng
        )
        levels.append(
            Level(
                low=float(chance[here].min()),
                high=float(chance[here].max()),
                problems=len(here),
                matches={name: race.matches(name) for name in race.names},
            )
        )
    return levels


class _Race:
    """The frontiers of some episodes, and self-consistency's costs, on the same resamples."""

    def __init__(
        self, frame: pl.DataFrame, references: Mapping[str, Reference], rng: np.random.Generator | int
    ) -> None:
        self.panel = Panel.of(frame)
        self._state = np.random.default_rng(rng).bit_generator.state
        self.points = Points.of(self.panel, self._rng())
        self.names = list(dict.fromkeys(point.controller for point in self.points.points))
        # float64[1 + RESAMPLES]: the logarithm of what 64 branches cost.
        whole = resample(expected(self.panel, references, "tokens"), self.panel.strata, self._rng())
        self._whole = np.log(np.maximum(whole.mean(axis=1), 1.0))

    def _rng(self) -> np.random.Generator:
        rng = np.random.default_rng()
        rng.bit_generator.state = self._state
        return rng

    @cached_property
    def _baseline(self) -> Points:
        return self.points.of_controller(BASELINE).frontier()

    def matches(self, name: str) -> tuple[Matched, ...]:
        ours = self.points.of_controller(name).frontier()
        return tuple(self._match(ours, width) for width in WIDTHS)

    def _match(self, ours: Points, width: int) -> Matched:
        problems, theirs = len(self.panel.problems), self._baseline
        budget = self._whole + math.log(width / REFERENCE_BRANCHES)
        # A store of few branches ends self-consistency before it has spent that much.
        spent = np.minimum(budget, theirs.tokens[:, -1])
        target = _along(theirs.tokens, theirs.accuracy, budget)
        latency = _along(theirs.tokens, theirs.sequential, budget)
        accuracy = lead = sequential = None
        if ours.tokens[0, 0] <= budget[0]:
            reached = _along(ours.tokens, ours.accuracy, budget)
            accuracy = Estimate.of(reached, problems)
            lead = Estimate.of(reached - target, problems)
            sequential = math.exp(_along(ours.tokens, ours.sequential, budget)[0])
        never = np.where(target > ours.accuracy[:, -1] + 1e-12, np.inf, 0.0)
        tokens, critical = (
            Ratio.of(_along(ours.accuracy, values, target) - base + never, problems)
            for values, base in ((ours.tokens, spent), (ours.sequential, latency))
        )
        return Matched(width, accuracy, lead, sequential, tokens, critical)


def _along(x: Floats, y: Floats, at: Floats) -> Floats:
    """A frontier's y where its x is `at`, on the data and each resample; float64[1 + RESAMPLES]."""
    found: Floats = interpolate(x, y, at[:, None])[:, 0]
    return found


def _shortfalls(frame: pl.DataFrame) -> dict[tuple[str, float], float]:
    """By controller and beta, the largest share of a store that was asked for in vain."""
    return {
        (name, beta): share
        for name, beta, share in frame.group_by("store", "controller", "beta")
        .agg(
            (1 - pl.col("granted").sum() / pl.col("asked").sum().clip(1)).alias("share"),
            pl.col("asked").sum(),
        )
        .with_columns(share=pl.when(pl.col("asked") > 0).then("share").otherwise(0.0))
        .group_by("controller", "beta")
        .agg(pl.col("share").max())
        .iter_rows()
    }
