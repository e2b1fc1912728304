"""What a certificate concludes from numbers: within a margin, beyond it, or neither; alike or not."""

import itertools
import math

import numpy as np
import pytest
from forests import Node, Problem, Trees

from env.certificate.branches import PERMUTATIONS, TESTS, Branches, p_values, permutations_for, stored
from env.certificate.equivalence import Finding, Margin, Verdict, gap, student

POINTS, RATIO = Margin(0.05, False), Margin(0.10, True)


def finding(live, replay, margin=POINTS, tests=10) -> Finding:
    return Finding.of("figure", np.array(live, float), np.array(replay, float), margin, tests)


@pytest.mark.parametrize(
    ("level", "degrees", "expected"),
    [(0.95, 9, 1.833), (0.975, 5, 2.571), (0.995, 23, 2.807), (0.9995, 9, 4.781), (0.95, 10**6, 1.645)],
)
def test_quantiles_are_those_of_the_tables(level, degrees, expected):
    assert student(level, degrees) == pytest.approx(expected, rel=0.01)


def test_problems_that_all_agree_are_proof_only_if_they_are_many():
    """After Agresti and Min: the half problems added on either side."""
    few, many = finding([1] * 20, [1] * 20), finding([1] * 60, [1] * 60)
    assert few.verdict is Verdict.UNDECIDED and many.verdict is Verdict.HOLDS
    assert few.gap.error == pytest.approx(1 / 22) and few.gap.value == 0
    # Its spread would shrink with their square root only; that they agree shrinks it faster.
    assert 60 < few.needed < 160 and many.needed is None


@pytest.mark.parametrize(("problems", "episodes"), [(20, 64), (40, 16), (60, 4)])
def test_a_change_of_a_few_problems_is_no_proof_of_none_however_many_episodes_they_have(problems, episodes):
    """One problem in twenty is lost altogether: five points, the margin."""
    rng = np.random.default_rng(3)
    kept = rng.random((2000, problems)) >= POINTS.size
    live = rng.binomial(episodes, kept) / episodes
    assert gap(live, np.ones_like(live), False).within(POINTS).mean() < 0.14


def test_a_difference_beyond_the_margin_fails_and_one_astride_it_is_undecided():
    rng = np.random.default_rng(1)
    replay = rng.random(100)
    noise = rng.normal(0, 0.05, 100)
    assert finding(replay + noise, replay).verdict is Verdict.HOLDS
    assert finding(replay + noise + 0.15, replay).verdict is Verdict.FAILS
    astride = finding(replay + noise + 0.05, replay)
    assert astride.verdict is Verdict.UNDECIDED and astride.needed > 100
    low, high = astride.interval
    assert low < 0.05 < high and "points [" in str(astride) and "margin ± 5" in str(astride)
    # Five problems decide nothing, whatever they say.
    assert finding([1] * 5, [0] * 5).verdict is Verdict.UNDECIDED


def test_ratios_are_of_means_and_paired():
    replay = np.array([100.0, 1000, 5000, 20, 300, 700, 900])
    assert finding(replay * 1.02, replay, RATIO).verdict is Verdict.HOLDS
    assert finding(replay * 1.3, replay, RATIO).verdict is Verdict.FAILS
    assert finding(replay / 1.3, replay, RATIO).verdict is Verdict.FAILS
    uneven = finding(replay * [1.5, 0.7, 1.3, 1, 1, 1, 0.8], replay, RATIO)
    assert uneven.verdict is Verdict.UNDECIDED and uneven.interval[0] < 1 < uneven.interval[1]
    assert finding([0] * 9, [0] * 9, RATIO).verdict is Verdict.HOLDS
    assert finding([0] * 9, [3] * 9, RATIO).verdict is Verdict.FAILS
    told = finding(replay * 1.02, replay, RATIO).as_dict()
    assert told["ratio"] == pytest.approx(1.02) and told["margin"] == 0.1 and told["problems"] == 7


def test_it_errs_no_more_often_than_it_says():
    """At the margin itself "holds" is said in 5%; where nothing differs "fails" in 1%, all tests together."""
    rng = np.random.default_rng(2)
    tests, problems, runs = 10, 12, 4000
    noise = rng.normal(0, 0.1, (runs, problems))
    at_margin = gap(noise + POINTS.size, np.zeros_like(noise), False).within(POINTS)
    assert at_margin.mean() < 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    alike = np.exp(noise)
    assert gap(alike, np.ones_like(noise), True).beyond(RATIO, tests).mean() < 0.01 / tests + 0.002
    # And what is far off is found.
    assert gap(noise + 0.7, np.zeros_like(noise), False).beyond(POINTS, tests).mean() > 0.95


