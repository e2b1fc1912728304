"""Worked solutions as a fallible worker writes them: what the tiny model is trained on.

A solution is a list of paragraphs. A paragraph works one operation (`2) 42*3=126->29`: 126 leaves 29 modulo
97), works it once more (`Check 2) 42*3->29 ok`), or compares two passes through the problem. The worker slips
now and then, and the model learns that too: at temperature 1 it errs in as many ways.
"""

import random
from dataclasses import dataclass

from data.tiny.problems import MODULUS, Operation, Problem, exact

SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Habit:
    """How a worker works.

    Attributes:
        share: of the solutions that are written so.
        split: how often a hard product is worked digit by digit.
        check: how often an operation is worked once more, at once.
        again: how often all is worked once more, at the end.
    """

    share: float
    split: float
    check: float
    again: float


HABITS = (
    Habit(share=0.30, split=0.50, check=0.03, again=0.15),
    Habit(share=0.40, split=0.80, check=0.12, again=0.25),
    Habit(share=0.30, split=0.95, check=0.40, again=0.35),
)
# How often a slip is made in: a sum, a small product, a hard product in one go.
SLIP_SUM, SLIP_SMALL, SLIP_HARD = 0.01, 0.015, 0.05


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of a solution.

    Attributes:
        text: without the separator.
        done: operations whose result is known after it.
        value: the value after them, as the worker believes.
    """

    text: str
    done: int
    value: int


def work(problem: Problem, rng: random.Random) -> list[Paragraph]:
    """One solution; the last paragraph's value is the answer it ends with."""
    habit = rng.choices(HABITS, [habit.share for habit in HABITS])[0]
    written = _pass(problem, habit, rng)
    results = [written[-1].value]
    # Two passes that differ call for a third; the last one counts.
    while len(results) < 3 and (
        rng.random() < habit.again if len(results) == 1 else results[0] != results[1]
    ):
        first, *rest = _pass(problem, rng.choice(HABITS[:2]), rng)
        results.append([first, *rest][-1].value)
        verdict = "Same" if len(set(results)) < len(results) else "Differ"
        written += [Paragraph(f"Again. {first.text}", first.done, first.value), *rest]
        compared = f"{verdict}: {', '.join(map(str, results))}"
        written.append(Paragraph(compared, len(problem.operations), results[-1]))
    return written


def guess(problem: Problem, paragraph: Paragraph | None) -> int:
    """What a worker who is stopped after `paragraph` (None = before the first) makes of it in the head."""
    value = problem.start if paragraph is None else paragraph.value
    for operation in problem.operations[0 if paragraph is None else paragraph.done :]:
        value = exact(*operation.factors(value)) % MODULUS
    return value


def _pass(problem: Problem, habit: Habit, rng: random.Random) -> list[Paragraph]:
    """All operations once, each maybe followed by a check."""
    value, written = problem.start, []
    for done, operation in enumerate(problem.operations, 1):
        text, result = _operate(operation, value, habit, rng)
        written.append(Paragraph(f"{done}) {text}", done, result))
        if rng.random() < habit.check:
            text, second = _operate(operation, value, rng.choice(HABITS), rng)
            verdict = "ok" if second == result else f"no, not {result}"
            written.append(Paragraph(f"Check {done}) {text} {verdict}", done, second))
            result = second
        value = result
    return written


def _operate(operation: Operation, value: int, habit: Habit, rng: random.Random) -> tuple[str, int]:
    """The text of an operation at `value`, and the result that the worker gets."""
    left, sign, right = operation.factors(value)
    if sign == "*" and right > 9 and left > 9 and rng.random() < habit.split:
        return _digit_by_digit(left, right, rng)
    return _equation(left, sign, right, rng)


def _digit_by_digit(left: int, right: int, rng: random.Random) -> tuple[str, int]:
    """`42*37: 42*3=126->29, 29*10=290->96, 42*7=294->3, 96+3=99->2`."""
    tens, units = divmod(right, 10)
    text, value = _equation(left, "*", tens, rng)
    shifted, value = _equation(value, "*", 10, rng)
    parts = [text, shifted]
    if units:
        text, low = _equation(left, "*", units, rng)
        total, value = _equation(value, "+", low, rng)
        parts += [text, total]
    return f"{left}*{right}: " + ", ".join(parts), value


def _equation(left: int, sign: str, right: int, rng: random.Random) -> tuple[str, int]:
    """`42*3=126->29`, `42*37->2` for a hard product; `->` only where there is something to reduce."""
    result = exact(left, sign, right)
    hard = sign == "*" and left > 9 and right > 10
    if rng.random() < (SLIP_HARD if hard else SLIP_SMALL if sign == "*" else SLIP_SUM):
        result += rng.choice((-1, 1)) * rng.choice((1, 1, 2, 3, 10, 10, 20, left))
    reduced = result % MODULUS
    if hard and reduced != result:
        return f"{left}{sign}{right}->{reduced}", reduced
    return f"{left}{sign}{right}={result}" + (f"->{reduced}" if reduced != result else ""), reduced
