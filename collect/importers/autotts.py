"""The recordings published with AutoTTS (github.com/zhengkid/AutoTTS): regular probes, no text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collect.importers.checking import ImportFileError, Record, adding, read_json
from env.forest import END_STOP
from env.math_checker import checker
from env.nodes import Nodes
from env.store_writer import StoreWriter, hash_file, refuse_occupied

SEGMENT_RULE = "a probe every segment_tokens tokens; what is left after the last probe is one more segment"
UNPARSED = "ERR"


def import_files(
    files: Sequence[str | Path],
    out: str | Path,
    model: str | None = None,
    dataset: str | None = None,
    task: str = "math",
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    made: Callable[[Path], None] = lambda store: None,
) -> list[Path]:
    """Imports published JSON files, each into a store of its own.

    Args:
        files: paths ``<model>/<dataset>.json``.
        out: the store, for one file; for several, the folder of ``<model>/<dataset>`` stores.
        model: overrides the model's name, which is the file's folder.
        dataset: overrides the dataset's name, which is the file's stem.
        task: how answers are compared and graded.
        force: replace stores that exist.
        progress: told how many of how many files are done.
        made: told of every store when it is complete.

    Returns:
        The stores' paths.

    Raises:
        ImportFileError: a file is missing or malformed (names file, problem and field), or two files would
            make the same store.
        StoreError: a store cannot be written.
        TaskError: there is no such task.
    """
    paths = [Path(file) for file in files]
    names = [(model or path.resolve().parent.name, dataset or path.stem) for path in paths]
    stores = [Path(out)] if len(paths) == 1 else [Path(out) / model / dataset for model, dataset in names]
    sources: dict[Path, Path] = {}
    for path, store in zip(paths, stores, strict=True):
        if store in sources:
            raise ImportFileError(
                f"{path} and {sources[store]} would both become {store}; "
                "import them one at a time, each with its own --out"
            )
        sources[store] = path
        refuse_occupied(store, force)
    for number, (path, names_of_path, store) in enumerate(zip(paths, names, stores, strict=True)):
        progress(number, len(paths))
        import_file(path, store, *names_of_path, task, force)
        made(store)
    return stores


def import_file(path: Path, store: Path, model: str, dataset: str, task: str, force: bool) -> None:
    """Imports one published JSON file; arguments and errors as in `import_files`."""
    if task == "math":
        # It takes half a second to start: meanwhile the file is read.
        checker().start()
    problems, interval = _load(path)
    with StoreWriter(
        store,
        model=model,
        dataset=dataset,
        task=task,
        segment_tokens=interval,
        segment_rule=SEGMENT_RULE,
        provenance={"format": "autotts", "file": path.name, "sha256": hash_file(path)},
        force=force,
    ) as writer:
        branches = [branch for problem in problems for branch in problem["each_branch"]]
        # Before the writer waits for the process that reads mathematics, which is still starting.
        trees = [_nodes(problem["each_branch"], interval) for problem in problems]
        writer.expect({answer for probes, _, final in branches for answer in (*probes, final)} - {UNPARSED})
        for number, (problem, nodes) in enumerate(zip(problems, trees, strict=True), 1):
            with adding(f"{path}: problem {number}"):
                writer.add_problem(problem["question"], problem["gold_answer"], nodes, unparsed=[UNPARSED])


def _load(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The checked problems of a file, and the interval at which they were probed."""
    problems = read_json(path)
    if not isinstance(problems, list) or not problems:
        raise ImportFileError(
            f"{path}: expected a list of problems; is it a recording published with AutoTTS?"
        )
    intervals: dict[int, int] = {}
    for number, problem in enumerate(problems, 1):
        record = Record(f"{path}: problem {number}", problem)
        record.text("question")
        if record.text("gold_answer") == UNPARSED:
            record.refuse("gold_answer", f"is {UNPARSED!r}, which stands for no answer")
        intervals.setdefault(record.count("probe_freq", least=1), number)
        branches = record.list("each_branch")
        if not branches:
            record.refuse("each_branch", "is empty; leave the problem out or sample it")
        for branch_number, branch in enumerate(branches, 1):
            _check_branch(record, f"each_branch[{branch_number}]", branch, problem["probe_freq"])
        finals = problem.get("final_answers_trace")
        if finals is not None and finals != [final for _, _, final in branches]:
            record.refuse("final_answers_trace", "does not repeat the branches' final answers")
    if len(intervals) > 1:
        (first, one), (second, two) = list(intervals.items())[:2]
        raise ImportFileError(
            f"{path}: problem {two}: `probe_freq` is {second}, in problem {one} it is {first}; "
            "a store has one interval: split the file"
        )
    return problems, next(iter(intervals))


def _check_branch(record: Record, field: str, branch: Any, interval: int) -> None:
    if not isinstance(branch, list) or len(branch) != 3:
        record.refuse(field, "must be [probe answers, total tokens, final answer]")
    probes, length, final = branch
    if not isinstance(probes, list) or not set(map(type, probes)) <= {str}:
        record.refuse(field, "has probe answers that are not a list of strings")
    if type(length) is not int or not 0 <= length < 2**31:
        record.refuse(field, f"has {length!r} total tokens, expected a whole number from 0")
    if type(final) is not str:
        record.refuse(field, f"has the final answer {final!r}, expected a string")
    if length < interval * (len(probes) - 1):
        record.refuse(field, f"has {length} tokens, too few for {len(probes)} probes {interval} tokens apart")


def _nodes(branches: list[Any], interval: int) -> Nodes:
    """The segments of one problem's branches, the last of each as long as is left."""
    parent: list[int] = []
    tokens: list[int] = []
    answer: list[str] = []
    probed: list[bool] = []
    end: list[int] = []
    for probes, length, final in branches:
        first, asked = len(tokens), len(probes)
        left = length
        if asked:
            last = min(interval, length - interval * (asked - 1))
            tokens += [interval] * (asked - 1) + [last]
            left -= interval * (asked - 1) + last
        answer += probes
        probed += [True] * asked
        # The end falls on the last probe if nothing follows it and it says what the branch says.
        if not asked or left or probes[-1] != final:
            tokens.append(left)
            answer.append(final)
            probed.append(False)
        rows = len(tokens) - first
        parent += [-1, *range(first, first + rows - 1)]
        end += [0] * (rows - 1) + [END_STOP]
    return Nodes(
        parent=np.array(parent, np.int32),
        tokens=np.array(tokens, np.int32),
        answer=answer,
        probed=np.array(probed, np.bool_),
        end=np.array(end, np.uint8),
    )