def branches(correct, tokens, answers) -> Branches:
    return Branches(np.array(correct, bool), np.array(tokens), answers)


def test_the_more_is_tested_the_more_is_permuted():
    """Of so many tests that each has a ten-thousandth, one must still be able to fail."""
    fresh, known = branches([0] * 8, [5] * 8, [[1]] * 8), branches([1] * 40, [5] * 40, [[2]] * 40)
    level = 0.0001
    found = p_values([(fresh, known)] * 10, np.random.default_rng(0), permutations_for(level))
    assert found["pass rate"] < level


def test_permutations_give_what_all_arrangements_give():
    fresh = branches([1, 1], [5, 9], [[3, 1], [1]])
    known = branches([0, 1, 0, 0], [1, 4, 12, 3], [[2], [3, 1], [2, 2], [4, 3]])
    found = p_values([(fresh, known)], np.random.default_rng(0), 20_000)
    assert tuple(found) == TESTS

    def exact(score):
        middle = np.mean(score)
        sums = [abs(sum(score[n] - middle for n in some)) for some in itertools.combinations(range(6), 2)]
        return np.mean([each >= sums[0] - 1e-9 for each in sums])

    assert found["pass rate"] == pytest.approx(exact([1, 1, 0, 1, 0, 0]), abs=0.02)
    assert found["length"] == pytest.approx(exact([4, 5, 1, 3, 6, 2]), abs=0.02)
    said = np.array([[3, 1], [1, 1], [2, 2], [3, 1], [2, 2], [4, 3]])
    alike = np.mean(said[:, None] == said[None], axis=2)
    assert found["how typical answers are"] == pytest.approx(exact(alike.mean(0)), abs=0.02)

    def distance(some):
        rest = [n for n in range(6) if n not in some]
        both = [alike[np.ix_(a, b)].mean() for a, b in ((some, some), (rest, rest), (some, rest))]
        return both[0] + both[1] - 2 * both[2]

    distances = [distance(list(some)) for some in itertools.combinations(range(6), 2)]
    expected = np.mean([each >= distances[0] - 1e-9 for each in distances])
    assert found["answers by depth"] == pytest.approx(expected, abs=0.02)


def drawn(rng, count, right=0.5, longer=1.0, classes=4):
    answers = [rng.integers(classes, size=rng.integers(1, 4)).tolist() for _ in range(count)]
    return branches(rng.random(count) < right, (longer * rng.integers(50, 150, count)).astype(int), answers)


def test_branches_of_one_kind_are_told_apart_by_chance_alone_and_others_surely():
    rng = np.random.default_rng(3)
    found = [p_values([(drawn(rng, 3), drawn(rng, 5)) for _ in range(4)], rng, 99) for _ in range(300)]
    for name in TESTS:
        chances = np.array([each[name] for each in found])
        # Few values are possible, so that many are equal, and those count against a difference.
        assert 0.43 < chances.mean() < 0.75 and (chances <= 0.05).mean() < 0.1
    for test, options in (
        ("pass rate", {"right": 0.9}),
        ("length", {"longer": 1.6}),
        ("how typical answers are", {"classes": 1}),
        ("answers by depth", {"classes": 1}),
    ):
        pairs = [(drawn(rng, 4, **options), drawn(rng, 12)) for _ in range(12)]
        assert p_values(pairs, rng, PERMUTATIONS)[test] < 0.001, test


def test_a_stored_branch_goes_on_with_its_own_continuation():
    root, other = Node(5, 1, 2), Node(7, 0, 3, end=1)
    onward, fork = Node(11, 2, 1, parent=root), Node(100, 3, 1, end=1, parent=root)
    last = Node(13, 0, -1, end=2, parent=onward)
    root.children, onward.children = [onward, fork], [last]
    forest = Trees(
        [Problem([Node(1, 0, end=1)], frozenset(), 1), Problem([root, other, onward, fork, last], {0}, 4)]
    )
    found = stored(forest.forest(), 1)
    assert found.tokens.tolist() == [29, 7] and found.correct.tolist() == [True, True]
    assert found.answers == [[1, 2, 0], [0]]
    assert stored(forest.forest(), 1, probed=False).answers == [[0], [0]]
    assert len(stored(forest.forest(), 1, arm=1)) == 0
