"""Files of results: refused before the work where they cannot be written, and written whole or not at all."""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import UserError

if TYPE_CHECKING:
    import polars as pl


def ready(path: Path) -> None:
    """Make the folder of a file that is to be written after some work.

    Raises:
        UserError: the folder cannot be made or written, or `path` is a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"no folder can be made at {path.parent}: {error.strerror}") from error
    if path.is_dir():
        raise UserError(f"{path} is a folder, where a file is to be written; give the path of a file in it")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path.parent} cannot be written; give a path in another folder")


def ready_for_json(path: Path, *keys: str) -> None:
    """The same for a document with these keys, which may take the place of one like it, and of nothing else.

    Raises:
        UserError: as `ready`, or there is a file that is no such document.
    """
    ready(path)
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        document = None
    if not (isinstance(document, dict) and document.keys() >= set(keys)):
        raise UserError(f"{path} is there, and no figures of an earlier run; give another --json")


def write(path: Path, data: bytes) -> None:
    """Make a file beside `path`, then put it in its place; on an error nothing is left.

    Raises:
        UserError: the disk refuses.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, busy: UserError) -> Iterator[None]:
    """Hold a file for this process; raises `busy` where another one holds it."""
    import fcntl

    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise busy from None
        yield


def as_json(value: Any) -> bytes:
    """Plain values as JSON; numbers that it has not, such as infinity, become text."""
    strict = json.loads(json.dumps(value), parse_constant=str)
    return (json.dumps(strict, indent=2) + "\n").encode()


def as_parquet(frame: "pl.DataFrame") -> bytes:
    """A table as Parquet; in memory, since polars reports a full disk as an error of its own."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
