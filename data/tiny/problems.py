"""The problems: a number carried through a chain of operations modulo 97.

Hard ones have more operations, and more of those that the model cannot do in its head: a product with a
two-digit factor, a square. Only the standard library is needed.

    python -m data.tiny.problems    # writes the two problem files again
"""

import json
import random
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODULUS = 97
SPLITS = {"search": 20260, "holdout": 20261}
SPLIT_PROBLEMS = 100

# For each level of difficulty: the fewest and most operations, and how many of them are hard.
LEVELS = ((2, 3, 0), (3, 5, 0), (3, 4, 1), (4, 6, 2), (5, 7, 3))


@dataclass(frozen=True)
class Operation:
    """One operation on the current value.

    Attributes:
        sign: "+", "-", "*", or "^" for the square.
        operand: the other number; 2 for the square.
    """

    sign: str
    operand: int

    def factors(self, value: int) -> tuple[int, str, int]:
        """What is computed at `value`: (left, sign, right), where the square is a product."""
        return (value, "*", value) if self.sign == "^" else (value, self.sign, self.operand)

    def words(self) -> str:
        """How the question says it."""
        if self.sign == "^":
            return "square"
        return {"+": "add", "-": "subtract", "*": "multiply by"}[self.sign] + f" {self.operand}"


def exact(left: int, sign: str, right: int) -> int:
    """The result before it is reduced modulo 97."""
    return left + right if sign == "+" else left - right if sign == "-" else left * right


@dataclass(frozen=True)
class Problem:
    """A start value and the operations on it."""

    start: int
    operations: tuple[Operation, ...]

    @property
    def question(self) -> str:
        """The problem in words; tells problems apart."""
        steps = " ".join(f"{i}) {operation.words()}." for i, operation in enumerate(self.operations, 1))
        return f"Work modulo {MODULUS}. Start with {self.start}. {steps} What is the result?"

    @cached_property
    def values(self) -> tuple[int, ...]:
        """The true value before the first operation and after each: one more than there are operations."""
        values = [self.start]
        for operation in self.operations:
            values.append(exact(*operation.factors(values[-1])) % MODULUS)
        return tuple(values)

    @property
    def answer(self) -> str:
        """The gold answer."""
        return str(self.values[-1])


def draw(rng: random.Random, level: int) -> Problem:
    """A random problem of a level of difficulty, 0 to 4."""
    fewest, most, hard = LEVELS[level]
    length = rng.randint(fewest, most)
    where = set(rng.sample(range(length), hard))
    operations = [_hard(rng) if i in where else _easy(rng) for i in range(length)]
    return Problem(rng.randrange(2, MODULUS), tuple(operations))


def draw_many(seed: int, count: int, without: Set[str] = frozenset()) -> list[Problem]:
    """`count` different problems, all levels in turn, none of whose questions is in `without`."""
    rng = random.Random(seed)
    found: dict[str, Problem] = {}
    while len(found) < count:
        problem = draw(rng, len(found) % len(LEVELS))
        if problem.question not in without:
            found.setdefault(problem.question, problem)
    return list(found.values())


def splits() -> dict[str, list[Problem]]:
    """The problems of the bundled store by split; no problem is in two."""
    taken: set[str] = set()
    chosen = {}
    for name, seed in SPLITS.items():
        chosen[name] = draw_many(seed, SPLIT_PROBLEMS, taken)
        taken |= {problem.question for problem in chosen[name]}
    return chosen


def as_jsonl(problems: list[Problem]) -> str:
    """A problem a line, with the columns `problem` and `answer`."""
    return "".join(json.dumps({"problem": p.question, "answer": p.answer}) + "\n" for p in problems)


def _easy(rng: random.Random) -> Operation:
    sign = rng.choice("+-*")
    return Operation(sign, rng.randint(2, 9) if sign == "*" else rng.randint(2, MODULUS - 1))


def _hard(rng: random.Random) -> Operation:
    return Operation("^", 2) if rng.random() < 0.25 else Operation("*", rng.randint(11, MODULUS - 1))


def main() -> None:
    """Write the problem files."""
    for name, problems in splits().items():
        (FOLDER / f"problems-{name}.jsonl").write_text(as_jsonl(problems), encoding="utf-8")


if __name__ == "__main__":
    main()
