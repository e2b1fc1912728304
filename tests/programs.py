"""Controllers for tests: the shipped ones, and ones written for the purpose."""

import sys
from pathlib import Path

import pytest

from env.program import Program

CONTROLLERS = Path(__file__).resolve().parent.parent / "controllers"
isolated = pytest.mark.skipif(sys.platform != "linux", reason="untrusted code is run on Linux only")


def shipped(name: str) -> Program:
    path = CONTROLLERS / f"{name}.py"
    return Program(name, path.read_text(encoding="utf-8"), trusted=True, path=path)


def written(name: str, body: str, settings: str = "{}", arguments: str = "", above: str = "") -> Program:
    """An untrusted controller whose `solve` has this body, from its seventh line on."""
    schedule = f"def schedule(beta):\n    return {settings}"
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return Program(name, f"{above}\n\n{schedule}\n\nasync def solve(ep{arguments}):\n{lines}\n")


CAREFUL = written(
    "careful",
    """
first = await ep.branch(1 + ep.rng.randrange(3))
ep.note("opened", len(first))
if ep.children:
    try:
        await ep.fork(first[0], 2)
    except Exception:
        pass
everyone = range(len(ep.done))
await ep.extend(everyone, [1 + b % 2 for b in everyone])
if len(first) > 2:
    ep.prune(first[:1])
await ep.together(ep.finish(first[1:]), ep.probe(first[:1]))
return max((code for code in ep.answer if code is not None), default=None)
""",
)
