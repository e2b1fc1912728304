"""The search with `compose` against its controls, at equal wall time on the bundled stores.

    python -m tests.benchmarks.search --minutes 15 --repetitions 5
    git worktree add ../first f5369ec  # the first search loop
    python -m tests.benchmarks.search --arms race random --against ../first

Arms: `race`, the search as it is; `plain`, without racing: every program is measured whole; `random`, with
`RandomSampler` over the same grammar instead of proposals that build on others; `random plain`, both; with
`--against`, the search of another checkout. Each repetition has its own seed. Prints a line a run, then for
each arm the median of the winner's hypervolume on the hold-out, which has problems of its own, and of the
programs tried.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data" / "stores"
ARMS = {
    "race": [],
    "plain": ["--ablate", "racing"],
    "random": ["--ablate", "feedback"],
    "random plain": ["--ablate", "feedback", "--ablate", "racing"],
}


def searched(checkout: Path, out: Path, options: list[str]) -> dict[str, float]:
    """The winner's hypervolumes, how many programs were tried, and how long it took."""
    started = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "autotts",
        "search",
        *options,
        "--proposer",
        "compose",
        "--out",
        str(out),
    ]
    failed = subprocess.run(command, cwd=checkout, stdout=subprocess.DEVNULL).returncode
    seconds = time.monotonic() - started
    if failed or not (out / "holdout.json").exists():
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
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="of this repository, at another time"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--stores", nargs="+", default=[str(DATA / "tiny-search")])
    parser.add_argument("--holdout", nargs="+", default=[str(DATA / "tiny-holdout")])
    args = parser.parse_args()
    arms = {arm: (ROOT, ARMS[arm]) for arm in args.arms}
    if args.against is not None:
        arms[str(args.against)] = args.against, []
    figures: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    stores, holdout = ([str(Path(store).resolve()) for store in some] for some in (args.stores, args.holdout))
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.repetitions):
            for number, (arm, (checkout, options)) in enumerate(arms.items()):
                words = [*stores, "--holdout", *holdout, "--minutes", str(args.minutes)]
                words += ["--workers", str(args.workers), "--seed", str(seed), *options]
                found = searched(checkout, Path(folder) / f"{seed}-{number}", words)
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
