"""A hypothesis: what a change is expected to do to which figure, in a form that a machine can check.

    tokens down 20% at beta 0.5, 0.75; accuracy holds within 0.01 because votes settle after eight branches

One to four claims, separated by semicolons. A claim is about `accuracy`, `tokens`, `sequential` (tokens on
the critical path) or `hypervolume`; it says that the figure goes `up` or `down` by at least so much, or
`holds` within so much (gets no worse than that), against the parent. Tokens are told in percent, accuracy as
a share (0.01, 1% and 1 point are the same), hypervolume in its own unit. `at beta ...` and `on ...` (aliases
of stores and problems) narrow a claim; what is not named is averaged over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

ACCURACY, TOKENS, SEQUENTIAL, HYPERVOLUME = FIGURES = ("accuracy", "tokens", "sequential", "hypervolume")
UP, DOWN, HOLDS = "up", "down", "holds"
RELATIVE = (TOKENS, SEQUENTIAL)
MAX_CLAIMS, MAX_WHY = 4, 400
FORM = (
    "<accuracy|tokens|sequential|hypervolume> <up|down|holds within> <amount>[%] [at beta 0.5, 1] "
    "[on s1, p02]; <another claim> because <why>"
)
CLAIM = re.compile(
    r"(accuracy|tokens|sequential|hypervolume)(?:\s+tokens)?\s+(up|down|holds)"
    r"(?:\s+(?:by|within|at\s+least))*\s+(\d+\.?\d*|\.\d+)\s*(%|points?\b)?"
    r"(?:\s+at\s+betas?\s+([\d.,\sand]+?))?"
    r"(?:\s+on\s+([a-z\d,\s]+?))?\s*\.?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Claim:
    """One figure's change against the parent.

    Attributes:
        figure: of `FIGURES`.
        direction: "up" or "down" by at least `by`, or "holds": no worse by more than `by`.
        by: a share of the parent's tokens (0.2 = 20%), else a difference of accuracy or hypervolume.
        betas: those it is about; () = all.
        on: aliases of stores and problems that it is about; () = all.
    """

    figure: str
    direction: str
    by: float
    betas: tuple[float, ...] = ()
    on: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In the form in which it can be read."""
        amount = f"{100 * self.by:g}%" if self.figure in RELATIVE else f"{self.by:g}"
        within = " within" if self.direction == HOLDS else ""
        at = f" at beta {', '.join(f'{beta:g}' for beta in self.betas)}" if self.betas else ""
        on = f" on {', '.join(self.on)}" if self.on else ""
        return f"{self.figure} {self.direction}{within} {amount}{at}{on}"


@dataclass(frozen=True)
class Hypothesis:
    """Claims that must all come true, and in free text why they should.

    Without claims it is free text alone, which a machine cannot check.
    """

    claims: tuple[Claim, ...]
    why: str = ""

    def __str__(self) -> str:
        """In the form in which it can be read."""
        return " because ".join(part for part in ("; ".join(map(str, self.claims)), self.why) if part)

    def record(self) -> dict[str, Any]:
        """Ready for JSON: `text`, `claims` (the attributes of each) and `why`."""
        return {"text": str(self), **asdict(self)}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Hypothesis:
        """The one that `record` was made of, after a way through JSON."""
        claims = (
            Claim(**{**claim, "betas": tuple(claim["betas"]), "on": tuple(claim["on"])})
            for claim in record["claims"]
        )
        return cls(tuple(claims), record["why"])


def read(text: str, betas: Collection[float], names: Collection[str]) -> Hypothesis:
    """Read a hypothesis in the form of this module.

    Args:
        betas: the grid, other betas are not evaluated.
        names: aliases of stores and problems.

    Raises:
        ValueError: it is not in the form; says what is wrong.
    """
    claims, _, why = " ".join(text.split()).partition(" because ")
    parts = [part.strip() for part in claims.split(";") if part.strip()]
    if not 0 < len(parts) <= MAX_CLAIMS:
        raise ValueError(
            f"a hypothesis has 1 to {MAX_CLAIMS} claims, this one {len(parts)}; the form is: {FORM}"
        )
    return Hypothesis(tuple(_claim(part, betas, names) for part in parts), why.strip()[:MAX_WHY])


def read_leniently(text: str, betas: Collection[float], names: Collection[str]) -> Hypothesis | None:
    """As `read`; what is not in the form is free text, and no text is None."""
    try:
        return read(text, betas, names)
    except ValueError:
        return Hypothesis((), text.strip()[:MAX_WHY]) if text.strip() else None


def _claim(text: str, betas: Collection[float], names: Collection[str]) -> Claim:
    found = CLAIM.fullmatch(text)
    if not found:
        raise ValueError(f"cannot read the claim {text[:80]!r}; the form is: {FORM}")
    figure, direction, number, unit, at, on = found.groups()
    figure, unit = figure.lower(), (unit or "").lower()
    if figure in RELATIVE and unit != "%":
        raise ValueError(f"{figure} change by a percentage: write {number}%")
    if figure == HYPERVOLUME and unit:
        raise ValueError(f"hypervolume has a unit of its own: write {number} without {unit!r}")
    claim = Claim(
        figure,
        direction.lower(),
        float(number) / (100 if unit else 1),
        tuple(dict.fromkeys(float(beta) for beta in _words(at))),
        tuple(dict.fromkeys(_words(on))),
    )
    if unknown := [f"{beta:g}" for beta in claim.betas if beta not in betas]:
        raise ValueError(f"no beta {unknown[0]}: there are {', '.join(f'{beta:g}' for beta in betas)}")
    if strange := [name for name in claim.on if name not in names]:
        raise ValueError(f"no store or problem {strange[0]!r}: there are {', '.join(names)}")
    if figure == HYPERVOLUME and (claim.betas or any(name.startswith("p") for name in claim.on)):
        raise ValueError("hypervolume is a figure of all betas and problems: leave both out, or name stores")
    return claim


def _words(text: str | None) -> Sequence[str]:
    return [word for word in re.split(r"[,\s]+", (text or "").lower()) if word not in ("", "and")]
