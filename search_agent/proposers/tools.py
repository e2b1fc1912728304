"""The tools of the agent: look at the history, try a draft, submit. Every answer is text of bounded size."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from env.program import ProgramError, check
from search_agent.feedback.hypothesis import FORM, read
from search_agent.feedback.packet import packet
from search_agent.proposers import briefing, timeline
from search_agent.proposers.text import MAX_HYPOTHESIS, MAX_SUMMARY, Said, clean, cut, table

if TYPE_CHECKING:
    from search_agent.workbench import Workbench

MAX_PROGRAM = 20_000  # characters shown of a program
TEXT, NUMBER, WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}


def _spec(
    name: str, does: str, needed: dict[str, Any], optional: dict[str, Any] | None = None
) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {**needed, **(optional or {})},
        "required": list(needed),
    }
    return {"type": "function", "function": {"name": name, "description": does, "parameters": parameters}}


SPECS = [
    _spec(
        "standings", "All earlier rounds and the shipped controllers with their frontiers, best first.", {}
    ),
    _spec(
        "feedback",
        "What a round teaches: whether its hypothesis held, its frontier against others, where accuracy was "
        "lost and tokens were wasted by hindsight, what the change did against its parent, three episodes.",
        {},
        {"round": {"type": "integer", "description": "an evaluated round; the latest if left out"}},
    ),
    _spec(
        "read_controller",
        "Source of a shipped controller (by name) or of an earlier round (by number).",
        {
            "which": {
                "type": "string",
                "description": 'a name such as "self_consistency", or a round such as "3"',
            }
        },
    ),
    _spec(
        "read_results",
        "An evaluated round on each feedback problem, averaged over seeds; problems in play first.",
        {"round": WHOLE},
        {"store": TEXT, "beta": NUMBER},
    ),
    _spec(
        "read_trace",
        "One episode of an evaluated round, a line a round; answers 3x5 = five branches said code 3.",
        {"round": WHOLE, "store": TEXT, "problem": TEXT, "beta": NUMBER},
        {"seed": WHOLE},
    ),
    _spec("try_draft", "Check a draft and run it on a few feedback problems.", {"source": TEXT}),
    _spec(
        "submit",
        "Hand in the controller: the whole file. Ends the round.",
        {
            "source": TEXT,
            "summary": {"type": "string", "description": "what it does differently and why, 1-2 sentences"},
        },
        {
            "parent": {"type": "integer", "description": "the round it was derived from, if any"},
            "partner": {"type": "integer", "description": "the other round, if it crosses two"},
            "hypothesis": {"type": "string", "description": f"always state one: {FORM}"},
        },
    ),
]


class Submission(Exception):
    """A program was handed in and passed the check."""

    def __init__(self, source: str, said: Said) -> None:
        super().__init__(said.summary)
        self.source, self.said = source, said


class Toolbox:
    """Runs the agent's tools on a workbench.

    Attributes:
        draft: the last program that could be handed in: it ran, or was sent back for want of a hypothesis.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self.draft: Submission | None = None
        self._reminded = False

    def use(self, name: str, arguments: str) -> str:
        """The answer to a call; what was wrong with the call, if it cannot be answered.

        Raises:
            Submission: the call handed in a program.
        """
        spec = next((spec["function"] for spec in SPECS if spec["function"]["name"] == name), None)
        if spec is None:
            names = ", ".join(spec["function"]["name"] for spec in SPECS)
            return f"error: no tool {clean(name, 60)!r}; there are {names}"
        try:
            values = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            return f"error: the arguments are not valid JSON ({clean(str(error), 100)}); send the call again"
        try:
            answer: str = getattr(self, name)(**_fit(values, spec["parameters"]))
        except (LookupError, ValueError) as error:
            return f"error: {clean(str(error.args[0] if error.args else error), 500)}"
        return answer

    def submit(
        self,
        source: str,
        summary: str,
        parent: int | None = None,
        partner: int | None = None,
        hypothesis: str = "",
    ) -> str:
        """What keeps a program from being accepted; for want of a hypothesis it is sent back once.

        Raises:
            Submission: nothing does.
        """
        known = {record["round"] for record in self._bench.history()}
        origin = [number for number in (parent, partner) if number in known]
        said = Said(
            clean(summary, MAX_SUMMARY), *[*origin, None, None][:2], clean(hypothesis, MAX_HYPOTHESIS)
        )
        try:
            read(said.hypothesis, self._bench.betas, [*self._bench.stores, *self._bench.problems])
        except ValueError as error:
            if not self._reminded:
                try:
                    return self.accept(source, said)
                except Submission as done:
                    self._reminded, self.draft = True, done
                    return f"error: submit it again, with a hypothesis: {clean(str(error), 500)}"
        return self.accept(source, said)

    def accept(self, source: str, said: Said) -> str:
        """What keeps a program from being accepted, whatever its hypothesis is like.

        Raises:
            Submission: nothing does.
        """
        try:
            check(source)
        except ProgramError as error:
            return f"error: not accepted: {clean(str(error), 500)}"
        raise Submission(source, said)

    def feedback(self, round: int | None = None) -> str:
        """What `search_agent.feedback.packet` says."""
        return packet(self._bench, round) or "nothing has been evaluated yet"

    def standings(self) -> str:
        """What `briefing.standings` says."""
        return briefing.standings(self._bench)

    def read_controller(self, which: str) -> str:
        """A program."""
        examples = self._bench.examples
        if which not in examples and not which.strip().isdecimal():
            raise LookupError(
                f"no controller {which!r}: shipped are {', '.join(examples)}; a round is a number"
            )
        source = examples[which] if which in examples else self._bench.read_controller(int(which))
        return cut(source, MAX_PROGRAM, "this is all there is to see")

    def read_results(self, round: int, store: str | None = None, beta: float | None = None) -> str:
        """Figures a problem."""
        rows = [
            row
            for row in self._bench.results(round)
            if store in (None, row["store"]) and beta in (None, row["beta"])
        ]
        if not rows:
            stores, betas = (
                ", ".join(self._bench.stores),
                ", ".join(f"{beta:g}" for beta in self._bench.betas),
            )
            raise LookupError(f"no such results: stores are {stores}, betas are {betas}")
        return briefing.results_text(rows)

    def read_trace(self, round: int, store: str, problem: str, beta: float, seed: int | None = None) -> str:
        """The log of an episode."""
        if not 0 <= beta <= 1:
            raise LookupError(f"beta {beta:g} is outside [0, 1]")
        trace = self._bench.traces(round, store=store, problem=problem, beta=beta, seed=seed)
        return timeline.text(trace)

    def try_draft(self, source: str) -> str:
        """How a draft did."""
        outcome = self._bench.try_draft(source)
        if not outcome["ok"]:
            return f"error: {clean(str(outcome['error']), 1_000)}"
        self.draft = Submission(source, Said("The last draft that ran."))
        points = outcome["points"]
        return "it runs; on a few feedback problems:\n" + table(
            points, ["beta", "accuracy", "tokens", "sequential_tokens"]
        )


def _fit(values: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call, read leniently ("3" is a round); ValueError says what cannot be read."""
    if not isinstance(values, dict):
        raise ValueError("the arguments must be a JSON object")
    properties = schema["properties"]
    values = {name: value for name, value in values.items() if value is not None}
    missing = [name for name in schema["required"] if name not in values]
    unknown = [clean(name, 60) for name in values if name not in properties]
    if missing or unknown:
        have = ", ".join(properties) or "none"
        raise ValueError(
            f"missing arguments {missing}, unknown arguments {unknown}; the arguments are: {have}"
        )
    kinds: dict[str, Callable[[Any], Any]] = {"string": str, "number": float, "integer": int}
    fitted = {}
    for name, value in values.items():
        kind = properties[name]["type"]
        try:
            fitted[name] = kinds[kind](value)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"argument {name} must be of type {kind}") from None
    return fitted
