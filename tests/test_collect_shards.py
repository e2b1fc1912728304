"""Shards of a collection, and the store that they become together."""

import json
import shutil

import numpy as np
import pytest

from autotts import main
from collect.merging import merge
from collect.shards import Shard, sharded
from env.errors import UserError
from env.nodes import Nodes
from env.schema import StoreError
from env.store import Store
from env.store_writer import StoreWriter

COUNT, GROUP = 13, 3
RECIPE = {
    "group": GROUP,
    "source": {"name": "made-up", "count": COUNT, "sha256": "0f"},
    "drawing": {"seed": 3, "sampling": {"temperature": 1.0}},
}


def tree(number: int) -> Nodes:
    """A tree with something of everything that a store can have, and something missing of most."""
    dice = np.random.default_rng(number)
    count = 4 + number
    parent = [-1, *(int(dice.integers(-1, 3)) for _ in range(count - 1))]
    parent = [min(above, node - 1) for node, above in enumerate(parent)]
    end = [0 if node in parent else int(dice.integers(1, 3)) for node in range(count)]
    return Nodes(
        parent=parent,
        tokens=dice.integers(1, 50, count),
        answer=[None if node % 4 == 3 else str(dice.integers(0, 3)) for node in range(count)],
        probed=[each == 0 for each in end],
        end=end,
        probe_tokens=[-1 if each else 5 for each in end],
        arm=np.arange(count) % 2,
        prm=None if number == 4 else [[0.5, None, 0.25][: node % 4] for node in range(count)],
        logprob=np.where(dice.random(count) < 0.2, np.nan, -dice.random(count)),
        confidence=None if number % 2 else dice.random(count),
        text=None if number == 5 else [f"step {node}\n\n" for node in range(count)],
        token_ids=None if number == 5 else [dice.integers(0, 300, 7).tolist() for _ in range(count)],
    )


def write(path, numbers, recipe, shard_nodes=10, **changes):
    settings = {
        "model": "m",
        "dataset": "made-up",
        "task": "exact",
        "segment_tokens": 30,
        "segment_rule": "every 30 tokens",
        "sampling": {"temperature": 1.0},
        "provenance": {"format": "collect", "recipe": recipe, "prm": {"model": "r"}},
        "arms": [{"model": "m", "prompt": "a"}, {"model": "m", "prompt": "b"}],
        "prm": "r",
    }
    with StoreWriter(path, **settings | changes, shard_nodes=shard_nodes) as writer:
        for number in numbers:
            writer.add_problem(f"What is {number}?", str(number % 3), tree(number))
    return path


def numbers_of(shard: Shard) -> list[int]:
    groups = [range(first, min(first + GROUP, COUNT)) for first in range(0, COUNT, GROUP)]
    return [number for group in shard.groups(len(groups)) for number in groups[group]]


@pytest.fixture
def parts(tmp_path):
    shards = [Shard(index, 4) for index in (1, 2, 3, 4)]
    return [write(tmp_path / f"part-{s.index}", numbers_of(s), sharded(RECIPE, s)) for s in shards]


def test_every_group_is_in_one_shard():
    for of in (1, 2, 3, 7):
        groups = [group for index in range(1, of + 1) for group in Shard(index, of).groups(7)]
        assert sorted(groups) == list(range(7))
    assert numbers_of(Shard(2, 4)) == [3, 4, 5] and numbers_of(Shard(1, 4)) == [0, 1, 2, 12]


def test_merged_is_what_one_run_makes(tmp_path, parts):
    """To the last byte of every file, whatever the order of the parts."""
    whole = write(tmp_path / "whole", range(COUNT), RECIPE, shard_nodes=1 << 17)
    merge([parts[index] for index in (2, 0, 3, 1)], tmp_path / "merged")
    assert Store.open(tmp_path / "merged").meta == Store.open(whole).meta
    for file in Store.open(whole).meta["files"]:
        assert (tmp_path / "merged" / file).read_bytes() == (whole / file).read_bytes()
    assert len(Store.open(parts[0]).shards("nodes")) > 1, "the parts had more than one shard of rows to read"


def test_a_shard_alone_is_a_store(parts):
    store = Store.open(parts[0])
    assert len(store) == 4 and store.problems["question"][-1].as_py() == "What is 12?"


