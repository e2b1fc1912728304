"""A policy from stores and controllers, and what it is worth on problems that it was not fitted to."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import polars as pl

from env.errors import UserError
from env.evaluate import evaluate
from env.failures import Failures, failures
from env.frontier import reference
from env.program import Program
from env.store import Store
from search_agent.policy import fitting
from search_agent.policy.assemble import Player, assemble
from search_agent.policy.scouting import agreement

# Told which part is under way, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]
# What is called so plays as if the difficulties were known.
KNOWN = "known difficulty"


@dataclass(frozen=True)
class Experiment:
    """What is tried, and how.

    Attributes:
        programs: the controllers to choose from.
        betas: at which they are tried; the policy has its levels there, too.
        seeds: of every problem.
        scouts: whole branches that tell how hard a problem is.
        workers: processes; None = as the work needs.
        progress: told of the work.
    """

    programs: Sequence[Program]
    betas: Sequence[float]
    seeds: range
    scouts: int
    workers: int | None = None
    progress: Progress = lambda part, done, total: None

    def play(self, part: str, stores: Sequence[Store], programs: Sequence[Program]) -> pl.DataFrame:
        """The episodes of some programs."""
        return evaluate(
            stores,
            programs,
            betas=self.betas,
            seeds=self.seeds,
            workers=self.workers,
            progress=lambda done, total: self.progress(part, done, total),
        ).frame

    def after_scouts(self, program: Program) -> Program:
        """The same controller, going on from scouts whatever they say."""
        levels = [(beta, [(program.name, beta)] * 2) for beta in self.betas]
        source = assemble({program.name: program.source}, self.scouts, (), levels, program.name)
        return Program(program.name, source, program.trusted, program.path)

    def agreeing(self, stores: Sequence[Store]) -> pl.DataFrame:
        """How many scouts agree in each episode."""
        return pl.concat(agreement(store, self.seeds, self.scouts) for store in stores)


@dataclass(frozen=True)
class Policy:
    """What was fitted.

    Attributes:
        experiment: that it was fitted by.
        stores: that it was fitted on, in words.
        problems: how many.
        easier: how many scouts agree at least, in each bin but the hardest.
        shares: of the problems' episodes, in each bin, the hardest first.
        levels: who plays.
        single: the best controller on its own.
        left_out: players that asked for more than the stores have, so that nobody knows what they can do.
        failed: players of which an episode failed; those that never ran are not among the players.
        passing: the pass rates that part the bins of an oracle, which hold as many problems.
        oracle: who would play if the pass rates were known, without scouts.
    """

    experiment: Experiment
    stores: str
    problems: int
    easier: tuple[int, ...]
    shares: tuple[float, ...]
    levels: Sequence[fitting.Level]
    single: str
    left_out: tuple[Player, ...]
    failed: tuple[Failures, ...]
    passing: tuple[float, ...]
    oracle: Sequence[fitting.Level]

    @property
    def source(self) -> str:
        """The controller file."""
        sources = {program.name: program.source for program in self.experiment.programs}
        levels = [(level.beta, level.players) for level in self.levels]
        return assemble(sources, self.experiment.scouts, self.easier, levels, self.docstring())

    def program(self, name: str) -> Program:
        """The same as a controller that can be played."""
        return Program(name, self.source, all(program.trusted for program in self.experiment.programs))

    def docstring(self) -> str:
        """Of the file: what it does, and where it is from."""
        asked = self.experiment
        text = (
            f"{asked.scouts} whole branches are scouts: the fewer of them agree, the harder the problem. Who "
            "was best at such problems for the same tokens goes on from them.",
            f"Written by `autotts policy` from {self.problems} problems of {self.stores}, {len(asked.seeds)} "
            f"seeds, betas {', '.join(f'{beta:g}' for beta in asked.betas)}; out of "
            f"{', '.join(program.name for program in asked.programs)}.",
        )
        about = (
            "Compute-optimal policy (Snell et al. 2024, arXiv:2408.03314): who plays depends on difficulty."
        )
        wrapped = [line for part in text for line in ("", *textwrap.wrap(part, 110))]
        found = [line for part in self.lines() for line in textwrap.wrap(part, 110, subsequent_indent="    ")]
        return "\n".join([about, *wrapped, "", *found, ""])

    def lines(self) -> list[str]:
        """The bins and the levels."""
        bounds = [0, *self.easier, self.experiment.scouts + 1]
        bins = [
            f"{low} to {high - 1} ({share:.0%})" if high - low > 1 else f"{low} ({share:.0%})"
            for (low, high), share in zip(pairwise(bounds), self.shares, strict=True)
        ]
        lines = [f"Scouts that agree, by bin: {', '.join(bins)}.", *map(describe, self.levels)]
        never_ran = [(each.controller, each.beta) for each in self.failed if each.never_ran]
        for reason, players in (("Not replayable", self.left_out), ("Failed", never_ran)):
            if players:
                names = ", ".join(f"{name} at {beta:g}" for name, beta in players)
                lines.append(f"{reason} there, and so not among them: {names}.")
        return lines


def describe(level: fitting.Level) -> str:
    """A level in one line."""
    names = " | ".join(f"{name} at {beta:g}" for name, beta in level.players)
    text = f"beta {level.beta:g}: {names}: {level.accuracy:.1%} for {level.tokens:,.0f} tokens"
    if level.gain is None or level.gain.interval is None:
        return text
    low, high = (100 * bound for bound in level.gain.interval)
    return f"{text}, {100 * level.gain.value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def learn(experiment: Experiment, stores: Sequence[Store]) -> Policy:
    """Fit a policy.

    Raises:
        UserError: no controller runs, or gets all that it asks of the stores.
    """
    plain = experiment.play("controllers", stores, experiment.programs)
    scouted = experiment.play("going on", stores, [experiment.after_scouts(p) for p in experiment.programs])
    failed = {(each.controller, each.beta): each for each in (*failures(scouted), *failures(plain))}
    never_ran = {player for player, each in failed.items() if each.never_ran}
    programs = [
        program
        for program in experiment.programs
        if any((program.name, beta) not in never_ran for beta in experiment.betas)
    ]
    if not programs:
        raise UserError(f"no controller is left to choose from: {next(iter(failed.values()))}")
    experiment = replace(experiment, programs=programs)
    plain, scouted = (fitting.running(frame) for frame in (plain, scouted))
    plain, scouted = fitting.replayable(plain), fitting.replayable(scouted)
    pair = ["controller", "beta"]
    everyone = [(program.name, beta) for program in experiment.programs for beta in experiment.betas]
    plain = plain.join(scouted.select(pair).unique(), on=pair, how="semi", maintain_order="left")
    scouted = scouted.join(plain.select(pair).unique(), on=pair, how="semi", maintain_order="left")
    if plain.is_empty():
        raise UserError(
            "no controller is replayable on these stores: each asked for more than there is; choose smaller "
            "--beta or --scouts, or stores with more branches"
        )
    agreeing = experiment.agreeing(stores)
    easier = fitting.edges(agreeing, experiment.scouts)
    count = len(easier) + 1
    binned = fitting.Tally.of(scouted, binned_by(agreeing, "agreeing", easier), count)
    rates = pass_rates(stores)
    shares = binned.share.mean(axis=0)
    passing = tuple(np.quantile(rates["rate"].to_numpy(), np.cumsum(shares)[:-1]).tolist())
    known = fitting.Tally.of(plain, binned_by(rates, "rate", passing), count)
    rng = np.random.default_rng(0)
    return Policy(
        experiment=experiment,
        stores=", ".join(f"{store.model} on {store.dataset}" for store in stores),
        problems=len(binned.share),
        easier=easier,
        shares=tuple(shares.tolist()),
        levels=fitting.fit(known, binned, experiment.betas, rng),
        single=fitting.best_single(known),
        left_out=tuple(player for player in everyone if player not in {*known.players, *never_ran}),
        failed=tuple(failed.values()),
        passing=passing,
        oracle=fitting.fit(known, known, experiment.betas, rng),
    )


def binned_by(frame: pl.DataFrame, column: str, bounds: Sequence[float]) -> pl.DataFrame:
    """With a column `bin`: how many of the bounds are not above what is in a column."""
    values = frame[column].to_numpy()
    return frame.with_columns(bin=pl.Series(np.searchsorted(np.array(bounds), values, "right")))


def pass_rates(stores: Sequence[Store]) -> pl.DataFrame:
    """How likely one whole branch is right: the columns store, problem and rate."""
    parts = []
    for store in stores:
        rates = reference(store.forest()).accuracy
        columns = {"store": [store.path] * len(rates), "problem": list(rates), "rate": list(rates.values())}
        parts.append(pl.DataFrame(columns))
    return pl.concat(parts)


def held_out(policy: Policy, stores: Sequence[Store], name: str) -> dict[str, pl.DataFrame]:
    """The episodes on other problems: those of the policy, of `KNOWN`, and of each controller, by name.

    `KNOWN` is a bound and no controller: its bins are of the pass rates, which nobody knows beforehand. Of
    the controllers, only the betas at which they got what they asked for.
    """
    experiment = policy.experiment
    plain = experiment.play("hold-out", stores, experiment.programs)
    bins = binned_by(pass_rates(stores), "rate", policy.passing)
    known = fitting.play(policy.oracle, plain, plain, bins)
    found = {
        name: experiment.play("hold-out, policy", stores, [policy.program(name)]),
        # Whoever plays: one row of figures for each level.
        KNOWN: known.with_columns(controller=pl.lit(KNOWN), isolation=pl.lit("none")),
    }
    for (controller,), frame in fitting.replayable(plain).group_by("controller", maintain_order=True):
        found.setdefault(str(controller), frame)
    return found
