"""Reading a store: opened in milliseconds, its shards verified and loaded when they are first needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from env.forest import Forest
from env.forest_loader import load_forest
from env.schema import FORMAT, FORMAT_VERSION, META_FILE, PROBLEMS_FILE, StoreError

# Keys of store.json without which nothing can be read, and their types.
_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "dataset": str,
    "task": str,
    "segment_tokens": (int, type(None)),
    "capabilities": list,
    "counts": dict,
    "files": dict,
}


class Store:
    """Trees of recorded reasoning, with what each prefix would answer. Immutable once written.

    Attributes:
        path: where it is, as given: a local folder or any pyarrow filesystem URI.
        meta: what store.json says.
        sha256: of store.json, as hex; it has the checksums of all other files, so it names the contents.
    """

    def __init__(
        self, path: str, meta: dict[str, Any], files: pafs.FileSystem, root: str, sha256: str
    ) -> None:
        self.path = path
        self.meta = meta
        self.sha256 = sha256
        self._filesystem = files
        self._root = root

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Opens a store; reads store.json only.

        Raises:
            StoreError: there is no store at `path`, it is damaged, or its format is newer than this program.
        """
        name = str(path)
        try:
            files, root = pafs.FileSystem.from_uri(name) if "://" in name else (pafs.LocalFileSystem(), name)
            with files.open_input_stream(f"{root}/{META_FILE}") as stream:
                text = stream.read()
        except (OSError, pa.ArrowInvalid) as error:
            raise StoreError(_why_not(name, error)) from error
        return cls(name, _parse_meta(name, text), files, root, hashlib.sha256(text).hexdigest())

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
    def contents(self) -> str:
        """Whose it is and how much, for people."""
        counts = self.meta["counts"]
        return (
            f"{self.model} on {self.dataset}, {counts['problems']} problems, {counts['branches']} branches, "
            f"{counts['nodes']} segments"
        )

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
        return self.read(PROBLEMS_FILE)

    def __len__(self) -> int:
        """The number of problems."""
        return int(self.meta["counts"]["problems"])

    def __repr__(self) -> str:
        """The shapes, never the contents."""
        return (
            f"Store({self.path!r}, model={self.model!r}, dataset={self.dataset!r}, problems={len(self)}, "
            f"nodes={self.meta['counts']['nodes']}, capabilities={sorted(self.capabilities)})"
        )

    def forest(self) -> Forest:
        """All trees as flat arrays; read and verified on the first call, kept afterwards.

        Raises:
            StoreError: a shard is missing or damaged.
        """
        return self._forest

    @cached_property
    def _forest(self) -> Forest:
        try:
            return load_forest(self)
        except (KeyError, IndexError, ValueError, pa.ArrowException) as error:
            raise StoreError(
                f"{self.path} is damaged: its tables do not fit each other ({error}); "
                "import or collect it again"
            ) from error

    def texts(self) -> Iterator[pa.Table]:
        """The tables of texts and token ids, a shard at a time, columns as in `env.schema.TEXT`."""
        return (self.read(name) for name in self.shards("text"))

    def shards(self, kind: str) -> list[str]:
        """The names of the shards of a kind, `nodes` or `text`, in order."""
        return sorted(name for name in self.meta["files"] if name.startswith(f"{kind}/"))

    def read(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """One of the store's tables, or some of its columns, its checksum verified first.

        Raises:
            StoreError: the file is missing or damaged.
        """
        return pq.read_table(pa.BufferReader(self.read_bytes(name)), columns=columns)

    def read_bytes(self, name: str) -> pa.Buffer:
        """One of the store's files, its checksum verified. Raises like `read`."""
        path, advice = f"{self.path}/{name}", "import or collect it again, or restore it from a copy"
        if name not in self.meta["files"]:
            raise StoreError(f"{path} is not listed in {META_FILE}; {advice}")
        try:
            with self._filesystem.open_input_file(f"{self._root}/{name}") as file:
                # In Arrow's memory: one of its threads may be the last to let go of this, and if it
                # were Python's, a thread that does so while the interpreter ends would abort the process.
                data = file.read_buffer()
        except FileNotFoundError:
            raise StoreError(f"{path} is missing; {advice}") from None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error}; {advice}") from error
        if hashlib.sha256(data).hexdigest() != self.meta["files"][name].get("sha256"):
            raise StoreError(f"{path} is damaged: its checksum is not the one in {META_FILE}; {advice}")
        return data


def _parse_meta(path: str, text: bytes) -> dict[str, Any]:
    file = f"{path}/{META_FILE}"
    try:
        meta: dict[str, Any] = json.loads(text)
        version = meta["format_version"]
        if meta["format"] != FORMAT or type(version) is not int:
            raise KeyError("format")
    except (ValueError, KeyError, TypeError):
        raise StoreError(
            f"{file} is damaged, or not of an AutoTTS store; import or collect it again"
        ) from None
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{file} has format version {version}, and this program reads versions up to {FORMAT_VERSION}; "
            "upgrade it with `pip install -U autotts`"
        )
    for key, kind in _REQUIRED.items():
        if not isinstance(meta.get(key, ...), kind):
            raise StoreError(
                f"{file} is damaged: `{key}` is missing or malformed; import or collect it again"
            )
    if not {"problems", "nodes"} <= meta["counts"].keys():
        raise StoreError(f"{file} is damaged: `counts` is incomplete; import or collect it again")
    return meta


def _why_not(name: str, error: Exception) -> str:
    """Why there is no store at a path, and what to do."""
    if "://" in name:
        return f"there is no store at {name}: {error}"
    path = Path(name)
    try:
        if path.is_file():
            return f"{path} is a file, not a store; make a store of it with `autotts import`"
        if not path.exists():
            return f"there is no store at {path}; check the path, or make one with `autotts import`"
        inside = sorted(found.parent for found in path.glob("**/" + META_FILE))
        if inside:
            return f"{path} is not a store, but holds {len(inside)} of them; name them, {inside[0]} for one"
    except OSError as problem:
        error = problem
    if isinstance(error, FileNotFoundError):
        return (
            f"{path} is not a store: it has no {META_FILE}; check the path, or make one with `autotts import`"
        )
    return f"the store {path} cannot be read: {error}"
