import json

import pytest
from made_up import store as make_store

from env.program import Program
from env.store import Store
from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.budget import Budget
from search_agent.desk import Lane
from search_agent.loop import Search
from search_agent.proposal import Proposal, Usage
from search_agent.splits import split
from search_agent.workbench import Workbench

PROGRAM = """
from controllers.voting import majority

def schedule(beta):
    return {"n": 1 + round(7 * beta)}

async def solve(ep, n):
    ids = await ep.branch(n)
    ep.note("opened", n)
    await ep.finish(ids)
    return majority(ep.answer[i] for i in ids)
"""


class Once:
    """Proposes one program, then its twin that raises on some problems."""

    name, stamps = "once", ()

    def vouches(self, source, memo):
        return True

    def propose(self, bench):
        fault = "    assert len(ids) < 3, 'too many'\n"
        extra = "" if bench.round == 1 else fault
        return Proposal(
            PROGRAM.replace("    await ep.finish", extra + "    await ep.finish"), "A try.", memo={"k": 1}
        )


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    stores = [Store.open(make_store(folder / f"s{k}", seed=k)) for k in range(2)]
    problems = stores[0].problems["question_hash"].to_pylist()
    return Arena(stores=stores, holdout=stores, splits=split(problems), seeds=2, workers=1)


@pytest.fixture(scope="module")
def run(arena, tmp_path_factory):
    """A run with a baseline, an evaluated round and a refused one."""
    run = Run.create(tmp_path_factory.mktemp("runs") / "run", {"seed": 0}, {"rounds": 2, "minutes": None})
    shipped = Program("one", PROGRAM.replace("7 * beta", "3 * beta"), True)
    with run.writing():
        search = Search(run, arena, [Lane(Once(), "once")], [shipped], {}, lambda line: None)
        search.measure_baselines()
        search.play_rounds(Budget.of(run.stop))
    return run


@pytest.fixture
def bench(run, arena):
    return Workbench(run, arena, 3, {"one": PROGRAM}, Once().vouches)


def test_history_and_baselines_carry_feedback_figures_only(bench):
    evaluated, refused = bench.history()
    assert evaluated["status"] == "evaluated" and evaluated["feedback"]["hypervolume"] > 0
    assert evaluated["memo"] == {"k": 1}
    assert refused["status"] == "refused" and "smoke test: AssertionError: too many" in refused["error"]
    (baseline,) = bench.baselines()
    assert baseline["name"] == "one"
    assert all("selection" not in record for record in (evaluated, refused, baseline))


def test_results_are_means_over_seeds_under_aliases(bench, run):
    rows = bench.results(1)
    assert {row["store"] for row in rows} == {"s1", "s2"} == set(bench.stores)
    assert {row["problem"] for row in rows} == set(bench.problems)
    assert len(rows) == 2 * len(bench.problems) * len(bench.betas)
    frame = run.episodes(1, "feedback")
    assert sum(row["accuracy"] for row in rows) / len(rows) == pytest.approx(frame["correct"].mean())
    assert all(row["branches"] == 1 + round(7 * row["beta"]) and row["rounds"] == 2 for row in rows)


def test_traces_show_one_episode(bench):
    first = {"store": "s2", "problem": "p02", "beta": 1.0}
    trace = bench.traces(1, **first)
    assert trace == bench.traces(1, seed=bench.seeds[0], **first)
    assert [action["do"] for entry in trace[:-1] for action in entry["actions"]] == ["branch", "finish"]
    assert trace[1]["notes"] == ["opened 8"]
    assert set(trace[-1]) >= {"answer", "correct"}


def test_nothing_a_proposer_can_reach_tells_which_problems_they_are(bench, arena):
    shown = [
        bench.history(),
        bench.baselines(),
        bench.results(1),
        bench.read_controller(1),
        bench.try_draft(PROGRAM),
    ]
    shown += [bench.traces(1, store="s1", problem=problem, beta=1.0) for problem in bench.problems]
    text = json.dumps([*shown, bench.api, bench.examples, bench.stores, bench.problems])
    for store in arena.stores:
        for name in ("question", "question_hash"):
            column = store.problems[name].to_pylist() if name in store.problems.column_names else []
            assert not any(value in text for value in column)
        assert str(store.path) not in text
    assert len(bench.problems) == len(arena.splits.feedback) < len(arena.stores[0].problems)
    assert min(bench.seeds) >= 1_000_000


def test_what_is_not_there_is_a_lookup_error(bench):
    with pytest.raises(LookupError, match="round 9 left no controller"):
        bench.read_controller(9)
    with pytest.raises(LookupError, match="round 2 was not evaluated"):
        bench.results(2)
    episode = {"store": "s1", "problem": "p01", "beta": 0.0, "seed": bench.seeds[0]}
    for key, value in (("store", "s9"), ("problem", "p99"), ("seed", 0)):
        with pytest.raises(LookupError, match=f"no {key} .*there are"):
            bench.traces(1, **(episode | {key: value}))


def test_drafts_are_checked_then_run(bench):
    assert not bench.try_draft("import os")["ok"]
    assert "not Python" in bench.try_draft("def (")["error"]
    raises = bench.try_draft(PROGRAM.replace("await ep.finish(ids)", "1 / 0"))
    assert not raises["ok"] and "ZeroDivisionError" in raises["error"]
    good = bench.try_draft(PROGRAM)
    assert good["ok"] and [point["beta"] for point in good["points"]] == list(bench.betas)


def test_the_generator_depends_on_seed_and_round_alone(run, arena, bench):
    again = Workbench(run, arena, 3, {}, Once().vouches).rng
    other = Workbench(run, arena, 4, {}, Once().vouches).rng
    first = bench.rng.random()
    assert first == again.random() != other.random()


def test_calls_are_added_up(bench, run):
    bench.record_call({"prompt_tokens": 5, "completion_tokens": 2, "cost_usd": 0.5, "model": "m"})
    bench.record_call({"prompt_tokens": 1, "completion_tokens": 1, "cost_usd": None})
    assert run.calls()[0]["round"] == 3
    assert bench.spent() == Usage(2, 6, 3, 0, None)
