"""Is a step of a solution good? Found by working it again: the labels of the process reward model."""

import re

from data.tiny.problems import MODULUS, Problem, exact
from data.tiny.solutions import SEPARATOR

_NUMBER = r"(?:0|[1-9]\d?)"
_EQUATION = rf"({_NUMBER})([+*-])({_NUMBER})(?:=(-?\d+))?(?:->({_NUMBER}))?"
_WORK = re.compile(
    rf"(?:Again\. )?(?:Check )?([1-9])\) (?:\d+\*\d+: )?({_EQUATION}(?:, {_EQUATION})*)(?: ok| no, not \d+)?"
)
_COMPARED = re.compile(rf"(?:Same|Differ): {_NUMBER}(?:, {_NUMBER})*, ({_NUMBER})")
_ANSWER = re.compile(r"</think>\n\\boxed\{(\d+)\}")


def split_steps(text: str) -> list[str]:
    """The steps of a sampled text, with the final answer last; joined by the separator they are it."""
    return text.split(SEPARATOR)


def is_good(problem: Problem, step: str) -> bool:
    """Whether all that a step computes is right, and the value that it leaves is the true one there.

    So a step that faithfully carries an earlier mistake on is bad, and one that mends it is good.
    """
    if found := _ANSWER.fullmatch(step):
        return found[1] == problem.answer
    if found := _COMPARED.fullmatch(step):
        return found[1] == problem.answer
    if not (found := _WORK.fullmatch(step)) or int(found[1]) > len(problem.operations):
        return False
    results = [_result(*equation) for equation in re.findall(_EQUATION, found[2])]
    return None not in results and results[-1] == problem.values[int(found[1])]


def final_answer(text: str) -> str | None:
    """The boxed number after the thinking, None if there is none."""
    found = _ANSWER.search(text)
    return found[1] if found else None


def _result(left: str, sign: str, right: str, raw: str, reduced: str) -> int | None:
    """What an equation comes to; None if it is wrong."""
    result = exact(int(left), sign, int(right))
    written = [int(raw)] if raw else []
    written += [int(reduced)] if reduced else []
    right_raw = not raw or int(raw) == result
    return written[-1] if written and right_raw and written[-1] == result % MODULUS else None
