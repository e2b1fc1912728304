"""A run as its report shows it: read from the folder once, checked, and put in the order of the story."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from env.drawing.frontiers import Interval, Point
from env.errors import UserError
from search_agent.archive import Run
from search_agent.proposal import Usage


@dataclass(frozen=True)
class Settled(Point):
    """A point, averaged over stores; `settings` is what its schedule said, if known."""

    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Score:
    """A controller's frontier on one part of the problems."""

    name: str
    hypervolume: float
    interval: Interval
    points: tuple[Settled, ...]
    errors: int

    @classmethod
    def of(cls, name: str, figures: Mapping[str, Any]) -> Score:
        """From what `search_agent.scoring.score` made."""
        points = [
            Settled(
                beta=float(point["beta"]),
                accuracy=float(point["accuracy"]),
                accuracy_ci=_interval(point["accuracy_ci"]),
                tokens=float(point["tokens"]),
                tokens_ci=_interval(point["tokens_ci"]),
                sequential_tokens=float(point["sequential_tokens"]),
                settings=point.get("settings"),
            )
            for point in figures["points"]
        ]
        return cls(
            name,
            float(figures["hypervolume"]),
            _interval(figures["hypervolume_ci"]),
            tuple(sorted(points, key=lambda point: point.beta)),
            int(figures["errors"]),
        )


@dataclass(frozen=True)
class Claim:
    """One figure's change against the parent, as a hypothesis has it, and what came of it."""

    text: str
    outcome: str
    change: float | None
    interval: Interval
    units: str


@dataclass(frozen=True)
class Hypothesis:
    """What a proposer expected of its change; `outcome` is the verdict, "" where there is none."""

    text: str
    outcome: str
    against: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Race:
    """The last comparison of a round with another: the gain in hypervolume, on paired episodes."""

    part: str
    seeds: int
    rival: int
    gain: float
    interval: Interval


@dataclass(frozen=True)
class Round:
    """A round: who proposed what from which parent, and what came of it.

    Attributes:
        partner: the other parent, where two programs were crossed.
        isolation: how its program was held, such as "strict, level A"; "" where it was not evaluated.
        shortfall: the largest share, over stores and betas, of the branches it asked for that were not there.
    """

    number: int
    parent: int | None
    partner: int | None
    proposer: str
    summary: str
    hypothesis: Hypothesis | None
    status: str
    error: str
    stamps: tuple[str, ...]
    monotone: bool
    feedback: Score | None
    selection: Score | None
    source: str | None
    isolation: str
    shortfall: float
    race: Race | None

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"round {self.number}"

    @property
    def area(self) -> float | None:
        """Its hypervolume on the selection problems, None where they were not reached."""
        return self.selection.hypervolume if self.selection else None

    @property
    def eligible(self) -> bool:
        """Whether it can win: measured to the end, and its cost rises with beta."""
        return self.status == "evaluated" and self.monotone


@dataclass(frozen=True)
class HoldOut:
    """The one look at the end: winner and baselines, best first, and how often these problems were seen."""

    headline: str
    scores: tuple[Score, ...]
    problems: int
    seeds: int
    looks: Mapping[str, str]


@dataclass(frozen=True)
class View:
    """A whole run.

    Attributes:
        finished: whether finalists were chosen; `winner` is None where none of them was fit to win.
        chosen: figures of the finalists with the seeds of the end, by round.
        crossed: what choosing as the winner was chosen is worth on "problems", and on "models", that have no
            part in the choice; what was not measured is not there.
    """

    path: Path
    config: Mapping[str, Any]
    rounds: tuple[Round, ...]
    baselines: tuple[Score, ...]
    finished: bool
    winner: Round | None
    chosen: Mapping[int, Score]
    crossed: Mapping[str, float]
    holdout: HoldOut | None
    usage: Usage

    @classmethod
    def of(cls, path: Path) -> View:
        """Read a run folder.

        Raises:
            UserError: there is no run, or one of its files is damaged; it is named.
        """
        run = Run.open(path)
        with reading(path / "rounds"):
            rounds = tuple(_round(run, record) for record in run.rounds())
        with reading(path / "baselines"):
            baselines = tuple(Score.of(record["name"], record["selection"]) for record in run.baselines())
        with reading(path / "finalists.json"):
            finalists = run.read("finalists.json")
            chosen, winner = _chosen(finalists, rounds) if finalists else ({}, None)
            told = (finalists or {}).get("crossed", {})
            crossed = {str(name): float(value) for name, value in told.items() if value is not None}
        with reading(path / "holdout.json"):
            document = run.read("holdout.json")
            holdout = _holdout(document) if document else None
        with reading(path / "usage.jsonl"):
            usage = sum((_usage(call) for call in run.calls()), Usage())
        return cls(
            path, run.config, rounds, baselines, bool(finalists), winner, chosen, crossed, holdout, usage
        )

    @cached_property
    def best(self) -> Round | None:
        """The winner, or while there is none the round that is ahead on the selection problems."""
        eligible = [each for each in self.rounds if each.eligible]
        return self.winner or max(eligible, key=lambda each: each.area or 0.0, default=None)

    @cached_property
    def lineage(self) -> list[int]:
        """The rounds that led to the best one, itself last."""
        known = {each.number: each for each in self.rounds}
        path: list[int] = []
        at = self.best
        while at and at.number not in path:
            path.append(at.number)
            at = known.get(at.parent) if at.parent is not None else None
        return path[::-1]

    @property
    def statuses(self) -> Counter[str]:
        """How many rounds ended how."""
        return Counter(each.status for each in self.rounds)

    @property
    def stamps(self) -> list[str]:
        """The caveats that any round carries."""
        return sorted({stamp for each in self.rounds for stamp in each.stamps})

    def round(self, number: int | None) -> Round | None:
        """The round of that number, if there is one."""
        return next((each for each in self.rounds if each.number == number), None)

    def on_selection(self) -> tuple[Score, ...]:
        """The best round and the baselines, the former with the seeds of the end where it had them."""
        best = self.best
        ours = (self.chosen.get(best.number) or best.selection) if best else None
        return (ours, *self.baselines) if ours else self.baselines


