"""Plain JSON lines, a line a branch, for samples of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

from collect.importers.branches import Branch, Problems, Segment
from collect.importers.checking import Record, read_json_lines
from collect.importers.counting import Counter, load_counter
from env.store_writer import hash_file
from env.tasks import Task, load_task

SEGMENT_RULE = "segments end where the recording was probed, the last one where the branch ends"


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
    reader, count = load_task(task), load_counter(tokenizer) if tokenizer else None
    problems = Problems(out, force)
    for record in read_json_lines(path):
        question, gold = record.text("problem"), record.text("gold")
        problems.add(record, question, gold, "gold", [_branch(record, reader, count)])
    problems.store(
        progress,
        model=model,
        dataset=dataset or path.stem,
        task=task,
        segment_tokens=_interval(problems.branches()),
        segment_rule=SEGMENT_RULE,
        provenance={"format": "jsonl", "file": path.name, "sha256": hash_file(path), "tokenizer": tokenizer},
    )


def _branch(record: Record, task: Task, count: Counter | None) -> Branch:
    text = record.text("text", blank=True)
    if "tokens" not in record.fields and count is None:
        record.refuse("tokens", "is missing; give it, or count them with --tokenizer NAME")
    tokens = record.count("tokens") if "tokens" in record.fields or count is None else count([text])[0]
    answer = record.answer("answer") if "answer" in record.fields else task.extract(text)
    segments: list[Segment] = []
    reached = 0
    for number, value in enumerate(record.list("probes") if "probes" in record.fields else [], 1):
        probe = Record(f"{record.where}: `probes` {number}", value)
        cost = probe.count("cost") if "cost" in probe.fields else -1
        depth, said = probe.count("tokens", least=1), probe.answer("answer")
        if depth <= reached:
            probe.refuse("tokens", f"is {depth}, not more than at the probe before ({reached})")
        if depth > tokens:
            probe.refuse("tokens", f"is {depth}, past the branch's end at {tokens}")
        segments.append(Segment(depth - reached, answer=said, probed=True, cost=cost))
        reached = depth
    # The end falls on the last probe if nothing follows it and it says what the branch says.
    if not segments or (reached, segments[-1].answer) != (tokens, answer):
        segments.append(Segment(tokens - reached, answer=answer))
    # Where in the text a probe was asked is not known: all of it stands with the last segment.
    segments[-1].text = text
    return Branch(segments)


def _interval(branches: Sequence[Branch]) -> int | None:
    """The interval at which every branch was probed, None if there is no such."""
    intervals = {branch.segments[0].tokens for branch in branches if branch.segments[0].probed}
    if len(intervals) != 1:
        return None
    (interval,) = intervals
    for branch in branches:
        *depths, length = accumulate(segment.tokens for segment in branch.segments)
        probed = [*depths, length] if branch.segments[-1].probed else depths
        if probed != [min(number * interval, length) for number in range(1, len(probed) + 1)]:
            return None
    return interval
