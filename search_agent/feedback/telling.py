"""Three episodes worth reading: where accuracy was lost, where tokens were wasted, where a change told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

KEYS = ("store", "problem", "beta", "seed")


def telling(past: pl.DataFrame, pairs: pl.DataFrame | None) -> list[tuple[str, dict[str, Any], str]]:
    """Up to three episodes of different problems: why to read it, which it is, what hindsight says of it.

    The first is lost in the commonest way, the second spent the largest share of its tokens after the answer
    had settled, the third is one that the parent had right (else wrong). Of several the one of the middle
    betas, where there is both something to lose and something to save; then the first.

    Args:
        past: of `search_agent.feedback.sample`, stores and problems under their aliases.
        pairs: of `search_agent.feedback.change`, or None where there is no parent.
    """
    import polars as pl

    past = past.with_columns(
        middle=(pl.col("beta") - 0.5).abs(),
        settled_share=(pl.col("settled") / pl.col("tokens").clip(1)).round(1),
    ).sort("middle", *KEYS)
    chosen: list[tuple[str, dict[str, Any], str]] = []

    def choose(why: str, candidates: pl.DataFrame) -> bool:
        taken = [where["problem"] for _, where, _ in chosen]
        fresh = candidates.filter(~pl.col("problem").is_in(taken))
        for row in fresh.head(1).to_dicts():
            chosen.append((why, {key: row[key] for key in KEYS}, _told(row)))
        return bool(len(fresh))

    losses = past.filter(pl.col("loss") != "")
    if len(losses):
        counts = losses.group_by("loss").len().sort("len", "loss", descending=[True, False])
        commonest = counts["loss"][0]
        choose(f"lost, {commonest}", losses.filter(loss=commonest))
    settled = past.filter((pl.col("settled_share") > 0) & pl.col("correct"))
    choose(
        "right, and longest at it after it had settled",
        settled.sort("settled_share", "middle", *KEYS, descending=[True, *[False] * 5]),
    )
    if pairs is not None:
        flipped = past.join(pairs.select(*KEYS, "won", "lost"), on=KEYS, maintain_order="left")
        if not choose("newly wrong", flipped.filter("lost")):
            choose("newly right", flipped.filter("won"))
    # Where one of these does not occur, what spent most without need is still worth a look.
    rest = past.with_columns(idle=pl.col("tokens") - pl.col("cheapest")).sort(
        "idle", *KEYS, descending=[True, *[False] * 4]
    )
    while len(chosen) < 3 and choose("spent most without need", rest):
        pass
    return chosen


def _told(row: dict[str, Any]) -> str:
    """What hindsight says of an episode."""
    if not row["first_led"]:
        return (
            "Hindsight: no branch within reach ends right."
            if not row["possible"]
            else "Hindsight: no answer."
        )
    lost = f"; lost: {row['loss']}" if row["loss"] else ""
    return (
        f"Hindsight: its answer first led in round {row['first_led']} and had settled in round "
        f"{row['settled_in']} of {row['rounds']}{lost}"
    )
