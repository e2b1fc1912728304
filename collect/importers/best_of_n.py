"""Completions with the step scores of a process reward model, as search-and-learn keeps them.

The columns are those of HuggingFaceH4's best-of-N sets (github.com/huggingface/search-and-learn): `problem`,
`answer` or `gold`, `completions`, `scores`, `completion_tokens`. Others, such as `pred`, say nothing new.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from collect.importers.branches import Branch, Problems, Segment, provenance
from collect.importers.checking import Record
from collect.importers.counting import Counter, load_counter
from collect.importers.tables import read_rows
from env.tasks import Task, load_task

WHOLE = "a completion is one segment, with the scores of all its steps"
STEPS = "a step is one segment; a whole completion where its steps are not as many as its scores"
# What ends a step: search-and-learn's reward models know these two.
SEPARATORS = ("\n\n", "\n")
COLUMNS = ("completions", "scores", "completion_tokens")


def import_files(
    files: Sequence[str | Path],
    out: str | Path,
    model: str = "unknown",
    dataset: str | None = None,
    task: str = "math",
    prm: str | None = None,
    tokenizer: str | None = None,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Imports files or datasets as one store.

    How many tokens a step has is not recorded. With a tokenizer they are counted and steps become segments,
    if a completion has as many steps as scores; without, a completion is one segment.

    Args:
        files: JSON lines (``.jsonl``, ``.json``), Parquet files, or datasets on the Hugging Face hub
            (``owner/name``) or in a folder.
        out: the store to make.
        model: what wrote the completions.
        dataset: what the problems are from; None = the files' names.
        task: how answers are read out of texts, compared and graded.
        prm: the process reward model.
        tokenizer: the model's: a tokenizer.json, or a name on the Hugging Face hub.
        config: of a dataset.
        split: of a dataset.
        revision: of a dataset on the hub.
        force: replace a store that exists.
        progress: told how many of how many problems are done.

    Raises:
        ImportFileError: something is missing or malformed; names file, row, field.
        StoreError: the store cannot be written.
        TaskError: there is no such task.
    """
    reader, count = load_task(task), load_counter(tokenizer) if tokenizer else None
    problems = Problems(out, force)
    sources = list(dict.fromkeys(map(str, files)))
    for source in sources:
        for record in read_rows(source, config, split, revision):
            gold = "gold" if "gold" in record.fields and "answer" not in record.fields else "answer"
            question, branches = record.text("problem"), _branches(record, reader, count)
            problems.add(record, question, record.text(gold), gold, branches)
    paths = [Path(source) for source in sources if Path(source).is_file()]
    where = {"config": config, "split": split, "revision": revision}
    datasets = [{"dataset": source, **where} for source in sources if Path(source) not in paths]
    problems.store(
        progress,
        model=model,
        dataset=dataset or "+".join(dict.fromkeys(Path(source).stem for source in sources)),
        task=task,
        segment_rule=STEPS if tokenizer else WHOLE,
        prm=prm,
        provenance=provenance("best-of-n", paths, datasets=datasets, tokenizer=tokenizer),
    )


@dataclass
class Completion:
    """One of a row's; `record` for errors."""

    record: Record
    text: str
    tokens: int
    scores: list[float]

    def steps(self, separator: str) -> list[str] | None:
        """The text in as many steps as there are scores, None if the separator does not cut it so."""
        parts = self.text.split(separator)
        pieces = [part + separator for part in parts[:-1]] + parts[-1:]
        # Reward models differ in whether an empty step follows a separator that ends the text.
        if not pieces[-1] and len(pieces) == len(self.scores) + 1:
            pieces.pop()
        return pieces if len(pieces) == len(self.scores) else None


def _branches(record: Record, task: Task, count: Counter | None) -> list[Branch]:
    if record.fields.get("completion_tokens") == -1:
        record.refuse("completion_tokens", "is -1, as of a search; branches must be sampled independently")
    texts, *others = columns = [record.list(field) for field in COLUMNS]
    for field, values in zip(COLUMNS[1:], others, strict=True):
        if len(values) != len(texts):
            record.refuse(field, f"has {len(values)} entries for {len(texts)} completions")
    completions = [
        _completion(Record(f"{record.where}: completion {number}", dict(zip(COLUMNS, values, strict=True))))
        for number, values in enumerate(zip(*columns, strict=True), 1)
    ]
    # One reward model scored them all, so one separator is right for all.
    separator = max(SEPARATORS, key=lambda each: sum(c.steps(each) is not None for c in completions))
    branches = [Branch(_segments(completion, separator, count)) for completion in completions]
    for completion, branch in zip(completions, branches, strict=True):
        branch.segments[-1].answer = task.extract(completion.text)
    return branches


def _completion(record: Record) -> Completion:
    text, scores = record.text("completions", blank=True), record.list("scores")
    if not scores or not all(type(score) in (int, float) and math.isfinite(score) for score in scores):
        record.refuse("scores", "must be a list of numbers, one for each step")
    return Completion(record, text, record.count("completion_tokens"), scores)


def _segments(completion: Completion, separator: str, count: Counter | None) -> list[Segment]:
    steps = completion.steps(separator)
    if count is None or steps is None:
        return [Segment(completion.tokens, completion.text, scores=completion.scores)]
    *lengths, _ = count(steps)
    before = sum(lengths)
    if before > completion.tokens:
        completion.record.refuse(
            "completion_tokens",
            f"is {completion.tokens}, but --tokenizer finds {before} before the last step; is it right?",
        )
    # The last step also has what a text does not show, such as the token that ends it.
    lengths.append(completion.tokens - before)
    return [
        Segment(length, step, scores=[score])
        for length, step, score in zip(lengths, steps, completion.scores, strict=True)
    ]
