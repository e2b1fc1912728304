"""A certificate as one HTML file that needs nothing else: the verdict, why, every figure with its margin."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from env.drawing.page import fill
from env.drawing.tables import faint, row, table
from env.drawing.text import show

TEMPLATE = Path(__file__).with_suffix(".html")
HEADLINES = {
    "holds": "replay told the truth: it holds",
    "fails": "replay did not tell the truth: it fails",
    "undecided": "undecided: these episodes cannot tell",
}
HEADS = ("", "live", "replayed", "off by", "margin", "verdict")
ABOUT = """\
Each figure is compared problem by problem. It holds where the 90% interval of the difference lies within its
margin (two one-sided tests at 5%), fails where an interval that errs in 1 of 100 certificates lies wholly
beyond, and is undecided otherwise. Fresh branches are held against stored ones by permutation, too."""


def page(certificate: Mapping[str, Any]) -> str:
    """The whole file, from `env.certificate.certificate.certificate`."""
    asked, store = certificate["asked"], certificate["store"]
    power = certificate["expected"]
    spent = sum(part["tokens"] for part in certificate["parts"])
    facts = {
        "store": f"{store['dataset']}, sampled from {store['model']}",
        "sha256 of the store": store["sha256"],
        "live": f"{', '.join(asked['models'])} at {asked['server']}",
        "sampling": _differences(asked["sampling"], asked["stored_sampling"]),
        "controllers": f"{', '.join(certificate['controllers'])} at beta {certificate['beta']:g}",
        "compared": f"{certificate['problems']} problems, {certificate['branches_a_problem']} fresh branches "
        f"and {certificate['episodes_a_problem']} live episodes of each",
        "power": f"holds with probability {power['holds']:.0%} if replay is right",
        "tokens": f"{spent:,} of {power['tokens']['total']:,} expected",
    }
    if asked["exported"]:
        facts["played by"] = "an exported file, with answers compared by its own rule"
    return fill(
        TEMPLATE,
        HEADLINES[certificate["verdict"]],
        style="ul.plain { padding-left: 18px; max-width: 52em; }\nmain > .note { margin-top: 18px; }",
        why="".join(f"<li>{show(reason)}</li>" for reason in certificate["why"]),
        facts="".join(
            f"<div><dt>{show(name)}</dt><dd>{show(text)}</dd></div>" for name, text in facts.items()
        ),
        sections=f'<p class="note">{ABOUT}</p>' + "".join(map(_section, certificate["parts"])),
    )


def _section(part: Mapping[str, Any]) -> str:
    rows = [_row(figure) for figure in part["figures"]]
    for name, chance in part.get("p_values", {}).items():
        verdict = "fails" if chance <= part["p_level"] else "not told apart"
        cells = (
            f"{show(name)}, by permutation",
            "",
            "",
            f"p = {chance:.2g}",
            f"{part['p_level']:.2g}",
            verdict,
        )
        rows.append(row(cells))
    notes = []
    if part["model_failures"]:
        notes.append(
            f"{part['model_failures']} of {part['episodes']} episodes the model failed; they decide nothing."
        )
    if part["errors"]:
        notes.append(f"{part['errors']} episodes ended with an error of the controller: {part['error']}")
    told = "".join(f'<p class="missing">{show(note)}</p>' for note in notes)
    title = f"{part['name']}: {part['verdict']}"
    return f"<section><h2>{show(title)}</h2>{told}{table(HEADS, rows)}</section>"


def _row(figure: Mapping[str, Any]) -> str:
    ends, share = figure["interval"], "difference" in figure
    if share:
        live, replay = (f"{figure[side]:.1%}" for side in ("live", "replay"))
        off, margin = f"{100 * figure['difference']:+.1f} points", f"± {100 * figure['margin']:g}"
        inner = f"[{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]" if ends else ""
    else:
        live, replay = (f"{figure[side]:,.1f}" for side in ("live", "replay"))
        off, margin = f"× {figure['ratio']:.3f}", f"×/÷ {1 + figure['margin']:g}"
        inner = f"[{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
    return row((show(figure["figure"]), live, replay, off + faint(inner), margin, figure["verdict"]))


def _differences(served: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """How what is served is drawn, where that is not as it was stored."""
    other = [
        f"{name} {served[name]:g}, stored {stored[name]:g}" for name in served if served[name] != stored[name]
    ]
    return "; ".join(other) or f"as stored, {json.dumps(dict(served))[1:-1].replace(chr(34), '')}"
