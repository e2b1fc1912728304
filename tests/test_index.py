"""The layout that replay walks, against plain walks over the trees it was made of."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from env.errors import UserError
from env.index import Index
from tests.forests import INTERVAL, Node, Problem, Recording, Trees, recordings, stored, trees


def flat(store: Trees) -> list[Node]:
    return [node for problem in store.problems for node in problem.nodes]


@settings(max_examples=150, deadline=None)
@given(trees())
def test_nodes_are_laid_out_depth_first_with_what_they_cost(store):
    forest = store.forest()
    index = Index.build(forest, probe_tokens=7)
    nodes = flat(store)
    assert sorted(index.order.tolist()) == list(range(len(nodes)))
    at = {id(nodes[stored_at]): place for place, stored_at in enumerate(index.order.tolist())}

    def subtree(node: Node) -> list[Node]:
        return [node, *(below for child in node.children for below in subtree(child))]

    for place, stored_at in enumerate(index.order.tolist()):
        node = nodes[stored_at]
        path = [node]
        while path[-1].parent is not None:
            path.append(path[-1].parent)
        assert index.parent[place] == (-1 if node.parent is None else at[id(node.parent)])
        assert index.depth[place] == len(path)
        assert index.cost[place] == sum(above.tokens for above in path)
        assert index.answer[place] == node.answer
        assert index.end[place] == node.end
        assert index.probe_cost[place] == (7 if node.probe_tokens < 0 else node.probe_tokens)
        assert index.local[place] == node.place
        first, count = int(index.first_child[place]), int(index.child_count[place])
        assert [at[id(child)] for child in node.children] == index.children[first : first + count].tolist()
        assert sorted(at[id(n)] for n in subtree(node)) == list(range(place, place + len(subtree(node))))
        last = node
        while len(last.children) == 1:
            (last,) = last.children
        assert index.tail[place] == at[id(last)]
        if store.has_scores:
            assert index.path_scores[place] == sum(len(above.scores) for above in path)
    for p, problem in enumerate(store.problems):
        for arm in range(index.arms):
            first, last = index.first_root[p * index.arms + arm : p * index.arms + arm + 2]
            expected = [at[id(root)] for root in problem.roots if root.arm == arm]
            assert index.roots[first:last].tolist() == expected
            assert index.pool[p, arm] == len(expected)
        first = index.first_answer[p]
        assert {a for a in range(problem.answers) if index.correct[first + a]} == problem.right
    assert index.has_forks == any(len(node.children) > 1 for node in nodes)


@settings(max_examples=150, deadline=None)
@given(recordings())
def test_the_published_view_has_a_row_a_probe_and_one_that_ends(recorded):
    index = Index.build(stored(recorded).forest(), "published", probe_tokens=20)
    at = 0
    for p, branches in enumerate(recorded):
        for b, branch in enumerate(branches):
            assert index.roots[index.first_root[p] + b] == at
            n = len(branch.probes)
            rows = slice(at, at + n + 1)
            over = max(0, branch.length - n * INTERVAL)
            assert index.cost[rows].tolist() == [(k + 1) * INTERVAL for k in range(n)] + [n * INTERVAL + over]
            raw = [*branch.probes, branch.final]
            assert index.answer[rows].tolist() == [-1 if a == 1 else a for a in raw]
            assert index.end[rows].tolist() == [0] * n + [1]
            assert index.depth[rows].tolist() == list(range(1, n + 2))
            assert index.tail[rows].tolist() == [at + n] * (n + 1)
            assert index.whole[rows].tolist() == [branch.length] * (n + 1)
            assert not index.probe_cost[rows].any()
            at += n + 1
    assert at == len(index.cost)
    assert not index.has_forks


def test_the_published_view_knows_its_nodes_however_they_are_stored():
    """Two chains whose segments were stored in turns, with what only their nodes know."""
    first, second = (Node(INTERVAL, 0, confidence=c, scores=(c,)) for c in (1.0, 2.0))
    rest = [Node(3, 0, end=1, confidence=c, scores=(c,), parent=p) for c, p in ((3.0, first), (4.0, second))]
    first.children, second.children = rest[:1], rest[1:]
    problem = Problem([first, second, *rest], frozenset({0}), 1)
    store = Trees([problem], has_scores=True, has_confidence=True, segment_tokens=INTERVAL)
    index = Index.build(store.forest(), "published")
    # Both ended on their last probe, so the call that ends them stands on the same node.
    assert index.forest.confidence[index.order].tolist() == [1.0, 3.0, 3.0, 2.0, 4.0, 4.0]
    # The released evaluator knows no scores; a node that stands twice would show its own twice.
    assert index.forest.prm is None


def test_the_published_protocol_is_refused_where_it_means_nothing():
    root = Node(10, 0)
    root.children = [Node(10, 0, end=1, parent=root, place=k) for k in (1, 2)]
    fork = Trees([Problem([root, *root.children], frozenset(), 1)], segment_tokens=10)
    with pytest.raises(UserError, match=r"has trees.*use standard"):
        Index.build(fork.forest(), "published")
    uneven = stored([[Recording([0], 10, 0)]])
    uneven.segment_tokens = None
    with pytest.raises(UserError, match=r"no fixed probe interval.*use standard"):
        Index.build(uneven.forest(), "published")
    with pytest.raises(UserError, match="no protocol 'honest': choose standard or published"):
        Index.build(uneven.forest(), "honest")


@settings(max_examples=40, deadline=None)
@given(trees())
def test_a_tiled_store_is_the_same_store_again_and_again(store):
    once, thrice = Index.build(store.forest()), Index.build(store.forest().tile(3))
    nodes = len(once.cost)
    for name in ("depth", "cost", "answer", "probe_cost", "end", "child_count", "local"):
        assert (getattr(thrice, name) == np.tile(getattr(once, name), 3)).all()
    for name in ("parent", "tail"):
        shifted = getattr(thrice, name)[nodes : 2 * nodes]
        expected = getattr(once, name)
        assert (shifted == np.where(expected < 0, -1, expected + nodes)).all()


def test_what_the_engine_would_trip_over_is_an_error():
    def trees(**changed):
        nodes = [Node(5, 0), Node(5, 1, end=1), Node(5, 0, end=1)]
        nodes[1].parent, nodes[0].children = nodes[0], [nodes[1]]
        one, two = Problem(nodes[:2], frozenset({1}), 2), Problem(nodes[2:], frozenset({0}), 1)
        forest = Trees([one, two]).forest()
        columns = {name: np.array(values, np.int32) for name, values in changed.items()}
        return Index.build(replace(forest, **columns)).trees

    assert len(trees().nodes) == 3
    for changed, said in (
        ({"answer": [0, 2, 0]}, "none of its problem's"),
        ({"answer": [0, 1, 1]}, "none of its problem's"),
        ({"answer": [-3, 1, 0]}, "none of its problem's"),
        ({"parent": [-1, 0, 0]}, "of another problem"),
        ({"tokens": [2**31 - 1, 5, 5]}, "2\\*\\*31"),
    ):
        with pytest.raises(UserError, match=said):
            trees(**changed)
