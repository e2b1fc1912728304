"""Frontiers, drawn here rather than in the browser: what is in the file is what is shown.

Each picture is drawn twice, for a wide and for a narrow page, so that its letters stay readable on both; the
page's style sheet shows one. Colours are classes of that style sheet, so the pictures follow light and dark.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from env.drawing.canvas import Canvas, log_ticks, shape, short, ticks

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Point:
    """A controller at one beta."""

    beta: float
    accuracy: float
    accuracy_ci: Interval
    tokens: float
    tokens_ci: Interval
    sequential_tokens: float


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


def frontiers(label: str, curves: Sequence[Curve]) -> str:
    """Accuracy over tokens (logarithmic), with the 95% intervals of the winner.

    Args:
        label: what the picture shows, for those who cannot see it.
        curves: at least one.
    """
    canvases = Canvas("wide", 560, 410, 134), Canvas("narrow", 360, 370, 108)
    return "".join(_frontiers(canvas, label, curves) for canvas in canvases)


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
    across, up = scale(left, right, canvas.left, canvas.right), scale(low, high, canvas.bottom, canvas.top)

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


def _told(name: str, p: Point) -> str:
    return (
        f"{name}, beta {p.beta:g}: {100 * p.accuracy:.1f}% {percents(p.accuracy_ci)} "
        f"for {short(p.tokens)} tokens, {short(p.sequential_tokens)} on the critical path"
    )


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Takes low..high to the pixels start..end."""
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (end - start)


def _log(tokens: float) -> float:
    return math.log(max(tokens, 1.0))
