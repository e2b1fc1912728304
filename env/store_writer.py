"""Writing a store: all of it or nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from env.forest import END_LENGTH, END_NONE, hash_question
from env.schema import (
    CAPABILITIES,
    FORMAT,
    FORMAT_VERSION,
    META_FILE,
    NODES,
    PROBLEMS,
    PROBLEMS_FILE,
    TEXT,
    StoreError,
)
from env.tasks import classify, load_task

# About 4 MB of arrays: large enough to read fast, small enough to verify and load one at a time.
SHARD_NODES = 1 << 17


@dataclass
class Nodes:
    """The segments of one problem, a row each, parents before children; N rows.

    Attributes:
        parent: N indices of earlier rows, -1 for the first segment of a root branch.
        tokens: N counts of tokens decoded in the segment, >= 0.
        answer: N raw answers; None = not asked, or nothing parsed.
        probed: N; whether a probe was asked at the segment's end.
        end: N of 0 (goes on), 1 (stopped by itself), 2 (cut off for its length); None = all 0.
        probe_tokens: N counts of what asking cost, -1 = unknown; None = all unknown.
        arm: N indices of the store's arms; None = all 0.
        prm: N lists of step scores, or None.
        logprob, confidence: N floats (NaN = unknown), or None.
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


class StoreWriter:
    """Builds a store beside `path` under a temporary name and renames it when it is complete.

    Use it as a context manager: leaving the block in good order publishes the store, leaving it with an
    exception removes every trace. A killed process leaves at most a hidden folder beside `path`.

    Args:
        path: a local folder that does not exist yet, or is empty.
        model: what produced the trees.
        dataset: what the problems are from.
        task: name of the task that compares and grades answers, see `env.tasks.load_task`.
        segment_tokens: tokens between two probes where the interval is fixed, else None.
        segment_rule: in words, where one segment ends and the next begins.
        sampling: the sampling parameters; unknown ones are None.
        provenance: where the data is from: source files, their hashes, and so on.
        arms: for each arm, what it is ({"model": ..., "prompt": ...}); None = one arm, this model.
        prm: name of the process reward model whose scores the store has.
        force: replace what is at `path`.

    Raises:
        StoreError: something is at `path` already, or it cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        model: str,
        dataset: str,
        task: str = "math",
        segment_tokens: int | None = None,
        segment_rule: str = "",
        sampling: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        arms: Sequence[Mapping[str, Any]] | None = None,
        prm: str | None = None,
        force: bool = False,
        shard_nodes: int = SHARD_NODES,
    ) -> None:
        self.path = Path(path)
        self.task = load_task(task)
        self._force = force
        self._shard_nodes = shard_nodes
        self._meta: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "generator": generator_version(),
            "model": model,
            "dataset": dataset,
            "task": task,
            "prm": prm,
            "arms": [dict(arm) for arm in arms] if arms else [{"model": model, "prompt": None}],
            "segment_tokens": segment_tokens,
            "segment_rule": segment_rule,
            "sampling": dict(sampling or {}),
            "provenance": dict(provenance or {}),
        }
        self._files: dict[str, dict[str, Any]] = {}
        self._problems: list[dict[str, Any]] = []
        self._seen: dict[str, int] = {}
        self._capabilities: set[str] = set()
        self._tables: list[pa.Table] = []
        self._texts: list[pa.Table] = []
        self._pending = 0
        self._nodes = 0
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        if not self._force:
            refuse_occupied(self.path)
        with _clear_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=".part", dir=self.path.parent))
            # mkdtemp makes it private; a store is as readable as any other folder that the user makes.
            umask = os.umask(0)
            os.umask(umask)
            self._folder.chmod(0o777 & ~umask)
            (self._folder / "nodes").mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with _clear_errors(self.path):
                    self._close()
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(_os_error_text(self.path, error)) from error

    def add_problem(self, question: str, gold: str, nodes: Nodes, *, unparsed: Sequence[str] = ()) -> None:
        """Adds one problem with its tree and classes its answers.

        Args:
            question: the problem's text.
            gold: the right answer.
            nodes: the tree.
            unparsed: raw answers that stand for "nothing could be parsed" and belong to no class.

        Raises:
            StoreError: the tree is malformed, or the question is in the store already.
        """
        number = len(self._problems)
        name = hash_question(question)
        if name in self._seen:
            raise StoreError(
                f"problem {number + 1} has the same question as problem {self._seen[name] + 1}; "
                "put the branches of a problem together"
            )
        columns = _checked(number, nodes)
        classes = classify(self.task, (a for a in nodes.answer if a is not None and a not in unparsed), gold)
        table = _table(number, nodes, columns, classes.of)
        self._seen[name] = number
        self._problems.append(
            {
                "problem": number,
                "question_hash": name,
                "question": question,
                "gold": gold,
                "nodes": table.num_rows,
                "classes": classes.representatives,
                "class_correct": classes.correct,
            }
        )
        self._note_capabilities(nodes, columns)
        self._tables.append(table)
        if nodes.text is not None or nodes.token_ids is not None:
            self._texts.append(_text_table(number, nodes, table.num_rows))
        self._nodes += table.num_rows
        self._pending += table.num_rows
        if self._pending >= self._shard_nodes:
            with _clear_errors(self.path):
                self._flush()

    def _note_capabilities(self, nodes: Nodes, columns: dict[str, NDArray[Any]]) -> None:
        parent = columns["parent"]
        inner = parent[parent >= 0]
        found = {
            "probes": bool(columns["probed"].any()),
            "forks": len(np.unique(inner)) < len(inner),
            "prm": nodes.prm is not None,
            "logprob": nodes.logprob is not None,
            "confidence": nodes.confidence is not None,
            "text": nodes.text is not None or nodes.token_ids is not None,
            "arms": bool(columns["arm"].any()),
        }
        self._capabilities.update(name for name in CAPABILITIES if found[name])

    def _flush(self) -> None:
        if not self._tables:
            return
        shard = f"{sum(name.startswith('nodes/') for name in self._files):05d}.parquet"
        first = self._tables[0]["problem"][0].as_py()
        self._write(f"nodes/{shard}", pa.concat_tables(self._tables), first_problem=first, problems=len(self._tables))
        if self._texts:
            assert self._folder is not None
            (self._folder / "text").mkdir(exist_ok=True)
            self._write(f"text/{shard}", pa.concat_tables(self._texts))
        self._tables, self._texts, self._pending = [], [], 0

    def _write(self, name: str, table: pa.Table, **facts: int) -> None:
        assert self._folder is not None
        file = self._folder / name
        pq.write_table(table, file, compression="zstd", row_group_size=1 << 30)
        self._files[name] = {"rows": table.num_rows, "sha256": hash_file(file), **facts}

    def _close(self) -> None:
        if not self._problems:
            raise StoreError(f"nothing to store in {self.path}: no problem was added")
        assert self._folder is not None
        self._flush()
        self._write(PROBLEMS_FILE, pa.Table.from_pylist(self._problems, schema=PROBLEMS))
        meta = self._meta | {
            "capabilities": sorted(self._capabilities),
            "counts": {"problems": len(self._problems), "nodes": self._nodes},
            "files": self._files,
        }
        (self._folder / META_FILE).write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for file in [*self._files, META_FILE, "."]:
            _sync(self._folder / file)
        self._publish()

    def _publish(self) -> None:
        assert self._folder is not None
        if self._force and self.path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=".old", dir=self.path.parent))
            os.rename(self.path, old / "store")
            try:
                os.rename(self._folder, self.path)
            except OSError:
                os.rename(old / "store", self.path)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            refuse_occupied(self.path)
            os.rename(self._folder, self.path)
        self._folder = None
        _sync(self.path.parent)


def refuse_occupied(path: Path) -> None:
    """Raises StoreError if `path` is anything but absent or an empty folder."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        what = "a store" if (path / META_FILE).is_file() else "a file or folder that is not empty"
        raise StoreError(f"{path} is already {what}; choose another --out, or replace it with --force")


