"""The matrix of outcomes: how often each program of interest solved each problem, at each beta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search_agent.archive import Run
from search_agent.report.view import View, reading

if TYPE_CHECKING:
    import polars as pl

# More columns than this do not fit a page, and more rows nobody looks through.
PROGRAMS, ROWS = 10, 200
PARTS = ("feedback", "selection")


def columns(view: View) -> list[int | str]:
    """The programs of interest: the best round and whom it descends from, then the published controllers."""
    ranked = sorted(view.baselines, key=lambda score: -score.hypervolume)
    return [*view.lineage[::-1][: PROGRAMS - len(ranked)], *(score.name for score in ranked)]


def aliases(config: Mapping[str, Any]) -> dict[str, str]:
    """Names of stores and problems: s1 and p01 as proposers know them, q01 for what they never see."""
    stores = {str(store["path"]): f"s{k}" for k, store in enumerate(config["stores"], 1)}
    shown = {problem: f"p{k:02d}" for k, problem in enumerate(config["problems"]["feedback"], 1)}
    hidden = {problem: f"q{k:02d}" for k, problem in enumerate(config["problems"]["selection"], 1)}
    return stores | shown | hidden


def outcomes(run: Run, view: View) -> dict[str, Any] | None:
    """The matrix, ready for JSON; None where no program of interest was measured.

    Returns:
        `programs` (names), `betas`, `stores` (alias to model), `rows`, `left_out` (rows that did not fit).
        A row: `store`, `problem` (aliases), `part`, `cells`: for each program, for each beta, None or
        [share of right answers in percent, mean tokens, mean sequential tokens, episodes]. Within a part
        hard problems come first.
    """
    names = aliases(run.config)
    programs = columns(view)
    cells: dict[tuple[str, str, str], dict[int, dict[float, list[int]]]] = {}
    for place, entry in enumerate(programs):
        for part in PARTS:
            with reading(run.folder(entry)):
                frame = run.episodes(entry, part)
            for store, problem, beta, *figures in [] if frame is None else _means(frame):
                row = cells.setdefault((part, names.get(store, store), names.get(problem, problem)), {})
                row.setdefault(place, {})[beta] = figures
    if not cells:
        return None
    betas = sorted({beta for row in cells.values() for held in row.values() for beta in held})
    rows = sorted(cells, key=lambda key: (key[0], _solved(cells[key]), key))
    # Where there are too many, those go first that no program makes any difference to.
    kept = sorted(rows, key=lambda key: _solved(cells[key]) in (0, 100))[:ROWS]
    return {
        "programs": [entry if isinstance(entry, str) else f"round {entry}" for entry in programs],
        "betas": betas,
        "stores": {names[str(store["path"])]: store["model"] for store in run.config["stores"]},
        "rows": [
            {
                "part": key[0],
                "store": key[1],
                "problem": key[2],
                "cells": [
                    [cells[key].get(place, {}).get(beta) for beta in betas] for place in range(len(programs))
                ],
            }
            for key in rows
            if key in set(kept)
        ],
        "left_out": len(rows) - len(kept),
    }


def _means(frame: pl.DataFrame) -> Sequence[tuple[Any, ...]]:
    import polars as pl

    means = frame.group_by("store", "problem", "beta").agg(
        (100 * pl.col("correct").mean()).round().cast(pl.Int64),
        pl.col("tokens", "sequential").mean().round().cast(pl.Int64),
        pl.len(),
    )
    return means.rows()


def _solved(row: Mapping[int, Mapping[float, Sequence[int]]]) -> float:
    shares = [figures[0] for held in row.values() for figures in held.values()]
    return sum(shares) / len(shares)
