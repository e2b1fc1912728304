"""How hard a problem seems: a few whole branches are scouts, and the fewer of them agree the harder it is."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from env.episode import BRANCH, FINISH
from env.index import Index
from env.order import rank
from env.replay import Replay
from env.stand import Ints
from env.store import Store

# Episodes that scout at a time.
WAVE = 4096


def agreement(store: Store, seeds: Sequence[int], scouts: int) -> pl.DataFrame:
    """How many scouts agree at most, in every episode of a store.

    Returns:
        A row an episode: store (its path), problem (question hash), seed, agreeing (0 to `scouts`; a scout
        without an answer agrees with nobody).
    """
    index = Index.build(store.forest())
    hashes = store.problems["question_hash"].to_pylist()
    problems = np.tile(np.arange(len(hashes)), len(seeds))
    repeated = np.repeat(np.asarray(seeds, np.int64), len(hashes))
    parts = [
        _agreeing(Replay(index, problems[at : at + WAVE], repeated[at : at + WAVE]), scouts)
        for at in range(0, len(problems), WAVE)
    ]
    return pl.DataFrame(
        {
            "problem": [hashes[p] for p in problems],
            "seed": repeated,
            "agreeing": np.concatenate(parts),
        }
    ).select(pl.lit(store.path).alias("store"), pl.all())


def _agreeing(replay: Replay, scouts: int) -> Ints:
    episodes = np.arange(len(replay))

    def actions(kind: int, counts: Ints | int) -> Ints:
        """One for each episode, as `env.episode` lays them out."""
        return np.stack(np.broadcast_arrays(episodes, kind, 0, counts, 0), axis=1)

    rows = replay.step(actions(BRANCH, scouts), np.zeros(0, np.int64)).rows
    owner = np.repeat(episodes, rows)
    answers = replay.step(actions(FINISH, rows), rank(owner)).answer
    given = np.stack([owner, answers])[:, answers >= 0]
    pairs, counts = np.unique(given, axis=1, return_counts=True)
    most = np.zeros(len(replay), np.int64)
    np.maximum.at(most, pairs[0], counts)
    return most
