"""Writing a store: all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from env.forest import hash_question
from env.math_task import MathTask
from env.nodes import NodeColumns, Nodes
from env.schema import FORMAT, FORMAT_VERSION, PROBLEMS, PROBLEMS_FILE, StoreError
from env.store_folder import StoreFolder, hash_file, refuse_occupied
from env.tasks import classify, load_task

__all__ = ["Nodes", "StoreWriter", "generator_version", "hash_file", "refuse_occupied"]

# About 4 MB of arrays: large enough to read fast, small enough to verify and load one at a time.
SHARD_NODES = 1 << 17


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
        sampling: the sampling parameters; None = unknown.
        provenance: where the data is from: source files, their hashes, and so on.
        arms: for each arm, what it is ({"model": ..., "prompt": ...}); None = one arm, this model.
        prm: name of the process reward model whose scores the store has.
        force: replace the store at `path`, if there is one.
        shard_nodes: a shard is closed when it has this many nodes.

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
        segment_rule: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        arms: Sequence[Mapping[str, Any]] | None = None,
        prm: str | None = None,
        force: bool = False,
        shard_nodes: int = SHARD_NODES,
    ) -> None:
        self.task = load_task(task)
        self._folder = StoreFolder(path, force)
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
            "sampling": None if sampling is None else dict(sampling),
            "provenance": dict(provenance or {}),
        }
        self._problems: list[dict[str, Any]] = []
        self._seen: dict[str, int] = {}
        self._capabilities: set[str] = set()
        self._tables: list[pa.Table] = []
        self._texts: list[pa.Table] = []
        self._branches = self._nodes = self._shards = 0
        self._pending = 0

    def __enter__(self) -> Self:
        self._folder.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._close()
        finally:
            self._folder.__exit__(kind, error, trace)

    def expect(self, answers: Iterable[str]) -> None:
        """Lets the task read answers of several problems to come at once, which is faster."""
        if isinstance(self.task, MathTask):
            self.task.read(answers)

    def add_problem(
        self,
        question: str,
        gold: str,
        nodes: Nodes,
        *,
        unparsed: Sequence[str] = (),
        prompt_tokens: Sequence[int] | None = None,
    ) -> None:
        """Adds one problem with its tree and classes its answers.

        Args:
            question: the problem's text.
            gold: the right answer.
            nodes: the tree.
            unparsed: raw answers that stand for "nothing could be parsed" and belong to no class.
            prompt_tokens: how long the question's prompt is for each arm; None = unknown.

        Raises:
            StoreError: the tree is malformed, the question is in the store already, or a prompt's length is
                missing.
            TaskError: the gold answer is unusable.
        """
        number, name = len(self._problems), hash_question(question)
        if name in self._seen:
            raise StoreError(
                f"its question is that of problem {self._seen[name] + 1}; put their branches together"
            )
        columns = NodeColumns(nodes)
        arms = len(self._meta["arms"])
        if prompt_tokens is not None and len(prompt_tokens) != arms:
            raise StoreError(f"prompt_tokens has {len(prompt_tokens)} lengths and the store {arms} arms")
        # Checked before the long work of classing: a problem that fails leaves the writer as it was.
        classes = classify(self.task, (a for a in nodes.answer if a is not None and a not in unparsed), gold)
        self._tables.append(columns.table(number, classes.of))
        if columns.has_text:
            self._texts.append(columns.text_table(number))
        self._seen[name] = number
        self._capabilities |= columns.capabilities()
        self._problems.append(
            {
                "problem": number,
                "question_hash": name,
                "question": question,
                "gold": gold,
                "nodes": columns.count,
                "classes": classes.representatives,
                "class_correct": classes.correct,
                "prompt_tokens": prompt_tokens,
            }
        )
        self._branches += int((columns.parent < 0).sum())
        self._pending += columns.count
        self._nodes += columns.count
        if self._pending >= self._shard_nodes:
            self._flush()

    def _flush(self) -> None:
        if not self._tables:
            return
        shard = f"{self._shards:06d}.parquet"
        self._folder.write(f"nodes/{shard}", pa.concat_tables(self._tables), problems=len(self._tables))
        if self._texts:
            self._folder.write(f"text/{shard}", pa.concat_tables(self._texts))
        self._tables, self._texts, self._pending = [], [], 0
        self._shards += 1

    def _close(self) -> None:
        if not self._problems:
            raise StoreError(f"there is nothing to store in {self._folder.path}: no problem was added")
        self._flush()
        self._folder.write(PROBLEMS_FILE, pa.Table.from_pylist(self._problems, schema=PROBLEMS))
        counts = {"problems": len(self._problems), "branches": self._branches, "nodes": self._nodes}
        self._folder.publish(self._meta | {"capabilities": sorted(self._capabilities), "counts": counts})


def generator_version() -> str:
    """The program that writes stores, with its version."""
    try:
        return f"autotts {version('autotts')}"
    except PackageNotFoundError:
        return "autotts"
