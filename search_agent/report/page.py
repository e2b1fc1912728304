"""The page: what is told of a run, in what order, and in what words.

Whatever a model wrote goes through `show`, or as JSON through `sections.data`; the page's own policy lets the
browser load nothing and run nothing but the scripts beside this file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from env.drawing.canvas import short
from env.drawing.page import fill
from env.drawing.text import show
from search_agent.report.rounds import rounds
from search_agent.report.sections import sections
from search_agent.report.view import View
from search_agent.report.words import count, link, spoken, stamp

HERE = Path(__file__).parent
SCRIPTS = ("dom.js", "rounds.js", "outcomes.js", "timeline.js", "player.js")
TITLE = re.compile('<h2 id="([a-z]+)">([A-Za-z]+)</h2>')


def page(view: View, outcomes: Mapping[str, Any] | None, episodes: Mapping[str, Any] | str) -> str:
    """The whole file.

    Args:
        view: the run.
        outcomes: of `search_agent.report.outcomes`.
        episodes: of `search_agent.report.episodes`.
    """
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    body = "".join([*sections(view, outcomes, episodes), rounds(view)])
    contents = [f'<a href="#{name}">{title}</a>' for name, title in TITLE.findall(body)]
    return fill(
        HERE / "page.html",
        headline(view),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=script,
        name=show(view.path.resolve().name),
        lede=_lede(view),
        missing="".join(f'<p class="missing">{text}</p>' for text in _missing(view)),
        facts="".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _facts(view)),
        contents="".join(contents),
        sections=body,
    )


def headline(view: View) -> str:
    """The sentence that the whole run comes down to so far."""
    if view.holdout:
        return view.holdout.headline
    best = view.best
    if best is None:
        done = "Nothing was found" if view.finished else "Nothing found yet"
        return f"{done}: {count(len(view.rounds), 'round')}, none with a program fit to win"
    ours, *theirs = view.on_selection()
    rival = max(theirs, key=lambda score: score.hypervolume, default=None)
    against = f", against {rival.hypervolume:.3f} of {spoken(rival.name)}" if rival else ""
    standing = "won on the selection problems" if view.winner else "is ahead so far"
    return f"{best.name} {standing} with hypervolume {ours.hypervolume:.3f}{against}"


def _lede(view: View) -> str:
    if view.holdout is None or view.best is None:
        return ""
    problems, seeds = count(view.holdout.problems, "problem"), count(view.holdout.seeds, "seed")
    return (
        f'<p class="lede">Measured on {problems} that the search never touched, {seeds} each, means over '
        f"{count(len(view.config['holdout']), 'store')}; the program is {link(view.best)}. "
        "In brackets: 95% intervals from resampling problems.</p>"
    )


def _missing(view: View) -> list[str]:
    """What a reader might look for in vain, and why it is not there."""
    resume = f"<code>autotts search --resume --out {show(shlex.quote(str(view.path)))}</code>"
    missing = []
    if not view.finished:
        missing.append(
            "The search has not finished: no finalists, no hold-out yet. While it runs, it draws this page "
            f"anew from time to time: reload it. Where it was stopped, {resume} goes on."
        )
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
        ("proposer", " ".join([show(config["proposer"]["name"]), *map(stamp, view.stamps)])),
        ("isolation of programs", show("; ".join(isolation)) or "no program ran yet"),
        ("rounds", show(statuses) or "none yet"),
    ]
    if view.crossed:
        told = " and ".join(f"{value:.3f} on {show(name)}" for name, value in view.crossed.items())
        facts.append(("hypervolume of choosing like this", f"{told} that had no part in the choice"))
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
