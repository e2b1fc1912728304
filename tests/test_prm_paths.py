"""Steps and scores of trees, against a plain recursion over every path."""

from hypothesis import given
from hypothesis import strategies as st

from collect.prm.paths import find_paths


@st.composite
def trees(draw) -> tuple[list[int], list[str]]:
    """Parents and segment texts; separators are anywhere, also across segments."""
    count = draw(st.integers(1, 12))
    parent = [draw(st.integers(-1, node - 1)) for node in range(count)]
    return parent, [draw(st.text("ab \n", max_size=6)) for _ in range(count)]


def plain(parent: list[int], text: list[str], leaf: int) -> list[tuple[int, str]]:
    """(node, step) of each step of a path, reading its text letter by letter."""
    trail = [leaf]
    while parent[trail[0]] >= 0:
        trail.insert(0, parent[trail[0]])
    found, step = [], ""
    for node in trail:
        for letter in text[node]:
            step += letter
            if step.endswith("\n\n"):
                found.append((node, step))
                step = ""
    found.append((leaf, step))
    return [(node, step.strip()) for node, step in found if step.strip()]


@given(trees())
def test_every_leaf_has_the_steps_of_its_path(tree) -> None:
    parent, text = tree
    paths = find_paths(parent, text)
    assert paths.leaves == [node for node in range(len(parent)) if node not in parent]
    for leaf, steps, owners in zip(paths.leaves, paths.steps, paths.owners, strict=True):
        assert list(zip(owners, steps, strict=True)) == plain(parent, text, leaf)


@given(trees())
def test_every_node_gets_the_scores_of_its_own_steps(tree) -> None:
    parent, text = tree
    paths = find_paths(parent, text)
    # A score that names the beginning it is of: what every causal model's score is a function of.
    table: dict[tuple[str, ...], float] = {}

    def score(steps: list[str]) -> list[float]:
        beginnings = [tuple(steps[: end + 1]) for end in range(len(steps))]
        return [table.setdefault(beginning, float(len(table))) for beginning in beginnings]

    expected: list[dict[int, float]] = [{} for _ in parent]
    for leaf in paths.leaves:
        steps = plain(parent, text, leaf)
        scores = score([step for _, step in steps])
        for place, ((node, _), each) in enumerate(zip(steps, scores, strict=True)):
            assert expected[node].setdefault(place, each) == each
    found = paths.to_nodes([score(steps) for steps in paths.steps])
    assert found == [[scores[place] for place in sorted(scores)] for scores in expected]


@given(trees())
def test_what_comes_after_a_node_changes_nothing_in_it(tree) -> None:
    parent, text = tree
    grown = find_paths([*parent, len(parent) - 1], [*text, "more\n\n"])
    before = find_paths(parent, text)
    for leaf, steps, owners in zip(before.leaves, before.steps, before.owners, strict=True):
        if leaf in grown.leaves:
            assert (steps, owners) == (
                grown.steps[grown.leaves.index(leaf)],
                grown.owners[grown.leaves.index(leaf)],
            )


def test_a_step_belongs_to_the_segment_where_it_ends() -> None:
    #          0         1        2          3
    text = ["one\n\ntw", "o\n", "\nthree", "o!\n\n\n\nfour\n\n"]
    paths = find_paths([-1, 0, 1, 0], text)
    assert paths.leaves == [2, 3]
    assert paths.steps == [["one", "two", "three"], ["one", "two!"[:2] + "o!", "four"]]
    assert paths.owners == [[0, 2, 2], [0, 3, 3]]
    scores = paths.to_nodes([[0.1, 0.2, None], [0.1, 0.4, 0.5]])
    assert scores == [[0.1], [], [0.2, None], [0.4, 0.5]]


def test_another_separator() -> None:
    assert find_paths([-1], ["a; b\n\nc;"], separator=";").steps == [["a", "b\n\nc"]]
