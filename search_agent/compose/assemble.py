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
        return f"{low} + {values[-1] - values[0]:.4g} * beta"
    ramp = f"{high}**beta" if low == "1" else f"{low} * ({high} / {low}) ** beta"
    return f"round({ramp})" if constant.whole else ramp


def _solve(recipe: Recipe) -> str:
    parts = chosen(recipe)
    ask = any(part.probes for part in parts.values())
    plain_finish = recipe["depth"] == "finish"
    opening = "width" if recipe["widening"] == "fixed" else "min(start, width)"
    needs_leader = (
        recipe["depth"] == "favour" or recipe["pruning"] == "astray" or recipe["stopping"] == "stable"
    )
    lines = [
        "width = min(width, ep.max_branches)",
        f"live = await ep.branch({opening}, probe={ask and not plain_finish})",
        "ended, votes = [], Counter()",
    ]
    if needs_leader:
        lines.append("leader = None")
    if recipe["stopping"] == "stable":
        lines.append("since = 0")
    if recipe["pruning"] == "astray":
        lines.append("astray = Counter()")
    lines.append("while live:")
    loop: list[str] = []
    if plain_finish:
        loop += ["await ep.finish(live)"]
    loop += [
        "for i in live:",
        "    if ep.done[i]:",
        "        ended.append(i)",
        "        if ep.answer[i] != -1:",
        f"            votes[ep.answer[i]] += {_weight(recipe)}",
    ]
    if not plain_finish:
        loop.append("live = [i for i in live if not ep.done[i]]")
    tally = "votes"
    if recipe["voting"] == "latest":
        tally = "score"
        loop += [
            "score = votes.copy()",
            "for i in live:",
            "    if ep.answer[i] != -1:",
            "        score[ep.answer[i]] += weight",
        ]
    if needs_leader:
        before = "before = leader" if recipe["stopping"] == "stable" else None
        loop += [*([before] if before else []), f"leader = max({tally}, key={tally}.get, default=None)"]
    loop += _stopping(recipe, tally)
    loop += _pruning(recipe)
    loop += _going_on(recipe, ask)
    lines += ["    " + line for line in loop]
    lines.append(f"return max({tally}, key={tally}.get, default=None)")
    return "\n".join(lines) + "\n"


def _weight(recipe: Recipe) -> str:
    return {
        "early": "1 / (1 + fade * (len(ended) - 1))",
        "short": "(ep.tokens[ended[0]] / ep.tokens[i]) ** favour_short",
    }.get(recipe["voting"], "1")


def _stopping(recipe: Recipe, tally: str) -> list[str]:
    kind = recipe["stopping"]
    # Open branches that have not ended, and those that may still be opened.
    outstanding = "len(live)" if recipe["widening"] == "fixed" else "(len(live) + width - len(ep.done))"
    if recipe["depth"] == "finish":
        outstanding = "(width - len(ep.done))"
    return {
        "margin": [f"if len(ended) >= quorum and lead({tally}) >= margin:", "    break"],
        "agree": [f"if max({tally}.values(), default=0) >= agree:", "    break"],
        "window": [
            "lately = {ep.answer[i] for i in ended[-window:]}",
            "if len(ended) >= window and len(lately) == 1 and -1 not in lately:",
            "    break",
        ],
        "stable": [
            "since = since + 1 if leader == before else 0",
            "if len(ended) >= quorum and since >= steady:",
            "    break",
        ],
        "safe": [
            f"first, second, *_ = *sorted({tally}.values(), reverse=True), 0, 0",
            f"if first - second > doubt * {outstanding}:",
            "    break",
        ],
    }[kind]


def _pruning(recipe: Recipe) -> list[str]:
    if recipe["pruning"] == "tail":
        return [
            "if len(ended) > 1:",
            "    limit = tail * median(ep.depth[i] for i in ended)",
            "    ep.prune([i for i in live if ep.depth[i] > limit])",
            "    live = [i for i in live if ep.depth[i] <= limit]",
        ]
    if recipe["pruning"] == "astray":
        return [
            "if votes:",
            "    for i in live:",
            "        astray[i] = astray[i] + 1 if ep.answer[i] != leader else 0",
            "    ep.prune([i for i in live if astray[i] >= patience])",
            "    live = [i for i in live if astray[i] < patience]",
        ]
    return []


def _going_on(recipe: Recipe, ask: bool) -> list[str]:
    far = "stride"
    before = []
    if recipe["depth"] == "favour":
        before = ["far = [stride * favour if ep.answer[i] == leader else stride for i in live]"]
        far = "far"
    extend = f"ep.extend(live, {far}, probe={ask})"
    widening = recipe["widening"]
    if recipe["depth"] == "finish":
        return ["live = await ep.branch(min(burst, width - len(ep.done)), probe=False)"]
    if widening == "fixed":
        return [*before, f"await {extend}"]
    if widening == "bursts":
        fresh = f"await ep.branch(min(burst, width - len(ep.done)), probe={ask})"
        return [
            "if live:",
            *("    " + line for line in before),
            f"    await {extend}",
            "else:",
            f"    live = {fresh}",
        ]
    more = "widen" if widening == "steady" else "start - len(live)"
    return [
        *before,
        f"more = min({more}, width - len(ep.done))",
        f"_, fresh = await ep.together({extend}, ep.branch(more, probe={ask}))",
        "live += fresh",
    ]
