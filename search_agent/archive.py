"""A run is a folder, and a round is there whole or not at all.

    RUN/run.json                 what determines the result, and when to stop
    RUN/baselines/NAME/          a published controller, in the form of a round
    RUN/proposals/0001/          what a proposer handed in, from that moment until the round is archived
        proposal.json            the record so far; `seen` says which rounds the proposer knew
        controller.py
    RUN/rounds/0001/             made under a temporary name, renamed when complete
        round.json               the outcome; without clock time: a resumed run leaves the same bytes
        controller.py            what was proposed (absent where the proposer failed)
        feedback.parquet         episodes of the feedback problems: what proposers may see
        selection.parquet        episodes of the selection problems: never shown to a proposer
    RUN/finalists.json           the best rounds with more seeds, and which one won
    RUN/holdout.parquet          episodes of winner and baselines on the hold-out
    RUN/holdout.json             their figures, written once, at the end, which makes the run final
    RUN/clock.json               seconds that the baselines took, the measure for what the end will take
    RUN/usage.jsonl              a line a model call
    RUN/report.html

`Run` is the only code that knows these names.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import UserError
from env.files import as_parquet
from env.program import Program
from search_agent.proposal import Usage, Vouches

if TYPE_CHECKING:
    import polars as pl

FORMAT = 2
PROPOSAL, ROUND, SOURCE, FEEDBACK, SELECTION = (
    "proposal.json",
    "round.json",
    "controller.py",
    "feedback.parquet",
    "selection.parquet",
)


class Run:
    """A run folder, opened for reading; `Run.writing` is the door for whoever adds to it.

    Attributes:
        path: the folder.
        config: what determines the result (stores, problems of each part, proposer, seeds, ...).
        stop: when to stop, see `search_agent.budget.Budget`; a resumed run may change it.

    What is archived never changes, so it is read once. Proposers in threads of their own may call `keep`,
    `record_call` and whatever reads; all else is for the one thread that holds the folder.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
        self.config: dict[str, Any] = head["config"]
        self.stop: dict[str, Any] = head["stop"]
        self._known: dict[Path, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {len(self.rounds())} rounds)"

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], stop: Mapping[str, Any]) -> Run:
        """Start a run in a folder that does not exist yet, or is empty.

        Raises:
            UserError: the folder holds something already, or cannot be written.
        """
        if (path / "run.json").exists():
            raise UserError(
                f"{path} holds a run already; add --resume to go on with it, or give another --out"
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists and is not an empty folder; give --out a folder of its own")
        run = cls(path, {"config": dict(config), "stop": dict(stop)})
        with run._disk():
            path.mkdir(parents=True, exist_ok=True)
            (path / "rounds").mkdir()
            (path / "baselines").mkdir()
            run._write_head()
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open an existing run.

        Raises:
            UserError: there is no run in the folder, or a newer version of AutoTTS wrote it.
        """
        try:
            head = json.loads((path / "run.json").read_text(encoding="utf-8"))
            version = head["format"]
            run = cls(path, head)
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"no search run in {path}: give the folder that `autotts search --out` wrote"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path / 'run.json'} is damaged ({error}); start the search anew") from error
        if version > FORMAT:
            raise UserError(f"{path} is in format {version}, this AutoTTS reads up to {FORMAT}: upgrade it")
        return run

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for one writer, and sweep away what a killed one left half-made.

        Raises:
            UserError: another search is writing this run, or the disk refuses.
        """
        with self._disk():
            lock = (self.path / ".lock").open("w")
        with lock:
            # Windows has no fcntl; there, two searches in one folder are the user's to avoid.
            with suppress(ImportError):
                import fcntl

                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(
                        f"another search is writing {self.path}; wait for it, or use another --out"
                    ) from None
            for half in (*self.path.glob("*/.new-*"), *self.path.glob(".new-*")):
                shutil.rmtree(half) if half.is_dir() else half.unlink()
            for number in self.proposals():
                if self.folder(number).exists():
                    shutil.rmtree(self._proposal(number))
            yield

    def change_stop(self, stop: Mapping[str, Any]) -> None:
        """Record when a resumed run is to stop."""
        self.stop = dict(stop)
        self._write_head()

    def rounds(self) -> list[dict[str, Any]]:
        """Every round's record, oldest first.

        Raises:
            UserError: a record is damaged; it is named.
        """
        return sorted(self._records("rounds"), key=lambda record: record["round"])

    def baselines(self) -> list[dict[str, Any]]:
        """The published controllers' records, by name."""
        return sorted(self._records("baselines"), key=lambda record: record["name"])

    def folder(self, entry: int | str) -> Path:
        """Where a round (by number) or a baseline (by name) lives."""
        return (
            self.path / "rounds" / f"{entry:04d}"
            if isinstance(entry, int)
            else self.path / "baselines" / entry
        )

    def source(self, entry: int | str) -> str | None:
        """The program of a round or a baseline; None where the proposer left none."""
        return _text(self.folder(entry) / SOURCE)

    def program(self, number: int, vouches: Vouches) -> Program:
        """The program of a round that left one; trusted where `vouches(source, memo)` says so."""
        source = self.source(number)
        assert source is not None, f"round {number} left no program"
        memo = _document(self.folder(number) / ROUND)["memo"]
        return Program(f"round {number}", source, vouches(source, memo))

    def episodes(self, entry: int | str, part: str) -> pl.DataFrame | None:
        """Episodes of a round or a baseline on a part ("feedback" or "selection"), None if not run."""
        import polars as pl

        file = self.folder(entry) / f"{part}.parquet"
        return pl.read_parquet(file) if file.is_file() else None

    def keep(self, record: Mapping[str, Any], source: str | None) -> int:
        """Write down what a proposer handed in, at once: it may have been paid for.

        Returns:
            The number of the round that will be about it: the next free one.

        Raises:
            UserError: the disk refuses.
        """
        with self._lock:
            taken = [record["round"] for record in self.rounds()] + self.proposals()
            number = max(taken, default=0) + 1
            document = {"round": number, "name": f"round {number}", **record}
            self._place(self._proposal(number), {PROPOSAL: _json(document), SOURCE: source})
        return number

    def proposals(self) -> list[int]:
        """The rounds whose proposals are written down and not archived yet, oldest first."""
        with suppress(FileNotFoundError):
            return sorted(int(name) for name in os.listdir(self.path / "proposals") if name.isdigit())
        return []

    def proposal(self, number: int) -> tuple[dict[str, Any], str | None]:
        """A waiting proposal: the record so far, and the program, None where the proposer left none.

        Raises:
            UserError: the record is damaged.
        """
        folder = self._proposal(number)
        return _document(folder / PROPOSAL), _text(folder / SOURCE)

    def add(
        self,
        entry: int | str,
        record: Mapping[str, Any],
        source: str | None = None,
        feedback: pl.DataFrame | None = None,
        selection: pl.DataFrame | None = None,
    ) -> None:
        """Archive a round (by number) or a baseline (by name) in one step: it is there whole or not at all.

        Raises:
            UserError: the disk refuses.
        """
        parts = {
            name: None if frame is None else as_parquet(frame)
            for name, frame in ((FEEDBACK, feedback), (SELECTION, selection))
        }
        with self._lock:
            self._place(self.folder(entry), {ROUND: _json(record), SOURCE: source, **parts})
            if isinstance(entry, int):
                shutil.rmtree(self._proposal(entry), ignore_errors=True)

    def read(self, name: str) -> dict[str, Any] | None:
        """A document of the run ("finalists.json", "holdout.json"); None where it is not there yet.

        Raises:
            UserError: it is damaged.
        """
        file = self.path / name
        return _document(file) if file.is_file() else None

    def write(self, name: str, document: Mapping[str, Any] | pl.DataFrame | str) -> None:
        """Write a document (JSON), a table (Parquet) or a text of the run, in one step.

        Raises:
            UserError: the disk refuses.
        """
        half = self.path / f".new-{name}"
        if isinstance(document, str):
            content = document.encode()
        else:
            content = _json(document).encode() if isinstance(document, Mapping) else as_parquet(document)
        with self._disk():
            half.write_bytes(content)
            _sync(half)
            half.replace(self.path / name)
            _sync(self.path)

    def record_call(self, call: Mapping[str, Any]) -> None:
        """Append a model call to the books, whatever becomes of the round that made it."""
        with self._lock, self._disk(), (self.path / "usage.jsonl").open("a", encoding="utf-8") as books:
            books.write(json.dumps(call) + "\n")

    def calls(self) -> list[dict[str, Any]]:
        """The model calls of the run; a line that a crash cut short is left out."""
        calls = []
        with suppress(FileNotFoundError):
            for line in (self.path / "usage.jsonl").read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):
                    calls.append(json.loads(line))
        return calls

    def spent(self) -> Usage:
        """What all model calls of the run cost so far, those of killed rounds too."""
        names = [field.name for field in fields(Usage) if field.name != "calls"]
        return sum(
            (Usage(1, **{name: call.get(name, 0) for name in names}) for call in self.calls()), Usage()
        )

    def _proposal(self, number: int) -> Path:
        return self.path / "proposals" / f"{number:04d}"

    def _records(self, kind: str) -> Iterator[dict[str, Any]]:
        for name in os.listdir(self.path / kind):
            file = self.path / kind / name / ROUND
            if file not in self._known and (name.startswith(".") or not file.is_file()):
                continue
            if file not in self._known:
                self._known[file] = _document(file)
            yield self._known[file]

    def _place(self, final: Path, files: Mapping[str, str | bytes | None]) -> None:
        """Make a folder with these files in one step; None = no such file."""
        half = final.with_name(f".new-{final.name}")
        with self._disk():
            half.mkdir(parents=True)
            for name, content in files.items():
                if content is not None:
                    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
                    (half / name).write_bytes(data)
                    _sync(half / name)
            half.rename(final)
            _sync(final.parent)

    def _write_head(self) -> None:
        self.write("run.json", {"format": FORMAT, "config": self.config, "stop": self.stop})

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            started = (self.path / "run.json").exists()
            raise UserError(
                f"cannot write the run in {self.path}: {error.strerror or error}. "
                + (
                    "What is archived is kept; make room, or make it writable; go on with "
                    f"`autotts search --resume --out {self.path}`"
                    if started
                    else "Give --out a folder that can be written"
                )
            ) from error


def _document(file: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError(f"a {type(document).__name__} where an object belongs")
    except ValueError as error:
        raise UserError(
            f"{file} is damaged ({error}); restore it from a copy, or start another run"
        ) from error
    return document


def _text(file: Path) -> str | None:
    # As bytes: reading as text would turn one kind of line end into another.
    return file.read_bytes().decode() if file.is_file() else None


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _sync(path: Path) -> None:
    # A folder cannot be opened on Windows; renaming is atomic there all the same.
    with suppress(PermissionError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
