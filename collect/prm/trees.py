"""Step scores of whole trees."""

from collections.abc import Sequence

import numpy as np

from collect.prm.paths import find_paths
from collect.prm.scorer import Scorer
from env.nodes import Nodes


def score_trees(
    scorer: Scorer, trees: Sequence[tuple[str, Nodes]], separator: str
) -> list[list[list[float | None]]]:
    """Scores the steps of trees, all paths in one call, so that beginnings they share are read once.

    Args:
        scorer: the PRM.
        trees: questions, and nodes with texts.
        separator: what ends a step.

    Returns:
        For each tree and node the scores of the steps that ended in it.
    """
    paths = [
        find_paths(np.asarray(nodes.parent).tolist(), [text or "" for text in nodes.text or ()], separator)
        for _, nodes in trees
    ]
    items = [
        (question, steps) for (question, _), found in zip(trees, paths, strict=True) for steps in found.steps
    ]
    scores = iter(scorer.score(items))
    return [path.to_nodes([next(scores) for _ in path.steps]) for path in paths]
