"""Costs where they are asked for: their names and arguments, functions of one's own, evaluations, tables."""

import json
import random

import numpy as np
import polars as pl
import pytest
from checkout import ROOT

import autotts
from env.costs.known import Known
from env.costs.log import Log
from env.costs.registry import COSTS, check, resolve
from env.costs.shapes import SHAPES, Shape, shape
from env.errors import UserError
from env.evaluate import evaluate
from env.replay import Replay
from env.statistics import summarise
from env.store import Store
from tests import made_up
from tests.playing import line, run
from tests.programs import CAREFUL, isolated, shipped, written
from tests.trees import random_store

TINY = ROOT / "data" / "tiny"

OWN = '''
import numpy as np

def joules(log):
    """Three for a token, one for a round."""
    return 3 * log.total(log.work) + log.total_of_turns(np.ones(len(log.first)))

def raises(log):
    limit = 3
    return log.total(log.tokens) / log.nothing

def scalar(log):
    return 1.0

def unsound(log):
    return log.total(log.tokens) / 0 * 0

names = ["no function"]
'''


@pytest.fixture
def own(tmp_path) -> str:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return str(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store.open(made_up.store(tmp_path_factory.mktemp("stores") / "sums", problems=5, branches=16))


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("stores")
    return random_store(folder / "trees", random.Random(3), problems=4, prm="some/Qwen2.5-Math-PRM-7B")


@pytest.fixture(scope="module")
def log() -> Log:
    async def solve(ep):
        await ep.finish(await ep.branch(2, probe=False))

    return Log.of(run(line(), solve).replay, np.array([[5]]), ["unheard-of"], None)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("energy", r"no cost 'energy': choose tokens, .*eflops.*price; for a function of your own give FILE"),
        ("tokens:5", "the cost tokens does not take '5': it takes nothing"),
        ("eflops:Qwen3-8B,watts=3", r"does not take 'watts=3': it takes models=..., prm=..., intensity=..."),
        ("eflops:Qwen3-8B,intensity=many", "'intensity=many' of the cost eflops must be a number"),
        ("eflops", "no shape is known for the model 'unheard-of': name one of Qwen3-0.6B, .* or give a JSON"),
        ("eflops:Qwen3-8B+Qwen3-4B", "names 2 models, and the store has 1 arms"),
        ("kv_peak:Qwen4", "no shape is known for the model 'Qwen4'"),
        ("cached_tokens:block=0", "blocks of at least 1 token, not 0"),
        ("price", "the cost price needs its table: give price:TABLE"),
        ("seconds:nowhere.json", "nowhere.json cannot be read .*: write JSON there such as"),
        ("nowhere.py:f", r"the cost nowhere.py:f cannot be loaded \(FileNotFoundError"),
        ("no_such_module:f", r"cannot be loaded \(ModuleNotFoundError.*; choose tokens"),
        ("math:pi_and_more", "math has no function 'pi_and_more' to be a cost"),
    ],
)
def test_what_is_wrong_is_said_before_the_work(spec, says):
    with pytest.raises(UserError, match=says):
        check(spec, ("unheard-of",), None)


