"""From a recipe to the file that a person would write for it: only the chosen mechanisms appear."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from search_agent.compose.grammar import SLOTS, Constant, Mechanism, Recipe

LEAD = '''
def lead(score):
    """How many standard deviations the leading answer is ahead of the runner-up."""
    first, second, *_ = *sorted(score.values(), reverse=True), 0, 0
    return (first - second) / math.sqrt(first + second + 1)

'''

TITLES = {
    "fixed": "All at once",
    "bursts": "Burst after burst",
    "steady": "A steady stream",
    "refill": "A full house",
    "margin": "until one answer leads clearly",
    "agree": "until enough branches agree",
    "window": "until the newest answers are one",
    "stable": "until the leader stays",
    "safe": "until nothing can turn the vote",
}


def chosen(recipe: Recipe) -> dict[str, Mechanism]:
    """The mechanism in each slot of a recipe."""
    return {slot: mechanisms[recipe[slot]] for slot, mechanisms in SLOTS.items()}


def constants(recipe: Recipe) -> list[Constant]:
    """The constants that a recipe's mechanisms bring along, each once, in the order of the slots."""
    return list({c.name: c for mechanism in chosen(recipe).values() for c in mechanism.constants}.values())


def title(recipe: Recipe) -> str:
    """What the program is called, in half a sentence."""
    return f"{TITLES[recipe['widening']]}, {TITLES[recipe['stopping']]}"


def assemble(recipe: Recipe) -> str:
    """The text of the controller module that a recipe describes."""
    numbers = constants(recipe)
    body = _solve(recipe)
    imports = ["import math"] if "lead(" in body else []
    imports += ["from collections import Counter"]
    imports += ["from statistics import median"] if "median(" in body else []
    schedule = "".join(f'        "{c.name}": {_ramp(c, recipe[c.name])},\n' for c in numbers)
    return (
        f'"""{_docstring(recipe)}"""\n\n'
        + "\n".join(imports)
        + f"\n\n\ndef schedule(beta):\n    return {{\n{schedule}    }}\n\n"
        + (LEAD if "lead(" in body else "")
        + f"\nasync def solve(ep, {', '.join(c.name for c in numbers)}):\n"
        + textwrap.indent(body, "    ")
    )


def _docstring(recipe: Recipe) -> str:
    lines = [title(recipe) + ".", ""]
    for slot, mechanism in chosen(recipe).items():
        lines += textwrap.wrap(f"{slot.capitalize()}: {mechanism.says}.", 108, subsequent_indent="  ")
    return "\n".join([*lines, ""])


def _ramp(constant: Constant, values: Sequence[float]) -> str:
    low, high = f"{values[0]:g}", f"{values[-1]:g}"
    if low == high:
        return low
    if constant.low <= 0:
        slope = f"{values[-1] - values[0]:.4g}"
        return f"{low} + beta" if slope == "1" else f"{low} + {slope} * beta"
    ramp = f"{high}**beta" if low == "1" else f"{low} * ({high} / {low}) ** beta"
    return f"round({ramp})" if constant.whole else ramp


def _solve(recipe: Recipe) -> str:
    ask = any(part.probes for part in chosen(recipe).values())
    tally = "score" if recipe["voting"] == "latest" else "votes"
    opening = "width" if recipe["widening"] == "fixed" else "min(start, width)"
    return "\n".join(
        [
            "width = min(width, ep.max_branches)",
            f"live = await {_opening(recipe, opening, ask)}",
            "ended, votes = [], Counter()",
            *(["leader, since = None, 0"] if recipe["stopping"] == "stable" else []),
            *(["astray = Counter()"] if recipe["pruning"] == "astray" else []),
            "while live:",
            *_indented(
                [
                    *_counting(recipe),
                    *_leading(recipe, tally),
                    *_stopping(recipe, tally),
                    *_pruning(recipe),
                    *_going_on(recipe, ask),
                ]
            ),
            f"return max({tally}, key={tally}.get, default=None)",
            "",
        ]
    )


def _opening(recipe: Recipe, count: str, ask: bool) -> str:
    whole = recipe["depth"] == "finish"
    return f"ep.sample({count})" if whole else f"ep.branch({count}, probe={ask})"


