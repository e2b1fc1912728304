"""The rounds one by one: what was proposed and why, what it was worth, and what changed in the program."""

from __future__ import annotations

from env.drawing.text import show
from env.statistics import REPLAYABLE
from search_agent.report.listing import changed_lines, listing
from search_agent.report.tables import claims, parts, schedule
from search_agent.report.view import Hypothesis, Round, View
from search_agent.report.words import count, link, stamp, verdict

# All rounds together, in characters; the details of those that are told last may be left out.
MAX_SIZE = 1_000_000


def rounds(view: View) -> str:
    """A section with every round: the best one first and open, then the others in their order."""
    order = sorted(view.rounds, key=lambda each: (each != view.best, each.number))
    bodies = _bodies(view)
    told = "".join(_round(view, each, bodies[each.number]) for each in order)
    return f'<section><h2 id="rounds">Rounds</h2>{told}</section>' if told else ""


def _bodies(view: View) -> dict[int, str]:
    """What is in each round's box: all of it for the descent of the best one and whatever else has room."""

    def importance(each: Round) -> tuple[bool, bool, float]:
        return each.number not in view.lineage, not each.eligible, -(each.area or 0.0)

    bodies, size = {}, 0
    for each in sorted(view.rounds, key=importance):
        if size < MAX_SIZE:
            bodies[each.number] = _body(view, each)
        else:
            left_out = f"Left out for room; it is in <code>rounds/{each.number:04d}</code>."
            bodies[each.number] = f'<p class="note">{left_out}</p>'
        size += len(bodies[each.number])
    return bodies


def _round(view: View, each: Round, body: str) -> str:
    parent = view.round(each.parent)
    heading = f"{_badge(view, each)}{show(each.summary or each.error)}"
    return (
        f'<details class="one" id="round-{each.number}"{" open" if each == view.best else ""}>'
        f'<summary data-round="{each.number}"><span class="what">{heading}</span>'
        f'<span class="figure">{_gain(each, parent)}</span></summary>'
        f'<div class="body">{body}</div></details>'
    )


def _body(view: View, each: Round) -> str:
    parent, partner = view.round(each.parent), view.round(each.partner)
    origin = f"from {link(parent)}" if parent else "a fresh start"
    if partner:
        origin += f" and {link(partner)}"
    stamps = "".join(stamp(caveat) for caveat in _caveats(each))
    body = [f'<p class="meta">{show(each.proposer)}, {origin}{_race(view, each)} {stamps}</p>']
    if each.error:
        body.append(f'<p class="error">{show(each.error)}</p>')
    if each.hypothesis:
        body.append(_hypothesis(each.hypothesis))
    if each.feedback:
        body.append(parts(each.feedback, each.selection))
        if final := view.chosen.get(each.number):
            seeds = view.config["final_seeds"]
            body.append(
                f'<p class="note">As a finalist, with {seeds} seeds: hypervolume {final.hypervolume:.3f} on '
                "selection.</p>"
            )
        if settings := schedule(each.selection or each.feedback):
            body.append(f"<h3>Schedule</h3>{settings}")
    body.append(_program(each, parent))
    return "".join(body)


def _race(view: View, each: Round) -> str:
    race, rival = each.race, view.round(each.race.rival) if each.race else None
    if race is None or rival is None:
        return ""
    span = f" [{race.interval[0]:+.3f}, {race.interval[1]:+.3f}]" if race.interval else ""
    where = f"the {show(race.part)} problems, {count(race.seeds, 'seed')}"
    return f"; against {link(rival)} hypervolume {race.gain:+.3f}{span} on {where}"


def _hypothesis(stated: Hypothesis) -> str:
    against = f' <span class="meta">against {show(stated.against)}</span>' if stated.against else ""
    told = f"<h3>Hypothesis</h3><blockquote>{show(stated.text)}</blockquote>"
    return f"{told}<p>{verdict(stated.outcome)}{against}</p>{claims(stated)}"


def _program(each: Round, parent: Round | None) -> str:
    if each.source is None:
        return "<p>It left no program.</p>"
    if parent is None or parent.source is None:
        return f"<h3>Program</h3>{listing(each.source)}"
    added, removed = changed_lines(each.source, parent.source)
    return (
        f'<h3>Program</h3><p class="meta">Against {parent.name}: +{added} −{removed} lines.</p>'
        f"{listing(each.source, parent.source)}"
    )


def _badge(view: View, each: Round) -> str:
    if each == view.best:
        return f'<span class="badge k0">{"winner" if view.winner else "ahead"}</span>'
    return "" if each.status == "evaluated" else f'<span class="badge k1">{show(each.status)}</span>'


def _caveats(each: Round) -> list[str]:
    caveats = list(each.stamps)
    if each.isolation:
        caveats.append(f"isolation: {each.isolation}")
    if each.feedback and not each.monotone:
        caveats.append("cost falls as beta rises")
    if each.selection and each.selection.errors:
        caveats.append(count(each.selection.errors, "episode") + " ended in an error")
    if each.shortfall > REPLAYABLE:
        caveats.append(f"not replayable on these stores, which lacked {each.shortfall:.0%} of its branches")
    return caveats


def _gain(each: Round, parent: Round | None) -> str:
    if each.area is None:
        return ""
    gain = f"{each.area:.3f}"
    if parent and parent.area is not None:
        gain += f" ({each.area - parent.area:+.3f})"
    return gain
