"""What is finished of a live run, in its folder.

    run.json                    what decides its figures; the same command finds it again and goes on
    episodes/8/HASH-0.json      an episode with 8 in flight: the problem's hash and the episode's seed
    calls.jsonl                 every call to a model, the newest last; older ones in calls.jsonl.1 and so on
    summary.json                the figures, when all episodes are there

A file of an episode that is there is complete: it is written under another name and renamed.
"""

import json
import logging
import logging.handlers
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from env import files
from env.errors import UserError

RUN, SUMMARY, CALLS = "run.json", "summary.json", "calls.jsonl"
# Of all calls together; the oldest are dropped.
CALLS_BYTES, CALLS_FILES = 64 << 20, 4

Rows = dict[tuple[str, int], dict[str, Any]]


class RunFolder:
    """The folder of one run.

    Args:
        path: where.
        recipe: what decides its figures, as JSON has it.

    Raises:
        UserError: the folder cannot be written, or is of another run.
    """

    def __init__(self, path: Path, recipe: Mapping[str, Any]) -> None:
        self.path = path
        files.ready(path / RUN)
        wanted = json.loads(files.as_json(dict(recipe)))
        try:
            known = json.loads((path / RUN).read_text())
        except FileNotFoundError:
            files.write(path / RUN, files.as_json(wanted))
            return
        except ValueError:
            raise UserError(f"{path / RUN} is damaged; remove {path}, or choose another --out") from None
        if other := sorted(name for name in {*known, *wanted} if known.get(name) != wanted.get(name)):
            raise UserError(
                f"{path} is a run with another {' and '.join(other)}; give the same command as then, or "
                "choose another --out"
            )

    def locked(self) -> AbstractContextManager[None]:
        """Keeps others out. Raises UserError if there is another at work."""
        busy = UserError(f"another process is at work in {self.path}; choose another --out")
        return files.locked(self.path / "lock", busy)

    def finished(self, part: int | str) -> Rows:
        """The episodes of a part of the run, such as those with so many in flight, that may stay as they are.

        Those of `env.live.player.Played.model_failed` are to be played again.
        """
        rows = (json.loads(file.read_text()) for file in self._episodes(part).glob("[!.]*.json"))
        return {(row["problem"], row["seed"]): row for row in rows if not row["model_failed"]}

    def write(self, part: int | str, row: Mapping[str, Any]) -> None:
        """Keep an episode."""
        folder = self._episodes(part)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / f"{row['problem']}-{row['seed']}.json", files.as_json(dict(row)))

    def levels(self) -> list[int]:
        """The numbers in flight with which episodes were played so far."""
        return sorted(int(each.name) for each in self.path.glob("episodes/*") if each.name.isdecimal())

    def summary(self) -> list[dict[str, Any]]:
        """The figures of a run that is done; none if it is not."""
        try:
            rows: list[dict[str, Any]] = json.loads((self.path / SUMMARY).read_text())["rows"]
        except FileNotFoundError:
            return []
        return rows

    def write_summary(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the figures."""
        files.write(self.path / SUMMARY, files.as_json({"rows": [dict(row) for row in rows]}))

    def _episodes(self, part: int | str) -> Path:
        return self.path / "episodes" / str(part)


class CallLog:
    """The calls of a run, a line of JSON each, in files that do not grow without end."""

    def __init__(self, folder: Path) -> None:
        self._handler = logging.handlers.RotatingFileHandler(
            folder / CALLS, maxBytes=CALLS_BYTES, backupCount=CALLS_FILES - 1, encoding="utf-8"
        )

    def write(self, **fields: Any) -> None:
        """Write down a call; numbers are rounded to a microsecond."""
        plain = {name: round(each, 6) if isinstance(each, float) else each for name, each in fields.items()}
        line = json.dumps({"at": round(time.time(), 3), **plain}, separators=(",", ":"))
        self._handler.handle(logging.LogRecord("", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