@pytest.mark.parametrize(
    ("spec", "table", "says"),
    [
        ("price", "{", "is no JSON"),
        ("price", "[1, 2]", "has 2 tables and the store 1 arms"),
        ("price", '{"prompt": "dear", "completion": 1}', "must hold numbers that are not negative"),
        ("price", '{"prompt": -1, "completion": 1}', "must hold numbers that are not negative"),
        ("price", '{"prompt": 1}', "must hold prices for a million tokens"),
        ("price", '{"prompt": 1, "completion": 1, "tax": 1}', "must hold prices for a million tokens"),
        ("price", '{"prompt": 1, "completion": 1}', 'no price for the process reward model: add "prm"'),
        ("seconds", '{"prm": 3}', "must give a speed for each size of a batch"),
        ("seconds", '{"0": 3, "prm": 3}', "must give a speed for each size of a batch"),
        ("seconds", '{"1": 0, "prm": 3}', "must give a speed for each size of a batch"),
        ("seconds", '{"1": 3, "fast": 4, "prm": 3}', "must give a speed for each size of a batch"),
        ("seconds", '{"1": 3}', 'no speed for the process reward model: add "prm"'),
        ("eflops", '{"parameters": 3}', "is no shape of a model"),
        (
            "kv_time",
            '{"parameters": 0, "layers": 1, "heads": 1, "kv_heads": 1, "head_dim": 1}',
            "is no shape",
        ),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, spec, table, says):
    (tmp_path / "table.json").write_text(table)
    with pytest.raises(UserError, match=says):
        check(f"{spec}:{tmp_path / 'table.json'}", ("m",), "judge")


def test_the_reward_model_must_be_known_where_the_store_has_one():
    with pytest.raises(UserError, match="no shape is known for the model 'judge'"):
        check("eflops:Qwen3-8B", ("m",), "judge")
    check("eflops:Qwen3-8B,prm=Qwen2.5-Math-PRM-7B", ("m",), "judge")
    check("eflops:Qwen3-8B", ("m",), None)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("raises", r"own.py:raises failed: AttributeError: 'Log' object has no .*\(line 10\)"),
        ("scalar", r"returned an array of shape \(\): expected a number for each episode, here \(1,\)"),
        ("names", "has no function 'names'"),
        ("unheard", "has no function 'unheard'"),
    ],
)
def test_functions_of_ones_own_that_do_not_do(own, log, function, says):
    with pytest.raises(UserError, match=says):
        resolve(f"{own}:{function}")(log)


def test_a_function_of_ones_own_must_be_finite(own, log):
    with (
        pytest.raises(UserError, match="returned nan: finite numbers are expected"),
        np.errstate(all="ignore"),
    ):
        resolve(f"{own}:unsound")(log)


def test_a_function_of_ones_own(own, log, monkeypatch, tmp_path):
    assert resolve(f"{own}:joules")(log).tolist() == [3 * 120 + 2]
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("own:joules")(log).tolist() == [362]


def test_shapes_are_those_of_the_published_files():
    """Keys and values of 2 bytes: 36 layers of 8 heads of 128."""
    assert shape("qwen/qwen3-8b") == SHAPES["Qwen3-8B"]
    assert shape("Qwen3-8B").cache == 2 * 2 * 36 * 8 * 128 == 147456
    assert shape("Qwen3-8B").attention == 2 * 2 * 36 * 32 * 128


def test_shapes_are_read_off_the_folders_of_models(tmp_path):
    """The tiny models: float32, their parameters as the figures of their making have them."""
    for folder, sizes in (("model", (4, 4, 2, 32, 4)), ("small", (4, 2, 1, 32, 4))):
        figures = TINY / ("figures.json" if folder == "model" else f"{folder}/figures.json")
        expected = json.loads(figures.read_text())["parameters"]
        assert shape(str(TINY / folder)) == Shape(expected, *sizes)
    (tmp_path / "config.json").write_text((TINY / "small" / "config.json").read_text())
    with pytest.raises(UserError, match=r"no weights in \*.safetensors.*: give one with config.json and"):
        shape(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="is no folder of a model"):
        shape(str(tmp_path))


ALL = ["tokens", "sequential_tokens", "prm_tokens", "prompt_tokens", "cached_tokens", "kv_peak", "kv_time"]


@pytest.fixture
def asked(tmp_path, own) -> list[str]:
    (tmp_path / "speeds.json").write_text('{"1": 10, "8": 60, "prm": 100}')
    (tmp_path / "prices.json").write_text('{"prompt": 1, "completion": 4, "prm": 1}')
    files = [f"seconds:{tmp_path / 'speeds.json'}", f"price:{tmp_path / 'prices.json'}"]
    return [*ALL, "eflops:Qwen3-4B", *files, f"{own}:joules"]


