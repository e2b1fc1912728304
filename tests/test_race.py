import polars as pl
import pytest
from made_up import store as make_store

from env.program import Program
from env.store import Store
from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.budget import Budget
from search_agent.desk import Lane
from search_agent.loop import Search
from search_agent.proposal import Proposal
from search_agent.race import LEADERS, leaders
from search_agent.scoring import behaviour, crossed, gain, score
from search_agent.splits import split
from search_agent.workbench import Workbench

PROGRAM = """
from controllers.voting import majority

def schedule(beta):
    return {{"n": {low} + round({more} * beta)}}

async def solve(ep, n):
    ids = await ep.branch(n, probe=False)
    await ep.finish(ids)
    return {answer}
"""
VOTE = "majority(ep.answer[i] for i in ids)"


def program(low=1, more=7, answer=VOTE):
    return PROGRAM.format(low=low, more=more, answer=answer)


class Scripted:
    """Plays a list of programs."""

    name, stamps, settings = "scripted", (), {}

    def __init__(self, *script):
        self.script = script

    def vouches(self, source, memo):
        return True

    def propose(self, bench):
        return Proposal(self.script[bench.round - 1], "A try.")


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    """Enough problems in play for the race to be able to tell anything; two models of the same problems."""
    folder = tmp_path_factory.mktemp("stores")
    stores = [Store.open(make_store(folder / f"s{k}", seed=k, problems=36)) for k in range(2)]
    problems = stores[0].problems["question_hash"].to_pylist()
    return Arena(stores=stores, holdout=stores, splits=split(problems), seeds=8, workers=1)


def searched(arena, path, *script, ablated=()):
    run = Run.create(path, {"seed": 0}, {"rounds": len(script)})
    with run.writing():
        search = Search(
            run, arena, [Lane(Scripted(*script), "s")], [], {}, lambda line: None, ablated=ablated
        )
        search.play_rounds(Budget.of(run.stop))
    return run


GOOD = [program(1, more) for more in (15, 12, 10, 8)]
HOPELESS = program(1, 15, "-1")
TWIN = program(1, 15).replace("ids", "opened")


@pytest.fixture(scope="module")
def run(arena, tmp_path_factory):
    assert len(GOOD) == LEADERS
    return searched(arena, tmp_path_factory.mktemp("runs") / "run", *GOOD, HOPELESS, TWIN, program(1, 14))


def test_who_is_most_likely_not_among_the_best_is_dropped_after_a_few_seeds(run, arena):
    *good, hopeless, _, late = run.rounds()
    assert [record["status"] for record in good] == ["evaluated"] * LEADERS
    assert hopeless["status"] == "dropped" and hopeless["selection"] is None
    assert hopeless["feedback"]["seeds"] == 2 == arena.seeds // 4
    value, low, high = hopeless["race"]["gain"]
    assert low < value < high < 0 < hopeless["race"]["error"]
    assert set(run.episodes(5, "feedback")["seed"]) == set(arena.feedback_seeds[:2])
    assert run.episodes(5, "selection") is None
    assert late["status"] in ("evaluated", "dropped") and late["feedback"]["seeds"] == arena.seeds


def test_who_behaves_like_another_is_a_duplicate_and_not_measured_again(run, arena):
    twin = run.rounds()[5]
    assert twin["status"] == "duplicate" and "does what round 1 does" in twin["error"]
    assert twin["behaviour"] == run.rounds()[0]["behaviour"]
    assert set(run.episodes(6, "feedback")["seed"]) == set(arena.feedback_seeds[:2])


def test_laps_come_to_what_one_evaluation_comes_to(run, arena):
    whole = arena.selection([Program("round 1", GOOD[0], True)])
    order = ["store", "beta", "problem", "seed"]
    assert run.episodes(1, "selection").sort(order).equals(whole.frame.sort(order))
    assert run.rounds()[0]["selection"] == score(whole.frame, arena.references, whole.schedules)


def test_without_racing_everybody_is_measured_whole(arena, tmp_path):
    run = searched(arena, tmp_path / "run", HOPELESS, GOOD[0], TWIN, ablated={"racing"})
    assert [record["status"] for record in run.rounds()] == ["evaluated"] * 3
    assert {record["selection"]["seeds"] for record in run.rounds()} == {arena.seeds}


def test_a_proposer_does_not_hear_who_was_dropped_on_the_selection_problems(run, arena, tmp_path):
    told = Workbench(run, arena, 8, {}, lambda source, memo: True).history()
    for record in told:
        assert "selection" not in record and "race" not in record
    dropped = dict(run.rounds()[4]) | {"race": {"part": "selection"}, "error": "round 2 was better"}
    other = Run.create(tmp_path / "run", {"seed": 0}, {})
    with other.writing():
        other.add(1, dropped | {"round": 1})
    (record,) = Workbench(other, arena, 2, {}, lambda source, memo: True).history()
    assert (record["status"], record["error"]) == ("evaluated", "")


def test_gain_is_paired_and_undecided_where_too_few_problems_are_in_play(run, arena):
    good, poor = run.episodes(1, "feedback"), run.episodes(5, "feedback")
    value, (low, high), _ = gain(good, poor, arena.references)
    assert 0 < low < value < high
    assert gain(poor, good, arena.references).value == pytest.approx(-value)
    areas = [
        score(each.filter(pl.col("seed").is_in(list(set(poor["seed"])))), arena.references)["hypervolume"]
        for each in (good, poor)
    ]
    assert value == pytest.approx(areas[0] - areas[1])
    few = set(good["problem"].unique().sort()[:3])
    assert (
        gain(*(each.filter(pl.col("problem").is_in(list(few))) for each in (good, poor)), arena.references)
        is None
    )


def test_behaviour_tells_programs_apart_by_what_they_do_alone(run):
    frame = run.episodes(1, "feedback")
    shuffled = frame.sample(fraction=1, shuffle=True, seed=1).with_columns(controller=pl.lit("other"))
    assert behaviour(shuffled) == behaviour(frame)
    one = frame.with_row_index().with_columns(
        tokens=pl.col("tokens"), sequential=pl.col("sequential") + (pl.col("index") == 7)
    )
    assert behaviour(one) != behaviour(frame)


def test_crossed_measures_a_choice_where_it_was_not_made(arena):
    """Two programs, each lucky on one half: whoever is chosen there disappoints on the other."""
    frame = pl.concat(arena.selection([Program(name, GOOD[0], True)], range(2)).frame for name in ("a", "b"))
    halves = [pl.col("problem").is_in(list(fold)) for fold in arena.splits.folds]
    lucky = frame.with_columns(
        correct=pl.when(pl.col("controller") == "a").then(halves[0]).otherwise(halves[1])
    )
    apparent = max(
        score(part, arena.references)["hypervolume"]
        for _, part in lucky.group_by("controller", maintain_order=True)
    )
    assert crossed(lucky, arena.references, halves) == 0.0 < apparent


def test_leaders_are_the_best_whose_cost_rises_with_beta(run):
    whole = [record for record in run.rounds() if record["status"] == "evaluated"]
    assert all(record["monotone"] for record in whole)
    ranked = sorted(whole, key=lambda record: -record["selection"]["hypervolume"])
    assert leaders(run) == ranked[:LEADERS]
