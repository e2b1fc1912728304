"""What searches found and we ship: it says where it is from, and is cheaper as it says."""

import ast
import json
import re

import pytest

import autotts
from collect.importers.autotts import import_files
from env.evaluate import evaluate
from env.store import Store
from tests.checkout import ROOT

FOUND = {name: path for name, path in autotts.controllers().items() if path.parent.name == "discovered"}


@pytest.fixture(scope="module")
def recorded(replay_dir, tmp_path_factory) -> Store:
    (written,) = import_files([replay_dir / "Qwen3-1.7B" / "aime24.json"], tmp_path_factory.mktemp("stores"))
    return Store.open(written)


@pytest.mark.parametrize("name", FOUND)
def test_its_lineage_is_in_an_archive_that_we_keep(name):
    told = ast.get_docstring(ast.parse(FOUND[name].read_text()))
    file, number = re.search(r"the run (data/discovery/[\w-]+\.json), round (\d+)", told).groups()
    rounds = {each["round"]: each for each in json.loads((ROOT / file).read_text())["rounds"]}
    assert rounds[int(number)]["status"] == "evaluated"
    for heading in ("Why it works:", "AIME 2024", "AIME 2025", "hypervolume"):
        assert heading in told


@pytest.mark.parametrize("name", FOUND)
def test_it_reaches_the_votes_of_a_large_field_for_a_fraction_of_the_tokens(name, recorded):
    wide = ("self_consistency", name)
    frame = evaluate(
        [recorded], [autotts.program(each) for each in wide], betas=[0.5, 1], seeds=range(10), workers=1
    ).frame
    costs = {key: part for key, part in frame.group_by("controller", "beta")}
    large, found = costs["self_consistency", 1.0], costs[name, 1.0]
    assert found["tokens"].mean() < 0.55 * large["tokens"].mean()
    assert found["correct"].mean() > large["correct"].mean() - 0.04
    cheap = costs[name, 0.5]
    assert cheap["tokens"].mean() < costs["self_consistency", 0.5]["tokens"].mean() * 1.1
    assert cheap["correct"].mean() > costs["self_consistency", 0.5]["correct"].mean() - 0.01