def generator_version() -> str:
    """The program that wrote the store, with its version."""
    try:
        return f"autotts {version('autotts')}"
    except PackageNotFoundError:
        return "autotts"


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(number: int, nodes: Nodes) -> dict[str, NDArray[Any]]:
    """The node columns as arrays, or a StoreError that names problem and node."""
    parent = np.asarray(nodes.parent, np.int32)
    count = len(parent)

    def column(values: ArrayLike | None, dtype: type, default: int) -> NDArray[Any]:
        return np.full(count, default, dtype) if values is None else np.asarray(values, dtype)

    columns = {
        "parent": parent,
        "tokens": column(nodes.tokens, np.int32, 0),
        "probed": column(nodes.probed, np.bool_, 0),
        "end": column(nodes.end, np.uint8, END_NONE),
        "probe_tokens": column(nodes.probe_tokens, np.int32, -1),
        "arm": column(nodes.arm, np.int16, 0),
    }
    lists = {"answer": nodes.answer, "prm": nodes.prm, "logprob": nodes.logprob, "confidence": nodes.confidence}
    lists |= {"text": nodes.text, "token_ids": nodes.token_ids}
    for name, values in (columns | lists).items():
        if values is not None and len(values) != count:
            raise StoreError(f"problem {number + 1}: `{name}` has {len(values)} entries for {count} nodes")
    if count == 0:
        raise StoreError(f"problem {number + 1} has no branches; leave it out or sample it")

    def refuse(bad: NDArray[np.bool_], text: str) -> None:
        if bad.any():
            raise StoreError(f"problem {number + 1}, node {int(bad.argmax())}: {text}")

    refuse((parent < -1) | (parent >= np.arange(count)), "its parent must be an earlier node, or -1")
    refuse(columns["tokens"] < 0, "tokens must not be negative")
    refuse(columns["probe_tokens"] < -1, "probe tokens must not be negative (-1 = unknown)")
    refuse(columns["end"] > END_LENGTH, "end must be 0, 1 or 2")
    refuse(columns["arm"] < 0, "arm must not be negative")
    refuse((parent >= 0) & (columns["end"][parent] != END_NONE), "its parent has ended, so it can have no children")
    return columns


