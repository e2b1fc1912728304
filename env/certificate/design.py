"""What a certificate compares, and beforehand how likely it is to decide and how many tokens that takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from env.certificate.branches import TESTS, Branches, stored
from env.certificate.equivalence import Finding, Margin, gap
from env.evaluate import evaluate
from env.index import Index
from env.program import Program
from env.statistics import MIN_PROBLEMS, POWER, Floats
from env.store import Store

if TYPE_CHECKING:
    import polars as pl

# What is compared of every controller, by the columns of its episodes: accuracy, cost, and what it decided.
FIGURES = {
    "accuracy": "correct",
    "tokens": "tokens",
    "sequential tokens": "sequential",
    "branches opened": "granted",
    "rounds": "rounds",
}
# And of branches themselves, by attribute.
OF_BRANCHES = {"pass rate": "correct", "length": "tokens"}
# Replays of each problem at least, and how many for each live episode.
REPLAYS, REPLAYS_AN_EPISODE = 64, 4
SIMULATIONS = 400
# How many times as much is thought of if what was asked for is too little.
MORE = (2, 4, 8, 16)

# For each figure float64[P, seeds].
Replayed = Mapping[str, Floats]


@dataclass(frozen=True)
class Design:
    """What is compared with what, fixed before anything is drawn.

    Attributes:
        store: claims to describe the model.
        problems: their numbers there.
        programs: the controller and the baselines.
        beta: of all of them.
        branches: fresh ones of each problem, and each of its arms.
        episodes: live ones of each problem, by each program.
        accuracy: margin, as a share of problems.
        tokens: margin of tokens and decisions, as a share of them.
        i_trust_this_code: as in `env.evaluate.evaluate`.
    """

    store: Store
    problems: Sequence[int]
    programs: Sequence[Program]
    beta: float
    branches: int
    episodes: int
    accuracy: float
    tokens: float
    i_trust_this_code: bool = False

    @cached_property
    def index(self) -> Index:
        """Of the store."""
        return Index.build(self.store.forest())

    @property
    def max_branches(self) -> int:
        """That an episode of any problem may open at the root, live and replayed."""
        return int(self.index.ceilings[list(self.problems)].min())

    @property
    def names(self) -> list[str]:
        """Of the problems."""
        return [self.index.forest.question_hash[number] for number in self.problems]

    @property
    def tests(self) -> int:
        """Of the whole certificate."""
        return len(TESTS) + len(OF_BRANCHES) + len(FIGURES) * len(self.programs)

    def margin(self, figure: str) -> Margin:
        """How far a figure may be off."""
        is_share = figure in ("accuracy", "pass rate")
        return Margin(self.accuracy if is_share else self.tokens, not is_share)

    def known(self) -> dict[tuple[str, int], Branches]:
        """The stored branches of each problem, by its name, and arm."""
        index = self.index
        probed = index.has_probes and not index.has_silent_nodes
        return {
            (index.forest.question_hash[problem], arm): stored(index.forest, problem, arm, probed)
            for problem in self.problems
            for arm in range(index.arms)
        }

    def replay(self, progress: Callable[[int, int], None]) -> "dict[str, Replayed]":
        """The figures of every program by name. Raises UserError as `evaluate`, or as its episodes do."""
        seeds = range(max(REPLAYS, REPLAYS_AN_EPISODE * self.episodes))
        found = evaluate(
            [self.store],
            self.programs,
            betas=[self.beta],
            seeds=seeds,
            problems=set(self.names),
            max_branches=self.max_branches,
            i_trust_this_code=self.i_trust_this_code,
            progress=progress,
        )
        return {program.name: self._figures(found.frame, program, len(seeds)) for program in self.programs}

    def _figures(self, frame: "pl.DataFrame", program: Program, seeds: int) -> Replayed:
        import polars as pl

        from env.errors import UserError
        from env.statistics import REPLAYABLE

        mine = frame.filter(pl.col("controller") == program.name)
        failed = mine.filter(pl.col("error") != "")
        if len(failed):
            raise UserError(
                f"{program.name} fails in {len(failed)} of {len(mine)} replayed episodes, so there is "
                f"nothing to hold live ones against: {failed['error'][0]}"
            )
        asked, granted = int(mine["asked"].sum()), int(mine["granted"].sum())
        if asked and granted < asked * (1 - REPLAYABLE):
            raise UserError(
                f"{program.name} cannot be replayed on {self.store.path}, which lacks "
                f"{1 - granted / asked:.0%} of the branches that it asks for; take a smaller --beta, or a "
                "store with more"
            )
        order = {name: place for place, name in enumerate(self.names)}
        mine = mine.with_columns(place=pl.col("problem").replace_strict(order)).sort("place", "seed")
        columns = {name: mine[column].to_numpy() for name, column in FIGURES.items()}
        return {name: each.astype(np.float64).reshape(-1, seeds) for name, each in columns.items()}


class Power(NamedTuple):
    """How a certificate would turn out if the served model were the stored one.

    Attributes:
        holds: how often it would say so.
        fails: how often it would fail.
        detectable: for each figure, "NAME: FIGURE", the difference that fails 4 times in 5.
    """

    holds: float
    fails: float
    detectable: Mapping[str, float]


class Bill(NamedTuple):
    """Tokens that the model has to decode: fresh branches, their probes, and each program's episodes."""

    branches: int
    probes: int
    programs: Mapping[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return self.branches + self.probes + sum(self.programs.values())


def power(
    design: Design,
    known: Sequence[Branches],
    replayed: Mapping[str, Replayed],
    rng: np.random.Generator,
    more: int = 1,
) -> Power:
    """Simulate certificates from the store itself: fresh branches and live episodes drawn from what it has.

    What is not simulated is that the store's branches are a sample themselves, as far as controllers go; and
    the permutation tests, which fail as often as they are allowed to.

    Args:
        design: of the certificate.
        known: the stored branches of its problems.
        replayed: see `Design.replay`.
        rng: decides the draws.
        more: so many times as many branches and episodes.
    """
    holds, fails = np.ones(SIMULATIONS, np.bool_), np.zeros(SIMULATIONS, np.bool_)
    detectable: dict[str, float] = {}

    def tell(name: str, figure: str, live: Floats, replay: Floats) -> None:
        margin = design.margin(figure)
        found = gap(live, replay, margin.ratio)
        holds[:] &= found.within(margin)
        fails[:] |= found.beyond(margin, design.tests)
        typical = found._replace(error=np.asarray(np.median(found.error)))
        detectable[f"{name}: {figure}"] = Finding(figure, 0.0, 0.0, typical, margin, design.tests).detectable

    for figure, attribute in OF_BRANCHES.items():
        means = []
        for draws in (lambda has: design.branches * more, len):
            # The store's branches are a sample as well.
            values = [np.asarray(getattr(each, attribute), np.float64) for each in known]
            drawn = [
                each[rng.integers(len(each), size=(SIMULATIONS, draws(each)))].mean(1) for each in values
            ]
            means.append(np.stack(drawn, axis=1))
        tell("branches", figure, means[0], means[1])
    for name, figures in replayed.items():
        problems, seeds = next(iter(figures.values())).shape
        chosen = rng.integers(seeds, size=(SIMULATIONS, problems, design.episodes * more))
        for figure, each in figures.items():
            live = each[np.arange(problems)[:, None], chosen].mean(-1)
            replay = np.broadcast_to(each.mean(1), live.shape)
            tell(name, figure, live, replay)
    return Power(float(holds.mean()), float(fails.mean()), detectable)


def enough(
    design: Design,
    known: Sequence[Branches],
    replayed: Mapping[str, Replayed],
    rng: np.random.Generator,
) -> int | None:
    """How many times as many branches and episodes would say "holds" 4 times in 5; None = more than 16."""
    return next((more for more in MORE if power(design, known, replayed, rng, more).holds >= POWER), None)


def bill(design: Design, known: Sequence[Branches], replayed: Mapping[str, Replayed]) -> Bill:
    """What it takes, by the store's own lengths."""
    probe_tokens = design.index.forest.probe_tokens
    a_probe = float(probe_tokens[probe_tokens >= 0].mean()) if (probe_tokens >= 0).any() else 0.0
    branches = sum(design.branches * float(each.tokens.mean()) for each in known)
    asked = sum(design.branches * float(np.mean([len(some) - 1 for some in each.answers])) for each in known)
    programs = {
        name: round(design.episodes * float(figures["tokens"].mean(1).sum()))
        for name, figures in replayed.items()
    }
    return Bill(round(branches), round(asked * a_probe), programs)


def told(value: Power, more: int | None, design: Design) -> list[str]:
    """The power in words."""
    if len(design.problems) < MIN_PROBLEMS:
        return [f"so few problems can tell nothing, whatever comes: it takes {MIN_PROBLEMS} at least"]
    lines = [
        f"if replay is right, this says so with probability {value.holds:.0%}, and fails in {value.fails:.1%}"
    ]
    worst = {figure: 0.0 for figure in (*OF_BRANCHES, *FIGURES)}
    for name, off in value.detectable.items():
        figure = name.partition(": ")[2]
        worst[figure] = max(worst[figure], off)
    accuracy, tokens = worst["accuracy"], worst["tokens"]
    lines.append(
        f"it fails 4 times in 5 if accuracy is off by {100 * accuracy:.1f} points, or tokens by {tokens:.0%}"
    )
    if value.holds < POWER:
        if more is None:
            lines.append("that is little: it takes more problems, or wider margins")
        else:
            need = f"--episodes {more * design.episodes} --branches {more * design.branches}"
            lines.append(f"that is little; {need} would do")
    return lines


def as_dict(value: Power, cost: Bill) -> dict[str, Any]:
    """Power and bill in plain values."""
    return {
        "holds": value.holds,
        "fails": value.fails,
        "detectable": dict(value.detectable),
        "tokens": {"branches": cost.branches, "probes": cost.probes, **cost.programs, "total": cost.total},
    }
