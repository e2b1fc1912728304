"""Writing a store: all of it or nothing."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from env.forest import hash_question
from env.math_task import MathTask
from env.nodes import NodeColumns, Nodes
from env.schema import FORMAT, FORMAT_VERSION, META_FILE, PROBLEMS, PROBLEMS_FILE, StoreError
from env.tasks import classify, load_task

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
            "sampling": None if sampling is None else dict(sampling),
            "provenance": dict(provenance or {}),
        }
        self._files: dict[str, dict[str, Any]] = {}
        self._problems: list[dict[str, Any]] = []
        self._seen: dict[str, int] = {}
        self._capabilities: set[str] = set()
        self._tables: list[pa.Table] = []
        self._texts: list[pa.Table] = []
        self._branches = 0
        self._pending = 0
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        refuse_occupied(self.path, self._force)
        with self._clear_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = self._beside(".part")
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
                with self._clear_errors():
                    self._close()
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def expect(self, answers: Iterable[str]) -> None:
        """Lets the task read answers of several problems to come at once, which is faster."""
        if isinstance(self.task, MathTask):
            self.task.read(answers)

    def add_problem(self, question: str, gold: str, nodes: Nodes, *, unparsed: Sequence[str] = ()) -> None:
        """Adds one problem with its tree and classes its answers.

        Args:
            question: the problem's text.
            gold: the right answer.
            nodes: the tree.
            unparsed: raw answers that stand for "nothing could be parsed" and belong to no class.

        Raises:
            StoreError: the tree is malformed, or the question is in the store already.
            TaskError: the gold answer is unusable.
        """
        number, name = len(self._problems), hash_question(question)
        if name in self._seen:
            raise StoreError(
                f"its question is that of problem {self._seen[name] + 1}; put their branches together"
            )
        columns = NodeColumns(nodes)
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
            }
        )
        self._branches += int((columns.parent < 0).sum())
        self._pending += columns.count
        if self._pending >= self._shard_nodes:
            with self._clear_errors():
                self._flush()

    def _flush(self) -> None:
        if not self._tables:
            return
        shard = f"{sum(name.startswith('nodes/') for name in self._files):06d}.parquet"
        self._write(f"nodes/{shard}", pa.concat_tables(self._tables), problems=len(self._tables))
        if self._texts:
            self._write(f"text/{shard}", pa.concat_tables(self._texts))
        self._tables, self._texts, self._pending = [], [], 0

    def _write(self, name: str, table: pa.Table, **facts: int) -> None:
        assert self._folder is not None
        file = self._folder / name
        file.parent.mkdir(exist_ok=True)
        pq.write_table(table, file, compression="zstd", row_group_size=max(1, table.num_rows))
        self._files[name] = {"rows": table.num_rows, "sha256": hash_file(file), **facts}

    def _close(self) -> None:
        if not self._problems:
            raise StoreError(f"there is nothing to store in {self.path}: no problem was added")
        assert self._folder is not None
        self._flush()
        self._write(PROBLEMS_FILE, pa.Table.from_pylist(self._problems, schema=PROBLEMS))
        nodes = sum(facts["rows"] for name, facts in self._files.items() if name.startswith("nodes/"))
        meta = self._meta | {
            "capabilities": sorted(self._capabilities),
            "counts": {"problems": len(self._problems), "branches": self._branches, "nodes": nodes},
            "files": self._files,
        }
        text = json.dumps(meta, indent=1, ensure_ascii=False) + "\n"
        (self._folder / META_FILE).write_text(text, encoding="utf-8")
        for file in [*self._files, META_FILE, "."]:
            _sync(self._folder / file)
        self._publish()

    def _publish(self) -> None:
        assert self._folder is not None
        refuse_occupied(self.path, self._force)
        if not self.path.exists():
            os.rename(self._folder, self.path)
            self._folder = None
        elif not _exchange(self._folder, self.path):
            # Killed between these two, the old store is under a hidden name and the new one lost.
            old = self._beside(".old")
            os.rename(self.path, old)
            os.rename(self._folder, self.path)
            self._folder = old
        _sync(self.path.parent)

    def _beside(self, suffix: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=suffix, dir=self.path.parent))

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the store {self.path} cannot be written: {error}; nothing of it was kept. "
                "Make room or choose another place"
            ) from error


def refuse_occupied(path: Path, force: bool = False) -> None:
    """Raises StoreError unless `path` is absent, an empty folder, or, if `force`, a store."""
    try:
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
        is_store = (path / META_FILE).is_file()
    except OSError as error:
        raise StoreError(f"{path} cannot be looked at: {error.strerror}; choose another place") from error
    if not is_store:
        raise StoreError(f"there is something at {path} already that is not a store; choose another place")
    if not force:
        raise StoreError(
            f"there is a store at {path} already; choose another place, or replace it with --force"
        )


def generator_version() -> str:
    """The program that writes stores, with its version."""
    try:
        return f"autotts {version('autotts')}"
    except PackageNotFoundError:
        return "autotts"


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _exchange(first: Path, second: Path) -> bool:
    """Swaps two folders in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, swap = -100, 2
    return rename is not None and rename(here, os.fsencode(first), here, os.fsencode(second), swap) == 0


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
