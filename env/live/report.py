"""The figures of a live run: accuracy, tokens and waiting, with intervals over problems."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from env.statistics import RESAMPLES, Estimate, summarise

# What an episode used besides what replay knows, as means.
USAGE = ("requests", "retries", "prompt", "cached", "recomputed", "run_ahead", "cancelled")


class About(NamedTuple):
    """What a run was: as the columns of the same names in `env.evaluate.Episodes.frame`."""

    model: str
    dataset: str
    controller: str
    beta: float
    settings: str
    level: str


def figures(
    rows: Sequence[Mapping[str, Any]], about: About, rng: np.random.Generator | int = 0
) -> dict[str, Any]:
    """The row of `env.statistics.summarise` for live episodes, and what only live ones have.

    Args:
        rows: of `env.live.run`.
        about: what they have in common.
        rng: the generator of the resamples, or its seed.

    Returns:
        Besides: `p50` and `p95`, the seconds in which so many of the episodes that the model did not fail had
        their answer, each with its 95% interval (`p50_ci`, None for a single problem); `model_failures`;
        `usage`, means over episodes of `env.live.model.Usage`.
    """
    import polars as pl

    columns = [name for name in rows[0] if name not in ("usage", "seconds", "model_failed")]
    frame = pl.DataFrame([{name: row[name] for name in columns} for row in rows]).with_columns(
        store=pl.lit("live"),
        isolation=pl.lit("strict" if about.level else "none"),
        protocol=pl.lit("standard"),
        **{name: pl.lit(value) for name, value in about._asdict().items()},
    )
    (found,) = summarise(frame, rng)
    for name in ("store", "replayable", "protocol"):
        del found[name]
    seconds = _by_problem(rows)
    for percent in (50, 95):
        estimate = quantile(seconds, percent / 100, np.random.default_rng(rng))
        found[f"p{percent}"] = estimate.value
        found[f"p{percent}_ci"] = None if estimate.interval is None else list(estimate.interval)
    found["model_failures"] = sum(row["model_failed"] for row in rows)
    found["usage"] = {name: float(np.mean([row["usage"][name] for row in rows])) for name in USAGE}
    return found


def quantile(groups: Sequence[Sequence[float]], q: float, rng: np.random.Generator) -> Estimate:
    """A quantile of all values together, with an interval that resamples groups; NaN of no values.

    Args:
        groups: one or more values of each of P problems.
        q: in [0, 1].
        rng: decides the resamples.
    """
    if not groups:
        return Estimate(float("nan"), None, 0.0)
    values = np.concatenate([np.asarray(group, np.float64) for group in groups])
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    order = np.argsort(values, kind="stable")
    values, owner = values[order], owner[order]
    samples = np.empty(1 + RESAMPLES)
    samples[0] = np.quantile(values, q)
    for number in range(1, RESAMPLES + 1):
        drawn = np.bincount(rng.integers(len(groups), size=len(groups)), minlength=len(groups))
        running = np.cumsum(drawn[owner])
        samples[number] = values[np.searchsorted(running, q * running[-1])]
    return Estimate.of(samples, len(groups))


def _by_problem(rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    seconds: dict[str, list[float]] = {}
    for row in rows:
        if not row["model_failed"]:
            seconds.setdefault(row["problem"], []).append(row["seconds"])
    return list(seconds.values())
