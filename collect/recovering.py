"""The token ids of branches that were stored, or imported with their texts only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collect.existing import StoredBranch, branches_of
from collect.tokens import Tokens
from env.errors import UserError
from env.forest import END_STOP
from env.nodes import Nodes


@dataclass(frozen=True)
class Recovered:
    """The token ids of a stored branch.

    Attributes:
        ids: from the root on; None = nobody knows. Where they are not `exact` the last one may be missing:
            the token that ended the branch, which a text does not show.
        exact: whether they are stored, not made from a text.
        reason: why there are none, after "a branch ".
    """

    ids: list[int] | None
    exact: bool = False
    reason: str = ""


def recover(tokens: Tokens, stored: Nodes) -> list[Recovered]:
    """The token ids of a tree's branches: those that are stored, else the tokenizer's for their texts.

    A text can be cut into tokens in many ways, and a model may not have sampled the tokenizer's. They are
    taken for the sampled ones if there are as many as were stored, the one that ended the branch apart; else
    nobody knows the sampled ones, and no figure of others would be theirs.

    Args:
        tokens: of the model that sampled them.
        stored: a tree.

    Returns:
        One for each of `collect.existing.branches_of`.

    Raises:
        UserError: the number of ids is not that of the tokens, so the store is damaged.
    """
    parent, counts = np.asarray(stored.parent).tolist(), np.asarray(stored.tokens).tolist()
    found: list[Recovered] = []
    branch_of = [0] * len(parent)
    reach = [0] * len(parent)
    for number, branch in enumerate(branches_of(parent)):
        above = branch.parent
        start = reach[above] if above >= 0 else 0
        before = found[branch_of[above]] if above >= 0 else Recovered([], exact=True)
        length = start
        for node in branch.nodes:
            branch_of[node], length = number, length + counts[node]
            reach[node] = length
        found.append(
            _stored(stored, branch, before, start) or _encoded(tokens, stored, branch, before, reach)
        )
    return found


def _stored(stored: Nodes, branch: StoredBranch, before: Recovered, start: int) -> Recovered | None:
    if stored.token_ids is None or not before.exact or before.ids is None:
        return None
    ids = before.ids[:start]
    for node in branch.nodes:
        own, count = stored.token_ids[node], int(np.asarray(stored.tokens)[node])
        if own is None:
            return None
        if len(own) != count:
            raise UserError(
                f"the store is damaged: a segment of {count} tokens has {len(own)} token ids; import or "
                "collect it again"
            )
        ids = [*ids, *own]
    return Recovered(ids, exact=True)


def _encoded(
    tokens: Tokens, stored: Nodes, branch: StoredBranch, before: Recovered, reach: Sequence[int]
) -> Recovered:
    if before.ids is None:
        return before
    text = _text(stored, branch)
    if text is None:
        return Recovered(None, reason="has neither token ids nor a text")
    ids, length = tokens.encode(text), reach[branch.nodes[-1]]
    has_stopped = int(np.asarray(stored.end)[branch.nodes[-1]]) == END_STOP
    if len(ids) != length and not (has_stopped and len(ids) == length - 1):
        return Recovered(None, reason=f"of {length} tokens has a text of {len(ids)}")
    shared = reach[branch.parent] if branch.parent >= 0 else 0
    if ids[:shared] != before.ids[:shared]:
        return Recovered(None, reason="begins with other tokens than the one that it left")
    return Recovered(ids)


def _text(stored: Nodes, branch: StoredBranch) -> str | None:
    """The text of a branch from the root on; a text may stand with one of its nodes for all."""
    if stored.text is None or all(stored.text[node] is None for node in branch.nodes):
        return None
    parent = np.asarray(stored.parent)
    trail = branch.nodes[::-1]
    while (above := int(parent[trail[-1]])) >= 0:
        trail.append(above)
    return "".join(stored.text[node] or "" for node in reversed(trail))
