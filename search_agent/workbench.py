"""What a proposer may see and do in one round: feedback problems under aliases, nothing of the others."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from env.program import GRID, Program, ProgramError, check
from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.controller_api import CONTROLLER_API
from search_agent.proposal import Usage, Vouches
from search_agent.scoring import score

if TYPE_CHECKING:
    import polars as pl


class Workbench:
    """One round's view of the search.

    Stores appear as "s1", "s2", ... with their model's name, problems as "p01", "p02", ... (the same alias in
    every store that has the problem). Question texts, hashes, gold answers, answer strings and whatever
    concerns selection or hold-out problems cannot be had from here.

    Attributes:
        round: number of the round being proposed, from 1.
        rng: generator seeded by (run seed, round).
        api: the controller API, as text for a prompt.
        examples: shipped controllers, name to source.
        stores: alias to model name.
        problems: aliases of the feedback problems.
        seeds: those that results and traces are about.
        betas: the grid that every program is evaluated on.
    """

    def __init__(
        self, run: Run, arena: Arena, round: int, examples: Mapping[str, str], vouches: Vouches
    ) -> None:
        self._run, self._arena, self._vouches = run, arena, vouches
        self._stores = {f"s{k}": store for k, store in enumerate(arena.stores, 1)}
        self._problems = {f"p{k:02d}": problem for k, problem in enumerate(arena.splits.feedback, 1)}
        self.round = round
        self.rng = random.Random(f"{run.config['seed']} {round}")
        self.api = CONTROLLER_API
        self.examples = dict(examples)
        self.stores = {alias: store.model for alias, store in self._stores.items()}
        self.problems = list(self._problems)
        self.seeds = arena.feedback_seeds
        self.betas = GRID

    def history(self) -> list[dict[str, Any]]:
        """Earlier rounds, oldest first: their records without the selection figures."""
        return [_public(record) for record in self._run.rounds()]

    def baselines(self) -> list[dict[str, Any]]:
        """The published controllers on the feedback problems, in the form of `history`."""
        return [_public(record) for record in self._run.baselines()]

    def read_controller(self, round: int) -> str:
        """The program of an earlier round.

        Raises:
            LookupError: there is no such round, or it left no program.
        """
        source = self._run.source(round)
        if source is None:
            raise LookupError(f"round {round} left no controller; see the history for those that did")
        return source

    def results(self, round: int) -> list[dict[str, Any]]:
        """Figures of an evaluated round, a row each store, problem and beta, means over seeds.

        Keys: store, problem, beta, accuracy, tokens, sequential_tokens, rounds, branches, errors (episodes),
        error (the first one's text).

        Raises:
            LookupError: there is no such round, or it was not evaluated.
        """
        import polars as pl

        frame = self._run.episodes(round, "feedback")
        if frame is None:
            raise LookupError(f"round {round} was not evaluated; see the history for those that were")
        stores = {str(store.path): alias for alias, store in self._stores.items()}
        problems = {problem: alias for alias, problem in self._problems.items()}
        failed = pl.col("error") != ""
        rows: pl.DataFrame = (
            frame.with_columns(
                pl.col("store").replace_strict(stores), pl.col("problem").replace_strict(problems)
            )
            .group_by("store", "problem", "beta")
            .agg(
                accuracy=pl.col("correct").mean(),
                tokens=pl.col("tokens").mean().round(),
                sequential_tokens=pl.col("sequential").mean().round(),
                rounds=pl.col("rounds").mean().round(1),
                branches=pl.col("granted").mean().round(1),
                errors=failed.sum(),
                error=pl.col("error").filter(failed).first().fill_null(""),
            )
            .sort("store", "problem", "beta")
        )
        return rows.to_dicts()

    def traces(
        self, round: int, *, store: str, problem: str, beta: float, seed: int | None = None
    ) -> list[dict[str, Any]]:
        """The engine's action log of one episode of an earlier round's program (see `env.evaluate.trace`).

        Raises:
            LookupError: no such round, store, problem, or seed (of `seeds`; None = the first).
        """
        if store not in self._stores:
            raise LookupError(f"no store {store!r}; there are {', '.join(self._stores)}")
        if problem not in self._problems:
            raise LookupError(f"no problem {problem!r}; there are {', '.join(self._problems)}")
        seed = self.seeds[0] if seed is None else seed
        if seed not in self.seeds:
            raise LookupError(f"no seed {seed}; there are {self.seeds[0]} to {self.seeds[-1]}")
        self.read_controller(round)
        program = self._run.program(round, self._vouches)
        return self._arena.trace(self._stores[store], program, beta, self._problems[problem], seed)

    def try_draft(self, source: str) -> dict[str, Any]:
        """Check a draft and run it on a few feedback problems.

        Returns:
            {"ok": whether it passed check and run, "error": why not, "points": figures at each beta}.
        """
        program = Program("draft", source, self._vouches(source, {}))
        try:
            check(source)
        except ProgramError as error:
            return {"ok": False, "error": str(error), "points": []}
        figures = score(self._arena.draft(program).frame, self._arena.references)
        return {"ok": not figures["errors"], "error": figures["error"], "points": figures["points"]}

    def record_call(self, call: Mapping[str, object]) -> None:
        """Put one model call on the books at once: they hold what was paid for, whatever it led to."""
        self._run.record_call({"round": self.round, **call})

    def spent(self) -> Usage:
        """What the model calls of the run cost so far, those of killed rounds too."""
        names = [field.name for field in fields(Usage) if field.name != "calls"]
        calls = self._run.calls()
        return sum((Usage(1, **{name: call.get(name, 0) for name in names}) for call in calls), Usage())


def _public(record: Mapping[str, Any]) -> dict[str, Any]:
    public = {key: value for key, value in record.items() if key != "selection"}
    # The record's own verdict on monotonicity is about the selection problems too.
    return public | {"monotone": not record["feedback"] or record["feedback"]["monotone"]}
