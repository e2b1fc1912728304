"""Tasks: how an answer is read out of a text, when two answers are the same, and when one is right."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from env.math_checker import TaskError

__all__ = ["ChoiceTask", "Classes", "ExactTask", "Task", "TaskError", "classify", "guarded", "load_task"]


@runtime_checkable
class Task(Protocol):
    """What a benchmark means by an answer. Deterministic; a store remembers what its task once said."""

    def extract(self, text: str) -> str | None:
        """The answer that a model's text gives, None if it gives none."""

    def equal(self, first: str, second: str) -> bool:
        """Whether two answers say the same; `first` is a class's representative."""

    def grade(self, gold: str, answer: str) -> bool:
        """Whether an answer is right.

        Raises:
            TaskError: `gold` is nothing that an answer could be compared with.
        """


class Index(Protocol):
    """Finds the classes that an answer may belong to."""

    def add(self, answer: str, number: int) -> None:
        """Makes `answer` the representative of class `number`."""

    def candidates(self, answer: str) -> Iterable[int]:
        """The classes whose representatives `answer` may equal, in order."""


@runtime_checkable
class Indexed(Protocol):
    """A task that need not compare every answer with every class."""

    def index(self, answers: Sequence[str]) -> Index:
        """An empty index for classing these answers."""


@dataclass(frozen=True)
class Classes:
    """Answers grouped by meaning.

    Attributes:
        of: the class of each answer.
        representatives: for each class the answer that founded it.
        correct: for each class whether it is right.
    """

    of: dict[str, int]
    representatives: list[str]
    correct: list[bool]


class ExactTask:
    """Answers are the same if they are the same characters, white space apart."""

    def extract(self, text: str) -> str | None:
        r"""The content of the last ``\boxed{}``, else the last line that is not empty."""
        from env.math_task import last_boxed

        lines = [line for line in text.splitlines() if line.strip()]
        return last_boxed(text) or (lines[-1].strip() if lines else None)

    def equal(self, first: str, second: str) -> bool:
        """Whether both are the same words."""
        return self._key(first) == self._key(second)

    def grade(self, gold: str, answer: str) -> bool:
        """Whether the answer is the gold answer."""
        if not gold.strip():
            raise TaskError("the gold answer is empty; give it, or leave the problem out")
        return self.equal(gold, answer)

    def index(self, answers: Sequence[str]) -> Index:
        """An empty index for classing these answers."""
        return _ByKey(self._key)

    def _key(self, answer: str) -> str:
        return " ".join(answer.split())


class ChoiceTask:
    r"""Multiple choice: an answer is a letter from A to J, in any dress: ``(b)``, ``B.``, ``\text{B}``."""

    _DRESSED = re.compile(
        r"\W*(?:\\(?:text|mathrm|mathbf|textbf)\s*\{)?[\s({\[*]*([A-Ja-j])(?![A-Za-z0-9]).*", re.DOTALL
    )
    _STATED = re.compile(r"(?i:answer|choice|option)\W*(?i:is|:)?[\s:*({\[$]*([A-J])(?![A-Za-z0-9])")
    _ALONE = re.compile(r"(?<![A-Za-z0-9])([A-J])(?![A-Za-z0-9'])")

    def extract(self, text: str) -> str | None:
        r"""The letter in the last ``\boxed{}``, else the last called the answer, else the last alone."""
        from env.math_task import last_boxed

        if (boxed := last_boxed(text)) and (letter := self._letter(boxed)):
            return letter
        found = self._STATED.findall(text) or self._ALONE.findall(text)
        return found[-1] if found else None

    def equal(self, first: str, second: str) -> bool:
        """Whether both are the same letter; what is no letter equals only itself."""
        return self._key(first) == self._key(second)

    def grade(self, gold: str, answer: str) -> bool:
        """Whether the answer is the gold letter."""
        if self._letter(gold) is None:
            raise TaskError(
                f"the gold answer {gold!r} is not a letter from A to J; correct it or try --task exact"
            )
        return self.equal(gold, answer)

    def index(self, answers: Sequence[str]) -> Index:
        """An empty index for classing these answers."""
        return _ByKey(self._key)

    def _key(self, answer: str) -> str:
        return self._letter(answer) or answer

    def _letter(self, answer: str) -> str | None:
        match = self._DRESSED.fullmatch(answer)
        return match[1].upper() if match else None


def load_task(name: str) -> Task:
    """The task of a name: `math`, `choice`, `exact`, or `module:Class` for one of the user's own.

    A class of the user's is made without arguments and has the three methods of `Task`; its module is found
    as Python finds modules, in the working directory too.

    Raises:
        TaskError: there is no such task, or it is not one.
    """
    if name == "math":
        from env.math_task import MathTask

        return MathTask()
    if name in ("choice", "exact"):
        return ChoiceTask() if name == "choice" else ExactTask()
    module_name, colon, class_name = name.partition(":")
    if not (module_name and colon and class_name):
        raise TaskError(
            f"no task {name!r}; there are `math`, `choice`, `exact`, and `module:Class` for your own"
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        task = getattr(importlib.import_module(module_name), class_name)()
    except Exception as error:
        raise TaskError(f"the task {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise TaskError(
            f"{name!r} is not a task; it needs the methods extract(text), equal(a, b), grade(gold, answer)"
        )
    return task


@contextmanager
def guarded(task: Task) -> Iterator[None]:
    """Whatever a task raises meanwhile becomes a TaskError; only a user's own raises anything else."""
    try:
        yield
    except TaskError:
        raise
    except Exception as error:
        raise TaskError(f"{type(task).__name__} failed: {type(error).__name__}: {error}") from error


def classify(task: Task, answers: Iterable[str], gold: str) -> Classes:
    """Groups answers: in the order given, each joins the first class whose representative it equals.

    The gold answer is graded against the classes and founds none.

    Args:
        task: what equality means.
        answers: raw answers, in stored order; repetitions are welcome.
        gold: the right answer.

    Raises:
        TaskError: the gold answer is unusable, or the task failed.
    """
    distinct = list(dict.fromkeys(answers))
    of: dict[str, int] = {}
    representatives: list[str] = []
    with guarded(task):
        if not task.grade(gold, gold):
            raise TaskError(
                f"the gold answer {gold!r} is not graded as right; correct it or choose another --task"
            )
        index = task.index(distinct) if isinstance(task, Indexed) else _All()
        for answer in distinct:
            number = next(
                (n for n in index.candidates(answer) if task.equal(representatives[n], answer)), None
            )
            if number is None:
                number = len(representatives)
                representatives.append(answer)
                index.add(answer, number)
            of[answer] = number
        near = set(index.candidates(gold))
        return Classes(
            of,
            representatives,
            [n in near and bool(task.grade(gold, text)) for n, text in enumerate(representatives)],
        )


class _ByKey:
    """For tasks whose answers are equal where a key of theirs is."""

    def __init__(self, key: Callable[[str], str]) -> None:
        self._key = key
        self._numbers: dict[str, int] = {}

    def add(self, answer: str, number: int) -> None:
        self._numbers[self._key(answer)] = number

    def candidates(self, answer: str) -> Iterable[int]:
        number = self._numbers.get(self._key(answer))
        return () if number is None else (number,)


class _All:
    """For tasks that know no better: an answer may belong to any class."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, answer: str, number: int) -> None:
        self._count = number + 1

    def candidates(self, answer: str) -> Iterable[int]:
        return range(self._count)
