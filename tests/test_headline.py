import numpy as np
import polars as pl
import pytest
from synthetic import episodes

from env.comparison import ComparisonError
from env.headline import describe, headline
from env.statistics import Point

PLACE = np.arange(40)[:, None]


def row(controller, level, tokens, beta=0.5, **where) -> pl.DataFrame:
    """Solves the first `level` of 40 problems."""
    return episodes(PLACE < level, tokens, beta=beta, controller=controller, **where)


def baseline(**where) -> pl.DataFrame:
    rows = [("1", 10, 1000), ("16", 20, 16_000), ("64", 30, 64_000)]
    return pl.concat(
        [
            row("sc", level, tokens, sequential=1000, settings=f'{{"max_branches": {n}}}', **where)
            for n, level, tokens in rows
        ]
    )


def test_the_dearest_point_reached_is_the_one_matched() -> None:
    frame = pl.concat([baseline(), row("mine", 20, 4000, sequential=1200), row("mine", 12, 500, 0.0)])
    found = headline(frame, "mine", "sc")
    assert found.baseline == "sc with max_branches=16"
    assert found.tokens.value == pytest.approx(0.25)
    assert found.sequential.value == pytest.approx(1.2)
    assert str(found) == (
        "mine: the accuracy of sc with max_branches=16 [+0.0, +0.0 points] for 25% of its tokens [25, 25],"
        " 1.2 times its latency; 0 problems decide this"
    )


def test_between_two_points_tokens_are_mixed_in_logarithms() -> None:
    frame = pl.concat([baseline(), row("mine", 15, 1000, 0.0), row("mine", 25, 4000, 1.0)])
    found = headline(frame, "mine", "sc")
    assert found.tokens.value == pytest.approx(2000 / 16_000)
    assert found.accuracy.value == pytest.approx(0)
    assert found.accuracy.interval[0] < 0 < found.accuracy.interval[1]
    assert found.in_play == 10


def test_below_and_above_are_said() -> None:
    below = headline(pl.concat([baseline(), row("mine", 8, 500)]), "mine", "sc")
    assert str(below).startswith("mine: 5.0 points below the accuracy of sc with max_branches=1 [")
    above = headline(pl.concat([baseline(), row("mine", 40, 500)]), "mine", "sc")
    assert str(above).startswith("mine: 25.0 points above the accuracy of sc with max_branches=64 [")


def test_a_point_may_be_chosen_and_named() -> None:
    frame = pl.concat([baseline(), row("mine", 30, 3200)])
    at = Point("sc", 0.5, '{"max_branches": 16}')
    found = headline(frame, "mine", "sc", at=at, names={at: "self-consistency at 16"})
    assert found.baseline == "self-consistency at 16"
    assert found.tokens.value == pytest.approx(0.2)


def test_the_interval_shows_how_costs_vary_between_problems() -> None:
    cost = np.random.default_rng(0).lognormal(8, 1, (40, 1)).astype(int)
    frame = pl.concat([row("sc", 20, 8000), row("mine", 20, cost)])
    found = headline(frame, "mine", "sc")
    low, high = found.tokens.interval
    assert found.tokens.value == pytest.approx(cost.mean() / 8000)
    assert low < found.tokens.value < high
    assert high / low > 1.2


def test_a_single_problem_has_a_sentence_without_brackets() -> None:
    frame = pl.concat([episodes([[1]], 100, controller="sc"), episodes([[1]], 50, controller="mine")])
    assert str(headline(frame, "mine", "sc")) == (
        "mine: the accuracy of sc at beta 0.5 for 50% of its tokens,"
        " 0.5 times its latency; 0 problems decide this"
    )


def test_a_single_problem_that_decides() -> None:
    outcomes = np.ones((3, 1), bool)
    other = np.array([[1], [1], [0]], bool)
    frame = pl.concat([episodes(other, 100, controller="sc"), episodes(outcomes, 50, controller="mine")])
    assert str(headline(frame, "mine", "sc")).endswith("; 1 problem decides this")


def test_both_must_have_run_everywhere() -> None:
    frame = pl.concat([baseline(), baseline(store="stores/b"), row("mine", 20, 100)])
    with pytest.raises(ComparisonError, match="mine was not evaluated on every store"):
        headline(frame, "mine", "sc")


def test_points_are_named_by_overrides_or_beta() -> None:
    assert describe(Point("c", 0.25, "{}")) == "c at beta 0.25"
    assert describe(Point("c", 0.25, '{"n": 4, "t": 0.5}')) == "c with n=4, t=0.5"
