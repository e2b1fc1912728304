"""What an evaluation may claim: every figure here treats the problem as the unit, never the episode.

All functions are pure and read the per-episode frame that `env.evaluate` makes (`Episodes.frame`). Seeds of a
problem are averaged first. The same question is one problem in every store that holds it, so a resample which
draws a question draws its episodes from all stores, all controllers and all settings: everything is paired.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 4000
LEVEL = 0.95
POWER = 0.8
# A row that got less than this share of the branches it asked for measures a narrower program.
REPLAYABLE = 0.01
# With fewer problems in play than this even a unanimous two-sided sign test stays above 5% (2 / 2**5 > 0.05).
MIN_PROBLEMS = 6

# The two-sided test's quantile plus the power's: 1.96 + 0.84.
EFFECT = NormalDist().inv_cdf((1 + LEVEL) / 2) + NormalDist().inv_cdf(POWER)

# Integers drawn at a time, so that memory does not grow with the number of problems.
DRAWS_AT_ONCE = 4_000_000

KEY = ("store", "model", "dataset", "controller", "beta", "settings", "protocol", "isolation")
MEANS = ("correct", "tokens", "sequential", "decode", "probe", "prm", "rounds")
EPISODE_COLUMNS = (*KEY, "problem", "seed", *MEANS, "asked", "granted", "error")
# Columns that an evaluation has only if it was asked for them.
COST = "cost:"


class Row(NamedTuple):
    """What identifies a row of an evaluation; `settings` is the JSON text of the overrides."""

    store: str
    model: str
    dataset: str
    controller: str
    beta: float
    settings: str
    protocol: str
    isolation: str


class Point(NamedTuple):
    """What identifies a point of a frontier, on whatever store."""

    controller: str
    beta: float
    settings: str


class Estimate(NamedTuple):
    """A figure with its 95% percentile interval and its bootstrap standard error.

    The interval is None where there is nothing to resample: a single problem has no sampling error to see.
    """

    value: float
    interval: tuple[float, float] | None
    error: float

    @classmethod
    def of(cls, samples: Floats, problems: int) -> "Estimate":
        """From samples[0], the figure on the data itself, and samples[1:], the same on each resample.

        Resamples where the figure is undefined (NaN) are left out.
        """
        draws = samples[1:][~np.isnan(samples[1:])]
        if problems < 2 or not len(draws):
            return cls(float(samples[0]), None, 0.0)
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(float(samples[0]), (float(low), float(high)), float(draws.std()))

    def exp(self) -> "Estimate":
        """Of a logarithm, the estimate of the thing itself; the standard error by the delta method."""
        value = math.exp(self.value)
        low, high = self.interval or (0.0, 0.0)
        return Estimate(value, self.interval and (math.exp(low), math.exp(high)), value * self.error)

    @property
    def detectable(self) -> float | None:
        """The smallest true value that a two-sided 5% test on such problems finds with 80% power.

        (z_0.975 + z_0.8) x standard error, the standard error being that of paired differences; Miller 2024,
        "Adding error bars to evals", arXiv:2411.00640, section 5. None when no resample differs from another:
        then these problems cannot show how much the figure varies.
        """
        return EFFECT * self.error if self.error > 0 else None


@dataclass(frozen=True, eq=False)
class Panel:
    """The means over seeds of every problem in every row: C rows on one axis of H problems.

    Attributes:
        rows: the C rows, in the order in which the frame first names them.
        problems: the H question hashes.
        stores: the S stores, likewise.
        held: bool[H, S]; whether a row ran the problem on the store.
        strata: int64[H]; problems that some chain of stores connects share a number. Resampling stays inside
            a stratum, so a store keeps its weight: AIME24 is never crowded out by AIME25.
        values: for each name in `MEANS` and each cost a float64[H, C]; NaN where the row did not run the
            problem.
    """

    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    stores: tuple[str, ...]
    held: NDArray[np.bool_]
    strata: NDArray[np.int64]
    values: dict[str, Floats]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "Panel":
        """Average the episodes of a frame over their seeds."""
        names = (*MEANS, *cost_columns(frame))
        rows = frame.select(KEY).unique(maintain_order=True).with_row_index("row")
        problems = frame.select("problem").unique().sort("problem").with_row_index("place")
        cells = (
            frame.group_by(*KEY, "problem")
            .agg(pl.col(*names).cast(pl.Float64).mean())
            .join(rows, on=KEY)
            .join(problems, on="problem")
        )
        at = cells["place"].to_numpy(), cells["row"].to_numpy()
        values = {name: np.full((len(problems), len(rows)), np.nan) for name in names}
        for name, matrix in values.items():
            matrix[at] = cells[name].to_numpy()
        stores = rows["store"].unique(maintain_order=True).to_list()
        of_store = np.array([[store == each for each in stores] for store in rows["store"]])
        held = ~np.isnan(values["correct"]) @ of_store
        return cls(
            rows=tuple(Row(*row) for row in rows.drop("row").iter_rows()),
            problems=tuple(problems["problem"]),
            stores=tuple(stores),
            held=held,
            strata=_strata(held),
            values=values,
        )

    def resample(self, names: Sequence[str], rng: np.random.Generator) -> list[Floats]:
        """For each of the names a float64[1 + RESAMPLES, C] of means over problems; see `resample`."""
        samples = resample(np.hstack([self.values[name] for name in names]), self.strata, rng)
        return np.split(samples, len(names), axis=1)

    def points(self) -> dict[Point, list[int]]:
        """The columns whose mean is a point's mean over stores, each store counting the same.

        Only the points that ran on every store: the mean of others would be about other problems.
        """
        columns: dict[Point, list[int]] = {}
        for column, row in enumerate(self.rows):
            columns.setdefault(Point(row.controller, row.beta, row.settings), []).append(column)
        return {point: at for point, at in columns.items() if len(at) == len(self.stores)}

    def in_play(self, columns: Sequence[int] | None = None) -> NDArray[np.bool_]:
        """bool[H, S]; whether these rows (None = all) disagree about a problem on a store.

        In play = neither solved in every episode nor in none. The other problems cannot tell the rows apart.
        """
        play = np.zeros(self.held.shape, bool)
        for s, store in enumerate(self.stores):
            mine = [c for c in columns or range(len(self.rows)) if self.rows[c].store == store]
            correct = self.values["correct"][:, mine]
            play[:, s] = (correct > 0).any(axis=1) & (correct < 1).any(axis=1)
        return play


def cost_columns(frame: pl.DataFrame) -> tuple[str, ...]:
    """The columns of a frame that hold costs, tokens aside."""
    return tuple(name for name in frame.columns if name.startswith(COST))


def resample(values: Floats, strata: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """The mean over problems of each column, on the data and on seeded resamples of the problems.

    Args:
        values: float64[H, C], NaN = missing; the mean is over what is there.
        strata: int64[H]; as many problems are drawn from each stratum as it has.
        rng: decides the resamples. They are the same for all columns (common random numbers), and for every
            call with the same strata and a generator in the same state.

    Returns:
        float64[1 + RESAMPLES, C]: the data's own means first. NaN where a resample drew none of a column's
        problems.
    """
    present = ~np.isnan(values)
    filled = np.where(present, values, 0.0)
    groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    problems = len(values)

    def means(weights: Floats) -> Floats:
        counts = weights @ present
        sums: Floats = weights @ filled
        return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)

    samples = [means(np.ones((1, problems)))]
    at_once = max(1, DRAWS_AT_ONCE // max(problems, 1))
    for start in range(0, RESAMPLES, at_once):
        repeats = min(at_once, RESAMPLES - start)
        weights = np.zeros((repeats, problems))
        for group in groups:
            size = len(group)
            drawn = rng.integers(size, size=(repeats, size)) + np.arange(repeats)[:, None] * size
            weights[:, group] = np.bincount(drawn.ravel(), minlength=repeats * size).reshape(repeats, size)
        samples.append(means(weights))
    return np.concatenate(samples)


def summarise(frame: pl.DataFrame, rng: np.random.Generator | int = 0) -> list[dict[str, Any]]:
    """The rows of an evaluation, ready for JSON.

    Args:
        frame: a row an episode, as `env.evaluate.Episodes.frame`.
        rng: the generator of the resamples, or its seed.

    Returns:
        A dict for each (store, controller, beta, settings), in the frame's order. Tokens are per problem;
        `accuracy_ci` and `tokens_ci` are [low, high] of a 95% percentile bootstrap over problems, None when
        there is only one problem; `costs` has such a pair of figures, `mean` and `ci`, for each cost that the
        frame has a column for; `shortfall` is 1 - granted/asked branches; `replayable` is False when it
        exceeds 1%; `problems_in_play` counts the store's problems that the compared rows neither always nor
        never solve; `errors` counts episodes, `error` is the first one's message ("" = none).
    """
    if frame.is_empty():
        return []
    panel = Panel.of(frame)
    priced = cost_columns(frame)
    accuracy, tokens, *costs = panel.resample(("correct", "tokens", *priced), np.random.default_rng(rng))
    in_play = dict(zip(panel.stores, panel.in_play().sum(axis=0).tolist(), strict=True))
    counts = np.count_nonzero(~np.isnan(panel.values["correct"]), axis=0)
    failed = pl.col("error") != ""
    totals = {
        Row(*record[: len(KEY)]): record[len(KEY) :]
        for record in frame.group_by(KEY)
        .agg(
            pl.col("seed").n_unique(),
            pl.col("asked").sum(),
            pl.col("granted").sum(),
            failed.sum().alias("errors"),
            pl.col("error").filter(failed).first().fill_null("").alias("message"),
        )
        .iter_rows()
    }
    summary = []
    for column, row in enumerate(panel.rows):
        seeds, asked, granted, errors, message = totals[row]
        problems = int(counts[column])
        mean = {name: float(np.nanmean(values[:, column])) for name, values in panel.values.items()}
        shortfall = (asked - granted) / asked if asked else 0.0
        summary.append(
            {
                "store": row.store,
                "model": row.model,
                "dataset": row.dataset,
                "controller": row.controller,
                "beta": row.beta,
                "settings": json.loads(row.settings),
                "problems": problems,
                "seeds": seeds,
                "accuracy": mean["correct"],
                "accuracy_ci": _pair(Estimate.of(accuracy[:, column], problems)),
                "tokens": mean["tokens"],
                "tokens_ci": _pair(Estimate.of(tokens[:, column], problems)),
                "sequential_tokens": mean["sequential"],
                "decode_tokens": mean["decode"],
                "probe_tokens": mean["probe"],
                "prm_tokens": mean["prm"],
                "rounds": mean["rounds"],
                "costs": {
                    name.removeprefix(COST): {
                        "mean": mean[name],
                        "ci": _pair(Estimate.of(samples[:, column], problems)),
                    }
                    for name, samples in zip(priced, costs, strict=True)
                },
                "problems_in_play": in_play[row.store],
                "shortfall": shortfall,
                "replayable": shortfall <= REPLAYABLE,
                "errors": errors,
                "error": message,
                "isolation": row.isolation,
                "protocol": row.protocol,
            }
        )
    return summary


@dataclass(frozen=True)
class Resolution:
    """How much the problems of an evaluation can tell apart.

    Attributes:
        problems: distinct questions.
        problems_in_play: distinct questions in play in at least one store.
        pairs: (store, question) pairs.
        pairs_in_play: those in play.
        detectable: the accuracy difference (0..1) that a paired test would have found with 80% power, in the
            median over pairs of rows averaged over stores; None for one row or problem, and where all rows
            agree.
    """

    problems: int
    problems_in_play: int
    pairs: int
    pairs_in_play: int
    detectable: float | None

    def __str__(self) -> str:
        """One sentence for below a table."""
        text = f"{self.problems_in_play} of {self.problems} problems are in play"
        if self.pairs != self.problems:
            text += f" ({self.pairs_in_play} of {self.pairs} with stores told apart)"
        if self.detectable is None:
            return f"{text}."
        return (
            f"{text}; between two rows, a difference of {100 * self.detectable:.1f} points in accuracy"
            " would be found 4 times in 5, a smaller one less often."
        )


def resolution(frame: pl.DataFrame, rng: np.random.Generator | int = 0) -> Resolution:
    """How many problems of a frame are in play, and what difference its rows could have shown."""
    panel = Panel.of(frame)
    play = panel.in_play()
    (accuracy,) = panel.resample(("correct",), np.random.default_rng(rng))
    points = panel.points()
    errors = np.empty(0)
    if len(panel.problems) > 1 and len(points) > 1:
        draws = np.stack([accuracy[1:, at].mean(axis=1) for at in points.values()])
        covariance = np.cov(draws[:, ~np.isnan(draws).any(axis=0)])
        variance = covariance.diagonal()
        squares = (variance[:, None] + variance[None, :] - 2 * covariance)[np.triu_indices(len(points), 1)]
        # Rows that agree everywhere leave rounding noise here, not zero.
        errors = np.sqrt(squares[squares > 1e-12])
    return Resolution(
        problems=len(panel.problems),
        problems_in_play=int(play.any(axis=1).sum()),
        pairs=int(panel.held.sum()),
        pairs_in_play=int(play.sum()),
        detectable=EFFECT * float(np.median(errors)) if errors.size else None,
    )


def _strata(held: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Connected components of problems, two being connected when one store holds both (bool[H, S])."""
    label = np.arange(len(held))
    while True:
        of_store = np.where(held, label[:, None], len(held)).min(axis=0, initial=len(held))
        spread = np.where(held, of_store, len(held)).min(axis=1)
        if (spread == label).all():
            return label
        label = spread


def _pair(estimate: Estimate) -> list[float] | None:
    return None if estimate.interval is None else list(estimate.interval)
