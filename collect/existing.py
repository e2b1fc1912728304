"""A store that is there already, problem by problem, as another one is made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from collect.problems import Problem
from env.errors import UserError
from env.forest import hash_question
from env.nodes import Nodes
from env.schema import PROBLEMS_FILE
from env.store import Store

# Of nodes/*.parquet, what is a number in every row.
_NUMBERS = ("parent", "tokens", "probed", "end", "arm")


@dataclass(frozen=True)
class StoredBranch:
    """A branch of a stored tree.

    Attributes:
        path: its name, as in `collect.tree.Branch`.
        nodes: its own, in order.
        parent: the node that the first of them continues, -1 = none.
    """

    path: tuple[int, ...]
    nodes: list[int]
    parent: int


class Existing:
    """The problems of a store.

    Attributes:
        store: which it is.
        problems: as they were collected or imported.
        prompt_tokens: of each, the length of its prompt for each arm; None = unknown.
        numbers: the number of each problem by its name.

    Raises:
        StoreError: there is no store at `path`, or it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.store = Store.open(path)
        table = self.store.read(PROBLEMS_FILE)
        questions, golds = table["question"].to_pylist(), table["gold"].to_pylist()
        self.problems = [Problem(*pair) for pair in zip(questions, golds, strict=True)]
        # An older store lacks the column.
        known = "prompt_tokens" in table.column_names
        self.prompt_tokens = table["prompt_tokens"].to_pylist() if known else [None] * len(questions)
        self.numbers = {hash_question(question): number for number, question in enumerate(questions)}
        self._first = np.r_[0, np.cumsum(table["nodes"].to_numpy())]
        shards = self.store.shards("nodes")
        sizes = [self.store.meta["files"][name]["problems"] for name in shards]
        # The first problem of each shard, and the end.
        self._bounds = np.r_[0, np.cumsum(sizes)]
        self._shards = shards
        # A shard is read once: problems are asked for in order, or nearly.
        self._read = lru_cache(2)(self._read_shard)

    def origin(self) -> dict[str, Any]:
        """What the provenance of another store says of this one."""
        return {"store": Path(self.store.path).name, "sha256": self.store.sha256}

    def nodes(self, number: int) -> Nodes:
        """The tree of a problem, with what is known of it. Raises StoreError if its shard is damaged."""
        rows, texts = self._rows(number)
        columns: dict[str, Any] = {name: rows[name].to_numpy() for name in _NUMBERS}
        for name in ("logprob", "confidence"):
            known = name in self.store.capabilities
            columns[name] = rows[name].to_numpy() if known else None
        return Nodes(
            answer=rows["answer_raw"].to_pylist(),
            probe_tokens=rows["probe_tokens"].fill_null(-1).to_numpy(),
            prm=None if rows["prm"].null_count == len(rows) else rows["prm"].to_pylist(),
            text=None if texts is None else texts["text"].to_pylist(),
            token_ids=None if texts is None else texts["token_ids"].to_pylist(),
            **columns,
        )

    def unparsed(self, number: int) -> list[str]:
        """The raw answers of a problem that stand for "nothing could be parsed"."""
        rows, _ = self._rows(number)
        return sorted(set(rows.filter(rows["answer"].is_null())["answer_raw"].drop_null().to_pylist()))

    def _rows(self, number: int) -> tuple[pa.Table, pa.Table | None]:
        """The rows of a problem in nodes/ and text/."""
        shard = int(np.searchsorted(self._bounds, number, "right")) - 1
        nodes, texts, text_problems = self._read(shard)
        first, last = (int(self._first[n] - self._first[self._bounds[shard]]) for n in (number, number + 1))
        if texts is None:
            return nodes.slice(first, last - first), None
        begin, end = np.searchsorted(text_problems, [number, number + 1])
        return nodes.slice(first, last - first), texts.slice(begin, end - begin) if end > begin else None

    def _read_shard(self, shard: int) -> tuple[pa.Table, pa.Table | None, Any]:
        name = self._shards[shard]
        nodes = self.store.read(name)
        text = name.replace("nodes/", "text/")
        if text not in self.store.meta["files"]:
            return nodes, None, None
        texts = self.store.read(text)
        return nodes, texts, texts["problem"].to_numpy()


def branches_of(parent: Sequence[int]) -> list[StoredBranch]:
    """The branches of a tree: a node's first child continues its branch, each further one begins a fork.

    Args:
        parent: N indices of earlier nodes, -1 = none.
    """
    branches: list[StoredBranch] = []
    branch_of: list[int] = []
    depth: list[int] = []
    children: list[int] = []
    roots = 0
    for node, above in enumerate(parent):
        depth.append(depth[above] + 1 if above >= 0 else 0)
        children.append(0)
        if above < 0:
            path: tuple[int, ...] = (roots,)
            roots += 1
        else:
            child = children[above]
            children[above] += 1
            if not child:
                branch_of.append(branch_of[above])
                branches[branch_of[above]].nodes.append(node)
                continue
            path = (*branches[branch_of[above]].path, depth[node], child)
        branch_of.append(len(branches))
        branches.append(StoredBranch(path, [node], above))
    return branches


def of_arm(nodes: Nodes, arm: int) -> Nodes:
    """The nodes of one arm as a tree of their own. Raises UserError if a branch goes from arm to arm."""
    arms, parent = np.asarray(nodes.arm), np.asarray(nodes.parent)
    kept = np.flatnonzero(arms == arm)
    if len(kept) == len(arms):
        return nodes
    place = np.full(len(arms) + 1, -1)
    place[kept] = np.arange(len(kept))
    inner = parent >= 0
    if (arms[parent[inner]] != arms[inner]).any():
        raise UserError("the store has branches of several arms each, which only `--rescore` can work on")

    def taken(values: Any) -> Any:
        if values is None or isinstance(values, np.ndarray):
            return values if values is None else values[kept]
        return [values[node] for node in kept]

    columns = {name: taken(values) for name, values in vars(nodes).items()}
    return Nodes(**columns | {"parent": place[parent[kept]]})
