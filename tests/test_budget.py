import time

import pytest

from search_agent.archive import Run
from search_agent.budget import Budget, preflight, reserve, since_best
from search_agent.desk import Lane
from search_agent.proposal import Usage
from search_agent.proposers.command import CommandProposer


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "run", {"seed": 0}, {})
    with run.writing():
        yield run


def archive(run, *areas, calls=1):
    """A round each: its hypervolume, or None for one that failed, or minus it for one unfit to win.

    Each took so many calls of a model.
    """
    for area in areas:
        number = len(run.rounds()) + 1
        status = "failed" if area is None else "evaluated"
        figures = None if area is None else {"hypervolume": abs(area)}
        record = {"round": number, "status": status, "selection": figures, "monotone": (area or 0) > 0}
        run.add(number, record | {"usage": {"calls": calls}})


def call(run, tokens=1000, cost=0.5):
    run.record_call({"prompt_tokens": tokens, "completion_tokens": tokens // 10, "cost_usd": cost})


def test_without_bounds_it_never_ends(run):
    archive(run, *[0.5] * 30)
    call(run, 10**9, 10**6)
    assert Budget().used_up(run, 10**6, None) == ""


def test_rounds_count_what_is_under_way(run):
    assert Budget(rounds=3).used_up(run, 2, None) == ""
    assert Budget(rounds=3).used_up(run, 3, None) == "3 rounds"


def test_time_leaves_room_for_one_program_at_least(run):
    budget = Budget(minutes=1.5)
    assert budget.deadline(100.0, 30.0) == 160.0
    past = time.monotonic() - 1
    assert budget.used_up(run, 0, past) == ""
    assert budget.used_up(run, 1, past) == "1.5 minutes"
    assert budget.used_up(run, 1, time.monotonic() + 60) == ""


def test_money_and_tokens_are_those_of_all_calls(run):
    call(run)
    money, tokens = Budget(max_cost=1.0), Budget(max_total_tokens=2200)
    assert not money.used_up(run, 1, None) and not tokens.used_up(run, 1, None)
    call(run)
    assert money.used_up(run, 1, None) == "$1 spent"
    assert tokens.used_up(run, 1, None) == "2200 tokens of models"


def test_a_plateau_is_so_many_rounds_without_a_new_best(run):
    archive(run, None, 0.5, None, 0.4, 0.5, -0.9)
    assert since_best(run) == 4
    assert Budget(plateau=4).used_up(run, 6, None) == "4 rounds without a new best"
    archive(run, 0.51)
    assert since_best(run) == 0 and Budget(plateau=4).used_up(run, 7, None) == ""


NOTHING = Usage()


class FakeArena:
    """As much of an arena as an estimate looks at."""

    seeds, final_seeds = 20, 100
    stores, holdout = ["s"], ["a", "b"]

    class splits:
        feedback, selection, holdout = range(10), range(20), range(5)


def warned(budget, run, estimate=NOTHING, deadline=None):
    return list(preflight(budget, run, FakeArena, [Lane(None, "model", estimate=estimate)], deadline))


DEAR = Usage(8, 200_000, 16_000, 0, 0.41)


def test_a_budget_for_a_proposal_or_two_is_warned_of(run):
    (one,) = warned(Budget(max_cost=0.5), run, DEAR)
    assert (
        one == "--max-cost 0.5 leaves room for about 1 proposal (one costs about $0.41), "
        "which is hardly a search: raise it"
    )
    (two,) = warned(Budget(max_total_tokens=500_000), run, DEAR)
    assert "about 2 proposals (one takes about 216,000 tokens)" in two
    assert warned(Budget(max_cost=5, max_total_tokens=10**7), run, DEAR) == []
    assert warned(Budget(max_cost=0.5, max_total_tokens=500), run) == [], "who calls no model costs nothing"


def test_a_bound_on_what_nobody_tells_us_is_warned_of(run):
    assert warned(Budget(max_cost=5.0, rounds=10), run, CommandProposer.estimate) == [
        "--max-cost does not bound what model spends, which it alone knows; --rounds and --minutes do"
    ]
    assert warned(Budget(rounds=10), run, CommandProposer.estimate) == []


def test_experience_replaces_the_estimate(run):
    archive(run, 0.5, 0.6)
    call(run, cost=0.02)
    assert warned(Budget(max_cost=0.5), run, DEAR) == []
    (few,) = warned(Budget(max_cost=0.04), run, DEAR)
    assert "about 2 proposals (one costs about $0.01)" in few


def test_rounds_that_cost_nothing_make_no_other_cheaper(run):
    archive(run, 0.5)
    archive(run, *[0.5] * 9, calls=0)
    call(run, cost=0.02)
    (few,) = warned(Budget(max_cost=0.05), run, DEAR)
    assert "about 1 proposal (one costs about $0.02)" in few


def test_time_for_a_program_or_two_is_warned_of(run):
    run.add("one", {"name": "one"})
    run.write("clock.json", {"baselines": 110.0})
    # A baseline plays 10 x 20 + 20 x 100 episodes a beta in 110 s, a round 600: 30 s.
    (few,) = warned(Budget(minutes=9), run, deadline=time.monotonic() + 75)
    assert "--minutes 9 leaves room for about 2 proposals (measuring one takes about 30 s)" in few
    assert warned(Budget(minutes=9), run, deadline=time.monotonic() + 300) == []
    # Four finalists and two programs on two stores: 4 x 20 + 2 x 2 x 5 problems, 100 seeds, at 20 a second.
    assert reserve(run, FakeArena) == pytest.approx(100 * 100 / 20)
