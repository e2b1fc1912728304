"""Per-episode frames made up from outcomes, for tests of what is computed from them."""

import numpy as np
import polars as pl


def episodes(correct, tokens=1000, *, sequential=None, problems=None, beta=0.5, **columns) -> pl.DataFrame:
    """The episodes of one row: `correct` is [problems, seeds]; `tokens` and `sequential` broadcast to it."""
    correct = np.atleast_2d(np.asarray(correct, bool))
    count, seeds = correct.shape
    problems = [f"q{p}" for p in range(count)] if problems is None else list(problems)
    spent = np.broadcast_to(tokens, correct.shape).ravel()
    critical = spent if sequential is None else np.broadcast_to(sequential, correct.shape).ravel()
    values = {
        "store": "stores/a",
        "model": "m",
        "dataset": "d",
        "controller": "c",
        "beta": float(beta),
        "settings": "{}",
        "problem": np.repeat(problems, seeds),
        "seed": np.tile(np.arange(seeds), count),
        "correct": correct.ravel(),
        "decode": spent.astype(np.int64),
        "probe": 0,
        "prm": 0,
        "tokens": spent.astype(np.int64),
        "sequential": critical.astype(np.int64),
        "rounds": 1,
        "asked": 100,
        "granted": 100,
        "error": "",
        "isolation": "none",
        "protocol": "standard",
    }
    size = correct.size
    return pl.DataFrame({name: np.broadcast_to(v, size) for name, v in {**values, **columns}.items()})