def test_one_shard_of_one(tmp_path):
    part = write(tmp_path / "part", range(COUNT), sharded(RECIPE, Shard(1, 1)))
    merge([part], tmp_path / "merged")
    assert "shard" not in Store.open(tmp_path / "merged").meta["provenance"]["recipe"]


def test_the_command(tmp_path, parts, capsys):
    command = ["merge", *map(str, parts), "--out", str(tmp_path / "merged")]
    assert main(command) == 0
    assert "4 shards, m on made-up, 13 problems" in capsys.readouterr().out
    assert main(command) == 2
    assert "there is a store at" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert main(["merge", str(parts[0]), str(parts[2]), "--out", str(tmp_path / "other")]) == 2
    said = capsys.readouterr().err
    assert "2 of 4 shards are missing: 2/4, 4/4; collect them" in said
    assert not (tmp_path / "other").exists()


def test_a_shard_twice(tmp_path, parts):
    copy = shutil.copytree(parts[1], tmp_path / "copy")
    with pytest.raises(UserError, match=r"copy and .*part-2 are both the shard 2/4"):
        merge([*parts, copy], tmp_path / "merged")
    with pytest.raises(UserError, match=r"part-2 and .*part-2 are both the shard 2/4"):
        merge([parts[1], parts[1]], tmp_path / "merged")


def test_shards_of_different_collections(tmp_path, parts):
    shard = Shard(4, 4)
    other = {**RECIPE, "drawing": {"seed": 4, "sampling": {"temperature": 0.6}}}
    part = write(tmp_path / "other", numbers_of(shard), sharded(other, shard))
    message = r"other and .*part-1 are not shards of the same collection: they differ in "
    with pytest.raises(UserError, match=message + r"recipe\.drawing\.seed, recipe\.drawing\.sampling\.temp"):
        merge([*parts[:3], part], tmp_path / "merged")
    provenance = {"format": "collect", "recipe": sharded(RECIPE, shard), "prm": {"model": "s"}}
    part = write(tmp_path / "prm", numbers_of(shard), {}, provenance=provenance)
    with pytest.raises(UserError, match=r"they differ in prm\.model"):
        merge([*parts[:3], part], tmp_path / "merged")
    part = write(tmp_path / "fifth", [3, 4, 5], sharded(RECIPE, Shard(2, 5)))
    with pytest.raises(UserError, match=r"fifth is the shard 2/5 and .*part-1 is 1/4"):
        merge([*parts, part], tmp_path / "merged")


def test_what_is_no_shard(tmp_path, parts):
    whole = write(tmp_path / "whole", range(COUNT), RECIPE)
    with pytest.raises(UserError, match=r"whole is no shard; make shards with `autotts collect --shard i/n`"):
        merge([*parts[1:], whole], tmp_path / "merged")
    imported = write(tmp_path / "imported", range(COUNT), RECIPE, provenance={"format": "jsonl"})
    with pytest.raises(UserError, match="imported is no shard"):
        merge([imported], tmp_path / "merged")
    with pytest.raises(StoreError, match="there is no store at"):
        merge([tmp_path / "nothing"], tmp_path / "merged")
    (tmp_path / "late.collecting").mkdir()
    with pytest.raises(UserError, match="late is not finished; run its command again"):
        merge([tmp_path / "late"], tmp_path / "merged")


def test_a_damaged_part(tmp_path, parts):
    meta = json.loads((parts[2] / "store.json").read_text())
    name = next(name for name in meta["files"] if name.startswith("nodes/"))
    data = bytearray((parts[2] / name).read_bytes())
    data[len(data) // 2] ^= 1
    (parts[2] / name).write_bytes(data)
    with pytest.raises(StoreError, match="is damaged: its checksum"):
        merge(parts, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    short = write(tmp_path / "short", [6, 7], sharded(RECIPE, Shard(3, 4)))
    with pytest.raises(UserError, match="short has 2 problems where the shard 3/4 has 3"):
        merge([parts[0], parts[1], short, parts[3]], tmp_path / "merged")


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b", "1/0", "-1/4", "1/4/2", ""])
def test_what_is_no_number_of_a_shard(text):
    with pytest.raises(UserError, match=r"is no shard|there is no shard"):
        Shard.parse(text)


def test_more_shards_than_groups():
    with pytest.raises(UserError, match=r"the shard 6/9 is empty, since there are only 5 groups.*--group"):
        Shard.parse("6/9").groups(5)
