import contextlib
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from made_up import store as make_store

import autotts
from env.evaluate import evaluate
from env.store import Store
from search_agent.archive import Run
from search_agent.compose.grammar import FIRST
from search_agent.proposal import Proposal, ProposerError, Usage

# What every search begins with, and then what the archive so far leads to.
ROUNDS = len(FIRST) + 2

PROGRAM = """
def schedule(beta):
    return {{"n": {low} + round({more} * beta)}}

async def solve(ep, n):
    ids = await ep.branch(n, probe=False)
    await ep.finish(ids)
    {line}
    return ep.answer[ids[0]]
"""


def program(low=1, more=7, line="pass"):
    return PROGRAM.format(low=low, more=more, line=line)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "toy")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "other", seed=1, first=100, problems=5)


class Scripted:
    """A proposer that plays a list of proposals and failures, and keeps the benches it was given."""

    name, stamps = "scripted", ("made up",)

    def __init__(self, *script):
        self.settings = {}
        self.script = script
        self.benches = []

    def vouches(self, source, memo):
        return True

    def propose(self, bench):
        self.benches.append(bench)
        turn = self.script[min(bench.round, len(self.script)) - 1]
        if isinstance(turn, BaseException):
            raise turn
        return turn


@pytest.fixture
def scripted(monkeypatch):
    """Make `--proposer command` play a script instead, beside one baseline."""
    monkeypatch.setattr("search_agent.commands.search.PUBLISHED", ("self_consistency",))

    def install(*script):
        proposer = Scripted(*script)
        monkeypatch.setattr("search_agent.proposers.make", lambda *_: proposer)
        return proposer

    return install


def search(*words, rounds=3):
    return autotts.main(
        ["search", *map(str, words), "--seeds", "1", "--workers", "1", "--rounds", str(rounds)]
    )


def contents(run):
    """Every file that the archive is made of, by name."""
    files = [
        *run.glob("rounds/*/*"),
        *run.glob("baselines/*/*"),
        *run.glob("proposals/*/*"),
        run / "finalists.json",
        run / "holdout.parquet",
        run / "misses.parquet",
    ]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def composed(store, tmp_path_factory):
    """A whole search; its folder, and what it said."""
    out, told, warned = tmp_path_factory.mktemp("composed") / "run", io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(warned):
        assert search(store, "--proposer", "compose", "--seed", 3, "--out", out, rounds=ROUNDS) == 0
    return out, told.getvalue(), warned.getvalue()


def test_a_search_with_compose_ends_with_a_winner_judged_on_the_holdout(store, composed):
    out, told, warned = composed
    run = Run.open(out)
    records = run.rounds()
    assert [record["round"] for record in records] == list(range(1, ROUNDS + 1))
    assert {record["status"] for record in records} == {"evaluated"}
    assert [record["seen"] for record in records] == list(range(ROUNDS))
    problems = run.config["problems"]
    for record in records:
        for part in ("feedback", "selection"):
            frame = run.episodes(record["round"], part)
            assert set(frame["problem"]) == set(problems[part])
            assert sorted(set(frame["beta"])) == [0, 0.25, 0.5, 0.75, 1]
            assert len(record[part]["points"]) == 5
        assert min(run.episodes(record["round"], "feedback")["seed"]) >= 1_000_000
        assert max(run.episodes(record["round"], "selection")["seed"]) < 1_000_000
    assert len(run.baselines()) == 5
    holdout = run.read("holdout.json")
    assert len(holdout["rows"]) == 6
    assert holdout["problems"] == len(problems["holdout"]) == 4
    books = [json.loads(line) for line in (store.parent / "toy.lookups.jsonl").read_text().splitlines()]
    assert {look["purpose"] for look in books} == {"search: hold-out"}
    assert holdout["headline"] in told
    assert "report" in told and warned == ""
    best = max(run.read("finalists.json")["finalists"], key=lambda each: each["selection"]["hypervolume"])
    assert holdout["winner"] == best["round"]
    # What the winner asked for in vain, which is nothing unless it was granted less than it asked for.
    winner = run.program(holdout["winner"], lambda source, memo: True)
    played = evaluate([Store.open(store)], [winner], seeds=range(5), problems=problems["selection"]).frame
    short = set(played.filter(pl.col("asked") > pl.col("granted"))["problem"])
    assert set(pl.read_parquet(out / "misses.parquet")["problem"]) == short


