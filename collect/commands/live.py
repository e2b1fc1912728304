r"""Play a controller against a real model: accuracy, tokens and waiting, with intervals over problems.

autotts live --controller mine.py --beta 0.5 --problems problems.jsonl --model Qwen/Qwen3-8B --out runs/1
autotts live --controller mine.py --beta 0.5 --store stores/mine --server http://localhost:8000 --out runs/1
autotts live ... --concurrency 1,8,64      # waiting, against the problems in flight

The same file runs as in replay, in the same isolation. A branch is one streamed request; one that its program
holds back or gives up is cancelled. Finished episodes are kept in the run's folder: after any interruption
the same command goes on, and episodes that the model failed are played again.
"""

import argparse
import asyncio
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collect.commands import asking, where
from env.commands.options import add_controller, add_settings, beta, positive, seed_count
from env.commands.terminal import progress_bar
from env.errors import UserError
from env.rooms import Rooms

if TYPE_CHECKING:
    from collect.commands.asking import Asked
    from collect.live.memory import Room
    from collect.live.streams import Streams
    from env.live.bench import Bench
    from env.live.folder import RunFolder
    from env.live.player import Player


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts live`."""
    add_controller(parser)
    parser.add_argument("--beta", type=beta, required=True, metavar="B", help="from 0, cheap, to 1, thorough")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run's folder")
    add_settings(parser)
    parser.add_argument(
        "--seeds", type=seed_count, default=1, metavar="N", help="episodes of each problem; default: 1"
    )
    parser.add_argument(
        "--concurrency",
        type=_counts,
        metavar="N,...",
        help="problems in flight; several numbers: play everything at each; default: what the model's "
        "key-value cache holds",
    )
    parser.add_argument(
        "--max-branches",
        type=positive,
        metavar="N",
        help="branches an episode may open at the root; default: 64 (with --follow as in replay)",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="draw just the branches that --store holds, with its seed, in the order in which replay serves "
        "them: in float32 the episodes are then the replayed ones",
    )
    parser.add_argument(
        "--i-trust-this-code",
        action="store_true",
        help="run a controller of others even where this machine cannot isolate it; the results are stamped",
    )
    asking.add_arguments(parser)


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Play, print the table, keep everything in the run's folder.

    Raises:
        UserError: the controller, the model, the problems or an option cannot be used.
    """
    program = rooms.program(args.controller)
    here = where.Where(args)
    here.prepare()
    from env.live.folder import CallLog, RunFolder
    from env.live.player import Player

    asked = _with_seed(args, asking.read(args, add_arguments))
    player = Player(program, args.beta, dict(args.set), i_trust_this_code=args.i_trust_this_code)
    here.check_vllm()
    folder = RunFolder(args.out, _recipe(args, asked, player))
    rows = _finished(args, folder)
    if rows is None:
        with folder.locked():
            places = asking.open_places(args, asked.plan)
            log = CallLog(folder.path)
            try:
                model = asking.open_model(args, asked, places, program, log)
                rows = asyncio.run(_play(args, asked, _bench(args, asked, model, player), places, folder))
            finally:
                log.close()
        folder.write_summary(rows)
    show(rows)
    print(f"episodes, calls and figures: {folder.path}")
    return 0


def _finished(args: argparse.Namespace, folder: "RunFolder") -> list[dict[str, Any]] | None:
    """The figures of a run that has nothing left to play."""
    rows = folder.summary()
    levels = [row["concurrency"] for row in rows]
    if not rows or args.concurrency not in (None, levels) or any(row["model_failures"] for row in rows):
        return None
    return rows


async def _play(
    args: argparse.Namespace,
    asked: "Asked",
    bench: "Bench",
    places: "dict[str, list[Streams]]",
    folder: "RunFolder",
) -> list[dict[str, Any]]:
    """The figures at each concurrency."""
    from collect.live import memory
    from env.live.report import About, figures
    from env.live.run import play_all

    everywhere = [place for some in places.values() for place in some]
    player = bench.player
    try:
        room = await room_of(args, asked, player, everywhere)
        print("\n".join(room.lines()), file=sys.stderr)
        rows = []
        for concurrency in args.concurrency or folder.levels() or [room.episodes]:
            before = await asyncio.gather(*(place.preemptions() for place in everywhere))
            with progress_bar(f"episodes, {concurrency} at a time") as progress:
                played = await play_all(
                    bench, asked.questions, range(args.seeds), concurrency, folder, progress
                )
            after = await asyncio.gather(*(place.preemptions() for place in everywhere))
            counts = memory.total(before), memory.total(after)
            about = About(
                asked.plan.arms[0].model,
                asked.plan.dataset,
                player.program.name,
                player.beta,
                json.dumps(dict(args.set), sort_keys=True),
                player.level,
            )
            preemptions = None if None in counts else counts[1] - counts[0]
            rows.append({"concurrency": concurrency, **figures(played, about), "preemptions": preemptions})
        return rows
    finally:
        await bench.model.close()
        player.close()


def _bench(args: argparse.Namespace, asked: "Asked", model: Any, player: "Player") -> "Bench":
    from env.live.bench import Bench

    follow = asked.store if args.follow else None
    return Bench(model, player, asked.task, asked.plan.drawing.seed, args.max_branches, follow)


def _with_seed(args: argparse.Namespace, asked: "Asked") -> "Asked":
    """The branches of a store are drawn again where that is wanted, and only there."""
    if asked.store is None:
        if args.follow:
            raise UserError("--follow needs --store: the store whose branches are to be drawn again")
        return asked
    stored = asked.store.meta["sampling"]["seed"]
    if args.follow:
        drawing = replace(asked.plan.drawing, seed=stored)
        return replace(asked, plan=replace(asked.plan, drawing=drawing))
    if stored in range(args.seed, args.seed + args.seeds):
        raise UserError(
            f"{asked.store.path} was sampled with the seed {stored}: with --seed {args.seed} its branches "
            "would be drawn once more; give another --seed, or --follow to have just that"
        )
    return asked


def _recipe(args: argparse.Namespace, asked: "Asked", player: "Player") -> dict[str, Any]:
    """What decides the figures of a run."""
    questions = json.dumps([[each.text, each.gold] for each in asked.questions])
    return asking.recipe(args, asked.plan) | {
        "controller": hashlib.sha256(player.program.source.encode()).hexdigest(),
        "settings": dict(args.set),
        "problems": hashlib.sha256(questions.encode()).hexdigest(),
        "seeds": args.seeds,
        "max_branches": args.max_branches,
        "follow": asked.store.sha256 if asked.store is not None and args.follow else None,
    }


async def room_of(
    args: argparse.Namespace, asked: "Asked", player: "Player", places: "Sequence[Streams]"
) -> "Room":
    """How many episodes of a player the model holds at a time."""
    from collect.live.memory import Room, bytes_a_token, total
    from env.live.names import MAX_BRANCHES

    ceiling = args.max_branches or MAX_BRANCHES
    told = (player.settings or {}).get("max_branches")
    branches = min(ceiling, told) if isinstance(told, int) and told > 0 else ceiling
    tokens = asked.branch_tokens or asked.plan.drawing.max_tokens // 2
    capacity = total(await asyncio.gather(*(place.capacity() for place in places)))
    return Room(branches, tokens, bytes_a_token(asked.plan.arms[0].model), capacity)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the figures, a line for each concurrency."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("in flight", "accuracy", "tokens", "sequential", "p50 s", "p95 s", "run ahead", ""):
        table.add_column(name, justify="right" if name else "left", no_wrap=bool(name))
    for row in rows:
        ahead = row["usage"]["run_ahead"], row["usage"]["cancelled"]
        table.add_row(
            str(row["concurrency"]),
            f"{row['accuracy']:.1%}{_interval(row['accuracy_ci'], 100, '.0f')}",
            f"{row['tokens']:,.0f}{_interval(row['tokens_ci'], 1, ',.0f')}",
            f"{row['sequential_tokens']:,.0f}",
            f"{row['p50']:,.2f}{_interval(row['p50_ci'], 1, ',.2f')}",
            f"{row['p95']:,.2f}{_interval(row['p95_ci'], 1, ',.2f')}",
            f"{ahead[0]:,.0f} ({ahead[1]:,.0f} in vain)",
            f"{row['errors']} errors: {row['error']}" if row["errors"] else "",
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 160))
    console.print(table, highlight=False)
    first = rows[0]
    print(
        f"{first['problems']} problems, {first['seeds']} episodes each; intervals: 95% over problems; "
        "run ahead: tokens an episode that were decoded before they were asked for"
    )


def _interval(pair: Sequence[float] | None, scale: float, form: str) -> str:
    return f" [{pair[0] * scale:{form}}, {pair[1] * scale:{form}}]" if pair else ""


def _counts(text: str) -> list[int]:
    return [positive(part.strip()) for part in text.split(",")]
