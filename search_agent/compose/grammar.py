"""The mechanisms that `compose` assembles controllers from, and the constants each one brings along.

A recipe is a plain dict: a mechanism for each slot, and for each constant its value at beta = 0, followed by
that at beta = 1 if beta moves it. No constant falls as beta rises: each of them buys thoroughness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Constant:
    """A number of the schedule: where it may lie, and whether beta moves it.

    It grows geometrically with beta, or linearly where it may be zero.
    """

    name: str
    low: float
    high: float
    ramp: bool = True
    whole: bool = True


@dataclass(frozen=True)
class Mechanism:
    """One way to fill a slot; `says` is its sentence in the docstring of the program."""

    name: str
    says: str
    constants: tuple[Constant, ...] = ()
    probes: bool = False


WIDTH = Constant("width", 1, 64)
START = Constant("start", 1, 32)
STRIDE = Constant("stride", 1, 16, ramp=False)
QUORUM = Constant("quorum", 1, 8)

SLOTS: dict[str, dict[str, Mechanism]] = {
    slot: {mechanism.name: mechanism for mechanism in mechanisms}
    for slot, mechanisms in {
        "widening": (
            Mechanism("fixed", "open `width` branches at once", (WIDTH,)),
            Mechanism(
                "bursts",
                "open `start` branches, and when they have all ended undecided, `burst` more, up to `width`",
                (WIDTH, START, Constant("burst", 1, 16)),
            ),
            Mechanism(
                "steady",
                "open `start` branches, and `widen` more in every undecided round, up to `width`",
                (WIDTH, START, Constant("widen", 1, 4)),
            ),
            Mechanism(
                "refill",
                "keep `start` branches in flight: whenever one ends, open another, up to `width`",
                (WIDTH, START),
            ),
        ),
        "depth": (
            Mechanism("finish", "run what is open to its end"),
            Mechanism("step", "advance all live branches side by side, `stride` segments a round", (STRIDE,)),
            Mechanism(
                "favour",
                "advance live branches `stride` segments a round, `favour` times as far where they agree "
                "with the leader",
                (STRIDE, Constant("favour", 2, 4, ramp=False)),
                probes=True,
            ),
        ),
        "stopping": (
            Mechanism(
                "margin",
                "stop when `quorum` branches have ended and the leader is `margin` standard deviations ahead",
                (QUORUM, Constant("margin", 0.0, 3.0, whole=False)),
            ),
            Mechanism(
                "agree",
                "stop at the first answer to get `agree` votes",
                (Constant("agree", 1, 24, whole=False),),
            ),
            Mechanism(
                "window",
                "stop when the last `window` branches to end gave one answer",
                (Constant("window", 1, 12),),
            ),
            Mechanism(
                "stable",
                "stop when `quorum` branches have ended and the leader has not changed for `steady` rounds",
                (QUORUM, Constant("steady", 1, 24)),
            ),
            Mechanism(
                "safe",
                "stop when the leader would survive a share `doubt` of the outstanding branches against it",
                (Constant("doubt", 0.02, 1.0, whole=False),),
            ),
        ),
        "pruning": (
            Mechanism("keep", "give no branch up"),
            Mechanism(
                "tail",
                "give up branches that run `tail` times as long as the median of those that have ended",
                (Constant("tail", 1.0, 3.0, whole=False),),
            ),
            Mechanism(
                "astray",
                "give up branches that disagreed with the leader at `patience` looks in a row",
                (Constant("patience", 1, 16),),
                probes=True,
            ),
        ),
        "voting": (
            Mechanism("plain", "a vote for each branch that has ended with an answer"),
            Mechanism(
                "early",
                "the earlier a branch ends, the more it weighs (rank r: 1 / (1 + `fade` r))",
                (Constant("fade", 0.02, 1.0, ramp=False, whole=False),),
            ),
            Mechanism(
                "short",
                "short branches weigh more: (shortest / length) to the power of `favour_short`",
                (Constant("favour_short", 0.1, 3.0, ramp=False, whole=False),),
            ),
            Mechanism(
                "latest",
                "branches that have ended weigh 1, the latest answers of live ones `weight`",
                (Constant("weight", 0.05, 1.0, ramp=False, whole=False),),
                probes=True,
            ),
        ),
    }.items()
}

Recipe = dict[str, Any]

# Where the search starts: what a person would try first, with round numbers.
FIRST: tuple[Recipe, ...] = tuple(
    dict(
        zip(("widening", "depth", "stopping", "pruning", "voting"), mechanisms.split(), strict=True), **values
    )
    for mechanisms, values in (
        # A race: everything at once, the first clear lead wins.
        ("fixed step margin keep plain", dict(width=[3, 64], stride=[1], quorum=[1, 2], margin=[0.5, 1.5])),
        # First past the post.
        ("fixed step agree keep plain", dict(width=[4, 64], stride=[1], agree=[1, 8])),
        # The race without its stragglers.
        (
            "fixed step margin tail plain",
            dict(width=[3, 64], stride=[1], quorum=[2, 4], margin=[0.5, 2], tail=[1.2, 2]),
        ),
        # Adaptive consistency: whole solutions, a few at a time.
        (
            "bursts finish margin keep plain",
            dict(width=[2, 64], start=[2, 4], burst=[1, 4], quorum=[2, 4], margin=[0.8, 2]),
        ),
        # A race that is topped up while it is open.
        (
            "refill step margin keep plain",
            dict(width=[3, 64], start=[3, 16], stride=[2], quorum=[1, 3], margin=[0.5, 2]),
        ),
        # Confidence momentum in short: agreeing branches run ahead, those that stay off the track are left.
        (
            "fixed favour margin astray plain",
            dict(width=[3, 32], stride=[4], favour=[2], quorum=[1, 4], margin=[1, 1.5], patience=[2, 8]),
        ),
        (
            "steady favour margin astray plain",
            dict(
                width=[4, 64],
                start=[2, 8],
                widen=[1, 2],
                stride=[4],
                favour=[2],
                quorum=[1, 4],
                margin=[1, 2],
                patience=[2, 8],
            ),
        ),
        # Parallel-Probe: everybody's latest answer counts, and the leader must stay.
        (
            "fixed step stable astray latest",
            dict(width=[3, 32], stride=[4], quorum=[1, 4], steady=[2, 8], patience=[2, 4], weight=[0.3]),
        ),
        # Short solutions are more often right.
        (
            "fixed step margin tail short",
            dict(
                width=[3, 64], stride=[2], quorum=[1, 4], margin=[0.5, 1.5], tail=[1.2, 2], favour_short=[0.5]
            ),
        ),
    )
)
