"""The folder of a store in the making: beside its place until it is complete, then there at once."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from env.schema import META_FILE, StoreError


class StoreFolder:
    """The files of a store that is not there yet.

    A context manager: leaving the block removes every trace of what was not published. A killed process
    leaves at most a hidden folder beside `path`.

    Args:
        path: a local folder that does not exist yet, or is empty.
        force: replace the store at `path`, if there is one.

    Attributes:
        files: what store.json says of each file that is written: rows, sha256, and so on.

    Raises:
        StoreError: something is at `path` already, or it cannot be written.
    """

    def __init__(self, path: str | Path, force: bool = False) -> None:
        self.path = Path(path)
        self.files: dict[str, dict[str, Any]] = {}
        self._force = force
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
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, name: str, table: pa.Table, **facts: int) -> None:
        """Writes one of the store's tables; `facts`: what else store.json says of it. Raises StoreError."""
        with self._clear_errors():
            file = self._at(name)
            pq.write_table(table, file, compression="zstd", row_group_size=max(1, table.num_rows))
            self.files[name] = {"rows": table.num_rows, "sha256": hash_file(file), **facts}

    def copy(self, name: str, data: bytes, facts: Mapping[str, Any]) -> None:
        """Writes a file of another store, byte for byte. Raises StoreError."""
        with self._clear_errors():
            self._at(name).write_bytes(data)
            self.files[name] = dict(facts)

    def publish(self, meta: Mapping[str, Any]) -> None:
        """Writes store.json and puts the store in its place, in one step. Raises StoreError."""
        assert self._folder is not None
        with self._clear_errors():
            text = json.dumps({**meta, "files": self.files}, indent=1, ensure_ascii=False) + "\n"
            (self._folder / META_FILE).write_text(text, encoding="utf-8")
            for file in [*self.files, META_FILE, "."]:
                _sync(self._folder / file)
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

    def _at(self, name: str) -> Path:
        assert self._folder is not None
        file = self._folder / name
        file.parent.mkdir(exist_ok=True)
        return file

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
