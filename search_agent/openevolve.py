"""Our evaluation by OpenEvolve's convention, for those who bring a search of their own.

An evaluator file for `openevolve-run` is two lines:

    from search_agent.openevolve import evaluator
    evaluate, evaluate_stage1, evaluate_stage2 = evaluator("stores/Qwen3-1.7B/aime24")

Programs are controller files. They are checked, tried, and measured in strict isolation. What the evolving
model reads of a program, its artifacts, is about the feedback problems; what it is selected by is measured on
problems that it hears nothing else of; a third is left alone for the end (see `search_agent.splits`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import UserError
from env.program import GRID, Program, ProgramError, check
from env.store import Store
from search_agent.arena import Arena
from search_agent.controller_api import CONTROLLER_API
from search_agent.feedback.packet import losses, wastes
from search_agent.feedback.telling import telling
from search_agent.feedback.verdict import aliases
from search_agent.proposers import timeline
from search_agent.proposers.text import clean, cut, table
from search_agent.scoring import faults, score
from search_agent.splits import split

if TYPE_CHECKING:
    import polars as pl
    from openevolve.evaluation_result import EvaluationResult

Stage = Callable[[str], "EvaluationResult"]

# OpenEvolve shows a model 20 KiB of each artifact, cut off wherever that is.
MAX_ARTIFACT = 8_000
METRICS = ("accuracy", "tokens", "sequential_tokens")


def evaluator(*stores: str | Path, seeds: int = 20, folds: int = 3) -> tuple[Stage, Stage, Stage]:
    """OpenEvolve's `evaluate`, `evaluate_stage1` and `evaluate_stage2` on some stores.

    Each takes the path of a program and returns an `EvaluationResult`. Its metrics: `combined_score`, the
    hypervolume (accuracy x nats, at least 0); `accuracy`, `tokens` and `sequential_tokens` at beta 1. The
    first stage measures on the feedback problems, the second on the selection problems, `evaluate` on both
    with the second's metrics. A program that breaks the contract, fails its trial run, or whose cost falls as
    beta rises scores 0, and its artifact `objection` says why. All three raise a `UserError` where a store
    cannot be opened, has too few problems, or this machine cannot isolate programs.

    Args:
        stores: folders or URIs; figures are averaged over them.
        seeds: episodes of each problem and beta.
        folds: one fold in so many is shown to the model.
    """

    def stage(*parts: str) -> Stage:
        options = {"stores": [str(store) for store in stores], "seeds": seeds, "folds": folds, "parts": parts}
        return lambda path: _elsewhere({**options, "program": path})

    return stage("feedback", "selection"), stage("feedback"), stage("selection")


def _elsewhere(request: dict[str, Any]) -> EvaluationResult:
    """Measure in a fresh process: OpenEvolve forks its workers, and the threads of polars survive no fork."""
    from openevolve.evaluation_result import EvaluationResult

    command = [sys.executable, "-m", "search_agent.openevolve", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(done.stderr.strip().rpartition("\n")[2])
    return EvaluationResult(**json.loads(done.stdout))


def judge(
    stores: Sequence[str], seeds: int, folds: int, parts: Sequence[str], program: str
) -> dict[str, dict[str, Any]]:
    """What `evaluator` documents, on the `parts` named, as {"metrics", "artifacts"}.

    Raises:
        UserError: see `evaluator`.
    """
    opened = [Store.open(path) for path in stores]
    problems = [problem for store in opened for problem in store.problems["question_hash"].to_pylist()]
    # OpenEvolve itself runs several evaluations at a time.
    arena = Arena(opened, opened, split(problems, folds), seeds, workers=1)
    candidate = Program("candidate", Path(program).read_text(encoding="utf-8"))
    metrics, artifacts = dict.fromkeys(METRICS, 0.0), {"controller_api": CONTROLLER_API}
    if objection := _objection(candidate, arena):
        return {
            "metrics": {"combined_score": 0.0, **metrics},
            "artifacts": {**artifacts, "objection": objection},
        }
    falls = False
    for part in parts:
        frame = getattr(arena, part)([candidate]).frame
        figures = score(frame, arena.references)
        metrics = {
            "combined_score": figures["hypervolume"],
            **{name: figures["points"][-1][name] for name in METRICS},
        }
        falls = falls or not figures["monotone"]
        if part == "feedback":
            artifacts |= _happened(candidate, arena, frame)
    if falls:
        metrics["combined_score"] = 0.0
        artifacts["objection"] = "mean tokens fall from one beta to a larger one"
    return {"metrics": metrics, "artifacts": artifacts}


def _objection(program: Program, arena: Arena) -> str:
    try:
        check(program.source)
    except ProgramError as error:
        return clean(str(error), 500)
    _, fault = faults(arena.draft(program).frame)
    return fault and f"trial run: {clean(fault, 500)}"


def _happened(program: Program, arena: Arena, frame: pl.DataFrame) -> dict[str, str]:
    """What a model may read of a program: its figures on the feedback problems, and what they teach."""
    import polars as pl

    known = aliases(arena)
    unnamed = {real: alias for alias, real in known.items()}

    def named(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(pl.col("store", "problem").replace_strict(unnamed))

    means = [
        pl.col(column).filter(pl.col("beta") == beta).mean().alias(f"{name}_at_{beta:g}")
        for name, column in (("accuracy", "correct"), ("tokens", "tokens"), ("sequential", "sequential"))
        for beta in GRID
    ]
    figures = named(frame).group_by("store", "problem").agg(means)
    past = named(arena.hindsight(program))
    told = {
        "problems": table(figures.sort("store", "problem").to_dicts(), figures.columns),
        "where_accuracy_was_lost": losses(past),
        "where_tokens_went": wastes(past),
    }
    errors, error = faults(frame)
    if errors:
        told["errors"] = f"{errors} of {len(frame)} episodes, the first: {clean(error, 500)}"
    stores = {str(store.path): store for store in arena.stores}
    for number, (why, where, said) in enumerate(telling(past, None), 1):
        store, problem = stores[known[where["store"]]], known[where["problem"]]
        log = timeline.text(arena.trace(store, program, where["beta"], problem, where["seed"]))
        place = f"{where['store']} {where['problem']} beta {where['beta']:g}"
        told[f"episode_{number}"] = f"{why} ({place})\n{said}\n{log}"
    return {name: cut(text, MAX_ARTIFACT, "the rest is left out") for name, text in told.items()}


if __name__ == "__main__":
    try:
        print(json.dumps(judge(**json.loads(sys.argv[1]))))
    except UserError as error:
        sys.exit(f"{error}")