def _indented(lines: Sequence[str]) -> list[str]:
    return ["    " + line for line in lines]


def _counting(recipe: Recipe) -> list[str]:
    weights = {
        "early": "1 / (1 + fade * (len(ended) - 1))",
        "short": "(ep.tokens[ended[0]] / ep.tokens[i]) ** favour_short",
    }
    weight = weights.get(recipe["voting"], "1")
    count = ["ended.append(i)", "if ep.answer[i] != -1:", f"    votes[ep.answer[i]] += {weight}"]
    if recipe["depth"] == "finish":
        return ["for i in live:", *_indented(count)]
    lines = [
        "for i in live:",
        "    if ep.done[i]:",
        *_indented(_indented(count)),
        "live = [i for i in live if not ep.done[i]]",
    ]
    if recipe["voting"] == "latest":
        lines += [
            "score = votes.copy()",
            "for i in live:",
            "    if ep.answer[i] != -1:",
            "        score[ep.answer[i]] += weight",
        ]
    return lines


def _leading(recipe: Recipe, tally: str) -> list[str]:
    leader = f"leader = max({tally}, key={tally}.get, default=None)"
    if recipe["stopping"] == "stable":
        return ["before = leader", leader, "since = since + 1 if leader == before else 0"]
    return [leader] if recipe["depth"] == "favour" or recipe["pruning"] == "astray" else []


def _stopping(recipe: Recipe, tally: str) -> list[str]:
    # Open branches that have not ended, and those that may still be opened.
    live = [] if recipe["depth"] == "finish" else ["len(live)"]
    unopened = [] if recipe["widening"] == "fixed" else ["width - len(ep.done)"]
    outstanding = " + ".join(live + unopened)
    return {
        "margin": [f"if len(ended) >= quorum and lead({tally}) >= margin:"],
        "agree": [f"if max({tally}.values(), default=0) >= agree:"],
        "window": [
            "lately = {ep.answer[i] for i in ended[-window:]}",
            "if len(ended) >= window and len(lately) == 1 and -1 not in lately:",
        ],
        "stable": ["if len(ended) >= quorum and since >= steady:"],
        "safe": [
            f"first, second, *_ = *sorted({tally}.values(), reverse=True), 0, 0",
            f"if first - second > doubt * ({outstanding}):",
        ],
    }[recipe["stopping"]] + ["    break"]


def _pruning(recipe: Recipe) -> list[str]:
    return {
        "keep": [],
        "tail": [
            "if len(ended) > 1:",
            "    limit = tail * median(ep.depth[i] for i in ended)",
            "    ep.prune([i for i in live if ep.depth[i] > limit])",
            "    live = [i for i in live if ep.depth[i] <= limit]",
        ],
        "astray": [
            "if votes:",
            "    for i in live:",
            "        astray[i] = astray[i] + 1 if ep.answer[i] != leader else 0",
            "    ep.prune([i for i in live if astray[i] >= patience])",
            "    live = [i for i in live if astray[i] < patience]",
        ],
    }[recipe["pruning"]]


def _going_on(recipe: Recipe, ask: bool) -> list[str]:
    burst = f"live = await {_opening(recipe, 'min(burst, width - len(ep.done))', ask)}"
    if recipe["depth"] == "finish":
        return [burst]
    far, lines = "stride", []
    if recipe["depth"] == "favour":
        far = "far"
        lines = ["far = [stride * favour if ep.answer[i] == leader else stride for i in live]"]
    extend = f"ep.extend(live, {far}, probe={ask})"
    if recipe["widening"] == "fixed":
        return [*lines, f"await {extend}"]
    if recipe["widening"] == "bursts":
        return ["if live:", *_indented([*lines, f"await {extend}"]), "else:", f"    {burst}"]
    more = "widen" if recipe["widening"] == "steady" else "start - len(live)"
    return [
        *lines,
        f"more = min({more}, width - len(ep.done))",
        f"_, fresh = await ep.together({extend}, ep.branch(more, probe={ask}))",
        "live += fresh",
    ]
