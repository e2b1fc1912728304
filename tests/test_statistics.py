import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic import episodes

from env.statistics import EFFECT, RESAMPLES, Estimate, Panel, resample, resolution, summarise

ONE_STRATUM = np.zeros(30, np.int64)


def draws(values, strata=None, seed=0):
    """[1 + RESAMPLES] means of one column of problems."""
    values = np.asarray(values, float)[:, None]
    strata = np.zeros(len(values), np.int64) if strata is None else np.asarray(strata)
    return resample(values, strata, np.random.default_rng(seed))[:, 0]


def test_a_row_has_the_promised_fields_and_is_json() -> None:
    (row,) = summarise(episodes([[1, 0], [1, 1]], settings='{"window": 4}'))
    promised = (
        "store model dataset controller beta settings problems seeds accuracy accuracy_ci tokens tokens_ci"
        " sequential_tokens shortfall errors isolation protocol problems_in_play replayable error rounds"
        " decode_tokens probe_tokens prm_tokens costs"
    )
    assert set(row) == set(promised.split())
    assert json.loads(json.dumps(row, allow_nan=False))["settings"] == {"window": 4}


def test_figures_are_means_over_problems_of_means_over_seeds() -> None:
    many_seeds = episodes([[1, 1, 1, 1]], 100, problems=["easy"], sequential=10)
    one_seed = episodes([[0]], 900, problems=["hard"], sequential=90)
    (row,) = summarise(pl.concat([many_seeds, one_seed]))
    assert (row["accuracy"], row["tokens"], row["sequential_tokens"]) == (0.5, 500, 50)
    assert (row["problems"], row["seeds"]) == (2, 4)


def test_rows_keep_the_order_of_the_frame() -> None:
    order = [("z", 1.0), ("a", 0.0), ("z", 0.0)]
    rows = summarise(pl.concat([episodes([[1]], controller=name, beta=beta) for name, beta in order]))
    assert [(row["controller"], row["beta"]) for row in rows] == order


def test_no_episodes_no_rows() -> None:
    assert summarise(episodes([[1]]).clear()) == []


