"""Fit a compute-optimal policy: which controller to play, by how hard a problem seems and what may be spent.

Evaluates the controllers over a grid of betas, chooses the best for each difficulty and budget, and writes
the choice down as one controller file that runs like any other. With a hold-out it says what that is worth
there, against every controller on its own, and beside what could be had if the difficulties were known.

    autotts policy --controller self_consistency adaptive_consistency best_of_n --out policy.py
    autotts policy stores/*/aime24 --holdout stores/*/aime25 --controller self_consistency mine.py --out p.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from env import files
from env.commands.options import betas, positive, seed_count
from env.commands.terminal import progress_bar
from env.errors import UserError
from env.program import Program, ProgramError, check, needs

# Twice as many as elsewhere: a policy chooses from them.
BETAS = ",".join(f"{k / 8:g}" for k in range(9))

if TYPE_CHECKING:
    import polars as pl

    from env.rooms import Rooms
    from env.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts policy`."""
    parser.add_argument("store", nargs="*", metavar="STORE", help="stores to fit on; default: a bundled demo")
    parser.add_argument(
        "--controller",
        nargs="+",
        action="extend",
        required=True,
        metavar="NAME_OR_PATH",
        help="the controllers to choose from, as in `autotts evaluate`",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.py", help="the policy's file")
    parser.add_argument(
        "--holdout", nargs="+", default=[], metavar="STORE", help="stores to try it on; default: the demo's"
    )
    parser.add_argument(
        "--beta", type=betas, default=BETAS, metavar="BETAS", help="of the controllers; default: %(default)s"
    )
    parser.add_argument("--seeds", type=seed_count, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--scouts",
        type=positive,
        default=4,
        metavar="N",
        help="whole branches that tell how hard a problem is; the controller goes on from them; default: 4",
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="processes; default: as the work needs")


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Fit, write the file, and say what it is worth.

    Raises:
        UserError: a store, a controller or the file cannot be used.
    """
    from env.holdout import count
    from env.store import Store
    from search_agent.policy.learning import Experiment, held_out, learn
    from search_agent.splits import require_apart
    from search_agent.start import problems_of

    demo = not args.store
    stores = [Store.open(path) for path in dict.fromkeys(args.store or [rooms.bundled("search")])]
    held = args.holdout or ([rooms.bundled("holdout")] if demo else [])
    others = [Store.open(path) for path in dict.fromkeys(held)]
    require_apart(problems_of(others), problems_of(stores))
    programs = [rooms.program(name) for name in dict.fromkeys(args.controller)]
    _check(programs, [*stores, *others], args)
    files.ready(args.out)
    with progress_bar("episodes") as progress:
        experiment = Experiment(
            programs,
            sorted(args.beta),
            range(args.seeds),
            args.scouts,
            args.workers,
            lambda part, done, total: progress(done, total),
        )
        policy = learn(experiment, stores)
        source = policy.source
        _record(stores, programs, experiment.betas, args.seeds)
        files.write(args.out, source.encode())
        tried = held_out(policy, others, args.out.stem) if others else {}
    print("\n".join(policy.lines()))
    for failed in policy.failed:
        print(f"note: {failed}")
    if not policy.easier:
        print("too few problems to tell difficulties apart: at each budget the best single controller plays")
    if tried:
        written = Program(args.out.stem, source)
        _record(others, [written, *programs], experiment.betas, args.seeds)
        _show(tried, written.name, policy.single)
        print()
        for store in others:
            print(f"{store.path}: {count(store.path)}")
    print(f"policy: {args.out}")
    return 0


def _check(programs: Sequence[Program], stores: Sequence[Store], args: argparse.Namespace) -> None:
    """Before the work: what no controller could do on these stores, and a file that is none."""
    for program in programs:
        try:
            check(program.source)
        except ProgramError as error:
            raise UserError(
                f"{program.path} cannot be chosen from: {error}; mend it, or leave it out"
            ) from None
        for store in stores:
            if lacking := sorted(needs(program.source) - store.capabilities):
                raise UserError(
                    f"{program.name} needs {', '.join(lacking)}, which {store.path} does not have"
                )
    if args.out.suffix != ".py":
        raise UserError(f"{args.out} is to be a controller: give a file whose name ends in .py")
    if args.out.stem in {program.name for program in programs}:
        raise UserError(
            f"{args.out} has the name of a controller to choose from; give the policy another one"
        )
    if 0 not in args.beta:
        raise UserError(f"--beta must begin with 0, where a policy begins: for example {BETAS}")


def _record(stores: Sequence[Store], programs: Sequence[Program], betas: Sequence[float], seeds: int) -> None:
    from env.holdout import record

    for store in stores:
        warning = record(
            store.path,
            [(program.name, program.source) for program in programs],
            betas=betas,
            seeds=range(seeds),
            protocol="standard",
            purpose="policy",
        )
        if warning:
            print(f"warning: {warning}", file=sys.stderr)


def _show(tried: dict[str, pl.DataFrame], name: str, single: str) -> None:
    """The hold-out: rows of figures, and the policy against every controller."""
    from env.commands.compare import describe
    from env.comparison import compare
    from env.statistics import summarise
    from search_agent.policy.learning import KNOWN

    print(f"\non the hold-out, {single} being the best controller on its own in what was fitted:")
    for shown in (each for each in (name, KNOWN, single) if each in tried):
        for row in summarise(tried[shown]):
            low, high = (100 * bound for bound in row["accuracy_ci"] or (row["accuracy"],) * 2)
            print(
                f"{row['model']} {row['dataset']}, {row['controller']} at beta {row['beta']:g}:"
                f" {row['accuracy']:.1%} [{low:.0f}, {high:.0f}],"
                f" {row['tokens']:,.0f} tokens, {row['sequential_tokens']:,.0f} sequential"
            )
    for other in (rival for rival in tried if rival not in (name, KNOWN)):
        print(f"\n{describe(compare(tried[name], tried[other]))}")
    if single in tried:
        print(f"\n{describe(compare(tried[KNOWN], tried[single]))}")
