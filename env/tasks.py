"""Tasks: how an answer is read out of a text, when two answers are the same, and when one is right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol


class Task(Protocol):
    """What a benchmark means by an answer."""

    def extract(self, text: str) -> str | None:
        """The answer that a model's text gives, None if it gives none."""

    def equal(self, first: str, second: str) -> bool:
        """Whether two answers say the same."""

    def grade(self, gold: str, answer: str) -> bool:
        """Whether an answer is right."""


@dataclass(frozen=True)
class Classes:
    """Answers grouped by meaning: the class of each, each class's representative and its grade."""

    of: dict[str, int]
    representatives: list[str]
    correct: list[bool]


class ExactTask:
    def extract(self, text: str) -> str | None:
        return text.strip() or None

    def equal(self, first: str, second: str) -> bool:
        return first.strip() == second.strip()

    def grade(self, gold: str, answer: str) -> bool:
        return self.equal(gold, answer)


class MathTask(ExactTask):
    def equal(self, first: str, second: str) -> bool:
        try:
            return Fraction(first) == Fraction(second)
        except (ValueError, ZeroDivisionError):
            return first.split() == second.split()


def load_task(name: str) -> Task:
    return {"math": MathTask, "exact": ExactTask}[name]()


def classify(task: Task, answers: Iterable[str], gold: str) -> Classes:
    """Groups answers, in stored order: each joins the first class whose representative it equals."""
    of: dict[str, int] = {}
    representatives: list[str] = []
    for answer in answers:
        if answer in of:
            continue
        for index, representative in enumerate(representatives):
            if task.equal(representative, answer):
                of[answer] = index
                break
        else:
            of[answer] = len(representatives)
            representatives.append(answer)
    return Classes(of, representatives, [task.grade(gold, text) for text in representatives])
