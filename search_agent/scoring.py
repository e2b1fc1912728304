"""What a program is worth: its frontier's hypervolume, and whether beta buys more of it in order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from env.frontier import Reference
    from env.statistics import Estimate

# A mean over a few hundred episodes may dip by this much without beta having lost its meaning.
TOLERANCE = 0.02


def score(
    frame: pl.DataFrame,
    references: Mapping[str, Reference],
    schedules: Mapping[tuple[str, float], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The figures of one program, ready for JSON.

    Args:
        frame: its episodes on the whole beta grid.
        references: by store, the point that hypervolume is measured from.
        schedules: (controller, beta) -> its settings, see `env.evaluate.Episodes`.

    Returns:
        `hypervolume` (accuracy x nats, averaged over stores) and `hypervolume_ci`; `points`, one a beta,
        averaged over stores: beta, accuracy, accuracy_ci, tokens, tokens_ci, sequential_tokens, settings
        (None where the program never told); `monotone`: whether in no store a larger beta costs less;
        `errors` (episodes) and `error` (the first one's text).
    """
    import numpy as np

    from env.frontier import Points, hypervolumes
    from env.statistics import Estimate, Panel

    (area,) = hypervolumes(frame, references)
    panel = Panel.of(frame)
    points = Points.of(panel, np.random.default_rng(0))
    rows = []
    for k, point in enumerate(points.points):
        accuracy, tokens, sequential = (
            Estimate.of(samples[:, k], len(panel.problems))
            for samples in (points.accuracy, points.tokens, points.sequential)
        )
        rows.append(
            {
                "beta": point.beta,
                "accuracy": accuracy.value,
                "accuracy_ci": _interval(accuracy),
                "tokens": tokens.exp().value,
                "tokens_ci": _interval(tokens.exp()),
                "sequential_tokens": sequential.exp().value,
                "settings": _told((schedules or {}).get((point.controller, point.beta))),
            }
        )
    errors, error = faults(frame)
    return {
        "hypervolume": area.estimate.value,
        "hypervolume_ci": _interval(area.estimate),
        "points": rows,
        "monotone": monotone(frame),
        "errors": errors,
        "error": error,
    }


def faults(frame: pl.DataFrame) -> tuple[int, str]:
    """How many episodes ended in an error, and the text of the first ("" = none did)."""
    errors = frame["error"].filter(frame["error"] != "")
    return len(errors), errors[0] if len(errors) else ""


def monotone(frame: pl.DataFrame) -> bool:
    """Whether in every store mean tokens never fall by more than 2% from one beta to the next."""
    import polars as pl

    means = frame.group_by("store", "beta").agg(pl.col("tokens").mean()).sort("store", "beta")
    before = pl.col("tokens").shift(1).over("store")
    return not (means.select(pl.col("tokens") < (1 - TOLERANCE) * before).to_series().any())


def _told(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    # A program may name any value, also one that JSON has no number for.
    told: dict[str, Any] | None = json.loads(json.dumps(settings, default=repr), parse_constant=str)
    return told


def _interval(estimate: Estimate) -> list[float] | None:
    return list(estimate.interval) if estimate.interval else None
