"""Logs of inspect_ai (`.eval`): a reply for every sample and epoch, tokens as the server counted them."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from collect.importers.branches import Branch, Problems, Segment, one_of, provenance
from collect.importers.checking import ImportFileError, Record, read_bytes
from collect.importers.counting import Counter, load_counter
from env.forest import END_LENGTH, END_STOP
from env.tasks import Task, load_task

SEGMENT_RULE = "a reply is one segment, thoughts included"
CUT_OFF = ("max_tokens", "model_length")
UNUSED = {"events", "events_data", "timelines", "store", "attachments"}


def import_files(
    files: Sequence[str | Path],
    out: str | Path,
    model: str | None = None,
    dataset: str | None = None,
    task: str = "math",
    tokenizer: str | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Imports logs as one store; the epochs of a sample become branches of one problem.

    Args:
        files: logs of complete runs in which every sample is a single reply of the model.
        out: the store to make.
        model: what wrote the replies; None = as logged.
        dataset: what the problems are from; None = inspect's task.
        task: how answers are read out of texts, compared and graded.
        tokenizer: what counts the tokens of replies that came without: a tokenizer.json, or a name on the
            Hugging Face hub.
        force: replace a store that exists.
        progress: told how many of how many problems are done.

    Raises:
        ImportFileError: inspect_ai is not installed, a file or the tokenizer is missing, or a log malformed;
            names file, sample, field.
        StoreError: the store cannot be written.
        TaskError: there is no such task.
    """
    reader, count = load_task(task), load_counter(tokenizer) if tokenizer else None
    problems = Problems(out, force)
    logs: dict[Path, Any] = {}
    for path in map(Path, files):
        log = _read(path)
        for sample in log.samples:
            record = Record(f"{path}: sample {sample.id}, epoch {sample.epoch}", dict(sample))
            branch = _branch(record, sample, reader, count)
            problems.add(record, _question(record, sample), _gold(record, sample.target), "target", [branch])
        # The samples are in `problems` now, and may be many.
        logs[path] = log.model_copy(update={"samples": None})
    settings = [_settings(log) for log in logs.values()]
    problems.store(
        progress,
        model=model or one_of({path: log.eval.model for path, log in logs.items()}, "model"),
        dataset=dataset or "+".join(dict.fromkeys(log.eval.task for log in logs.values())),
        task=task,
        segment_rule=SEGMENT_RULE,
        sampling=settings[0] if all(other == settings[0] for other in settings) else None,
        provenance=provenance("inspect", logs, tokenizer=tokenizer),
    )


def _read(path: Path) -> Any:
    try:
        from inspect_ai.log import read_eval_log  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ImportFileError(
            "reading inspect's logs needs a package: run `pip install inspect_ai`"
        ) from None
    read_bytes(path)
    try:
        log = read_eval_log(str(path), exclude_fields=UNUSED)
    # Whatever is wrong with it: a zip file cut short, another version's fields, no log at all.
    except Exception as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ImportFileError(f"{path}: not a log that inspect_ai can read: {reason}") from error
    if log.status != "success" or log.invalidated:
        status = log.status if log.status != "success" else "invalidated"
        raise ImportFileError(
            f"{path}: `status` is {status!r}; only complete runs count: finish it with `inspect eval-retry`"
        )
    if not log.samples:
        raise ImportFileError(f"{path}: `samples` is empty; run inspect without --no-log-samples")
    return log


def _branch(record: Record, sample: Any, task: Task, count: Counter | None) -> Branch:
    if sample.error is not None:
        record.refuse("error", f"is {sample.error.message!r}; have it done with `inspect eval-retry`")
    if len(sample.output.choices) != 1:
        record.refuse("output", f"has {len(sample.output.choices)} choices; a branch is a single reply")
    replies = sum(message.source == "generate" for message in sample.messages if message.role == "assistant")
    if replies != 1:
        record.refuse("messages", f"has {replies} replies of the model; a branch is a single reply")
    content, usage = sample.output.message.content, sample.output.usage
    parts = [content] if isinstance(content, str) else [_text(part) for part in content]
    text = "\n\n".join(part for part in parts if part)
    tokens = usage.output_tokens if usage is not None else 0
    if not tokens and text:
        if count is None or None in parts:
            record.refuse("output", "has no token count in its `usage`; count them with --tokenizer NAME")
        tokens = count([text])[0]
    end = END_LENGTH if sample.output.stop_reason in CUT_OFF or sample.limit is not None else END_STOP
    return Branch([Segment(tokens, text, task.extract(sample.output.completion))], end)


def _text(part: Any) -> str | None:
    """A part of a reply as text, None if it is something else, or a thought that the server kept secret."""
    if part.type == "reasoning":
        return None if part.redacted else part.reasoning
    return part.text if part.type == "text" else None


def _question(record: Record, sample: Any) -> str:
    asked = sample.input
    if not isinstance(asked, str):
        asked = "\n\n".join(message.text for message in asked if message.role == "user")
    if not asked.strip():
        record.refuse("input", "has no text")
    choices = zip(string.ascii_uppercase, sample.choices or [], strict=False)
    return "\n".join([asked, *(f"{letter}) {choice}" for letter, choice in choices)])


def _gold(record: Record, target: str | list[str]) -> str:
    golds = [target] if isinstance(target, str) else target
    if len(golds) != 1 or not golds[0].strip():
        record.refuse("target", f"is {target!r}; a problem has one right answer here")
    return golds[0]


def _settings(log: Any) -> dict[str, Any]:
    """What was sampled with: the task's settings, over which the model's own go."""
    configs = (log.plan.config, log.eval.model_generate_config)
    general, special = (config.model_dump(mode="json", exclude_none=True) for config in configs)
    return {**general, **special}
