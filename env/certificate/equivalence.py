"""Is a live figure within a margin of the replayed one, beyond it, or can these problems not tell?

Both are paired by problem, and the problem is the unit. "Holds" is an equivalence test: two one-sided tests
at 5% (Schuirmann 1987), that is, the 90% interval of the difference lies within the margin. All figures of a
certificate must hold, which needs no correction. "Fails" is that an interval lies wholly beyond the margin,
so wide that among all tests of a certificate one in a hundred would do so if nothing differed.

Intervals are Student's, from the spread of differences over problems. To differences of accuracy half a
problem is added that was lost and half a one that was won, and one that stayed, as Agresti and Min do
(Biometrics 2005): a change may sit in a few problems, and problems that all agree are no proof that others
would, however many episodes each of them had.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from env.statistics import MIN_PROBLEMS, POWER, Floats

# Of each one-sided test of "holds".
EQUIVALENCE = 0.05
# That a certificate says "fails" if nothing differs, all its tests together.
FALSE_ALARM = 0.01

TINY = 1e-9

Bools = NDArray[np.bool_]


class Verdict(StrEnum):
    """What a certificate says."""

    HOLDS = "holds"
    """Live is what replay said, to within the margins."""
    FAILS = "fails"
    """Live is something else."""
    UNDECIDED = "undecided"
    """These problems and episodes cannot tell."""

    @classmethod
    def of(cls, parts: "Sequence[Verdict]") -> "Verdict":
        """Of several: one that fails is enough, and all must hold."""
        if cls.FAILS in parts:
            return cls.FAILS
        return cls.HOLDS if parts and all(part is cls.HOLDS for part in parts) else cls.UNDECIDED


class Margin(NamedTuple):
    """How far a figure may be off.

    Attributes:
        size: for a share the difference (0..1), for a ratio how much more than 1 it may be, or 1 over it.
        ratio: which of the two.
    """

    size: float
    ratio: bool

    @property
    def reach(self) -> float:
        """The same on the scale of `gap`."""
        return math.log1p(self.size) if self.ratio else self.size


class Gap(NamedTuple):
    """Live minus replay, a share or a logarithm, its standard error and the problems behind it."""

    value: Floats
    error: Floats
    problems: int

    def within(self, margin: Margin) -> Bools:
        """Whether it is equivalent to none."""
        enough = self.problems >= MIN_PROBLEMS
        return enough & (
            np.abs(self.value) + student(1 - EQUIVALENCE, self.problems - 1) * self.error < margin.reach
        )

    def beyond(self, margin: Margin, tests: int) -> Bools:
        """Whether it is surely more than the margin, among so many tests."""
        enough = self.problems >= MIN_PROBLEMS
        reach = student(1 - FALSE_ALARM / tests / 2, self.problems - 1)
        return enough & (np.abs(self.value) - reach * self.error > margin.reach)


def gap(live: Floats, replay: Floats, ratio: bool) -> Gap:
    """What lies between means over problems.

    Args:
        live: float64[..., P].
        replay: likewise, of the same problems.
        ratio: whether it is the logarithm of their ratio, for figures above 0, or their difference, for
            shares.
    """
    problems = live.shape[-1]
    if ratio:
        # What never happens on either side is the same on both.
        means = np.maximum(live.mean(-1), TINY), np.maximum(replay.mean(-1), TINY)
        # Of a ratio of means, to first order.
        spread = live / means[0][..., None] - replay / means[1][..., None]
        error = spread.std(-1, ddof=1) / math.sqrt(problems) if problems > 1 else np.zeros(means[0].shape)
        return Gap(np.log(means[0] / means[1]), error, problems)
    differences, more = live - replay, problems + 2
    value = differences.sum(-1) / more
    error = np.sqrt(((differences**2).sum(-1) + 1) / more - value**2) / math.sqrt(more)
    return Gap(value, error, problems)


@dataclass(frozen=True)
class Finding:
    """A figure, live against replay.

    Attributes:
        name: of the figure.
        live, replay: its means over problems.
        gap: between them.
        margin: how far it may be off.
        tests: how many a certificate makes in all.
    """

    name: str
    live: float
    replay: float
    gap: Gap
    margin: Margin
    tests: int

    @classmethod
    def of(cls, name: str, live: Floats, replay: Floats, margin: Margin, tests: int) -> "Finding":
        """From a figure of each problem, float64[P] each."""
        found = gap(live, replay, margin.ratio)
        return cls(name, float(live.mean()), float(replay.mean()), found, margin, tests)

    @property
    def verdict(self) -> Verdict:
        """What these problems say."""
        if bool(self.gap.within(self.margin)):
            return Verdict.HOLDS
        return Verdict.FAILS if bool(self.gap.beyond(self.margin, self.tests)) else Verdict.UNDECIDED

    @property
    def interval(self) -> tuple[float, float] | None:
        """90%, of the difference or of the ratio; None of a single problem."""
        if self.gap.problems < 2:
            return None
        reach = student(1 - EQUIVALENCE, self.gap.problems - 1) * float(self.gap.error)
        ends = float(self.gap.value) - reach, float(self.gap.value) + reach
        return (math.exp(ends[0]), math.exp(ends[1])) if self.margin.ratio else ends

    @property
    def needed(self) -> int | None:
        """About how many problems like these would decide it 4 times in 5; None where it is decided."""
        if self.verdict is not Verdict.UNDECIDED:
            return None
        off = abs(float(self.gap.value)) - self.margin.reach
        level = FALSE_ALARM / self.tests / 2 if off > 0 else EQUIVALENCE
        quantile = NormalDist().inv_cdf(1 - level) + NormalDist().inv_cdf(POWER)
        if off == 0:
            return None
        problems = self.gap.problems * (quantile * float(self.gap.error) / off) ** 2
        return max(math.ceil(problems), self.gap.problems + 1, MIN_PROBLEMS)

    @property
    def detectable(self) -> float:
        """The smallest difference, or ratio less 1, that would be said to fail 4 times in 5."""
        level = 1 - FALSE_ALARM / self.tests / 2
        reach = student(level, max(1, self.gap.problems - 1)) + NormalDist().inv_cdf(POWER)
        far = self.margin.reach + reach * float(self.gap.error)
        return math.expm1(far) if self.margin.ratio else far

    def __str__(self) -> str:
        """In words: the two figures, the gap with its interval, and the margin."""
        ends = self.interval
        if self.margin.ratio:
            told = (
                f"{self.live:,.1f} live, {self.replay:,.1f} replayed: × {math.exp(float(self.gap.value)):.3f}"
            )
            within = f"margin ×/÷ {1 + self.margin.size:g}"
            return f"{self.name}: {told}{f' [{ends[0]:.3f}, {ends[1]:.3f}]' if ends else ''}, {within}"
        told = f"{self.live:.1%} live, {self.replay:.1%} replayed: {100 * float(self.gap.value):+.1f} points"
        inner = f" [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]" if ends else ""
        return f"{self.name}: {told}{inner}, margin ± {100 * self.margin.size:g}"

    def as_dict(self) -> dict[str, Any]:
        """In plain values."""
        value = float(self.gap.value)
        return {
            "figure": self.name,
            "verdict": str(self.verdict),
            "live": self.live,
            "replay": self.replay,
            "ratio" if self.margin.ratio else "difference": math.exp(value) if self.margin.ratio else value,
            "interval": self.interval,
            "margin": self.margin.size,
            "problems": self.gap.problems,
            "problems_needed": self.needed,
            "detectable": self.detectable,
        }


def student(level: float, degrees: int) -> float:
    """A quantile of Student's distribution above the median (Abramowitz and Stegun 26.7.5; within 2%)."""
    z = NormalDist().inv_cdf(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / max(1, degrees) ** power for power, term in enumerate(terms, 1))
