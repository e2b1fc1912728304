"""Samples logged by lm-evaluation-harness (`--log_samples`): replies without tokens, a line a filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from collect.importers.branches import Branch, Problems, Segment, one_of, provenance
from collect.importers.checking import Record, read_json_lines
from collect.importers.counting import Counter, load_counter
from env.forest import hash_question
from env.math_task import last_boxed
from env.tasks import Task, load_task

SEGMENT_RULE = "a reply is one segment; its tokens are counted in its text, without what stopped it"
# What tasks call the field with the problem, in any case; the first that a document has counts.
QUESTIONS = ("question", "problem", "query", "input", "prompt")


def import_files(
    files: Sequence[str | Path],
    out: str | Path,
    tokenizer: str,
    model: str | None = None,
    dataset: str | None = None,
    task: str = "math",
    question: str | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Imports files of samples as one store; replies to the same question become branches of one problem.

    Filters pick or rewrite replies in order to score them; here all replies count, once, and the task reads
    their answers.

    Args:
        files: paths ``<model>/samples_<task>_<date>.jsonl``, of tasks that generate text.
        out: the store to make.
        tokenizer: what counts the tokens of replies: a tokenizer.json, or a name on the Hugging Face hub.
        model: what wrote the replies; None = the files' folder.
        dataset: what the problems are from; None = the harness's task.
        task: how answers are read out of texts, compared and graded.
        question: the field of a document with its question, or ``prompt`` for all that the model was sent;
            None = the first of `QUESTIONS` that there is.
        force: replace a store that exists.
        progress: told how many of how many problems are done.

    Raises:
        ImportFileError: a file or the tokenizer is missing, or a line malformed; names file, line, field.
        StoreError: the store cannot be written.
        TaskError: there is no such task.
    """
    paths = [Path(file) for file in files]
    samples = _Samples(Problems(out, force), load_task(task), load_counter(tokenizer), question)
    for path in paths:
        samples.read(path)
    names = [path.stem.removeprefix("samples_").rpartition("_")[0] or path.stem for path in paths]
    settings = samples.settings
    samples.problems.store(
        progress,
        model=model or one_of({path: path.resolve().parent.name for path in paths}, "model"),
        dataset=dataset or "+".join(dict.fromkeys(names)),
        task=task,
        segment_rule=SEGMENT_RULE,
        sampling=settings[0] if all(other == settings[0] for other in settings) else None,
        provenance=provenance("lm-eval", paths, tokenizer=tokenizer),
    )


class _Samples:
    """The problems of several files."""

    def __init__(self, problems: Problems, task: Task, count: Counter, question: str | None) -> None:
        self.problems = problems
        self.settings: list[dict[str, Any]] = []
        self._task, self._count, self._question_field = task, count, question
        self._documents: dict[str, Any] = {}

    def read(self, path: Path) -> None:
        """Reads a file. Raises ImportFileError, naming line and field."""
        seen: dict[int, list[str]] = {}
        for record in read_json_lines(path):
            number = record.count("doc_id")
            sent = _sent(record)
            replies = record.list("resps")
            if len(replies) != 1 or not isinstance(replies[0], list) or set(map(type, replies[0])) != {str}:
                record.refuse("resps", "must be a list of one list of texts")
            if number in seen:
                if replies[0] != seen[number]:
                    record.refuse("resps", f"differs from that of document {number} under another filter")
                continue
            seen[number] = replies[0]
            self.settings.append(sent.fields["arg_1"])
            question = self._question(record, sent)
            gold = _gold(record.text("target"))
            self.problems.add(record, question, gold, "target", map(self._branch, replies[0]))

    def _branch(self, text: str) -> Branch:
        return Branch([Segment(self._count([text])[0], text, self._task.extract(text))])

    def _question(self, record: Record, sent: Record) -> str:
        document = Record(f"{record.where}: `doc`", record.fields.get("doc"))
        fields = {name.lower(): name for name in document.fields}
        wanted = [self._question_field.lower()] if self._question_field else QUESTIONS
        name = next((fields[name] for name in wanted if name in fields), None)
        if name is None and self._question_field == "prompt":
            return sent.text("arg_0")
        if name is None:
            record.refuse(
                "doc",
                f"has none of {', '.join(wanted)} but {', '.join(document.fields)}; name the question with "
                "--question FIELD, or say `--question prompt` for all that the model was sent",
            )
        question = document.text(name)
        if self._documents.setdefault(hash_question(question), document.fields) != document.fields:
            record.refuse(
                "doc",
                f"has the {name} of another document, but differs in other fields; tell them apart with "
                "`--question prompt`",
            )
        return question


def _sent(record: Record) -> Record:
    """What the model got: `arg_0`, a prompt, and `arg_1`, settings."""
    arguments = Record(f"{record.where}: `arguments`", record.fields.get("arguments"))
    sent = Record(f"{record.where}: `arguments`", arguments.fields.get("gen_args_0"))
    if not isinstance(sent.fields.get("arg_1"), dict):
        record.refuse(
            "arguments",
            "has no settings for generating; only generate_until tasks have replies to import",
        )
    return sent


def _gold(target: str) -> str:
    """The answer in a target, which for some tasks is a solution that ends in it."""
    return last_boxed(target) or target.rpartition("####")[2].strip()
