import random

import pytest

from search_agent.pareto import BEST, elites, founder, holders, parents, would_hold


def record(number, area, *points, parent=None, seeds=20, status="evaluated"):
    made = [{"tokens": tokens, "accuracy": accuracy} for tokens, accuracy in points or [(1000, area)]]
    return {
        "round": number,
        "parent": parent,
        "status": status,
        "feedback": {"hypervolume": area, "points": made, "seeds": seeds},
    }


UNMEASURED = {"round": 90, "parent": None, "status": "failed", "feedback": None}


def test_a_bin_is_a_factor_of_two_and_its_most_accurate_point_holds_it():
    records = [
        record(1, 0.5, (1024, 0.5), (2047, 0.6), (2048, 0.1)),
        record(2, 0.4, (1500, 0.55), (5000, 0.2)),
    ]
    held = {place: (accuracy, each["round"]) for place, (accuracy, each) in holders(records).items()}
    assert held == {10: (0.6, 1), 11: (0.1, 1), 12: (0.2, 2)}
    assert would_hold({"points": [{"tokens": 1025, "accuracy": 0.61}]}, records)
    assert would_hold({"points": [{"tokens": 9, "accuracy": 0.0}]}, records), "a bin that nobody holds"
    assert not would_hold({"points": [{"tokens": 1025, "accuracy": 0.6}]}, [*records, UNMEASURED])


def test_the_archive_keeps_the_best_and_specialists_but_no_luck_on_few_seeds():
    many = [record(number, 1 - number / 100) for number in range(1, BEST + 5)]
    specialist = record(50, 0.01, (64, 0.3))
    lucky = record(51, 0.9, (64, 0.99), seeds=5)
    twin = record(52, 0.9, (64, 0.99), status="duplicate")
    kept = [each["round"] for each in elites([*many, specialist, lucky, twin, UNMEASURED])]
    assert kept == [*range(1, BEST + 1), 50]


def test_parents_are_of_two_lineages_and_a_refiner_starts_from_the_best():
    family = [record(1, 0.5), record(2, 0.6, parent=1), record(3, 0.7, parent=2)]
    others = [record(4, 0.4), record(5, 0.3, parent=4)]
    assert [founder(number, family + others) for number in range(1, 6)] == [1, 1, 1, 4, 4]
    pairs = [parents(family + others, random.Random(seed)) for seed in range(200)]
    assert {founder(first, family + others) for first, _ in pairs} == {1, 4}
    assert all((first <= 3) != (second <= 3) for first, second in pairs)
    refined = {parents(family + others, random.Random(seed), "refine")[0] for seed in range(200)}
    assert refined == {2, 3}


@pytest.mark.parametrize(("records", "found"), [([], []), ([UNMEASURED], []), ([record(1, 0.5)], [1])])
def test_without_an_archive_there_are_no_parents(records, found):
    assert parents(records, random.Random(0)) == found
