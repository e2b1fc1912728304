"""Hindsight on a program: a few of its episodes are played once more, this time with a log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from env.program import GRID
from search_agent.feedback.hindsight import look_back

if TYPE_CHECKING:
    import polars as pl

    from env.program import Program
    from env.store import Store

# Enough for shares to a few percent; the logs of more would take longer than some evaluations.
EPISODES = 240


def sample(
    stores: Sequence[Store],
    program: Program,
    problems: Sequence[str],
    seeds: Sequence[int],
    *,
    betas: Sequence[float] = GRID,
    **options: Any,
) -> pl.DataFrame:
    """Losses and wastes of about `EPISODES` episodes, the same ones for every program.

    They are spread evenly over stores and betas: all the problems with the first few of the seeds, or where
    there are too many, the first few problems with the first seed. At least one problem of each store.

    Args:
        problems: question hashes.
        options: as `env.evaluate.trace` takes them (protocol, probe_tokens, i_trust_this_code).

    Returns:
        `store` (its path), `problem` (question hash), `beta`, then as `look_back` has it. Episodes that were
        not run because earlier ones had failed are left out.
    """
    import polars as pl

    from env.unit import Unit, play_unit

    frames = []
    for store in stores:
        names = store.problems["question_hash"].to_pylist()
        place = {name: number for number, name in enumerate(names)}
        mine = [place[name] for name in problems if name in place]
        cell = max(1, EPISODES // (len(stores) * len(betas)))
        mine, few = mine[:cell], seeds[: max(1, cell // max(1, len(mine)))]
        for beta in betas if mine else ():
            unit = Unit(
                store=store.path,
                program=program,
                beta=float(beta),
                overrides={},
                seeds=tuple(few),
                problems=tuple(mine),
                max_branches=None,
                isolation="none" if program.trusted else "strict",
                log=True,
                **options,
            )
            frames += [
                look_back(wave.replay, wave.errors).select(
                    pl.lit(store.path).alias("store"),
                    pl.Series("problem", [names[at] for at in wave.replay.problems.tolist()]),
                    pl.lit(float(beta)).alias("beta"),
                    pl.all(),
                )
                for wave in play_unit(unit).waves
            ]
    return pl.concat(frames)
