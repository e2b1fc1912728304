"""The task `math`: answers are compared as math-verify compares them, and only where they can be equal.

Sympy takes milliseconds to read an answer and more to compare two, and a problem may have a thousand. So each
answer first gets a value (`env.latex`). Expressions with the same value are equal, ones with values apart are
not, and math-verify is asked about what is left: values that differ by rounding, and what has no plain value
(equations, sets, percentages, words).
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from env.latex import CONTEXT, MAX_BITS, broken, evaluate, to_mp
from env.math_checker import TaskError, checker
from env.math_worker import is_plain

_NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?)")
_FRACTION = re.compile(r"(-?)(?:\\[dt]?frac\{(-?\d+)\}\{(\d+)\}|(\d+)/(\d+))")
# Here math-verify's normal form says what the text says; whatever else there is goes through it first.
_SIMPLE = re.compile(
    r"(?!.*\}\s*\d)(?:[\s+\-*/(){}\[\]]|\d+(?:\.\d+)?|\^(?!\s?\()|\\frac(?=\{)|\\sqrt(?=[{\[])"
    r"|\\(?:cdot|times|left|right|pi)(?![a-zA-Z]))+"
)
_SIGN = re.compile(r"\d+|\\?[a-zA-Z]+|[^\W\d_]")
_NEUTRAL = frozenset(r"\text \left \right \cdot \times \div \frac \quad \qquad".split())
_ASSIGNMENT = re.compile(r"^\s*\\?[a-zA-Z]+(?:_\{?\w+\}?)?(?:\([a-z]\))?\s*=(?!.*=)")
_PERCENT = re.compile(r"[\s({\[]*(?P<value>-?[\d.]+)\s*\\?%[\s)}\]]*")
_BRACKETED = re.compile(r"^(?:\\\{|[(\[])(.*)(?:\\\}|[)\]])$")
# Longer answers are ramblings; they equal themselves only.
_MAX_LENGTH = 500
# math-verify rounds decimals to 6 places; beyond twice that, two values cannot be equal.
_NEAR = 2e-6
_SAME = CONTEXT.mpf(10) ** -30


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of an answer before math-verify is asked.

    Attributes:
        normal: its normal form; the same normal form, the same answer.
        values: its values, at least one of which it shares with whatever it equals; none = unknown.
        sure: it has one value, which alone decides, rounding apart.
        signs: its letters, numbers and commands in order, which equal answers without values share.
    """

    normal: str
    values: tuple[Any, ...] = ()
    sure: bool = False
    signs: str = ""


class MathTask:
    """Mathematical answers in LaTeX or plain text, by math-verify (github.com/huggingface/Math-Verify)."""

    def __init__(self) -> None:
        self._readings: dict[str, Reading] = {}

    def extract(self, text: str) -> str | None:
        r"""The content of the last ``\boxed{}``, else what math-verify finds."""
        return last_boxed(text) or checker().extract(text)

    def equal(self, first: str, second: str) -> bool:
        """Whether math-verify takes `second` for `first`."""
        one, two = self.reading(first), self.reading(second)
        if one.normal == two.normal:
            return True
        if not (one.values and two.values):
            return bool(one.signs) and one.signs == two.signs and checker().equal(first, second)
        if one.sure and two.sure:
            if _same(one.values[0], two.values[0]):
                return True
            exact = isinstance(one.values[0], Fraction) and isinstance(two.values[0], Fraction)
            if exact and "." not in one.normal + two.normal:
                return False
        near = any(_near(a, b) for a in one.values for b in two.values)
        return near and checker().equal(first, second)

    def grade(self, gold: str, answer: str) -> bool:
        """Whether an answer is the gold answer.

        Raises:
            TaskError: the gold answer is no mathematical expression.
        """
        reading = self.reading(gold)
        if not reading.sure and not checker().understood(gold):
            raise TaskError(
                f"the gold answer {gold!r} is not a mathematical expression; correct it or try --task exact"
            )
        return self.equal(gold, answer)

    def reading(self, answer: str) -> Reading:
        """What can be said of an answer."""
        if answer not in self._readings:
            self.read([answer])
        return self._readings[answer]

    def read(self, answers: Iterable[str]) -> None:
        """Reads many answers at once, which is faster; what can be said of each is remembered."""
        new = [answer for answer in dict.fromkeys(answers) if answer not in self._readings]
        rest = []
        for answer in new:
            if (reading := _read_simple(answer)) is None:
                rest.append(answer)
            else:
                self._readings[answer] = reading
            if len(rest) == 1:
                # It takes a while to start: let it, while the others are read.
                checker().start()
        if not rest:
            return
        plain = [answer for answer in rest if is_plain(answer)]
        others = [answer for answer in rest if not is_plain(answer)]
        # A few of the others take math-verify as long as all the plain ones: meanwhile, these are read.
        normal = checker().normalise(plain)
        aside = ThreadPoolExecutor(1)
        try:
            told = [aside.submit(checker().normalise, [answer]) for answer in others]
            self._readings |= zip(plain, map(_read_normal, normal), strict=True)
            for answer, future in zip(others, told, strict=True):
                self._readings[answer] = _read_normal(*future.result())
        finally:
            aside.shutdown(cancel_futures=True)

    def index(self, answers: Iterable[str]) -> MathIndex:
        """An empty index for classing these answers."""
        self.read(answers)
        return MathIndex(self)


