"""The segments of one problem on their way into a store: checked, completed, turned into a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from env.forest import END_LENGTH, END_NONE
from env.schema import CAPABILITIES, NODES, TEXT, StoreError


@dataclass
class Nodes:
    """The segments of one problem, a row each, parents before children; N rows.

    Attributes:
        parent: N indices of earlier rows, -1 for the first segment of a root branch.
        tokens: N counts of tokens decoded in the segment, >= 0.
        answer: N raw answers; None = not asked, or nothing parsed.
        probed: N; whether a probe was asked at the segment's end.
        end: N of 0 (goes on), 1 (stopped by itself), 2 (cut off for its length); None = all 0.
            A segment that ended carries its branch's final answer, and has no children.
        probe_tokens: N counts of what asking cost, -1 = unknown; None = all unknown.
        arm: N indices of the store's arms; None = all 0.
        prm: N lists of step scores, or None.
        logprob: N floats, the mean over the segment (NaN = unknown), or None.
        confidence: N floats (NaN = unknown), or None.
        text: N texts (each may be None), or None.
        token_ids: N lists of token ids (each may be None), or None.
    """

    parent: ArrayLike
    tokens: ArrayLike
    answer: Sequence[str | None]
    probed: ArrayLike
    end: ArrayLike | None = None
    probe_tokens: ArrayLike | None = None
    arm: ArrayLike | None = None
    prm: Sequence[Sequence[float]] | None = None
    logprob: ArrayLike | None = None
    confidence: ArrayLike | None = None
    text: Sequence[str | None] | None = None
    token_ids: Sequence[Sequence[int] | None] | None = None


class NodeColumns:
    """The same, checked and as arrays.

    Raises:
        StoreError: the columns' lengths differ, or a node breaks a rule; names the node.
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.count = len(nodes.answer)
        self.parent = self._integers("parent", nodes.parent, np.int32)
        self.tokens = self._integers("tokens", nodes.tokens, np.int32)
        self.probed = self._integers("probed", nodes.probed, np.bool_)
        self.end = self._integers("end", nodes.end, np.uint8, END_NONE)
        self.probe_tokens = self._integers("probe_tokens", nodes.probe_tokens, np.int32, -1)
        self.arm = self._integers("arm", nodes.arm, np.int16, 0)
        self.logprob = self._floats("logprob", nodes.logprob)
        self.confidence = self._floats("confidence", nodes.confidence)
        for name in ("prm", "text", "token_ids"):
            if (values := getattr(nodes, name)) is not None:
                self._check_length(name, len(values))
        self._check()
        self.depth = _depth(self.parent)

    def capabilities(self) -> set[str]:
        """What these nodes can answer, of `env.schema.CAPABILITIES`."""
        nodes, inner = self.nodes, self.parent[self.parent >= 0]
        found = {
            "probes": bool(self.probed.any()),
            "forks": len(np.unique(inner)) < len(inner),
            "prm": nodes.prm is not None,
            "logprob": nodes.logprob is not None,
            "confidence": nodes.confidence is not None,
            "text": self.has_text,
            "arms": bool(self.arm.any()),
        }
        return {name for name in CAPABILITIES if found[name]}

    @property
    def has_text(self) -> bool:
        """Whether there are texts or token ids."""
        return self.nodes.text is not None or self.nodes.token_ids is not None

    def table(self, problem: int, classes: Mapping[str, int]) -> pa.Table:
        """The rows of nodes/*.parquet, given the class of each answer."""
        raw = pa.array(self.nodes.answer, pa.string()).dictionary_encode()
        of_code = pa.array([classes.get(text) for text in raw.dictionary.to_pylist()], pa.int32())
        columns = {
            "problem": np.full(self.count, problem, np.int32),
            "node": np.arange(self.count, dtype=np.int32),
            "parent": self.parent,
            "depth": self.depth,
            "tokens": self.tokens,
            "probed": self.probed,
            "answer_raw": raw.cast(pa.string()),
            "answer": pc.take(of_code, raw.indices),
            "probe_tokens": pa.array(self.probe_tokens, mask=self.probe_tokens < 0),
            "end": self.end,
            "prm": self.nodes.prm,
            "logprob": self.logprob,
            "confidence": self.confidence,
            "arm": self.arm,
        }

        def column(field: pa.Field) -> pa.Array:
            values = columns[field.name]
            return pa.nulls(self.count, field.type) if values is None else pa.array(values, field.type)

        return pa.table([column(field) for field in NODES], schema=NODES)

    def text_table(self, problem: int) -> pa.Table:
        """The rows of text/*.parquet."""
        nothing = [None] * self.count
        columns = {
            "problem": np.full(self.count, problem, np.int32),
            "node": np.arange(self.count, dtype=np.int32),
            "text": self.nodes.text or nothing,
            "token_ids": self.nodes.token_ids or nothing,
        }
        return pa.table(
            {field.name: pa.array(columns[field.name], field.type) for field in TEXT}, schema=TEXT
        )

    def _integers(
        self, name: str, values: ArrayLike | None, dtype: type[np.generic], default: int = 0
    ) -> NDArray[Any]:
        if values is None:
            return np.full(self.count, default, dtype)
        given = np.asarray(values)
        self._check_length(name, len(given))
        array: NDArray[Any] = given.astype(dtype)
        if not np.array_equal(array, given):
            raise StoreError(f"`{name}` must be whole numbers within {np.dtype(dtype)}")
        return array

    def _floats(self, name: str, values: ArrayLike | None) -> pa.Array | None:
        if values is None:
            return None
        array = np.asarray(values, np.float32)
        self._check_length(name, len(array))
        return pa.array(array, mask=np.isnan(array))

    def _check_length(self, name: str, length: int) -> None:
        if length != self.count:
            raise StoreError(f"`{name}` has {length} entries for {self.count} nodes")

    def _check(self) -> None:
        if self.count == 0:
            raise StoreError("it has no branches; leave it out or sample it")
        parent, ended = self.parent, self.end != END_NONE
        self._refuse(
            (parent < -1) | (parent >= np.arange(self.count)), "its parent must be an earlier node, or -1"
        )
        self._refuse(self.tokens < 0, "`tokens` must not be negative")
        self._refuse(self.probe_tokens < -1, "`probe_tokens` must not be negative (-1 = unknown)")
        self._refuse(self.end > END_LENGTH, "`end` must be 0, 1 or 2")
        self._refuse(self.arm < 0, "`arm` must not be negative")
        self._refuse((parent >= 0) & ended[parent], "its parent has ended, so it can have no children")

    def _refuse(self, bad: NDArray[np.bool_], reason: str) -> None:
        if bad.any():
            raise StoreError(f"node {int(bad.argmax())}: {reason}")


def _depth(parent: NDArray[np.int32]) -> NDArray[np.int32]:
    """How many segments precede each node's own, in as many vector steps as the tree is deep."""
    depth = np.zeros(len(parent), np.int32)
    live = np.flatnonzero(parent >= 0)
    above = parent[live]
    while len(live):
        depth[live] += 1
        above = parent[above]
        live, above = live[above >= 0], above[above >= 0]
    return depth
