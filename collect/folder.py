"""What is finished of a collection, in a folder beside the store that it will become.

    recipe.json              what decides the samples; the same command finds it again
    samples-0/000000.parquet the first group of problems as arm 0 sampled it, a row a problem
    prm/recipe.json          what decides the scores
    prm/000000.parquet       the scores of the first group

A file that is there is complete: it is written under another name and renamed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from env import files
from env.errors import UserError
from env.nodes import Nodes

RECIPE = "recipe.json"
_SAMPLES = pa.schema(
    [
        pa.field("problem", pa.int64(), nullable=False),
        pa.field("parent", pa.list_(pa.int32()), nullable=False),
        pa.field("tokens", pa.list_(pa.int32()), nullable=False),
        pa.field("answer", pa.list_(pa.string()), nullable=False),
        pa.field("probed", pa.list_(pa.bool_()), nullable=False),
        pa.field("end", pa.list_(pa.uint8()), nullable=False),
        pa.field("probe_tokens", pa.list_(pa.int32()), nullable=False),
        pa.field("logprob", pa.list_(pa.float32()), nullable=False),
        pa.field("confidence", pa.list_(pa.float32())),
        pa.field("text", pa.list_(pa.string()), nullable=False),
        pa.field("token_ids", pa.list_(pa.list_(pa.int32())), nullable=False),
    ]
)
_SCORES = pa.schema(
    [
        pa.field("problem", pa.int64(), nullable=False),
        pa.field("prm", pa.list_(pa.list_(pa.float32())), nullable=False),
    ]
)
COLUMNS = [name for name in _SAMPLES.names if name != "problem"]


class FolderError(UserError):
    """What is finished cannot be kept, or is of another collection."""


class WorkFolder:
    """Finished groups of one collection.

    Args:
        out: the store that they will become; the folder is beside it.
        recipe: what decides the samples, as JSON has it.

    Raises:
        FolderError: the folder is of another collection.
    """

    def __init__(self, out: Path, recipe: Mapping[str, Any]) -> None:
        self.out = out
        self.path = out.with_name(f"{out.name}.collecting")
        self.recipe = as_stored(recipe)

    def open(self) -> None:
        """Makes the folder, or finds it as it was left. Raises FolderError."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._agree(self.path / RECIPE)

    def locked(self) -> AbstractContextManager[None]:
        """Keeps others out. Raises FolderError if there is another at work."""
        busy = FolderError(
            f"another process is collecting into {self.out}; wait for it, or choose another --out"
        )
        return files.locked(self.path / "lock", busy)

    def open_scores(self, recipe: Mapping[str, Any]) -> None:
        """Makes room for scores; those of another PRM are discarded, since they are cheap beside samples."""
        folder, stored = self.path / "prm", as_stored(recipe)
        with writing(folder):
            folder.mkdir(exist_ok=True)
            if _read_json(folder / RECIPE) != stored:
                shutil.rmtree(folder)
                folder.mkdir()
                files.write(folder / RECIPE, files.as_json(stored))

    def samples(self, arm: int, group: int) -> Path:
        """Where the samples of a group are, once they are."""
        return self.path / f"samples-{arm}" / f"{group:06d}.parquet"

    def scores(self, group: int) -> Path:
        """Where the scores of a group are, once they are."""
        return self.path / "prm" / f"{group:06d}.parquet"

    def write_samples(self, arm: int, group: int, problems: Sequence[tuple[int, Nodes]]) -> None:
        """Keeps a group: for each of its problems its number and nodes. Raises FolderError."""
        rows = [
            {"problem": number} | {name: getattr(nodes, name) for name in COLUMNS}
            for number, nodes in problems
        ]
        _write(self.samples(arm, group), pa.Table.from_pylist(rows, schema=_SAMPLES))

    def read_samples(self, arm: int, group: int) -> list[tuple[int, Nodes]]:
        """A group that was kept."""
        rows = _read(self.samples(arm, group))
        return [(row.pop("problem"), Nodes(**row)) for row in rows]

    def write_scores(
        self, group: int, problems: Sequence[tuple[int, Sequence[Sequence[float | None]]]]
    ) -> None:
        """Keeps the scores of a group: for each problem its number and the scores of each node's steps."""
        rows = [{"problem": number, "prm": scores} for number, scores in problems]
        _write(self.scores(group), pa.Table.from_pylist(rows, schema=_SCORES))

    def read_scores(self, group: int) -> list[list[list[float | None]]]:
        """The scores of a group that was kept, problem by problem."""
        return [row["prm"] for row in _read(self.scores(group))]

    def remove(self) -> None:
        """Removes the folder; the store has it all."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _agree(self, file: Path) -> None:
        found = _read_json(file)
        if found is None or not any(self.path.glob("samples-*/[0-9]*.parquet")):
            files.write(file, files.as_json(self.recipe))
        elif found != self.recipe:
            differences = ", ".join(_differences(found, self.recipe))
            raise FolderError(
                f"{self.path} holds an unfinished collection with other settings ({differences}); finish it "
                "with the command it was begun with, choose another --out, or remove the folder"
            )


def as_stored(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as it comes back from JSON."""
    stored: dict[str, Any] = json.loads(json.dumps(recipe))
    return stored


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says in one sentence what a disk refuses."""
    try:
        yield
    except OSError as error:
        raise FolderError(
            f"{path} cannot be written: {error.strerror or error}; what is finished is kept: make room and "
            "run the same command again"
        ) from error


def _write(path: Path, table: pa.Table) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        try:
            with partial.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise FolderError(
            f"{path} cannot be read: {error}; remove the file, and it is collected again"
        ) from error
    return rows


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise FolderError(f"{file} is damaged; remove the folder {file.parent}, and begin again") from None


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Which settings differ, with their values where these are short."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    else:
        texts = [text if len(text) <= 30 else f"{text[:27]}..." for text in (repr(old), repr(new))]
        yield f"{name}: {texts[0]}, now {texts[1]}"
