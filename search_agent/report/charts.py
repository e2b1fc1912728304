"""The report's pictures, drawn here rather than in the browser: what is in the file is what is shown.

Each is drawn twice, for a wide and for a narrow page, so that its letters stay readable on both; the page's
style sheet shows one. Colours are classes of that style sheet, so the pictures follow light and dark.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search_agent.report.canvas import CROSS, DISC, DOWN, Canvas, log_ticks, shape, short, ticks
from search_agent.report.view import Interval, Point


@dataclass(frozen=True)
class Curve:
    """A controller's frontier, or its hypervolume as a level.

    Attributes:
        label: what is written beside it.
        style: 0 for the winner, 1 to 5 for a baseline.
    """

    label: str
    style: int
    points: Sequence[Point]
    hypervolume: float


@dataclass(frozen=True)
class Step:
    """A round in the picture of progress; `value` is None where it was not evaluated."""

    round: int
    parent: int | None
    value: float | None
    eligible: bool
    title: str


def frontiers(label: str, curves: Sequence[Curve]) -> str:
    """Accuracy over tokens (logarithmic), with the 95% intervals of the winner.

    Args:
        label: what the picture shows, for those who cannot see it.
        curves: at least one.
    """
    canvases = Canvas("wide", 560, 410, 134), Canvas("narrow", 360, 370, 108)
    return "".join(_frontiers(canvas, label, curves) for canvas in canvases)


def progress(label: str, steps: Sequence[Step], baselines: Sequence[Curve], lineage: set[int]) -> str:
    """Hypervolume over rounds: each round and its parent, the best so far, the baselines' levels.

    Args:
        label: what the picture shows, for those who cannot see it.
        steps: the rounds, oldest first; at least one.
        baselines: at least one, unless a round was evaluated.
        lineage: the rounds that led to the winner, itself included.
    """
    canvases = Canvas("wide", 1120, 350, 170), Canvas("narrow", 360, 330, 108)
    return "".join(_progress(canvas, label, steps, baselines, lineage) for canvas in canvases)


def percents(interval: Interval) -> str:
    """An interval of a share, in percent; "" where there is none."""
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""


def _frontiers(canvas: Canvas, label: str, curves: Sequence[Curve]) -> str:
    points = [p for curve in curves for p in curve.points]
    whiskers = [p for curve in curves if curve.style == 0 for p in curve.points]
    tokens = [p.tokens for p in points] + [end for p in whiskers for end in p.tokens_ci or ()]
    accuracies = [p.accuracy for p in points] + [end for p in whiskers for end in p.accuracy_ci or ()]
    low, high = max(min(accuracies) - 0.03, 0.0), min(max(accuracies) + 0.03, 1.0)
    left, right = _log(min(tokens)) - 0.12, _log(max(tokens)) + 0.12
    across, up = _scale(left, right, canvas.left, canvas.right), _scale(low, high, canvas.bottom, canvas.top)

    def place(at_tokens: float, accuracy: float) -> tuple[float, float]:
        return across(_log(at_tokens)), up(accuracy)

    for value in ticks(low, high):
        canvas.across(up(value), f"{100 * value:.3g}")
    for value in log_ticks(math.exp(left), math.exp(right), 6 if canvas.kind == "wide" else 4):
        x, _ = place(value, low)
        canvas.line([(x, canvas.bottom), (x, canvas.bottom + 4)], "tick")
        canvas.text(x, canvas.bottom + 18, short(value), "middle")
    canvas.axes("tokens a problem, log scale", "accuracy, %")
    for p in whiskers:
        if p.accuracy_ci:
            canvas.line([place(p.tokens, end) for end in p.accuracy_ci], "whisker k0")
        if p.tokens_ci:
            canvas.line([place(end, p.accuracy) for end in p.tokens_ci], "whisker k0")
    ends = []
    # The winner comes last, on top of the others.
    for curve in sorted(curves, key=lambda curve: -curve.style):
        places = [place(p.tokens, p.accuracy) for p in curve.points]
        canvas.line(places, f"curve k{curve.style}")
        for p, at in zip(curve.points, places, strict=True):
            canvas.mark(at, shape(curve.style), f"mark k{curve.style}", _told(curve.label, p))
        ends.append((max(places), curve.label, curve.style))
    canvas.labels(ends)
    return canvas.svg(label)


def _progress(
    canvas: Canvas, label: str, steps: Sequence[Step], baselines: Sequence[Curve], lineage: set[int]
) -> str:
    low, high = _range([step.value for step in steps if step.value is not None], baselines)
    first, last = steps[0].round, max(steps[-1].round, steps[0].round + 1)
    across = _scale(first, last, canvas.left + 14, canvas.right - 14)
    up = _scale(low, high, canvas.bottom - 12, canvas.top)
    places = {
        step.round: (across(step.round), canvas.bottom if step.value is None else up(max(step.value, low)))
        for step in steps
    }
    for value in ticks(low, high):
        canvas.across(up(value), f"{value:.4g}")
    for value in ticks(first, last, 11 if canvas.kind == "wide" else 5):
        if value == round(value):
            canvas.text(across(value), canvas.bottom + 20, f"{value:.0f}", "middle")
    canvas.axes("round", "hypervolume")
    for curve in baselines:
        y = up(curve.hypervolume)
        canvas.line([(canvas.left, y), (canvas.right, y)], f"level k{curve.style}")
    for step in steps:
        if step.parent in places and step.value is not None:
            style = "parent lead" if {step.round, step.parent} <= lineage else "parent"
            canvas.link(places[step.parent], places[step.round], style)
    ends = [((canvas.right - 7, up(curve.hypervolume)), curve.label, curve.style) for curve in baselines]
    if stairs := _stairs([(across(number), up(max(value, low))) for number, value in _best_so_far(steps)]):
        canvas.line([*stairs, (canvas.right, stairs[-1][1])], "best k0")
        ends.append(((canvas.right - 7, stairs[-1][1]), "best so far", 0))
    for step in steps:
        path, style = _look(step, low, lineage)
        canvas.mark(places[step.round], path, f"round {style}", step.title, f"#round-{step.round}")
    canvas.labels(ends)
    return canvas.svg(label)


def _range(values: Sequence[float], baselines: Sequence[Curve]) -> tuple[float, float]:
    """The hypervolumes worth showing: a hopeless round must not squeeze the others into one line."""
    levels = [curve.hypervolume for curve in baselines]
    high = max([*levels, *values])
    low = min([*levels, *values])
    if levels:
        low = max(low, min(levels) - 0.5 * (high - min(levels)))
    pad = 0.06 * (high - low) or 0.01
    return low - pad, high + pad


def _best_so_far(steps: Sequence[Step]) -> list[tuple[int, float]]:
    best: list[tuple[int, float]] = []
    for step in steps:
        if step.value is not None and step.eligible:
            best.append((step.round, max(step.value, best[-1][1] if best else step.value)))
    return best


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for i, (x, top) in enumerate(points) for y in (points[max(i - 1, 0)][1], top)]


def _look(step: Step, low: float, lineage: set[int]) -> tuple[str, str]:
    if step.value is None:
        return CROSS, "lost"
    path = DISC if step.value >= low else DOWN
    return path, "on" if step.round in lineage else "off" if step.eligible else "barred"


def _told(name: str, p: Point) -> str:
    return (
        f"{name}, beta {p.beta:g}: {100 * p.accuracy:.1f}% {percents(p.accuracy_ci)} "
        f"for {short(p.tokens)} tokens, {short(p.sequential_tokens)} on the critical path"
    )


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (end - start)


def _log(tokens: float) -> float:
    return math.log(max(tokens, 1.0))
