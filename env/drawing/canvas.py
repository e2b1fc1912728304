"""What pictures are drawn on: SVG, marks that need no colour to be told apart, axes, labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from env.drawing.text import show

Pixel = tuple[float, float]

DISC = "M-4.5 0a4.5 4.5 0 1 0 9 0 4.5 4.5 0 1 0-9 0z"
CROSS = "M-4-4L4 4M4-4L-4 4"
DOWN = "M0 5L5-4H-5z"
LEFT = "M-5 0L4-5V5z"
_SHAPES = ("M-4-4h8v8h-8z", "M0-5L5 4H-5z", "M0-5.5L5.5 0 0 5.5-5.5 0z", DOWN, "M-6-2.5h12v5h-12z")
RING = "M-8 0a8 8 0 1 0 16 0 8 8 0 1 0-16 0z"
# Baseline to baseline of two lines of a label, and the width of a letter, at the style sheet's size of type.
_LINE, _LETTER = 15, 7


class Look(NamedTuple):
    """How a controller is drawn: 0 stands out, 1 to 25 can be told apart, hollow ones from all others."""

    style: int
    hollow: bool = False

    @property
    def css(self) -> str:
        """Its classes in the style sheet."""
        colour = self.style and 1 + (self.style - 1) % len(_SHAPES)
        return f"k{colour} hollow" if self.hollow else f"k{colour}"

    @property
    def shape(self) -> str:
        """The path of its mark: 0 is a disc."""
        if self.style == 0:
            return DISC
        # Colours come around again, with other shapes each time.
        turn, place = divmod(self.style - 1, len(_SHAPES))
        return _SHAPES[(place + turn) % len(_SHAPES)]


@dataclass
class Canvas:
    """One picture; `left`, `right`, `top`, `bottom` are the edges of the plot in it, in pixels.

    Attributes:
        kind: "wide" or "narrow": the pages that it is for.
        margin: room for labels on the right.
    """

    kind: str
    width: int
    height: int
    margin: int
    left: int = 44
    top: int = 28
    parts: list[str] = field(default_factory=list)

    @property
    def right(self) -> int:
        """Where the plot ends and the labels begin."""
        return self.width - self.margin

    @property
    def bottom(self) -> int:
        """Where the horizontal axis is."""
        return self.height - 44

    def text(self, x: float, y: float, text: str, style: str = "") -> None:
        """A line of text that begins, or by style "end" or "middle" ends or centres, at x."""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{show(text)}</text>')

    def line(self, points: Sequence[Pixel], style: str) -> None:
        """A line through some points."""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{joined}" class="{style}"/>')

    def link(self, start: Pixel, end: Pixel, style: str) -> None:
        """A curve that leaves and arrives level."""
        (ax, ay), (bx, by) = start, end
        half = (ax + bx) / 2
        path = f"M{ax:.1f} {ay:.1f}C{half:.1f} {ay:.1f} {half:.1f} {by:.1f} {bx:.1f} {by:.1f}"
        self.parts.append(f'<path d="{path}" class="{style}"/>')

    def group(self, first: int) -> None:
        """Make one of all parts from `first` on: pointed at, it comes forward."""
        self.parts[first:] = [f'<g class="one">{"".join(self.parts[first:])}</g>']

    def mark(self, at: Pixel, path: str, style: str, title: str, href: str = "") -> None:
        """A mark that tells `title` when pointed at, and leads to `href` if that is given."""
        drawn = (
            f'<path d="{path}" transform="translate({at[0]:.1f} {at[1]:.1f})" class="{style}">'
            f"<title>{show(title)}</title></path>"
        )
        self.parts.append(f'<a href="{href}">{drawn}</a>' if href else drawn)

    def across(self, y: float, text: str) -> None:
        """A grid line with its value on the left."""
        self.line([(self.left, y), (self.right, y)], "grid")
        self.text(self.left - 7, y + 4, text, "end")

    def axes(self, horizontal: str, vertical: str) -> None:
        """The horizontal axis, and what both axes are about."""
        self.line([(self.left, self.bottom), (self.right, self.bottom)], "axis")
        self.text(self.right, self.bottom + 38, horizontal, "end")
        self.text(self.left - 30, self.top - 16, vertical)

    def labels(self, wanted: Sequence[tuple[Pixel, str, Look]]) -> None:
        """Names in the right margin, each level with its point as far as the others leave room.

        Args:
            wanted: (point, name, look) of each; style 0 is printed bold.
        """
        ordered = sorted(wanted, key=lambda item: item[0][1])
        names = [self._wrapped(name) for _, name, _ in ordered]
        heights = [_LINE * len(lines) + 3 for lines in names]
        ideal = [at[1] - height / 2 for (at, _, _), height in zip(ordered, heights, strict=True)]
        tops = spread(ideal, heights, self.top - 8, self.bottom + 8)
        edge = self.right + 14
        for (at, _, look), lines, height, top in zip(ordered, names, heights, tops, strict=True):
            middle = top + height / 2
            self.line(
                [(at[0] + 7, at[1]), (self.right + 4, middle), (edge - 2, middle)], f"leader {look.css}"
            )
            self.parts.append(
                f'<g transform="translate({edge + 4} {middle:.1f}) scale(.8)" class="{look.css}">'
                f'<path class="mark" d="{look.shape}"/></g>'
            )
            for i, line in enumerate(lines):
                self.text(
                    edge + 13, top + _LINE * (i + 0.8), line, "name strong" if look.style == 0 else "name"
                )

    def svg(self, label: str) -> str:
        """The picture; `label` says what it shows, for those who cannot see it."""
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" class="{self.kind}" role="img" '
            f'aria-label="{show(label)}">{"".join(self.parts)}</svg>'
        )

    def _wrapped(self, name: str) -> list[str]:
        most = (self.margin - 27) // _LETTER
        lines = [""]
        for word in name.split():
            joined = f"{lines[-1]} {word}".strip()
            lines[-1:] = [joined] if len(joined) <= most or not lines[-1] else [lines[-1], word]
        return [line if len(line) <= most else f"{line[: most - 1]}…" for line in lines[:3]]


def spread(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Starts of boxes of these sizes, in order and without overlap, near where they are wanted.

    They stay within low..high where they fit there at all.
    """
    starts: list[float] = []
    floor = low
    for want, size in zip(wanted, sizes, strict=True):
        starts.append(max(want, floor))
        floor = starts[-1] + size
    ceiling = high
    for i in reversed(range(len(starts))):
        starts[i] = max(low + sum(sizes[:i]), min(starts[i], ceiling - sizes[i]))
        ceiling = starts[i]
    return starts


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers from low to high, at most `most` of them; low < high."""
    span = high - low
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if span / (step * factor) <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """1, 2 and 5 times the powers of ten from low to high, or over a wide range fewer of them."""
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
