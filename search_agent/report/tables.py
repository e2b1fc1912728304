"""The report's tables as HTML; tokens never stand without sequential tokens beside them."""

import json
from collections.abc import Sequence

from search_agent.report.canvas import shape, short
from search_agent.report.charts import percents
from search_agent.report.listing import show
from search_agent.report.view import Interval, Score


def overview(scores: Sequence[tuple[Score, int]]) -> str:
    """A row a controller: its hypervolume, and what it reaches at its most thorough."""
    rows = []
    for score, style in scores:
        last = score.points[-1]
        cells = (
            _named(score, style),
            f"{score.hypervolume:.3f}{_faint(_hundredths(score.interval))}",
            f"{last.accuracy:.1%}",
            short(last.tokens),
            short(last.sequential_tokens),
        )
        rows.append(_row(cells, f"k{style}"))
    heads = ("at beta 1", "hypervolume", "accuracy", "tokens", "sequential")
    return _table(heads, rows)


def figures(scores: Sequence[tuple[Score, int]]) -> str:
    """Every point of every controller, with its intervals."""
    rows = []
    for score, style in scores:
        for i, point in enumerate(score.points):
            cells = (
                _named(score, style) if i == 0 else "",
                f"{point.beta:g}",
                f"{100 * point.accuracy:.1f}{_faint(percents(point.accuracy_ci))}",
                f"{short(point.tokens)}{_faint(_shorts(point.tokens_ci))}",
                short(point.sequential_tokens),
            )
            rows.append(_row(cells, "first" if i == 0 else ""))
    return _table(("controller", "beta", "accuracy, %", "tokens", "sequential"), rows)


def parts(feedback: Score, selection: Score) -> str:
    """One program on the two parts of the search problems, side by side."""
    rows = []
    for seen, unseen in zip(feedback.points, selection.points, strict=True):
        cells = [f"{seen.beta:g}"]
        for point in (unseen, seen):
            cells += [
                f"{100 * point.accuracy:.1f}{_faint(percents(point.accuracy_ci))}",
                short(point.tokens),
                short(point.sequential_tokens),
            ]
        rows.append(_row(cells))
    total = (
        "hypervolume",
        *(f'{score.hypervolume:.3f}</td><td colspan="2">' for score in (selection, feedback)),
    )
    rows.append(_row(total, "first"))
    heads = (
        "beta",
        "selection: accuracy, %",
        "tokens",
        "sequential",
        "feedback: accuracy, %",
        "tokens",
        "sequential",
    )
    return _table(heads, rows)


def schedule(score: Score) -> str:
    """What each setting is at each beta, as the program's own `schedule` told; "" where it never did."""
    told = [(point.beta, point.settings) for point in score.points if point.settings is not None]
    names = dict.fromkeys(name for _, settings in told for name in settings)
    rows = [
        _row((f"<code>{show(name)}</code>", *(_value(settings.get(name, "")) for _, settings in told)))
        for name in names
    ]
    return _table(("beta", *(f"{beta:g}" for beta, _ in told)), rows) if rows else ""


def _named(score: Score, style: int) -> str:
    """A controller's mark, as in the pictures, and its name, which may break at its underscores."""
    mark = f'<path class="mark k{style}" d="{shape(style)}"/>'
    return (
        f'<span class="who"><svg viewBox="-7 -7 14 14" aria-hidden="true">{mark}</svg>'
        f"{show(score.name).replace('_', '_<wbr>')}</span>"
    )


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return show(text if len(text) <= 80 else f"{text[:79]}…")


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll">{body}</div>'


def _row(cells: Sequence[str], style: str = "") -> str:
    return f'<tr class="{style}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _faint(text: str) -> str:
    return f' <span class="ci">{text}</span>' if text else ""


def _hundredths(interval: Interval) -> str:
    return f"[{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""


def _shorts(interval: Interval) -> str:
    return f"[{short(interval[0])}, {short(interval[1])}]" if interval else ""
