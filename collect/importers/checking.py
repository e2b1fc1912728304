"""Reading what others wrote: every mistake becomes one sentence that names file, problem and field."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from env.errors import UserError

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class ImportFileError(UserError):
    """A file to import is missing, or does not hold what its format promises."""


def read_bytes(path: Path) -> bytes:
    """A file's bytes. Raises ImportFileError if there are none to be had."""
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise ImportFileError(f"{path} is a folder; name the files in it") from None
    except OSError as error:
        raise ImportFileError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    if not data.strip():
        raise ImportFileError(f"{path} is empty; check how it was made")
    return data


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises ImportFileError if it is not JSON from beginning to end."""
    return parse_json(read_bytes(path), str(path))


def parse_json(text: bytes, where: str) -> Any:
    """What a JSON text holds, `where` naming it in errors. NaN and infinities are refused, as in JSON."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        if _SURROGATE.search(text):
            # Half a character is valid JSON, but no text that can be stored.
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise ImportFileError(f"{where}: not valid JSON, perhaps cut short: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def read_json_lines(path: Path) -> Iterator[Record]:
    """The object on each line that is not blank. Raises ImportFileError when it comes to a wrong one."""
    for number, line in enumerate(read_bytes(path).splitlines(), 1):
        if line.strip():
            where = f"{path}: line {number}"
            yield Record(where, parse_json(line, where))


@contextlib.contextmanager
def adding(where: str) -> Iterator[None]:
    """Names the problem in whatever the store or the task has against it."""
    try:
        yield
    except ImportFileError:
        raise
    except UserError as error:
        raise ImportFileError(f"{where}: {error}") from error


class Record:
    """One JSON object of a file, its fields fetched with the type that they must have.

    Args:
        where: file and problem, for the errors.
        value: what should be the object.

    Raises:
        ImportFileError: here and in every method, naming `where` and the field.
    """

    def __init__(self, where: str, value: Any) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise ImportFileError(f"{where}: expected an object with named fields, got {_brief(value)}")
        self.fields: dict[str, Any] = value

    def refuse(self, field: str, reason: str) -> NoReturn:
        """Raises the error that a field deserves."""
        raise ImportFileError(f"{self.where}: `{field}` {reason}")

    def text(self, field: str, blank: bool = False) -> str:
        """A string, with more than white space unless `blank`."""
        value = self._get(field)
        if not isinstance(value, str) or not (blank or value.strip()):
            self.refuse(
                field, f"must be a string{'' if blank else ' that is not empty'}, got {_brief(value)}"
            )
        return value

    def answer(self, field: str) -> str | None:
        """A string, or null for an answer that is not there."""
        return None if self._get(field) is None else self.text(field)

    def count(self, field: str, least: int = 0) -> int:
        """A whole number from `least` that fits 32 bits."""
        value = self._get(field)
        if type(value) is not int or not least <= value < 2**31:
            self.refuse(field, f"must be a whole number from {least}, got {_brief(value)}")
        return value

    def list(self, field: str) -> list[Any]:
        """A list."""
        value = self._get(field)
        if not isinstance(value, list):
            self.refuse(field, f"must be a list, got {_brief(value)}")
        return value

    def _get(self, field: str) -> Any:
        if field not in self.fields:
            have = ", ".join(sorted(self.fields)) or "no fields"
            raise ImportFileError(f"{self.where}: `{field}` is missing; there are {have}")
        return self.fields[field]


def _brief(value: Any) -> str:
    text = (
        json.dumps(value, ensure_ascii=False)
        if not isinstance(value, float) or math.isfinite(value)
        else str(value)
    )
    return text if len(text) <= 60 else f"{text[:57]}..."
