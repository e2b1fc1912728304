import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import ALL, random_store

from env.forest import hash_question


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    return random_store(tmp_path_factory.mktemp("forest") / "s", random.Random(2), problems=5).forest()


def trees(forest, problem):
    """One problem's nodes with nothing in them that depends on where the problem stands in the arrays."""
    first, last = forest.first_node[problem : problem + 2]
    parent = forest.parent[first:last]
    columns = [np.where(parent < 0, -1, parent - first).tolist()]
    for name in ("tokens", "answer", "raw", "probed", "probe_tokens", "end", "arm", "confidence", "logprob"):
        columns.append([str(value) for value in getattr(forest, name)[first:last]])
    bounds = forest.prm_first
    columns.append([forest.prm[bounds[v] : bounds[v + 1]].tolist() for v in range(first, last)])
    classes = slice(*forest.class_first[problem : problem + 2])
    raws = slice(*forest.raw_first[problem : problem + 2])
    return (
        columns,
        forest.class_correct[classes].tolist(),
        forest.raw_correct[raws].tolist(),
        forest.raw_text(problem),
    )


@pytest.mark.parametrize("copies", [1, 2, 7])
def test_tiles_are_copies(forest, copies):
    tiled = forest.tile(copies)
    assert len(tiled) == copies * len(forest)
    for problem in range(len(tiled)):
        assert trees(tiled, problem) == trees(forest, problem % len(forest))
    assert len(set(tiled.question_hash)) == len(tiled)
    assert list(tiled.question_hash[: len(forest)]) == list(forest.question_hash)
    for name, values in vars(forest).items():
        if isinstance(values, np.ndarray):
            assert getattr(tiled, name).dtype == values.dtype, name


@pytest.mark.parametrize("copies", [0, -1])
def test_tiling_needs_a_copy(forest, copies):
    with pytest.raises(ValueError, match="copies must be at least 1"):
        forest.tile(copies)


@pytest.mark.parametrize("copies", [1, 3])
def test_tiling_a_store_without_extras(tmp_path, copies):
    forest = random_store(tmp_path / "s", random.Random(2), problems=2, capabilities=()).forest().tile(copies)
    assert (forest.prm, forest.prm_first, forest.confidence, forest.logprob) == (None,) * 4
    assert not forest.probed.any() and (forest.probe_tokens == -1).all()


@given(st.integers(0), st.sets(st.sampled_from(sorted(ALL))))
@settings(max_examples=20, deadline=None)
def test_the_arrays_hold_together(tmp_path_factory, seed, capabilities):
    forest = random_store(
        tmp_path_factory.mktemp("s") / "s", random.Random(seed), 3, 20, capabilities, task="exact"
    ).forest()
    nodes = np.arange(len(forest.parent))
    problem = np.searchsorted(forest.first_node, nodes, "right") - 1
    inner = forest.parent >= 0
    assert (forest.parent < nodes).all()
    assert (problem[forest.parent[inner]] == problem[inner]).all()
    for ids, first in ((forest.answer, forest.class_first), (forest.raw, forest.raw_first)):
        assert ids.min() >= -2
        assert (ids < np.diff(first)[problem]).all()
        assert ((ids == -2) == (~forest.probed & (forest.end == 0))).all()
    assert not np.intersect1d(forest.parent, nodes[forest.end != 0]).size
    for values in vars(forest).values():
        if isinstance(values, np.ndarray):
            assert values.flags.c_contiguous


@given(st.text(), st.text())
def test_questions_are_recognised_by_their_words(first, second):
    assert (hash_question(first) == hash_question(second)) == (first.split() == second.split())
    assert hash_question(f" {first}\n ") == hash_question(first)


def test_the_hash_of_a_question_never_changes():
    """It links problems across stores, so a store of yesterday must still be recognised."""
    assert hash_question("What is  1 + 1?") == "72f8917549de2d6d055b75ba9f82b93a"
