"""The search with `compose` against its controls, at equal wall time on the bundled stores.

    python -m tests.benchmarks.search --minutes 15 --repetitions 5

Arms: `race`, the search as it is; `plain`, without racing: every program is measured whole; `random`, with
`RandomSampler` over the same grammar instead of proposals that build on others; `random plain`, both. Each
repetition has its own seed. Prints a line a run, then for each arm the median of the winner's hypervolume on
the hold-out, which has problems of its own, and of the programs tried.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import autotts

DATA = Path(__file__).resolve().parents[2] / "data" / "stores"
ARMS = {
    "race": [],
    "plain": ["--ablate", "racing"],
    "random": ["--ablate", "feedback"],
    "random plain": ["--ablate", "feedback", "--ablate", "racing"],
}


def searched(out: Path, options: list[str]) -> dict[str, float]:
    """The winner's hypervolumes, how many programs were tried, and how long it took."""
    started = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        code = autotts.main(["search", *options, "--proposer", "compose", "--out", str(out)])
    seconds = time.monotonic() - started
    if code or not (out / "holdout.json").exists():
        return {"hold-out": 0.0, "selection": 0.0, "programs": 0, "seconds": seconds}
    holdout = json.loads((out / "holdout.json").read_text())
    finalists = json.loads((out / "finalists.json").read_text())["finalists"]
    name = f"round {holdout['winner']}"
    return {
        "hold-out": next(row["hypervolume"] for row in holdout["rows"] if row["controller"] == name),
        "selection": max(each["selection"]["hypervolume"] for each in finalists),
        "programs": len(list(out.glob("rounds/*/round.json"))),
        "seconds": seconds,
    }


def main() -> int:
    """Run all arms in turn, so that a busy machine is unfair to all of them alike."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--stores", nargs="+", default=[str(DATA / "tiny-search")])
    parser.add_argument("--holdout", nargs="+", default=[str(DATA / "tiny-holdout")])
    args = parser.parse_args()
    figures: dict[str, list[dict[str, float]]] = {arm: [] for arm in args.arms}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.repetitions):
            for arm in args.arms:
                words = [*args.stores, "--holdout", *args.holdout, "--minutes", str(args.minutes)]
                words += ["--workers", str(args.workers), "--seed", str(seed), *ARMS[arm]]
                found = searched(Path(folder) / f"{arm} {seed}".replace(" ", "-"), words)
                figures[arm].append(found)
                told = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
                print(f"{arm:<13} seed {seed}: {told}", flush=True)
    print(f"\nmedians of {args.repetitions} repetitions of {args.minutes:g} minutes")
    for arm, runs in figures.items():
        medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        print(f"{arm:<13} " + ", ".join(f"{name} {value:.4g}" for name, value in medians.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
