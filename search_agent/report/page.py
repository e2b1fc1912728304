"""The page: what is told of a run, in what order, and in what words.

Whatever a model wrote goes through `show`, and the page's own policy lets the browser load nothing and run
nothing but the few lines of script below.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from importlib.metadata import version
from pathlib import Path
from string import Template

from env.drawing import STYLE
from env.drawing.canvas import Look, short
from env.drawing.frontiers import Curve, frontiers
from env.drawing.text import show
from env.statistics import REPLAYABLE
from search_agent.report.charts import Step, progress
from search_agent.report.listing import changed_lines, listing
from search_agent.report.tables import figures, overview, parts, schedule
from search_agent.report.view import Round, Score, View

TEMPLATE = Path(__file__).with_suffix(".html")
# A link to a round opens it.
SCRIPT = """
const reveal = () => {
  const round = document.getElementById(location.hash.slice(1));
  if (round instanceof HTMLDetailsElement) { round.open = true; round.scrollIntoView(); }
};
addEventListener("hashchange", reveal);
reveal();
"""
ABOUT_FRONTIERS = """\
A line is a controller, its points are beta 0, ¼, ½, ¾, 1. Whiskers are the winner's 95% intervals over
problems. All played the same problems, so a difference can be surer than overlapping whiskers suggest.
Sequential tokens are those on the critical path: the latency."""
ABOUT_PROGRESS = """\
Hypervolume on the selection folds: the area that a frontier wins over the accuracy of one branch and the cost
of self-consistency at 64 (accuracy × ln tokens), averaged over stores. Thin lines lead from parent to child.
Filled: the descent of the winner. Dashed: cost falls as beta rises, cannot win. Triangles lie below the
picture, crosses were not evaluated."""


def page(view: View) -> str:
    """The whole file."""
    digest = hashlib.sha256(SCRIPT.encode()).digest()
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        headline=show(headline(view)),
        name=show(view.path.resolve().name),
        version=show(version("autotts")),
        style=STYLE.read_text(encoding="utf-8"),
        script=SCRIPT,
        script_hash=base64.b64encode(digest).decode(),
        lede=_lede(view),
        missing="".join(f'<p class="missing">{text}</p>' for text in _missing(view)),
        facts="".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _facts(view)),
        sections=_frontiers(view) + _progress(view) + _rounds(view),
    )


def headline(view: View) -> str:
    """The sentence that the whole run comes down to so far."""
    if view.holdout:
        return view.holdout.headline
    best = view.best
    if best is None:
        done = "Nothing was found" if view.finished else "Nothing found yet"
        return f"{done}: {_count(len(view.rounds), 'round')}, none with a program fit to win"
    ours, *theirs = view.on_selection()
    rival = max(theirs, key=lambda score: score.hypervolume, default=None)
    against = f", against {rival.hypervolume:.3f} of {_spoken(rival.name)}" if rival else ""
    standing = "won on the selection problems" if view.winner else "is ahead so far"
    return f"{best.name} {standing} with hypervolume {ours.hypervolume:.3f}{against}"


def _lede(view: View) -> str:
    if view.holdout is None or view.best is None:
        return ""
    problems, seeds = _count(view.holdout.problems, "problem"), _count(view.holdout.seeds, "seed")
    return (
        f'<p class="lede">Measured on {problems} that the search never touched, {seeds} each, means over '
        f"{_count(len(view.config['holdout']), 'store')}; the program is {_link(view.best)}. "
        "In brackets: 95% intervals from resampling problems.</p>"
    )


def _missing(view: View) -> list[str]:
    """What a reader might look for in vain, and why it is not there."""
    resume = f"<code>autotts search --resume --out {show(shlex.quote(str(view.path)))}</code>"
    missing = []
    if not view.finished:
        missing.append(f"The search has not finished: no finalists, no hold-out yet. {resume} goes on.")
    elif view.winner is None:
        missing.append(
            "No program was fit to win (evaluated, cost rising with beta), so the hold-out is still unseen."
        )
    elif view.holdout is None:
        missing.append(f"The hold-out has not been looked at yet. {resume} does it.")
    if not view.baselines:
        missing.append("The published controllers have not been measured yet.")
    return missing


def _facts(view: View) -> list[tuple[str, str]]:
    config, usage = view.config, view.usage
    sizes = {part: len(problems) for part, problems in config["problems"].items()}
    datasets = ", ".join(sorted({store["dataset"] for store in config["stores"]}))
    models = ", ".join(store["model"] for store in config["stores"])
    statuses = ", ".join(f"{n} {status}" for status, n in view.statuses.items())
    isolation = sorted({each.isolation for each in view.rounds} - {""})
    facts = [
        ("searched on", show(f"{datasets}: {models}")),
        ("problems", "{feedback} for feedback, {selection} to select on, {holdout} held out".format(**sizes)),
        ("seeds", f"{config['seeds']} a round; {config['final_seeds']} for baselines, finalists, hold-out"),
        (
            "protocol",
            f"{show(config['protocol'])}; probes of unknown cost count {config['probe_tokens']} tokens",
        ),
        ("proposer", " ".join([show(config["proposer"]["name"]), *map(_stamp, view.stamps)])),
        ("isolation of programs", show("; ".join(isolation)) or "no program ran yet"),
        ("rounds", show(statuses) or "none yet"),
    ]
    if view.holdout:
        looks = {
            text: [Path(s).name for s in view.holdout.looks if view.holdout.looks[s] == text]
            for text in view.holdout.looks.values()
        }
        told = [
            show(text if len(looks) == 1 else f"{', '.join(stores)}: {text}")
            for text, stores in looks.items()
        ]
        facts.append(("looks at the hold-out so far", "<br>".join(told)))
    cost = "cost unknown" if usage.cost_usd is None else f"${usage.cost_usd:.2f}"
    tokens = f"{short(usage.prompt_tokens)} tokens read, {short(usage.completion_tokens)} written"
    facts.append(("model calls", f"{usage.calls}: {tokens}, {cost}" if usage.calls else "none"))
    return facts


def _frontiers(view: View) -> str:
    panels = []
    if view.holdout:
        panels.append(
            ("Hold-out", "what the winner is worth: nothing was chosen on these", view.holdout.scores)
        )
    if scores := view.on_selection():
        panels.append(("Selection folds", "what the winner was chosen on, which flatters it", scores))
    if not panels:
        return ""
    looks = _looks(view)
    figured = []
    for title, caption, scores in panels:
        ranked = [
            (score, looks.get(score.name, Look(0)))
            for score in sorted(scores, key=lambda each: -each.hypervolume)
        ]
        picture = frontiers(f"Accuracy over tokens: {title}", [_curve(score, look) for score, look in ranked])
        figured.append(
            f"<figure><h3>{title}</h3><figcaption>{caption}</figcaption>{picture}{overview(ranked)}"
            '<details class="figures"><summary>every point, with intervals</summary>'
            f"{figures(ranked)}</details></figure>"
        )
    return (
        f'<section><h2 id="frontiers">Frontiers</h2><p class="note">{ABOUT_FRONTIERS}</p>'
        f'<div class="pair">{"".join(figured)}</div></section>'
    )


def _progress(view: View) -> str:
    if not view.rounds or not (view.baselines or any(each.selection for each in view.rounds)):
        return ""
    looks = _looks(view)
    steps = [
        Step(
            each.number,
            each.parent,
            each.selection.hypervolume if each.selection else None,
            each.monotone,
            f"{each.name}, {_outcome(each)}: {each.summary or each.error}",
        )
        for each in view.rounds
    ]
    levels = [_curve(score, looks[score.name]) for score in view.baselines]
    picture = progress("Hypervolume over rounds", steps, levels, set(view.lineage))
    descent = " → ".join(f'<a href="#round-{number}">{number}</a>' for number in view.lineage)
    line = f" Descent of {view.best.name}: {descent}." if view.best else ""
    return (
        '<section><h2 id="progress">Progress</h2>'
        f'<p class="note">{ABOUT_PROGRESS}{line}</p>{picture}</section>'
    )


def _rounds(view: View) -> str:
    order = sorted(view.rounds, key=lambda each: (each != view.best, each.number))
    told = "".join(_round(view, each) for each in order)
    return f'<section><h2 id="rounds">Rounds</h2>{told}</section>' if told else ""


def _round(view: View, each: Round) -> str:
    parent = view.round(each.parent)
    origin = f"from {_link(parent)}" if parent else "a fresh start"
    stamps = "".join(_stamp(caveat) for caveat in _caveats(each))
    body = [f'<p class="meta">{show(each.proposer)}, {origin} {stamps}</p>']
    if each.error:
        body.append(f'<p class="error">{show(each.error)}</p>')
    if each.selection and each.feedback:
        body.append(parts(each.feedback, each.selection))
        if final := view.chosen.get(each.number):
            seeds = view.config["final_seeds"]
            body.append(
                f'<p class="note">As a finalist, with {seeds} seeds: hypervolume {final.hypervolume:.3f} on '
                "selection.</p>"
            )
        if settings := schedule(each.selection):
            body.append(f"<h3>Schedule</h3>{settings}")
    body.append(_program(each, parent))
    heading = f"{_badge(view, each)}{show(each.summary or each.error)}"
    return (
        f'<details class="one" id="round-{each.number}"{" open" if each == view.best else ""}>'
        f'<summary data-round="{each.number}"><span class="what">{heading}</span>'
        f'<span class="figure">{_gain(each, parent)}</span></summary>'
        f'<div class="body">{"".join(body)}</div></details>'
    )


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
    if each.selection and not each.monotone:
        caveats.append("cost falls as beta rises")
    if each.selection and each.selection.errors:
        caveats.append(_count(each.selection.errors, "episode") + " ended in an error")
    if each.shortfall > REPLAYABLE:
        caveats.append(f"not replayable on these stores, which lacked {each.shortfall:.0%} of its branches")
    return caveats


def _gain(each: Round, parent: Round | None) -> str:
    if each.selection is None:
        return ""
    gain = f"{each.selection.hypervolume:.3f}"
    if parent and parent.selection:
        gain += f" ({each.selection.hypervolume - parent.selection.hypervolume:+.3f})"
    return gain


def _outcome(each: Round) -> str:
    return f"hypervolume {each.selection.hypervolume:.3f}" if each.selection else each.status


def _curve(score: Score, look: Look) -> Curve:
    return Curve(_spoken(score.name), look, score.points, score.hypervolume)


def _looks(view: View) -> dict[str, Look]:
    return {score.name: Look(i % 5 + 1) for i, score in enumerate(view.baselines)}


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _link(each: Round) -> str:
    return f'<a href="#round-{each.number}">{each.name}</a>'


def _stamp(text: str) -> str:
    return f'<span class="badge stamp">{show(text)}</span>'


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
