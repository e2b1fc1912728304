"""The archive stays true: whoever proposes, whatever they propose, and whenever the search is killed."""

import argparse
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from attacks.attempts import BODIES, SYSTEM_CALLS
from made_up import store as make_store
from scripted_server import ScriptedServer, completion, failure, reply

import autotts
from env.program import check
from search_agent.archive import Run
from search_agent.compose.proposer import ComposeProposer
from search_agent.proposal import Proposal, Usage
from search_agent.race import Race
from search_agent.start import open_arena

VOUCHES = ComposeProposer().vouches
PROGRAM = '''"""Proposal {k}."""

TUNABLE = {{"share": (0.1, 0.9)}}


def schedule(beta):
    return {{"n": 1 + round({more} * beta), "share": 0.5}}


async def solve(ep, n, share):
    ids = await ep.branch(n, probe=False)
    await ep.finish(ids[: max(1, round(share * n))])
    return ep.answer[ids[0]]
'''


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "toy", problems=8, branches=12)


def search(*words):
    return autotts.main(["search", *map(str, words), "--seeds", "1"])


def hold_true(path):
    """See that every round is what the archive before it, the program in it and the store come to."""
    run = Run.open(path)
    records = run.rounds()
    assert [record["round"] for record in records] == list(range(1, len(records) + 1))
    assert not run.proposals()
    arena = open_arena(_options(run))
    for record in records:
        number, source = record["round"], run.source(record["round"])
        assert 0 <= record["seen"] < number
        assert all(
            origin is None or origin <= record["seen"] for origin in (record["parent"], record["partner"])
        )
        if record["feedback"] is None:
            assert record["status"] in ("failed", "refused")
            assert run.episodes(number, "feedback") is None
            continue
        check(source)
        before = _Before(run, number)
        told = {key: record[key] for key in ("round", "name", "stamps")}
        again = Race(before, arena).measure(run.program(number, VOUCHES), told)
        for key in ("status", "error", "feedback", "selection", "monotone", "race", "behaviour"):
            assert again.record[key] == record[key], (number, key)
        assert again.feedback.equals(run.episodes(number, "feedback"))
    winner = (run.read("finalists.json") or {"winner": None})["winner"]
    assert winner is None or records[winner - 1]["status"] == "evaluated"
    return records


def _options(run):
    return argparse.Namespace(**run.config["options"], workers=1)


class _Before:
    """A run as it was before a round."""

    def __init__(self, run, number):
        self._run, self._number = run, number
        self.baselines, self.episodes = run.baselines, run.episodes

    def rounds(self):
        return self._run.rounds()[: self._number - 1]


class Model:
    """Answers a request with a new program each time, when it is not out of order."""

    def __init__(self, seed):
        self._rng, self._lock, self.written = random.Random(seed), threading.Lock(), []

    def __call__(self, handler, request):
        with self._lock:
            answer = self._answer()
        (answer if callable(answer) else reply(answer))(handler, request)

    def _answer(self):
        chance = self._rng.random()
        if chance < 0.05:
            return failure(500, "overloaded")
        if chance < 0.2:
            return completion("I would rather talk about the weather.")
        if chance < 0.3:
            return completion("```python\ndef schedule(beta): return {}\n```")
        self.written.append(PROGRAM.format(k=len(self.written), more=self._rng.randrange(1, 12)))
        return completion(f"Opens more.\n```python\n{self.written[-1]}```")


@pytest.mark.slow
def test_killed_at_random_moments_with_faulty_models_nothing_paid_for_is_lost(store, tmp_path):
    out, kills, rng = tmp_path / "run", 0, random.Random(1)
    model = Model(0)
    with ScriptedServer(model) as server:
        settings = "no-tools,max-turns=2"
        words = [
            *("search", store, "--out", out, "--seeds", 1, "--workers", 2, "--rounds", 26),
            *(
                "--proposer",
                f"openai:model=small,{settings}",
                "--proposer",
                f"openai:model=large,role=refine,{settings}",
            ),
            *("--proposer", "compose", "--proposer", "tune", "--base-url", server.url),
        ]
        while not (out / "holdout.json").exists():
            resume = ["--resume"] if (out / "run.json").exists() else []
            line = [sys.executable, "-m", "autotts", *map(str, words), *resume]
            child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            enough = len(list(out.glob("*/*/round.json"))) + rng.randint(5, 12)
            while child.poll() is None and (kills == 4 or len(list(out.glob("*/*/round.json"))) < enough):
                time.sleep(rng.uniform(0.001, 0.05))
            if child.poll() is None:
                child.kill()
                kills += 1
            assert child.wait() in (0, -signal.SIGKILL)
    assert kills
    records = hold_true(out)
    assert {record["proposer"].split()[0] for record in records} >= {"openai", "compose"}
    kept = [Run.open(out).source(record["round"]) for record in records]
    written = [source for source in kept if source in model.written]
    assert len(written) == len(set(written)), "a proposal made two rounds"
    # A kill takes with it at most what each of the two was about to hand in.
    assert len(set(model.written) - set(written)) <= 2 * kills
    assert any(record["seen"] < record["round"] - 1 for record in records), "nobody worked in parallel"