@isolated
@pytest.mark.parametrize("where", ["store", "trees", "published"])
def test_costs_are_the_same_in_a_process_of_their_own(store, trees, asked, where):
    chosen = {"betas": [0.3], "seeds": range(3), "workers": 1, "costs": asked, "prompt_tokens": 50}
    chosen["protocol"] = "published" if where == "published" else "standard"
    on = trees if where == "trees" else store
    programs = [CAREFUL, shipped("self_consistency"), shipped("parallel_probe")]
    frames = [evaluate([on], programs, isolation=how, **chosen).frame for how in ("none", "strict", "batch")]
    none, strict, batch = (frame.drop("isolation", "level") for frame in frames)
    assert none.equals(strict) and none.equals(batch)
    assert none["cost:tokens"].equals(none["tokens"].cast(pl.Float64).rename("cost:tokens"))
    assert none["cost:sequential_tokens"].to_list() == none["sequential"].to_list()
    assert none["cost:prm_tokens"].to_list() == none["prm"].to_list()
    assert none["error"].unique().to_list() == [""]
    for spec in asked:
        if spec != "prm_tokens":
            assert none[f"cost:{spec}"].n_unique() > 5
    assert (none["cost:cached_tokens"] < none["cost:prompt_tokens"]).all()
    # A thing that a controller does not do costs nothing, and neither does asking what it would cost.
    plain = evaluate([on], programs, **{**chosen, "costs": ()}, isolation="none").frame
    assert plain.equals(frames[0].select(plain.columns))


def test_episodes_that_never_ran_cost_nothing(store):
    programs = [written("raises", "ids = await ep.branch(1)\nraise ValueError"), written("syntax", "x =")]
    frame = evaluate(
        [store], programs, betas=[0], seeds=[0], costs=["prompt_tokens"], prompt_tokens=9, isolation="none"
    ).frame
    assert frame.filter(pl.col("controller") == "raises")["cost:prompt_tokens"].min() >= 9
    assert frame.filter(pl.col("controller") == "syntax")["cost:prompt_tokens"].to_list() == [0.0] * 5


def test_a_log_is_kept_only_for_those_who_ask(store, monkeypatch):
    kept = []
    born = Replay.__init__

    def watched(self, *arguments, log=False, **options):
        kept.append(log)
        born(self, *arguments, log=log, **options)

    monkeypatch.setattr(Replay, "__init__", watched)
    for costs in ((), ["tokens"]):
        evaluate([store], [shipped("self_consistency")], betas=[0], seeds=[0], costs=costs)
    assert kept == [False, True]


def test_what_a_store_knows(store, trees, monkeypatch):
    assert Known.of(store, 7).prompt.tolist() == [[7]] * 5
    assert Known.of(store, 7, arms=2).prompt.tolist() == [[7, 7]] * 5
    assert (Known.of(store).models, Known.of(store).prm_model) == (("toy-0",), None)
    assert Known.of(trees, arms=3).models == ("random",) * 3
    assert Known.of(trees).prm_model == "some/Qwen2.5-Math-PRM-7B"
    assert Known.of(trees, protocol="published").prm_model is None
    older = store.problems.drop_columns(["prompt_tokens"])
    monkeypatch.setitem(vars(store), "problems", older)
    assert Known.of(store, 7).prompt.tolist() == [[7]] * 5
    problems = older.append_column("prompt_tokens", [[[11], None, [13], [14], [15]]])
    monkeypatch.setitem(vars(store), "problems", problems)
    assert Known.of(store, 7).prompt.tolist() == [[11], [7], [13], [14], [15]]


