"""Who plays at which difficulty and budget: chosen on episodes, paired by problem.

Starting from the cheapest player in every bin of difficulty, that bin gets a dearer player next where a token
buys most accuracy: so a policy spends what it may spend where it is worth most. An exchange must gain more
than one standard error of the paired difference (the one-standard-error rule, Breiman et al. 1984), and what
all exchanges come to, scouts included, must gain as much on the best single players for the same tokens:
the simplest policy unless the data speak against it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from env.frontier import interpolate, pareto
from env.statistics import REPLAYABLE, Estimate, Floats, resample
from search_agent.policy.assemble import Player

# Fewer problems in a bin cannot tell players apart.
MIN_PROBLEMS = 15
# At which controllers are held against each other.
BUDGETS = 33


@dataclass(frozen=True, eq=False)
class Tally:
    """What O players came to on H problems in B bins of difficulty, the hardest first.

    Attributes:
        players: O of them.
        share: float64[H, B], of a problem's episodes; they sum to 1.
        correct: float64[H, B, O], share times accuracy.
        tokens: float64[H, B, O], share times tokens.
    """

    players: tuple[Player, ...]
    share: Floats
    correct: Floats
    tokens: Floats

    @classmethod
    def of(cls, frame: pl.DataFrame, bins: pl.DataFrame, count: int) -> "Tally":
        """Of the episodes of a frame.

        Args:
            frame: as `env.evaluate.Episodes.frame`; every player ran the same problems and seeds.
            bins: the columns `bin` (0 to `count` - 1), `store`, `problem` and, if it differs by seed, `seed`.
            count: of bins.
        """
        keys = [name for name in ("store", "problem", "seed") if name in bins.columns]
        cells = (
            frame.join(bins, on=keys)
            .group_by("controller", "beta", "problem", "bin")
            .agg(pl.len(), pl.col("correct", "tokens").sum())
        )
        players = frame.select("controller", "beta").unique(maintain_order=True).rows()
        problems = frame["problem"].unique().sort().to_list()
        at = (
            cells["problem"].replace_strict(problems, range(len(problems))).to_numpy(),
            cells["bin"].to_numpy(),
            np.array([players.index(each) for each in cells.select("controller", "beta").iter_rows()]),
        )
        sums = np.zeros((3, len(problems), count, len(players)))
        for values, name in zip(sums, ("len", "correct", "tokens"), strict=True):
            values[at] = cells[name].to_numpy()
        share, correct, tokens = sums / sums[0].sum(axis=1, keepdims=True)
        return cls(tuple(players), share[:, :, 0], correct, tokens)

    def played(self, who: Sequence[int]) -> tuple[float, Floats]:
        """Tokens of a problem, and the accuracy of each, if these players (by place) play the bins."""
        mine = self.tokens, self.correct
        tokens, correct = (values[:, np.arange(len(who)), who].sum(axis=1) for values in mine)
        return float(tokens.mean()), correct


@dataclass(frozen=True)
class Level:
    """Who plays from a beta on.

    Attributes:
        beta: of the policy.
        players: for each bin, the hardest first; or one who plays everything.
        tokens: of a problem, in the data that it was fitted to.
        accuracy: there.
        gain: there, on the single players for the same tokens; None for one of them.
    """

    beta: float
    players: tuple[Player, ...]
    tokens: float
    accuracy: float
    gain: Estimate | None = None


def running(frame: pl.DataFrame) -> pl.DataFrame:
    """The episodes of players of which any ran to its end; the others' cost nothing and say nothing."""
    return frame.filter((pl.col("error") == "").any().over("controller", "beta"))


def replayable(frame: pl.DataFrame) -> pl.DataFrame:
    """The episodes of players that got what they asked for; others' figures are of a narrower program."""
    asked, granted = (pl.col(name).sum().over("controller", "beta") for name in ("asked", "granted"))
    return frame.filter(asked - granted <= REPLAYABLE * asked)


def edges(agreeing: pl.DataFrame, scouts: int) -> tuple[int, ...]:
    """How many scouts agree at least in each bin but the hardest; each bin has `MIN_PROBLEMS`.

    An episode counts as its share of its problem's episodes.

    Args:
        agreeing: as `search_agent.policy.scouting.agreement`.
        scouts: of an episode.
    """
    share = pl.lit(1.0) / pl.len().over("problem")
    held = dict(agreeing.select("agreeing", share.alias("share")).group_by("agreeing").sum().iter_rows())
    found: list[int] = []
    inside = 0.0
    for count in range(scouts, 0, -1):
        inside += held.get(count, 0.0)
        harder = sum(problems for agree, problems in held.items() if agree < count)
        if min(inside, harder) >= MIN_PROBLEMS:
            found, inside = [count, *found], 0.0
    return tuple(found)


