"""The search: propose, check, smoke-test, race, archive, and again; then choose a winner."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from env.errors import UserError
from env.playback import prepare
from env.program import Program, ProgramError, check
from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.budget import Budget, preflight, reserve
from search_agent.desk import Desk, Lane
from search_agent.feedback.verdict import verdict_on
from search_agent.finale import choose, look_at_holdout
from search_agent.proposal import BudgetSpent
from search_agent.race import Race, outcome
from search_agent.scoring import faults
from search_agent.workbench import Workbench


class SearchStopped(UserError):
    """No proposer can go on; what they wrote so far is kept."""


class Search:
    """A search in a run folder. Whatever is in the folder already is not done again.

    Args:
        run: the folder, held by `run.writing()`.
        arena: where programs are measured.
        lanes: who writes them.
        baselines: the published controllers.
        examples: what proposers may read, name to source.
        say: told what happens, a line at a time.
        warn: told what the user should know before it is too late.
        ablated: what to do without, of `search_agent.workbench.ABLATIONS`.
    """

    def __init__(
        self,
        run: Run,
        arena: Arena,
        lanes: Sequence[Lane],
        baselines: Sequence[Program],
        examples: Mapping[str, str],
        say: Callable[[str], None],
        *,
        warn: Callable[[str], None] | None = None,
        ablated: Collection[str] = (),
    ) -> None:
        self.run, self.arena, self.lanes = run, arena, lanes
        self.baselines, self.examples = baselines, examples
        self.say, self.warn, self.ablated = say, warn or say, ablated
        self.race = Race(run, arena, dropping="racing" not in ablated)
        self.desk = Desk(run, lanes, self._bench)

    def go(self) -> None:
        """Baselines, rounds until it is time to stop, finalists, hold-out.

        Raises:
            SearchStopped: no proposer can go on. Finalists and hold-out are left for a resumed run.
            UserError: the disk refuses, or the machine cannot isolate an untrusted program.
        """
        prepare(self.say)
        started = time.monotonic()
        self.measure_baselines()
        if self.run.read("finalists.json") is None:
            budget = Budget.of(self.run.stop)
            deadline = budget.deadline(started, reserve(self.run, self.arena))
            for warning in preflight(budget, self.run, self.arena, self.lanes, deadline):
                self.warn(warning)
            self.play_rounds(budget, deadline)
            choose(self.run, self.arena, self._vouches, self.say)
        look_at_holdout(self.run, self.arena, self.baselines, self._vouches, self.say)

    def measure_baselines(self) -> None:
        """Archive the published controllers' figures, those that are not there yet."""
        started, done = time.monotonic(), {record["name"] for record in self.run.baselines()}
        for program in self.baselines:
            if program.name not in done:
                self.say(f"measuring {program.name}")
                record, *frames = self.race.measure_baseline(program)
                self.run.add(program.name, record, program.source, *frames)
        if len(done) < len(self.baselines):
            self.run.write("clock.json", {"baselines": round(time.monotonic() - started, 1)})

    def play_rounds(self, budget: Budget, deadline: float | None = None) -> None:
        """Play rounds until the budget is used up; then those under way, which may have been paid for.

        Raises:
            SearchStopped: no proposer can go on.
        """
        while True:
            begun = self._begun()
            enough = budget.used_up(self.run, begun, deadline)
            if not enough:
                self.desk.begin(budget.rounds and budget.rounds - begun)
                enough = budget.used_up(self.run, self._begun(), deadline)
            if waiting := self.run.proposals():
                self._play(waiting[0])
            elif not (enough or self.desk.ask() or self.desk.wait()):
                self._stop()
                return
            elif enough and not self.desk.wait():
                self.say(f"stopping after {enough}")
                return

    def _begun(self) -> int:
        """How many rounds there will be if nobody begins another."""
        # In the order of their lives: what moves on meanwhile is counted twice rather than not at all.
        return self.desk.busy + len(self.run.proposals()) + len(self.run.rounds())

    def _play(self, number: int) -> None:
        """Archive what becomes of a proposal."""
        record, source = self.run.proposal(number)
        frames: Sequence[Any] = ()
        if source is not None:
            program = Program(record["name"], source, self._vouches(source, record["memo"]))
            if objection := self._objection(program):
                record |= outcome("refused", objection)
            else:
                record, *frames = self.race.measure(program, record)
                record["verdict"] = verdict_on(record, frames[0], self.run, self.arena)
        self.run.add(number, record, source, *frames)
        self.say(_line(record))

    def _objection(self, program: Program) -> str:
        """Why a program is not worth measuring ("" = it is)."""
        try:
            check(program.source)
        except ProgramError as error:
            return str(error)
        for record in self.run.rounds():
            if self.run.source(record["round"]) == program.source:
                return f"the same program as round {record['round']}"
        _, fault = faults(self.arena.draft(program).frame)
        return fault and f"smoke test: {fault}"

    def _bench(self, lane: Lane, seen: int) -> Workbench:
        return Workbench(
            self.run,
            self.arena,
            max([seen, *self.run.proposals()]) + 1,
            self.examples,
            self._vouches,
            seen=seen,
            lane=self.lanes.index(lane),
            role=lane.role,
            ablated=self.ablated,
        )

    def _vouches(self, source: str, memo: Mapping[str, Any]) -> bool:
        return any(lane.proposer.vouches(source, memo) for lane in self.lanes)

    def _stop(self) -> None:
        """Nobody proposes any more. That is an end like others if it is for want of money.

        Raises:
            SearchStopped: it is not, or nothing was found yet.
        """
        kept = [record for record in self.run.rounds() if record["status"] == "evaluated"]
        over = [f"the {lane.label} proposer stopped: {lane.over}" for lane in self.lanes if lane.over]
        if kept and any(isinstance(lane.over, BudgetSpent) for lane in self.lanes):
            self.say("; ".join(over))
            return
        resume = f"autotts search --resume --out {self.run.path}"
        done = len(self.run.rounds())
        finish = f", or finish with what there is: {resume} --rounds {done}" if kept else ""
        raise SearchStopped(
            f"{'; '.join(over) or 'no proposer has anything to propose'}. Kept: {done} rounds in "
            f"{self.run.path}, {len(kept)} of them evaluated. Go on with: {resume}{finish}"
        )


def _line(record: Mapping[str, Any]) -> str:
    if record["feedback"] is None or record["selection"] is None:
        return f"{record['name']}: {record['status']}: {record['error']}"
    feedback, selection = record["feedback"]["hypervolume"], record["selection"]["hypervolume"]
    odd = "" if record["monotone"] else "; cost falls as beta rises"
    dropped = "; dropped" if record["status"] == "dropped" else ""
    return f"{record['name']}: {feedback:.4f} on feedback, {selection:.4f} on selection{odd}{dropped}"
