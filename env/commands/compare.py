"""Say whether one controller is better than another, no worse, cheaper, or that the data cannot tell.

Both are evaluated on the same stores, or read from what `autotts evaluate --out` recorded, and compared
problem by problem:

  autotts compare mine.py self_consistency --store stores/aime24 --store stores/aime25
  autotts compare runs/yesterday#mine runs/today#mine
  autotts compare small.py large.py --store stores/both --cost eflops
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env import files
from env.commands.options import BETAS, betas, natural, positive, seed_count
from env.commands.terminal import progress_bar
from env.errors import UserError
from env.rooms import Rooms

if TYPE_CHECKING:
    import polars as pl

    from env.comparison import Answer, Comparison
    from env.program import Program
    from env.statistics import Estimate

COST, ACCURACY = "tokens", "accuracy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts compare`."""
    side = (
        "a controller's name or path, or recorded episodes (a Parquet file, or a directory of them);"
        " PATH#NAME picks one of several recorded controllers"
    )
    parser.add_argument("a", metavar="A", help=side)
    parser.add_argument("b", metavar="B", help="what to compare it with, likewise")
    parser.add_argument(
        "--store", nargs="+", action="extend", default=[], metavar="STORE", help="where to evaluate"
    )
    parser.add_argument("--beta", type=betas, default=BETAS, metavar="BETAS", help="default: %(default)s")
    parser.add_argument("--seeds", type=seed_count, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument("--protocol", choices=("standard", "published"), default="standard")
    parser.add_argument("--workers", type=positive, metavar="N", help="processes; default: as the work needs")
    parser.add_argument(
        "--margin",
        type=float,
        default=0.01,
        help="the loss of accuracy that still counts as no worse; default: 0.01 (a point)",
    )
    parser.add_argument("--at", choices=(COST, ACCURACY), help="what to hold equal; default: each in turn")
    parser.add_argument(
        "--cost",
        default=COST,
        metavar="COST",
        help="what equal cost means, as in `autotts evaluate --cost`; default: tokens",
    )
    parser.add_argument("--prompt-tokens", type=natural, default=0, metavar="N", help="as there; default: 0")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Print the verdict.

    Raises:
        UserError: a controller, a store or a recording cannot be used, or the two have nothing in common.
    """
    from env.comparison import compare
    from env.failures import never_ran
    from env.holdout import count
    from env.program import Program
    from env.statistics import summarise

    if args.margin < 0:
        raise UserError(f"--margin is a loss of accuracy, 0 or more, not {args.margin}.")
    if args.json:
        files.ready_for_json(args.json, "a", "b", "problems")
    # Both first, so that a misspelt B does not cost an evaluation of A.
    sides = [read_episodes(side) if _recorded(side) else rooms.program(side) for side in (args.a, args.b)]
    programs = [side for side in sides if isinstance(side, Program)]
    if len({program.name for program in programs}) < len({program.source for program in programs}):
        raise UserError("two controllers of the same name: nobody could tell them apart; rename one file")
    frames = [_evaluated(side, args) if isinstance(side, Program) else side for side in sides]
    for name, error in (pair for frame in frames for pair in never_ran(frame).items()):
        raise UserError(f"every episode of {name} failed, so there is nothing to compare: {error}")
    comparison = compare(*frames, margin=args.margin, cost=args.cost)
    print(describe(comparison, args.at))
    for row in (row for frame in frames for row in summarise(frame)):
        name = f"{row['controller']} at beta {row['beta']:g} on {row['store']}"
        if row["errors"]:
            print(f"note: {row['errors']} episodes of {name} failed and count as wrong: {row['error']}")
        if not row["replayable"]:
            print(f"note: {name} is not replayable: {row['shortfall']:.1%} of its branches were missing")
    for store in dict.fromkeys(args.store):
        print(f"{store}: {count(store)}")
    if args.json:
        files.write(args.json, files.as_json(as_json(comparison, args.at)))
    return 0


def describe(comparison: "Comparison", at: str | None = None) -> str:
    """The verdicts in words, each with its figures; `at` as in the command."""
    c = comparison
    lines = [
        f"{c.a} against {c.b}: {_number(c.problems, 'problem')} on {_number(c.stores, 'store')},"
        f" {c.in_play} in play"
    ]
    if at != ACCURACY:
        answer = c.at_equal_cost()
        where = " to ".join(dict.fromkeys(_thousands(budget) for budget in c.budgets))
        lines += [
            f"at equal cost: {_verdict(c, answer, f' (margin {100 * c.margin:g} points)')}",
            f"  accuracy {100 * c.accuracy.value:+.1f} points{_brackets(c.accuracy, '+.1f')}"
            f" for {where} {c.cost} a problem",
            *_needed(c, answer),
        ]
    if at != COST:
        answer = c.at_equal_accuracy()
        where = " to ".join(dict.fromkeys(f"{accuracy:.1%}" for accuracy in c.accuracies))
        lines += [
            f"at equal accuracy: {_verdict(c, answer)}",
            f"  {100 * c.tokens.value:.0f}% of the {c.cost}{_brackets(c.tokens, '.0f')},"
            f" {100 * c.sequential.value:.0f}% of the latency{_brackets(c.sequential, '.0f')}"
            f" for an accuracy of {where}",
            *_needed(c, answer),
        ]
    return "\n".join(lines)


def as_json(comparison: "Comparison", at: str | None = None) -> dict[str, Any]:
    """The figures and verdicts; `at` as in the command."""
    c = comparison
    result: dict[str, Any] = {
        "a": c.a,
        "b": c.b,
        "stores": c.stores,
        "problems": c.problems,
        "problems_in_play": c.in_play,
        "cost": c.cost,
    }
    if at != ACCURACY:
        result["at_equal_cost"] = {
            **_answer(c.at_equal_cost()),
            "margin": c.margin,
            "accuracy": c.accuracy.value,
            "accuracy_ci": c.accuracy.interval,
            "detectable": c.accuracy.detectable,
            "budgets": c.budgets,
        }
    if at != COST:
        result["at_equal_accuracy"] = {
            **_answer(c.at_equal_accuracy()),
            # The ratio of whatever `cost` says.
            "tokens": c.tokens.value,
            "tokens_ci": c.tokens.interval,
            "sequential_tokens": c.sequential.value,
            "sequential_tokens_ci": c.sequential.interval,
            "accuracies": c.accuracies,
        }
    return result


def read_episodes(side: str) -> "pl.DataFrame":
    """The recorded episodes of one controller, from PATH or PATH#NAME.

    Raises:
        UserError: they cannot be read, are not episodes, or are of several controllers.
    """
    import polars as pl

    from env.misses import MISSES
    from env.statistics import EPISODE_COLUMNS, cost_columns

    where, _, name = side.partition("#")
    path = Path(where)
    if (path / "store.json").exists():
        raise UserError(f"{path} is a store; name the controllers to compare and give it as --store {path}.")
    files = sorted(set(path.glob("*.parquet")) - {path / MISSES}) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise UserError(f"no recorded episodes in {path}; `autotts evaluate --out {path}` writes them.")
    try:
        frame = pl.concat(pl.read_parquet(file) for file in files)
        frame = frame.select(*EPISODE_COLUMNS, *cost_columns(frame))
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} does not hold episodes as `autotts evaluate --out` writes them: {reason}"
        ) from error
    names = frame["controller"].unique().sort().to_list()
    if name and name not in names:
        raise UserError(f"no controller {name!r} in {path}; it has {', '.join(names)}.")
    if not name and len(names) > 1:
        raise UserError(f"{path} has {', '.join(names)}; name one of them as {path}#{names[0]}.")
    return frame.filter(pl.col("controller") == name) if name else frame


def _recorded(side: str) -> bool:
    path = Path(side.partition("#")[0])
    return path.is_dir() or path.suffix == ".parquet"


def _evaluated(program: "Program", args: argparse.Namespace) -> "pl.DataFrame":
    if not args.store:
        raise UserError(f"{program.name} is a controller: say where to evaluate it with --store STORE.")
    from env.evaluate import evaluate
    from env.holdout import record
    from env.statistics import EPISODE_COLUMNS, cost_columns
    from env.store import Store

    stores, seeds = [Store.open(store) for store in args.store], range(args.seeds)
    with progress_bar(program.name) as progress:
        episodes = evaluate(
            stores,
            [program],
            betas=args.beta,
            seeds=seeds,
            protocol=args.protocol,
            workers=args.workers,
            costs=[] if args.cost == COST else [args.cost],
            prompt_tokens=args.prompt_tokens,
            progress=progress,
        )
    for store in args.store:
        warning = record(
            store,
            [(program.name, program.source)],
            betas=args.beta,
            seeds=seeds,
            protocol=args.protocol,
            purpose="compare",
        )
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
    return episodes.frame.select(*EPISODE_COLUMNS, *cost_columns(episodes.frame))


def _verdict(comparison: "Comparison", answer: "Answer", margin: str = "") -> str:
    from env.comparison import Verdict

    if answer.verdict is Verdict.UNDECIDED:
        return str(answer.verdict)
    return f"{comparison.a} is {answer.verdict}{margin if answer.verdict is Verdict.NO_WORSE else ''}"


def _needed(comparison: "Comparison", answer: "Answer") -> list[str]:
    from env.comparison import Verdict
    from env.statistics import MIN_PROBLEMS

    if answer.verdict is not Verdict.UNDECIDED:
        return []
    if comparison.in_play < MIN_PROBLEMS:
        return [f"  nothing can be decided with fewer than {MIN_PROBLEMS} problems in play"]
    if answer.problems_needed is None:
        return []
    return [f"  about {answer.problems_needed:,} problems like these would settle it (80% power)"]


def _answer(answer: "Answer") -> dict[str, Any]:
    return {"verdict": str(answer.verdict), "problems_needed": answer.problems_needed}


def _brackets(estimate: "Estimate", style: str) -> str:
    if estimate.interval is None:
        return ""
    low, high = (format(100 * bound, style) for bound in estimate.interval)
    return f" [{low}, {high}]"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _thousands(tokens: float) -> str:
    if tokens >= 1e9 or tokens < 1:
        return f"{tokens:.3g}"
    return f"{round(tokens) / 1000:.1f}k" if round(tokens) >= 1000 else f"{tokens:.0f}"
