"""From the tree of one problem to the paths that a PRM reads, and the scores back to the tree's nodes."""

from collections.abc import Sequence
from dataclasses import dataclass

SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Paths:
    """The steps of every path from the root to a leaf; L paths over N nodes.

    Attributes:
        nodes: N.
        leaves: L nodes without children, ascending.
        steps: for each path the texts of its steps, in order, white space around them cut off.
        owners: for each path the node in which each step ended, as many as steps.
    """

    nodes: int
    leaves: list[int]
    steps: list[list[str]]
    owners: list[list[int]]

    def to_nodes(self, scores: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
        """For each of the N nodes the scores of the steps that ended in it: `env.nodes.Nodes.prm`.

        Args:
            scores: for each path one a step. A step that several paths have must have the same score in each;
                the first is taken.
        """
        found: list[list[float | None]] = [[] for _ in range(self.nodes)]
        filled: set[int] = set()
        for owners, path in zip(self.owners, scores, strict=True):
            for owner, score in zip(owners, path, strict=True):
                if owner not in filled:
                    found[owner].append(score)
            filled.update(owners)
        return found


def steps_of(text: str, separator: str, ended: bool) -> list[str]:
    """The steps of one path, cut as `find_paths` cuts them; what is left at its end only if it has ended."""
    *complete, left = text.split(separator)
    return [step.strip() for step in (*complete, left if ended else "") if step.strip()]


def find_paths(parent: Sequence[int], text: Sequence[str], separator: str = SEPARATOR) -> Paths:
    """Cuts the text of every path into steps.

    A step ends where its separator is complete, in whatever segment that is, so whether a node ends a step
    depends on nothing that comes after it. What is left at the end of a leaf is a step of the leaf. Blank
    steps are none.

    Args:
        parent: N indices of earlier nodes, -1 for the first segment of a root branch.
        text: N texts, of each segment alone.
        separator: what ends a step.
    """
    own: list[list[str]] = []
    rest: list[str] = []
    is_leaf = [True] * len(parent)
    for above, segment in zip(parent, text, strict=True):
        if above >= 0:
            is_leaf[above] = False
        *complete, left = ((rest[above] if above >= 0 else "") + segment).split(separator)
        own.append([step.strip() for step in complete if step.strip()])
        rest.append(left)
    paths = Paths(len(parent), [node for node, leaf in enumerate(is_leaf) if leaf], [], [])
    for leaf in paths.leaves:
        if rest[leaf].strip():
            own[leaf].append(rest[leaf].strip())
        trail = [leaf]
        while (above := parent[trail[-1]]) >= 0:
            trail.append(above)
        paths.steps.append([step for node in reversed(trail) for step in own[node]])
        paths.owners.append([node for node in reversed(trail) for _ in own[node]])
    return paths
