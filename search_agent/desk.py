"""Who proposes when: in turn, or each at its own pace, so that evaluation never waits for a model.

A single proposer is asked in turn: each of its proposals has seen what became of the one before. Of several,
those that answer at once (`compose`, `tune`) are asked in turn too, whenever nothing waits to be evaluated;
the others work in a thread each, on the archive as it was when they began, and hand in when they are done.

**What is promised.** What is handed in is on disk before anything else happens, with the number of its round,
and rounds are evaluated in that order. `seen` in the record is the last round that its proposer knew: it saw
the archive as of that round, no more and no less. What is asked in turn sees all rounds before its own; so a
run of such proposers alone is reproducible to the byte, killed and resumed or not.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from search_agent.archive import Run
from search_agent.proposal import NothingToPropose, Proposer, ProposerError, Usage
from search_agent.race import outcome
from search_agent.workbench import Workbench

# A proposer that fails this often in a row is not going to recover by itself.
PATIENCE = 5


@dataclass
class Lane:
    """A proposer in a run.

    Attributes:
        proposer: it.
        label: what the run calls it; no two are called the same.
        role: see `search_agent.pareto.parents`.
        quick: whether it answers at once, and by the archive alone.
        estimate: what a proposal may be expected to cost; no calls = nothing.
        over: why it proposes no more; None = it does.
    """

    proposer: Proposer
    label: str
    role: str = "explore"
    quick: bool = False
    estimate: Usage = field(default_factory=Usage)
    over: ProposerError | None = field(default=None, init=False)
    failures: int = field(default=0, init=False)
    busy: bool = field(default=False, init=False)


class Desk:
    """Gets proposals from lanes and writes them down.

    Args:
        run: where they are written down.
        lanes: who proposes.
        bench: makes the workbench of a lane that may see rounds up to some number.
    """

    def __init__(self, run: Run, lanes: Sequence[Lane], bench: Callable[[Lane, int], Workbench]) -> None:
        self.run, self._bench = run, bench
        self._in_turn = [lane for lane in lanes if lane.quick or len(lanes) == 1]
        self._apart = [lane for lane in lanes if lane not in self._in_turn]
        # A thread that is done leaves its error here, or None; `_out` counts those not taken from here yet.
        self._done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._out = 0

    @property
    def busy(self) -> int:
        """How many lanes are at it in their threads."""
        return sum(lane.busy for lane in self._apart)

    def begin(self, most: int | None) -> None:
        """Let lanes begin that have threads of their own; at most so many, if given.

        A lane begins anew when its last proposal is the next to be evaluated: so it does not wait for that,
        and is never more than one ahead.
        """
        waiting = {self.run.proposal(number)[0]["proposer"] for number in self.run.proposals()[1:]}
        idle = [lane for lane in self._apart if not (lane.busy or lane.over or lane.label in waiting)]
        for lane in idle[:most]:
            lane.busy, self._out = True, self._out + 1
            threading.Thread(target=self._work, args=(lane,), daemon=True).start()

    def ask(self) -> bool:
        """Ask those who take turns, the next one first; whether anything was written down."""
        number = len(self.run.rounds())
        lanes = [lane for lane in self._in_turn if not lane.over]
        first = number % len(lanes) if lanes else 0
        return any(self._propose(lane) for lane in lanes[first:] + lanes[:first])

    def wait(self) -> bool:
        """Wait until a lane that is at it is done; False = there was none left to wait for."""
        if not self._out:
            return False
        error, self._out = self._done.get(), self._out - 1
        if error:
            raise error
        return True

    def _work(self, lane: Lane) -> None:
        failed: BaseException | None = None
        try:
            self._propose(lane)
        except BaseException as error:
            failed = error
        # What was handed in is on disk by now, so nobody takes an idle lane for one that is not done yet.
        lane.busy = False
        self._done.put(failed)

    def _propose(self, lane: Lane) -> bool:
        """Whether a lane came to something that makes a round, be it a failure."""
        seen = len(self.run.rounds())
        record: dict[str, Any] = {
            "parent": None,
            "partner": None,
            "proposer": lane.label,
            "summary": "",
            "stamps": list(lane.proposer.stamps),
            "seen": seen,
            "memo": {},
            "hypothesis": None,
        }
        try:
            proposal = lane.proposer.propose(self._bench(lane, seen))
        except NothingToPropose:
            return False
        except ProposerError as error:
            if error.fatal:
                lane.over = error
                return False
            lane.failures += 1
            if lane.failures == PATIENCE:
                lane.over = ProposerError(f"{PATIENCE} failures in a row, the last: {error}")
            self.run.keep(record | {"usage": asdict(error.usage)} | outcome("failed", str(error)), None)
            return True
        lane.failures = 0
        told = ("parent", "partner", "summary", "memo")
        record |= {name: getattr(proposal, name) for name in told} | {"usage": asdict(proposal.usage)}
        record["hypothesis"] = proposal.hypothesis.record() if proposal.hypothesis else None
        self.run.keep(record, proposal.source)
        return True
