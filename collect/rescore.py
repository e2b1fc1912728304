"""The scores of another process reward model in a store, everything else as it was, byte for byte."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from collect.collection import Progress, Scoring, silent
from collect.existing import Existing
from collect.folder import WorkFolder, as_stored
from env.errors import UserError
from env.nodes import Nodes
from env.schema import FORMAT_VERSION, META_FILE, NODES, StoreError
from env.store import Store
from env.store_folder import StoreFolder, refuse_occupied
from env.store_writer import generator_version


class Rescoring:
    """A store, another PRM, and the store that they become; killed anywhere, it goes on where it was.

    Args:
        source: the store.
        out: the store to make; with `force` it may be the source itself, which is replaced in one step.
        scoring: the PRM.
        group: problems that are scored, and kept, at a time.
        force: replace a store that is at `out`.

    Raises:
        StoreError: there is no store, or something is in the way.
        UserError: the store has no texts.
    """

    def __init__(
        self, source: Path, out: Path, scoring: Scoring, group: int = 8, force: bool = False
    ) -> None:
        self.existing, self.out = Existing(source), out
        self._scoring, self._force = scoring, force
        problems = len(self.existing.problems)
        self.groups = [range(at, min(at + group, problems)) for at in range(0, problems, group)]
        self.made_from = made_from(self.existing, "rescore")
        self.folder = WorkFolder(out, {"rescore": self.existing.origin(), "group": group})
        self.complete = not force and is_made(out, self.made_from, as_stored(scoring.recipe))
        if self.complete:
            return
        if "text" not in self.existing.store.capabilities:
            raise UserError(f"{source} has no texts, which a PRM would read; score a store that has them")
        refuse_occupied(out, force)

    def run(self, progress: Progress = silent) -> None:
        """Scores what is left to score, and makes the store.

        Raises:
            UserError: the PRM cannot be loaded, or something cannot be written.
        """
        if not self.complete:
            self.folder.open()
            with self.folder.locked():
                self.score(progress)
                self.store()
        self.folder.remove()

    def score(self, progress: Progress = silent) -> None:
        """Scores every group that is not scored yet."""
        # Scores of another source, or in other groups, are no use.
        self.folder.open_scores({**self._scoring.recipe, **self.folder.recipe})

        def trees_of(group: int) -> list[tuple[int, str, Nodes]]:
            existing = self.existing
            return [(n, existing.problems[n].question, existing.nodes(n)) for n in self.groups[group]]

        self._scoring.score(self.folder, range(len(self.groups)), trees_of, progress)

    def store(self) -> None:
        """Makes the store of the scores and the source's files."""
        store, scoring = self.existing.store, self._scoring
        scores = (tree for group in range(len(self.groups)) for tree in self.folder.read_scores(group))
        with StoreFolder(self.out, self._force) as folder:
            for name, facts in store.meta["files"].items():
                if not name.startswith("nodes/"):
                    folder.copy(name, store.read_bytes(name), facts)
                    continue
                table = store.read(name)
                column: list[Any] = []
                while len(column) < len(table):
                    column += next(scores)
                field = NODES.field("prm")
                table = table.set_column(
                    table.schema.get_field_index("prm"), field, pa.array(column, field.type)
                )
                folder.write(name, table, **{key: facts[key] for key in facts.keys() - {"rows", "sha256"}})
            provenance = store.meta["provenance"] | {
                "prm": as_stored(scoring.recipe),
                "made_from": self.made_from,
            }
            folder.publish(
                store.meta
                | {
                    "format_version": FORMAT_VERSION,
                    "generator": generator_version(),
                    "prm": scoring.name,
                    "provenance": provenance,
                    "capabilities": sorted(store.capabilities | {"prm"}),
                }
            )


def made_from(existing: Existing, how: str) -> dict[str, Any]:
    """What the provenance of a store says of the one that it was made of, and that one of its own source."""
    before = existing.store.meta.get("provenance", {}).get("made_from")
    return {"how": how, **existing.origin(), **({"made_from": before} if before else {})}


def is_made(out: Path, made_from: Mapping[str, Any], prm: Any, read: Mapping[str, Any] | None = None) -> bool:
    """Whether the store at `out` is there, made of just this source, with just these scores and readings."""
    if not (out / META_FILE).is_file():
        return False
    try:
        provenance = Store.open(out).meta.get("provenance", {})
    except StoreError:
        return False
    said = [provenance.get(name) for name in ("made_from", "prm", "read")]
    return said == [made_from, prm, read]
