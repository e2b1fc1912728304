"""Pictures of a search's progress, in the manner of `env.drawing.frontiers`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from env.drawing.canvas import CROSS, DISC, DOWN, Canvas, Look, ticks
from env.drawing.frontiers import Curve, Point, plane, scale


@dataclass(frozen=True)
class Step:
    """A round in a picture; `value`, its hypervolume, is None where it was not measured to the end."""

    round: int
    parent: int | None
    partner: int | None
    value: float | None
    eligible: bool
    title: str
    points: Sequence[Point] = ()


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


def trails(label: str, steps: Sequence[Step], baselines: Sequence[Curve]) -> str:
    """Every round's frontier in one picture, for a script to step through: the classes say which is which.

    Round N's has the classes "trail rN"; `best_by` says which was ahead when.

    Args:
        label: what the picture shows, for those who cannot see it.
        steps: the rounds, oldest first; at least one that was measured.
        baselines: drawn as they are, whatever the round.
    """
    canvases = Canvas("wide", 1120, 430, 170), Canvas("narrow", 360, 370, 108)
    return "".join(_trails(canvas, label, steps, baselines) for canvas in canvases)


def best_by(steps: Sequence[Step]) -> dict[int, int]:
    """For each round that was measured: which one was ahead after it."""
    ahead: dict[int, int] = {}
    best: Step | None = None
    for step in steps:
        if step.value is None:
            continue
        if step.eligible and (best is None or step.value > (best.value or 0.0)):
            best = step
        if best:
            ahead[step.round] = best.round
    return ahead


def _trails(canvas: Canvas, label: str, steps: Sequence[Step], baselines: Sequence[Curve]) -> str:
    measured = [step for step in steps if step.value is not None]
    curves = [*(curve.points for curve in baselines), *(step.points for step in measured)]
    place = plane(
        canvas, [p.tokens for each in curves for p in each], [p.accuracy for each in curves for p in each]
    )
    ends = []
    for curve in baselines:
        places = [place(p.tokens, p.accuracy) for p in curve.points]
        canvas.line(places, f"level {curve.look.css}")
        ends.append((max(places), curve.label, curve.look))
    for step in measured:
        canvas.line([place(p.tokens, p.accuracy) for p in step.points], f"trail r{step.round}")
    canvas.labels(ends)
    return canvas.svg(label)


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
        path, style = look(step, lineage, low)
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


def look(step: Step, descent: set[int], low: float = -math.inf) -> tuple[str, str]:
    """The mark of a round and its style; `low` is where the picture ends."""
    if step.value is None:
        return CROSS, "lost"
    path = DISC if step.value >= low else DOWN
    return path, "on" if step.round in descent else "off" if step.eligible else "barred"
