"""The Pareto archive as proposers use it: who holds which cost bin, who descends from whom, who are parents.

Everything here is about the feedback problems and takes the records of `Workbench.history`, so it tells a
proposer nothing that it may not know. A program is in the archive if it is among the best by hypervolume, or
if one of its points is the most accurate in its cost bin (a factor of two in tokens): specialists of one
budget stay, whatever else they are bad at.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

# As many of the best by hypervolume are in the archive, whatever bins they hold.
BEST = 8
# A proposer that refines gets its first parent from so many of the best.
REFINED = 2
ROLES = ("explore", "refine")


def area(record: Record) -> float:
    """A record's hypervolume on the feedback problems; 0 where it was not measured."""
    return float(record["feedback"]["hypervolume"]) if record["feedback"] else 0.0


def holders(records: Sequence[Record]) -> dict[int, tuple[float, Record]]:
    """By cost bin (floor of log2 of tokens) the highest accuracy there, and the record that reached it."""
    held: dict[int, tuple[float, Record]] = {}
    for record in records:
        for point in record["feedback"]["points"]:
            place = _bin(point)
            if place not in held or point["accuracy"] > held[place][0]:
                held[place] = point["accuracy"], record
    return held


def would_hold(feedback: Mapping[str, Any], records: Sequence[Record]) -> bool:
    """Whether a program with these figures would be the most accurate in some cost bin."""
    held = holders(measured(records))
    return any(
        _bin(point) not in held or point["accuracy"] > held[_bin(point)][0] for point in feedback["points"]
    )


def elites(records: Sequence[Record]) -> list[Record]:
    """The archive, best first: the best by hypervolume, and whoever holds a cost bin.

    Only rounds that were measured on as many seeds as any: luck on a few must not pass for merit.
    """
    ranked = sorted(measured(records), key=area, reverse=True)
    holding = {record["round"] for _, record in holders(ranked).values()}
    return [record for k, record in enumerate(ranked) if k < BEST or record["round"] in holding]


def founder(number: int, records: Sequence[Record]) -> int:
    """The round that a lineage goes back to; a crossover belongs to that of its first parent."""
    parents = {record["round"]: record["parent"] for record in records}
    while (parent := parents.get(number)) is not None:
        number = parent
    return number


def parents(records: Sequence[Record], rng: random.Random, role: str = "explore") -> list[int]:
    """Up to two rounds to build on: one of the archive, and one of another lineage.

    Args:
        records: the history.
        rng: picks among equals.
        role: "explore" starts from anyone in the archive, "refine" from the very best.
    """
    archive = elites(records)
    if not archive:
        return []
    first = rng.choice(archive[:REFINED] if role == "refine" else archive)["round"]
    home = founder(first, records)
    others = [record["round"] for record in archive if founder(record["round"], records) != home]
    return [first, rng.choice(others)] if others else [first]


def measured(records: Sequence[Record]) -> list[Record]:
    """Those that were measured on as many seeds of the feedback problems as any."""
    judged = [record for record in records if record["feedback"] and record["status"] != "duplicate"]
    seeds = max((record["feedback"]["seeds"] for record in judged), default=0)
    return [record for record in judged if record["feedback"]["seeds"] == seeds]


def _bin(point: Mapping[str, Any]) -> int:
    return math.floor(math.log2(max(point["tokens"], 1.0)))
