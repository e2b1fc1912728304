"""Figures of the user's own that costs are made of, such as prices and speeds: flat JSON files."""

import json
import math
from pathlib import Path
from typing import Any

from env.errors import UserError

Table = dict[str, float]


def read_table(path: str, example: str) -> Table:
    """A JSON object of positive numbers (0 included).

    Raises:
        UserError: there is none at `path`.
    """
    tables = _read(path, example)
    return _checked(tables, path, example)


def read_tables(path: str, arms: int, example: str) -> list[Table]:
    """A table for each arm: a JSON list of as many objects, or one object that is good for all.

    Raises:
        UserError: there is none at `path`, or it has them for another number of arms.
    """
    found = _read(path, example)
    tables = found if isinstance(found, list) else [found] * arms
    if len(tables) != arms:
        raise UserError(
            f"{path} has {len(tables)} tables and the store {arms} arms: give one, or one for each"
        )
    return [_checked(table, path, example) for table in tables]


def _read(path: str, example: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): write JSON there such as {example}"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): expected something such as {example}") from None


def _checked(table: Any, path: str, example: str) -> Table:
    if isinstance(table, dict):
        values = {name: value for name, value in table.items() if type(value) in (int, float)}
        if len(values) == len(table) and all(0 <= value < math.inf for value in values.values()):
            return {name: float(value) for name, value in values.items()}
    raise UserError(f"{path} must hold numbers that are not negative, such as {example}")
