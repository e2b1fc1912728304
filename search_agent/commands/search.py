"""Search for better controllers: propose, evaluate, feed back; then judge the winner on problems set aside.

Ends with a table, one sentence, and a report to look at. Interrupt it at any time; --resume goes on.

    autotts search
    autotts search stores/*/aime24 --minutes 15 --out runs/first
    autotts search --resume --out runs/first
    autotts search stores/*/aime24 --proposer openai:model=gpt-5-mini --proposer tune --max-cost 5
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from env.commands.options import natural, positive
from env.errors import UserError
from env.executors import processors
from env.program import needs
from search_agent import proposers, start
from search_agent.archive import Run
from search_agent.workbench import ABLATIONS

if TYPE_CHECKING:
    from env.rooms import Rooms

PUBLISHED = (
    "self_consistency",
    "adaptive_consistency",
    "early_stopping_consistency",
    "parallel_probe",
    "confidence_momentum",
)
# Rounds of a search that was told neither --rounds nor --minutes, without and with a model to wait for; and
# minutes of the demo, which must not try anybody's patience.
ROUNDS, FEW_ROUNDS, MINUTES = 60, 10, 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts search`."""
    parser.add_argument(
        "stores", nargs="*", metavar="STORE", help="search on these stores (default: a bundled demo)"
    )
    parser.add_argument(
        "--holdout",
        nargs="+",
        default=[],
        metavar="STORE",
        help="look at these once, at the end (default: 30%% of the problems are set aside)",
    )
    parser.add_argument(
        "--proposer",
        action="append",
        metavar="NAME[:OPTION=VALUE,...]",
        help=f"who writes the programs: {', '.join(proposers.NAMES)}; repeat it for several, which then work "
        "at the same time, each with options of its own, such as openai:model=gpt-5,role=refine (explore "
        "builds on anyone in the archive, refine on the best; default: openai where there is a key and a "
        "model, else compose; for the demo compose)",
    )
    parser.add_argument("--rounds", type=positive, metavar="N", help="stop after so many programs")
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="stop after about so many minutes, end included"
    )
    parser.add_argument(
        "--plateau", type=positive, metavar="N", help="stop after so many programs without a new best"
    )
    parser.add_argument(
        "--ablate",
        action="append",
        choices=tuple(ABLATIONS),
        default=[],
        help="do without, to see what it is good for (repeatable): "
        + "; ".join(f"{name}: {what}" for name, what in ABLATIONS.items()),
    )
    parser.add_argument(
        "--out", type=Path, metavar="RUN", help="the run's folder (default: runs/0001, runs/0002, ...)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--seeds",
        type=positive,
        default=20,
        metavar="N",
        help="seeds of a round, a quarter of them at first; the end takes 5 N (default: 20)",
    )
    parser.add_argument(
        "--folds",
        type=positive,
        default=3,
        metavar="K",
        help="one fold in K is shown to proposers (default: 3)",
    )
    parser.add_argument(
        "--protocol", choices=("standard", "published"), default="standard", help="default: standard"
    )
    parser.add_argument(
        "--probe-tokens",
        type=natural,
        default=20,
        metavar="N",
        help="cost of a probe where unknown (default: 20)",
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (default: one a core)")
    parser.add_argument(
        "--i-trust-this-code",
        action="store_true",
        help="run programs of a model or a command even where this machine cannot isolate them",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the search itself (default: 0)")
    proposers.add_arguments(parser)


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Search, and say what was found.

    Raises:
        UserError: an option, a store, the run folder, the proposer or the disk stands in the way.
    """
    from search_agent.console import last_error, show_outcome, telling
    from search_agent.loop import Search, SearchStopped
    from search_agent.report.live import redrawing

    for bound in ("minutes", "max_cost", "max_total_tokens"):
        value = getattr(args, bound)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{bound.replace('_', '-')} {value:g}: expected a number above 0")
    run, options = _resumed(args) if args.resume else _started(args, rooms)
    arena = start.open_arena(options)
    hidden = [Path(store.path) for store in (*arena.stores, *arena.holdout)]
    lanes = proposers.lanes(options, [*hidden, run.path if run else options.out])
    config = start.configuration(arena, options, lanes)
    stop = {name: getattr(options, name) for name in start.STOP}
    if run:
        start.require_same(config, run.config, run.path)
    else:
        run = Run.create(options.out, config, stop)
    if len(lanes) > 1:
        # What they try must not wait for a round that is evaluated.
        arena.workers = max(2, arena.workers or len(processors()))
    baselines = [rooms.program(name) for name in PUBLISHED]
    held = frozenset.intersection(*(store.capabilities for store in arena.stores))
    sources = {name: rooms.program(name).source for name in rooms.controllers()}
    examples = {name: source for name, source in sources.items() if needs(source) <= held}
    try:
        with (
            run.writing(),
            telling(arena) as teller,
            redrawing(run.path, teller.warn) as redraw,
        ):
            arena.progress = teller.advance

            def say(line: str) -> None:
                teller.say(line)
                redraw()

            run.change_stop(stop)
            Search(run, arena, lanes, baselines, examples, say, warn=teller.warn, ablated=options.ablate).go()
        show_outcome(run)
    except KeyboardInterrupt:
        again = f"autotts search --resume --out {shlex.quote(str(run.path))}"
        print(f"autotts: interrupted; go on with: {again}", file=sys.stderr)
        return 130
    except SearchStopped:
        draw(run)
        raise
    draw(run)
    if error := last_error(run.rounds()):
        print(f"autotts: no round came to a program; the last one failed: {error}", file=sys.stderr)
        return 1
    return 0


def draw(run: Run) -> None:
    """Draw the report, or say why not: what was found does not depend on a picture of it."""
    from search_agent.report import write_report

    try:
        print(f"report: {write_report(run.path)}")
    except Exception as error:
        again = f"autotts report {shlex.quote(str(run.path))}"
        print(f"autotts: the report could not be drawn ({error}); try: {again}", file=sys.stderr)


def _started(args: argparse.Namespace, rooms: Rooms) -> tuple[None, argparse.Namespace]:
    demo = not args.stores
    if demo:
        args.stores = [str(rooms.bundled("search"))]
        args.holdout = args.holdout or [str(rooms.bundled("holdout"))]
        print("no store named: a demo on samples of a tiny model, which prove nothing about real ones")
    args.stores, args.holdout = start.portable_paths(args.stores), start.portable_paths(args.holdout)
    args.out = args.out or start.next_folder()
    args.proposer = args.proposer or ["compose" if demo else proposers.default(args)]
    if not args.rounds and not args.minutes:
        args.rounds = ROUNDS if set(args.proposer) <= set(proposers.QUICK) else FEW_ROUNDS
        args.minutes = MINUTES if demo else None
    return None, args


def _resumed(args: argparse.Namespace) -> tuple[Run, argparse.Namespace]:
    if not args.out:
        raise UserError("--resume needs to know which run: give its folder with --out")
    run = Run.open(args.out)
    if "ablated" not in run.config:
        raise UserError(
            f"{run.path} was started by an earlier AutoTTS, which measured every program whole; finish it "
            "with that, or start another run with another --out"
        )
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = start.merged(args, vars(parser.parse_args([])), run.config["options"], run.path)
    for name in start.STOP:
        # Rounds and minutes are one bound: who gives either gives both.
        given = args.rounds or args.minutes if name in ("rounds", "minutes") else getattr(args, name)
        setattr(options, name, getattr(args, name) if given else run.stop.get(name))
    if (
        (args.rounds or args.minutes)
        and run.read("finalists.json")
        and (args.minutes or args.rounds > len(run.rounds()))
    ):
        raise UserError(
            f"{run.path} has chosen its winner and looked at the hold-out; what came after that could not "
            "be judged by it: start another run with another --out"
        )
    return run, options