def test_separate_holdout_stores_are_looked_at_once(store, other, tmp_path, scripted):
    scripted(Proposal(program(), "Works."))
    out = tmp_path / "run"
    assert search(store, "--holdout", other, "--out", out, rounds=1) == 0
    run = Run.open(out)
    assert set(run.read("holdout.json")["looks"]) == {str(other)}
    books = (other.parent / "other.lookups.jsonl").read_text()
    assert len(books.splitlines()) == 2
    assert search("--resume", "--out", out, rounds=1) == 0
    assert (other.parent / "other.lookups.jsonl").read_text() == books


def test_every_outcome_is_archived_and_the_search_goes_on(store, tmp_path, scripted):
    proposer = scripted(
        ProposerError("the model refused", Usage(calls=1, prompt_tokens=10)),
        Proposal("def schedule(beta): return {}", "Forgets solve."),
        Proposal(program(line="1 / 0"), "Divides."),
        Proposal(program(), "Works.", parent=3, usage=Usage(2, 30, 40, 5, 0.25)),
        Proposal(program(), "Again."),
        Proposal(program(low=8, more=-7), "Gets cheaper as beta rises."),
    )
    out = tmp_path / "run"
    assert search(store, "--out", out, rounds=6) == 0
    run = Run.open(out)
    records = run.rounds()
    assert [record["status"] for record in records] == [
        "failed",
        "refused",
        "refused",
        "evaluated",
        "refused",
        "evaluated",
    ]
    assert records[0]["error"] == "the model refused" and records[0]["usage"]["prompt_tokens"] == 10
    assert "no `async def solve" in records[1]["error"]
    assert "smoke test: ZeroDivisionError" in records[2]["error"]
    assert records[3]["usage"]["cost_usd"] == 0.25 and records[3]["parent"] == 3
    assert records[4]["error"] == "the same program as round 4"
    assert [records[3]["monotone"], records[5]["monotone"]] == [True, False]
    assert [record["stamps"] for record in records] == [["made up"]] * 6
    assert run.read("holdout.json")["winner"] == 4
    assert [bench.round for bench in proposer.benches] == [1, 2, 3, 4, 5, 6]


def test_no_winner_without_monotone_cost_and_the_holdout_stays_closed(store, tmp_path, scripted, capsys):
    scripted(Proposal(program(low=8, more=-7), "Gets cheaper as beta rises."))
    out = tmp_path / "run"
    assert search(store, "--out", out, rounds=1) == 0
    assert "no winner" in capsys.readouterr().out
    assert Run.open(out).read("holdout.json") is None


def test_where_no_round_came_to_a_program_the_last_line_says_why(store, tmp_path, scripted, capsys):
    scripted(ProposerError("no connection"))
    assert search(store, "--out", tmp_path / "run", rounds=1) == 1
    told = capsys.readouterr()
    assert "1 failed" in told.out and "More rounds" not in told.out
    assert told.err == "autotts: no round came to a program; the last one failed: no connection\n"


def test_a_proposer_that_keeps_failing_stops_the_search(store, tmp_path, scripted, capsys):
    scripted(Proposal(program(), "Works."), ProposerError("out of order"))
    out = tmp_path / "run"
    assert search(store, "--out", out, rounds=20) == 2
    told = capsys.readouterr().err
    assert "5 failures in a row, the last: out of order" in told
    assert "Kept: 6 rounds" in told and "1 of them evaluated" in told
    assert len(Run.open(out).rounds()) == 6
    assert search("--resume", "--out", out, rounds=20) == 2
    assert len(Run.open(out).rounds()) == 11
    assert search("--resume", "--out", out, rounds=11) == 0
    assert Run.open(out).read("holdout.json")["winner"] == 1