def _table(number: int, nodes: Nodes, columns: dict[str, NDArray[Any]], classes: dict[str, int]) -> pa.Table:
    parent = columns["parent"]
    count = len(parent)
    raw = pa.array(nodes.answer, pa.string()).dictionary_encode()
    of_code = pa.array([classes.get(text) for text in raw.dictionary.to_pylist()], pa.int32())
    probe_tokens = columns["probe_tokens"]
    arrays = {
        "problem": np.full(count, number, np.int32),
        "node": np.arange(count, dtype=np.int32),
        "parent": parent,
        "depth": _depth(parent),
        "tokens": columns["tokens"],
        "probed": columns["probed"],
        "answer_raw": raw.cast(pa.string()),
        "answer": pc.take(of_code, raw.indices),
        "probe_tokens": pa.array(probe_tokens, mask=probe_tokens < 0),
        "end": columns["end"],
        "prm": None if nodes.prm is None else [[float(score) for score in scores] for scores in nodes.prm],
        "logprob": None if nodes.logprob is None else _floats(nodes.logprob),
        "confidence": None if nodes.confidence is None else _floats(nodes.confidence),
        "arm": columns["arm"],
    }
    return pa.table(
        [
            pa.nulls(count, field.type) if arrays[field.name] is None else pa.array(arrays[field.name], field.type)
            for field in NODES
        ],
        schema=NODES,
    )


def _floats(values: ArrayLike) -> pa.Array:
    array = np.asarray(values, np.float32)
    return pa.array(array, mask=np.isnan(array))


def _depth(parent: NDArray[np.int32]) -> NDArray[np.int32]:
    """How many segments precede each node's own, in as many vector steps as the tree is deep."""
    depth = np.zeros(len(parent), np.int32)
    above = parent.copy()
    while (live := above >= 0).any():
        depth[live] += 1
        above[live] = parent[above[live]]
    return depth


def _text_table(number: int, nodes: Nodes, count: int) -> pa.Table:
    return pa.table(
        {
            "problem": np.full(count, number, np.int32),
            "node": np.arange(count, dtype=np.int32),
            "text": pa.array(nodes.text or [None] * count, pa.string()),
            "token_ids": pa.array(nodes.token_ids or [None] * count, pa.list_(pa.int32())),
        },
        schema=TEXT,
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _clear_errors(path: Path):  # type: ignore[no-untyped-def]
    try:
        yield
    except OSError as error:
        raise StoreError(_os_error_text(path, error)) from error


def _os_error_text(path: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"cannot write the store {path}: {reason}; nothing was left behind; choose another --out or make room"
