"""From a store's tables to the flat arrays of a forest, a column at a time so that the peak stays low."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from env.forest import NOT_PARSED, NOT_PROBED, Forest
from env.schema import StoreError

if TYPE_CHECKING:
    from env.store import Store

# Raw answers get their ids in blocks of whole problems of about this many nodes: sorting needs room.
_BLOCK = 1 << 14


@contextlib.contextmanager
def lean_memory() -> Iterator[None]:
    """Has Arrow allocate from the system, whose allocator keeps less than Arrow's own of what was freed."""
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


@lean_memory()
def load_forest(store: Store) -> Forest:
    """Reads every shard of a store.

    Raises:
        StoreError: a shard is missing, damaged, or too large.
    """
    problems, capabilities = store.problems, store.capabilities
    sizes = _numpy(problems["nodes"])
    first_node = _bounds(sizes)
    count = int(first_node[-1])
    if count >= 2**31:
        raise StoreError(
            f"{store.path} has {count} nodes, more than 32 bits can number; split it by problems"
        )
    types: dict[str, Any] = dict.fromkeys(("parent", "tokens", "answer", "raw", "probe_tokens"), np.int32)
    types |= {"probed": np.bool_, "end": np.uint8, "arm": np.int16}
    types |= {name: np.float32 for name in ("logprob", "confidence") if name in capabilities}
    columns: dict[str, NDArray[Any]] = {name: np.empty(count, dtype) for name, dtype in types.items()}
    scores: list[NDArray[np.float32]] = []
    scored = np.zeros(count if "prm" in capabilities else 0, np.int64)
    strings: list[pa.Array] = []
    raw_counts = np.zeros(len(problems), np.int64)

    first_problem = 0
    for name in store.shards("nodes"):
        last_problem = first_problem + store.meta["files"][name]["problems"]
        nodes = slice(int(first_node[first_problem]), int(first_node[last_problem]))
        shard = _Shard(store.read_bytes(name), first_node[first_problem : last_problem + 1] - nodes.start)
        shard.fill({column: values[nodes] for column, values in columns.items()}, nodes.start)
        raw_strings, raw_counts[first_problem:last_problem] = shard.fill_raw(
            columns["raw"][nodes], columns["answer"][nodes]
        )
        strings.append(raw_strings)
        if "prm" in capabilities:
            scores.append(shard.scores(scored[nodes]))
        first_problem = last_problem
    if first_problem != len(problems):
        raise StoreError(
            f"{store.path} is damaged: its shards hold {first_problem} of {len(problems)} problems"
        )

    raw_strings = pa.concat_arrays(strings)
    golds = pc.take(
        problems["gold"].combine_chunks(), pa.array(np.repeat(np.arange(len(problems)), raw_counts))
    )
    return Forest(
        first_node=first_node,
        parent=columns["parent"],
        tokens=columns["tokens"],
        answer=columns["answer"],
        raw=columns["raw"],
        probed=columns["probed"],
        probe_tokens=columns["probe_tokens"],
        end=columns["end"],
        arm=columns["arm"],
        prm=np.concatenate(scores) if scores else None,
        prm_first=_bounds(scored) if scores else None,
        confidence=columns.get("confidence"),
        logprob=columns.get("logprob"),
        class_correct=_numpy(pc.list_flatten(problems["class_correct"])).astype(np.bool_),
        class_first=_bounds(_numpy(pc.list_value_length(problems["class_correct"]))),
        raw_correct=_numpy(pc.equal(raw_strings, golds)),
        raw_first=_bounds(raw_counts),
        raw_strings=raw_strings,
        question_hash=problems["question_hash"].to_pylist(),
        segment_tokens=store.segment_tokens,
    )


class _Shard:
    """One shard of nodes; `bounds` are the rows at which its problems begin, and their end."""

    def __init__(self, data: pa.Buffer, bounds: NDArray[np.int64]) -> None:
        self.file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=["answer_raw"], pre_buffer=False)
        self.bounds = bounds
        if self.file.metadata.num_rows != bounds[-1]:
            raise ValueError(f"a shard has {self.file.metadata.num_rows} rows for {bounds[-1]} nodes")

    def column(self, name: str) -> pa.Array:
        return self.file.read(columns=[name], use_threads=False)[name].combine_chunks()

    def fill(self, into: dict[str, NDArray[Any]], offset: int) -> None:
        """Fills all columns but `raw`; `offset` is the shard's first node."""
        for name in into.keys() - {"raw"}:
            null = np.nan if name in ("logprob", "confidence") else -1
            into[name][:] = _numpy(self.column(name), null)
        parent = into["parent"]
        inner = parent >= 0
        parent += np.repeat((self.bounds[:-1] + offset).astype(np.int32), np.diff(self.bounds))
        parent[~inner] = -1
        silent = ~into["probed"] & (into["end"] == 0)
        into["answer"][silent] = NOT_PROBED

    def fill_raw(
        self, raw: NDArray[np.int32], answer: NDArray[np.int32]
    ) -> tuple[pa.Array, NDArray[np.int64]]:
        """Numbers the raw answers of each problem in stored order.

        Returns:
            The strings in the order of their problems and numbers, and how many each problem has.
        """
        encoded = self.column("answer_raw")
        codes = _numpy(encoded.indices, -1)
        founders: list[NDArray[Any]] = []
        counts = np.zeros(len(self.bounds) - 1, np.int64)
        for first, last in self.blocks():
            start, end = self.bounds[first], self.bounds[last]
            sizes = np.diff(self.bounds[first : last + 1])
            problem = np.repeat(np.arange(last - first), sizes)
            given = np.flatnonzero(codes[start:end] >= 0)
            keys = problem[given] * len(encoded.dictionary) + codes[start:end][given]
            _, at, inverse = np.unique(keys, return_index=True, return_inverse=True)
            order = np.argsort(at)
            number = np.empty(len(at), np.int64)
            number[order] = np.arange(len(at))
            counts[first:last] = np.bincount(problem[given][at], minlength=last - first)
            before = _bounds(counts[first:last])
            raw[start:end] = np.where(answer[start:end] == NOT_PROBED, NOT_PROBED, NOT_PARSED)
            raw[start:end][given] = number[inverse] - before[problem[given]]
            founders.append(codes[start:end][given][at[order]])
        return pc.take(encoded.dictionary, pa.array(np.concatenate(founders))), counts

    def blocks(self) -> list[tuple[int, int]]:
        """Ranges of problems with about _BLOCK nodes each."""
        cuts = np.searchsorted(self.bounds, np.arange(0, self.bounds[-1], _BLOCK))
        edges = np.unique([0, *cuts, len(self.bounds) - 1])
        return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))

    def scores(self, each: NDArray[np.int64]) -> NDArray[np.float32]:
        """The step scores one after another; how many each node has goes into `each`."""
        column = self.column("prm")
        each[:] = _numpy(pc.list_value_length(column), 0)
        return _numpy(pc.list_flatten(column)).astype(np.float32)


def _bounds(counts: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _numpy(column: pa.ChunkedArray | pa.Array, null: float | None = None) -> NDArray[Any]:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if null is not None and column.null_count:
        column = pc.fill_null(column, pa.scalar(null, column.type))
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values
