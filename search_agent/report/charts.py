"""The picture of a search's progress, in the manner of `env.drawing.frontiers`."""

from collections.abc import Sequence
from dataclasses import dataclass

from env.drawing.canvas import CROSS, DISC, DOWN, Canvas, Look, ticks
from env.drawing.frontiers import Curve, scale


@dataclass(frozen=True)
class Step:
    """A round in the picture of progress; `value` is None where it was not evaluated."""

    round: int
    parent: int | None
    value: float | None
    eligible: bool
    title: str


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


def _progress(
    canvas: Canvas, label: str, steps: Sequence[Step], baselines: Sequence[Curve], lineage: set[int]
) -> str:
    low, high = _range([step.value for step in steps if step.value is not None], baselines)
    first, last = steps[0].round, max(steps[-1].round, steps[0].round + 1)
    across = scale(first, last, canvas.left + 14, canvas.right - 14)
    up = scale(low, high, canvas.bottom - 12, canvas.top)
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
        canvas.line([(canvas.left, y), (canvas.right, y)], f"level {curve.look.css}")
    for step in steps:
        if step.parent in places and step.value is not None:
            style = "parent lead" if {step.round, step.parent} <= lineage else "parent"
            canvas.link(places[step.parent], places[step.round], style)
    ends = [((canvas.right - 7, up(curve.hypervolume)), curve.label, curve.look) for curve in baselines]
    if stairs := _stairs([(across(number), up(max(value, low))) for number, value in _best_so_far(steps)]):
        canvas.line([*stairs, (canvas.right, stairs[-1][1])], "best k0")
        ends.append(((canvas.right - 7, stairs[-1][1]), "best so far", Look(0)))
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
