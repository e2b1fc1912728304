"""Figures of many controllers with their intervals, a line each, in one panel or several of one scale."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from env.drawing.canvas import LEFT, Canvas, Look, ticks
from env.drawing.frontiers import Interval, scale

_LINE, _HEAD, _FOOT, _GAP = 18, 40, 34, 22


class Figure(NamedTuple):
    """A figure, its interval, and what is told of it when it is pointed at."""

    value: float
    interval: Interval
    title: str


class Strip(NamedTuple):
    """A panel: its title in two lines, and a figure for each name; None leaves the place empty."""

    title: tuple[str, str]
    figures: Sequence[Figure | None]


def intervals(
    label: str,
    lines: Sequence[tuple[str, Look]],
    strips: Sequence[Strip],
    axis: str,
    show: Callable[[float], str] = "{:g}".format,
    floor: float = -math.inf,
) -> str:
    """Dots with whiskers: a line for each name; strips side by side on a wide page, else below each other.

    Args:
        label: what the picture shows, for those who cannot see it.
        lines: (name, look) of each.
        strips: at least one, with a figure in at least one of them.
        axis: what the figures are, with their unit.
        show: how to write a value at the axis.
        floor: figures below it are drawn at the edge, so as not to squeeze the others; it is not above 0.
    """
    figures = [figure for strip in strips for figure in strip.figures if figure]
    ends = [end for figure in figures for end in (figure.value, *(figure.interval or ()))]
    low, high = max(min(ends), floor), max(*ends, floor)
    pad = 0.04 * (high - low) or 0.01
    reach = low - pad, high + pad
    tall = _HEAD + _LINE * len(lines) + _FOOT
    wide = Canvas("wide", 1120, tall, 8, left=200)
    narrow = Canvas("narrow", 360, tall * len(strips), 8, left=182)
    span = (wide.right - wide.left + _GAP) / len(strips)
    for place, strip in enumerate(strips):
        start = wide.left + span * place
        if place == 0:
            _names(wide, lines, 0)
        _strip(wide, lines, strip, (start, start + span - _GAP), 0, reach, show)
        _names(narrow, lines, tall * place)
        _strip(narrow, lines, strip, (narrow.left, narrow.right), tall * place, reach, show)
    for canvas in (wide, narrow):
        canvas.text(canvas.right, canvas.height - 2, axis, "end")
    return wide.svg(label) + narrow.svg(label)


def _names(canvas: Canvas, lines: Sequence[tuple[str, Look]], top: float) -> None:
    for line, (name, look) in enumerate(lines):
        style = "name end strong" if look.style == 0 else "name end"
        canvas.text(canvas.left - 12, top + _HEAD + _LINE * (line + 0.72), name, style)


def _strip(
    canvas: Canvas,
    lines: Sequence[tuple[str, Look]],
    strip: Strip,
    between: tuple[float, float],
    top: float,
    reach: tuple[float, float],
    show: Callable[[float], str],
) -> None:
    across = scale(*reach, *between)
    first, last = top + _HEAD, top + _HEAD + _LINE * len(lines)
    canvas.text(between[0], top + 14, strip.title[0], "name")
    canvas.text(between[0], top + 29, strip.title[1])
    for value in ticks(*reach, 4 if canvas.kind == "narrow" or between[1] - between[0] < 300 else 9):
        canvas.line([(across(value), first), (across(value), last)], "axis" if value == 0 else "grid")
        canvas.text(across(value), last + 15, show(value), "middle")
    for line, ((_, look), figure) in enumerate(zip(lines, strip.figures, strict=True)):
        if figure is None:
            continue
        y, start = first + _LINE * (line + 0.5), len(canvas.parts)
        if figure.interval and figure.interval[1] > reach[0]:
            ends = [(across(max(end, reach[0])), y) for end in figure.interval]
            canvas.line(ends, f"span {look.css}")
        shape = look.shape if figure.value >= reach[0] else LEFT
        canvas.mark((across(max(figure.value, reach[0])), y), shape, f"mark {look.css}", figure.title)
        canvas.group(start)