def fit(plain: Tally, binned: Tally, betas: Sequence[float], rng: np.random.Generator) -> list[Level]:
    """The levels of a policy, one for each of `betas`; neither tokens nor accuracy ever fall with beta.

    Args:
        plain: the players as they are: they alone can play everything.
        binned: the players as they would play in the bins; scouts may have made them dearer.
        betas: of the policy, upwards; what is spent grows with them by equal factors, as far as levels allow.
        rng: of the resamples.
    """
    tokens, correct = (values.sum(axis=1) for values in (plain.tokens, plain.correct))
    front = list(dict.fromkeys(pareto(tokens.mean(axis=0), correct.mean(axis=0)).tolist()))
    tokens, correct = tokens.mean(axis=0)[front], correct[:, front]
    levels = [
        Level(0.0, (plain.players[o],), float(tokens[k]), float(correct[:, k].mean()))
        for k, o in enumerate(front)
    ]
    # In a single bin there is nothing for scouts to tell.
    for who in exchanges(binned) if binned.share.shape[1] > 1 else ():
        spent, right = binned.played(who)
        # The single players, mixed so that they cost as much.
        mix = [np.interp(np.log(spent), np.log(tokens), unit) for unit in np.eye(len(front))]
        gain = right - correct @ np.array(mix)
        if _exceeds_error(gain):
            samples = resample(gain[:, None], np.zeros(len(gain), np.int64), rng)
            players = tuple(binned.players[o] for o in who)
            estimate = Estimate.of(samples[:, 0], len(gain))
            levels.append(Level(0.0, players, spent, float(right.mean()), estimate))
    costs, accuracy = (np.array([getattr(each, name) for each in levels]) for name in ("tokens", "accuracy"))
    levels = [levels[k] for k in dict.fromkeys(pareto(costs, accuracy).tolist())]
    steps = np.log([level.tokens for level in levels])
    wanted = steps[0] + (steps[-1] - steps[0]) * np.array(betas)
    return [
        replace(levels[int(np.abs(steps - at).argmin())], beta=beta)
        for beta, at in zip(betas, wanted, strict=True)
    ]


def exchanges(tally: Tally) -> Iterator[list[int]]:
    """Who plays each bin (by place): the cheapest first, then each time a dearer one in one of the bins."""
    spent = tally.tokens.mean(axis=0)
    who = np.lexsort((-tally.correct.mean(axis=0), spent), axis=1)[:, 0]
    bins = np.arange(len(who))
    while True:
        yield who.tolist()
        gains = tally.correct - tally.correct[:, bins, who][:, :, None]
        extra = spent - spent[bins, who][:, None]
        worth = np.where((extra > 0) & _exceeds_error(gains), gains.mean(axis=0), 0.0)
        worth = np.divide(worth, extra, out=np.zeros_like(worth), where=extra > 0)
        if not worth.any():
            return
        bin, player = np.unravel_index(worth.argmax(), worth.shape)
        who = np.where(bins == bin, player, who)


def _exceeds_error(gains: Floats) -> np.ndarray:
    """Whether gains (float64[H, ...], a row a problem) are more than one standard error of their mean."""
    exceeds: np.ndarray = gains.mean(axis=0) > gains.std(axis=0, ddof=1) / np.sqrt(len(gains))
    return exceeds


def best_single(plain: Tally) -> str:
    """The controller that is most accurate on its own, in the mean over budgets that all of them can pay."""
    tokens, accuracy = (values.sum(axis=1).mean(axis=0) for values in (plain.tokens, plain.correct))
    names = np.array([name for name, _ in plain.players])
    each = [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]
    budgets = np.geomspace(max(tokens[mine].min() for mine in each), tokens.max(), BUDGETS)
    fronts = [mine[pareto(tokens[mine], accuracy[mine])] for mine in each]
    worth = [interpolate(np.log(tokens[f]), accuracy[f], np.log(budgets)).mean() for f in fronts]
    return str(names[each[int(np.argmax(worth))][0]])


def play(
    levels: Sequence[Level], alone: pl.DataFrame, binned: pl.DataFrame, bins: pl.DataFrame
) -> pl.DataFrame:
    """The episodes that a policy plays, out of those of its players.

    Args:
        levels: of the policy.
        alone: episodes of players that play everything.
        binned: episodes of players in the bins.
        bins: as for `Tally.of`.

    Returns:
        A frame with the levels' betas; its `controller` is still each player's own.
    """
    keys = [name for name in ("store", "problem", "seed") if name in bins.columns]
    parts = []
    for level in levels:
        frame = alone if len(level.players) == 1 else binned.join(bins, on=keys)
        for bin, (name, beta) in enumerate(level.players):
            here = (pl.col("controller") == name) & (pl.col("beta") == beta)
            mine = here if len(level.players) == 1 else here & (pl.col("bin") == bin)
            parts.append(frame.filter(mine).select(alone.columns).with_columns(beta=pl.lit(level.beta)))
    return pl.concat(parts)
