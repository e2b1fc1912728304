import json
import sys
import types

import numpy as np
import polars as pl
import pytest
from synthetic import episodes

import autotts
from env import holdout
from env.commands.compare import as_json, describe, read_episodes
from env.comparison import ComparisonError, Verdict, compare
from env.errors import UserError

COSTS = (1000, 2000, 4000)
BETAS = (0.0, 0.5, 1.0)


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch) -> None:
    """Verdicts here do not hang on the last digit of an interval."""
    monkeypatch.setattr("env.statistics.RESAMPLES", 800)


def sweep(controller="a", *, solved=(0.3, 0.5, 0.7), costs=COSTS, problems=40, seed=0, noise=0.0, **where):
    """A frontier of three points; problems grow harder with their number, alike for every controller."""
    rng = np.random.default_rng(seed)
    hardness = (np.arange(problems)[:, None] + 0.5) / problems
    return pl.concat(
        [
            episodes(
                hardness + noise * rng.normal(size=(problems, 8)) < level,
                cost,
                beta=beta,
                controller=controller,
                **where,
            )
            for level, cost, beta in zip(solved, costs, BETAS, strict=False)
        ]
    )


def test_more_accurate_at_the_same_cost_is_better() -> None:
    found = compare(sweep("a", solved=(0.5, 0.7, 0.9)), sweep("b"))
    assert found.accuracy.value == pytest.approx(0.2)
    assert found.at_equal_cost() == (Verdict.BETTER, None)
    assert compare(sweep("b"), sweep("a", solved=(0.5, 0.7, 0.9))).at_equal_cost().verdict is Verdict.WORSE


