"""A controller as source text: where it came from, whether it keeps the contract, and its two functions.

The check is about clear errors and about honesty (no memorised tables); what holds an untrusted program is
the isolation of the process it runs in, never this check.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from env.errors import UserError

# The betas whose rows make up a frontier and its hypervolume; more points would only add area.
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
MODULES = frozenset(
    {"math", "statistics", "collections", "itertools", "functools", "heapq", "bisect", "controllers.voting"}
)
FORBIDDEN = frozenset(
    "eval exec compile open input print breakpoint globals locals vars dir getattr setattr delattr "
    "memoryview type super object classmethod id help exit quit".split()
)
ACTIONS = frozenset({"branch", "sample", "extend", "finish", "probe", "score", "fork", "together"})
NEEDS = {"fork": "forks", "score": "prm", "confidence": "confidence", "arm": "arms", "probe": "probes"}
# Actions that probe unless told otherwise, by the place of the argument that tells them.
PROBING = {"branch": 1, "extend": 2, "fork": 2}
INSPECTION = ("gi_", "cr_", "ag_", "f_", "tb_", "co_")
# What parsing raises.
NOT_PYTHON = (SyntaxError, ValueError, MemoryError, RecursionError)
MAX_SOURCE = 64 * 1024
MAX_ELEMENTS = 64
MAX_DIGITS = 400
MAX_TEXT = 4_000


class ProgramError(UserError):
    """A controller that does not keep the contract; says the line and what to write instead."""


@dataclass(frozen=True)
class Program:
    """A controller.

    Attributes:
        name: as tables show it.
        source: the whole file.
        trusted: whether we ship it or assembled it ourselves; anything a model or a user wrote is not.
        path: the file it was read from, if any.
    """

    name: str
    source: str
    trusted: bool = False
    path: Path | None = None

    def check(self) -> None:
        """As `check` of its source. Raises ProgramError, with the name of its file."""
        try:
            check(self.source)
        except ProgramError as error:
            raise ProgramError(f"{self.path or self.name}: {error}") from None

    def load(self) -> dict[str, Any]:
        """The module's names, executed in this process: for trusted programs only."""
        # Here, because proposers get the rest of this file as a checker that stands alone.
        from env.lockstep import SOURCE_NAME

        names: dict[str, Any] = {"__name__": "controller"}
        exec(compile(self.source, SOURCE_NAME, "exec"), names)
        return names


def check(source: str) -> None:
    """See that `source` keeps the contract of a controller.

    Raises:
        ProgramError: it does not parse, lacks `schedule(beta)` or `async def solve(ep, ...)`, uses anything
            outside the language of controllers, or carries a table of numbers.
    """
    if len(source) > MAX_SOURCE:
        raise ProgramError(f"{len(source)} characters: a controller has at most {MAX_SOURCE}")
    try:
        tree = ast.parse(source)
    except NOT_PYTHON as error:
        line = getattr(error, "lineno", None)
        where = f"line {line}: " if line else ""
        raise ProgramError(f"{where}not Python: {getattr(error, 'msg', None) or error}") from None
    _check_contract(tree)
    docstrings = {id(text) for text in _docstrings(tree)}
    digits = text = 0
    for node in ast.walk(tree):
        _check_node(node, docstrings)
        if id(node) not in docstrings:
            written = _written(node)
            digits += sum(map(str.isdigit, written))
            text += len(written)
    for count, most, what in ((digits, MAX_DIGITS, "digits"), (text, MAX_TEXT, "characters")):
        if count > most:
            raise ProgramError(
                f"{count} {what} in its numbers and texts: a controller decides by what it sees, not by a "
                f"table of what was seen (at most {most})"
            )


def _check_contract(tree: ast.Module) -> None:
    functions = {
        node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    schedule, solve = functions.get("schedule"), functions.get("solve")
    if not isinstance(schedule, ast.FunctionDef) or len(schedule.args.args) != 1:
        raise ProgramError("no `def schedule(beta)`: it returns every setting as a dictionary")
    if not isinstance(solve, ast.AsyncFunctionDef) or not solve.args.args:
        raise ProgramError("no `async def solve(ep, ...)`: it plays one episode and returns an answer code")


def needs(source: str) -> frozenset[str]:
    """What a store must have for a program to play on it, beyond chains; of `Store.capabilities`.

    What is not Python needs nothing: it is `check` that says so.
    """
    try:
        tree = list(ast.walk(ast.parse(source)))
    except NOT_PYTHON:
        return frozenset()
    names = {node.attr for node in tree if isinstance(node, ast.Attribute)}
    # Who names an arm wants another than the first.
    names |= {"arm" for node in tree if isinstance(node, ast.keyword) and node.arg == "arm"}
    names |= {"probe" for node in tree if _probes(node)}
    return frozenset(capability for name, capability in NEEDS.items() if name in names)


def _probes(node: ast.AST) -> bool:
    """Whether it is an action that probes as it goes, which it does unless it is told not to."""
    match node:
        # Of `ep`, as everyone calls it: a list can be extended as well.
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="ep"), attr=name), args=args, keywords=keywords
        ) if name in PROBING:
            told = [word.value for word in keywords if word.arg == "probe"] + args[PROBING[name] :]
            return not any(isinstance(value, ast.Constant) and value.value is False for value in told)
    return False


def _docstrings(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value


def _written(node: ast.AST) -> str:
    """What a node adds to the data that a program carries."""
    match node:
        case ast.Constant(value=int() | float() | complex() | str() as value) if not isinstance(value, bool):
            return str(value)
        case ast.keyword(arg=str(name)):
            return name
    return ""


def _check_node(node: ast.AST, docstrings: set[int]) -> None:
    def refuse(what: str) -> None:
        raise ProgramError(f"line {getattr(node, 'lineno', 1)}: {what}")

    match node:
        case ast.Import(names=names):
            for alias in names:
                if alias.name not in MODULES:
                    refuse(f"import {alias.name}: a controller may import {', '.join(sorted(MODULES))}")
        case ast.ImportFrom(module=module, level=level):
            if level or module not in MODULES:
                refuse(f"import from {module}: a controller may import {', '.join(sorted(MODULES))}")
        case ast.Global():
            refuse("`global`: an episode keeps its state in local variables")
        case ast.Name(id=name) if name in FORBIDDEN or name.startswith("__"):
            refuse(f"`{name}` is outside the language of controllers")
        case ast.Attribute(attr=name) if name.startswith(("_", *INSPECTION)):
            refuse(
                f"`.{name}`: attributes that begin with `{name[:1]}` and frame internals are out of bounds"
            )
        case ast.Constant(value=bytes()):
            refuse("bytes: a controller has no use for them")
        case ast.Constant(value=str(text)) if id(node) not in docstrings:
            if "__" in text:
                refuse("a string that names internals")
        case ast.Constant(value=int(number)) if number.bit_length() > 64:
            refuse("a number of more than 64 bits")
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items) if len(items) > MAX_ELEMENTS:
            refuse(f"a table of {len(items)} entries (at most {MAX_ELEMENTS})")
        case ast.Dict(keys=keys) if len(keys) > MAX_ELEMENTS:
            refuse(f"a table of {len(keys)} entries (at most {MAX_ELEMENTS})")
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(), attr=name))) if name in ACTIONS:
            refuse(f"`{name}(...)` does nothing until it is awaited: write `await`")
