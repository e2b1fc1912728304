"""The report of a search: one HTML file that needs nothing else, not even a network.

Whatever a model wrote goes through `listing.show`, and the page's own policy lets the browser load nothing and
run nothing but the few lines of script below.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from string import Template

from search_agent.archive import Run
from search_agent.charts import Curve, Step, frontiers, progress, short
from search_agent.listing import changed_lines, listing, show
from search_agent.tables import figures, overview, parts, schedule
from search_agent.view import Round, Score, View

TEMPLATE = Path(__file__).with_suffix(".html")
NAME = "report.html"
# A link to a round opens it.
SCRIPT = """
const reveal = () => {
  const round = document.getElementById(location.hash.slice(1));
  if (round instanceof HTMLDetailsElement) { round.open = true; round.scrollIntoView(); }
};
addEventListener("hashchange", reveal);
reveal();
"""
# Below this shortfall a program's figures are its own; see DESIGN in README.
REPLAYABLE = 0.01


def write_report(run: Path) -> Path:
    """Draw a run, whatever state it is in, as RUN/report.html.

    Returns:
        The path of the file, which is there whole or as it was before.

    Raises:
        UserError: there is no run in the folder, one of its files is damaged (it is named), or the disk refuses.
    """
    Run.open(run).write(NAME, page(View.of(run)))
    return run / NAME


def page(view: View) -> str:
    """The whole file."""
    digest = hashlib.sha256(SCRIPT.encode()).digest()
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        headline=show(headline(view)),
        name=show(view.path.resolve().name),
        version=show(version("autotts")),
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
    return (
        f'<p class="lede">Measured on {_count(view.holdout.problems, "problem")} that the search never touched, '
        f"{_count(view.holdout.seeds, 'seed')} each, means over {_count(len(view.config['holdout']), 'store')}; "
        f'the program is <a href="#round-{view.best.number}">{view.best.name}</a>. In brackets: 95% intervals from '
        "resampling problems.</p>"
    )


def _missing(view: View) -> list[str]:
    """What a reader might look for in vain, and why it is not there."""
    resume = f"<code>autotts search --resume --out {show(str(view.path))}</code>"
    missing = []
    if not view.finished:
        missing.append(
            f"The search is not finished: no finalists, no hold-out figures. {resume} goes on with it."
        )
    elif view.winner is None:
        missing.append(
            "There is no winner, so the hold-out was not looked at: no program's cost rises with beta."
        )
    elif view.holdout is None:
        missing.append(f"The hold-out has not been looked at yet. {resume} does it.")
    if not view.baselines:
        missing.append("The published controllers have not been measured yet.")
    return missing


def _facts(view: View) -> list[tuple[str, str]]:
    config, usage = view.config, view.usage
    sizes = {part: len(problems) for part, problems in config["problems"].items()}
    datasets = sorted({store["dataset"] for store in config["stores"]})
    models = ", ".join(show(store["model"]) for store in config["stores"])
    facts = [
        ("searched on", f"{show(', '.join(datasets))}: {models}"),
        (
            "problems",
            f"{sizes['feedback']} shown to the proposer, {sizes['selection']} to select on, "
            f"{sizes['holdout']} held out",
        ),
        (
            "seeds",
            f"{config['seeds']} a round, {config['final_seeds']} for baselines, finalists and hold-out",
        ),
        (
            "protocol",
            f"{show(config['protocol'])}; a probe costs {config['probe_tokens']} tokens where unknown",
        ),
        ("rounds", ", ".join(f"{n} {show(status)}" for status, n in view.statuses.items()) or "none yet"),
        ("proposer", ", ".join([show(config["proposer"]["name"]), *map(_stamp, view.stamps)])),
        (
            "isolation",
            show(", ".join(sorted({each.isolation for each in view.rounds} - {""}))) or "nothing ran yet",
        ),
    ]
    if view.holdout:
        looks = [f"{show(Path(store).name)}: {show(times)}" for store, times in view.holdout.looks.items()]
        facts.append(("looks at the hold-out, this one included", "<br>".join(looks)))
    cost = "cost unknown" if usage.cost_usd is None else f"${usage.cost_usd:.2f}"
    tokens = f"{short(usage.prompt_tokens)} + {short(usage.completion_tokens)} tokens"
    facts.append(("model calls", f"{usage.calls}: {tokens}, {cost}" if usage.calls else "none"))
    return facts


def _frontiers(view: View) -> str:
    styles = _styles(view)
    panels = []
    if view.holdout:
        panels.append(
            ("Hold-out", "what the winner is worth: it was chosen without these", view.holdout.scores)
        )
    if scores := view.on_selection():
        panels.append(("Selection folds", "what the winner was chosen on, which flatters it", scores))
    if not panels:
        return ""
    figured = []
    for title, caption, scores in panels:
        ranked = [
            (score, styles.get(score.name, 0)) for score in sorted(scores, key=lambda s: -s.hypervolume)
        ]
        curves = [Curve(_spoken(score.name), score.points, style) for score, style in ranked]
        figured.append(
            f"<figure><h3>{title}</h3><figcaption>{caption}</figcaption>"
            f"{frontiers(f'Accuracy over tokens: {title}', curves)}{overview(ranked)}"
            f'<details class="figures"><summary>every point, with intervals</summary>{figures(ranked)}</details>'
            "</figure>"
        )
    return (
        '<section><h2 id="frontiers">Frontiers</h2><p class="note">Each line is one controller, its points beta 0, '
        "¼, ½, ¾, 1. Whiskers are 95% intervals of the winner over problems. All controllers played the same "
        "problems and seeds, so a difference can be surer than overlapping whiskers suggest. Sequential tokens "
        f'are those on the critical path: the latency.</p><div class="pair">{"".join(figured)}</div></section>'
    )


def _progress(view: View) -> str:
    if not view.rounds or not (view.baselines or any(each.selection for each in view.rounds)):
        return ""
    styles = _styles(view)
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
    levels = [(_spoken(score.name), score.hypervolume, styles[score.name]) for score in view.baselines]
    picture = progress("Hypervolume over rounds", steps, levels, set(view.lineage))
    return (
        '<section><h2 id="progress">Progress</h2><p class="note">Hypervolume on the selection folds: the area that '
        "a frontier wins over one branch's accuracy and the cost of self-consistency at 64 (accuracy × ln tokens), "
        "averaged over stores. Thin lines lead from parent to child, the winner's line of descent is filled; dashed "
        "circles are programs whose cost does not rise with beta, which cannot win; crosses were not evaluated."
        f"</p>{picture}</section>"
    )


def _rounds(view: View) -> str:
    if not view.rounds:
        return ""
    descent = " → ".join(f'<a href="#round-{number}">{number}</a>' for number in view.lineage)
    lead = f'<p class="note">Descent of {view.best.name}: {descent}.</p>' if view.best else ""
    order = sorted(view.rounds, key=lambda each: (each != view.best, each.number))
    return (
        f'<section><h2 id="rounds">Rounds</h2>{lead}{"".join(_round(view, each) for each in order)}</section>'
    )


def _round(view: View, each: Round) -> str:
    parent = view.round(each.parent)
    badges = _badges(view, each)
    origin = f'<a href="#round-{parent.number}">{parent.name}</a>' if parent else "a fresh start"
    body = [
        f'<p class="meta">{show(each.proposer)}, from {origin} {"".join(map(_stamp, _caveats(each)))}</p>'
    ]
    if each.error:
        body.append(f'<p class="error">{show(each.error)}</p>')
    if each.selection and each.feedback:
        body.append(parts(each.feedback, each.selection))
        if settings := schedule(each.selection):
            body.append(f"<h3>Schedule</h3>{settings}")
    if each.source is None:
        body.append("<p>No program was left.</p>")
    elif parent and parent.source is not None:
        added, removed = changed_lines(each.source, parent.source)
        body.append(f"<h3>Program</h3><p class='meta'>against {parent.name}: +{added} −{removed} lines</p>")
        body.append(listing(each.source, parent.source))
    else:
        body.append(f"<h3>Program</h3>{listing(each.source)}")
    return (
        f'<details class="one" id="round-{each.number}"{" open" if each == view.best else ""}>'
        f'<summary data-round="{each.number}"><span class="what">{badges}{show(each.summary or each.error)}</span>'
        f'<span class="figure">{_gain(each, parent)}</span></summary><div class="body">{"".join(body)}</div></details>'
    )


def _badges(view: View, each: Round) -> str:
    if each == view.best:
        return f'<span class="badge k0">{"winner" if view.winner else "ahead"}</span>'
    return "" if each.status == "evaluated" else f'<span class="badge k1">{show(each.status)}</span>'


def _caveats(each: Round) -> list[str]:
    caveats = [*each.stamps, each.isolation and f"isolation: {each.isolation}"]
    if each.selection and not each.monotone:
        caveats.append("cost falls as beta rises")
    if each.selection and each.selection.errors:
        caveats.append(_count(each.selection.errors, "episode") + " ended in an error")
    if each.shortfall > REPLAYABLE:
        caveats.append(f"not replayable on these stores: they lacked {each.shortfall:.0%} of its branches")
    return [caveat for caveat in caveats if caveat]


def _gain(each: Round, parent: Round | None) -> str:
    if not each.selection:
        return ""
    gain = ""
    if parent and parent.selection:
        gain = f" ({each.selection.hypervolume - parent.selection.hypervolume:+.3f})"
    return f"{each.selection.hypervolume:.3f}{gain}"


def _outcome(each: Round) -> str:
    return f"hypervolume {each.selection.hypervolume:.3f}" if each.selection else each.status


def _styles(view: View) -> dict[str, int]:
    return {score.name: i % 5 + 1 for i, score in enumerate(view.baselines)}


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _stamp(text: str) -> str:
    return f'<span class="badge stamp">{show(text)}</span>'


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


__all__: Sequence[str] = ["headline", "page", "write_report"]
