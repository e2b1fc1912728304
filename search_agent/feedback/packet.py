"""What an evaluated round teaches, as a text of bounded size: the most useful first, the same every time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search_agent.feedback.change import changes, summed
from search_agent.feedback.hindsight import LOSSES, WASTES
from search_agent.feedback.hypothesis import RELATIVE
from search_agent.feedback.telling import telling
from search_agent.feedback.verdict import rival
from search_agent.proposers import timeline
from search_agent.proposers.text import clean, fit

if TYPE_CHECKING:
    import polars as pl

    from env.statistics import Estimate
    from search_agent.workbench import Workbench

Record = Mapping[str, Any]
MAX_PACKET = 12_000  # characters
MAX_TIMELINE = 1_500
CELLS = 10  # changes that are told one by one
MEANING = {
    "unanswered": "it failed, or gave no answer",
    "outvoted": "a branch voted for the right answer, another was given",
    "pruned": "a pruned branch had the right answer, or would have come to it",
    "early": "it stopped too early: an open branch would have come to it",
    "drifted": "a branch showed it and went on to another answer",
    "unsampled": "only branches that were never opened come to it",
    "hopeless": "on problems where no branch within reach ends right",
    "unheard": "on branches that showed no answer (any more)",
    "settled": "for answers that came after the vote had settled for good",
    "confirming": "between the cheapest stopping point and that",
}


def latest(history: Sequence[Record]) -> Record | None:
    """The last round that has figures of its own, if any."""
    own = [record for record in history if record["feedback"] and record["status"] != "duplicate"]
    return own[-1] if own else None


def packet(bench: Workbench, round: int | None = None, limit: int = MAX_PACKET) -> str:
    """What a round teaches (None = the latest with figures), in at most about `limit` characters.

    "" where nothing has been evaluated yet.

    Raises:
        LookupError: there is no such round, or it was not evaluated.
    """
    return fit(sections(bench, round), limit)


def sections(bench: Workbench, round: int | None = None) -> Iterator[tuple[str, str]]:
    """The parts of `packet`, title and body, most useful first; each is made when it is asked for.

    What comes from action logs is left out where a run does without traces.

    Raises:
        LookupError: there is no such round, or it was not evaluated.
    """
    history, baselines = bench.history(), bench.baselines()
    if round is None:
        record = latest(history)
        if record is None:
            return
    else:
        bench.episodes(round)
        record = next(record for record in history if record["round"] == round)
    number = record["round"]
    other = rival(record, history, baselines)
    yield f"Feedback on {record['name']}", _hypothesis(record)
    yield (
        "Against the best so far, the parent and the shipped controllers",
        _frontiers(bench, record, other, history, baselines),
    )
    pairs = changes(bench.episodes(number), bench.episodes(_entry(other))) if other else None
    logged = "traces" not in bench.ablated
    if logged:
        past = bench.hindsight(number)
        before = bench.hindsight(other["round"]) if other and other.get("round") else None
        yield f"Where accuracy was lost ({len(past)} episodes)", losses(past, before, other)
        yield f"Where tokens went ({len(past)} episodes, means)", wastes(past, before, other)
    if other and pairs is not None and len(pairs):
        yield f"What the change did, against {other['name']}", _change(pairs)
    for why, where, told in telling(past, pairs) if logged else ():
        log = timeline.text(bench.traces(number, **where), MAX_TIMELINE)
        place = " ".join(f"{key}={value}" for key, value in where.items())
        yield f"Episode: {why} ({place})", f"{told}\n{log}"


def _entry(record: Record) -> int | str:
    return record.get("round") or record["name"]


def _hypothesis(record: Record) -> str:
    stated, verdict = record.get("hypothesis"), record.get("verdict")
    if not stated or not verdict:
        return "It stated no hypothesis, so nothing was learnt about why it does what it does. State one."
    against = verdict["against"]
    lines = [
        f"Hypothesis: {clean(stated['text'], 800)}",
        f"Verdict: {verdict['outcome']}{f', against {against}' if against else ': nothing to compare with'}",
    ]
    if not stated["claims"]:
        lines.append("It is not in the form that can be checked.")
    for claim in verdict["claims"]:
        line = f"- {claim['claim']}: {claim['outcome']}"
        if claim["change"] is not None:
            relative = claim["claim"].split()[0] in RELATIVE
            show = _percent if relative else _signed
            values = [
                _count(value) if relative else f"{value:.3f}" for value in (claim["before"], claim["after"])
            ]
            interval = claim["interval"]
            span = f" [{show(interval[0])}, {show(interval[1])}]" if interval else ""
            line += f" ({' -> '.join(values)}: {show(claim['change'])}{span}, {claim['units']} {claim['of']})"
        lines.append(line)
    return "\n".join(lines)


def _frontiers(
    bench: Workbench,
    record: Record,
    other: Record | None,
    history: Sequence[Record],
    baselines: Sequence[Record],
) -> str:
    from env.comparison import ComparisonError, compare

    ours = bench.episodes(record["round"])
    measured = [each for each in history if each["status"] == "evaluated" and each["round"] < record["round"]]
    measured.sort(key=_area, reverse=True)
    chosen = {each["name"]: f"best before it, {each['name']}" for each in measured[:1]}
    if other and record["parent"]:
        chosen.setdefault(other["name"], f"parent, {other['name']}")
    chosen |= {each["name"]: each["name"] for each in sorted(baselines, key=_area, reverse=True)}
    records = {each["name"]: each for each in [*history, *baselines]}
    lines = [
        f"Hypervolume {_area(record):.4f}. Accuracy at equal tokens; tokens, and sequential tokens, at equal "
        "accuracy (1 = the same); 95% intervals over problems:"
    ]
    for name, title in chosen.items():
        # Those of a program that was dropped early are few: only there did both meet the same branches.
        theirs = bench.episodes(_entry(records[name])).join(
            ours.select("seed").unique(), on="seed", how="semi"
        )
        try:
            found = compare(ours, theirs)
        except ComparisonError:
            continue
        lines.append(
            f"- {title} (hypervolume {_area(records[name]):.4f}): accuracy {_with(found.accuracy, _signed)}; "
            f"tokens x {_with(found.tokens, _ratio)}; sequential x {_with(found.sequential, _ratio)}. "
            f"Accuracy: {found.at_equal_cost().verdict}, tokens: {found.at_equal_accuracy().verdict}."
        )
    return "\n".join(lines)


def losses(past: pl.DataFrame, before: pl.DataFrame | None = None, other: Record | None = None) -> str:
    """Where accuracy was lost, by hindsight on a sample of episodes (under aliases).

    Args:
        past: as `search_agent.feedback.sample` has it.
        before: the same of the program that it is held against, if there is one; `other` is its record.
    """
    lines = [_lost("all", past)]
    if before is not None and other is not None:
        lines.append(_lost(f"all of {other['name']}", before))
    lines += [_lost(f"beta {beta:g}", part) for (beta,), part in _by(past, "beta")]
    found = [name for name in LOSSES if (past["loss"] == name).any()]
    return "\n".join([*lines, *(f"{name} = {MEANING[name]}. Most: {_most(past, name)}" for name in found)])


def _lost(title: str, part: pl.DataFrame) -> str:
    lost = {name: (part["loss"] == name).mean() for name in LOSSES}
    shares = ", ".join(f"{name} {_share(value)}" for name, value in lost.items() if value)
    return (
        f"{title}: right {_share(part['correct'].mean())} of a possible {_share(part['possible'].mean())}; "
        f"lost: {shares or 'nothing'}"
    )


def _most(past: pl.DataFrame, loss: str) -> str:
    import polars as pl

    cells = past.group_by("store", "problem").agg((pl.col("loss") == loss).sum().alias("lost"), pl.len())
    top = (
        cells.sort("lost", "store", "problem", descending=[True, False, False])
        .head(3)
        .filter(pl.col("lost") > 0)
    )
    return ", ".join(f"{store} {problem} ({lost} of {of})" for store, problem, lost, of in top.iter_rows())


def wastes(past: pl.DataFrame, before: pl.DataFrame | None = None, other: Record | None = None) -> str:
    """Where tokens went, see `losses`."""
    lines = [_went("all", past)]
    if before is not None and other is not None:
        lines.append(_went(f"all of {other['name']}", before))
    lines += [_went(f"beta {beta:g}", part) for (beta,), part in _by(past, "beta")]
    found = [name for name in WASTES if past[name].sum()]
    cheapest = "cheapest = what the cheapest stopping point with the same answer needed; the rest is waste:"
    return "\n".join([*lines, cheapest, *(f"{name} = {MEANING[name]}" for name in found)])


def _went(title: str, part: pl.DataFrame) -> str:
    tokens, sequential = (max(1, part[name].sum()) for name in ("tokens", "sequential"))
    shares = {name: part[name].sum() / tokens for name in ("cheapest", *WASTES)}
    told = ", ".join(f"{name} {_share(share)}" for name, share in shares.items() if share)
    return (
        f"{title}: {_count(part['tokens'].mean())} tokens: {told}; {_count(part['sequential'].mean())} "
        f"sequential tokens, {_share(part['late'].sum() / sequential)} of them after it had settled"
    )


def _change(pairs: pl.DataFrame) -> str:
    import polars as pl

    lines = [_cell(row, "all betas") for row in summed(pairs.with_columns(all=pl.lit(0)), "all").to_dicts()]
    betas = summed(pairs, "beta").sort("beta").to_dicts()
    lines += [_cell(row, f"beta {row['beta']:g}") for row in betas]
    cells = summed(pairs, "store", "problem", "beta").head(CELLS).to_dicts()
    lines += [_cell(row, f"{row['store']} {row['problem']} beta {row['beta']:g}") for row in cells]
    return "\n".join(lines)


def _cell(row: Record, title: str) -> str:
    flips = [
        f"{row[kind]} newly {word} (seed {row[f'{kind}_seed']})"
        for kind, word in (("won", "right"), ("lost", "wrong"))
        if row[kind]
    ]
    tokens, sequential = (
        f"{_count(row[f'{name}_before'])} -> {_count(row[name])}" for name in ("tokens", "sequential")
    )
    return (
        f"- {title}: {', '.join(flips) or 'none flipped'}, of {row['episodes']} episodes; "
        f"tokens {tokens}; sequential {sequential}"
    )


def _by(frame: pl.DataFrame, key: str) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    return sorted(frame.group_by(key), key=lambda part: part[0])


def _area(record: Record) -> float:
    return float(record["feedback"]["hypervolume"])


def _with(estimate: Estimate, show: Any) -> str:
    span = estimate.interval
    return show(estimate.value) + (f" [{show(span[0])}, {show(span[1])}]" if span else "")


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:+.0f}%"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"


def _count(value: float) -> str:
    # Three digits: exact counts would name a branch.
    return f"{float(f'{value:.3g}'):,.0f}"
