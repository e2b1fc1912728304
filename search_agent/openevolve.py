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
from search_agent.proposers.text import clean, cut, table
from search_agent.proposers.timeline import lines
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
    """What happened on the feedback problems: figures, and the dearest episodes that went right and wrong."""
    import polars as pl

    stores = {str(store.path): store for store in arena.stores}
    aliases = {problem: f"p{k:02d}" for k, problem in enumerate(arena.splits.feedback, 1)}
    at = pl.col("beta")
    figures = frame.group_by("store", "problem").agg(
        *(pl.col("correct").filter(at == beta).mean().alias(f"accuracy_at_{beta:g}") for beta in GRID),
        *(pl.col("tokens").filter(at == beta).mean().alias(f"tokens_at_{beta:g}") for beta in GRID),
    )
    rows = [
        {**row, "model": stores[row["store"]].model, "problem": aliases[row["problem"]]}
        for row in figures.sort("store", "problem").to_dicts()
    ]
    told: dict[str, str] = {"problems": table(rows, ["model", *figures.columns[1:]])}
    errors, error = faults(frame)
    if errors:
        told["errors"] = f"{errors} of {len(frame)} episodes, the first: {clean(error, 500)}"
    middle = GRID[len(GRID) // 2]
    for name, right in (("dearest_right_episode", True), ("dearest_wrong_episode", False)):
        some = frame.filter(at == middle, pl.col("correct") == right)
        if not some.is_empty():
            row = some.sort("tokens", "store", "problem", "seed").row(-1, named=True)
            store = stores[row["store"]]
            where = f"{store.model}, {aliases[row['problem']]}, beta {middle:g}"
            trace = arena.trace(store, program, middle, row["problem"], row["seed"])
            told[name] = "\n".join([where, *lines(trace)])
    return {name: cut(text, MAX_ARTIFACT, "the rest is left out") for name, text in told.items()}


if __name__ == "__main__":
    try:
        print(json.dumps(judge(**json.loads(sys.argv[1]))))
    except UserError as error:
        sys.exit(f"{error}")
