"""The recordings published with AutoTTS (github.com/zhengkid/AutoTTS): probes at a fixed interval, no texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import UserError
from env.forest import END_STOP
from env.schema import StoreError
from env.store_writer import Nodes, StoreWriter, hash_file

SEGMENT_RULE = "a probe every segment_tokens tokens; what is left after the last probe is one more segment"
UNPARSED = "ERR"
KEYS = ("question", "gold_answer", "probe_freq", "each_branch")


class ImportFileError(UserError):
    """A file to import does not hold what its format promises."""


def import_files(
    files: Sequence[str | Path],
    out: str | Path,
    model: str | None = None,
    dataset: str | None = None,
    task: str = "math",
    force: bool = False,
) -> list[Path]:
    """Imports published JSON files, each into a store of its own.

    Args:
        files: paths ``<model>/<dataset>.json``.
        out: the store, for one file; for several, the folder of ``<model>/<dataset>`` stores.
        model: overrides the model's name, which is the file's folder.
        dataset: overrides the dataset's name, which is the file's stem.
        task: how answers are compared and graded.
        force: replace stores that exist.

    Returns:
        The stores' paths.

    Raises:
        ImportFileError: a file is missing or malformed; names file, problem and field.
        StoreError: a store cannot be written.
    """
    paths = [Path(file) for file in files]
    names = [(model or path.resolve().parent.name, dataset or path.stem) for path in paths]
    stores = [Path(out)] if len(paths) == 1 else [Path(out) / model / dataset for model, dataset in names]
    for path, (model_name, dataset_name), store in zip(paths, names, stores, strict=True):
        import_file(path, store, model_name, dataset_name, task, force)
    return stores


def import_file(path: Path, store: Path, model: str, dataset: str, task: str, force: bool) -> None:
    """Imports one published JSON file; arguments and errors as in `import_files`."""
    problems = _load(path)
    intervals = {problem["probe_freq"] for problem in problems}
    with StoreWriter(
        store,
        model=model,
        dataset=dataset,
        task=task,
        segment_tokens=intervals.pop(),
        segment_rule=SEGMENT_RULE,
        provenance={"format": "autotts", "file": path.name, "sha256": hash_file(path)},
        force=force,
    ) as writer:
        for number, problem in enumerate(problems, 1):
            try:
                nodes = _nodes(problem["each_branch"], problem["probe_freq"])
                writer.add_problem(problem["question"], problem["gold_answer"], nodes, unparsed=(UNPARSED,))
            except StoreError as error:
                raise ImportFileError(f"{path}: {error}") from None


def _load(path: Path) -> list[dict[str, Any]]:
    problems: list[dict[str, Any]] = json.loads(path.read_bytes())
    return problems


def _nodes(branches: list[Any], interval: int) -> Nodes:
    """The segments of one problem's branches; see DESIGN for the arithmetic of the last ones."""
    parent: list[int] = []
    tokens: list[int] = []
    answer: list[str] = []
    probed: list[bool] = []
    end: list[int] = []
    for probes, length, final in branches:
        first, asked = len(tokens), len(probes)
        rest = length - interval * (asked - 1) if asked else length
        if asked and rest <= interval and probes[-1] == final:
            tokens += [interval] * (asked - 1) + [rest]
            answer += probes
            probed += [True] * asked
        else:
            if asked:
                probe_cost = min(rest, interval)
                tokens += [interval] * (asked - 1) + [probe_cost]
                rest -= probe_cost
            tokens.append(rest)
            answer += [*probes, final]
            probed += [True] * asked + [False]
        rows = len(tokens) - first
        parent += [-1, *range(first, first + rows - 1)]
        end += [0] * (rows - 1) + [END_STOP]
    return Nodes(
        parent=np.array(parent, np.int32),
        tokens=np.array(tokens, np.int32),
        answer=answer,
        probed=np.array(probed),
        end=np.array(end, np.uint8),
    )
