"""The report's tables as HTML; tokens never stand without sequential tokens beside them."""

import json
from collections.abc import Sequence

from env.drawing.canvas import Look, short
from env.drawing.frontiers import Interval, percents
from env.drawing.tables import faint, named, row, table
from env.drawing.text import show
from search_agent.report.view import Score


def overview(scores: Sequence[tuple[Score, Look]]) -> str:
    """A row a controller: its hypervolume, and what it reaches at its most thorough."""
    rows = []
    for score, look in scores:
        last = score.points[-1]
        cells = (
            named(score.name, look),
            f"{score.hypervolume:.3f}{faint(_hundredths(score.interval))}",
            f"{last.accuracy:.1%}",
            short(last.tokens),
            short(last.sequential_tokens),
        )
        rows.append(row(cells, look.css))
    heads = ("at beta 1", "hypervolume", "accuracy", "tokens", "sequential")
    return table(heads, rows)


def figures(scores: Sequence[tuple[Score, Look]]) -> str:
    """Every point of every controller, with its intervals."""
    rows = []
    for score, look in scores:
        for i, point in enumerate(score.points):
            cells = (
                named(score.name, look) if i == 0 else "",
                f"{point.beta:g}",
                f"{100 * point.accuracy:.1f}{faint(percents(point.accuracy_ci))}",
                f"{short(point.tokens)}{faint(_shorts(point.tokens_ci))}",
                short(point.sequential_tokens),
            )
            rows.append(row(cells, "first" if i == 0 else ""))
    return table(("controller", "beta", "accuracy, %", "tokens", "sequential"), rows)


def parts(feedback: Score, selection: Score) -> str:
    """One program on the two parts of the search problems, side by side."""
    rows = []
    for seen, unseen in zip(feedback.points, selection.points, strict=True):
        cells = [f"{seen.beta:g}"]
        for point in (unseen, seen):
            cells += [
                f"{100 * point.accuracy:.1f}{faint(percents(point.accuracy_ci))}",
                short(point.tokens),
                short(point.sequential_tokens),
            ]
        rows.append(row(cells))
    total = (
        "hypervolume",
        *(f'{score.hypervolume:.3f}</td><td colspan="2">' for score in (selection, feedback)),
    )
    rows.append(row(total, "first"))
    heads = (
        "beta",
        "selection: accuracy, %",
        "tokens",
        "sequential",
        "feedback: accuracy, %",
        "tokens",
        "sequential",
    )
    return table(heads, rows)


def schedule(score: Score) -> str:
    """What each setting is at each beta, as the program's own `schedule` told; "" where it never did."""
    told = [(point.beta, point.settings) for point in score.points if point.settings is not None]
    names = dict.fromkeys(name for _, settings in told for name in settings)
    rows = [
        row((f"<code>{show(name)}</code>", *(_value(settings.get(name, "")) for _, settings in told)))
        for name in names
    ]
    return table(("beta", *(f"{beta:g}" for beta, _ in told)), rows) if rows else ""


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return show(text if len(text) <= 80 else f"{text[:79]}…")


def _hundredths(interval: Interval) -> str:
    return f"[{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""


def _shorts(interval: Interval) -> str:
    return f"[{short(interval[0])}, {short(interval[1])}]" if interval else ""