def _round(run: Run, record: Mapping[str, Any]) -> Round:
    number = int(record["round"])
    with reading(run.folder(number)):
        isolation, shortfall = _measured(run, number)
        return Round(
            number=number,
            parent=record["parent"],
            partner=record.get("partner"),
            proposer=str(record["proposer"]),
            summary=str(record["summary"]),
            hypothesis=_hypothesis(record.get("hypothesis"), record.get("verdict")),
            status=str(record["status"]),
            error=str(record["error"]),
            stamps=tuple(map(str, record["stamps"])),
            monotone=bool(record["monotone"]),
            feedback=_score(number, record["feedback"]),
            selection=_score(number, record["selection"]),
            source=run.source(number),
            isolation=isolation,
            shortfall=shortfall,
            race=_race(record.get("race")),
        )


def _race(told: Mapping[str, Any] | None) -> Race | None:
    if not told:
        return None
    gain, *interval = map(float, told["gain"])
    return Race(str(told["part"]), int(told["seeds"]), int(told["rival"]), gain, _interval(interval))


def _hypothesis(stated: Mapping[str, Any] | None, verdict: Mapping[str, Any] | None) -> Hypothesis | None:
    if not stated:
        return None
    told = verdict or {"outcome": "", "against": None, "claims": []}
    claims = [
        Claim(
            text=str(claim["claim"]),
            outcome=str(claim["outcome"]),
            change=claim["change"],
            interval=_interval(claim["interval"]),
            units=f"{claim['units']} {claim['of']}",
        )
        for claim in told["claims"]
    ]
    return Hypothesis(str(stated["text"]), str(told["outcome"]), str(told["against"] or ""), tuple(claims))


def _measured(run: Run, number: int) -> tuple[str, float]:
    import polars as pl

    frame = run.episodes(number, "selection")
    if frame is None or frame.is_empty():
        return "", 0.0
    held = sorted(frame.select("isolation", "level").unique().rows())
    words = (
        f"{isolation}, level {level}" if level else f"{isolation} (trusted code)" for isolation, level in held
    )
    sums = frame.group_by("store", "beta").agg(pl.col("asked", "granted").sum()).filter(pl.col("asked") > 0)
    shares = (1 - sums["granted"] / sums["asked"]).to_list()
    return "; ".join(words), max(shares, default=0.0)


def _score(number: int, figures: Mapping[str, Any] | None) -> Score | None:
    return Score.of(f"round {number}", figures) if figures else None


def _chosen(finalists: Mapping[str, Any], rounds: Sequence[Round]) -> tuple[dict[int, Score], Round | None]:
    chosen = {each["round"]: Score.of(each["name"], each["selection"]) for each in finalists["finalists"]}
    winner = finalists["winner"]
    return chosen, {each.number: each for each in rounds}[winner] if winner is not None else None


def _holdout(document: Mapping[str, Any]) -> HoldOut:
    return HoldOut(
        headline=str(document["headline"]),
        scores=tuple(Score.of(row["controller"], row) for row in document["rows"]),
        problems=int(document["problems"]),
        seeds=int(document["seeds"]),
        looks=dict(document["looks"]),
    )


def _usage(call: Mapping[str, Any]) -> Usage:
    names = [field.name for field in fields(Usage) if field.name != "calls"]
    return Usage(1, **{name: call.get(name, 0) for name in names})


def _interval(pair: Sequence[float] | None) -> Interval:
    return (float(pair[0]), float(pair[1])) if pair else None


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Name the file whose contents turn out not to be what a search writes.

    Raises:
        UserError: they do.
    """
    import polars as pl

    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, pl.exceptions.PolarsError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(
            f"{file} is not as a search writes it ({reason}); restore it from a copy, or start another run"
        ) from error