def test_the_same_accuracy_for_half_the_tokens_is_cheaper() -> None:
    half = [cost // 2 for cost in COSTS]
    found = compare(sweep("a", costs=half, sequential=100), sweep("b", sequential=200))
    assert found.tokens.value == pytest.approx(0.5)
    assert found.sequential.value == pytest.approx(0.5)
    assert found.at_equal_accuracy() == (Verdict.CHEAPER, None)
    assert compare(sweep("b"), sweep("a", costs=half)).at_equal_accuracy().verdict is Verdict.DEARER


def test_a_controller_is_no_worse_than_itself() -> None:
    found = compare(sweep(noise=0.2), sweep(noise=0.2))
    assert (found.a, found.b) == ("a", "a")
    assert found.accuracy == (0.0, (0.0, 0.0), 0.0)
    assert found.at_equal_cost() == (Verdict.NO_WORSE, None)
    assert found.at_equal_accuracy() == (Verdict.UNDECIDED, None)


def coin_flips(controller, seed, problems=30, **where):
    """Solves each problem or not by chance."""
    outcomes = np.random.default_rng(seed).random((problems, 1)) < 0.5
    return pl.concat(
        [
            episodes(outcomes, cost, beta=beta, controller=controller, **where)
            for cost, beta in zip(COSTS, BETAS, strict=True)
        ]
    )


def test_noise_decides_nothing_and_says_how_much_would() -> None:
    found = compare(coin_flips("a", 1), coin_flips("b", 2))
    low, high = found.accuracy.interval
    assert low < -found.margin and high > 0
    verdict, needed = found.at_equal_cost()
    assert verdict is Verdict.UNDECIDED
    assert needed > found.problems


def test_verdicts_on_equal_controllers_are_seldom_wrong() -> None:
    wrong = sum(
        compare(coin_flips("a", seed), coin_flips("b", 1000 + seed)).at_equal_cost().verdict
        in (Verdict.BETTER, Verdict.WORSE)
        for seed in range(30)
    )
    # Nominally 5%; under 7% even 8 of 30 has probability 0.001.
    assert wrong < 8


def test_a_wider_margin_makes_it_no_worse() -> None:
    a, b = coin_flips("a", 1), coin_flips("b", 2)
    assert compare(a, b, margin=0.6).at_equal_cost().verdict is Verdict.NO_WORSE


def test_the_number_of_problems_needed_is_enough() -> None:
    def tilted(controller, chance, problems, seed):
        outcomes = np.random.default_rng(seed).random((problems, 4)) < chance
        return episodes(outcomes, controller=controller)

    found = compare(tilted("a", 0.55, 30, 1), tilted("b", 0.48, 30, 2))
    needed = found.at_equal_cost().problems_needed
    assert found.at_equal_cost().verdict is Verdict.UNDECIDED and 30 < needed < 10_000
    # With ten times that many the true difference of 7 points shows.
    more = compare(tilted("a", 0.55, 10 * needed, 1), tilted("b", 0.48, 10 * needed, 2))
    assert more.at_equal_cost().verdict is Verdict.BETTER


@pytest.mark.parametrize("problems", [1, 5])
def test_a_handful_of_problems_decides_nothing(problems) -> None:
    winner = episodes(np.ones((problems, 9)), controller="a")
    loser = episodes(np.zeros((problems, 9)), controller="b")
    found = compare(winner, loser)
    assert found.in_play == problems
    assert found.at_equal_cost().verdict is Verdict.UNDECIDED
    assert "fewer than 6 problems in play" in describe(found)


def test_problems_that_all_solve_decide_nothing() -> None:
    found = compare(episodes(np.ones((50, 2)), controller="a"), episodes(np.ones((50, 2)), controller="b"))
    assert (found.in_play, found.problems) == (0, 50)
    assert found.at_equal_cost().verdict is Verdict.UNDECIDED


def test_single_points_compare_at_the_budget_that_affords_both() -> None:
    a = episodes(np.arange(40)[:, None] < 30, 1000, controller="a")
    b = episodes(np.arange(40)[:, None] < 20, 3000, controller="b")
    found = compare(a, b)
    assert found.budgets == pytest.approx((3000, 3000))
    assert found.accuracy.value == pytest.approx(0.25)
    assert found.at_equal_cost().verdict is Verdict.BETTER
    # b's accuracy is the most that both reach, and a's only point is beyond it.
    assert found.accuracies == pytest.approx((0.5, 0.5))
    assert found.tokens.value == pytest.approx(1 / 3)


def test_only_shared_problems_count() -> None:
    a = pl.concat([sweep("a"), episodes([[1]], problems=["only a"], controller="a", beta=0.0)])
    b = sweep("b", problems=30)
    assert compare(a, b).problems == 30
    both = pl.concat([sweep("a"), sweep("a", store="stores/b")])
    assert compare(both, b).stores == 1


def test_stores_count_alike_whatever_their_size() -> None:
    def on_two(controller, small):
        return pl.concat(
            [
                sweep(controller, problems=100),
                sweep(controller, problems=20, store="stores/b", solved=small),
            ]
        )

    found = compare(on_two("a", (0.5, 0.7, 0.9)), on_two("b", (0.3, 0.5, 0.7)))
    assert (found.stores, found.problems) == (2, 100)
    assert found.accuracy.value == pytest.approx(0.1)


def test_what_cannot_be_compared_says_why() -> None:
    with pytest.raises(ComparisonError, match=r"no problem of any store in common.*stores/a.*stores/z"):
        compare(sweep("a"), sweep("b", store="stores/z"))
    with pytest.raises(ComparisonError, match="published"):
        compare(sweep("a"), sweep("b", protocol="published"))
    with pytest.raises(ComparisonError, match="one controller on each side"):
        compare(pl.concat([sweep("a"), sweep("b")]), sweep("b"))
    with pytest.raises(ComparisonError, match="no episodes at all"):
        compare(sweep("a").clear(), sweep("b"))
    scattered = pl.concat([episodes([[1]], beta=0.0), episodes([[1]], beta=1.0, store="stores/b")])
    whole = pl.concat([episodes([[1]]), episodes([[1]], store="stores/b")])
    with pytest.raises(ComparisonError, match="no beta of c was evaluated on all of"):
        compare(scattered, whole)


def test_words_and_json_give_the_same_verdicts() -> None:
    found = compare(sweep("new", solved=(0.5, 0.7, 0.9)), sweep("old"))
    words, figures = describe(found), json.loads(json.dumps(as_json(found), allow_nan=False))
    assert "new against old: 40 problems on 1 store, 24 in play" in words
    assert "at equal cost: new is better\n  accuracy +20.0 points [" in words
    assert "for 1.0k to 4.0k tokens a problem" in words
    assert "at equal accuracy: new is cheaper" in words
    assert figures["at_equal_cost"]["verdict"] == "better"
    assert figures["at_equal_accuracy"]["verdict"] == "cheaper"
    assert figures["at_equal_cost"]["accuracy"] == pytest.approx(0.2)


def test_one_question_can_be_asked_alone() -> None:
    found = compare(sweep("a"), sweep("b"))
    assert "accuracy:" not in describe(found, "tokens") and "at_equal_accuracy" not in as_json(
        found, "tokens"
    )
    assert "cost:" not in describe(found, "accuracy") and "at_equal_cost" not in as_json(found, "accuracy")


def test_no_worse_names_the_margin() -> None:
    assert "a is no worse (margin 2 points)" in describe(compare(sweep("a"), sweep("b"), margin=0.02))


@pytest.fixture
def recorded(tmp_path):
    """A folder as `autotts evaluate --out` leaves it, with two controllers in two files."""
    folder = tmp_path / "episodes"
    folder.mkdir()
    sweep("old").write_parquet(folder / "1.parquet")
    sweep("new", solved=(0.5, 0.7, 0.9)).write_parquet(folder / "2.parquet")
    return folder


def test_recorded_episodes_are_compared_without_evaluating(recorded, tmp_path, capsys) -> None:
    out = tmp_path / "made" / "verdict.json"
    assert autotts.main(["compare", f"{recorded}#new", str(recorded / "1.parquet"), "--json", str(out)]) == 0
    assert "at equal cost: new is better" in capsys.readouterr().out
    assert json.loads(out.read_text())["at_equal_cost"]["verdict"] == "better"


def test_failures_and_shortfalls_are_noted(tmp_path, capsys) -> None:
    bad = sweep("bad", error="boom", granted=90)
    bad = bad.with_columns(error=pl.when(pl.col("beta") == 0).then("error").otherwise(pl.lit("")))
    bad.write_parquet(tmp_path / "bad.parquet")
    sweep("good").write_parquet(tmp_path / "good.parquet")
    assert autotts.main(["compare", str(tmp_path / "bad.parquet"), str(tmp_path / "good.parquet")]) == 0
    out = capsys.readouterr().out
    assert "note: 320 episodes of bad at beta 0 on stores/a failed and count as wrong: boom" in out
    assert "not replayable: 10.0% of its branches were missing" in out
    assert "good at" not in out


def test_there_is_no_verdict_on_what_never_ran(tmp_path, capsys) -> None:
    sweep("bad", error="boom").write_parquet(tmp_path / "bad.parquet")
    sweep("good").write_parquet(tmp_path / "good.parquet")
    assert autotts.main(["compare", str(tmp_path / "good.parquet"), str(tmp_path / "bad.parquet")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "every episode of bad failed, so there is nothing to compare: boom" in said.err


def test_recordings_that_cannot_be_used_say_why(recorded, tmp_path) -> None:
    def refused(side) -> str:
        with pytest.raises(UserError) as caught:
            read_episodes(str(side))
        return str(caught.value)

    assert "name one of them as" in refused(recorded)
    assert "no controller 'nobody'" in refused(f"{recorded}#nobody")
    assert "no recorded episodes" in refused(tmp_path / "absent.parquet")
    (tmp_path / "empty").mkdir()
    assert "no recorded episodes" in refused(tmp_path / "empty")
    (tmp_path / "junk.parquet").write_text("not Parquet")
    assert "does not hold episodes" in refused(tmp_path / "junk.parquet")
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "other.parquet")
    assert "does not hold episodes" in refused(tmp_path / "other.parquet")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "store.json").write_text("{}")
    assert "is a store" in refused(tmp_path / "store")


@pytest.fixture
def evaluation(monkeypatch):
    """Stands in for replay: remembers what was asked and answers with a made-up sweep."""
    asked = []

    def evaluate(stores, programs, **options):
        assert callable(options.pop("progress"))
        asked.append((list(stores), [program.name for program in programs], options))
        frame = pl.concat([sweep(programs[0].name, store=str(store)) for store in stores])
        return types.SimpleNamespace(frame=frame)

    monkeypatch.setitem(sys.modules, "env.evaluate", types.SimpleNamespace(evaluate=evaluate))
    store = types.SimpleNamespace(Store=types.SimpleNamespace(open=str))
    monkeypatch.setitem(sys.modules, "env.store", store)
    return asked


def test_controllers_are_evaluated_alike_and_the_looks_recorded(evaluation, tmp_path, capsys) -> None:
    stores = [str(tmp_path / name) for name in "xy"]
    mine = tmp_path / "mine.py"
    mine.write_text("def schedule(beta): return {}\nasync def solve(ep): return None\n")
    options = ["--beta", "0,1", "--seeds", "7", "--protocol", "published", "--workers", "1"]
    assert autotts.main(["compare", str(mine), "self_consistency", "--store", *stores, *options]) == 0
    expected = {"betas": (0.0, 1.0), "seeds": range(7), "protocol": "published", "workers": 1}
    expected |= {"costs": [], "prompt_tokens": 0}
    assert evaluation == [(stores, ["mine"], expected), (stores, ["self_consistency"], expected)]
    assert holdout.count(stores[0]) == holdout.Looks(2, 2)
    assert {entry["purpose"] for entry in holdout.lookups(stores[1])} == {"compare"}
    assert f"{stores[1]}: evaluated 2 times (2 different programs)" in capsys.readouterr().out


def test_two_controllers_of_one_name_are_refused(evaluation, tmp_path, capsys) -> None:
    files = [tmp_path / folder / "controller.py" for folder in "ab"]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(f"def schedule(beta): return {{}}\nasync def solve(ep): return {number}\n")
    assert autotts.main(["compare", *map(str, files), "--store", str(tmp_path / "x")]) == 2
    assert "two controllers of the same name" in capsys.readouterr().err
    assert evaluation == []


def test_a_misspelt_second_controller_is_refused_before_the_first_is_evaluated(evaluation, tmp_path) -> None:
    assert autotts.main(["compare", "self_consistency", "oops", "--store", str(tmp_path / "x")]) == 2
    assert evaluation == []


def test_a_ledger_that_cannot_be_written_is_a_warning(evaluation, tmp_path, capsys) -> None:
    store = str(tmp_path / "x")
    holdout.ledger(store).mkdir()
    assert autotts.main(["compare", "self_consistency", "self_consistency", "--store", store]) == 0
    assert capsys.readouterr().err.startswith(f"warning: this look at {store} is missing")


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["self_consistency", "parallel_probe"], "--store"),
        (["self_consistncy", "parallel_probe", "--store", "x"], "self_consistency"),
        (["a.parquet", "b.parquet", "--margin", "-1"], "--margin"),
    ],
)
def test_bad_usage_is_one_clear_line(argv, complaint, capsys) -> None:
    assert autotts.main(["compare", *argv]) == 2
    err = capsys.readouterr().err
    assert complaint in err and err.count("\n") == 1


@pytest.mark.parametrize("option", [["--beta", "2"], ["--beta", "x"], ["--seeds", "0"], ["--at", "noon"]])
def test_bad_options_are_refused(option) -> None:
    with pytest.raises(SystemExit) as end:
        autotts.main(["compare", "a", "b", *option])
    assert end.value.code == 2
