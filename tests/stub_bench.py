"""A workbench with a small, fixed past, for testing proposers apart from the evaluation."""

import argparse
import random

from search_agent import proposers
from search_agent.controller_api import CONTROLLER_API
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
FEEDBACK = {"hypervolume": 0.25, "points": POINTS, "errors": 2, "error": "ZeroDivisionError"}


class StubBench:
    """Two rounds back: the first was evaluated, the second failed."""

    round = 3
    api = CONTROLLER_API
    betas = (0.0, 0.5, 1.0)

    def __init__(self, spent=None):
        self.rng = random.Random(0)
        self.stores = {"s1": "Qwen3-0.6B"}
        self.problems = ["p01", "p02"]
        self.examples = {"self_consistency": PROGRAM.replace("One branch", "Self-consistency")}
        self.calls = []
        self.drafts = []
        self._spent = spent or Usage()

    def history(self):
        one = {
            "round": 1,
            "parent": None,
            "name": "r1",
            "status": "evaluated",
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
        return self._spent


def arguments(*words):
    """The proposers' options, as parsed from a command line."""
    parser = argparse.ArgumentParser()
    proposers.add_arguments(parser)
    return parser.parse_args(words)
