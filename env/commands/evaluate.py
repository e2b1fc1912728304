"""Measure accuracy and cost of controllers on stores, with intervals over problems.

autotts evaluate stores/aime24 --controller self_consistency confidence_momentum
autotts evaluate stores/* --controller mine.py --beta 0,0.5,1 --json rows.json --out episodes/
autotts evaluate stores/aime24 --controller self_consistency --set max_branches=16 --protocol published

A controller that raises, hangs or cheats is a row with its error; the others' rows come all the same.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env import files
from env.commands.options import BETAS, add_costs, betas, natural, positive, seed_count, setting
from env.commands.terminal import progress_bar
from env.rooms import Rooms

if TYPE_CHECKING:
    from env.evaluate import Episodes
    from env.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts evaluate`."""
    parser.add_argument("store", nargs="*", metavar="STORE", help="stores to replay; default: a bundled demo")
    parser.add_argument(
        "--controller",
        nargs="+",
        action="extend",
        required=True,
        metavar="NAME_OR_PATH",
        help="shipped controllers by name (see `autotts controllers`), your own by the path of the file",
    )
    parser.add_argument("--beta", type=betas, default=BETAS, metavar="BETAS", help="default: %(default)s")
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a setting of the controllers' schedules, at every beta; may be repeated",
    )
    parser.add_argument(
        "--seeds", type=seed_count, default=100, metavar="N", help="seeds 0..N-1; default: 100"
    )
    parser.add_argument(
        "--protocol",
        choices=("standard", "published"),
        default="standard",
        help="accounting: tokens decoded and paid probes, or the released evaluator's; default: standard",
    )
    parser.add_argument(
        "--isolation",
        choices=("strict", "batch", "none"),
        help="default: in-process for shipped controllers, strict (a process for each seed) for all others",
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="processes; default: as the work needs")
    parser.add_argument(
        "--executor", choices=("serial", "processes", "ray"), default="processes", help="default: processes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write DIR/episodes.parquet, a row each, and DIR/misses.parquet, what they asked for in vain",
    )
    parser.add_argument(
        "--probe-tokens",
        type=natural,
        default=20,
        metavar="N",
        help="what a probe costs where the store does not know; default: 20",
    )
    parser.add_argument(
        "--max-branches",
        type=positive,
        metavar="N",
        help="branches an episode may open at the root; default: half of a problem's (published: all)",
    )
    add_costs(parser)
    parser.add_argument(
        "--i-trust-this-code",
        action="store_true",
        help="run controllers of others even where this machine cannot isolate them; results are stamped",
    )


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Evaluate, print the table, write what was asked for.

    Raises:
        UserError: a store, a controller or an option cannot be used.
    """
    from env.evaluate import evaluate
    from env.holdout import record
    from env.misses import MISSES, find_misses
    from env.store import Store

    programs = [rooms.program(name) for name in dict.fromkeys(args.controller)]
    stores = [Store.open(path) for path in dict.fromkeys(args.store or [rooms.bundled("search")])]
    # Before the work, not after it: a file that cannot be written must not cost an evaluation.
    table = args.out and args.out / "episodes.parquet"
    lacking = args.out and args.out / MISSES
    for file in filter(None, (args.json, table, lacking)):
        files.ready(file)
    with progress_bar("episodes") as progress:
        episodes = evaluate(
            stores,
            programs,
            betas=args.beta,
            settings=dict(args.set),
            seeds=range(args.seeds),
            protocol=args.protocol,
            isolation=args.isolation,
            workers=args.workers,
            executor=args.executor,
            probe_tokens=args.probe_tokens,
            max_branches=args.max_branches,
            i_trust_this_code=args.i_trust_this_code,
            costs=args.cost,
            prompt_tokens=args.prompt_tokens,
            progress=progress,
        )
    looked = [(program.name, program.source) for program in programs]
    for store in stores:
        warning = record(
            store.path,
            looked,
            betas=args.beta,
            seeds=range(args.seeds),
            protocol=args.protocol,
            purpose="evaluate",
        )
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
    rows = rows_of(episodes)
    show(rows, episodes, stores, args)
    if args.json:
        files.write(args.json, files.as_json({"rows": rows}))
    if table:
        files.write(table, files.as_parquet(episodes.frame))
        misses = find_misses(
            stores,
            programs,
            episodes.frame,
            settings=dict(args.set),
            protocol=args.protocol,
            probe_tokens=args.probe_tokens,
            max_branches=args.max_branches,
            i_trust_this_code=args.i_trust_this_code,
        )
        files.write(lacking, files.as_parquet(misses))
    return 0


def rows_of(episodes: "Episodes") -> list[dict[str, Any]]:
    """The rows of `env.statistics.summarise`, with what each schedule resolved to and what held the code."""
    from env.statistics import summarise

    levels = dict(episodes.frame.select("controller", "level").unique().iter_rows())
    return [
        row
        | {
            "schedule": episodes.schedules.get((row["controller"], row["beta"])),
            "isolation_level": levels[row["controller"]],
        }
        for row in summarise(episodes.frame)
    ]


def show(
    rows: list[dict[str, Any]], episodes: "Episodes", stores: "list[Store]", args: argparse.Namespace
) -> None:
    """Print the rows as a table, and below it what the figures can bear."""
    from rich.console import Console
    from rich.table import Table

    from env.holdout import count
    from env.statistics import resolution

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("store", overflow="fold")
    table.add_column("controller", overflow="fold")
    # A cost never stands without tokens, nor tokens without sequential tokens.
    costs = list(rows[0]["costs"]) if rows else []
    for name in ("beta", "accuracy", "tokens", "sequential", *costs, "rounds", ""):
        table.add_column(name, justify="left" if not name else "right", no_wrap=bool(name))
    for row in rows:
        table.add_row(
            f"{row['model']} {row['dataset']}",
            row["controller"],
            f"{row['beta']:g}",
            f"{row['accuracy']:.1%}{_interval(row['accuracy_ci'], 100, '.0f')}",
            f"{row['tokens']:,.0f}{_interval(row['tokens_ci'], 1e-3, ',.0f', 'k')}",
            f"{row['sequential_tokens']:,.0f}",
            *(_figures(cost["mean"], cost["ci"]) for cost in row["costs"].values()),
            f"{row['rounds']:.1f}",
            _marks(row),
        )
    console = Console()
    if not console.is_terminal:
        # Without a terminal there is no width to fit, and a folded figure is no figure.
        console = Console(width=max(console.width, 160) + 40 * len(costs))
    console.print(table, highlight=False)
    for row in rows:
        if row["errors"]:
            of = row["problems"] * row["seeds"]
            name = f"{row['controller']} at beta {row['beta']:g}"
            print(f"{name}: {row['errors']} of {of} episodes failed: {row['error']}")
    print(
        f"{args.seeds} seeds, protocol {args.protocol}, "
        f"unknown probes cost {args.probe_tokens if args.protocol == 'standard' else 0} tokens; "
        f"intervals: 95% over problems"
    )
    if args.cost:
        print(
            f"costs: prompts count as {args.prompt_tokens} tokens where the store does not know their length"
        )
    print(resolution(episodes.frame))
    for line in _areas(episodes, stores, args):
        print(line)
    for store in stores:
        print(f"{store.path}: {count(store.path)}")


def _areas(episodes: "Episodes", stores: "list[Store]", args: argparse.Namespace) -> Iterator[str]:
    """Hypervolumes, where the whole grid of betas was played."""
    from env.frontier import hypervolumes, reference
    from env.program import GRID

    if set(GRID) - set(args.beta) or args.set:
        return
    references = {store.path: reference(store.forest(), args.protocol) for store in stores}
    for area in hypervolumes(episodes.frame, references):
        interval = _interval(area.estimate.interval, 1, ".3f")
        yield f"hypervolume of {area.controller}: {area.estimate.value:.3f}{interval} accuracy x nats"


def _marks(row: dict[str, Any]) -> str:
    marks = []
    if row["errors"]:
        marks.append(f"{row['errors']} errors")
    if not row["replayable"]:
        marks.append(f"not replayable on this store: {row['shortfall']:.0%} shortfall")
    if row["isolation"] != "none":
        marks.append(f"{row['isolation']} {row['isolation_level']}".strip())
    return ", ".join(marks)


def _figures(mean: float, pair: Sequence[float] | None) -> str:
    """A cost of whatever size with its interval: 1,234 [1,100, 1,300], or 4.56e+17."""

    def figure(value: float) -> str:
        return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"

    return figure(mean) + (f" [{figure(pair[0])}, {figure(pair[1])}]" if pair else "")


def _interval(pair: Sequence[float] | None, scale: float, form: str, unit: str = "") -> str:
    return f" [{pair[0] * scale:{form}}, {pair[1] * scale:{form}}]{unit}" if pair else ""