class Stranger:
    """Hands in one program after the other, none of them to be trusted; `calls` says for which rounds."""

    name, stamps, settings = "stranger", (), {}

    def __init__(self, *script):
        self.script, self.calls = script, []

    def vouches(self, source, memo):
        return False

    def propose(self, bench):
        self.calls.append(bench.round)
        memo = {"recipe": {"width": [1, 64]}}
        return Proposal(self.script[bench.round - 1], "Trust me.", None, Usage(1, 10, 10, 0, 1.0), memo)


def test_what_was_paid_for_before_a_kill_is_evaluated_by_the_resumed_run(store, tmp_path, monkeypatch):
    out, paid = tmp_path / "run", Stranger(PROGRAM.format(k=0, more=7))
    monkeypatch.setattr("search_agent.proposers.make", lambda *_: paid)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("search_agent.race.Race.measure", killed)
        assert search(store, "--out", out, "--workers", 1, "--rounds", 1) == 130
    assert Run.open(out).proposals() == [1] and Run.open(out).rounds() == []
    assert search("--resume", "--out", out, "--rounds", 1) == 0
    assert paid.calls == [1], "it was paid for once"
    (record,) = hold_true(out)
    assert record["status"] == "evaluated" and record["usage"]["cost_usd"] == 1.0


# Votes over all that its process has seen of a problem: see tests/attacks/test_attacks_knowledge.py.
POOLED = """
SAME = {}

def schedule(beta):
    return {"n": 2 + round(2 * beta)}

async def solve(ep, n):
    ids = await ep.branch(n, probe=False)
    await ep.finish(ids)
    marks = [(ep.tokens[i], ep.depth[i]) for i in ids]
    for i, mark in zip(ids, marks):
        SAME.setdefault(mark, set()).add(ep.answer[i])
        for known in SAME.values():
            if ep.answer[i] in known:
                known.add(ep.answer[i])
    return max(ep.answer.values(), key=lambda a: sum(a in known for known in SAME.values()))
"""
ALONE = POOLED.replace("SAME = {}\n", "", 1).replace("    ids = await", "    SAME = {}\n    ids = await", 1)


CONTROLLER = """
import ctypes, gc, os, socket, signal, sys, time

def attempt():
{body}

def schedule(beta):
    return {{}}

async def solve(ep):
    attempt()
"""


def tricks():
    """Every attack that the isolation tests know, as a controller; and a table by heart."""
    bodies = BODIES | {
        name: f"return ctypes.CDLL(None).syscall({number}, *{words})"
        for name, (number, _, words) in SYSTEM_CALLS.items()
    }
    found = {
        name: CONTROLLER.format(body=textwrap.indent(textwrap.dedent(body.lstrip("\n")), "    "))
        for name, body in bodies.items()
    }
    found["a table"] = f"TABLE = {random.Random(0).sample(range(1_000, 30_000), 200)}\n{ALONE}"
    return found


def test_a_proposer_that_cheats_leaves_refusals_behind_and_nothing_else(store, tmp_path, monkeypatch):
    attacks = list(tricks().values())
    assert len(attacks) > 90
    script = [PROGRAM.format(k=0, more=7), *attacks, ALONE, POOLED]

    monkeypatch.setattr("search_agent.proposers.make", lambda *_: Stranger(*script))
    out = tmp_path / "run"
    assert search(store, "--out", out, "--workers", 1, "--rounds", len(script)) == 0
    records = hold_true(out)
    assert [record["status"] for record in records[1:-2]] == ["refused"] * len(attacks)
    assert records[0]["status"] == "evaluated"
    alone, pooled = records[-2:]
    # Cheating across episodes either gained nothing, or was caught by the audit of the smoke test.
    assert pooled["status"] in ("duplicate", "refused")
    assert Run.open(out).read("holdout.json")["winner"] in (1, alone["round"])


@pytest.mark.slow
def test_a_program_that_hangs_costs_one_time_limit_and_is_refused(store, tmp_path, monkeypatch):
    hangs = ALONE.replace("    SAME", "    while True: pass\n    SAME", 1)
    monkeypatch.setattr("search_agent.proposers.make", lambda *_: Stranger(hangs))
    assert search(store, "--out", tmp_path / "run", "--workers", 1, "--rounds", 1) == 0
    (record,) = hold_true(tmp_path / "run")
    assert record["status"] == "refused" and "seconds of processor time" in record["error"]
