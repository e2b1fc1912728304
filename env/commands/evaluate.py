"""Measure accuracy and cost of controllers on stores, with intervals over problems.

autotts evaluate stores/aime24 --controller self_consistency confidence_momentum
autotts evaluate stores/* --controller mine.py --beta 0,0.5,1 --json rows.json --out episodes/
autotts evaluate stores/aime24 --controller self_consistency --set max_branches=16 --protocol published
autotts evaluate --all

With --all every controller that the stores have the means for is measured, and their frontiers are drawn side
by side. What was measured before is not measured again: interrupted, the same command goes on.

A controller that raises, hangs or cheats is a row with its error; the others' rows come all the same.
"""

import argparse
import sys
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env import files
from env.commands.options import (
    BETAS,
    add_costs,
    add_settings,
    betas,
    natural,
    positive,
    require_settings,
    seed_count,
)
from env.commands.terminal import progress_bar
from env.errors import UserError
from env.playback import prepare
from env.rooms import Rooms

if TYPE_CHECKING:
    from env.archive import Archive
    from env.evaluate import Episodes
    from env.program import Program
    from env.store import Store

SEEDS, SEEDS_OF_ALL = 100, 50
# Where --all keeps what it has played, if it is not told.
LINEUP = Path("runs/all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts evaluate`."""
    parser.add_argument("store", nargs="*", metavar="STORE", help="stores to replay; default: a bundled demo")
    parser.add_argument(
        "--controller",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME_OR_PATH",
        help="shipped controllers by name (see `autotts controllers`), your own by the path of the file",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="all shipped controllers, and those of --controller besides, side by side",
    )
    parser.add_argument("--beta", type=betas, default=BETAS, metavar="BETAS", help="default: %(default)s")
    add_settings(parser, "override a setting of the controllers' schedules, at every beta; may be repeated")
    parser.add_argument(
        "--seeds",
        type=seed_count,
        metavar="N",
        help=f"seeds 0..N-1; default: {SEEDS}, with --all {SEEDS_OF_ALL}",
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
        help="write DIR/episodes.parquet, a row each, and DIR/misses.parquet, what they asked for in vain; "
        "with --all instead of the latter the picture, and what a later run goes on from "
        f"(default: {LINEUP})",
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
    from env.archive import Archive
    from env.commands.lineup import side_by_side
    from env.commands.tables import rows_of, show
    from env.misses import MISSES, find_misses
    from env.store import Store

    if args.all and args.set:
        raise UserError(
            "--set is for controllers that have the setting: leave it out with --all, or name them"
        )
    if not (args.all or args.controller):
        raise UserError("nothing to evaluate: name controllers with --controller, or give --all")
    if args.all:
        args.out = args.out or LINEUP
    args.seeds = args.seeds or (SEEDS_OF_ALL if args.all else SEEDS)
    stores = [Store.open(path) for path in dict.fromkeys(args.store or [rooms.bundled("search")])]
    names = [*(rooms.controllers() if args.all else ()), *args.controller]
    programs = [rooms.program(name) for name in dict.fromkeys(names)]
    if args.all:
        programs, left_out = playable(programs, stores)
    require_settings(programs, args.beta, dict(args.set))
    # Before the work, not after it: a file that cannot be written must not cost an evaluation.
    table = args.out and args.out / "episodes.parquet"
    lacking = args.out and args.out / MISSES
    if args.json:
        files.ready_for_json(args.json, "rows")
    for file in filter(None, (table, lacking)):
        files.ready(file)
    archive = Archive(args.out / "units") if args.all else None
    try:
        episodes = _played(stores, programs, args, archive)
    except KeyboardInterrupt:
        if archive is None:
            raise
        print("autotts: interrupted; the same command goes on where this one ended", file=sys.stderr)
        return 130
    rows = rows_of(episodes)
    show(rows, episodes, stores, args)
    figures: dict[str, Any] = {"rows": rows}
    if table:
        files.write(table, files.as_parquet(episodes.frame))
    if args.all:
        figures |= side_by_side(episodes, stores, programs, left_out, args)
    elif lacking:
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
    if args.json:
        files.write(args.json, files.as_json(figures))
    return 0


def playable(programs: "Sequence[Program]", stores: "Sequence[Store]") -> "tuple[list[Program], list[str]]":
    """The programs that every store has the means for, and a sentence for each of the others."""
    from env.program import needs

    able, left_out = [], []
    for program in programs:
        needed = needs(program.source)
        lacks = {store.path: sorted(needed - store.capabilities) for store in stores}
        reasons = [f"{path} has no {' and no '.join(names)}" for path, names in lacks.items() if names]
        if reasons:
            left_out.append(f"{program.name} cannot be played: {'; '.join(reasons)}")
        else:
            able.append(program)
    return able, left_out


def _played(
    stores: "list[Store]", programs: "list[Program]", args: argparse.Namespace, archive: "Archive | None"
) -> "Episodes":
    """Play what is to be played, and count it as a look at the stores."""
    from env.evaluate import evaluate
    from env.holdout import record

    counted: set[tuple[str, str]] = set()

    def count_looks(seen: Set[tuple[str, str]]) -> None:
        for store in stores:
            looked = [
                (program.name, program.source)
                for program in programs
                if (store.path, program.name) in seen - counted
            ]
            warning = looked and record(
                store.path,
                looked,
                betas=args.beta,
                seeds=range(args.seeds),
                protocol=args.protocol,
                purpose="evaluate",
            )
            if warning:
                print(f"warning: {warning}", file=sys.stderr)
        counted.update(seen)

    prepare(lambda what: print(what, file=sys.stderr))
    with progress_bar("episodes") as progress:

        def advance(done: int, total: int) -> None:
            if archive:
                # At once: a run that is killed has been a look all the same, and is not counted later.
                count_looks(archive.played)
            progress(done, total)

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
            archive=archive,
            progress=advance,
        )
    if not archive:
        count_looks({(store.path, program.name) for store in stores for program in programs})
    return episodes
