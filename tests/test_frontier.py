import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import episodes

from env.forest import Forest
from env.frontier import (
    GRID,
    REFERENCE_BRANCHES,
    Points,
    Reference,
    hypervolume,
    hypervolumes,
    interpolate,
    pareto,
    reference,
)
from env.statistics import Panel

POINTS = st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 20)), min_size=1, max_size=8)
CORNER = (np.array(5000.0), np.array(0.3))


def columns(points):
    tokens, accuracy = np.array(points, float).T
    return tokens, accuracy / 20


def area(points, corner=CORNER) -> float:
    return float(hypervolume(*columns(points), *corner))


def dominated(point, others) -> bool:
    return any(o[0] <= point[0] and o[1] >= point[1] and o != point for o in others)


@given(POINTS)
def test_the_frontier_is_the_points_that_no_other_dominates(points) -> None:
    kept = [points[k] for k in pareto(*columns(points))]
    assert len(kept) == len(points)
    assert set(kept) == {point for point in points if not dominated(point, points)}
    assert kept == sorted(kept)


def test_a_frontier_for_each_resample() -> None:
    tokens = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    accuracy = np.array([[0.1, 0.3, 0.2], [0.1, 0.3, 0.2]])
    assert pareto(tokens, accuracy).tolist() == [[0, 1, 1], [2, 1, 1]]


@given(POINTS)
def test_hypervolume_agrees_with_counting_cells(points) -> None:
    tokens, accuracy = columns(points)
    cells = 200
    x = np.log(5000) * (np.arange(cells) + 0.5) / cells
    y = 0.3 + 0.7 * (np.arange(cells) + 0.5) / cells
    beaten = np.zeros((cells, cells), bool)
    for t, a in zip(tokens, accuracy, strict=True):
        beaten |= (x[:, None] >= np.log(t)) & (y[None, :] <= a)
    # A staircase crosses at most 2 x cells of the cells.
    assert area(points) == pytest.approx(beaten.mean() * np.log(5000) * 0.7, abs=2 / cells * np.log(5000))


@given(POINTS, POINTS)
def test_another_point_never_loses_area(points, more) -> None:
    assert area(points + more) >= area(points) - 1e-12


@given(POINTS)
def test_dominated_points_and_order_do_not_matter(points) -> None:
    kept = [point for point in points if not dominated(point, points)]
    assert area(points) == pytest.approx(area(kept))
    assert area(points) == pytest.approx(area(points[::-1]))


@given(POINTS)
def test_nothing_beyond_the_reference_counts(points) -> None:
    inside = [p for p in points if p[0] < 5000 and p[1] / 20 > 0.3]
    assert area(points) == pytest.approx(area(inside) if inside else 0.0)


@given(POINTS)
def test_the_unit_of_tokens_does_not_matter(points) -> None:
    tokens, accuracy = columns(points)
    corner = (np.array(5000.0), np.array(0.3))
    assert hypervolume(tokens * 8, accuracy, corner[0] * 8, corner[1]) == pytest.approx(area(points, corner))


def test_units_are_accuracy_times_nats() -> None:
    assert hypervolume(
        np.array([1000 / np.e]), np.array([0.5]), np.array(1000.0), np.array(0.4)
    ) == pytest.approx(0.1)


def test_a_controller_that_spends_nothing_wins_a_finite_area() -> None:
    won = hypervolume(np.array([0.0]), np.array([0.5]), np.array(np.e), np.array(0.4))
    assert won == pytest.approx(0.1)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(-5, 5)), min_size=1, max_size=6),
    st.lists(st.floats(-2, 12), min_size=1, max_size=5),
)
def test_interpolation_is_numpys_for_every_resample(points, at) -> None:
    x = np.cumsum([0.5 + p[0] for p in points])
    y = np.array([p[1] for p in points])
    twice = interpolate(np.stack([x, x + 1]), np.stack([y, -y]), np.stack([at, at]))
    np.testing.assert_allclose(twice[0], np.interp(at, x, y), atol=1e-9)
    np.testing.assert_allclose(twice[1], np.interp(at, x + 1, -y), atol=1e-9)


def test_interpolation_takes_repeated_points() -> None:
    x, y = np.array([1.0, 1.0, 3.0, 3.0]), np.array([0.0, 0.0, 1.0, 1.0])
    assert interpolate(x, y, np.array([0.0, 1.0, 2.0, 3.0, 4.0])).tolist() == [0, 0, 0.5, 1, 1]


def forest(parent, tokens, answer, end, *, arm=None, raw=None, first_node=None) -> Forest:
    """Trees whose class 0 is right, and raw string 1."""
    n = len(parent)
    first_node = [0, n] if first_node is None else first_node
    p = len(first_node) - 1
    bounds = np.arange(p + 1, dtype=np.int64) * 2
    return Forest(
        first_node=np.array(first_node, np.int64),
        parent=np.array(parent, np.int32),
        tokens=np.array(tokens, np.int32),
        answer=np.array(answer, np.int32),
        raw=np.array(answer if raw is None else raw, np.int32),
        probed=np.zeros(n, bool),
        probe_tokens=np.full(n, -1, np.int32),
        end=np.array(end, np.uint8),
        arm=np.zeros(n, np.int16) if arm is None else np.array(arm, np.int16),
        prm=None,
        prm_first=None,
        confidence=None,
        logprob=None,
        class_correct=np.array([True, False] * p),
        class_first=bounds,
        raw_correct=np.array([False, True] * p),
        raw_first=bounds,
        raw_strings=pa.array(["x", "y"] * p),
        question_hash=[f"q{k}" for k in range(p)],
        segment_tokens=None,
    )


