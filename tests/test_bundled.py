"""What a fresh machine runs on: the stores that are used where none is named."""

import shutil
from dataclasses import replace

import gymnasium
import pytest
from checkout import ROOT

import autotts
from env.errors import UserError
from env.index import Index
from env.rooms import Rooms
from env.statistics import summarise
from env.store import Store

SPLITS = "search", "holdout"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Looks at a store are counted beside it; these are beside a copy."""
    shutil.copytree(ROOT / "data/stores", tmp_path / "data/stores")
    monkeypatch.setattr(autotts, "ROOMS", replace(autotts.ROOMS, data=tmp_path / "data"))


@pytest.mark.parametrize("split", SPLITS)
def test_the_bundled_stores_are_what_the_data_sheet_says(split):
    store = Store.open(autotts.ROOMS.bundled(split))
    assert len(store.problems) == 100
    assert store.capabilities >= {"probes", "forks", "prm", "logprob", "confidence", "text"}
    index = Index.build(store.forest())
    assert (index.pool == 64).all()
    assert store.meta["model"] == "data/tiny/model" and store.meta["prm"] == "data/tiny/prm"
    size = sum(file.stat().st_size for file in (ROOT / "data/stores").rglob("*") if file.is_file())
    assert size < 12e6


def test_the_splits_share_no_problem():
    hashes = [set(Store.open(autotts.ROOMS.bundled(s)).problems["question_hash"].to_pylist()) for s in SPLITS]
    assert not hashes[0] & hashes[1]


def test_controllers_have_something_to_do():
    store = Store.open(autotts.ROOMS.bundled("search"))
    programs = [autotts.program("self_consistency")]
    episodes = autotts.evaluate([store], programs, betas=[0.0, 0.8], seeds=range(10))
    one, many = summarise(episodes.frame)
    assert 0.35 < one["accuracy"] < 0.65
    assert one["accuracy"] + 0.12 < many["accuracy"] < 0.97


def test_evaluate_and_gymnasium_need_no_store(copied, capsys):
    assert autotts.main(["evaluate", "--controller", "beam_search", "--beta", "0.25", "--seeds", "1"]) == 0
    assert "tiny-search" in capsys.readouterr().out
    env = gymnasium.make("autotts:AutoTTS/Replay-v0")
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    many = gymnasium.make_vec("autotts:AutoTTS/Replay-v0", num_envs=3)
    many.reset(seed=0)
    for each in (env, many):
        each.close()


def test_a_search_without_a_store_is_a_labelled_demo(copied, tmp_path, capsys):
    words = ["search", "--proposer", "compose", "--rounds", "2", "--seeds", "1", "--workers", "1"]
    assert autotts.main([*words, "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "demo" in out and "report:" in out and "tiny-holdout" in out


def test_an_installation_without_them_says_so(tmp_path):
    with pytest.raises(UserError, match="name a store"):
        Rooms(tmp_path, tmp_path).bundled("search")
