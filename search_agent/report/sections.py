"""The page's sections up to the rounds: pictures, verdicts, and what the page's script works on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from env.drawing.canvas import Look
from env.drawing.frontiers import Curve, frontiers
from env.drawing.tables import row, table
from env.drawing.text import show, visible
from search_agent.report.charts import Step, best_by, progress, trails
from search_agent.report.lineage import lineage
from search_agent.report.tables import figures, overview
from search_agent.report.view import Round, Score, View
from search_agent.report.words import link, spoken, verdict

ABOUT_FRONTIERS = """\
A line is a controller, its points are beta 0, ¼, ½, ¾, 1. Whiskers are the winner's 95% intervals over
problems. All played the same problems, so a difference can be surer than overlapping whiskers suggest.
Sequential tokens are those on the critical path: the latency."""
ABOUT_PROGRESS = """\
Hypervolume on the selection folds: the area that a frontier wins over the accuracy of one branch and the cost
of self-consistency at 64 (accuracy × ln tokens), averaged over stores. Thin lines lead from parent to child.
Filled: the descent of the winner. Dashed: cannot win, for it was dropped on the way or its cost falls as beta
rises. Triangles lie below the picture, crosses were not measured."""
ABOUT_TRAILS = "The frontier of each round on the selection folds. Step through them to see which moved it."
ABOUT_LINEAGE = """\
Who was made from whom, a lane for each line of descent; the uppermost led to the best program. Dotted: the
second parent of a cross. Marks are those of the picture above."""
ABOUT_OUTCOMES = """\
How often each problem was solved, in percent of the episodes. p: problems that proposers learn from, q: those
that select, which they never see. Hard problems come first."""
ABOUT_EPISODES = """\
The same episode, played by two programs: same problem, beta and seed, hence the same branches in the same
order. A lane is a branch, a box what it decoded in one round; from left to right time passes on the critical
path. Letters and colours are answers, at the end of the box after which the branch showed another one; grey
boxes showed none.
A bar ends a branch that finished, a cross one that was pruned. Arrow keys step; in a timeline, up and down
choose a branch."""


def sections(
    view: View, outcomes: Mapping[str, Any] | None, episodes: Mapping[str, Any] | str
) -> Iterator[str]:
    """Each section that there is something to say in."""
    yield _frontiers(view)
    yield _progress(view)
    yield _lineage(view)
    yield _hypotheses(view)
    yield _outcomes(outcomes)
    yield _episodes(view, episodes)


def data(name: str, document: object) -> str:
    """JSON for the page's script. No text in it is invisible, ends the block, or is taken for code."""
    text = json.dumps(_visible(document), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _visible(document: Any) -> Any:
    match document:
        case str():
            return visible(document)
        case Mapping():
            return {visible(str(name)): _visible(value) for name, value in document.items()}
        case list() | tuple():
            return [_visible(value) for value in document]
    return document


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
    steps = _steps(view)
    if not steps or not (view.baselines or any(step.value is not None for step in steps)):
        return ""
    levels = [_curve(score, _looks(view)[score.name]) for score in view.baselines]
    picture = progress("Hypervolume over rounds", steps, levels, set(view.lineage))
    descent = " → ".join(f'<a href="#round-{number}">{number}</a>' for number in view.lineage)
    line = f" Descent of {view.best.name}: {descent}." if view.best else ""
    return (
        '<section><h2 id="progress">Progress</h2>'
        f'<p class="note">{ABOUT_PROGRESS}{line}</p>{picture}{_trails(steps, levels)}</section>'
    )


def _trails(steps: list[Step], levels: list[Curve]) -> str:
    ahead = best_by(steps)
    if not ahead:
        return ""
    told = {step.round: step.title for step in steps if step.round in ahead}
    picture = trails("Frontiers over rounds", steps, levels)
    return (
        f'<h3 id="trails-title">Frontier over rounds</h3><p class="note">{ABOUT_TRAILS}</p>'
        '<div class="controls"><label>round <input type="range" id="trails-at" min="0" '
        f'max="{len(ahead) - 1}" value="{len(ahead) - 1}"></label><output id="trails-told"></output></div>'
        f'<div id="trails">{picture}</div>'
        + data("trails-data", [[number, best, told[number]] for number, best in ahead.items()])
    )


def _lineage(view: View) -> str:
    picture = lineage("Who was made from whom", _steps(view), set(view.lineage))
    if not picture:
        return ""
    return f'<section><h2 id="lineage">Lineage</h2><p class="note">{ABOUT_LINEAGE}</p>{picture}</section>'


def _hypotheses(view: View) -> str:
    stated = [each for each in view.rounds if each.hypothesis]
    if not stated:
        return ""
    rows = [
        row(
            (
                link(each),
                verdict(each.hypothesis.outcome),
                f'<span class="words">{show(each.hypothesis.text)}</span>',
                "" if each.area is None else f"{each.area:.3f}",
            )
        )
        for each in reversed(stated)
        if each.hypothesis
    ]
    outcomes = [each.hypothesis.outcome for each in stated if each.hypothesis]
    told = ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(outcomes) if name)
    return (
        '<section><h2 id="hypotheses">Hypotheses</h2><p class="note">What each change was expected to do, '
        f"and whether it did, on paired episodes{f': {show(told)}' if told else ''}.</p>"
        f"{table(('round', 'verdict', 'hypothesis', 'hypervolume'), rows)}</section>"
    )


def _outcomes(outcomes: Mapping[str, Any] | None) -> str:
    if not outcomes:
        return ""
    models = ", ".join(f"{alias} is {show(model)}" for alias, model in outcomes["stores"].items())
    left_out = outcomes["left_out"]
    more = f" {left_out} rows are left out, most of them the same for all." if left_out else ""
    return (
        f'<section><h2 id="outcomes">Outcomes</h2><p class="note">{ABOUT_OUTCOMES} {models}.{more}</p>'
        '<div id="outcomes-here"></div>' + data("outcomes-data", outcomes) + "</section>"
    )


def _episodes(view: View, episodes: Mapping[str, Any] | str) -> str:
    if not (view.baselines or view.rounds):
        return ""
    title = '<section><h2 id="episodes">Episodes</h2>'
    if isinstance(episodes, str):
        return f'{title}<p class="note">{show(episodes)}</p></section>'
    return (
        f'{title}<p class="note">{ABOUT_EPISODES}</p><div id="episodes-here"></div>'
        + data("episodes-data", episodes)
        + "</section>"
    )


def _steps(view: View) -> list[Step]:
    return [
        Step(
            round=each.number,
            parent=each.parent,
            partner=each.partner,
            value=each.area,
            eligible=each.eligible,
            title=f"{each.name}, {_outcome(each)}: {each.summary or each.error}",
            points=each.selection.points if each.selection else (),
        )
        for each in view.rounds
    ]


def _outcome(each: Round) -> str:
    return each.status if each.area is None else f"hypervolume {each.area:.3f}"


def _curve(score: Score, look: Look) -> Curve:
    return Curve(spoken(score.name), look, score.points, score.hypervolume)


def _looks(view: View) -> dict[str, Look]:
    return {score.name: Look(i % 5 + 1) for i, score in enumerate(view.baselines)}
