"""The report's pictures as SVG, drawn here rather than in the browser: what is in the file is what is shown.

A picture is drawn twice, for a wide and for a narrow page, so that its letters stay readable on both; the
page's style sheet shows one. Colours are classes of that style sheet, so the pictures follow light and dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from search_agent.listing import show
from search_agent.view import Interval, Point

Pixel = tuple[float, float]

# A shape for each baseline besides its colour: no reading depends on telling colours apart.
_SHAPES = ("M-4-4h8v8h-8z", "M0-5L5 4H-5z", "M0-5.5L5.5 0 0 5.5-5.5 0z", "M0 5L5-4H-5z", "M-4-4L4 4M4-4L-4 4")
_DISC = "M-4.5 0a4.5 4.5 0 1 0 9 0 4.5 4.5 0 1 0-9 0z"
_LINE = 15


@dataclass(frozen=True)
class Curve:
    """A controller's frontier.

    Attributes:
        label: what is written beside the curve.
        style: 0 for the winner, 1 to 5 for a baseline.
    """

    label: str
    points: Sequence[Point]
    style: int


@dataclass(frozen=True)
class Step:
    """A round in the picture of progress; `value` is None where it was not evaluated."""

    round: int
    parent: int | None
    value: float | None
    eligible: bool
    title: str


@dataclass
class _Canvas:
    """Pixels of one picture: `left`, `right`, `top`, `bottom` are the edges of the plot."""

    width: int
    height: int
    right_margin: int
    parts: list[str] = field(default_factory=list)
    left: int = 44
    top: int = 16

    def __post_init__(self) -> None:
        self.right, self.bottom = self.width - self.right_margin, self.height - 44

    def add(self, part: str) -> None:
        self.parts.append(part)

    def text(self, x: float, y: float, text: str, style: str = "") -> None:
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{show(text)}</text>')

    def line(self, points: Sequence[Pixel], style: str) -> None:
        self.add(f'<polyline points="{_joined(points)}" class="{style}"/>')

    def mark(self, at: Pixel, style: int, title: str) -> None:
        self.add(
            f'<g transform="translate({at[0]:.1f} {at[1]:.1f})" class="k{style}">'
            f'<path class="mark" d="{shape(style)}"/><title>{show(title)}</title></g>'
        )

    def labels(self, wanted: Sequence[tuple[Pixel, str, int]]) -> None:
        """Names in the right margin, each level with its point as far as the others leave room."""
        names = {label: _wrapped(label, self.right_margin) for _, label, _ in wanted}
        ordered = sorted(wanted, key=lambda item: item[0][1])
        heights = [_LINE * len(names[label]) + 3 for _, label, _ in ordered]
        tops = spread(
            [at[1] - height / 2 for (at, _, _), height in zip(ordered, heights, strict=True)],
            heights,
            self.top - 8,
            self.bottom + 8,
        )
        for (at, label, style), top, height in zip(ordered, tops, heights, strict=True):
            middle, edge = top + height / 2, self.right + 14
            self.line([(at[0] + 7, at[1]), (self.right + 4, middle), (edge - 2, middle)], f"leader k{style}")
            self.add(
                f'<g transform="translate({edge + 4:.1f} {middle:.1f}) scale(.8)" class="k{style}">'
                f'<path class="mark" d="{shape(style)}"/></g>'
            )
            for i, word in enumerate(names[label]):
                self.text(edge + 13, top + _LINE * (i + 0.8), word, "name strong" if style == 0 else "name")

    def svg(self, label: str, kind: str) -> str:
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" class="{kind}" role="img" '
            f'aria-label="{show(label)}">{"".join(self.parts)}</svg>'
        )


def frontiers(label: str, curves: Sequence[Curve]) -> str:
    """Accuracy over tokens (logarithmic), with the 95% intervals of the winner."""
    return _frontiers(_Canvas(560, 400, 134), label, curves, "wide") + _frontiers(
        _Canvas(360, 360, 108), label, curves, "narrow"
    )


def progress(
    label: str, steps: Sequence[Step], baselines: Sequence[tuple[str, float, int]], lineage: set[int]
) -> str:
    """Hypervolume over rounds: the best so far, each round's parent, and the baselines' level.

    Args:
        label: what the picture shows, for those who cannot see it.
        steps: the rounds, oldest first.
        baselines: (label, hypervolume, style) of each.
        lineage: the rounds that led to the winner, itself included.
    """
    return _progress(_Canvas(1120, 340, 150), label, steps, baselines, lineage, "wide") + _progress(
        _Canvas(360, 320, 108), label, steps, baselines, lineage, "narrow"
    )


def shape(style: int) -> str:
    """The path of a mark: 0 is the winner's."""
    return _DISC if style == 0 else _SHAPES[(style - 1) % len(_SHAPES)]


