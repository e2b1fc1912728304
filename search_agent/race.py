"""The race: a few seeds first, all of them only for those that may yet be among the best.

A program runs up to four laps: the feedback problems on a quarter of the seeds, on all of them, then the same
on the selection problems. After each it is dropped if it is most likely worse than the last of the leaders:
those that would be finalists if the search ended now. Most likely: with 90% confidence in the paired
difference, by a bootstrap over problems. All programs meet the same problems and seeds, hence the same
branches.

The first lap is also the probe set of the novelty check: who does there, episode by episode, what another
program did is a duplicate of it and is not measured any further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.pareto import would_hold
from search_agent.scoring import behaviour, gain, score

if TYPE_CHECKING:
    import polars as pl

    from env.evaluate import Episodes
    from env.program import Program

FEEDBACK, SELECTION = "feedback", "selection"
# So many programs are measured again in the end; to be among them is what the race is about.
LEADERS = 4
# How sure it must be that a program is not among them: in standard errors of the difference.
SURE = NormalDist().inv_cdf(0.9)
# One seed in so many is for the first lap.
FIRST_LAP = 4
# Isolation levels that need no caveat: in-process for what we wrote ourselves, and all layers.
HELD = ("", "A")


class Measured(NamedTuple):
    """What `Run.add` takes, but for the source."""

    record: dict[str, Any]
    feedback: pl.DataFrame
    selection: pl.DataFrame | None


def outcome(status: str, error: str = "") -> dict[str, Any]:
    """The part of a record that says what became of a proposal, before any figures."""
    return {
        "status": status,
        "error": error,
        FEEDBACK: None,
        SELECTION: None,
        "monotone": None,
        "race": None,
        "behaviour": None,
    }


def leaders(run: Run) -> list[dict[str, Any]]:
    """The rounds that would be finalists if the search ended now, best first."""
    fit = [record for record in run.rounds() if record["status"] == "evaluated" and record["monotone"]]
    return sorted(fit, key=lambda record: -record["selection"]["hypervolume"])[:LEADERS]


class Race:
    """Measures programs of a run.

    Args:
        run: the archive that they compete with.
        arena: where they are played.
        dropping: False = every program plays everything, whatever it does.
    """

    def __init__(self, run: Run, arena: Arena, *, dropping: bool = True) -> None:
        self.run, self.arena, self.dropping = run, arena, dropping
        self._first = {part: seeds[: -(-len(seeds) // FIRST_LAP)] for part, seeds in self._seeds().items()}

    def measure(self, program: Program, record: Mapping[str, Any]) -> Measured:
        """Play a program for as long as it is in the race.

        The record gets `status` ("evaluated", "dropped", "duplicate"), `error` (why not the first), `race`
        (the last comparison: part, seeds, rival, gain with its 95% interval, standard error; None = there was
        nobody to compare with), and the figures of whatever it played.
        """
        played: dict[str, Episodes] = {}
        ended = outcome("evaluated")
        laps = self._laps()
        for part, seeds in laps:
            played[part] = _joined(played.get(part), self._play(part, program, seeds))
            last = (part, seeds) == laps[-1]
            if self.dropping and not last and (out := self._out(part, played[part].frame)):
                ended = out
                break
        else:
            ended["race"] = self._against(played[SELECTION].frame, SELECTION, leaders(self.run)[:1])
        return self._measured(record | ended, played)

    def measure_baseline(self, program: Program) -> Measured:
        """Play a published controller whole, on the selection problems with the seeds of the end."""
        played = {
            FEEDBACK: self._play(FEEDBACK, program, self.arena.feedback_seeds),
            SELECTION: self._play(SELECTION, program, range(self.arena.final_seeds)),
        }
        return self._measured({"name": program.name, "stamps": [], **outcome("evaluated")}, played)

    def _seeds(self) -> dict[str, range]:
        return {FEEDBACK: self.arena.feedback_seeds, SELECTION: range(self.arena.seeds)}

    def _laps(self) -> list[tuple[str, range]]:
        laps = []
        for part, seeds in self._seeds().items():
            first = len(self._first[part]) if self.dropping else len(seeds)
            laps += [(part, seeds[:first]), (part, seeds[first:])]
        return [(part, seeds) for part, seeds in laps if seeds]

    def _play(self, part: str, program: Program, seeds: range) -> Episodes:
        play = self.arena.feedback if part == FEEDBACK else self.arena.selection
        return play([program], seeds)

    def _out(self, part: str, frame: pl.DataFrame) -> dict[str, Any] | None:
        """Why a program is out of the race after a lap, as a part of its record; None = it is not."""
        seeds = frame["seed"].n_unique()
        first = seeds == len(self._first[part])
        if part == FEEDBACK and first and (twin := self._twin(self._behaviour(frame))):
            return outcome(
                "duplicate", f"does what {twin} does, in all {len(frame)} episodes of the first lap"
            )
        race = self._against(frame, part, leaders(self.run)[LEADERS - 1 :])
        if race is None or race["gain"][0] + SURE * race["error"] >= 0:
            return None
        if part == FEEDBACK and first and would_hold(score(frame, self.arena.references), self.run.rounds()):
            return None
        return outcome(
            "dropped", f"most likely not among the best, after {seeds} seeds of the {part} problems"
        ) | {"race": race}

    def _against(self, frame: pl.DataFrame, part: str, rivals: list[dict[str, Any]]) -> dict[str, Any] | None:
        for rival in rivals:
            theirs = self.run.episodes(rival["round"], part)
            assert theirs is not None
            if more := gain(frame, theirs, self.arena.references):
                low, high = more.interval or (more.value, more.value)
                seeds = frame["seed"].n_unique()
                return {
                    "part": part,
                    "seeds": seeds,
                    "rival": rival["round"],
                    "gain": [more.value, low, high],
                    "error": more.error,
                }
        return None

    def _behaviour(self, frame: pl.DataFrame) -> str:
        return behaviour(frame.filter(frame["seed"].is_in(list(self._first[FEEDBACK]))))

    def _twin(self, behaviour: str) -> str | None:
        earlier = [*self.run.baselines(), *self.run.rounds()]
        return next((each["name"] for each in earlier if each.get("behaviour") == behaviour), None)

    def _measured(self, record: Mapping[str, Any], played: Mapping[str, Episodes]) -> Measured:
        figures = {
            part: score(each.frame, self.arena.references, each.schedules) for part, each in played.items()
        }
        frames = {part: each.frame for part, each in played.items()}
        weak = {level for frame in frames.values() for level in frame["level"].unique()} - set(HELD)
        whole = {
            **record,
            **figures,
            "monotone": all(each["monotone"] for each in figures.values()),
            "behaviour": self._behaviour(frames[FEEDBACK]),
            "stamps": [*record["stamps"], *(f"isolation level {level}" for level in sorted(weak))],
        }
        return Measured(whole, frames[FEEDBACK], frames.get(SELECTION))


def _joined(before: Episodes | None, lap: Episodes) -> Episodes:
    import polars as pl

    if before is None:
        return lap
    return replace(lap, frame=pl.concat([before.frame, lap.frame]))