def test_a_fatal_failure_stops_at_once_and_its_round_is_tried_again(store, tmp_path, scripted, capsys):
    scripted(Proposal(program(), "Works."), ProposerError("no such model", fatal=True))
    out = tmp_path / "run"
    assert search(store, "--out", out) == 2
    assert "no such model" in capsys.readouterr().err
    assert len(Run.open(out).rounds()) == 1
    scripted(Proposal(program(), "Works."), Proposal(program(more=9), "Works too."))
    assert search("--resume", "--out", out, rounds=2) == 0
    assert [record["status"] for record in Run.open(out).rounds()] == ["evaluated"] * 2


def test_killed_at_random_moments_and_resumed_the_archive_is_the_same(store, composed, tmp_path):
    out, kills = tmp_path / "killed", 0
    words = f"search {store} --proposer compose --seed 3 --rounds {ROUNDS} --out {out}".split()
    words += ["--seeds", "1", "--workers", "1"]
    while not (out / "holdout.json").exists():
        resume = ["--resume"] if (out / "run.json").exists() else []
        child = subprocess.Popen([sys.executable, "-m", "autotts", *words, *resume])
        # Into the middle of whatever comes after a few more entries.
        enough = len(list(out.glob("*/*/round.json"))) + random.randint(5, 10)
        while child.poll() is None and len(list(out.glob("*/*/round.json"))) < enough:
            time.sleep(random.uniform(0.001, 0.05))
        if child.poll() is None:
            child.kill()
            kills += 1
        assert child.wait() in (0, -signal.SIGKILL)
    assert kills
    assert contents(out) == contents(composed[0])


def test_interrupted_it_says_how_to_go_on(store, tmp_path, scripted, capsys):
    scripted(Proposal(program(), "Works."), KeyboardInterrupt())
    out = tmp_path / "run"
    assert search(store, "--out", out) == 130
    assert f"go on with: autotts search --resume --out {out}" in capsys.readouterr().err
    assert len(Run.open(out).rounds()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--resume"], "give its folder with --out"),
        (["--resume", "--out", "nowhere"], "no search run in nowhere"),
        (["{store}", "--holdout", "{store}"], "given twice"),
        (["{store}", "--folds", "1"], "at least 2"),
        (["nowhere"], "nowhere"),
    ],
)
def test_a_wrong_command_line_is_one_clear_error(store, tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    assert (
        autotts.main(["search", *[word.format(store=store) for word in words], "--proposer", "compose"]) == 2
    )
    told = capsys.readouterr().err
    assert says in told and len(told.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_resumed_run_keeps_its_options_and_refuses_others(composed, tmp_path, monkeypatch, capsys):
    out = shutil.copytree(composed[0], tmp_path / "run")
    assert autotts.main(["search", "--resume", "--out", str(out), "--seed", "6"]) == 2
    assert "was started with --seed 3" in capsys.readouterr().err
    assert autotts.main(["search", "--resume", "--out", str(out), "--rounds", "99"]) == 2
    assert "start another run" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert autotts.main(["search", "--resume", "--out", "run"]) == 0


def test_a_store_that_changed_under_a_run_is_refused(tmp_path, capsys, scripted):
    path = make_store(tmp_path / "store")
    scripted(ProposerError("later", fatal=True))
    assert search(path, "--out", tmp_path / "run") == 2
    shutil.rmtree(path)
    make_store(path, seed=9)
    capsys.readouterr()
    assert search("--resume", "--out", tmp_path / "run") == 2
    assert "its stores changed since it was started" in capsys.readouterr().err


def test_without_out_runs_are_numbered(store, tmp_path, monkeypatch, scripted):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "0007").mkdir(parents=True)
    scripted(Proposal(program(), "Works."))
    assert search(store, rounds=1) == 0
    assert len(Run.open(tmp_path / "runs" / "0008").rounds()) == 1


def test_time_is_up(store, tmp_path, scripted):
    scripted(Proposal(program(), "Works."))
    words = ["search", store, "--seeds", 1, "--workers", 1, "--minutes", 1e-6, "--out", tmp_path / "run"]
    assert autotts.main(list(map(str, words))) == 0
    run = Run.open(tmp_path / "run")
    assert len(run.rounds()) == run.read("holdout.json")["winner"] == 1
