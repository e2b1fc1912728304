"""Reading a store: opened in milliseconds, its shards verified and loaded when they are first needed."""

from __future__ import annotations

import hashlib
import io
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from env.forest import NOT_PARSED, NOT_PROBED, Forest
from env.schema import FORMAT, FORMAT_VERSION, META_FILE, PROBLEMS_FILE, StoreError

_COLUMNS = ["problem", "parent", "tokens", "probed", "answer_raw", "answer", "probe_tokens", "end", "arm"]


class Store:
    """Trees of recorded reasoning, with what each prefix would answer. Immutable once written.

    Attributes:
        path: where it is, as given: a local folder or any pyarrow filesystem URI.
        meta: what store.json says.
    """

    def __init__(self, path: str | Path, meta: dict[str, Any], filesystem: pafs.FileSystem, root: str) -> None:
        self.path = str(path)
        self.meta = meta
        self._filesystem = filesystem
        self._root = root

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Opens a store; reads store.json only.

        Raises:
            StoreError: there is no store at `path`, or its format is newer than this program.
        """
        if "://" in str(path):
            filesystem, root = pafs.FileSystem.from_uri(str(path))
        else:
            filesystem, root = pafs.LocalFileSystem(), str(path)
        try:
            with filesystem.open_input_stream(f"{root}/{META_FILE}") as stream:
                meta = json.loads(stream.read())
        except OSError:
            raise StoreError(f"{path} is not a store: it has no {META_FILE}") from None
        if meta["format"] != FORMAT or meta["format_version"] > FORMAT_VERSION:
            raise StoreError(f"{path} has format version {meta['format_version']}")
        return cls(path, meta, filesystem, root)

    @property
    def model(self) -> str:
        """The model whose reasoning it holds."""
        return str(self.meta["model"])

    @property
    def dataset(self) -> str:
        """Where its problems are from."""
        return str(self.meta["dataset"])

    @property
    def task(self) -> str:
        """Name of the task that compared and graded its answers."""
        return str(self.meta["task"])

    @property
    def segment_tokens(self) -> int | None:
        """Tokens between two probes, where that is fixed."""
        value: int | None = self.meta["segment_tokens"]
        return value

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can answer: some of `env.schema.CAPABILITIES`."""
        return frozenset(self.meta["capabilities"])

    @cached_property
    def problems(self) -> pa.Table:
        """A row a problem, columns as in `env.schema.PROBLEMS`."""
        return self._read(PROBLEMS_FILE)

    def __len__(self) -> int:
        """The number of problems."""
        return int(self.meta["counts"]["problems"])

    def __repr__(self) -> str:
        """The shapes, never the contents."""
        counts = self.meta["counts"]
        return (
            f"Store({self.path!r}, model={self.model!r}, dataset={self.dataset!r}, "
            f"problems={counts['problems']}, nodes={counts['nodes']}, "
            f"capabilities={sorted(self.capabilities)})"
        )

    def forest(self) -> Forest:
        """All trees as flat arrays; read and verified on the first call, kept afterwards.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        return self._forest

    @cached_property
    def _forest(self) -> Forest:
        problems = self.problems
        nodes = int(self.meta["counts"]["nodes"])
        first_node = _bounds(problems["nodes"].to_numpy())
        columns: dict[str, NDArray[Any]] = {
            "parent": np.empty(nodes, np.int32),
            "tokens": np.empty(nodes, np.int32),
            "answer": np.empty(nodes, np.int32),
            "raw": np.empty(nodes, np.int32),
            "probed": np.empty(nodes, np.bool_),
            "probe_tokens": np.empty(nodes, np.int32),
            "end": np.empty(nodes, np.uint8),
            "arm": np.empty(nodes, np.int16),
        }
        floats = [name for name in ("logprob", "confidence") if name in self.capabilities]
        columns |= {name: np.empty(nodes, np.float32) for name in floats}
        scores: list[NDArray[np.float32]] = []
        scores_each = np.zeros(nodes if "prm" in self.capabilities else 0, np.int64)
        raw_strings: list[pa.Array] = []
        raw_counts = np.zeros(len(problems), np.int64)
        at = 0
        for shard in sorted(name for name in self.meta["files"] if name.startswith("nodes/")):
            wanted = _COLUMNS + floats + (["prm"] if "prm" in self.capabilities else [])
            table = self._read(shard, wanted).combine_chunks()
            here = slice(at, at + len(table))
            problem = _numpy(table["problem"])
            parent = _numpy(table["parent"])
            columns["parent"][here] = np.where(parent >= 0, parent + first_node[problem], -1)
            for name in ("tokens", "end", "arm"):
                columns[name][here] = _numpy(table[name])
            columns["probe_tokens"][here] = _numpy(table["probe_tokens"], -1)
            columns["probed"][here] = _numpy(table["probed"])
            asked = columns["probed"][here] | (columns["end"][here] != 0)
            silent = np.where(asked, NOT_PARSED, NOT_PROBED)
            answer = _numpy(table["answer"], -1)
            columns["answer"][here] = np.where(answer >= 0, answer, silent)
            raw, strings, counts = _raw_ids(problem, table["answer_raw"])
            columns["raw"][here] = np.where(raw >= 0, raw, silent)
            raw_strings.append(strings)
            raw_counts[: len(counts)] += counts
            for name in floats:
                columns[name][here] = _numpy(table[name], np.nan)
            if "prm" in self.capabilities:
                scores_each[here] = _numpy(pc.list_value_length(table["prm"]), 0)
                scores.append(_numpy(pc.list_flatten(table["prm"])).astype(np.float32))
            at += len(table)
        strings = pa.concat_arrays(raw_strings)
        golds = pc.take(problems["gold"].combine_chunks(), pa.array(np.repeat(np.arange(len(problems)), raw_counts)))
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
            prm_first=_bounds(scores_each) if scores else None,
            confidence=columns.get("confidence"),
            logprob=columns.get("logprob"),
            class_correct=_numpy(pc.list_flatten(problems["class_correct"])).astype(np.bool_),
            class_first=_bounds(_numpy(pc.list_value_length(problems["class_correct"]))),
            raw_correct=_numpy(pc.equal(strings, golds)),
            raw_first=_bounds(raw_counts),
            raw_strings=strings,
            question_hash=problems["question_hash"].to_pylist(),
            segment_tokens=self.segment_tokens,
        )

    def _read(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """One Parquet file, its checksum verified first."""
        facts = self.meta["files"][name]
        try:
            with self._filesystem.open_input_stream(f"{self._root}/{name}") as stream:
                data = stream.read()
        except OSError as error:
            raise StoreError(f"{self.path}/{name} cannot be read: {error}") from None
        if hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise StoreError(f"{self.path}/{name} is damaged: its checksum is not the one in {META_FILE}")
        return pq.read_table(io.BytesIO(data), columns=columns, read_dictionary=["answer_raw"])


def _bounds(counts: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _numpy(column: pa.ChunkedArray | pa.Array, null: float | None = None) -> NDArray[Any]:
    if null is not None and column.null_count:
        column = pc.fill_null(column, pa.scalar(null, column.type))
    values: NDArray[Any] = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(False)
    return values


def _raw_ids(
    problem: NDArray[np.int32], column: pa.ChunkedArray
) -> tuple[NDArray[np.int64], pa.Array, NDArray[np.int64]]:
    """Raw answers as ids within their problem, in stored order; the strings by id; how many each problem has."""
    encoded = column.combine_chunks()
    codes = _numpy(encoded.indices, -1).astype(np.int64)
    given = codes >= 0
    keys = problem[given] * np.int64(len(encoded.dictionary) + 1) + codes[given]
    unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    of = problem[given][first[order]]
    counts = np.bincount(of, minlength=int(problem[-1]) + 1 if len(problem) else 0)
    starts = _bounds(counts)
    ids = np.full(len(codes), -1, np.int64)
    ids[given] = rank[inverse] - starts[problem[given]]
    strings = pc.take(encoded.dictionary, pa.array(codes[given][first[order]]))
    return ids, strings, counts
