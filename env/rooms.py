"""What the command line hands to the rooms, which may not import one another."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from env.errors import UserError

if TYPE_CHECKING:
    from env.program import Program


@dataclass(frozen=True)
class Rooms:
    """Finds what other rooms hold, so that `env` and `search_agent` need not import them.

    Attributes:
        shelf: the directory of the shipped controllers; those that searches found are in its `discovered/`.
        data: the directory of the tiny model and of the stores that were collected from it.
    """

    shelf: Path
    data: Path

    def bundled(self, split: str) -> Path:
        """The store that is used where none is named; `split` is "search" or "holdout".

        Raises:
            UserError: it was not installed.
        """
        store = self.data / "stores" / f"tiny-{split}"
        if not store.is_dir():
            raise UserError(
                f"name a store: this installation lacks the bundled one, {store}; `autotts import --help` "
                "and `autotts collect --help` show how to make one"
            )
        return store

    def controllers(self) -> dict[str, Path]:
        """The shipped controllers by name, the ones from the literature first."""
        files = [*sorted(self.shelf.glob("*.py")), *sorted(self.shelf.glob("discovered/*.py"))]
        return {file.stem: file for file in files if file.stem not in ("__init__", "voting")}

    def program(self, name_or_path: str | Path) -> "Program":
        """A controller by its shipped name (trusted) or by the path of its file (not trusted).

        Raises:
            UserError: there is no such controller, or its file cannot be read as text.
        """
        from env.program import Program

        shipped = self.controllers()
        trusted = str(name_or_path) in shipped
        path = shipped[str(name_or_path)] if trusted else Path(name_or_path)
        if not path.is_file():
            raise UserError(_unknown(str(name_or_path), list(shipped)))
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text, so it is no controller: {error}") from error
        return Program(name=path.stem, source=source, trusted=trusted, path=path)


def _unknown(asked: str, names: list[str]) -> str:
    if asked.endswith(".py") or "/" in asked:
        return f"no controller file {asked}; give the path of a Python file, or one of: {', '.join(names)}"
    near = difflib.get_close_matches(asked, names)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return (
        f"no controller {asked!r}.{hint} Shipped ones: {', '.join(names)}. "
        "For one of your own, give the path of its file."
    )
