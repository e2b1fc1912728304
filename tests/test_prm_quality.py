"""Areas under ROC curves of step scores, against counting every pair of branches."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from forests import Node, Problem, Trees, trees
from hypothesis import given

from collect.prm.quality import measure


def steps_of_branches(trees: Trees) -> list[tuple[int, int, float, bool]]:
    """(problem, number of the step, score, right) of every step of every branch that ended."""
    found = []
    for number, problem in enumerate(trees.problems):
        for leaf in problem.nodes:
            if not leaf.end:
                continue
            path, node = [], leaf
            while node is not None:
                path[:0] = node.scores
                node = node.parent
            found += [
                (number, step, score, leaf.answer in problem.right) for step, score in enumerate(path, 1)
            ]
    return found


def area(steps, within: bool) -> float:
    wins = pairs = 0.0
    for good, bad in product([s for s in steps if s[3]], [s for s in steps if not s[3]]):
        if not within or good[0] == bad[0]:
            pairs += 1
            wins += (np.float32(good[2]) > np.float32(bad[2])) + (good[2] == bad[2]) / 2
    return wins / pairs if pairs else float("nan")


@given(trees())
def test_areas_equal_a_count_of_all_pairs(made) -> None:
    made.has_scores = True
    # Ties within a problem as well: the drawn scores differ from node to node.
    for problem in made.problems:
        for node in problem.nodes:
            node.scores = tuple(round(score * 8) / 8 for score in node.scores)
    steps = steps_of_branches(made)
    found = measure(made.forest())
    assert found.all.overall == pytest.approx(area(steps, within=False), nan_ok=True)
    assert found.all.within == pytest.approx(area(steps, within=True), nan_ok=True)
    both = [{right for number, _, _, right in steps if number == p} for p in range(len(made.problems))]
    assert found.problems == sum(len(kinds) == 2 for kinds in both)
    expected = {}
    for first, last in [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32)]:
        here = [each for each in steps if first <= each[1] <= last]
        if not np.isnan(area(here, within=False)):
            expected[first, last] = (area(here, False), area(here, True))
    assert [ends for ends, _ in found.by_depth] == list(expected)
    for ends, found_area in found.by_depth:
        assert (found_area.overall, found_area.within) == pytest.approx(expected[ends], nan_ok=True)


def chains(scores: list[list[float]], right: list[bool]) -> Trees:
    """A problem a row, a branch of one scored step an entry."""

    def branch(score: float, ok: bool) -> Node:
        return Node(5, int(not ok), end=1, scores=(score,))

    rows = [[branch(*each) for each in zip(row, right, strict=True)] for row in scores]
    return Trees([Problem(row, frozenset({0}), 2) for row in rows], has_scores=True)


def test_a_prm_that_only_knows_hard_problems_is_warned_of() -> None:
    easy = chains([[0.9, 0.9, 0.9, 0.9]], [True, True, True, False]).problems
    hard = chains([[0.1, 0.1, 0.1, 0.1]], [True, False, False, False]).problems
    found = measure(Trees(easy + hard, has_scores=True).forest())
    assert (found.all.overall, found.all.within) == (0.75, 0.5)
    assert "within a problem" in found.warning and "0.500" in found.warning


@pytest.mark.parametrize("sign", [1, -1, 0])
def test_a_warning_unless_scores_tell_right_from_wrong(sign) -> None:
    scores = [[0.5 + sign * shift for shift in (0.1, 0.2, 0.3, -0.1, -0.2, -0.3)]]
    found = measure(chains(scores, [True, True, True, False, False, False]).forest())
    assert found.all.overall == found.all.within == (1 + sign) / 2
    assert (found.warning is None) == (sign == 1)
    assert found.lines()[1].split() == ["all", f"{(1 + sign) / 2:.3f}", f"{(1 + sign) / 2:.3f}", "6"]


def test_steps_without_a_score_are_left_out_and_counted() -> None:
    forest = chains([[0.9, 0.1, 0.5]], [True, False, False]).forest()
    prm = forest.prm.copy()
    prm[1] = np.nan
    found = measure(replace(forest, prm=prm))
    assert (found.all.overall, found.all.steps, found.unscored) == (1.0, 2, 1)


def test_where_nothing_can_be_said_nothing_is() -> None:
    found = measure(chains([[0.9, 0.1]], [True, True]).forest())
    assert np.isnan(found.all.overall) and found.problems == 0
    assert found.by_depth == [] and found.warning is None
    with pytest.raises(ValueError, match="no PRM scores"):
        measure(replace(chains([[0.5]], [True]).forest(), prm=None, prm_first=None))


def test_a_step_keeps_its_number_behind_one_without_a_score() -> None:
    forest = chains([[0.9, 0.1]], [True, False]).forest()
    prm = np.array([np.nan, 0.9, np.nan, 0.1], np.float32)
    found = measure(replace(forest, prm=prm, prm_first=np.array([0, 2, 4])))
    assert [ends for ends, _ in found.by_depth] == [(2, 2)]
    assert (found.all.overall, found.all.steps, found.unscored) == (1.0, 2, 2)
