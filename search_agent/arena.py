"""Where programs are measured: the stores of a search, its three parts, and who may run there how."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from env.executors import processors
from env.frontier import Reference, reference
from env.program import GRID
from search_agent.splits import Splits

if TYPE_CHECKING:
    import polars as pl

    from env.evaluate import Episodes
    from env.program import Program
    from env.store import Store

# Proposers see outcomes on these seeds only; what chooses a winner and what is reported uses seeds from 0.
PROPOSER_SEED = 1_000_000
SMOKE_PROBLEMS = 3
# What is compared in the end gets this many times the seeds of a round.
FINAL = 5


@dataclass
class Arena:
    """Runs programs on a part of the problems.

    Proposers in threads of their own may call `draft` and `trace`: these run in this process, one at a time,
    and so never wait for a round's evaluation, which runs in worker processes if there are more than one.

    Attributes:
        stores: the search stores.
        holdout: the stores of the hold-out: others, or the search stores themselves.
        splits: which problems belong to which part.
        seeds: how many seeds a round is evaluated on.
        protocol: "standard" or "published".
        probe_tokens: what a probe costs where the store does not know.
        i_trust_this_code: run untrusted programs even where nothing can isolate them.
        workers: processes; None = one a core. Changes no result.
        betas: the grid that every program is evaluated on.
        progress: called with (done, total) episodes of an evaluation, if given.
    """

    stores: Sequence[Store]
    holdout: Sequence[Store]
    splits: Splits
    seeds: int
    protocol: str = "standard"
    probe_tokens: int = 20
    i_trust_this_code: bool = False
    workers: int | None = None
    betas: Sequence[float] = GRID
    progress: Callable[[int, int], None] | None = None
    _here: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.references: dict[str, Reference] = {
            str(store.path): reference(store.forest(), self.protocol)
            for store in [*self.stores, *self.holdout]
        }

    def feedback(self, programs: Sequence[Program], seeds: Sequence[int] | None = None) -> Episodes:
        """Episodes on the feedback problems; `seeds` are of those that proposers may see (None = all)."""
        return self._run(self.stores, programs, self.splits.feedback, seeds or self.feedback_seeds)

    def selection(self, programs: Sequence[Program], seeds: Sequence[int] | None = None) -> Episodes:
        """Episodes on the selection problems; None = the seeds of a round."""
        return self._run(self.stores, programs, self.splits.selection, seeds or range(self.seeds))

    def held_out(self, programs: Sequence[Program]) -> Episodes:
        """Episodes on the hold-out."""
        return self._run(self.holdout, programs, self.splits.holdout, range(self.final_seeds))

    def draft(self, program: Program) -> Episodes:
        """A few episodes on a few feedback problems, at one beta after the other up to the first error."""
        from polars import concat

        from env.evaluate import Episodes, evaluate

        frames, schedules = [], {}
        for beta in self.betas:
            with self._here:
                played = evaluate(
                    self.stores,
                    [program],
                    betas=[beta],
                    seeds=range(PROPOSER_SEED, PROPOSER_SEED + 2),
                    problems=self.splits.feedback[:SMOKE_PROBLEMS],
                    # Quick rather than strict: what a draft's figures are worth is its author's own loss.
                    isolation=None if program.trusted else "batch",
                    workers=1,
                    **self._options,
                )
            frames.append(played.frame)
            schedules |= played.schedules
            # A program that hangs would cost its time limit at every beta.
            if (played.frame["error"] != "").any():
                break
        return Episodes(concat(frames), schedules)

    def misses(self, programs: Sequence[Program], frame: pl.DataFrame) -> pl.DataFrame:
        """What the programs asked of the search stores in vain, see `env.misses.find_misses`."""
        from env.misses import find_misses

        return find_misses(self.stores, programs, frame, **self._options)

    def trace(
        self, store: Store, program: Program, beta: float, problem: str, seed: int
    ) -> list[dict[str, Any]]:
        """The action log of one episode, see `env.evaluate.trace`."""
        from env.evaluate import trace

        with self._here:
            return trace(store, program, beta, problem, seed, **self._options)

    def hindsight(self, program: Program) -> pl.DataFrame:
        """What a sample of its feedback episodes lost and wasted, see `search_agent.feedback.sample`."""
        from search_agent.feedback.sample import sample

        with self._here:
            return sample(
                self.stores,
                program,
                self.splits.feedback,
                self.feedback_seeds,
                betas=self.betas,
                **self._options,
            )

    @property
    def final_seeds(self) -> int:
        """How many seeds baselines, finalists and the hold-out are evaluated on."""
        return FINAL * self.seeds

    @property
    def feedback_seeds(self) -> range:
        """The seeds of the feedback problems."""
        return range(PROPOSER_SEED, PROPOSER_SEED + self.seeds)

    @property
    def _options(self) -> dict[str, Any]:
        names = ("protocol", "probe_tokens", "i_trust_this_code")
        return {name: getattr(self, name) for name in names}

    def _run(
        self,
        stores: Sequence[Store],
        programs: Sequence[Program],
        problems: Sequence[str],
        seeds: Sequence[int],
    ) -> Episodes:
        from env.evaluate import evaluate

        workers = self.workers or len(processors())
        apart = workers > 1 and len(stores) * len(programs) * len(self.betas) > 1
        with nullcontext() if apart else self._here:
            return evaluate(
                stores,
                programs,
                betas=self.betas,
                seeds=seeds,
                problems=problems,
                workers=workers,
                progress=self.progress,
                **self._options,
            )
