"""The page of `autotts evaluate --all`: every controller's frontier, and where verifiers help.

One file that needs nothing else, not even a network.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from env.drawing.canvas import Look, short
from env.drawing.frontiers import Curve, Point, frontiers, percents
from env.drawing.intervals import Figure, Strip, intervals
from env.drawing.page import fill
from env.drawing.tables import faint, named, row, table
from env.drawing.text import show
from env.lineup import BASELINE, Entry, Level, Matched, Place, Ratio

TEMPLATE = Path(__file__).with_suffix(".html")
# Points of accuracy behind self-consistency beyond which it is all the same.
FAR_BEHIND = -30.0
ABOUT_LOOKS = """\
Solid lines with filled marks: controllers that ask a verifier (a process reward model), whose reading counts
as tokens. Dashed lines with hollow marks: those that do not. In bold: self-consistency, which all are held
against. A line's points are its betas; whiskers are 95% intervals over problems. A dotted ring: not
replayable, the store lacks more than 1% of the branches that were asked for, so the figure is that of a
narrower program. Point at a line to bring it forward."""
ABOUT_SEQUENTIAL = """\
The same accuracies over the tokens on the critical path, where a round counts as its longest branch: the
latency."""
ABOUT_AREAS = """\
The area that a frontier wins over the accuracy of one branch and the cost of self-consistency at 64
(accuracy × ln tokens). All controllers share the resamples, so differences can be surer than they look."""
ABOUT_LEVELS = """\
Accuracy minus that of self-consistency for the same tokens, in points, on problems of like difficulty: the
chance that one branch solves them, from the store. Right of the line a controller is better than voting.
Intervals are paired, 95%, over problems of the level; of many such, 1 in 20 misses by chance. An arrow at the
left edge lies further left."""
ABOUT_MATCHES = """\
What self-consistency at 4, 16 and 64 branches spends buys this accuracy, with these sequential tokens; and
its accuracy costs so many times the tokens that it needs itself (sequential tokens likewise)."""


def page(
    entries: Sequence[Entry],
    levels: Sequence[Level],
    verifiers: Collection[str],
    *,
    datasets: Sequence[str],
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
) -> str:
    """The whole file.

    Args:
        entries: the controllers, best first, self-consistency among them.
        levels: the problems by difficulty, hardest first.
        verifiers: names of the controllers that ask a process reward model.
        datasets: what they were played on.
        facts: (what, text) of the evaluation.
        notes: what a reader might look for in vain, such as controllers that cannot be played.
    """
    looks = _looks([entry.controller for entry in entries], verifiers)
    return fill(
        TEMPLATE,
        f"{_number(len(entries), 'controller')} side by side on {', '.join(datasets)}",
        missing="".join(f'<p class="missing">{show(note)}</p>' for note in notes),
        facts="".join(f"<div><dt>{show(name)}</dt><dd>{show(text)}</dd></div>" for name, text in facts),
        sections=_frontiers(entries, looks)
        + _areas(entries, looks)
        + _levels(entries, levels, looks, verifiers)
        + _tables(entries, looks),
    )


def _looks(names: Sequence[str], verifiers: Collection[str]) -> dict[str, Look]:
    looks = {BASELINE: Look(0)}
    for asks in (True, False):
        group = sorted(name for name in names if name != BASELINE and (name in verifiers) == asks)
        looks |= {name: Look(place + 1, hollow=not asks) for place, name in enumerate(group)}
    return looks


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>"


def _note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _frontiers(entries: Sequence[Entry], looks: dict[str, Look]) -> str:
    curves = [
        Curve(
            _spoken(entry.controller),
            looks[entry.controller],
            [_point(place) for place in entry.points],
            entry.hypervolume.value if entry.hypervolume else 0.0,
        )
        for entry in entries
    ]
    return _section(
        "Frontiers", _note(ABOUT_LOOKS), frontiers("Accuracy over tokens", curves, many=True)
    ) + _section(
        "Frontiers over sequential tokens",
        _note(ABOUT_SEQUENTIAL),
        frontiers("Accuracy over sequential tokens", curves, sequential=True, many=True),
    )


def _point(place: Place) -> Point:
    return Point(
        beta=place.beta,
        accuracy=place.accuracy.value,
        accuracy_ci=place.accuracy.interval,
        tokens=place.tokens.value,
        tokens_ci=place.tokens.interval,
        sequential_tokens=place.sequential.value,
        caveat="" if place.replayable else f"not replayable on this store: {place.shortfall:.0%} shortfall",
    )


def _areas(entries: Sequence[Entry], looks: dict[str, Look]) -> str:
    """Hypervolumes, where the whole grid of betas was played."""
    ranked = [(entry.controller, entry.hypervolume) for entry in entries if entry.hypervolume]
    if not ranked:
        return ""
    figures = [
        Figure(area.value, area.interval, f"{_spoken(name)}: {area.value:.3f} {_hundredths(area.interval)}")
        for name, area in ranked
    ]
    lines = [(_spoken(name), looks[name]) for name, _ in ranked]
    picture = intervals("Hypervolumes", lines, [Strip(("", ""), figures)], "hypervolume, accuracy × nats")
    return _section("Hypervolume", _note(ABOUT_AREAS), picture)


def _levels(
    entries: Sequence[Entry], levels: Sequence[Level], looks: dict[str, Look], verifiers: Collection[str]
) -> str:
    names = sorted(
        (entry.controller for entry in entries if entry.controller != BASELINE),
        key=lambda name: (name not in verifiers, name),
    )
    parts = []
    for place, match in enumerate(entries[0].matches):
        strips = [
            Strip(
                (_chance(level), _number(level.problems, "problem")),
                [_lead(name, level.matches[name][place]) for name in names],
            )
            for level in levels
        ]
        if any(figure for strip in strips for figure in strip.figures):
            title = f"with the tokens of self-consistency at {match.width}"
            picture = intervals(
                f"Lead over self-consistency by difficulty, {title}",
                [(_spoken(name), looks[name]) for name in names],
                strips,
                "points of accuracy over self-consistency",
                lambda points: f"{points:+g}" if points else "0",
                FAR_BEHIND,
            )
            told = "".join(
                f"<li>{show(_verdict(level, place, verifiers))}</li>" for level in levels if verifiers
            )
            parts.append(f'<h3>{title[0].upper()}{title[1:]}</h3>{picture}<ul class="plain note">{told}</ul>')
    return _section("Where verifiers help", _note(ABOUT_LEVELS), *parts)


def _chance(level: Level) -> str:
    low, high = (f"{100 * chance:.0f}" for chance in (level.low, level.high))
    return f"pass rate {low if low == high else f'{low}–{high}'}%"


def _lead(name: str, match: Matched) -> Figure | None:
    if match.lead is None:
        return None
    value, interval = 100 * match.lead.value, match.lead.interval
    pair = interval and (100 * interval[0], 100 * interval[1])
    return Figure(value, pair, f"{_spoken(name)}: {value:+.1f} points {percents(interval)}")


def _verdict(level: Level, place: int, verifiers: Collection[str]) -> str:
    """Which controllers with a verifier are surely better or worse than voting on problems of a level."""
    leads = {
        _spoken(name): matches[place].lead for name, matches in level.matches.items() if name in verifiers
    }
    known = {name: lead.interval for name, lead in leads.items() if lead and lead.interval}
    better = [name for name, interval in known.items() if interval[0] > 0]
    worse = [name for name, interval in known.items() if interval[1] < 0]
    told = []
    if better:
        told.append(f"{', '.join(better)} better than voting")
    if worse:
        told.append(f"{', '.join(worse)} worse")
    if rest := len(known) - len(better) - len(worse):
        told.append(f"of {rest} the data cannot tell")
    if dear := len(leads) - len(known):
        told.append(f"{dear} cost more than that")
    return f"{_chance(level)}: {'; '.join(told)}."


def _tables(entries: Sequence[Entry], looks: dict[str, Look]) -> str:
    widths = [match.width for match in entries[0].matches]
    heads = ["controller", "hypervolume"]
    heads += [head for n in widths for head in (f"at tokens of {n}: accuracy, %", "sequential")]
    costs = [head for n in widths for head in (f"for accuracy of {n}: × tokens", "× sequential")]
    rows, prices, points = [], [], []
    for entry in entries:
        look, name = looks[entry.controller], named(entry.controller, looks[entry.controller])
        area = entry.hypervolume
        cells = [name, f"{area.value:.3f}{faint(_hundredths(area.interval))}" if area else "–"]
        paid = [name]
        for match in entry.matches:
            cells += _at_cost(match)
            paid += [_times(match.tokens), _times(match.latency)]
        rows.append(row(cells, look.css))
        prices.append(row(paid, look.css))
        points += [
            row(_figures(name if k == 0 else "", place), "first" if k == 0 else "")
            for k, place in enumerate(entry.points)
        ]
    every = table(("controller", "beta", "accuracy, %", "tokens", "sequential", ""), points)
    return _section(
        "Figures",
        _note(ABOUT_MATCHES),
        table(heads, rows),
        table(["controller", *costs], prices),
        f'<details class="figures"><summary>every point, with intervals</summary>{every}</details>',
    )


def _at_cost(match: Matched) -> tuple[str, str]:
    if match.accuracy is None or match.sequential is None:
        return "costs more", "–"
    value = f"{100 * match.accuracy.value:.1f}{faint(percents(match.accuracy.interval))}"
    return value, short(match.sequential)


def _times(ratio: Ratio) -> str:
    value, _, interval = str(ratio).partition(" ")
    return value + faint(interval)


def _figures(name: str, place: Place) -> tuple[str, ...]:
    return (
        name,
        f"{place.beta:g}",
        f"{100 * place.accuracy.value:.1f}{faint(percents(place.accuracy.interval))}",
        f"{short(place.tokens.value)}{faint(_pair(place.tokens.interval, short))}",
        f"{short(place.sequential.value)}{faint(_pair(place.sequential.interval, short))}",
        "" if place.replayable else f"not replayable: {place.shortfall:.0%} shortfall",
    )


def _hundredths(interval: tuple[float, float] | None) -> str:
    return _pair(interval, "{:.2f}".format)


def _pair(interval: tuple[float, float] | None, told: Callable[[float], str]) -> str:
    return f"[{told(interval[0])}, {told(interval[1])}]" if interval else ""