def spread(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Positions for boxes of these sizes, in order and without overlap, near where they are wanted.

    They stay within low..high where they fit there at all.
    """
    tops: list[float] = []
    for want, _ in zip(wanted, sizes, strict=True):
        floor = tops[-1] + sizes[len(tops) - 1] if tops else low
        tops.append(max(want, floor))
    ceiling = high
    for i in reversed(range(len(tops))):
        tops[i] = max(low + sum(sizes[:i]), min(tops[i], ceiling - sizes[i]))
        ceiling = tops[i]
    return tops


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high, at most `most` of them."""
    span = (high - low) or 1.0
    step = 10 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if span / (step * factor) <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """1, 2 and 5 times the powers of ten from low to high; fewer of them over a wide range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(found) <= most:
            break
    return found


def short(number: float) -> str:
    """A count in three digits: 950, 12.3k, 1.04M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def _frontiers(canvas: _Canvas, label: str, curves: Sequence[Curve], kind: str) -> str:
    points = [p for curve in curves for p in curve.points]
    whiskers = [p for curve in curves if curve.style == 0 for p in curve.points]
    xs = [p.tokens for p in points] + [x for p in whiskers for x in p.tokens_ci or ()]
    ys = [p.accuracy for p in points] + [y for p in whiskers for y in p.accuracy_ci or ()]
    left, right = math.log(max(min(xs), 1)) - 0.12, math.log(max(max(xs), 1)) + 0.12
    low, high = max(min(ys) - 0.03, 0.0), min(max(ys) + 0.03, 1.0)

    def x(tokens: float) -> float:
        return canvas.left + (math.log(max(tokens, 1)) - left) / (right - left) * (canvas.right - canvas.left)

    def y(accuracy: float) -> float:
        return canvas.bottom - (accuracy - low) / (high - low or 1) * (canvas.bottom - canvas.top)

    for value in ticks(low, high):
        canvas.line([(canvas.left, y(value)), (canvas.right, y(value))], "grid")
        canvas.text(canvas.left - 7, y(value) + 4, f"{100 * value:.3g}", "end")
    for value in log_ticks(math.exp(left), math.exp(right), 6 if kind == "wide" else 4):
        canvas.line([(x(value), canvas.bottom), (x(value), canvas.bottom + 4)], "tick")
        canvas.text(x(value), canvas.bottom + 18, short(value), "middle")
    canvas.line([(canvas.left, canvas.bottom), (canvas.right, canvas.bottom)], "axis")
    canvas.text(canvas.right, canvas.bottom + 37, "tokens a problem, log scale", "end")
    canvas.text(canvas.left - 30, canvas.top - 4, "accuracy, %")
    for p in whiskers:
        canvas.line([(x(p.tokens), y(v)) for v in p.accuracy_ci or ()], "whisker k0")
        canvas.line([(x(v), y(p.accuracy)) for v in p.tokens_ci or ()], "whisker k0")
    ends = []
    for curve in sorted(curves, key=lambda curve: -curve.style):
        places = [(x(p.tokens), y(p.accuracy)) for p in curve.points]
        canvas.line(places, f"curve k{curve.style}")
        for p, at in zip(curve.points, places, strict=True):
            canvas.mark(at, curve.style, _told(curve.label, p))
        ends.append((max(places), curve.label, curve.style))
    canvas.labels(ends)
    return canvas.svg(label, kind)


def _progress(
    canvas: _Canvas,
    label: str,
    steps: Sequence[Step],
    baselines: Sequence[tuple[str, float, int]],
    lineage: set[int],
    kind: str,
) -> str:
    values = {step.round: step.value for step in steps if step.value is not None}
    levels = [*values.values(), *(value for _, value, _ in baselines)]
    pad = 0.08 * (max(levels) - min(levels)) or 0.01
    low, high = min(levels) - pad, max(levels) + pad
    first, last = steps[0].round, max(steps[-1].round, steps[0].round + 1)

    def x(number: float) -> float:
        return canvas.left + 14 + (number - first) / (last - first) * (canvas.right - canvas.left - 28)

    def y(value: float | None) -> float:
        # Rounds without a value lie on the axis.
        return (
            canvas.bottom
            if value is None
            else (canvas.bottom - 10 - (value - low) / (high - low) * (canvas.bottom - 10 - canvas.top))
        )

    for value in ticks(low, high):
        canvas.line([(canvas.left, y(value)), (canvas.right, y(value))], "grid")
        canvas.text(canvas.left - 7, y(value) + 4, f"{value:.4g}", "end")
    canvas.line([(canvas.left, canvas.bottom), (canvas.right, canvas.bottom)], "axis")
    for value in ticks(first, last, 11 if kind == "wide" else 5):
        if value == round(value):
            canvas.text(x(value), canvas.bottom + 20, f"{value:.0f}", "middle")
    canvas.text(canvas.right, canvas.bottom + 38, "round", "end")
    canvas.text(canvas.left - 30, canvas.top - 4, "hypervolume")
    for _, level, style in baselines:
        canvas.line([(canvas.left, y(level)), (canvas.right, y(level))], f"level k{style}")
    for step in steps:
        if step.parent in values and step.value is not None:
            (ax, ay), (bx, by) = (x(step.parent), y(values[step.parent])), (x(step.round), y(step.value))
            style = "parent lead" if {step.round, step.parent} <= lineage else "parent"
            half = (ax + bx) / 2
            canvas.add(
                f'<path d="M{ax:.1f} {ay:.1f}C{half:.1f} {ay:.1f} {half:.1f} {by:.1f} {bx:.1f} {by:.1f}" '
                f'class="{style}"/>'
            )
    best = _best_so_far(steps)
    stairs = [(x(n), y(v)) for i, (n, value) in enumerate(best) for v in (best[max(i - 1, 0)][1], value)]
    if best:
        canvas.line([*stairs, (canvas.right, stairs[-1][1])], "best k0")
    for step in steps:
        at = (x(step.round), y(step.value))
        kind_of = (
            "lost"
            if step.value is None
            else "on"
            if step.round in lineage
            else "off"
            if step.eligible
            else "barred"
        )
        path = "M-4-4L4 4M4-4L-4 4" if step.value is None else _DISC
        canvas.add(
            f'<a href="#round-{step.round}"><path d="{path}" transform="translate({at[0]:.1f} {at[1]:.1f})" '
            f'class="round {kind_of}"><title>{show(step.title)}</title></path></a>'
        )
    ends = [((canvas.right - 7, y(level)), name, style) for name, level, style in baselines]
    if best:
        ends.append(((canvas.right - 7, stairs[-1][1]), "best so far", 0))
    canvas.labels(ends)
    return canvas.svg(label, kind)


def _best_so_far(steps: Sequence[Step]) -> list[tuple[int, float]]:
    best: list[tuple[int, float]] = []
    for step in steps:
        if step.value is not None and step.eligible:
            best.append((step.round, max(step.value, best[-1][1] if best else step.value)))
    return best


def percents(interval: Interval) -> str:
    """An interval of a share, in percent; "" where there is none."""
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""


def _told(name: str, p: Point) -> str:
    return (
        f"{name}, beta {p.beta:g}: {100 * p.accuracy:.1f}% {percents(p.accuracy_ci)} "
        f"for {short(p.tokens)} tokens, {short(p.sequential_tokens)} on the critical path"
    )


def _wrapped(label: str, room: int) -> list[str]:
    """The label in lines that fit the margin; controllers' names may break at their underscores."""
    most = (room - 27) // 6
    lines = [""]
    for word in label.replace("_", " ").split():
        joined = f"{lines[-1]} {word}".strip()
        lines[-1:] = [joined] if len(joined) <= most or not lines[-1] else [lines[-1], word]
    return [line if len(line) <= most else line[: most - 1] + "…" for line in lines[:3]]


def _joined(points: Sequence[Pixel]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
