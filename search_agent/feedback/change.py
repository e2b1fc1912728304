"""What a change did, episode by episode: the same problem, beta and seed, played before and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_agent.feedback.verdict import PAIR

if TYPE_CHECKING:
    import polars as pl


def changes(ours: pl.DataFrame, theirs: pl.DataFrame) -> pl.DataFrame:
    """The episodes that both have played, a row a pair.

    Returns:
        store, problem, beta, seed, `won` (right, where the parent was wrong), `lost` (the reverse), `tokens`,
        `tokens_before`, `sequential`, `sequential_before`; in the order of the first four.
    """
    import polars as pl

    figures = ["correct", "tokens", "sequential"]
    return (
        ours.select(*PAIR, *figures)
        .join(theirs.select(*PAIR, *figures), on=PAIR, suffix="_before")
        .with_columns(
            won=pl.col("correct") & ~pl.col("correct_before"),
            lost=~pl.col("correct") & pl.col("correct_before"),
        )
        .drop("correct", "correct_before")
        .sort(PAIR)
    )


def summed(pairs: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """Pairs of `changes` by some keys, those with the largest effect first.

    Returns:
        The keys, `episodes`, `won`, `lost` (counts), means of the tokens, and `won_seed`, `lost_seed`: the
        first seeds of such episodes, None where there are none.
    """
    import polars as pl

    means = ("tokens_before", "tokens", "sequential_before", "sequential")
    return (
        pairs.group_by(keys)
        .agg(
            pl.len().alias("episodes"),
            pl.col("won", "lost").sum(),
            pl.col(means).mean(),
            won_seed=pl.col("seed").filter("won").min(),
            lost_seed=pl.col("seed").filter("lost").min(),
        )
        .with_columns(ratio=(pl.col("tokens").clip(1).log() - pl.col("tokens_before").clip(1).log()).abs())
        .sort(pl.max_horizontal("won", "lost"), "ratio", *keys, descending=[True, True, *[False] * len(keys)])
        .drop("ratio")
    )