def test_the_reference_of_independent_chains() -> None:
    # Problem 0: chains of 10+20 (right) and 50 (wrong). Problem 1: one chain of 7, nothing parsed.
    chains = forest(
        parent=[-1, 0, -1, -1],
        tokens=[10, 20, 50, 7],
        answer=[1, 0, 1, -1],
        end=[0, 1, 2, 1],
        first_node=[0, 3, 4],
    )
    found = reference(chains)
    assert found.tokens == {"q0": REFERENCE_BRANCHES * 40, "q1": REFERENCE_BRANCHES * 7}
    assert found.accuracy == {"q0": 0.5, "q1": 0.0}


def test_the_reference_of_a_tree_weighs_leaves_by_how_often_branches_reach_them() -> None:
    # Two roots; the first forks in three (two of them right), the second ends at once (wrong).
    tree = forest(
        parent=[-1, -1, 0, 0, 0],
        tokens=[100, 10, 6, 12, 18],
        answer=[-2, 1, 0, 0, 1],
        end=[0, 1, 1, 1, 1],
    )
    found = reference(tree)
    assert found.tokens["q0"] == pytest.approx(REFERENCE_BRANCHES * (0.5 * (100 + 12) + 0.5 * 10))
    assert found.accuracy["q0"] == pytest.approx(0.5 * 2 / 3)


def test_the_reference_is_about_the_first_arm() -> None:
    arms = forest(
        parent=[-1, -1, 1], tokens=[10, 1000, 1000], answer=[0, -2, 1], end=[1, 0, 1], arm=[0, 1, 1]
    )
    found = reference(arms)
    assert (found.tokens["q0"], found.accuracy["q0"]) == (REFERENCE_BRANCHES * 10, 1.0)


def test_the_published_protocol_grades_raw_strings() -> None:
    chains = forest(parent=[-1, -1], tokens=[1, 1], answer=[0, 0], raw=[0, 1], end=[1, 1])
    assert reference(chains, "standard").accuracy["q0"] == 1.0
    assert reference(chains, "published").accuracy["q0"] == 0.5


def sweep(levels, cost=1000, **where) -> pl.DataFrame:
    """A controller that solves the first `level` of 20 problems at each beta, for cost x (1 + its place)."""
    return pl.concat(
        [
            episodes(np.arange(20)[:, None] < level, cost * (1 + k), beta=beta, **where)
            for k, (beta, level) in enumerate(zip(GRID, levels, strict=False))
        ]
    )


def reference_of(problems=20, tokens=10_000.0, accuracy=0.1) -> Reference:
    names = [f"q{p}" for p in range(problems)]
    return Reference(dict.fromkeys(names, tokens), dict.fromkeys(names, accuracy))


def test_hypervolumes_are_averaged_over_stores_and_sorted() -> None:
    frame = pl.concat(
        [
            sweep([2, 4, 6, 8, 10], store="a"),
            sweep([2, 4, 6, 8, 12], store="b"),
            sweep([4, 6, 8, 10, 12], store="a", controller="better"),
            sweep([4, 6, 8, 10, 14], store="b", controller="better"),
        ]
    )
    better, worse = hypervolumes(frame, {"a": reference_of(), "b": reference_of()})
    assert (better.controller, worse.controller) == ("better", "c")
    for found in (better, worse):
        assert found.estimate.value == pytest.approx(np.mean(list(found.by_store.values())))
        assert found.estimate.interval[0] < found.estimate.value < found.estimate.interval[1]
    tokens, accuracy = 1000.0 * np.arange(1, 6), np.array([2, 4, 6, 8, 10]) / 20
    expected = hypervolume(tokens, accuracy, np.array(10_000.0), np.array(0.1))
    assert worse.by_store["a"] == pytest.approx(expected)
    difference = better.minus(worse)
    assert difference.value == pytest.approx(better.estimate.value - worse.estimate.value)
    # Paired: the difference is known far better than either value.
    assert difference.error < min(better.estimate.error, worse.estimate.error)


def test_a_controller_without_the_whole_grid_is_left_out() -> None:
    frame = pl.concat([sweep([2, 4, 6, 8, 10]), sweep([9, 9], controller="partial")])
    assert [found.controller for found in hypervolumes(frame, {"stores/a": reference_of()})] == ["c"]
    assert hypervolumes(frame.filter(pl.col("beta") > 1), {}) == []


def test_betas_off_the_grid_win_nothing() -> None:
    frame = sweep([2, 4, 6, 8, 10])
    extra = episodes(np.ones((20, 1)), 10, beta=0.4)
    alone, with_extra = (
        hypervolumes(f, {"stores/a": reference_of()})[0] for f in (frame, pl.concat([frame, extra]))
    )
    assert alone.estimate == with_extra.estimate


def test_the_reference_moves_with_the_problems() -> None:
    hard = Reference({f"q{p}": 10_000.0 for p in range(20)}, {f"q{p}": float(p < 10) for p in range(20)})
    frame = sweep([10] * 5).filter(pl.col("problem").is_in([f"q{p}" for p in range(10)]))
    # On the ten problems that one branch always solves, solving all of them wins nothing.
    assert hypervolumes(frame, {"stores/a": hard})[0].estimate.value == 0.0


def test_points_are_averages_over_stores_of_log_tokens_and_accuracy() -> None:
    frame = pl.concat([sweep([5, 4], store="a"), sweep([15, 18], store="b", cost=3000)])
    points = Points.of(Panel.of(frame), np.random.default_rng(0))
    np.testing.assert_allclose(np.exp(points.tokens[0]), [2000, 4000])
    np.testing.assert_allclose(points.accuracy[0], [0.5, 0.55])
    assert points.frontier().points == points.points
    assert points.of_controller("nobody").points == []
