"""Plain JSON lines, a line a branch, for samples of one's own; the fields are those of `Branch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from collect.importers.checking import ImportFileError, Record, adding, parse_json, read_bytes
from env.forest import END_STOP, hash_question
from env.nodes import Nodes
from env.store_writer import StoreWriter, hash_file
from env.tasks import Task, load_task

SEGMENT_RULE = "segments end where the recording was probed, the last one where the branch ends"


@dataclass
class Probe:
    """What the model answered when it was stopped; `tokens` count from the branch's beginning."""

    tokens: int
    answer: str | None
    cost: int


@dataclass
class Branch:
    """One line: a solution of `tokens` tokens, probed on the way, with its final answer (None = none)."""

    text: str
    tokens: int
    answer: str | None
    probes: list[Probe]


@dataclass
class Problem:
    """The branches of one problem, and the line that first named it."""

    question: str
    gold: str
    line: int
    branches: list[Branch] = field(default_factory=list)


def import_file(
    path: str | Path,
    out: str | Path,
    model: str = "unknown",
    dataset: str | None = None,
    task: str = "math",
    tokenizer: str | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Imports a file of JSON lines as a store.

    Args:
        path: the file.
        out: the store to make.
        model: what wrote the branches.
        dataset: what the problems are from; None = the file's name.
        task: how answers are read out of texts, compared and graded.
        tokenizer: what counts the tokens of lines without `tokens`: a tokenizer.json, or a name on the
            Hugging Face hub.
        force: replace a store that exists.
        progress: told how many of how many problems are done.

    Raises:
        ImportFileError: the file or tokenizer is missing, or a line malformed; names file, line, field.
        StoreError: the store cannot be written.
        TaskError: there is no such task.
    """
    path = Path(path)
    problems = _read(path, load_task(task), _Counter(tokenizer))
    interval = _interval(problems)
    with StoreWriter(
        out,
        model=model,
        dataset=dataset or path.stem,
        task=task,
        segment_tokens=interval,
        segment_rule=SEGMENT_RULE,
        provenance={"format": "jsonl", "file": path.name, "sha256": hash_file(path), "tokenizer": tokenizer},
        force=force,
    ) as writer:
        for number, problem in enumerate(problems):
            with adding(f"{path}: line {problem.line}"):
                writer.add_problem(problem.question, problem.gold, _nodes(problem.branches))
            progress(number + 1, len(problems))


def _read(path: Path, task: Task, counter: _Counter) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for number, line in enumerate(read_bytes(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        record = Record(where, parse_json(line, where))
        question, gold = record.text("problem"), record.text("gold")
        problem = problems.setdefault(hash_question(question), Problem(question, gold, number))
        if gold != problem.gold:
            record.refuse(
                "gold", f"is {gold!r}, but {problem.gold!r} in line {problem.line} for the same problem"
            )
        problem.branches.append(_branch(record, task, counter))
    return list(problems.values())


def _branch(record: Record, task: Task, counter: _Counter) -> Branch:
    text = record.text("text", blank=True)
    tokens = record.count("tokens") if "tokens" in record.fields else counter.count(record, text)
    answer = record.answer("answer") if "answer" in record.fields else task.extract(text)
    probes: list[Probe] = []
    for number, value in enumerate(record.list("probes") if "probes" in record.fields else [], 1):
        probe = Record(f"{record.where}: `probes` {number}", value)
        cost = probe.count("cost") if "cost" in probe.fields else -1
        probes.append(Probe(probe.count("tokens", least=1), probe.answer("answer"), cost))
        if len(probes) > 1 and probes[-2].tokens >= probes[-1].tokens:
            probe.refuse(
                "tokens", f"is {probes[-1].tokens}, not more than at the probe before ({probes[-2].tokens})"
            )
        if probes[-1].tokens > tokens:
            probe.refuse("tokens", f"is {probes[-1].tokens}, past the branch's end at {tokens}")
    return Branch(text, tokens, answer, probes)


class _Counter:
    """Counts the tokens of texts, where a tokenizer was named."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._tokenizer: Any = None

    def count(self, record: Record, text: str) -> int:
        if self._name is None:
            record.refuse("tokens", "is missing; give it, or count them with --tokenizer NAME")
        if self._tokenizer is None:
            self._tokenizer = _load_tokenizer(self._name)
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _load_tokenizer(name: str) -> Any:
    try:
        from tokenizers import Tokenizer  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ImportFileError("--tokenizer needs a package: run `pip install tokenizers`") from None
    try:
        return Tokenizer.from_file(name) if Path(name).is_file() else Tokenizer.from_pretrained(name)
    # The package raises bare Exceptions.
    except Exception as error:
        raise ImportFileError(
            f"the tokenizer {name} cannot be loaded: {error}; name a tokenizer.json or a model of the hub"
        ) from error


def _interval(problems: Sequence[Problem]) -> int | None:
    """The interval at which every branch was probed, None if there is no such."""
    branches = [branch for problem in problems for branch in problem.branches]
    intervals = {branch.probes[0].tokens for branch in branches if branch.probes}
    if len(intervals) != 1:
        return None
    (interval,) = intervals
    regular = all(
        probe.tokens == min(number * interval, branch.tokens)
        for branch in branches
        for number, probe in enumerate(branch.probes, 1)
    )
    return interval if regular else None


def _nodes(branches: list[Branch]) -> Nodes:
    parent: list[int] = []
    tokens: list[int] = []
    answer: list[str | None] = []
    cost: list[int] = []
    probed: list[bool] = []
    end: list[int] = []
    text: list[str | None] = []
    for branch in branches:
        rows = [(probe.tokens, probe.answer, probe.cost, True) for probe in branch.probes]
        # The end falls on the last probe if nothing follows it and it says what the branch says.
        if not rows or rows[-1][:2] != (branch.tokens, branch.answer):
            rows.append((branch.tokens, branch.answer, -1, False))
        parent += [-1, *range(len(parent), len(parent) + len(rows) - 1)]
        tokens += np.diff([row[0] for row in rows], prepend=0).tolist()
        answer += [row[1] for row in rows]
        cost += [row[2] for row in rows]
        probed += [row[3] for row in rows]
        end += [0] * (len(rows) - 1) + [END_STOP]
        # Where in the text a probe was asked is not known: all of it stands with the last segment.
        text += [None] * (len(rows) - 1) + [branch.text]
    return Nodes(parent, tokens, answer, probed, end, probe_tokens=cost, text=text)
