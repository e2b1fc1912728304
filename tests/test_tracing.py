"""Traces: what an episode did, saw and paid, from the engine's own log."""

import json
import random

import pytest

from env.errors import UserError
from env.evaluate import evaluate, trace
from env.program import Program
from env.store import Store
from tests import made_up
from tests.programs import CAREFUL, isolated, shipped
from tests.trees import random_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store.open(made_up.store(tmp_path_factory.mktemp("stores") / "sums", problems=5, branches=16))


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> Store:
    return random_store(tmp_path_factory.mktemp("stores") / "trees", random.Random(3), problems=4)


@isolated
def test_a_trace_tells_what_an_episode_did_and_what_it_cost(trees):
    done = evaluate([trees], [CAREFUL], betas=[0.5], seeds=[2], workers=1).frame
    for row in done.to_dicts():
        told = trace(trees, CAREFUL, 0.5, row["problem"], 2)
        assert json.loads(json.dumps(told)) == told
        *rounds, last = told
        assert last == {
            "answer": None if row["answer"] < 0 else row["answer"],
            "correct": row["correct"],
            "error": "",
            "spent": {name: row[name] for name in ("decode", "probe", "prm", "sequential")},
        }
        assert [r["round"] for r in rounds] == list(range(1, len(rounds) + 1))
        assert rounds[0]["actions"][0]["do"] == "branch"
        assert rounds[1]["notes"] == [f"opened {len(rounds[0]['actions'][0]['ids'])}"]
        shown = [action for r in rounds for action in r["actions"] if action["do"] != "prune"]
        for action in shown:
            lengths = {len(action[key]) for key in ("ids", "depth", "tokens", "answer", "done")}
            assert len(lengths) == 1
        assert sum(sum(action["tokens"]) for action in shown) == row["decode"]
        assert sum(sum(probed(action)) for action in shown) == row["probe"]
        rows = [
            [t + p for a in r["actions"] if a in shown for t, p in zip(a["tokens"], probed(a), strict=True)]
            for r in rounds
        ]
        assert sum(max(costs, default=0) for costs in rows) == row["sequential"]


def probed(action: dict) -> list[int]:
    """What the probes of an action cost, which it leaves out where nothing was paid."""
    return action.get("probe_tokens", [0] * len(action["ids"]))


def test_a_trace_keeps_what_went_wrong_and_what_was_said_last(store):
    problem = store.problems["question_hash"][0].as_py()
    program = Program(
        "odd",
        "def schedule(beta):\n    return {}\n\nasync def solve(ep):\n    ids = await ep.branch(2)\n"
        '    ep.prune(ids[:1])\n    ep.note("pruned")\n    await ep.finish(ids)\n    ep.note("done")\n'
        "    await ep.finish([7])\n    return 0\n",
        trusted=True,
    )
    told = trace(store, program, 0.5, problem, 0)
    assert [[action["do"] for action in r["actions"]] for r in told[:-1]] == [
        ["branch"], ["prune", "finish"], ["finish"],
    ]  # fmt: skip
    assert told[1]["actions"][0]["ids"] == [0]
    assert told[1]["actions"][1]["done"] == ["pruned", "stop"]
    assert told[1]["notes"] == ["pruned"]
    assert told[2] == {"round": 3, "actions": [{"do": "finish", "refused": True}], "notes": ["done"]}
    assert told[3]["error"].startswith("ControllerError: unknown branch id")
    silent = Program(
        "silent", program.source.replace("ids = await", 'return ep.note("bye")  #'), trusted=True
    )
    assert trace(store, silent, 0.5, problem, 0)[0] == {"round": 1, "actions": [], "notes": ["bye"]}


def test_a_trace_of_no_problem(store):
    with pytest.raises(UserError, match="has no problem x"):
        trace(store, shipped("self_consistency"), 0.5, "x", 0)
