r"""Which answers are the same, by a rule without mathematics: the text of the last \boxed{}, tidied up."""

import re
from fractions import Fraction

DROPPED = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[,;:! ]|\\\(|\\\)|[\s$~]|\.$")
FRACTION = re.compile(r"\\[dt]?frac\{(\w+)\}\{(\w+)\}")
WORDS = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}")
NUMBER = re.compile(r"-?\d{1,40}(?:\.\d{1,40})?")
GROUPED = re.compile(r"-?[1-9]\d{0,2}(?:,\d{3})+")
LETTER = re.compile(r"\(?([A-Ja-j])[).]?")


def boxed(text: str) -> str | None:
    r"""The answer that a text gives, None if it gives none; two answers are the same if these are.

    The content of the last ``\boxed{...}`` whose braces balance, without white space, dollar signs, spacing
    and the dress of words. Numbers count by their value (``073`` is ``73``, ``1,000`` is ``1000``, ``2.50``
    is ``5/2``), a plain ``\frac{1}{2}`` is ``1/2``, a letter is itself with or without brackets. What is
    equal only by mathematics, as ``2^3`` and ``8``, counts as two answers here.
    """
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth = 0
        for end in range(start + len("\\boxed"), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return plain(text[start + len("\\boxed{") : end]) or None
        start = text.rfind("\\boxed{", 0, start)
    return None


def plain(answer: str) -> str:
    """An answer in the one way in which it is compared."""
    answer = DROPPED.sub("", FRACTION.sub(r"\1/\2", WORDS.sub(r"\1", answer.strip())))
    if GROUPED.fullmatch(answer):
        answer = answer.replace(",", "")
    if NUMBER.fullmatch(answer):
        return str(Fraction(answer))
    letter = LETTER.fullmatch(answer)
    return letter[1].upper() if letter else answer
