"""The folder that a coding agent, or a person, works in: what is laid out there and what is taken back."""

from __future__ import annotations

import inspect
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from env import program
from search_agent.feedback import packet as feedback
from search_agent.proposal import ProposerError
from search_agent.proposers.briefing import (
    RESULT_COLUMNS,
    TASK,
    hypervolume,
    standings,
    telling_episodes,
)
from search_agent.proposers.text import Said, said_in, table

if TYPE_CHECKING:
    from search_agent.workbench import Workbench

MAX_PROGRAM = 200_000  # bytes
TRACED_ROUNDS = 3
TRACES = 4  # episodes, a traced round
FILES = """\
## This folder

- `API.md`: the controller API. Read it first.
- `FEEDBACK.md`: what the latest round teaches: whether its hypothesis held, where accuracy was lost and
  tokens were wasted, what the change did, three episodes (absent in the first round).
- `examples/*.py`: the shipped controllers.
- `history/0001/`, ...: earlier rounds: `controller.py`, `round.json` (outcome and frontier), `results.csv`
  (each feedback problem), `traces.jsonl` (of the best rounds: what single episodes did and saw).
- `check.py`: `python3 check.py controller.py` says whether a file is a valid controller (it does not run it).

Write your controller to `controller.py` in this folder, the whole file. Say in `summary.txt`
in one or two sentences what it does differently and why, with a line "Parent: N" if it was derived from
round N ("Parents: N and M" if it crosses two), and a line "Hypothesis: ..." in the form above. Nothing else
of this folder is kept.
"""
CHECK_MAIN = """

if __name__ == "__main__":
    import sys

    try:
        check(Path(sys.argv[1]).read_text(encoding="utf-8"))
    except (IndexError, OSError, ValueError, ProgramError) as error:
        sys.exit(f"not a controller: {error}")
    print("a valid controller")
"""


def furnish(folder: Path, bench: Workbench) -> None:
    """Lay out the prompt, the API, the examples, the history and the checker in an empty folder."""
    (folder / "PROMPT.md").write_text("\n\n".join([TASK, FILES, standings(bench)]) + "\n", encoding="utf-8")
    (folder / "API.md").write_text(bench.api, encoding="utf-8")
    (folder / "check.py").write_text(checker(), encoding="utf-8")
    if lessons := feedback.packet(bench):
        (folder / "FEEDBACK.md").write_text(lessons + "\n", encoding="utf-8")
    (folder / "examples").mkdir()
    for name, source in bench.examples.items():
        (folder / "examples" / f"{name}.py").write_text(source, encoding="utf-8")
    (folder / "history").mkdir()
    evaluated = [record for record in bench.history() if record.get("status") == "evaluated"]
    traced_rounds = 0 if "traces" in bench.ablated else TRACED_ROUNDS
    traced = [record["round"] for record in sorted(evaluated, key=hypervolume, reverse=True)[:traced_rounds]]
    for record in bench.history():
        _lay_out_round(
            folder / "history" / f"{record['round']:04d}", bench, record, record["round"] in traced
        )


def checker() -> str:
    """A script that needs nothing of ours and says whether a file keeps the contract of a controller."""
    source = inspect.getsource(program).replace(
        "from env.errors import UserError\n", "UserError = Exception\n"
    )
    return source + CHECK_MAIN


def _lay_out_round(folder: Path, bench: Workbench, record: dict[str, object], traced: bool) -> None:
    number = record["round"]
    assert isinstance(number, int)
    folder.mkdir()
    (folder / "round.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    try:
        (folder / "controller.py").write_text(bench.read_controller(number), encoding="utf-8")
    except LookupError:
        return
    if not record.get("feedback"):
        return
    rows = bench.results(number)
    (folder / "results.csv").write_text(table(rows, RESULT_COLUMNS) + "\n", encoding="utf-8")
    if traced:
        lines = [
            json.dumps({**episode, "trace": bench.traces(number, **episode)})
            for episode in telling_episodes(rows, TRACES)
        ]
        (folder / "traces.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def take_back(folder: Path, rounds: Sequence[int]) -> tuple[str, Said]:
    """The program, and what is said of it, as left in the folder.

    Raises:
        ProposerError: there is no `controller.py`, or it is not a plain file of UTF-8 text.
    """
    source = _read(folder, "controller.py")
    if source is None:
        raise ProposerError("the command left no controller.py")
    return source, said_in(_read(folder, "summary.txt") or "", rounds)


def _read(folder: Path, name: str) -> str | None:
    """A file that untrusted hands left: a link would be read with our rights, a pipe would never end."""
    try:
        handle = os.open(
            folder / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProposerError(f"{name} cannot be read ({error.strerror}): leave a plain file") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ProposerError(f"{name} is not a plain file")
    with open(handle, "rb") as file:
        data = file.read(MAX_PROGRAM + 1)
    if len(data) > MAX_PROGRAM:
        raise ProposerError(f"{name} is larger than {MAX_PROGRAM} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ProposerError(f"{name} is not UTF-8 text") from None
