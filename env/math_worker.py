"""The process that runs math-verify: reads questions as JSON lines, answers each with a line.

math-verify bounds its time with SIGALRM, which works in the main thread only and cannot stop one long
computation (a power tower, say). Here the kernel does it: a question may use so many seconds of CPU time, or
the process is killed, and whoever asked starts another. CPU time, for what is equal must not depend on how
busy the machine is. The file is run alone, by its path: it needs nothing but math-verify.
"""

import gc
import json
import logging
import re
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

LIMIT_BYTES = 4 << 30
# LaTeX that says itself where mathematics begins; and what math-verify takes for the beginning of an answer.
_MARKED = re.compile(r"(?<!\\)\$|\\\(|\\\[|\\f?boxed")
_ANNOUNCED = re.compile("answer", re.IGNORECASE)


def main(seconds: int) -> None:
    """Serves until standard input ends; a question may take `seconds`, or up to one more."""
    # To look for garbage among what sympy loads takes a sixth of the time that it takes to load.
    gc.disable()
    from latex2sympy2_extended.math_normalization import normalize_latex
    from math_verify import LatexExtractionConfig, verify
    from math_verify import parse as math_parse

    gc.freeze()
    gc.enable()
    # It warns that its own time-outs are off.
    logging.disable(logging.WARNING)
    latex = LatexExtractionConfig()

    @cache
    def parse(answer: str) -> list[Any]:
        text = answer.replace("\n", " ")
        parsed: list[Any] = math_parse(text, [latex], parsing_timeout=None) if _MARKED.search(text) else []
        return parsed or math_parse(f"${text.strip('$')}$", [latex], parsing_timeout=None)

    def normalise(answers: list[str]) -> list[str]:
        return [normal_form(answer) for answer in answers]

    def normal_form(answer: str) -> str:
        if is_plain(answer):
            return str(normalize_latex(answer.replace("\n", " "), latex.normalization_config))
        return next((part for part in parse(answer) if isinstance(part, str)), answer)

    def understood(answer: str) -> bool:
        return any(not isinstance(part, str) for part in parse(answer))

    def equal(first: str, second: str) -> bool:
        return bool(verify(parse(first), parse(second), timeout_seconds=None))

    def extract(text: str) -> str | None:
        return next((part for part in math_parse(text, parsing_timeout=None) if isinstance(part, str)), None)

    functions: dict[str, Callable[..., object]] = {
        "normalise": normalise,
        "understood": understood,
        "equal": equal,
        "extract": extract,
    }
    print("ready", flush=True)
    for number, line in enumerate(sys.stdin):
        name, *arguments = json.loads(line)
        _limit(seconds)
        print(json.dumps(functions[name](*arguments)), flush=True)
        if number == 0:
            # The first expression takes a tenth of a second: now, while the answer is read.
            _limit(seconds)
            parse(r"\frac{1}{2}+x")


def is_plain(answer: str) -> bool:
    """Whether an answer's normal form takes no parsing, and thus a thousandth of the time."""
    return not (_MARKED.search(answer) or _ANNOUNCED.search(answer))


def _limit(seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the asker's own clock is the only bound.
        return
    soft = int(time.process_time()) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > LIMIT_BYTES:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, hard))


if __name__ == "__main__":
    main(int(sys.argv[1]))
