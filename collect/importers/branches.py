"""Branches on their way into a store: whatever a file looks like, its importer turns it into these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collect.importers.checking import ImportFileError, Record, adding
from env.forest import END_STOP, hash_question
from env.nodes import Nodes
from env.store_writer import StoreWriter, hash_file, refuse_occupied


@dataclass(slots=True)
class Segment:
    """A piece of a branch.

    Attributes:
        tokens: how many it has.
        text: what they say; None = it stands in another segment.
        answer: what a probe at its end says, or the branch's final answer; None = none.
        probed: whether a probe was asked at its end.
        cost: tokens that asking cost, -1 = unknown.
        scores: a process reward model's, of the steps that ended in it.
    """

    tokens: int
    text: str | None = None
    answer: str | None = None
    probed: bool = False
    cost: int = -1
    scores: Sequence[float] = ()


@dataclass(slots=True)
class Branch:
    """One sample; `end` says why it ended, as in `env.forest`."""

    segments: list[Segment]
    end: int = END_STOP


@dataclass(slots=True)
class Problem:
    """The branches of one problem; `where` it was first named, for errors."""

    question: str
    gold: str
    where: str
    branches: list[Branch] = field(default_factory=list)


class Problems:
    """Branches by problem: what has the same question belongs together, in whichever file it is.

    Args:
        out: the store that they will make.
        force: replace what is there.

    Raises:
        StoreError: something is there and may not be replaced.
    """

    def __init__(self, out: str | Path, force: bool) -> None:
        # Reading may take a while, so better now than at the end.
        if not force:
            refuse_occupied(Path(out))
        self._out, self._force = out, force
        self._problems: dict[str, Problem] = {}

    def add(
        self, record: Record, question: str, gold: str, gold_field: str, branches: Iterable[Branch]
    ) -> None:
        """Adds branches. Raises ImportFileError if the problem came with another gold answer before."""
        new = Problem(question, gold, record.where)
        problem = self._problems.setdefault(hash_question(question), new)
        if gold != problem.gold:
            record.refuse(
                gold_field, f"is {gold!r}, but {problem.gold!r} in {problem.where} for the same problem"
            )
        problem.branches += branches

    def branches(self) -> list[Branch]:
        """All of them."""
        return [branch for problem in self._problems.values() for branch in problem.branches]

    def store(self, progress: Callable[[int, int], None], **about: Any) -> None:
        """Writes the store; `about` it goes to `StoreWriter`, whose errors name the problem here."""
        with StoreWriter(self._out, force=self._force, **about) as writer:
            for number, problem in enumerate(self._problems.values(), 1):
                with adding(problem.where):
                    writer.add_problem(problem.question, problem.gold, _nodes(problem.branches))
                progress(number, len(self._problems))


def provenance(form: str, files: Iterable[Path], **more: Any) -> dict[str, Any]:
    """What a store says of the files that it was made of. Raises ImportFileError if two are the same."""
    hashes: dict[str, Path] = {}
    for file in files:
        if (first := hashes.setdefault(hash_file(file), file)) is not file:
            raise ImportFileError(f"{file} and {first} are the same; name it once, else branches count twice")
    return {"format": form, "files": [{"file": f.name, "sha256": h} for h, f in hashes.items()], **more}


def one_of(names: Mapping[Path, str], what: str) -> str:
    """The name that all files agree on. Raises ImportFileError if they do not; `what` is an option too."""
    (first, name), *others = names.items()
    for file, other in others:
        if other != name:
            raise ImportFileError(
                f"{first} has the {what} {name!r}, {file} has {other!r}; import each alone, or say --{what}"
            )
    return name


def _nodes(branches: Sequence[Branch]) -> Nodes:
    rows = [segment for branch in branches for segment in branch.segments]
    parent: list[int] = []
    end: list[int] = []
    for branch in branches:
        inner = len(branch.segments) - 1
        parent += [-1, *range(len(parent), len(parent) + inner)]
        end += [0] * inner + [branch.end]
    return Nodes(
        parent=parent,
        tokens=[row.tokens for row in rows],
        answer=[row.answer for row in rows],
        probed=[row.probed for row in rows],
        end=end,
        probe_tokens=[row.cost for row in rows],
        prm=[row.scores for row in rows] if any(row.scores for row in rows) else None,
        text=[row.text for row in rows],
    )
