"""The controllers that ask several models or prompts: each choice, each token as in rules played by hand."""

import random
import shutil
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from checkout import ROOT
from hypothesis import given
from hypothesis import strategies as st

import autotts
from env.costs.known import Known
from env.costs.shapes import shape
from env.evaluate import evaluate
from env.index import Index
from env.nodes import Nodes
from env.program import Program, check, needs
from env.store import Store
from env.store_writer import StoreWriter
from tests.forests import Problem, Trees, numbers
from tests.playing import chain, play_on
from tests.programs import isolated, shipped
from tests.test_tree_controllers import checked, few, quarters, same, seeds
from tests.tree_games import grove

NAMES = ("cascade", "two_sample_agreement")


def two_armed(number: int) -> Problem:
    """A grove, each of its trees of one of two arms."""
    problem, rng = grove(number), random.Random(number)
    arms = {root.place: rng.randrange(2) for root in problem.roots}
    for node in problem.nodes:
        node.arm = arms[node.place] if node.parent is None else node.parent.arm
    return problem


groves = numbers.map(two_armed)


@checked
@given(groves, seeds, few, few, quarters)
def test_cascade(problem, seed, small, large, threshold) -> None:
    same("cascade", problem, seed, small=small, large=large, threshold=threshold)


@checked
@given(groves, seeds, few, st.sampled_from((0.6, 0.875, 0.95)))
def test_two_sample_agreement(problem, seed, max_branches, threshold) -> None:
    same("two_sample_agreement", problem, seed, max_branches=max_branches, threshold=threshold)


def written(path: Path) -> Path:
    """A store of two arms, the first of which is right less often."""
    rng = random.Random(5)
    arms = [{"model": name, "prompt": None} for name in ("small", "large")]
    with StoreWriter(path, model="small", dataset="d", task="exact", arms=arms) as writer:
        for number in range(8):
            arm = [a for a in (0, 1) for _ in range(64)]
            right = [rng.random() < (0.8 if a else 0.4) for a in arm]
            answers = ["1" if good else str(rng.randrange(2, 9)) for good in right]
            tokens = [rng.randrange(10, 30) for _ in arm]
            nodes = Nodes([-1] * 128, tokens, answers, [True] * 128, end=[1] * 128, arm=arm)
            writer.add_problem(f"q{number}", "1", nodes)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store.open(written(tmp_path_factory.mktemp("arms") / "store"))


@pytest.mark.parametrize("name", NAMES)
def test_a_larger_beta_costs_no_less(name, store) -> None:
    done = evaluate([store], [shipped(name)], betas=[0.0, 0.5, 1.0], seeds=range(10))
    assert done.frame["error"].unique().to_list() == [""]
    assert done.frame["asked"].sum() == done.frame["granted"].sum()
    found = done.frame.group_by("beta").agg(pl.col("tokens", "correct").mean()).sort("beta")
    assert found["tokens"].to_list() == sorted(found["tokens"])
    assert found["correct"].to_list() == sorted(found["correct"])
    schedule = shipped(name).load()["schedule"]
    budgets = [list(schedule(k / 40).values()) for k in range(41)]
    assert all(a <= b for less, more in pairwise(budgets) for a, b in zip(less, more, strict=True))
    assert budgets[0] != budgets[20] != budgets[40]


@isolated
def test_isolated_they_do_the_same(store) -> None:
    programs = [shipped(name) for name in NAMES]
    here, apart = (
        evaluate([store], programs, betas=[0.5], seeds=range(2), isolation=isolation).frame.drop(
            "isolation", "level"
        )
        for isolation in ("none", "strict")
    )
    assert here.equals(apart)


@pytest.mark.parametrize("name", NAMES)
def test_they_keep_the_contract_on_one_screen(name) -> None:
    source = shipped(name).source
    check(source)
    assert needs(source) == {"arms"}
    assert len(source.splitlines()) <= 64
    assert "replay" in source.split('"""')[1].lower()


@isolated
def test_a_small_model_against_a_large_one_at_equal_eflops(tmp_path, monkeypatch, capsys) -> None:
    """The recipe of the README on the bundled store; each arm is priced by the shape of its own model."""
    monkeypatch.chdir(ROOT)
    store = shutil.copytree("data/stores/tiny-arms", tmp_path / "tiny-arms")
    source = shipped("self_consistency").source.replace("sample(max_branches", "sample(max_branches, arm=1")
    (tmp_path / "large.py").write_text(source)
    words = ["--store", str(store), "--cost", "eflops", "--beta", "0,0.5", "--seeds", "3"]
    assert autotts.main(["compare", "self_consistency", str(tmp_path / "large.py"), *words]) == 0
    assert "self_consistency against large: 50 problems" in capsys.readouterr().out

    known = Known.of(Store.open(store))
    assert known.models == ("data/tiny/small", "data/tiny/model")
    prompt = dict(
        zip(Store.open(store).problems["question_hash"].to_pylist(), known.prompt[:, 0], strict=True)
    )
    programs = [shipped("self_consistency"), Program("large", source, trusted=True)]
    free = "eflops:intensity=0"
    frame = evaluate([Store.open(store)], programs, betas=[0.0], seeds=range(2), costs=[free]).frame
    for program, model in zip(programs, known.models, strict=True):
        size = shape(model)
        mine = frame.filter(pl.col("controller") == program.name)
        flops = [
            2 * size.parameters * tokens + size.attention * tokens * (prompt[problem] + tokens / 2)
            for problem, tokens in mine.select("problem", "tokens").iter_rows()
        ]
        assert mine[f"cost:{free}"].to_list() == pytest.approx(flops)


def test_a_store_of_one_arm_says_what_is_missing() -> None:
    problem = Problem([node for _ in range(8) for node in chain((3, 1), (4, -1))], frozenset({1}), 4)
    index = Index.build(Trees([problem]).forest())
    for name in NAMES:
        program = shipped(name).load()
        (error,) = play_on(index, program["solve"], program["schedule"](0.5)).errors.values()
        assert "unknown arm" in error
