"""What a proposer may see and do in one round: feedback problems under aliases, nothing of the others."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from env.program import Program, ProgramError, check
from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.controller_api import CONTROLLER_API
from search_agent.feedback.verdict import aliases
from search_agent.pareto import parents
from search_agent.proposal import Usage, Vouches
from search_agent.race import SELECTION
from search_agent.scoring import score

if TYPE_CHECKING:
    import polars as pl

    from env.store import Store

# What a search can do without, to see what it is good for: `--ablate`.
ABLATIONS = {
    "traces": "proposers see no action logs",
    "beta": "programs are measured at beta 0.5 alone, as if there were no knob",
    "feedback": "every proposal is independent of all others: a single shot",
    "racing": "no duplicates, no dropping: every program is measured whole",
}
ONE_BETA = """
## In this search

Every program is measured at beta = 0.5 alone: what `schedule` says of other betas plays no role.
"""
# Keys of a record that tell of the selection problems.
PRIVATE = (SELECTION, "race")


class Workbench:
    """One round's view of the search.

    Stores appear as "s1", "s2", ... with their model's name, problems as "p01", "p02", ... (the same alias in
    every store that has the problem). Question texts, hashes, gold answers, answer strings and whatever
    concerns selection or hold-out problems cannot be had from here.

    Attributes:
        round: number that the proposal gets if no other comes first, from 1.
        rng: generator seeded by (run seed, round, lane).
        api: the controller API, as text for a prompt.
        examples: shipped controllers, name to source.
        stores: alias to model name.
        about_stores: alias to model name, how long a segment is and what a probe costs.
        problems: aliases of the feedback problems.
        seeds: those that results and traces are about.
        betas: the grid that every program is evaluated on.
        ablated: what this run does without, of `ABLATIONS`.

    Args:
        seen: rounds after this one cannot be had from here (None = all there are): a proposer that takes its
            time works on one state of the archive, which is recorded with its proposal.
        lane: tells apart proposers that work at the same time.
        role: how `parents` are picked, see `search_agent.pareto.parents`.
    """

    def __init__(
        self,
        run: Run,
        arena: Arena,
        round: int,
        examples: Mapping[str, str],
        vouches: Vouches,
        *,
        seen: int | None = None,
        lane: int = 0,
        role: str = "explore",
        ablated: Collection[str] = (),
    ) -> None:
        self._run, self._arena, self._vouches = run, arena, vouches
        self._stores = {f"s{k}": store for k, store in enumerate(arena.stores, 1)}
        self._problems = {f"p{k:02d}": problem for k, problem in enumerate(arena.splits.feedback, 1)}
        self._seen = 0 if "feedback" in ablated else seen
        self._role = role
        self.ablated = frozenset(ablated)
        self.round = round
        self.rng = random.Random(f"{run.config['seed']} {round} {lane}")
        self.api = CONTROLLER_API + (ONE_BETA if "beta" in ablated else "")
        self.examples = dict(examples)
        self.stores = {alias: store.model for alias, store in self._stores.items()}
        self.about_stores = {
            alias: _about(store, arena.probe_tokens) for alias, store in self._stores.items()
        }
        self.problems = list(self._problems)
        self.seeds = arena.feedback_seeds
        self.betas = tuple(arena.betas)

    def history(self) -> list[dict[str, Any]]:
        """Earlier rounds, oldest first: their records without the selection figures."""
        return [_public(record) for record in self._run.rounds() if self._knows(record["round"])]

    @cached_property
    def parents(self) -> list[int]:
        """Up to two earlier rounds to build on, of different lineages: the archive's suggestion."""
        return parents(self.history(), self.rng, self._role)

    def baselines(self) -> list[dict[str, Any]]:
        """The published controllers on the feedback problems, in the form of `history`."""
        return [_public(record) for record in self._run.baselines()]

    def read_controller(self, round: int) -> str:
        """The program of an earlier round.

        Raises:
            LookupError: there is no such round, or it left no program.
        """
        source = self._run.source(round) if self._knows(round) else None
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

        failed = pl.col("error") != ""
        rows: pl.DataFrame = (
            self.episodes(round)
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

    def episodes(self, entry: int | str) -> pl.DataFrame:
        """Every feedback episode of an evaluated round, or of a published controller (by name).

        Returns:
            The columns of `env.evaluate.Episodes.frame`, stores and problems under their aliases.

        Raises:
            LookupError: there is no such round, or it was not evaluated.
        """
        known = isinstance(entry, str) or self._knows(entry)
        frame = self._run.episodes(entry, "feedback") if known else None
        if frame is None:
            raise LookupError(f"round {entry} was not evaluated; see the history for those that were")
        return self._under_aliases(frame)

    def hindsight(self, round: int) -> pl.DataFrame:
        """What a sample of a round's feedback episodes lost and wasted, see `search_agent.feedback.sample`.

        Raises:
            LookupError: there is no such round, or it left no program.
        """
        self.read_controller(round)
        return self._under_aliases(self._arena.hindsight(self._run.program(round, self._vouches)))

    def traces(
        self, round: int, *, store: str, problem: str, beta: float, seed: int | None = None
    ) -> list[dict[str, Any]]:
        """The engine's action log of one episode of an earlier round's program (see `env.evaluate.trace`).

        Raises:
            LookupError: no such round, store, problem, or seed (of `seeds`; None = the first), or a run
                without traces.
        """
        if "traces" in self.ablated:
            raise LookupError("this run does without traces")
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
        points = [] if "feedback" in self.ablated else figures["points"]
        return {"ok": not figures["errors"], "error": figures["error"], "points": points}

    def record_call(self, call: Mapping[str, object]) -> None:
        """Put one model call on the books at once: they hold what was paid for, whatever it led to."""
        self._run.record_call({"round": self.round, **call})

    def spent(self) -> Usage:
        """What the model calls of the run cost so far, those of killed rounds too."""
        return self._run.spent()

    def _under_aliases(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        alias = {real: alias for alias, real in aliases(self._arena).items()}
        return frame.with_columns(pl.col("store", "problem").replace_strict(alias))

    def _knows(self, round: int) -> bool:
        return self._seen is None or round <= self._seen


def _public(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what it says about the selection problems, be it by its status."""
    public = {key: value for key, value in record.items() if key not in PRIVATE}
    if (record.get("race") or {}).get("part") == SELECTION:
        public |= {"status": "evaluated", "error": ""}
    # The record's own verdict on monotonicity is about the selection problems too.
    return public | {"monotone": not record["feedback"] or record["feedback"]["monotone"]}


def _about(store: Store, probe_tokens: int) -> str:
    rule, length = store.meta.get("segment_rule"), store.segment_tokens
    segments = f"a segment is {length} tokens" if length else f"segments: {rule or 'of no fixed length'}"
    return f"{store.model}, {segments}, a probe costs {probe_tokens} tokens where it is not known"
