"""What `autotts evaluate` prints: every row, then what the figures can bear."""

import argparse
import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from env.evaluate import Episodes
    from env.lineup import Entry, Matched
    from env.statistics import Estimate
    from env.store import Store


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
    from env.holdout import count
    from env.statistics import resolution

    # A cost never stands without tokens, nor tokens without sequential tokens.
    costs = list(rows[0]["costs"]) if rows else []
    lines = [
        (
            f"{row['model']} {row['dataset']}",
            row["controller"],
            f"{row['beta']:g}",
            f"{row['accuracy']:.1%}{_interval(row['accuracy_ci'], 100, '.0f')}",
            f"{row['tokens']:,.0f}{_tokens(row['tokens_ci'])}",
            f"{row['sequential_tokens']:,.0f}",
            *(_figures(cost["mean"], cost["ci"]) for cost in row["costs"].values()),
            f"{row['rounds']:.1f}",
            _marks(row),
        )
        for row in rows
    ]
    heads = "store", "controller", "beta", "accuracy", "tokens", "sequential", *costs, "rounds", ""
    _print(heads, lines, names=2, width=160 + 40 * len(costs))
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
    """Hypervolumes, where the whole grid of betas was played; those of --all have a table of their own."""
    from env.frontier import hypervolumes, reference
    from env.program import GRID

    if args.all or set(GRID) - set(args.beta) or args.set:
        return
    references = {store.path: reference(store.forest(), args.protocol) for store in stores}
    for area in hypervolumes(episodes.frame, references):
        interval = _interval(area.estimate.interval, 1, ".3f")
        yield f"hypervolume of {area.controller}: {area.estimate.value:.3f}{interval} accuracy x nats"


def show_lineup(entries: "Sequence[Entry]", verifiers: Collection[str]) -> None:
    """Print how controllers stand against self-consistency, at its costs and at its accuracies.

    Args:
        entries: best first.
        verifiers: names of the controllers that ask a process reward model.
    """
    widths = [match.width for match in entries[0].matches] if entries else []
    names = [
        f"{entry.controller} (PRM)" if entry.controller in verifiers else entry.controller
        for entry in entries
    ]
    _print(
        ("", "hypervolume", *(f"tokens of {width}" for width in widths), ""),
        [
            (name, _area(entry.hypervolume), *map(_at_cost, entry.matches), _lacking(entry))
            for name, entry in zip(names, entries, strict=True)
        ],
        names=1,
        width=160,
        title="\naccuracy for the tokens of self-consistency at so many branches, sequential tokens",
    )
    _print(
        ("", *(f"accuracy of {width}" for width in widths)),
        [(name, *map(_at_accuracy, entry.matches)) for name, entry in zip(names, entries, strict=True)],
        names=1,
        width=160,
        title="\ntokens for the accuracy of self-consistency at so many branches, in times its own",
    )


def _area(estimate: "Estimate | None") -> str:
    return f"{estimate.value:.3f}{_interval(estimate.interval, 1, '.2f')}" if estimate else "-"


def _at_cost(match: "Matched") -> str:
    if match.accuracy is None or match.sequential is None:
        return "costs more"
    interval = _interval(match.accuracy.interval, 100, ".0f")
    return f"{match.accuracy.value:.1%}{interval}, {match.sequential:,.0f} seq."


def _at_accuracy(match: "Matched") -> str:
    latency = "" if math.isinf(match.latency.value) else f", {match.latency.value:.2f} seq."
    return f"{match.tokens}{latency}"


def _lacking(entry: "Entry") -> str:
    """At which betas the store is too small for a controller."""
    short = [f"{place.beta:g}" for place in entry.points if not place.replayable]
    return f"not replayable at beta {', '.join(short)}" if short else ""


def _marks(row: dict[str, Any]) -> str:
    marks = []
    if row["errors"]:
        marks.append(f"{row['errors']} errors")
    if not row["replayable"]:
        marks.append(f"not replayable on this store: {row['shortfall']:.0%} shortfall")
    if row["isolation"] != "none":
        marks.append(f"{row['isolation']} {row['isolation_level']}".strip())
    return ", ".join(marks)


def _print(
    heads: Sequence[str], lines: Sequence[Sequence[str]], names: int, width: int, title: str | None = None
) -> None:
    """A table whose first columns are names, the others figures, save one without a head."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left")
    for place, head in enumerate(heads):
        if place < names:
            table.add_column(head, overflow="fold")
        else:
            table.add_column(head, justify="right" if head else "left", no_wrap=bool(head))
    for line in lines:
        table.add_row(*line)
    console = Console()
    if not console.is_terminal:
        # Without a terminal there is no width to fit, and a folded figure is no figure.
        console = Console(width=max(console.width, width))
    console.print(table, highlight=False)


def _tokens(pair: Sequence[float] | None) -> str:
    """An interval in thousands, unless it would be lost in them."""
    if pair and pair[1] - pair[0] >= 10_000:
        return _interval(pair, 1e-3, ",.0f", "k")
    return _interval(pair, 1, ",.0f")


def _figures(mean: float, pair: Sequence[float] | None) -> str:
    """A cost of whatever size with its interval: 1,234 [1,100, 1,300], or 4.56e+17."""

    def figure(value: float) -> str:
        return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"

    return figure(mean) + (f" [{figure(pair[0])}, {figure(pair[1])}]" if pair else "")


def _interval(pair: Sequence[float] | None, scale: float, form: str, unit: str = "") -> str:
    return f" [{pair[0] * scale:{form}}, {pair[1] * scale:{form}}]{unit}" if pair else ""