def test_rows_have_costs_with_intervals(store):
    frame = evaluate(
        [store], [shipped("self_consistency")], betas=[0, 1], seeds=range(4), costs=["kv_peak", "tokens"]
    ).frame
    rows = summarise(frame)
    for row in rows:
        assert list(row["costs"]) == ["kv_peak", "tokens"]
        assert row["costs"]["tokens"] == {"mean": row["tokens"], "ci": row["tokens_ci"]}
        low, high = row["costs"]["kv_peak"]["ci"]
        assert low < row["costs"]["kv_peak"]["mean"] < high
    same = summarise(frame.drop("cost:kv_peak", "cost:tokens"))
    assert same == [{**row, "costs": {}} for row in rows]


def test_a_table_shows_costs_behind_tokens_and_sequential_tokens(store, tmp_path, capsys):
    out = tmp_path / "rows.json"
    arguments = ["evaluate", store.path, "--controller", "self_consistency", "--seeds", "2", "--workers", "1"]
    costs = ["--cost", "eflops:Qwen3-0.6B", "--cost", "prompt_tokens", "--prompt-tokens", "60"]
    assert autotts.main([*arguments, *costs, "--json", str(out)]) == 0
    text = capsys.readouterr().out
    header = next(line for line in text.splitlines() if "controller" in line).split()
    assert header[3:] == ["accuracy", "tokens", "sequential", "eflops:Qwen3-0.6B", "prompt_tokens", "rounds"]
    assert "prompts count as 60 tokens where the store does not know their length" in text
    rows = json.loads(out.read_text())["rows"]
    assert all(row["costs"]["eflops:Qwen3-0.6B"]["mean"] > 1e9 for row in rows)
    assert autotts.main([*arguments, "--cost", "energy"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and all(name in told for name in COSTS)


def test_controllers_are_compared_at_equal_cost_of_any_kind(store, tmp_path, capsys):
    (tmp_path / "prices.json").write_text('{"prompt": 0.01, "completion": 0.4}')
    price = f"price:{tmp_path / 'prices.json'}"
    sides = ["adaptive_consistency", "self_consistency", "--store", store.path, "--seeds", "5"]
    found = {}
    for cost in ("tokens", "eflops:Qwen3-8B", price):
        out = tmp_path / "found.json"
        common = ["--cost", cost, "--workers", "1", "--json", str(out)]
        assert autotts.main(["compare", *sides, *common]) == 0
        assert f" {cost} a problem" in capsys.readouterr().out
        found[cost] = json.loads(out.read_text())
        assert found[cost]["cost"] == cost
    tokens, flops, money = (found[cost]["at_equal_accuracy"]["tokens"] for cost in found)
    # One kind of token has one price, so that money is tokens; FLOPs also depend on how they are arranged.
    assert money == pytest.approx(tokens, rel=0.05) and money != tokens
    assert flops != pytest.approx(tokens, rel=1e-3)
    low, high = found[price]["at_equal_cost"]["budgets"]
    assert 0 < low < high < 0.01


def test_recordings_are_compared_by_a_cost_that_both_have(store, tmp_path, capsys):
    for name, costs in (
        ("adaptive_consistency", ["kv_peak", "prompt_tokens"]),
        ("self_consistency", ["kv_peak"]),
    ):
        asked = [part for cost in costs for part in ("--cost", cost)]
        run = ["evaluate", store.path, "--controller", name, "--seeds", "2", "--workers", "1"]
        assert autotts.main([*run, *asked, "--out", str(tmp_path / name)]) == 0
    sides = [str(tmp_path / name) for name in ("adaptive_consistency", "self_consistency")]
    capsys.readouterr()
    assert autotts.main(["compare", *sides, "--cost", "kv_peak"]) == 0
    assert "kv_peak a problem" in capsys.readouterr().out
    assert autotts.main(["compare", *sides]) == 0
    assert autotts.main(["compare", *sides, "--cost", "prompt_tokens"]) == 2
    assert "self_consistency was evaluated without --cost prompt_tokens" in capsys.readouterr().err
