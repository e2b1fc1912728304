"""The flat arrays that replay walks: trees of segments, a row a node, parents before children."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

NOT_PARSED = -1
NOT_PROBED = -2
END_NONE, END_STOP, END_LENGTH = 0, 1, 2


def hash_question(question: str) -> str:
    """Names a problem by its text, so that the same problem is recognised in every store.

    White space does not count: it is what exports and templates change most.
    """
    return hashlib.sha256(" ".join(question.split()).encode()).hexdigest()[:32]


@dataclass(frozen=True, repr=False)
class Forest:
    """The trees of P problems in N nodes; all node arrays have length N, nodes of a problem are adjacent.

    Attributes:
        first_node: int64[P+1]; the nodes of problem p are ``first_node[p]:first_node[p+1]``.
        parent: int32[N]; index into these same arrays, -1 for the first segment of a root branch.
        tokens: int32[N]; tokens decoded in the segment.
        answer: int32[N]; class of the answer within its problem, -1 = nothing parsed, -2 = not asked.
            A node that ended always carries its final answer.
        raw: int32[N]; the same for the answer as a string: id within the problem, in stored order.
            A string that stands for "nothing parsed" is still a string here (the published evaluation votes
            with it), so ``raw >= 0`` with ``answer == -1`` is possible.
        probed: bool[N]; whether a probe was asked at the segment's end.
        probe_tokens: int32[N]; what asking cost, -1 = unknown.
        end: uint8[N]; 0 goes on, 1 stopped by itself, 2 cut off for its length.
        arm: int16[N]; which model and prompt produced it.
        prm: float32[M] or None; step scores of node v are ``prm[prm_first[v]:prm_first[v+1]]``.
        prm_first: int64[N+1] or None.
        confidence: float32[N] or None; NaN = unknown.
        logprob: float32[N] or None; NaN = unknown.
        class_correct: bool[C]; whether class c of problem p is right: ``class_correct[class_first[p] + c]``.
        class_first: int64[P+1].
        raw_correct: bool[R]; whether a raw string equals the raw gold answer, character by character.
        raw_first: int64[P+1].
        raw_strings: the R raw strings as an Arrow array; see `raw_text`.
        question_hash: the P problems' names, the same in every store (`hash_question`).
        segment_tokens: tokens between two probes where the store has a fixed interval, else None.
    """

    first_node: NDArray[np.int64]
    parent: NDArray[np.int32]
    tokens: NDArray[np.int32]
    answer: NDArray[np.int32]
    raw: NDArray[np.int32]
    probed: NDArray[np.bool_]
    probe_tokens: NDArray[np.int32]
    end: NDArray[np.uint8]
    arm: NDArray[np.int16]
    prm: NDArray[np.float32] | None
    prm_first: NDArray[np.int64] | None
    confidence: NDArray[np.float32] | None
    logprob: NDArray[np.float32] | None
    class_correct: NDArray[np.bool_]
    class_first: NDArray[np.int64]
    raw_correct: NDArray[np.bool_]
    raw_first: NDArray[np.int64]
    raw_strings: pa.StringArray
    question_hash: Sequence[str]
    segment_tokens: int | None

    def __len__(self) -> int:
        """The number of problems."""
        return len(self.first_node) - 1

    def __repr__(self) -> str:
        """The shapes, never the contents."""
        return (
            f"Forest(problems={len(self)}, nodes={len(self.parent)}, roots={int((self.parent < 0).sum())}, "
            f"classes={len(self.class_correct)}, raw={len(self.raw_correct)}, "
            f"prm={None if self.prm is None else len(self.prm)})"
        )

    def raw_text(self, problem: int) -> list[str]:
        """The raw answers of one problem, by raw id. For reports, never for controllers."""
        first, last = self.raw_first[problem], self.raw_first[problem + 1]
        texts: list[str] = self.raw_strings.slice(first, last - first).to_pylist()
        return texts

    def tile(self, copies: int) -> Forest:
        """Every problem `copies` times, each copy a problem of its own: for benchmarks of scale."""
        import pyarrow as pa

        if copies < 1:
            raise ValueError(f"copies must be at least 1, not {copies}")
        nodes = len(self.parent)
        shift = np.repeat(np.arange(copies, dtype=np.int32) * nodes, nodes)
        parent = np.tile(self.parent, copies)
        parent[parent >= 0] += shift[parent >= 0]

        def tiled(values: NDArray) -> NDArray:  # type: ignore[type-arg]
            return np.tile(values, copies)

        def bounds(first: NDArray[np.int64]) -> NDArray[np.int64]:
            steps = np.tile(np.diff(first), copies)
            return np.concatenate([np.zeros(1, np.int64), np.cumsum(steps, dtype=np.int64)])

        return Forest(
            first_node=bounds(self.first_node),
            parent=parent,
            tokens=tiled(self.tokens),
            answer=tiled(self.answer),
            raw=tiled(self.raw),
            probed=tiled(self.probed),
            probe_tokens=tiled(self.probe_tokens),
            end=tiled(self.end),
            arm=tiled(self.arm),
            prm=None if self.prm is None else tiled(self.prm),
            prm_first=None if self.prm_first is None else bounds(self.prm_first),
            confidence=None if self.confidence is None else tiled(self.confidence),
            logprob=None if self.logprob is None else tiled(self.logprob),
            class_correct=tiled(self.class_correct),
            class_first=bounds(self.class_first),
            raw_correct=tiled(self.raw_correct),
            raw_first=bounds(self.raw_first),
            raw_strings=pa.concat_arrays([self.raw_strings] * copies),
            question_hash=[
                hash_question(f"{name} copy {copy}") if copy else name
                for copy in range(copies)
                for name in self.question_hash
            ],
            segment_tokens=self.segment_tokens,
        )
