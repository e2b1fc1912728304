"""The ledger of looks: how often a store's problems were evaluated, so that no hold-out wears out unseen.

Beside a store `x` lies `x.lookups.jsonl`, a line for each program that was evaluated on it. It lies beside
the store and not in it because a store never changes once written. Every evaluation is recorded, on whatever
store: which of them serve as hold-outs is a matter of use, and may be decided later.
"""

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FORMAT = 1
# Of a question hash: enough to recognise a problem in its store, short enough for a line to stay small.
HASH_CHARACTERS = 12


@dataclass(frozen=True)
class Looks:
    """How often problems have been looked at.

    Attributes:
        total: programs evaluated on them, each time counted.
        programs: different programs among them (by source).
    """

    total: int
    programs: int

    def __str__(self) -> str:
        """A clause for below a table."""
        times = "once" if self.total == 1 else f"{self.total} times"
        programs = "1 program" if self.programs == 1 else f"{self.programs} different programs"
        return f"evaluated {times} ({programs})" if self.total else "not evaluated before"


def ledger(store: str | Path) -> Path:
    """The path of a store's ledger, whether or not it exists yet."""
    path = Path(store).resolve()
    return path.with_name(f"{path.name}.lookups.jsonl")


def record(
    store: str | Path,
    programs: Sequence[tuple[str, str]],
    *,
    betas: Sequence[float],
    seeds: Sequence[int],
    protocol: str,
    purpose: str,
    problems: Collection[str] | None = None,
) -> str | None:
    """Append a line for each program to the ledger of a store.

    One `write` on a file opened for appending: concurrent evaluations never mix their lines.

    Args:
        store: its path.
        programs: (name, source) of each.
        betas: the betas evaluated.
        seeds: the seeds evaluated.
        protocol: "standard" or "published".
        purpose: what for, such as "evaluate", "compare" or "search: hold-out".
        problems: hashes of the questions evaluated; None = all of the store.

    Returns:
        None, or where the ledger cannot be written (a read-only or remote store) one sentence to warn with:
        the evaluation stands, but its look will be missing from the count.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [
        json.dumps(
            {
                "format": FORMAT,
                "time": now,
                "controller": name,
                "sha256": hashlib.sha256(source.encode()).hexdigest(),
                "betas": list(betas),
                "seeds": len(seeds),
                "problems": None if problems is None else sorted(_short(problem) for problem in problems),
                "protocol": protocol,
                "purpose": purpose,
            }
        )
        for name, source in programs
    ]
    data = "".join(f"{line}\n" for line in lines).encode()
    path = ledger(store)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            written = os.write(handle, data)
        finally:
            os.close(handle)
        reason = None if written == len(data) else "the disk is full"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason is None:
        return None
    return f"this look at {store} is missing from its count of looks: {path} cannot be written ({reason})"


def lookups(store: str | Path) -> list[dict[str, Any]]:
    """The ledger's entries, oldest first; none where there is no ledger.

    A line that cannot be read becomes an empty entry: something was looked at, whatever it was.
    """
    try:
        lines = ledger(store).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [_parse(line) for line in lines if line.strip()]


def count(store: str | Path, problems: Collection[str] | None = None) -> Looks:
    """How often any of some problems has been looked at; None = any problem of the store."""
    asked = None if problems is None else {_short(problem) for problem in problems}
    entries = [
        entry
        for entry in lookups(store)
        if asked is None or entry.get("problems") is None or not asked.isdisjoint(entry["problems"])
    ]
    return Looks(len(entries), len({entry.get("sha256") for entry in entries}))


def _short(question_hash: str) -> str:
    return question_hash[:HASH_CHARACTERS]


def _parse(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
