"""The report's tables as HTML; tokens never stand without sequential tokens beside them."""

import json
from collections.abc import Sequence

from env.drawing.canvas import Look, short
from env.drawing.frontiers import Interval, percents
from env.drawing.tables import faint, named, row, table
from env.drawing.text import show
from search_agent.report.view import Hypothesis, Score
from search_agent.report.words import verdict


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


def parts(feedback: Score, selection: Score | None) -> str:
    """One program on the two parts of the search problems, side by side, as far as it was measured."""
    scores = [(name, score) for name, score in (("selection", selection), ("feedback", feedback)) if score]
    rows = []
    for points in zip(*(score.points for _, score in scores), strict=True):
        cells = [f"{points[0].beta:g}"]
        for point in points:
            cells += [
                f"{100 * point.accuracy:.1f}{faint(percents(point.accuracy_ci))}",
                short(point.tokens),
                short(point.sequential_tokens),
            ]
        rows.append(row(cells))
    total = ("hypervolume", *(f'{score.hypervolume:.3f}</td><td colspan="2">' for _, score in scores))
    rows.append(row(total, "first"))
    heads = [head for name, _ in scores for head in (f"{name}: accuracy, %", "tokens", "sequential")]
    return table(("beta", *heads), rows)


def claims(stated: Hypothesis) -> str:
    """What became of each claim of a hypothesis; "" where none could be checked."""
    rows = [
        row(
            (
                f'<span class="words">{show(claim.text)}</span>',
                verdict(claim.outcome),
                "" if claim.change is None else f"{claim.change:+.3g}{faint(_signed(claim.interval))}",
                show(claim.units),
            )
        )
        for claim in stated.claims
    ]
    return table(("claim", "verdict", "change", "from"), rows) if rows else ""


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


def _signed(interval: Interval) -> str:
    return f"[{interval[0]:+.3g}, {interval[1]:+.3g}]" if interval else ""


def _shorts(interval: Interval) -> str:
    return f"[{short(interval[0])}, {short(interval[1])}]" if interval else ""
