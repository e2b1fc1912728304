"""The tree of descent: a lane for each line of descent, rounds from left to right."""

from collections.abc import Sequence

from env.drawing.canvas import Canvas, ticks
from env.drawing.frontiers import scale
from search_agent.report.charts import Step, look

# Heights of a lane, in pixels; a round needs so much room before the next line may take its lane.
LANE, GAP = 17, 1


def lineage(label: str, steps: Sequence[Step], descent: set[int]) -> str:
    """Who was made from whom. Rounds that came from nothing and led to nothing measured are left out.

    Args:
        label: what the picture shows, for those who cannot see it.
        steps: the rounds, oldest first.
        descent: the rounds that led to the winner, itself included.

    Returns:
        The picture; "" where no round was made from another.
    """
    known = {step.round for step in steps}
    # A parent is an earlier round: whatever else a record says would be no tree.
    parent = {s.round: s.parent for s in steps if s.parent in known and s.parent < s.round}
    shown = [s for s in steps if s.value is not None or s.round in parent or s.round in parent.values()]
    if not parent:
        return ""
    lanes = _lanes([s.round for s in shown], parent, descent)
    height = 28 + 44 + LANE * (1 + max(lanes.values()))
    canvases = Canvas("wide", 1120, height, 24), Canvas("narrow", 360, height, 16)
    return "".join(_drawn(canvas, label, shown, parent, lanes, descent) for canvas in canvases)


def _drawn(
    canvas: Canvas,
    label: str,
    shown: Sequence[Step],
    parent: dict[int, int],
    lanes: dict[int, int],
    descent: set[int],
) -> str:
    first, last = shown[0].round, max(shown[-1].round, shown[0].round + 1)
    across = scale(first, last, canvas.left, canvas.right - 7)
    at = {s.round: (across(s.round), canvas.top + LANE * (lanes[s.round] + 0.5)) for s in shown}
    for value in ticks(first, last, 11 if canvas.kind == "wide" else 5):
        if value == round(value):
            canvas.text(across(value), canvas.bottom + 20, f"{value:.0f}", "middle")
    canvas.line([(canvas.left, canvas.bottom), (canvas.right, canvas.bottom)], "axis")
    canvas.text(canvas.right, canvas.bottom + 38, "round", "end")
    for step in shown:
        if step.partner in at and step.partner < step.round:
            canvas.link(at[step.partner], at[step.round], "parent partner")
        if step.round in parent:
            style = "parent lead" if {step.round, parent[step.round]} <= descent else "parent"
            canvas.link(at[parent[step.round]], at[step.round], style)
    for step in shown:
        path, style = look(step, descent)
        canvas.mark(at[step.round], path, f"round {style}", step.title, f"#round-{step.round}")
    return canvas.svg(label)


def _lanes(rounds: Sequence[int], parent: dict[int, int], descent: set[int]) -> dict[int, int]:
    """A lane for each round: a line goes on in its own; lane 0 is the winner's descent."""
    children: dict[int, list[int]] = {}
    for child, above in parent.items():
        children.setdefault(above, []).append(child)
    size = dict.fromkeys(rounds, 1)
    for number in reversed(rounds):
        if number in parent:
            size[parent[number]] += size[number]

    def weight(number: int) -> tuple[bool, int, int]:
        return number in descent, size[number], -number

    heirs = {max(offspring, key=weight) for offspring in children.values()}
    lines = {number: [number] for number in rounds if number not in heirs}
    home = {number: number for number in lines}
    for number in rounds:
        if number in heirs:
            home[number] = home[parent[number]]
            lines[home[number]].append(number)
    taken: list[int] = []
    lanes = {}
    for line in sorted(lines.values(), key=lambda line: (line[-1] not in descent, line[0])):
        # Lane 0 is kept for the winner's descent; lines come by their first rounds.
        free = (k for k, end in enumerate(taken) if k and end + GAP < line[0])
        lane = next(free, len(taken))
        taken[lane : lane + 1] = [line[-1]]
        lanes |= dict.fromkeys(line, lane)
    return lanes
