"""The search: propose, check, smoke-test, evaluate, archive, and again; then choose a winner."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from env.errors import UserError
from env.program import Program, ProgramError, check
from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.finale import choose, look_at_holdout
from search_agent.proposal import Proposer, ProposerError
from search_agent.scoring import faults, score
from search_agent.workbench import Workbench

# A proposer that fails this often in a row is not going to recover by itself.
PATIENCE = 5
# Isolation levels that need no caveat: in-process for what we wrote ourselves, and all layers.
HELD = ("", "A")


class SearchStopped(UserError):
    """The proposer cannot go on; what it wrote so far is kept."""


class Search:
    """A search in a run folder. Whatever is in the folder already is not done again.

    Args:
        run: the folder, held by `run.writing()`.
        arena: where programs are measured.
        proposer: who writes them.
        baselines: the published controllers.
        examples: what proposers may read, name to source.
        say: told what happens, a line at a time.
    """

    def __init__(
        self,
        run: Run,
        arena: Arena,
        proposer: Proposer,
        baselines: Sequence[Program],
        examples: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self.run, self.arena, self.proposer = run, arena, proposer
        self.baselines, self.examples, self.say = baselines, examples, say

    def go(self) -> None:
        """Baselines, rounds until it is time to stop, finalists, hold-out.

        Raises:
            SearchStopped: the proposer cannot go on. Finalists and hold-out are left for a resumed run.
            UserError: the disk refuses, or the machine cannot isolate an untrusted program.
        """
        started = time.monotonic()
        self.measure_baselines()
        if self.run.read("finalists.json") is None:
            minutes = self.run.stop["minutes"]
            # Finalists and hold-out take about as long as the baselines did, and that time is agreed on too.
            reserve = (self.run.read("clock.json") or {"baselines": 0.0})["baselines"]
            self.play_rounds(started + 60 * minutes - reserve if minutes else None)
            choose(self.run, self.arena, self.proposer, self.say)
        look_at_holdout(self.run, self.arena, self.baselines, self.proposer, self.say)

    def measure_baselines(self) -> None:
        """Archive the published controllers' figures, those that are not there yet."""
        started, done = time.monotonic(), {record["name"] for record in self.run.baselines()}
        for program in self.baselines:
            if program.name not in done:
                self.say(f"measuring {program.name}")
                entry = self._measure(program, {"name": program.name, "stamps": []}, self.arena.final_seeds)
                self.run.add(program.name, *entry)
        if len(done) < len(self.baselines):
            self.run.write("clock.json", {"baselines": round(time.monotonic() - started, 1)})

    def play_rounds(self, deadline: float | None) -> None:
        """Play rounds until there are as many as agreed on, or `deadline` (of `time.monotonic`) has passed.

        Raises:
            SearchStopped: the proposer cannot go on.
        """
        records = self.run.rounds()
        failures = 0
        for record in records:
            failures = failures + 1 if record["status"] == "failed" else 0
        rounds = self.run.stop["rounds"]
        number = len(records) + 1
        # However little time was given, one program is tried.
        while (not rounds or number <= rounds) and (
            number == 1 or deadline is None or time.monotonic() < deadline
        ):
            try:
                record = self._round(number)
            except ProposerError as error:
                raise SearchStopped(self._stopped(str(error))) from error
            self.say(_line(record))
            failures = failures + 1 if record["status"] == "failed" else 0
            # A resumed run gets as many tries again.
            if failures and failures % PATIENCE == 0:
                raise SearchStopped(
                    self._stopped(f"{PATIENCE} failures in a row, the last: {record['error']}")
                )
            number += 1

    def _round(self, number: int) -> dict[str, Any]:
        """Play one round and archive it, whatever becomes of it."""
        record: dict[str, Any] = {
            "round": number,
            "parent": None,
            "name": f"round {number}",
            "proposer": self.proposer.name,
            "summary": "",
            "stamps": list(self.proposer.stamps),
        }
        bench = Workbench(self.run, self.arena, number, self.examples, self.proposer.vouches)
        try:
            proposal = self.proposer.propose(bench)
        except ProposerError as error:
            if error.fatal:
                raise
            record |= _outcome("failed", str(error)) | {"usage": asdict(error.usage), "memo": {}}
            self.run.add(number, record)
            return record
        record |= {
            "parent": proposal.parent,
            "summary": proposal.summary,
            "usage": asdict(proposal.usage),
            "memo": proposal.memo,
        }
        program = Program(
            f"round {number}", proposal.source, self.proposer.vouches(proposal.source, proposal.memo)
        )
        if objection := self._objection(program):
            record |= _outcome("refused", objection)
            self.run.add(number, record, proposal.source)
            return record
        entry = self._measure(program, record, self.arena.seeds)
        self.run.add(number, *entry)
        return entry[0]

    def _objection(self, program: Program) -> str:
        """Why a program is not worth evaluating ("" = it is)."""
        try:
            check(program.source)
        except ProgramError as error:
            return str(error)
        for record in self.run.rounds():
            if self.run.source(record["round"]) == program.source:
                return f"the same program as round {record['round']}"
        _, fault = faults(self.arena.draft(program).frame)
        return fault and f"smoke test: {fault}"

    def _measure(
        self, program: Program, record: Mapping[str, Any], seeds: int
    ) -> tuple[dict[str, Any], str, Any, Any]:
        """What `Run.add` takes: the record with the outcome in it, the source, episodes of both parts."""
        seen, unseen = self.arena.feedback([program]), self.arena.selection([program], seeds)
        feedback, selection = (
            score(part.frame, self.arena.references, part.schedules) for part in (seen, unseen)
        )
        weak = sorted({*seen.frame["level"], *unseen.frame["level"]} - set(HELD))
        measured = {
            **record,
            **_outcome("evaluated", ""),
            "feedback": feedback,
            "selection": selection,
            "monotone": feedback["monotone"] and selection["monotone"],
            "stamps": [*record["stamps"], *(f"isolation level {level}" for level in weak)],
        }
        return measured, program.source, seen.frame, unseen.frame

    def _stopped(self, why: str) -> str:
        kept = [record for record in self.run.rounds() if record["status"] == "evaluated"]
        resume = f"autotts search --resume --out {self.run.path}"
        done = len(self.run.rounds())
        finish = f", or finish with what there is: {resume} --rounds {done}" if kept else ""
        return (
            f"the {self.proposer.name} proposer stopped: {why}. Kept: {done} rounds in {self.run.path}, "
            f"{len(kept)} of them evaluated. Go on with: {resume}{finish}"
        )


def _outcome(status: str, error: str) -> dict[str, Any]:
    return {"status": status, "error": error, "feedback": None, "selection": None, "monotone": None}


def _line(record: Mapping[str, Any]) -> str:
    if record["status"] != "evaluated":
        return f"{record['name']}: {record['status']}: {record['error']}"
    feedback, selection = record["feedback"]["hypervolume"], record["selection"]["hypervolume"]
    odd = "" if record["monotone"] else "; cost falls as beta rises"
    return f"{record['name']}: {feedback:.4f} on feedback, {selection:.4f} on selection{odd}"
