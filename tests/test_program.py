"""What a controller's source may be: the contract, the language, and no tables of what was seen."""

from pathlib import Path

import pytest

from env.program import MAX_DIGITS, MAX_ELEMENTS, MAX_SOURCE, MAX_TEXT, Program, ProgramError, check, needs

CONTROLLERS = Path(__file__).resolve().parent.parent / "controllers"
SHIPPED = sorted(path for path in CONTROLLERS.rglob("*.py") if path.name not in ("__init__.py", "voting.py"))

MINIMAL = '''"""A controller."""

from controllers.voting import majority


def schedule(beta):
    """Its settings."""
    return {"n": 1 + round(7 * beta)}


async def solve(ep, n):
    ids = await ep.branch(n, probe=False)
    await ep.finish(ids)
    return majority(ep.answer[b] for b in ids)
'''


def solving(body: str, above: str = "") -> str:
    """A controller whose `solve` has this body."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"{above}\ndef schedule(beta):\n    return {{}}\n\nasync def solve(ep):\n{lines}\n"


def refusal(source: str) -> str:
    with pytest.raises(ProgramError) as caught:
        check(source)
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_we_ship_keeps_the_contract(path):
    source = path.read_text(encoding="utf-8")
    check(source)
    names = Program(path.stem, source, trusted=True).load()
    settings = [names["schedule"](beta) for beta in (0.0, 0.5, 1.0)]
    code = names["solve"].__code__
    assert list(code.co_varnames[: code.co_argcount]) == ["ep", *settings[0]]
    assert settings[0].keys() == settings[2].keys()
    assert len(source.splitlines()) <= 80, "more than a screen"


@pytest.mark.parametrize(
    "source",
    [
        MINIMAL,
        solving("x = [" + ", ".join(["True"] * 60) + "]"),
        solving("x = " + " + ".join(["0.95"] * 60)),
        solving('ep.note(f"{len(ep.answer)} branches")\nreturn None'),
        solving("x = await ep.together(ep.branch(1), ep.probe([]))"),
        solving("class Vote:\n    def count(self):\n        return self.number"),
        solving("import math\nfrom collections import Counter"),
        solving('"""' + "word " * 2000 + '"""'),
    ],
)
def test_honest_programs_pass(source):
    check(source)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def schedule(beta)\n    return {}", "line 1: not Python: expected ':'"),
        ("x = 1\n  y = 2", "line 2: not Python: unexpected indent"),
        ("a\0b", "not Python"),
        ("(" * 5000, "not Python"),
        ("-" * 50_000 + "1", "not Python"),
        ("x = " + "+".join(["1"] * 20_000), "not Python"),
        ("", "no `def schedule(beta)`: it returns every setting as a dictionary"),
        ("async def solve(ep): pass", "no `def schedule(beta)`"),
        ("async def schedule(beta): pass\nasync def solve(ep): pass", "no `def schedule(beta)`"),
        ("def schedule(): pass\nasync def solve(ep): pass", "no `def schedule(beta)`"),
        ("def schedule(a, b): pass\nasync def solve(ep): pass", "no `def schedule(beta)`"),
        (
            "def schedule(beta): pass",
            "no `async def solve(ep, ...)`: it plays one episode and returns an answer code",
        ),
        ("def schedule(beta): pass\ndef solve(ep): pass", "no `async def solve(ep, ...)`"),
        ("def schedule(beta): pass\nasync def solve(): pass", "no `async def solve(ep, ...)`"),
        (solving("import os"), "line 6: import os: a controller may import bisect, collections,"),
        (solving("import os.path"), "import os.path: a controller may import"),
        (solving("import math, random"), "import random: a controller may import"),
        (solving("from random import choice"), "import from random: a controller may import"),
        (solving("from . import voting"), "import from None: a controller may import"),
        (solving("from controllers import self_consistency"), "import from controllers: a controller may"),
        (solving("import numpy as np"), "import numpy: a controller may import"),
        (solving("global x\nx = 1"), "line 6: `global`: an episode keeps its state in local variables"),
        (solving("eval('1')"), "line 6: `eval` is outside the language of controllers"),
        (solving("f = open"), "`open` is outside the language of controllers"),
        (solving("getattr(ep, 'x')"), "`getattr` is outside the language of controllers"),
        (solving("__import__('os')"), "`__import__` is outside the language of controllers"),
        (solving("x = __builtins__"), "`__builtins__` is outside the language of controllers"),
        (solving("x = ep._seed_key"), "`._seed_key`: attributes that begin with `_` and frame internals"),
        (solving("x = ep.__class__"), "`.__class__`: attributes that begin with `_`"),
        (solving("x = ep.branch(1).gi_frame"), "`.gi_frame`: attributes"),
        (solving("x = solve.f_globals"), "`.f_globals`: attributes"),
        (solving("x = b'data'"), "bytes: a controller has no use for them"),
        (solving("x = '{0.__class__}'.format(ep)"), "a string that names internals"),
        (solving("x = 2**64 + 36893488147419103232"), "a number of more than 64 bits"),
        (solving(f"x = {list(range(MAX_ELEMENTS + 1))}"), "a table of 65 entries (at most 64)"),
        (solving(f"x = {tuple(range(MAX_ELEMENTS + 1))}"), "a table of 65 entries (at most 64)"),
        (solving(f"x = {set(range(MAX_ELEMENTS + 1))}"), "a table of 65 entries (at most 64)"),
        (solving(f"x = {dict.fromkeys(range(MAX_ELEMENTS + 1), 0)}"), "a table of 65 entries (at most 64)"),
        (solving("ep.branch(1)"), "line 6: `branch(...)` does nothing until it is awaited: write `await`"),
        (solving("ep.together(ep.finish([0]))"), "`together(...)` does nothing until it is awaited"),
    ],
)
def test_what_is_refused_and_what_is_said_of_it(source, why):
    assert why in refusal(source)


LENGTHS = [15_000 + 37 * k for k in range(100)]
SEEN = "a controller decides by what it sees, not by a table of what was seen"


@pytest.mark.parametrize(
    "table",
    [
        f"x = {[LENGTHS[:50], LENGTHS[50:]]}",
        f"x = {LENGTHS[:60]}\ny = {LENGTHS[40:]}",
        "x = " + " or ".join(f"length == {n}" for n in LENGTHS),
        f"x = '{' '.join(map(str, LENGTHS))}'",
        "x = (\n" + "\n".join(f"    '{n} '" for n in LENGTHS) + ")",
        "x = f'{ep}" + " ".join(map(str, LENGTHS)) + "'",
        f"x = dict({', '.join(f'k{n}=1' for n in LENGTHS)})",
        "x = " + " or ".join(f"{n}j" for n in LENGTHS),
        "x = [" + ", ".join(str([1] * 60) for _ in range(8)) + "]",
    ],
)
def test_a_memorised_table_is_refused_whatever_its_shape(table):
    assert SEEN in refusal(solving(table))
    assert SEEN in refusal(solving("pass", above=table))


def test_what_a_program_carries_is_limited_in_all():
    at_most = " + ".join(["1234567890"] * (MAX_DIGITS // 10))
    check(solving(f"x = {at_most}"))
    assert refusal(solving(f"x = {at_most} + 1")).startswith(f"{MAX_DIGITS + 1} digits")
    check(solving(f"x = '{'a' * MAX_TEXT}'"))
    assert refusal(solving(f"x = '{'a' * (MAX_TEXT + 1)}'")).startswith(f"{MAX_TEXT + 1} characters")
    assert (
        refusal("#" * (MAX_SOURCE + 1))
        == f"{MAX_SOURCE + 1} characters: a controller has at most {MAX_SOURCE}"
    )


@pytest.mark.parametrize(
    ("body", "needed"),
    [
        ("await ep.branch(4, probe=False)", set()),
        ("await ep.branch(4, False)", set()),
        ("await ep.branch(4)", {"probes"}),
        ("await ep.extend(ids, 1, False); seen.extend(ids)", set()),
        ("await ep.extend(ids, 2)", {"probes"}),
        ("await ep.together(ep.fork(0, 2, probe=asking), ep.score(ids))", {"forks", "probes", "prm"}),
        ("await ep.probe(ids)", {"probes"}),
        ("await ep.branch(1, probe=False, arm=1)", {"arms"}),
        ("low = min(ep.confidence)", {"confidence"}),
    ],
)
def test_what_a_store_must_have_is_read_off_the_source(body, needed):
    assert needs(solving(body)) == needed
