"""What a LaTeX answer is worth: a number for each expression, so that equal ones can be found and compared.

Variables get fixed pseudo-random values, so two expressions with the same value are the same expression
(Schwartz 1980, Zippel 1979; here with 40 digits). The grammar is the part of math-verify's that answers are
mostly made of, read as math-verify reads it: lower-cased letters, words as products of letters, `I` the
imaginary unit, mixed numbers, degrees ignored, log to base 10.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import mpmath

CONTEXT = mpmath.mp.clone()
CONTEXT.dps = 40

# An mpmath number where the value is not rational; mpmath has no types to check against.
Value = Any

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<name>\\[a-zA-Z]+|[a-zA-Zα-ωΑ-Ω])|(?P<other>\\?.))", re.DOTALL
)
_TIMES = {"*", "\\cdot", "\\times", "·", "×"}
_OVER = {"/", "\\div", "÷", ":"}
_CLOSE = {"(": ")", "[": "]", "{": "}", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_SPACES = {"\\,", "\\;", "\\:", "\\ ", "\\!", "\\quad", "\\qquad", "\\left", "\\right"}
_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma "
    "tau phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega".split()
)
_CONSTANTS = {
    "\\pi": CONTEXT.pi,
    "π": CONTEXT.pi,
    "e": CONTEXT.e,
    "E": CONTEXT.e,
    "I": CONTEXT.mpc(0, 1),
}
_COMMANDS = ("\\frac", "\\sqrt", "\\binom")
_FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    f"\\{name}": getattr(CONTEXT, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "exp", "ln")
} | {
    "\\arcsin": CONTEXT.asin,
    "\\arccos": CONTEXT.acos,
    "\\arctan": CONTEXT.atan,
    "\\log": CONTEXT.log10,
}
# Larger numbers than this are kept as mpmath numbers, larger logarithms not at all.
MAX_BITS = 8192
_TINY = CONTEXT.mpf(10) ** -15


class _Unknown(Exception):
    """The expression is outside of the grammar, or its value too large to write down."""


class Evaluation(NamedTuple):
    """What an expression is worth.

    Attributes:
        value: a Fraction where only rationals of reasonable size occur, else an mpmath number of 40 digits.
        exact: the digits are enough: no term of a sum is too small beside another to be seen.
    """

    value: Value
    exact: bool


def evaluate(text: str) -> Evaluation | None:
    """Evaluates a normalised LaTeX expression; None if it is outside of the grammar, or infinite."""
    try:
        parser = _Parser(text)
        value = parser.sum()
        if parser.peek() or not CONTEXT.isfinite(to_mp(value)):
            return None
    except (_Unknown, ArithmeticError, ValueError, RecursionError):
        return None
    return Evaluation(value, parser.exact)


def to_mp(value: Value) -> Value:
    """A value as an mpmath number of 40 digits."""
    if isinstance(value, Fraction):
        return CONTEXT.mpf(value.numerator) / value.denominator
    return value


def broken(text: str) -> bool:
    """Whether no reader of LaTeX can make an expression of it: brackets that do not match, an end in mid-air.

    A quick look, for what is cut off or prose: False says nothing.
    """
    if text.rstrip().endswith(("+", "-", "*", "/", "^", "_", "=", "<", ">")) or "?" in text or "..." in text:
        return True
    opened: list[str] = []
    for bracket in re.findall(r"\\?[{}()\[\]]", text):
        if bracket[-1] in "([{":
            opened.append(bracket)
        elif not opened or (opened.pop() == "{") != (bracket == "}"):
            return True
    return "{" in opened


class _Parser:
    r"""Recursive descent; every method returns the value of what it consumed.

    `atomic` says of the value returned last whether math-verify sees one rational number in it, which decides
    if `2\frac{1}{2}` is a mixed number or a product.
    """

    def __init__(self, text: str) -> None:
        pairs = [(kind, match[kind]) for match in _TOKEN.finditer(text.strip()) if (kind := match.lastgroup)]
        self.tokens = [pair for pair in pairs if pair[1] not in _SPACES]
        self.tokens.append(("end", ""))
        self.at = 0
        self.atomic = False
        self.exact = True
        self.closing = ""

    def peek(self) -> str:
        return self.tokens[self.at][1]

    def take(self) -> str:
        token = self.tokens[self.at][1]
        self.at += 1
        return token

    def sum(self) -> Value:
        value = self.product()
        while self.peek() in ("+", "-"):
            sign = self.take()
            other = self.product()
            value = self.plus(value, other if sign == "+" else -other)
        return value

    def plus(self, first: Value, second: Value) -> Value:
        self.atomic = False
        first, second = _both(first, second)
        if not isinstance(first, Fraction):
            small, large = sorted((abs(first), abs(second)))
            self.exact = self.exact and (small == 0 or small > _TINY * large)
        return first + second

    def product(self) -> Value:
        value = self.signed()
        while True:
            if self.peek() in _TIMES:
                self.take()
                value = _times(value, self.signed())
                self.atomic = False
            elif self.peek() in _OVER:
                self.take()
                whole = self.atomic and _whole(value)
                divisor = self.signed()
                value = _over(value, divisor)
                self.atomic = whole and self.atomic and _whole(divisor)
            elif self.peek() in ("\\mod", "\\bmod"):
                self.take()
                value = self.modulo(value, self.signed())
            else:
                return value

    def modulo(self, value: Value, divisor: Value) -> Value:
        if not (_whole(value) and _whole(divisor)):
            raise _Unknown
        self.atomic = False
        return value % divisor

    def signed(self) -> Value:
        if self.peek() == "-":
            self.take()
            return -self.signed()
        if self.peek() == "+":
            self.take()
            return self.signed()
        return self.juxtaposed()

    def juxtaposed(self) -> Value:
        factors = [(self.power(), self.atomic)]
        while self.starts_factor():
            factors.append((self.power(), self.atomic))
        value, self.atomic = factors.pop()
        for left, atomic in reversed(factors):
            mixed = atomic and _whole(left) and self.atomic and value > 0
            if mixed:
                value = left - value if left < 0 else left + value
            else:
                value = _times(left, value)
            self.atomic = mixed
        return value

    def starts_factor(self) -> bool:
        kind, token = self.tokens[self.at]
        if token == "|":
            return self.closing != "|"
        if kind == "name":
            known = token in _CONSTANTS or token in _FUNCTIONS or token in _COMMANDS or token in _CLOSE
            return known or len(token) == 1 or token[1:] in _GREEK
        return kind == "number" or token in _CLOSE

    def power(self) -> Value:
        base = self.factor()
        while (token := self.peek()) in ("^", "!", "%", "\\%"):
            self.take()
            if token == "!":
                base = self.factorial(base)
            elif token != "^":
                # Whether 50% is 0.5 or 50 is for math-verify to say.
                base, self.exact = base / 100, False
            elif self.degrees():
                continue
            else:
                base = _power(base, self.factor())
            self.atomic = False
        return base

    def factorial(self, value: Value) -> Value:
        if not _whole(value) or not 0 <= value <= 500:
            raise _Unknown
        step = 1
        if self.peek() == "!":
            self.take()
            step = 2
        return Fraction(math.prod(range(int(value), 0, -step)))

    def binomial(self) -> Value:
        top, bottom = self.argument(), self.argument()
        if not (_whole(top) and _whole(bottom) and 0 <= bottom <= top <= 500):
            raise _Unknown
        # Evaluated at once, so math-verify sees a number.
        self.atomic = True
        return Fraction(math.comb(int(top), int(bottom)))

    def degrees(self) -> bool:
        for form in (["\\circ"], ["{", "\\circ", "}"]):
            if [token for _, token in self.tokens[self.at : self.at + len(form)]] == form:
                self.at += len(form)
                return True
        return False

    def argument(self) -> Value:
        r"""What belongs to \frac or \sqrt: a group in braces, else a single digit or name."""
        kind, token = self.tokens[self.at]
        if kind == "number" and len(token) > 1:
            raise _Unknown
        return self.factor()

    def factor(self) -> Value:
        kind, token = self.tokens[self.at]
        self.at += 1
        self.atomic = False
        if kind == "number":
            self.atomic = True
            return Fraction(token)
        if token in _CLOSE:
            return self.group(token)
        if token == "\\frac":
            top = self.argument()
            whole = self.atomic and _whole(top)
            bottom = self.argument()
            self.atomic = whole and self.atomic and _whole(bottom)
            return _over(top, bottom)
        if token == "\\binom":
            return self.binomial()
        if token == "\\sqrt":
            root = self.factor() if self.peek() == "[" else None
            value = self.argument()
            self.atomic = False
            return CONTEXT.sqrt(to_mp(value)) if root is None else _power(value, _over(Fraction(1), root))
        if token in _FUNCTIONS:
            return self.function(token)
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if kind == "name" and (len(token) == 1 or token[1:] in _GREEK):
            return self.variable(token)
        raise _Unknown

    def group(self, opening: str) -> Value:
        outer, self.closing = self.closing, _CLOSE[opening]
        value = self.sum()
        if self.take() != self.closing:
            raise _Unknown
        self.closing = outer
        if opening in ("(", "[", "{"):
            return value
        self.atomic = False
        if opening == "|":
            return abs(value)
        if not isinstance(value, Fraction):
            raise _Unknown
        return Fraction(math.floor(value) if opening == "\\lfloor" else math.ceil(value))

    def function(self, name: str) -> Value:
        base, exponent = None, Fraction(1)
        while self.peek() in ("_", "^"):
            if self.take() == "^":
                exponent = self.factor()
            elif name == "\\log":
                base = to_mp(self.argument())
            else:
                raise _Unknown
        argument = _bounded(to_mp(self.factor() if self.peek() in _CLOSE else self.juxtaposed()))
        self.atomic = False
        value = _FUNCTIONS[name](argument) if base is None else CONTEXT.ln(argument) / CONTEXT.ln(base)
        return _power(value, exponent)

    def variable(self, name: str) -> Value:
        name = name.lower()
        if self.peek() == "_":
            self.take()
            start = self.at
            self.argument()
            name += (
                "_" + "".join(token for _, token in self.tokens[start : self.at] if token not in "{}").lower()
            )
        self.atomic = False
        return _variable(name)


@cache
def _variable(name: str) -> Value:
    """A number between 0.5 and 1.5, always the same for a name."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return CONTEXT.mpf(int.from_bytes(digest)) / 2**64 + 0.5


def _whole(value: Value) -> bool:
    return isinstance(value, Fraction) and value.denominator == 1


def _both(first: Value, second: Value) -> tuple[Value, Value]:
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first, second
    return to_mp(first), to_mp(second)


def _times(first: Value, second: Value) -> Value:
    first, second = _both(first, second)
    return first * second


def _over(first: Value, second: Value) -> Value:
    first, second = _both(first, second)
    return first / second


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and _whole(exponent):
        if max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent) <= MAX_BITS:
            return base ** int(exponent)
    base, exponent = to_mp(base), to_mp(exponent)
    # The cheap look first: only a large base or exponent can make a result too large to write down.
    large = max(abs(CONTEXT.mag(base)), CONTEXT.mag(exponent)) > 64 if base else False
    if large and CONTEXT.mag(exponent * CONTEXT.ln(base)) > MAX_BITS:
        raise _Unknown
    return CONTEXT.power(base, exponent)


def _bounded(value: Value) -> Value:
    """Refuses arguments of functions that would take long."""
    if CONTEXT.mag(value) > MAX_BITS:
        raise _Unknown
    return value
