"""How a search ends: the best rounds measured with more seeds, then one look at the hold-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from env.misses import MISSES
from env.program import GRID, Program
from env.statistics import Point
from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.proposal import Proposer
from search_agent.scoring import score

if TYPE_CHECKING:
    import polars as pl

FINALISTS = 4
# The baseline that everybody knows; the headline is about it.
YARDSTICK = "self_consistency"


def choose(run: Run, arena: Arena, proposer: Proposer, say: Callable[[str], None]) -> None:
    """Measure the best rounds again, on the selection problems with more seeds, and name the winner.

    Only programs whose cost never falls as beta rises are eligible. Where there is one, `finalists.json`
    gets: seeds, winner (a round), finalists and baselines with their selection figures, best first; and
    `misses.parquet` what the winner asked of the stores in vain (`env.misses.find_misses`).
    """
    eligible = [record for record in run.rounds() if record["status"] == "evaluated" and record["monotone"]]
    eligible.sort(key=lambda record: -record["selection"]["hypervolume"])
    finalists, frames = [], {}
    for record in eligible[:FINALISTS]:
        say(f"measuring finalist {record['name']}")
        episodes = arena.selection([run.program(record["round"], proposer.vouches)], arena.final_seeds)
        frames[record["round"]] = episodes.frame
        selection = score(episodes.frame, arena.references)
        finalists.append({"round": record["round"], "name": record["name"], "selection": selection})
    finalists.sort(key=lambda each: -each["selection"]["hypervolume"])
    # With more seeds a slight dip in cost may come to light; then the next one wins.
    proven = [each["round"] for each in finalists if each["selection"]["monotone"]]
    if not proven:
        return
    winner = run.program(proven[0], proposer.vouches)
    run.write(MISSES, arena.misses([winner], frames[proven[0]]))
    baselines = [{"name": record["name"], "selection": record["selection"]} for record in run.baselines()]
    baselines.sort(key=lambda each: -each["selection"]["hypervolume"])
    run.write(
        "finalists.json",
        {
            "seeds": arena.final_seeds,
            "winner": proven[0],
            "finalists": finalists,
            "baselines": baselines,
        },
    )


def look_at_holdout(
    run: Run, arena: Arena, baselines: Sequence[Program], proposer: Proposer, say: Callable[[str], None]
) -> None:
    """Evaluate winner and baselines on the hold-out and enter the look in the stores' ledgers.

    Does nothing where there is no winner, or where this run has had its look. `holdout.json` gets: winner (a
    round), seeds, problems, rows (controller, the keys of `score`; best first), headline, looks (by store),
    warnings (looks that no ledger took down).
    """
    finalists = run.read("finalists.json")
    if not finalists or run.read("holdout.json"):
        return
    from env import holdout
    from env.headline import headline

    say("looking at the hold-out")
    winner = run.program(finalists["winner"], proposer.vouches)
    programs = [winner, *baselines]
    # Before the look: if we are killed on the way, a look too many is on the books rather than one too few.
    warnings = [
        holdout.record(
            store.path,
            [(program.name, program.source) for program in programs],
            betas=GRID,
            seeds=range(arena.final_seeds),
            protocol=arena.protocol,
            purpose="search: hold-out",
            problems=arena.splits.holdout,
        )
        for store in arena.holdout
    ]
    frame = arena.held_out(programs).frame
    run.write("holdout.parquet", frame)
    rows = [
        {"controller": name, **score(part, arena.references)}
        for (name,), part in frame.group_by("controller", maintain_order=True)
    ]
    run.write(
        "holdout.json",
        {
            "winner": finalists["winner"],
            "seeds": arena.final_seeds,
            "problems": len(arena.splits.holdout),
            "rows": sorted(rows, key=lambda row: -row["hypervolume"]),
            "headline": str(headline(frame, winner.name, YARDSTICK, names=_names(frame, baselines))),
            "warnings": [warning for warning in warnings if warning],
            "looks": {
                str(store.path): str(holdout.count(store.path, arena.splits.holdout))
                for store in arena.holdout
            },
        },
    )


def _names(frame: pl.DataFrame, baselines: Sequence[Program]) -> dict[Point, str]:
    schedule = next(program.load()["schedule"] for program in baselines if program.name == YARDSTICK)
    points = frame.filter(controller=YARDSTICK).select("controller", "beta", "settings").unique()
    return {
        Point(*point): f"self-consistency at {schedule(point[1])['max_branches']}"
        for point in points.iter_rows()
    }
