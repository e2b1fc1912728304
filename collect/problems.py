"""Problem sets: questions with answers that their task accepts, each once."""

from dataclasses import dataclass
from typing import NoReturn

from collect.importers.checking import Record
from collect.importers.tables import read_rows
from env.errors import UserError
from env.forest import hash_question
from env.math_task import MathTask
from env.tasks import Task, TaskError, classify

QUESTION_COLUMNS = ("question", "problem", "prompt")
ANSWER_COLUMNS = ("answer", "gold", "target")
# So many refused problems are named; more would be no help.
NAMED = 10


class ProblemsError(UserError):
    """A problem set is missing, or cannot be graded."""


@dataclass(frozen=True)
class Problem:
    """What is asked, and the right answer."""

    question: str
    gold: str

    @property
    def name(self) -> str:
        """The same in every store."""
        return hash_question(self.question)


@dataclass(frozen=True)
class Source:
    """Where problems are.

    Attributes:
        name: a .jsonl or .parquet file, or a dataset of the Hugging Face hub or in a folder.
        question: the column of questions; None = the first of `QUESTION_COLUMNS` that there is.
        answer: the column of answers; None = the first of `ANSWER_COLUMNS` that there is.
        config: of a dataset.
        split: of a dataset.
        revision: of a dataset on the hub.
        limit: take only so many, from the first on; None = all.
    """

    name: str
    question: str | None = None
    answer: str | None = None
    config: str | None = None
    split: str = "test"
    revision: str | None = None
    limit: int | None = None


def load_problems(source: Source, task: Task) -> list[Problem]:
    """All problems, in order.

    Raises:
        ImportFileError: a file cannot be read, or `datasets` is needed and not installed.
        ProblemsError: a column is missing, a question comes twice, or an answer is not graded as right under
            the task.
    """
    problems: list[Problem] = []
    where: dict[str, str] = {}
    for record in read_rows(source.name, source.config, source.split, source.revision):
        if len(problems) == source.limit:
            break
        problem = Problem(
            _text(record, _column(record, source.question, QUESTION_COLUMNS, "question")),
            _text(record, _column(record, source.answer, ANSWER_COLUMNS, "answer")),
        )
        if (first := where.setdefault(problem.name, record.where)) != record.where:
            raise ProblemsError(f"{record.where}: the question is that of {first}; leave one of them out")
        problems.append(problem)
    if not problems:
        raise ProblemsError(f"{source.name} has no problems; check the file, or --split")
    check_golds(problems, list(where.values()), task)
    return problems


def check_golds(problems: list[Problem], where: list[str], task: Task) -> None:
    """Refuses golds that could never be found right, before any token is paid for.

    Raises:
        ProblemsError: names the first of them.
    """
    if isinstance(task, MathTask):
        # All at once is much faster.
        task.read(problem.gold for problem in problems)
    wrong = []
    for problem, place in zip(problems, where, strict=True):
        try:
            classify(task, [], problem.gold)
        except TaskError as error:
            wrong.append(f"{place}: {error}")
    if wrong:
        more = [f"and {len(wrong) - NAMED} more"] if len(wrong) > NAMED else []
        raise ProblemsError(
            f"{len(wrong)} of {len(problems)} problems cannot be graded:\n  "
            + "\n  ".join([*wrong[:NAMED], *more])
        )


def _column(record: Record, named: str | None, usual: tuple[str, ...], what: str) -> str:
    have = ", ".join(sorted(record.fields)) or "none"
    if named is not None:
        return named if named in record.fields else _missing(record, repr(named), have, what)
    found = next((name for name in usual if name in record.fields), None)
    return found or _missing(record, " or ".join(usual), have, what)


def _missing(record: Record, name: str, have: str, what: str) -> NoReturn:
    raise ProblemsError(
        f"{record.where}: there is no column {name}, the columns are {have}; "
        f"say which has the {what}s with --{what}-column"
    )


def _text(record: Record, column: str) -> str:
    value = record.fields[column]
    # Datasets often keep whole-number answers as numbers.
    return str(value) if type(value) is int else record.text(column)
