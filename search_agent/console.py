"""What a search says on the terminal: progress while it runs, a table and one sentence at the end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from search_agent.archive import Run

if TYPE_CHECKING:
    from search_agent.arena import Arena

# Rounds that a search without a winner is advised to add.
MORE = 20


class Teller:
    """A line for each thing that happened, and a bar below them for the evaluation in progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar = progress.add_task("", total=None)

    def say(self, line: str) -> None:
        """Tell one thing that happened."""
        self._progress.console.print(line, highlight=False, markup=False)

    def warn(self, line: str) -> None:
        """Tell what must be heard, terminal or not."""
        print(f"autotts: {line}", file=sys.stderr)

    def advance(self, done: int, total: int) -> None:
        """Move the bar: so many episodes of so many."""
        self._progress.update(self._bar, completed=done, total=total)


@contextmanager
def telling(arena: Arena) -> Iterator[Teller]:
    """Show progress on the error stream while it lasts, where that is a terminal; else stay silent."""
    console = Console(stderr=True)
    columns = TextColumn("episodes"), BarColumn(), TextColumn("{task.completed:.0f}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        console.quiet = not console.is_terminal
        teller = Teller(progress)
        arena.progress = teller.advance
        yield teller


def last_error(records: Sequence[Mapping[str, Any]]) -> str:
    """Why the last round came to no program, where none of them did; else ""."""
    return records[-1]["error"] if {record["status"] for record in records} == {"failed"} else ""


def show_outcome(run: Run) -> None:
    """Print what a search found, to the standard output."""
    records = run.rounds()
    statuses = Counter(record["status"] for record in records)
    told = [f"{len(records)} rounds", *(f"{count} {status}" for status, count in statuses.items())]
    print(f"{run.path}: {', '.join(told)}")
    if last_error(records):
        return
    finalists, holdout = run.read("finalists.json"), run.read("holdout.json")
    if finalists is None or holdout is None:
        print(
            "no winner: no program came through whose cost never falls as beta rises. More rounds may: "
            f"autotts search --resume --out {run.path} --rounds {len(records) + MORE}"
        )
        return
    selection = {
        each["name"]: each["selection"] for each in (*finalists["finalists"], *finalists["baselines"])
    }
    print(
        f"winner: {run.folder(holdout['winner']) / 'controller.py'}\n"
        "hypervolume (accuracy x nats) with 95% intervals; accuracy, tokens, sequential tokens at beta 1;\n"
        f"{holdout['problems']} hold-out problems, {holdout['seeds']} seeds, means over stores"
    )
    table = Table(box=None, header_style="")
    table.add_column("")
    for name in ("selection", "hold-out", "", "accuracy", "tokens", "sequential"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in holdout["rows"]:
        last = row["points"][-1]
        table.add_row(
            row["controller"],
            f"{selection[row['controller']]['hypervolume']:.3f}",
            f"{row['hypervolume']:.3f}",
            "[{:.3f}, {:.3f}]".format(*row["hypervolume_ci"]) if row["hypervolume_ci"] else "",
            f"{last['accuracy']:.1%}",
            f"{last['tokens']:,.0f}",
            f"{last['sequential_tokens']:,.0f}",
        )
    # Elsewhere than on a terminal rich would squeeze the table into 80 columns.
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120).print(table)
    for store, looks in holdout["looks"].items():
        print(f"hold-out {store}: {looks}")
    for warning in holdout["warnings"]:
        print(f"autotts: {warning}", file=sys.stderr)
    print(holdout["headline"])
