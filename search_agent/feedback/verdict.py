"""Whether a hypothesis held: each claim against the paired episodes of a program and its parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search_agent.feedback.hypothesis import DOWN, HOLDS, HYPERVOLUME, RELATIVE, Claim, Hypothesis
from search_agent.pareto import area, measured

if TYPE_CHECKING:
    import polars as pl

    from env.frontier import Reference
    from env.statistics import Estimate
    from search_agent.archive import Run
    from search_agent.arena import Arena

Record = Mapping[str, Any]
HELD, FAILED, OPEN = "held", "did not hold", "cannot tell"
PAIR = ("store", "problem", "beta", "seed")


def judge(
    hypothesis: Hypothesis,
    ours: pl.DataFrame,
    theirs: pl.DataFrame,
    references: Mapping[str, Reference],
    names: Mapping[str, str],
) -> dict[str, Any]:
    """Judge every claim on the episodes that both have played: same store, problem, beta and seed.

    The problem is the unit: the 95% interval of the change is that of a paired bootstrap over problems. For
    a claim about named problems, which are no sample of others, it is one over seeds. A claim held where the
    whole interval is as claimed, it did not hold where nothing of it is; else, and with fewer than
    `env.statistics.MIN_PROBLEMS` units (in play, where it is about accuracy), the data cannot tell.

    Args:
        ours, theirs: episodes of the program and of its parent, on the whole grid of betas.
        references: by store, see `env.frontier.hypervolumes`.
        names: what the aliases in the hypothesis stand for: paths of stores, question hashes.

    Returns:
        Ready for JSON: `outcome` ("held" where all claims held, "did not hold" where one did not, else
        "cannot tell") and `claims`, of each: `claim` (its text), `outcome`, `before`, `after` (means over
        problems, then stores and betas, these of tokens geometric), `change` (a share of the parent's
        tokens, else a difference), `interval` of it, `units` and `of` ("problems" or "seeds"). Figures are
        None where no episode is common to both.
    """
    import polars as pl

    common = ours.select(PAIR).join(theirs.select(PAIR), on=PAIR, how="semi")
    frame = pl.concat(
        [
            side.join(common, on=PAIR, how="semi").with_columns(controller=pl.lit(label))
            for side, label in ((ours, "ours"), (theirs, "theirs"))
        ],
        how="diagonal",
    )
    claims = [_claim(claim, frame, references, names) for claim in hypothesis.claims]
    outcomes = {each["outcome"] for each in claims}
    outcome = FAILED if FAILED in outcomes else HELD if outcomes == {HELD} else OPEN
    return {"outcome": outcome, "claims": claims}


def rival(record: Record, rounds: Sequence[Record], baselines: Sequence[Record]) -> Record | None:
    """What a round is held against: its parent; for a fresh start the best that its proposer knew.

    Args:
        rounds: records of the search, in any order; those after `record["seen"]` are not looked at.
        baselines: records of the published controllers.
    """
    known = [other for other in rounds if other["feedback"] and other["round"] <= record["seen"]]
    if record["parent"]:
        return next((other for other in known if other["round"] == record["parent"]), None)
    # Not by status: who was dropped on the selection problems is for no proposer to know.
    return max(measured([*baselines, *known]), key=area, default=None)


def verdict_on(record: Record, frame: pl.DataFrame, run: Run, arena: Arena) -> dict[str, Any] | None:
    """What became of the hypothesis of a round that was just measured; None where it states none.

    Args:
        record: with `seen`, `parent` and `hypothesis` (`Hypothesis.record`, or None).
        frame: its episodes on the feedback problems.

    Returns:
        As `judge`, with `against`: the name of the round or the published controller it was held against.
        Against nothing (no program was there before it, or the parent was not measured) nobody can tell.
    """
    if not record.get("hypothesis"):
        return None
    other = rival(record, run.rounds(), run.baselines())
    theirs = run.episodes(other.get("round") or other["name"], "feedback") if other else None
    if other is None or theirs is None:
        return {"outcome": OPEN, "claims": [], "against": None}
    hypothesis = Hypothesis.of(record["hypothesis"])
    judged = judge(hypothesis, frame, theirs, arena.references, aliases(arena))
    return judged | {"against": other["name"]}


def aliases(arena: Arena) -> dict[str, str]:
    """What proposers call stores (s1, s2, ...) and feedback problems (p01, p02, ...), and what that means."""
    stores = {f"s{k}": str(store.path) for k, store in enumerate(arena.stores, 1)}
    return stores | {f"p{k:02d}": problem for k, problem in enumerate(arena.splits.feedback, 1)}


def _claim(
    claim: Claim, frame: pl.DataFrame, references: Mapping[str, Reference], names: Mapping[str, str]
) -> dict[str, Any]:
    import polars as pl

    from env.statistics import MIN_PROBLEMS

    meant = {names[name] for name in claim.on if name in names}
    stores, problems = (meant & set(frame[column].unique()) for column in ("store", "problem"))
    if claim.betas:
        frame = frame.filter(pl.col("beta").is_in(claim.betas))
    if stores:
        frame = frame.filter(pl.col("store").is_in(stores))
    of = "problems"
    if problems:
        of, frame = (
            "seeds",
            frame.filter(pl.col("problem").is_in(problems)).with_columns(
                problem=pl.col("seed").cast(pl.String)
            ),
        )
    told: dict[str, Any] = {"claim": str(claim), "outcome": OPEN, "before": None, "after": None}
    told |= {"change": None, "interval": None, "units": 0, "of": of}
    # What is named and was not played leaves nothing to judge by.
    if frame.is_empty() or len(stores) + len(problems) < len(claim.on):
        return told
    measured = _area(frame, references) if claim.figure == HYPERVOLUME else _means(claim.figure, frame)
    if measured is None:
        return told
    change, before, after, units, decisive = measured
    told |= {"before": round(before, 6), "after": round(after, 6), "change": round(change.value, 6)}
    told["units"] = units
    if change.interval is not None:
        told["interval"] = [round(end, 6) for end in change.interval]
        if decisive >= MIN_PROBLEMS:
            told["outcome"] = _outcome(claim, *change.interval)
    return told


def _means(figure: str, frame: pl.DataFrame) -> tuple[Estimate, float, float, int, int] | None:
    """Change, means before and after, units, and the units that could decide."""
    import math

    import numpy as np

    from env.frontier import Points
    from env.statistics import Estimate, Panel

    panel = Panel.of(frame)
    points = Points.of(panel, np.random.default_rng(0))
    # Tokens are logarithms here, so that a difference is a ratio.
    samples = {"accuracy": points.accuracy, "tokens": points.tokens, "sequential": points.sequential}[figure]
    mine, parents = (
        samples[:, [k for k, point in enumerate(points.points) if point.controller == label]]
        for label in ("ours", "theirs")
    )
    if not mine.shape[1] or mine.shape != parents.shape:
        return None
    after, before = mine.mean(axis=1), parents.mean(axis=1)
    units = len(panel.problems)
    if figure not in RELATIVE:
        change = Estimate.of(after - before, units)
        return change, float(before[0]), float(after[0]), units, int(panel.in_play().any(axis=1).sum())
    change = Estimate.of(np.expm1(after - before), units)
    return change, math.exp(before[0]), math.exp(after[0]), units, units


def _area(
    frame: pl.DataFrame, references: Mapping[str, Reference]
) -> tuple[Estimate, float, float, int, int] | None:
    from env.frontier import hypervolumes

    areas = {area.controller: area for area in hypervolumes(frame, references)}
    if len(areas) < 2:
        return None
    ours, theirs = areas["ours"], areas["theirs"]
    change = ours.minus(theirs)
    return change, theirs.estimate.value, ours.estimate.value, ours.problems, ours.problems


def _outcome(claim: Claim, low: float, high: float) -> str:
    """Whether all or nothing of the interval is as claimed."""
    worse_is_up = claim.figure in RELATIVE
    least = -claim.by if claim.direction == HOLDS else claim.by
    if claim.direction == DOWN or (claim.direction == HOLDS and worse_is_up):
        low, high = -high, -low
    if low >= least:
        return HELD
    return FAILED if high < least else OPEN