class MathIndex:
    """The representatives of classes, by where an answer that equals them would be."""

    def __init__(self, task: MathTask) -> None:
        self._task = task
        self._normal: dict[str, int] = {}
        self._signs: dict[str, list[tuple[int, bool]]] = {}
        self._values: list[tuple[float, int]] = []

    def add(self, answer: str, number: int) -> None:
        """Makes `answer` the representative of class `number`."""
        reading = self._task.reading(answer)
        self._normal.setdefault(reading.normal, number)
        if reading.signs:
            self._signs.setdefault(reading.signs, []).append((number, bool(reading.values)))
        for value in reading.values:
            bisect.insort(self._values, (_position(value), number))

    def candidates(self, answer: str) -> list[int]:
        """The classes whose representatives `answer` may equal, in order."""
        reading = self._task.reading(answer)
        found = {self._normal[reading.normal]} if reading.normal in self._normal else set()
        for value in reading.values:
            position = _position(value)
            start = bisect.bisect_left(self._values, (position - 2 * _NEAR,))
            end = bisect.bisect_right(self._values, (position + 2 * _NEAR, math.inf))
            found.update(number for _, number in self._values[start:end])
        for number, has_values in self._signs.get(reading.signs, ()):
            if not (has_values and reading.values):
                found.add(number)
        return sorted(found)


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` whose braces balance, without white space around it."""
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth = 0
        for end in range(start + len("\\boxed"), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return text[start + len("\\boxed{") : end].strip() or None
        start = text.rfind("\\boxed{", 0, start)
    return None


def _read_simple(answer: str) -> Reading | None:
    """Reads what means to math-verify what it says, and what is too long for it; None = neither."""
    text = answer.strip()
    if len(text) > _MAX_LENGTH:
        return Reading(text)
    if _NUMBER.fullmatch(text):
        return Reading(text, (Fraction(text.replace(",", "")),), sure=True)
    if match := _FRACTION.fullmatch(text):
        sign, *parts = match.groups()
        top, bottom = (int(part) for part in parts if part is not None)
        if bottom:
            return Reading(text, (Fraction(-top if sign else top, bottom),), sure=True)
    if _SIMPLE.fullmatch(text) and (found := evaluate(text)):
        return Reading(text, (found.value,), sure=found.exact)
    return None


def _read_normal(normal: str) -> Reading:
    if broken(normal):
        return Reading(normal)
    if simple := _read_simple(normal):
        return simple
    signs = " ".join(sorted(sign for part in _SIGN.findall(normal) for sign in _signs(part)))
    if (found := evaluate(normal)) and found.exact:
        return Reading(normal, (found.value,), sure=True, signs=signs)
    return Reading(normal, _values(normal), signs=signs)


def _signs(part: str) -> Iterable[str]:
    if part.startswith("\\"):
        return () if part in _NEUTRAL else (part,)
    return (part,) if part.isdigit() else part.lower()


def _values(text: str) -> tuple[Any, ...]:
    """The values that an answer may share with an equal one; for a list, one that no order changes."""
    text = _ASSIGNMENT.sub("", text)
    if (match := _PERCENT.fullmatch(text)) and (found := evaluate(match["value"])):
        return found.value / 100, found.value
    elements = re.split(r"[,;]", _BRACKETED.sub(r"\1", text.strip()))
    evaluations = [evaluate(_ASSIGNMENT.sub("", element)) for element in elements]
    values: list[Any] = []
    for evaluation in evaluations:
        if evaluation is None:
            return ()
        if not any(_same(evaluation.value, value) for value in values):
            values.append(evaluation.value)
    return tuple(values) if len(values) == 1 else (CONTEXT.fsum(CONTEXT.expj(to_mp(v)) for v in values),)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first == second
    first, second = to_mp(first), to_mp(second)
    return bool(abs(first - second) <= _SAME * max(1, abs(first)))


def _near(first: Any, second: Any) -> bool:
    # Of numbers too large to write down, math-verify knows no more than their values say.
    return bool(CONTEXT.mag(to_mp(first)) <= MAX_BITS and abs(to_mp(first) - to_mp(second)) <= _NEAR)


def _position(value: Any) -> float:
    """Where a value stands on a line on which no two are further apart than they are as values."""
    try:
        number = complex(value)
    except OverflowError:
        number = complex(math.inf)
    position = math.asinh(number.real + 0.7 * number.imag)
    if math.isfinite(position):
        return position
    return math.copysign(float(CONTEXT.ln(abs(to_mp(value)))), CONTEXT.re(to_mp(value)))
