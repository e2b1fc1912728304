"""What a program is worth: its frontier's hypervolume, and whether beta buys more of it in order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
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
        frame: its episodes, at every beta that there is.
        references: by store, the point that hypervolume is measured from.
        schedules: (controller, beta) -> its settings, see `env.evaluate.Episodes`.

    Returns:
        `hypervolume` (accuracy x nats, averaged over stores), `hypervolume_ci` and `hypervolume_by_store`, in
        the order of `references`; `points`, one a beta,
        averaged over stores: beta, accuracy, accuracy_ci, tokens, tokens_ci, sequential_tokens, settings
        (None where the program never told); `monotone`: whether in no store a larger beta costs less;
        `seeds`: how many; `errors` (episodes) and `error` (the first one's text).
    """
    import numpy as np

    from env.frontier import Points, hypervolumes
    from env.statistics import Estimate, Panel

    (area,) = hypervolumes(frame, references, betas=_betas(frame))
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
        "hypervolume_by_store": [area.by_store[store] for store in references if store in area.by_store],
        "points": rows,
        "monotone": monotone(frame),
        "seeds": frame["seed"].n_unique(),
        "errors": errors,
        "error": error,
    }


def gain(ours: pl.DataFrame, theirs: pl.DataFrame, references: Mapping[str, Reference]) -> Estimate | None:
    """How much more hypervolume one program has than another: a paired bootstrap over problems.

    Only the seeds that both were played on count, so that both met the same branches in the same order. None
    where too few problems are in play for any difference to be found.
    """
    import polars as pl

    from env.frontier import hypervolumes
    from env.statistics import MIN_PROBLEMS, Panel

    seeds = set(ours["seed"]) & set(theirs["seed"])
    both = pl.concat([ours, theirs]).filter(pl.col("seed").is_in(list(seeds)))
    if Panel.of(both).in_play().any(axis=1).sum() < MIN_PROBLEMS:
        return None
    areas = {each.controller: each for each in hypervolumes(both, references, betas=_betas(both))}
    return areas[ours["controller"][0]].minus(areas[theirs["controller"][0]])


def crossed(frame: pl.DataFrame, references: Mapping[str, Reference], parts: Sequence[pl.Expr]) -> float:
    """What choosing the best of several programs is worth: chosen on all parts but one, measured on that one.

    The mean over parts. Unlike the best one's own figure it is not inflated by having been the best.

    Args:
        frame: episodes of several programs.
        references: see `score`.
        parts: each says which rows are its own; at least two.
    """
    from env.frontier import hypervolumes

    found = []
    for part in parts:
        chosen, *_ = hypervolumes(frame.filter(~part), references, betas=_betas(frame))
        measured = frame.filter(part).filter(controller=chosen.controller)
        (area,) = hypervolumes(measured, references, betas=_betas(frame))
        found.append(area.estimate.value)
    return sum(found) / len(found)


def behaviour(frame: pl.DataFrame) -> str:
    """A digest of what a program did in each of its episodes: equal if two programs cannot be told apart."""
    place = ["store", "beta", "problem", "seed"]
    played = frame.select(*place, "answer", "decode", "probe", "prm", "sequential", "rounds").sort(place)
    return hashlib.sha256(played.write_csv().encode()).hexdigest()[:16]


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


def _betas(frame: pl.DataFrame) -> list[float]:
    return sorted(set(frame["beta"]))


def _told(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    # A program may name any value, also one that JSON has no number for.
    told: dict[str, Any] | None = json.loads(json.dumps(settings, default=repr), parse_constant=str)
    return told


def _interval(estimate: Estimate) -> list[float] | None:
    return list(estimate.interval) if estimate.interval else None
