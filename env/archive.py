"""What was played, kept in a folder: an evaluation that was interrupted goes on, and none plays a unit twice.

A file of the folder is one unit of work, named after its controller, its beta and a digest of everything that
its outcome depends on. What has changed, be it the store, the controller's file or the number of seeds, thus
has another name and is played anew; what has not is found, whoever asks for it.
"""

import hashlib
import json
import re
from pathlib import Path

from env import files
from env.evaluate import Episodes
from env.isolation.wire import pack
from env.store import Store
from env.unit import Unit, helpers

# Raised whenever the same unit would come to other figures than before.
FORMAT = 1
SCHEDULE = "schedule"


class Archive:
    """Episodes of units, a Parquet file each, which is there whole or not at all.

    Attributes:
        path: the folder.
        played: (store, controller) of the units that were put there by this very object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.played: set[tuple[str, str]] = set()
        self._stores: dict[str, str] = {}

    def get(self, unit: Unit) -> Episodes | None:
        """The episodes of a unit; None if they are not there, or damaged."""
        import polars as pl

        try:
            frame = pl.read_parquet(self._file(unit))
            told = json.loads(frame[SCHEDULE][0])
        except (OSError, ValueError, pl.exceptions.PolarsError):
            return None
        key = unit.program.name, unit.beta
        return Episodes(frame.drop(SCHEDULE), {} if told is None else {key: told})

    def put(self, unit: Unit, episodes: Episodes) -> None:
        """Keep the episodes of a unit.

        Raises:
            UserError: the disk refuses.
        """
        import polars as pl

        told = json.dumps(next(iter(episodes.schedules.values()), None))
        file = self._file(unit)
        files.ready(file)
        files.write(file, files.as_parquet(episodes.frame.with_columns(pl.lit(told).alias(SCHEDULE))))
        self.played.add((unit.store, unit.program.name))

    def _file(self, unit: Unit) -> Path:
        identity = {
            **vars(unit),
            "format": FORMAT,
            "contents": self._contents(unit.store),
            "program": (unit.program.name, unit.program.source, unit.program.trusted, helpers()),
            "overrides": pack(dict(unit.overrides)),
            "costs": [(spec, _named_files(spec)) for spec in unit.costs],
        }
        digest = hashlib.sha256(repr(sorted(identity.items())).encode("utf-8", "replace")).hexdigest()
        return self.path / f"{unit.program.name}-{unit.beta:g}-{digest[:16]}.parquet"

    def _contents(self, store: str) -> str:
        """What a store holds: its store.json has a checksum of every shard."""
        if store not in self._stores:
            self._stores[store] = json.dumps(Store.open(store).meta, sort_keys=True)
        return self._stores[store]


def _named_files(spec: str) -> list[bytes]:
    """What is in the files that a cost names: price tables, measured speeds, a function of the user's."""
    return [Path(part).read_bytes() for part in re.split("[:,=]", spec) if Path(part).is_file()]
