"""What a store lacks for the controllers that were played on it, as an evaluation wrote it down."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from collect.existing import Existing
from env.errors import UserError
from env.misses import MISSES, ROOT

# For a problem (by name) and an arm: by node the children that it should have more, at ROOT the root branches
# that there should be in all.
Lacking = dict[tuple[str, int], dict[int, int]]


def read_misses(run: Path, existing: Existing, most: int | None = None) -> Lacking:
    """What `autotts evaluate --out` found missing; see `env.misses.find_misses`.

    Args:
        run: the folder of the evaluation.
        existing: the store that is to be extended.
        most: root branches that a problem is to have at most; None = as many as are missing.

    Raises:
        UserError: there is no such evaluation, or it was one of other stores.
    """
    file = run / MISSES
    try:
        rows = pq.read_table(file).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{file} cannot be read: {error}; make it with `autotts evaluate {existing.store.path} "
            f"--controller ... --out {run}`"
        ) from error
    found: Lacking = {}
    others = set()
    for row in rows:
        if row["sha256"] != existing.store.sha256:
            others.add(row["store"])
            continue
        wanted = row["wanted"]
        if row["node"] == ROOT and most is not None:
            wanted = min(wanted, most)
        found.setdefault((row["problem"], row["arm"]), {})[row["node"]] = wanted
    if not found and others:
        raise UserError(
            f"{file} is about {', '.join(sorted(others))}, not about {existing.store.path} as it is now; "
            "evaluate on this store again"
        )
    if not found:
        raise UserError(f"{file} names nothing that is missing: every controller got what it asked for")
    return found


def digest_of(lacking: Mapping[tuple[str, int], Mapping[int, int]]) -> str:
    """A name for these misses, the same wherever they are."""
    rows = sorted([*key, *sorted(places.items())] for key, places in lacking.items())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
