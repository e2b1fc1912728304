"""The certificate itself: what fresh branches and live episodes say against the store, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from env.certificate.branches import Branches, p_values, permutations_for
from env.certificate.design import FIGURES, OF_BRANCHES, Design, Replayed
from env.certificate.equivalence import EQUIVALENCE, FALSE_ALARM, Finding, Verdict
from env.statistics import Floats

# Beyond this share of episodes whose model failed, those that are left may be others than those replayed.
FAILURES = 0.02

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """What came of the branches, or of one program.

    Attributes:
        name: "branches", or the program's.
        findings: figure by figure.
        chances: of the permutation tests, p-values by name.
        level: below which one fails.
        total: how many episodes there were, `failed` of them for their model, first of all with `failure`.
        errors: episodes that the program did not bring to an answer; `error` is the first one's.
        tokens: that were decoded, probed and scored.
    """

    name: str
    findings: Sequence[Finding]
    chances: Mapping[str, float]
    level: float
    total: int
    failed: int
    failure: str
    errors: int = 0
    error: str = ""
    tokens: int = 0

    @property
    def is_amiss(self) -> bool:
        """Whether the model failed too often for anything to be said."""
        return self.failed > FAILURES * self.total or not self.findings

    @property
    def verdict(self) -> Verdict:
        """Of this part."""
        if self.is_amiss:
            return Verdict.UNDECIDED
        if any(chance <= self.level for chance in self.chances.values()):
            return Verdict.FAILS
        return Verdict.of([finding.verdict for finding in self.findings])

    def reasons(self) -> list[str]:
        """Why it does not hold; empty if it does."""
        if self.is_amiss:
            return [
                f"{self.name}: the model failed in {self.failed} of {self.total} episodes, which decides "
                f"nothing; the same command plays them again: {self.failure}"
            ]
        verdict, reasons = self.verdict, []
        for name, chance in self.chances.items():
            if chance <= self.level:
                reasons.append(
                    f"{self.name}: fresh and stored ones differ in {name}, more than chance would have it "
                    f"(p = {chance:.2g})"
                )
        for finding in self.findings:
            if finding.verdict is Verdict.FAILS:
                reasons.append(f"{self.name}: {finding}, surely beyond it")
            elif finding.verdict is Verdict.UNDECIDED and verdict is Verdict.UNDECIDED:
                reasons.append(f"{self.name}: {finding}, cannot be told{self._more(finding)}")
        return reasons

    def _more(self, finding: Finding) -> str:
        need, have = finding.needed, finding.gap.problems
        if not need:
            return ""
        each = "branches" if self.chances else "episodes"
        return (
            f"; about {need:,} problems like these instead of {have} would decide it, or {-(-need // have)} "
            f"times as many {each} of each"
        )

    def as_dict(self) -> dict[str, Any]:
        """In plain values."""
        tests = {"p_values": dict(self.chances), "p_level": self.level} if self.chances else {}
        return {
            "name": self.name,
            "verdict": str(self.verdict),
            "figures": [finding.as_dict() for finding in self.findings],
            **tests,
            "episodes": self.total,
            "model_failures": self.failed,
            "errors": self.errors,
            "error": self.error,
            "tokens": self.tokens,
        }


def judge_branches(
    design: Design, pairs: Sequence[tuple[Branches, Branches]], rows: Sequence[Row], rng: np.random.Generator
) -> Part:
    """What fresh branches say.

    Args:
        design: of the certificate.
        pairs: fresh and stored branches, of the rows whose model did not fail.
        rows: of `env.certificate.fresh.draw`.
        rng: of the permutations.
    """
    findings = []
    for figure, attribute in OF_BRANCHES.items() if pairs else ():
        fresh, known = (
            _by_problem(rows, [float(getattr(pair[side], attribute).mean()) for pair in pairs])
            for side in (0, 1)
        )
        margin = design.margin(figure)
        findings.append(Finding.of(figure, fresh, known, margin, design.tests))
    level = FALSE_ALARM / design.tests
    failures = [row["error"] for row in rows if row["model_failed"]]
    decoded = sum(int(fresh.tokens.sum()) for fresh, _ in pairs)
    return Part(
        "branches",
        findings,
        p_values(pairs, rng, permutations_for(level)) if pairs else {},
        level,
        len(rows),
        len(failures),
        next(iter(failures), ""),
        tokens=decoded + sum(row["probe_tokens"] for row in rows),
    )


def judge_program(design: Design, name: str, replayed: Replayed, rows: Sequence[Row]) -> Part:
    """What live episodes of a program say, `rows` of `env.live.run`; a problem without any is left out."""
    played: dict[str, list[Row]] = {problem: [] for problem in design.names}
    for row in rows:
        if not row["model_failed"]:
            played[row["problem"]].append(row)
    kept = [place for place, problem in enumerate(design.names) if played[problem]]
    findings = []
    for figure, column in FIGURES.items() if kept else ():
        live = [float(np.mean([row[column] for row in some])) for some in played.values() if some]
        margin = design.margin(figure)
        replay = replayed[figure][kept].mean(1)
        findings.append(Finding.of(figure, np.array(live), replay, margin, design.tests))
    failures = [row["error"] for row in rows if row["model_failed"]]
    errors = [row["error"] for row in rows if row["error"] and not row["model_failed"]]
    return Part(
        name,
        findings,
        {},
        FALSE_ALARM / design.tests,
        len(rows),
        len(failures),
        next(iter(failures), ""),
        len(errors),
        next(iter(errors), ""),
        sum(row["tokens"] for row in rows),
    )


def certificate(design: Design, parts: Sequence[Part], about: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate in plain values.

    Args:
        design: what was to be compared.
        parts: branches first; if they fail, nothing else was played.
        about: what else it says, such as where the model was.
    """
    complete = len(parts) == 1 + len(design.programs)
    verdict = Verdict.of([part.verdict for part in parts])
    if not complete and verdict is Verdict.HOLDS:
        verdict = Verdict.UNDECIDED
    why = [reason for part in parts if part.verdict is verdict for reason in part.reasons()]
    if verdict is Verdict.HOLDS:
        why = [f"all {design.tests} figures lie within their margins, on {len(design.problems)} problems"]
    if verdict is Verdict.FAILS and not complete:
        why.append("no controller was played: replay is of other branches than this model writes")
    if verdict is Verdict.UNDECIDED and not any(part.is_amiss for part in parts):
        why.append("more takes a new run with another --seed: adding to this one would be a second look")
    store = design.store
    return {
        "verdict": str(verdict),
        "why": why,
        "store": {"path": store.path, "sha256": store.sha256, "model": store.model, "dataset": store.dataset},
        **about,
        "controllers": [program.name for program in design.programs],
        "beta": design.beta,
        "problems": len(design.problems),
        "branches_a_problem": design.branches,
        "episodes_a_problem": design.episodes,
        "margins": {"accuracy": design.accuracy, "tokens": design.tokens, "decisions": design.tokens},
        "levels": {"holds": EQUIVALENCE, "fails": FALSE_ALARM, "tests": design.tests},
        "parts": [part.as_dict() for part in parts],
    }


def _by_problem(rows: Sequence[Row], values: Sequence[float]) -> Floats:
    """The mean of each problem over its arms; `values` are of the rows whose model did not fail."""
    found: dict[str, list[float]] = {}
    for row, value in zip((row for row in rows if not row["model_failed"]), values, strict=True):
        found.setdefault(row["problem"], []).append(value)
    return np.array([np.mean(each) for each in found.values()], np.float64)
