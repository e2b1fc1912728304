"""How a search ends: the best rounds measured with more seeds, then one look at the hold-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from env.misses import MISSES
from env.program import Program
from env.statistics import Point
from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.proposal import Vouches
from search_agent.race import leaders
from search_agent.scoring import crossed, score

if TYPE_CHECKING:
    import polars as pl

# The baseline that everybody knows; the headline is about it.
YARDSTICK = "self_consistency"


def choose(run: Run, arena: Arena, vouches: Vouches, say: Callable[[str], None]) -> None:
    """Measure the best rounds again, on the selection problems with more seeds, and name the winner.

    Only programs whose cost never falls as beta rises are eligible. Where there is one, `finalists.json`
    gets: seeds, winner (a round), finalists and baselines with their selection figures, best first, and
    `crossed`: what choosing among these finalists is worth on problems, and on models, that had no part in
    the choice (see `search_agent.scoring.crossed`; None where there is one fold, or one model); and
    `misses.parquet` what the winner asked of the stores in vain (`env.misses.find_misses`).
    """
    finalists, frames = [], {}
    for record in leaders(run):
        say(f"measuring finalist {record['name']}")
        program = run.program(record["round"], vouches)
        episodes = arena.selection([program], range(arena.final_seeds))
        frames[record["round"]] = episodes.frame
        selection = score(episodes.frame, arena.references)
        finalists.append({"round": record["round"], "name": record["name"], "selection": selection})
    finalists.sort(key=lambda each: -each["selection"]["hypervolume"])
    # With more seeds a slight dip in cost may come to light; then the next one wins.
    proven = [each["round"] for each in finalists if each["selection"]["monotone"]]
    if not proven:
        return
    winner = run.program(proven[0], vouches)
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
            "crossed": _crossed(arena, [frames[number] for number in proven]),
        },
    )


def look_at_holdout(
    run: Run, arena: Arena, baselines: Sequence[Program], vouches: Vouches, say: Callable[[str], None]
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
    winner = run.program(finalists["winner"], vouches)
    programs = [winner, *baselines]
    # Before the look: if we are killed on the way, a look too many is on the books rather than one too few.
    warnings = [
        holdout.record(
            store.path,
            [(program.name, program.source) for program in programs],
            betas=arena.betas,
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


def _crossed(arena: Arena, frames: Sequence[pl.DataFrame]) -> dict[str, float | None]:
    import polars as pl

    folds = [pl.col("problem").is_in(list(fold)) for fold in arena.splits.folds]
    models = [pl.col("model") == model for model in sorted({store.model for store in arena.stores})]
    return {
        name: crossed(pl.concat(frames), arena.references, parts) if len(parts) > 1 else None
        for name, parts in (("problems", folds), ("models", models))
    }


def _names(frame: pl.DataFrame, baselines: Sequence[Program]) -> dict[Point, str]:
    schedule = next(program.load()["schedule"] for program in baselines if program.name == YARDSTICK)
    points = frame.filter(controller=YARDSTICK).select("controller", "beta", "settings").unique()
    return {
        Point(*point): f"self-consistency at {schedule(point[1])['max_branches']}"
        for point in points.iter_rows()
    }
