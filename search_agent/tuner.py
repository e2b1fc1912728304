"""The `tune` proposer: an optimiser fits the constants that archived programs declare in `TUNABLE`.

A constant can be fitted where `schedule` gives it as a plain number: `TUNABLE = {"threshold": (0.8, 0.99)}`
and, in the dictionary that `schedule` returns, `"threshold": 0.95`. The proposal is the same program with
other numbers in these places. Programs that differ in nothing else are one family; what is known of all its
members tells the optimiser where to look next.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_agent.pareto import area
from search_agent.proposal import NothingToPropose, Proposal

if TYPE_CHECKING:
    from search_agent.workbench import Workbench

# Families that are worth fitting: the best ones.
FAMILIES = 3
ATTEMPTS = 20
DIGITS = 3


@dataclass(frozen=True)
class Constant:
    """A number in a program: where it may lie, what it is, and which bytes of the source say so."""

    low: float
    high: float
    value: float
    start: int
    end: int

    @property
    def whole(self) -> bool:
        """Whether it is a whole number, in all that is said of it."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.value))


def tunable(source: str) -> dict[str, Constant]:
    """The constants of a program that can be fitted, by name; none where it declares none in usable form."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return {}
    bounds: dict[str, tuple[float, float]] = {}
    entries: list[tuple[ast.expr | None, ast.expr]] = []
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="TUNABLE")], value=ast.Dict() as table):
                bounds = _bounds(table)
            case ast.FunctionDef(name="schedule"):
                tables = [each for each in ast.walk(node) if isinstance(each, ast.Dict)]
                entries = [entry for table in tables for entry in zip(table.keys, table.values, strict=True)]
    lines = [0]
    for line in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    found = {}
    for key, node in entries:
        value = _number(node)
        if isinstance(key, ast.Constant) and key.value in bounds and value is not None:
            assert node.end_lineno is not None and node.end_col_offset is not None
            place = lines[node.lineno - 1] + node.col_offset, lines[node.end_lineno - 1] + node.end_col_offset
            found[str(key.value)] = Constant(*bounds[str(key.value)], value, *place)
    return found


def with_values(source: str, values: Mapping[str, Any]) -> str:
    """The same program with other numbers, or whatever else, in the places of its tunable constants."""
    text = source.encode()
    for name, constant in sorted(tunable(source).items(), key=lambda item: -item[1].start):
        text = text[: constant.start] + str(values[name]).encode() + text[constant.end :]
    return text.decode()


class TuneProposer:
    """Proposes archived programs with other constants; the same archive and seed lead to the same program."""

    name = "tune"
    stamps: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.settings: dict[str, object] = {}

    def vouches(self, source: str, memo: Mapping[str, Any]) -> bool:
        """Never: somebody else wrote it."""
        return False

    def propose(self, bench: Workbench) -> Proposal:
        """A member of one of the best families that there is not yet.

        Raises:
            NothingToPropose: no archived program has constants to fit, or all are fitted.
        """
        families: dict[str, list[tuple[Mapping[str, Any], str]]] = {}
        for record in bench.history():
            if record["feedback"]:
                source = bench.read_controller(record["round"])
                if constants := tunable(source):
                    family = with_values(source, dict.fromkeys(constants, "..."))
                    families.setdefault(family, []).append((record, source))
        best = sorted(families.values(), key=lambda family: -max(area(record) for record, _ in family))
        if not best:
            raise NothingToPropose
        members = bench.rng.choice(best[:FAMILIES])
        parent, source = max(members, key=lambda member: area(member[0]))
        old = {name: constant.value for name, constant in tunable(source).items()}
        tried = {text for _, text in members}
        for values in self._suggestions(members, bench.rng.randrange(2**32)):
            changed = [
                f"{name} {old[name]:g} -> {value:g}" for name, value in values.items() if value != old[name]
            ]
            if (text := with_values(source, values)) not in tried:
                return Proposal(text, f"Round {parent['round']} with {', '.join(changed)}.", parent["round"])
        raise NothingToPropose

    def _suggestions(
        self, members: list[tuple[Mapping[str, Any], str]], seed: int
    ) -> Iterator[dict[str, float]]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        for record, source in members:
            constants = tunable(source)
            if all(c.low <= c.value <= c.high for c in constants.values()):
                params = {name: c.value for name, c in constants.items()}
                made = optuna.trial.FixedTrial(params)
                _draw(made, constants)
                study.add_trial(
                    optuna.trial.create_trial(
                        params=params, distributions=made.distributions, values=[area(record)]
                    )
                )
        for _ in range(ATTEMPTS):
            yield _draw(study.ask(), tunable(members[0][1]))


def _draw(trial: Any, constants: Mapping[str, Constant]) -> dict[str, float]:
    drawn = {}
    for name, c in constants.items():
        if c.whole:
            drawn[name] = trial.suggest_int(name, c.low, c.high)
        else:
            short = float(f"{trial.suggest_float(name, c.low, c.high):.{DIGITS}g}")
            drawn[name] = float(min(max(short, c.low), c.high))
    return drawn


def _bounds(table: ast.Dict) -> dict[str, tuple[float, float]]:
    bounds = {}
    for key, value in zip(table.keys, table.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple | ast.List) and len(value.elts) == 2:
            low, high = map(_number, value.elts)
            if low is not None and high is not None and low < high:
                bounds[str(key.value)] = low, high
    return bounds


def _number(node: ast.expr) -> float | None:
    """The number that an expression plainly is, sign included."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
    return None
