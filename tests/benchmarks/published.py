"""Every row of published.csv, replayed: `python -m tests.benchmarks.published` from the repository's root.

Reads the recordings from AUTOTTS_REPLAY_DIR (default ../shared/replay), imports them into a temporary folder
and prints a line a row, then a verdict. The exit code says whether all agree (1e-6, 1e-3).
"""

import csv
import os
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from collect.importers.autotts import import_files
from env.evaluate import evaluate
from env.program import Program
from env.store import Store

ROOT = Path(__file__).resolve().parents[2]


def program(name: str) -> Program:
    """A shipped controller."""
    path = ROOT / "controllers" / f"{name}.py"
    return Program(name, path.read_text(encoding="utf-8"), trusted=True, path=path)


def main() -> int:
    """Replay all rows; returns how many disagree, as an exit code."""
    replay = Path(os.environ.get("AUTOTTS_REPLAY_DIR", ROOT.parent / "shared" / "replay"))
    with open(replay / "published.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    recorded = sorted({(row["model"], row["dataset"]) for row in rows})
    started, wrong = time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        import_files([replay / model / f"{dataset}.json" for model, dataset in recorded], folder)
        for row in rows:
            store = Store.open(Path(folder) / row["model"] / row["dataset"])
            key, value = row["setting"].split("=")
            frame = evaluate(
                [store],
                [program(row["controller"])],
                betas=[float(value) if key == "beta" else 0.5],
                settings={} if key == "beta" else {key: int(value)},
                protocol="published",
                workers=1,
            ).frame
            errors = frame.select((pl.col("error") != "").sum()).item()
            accuracy, tokens = frame["correct"].mean(), frame["tokens"].mean()
            off = accuracy - float(row["accuracy"]), tokens - float(row["tokens"])
            agrees = abs(off[0]) <= 1e-6 and abs(off[1]) <= 1e-3 and not errors
            wrong += not agrees
            print(
                f"{row['model']:<11}{row['dataset']:<8}{row['controller']:<27}{row['setting']:<17}"
                f"{accuracy:.6f} {tokens:>14.4f}  {'agrees' if agrees else f'OFF BY {off}, {errors} errors'}",
                flush=True,
            )
    print(f"{len(rows) - wrong} of {len(rows)} rows agree ({time.perf_counter() - started:.0f} s)")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
