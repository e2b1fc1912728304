"""What a proposer is told about the state of a search, most useful first and bounded in size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_agent.feedback import packet as feedback
from search_agent.feedback.hypothesis import FORM, read_leniently
from search_agent.proposal import Proposal, Usage
from search_agent.proposers.text import Said, clean, cut, fit, table, within

if TYPE_CHECKING:
    from search_agent.workbench import Workbench

Record = Mapping[str, Any]
TASK = (Path(__file__).parent / "prompt.md").read_text(encoding="utf-8").replace("{FORM}", FORM)
RESULT_COLUMNS = (
    "store",
    "beta",
    "problem",
    "accuracy",
    "tokens",
    "sequential_tokens",
    "rounds",
    "branches",
    "errors",
    "error",
)
DRAWN = "The archive keeps the best at each cost, and draws among them so that not all go one way: build"
MAX_STANDINGS = 12_000  # characters
MAX_RESULTS = 10_000


def hypervolume(record: Record) -> float:
    """Of a round or a baseline on the feedback problems; -inf where it was not evaluated."""
    value = (record.get("feedback") or {}).get("hypervolume")
    return float("-inf") if value is None else float(value)


def standings(bench: Workbench, limit: int = MAX_STANDINGS) -> str:
    """What has been tried, best first: baselines and rounds with their frontiers on the feedback problems."""
    records = sorted([*bench.baselines(), *bench.history()], key=hypervolume, reverse=True)
    stores = "; ".join(f"{alias} = {about}" for alias, about in bench.about_stores.items())
    head = (
        f"Round {bench.round}. Stores: {stores}. Feedback problems: {', '.join(bench.problems)}.\n"
        "Tried so far, best hypervolume on the feedback problems first "
        "(that of each store; beta: accuracy @ tokens / sequential tokens):"
    )
    return cut("\n".join([head, *map(_standing, records)]), limit, "the rest did worse") + _origin(bench)


def _origin(bench: Workbench) -> str:
    """Whom the archive suggests to build on; "" where there is nobody."""
    match bench.parents:
        case [first, second]:
            crossed = f", or cross its mechanism with that of round {second}, which has another ancestor"
            return f"\n\n{DRAWN} on round {first}{crossed}."
        case [first]:
            return f"\n\n{DRAWN} on round {first}."
    return ""


def _standing(record: Record) -> str:
    number = record.get("round")
    who = f"round {number} ({record.get('name', '')})" if number else f"shipped {record.get('name', '')}"
    status = record.get("status", "evaluated")
    ended = "" if status == "evaluated" else f" {status}: {clean(str(record.get('error', '')), 300)}"
    feedback = record.get("feedback")
    if not feedback:
        return f"- {who}:{ended}"
    points = "; ".join(
        f"{at['beta']:g}: {at['accuracy']:.3f} @ {at['tokens']:.0f} / {at['sequential_tokens']:.0f}"
        for at in feedback.get("points", [])
    )
    areas = ", ".join(f"{area:.3f}" for area in feedback.get("hypervolume_by_store", []))
    by_store = f" ({areas})" if areas else ""
    parent = f", from round {record['parent']}" if record.get("parent") else ""
    falling = "" if record.get("monotone", True) else " COST FALLS AS BETA RISES."
    errors = (
        f" {n} episodes failed: {clean(feedback['error'], 200)}." if (n := feedback.get("errors")) else ""
    )
    said = f" {clean(str(record['summary']), 300)}" if record.get("summary") else ""
    area = f"hypervolume {hypervolume(record):.4f}{by_store}"
    return f"- {who}{parent}:{ended and ended + ';'} {area}; {points}.{falling}{errors}{said}"


def results_text(rows: Sequence[Record]) -> str:
    """Figures a problem, failures and problems in play first."""

    def use(row: Record) -> tuple[bool, bool, float]:
        return not row["errors"], not 0 < row["accuracy"] < 1, -row["tokens"]

    text = table(sorted(rows, key=use), RESULT_COLUMNS)
    return cut(text, MAX_RESULTS, "ask for one store or one beta")


def telling_episodes(rows: Sequence[Record], count: int) -> list[dict[str, Any]]:
    """Episodes worth reading: of problems sometimes solved the least accurate, one a problem and store."""
    chosen: dict[tuple[str, str], Record] = {}
    for row in sorted(rows, key=lambda row: (not 0 < row["accuracy"] < 1, row["accuracy"], -row["tokens"])):
        chosen.setdefault((row["store"], row["problem"]), row)
    return [{key: row[key] for key in ("store", "problem", "beta")} for row in list(chosen.values())[:count]]


def packet(bench: Workbench, limit: int) -> str:
    """Everything in one text, at most about `limit` characters: whole sections, the most useful first."""
    return fit(_sections(bench, limit), limit)


def opening(bench: Workbench, limit: int) -> str:
    """What an agent with tools is told before it looks for itself: standings, and the latest feedback."""
    return fit(_told_first(bench, limit), limit)


def _told_first(bench: Workbench, limit: int) -> Iterator[tuple[str, str]]:
    yield "Standings", standings(bench, min(limit, MAX_STANDINGS))
    yield from within(feedback.sections(bench), min(limit, feedback.MAX_PACKET))


def _sections(bench: Workbench, limit: int) -> Iterator[tuple[str, str]]:
    yield from _told_first(bench, limit)
    evaluated = [record for record in bench.history() if record.get("status") == "evaluated"]
    best = sorted(evaluated, key=hypervolume, reverse=True)[:2]
    for record in best:
        yield f"Program of round {record['round']}", fenced(bench.read_controller(record["round"]))
    shipped = sorted(bench.baselines(), key=hypervolume, reverse=True)
    names = [record["name"] for record in shipped if record["name"] in bench.examples]
    names += [name for name in bench.examples if name not in names]
    for name in names[:2]:
        yield f"Shipped controller {name}", fenced(bench.examples[name])
    for record in best[:1]:
        rows = bench.results(record["round"])
        yield f"Round {record['round']} on the feedback problems", results_text(rows)


def proposal(source: str, said: Said, bench: Workbench, usage: Usage) -> Proposal:
    """A proposal; a hypothesis that is not in the form is kept as free text."""
    stated = read_leniently(said.hypothesis, bench.betas, [*bench.stores, *bench.problems])
    return Proposal(source, said.summary, said.parent, usage, partner=said.partner, hypothesis=stated)


def fenced(source: str) -> str:
    """A program as a Markdown code block."""
    return f"```python\n{source.rstrip()}\n```"
