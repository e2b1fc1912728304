"""Reading tables row by row, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collect.importers.checking import ImportFileError, Record, read_bytes, read_json_lines

# Rows may be large: hundreds of completions each.
ROWS_AT_ONCE = 8


def read_rows(source: str, config: str | None, split: str, revision: str | None) -> Iterator[Record]:
    """The rows of JSON lines, a Parquet file, or a dataset of the Hugging Face hub or in a folder.

    Args:
        source: a path that ends in .jsonl, .json or .parquet, or what `datasets.load_dataset` takes.
        config: of a dataset.
        split: of a dataset.
        revision: of a dataset.

    Raises:
        ImportFileError: it cannot be read, or `datasets` is needed and not installed.
    """
    path = Path(source)
    if path.suffix in (".jsonl", ".json"):
        yield from read_json_lines(path)
        return
    rows = _parquet(path) if path.suffix == ".parquet" else _dataset(source, config, split, revision)
    for number, row in enumerate(rows, 1):
        yield Record(f"{source}: row {number}", row)


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for batch in pq.ParquetFile(pa.BufferReader(read_bytes(path))).iter_batches(ROWS_AT_ONCE):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ImportFileError(f"{path}: not a Parquet file, or damaged: {error}") from error


def _dataset(name: str, config: str | None, split: str, revision: str | None) -> Iterator[dict[str, Any]]:
    try:
        from datasets import load_dataset  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ImportFileError(
            f"{name} is no .jsonl or .parquet file; for a dataset of the hub run `pip install datasets`"
        ) from None
    try:
        rows = load_dataset(name, config, split=split, revision=revision)
    # The network, the hub, the dataset: whatever is in the way.
    except Exception as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ImportFileError(f"the dataset {name} cannot be loaded: {reason}") from error
    yield from rows
