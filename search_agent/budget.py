"""When a search stops proposing, and whether its bounds leave room for a search at all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.desk import Lane
from search_agent.proposal import Usage
from search_agent.race import LEADERS

# With so few proposals or fewer a search is hardly one.
FEW = 2


@dataclass(frozen=True)
class Budget:
    """The bounds of a run; None = no bound. Whichever is reached first ends it.

    Attributes:
        rounds: proposals, of all proposers together.
        minutes: wall time of this call, baselines and end included.
        max_cost: USD, of all model calls.
        max_total_tokens: prompt and completion tokens of all model calls.
        plateau: rounds in a row without a new best.
    """

    rounds: int | None = None
    minutes: float | None = None
    max_cost: float | None = None
    max_total_tokens: int | None = None
    plateau: int | None = None

    @classmethod
    def of(cls, stop: Mapping[str, Any]) -> Budget:
        """As the head of a run tells it."""
        return cls(**stop)

    def deadline(self, started: float, end: float) -> float | None:
        """The `time.monotonic` at which proposing ends, so that `end` seconds are left for the end."""
        return None if self.minutes is None else started + 60 * self.minutes - end

    def used_up(self, run: Run, begun: int, deadline: float | None) -> str:
        """Why no more proposals may be begun ("" = they may); `begun` counts all so far."""
        if self.rounds is not None and begun >= self.rounds:
            return f"{self.rounds} rounds"
        # However little time was given, one program is tried.
        if deadline is not None and begun and time.monotonic() >= deadline:
            return f"{self.minutes:g} minutes"
        if self.plateau is not None and since_best(run) >= self.plateau:
            return f"{self.plateau} rounds without a new best"
        spent = run.spent()
        if self.max_cost is not None and (spent.cost_usd or 0.0) >= self.max_cost:
            return f"${self.max_cost:g} spent"
        if self.max_total_tokens is not None and _tokens(spent) >= self.max_total_tokens:
            return f"{self.max_total_tokens} tokens of models"
        return ""


def since_best(run: Run) -> int:
    """How many rounds there have been since the best hypervolume on the selection problems last rose."""
    best, since = float("-inf"), 0
    for record in run.rounds():
        since += 1
        if record["status"] == "evaluated" and record["monotone"]:
            area = record["selection"]["hypervolume"]
            if area > best:
                best, since = area, 0
    return since


def preflight(
    budget: Budget, run: Run, arena: Arena, lanes: Sequence[Lane], deadline: float | None
) -> Iterator[str]:
    """What to warn of before the first proposal: bounds with room for one or two only, or that bound nothing.

    What a proposal costs is what those of this run have cost so far, else what its proposer estimates; what
    it takes to measure one follows from the time that the baselines took.
    """
    unknown = [lane.label for lane in lanes if lane.estimate.calls and not _tokens(lane.estimate)]
    for bound in ("max_cost", "max_total_tokens") if unknown else ():
        if getattr(budget, bound) is not None:
            yield (
                f"--{bound.replace('_', '-')} does not bound what {' and '.join(unknown)} spends, which it "
                "alone knows; --rounds and --minutes do"
            )
    spent, paid = run.spent(), sum(record["usage"]["calls"] > 0 for record in run.rounds())
    costs = [_mean(spent, paid)] if paid and spent.calls else [lane.estimate for lane in lanes]
    costs = [cost for cost in costs if cost.calls]
    if costs and budget.max_cost is not None:
        dearest = max(cost.cost_usd or 0.0 for cost in costs)
        if dearest and (room := (budget.max_cost - (spent.cost_usd or 0.0)) / dearest) < FEW + 1:
            yield _few(room, f"one costs about ${dearest:.2f}", f"--max-cost {budget.max_cost:g}")
    if costs and budget.max_total_tokens is not None:
        most = max(map(_tokens, costs))
        if most and (room := (budget.max_total_tokens - _tokens(spent)) / most) < FEW + 1:
            yield _few(
                room, f"one takes about {most:,} tokens", f"--max-total-tokens {budget.max_total_tokens}"
            )
    if deadline is not None:
        seconds = _seconds_a_round(run, arena)
        room = (deadline - time.monotonic()) / seconds if seconds else float("inf")
        if room < FEW + 1:
            yield _few(room, f"measuring one takes about {seconds:.0f} s", f"--minutes {budget.minutes:g}")


def _few(room: float, why: str, bound: str) -> str:
    count = max(1, int(room))
    return (
        f"{bound} leaves room for about {count} proposal{'s' * (count > 1)} ({why}), "
        "which is hardly a search: raise it"
    )


def _mean(spent: Usage, rounds: int) -> Usage:
    """Of the rounds that were paid for."""
    cost = None if spent.cost_usd is None else spent.cost_usd / rounds
    return Usage(spent.calls, spent.prompt_tokens // rounds, spent.completion_tokens // rounds, 0, cost)


def _tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens


def reserve(run: Run, arena: Arena) -> float:
    """Seconds that finalists and hold-out will take."""
    finalists = LEADERS * len(arena.stores) * len(arena.splits.selection)
    holdout = (len(run.baselines()) + 1) * len(arena.holdout) * len(arena.splits.holdout)
    return (finalists + holdout) * arena.final_seeds * _seconds_an_episode(run, arena)


def _seconds_a_round(run: Run, arena: Arena) -> float:
    """Of a program that runs every lap."""
    problems = len(arena.splits.feedback) + len(arena.splits.selection)
    return len(arena.stores) * problems * arena.seeds * _seconds_an_episode(run, arena)


def _seconds_an_episode(run: Run, arena: Arena) -> float:
    """At every beta once, judged by the baselines; 0 = not known."""
    feedback, selection = len(arena.splits.feedback), len(arena.splits.selection)
    played = len(run.baselines()) * len(arena.stores)
    played *= feedback * arena.seeds + selection * arena.final_seeds
    return float((run.read("clock.json") or {"baselines": 0.0})["baselines"]) / max(1, played)
