"""A workbench with a small, fixed past, for testing proposers apart from the evaluation."""

import argparse
import random

import polars as pl
from synthetic import episodes

from search_agent import proposers
from search_agent.controller_api import CONTROLLER_API
from search_agent.feedback.hindsight import WASTES
from search_agent.proposal import Usage

PROGRAM = '''"""One branch."""


def schedule(beta):
    return {"n": 1 + round(7 * beta)}


async def solve(ep, n):
    ids = await ep.branch(n, probe=False)
    await ep.finish(ids)
    return ep.answer[ids[0]]
'''
POINTS = [
    {"beta": beta, "accuracy": 0.5 + beta / 4, "tokens": 1000.0 * (1 + beta), "sequential_tokens": 900.0}
    for beta in (0.0, 0.5, 1.0)
]
PROBLEMS = ("p01", "p02")
SEED = 1_000_000
HYPOTHESIS = "tokens down 20% at beta 0.5 because votes settle early"
VERDICT = {
    "outcome": "did not hold",
    "against": "self_consistency",
    "claims": [
        {
            "claim": "tokens down 20% at beta 0.5",
            "outcome": "did not hold",
            "before": 2700.0,
            "after": 1100.0,
            "change": -0.1,
            "interval": [-0.15, -0.05],
            "units": 8,
            "of": "problems",
        }
    ],
}
FEEDBACK = {"hypervolume": 0.25, "points": POINTS, "seeds": 8, "errors": 2, "error": "ZeroDivisionError"}


class StubBench:
    """Two rounds back: the first was evaluated, the second failed. Without a past it tells of neither."""

    round = 3
    api = CONTROLLER_API
    betas = (0.0, 0.5, 1.0)
    ablated = frozenset()
    parents = (1,)

    def __init__(self, spent=None, past=True):
        self.rng = random.Random(0)
        self.stores = self.about_stores = {"s1": "Qwen3-0.6B"}
        self.problems = list(PROBLEMS)
        self.examples = {"self_consistency": PROGRAM.replace("One branch", "Self-consistency")}
        self.calls = []
        self.drafts = []
        self._spent = spent or Usage()
        self._past = past

    def history(self):
        if not self._past:
            return []
        one = {
            "round": 1,
            "parent": None,
            "seen": 0,
            "name": "r1",
            "status": "evaluated",
            "hypothesis": {"text": HYPOTHESIS, "claims": [{}], "why": "votes settle early"},
            "verdict": VERDICT,
            "summary": "First.",
            "error": "",
        }
        two = {"round": 2, "parent": 1, "name": "r2", "status": "failed", "summary": "", "error": "refused"}
        return [{**one, "feedback": FEEDBACK, "monotone": True}, {**two, "feedback": None, "monotone": None}]

    def baselines(self):
        shipped = {
            "name": "self_consistency",
            "status": "evaluated",
            "monotone": True,
            "summary": "",
            "error": "",
        }
        return [{**shipped, "feedback": {**FEEDBACK, "hypervolume": 0.5}}]

    def read_controller(self, round):
        if round != 1:
            raise LookupError(f"round {round} left no controller")
        return PROGRAM.replace("One branch", "Round one")

    def results(self, round):
        self.read_controller(round)
        keys = {
            "tokens": 1234.5,
            "sequential_tokens": 900.0,
            "rounds": 2.0,
            "branches": 1.0,
            "errors": 0,
            "error": "",
        }
        return [
            {"store": "s1", "problem": problem, "beta": beta, "accuracy": accuracy, **keys}
            for problem, accuracy in (("p01", 1.0), ("p02", 0.25))
            for beta in self.betas
        ]

    def episodes(self, entry):
        if entry != "self_consistency":
            self.read_controller(entry)
        frames = [
            episodes(
                [[entry == 1, True], [False, beta > 0]],
                1000 + 100 * len(str(entry)),
                problems=PROBLEMS,
                beta=beta,
            )
            for beta in self.betas
        ]
        return pl.concat(frames).with_columns(store=pl.lit("s1"), seed=pl.col("seed") + SEED)

    def hindsight(self, round):
        frame = self.episodes(round).select(
            "store", "problem", "beta", "seed", "correct", "tokens", "sequential"
        )
        spent = dict.fromkeys(WASTES, pl.lit(0)) | {
            "settled": pl.col("tokens") - 400,
            "cheapest": pl.lit(400),
        }
        return frame.with_columns(
            possible=pl.lit(True),
            loss=pl.when("correct").then(pl.lit("")).otherwise(pl.lit("outvoted")),
            late=pl.lit(100),
            rounds=pl.lit(3),
            first_led=pl.lit(1),
            settled_in=pl.lit(2),
            **spent,
        )

    def traces(self, round, *, store, problem, beta, seed=None):
        self.read_controller(round)
        if (store, problem) not in {("s1", "p01"), ("s1", "p02")}:
            raise LookupError(f"no episode {store} {problem}")
        step = {"do": "branch", "ids": [0], "depth": [1], "tokens": [500], "answer": [0], "done": [None]}
        return [
            {"round": 1, "actions": [step], "notes": ["hello"]},
            {"answer": 0, "correct": True, "error": "", "spent": {"decode": 500, "sequential": 500}},
        ]

    def try_draft(self, source):
        self.drafts.append(source)
        if "solve" not in source:
            return {"ok": False, "error": "no solve\x1b[31m", "points": []}
        return {"ok": True, "error": "", "points": POINTS}

    def record_call(self, call):
        self.calls.append({"round": self.round, **call})

    def spent(self):
        names = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd")
        calls = [Usage(1, *(call.get(name, 0) for name in names)) for call in self.calls]
        return sum(calls, self._spent)


def arguments(*words):
    """The proposers' options, as parsed from a command line."""
    parser = argparse.ArgumentParser()
    proposers.add_arguments(parser)
    return parser.parse_args(words)