def test_errors_are_counted_and_the_first_is_quoted() -> None:
    error = ["", "boom", "bang"]
    (row,) = summarise(episodes([[1, 0, 0]], error=error))
    assert (row["errors"], row["error"]) == (2, "boom")
    assert row["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("granted", "replayable"), [(100, True), (99, True), (98, False)])
def test_a_shortfall_over_one_percent_is_not_replayable(granted, replayable) -> None:
    (row,) = summarise(episodes([[1, 1]], asked=100, granted=granted))
    assert row["shortfall"] == pytest.approx(1 - granted / 100)
    assert row["replayable"] is replayable


def test_a_program_that_asks_for_nothing_has_no_shortfall() -> None:
    (row,) = summarise(episodes([[0]], 0, asked=0, granted=0))
    assert (row["shortfall"], row["replayable"]) == (0.0, True)


def test_one_problem_has_no_interval() -> None:
    (row,) = summarise(episodes([[1, 0, 1]]))
    assert row["accuracy_ci"] is None and row["tokens_ci"] is None


def test_all_correct_is_certain_and_nothing_is_in_play() -> None:
    (row,) = summarise(episodes(np.ones((20, 3))))
    assert row["accuracy_ci"] == [1.0, 1.0]
    assert row["problems_in_play"] == 0


def test_in_play_compares_the_rows_of_a_store() -> None:
    frame = pl.concat(
        [
            episodes([[0, 0], [1, 1], [1, 1], [0, 1]], controller="a"),
            episodes([[0, 0], [1, 1], [0, 0], [0, 1]], controller="b"),
            episodes([[0, 0], [1, 1], [0, 0], [0, 0]], controller="b", store="stores/b"),
        ]
    )
    assert [row["problems_in_play"] for row in summarise(frame)] == [2, 2, 0]


def test_the_same_seed_gives_the_same_intervals_and_a_generator_may_be_passed() -> None:
    frame = episodes(np.random.default_rng(0).random((30, 2)) < 0.5)
    assert summarise(frame) == summarise(frame, np.random.default_rng(0))
    assert summarise(frame) != summarise(frame, 1)


def test_the_interval_covers_the_truth_as_often_as_it_says(monkeypatch) -> None:
    monkeypatch.setattr("env.statistics.RESAMPLES", 1000)
    rng, covered = np.random.default_rng(7), 0
    for trial in range(200):
        chance = rng.beta(0.5, 0.5, 40)
        observed = rng.binomial(8, chance) / 8
        low, high = Estimate.of(draws(observed, seed=trial), 40).interval
        covered += low <= 0.5 <= high
    # Binomial noise of 200 trials is 1.5 points; the percentile bootstrap itself falls a little short.
    assert 0.89 <= covered / 200 <= 0.99


def test_more_seeds_do_not_make_up_for_few_problems() -> None:
    outcomes = np.arange(20)[:, None] % 2
    (few,) = summarise(episodes(outcomes))
    (many,) = summarise(episodes(np.repeat(outcomes, 100, axis=1)))
    assert few["accuracy_ci"] == many["accuracy_ci"]


def test_all_rows_share_their_resamples() -> None:
    rng = np.random.default_rng(3)
    values = rng.random((30, 1)) + np.array([0.0, 0.25])
    samples = resample(values, ONE_STRATUM, rng)
    np.testing.assert_allclose(samples[:, 1] - samples[:, 0], 0.25)
    assert samples[1:, 0].std() > 0.01


def test_a_problem_brings_its_episodes_from_every_store() -> None:
    outcomes = np.random.default_rng(1).random((30, 1)) < 0.5
    alike = pl.concat([episodes(outcomes, store=store) for store in "ab"])
    apart = pl.concat(
        [episodes(outcomes, store=store, problems=[f"{store}{p}" for p in range(30)]) for store in "ab"]
    )
    spreads = []
    for frame in (alike, apart):
        panel = Panel.of(frame)
        (accuracy,) = panel.resample(("correct",), np.random.default_rng(0))
        spreads.append(accuracy.mean(axis=1).std())
    single = draws(outcomes[:, 0]).std()
    assert spreads[0] == pytest.approx(single, rel=0.05)
    assert spreads[1] == pytest.approx(single / np.sqrt(2), rel=0.05)


def test_stores_without_a_common_problem_keep_their_weights() -> None:
    frame = pl.concat(
        [
            episodes(np.ones((n, 1)), store=s, problems=range(i, i + n))
            for s, i, n in (("a", 0, 25), ("b", 20, 10), ("c", 50, 5))
        ]
    )
    panel = Panel.of(frame)
    of_store = [set(panel.strata[panel.held[:, s]]) for s in range(3)]
    assert of_store[0] == of_store[1] and len(of_store[0]) == 1
    assert of_store[2].isdisjoint(of_store[0])
    share = resample((panel.held[:, [2]]).astype(float), panel.strata, np.random.default_rng(0))
    np.testing.assert_allclose(share, 5 / 35)


def test_a_problem_that_a_row_lacks_does_not_count_for_it() -> None:
    values = np.array([[1.0, 1.0], [0.0, np.nan], [0.0, np.nan]])
    samples = resample(values, np.zeros(3, np.int64), np.random.default_rng(0))
    assert samples[0].tolist() == [pytest.approx(1 / 3), 1.0]
    assert np.isnan(samples[:, 1]).any()
    assert Estimate.of(samples[:, 1], 3).interval == (1.0, 1.0)


@given(arrays(float, st.integers(1, 12), elements=st.floats(-1e3, 1e3)), st.integers(0, 2**32 - 1))
def test_resampled_means_stay_between_the_extremes(values, seed) -> None:
    samples = draws(values, seed=seed)
    assert samples.shape == (1 + RESAMPLES,)
    assert samples[0] == pytest.approx(values.mean(), abs=1e-9)
    assert (samples >= values.min() - 1e-9).all() and (samples <= values.max() + 1e-9).all()


def test_large_evaluations_are_resampled_in_pieces(monkeypatch) -> None:
    values = np.random.default_rng(0).random(50)
    whole = draws(values)
    monkeypatch.setattr("env.statistics.DRAWS_AT_ONCE", 50 * 7)
    np.testing.assert_allclose(draws(values), whole)


def test_the_detectable_difference_is_the_textbook_one() -> None:
    differences = np.random.default_rng(5).normal(0, 0.3, 60)
    expected = (1.959964 + 0.841621) * differences.std(ddof=1) / np.sqrt(60)
    assert Estimate.of(draws(differences), 60).detectable == pytest.approx(expected, rel=0.05)
    assert Estimate.of(draws(np.zeros(60)), 60).detectable is None


def test_a_detectable_difference_is_found_four_times_in_five(monkeypatch) -> None:
    monkeypatch.setattr("env.statistics.RESAMPLES", 1000)
    rng, spread, problems = np.random.default_rng(2), 0.3, 60
    truth = EFFECT * spread / np.sqrt(problems)
    found = 0
    for trial in range(200):
        low, high = Estimate.of(draws(rng.normal(truth, spread, problems), seed=trial), problems).interval
        found += low > 0 or high < 0
    assert 0.72 <= found / 200 <= 0.9


def test_resolution_counts_problems_and_pairs() -> None:
    outcomes = [[0, 0], [1, 1], [0, 1], [1, 0]]
    frame = pl.concat(
        [
            episodes(outcomes, store="a"),
            episodes(outcomes[::-1], store="a", beta=1.0),
            episodes([[0, 0]] * 4, store="b"),
            episodes([[0, 0]] * 4, store="b", beta=1.0),
        ]
    )
    found = resolution(frame)
    assert (found.problems, found.problems_in_play, found.pairs, found.pairs_in_play) == (4, 4, 8, 4)
    assert found.detectable > 0
    assert "4 of 4 problems are in play (4 of 8 with stores told apart)" in str(found)


def test_resolution_of_rows_that_agree_claims_nothing() -> None:
    outcomes = [[0, 1], [1, 1], [0, 0]]
    found = resolution(pl.concat([episodes(outcomes), episodes(outcomes, beta=1.0)]))
    assert found.detectable is None
    assert str(found) == "1 of 3 problems are in play."


def test_resolution_of_a_single_row_or_problem() -> None:
    assert resolution(episodes([[0, 1], [1, 1]])).detectable is None
    found = resolution(pl.concat([episodes([[0]]), episodes([[1]], beta=1.0)]))
    assert found.detectable is None
    assert str(found) == "1 of 1 problems are in play."


def test_points_need_every_store() -> None:
    frame = pl.concat(
        [episodes([[1]], store="a"), episodes([[1]], store="b"), episodes([[1]], store="a", beta=1.0)]
    )
    points = Panel.of(frame).points()
    assert {(point.beta, tuple(at)) for point, at in points.items()} == {(0.5, (0, 1))}
