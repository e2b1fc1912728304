"""Frontiers, drawn here rather than in the browser: what is in the file is what is shown.

Each picture is drawn twice, for a wide and for a narrow page, so that its letters stay readable on both; the
page's style sheet shows one. Colours are classes of that style sheet, so the pictures follow light and dark.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from env.drawing.canvas import RING, Canvas, Look, Pixel, log_ticks, short, ticks

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Point:
    """A controller at one beta; `caveat` is why its figures are not quite what they seem ("" = they are)."""

    beta: float
    accuracy: float
    accuracy_ci: Interval
    tokens: float
    tokens_ci: Interval
    sequential_tokens: float
    caveat: str = ""


@dataclass(frozen=True)
class Curve:
    """A controller's frontier, or its hypervolume as a level.

    Attributes:
        label: what is written beside it.
        look: style 0 for the one that the picture is about.
    """

    label: str
    look: Look
    points: Sequence[Point]
    hypervolume: float


def frontiers(label: str, curves: Sequence[Curve], *, sequential: bool = False, many: bool = False) -> str:
    """Accuracy over tokens (logarithmic), with the 95% intervals of style 0.

    Args:
        label: what the picture shows, for those who cannot see it.
        curves: at least one.
        sequential: over sequential tokens instead.
        many: as wide as the page, with everyone's intervals.
    """
    canvases = (
        (Canvas("wide", 1120, 560, 210), Canvas("narrow", 360, 520, 128))
        if many
        else (Canvas("wide", 560, 410, 134), Canvas("narrow", 360, 370, 108))
    )
    return "".join(_frontiers(canvas, label, curves, sequential, many) for canvas in canvases)


def percents(interval: Interval) -> str:
    """An interval of a share, in percent; "" where there is none."""
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""


def _frontiers(canvas: Canvas, label: str, curves: Sequence[Curve], sequential: bool, many: bool) -> str:
    def spent(p: Point) -> float:
        return p.sequential_tokens if sequential else p.tokens

    points = [p for curve in curves for p in curve.points]
    whiskers = [p for curve in curves if many or curve.look.style == 0 for p in curve.points]
    tokens = [spent(p) for p in points]
    tokens += [] if sequential else [end for p in whiskers for end in p.tokens_ci or ()]
    accuracies = [p.accuracy for p in points] + [end for p in whiskers for end in p.accuracy_ci or ()]
    horizontal = f"{'sequential ' if sequential else ''}tokens a problem, log scale"
    place = plane(canvas, tokens, accuracies, horizontal)
    ends = []
    # The one that it is about comes last, on top of the others.
    for curve in sorted(curves, key=lambda curve: -curve.look.style):
        look, first = curve.look, len(canvas.parts)
        for p in curve.points if many or look.style == 0 else ():
            if p.accuracy_ci:
                canvas.line([place(spent(p), end) for end in p.accuracy_ci], f"whisker {look.css}")
            if p.tokens_ci and not sequential:
                canvas.line([place(end, p.accuracy) for end in p.tokens_ci], f"whisker {look.css}")
        places = [place(spent(p), p.accuracy) for p in curve.points]
        canvas.line(places, f"curve {look.css}")
        for p, at in zip(curve.points, places, strict=True):
            if p.caveat:
                canvas.mark(at, RING, f"caveat {look.css}", _told(curve.label, p))
            canvas.mark(at, look.shape, f"mark {look.css}", _told(curve.label, p))
        canvas.group(first)
        ends.append((max(places), curve.label, look))
    canvas.labels(ends)
    return canvas.svg(label)


def plane(
    canvas: Canvas,
    tokens: Sequence[float],
    accuracies: Sequence[float],
    horizontal: str = "tokens a problem, log scale",
) -> Callable[[float, float], Pixel]:
    """Draw the axes that frontiers stand on, wide enough for these values.

    Returns:
        What takes (tokens, accuracy) to pixels.
    """
    low, high = max(min(accuracies) - 0.03, 0.0), min(max(accuracies) + 0.03, 1.0)
    left, right = _log(min(tokens)) - 0.12, _log(max(tokens)) + 0.12
    across, up = scale(left, right, canvas.left, canvas.right), scale(low, high, canvas.bottom, canvas.top)
    for value in ticks(low, high):
        canvas.across(up(value), f"{100 * value:.3g}")
    for value in log_ticks(math.exp(left), math.exp(right), 6 if canvas.kind == "wide" else 4):
        x = across(_log(value))
        canvas.line([(x, canvas.bottom), (x, canvas.bottom + 4)], "tick")
        canvas.text(x, canvas.bottom + 18, short(value), "middle")
    canvas.axes(horizontal, "accuracy, %")
    return lambda at_tokens, accuracy: (across(_log(at_tokens)), up(accuracy))


def _told(name: str, p: Point) -> str:
    return (
        f"{name}, beta {p.beta:g}: {100 * p.accuracy:.1f}% {percents(p.accuracy_ci)} "
        f"for {short(p.tokens)} tokens, {short(p.sequential_tokens)} on the critical path"
        f"{p.caveat and f'; {p.caveat}'}"
    )


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Takes low..high to the pixels start..end."""
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (end - start)


def _log(tokens: float) -> float:
    return math.log(max(tokens, 1.0))
